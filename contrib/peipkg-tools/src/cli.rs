//! What the command lines of both tools share: how they end, how they say why,
//! and how they read a timestamp.
//!
//! Only [`run`] and [`note`] print; everything else returns values.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use peipkg_format::problem::Problem;

/// How a command can fail.
#[derive(Debug)]
pub enum Failure {
    /// The command line is wrong: exit status 2.
    Usage(String),
    /// The work failed: exit status 1, one line per message.
    Failed(Vec<String>),
    /// An audit found something: exit status 1, a line `FAIL: …` per issue, then a summary.
    Audit {
        /// What was found.
        issues: Vec<String>,
        /// How much that is.
        summary: String,
    },
}

/// A point in time as a command line gives it (PSD-009 §3.3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timestamp {
    text: String,
    seconds: u64,
    has_fraction: bool,
}

/// The text is no timestamp.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an RFC 3339 time in UTC such as 2026-05-01T12:00:00Z")]
pub struct TimestampError(String);

/// Options of one command that were given, each at most once unless it may repeat.
#[derive(Debug, Default)]
pub struct Options {
    values: Vec<(&'static str, OsString)>,
    switches: Vec<&'static str>,
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(vec![error.to_string()])
    }
}

impl Failure {
    /// One line per problem.
    pub fn of_problems(problems: &[Problem]) -> Self {
        Self::Failed(problems.iter().map(ToString::to_string).collect())
    }
}

impl Timestamp {
    /// Reads an RFC 3339 time in UTC that ends in `Z`, not before 1970.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        let error = || TimestampError(text.to_owned());
        // The parser would take `+00:00` too; the format wants the letter.
        if !text.ends_with('Z') {
            return Err(error());
        }
        let time = humantime::parse_rfc3339(text).map_err(|_| error())?;
        let since = time.duration_since(UNIX_EPOCH).map_err(|_| error())?;
        Ok(Self { text: text.to_owned(), seconds: since.as_secs(), has_fraction: text.contains('.') })
    }

    /// The time as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// A point in time, to the second.
    pub fn at(time: SystemTime) -> Self {
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
        Self { text, seconds, has_fraction: false }
    }

    /// Seconds since 1970; a fraction is dropped.
    pub fn seconds(&self) -> u64 {
        self.seconds
    }

    /// Seconds since 1970, unless the time has a fraction of a second.
    pub fn whole_seconds(&self) -> Option<u64> {
        (!self.has_fraction).then_some(self.seconds)
    }
}

