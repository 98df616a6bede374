//! The log as people read it on a terminal: one short, aligned line for each event. Operators' tools
//! read the other form, logfmt, which [`super::logging`] writes everywhere else. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use log::Level;
use peipkg_format::duration;
use peipkg_format::problem::OneLine;

use super::logfmt::Quoted;

/// The width of the column of messages: the common ones fit.
const MESSAGE: usize = 24;

/// Colours, as the terminal's escape sequences; empty on one without colours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Colours {
    pub(super) dim: &'static str,
    pub(super) bold: &'static str,
    pub(super) yellow: &'static str,
    pub(super) red: &'static str,
    pub(super) off: &'static str,
}

impl Colours {
    pub(super) const NONE: Self = Self { dim: "", bold: "", yellow: "", red: "", off: "" };
    pub(super) const ANSI: Self =
        Self { dim: "\x1b[2m", bold: "\x1b[1m", yellow: "\x1b[33m", red: "\x1b[1;31m", off: "\x1b[0m" };
}

/// Returns the line of an event at `time`, `HH:MM:SS`, without its line feed. `fields` are keys and
/// values in their order; a value is any text.
pub(super) fn line(
    time: &str,
    level: Level,
    message: &str,
    fields: &[(String, String)],
    colours: Colours,
) -> String {
    let Colours { dim, bold, off, .. } = colours;
    let colour = match level {
        Level::Error => colours.red,
        Level::Warn => colours.yellow,
        _ => dim,
    };
    let field = |key: &str| fields.iter().find(|(known, _)| key == known).map(|(_, value)| value.as_str());
    let level = level.as_str().to_ascii_lowercase();
    let mut line = format!("{dim}{time}{off} {colour}{level:<5}{off} {:<MESSAGE$}", shown(message));
    // Writing to a string cannot fail.
    if let Some(recipe) = field("recipe") {
        let version = field("version").map(|version| format!(" {}", shown(version))).unwrap_or_default();
        let _ = write!(line, " {bold}{}{version}{off}", shown(recipe));
    }
    let is_subject = |key: &str| field("recipe").is_some() && matches!(key, "recipe" | "version");
    // The first failure need not be counted.
    let is_plain = |key: &str, value: &str| key == "failures" && value == "1";
    let add = |line: &mut String, key: &str, value: &str| {
        let value = if is_duration(key) { rounded(value) } else { value.to_owned() };
        let _ = write!(line, " {dim}{}={off}{}", shown(key), Quoted(&value));
    };
    for (key, value) in fields {
        if !(is_subject(key) || is_sentence(key) || is_plain(key, value) || key == "log") {
            add(&mut line, key, value);
        }
    }
    for (_, text) in fields.iter().filter(|(key, _)| is_sentence(key)) {
        // The build log has what the programs around the cause said.
        let cause = text.rsplit_once("; before that: ").filter(|_| field("log").is_some());
        let text = cause.map_or_else(|| text.clone(), |(_, cause)| format!("... {cause}"));
        let _ = write!(line, " {}", shown(&text));
    }
    // A long path would hide the cause.
    if let Some(log) = field("log") {
        add(&mut line, "log", log);
    }
    line.truncate(line.trim_end().len());
    line
}

/// Shows a text as it is, but for the characters that would end the line or control the terminal.
fn shown(text: &str) -> String {
    OneLine(text).to_string()
}

/// Whether the value of `key` is a sentence, which needs no key and no quotes.
fn is_sentence(key: &str) -> bool {
    matches!(key, "error" | "reason" | "problem")
}

fn is_duration(key: &str) -> bool {
    matches!(key, "took" | "next_retry_after" | "next_poll_after" | "ahead_by")
}

