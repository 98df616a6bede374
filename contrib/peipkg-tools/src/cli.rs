//! The parts that the command lines of both tools share: flags, failures, exit status.
//!
//! Only [`run`], [`note`] and [`warn`] may print; everything else returns values.

pub mod table;

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use peipkg_format::problem::{OneLine, Problem};
use signal_hook::consts::SIGXFSZ;

use self::table::{Command, Flag, Missing, Takes, Times, Tool};
use crate::timestamp::Timestamp;

/// Why a command fails.
#[derive(Debug)]
pub enum Failure {
    /// The command line is wrong. Exit status 2.
    Usage(String),
    /// The work failed. Exit status 1; prints one line per message.
    Failed(Vec<String>),
    /// A check found problems, which are the output: prints one line each to standard output. Exit
    /// status 1.
    Findings(Vec<Problem>),
    /// A comparison found differences, which are the output: prints one line each to standard output.
    /// Exit status 1.
    Different(Vec<String>),
    /// An audit found issues. Exit status 1; prints `FAIL: …` per issue, then the summary.
    Audit {
        /// One line each.
        issues: Vec<String>,
        /// How many there are.
        summary: String,
    },
}

/// The flags of one command line, with their values. A switch has the value `true` or `false`.
#[derive(Debug)]
pub struct Options {
    command: &'static Command,
    values: Vec<(&'static str, OsString)>,
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
    /// Reads the rest of a command line. Returns `None` if the user asked for help.
    ///
    /// # Errors
    /// The first argument that `command` does not know or that lacks its value, or else every
    /// required flag that is missing.
    pub fn parse(
        command: &'static Command,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Option<Self>, Failure> {
        let mut options = Self { command, values: Vec::new() };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            if is_help(&argument) {
                return Ok(None);
            }
            let (name, value) = split_flag(&argument)?;
            let is_it = |flag: &&Flag| flag.name.as_bytes()[2..] == *name;
            let Some(flag) = command.flags.iter().find(is_it) else {
                return Err(unknown_flag(name));
            };
            let value = match (flag.takes, value) {
                (Takes::Nothing, None) => "true".into(),
                (Takes::Nothing, Some(value)) => match value.to_str() {
                    Some("1" | "t" | "T" | "TRUE" | "true" | "True") => "true".into(),
                    Some("0" | "f" | "F" | "FALSE" | "false" | "False") => "false".into(),
                    _ => {
                        let found = value.display().to_string();
                        let message = format!("{}: expected true or false, found {found:?}", flag.name);
                        return Err(Failure::Usage(message));
                    }
                },
                (_, Some(value)) => value.to_owned(),
                (_, None) => arguments.next().ok_or_else(|| {
                    Failure::Usage(format!("{} needs a value: {}", flag.name, flag.spelled()))
                })?,
            };
            options.values.push((flag.name, value));
        }
        let required = command.flags.iter().filter(|flag| flag.times == Times::Required);
        let missing = required.filter(|flag| options.optional(flag.name).is_none());
        let missing: Vec<String> = missing.map(|flag| missing_flag(flag.name)).collect();
        match command.missing {
            _ if missing.is_empty() => Ok(Some(options)),
            Missing::IsFailure => Err(Failure::Failed(missing)),
            Missing::IsUsage => Err(Failure::Usage(missing.join(", "))),
        }
    }

    /// Returns the value of an optional flag: the last one.
    pub fn optional(&self, name: &str) -> Option<&OsString> {
        debug_assert!(self.command.flags.iter().any(|flag| flag.name == name), "{name} is not in the table");
        self.values.iter().rfind(|(given, _)| *given == name).map(|(_, value)| value)
    }

    /// Whether a switch is on.
    pub fn switch(&self, name: &str) -> bool {
        self.optional(name).is_some_and(|value| value == "true")
    }

    /// Returns the path of an optional flag.
    pub fn optional_path(&self, name: &str) -> Option<PathBuf> {
        self.optional(name).map(PathBuf::from)
    }

