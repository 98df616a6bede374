//! The command line: parser, help text and the table of flags. Tests compare the manual page and the
//! shell completions with the table. Pure: the arguments are a parameter, and nothing is printed.
//!
//! A long flag may also have one dash, and `--once`, `--check` and `--plan` may have a value (`-once=true`):
//! scripts written for a Go program use both.

#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::path::PathBuf;

use lexopt::Arg;
use log::LevelFilter;
use peipkg_format::version::Version;

use crate::recipe::check_id;

const PROGRAM: &str = "peipkg-manager";

/// A flag. Without a value it is a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag {
    /// The name after `--`.
    pub long: &'static str,
    /// The letter after `-`.
    pub short: Option<char>,
    /// The name of its value in the help text.
    pub value: Option<&'static str>,
    /// Its value if the flag is absent.
    pub default: Option<&'static str>,
    /// Its help text: one sentence without a full stop.
    pub help: &'static str,
}

const CONFIG: Flag = Flag {
    long: "config",
    short: None,
    value: Some("PATH"),
    default: Some("/etc/peipkg-manager/config.toml"),
    help: "The configuration file",
};

const LOG_LEVEL: Flag = Flag {
    long: "log-level",
    short: None,
    value: Some("LEVEL"),
    default: Some("info"),
    help: "The least level to log: debug, info, warn or error",
};

const REBUILD: Flag = Flag {
    long: "rebuild",
    short: None,
    value: Some("RECIPE@VERSION"),
    default: None,
    help: "Build a published version again, say whether it is the published one, and exit; change nothing",
};

/// The values of `--log-level`.
const LEVELS: [(&str, LevelFilter); 4] = [
    ("debug", LevelFilter::Debug),
    ("info", LevelFilter::Info),
    ("warn", LevelFilter::Warn),
    ("error", LevelFilter::Error),
];

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
    switch(
        "plan",
        None,
        "List every upstream, print what a sweep would do with each tag, and exit; change nothing",
    ),
    REBUILD,
    switch("help", Some('h'), "Print this help and exit"),
    switch("version", Some('V'), "Print the version and exit"),
];

/// A parsed command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run the manager.
    Run(Options),
    /// Print [`help`].
    Help,
    /// Print [`version`].
    Version,
}

/// How to run the manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// The least level to log.
    pub log_level: LevelFilter,
    /// The mode.
    pub mode: Mode,
}

/// The modes of the manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// The daemon, until a signal ends it.
    Daemon,
    /// One sweep.
    Once,
    /// A check that changes nothing.
    Check,
    /// A plan of a sweep, which changes nothing.
    Plan,
    /// Another build of this published version of a recipe, which changes nothing.
    Rebuild(String, Version),
}

/// Why a command line is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// There is no such flag.
    #[error("unknown flag {found:?}; {advice}")]
    UnknownFlag {
        /// The flag with its dashes, without a value.
        found: String,
        /// The nearest flag, or how to list all flags.
        advice: String,
    },
    /// A flag's value is missing or empty.
    #[error("--{flag} needs a value: --{flag} {value}")]
    MissingValue {
        /// The flag.
        flag: &'static str,
        /// The name of its value.
        value: &'static str,
    },
    /// A switch has a value other than `true` and `false`.
    #[error("--{flag} is on or off: expected true or false, found {found:?}")]
    SwitchValue {
        /// The flag.
        flag: &'static str,
        /// The value.
        found: OsString,
    },
    /// There is no such level.
    #[error("--log-level must be debug, info, warn or error, found {0:?}")]
    LogLevel(OsString),
    /// An argument is no flag.
    #[error("unexpected argument {0:?}, only flags are understood; --help lists them")]
    Positional(OsString),
    /// The parser found another error. None is known: a flag's value is parsed, or refused, with the
    /// flag.
    #[error("{0}")]
    Other(String),
    /// The value of `--rebuild` names no version of a recipe.
    #[error("--rebuild needs RECIPE@VERSION, such as hello@1.3.2-1, found {found:?}: {reason}")]
    Rebuild {
        /// The value.
        found: OsString,
        /// Why it names none.
        reason: String,
    },
    /// Two modes are requested at once.
    #[error("--once, --check, --plan and --rebuild exclude each other, choose one")]
    TwoModes,
}

const fn switch(long: &'static str, short: Option<char>, help: &'static str) -> Flag {
    Flag { long, short, value: None, default: None, help }
}

