//! The names of build logs, and which logs to remove. Pure.
//!
//! A name is `<UTC time>_<version>_<attempt>.log`, such as `20261122T114011.793Z_1.7.1-1_2.log`. So
//! a recipe's logs sort by time, and a version has no underscore. The log of an attempt that
//! succeeded ends in `.ok.log`, so the names alone tell which logs are worth keeping.

use std::collections::HashMap;
use std::time::SystemTime;

use peipkg_format::sort;

/// The extension of the log of an attempt that succeeded.
pub(super) const OF_SUCCESS: &str = "ok.log";

/// How many logs a recipe keeps, including the attempt in progress. With
/// [`super::capped_file::CAP`], a recipe's logs take 90 MiB at most.
pub(super) const KEPT: usize = 30;

/// How to begin the next log of a recipe.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The attempt's number: one more than the highest at its version among the logs.
    pub(super) attempt: u32,
    /// The logs to remove first.
    pub(super) doomed: Vec<String>,
}

/// Returns the name of the log of an attempt that begins at `time`.
pub(super) fn name(time: SystemTime, version: &str, attempt: u32) -> String {
    format!("{}_{version}_{attempt}.log", stamp(time))
}

/// Tells whether `name` is the name of a log.
pub(super) fn is_log(name: &str) -> bool {
    parse(name).is_some()
}

/// How much a log is worth, least first. Among logs of the same worth, the oldest is removed first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// A wrong clock gave it a time in the future, so it would never be the oldest.
    OfTheFuture,
    /// Its attempt, or the latest attempt at its version, succeeded.
    Settled,
    /// A later attempt at its version failed too.
    Superseded,
    /// The latest attempt at its version failed or was cut short. An event or `/status` may name
    /// this log.
    Last,
}

/// Plans the log of an attempt at `version` that begins at `time`. `names` are those in the
/// recipe's directory.
pub(super) fn plan(names: &[String], version: &str, time: SystemTime) -> Plan {
    let now = stamp(time);
    let logs: Vec<(&String, Log<'_>)> = names.iter().filter_map(|name| Some((name, parse(name)?))).collect();
    let mut latest: HashMap<&str, (&str, u32, bool)> = HashMap::new();
    for (_, log) in &logs {
        let latest = latest.entry(log.version).or_default();
        *latest = (*latest).max((log.time, log.attempt, log.is_of_success));
    }
    let worth = |log: &Log<'_>| {
        let (time, attempt, has_succeeded) = latest[log.version];
        if log.time > now.as_str() {
            Worth::OfTheFuture
        } else if log.is_of_success || has_succeeded {
            Worth::Settled
        } else if (log.time, log.attempt) < (time, attempt) {
            Worth::Superseded
        } else {
            Worth::Last
        }
    };
    let of_version = logs.iter().filter(|(_, log)| log.version == version);
    let last = of_version.map(|(_, log)| log.attempt).max().unwrap_or(0);
    let mut doomed = logs.clone();
    sort::sort_by(&mut doomed, |(_, a), (_, b)| {
        (worth(a), a.time, a.attempt).cmp(&(worth(b), b.time, b.attempt))
    });
    doomed.truncate((doomed.len() + 1).saturating_sub(KEPT));
    Plan { attempt: last.saturating_add(1), doomed: doomed.iter().map(|(name, _)| (*name).clone()).collect() }
}

/// Writes a time without `-` and `:`. scp, for one, takes the part before a colon for a host.
fn stamp(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string().replace(['-', ':'], "")
}

/// The parts of a log's name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Log<'a> {
    time: &'a str,
    version: &'a str,
    attempt: u32,
    is_of_success: bool,
}