impl Options {
    /// Reads the rest of a command line. `once` are the options that may be given
    /// once, `repeated` those that may be repeated, all named with their dashes;
    /// all take a value. Returns `None` when help was asked for.
    pub fn parse(
        parser: &mut lexopt::Parser,
        once: &[&'static str],
        repeated: &[&'static str],
    ) -> Result<Option<Self>, Failure> {
        Self::parse_with_switches(parser, once, repeated, &[])
    }

    /// The same, with `switches` that take no value.
    pub fn parse_with_switches(
        parser: &mut lexopt::Parser,
        once: &[&'static str],
        repeated: &[&'static str],
        switches: &[&'static str],
    ) -> Result<Option<Self>, Failure> {
        let mut options = Self::default();
        while let Some(argument) = parser.next().map_err(usage)? {
            let given = match argument {
                lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => return Ok(None),
                lexopt::Arg::Long(name) => format!("--{name}"),
                other => return Err(usage(other.unexpected())),
            };
            if let Some(switch) = switches.iter().find(|known| **known == given) {
                options.switches.push(switch);
                continue;
            }
            let may_repeat = repeated.contains(&given.as_str());
            let Some(name) = once.iter().chain(repeated).copied().find(|known| *known == given) else {
                return Err(Failure::Usage(format!("unknown flag {given}; --help lists the flags")));
            };
            let value = parser.value().map_err(usage)?;
            if !may_repeat && options.optional(name).is_some() {
                return Err(Failure::Usage(format!("{name} is given twice")));
            }
            options.values.push((name, value));
        }
        Ok(Some(options))
    }

    /// The value of an option that may be absent.
    pub fn optional(&self, name: &str) -> Option<&OsString> {
        self.values.iter().find(|(given, _)| *given == name).map(|(_, value)| value)
    }

    /// Whether a switch was given.
    pub fn switch(&self, name: &str) -> bool {
        self.switches.contains(&name)
    }

    /// A path that may be absent.
    pub fn optional_path(&self, name: &str) -> Option<PathBuf> {
        self.optional(name).map(PathBuf::from)
    }

    /// The values of an option that may be repeated, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a OsString> {
        self.values.iter().filter(move |(given, _)| *given == name).map(|(_, value)| value)
    }

    /// The value of an option that must be there. Its absence is a failure of the
    /// command (status 1), as the manual of the tools has it, not one of the syntax.
    pub fn required(&self, name: &str) -> Result<&OsString, Failure> {
        self.optional(name).ok_or_else(|| Failure::Failed(vec![format!("missing required flag {name}")]))
    }

    /// A required path.
    pub fn path(&self, name: &str) -> Result<PathBuf, Failure> {
        self.required(name).map(PathBuf::from)
    }

    /// A required value that is text.
    pub fn text(&self, name: &str) -> Result<&str, Failure> {
        let value = self.required(name)?;
        let text = value.to_str().filter(|text| !text.is_empty());
        text.ok_or_else(|| Failure::Usage(format!("{name}: expected text, found \"{}\"", value.display())))
    }

    /// The required `--timestamp`.
    pub fn timestamp(&self) -> Result<Timestamp, Failure> {
        Timestamp::parse(self.text("--timestamp")?)
            .map_err(|error| Failure::Usage(format!("--timestamp: {error}")))
    }
}

/// An error of the argument parser as a usage failure.
#[expect(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
pub fn usage(error: lexopt::Error) -> Failure {
    Failure::Usage(error.to_string())
}

/// Runs a tool and turns its end into an exit status. What `command` returns
/// goes to standard output; failures go to standard error, each line opened by `program`.
pub fn run(program: &str, command: impl FnOnce(lexopt::Parser) -> Result<String, Failure>) -> ExitCode {
    let (status, lines) = match command(lexopt::Parser::from_env()) {
        Ok(text) => {
            // A reader that went away, as `head` does, is not this program's failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(Failure::Usage(message)) => (2, vec![message]),
        Err(Failure::Failed(messages)) => (1, messages),
        Err(Failure::Audit { issues, summary }) => {
            for issue in issues {
                say(&format!("FAIL: {issue}"));
            }
            (1, vec![summary])
        }
    };
    for line in lines {
        say(&format!("{program}: {line}"));
    }
    ExitCode::from(status)
}

/// One line on standard error. Where nobody reads it, the exit status still says what happened.
fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Says something that is worth knowing and no failure.
pub fn note(program: &str, line: &str) {
    say(&format!("{program}: note: {line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_checked() {
        let time = Timestamp::parse("2026-05-01T12:00:00Z").unwrap();
        assert_eq!((time.as_str(), time.whole_seconds()), ("2026-05-01T12:00:00Z", Some(1_777_636_800)));
        assert_eq!(Timestamp::parse("2026-05-01T12:00:00.5Z").unwrap().whole_seconds(), None);
        for bad in [
            "",
            "now",
            "2026-05-01",
            "2026-05-01T12:00:00",
            "2026-05-01T12:00:00+00:00",
            "1969-12-31T23:59:59Z",
        ] {
            assert!(Timestamp::parse(bad).is_err(), "{bad:?}");
        }
    }

    fn parse(arguments: &[&str]) -> Result<Option<Options>, Failure> {
        Options::parse(&mut lexopt::Parser::from_args(arguments), &["--out", "--name"], &["--build-env"])
    }

    #[test]
    fn options_unknown_or_repeated_are_refused() {
        let options = parse(&["--out=x", "--build-env", "A=1", "--build-env", "B=2"]).unwrap().unwrap();
        assert_eq!(options.path("--out").ok(), Some("x".into()));
        assert_eq!(options.all("--build-env").collect::<Vec<_>>(), ["A=1", "B=2"]);
        assert!(matches!(options.required("--name"), Err(Failure::Failed(_))));
        assert!(parse(&["--out", "x", "--help"]).unwrap().is_none());
        for bad in [&["--uot", "x"][..], &["--out"], &["x"], &["--out", "x", "--out", "y"], &["-q"]] {
            assert!(matches!(parse(bad), Err(Failure::Usage(_))), "{bad:?}");
        }
    }
}