/// Parses the arguments, without the program's name. If a flag is repeated, the last one counts.
///
/// # Errors
/// The first wrong argument.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut parser = lexopt::Parser::from_args(with_two_dashes(args));
    let mut config = PathBuf::from(CONFIG.default.unwrap_or_default());
    let mut log_level = LevelFilter::Info;
    let (mut once, mut check, mut plan, mut rebuild) = (false, false, false, None);
    while let Some(arg) = parser.next().map_err(|error| UsageError::Other(error.to_string()))? {
        match arg {
            Arg::Long("config") => config = value(&mut parser, CONFIG)?.into(),
            Arg::Long("log-level") => {
                let found = value(&mut parser, LOG_LEVEL)?;
                let level = LEVELS.into_iter().find(|(name, _)| found == *name).map(|(_, level)| level);
                log_level = level.ok_or(UsageError::LogLevel(found))?;
            }
            Arg::Long("once") => once = is_on(&mut parser, "once")?,
            Arg::Long("check") => check = is_on(&mut parser, "check")?,
            Arg::Long("plan") => plan = is_on(&mut parser, "plan")?,
            Arg::Long("rebuild") => rebuild = Some(version_of_recipe(&value(&mut parser, REBUILD)?)?),
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            Arg::Long("version") | Arg::Short('V') => return Ok(Command::Version),
            Arg::Long(name) => return Err(unknown(&format!("--{name}"))),
            Arg::Short(letter) => return Err(unknown(&format!("-{letter}"))),
            Arg::Value(found) => return Err(UsageError::Positional(found)),
        }
    }
    let mode = match (once, check, plan, rebuild) {
        (false, false, false, None) => Mode::Daemon,
        (true, false, false, None) => Mode::Once,
        (false, true, false, None) => Mode::Check,
        (false, false, true, None) => Mode::Plan,
        (false, false, false, Some((recipe, version))) => Mode::Rebuild(recipe, version),
        _ => return Err(UsageError::TwoModes),
    };
    Ok(Command::Run(Options { config, log_level, mode }))
}

/// Returns the output of `--help`.
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
         Without --once, --check, --plan or --rebuild it runs until SIGTERM or SIGINT; SIGHUP reloads the recipes.\n\n\
         Flags:\n"
    );
    for flag in FLAGS {
        let default = flag.default.map_or_else(String::new, |default| format!(" [default: {default}]"));
        let _ = writeln!(text, "  {:width$}  {}{default}", spell(flag), flag.help);
    }
    text + "\nExit codes: 0 done, failed builds included; 1 runtime error; 2 bad flag or configuration.\n"
}

/// Returns the output of `--version`.
pub fn version() -> String {
    format!("{PROGRAM} {}\n", env!("CARGO_PKG_VERSION"))
}

/// Adds the second dash to long flags with one dash. Leaves the values of flags alone.
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

/// Tells whether `word`, which follows one dash, is a long flag. A wrong one counts as long too
/// unless it looks like a group of short flags, so that the error can suggest the right flag.
fn is_long(word: &str) -> bool {
    let name = word.split_once('=').map_or(word, |(name, _)| name);
    let mut letters = name.chars();
    let is_short = letters.next().is_none_or(|first| {
        first == '-' || letters.next().is_none() || FLAGS.iter().any(|flag| flag.short == Some(first))
    });
    !is_short || FLAGS.iter().any(|flag| flag.long == name)
}

/// Returns the value of the flag that was parsed last.
fn value(parser: &mut lexopt::Parser, flag: Flag) -> Result<OsString, UsageError> {
    let missing = UsageError::MissingValue { flag: flag.long, value: flag.value.unwrap_or_default() };
    parser.value().ok().filter(|value| !value.is_empty()).ok_or(missing)
}

/// Splits the value of `--rebuild`.
fn version_of_recipe(found: &OsStr) -> Result<(String, Version), UsageError> {
    let split = || {
        let text = found.to_str().ok_or("it is not UTF-8")?;
        let (recipe, version) = text.split_once('@').ok_or("it has no @")?;
        check_id(recipe).map_err(|reason| format!("the recipe's id {reason}"))?;
        let version = version.parse::<Version>().map_err(|error| format!("no version: {error}"))?;
        Ok((recipe.to_owned(), version))
    };
    split().map_err(|reason: String| UsageError::Rebuild { found: found.to_owned(), reason })
}

/// Tells whether the switch that was parsed last is on. Without a value, it is.
fn is_on(parser: &mut lexopt::Parser, flag: &'static str) -> Result<bool, UsageError> {
    match parser.optional_value() {
        None => Ok(true),
        Some(value) if value == "true" => Ok(true),
        Some(value) if value == "false" => Ok(false),
        Some(found) => Err(UsageError::SwitchValue { flag, found }),
    }
}

/// Returns the error for a flag that is not in the table.
fn unknown(found: &str) -> UsageError {
    let name = found.trim_start_matches('-');
    let near = FLAGS
        .iter()
        .map(|flag| (strsim::damerau_levenshtein(name, flag.long), flag.long))
        .filter(|(distance, long)| *distance <= 1 + long.len() / 4)
        .min();
    let advice = near.map_or_else(
        || "--help lists all flags".to_owned(),
        |(_, long)| format!("did you mean \"--{long}\"?"),
    );
    UsageError::UnknownFlag { found: found.to_owned(), advice }
}