    /// Returns every value of a repeated flag, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a OsString> {
        self.values.iter().filter(move |(given, _)| *given == name).map(|(_, value)| value)
    }

    /// Returns the value of a required flag.
    pub fn required(&self, name: &str) -> Result<&OsString, Failure> {
        self.optional(name).ok_or_else(|| Failure::Failed(vec![missing_flag(name)]))
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

fn missing_flag(name: &str) -> String {
    format!("missing required flag {name}")
}

fn unknown_flag(name: &[u8]) -> Failure {
    let name = String::from_utf8_lossy(name);
    // `-x` is short; a long flag has two dashes in messages, whatever was typed.
    let dashes = if name.chars().count() == 1 { "-" } else { "--" };
    Failure::Usage(format!("unknown flag {dashes}{}; --help lists the flags", OneLine(&name)))
}

/// Splits a flag into its name without dashes, and the value after its equals sign.
fn split_flag(argument: &OsStr) -> Result<(&[u8], Option<&OsStr>), Failure> {
    let bytes = argument.as_bytes();
    let name = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-"));
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        let found = argument.display().to_string();
        return Err(Failure::Usage(format!("unexpected argument {found:?}, expected a flag")));
    };
    Ok(match name.iter().position(|byte| *byte == b'=') {
        Some(at) => (&name[..at], Some(OsStr::from_bytes(&name[at + 1..]))),
        None => (name, None),
    })
}

fn is_help(argument: &OsStr) -> bool {
    ["-h", "-help", "--help"].iter().any(|help| argument == *help)
}

/// Runs the command that the program's arguments name, and returns the exit status. Prints the
/// command's text to standard output, and its failure to standard error, each line opened by the
/// program's name.
pub fn run(tool: &'static Tool) -> ExitCode {
    // By default, this signal kills a process at its limit for the size of files. Handled, the
    // write fails, and the error says which. If the handler is refused, the default remains.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
    let (status, lines) = match dispatch(tool, std::env::args_os().skip(1)) {
        Ok(text) => {
            print(&text);
            return ExitCode::SUCCESS;
        }
        Err(Failure::Usage(message)) => (2, vec![message]),
        Err(Failure::Failed(messages)) => (1, messages),
        Err(Failure::Findings(problems)) => print_lines(&problems),
        Err(Failure::Different(lines)) => print_lines(&lines),
        Err(Failure::Audit { issues, summary }) => {
            for issue in issues {
                print_error(&format!("FAIL: {issue}"));
            }
            (1, vec![summary])
        }
    };
    for line in lines {
        print_error(&format!("{}: {line}", tool.name));
    }
    ExitCode::from(status)
}

/// Runs the command that the arguments name, and returns its standard output.
fn dispatch(tool: &Tool, arguments: impl IntoIterator<Item = OsString>) -> Result<String, Failure> {
    let mut arguments = arguments.into_iter();
    let Some(first) = arguments.next() else {
        return Err(Failure::Usage(format!("no command given, {}", tool.expected())));
    };
    if is_help(&first) {
        return Ok(tool.help());
    }
    if ["-V", "-version", "--version"].iter().any(|version| first == *version) {
        return Ok(format!("{} {}\n", tool.name, env!("CARGO_PKG_VERSION")));
    }
    let find = |name: &OsStr| {
        let name = name.display().to_string();
        let unknown = || Failure::Usage(format!("unknown command {name:?}, {}", tool.expected()));
        tool.command(&name).ok_or_else(unknown)
    };
    if first == "help" {
        return match arguments.next() {
            Some(name) => Ok(tool.help_of(&[find(&name)?])),
            None => Ok(tool.help()),
        };
    }
    if first.as_bytes().starts_with(b"-") {
        return Err(unknown_flag(split_flag(&first)?.0));
    }
    let command = find(&first)?;
    match Options::parse(command, arguments)? {
        Some(options) => (command.run)(&options),
        None => Ok(tool.help_of(&[command])),
    }
}

