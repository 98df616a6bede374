//! The command line: one table of flags that the parser, the help text and the
//! manual page share. Pure: it reads the arguments it is given and prints nothing.
//!
//! A long flag may also be written with one dash, and `--once` and `--check` may
//! be given a value (`-once=true`), as scripts written for a Go program's flags do.

#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::path::PathBuf;

use lexopt::Arg;

/// The program's name in its texts.
const PROGRAM: &str = "peipkg-manager";

/// One flag. A flag without a value is a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag {
    /// The name after `--`.
    pub long: &'static str,
    /// The name after `-`, of one letter.
    pub short: Option<char>,
    /// What its value is called, for a flag that has one.
    pub value: Option<&'static str>,
    /// The value when the flag is absent, for a flag that has one.
    pub default: Option<&'static str>,
    /// One sentence about it, without its full stop.
    pub help: &'static str,
}

/// `--config`.
const CONFIG: Flag = Flag {
    long: "config",
    short: None,
    value: Some("PATH"),
    default: Some("/etc/peipkg-manager/config.toml"),
    help: "The configuration file",
};

/// `--log-level`.
const LOG_LEVEL: Flag = Flag {
    long: "log-level",
    short: None,
    value: Some("LEVEL"),
    default: Some("info"),
    help: "The least level to log: debug, info, warn or error",
};

/// Every flag, in the order of the help text.
pub const FLAGS: &[Flag] = &[
    CONFIG,
    LOG_LEVEL,
    switch(
        "once",
        None,
        "Poll every recipe once, build, publish and upload what is new, and exit; no HTTP, no schedule",
    ),
    switch("check", None, "Check configuration, recipes, tools and keys, print every problem, and exit"),
    switch("help", Some('h'), "Print this help and exit"),
    switch("version", Some('V'), "Print the version and exit"),
];

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// To run.
    Run(Options),
    /// To print [`help`].
    Help,
    /// To print [`version`].
    Version,
}

/// How to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// The least level that is logged.
    pub log_level: LogLevel,
    /// For how long.
    pub mode: Mode,
}

/// The ways to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Until a signal ends it.
    Daemon,
    /// For one sweep.
    Once,
    /// To report problems only, changing nothing.
    Check,
}

/// The levels of log events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens.
    Info,
    /// What may need attention, and worse.
    Warn,
    /// What went wrong.
    Error,
}

/// Why a command line is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// There is no such flag.
    #[error("unknown flag {found:?}; {advice}")]
    UnknownFlag {
        /// The flag as written, without a value.
        found: String,
        /// The nearest flag, or where all are listed.
        advice: String,
    },
    /// A flag's value is missing or empty.
    #[error("--{flag} needs a value: --{flag} {value}")]
    MissingValue {
        /// The flag.
        flag: &'static str,
        /// What its value is called.
        value: &'static str,
    },
    /// A switch was given a value that is not a truth value.
    #[error("--{flag} is on or off: expected true or false, found {found:?}")]
    SwitchValue {
        /// The flag.
        flag: &'static str,
        /// What was found.
        found: OsString,
    },
    /// There is no such level.
    #[error("--log-level must be debug, info, warn or error, found {0:?}")]
    LogLevel(OsString),
    /// An argument that is no flag.
    #[error("unexpected argument {0:?}, only flags are understood; --help lists them")]
    Positional(OsString),
    /// Whatever else the parser finds. Every flag takes or refuses its value above, so nothing is known
    /// to end here.
    #[error("{0}")]
    Other(String),
    /// Two modes at once.
    #[error("--once and --check exclude each other, choose one")]
    TwoModes,
}

const fn switch(long: &'static str, short: Option<char>, help: &'static str) -> Flag {
    Flag { long, short, value: None, default: None, help }
}

/// Reads the arguments, without the program's name. When a flag is given twice, the last counts.
///
/// # Errors
/// The first argument that is not understood.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut parser = lexopt::Parser::from_args(with_two_dashes(args));
    let mut config = PathBuf::from(CONFIG.default.unwrap_or_default());
    let mut log_level = LogLevel::Info;
    let (mut once, mut check) = (false, false);
    while let Some(arg) = parser.next().map_err(|error| UsageError::Other(error.to_string()))? {
        match arg {
            Arg::Long("config") => config = value(&mut parser, CONFIG)?.into(),
            Arg::Long("log-level") => {
                let found = value(&mut parser, LOG_LEVEL)?;
                log_level = LogLevel::parse(&found).ok_or(UsageError::LogLevel(found))?;
            }
            Arg::Long("once") => once = is_on(&mut parser, "once")?,
            Arg::Long("check") => check = is_on(&mut parser, "check")?,
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            Arg::Long("version") | Arg::Short('V') => return Ok(Command::Version),
            Arg::Long(name) => return Err(unknown(&format!("--{name}"))),
            Arg::Short(letter) => return Err(unknown(&format!("-{letter}"))),
            Arg::Value(found) => return Err(UsageError::Positional(found)),
        }
    }
    let mode = match (once, check) {
        (true, true) => return Err(UsageError::TwoModes),
        (true, false) => Mode::Once,
        (false, true) => Mode::Check,
        (false, false) => Mode::Daemon,
    };
    Ok(Command::Run(Options { config, log_level, mode }))
}