/// Rounds a duration to what a person reads: `1h12m`, `2m5s`, `3.2s`, `137ms`.
fn rounded(text: &str) -> String {
    let Ok(exact) = duration::parse(text) else { return text.to_owned() };
    let unit = match exact.as_secs() {
        0 => Duration::from_millis(1),
        1..10 => Duration::from_millis(100),
        10..3600 => Duration::from_secs(1),
        _ => Duration::from_mins(1),
    };
    let units = (exact.as_nanos() + unit.as_nanos() / 2) / unit.as_nanos();
    let nanos = u64::try_from(units * unit.as_nanos()).unwrap_or(u64::MAX);
    let text = duration::format(Duration::from_nanos(nanos));
    // Go writes all smaller units too.
    let short = text.strip_suffix("m0s").map(|hours| format!("{hours}m")).unwrap_or(text);
    short.strip_suffix("h0m").map(|hours| format!("{hours}h")).unwrap_or(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(level: Level, message: &str, fields: &[(&str, &str)], expected: &str) {
        let fields: Vec<_> = fields.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        assert_eq!(line("11:40:10", level, message, &fields, Colours::NONE), expected);
        let coloured = line("11:40:10", level, message, &fields, Colours::ANSI);
        let mut plain = coloured.clone();
        for code in ["\x1b[2m", "\x1b[1m", "\x1b[33m", "\x1b[1;31m", "\x1b[0m"] {
            plain = plain.replace(code, "");
        }
        assert!(coloured.starts_with("\x1b[2m") && plain.trim_end() == expected, "{coloured:?}");
    }

    #[test]
    fn line_names_the_version_and_then_the_rest() {
        let tag = [("recipe", "hello"), ("version", "1.2.0-1"), ("tag", "v1.2.0")];
        check(
            Level::Info,
            "starting build",
            &tag,
            "11:40:10 info  starting build           hello 1.2.0-1 tag=v1.2.0",
        );
        let took = [("recipe", "hello"), ("version", "1.2.0-1"), ("took", "2m5.137s")];
        check(
            Level::Info,
            "build + publish complete",
            &took,
            "11:40:10 info  build + publish complete hello 1.2.0-1 took=2m5s",
        );
        check(
            Level::Info,
            "recipe roster loaded",
            &[("count", "3")],
            "11:40:10 info  recipe roster loaded     count=3",
        );
        check(
            Level::Info,
            "peipkg-manager starting",
            &[("farm_id", "f"), ("version", "0.1.0")],
            "11:40:10 info  peipkg-manager starting  farm_id=f version=0.1.0",
        );
        check(Level::Warn, "stopping at once", &[], "11:40:10 warn  stopping at once");
    }

    #[test]
    fn failure_shows_its_cause_last() {
        let error = "peipkg-build build exited with status 1: x; before that: no rule to make target all";
        let failed = |log: &'static [(&str, &str)], failures: &'static str| {
            [&[("recipe", "broken"), ("version", "1-1"), ("failures", failures)], log, &[("error", error)]]
                .concat()
        };
        check(
            Level::Error,
            "build failed",
            &failed(&[("log", "/l")], "1"),
            "11:40:10 error build failed             broken 1-1 ... no rule to make target all log=/l",
        );
        check(
            Level::Error,
            "build failed",
            &failed(&[("next_retry_after", "5m0s")], "2"),
            &format!(
                "11:40:10 error build failed             broken 1-1 failures=2 next_retry_after=5m {error}"
            ),
        );
    }

    #[test]
    fn foreign_text_cannot_leave_its_line_or_control_the_terminal() {
        let hostile = "v\n11:40:10 info  forged\r\x1b[2J\u{9b}1A\u{202e}\u{2066}x";
        let quoted = r#""v\n11:40:10 info  forged\r\u001b[2J\u009b1A\u202e\u2066x""#;
        let bare = r"v\n11:40:10 info  forged\r\u{1b}[2J\u{9b}1A\u{202e}\u{2066}x";
        let fields = [("recipe", hostile), ("version", hostile), ("tag", hostile), ("error", hostile)];
        check(
            Level::Warn,
            hostile,
            &fields,
            &format!("11:40:10 warn  {bare} {bare} {bare} tag={quoted} {bare}"),
        );
    }

    #[test]
    fn duration_is_rounded_for_people() {
        for (exact, expected) in [
            ("137.4ms", "137ms"),
            ("3.249s", "3.2s"),
            ("9.99s", "10s"),
            ("12.6s", "13s"),
            ("2m5.137s", "2m5s"),
            ("1m0s", "1m"),
            ("1h12m29s", "1h12m"),
            ("6h0m0s", "6h"),
            ("24h0m0s", "24h"),
            ("0s", "0s"),
            ("soon", "soon"),
        ] {
            assert_eq!(rounded(exact), expected, "{exact}");
        }
    }
}