/// Prints to standard output. A reader that stops early, as `head` does, is no failure of this
/// program.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Prints what a command that fails has found to standard output. Returns the exit status, and no line for
/// standard error.
fn print_lines(lines: &[impl ToString]) -> (u8, Vec<String>) {
    print(&lines.iter().map(|line| line.to_string() + "\n").collect::<String>());
    (1, Vec::new())
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

    static COMMAND: Command = Command {
        name: "make",
        about: "makes",
        flags: &[
            Flag::directory("--out", "where").required(),
            Flag::text("--name", "NAME", "who"),
            Flag::text("--build-env", "NAME=VALUE", "what").list(),
            Flag::switch("--rebuild", "anew"),
        ],
        missing: Missing::IsFailure,
        run: |_| Ok(String::new()),
    };

    fn parse(line: &str) -> Result<Option<Options>, Failure> {
        Options::parse(&COMMAND, line.split(' ').map(OsString::from))
    }

    #[track_caller]
    fn check(line: &str, name: Option<&str>, list: &[&str], rebuild: bool) {
        let options = parse(line).unwrap().unwrap();
        assert_eq!(options.path("--out").ok(), Some("x".into()), "{line}");
        assert_eq!(options.optional("--name").map(OsString::as_os_str), name.map(OsStr::new), "{line}");
        assert_eq!(options.all("--build-env").collect::<Vec<_>>(), list, "{line}");
        assert_eq!(options.switch("--rebuild"), rebuild, "{line}");
    }

    #[test]
    fn flags_are_read_as_go_programs_read_them() {
        check("--out x", None, &[], false);
        check("-out x -name y -rebuild", Some("y"), &[], true);
        check("-out=x --name=a=b", Some("a=b"), &[], false);
        check("--out y --name a --out=x -name=", Some(""), &[], false);
        check("--build-env A=1 --out x -build-env=B=2 --build-env A=3", None, &["A=1", "B=2", "A=3"], false);
        check("--out x --rebuild=true", None, &[], true);
        check("--out x --rebuild --rebuild=false", None, &[], false);
        check("--out x --rebuild=false -rebuild=true", None, &[], true);
        for on in ["1", "t", "T", "TRUE", "true", "True"] {
            check(&format!("--out x --rebuild={on}"), None, &[], true);
        }
        for off in ["0", "f", "F", "FALSE", "false", "False"] {
            check(&format!("--out x --rebuild --rebuild={off}"), None, &[], false);
        }
        // A value may look like a flag.
        check("--out -rebuild --name --help --out x", Some("--help"), &[], false);
        for help in ["-h", "--out x -help", "--help --uot", "--rebuild --help"] {
            assert!(parse(help).unwrap().is_none(), "{help}");
        }
    }

    #[test]
    fn flags_wrong_are_refused() {
        for (line, expected) in [
            ("--uot x", "unknown flag --uot; --help lists the flags"),
            ("-uot=x", "unknown flag --uot; --help lists the flags"),
            ("-q", "unknown flag -q; --help lists the flags"),
            ("-u\n", "unknown flag --u\\n; --help lists the flags"),
            ("x", "unexpected argument \"x\", expected a flag"),
            ("--out x --", "unexpected argument \"--\", expected a flag"),
            ("--out x --rebuild true", "unexpected argument \"true\", expected a flag"),
            ("--out x --rebuild=yes", "--rebuild: expected true or false, found \"yes\""),
            ("--out x --rebuild=tRUE", "--rebuild: expected true or false, found \"tRUE\""),
            ("--out x --rebuild=", "--rebuild: expected true or false, found \"\""),
            ("--out", "--out needs a value: --out DIR"),
        ] {
            let Err(Failure::Usage(found)) = parse(line) else { panic!("{line}") };
            assert_eq!(found, expected, "{line}");
        }
        let Err(Failure::Failed(missing)) = parse("--name x") else { panic!() };
        assert_eq!(missing, ["missing required flag --out"]);
    }
}
