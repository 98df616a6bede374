//! What the files of build logs are called, and which of them go. Pure.
//!
//! `<UTC time>_<version>_<attempt>.log`, such as `20261122T114011.793Z_1.7.1-1_2.log`: the names of a recipe's
//! logs sort by time. No version has an underscore.

use std::time::SystemTime;

/// How many logs of a recipe are kept, that of the attempt in progress included: with [`super::cap::CAP`], some
/// 90 MiB a recipe at the very most.
pub(super) const KEPT: usize = 30;

/// The next log of a recipe.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Which attempt at its version it is, as far as the logs can tell.
    pub(super) attempt: u32,
    /// The logs that have to go to make room for it.
    pub(super) doomed: Vec<String>,
}

/// The name of the log of an attempt that begins at `time`.
pub(super) fn name(time: SystemTime, version: &str, attempt: u32) -> String {
    format!("{}_{version}_{attempt}.log", stamp(time))
}

/// Whether a log may have this name.
pub(super) fn is_log(name: &str) -> bool {
    parse(name).is_some()
}

/// Decides about the next log, of an attempt at `version`, from the names in the recipe's directory.
pub(super) fn plan(names: &[String], version: &str, time: SystemTime) -> Plan {
    let now = stamp(time);
    let mut logs: Vec<(bool, &str, u32, &String)> = Vec::new();
    let mut last = 0;
    for name in names {
        let Some((time, of, attempt)) = parse(name) else { continue };
        if of == version {
            last = last.max(attempt);
        }
        // What claims to be of the future was written under a wrong clock. It goes first: it would stay for ever.
        logs.push((time <= now.as_str(), time, attempt, name));
    }
    logs.sort();
    logs.truncate((logs.len() + 1).saturating_sub(KEPT));
    Plan { attempt: last.saturating_add(1), doomed: logs.iter().map(|(.., name)| (*name).clone()).collect() }
}

/// A time without the characters that have a meaning elsewhere, such as the colon for scp.
fn stamp(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string().replace(['-', ':'], "")
}

/// Time, version and attempt.
fn parse(name: &str) -> Option<(&str, &str, u32)> {
    let (time, rest) = name.strip_suffix(".log")?.split_once('_')?;
    let (version, attempt) = rest.split_once('_')?;
    let is_like = |(byte, like): (u8, u8)| if like == b'0' { byte.is_ascii_digit() } else { byte == like };
    let form = b"00000000T000000.000Z";
    let is_time = time.len() == form.len() && time.bytes().zip(*form).all(is_like);
    let attempt = attempt.bytes().all(|byte| byte.is_ascii_digit()).then(|| attempt.parse().ok())??;
    (is_time && !version.is_empty()).then_some((time, version, attempt))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn names(count: u64) -> Vec<String> {
        (0..count).map(|second| name(at(second), "1.0-1", 1)).collect()
    }

    #[test]
    fn a_name_says_when_what_and_which() {
        let time = at(1_700_000_000) + Duration::from_millis(42);
        assert_eq!(name(time, "1:2.0~rc1-3", 7), "20231114T221320.042Z_1:2.0~rc1-3_7.log");
        assert_eq!(
            parse("20231114T221320.042Z_1:2.0~rc1-3_7.log"),
            Some(("20231114T221320.042Z", "1:2.0~rc1-3", 7))
        );
        let longest = name(time, &"9".repeat(crate::version::Version::MAX_LEN), u32::MAX);
        assert!(longest.len() <= 255, "{longest}");
    }

    #[test]
    fn other_files_are_no_logs() {
        for other in [
            "",
            "notes.txt",
            "20231114T221320.042Z_1.0-1_1.log.gz",
            "20231114T221320.042Z_1.0-1_.log",
            "20231114T221320.042Z_1.0-1_x.log",
            "20231114T221320.042Z_1.0-1_+1.log",
            "20231114T221320.042Z_1.0-1_1_1.log",
            "20231114T221320.042Z_1.0-1.log",
            "20231114T221320.042Z__1.log",
            "20231114T221320Z_1.0-1_1.log",
            "yesterday_1.0-1_1.log",
            "20231114T221320.042Z_1.0-1_99999999999.log",
        ] {
            assert!(!is_log(other), "{other}");
            let plan = plan(&vec![other.to_owned(); 100], "1.0-1", at(0));
            assert_eq!(plan, Plan { attempt: 1, doomed: Vec::new() }, "{other}");
        }
    }

    #[test]
    fn an_attempt_counts_on_from_those_of_its_version() {
        let logs = [name(at(1), "1.0-1", 1), name(at(2), "1.1-1", 9), name(at(3), "1.0-1", 2)].to_vec();
        assert_eq!(plan(&logs, "1.0-1", at(9)).attempt, 3);
        assert_eq!(plan(&logs, "1.1-1", at(9)).attempt, 10);
        assert_eq!(plan(&logs, "1.2-1", at(9)).attempt, 1);
        assert_eq!(plan(&[name(at(1), "1.0-1", u32::MAX)], "1.0-1", at(9)).attempt, u32::MAX);
    }

    #[test]
    fn the_oldest_make_room() {
        let kept = KEPT as u64;
        for (count, doomed) in [(0, 0), (1, 0), (kept - 1, 0), (kept, 1), (kept + 5, 6)] {
            let mut shuffled = names(count);
            shuffled.reverse();
            let plan = plan(&shuffled, "1.0-1", at(1_000_000));
            assert_eq!(plan.doomed, names(doomed), "{count}");
        }
    }

    #[test]
    fn what_is_of_the_future_goes_first() {
        let mut logs = names(KEPT as u64);
        let future = name(at(2_000_000), "1.0-1", 1);
        logs.push(future.clone());
        assert_eq!(plan(&logs, "1.0-1", at(1_000_000)).doomed, [future, name(at(0), "1.0-1", 1)]);
        // Of the same instant is not of the future.
        let logs = names(KEPT as u64);
        assert_eq!(plan(&logs, "1.0-1", at(KEPT as u64 - 1)).doomed, names(1));
    }
}
