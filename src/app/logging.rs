//! The log: one event per line on standard error, in logfmt.
//!
//! A line begins with the keys `time level msg`; the event's own fields follow. A value that is not
//! plain is quoted and escaped, so that a tag, a URL or a tool's output cannot forge a line or
//! control a terminal. A long value loses its middle, so that it cannot fill the disk: see [`most`].

use std::fmt::{self, Write as _};
use std::io;
use std::time::SystemTime;

use env_logger::Target;
use log::kv::{Key, Value, VisitSource, VisitValue};
use log::{LevelFilter, Record};
use peipkg_format::problem::{MAX_EXCERPT, shortened};

use crate::app::progress::Line;

/// Starts logging at `level` to standard error, above the terminal's progress `line` if there is one.
/// Logs only warnings and errors of other crates: their details do not concern an operator. Reads no
/// environment variable.
pub(crate) fn init(level: LevelFilter, line: Option<Line>) {
    let target = line.map_or(Target::Stderr, |line| Target::Pipe(Box::new(line)));
    env_logger::Builder::new()
        .target(target)
        .filter_level(level.min(LevelFilter::Warn))
        .filter_module("peipkg_manager", level)
        // It only logs the error that it also returns, which is how it ends when it is asked to.
        .filter_module("tiny_http", LevelFilter::Off)
        .write_style(env_logger::WriteStyle::Never)
        .format(|formatter, record| write_record(formatter, record, SystemTime::now()))
        .init();
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

/// Writes a value as logfmt: bare if it is plain, else in double quotes.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\');
        if !self.0.is_empty() && self.0.chars().all(is_plain) {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\'' => f.write_char(c)?,
                // The standard library escapes the characters that a terminal might act upon.
                _ if c.escape_debug().len() == 1 => f.write_char(c)?,
                _ if u32::from(c) <= 0xffff => write!(f, "\\u{:04x}", u32::from(c))?,
                _ => write!(f, "\\U{:08x}", u32::from(c))?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expected: &str) {
        assert_eq!(Quoted(value).to_string(), expected);
    }

    #[test]
    fn value_not_plain_is_quoted() {
        check("libz", "libz");
        check("https://example.org/a?b", "https://example.org/a?b");
        check("a=b", "\"a=b\"");
        check("", "\"\"");
        check("build failed", "\"build failed\"");
        check("it's", "it's");
        check("it's so", "\"it's so\"");
        check("say \"hi\" \\", "\"say \\\"hi\\\" \\\\\"");
        check("a\nlevel=error\tb\r", "\"a\\nlevel=error\\tb\\r\"");
        check("\u{1b}[31mred", "\"\\u001b[31mred\"");
        check("grün", "\"grün\"");
        check("\u{202e}x\u{2028}\u{7f}\u{e0001}", "\"\\u202ex\\u2028\\u007f\\U000e0001\"");
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
