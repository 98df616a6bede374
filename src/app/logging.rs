//! The log: one event per line on standard error, in logfmt; on a terminal, in the form of
//! [`terminal_line`].
//!
//! A line begins with the keys `time level msg`; the event's own fields follow. A value that is not
//! plain is quoted and escaped, so that a tag, a URL or a tool's output cannot forge a line or
//! control a terminal. A long value loses its middle, so that it cannot fill the disk: see [`most`].

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::SystemTime;

use log::kv::{Key, Value, VisitSource, VisitValue};
use log::{LevelFilter, Log, Metadata, Record};
use peipkg_format::problem::{MAX_EXCERPT, shortened};

use crate::app::logfmt::Quoted;
use crate::app::progress::{self, Line};
use crate::app::terminal_line::{self, Colours};
use crate::process::environment;

/// Starts logging at `level` to standard error, above the terminal's progress `line` if there is one.
/// A terminal gets lines for people, everything else logfmt. Logs only warnings and errors of other
/// crates: their details do not concern an operator.
pub(crate) fn init(level: LevelFilter, line: Option<Line>) {
    let for_people = io::stderr().is_terminal().then(colours_of_terminal);
    let logger = Logger { level, for_people, line };
    // It fails only where a logger is set, which is here.
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
}

/// Writes the events of the log.
struct Logger {
    level: LevelFilter,
    /// The colours of a terminal.
    for_people: Option<Colours>,
    line: Option<Line>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let level = match metadata.target().split("::").next() {
            Some("peipkg_manager") => self.level,
            // It only logs the error that it also returns, which is how it ends when it is asked to.
            Some("tiny_http") => LevelFilter::Off,
            _ => self.level.min(LevelFilter::Warn),
        };
        metadata.level() <= level
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // One write for each event: others write to the same file.
        let mut text = Vec::new();
        let now = SystemTime::now();
        let _ = match self.for_people {
            Some(colours) => write_for_people(&mut text, record, colours, now),
            None => write_record(&mut text, record, now),
        };
        match &self.line {
            Some(line) => line.write_above(&text),
            // There is nobody left to tell that the log cannot be written.
            None => drop(io::stderr().write_all(&text)),
        }
    }

    fn flush(&self) {}
}

/// Returns the colours of a terminal: none on one that cannot show them, or if `NO_COLOR` is set.
pub(super) fn colours_of_terminal() -> Colours {
    let is_set = |name| environment::variable(name).is_some_and(|value| !value.is_empty());
    if progress::is_dumb() || is_set("NO_COLOR") { Colours::NONE } else { Colours::ANSI }
}

/// Writes an event as a line for people, with the time of day in UTC.
fn write_for_people(
    out: &mut impl io::Write,
    record: &Record<'_>,
    colours: Colours,
    now: SystemTime,
) -> io::Result<()> {
    let mut fields = Listed(Vec::new());
    let _ = record.key_values().visit(&mut fields);
    let now = humantime::format_rfc3339_seconds(now).to_string();
    let time = now.get(11..19).unwrap_or_default();
    let line = terminal_line::line(time, record.level(), &record.args().to_string(), &fields.0, colours);
    out.write_all(format!("{line}\n").as_bytes())
}

/// The present fields of an event.
struct Listed(Vec<(String, String)>);

impl<'kvs> VisitSource<'kvs> for Listed {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        let mut presence = Presence(true);
        value.visit(&mut presence)?;
        if presence.0 {
            let key = key.as_str();
            self.0.push((key.to_owned(), shortened(&value.to_string(), most(key)).into_owned()));
        }
        Ok(())
    }
}

fn write_record(out: &mut impl io::Write, record: &Record<'_>, now: SystemTime) -> io::Result<()> {
    let mut line = Fields(String::with_capacity(160));
    line.field("time", &humantime::format_rfc3339_millis(now).to_string());
    line.field("level", &record.level().as_str().to_ascii_lowercase());
    line.field("msg", &record.args().to_string());
    // If a field cannot be written, write the line without it.
    let _ = record.key_values().visit(&mut line);
    line.0.push('\n');
    out.write_all(line.0.as_bytes())
}

struct Fields(String);

impl Fields {
    fn field(&mut self, key: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        self.0.push_str(key);
        self.0.push('=');
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{}", Quoted(&shortened(value, most(key))));
    }
}

/// Returns how many characters of the value of `key` a line shows. Any value may be foreign, but
/// for recipes' URLs, the manager's own paths, and its sentences, where foreign texts are cut already.
fn most(key: &str) -> usize {
    match key {
        "msg" | "error" | "reason" | "problem" | "upstream" => 2000,
        "path" | "log" | "lock" | "directory" | "journal" => 4096,
        _ => MAX_EXCERPT,
    }
}

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        let mut presence = Presence(true);
        value.visit(&mut presence)?;
        if presence.0 {
            self.field(key.as_str(), &value.to_string());
        }
        Ok(())
    }
}

/// Whether a value is present. A field whose value is `None` is left out of the line.
struct Presence(bool);

impl VisitValue<'_> for Presence {
    fn visit_any(&mut self, _: Value<'_>) -> Result<(), log::kv::Error> {
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), log::kv::Error> {
        self.0 = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_crates_may_only_warn() {
        let logger = Logger { level: LevelFilter::Debug, for_people: None, line: None };
        let check = |target: &str, level: log::Level, expected: bool| {
            let metadata = Metadata::builder().target(target).level(level).build();
            assert_eq!(logger.enabled(&metadata), expected, "{target} {level}");
        };
        check("peipkg_manager::app::daemon", log::Level::Debug, true);
        check("peipkg_manager", log::Level::Trace, false);
        check("rustls::client", log::Level::Warn, true);
        check("rustls::client", log::Level::Info, false);
        check("peipkg_manager_of_others", log::Level::Info, false);
        check("tiny_http", log::Level::Error, false);
    }

    #[test]
    fn line_has_its_keys_in_order() {
        let mut out = Vec::new();
        let fields = [("recipe", "libz"), ("tags_seen", "41")];
        let record = Record::builder()
            .level(log::Level::Info)
            .args(format_args!("poll complete"))
            .key_values(&fields)
            .build();
        write_record(&mut out, &record, SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "time=1970-01-01T00:00:00.000Z level=info msg=\"poll complete\" recipe=libz tags_seen=41\n"
        );
    }

    #[test]
    fn value_long_loses_its_middle() {
        let (mut line, tag) = (Fields(String::new()), format!("v{}end", "1".repeat(60_000)));
        line.field("tag", &tag);
        assert!(line.0.starts_with("tag=\"v11"), "{}", line.0);
        assert!(line.0.ends_with("11end\"") && line.0.chars().count() < 210, "{}", line.0);
        let mut line = Fields(String::new());
        line.field("error", &tag);
        assert!(line.0.chars().count() < 2010);
    }

    #[test]
    fn value_absent_is_left_out() {
        let mut out = Vec::new();
        let fields = [("log", None), ("next_poll_after", Some("1m0s"))];
        let record =
            Record::builder().args(format_args!("x")).key_values(&fields).level(log::Level::Warn).build();
        write_record(&mut out, &record, SystemTime::UNIX_EPOCH).unwrap();
        let line = String::from_utf8(out).unwrap();
        assert!(line.ends_with("level=warn msg=x next_poll_after=1m0s\n"), "{line}");
    }
}