impl LogLevel {
    /// The level of that name.
    fn parse(name: &OsStr) -> Option<Self> {
        let levels = [Self::Debug, Self::Info, Self::Warn, Self::Error];
        levels.into_iter().find(|level| name == level.as_str())
    }

    /// Its name, as in `--log-level` and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl From<LogLevel> for log::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Debug => Self::Debug,
            LogLevel::Info => Self::Info,
            LogLevel::Warn => Self::Warn,
            LogLevel::Error => Self::Error,
        }
    }
}

/// What `--help` prints.
pub fn help() -> String {
    let spell = |flag: &Flag| {
        let short = flag.short.map_or_else(|| "    ".to_owned(), |letter| format!("-{letter}, "));
        let value = flag.value.map_or_else(String::new, |value| format!(" {value}"));
        format!("{short}--{}{value}", flag.long)
    };
    let width = FLAGS.iter().map(|flag| spell(flag).len()).max().unwrap_or_default();
    let mut text = format!(
        "{PROGRAM}: the build-farm daemon of the Peios package system\n\n\
         Usage: {PROGRAM} [flags]\n\n\
         Without --once or --check it runs until SIGTERM or SIGINT; SIGHUP reloads the recipes.\n\n\
         Flags:\n"
    );
    for flag in FLAGS {
        let default = flag.default.map_or_else(String::new, |default| format!(" [default: {default}]"));
        let _ = writeln!(text, "  {:width$}  {}{default}", spell(flag), flag.help);
    }
    text + "\nExit codes: 0 done, failed builds included; 1 runtime error; 2 bad flag or configuration.\n"
}

/// What `--version` prints.
pub fn version() -> String {
    format!("{PROGRAM} {}\n", env!("CARGO_PKG_VERSION"))
}

/// Gives long flags that are written with one dash their second one. Values stay as they are.
fn with_two_dashes(args: impl IntoIterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut is_value = false;
    args.into_iter().map(move |arg| {
        if std::mem::take(&mut is_value) {
            return arg;
        }
        let arg = match arg.to_str().and_then(|text| text.strip_prefix('-')) {
            Some(word) if is_long(word) => OsString::from(format!("--{word}")),
            _ => arg,
        };
        let takes_value = |flag: &Flag| flag.value.is_some() && arg == *format!("--{}", flag.long);
        is_value = FLAGS.iter().any(takes_value);
        arg
    })
}

/// Whether what follows a dash is a long flag, or at least no group of short ones.
fn is_long(word: &str) -> bool {
    let name = word.split_once('=').map_or(word, |(name, _)| name);
    let mut letters = name.chars();
    let is_short = letters.next().is_none_or(|first| {
        first == '-' || letters.next().is_none() || FLAGS.iter().any(|flag| flag.short == Some(first))
    });
    !is_short || FLAGS.iter().any(|flag| flag.long == name)
}

/// The value of the flag that was read last.
fn value(parser: &mut lexopt::Parser, flag: Flag) -> Result<OsString, UsageError> {
    let missing = UsageError::MissingValue { flag: flag.long, value: flag.value.unwrap_or_default() };
    parser.value().ok().filter(|value| !value.is_empty()).ok_or(missing)
}

/// Whether the switch that was read last is turned on, which it is unless it says otherwise.
fn is_on(parser: &mut lexopt::Parser, flag: &'static str) -> Result<bool, UsageError> {
    match parser.optional_value() {
        None => Ok(true),
        Some(value) if value == "true" => Ok(true),
        Some(value) if value == "false" => Ok(false),
        Some(found) => Err(UsageError::SwitchValue { flag, found }),
    }
}

/// The error for a flag that is not in the table.
fn unknown(found: &str) -> UsageError {
    let name = found.trim_start_matches('-');
    let near = FLAGS
        .iter()
        .map(|flag| (strsim::damerau_levenshtein(name, flag.long), flag.long))
        .filter(|(distance, long)| *distance <= 1 + long.len() / 4)
        .min();
    let advice = near.map_or_else(
        || "--help lists those there are".to_owned(),
        |(_, long)| format!("did you mean \"--{long}\"?"),
    );
    UsageError::UnknownFlag { found: found.to_owned(), advice }
}
