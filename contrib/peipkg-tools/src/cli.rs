//! The parts that the command lines of both tools share: flags, failures, exit status.
//!
//! Only [`run`], [`note`] and [`warn`] may print; everything else returns values.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use peipkg_format::problem::Problem;

use crate::timestamp::Timestamp;

/// Why a command fails.
#[derive(Debug)]
pub enum Failure {
    /// The command line is wrong. Exit status 2.
    Usage(String),
    /// The work failed. Exit status 1; prints one line per message.
    Failed(Vec<String>),
    /// An audit found issues. Exit status 1; prints `FAIL: …` per issue, then the summary.
    Audit {
        /// One line each.
        issues: Vec<String>,
        /// How many there are.
        summary: String,
    },
}

/// The flags of one command line, with their values.
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
    /// Turns problems into a failure, one line each.
    pub fn of_problems(problems: &[Problem]) -> Self {
        Self::Failed(problems.iter().map(ToString::to_string).collect())
    }
}

impl Options {
    /// Reads the rest of a command line. Names of flags include their dashes. A flag of `once` or
    /// `repeated` takes a value; only those of `repeated` may be given more than once. A flag of
    /// `switches` takes no value. Returns `None` if the user asked for help.
    pub fn parse(
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

    /// Returns the value of an optional flag.
    pub fn optional(&self, name: &str) -> Option<&OsString> {
        self.values.iter().find(|(given, _)| *given == name).map(|(_, value)| value)
    }

    /// Whether a switch was given.
    pub fn switch(&self, name: &str) -> bool {
        self.switches.contains(&name)
    }

    /// Returns the path of an optional flag.
    pub fn optional_path(&self, name: &str) -> Option<PathBuf> {
        self.optional(name).map(PathBuf::from)
    }

    /// Returns every value of a repeated flag, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a OsString> {
        self.values.iter().filter(move |(given, _)| *given == name).map(|(_, value)| value)
    }

    /// Returns the value of a required flag. Its absence is a failed command (status 1), not a
    /// wrong command line: the manual of the tools says so.
    pub fn required(&self, name: &str) -> Result<&OsString, Failure> {
        self.optional(name).ok_or_else(|| Failure::Failed(vec![format!("missing required flag {name}")]))
    }

    /// Returns the path of a required flag.
    pub fn path(&self, name: &str) -> Result<PathBuf, Failure> {
        self.required(name).map(PathBuf::from)
    }

    /// Returns the text of a required flag: UTF-8, not empty.
    pub fn text(&self, name: &str) -> Result<&str, Failure> {
        let value = self.required(name)?;
        let text = value.to_str().filter(|text| !text.is_empty());
        text.ok_or_else(|| Failure::Usage(format!("{name}: expected text, found \"{}\"", value.display())))
    }

    /// Returns the required `--timestamp`.
    pub fn timestamp(&self) -> Result<Timestamp, Failure> {
        Timestamp::parse(self.text("--timestamp")?)
            .map_err(|error| Failure::Usage(format!("--timestamp: {error}")))
    }
}

/// Turns an error of the argument parser into a usage failure.
#[expect(clippy::needless_pass_by_value, reason = "map_err passes the error by value")]
pub fn usage(error: lexopt::Error) -> Failure {
    Failure::Usage(error.to_string())
}

/// Runs `command` and returns the exit status. Prints the command's text to standard output, and
/// its failure to standard error, each line opened by `program`.
pub fn run(program: &str, command: impl FnOnce(lexopt::Parser) -> Result<String, Failure>) -> ExitCode {
    let (status, lines) = match command(lexopt::Parser::from_env()) {
        Ok(text) => {
            // A reader that stops early, as `head` does, is no failure of this program.
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(Failure::Usage(message)) => (2, vec![message]),
        Err(Failure::Failed(messages)) => (1, messages),
        Err(Failure::Audit { issues, summary }) => {
            for issue in issues {
                print_error(&format!("FAIL: {issue}"));
            }
            (1, vec![summary])
        }
    };
    for line in lines {
        print_error(&format!("{program}: {line}"));
    }
    ExitCode::from(status)
}

/// Prints a line to standard error. Ignores a closed one: the exit status still tells the result.
fn print_error(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Prints a remark that does not fail the command.
pub fn note(program: &str, line: &str) {
    print_error(&format!("{program}: note: {line}"));
}

/// Prints a problem that does not fail the command.
pub fn warn(program: &str, line: &str) {
    print_error(&format!("{program}: warning: {line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Option<Options>, Failure> {
        Options::parse(&mut lexopt::Parser::from_args(arguments), &["--out", "--name"], &["--build-env"], &[])
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
