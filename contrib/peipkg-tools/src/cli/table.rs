//! The table of a tool's commands and flags. Pure.
//!
//! The parser follows the table, and the help text is made from it. Tests compare the manual page
//! and the completions of each shell with it.

use std::fmt::Write as _;

use super::{Failure, Options};

/// The longest line of a help text, in characters: the width of a terminal.
const WIDTH: usize = 80;

/// A program.
#[derive(Debug)]
pub struct Tool {
    /// Its name.
    pub name: &'static str,
    /// Its purpose: follows its name and a colon.
    pub about: &'static str,
    /// Its commands, in the order of the help text.
    pub commands: &'static [Command],
}

/// A command of a program.
#[derive(Debug)]
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// Its purpose: follows its name, and begins with a verb.
    pub about: &'static str,
    /// Its flags, in the order of the help text.
    pub flags: &'static [Flag],
    /// The result of a command line that lacks a required flag.
    pub missing: Missing,
    /// Does the work, and returns the standard output.
    pub run: fn(&Options) -> Result<String, Failure>,
}

/// The result of a command line that lacks a required flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Exit status 1, which the manual of the official tools promises.
    IsFailure,
    /// Exit status 2, like that of any wrong command line: for the commands without such a promise.
    IsUsage,
}

/// A flag of a command.
#[derive(Debug)]
pub struct Flag {
    /// The name with its two dashes.
    pub name: &'static str,
    /// The name of its value in the help text; empty for a switch.
    pub value: &'static str,
    /// The kind of its value.
    pub takes: Takes,
    /// How often it may be given.
    pub times: Times,
    /// Its help text: no capital, no full stop.
    pub help: &'static str,
}

/// The kinds of values. A shell completes by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// None, or `true` or `false` after an equals sign.
    Nothing,
    /// Any text.
    Text,
    /// The path of a file.
    File,
    /// The path of a directory.
    Directory,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// How often a flag may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// Once; the last one counts.
    Once,
    /// Once, and it must be given.
    Required,
    /// Any number of times: each one adds to a list.
    Any,
}

/// The flags that every command has: name and help text.
pub const COMMON: [(&str, &str, &str); 2] =
    [("-h", "--help", "print this text"), ("-V", "--version", "print the version")];

impl Flag {
    /// A flag without a value.
    pub const fn switch(name: &'static str, help: &'static str) -> Self {
        Self { name, value: "", takes: Takes::Nothing, times: Times::Once, help }
    }

    /// A flag whose value is a text.
    pub const fn text(name: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { name, value, takes: Takes::Text, times: Times::Once, help }
    }

    /// A flag whose value is the path of a file.
    pub const fn file(name: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { takes: Takes::File, ..Self::text(name, value, help) }
    }

    /// A flag whose value is the path of a directory.
    pub const fn directory(name: &'static str, help: &'static str) -> Self {
        Self { takes: Takes::Directory, ..Self::text(name, "DIR", help) }
    }

    /// A flag whose value is one of `words`.
    pub const fn word(
        name: &'static str,
        value: &'static str,
        words: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self { takes: Takes::Word(words), ..Self::text(name, value, help) }
    }

    /// Makes it required.
    #[must_use]
    pub const fn required(self) -> Self {
        Self { times: Times::Required, ..self }
    }

    /// Makes it a list.
    #[must_use]
    pub const fn list(self) -> Self {
        Self { times: Times::Any, ..self }
    }

    /// Returns the flag with the name of its value.
    pub fn spelled(&self) -> String {
        format!("{} {}", self.name, self.value).trim_end().to_owned()
    }
}

impl Tool {
    /// Returns the command of that name.
    pub fn command(&self, name: &str) -> Option<&'static Command> {
        self.commands.iter().find(|command| command.name == name)
    }

    /// Returns the names of all commands, as an error lists them.
    pub fn expected(&self) -> String {
        let names: Vec<&str> = self.commands.iter().map(|command| command.name).collect();
        match names.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("expected {} or {last}", rest.join(", ")),
            _ => format!("expected {}", names.concat()),
        }
    }

    /// Returns the help text of all commands.
    pub fn help(&self) -> String {
        self.help_of(&self.commands.iter().collect::<Vec<_>>())
    }

    /// Returns the help text of `commands`.
    pub fn help_of(&self, commands: &[&Command]) -> String {
        let mut text = format!("{}: {}\n\n", self.name, self.about);
        let mut start = "usage:";
        for command in commands {
            let start = std::mem::replace(&mut start, "      ");
            text += &wrapped(&format!("{start} {} {}", self.name, command.name), &command.usage());
        }
        text.push('\n');
        for command in commands {
            text += &wrapped(&format!("{:<12}", command.name), &words(command.about));
            for flag in command.flags {
                push_flag(&mut text, &flag.spelled(), flag.help);
            }
            text.push('\n');
        }
        for (short, long, help) in COMMON {
            push_flag(&mut text, &format!("{short}, {long}"), help);
        }
        text += "\n\
            A flag may have one dash, and its value may follow an equals sign. If a flag is\n\
            repeated, the last one counts; each one with ... adds to a list.\n\n\
            Exit status: 0 done; 1 the work failed, or a required flag is missing; 2 any\n\
            other wrong command line";
        let strict = self.commands.iter().filter(|command| command.missing == Missing::IsUsage);
        let strict: Vec<&str> = strict.map(|command| command.name).collect();
        if !strict.is_empty() {
            let _ = write!(text, ", and a missing flag of\n{}", strict.join(" or "));
        }
        text + ".\n"
    }
}

impl Command {
    /// Returns the flags as the usage line has them.
    fn usage(&self) -> Vec<String> {
        let usage = |flag: &Flag| match flag.times {
            Times::Once => format!("[{}]", flag.spelled()),
            Times::Required => flag.spelled(),
            Times::Any => format!("[{}]...", flag.spelled()),
        };
        self.flags.iter().map(usage).collect()
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// Adds a flag's line, and the lines that its help text needs.
fn push_flag(text: &mut String, spelled: &str, help: &str) {
    const COLUMN: usize = 24;
    let mut start = format!("  {spelled:<width$}", width = COLUMN - 3);
    if start.len() >= COLUMN {
        let _ = writeln!(text, "{start}");
        start = " ".repeat(COLUMN - 1);
    }
    *text += &wrapped(&start, &words(help));
}

/// Returns `start` and then `parts`, in lines of at most [`WIDTH`]. The parts of all lines begin in
/// one column.
fn wrapped(start: &str, parts: &[String]) -> String {
    let indent = start.len();
    let (mut text, mut at) = (start.to_owned(), indent);
    for part in parts {
        if at > indent && at + 1 + part.len() > WIDTH {
            let _ = write!(text, "\n{:indent$}", "");
            at = indent;
        }
        let _ = write!(text, " {part}");
        at += 1 + part.len();
    }
    text + "\n"
}