fn parse(name: &str) -> Option<Log<'_>> {
    let stem = name.strip_suffix(".log")?;
    let (stem, is_of_success) = stem.strip_suffix(".ok").map_or((stem, false), |stem| (stem, true));
    let (time, rest) = stem.split_once('_')?;
    let (version, attempt) = rest.split_once('_')?;
    let is_like = |(byte, like): (u8, u8)| if like == b'0' { byte.is_ascii_digit() } else { byte == like };
    let form = b"00000000T000000.000Z";
    let is_time = time.len() == form.len() && time.bytes().zip(*form).all(is_like);
    let attempt = attempt.bytes().all(|byte| byte.is_ascii_digit()).then(|| attempt.parse().ok())??;
    (is_time && !version.is_empty()).then_some(Log { time, version, attempt, is_of_success })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn name_of_success(name: &str) -> String {
        Path::new(name).with_extension(OF_SUCCESS).to_str().unwrap().to_owned()
    }

    fn names(count: u64) -> Vec<String> {
        (0..count).map(|second| name(at(second), "1.0-1", 1)).collect()
    }

    #[test]
    fn name_has_time_version_and_attempt() {
        let time = at(1_700_000_000) + Duration::from_millis(42);
        assert_eq!(name(time, "1:2.0~rc1-3", 7), "20231114T221320.042Z_1:2.0~rc1-3_7.log");
        let mut expected =
            Log { time: "20231114T221320.042Z", version: "1:2.0~rc1-3", attempt: 7, is_of_success: false };
        assert_eq!(parse("20231114T221320.042Z_1:2.0~rc1-3_7.log").unwrap(), expected);
        let success = name_of_success("20231114T221320.042Z_1:2.0~rc1-3_7.log");
        assert_eq!(success, "20231114T221320.042Z_1:2.0~rc1-3_7.ok.log");
        expected.is_of_success = true;
        assert_eq!(parse(&success).unwrap(), expected);
        let longest = name(time, &"9".repeat(peipkg_format::version::Version::MAX_LEN), u32::MAX);
        let longest = name_of_success(&longest);
        assert!(longest.len() <= 255, "{longest}");
    }

    #[test]
    fn name_of_another_file_is_no_log() {
        for other in [
            "",
            "notes.txt",
            "20231114T221320.042Z_1.0-1_1.log.gz",
            "20231114T221320.042Z_1.0-1_.log",
            "20231114T221320.042Z_1.0-1_x.log",
            "20231114T221320.042Z_1.0-1_.ok.log",
            "20231114T221320.042Z_1.0-1_1.ok.ok.log",
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
    fn attempt_follows_those_of_its_version() {
        let logs = [name(at(1), "1.0-1", 1), name(at(2), "1.1-1", 9), name(at(3), "1.0-1", 2)].to_vec();
        assert_eq!(plan(&logs, "1.0-1", at(9)).attempt, 3);
        assert_eq!(plan(&logs, "1.1-1", at(9)).attempt, 10);
        assert_eq!(plan(&logs, "1.2-1", at(9)).attempt, 1);
        assert_eq!(plan(&[name_of_success(&logs[2])], "1.0-1", at(9)).attempt, 3);
        assert_eq!(plan(&[name(at(1), "1.0-1", u32::MAX)], "1.0-1", at(9)).attempt, u32::MAX);
    }

    #[test]
    fn plan_of_a_full_directory_removes_the_oldest() {
        let kept = KEPT as u64;
        for (count, doomed) in [(0, 0), (1, 0), (kept - 1, 0), (kept, 1), (kept + 5, 6)] {
            let mut shuffled = names(count);
            shuffled.reverse();
            let plan = plan(&shuffled, "1.0-1", at(1_000_000));
            assert_eq!(plan.doomed, names(doomed), "{count}");
        }
    }

    #[test]
    fn latest_log_of_a_failing_version_is_removed_last() {
        let failed = |second: u64, version: &str| name(at(second), version, 1);
        let succeeded = |second: u64, version: &str| name_of_success(&failed(second, version));
        // The oldest failed, the next version failed twice, and all others succeeded.
        let mut logs = vec![failed(0, "900.0-1"), failed(1, "800.0-1"), name(at(2), "800.0-1", 2)];
        logs.extend((3..KEPT as u64).map(|number| succeeded(number, &format!("{number}.0-1"))));
        let doomed = |logs: &[String]| plan(logs, "1.0-1", at(1_000_000)).doomed;
        assert_eq!(doomed(&logs), [succeeded(3, "3.0-1")]);
        // Without successes, a superseded log is removed first.
        logs.truncate(3);
        logs.extend((3..KEPT as u64).map(|number| failed(number, &format!("{number}.0-1"))));
        assert_eq!(doomed(&logs), [failed(1, "800.0-1")]);
        logs.push(failed(500, "500.0-1"));
        assert_eq!(doomed(&logs), [failed(1, "800.0-1"), failed(0, "900.0-1")]);
        // A success settles the failures before it.
        let logs: Vec<String> =
            (0..KEPT as u64).map(|number| failed(number, &format!("{number}.0-1"))).collect();
        let mended = [&logs[..], &[succeeded(100, "7.0-1")]].concat();
        assert_eq!(doomed(&mended), [failed(7, "7.0-1"), succeeded(100, "7.0-1")]);
    }

    #[test]
    fn log_with_a_future_time_is_removed_first() {
        let mut logs = names(KEPT as u64);
        let future = name(at(2_000_000), "1.0-1", 1);
        logs.push(future.clone());
        assert_eq!(plan(&logs, "1.0-1", at(1_000_000)).doomed, [future, name(at(0), "1.0-1", 1)]);
        // A log of this instant is not of the future.
        let logs = names(KEPT as u64);
        assert_eq!(plan(&logs, "1.0-1", at(KEPT as u64 - 1)).doomed, names(1));
    }
}
