//! The environment: the only file that reads it, with every variable the manager looks at.
//!
//! No variable configures the manager. It finds its tools by `PATH`, asks what terminal it writes
//! to and which service manager started it, and looks at what git would heed, because its own
//! listings must give the result that git's would. Children inherit the environment (see
//! [`Program`](super::Program)).

use std::env;
use std::ffi::OsString;

/// A variable that the manager looks at, and why.
const VARIABLES: [(&str, &str); 16] = [
    ("PATH", "the tools are found there, once, at the start"),
    ("HOME", "git's configuration and netrc are there"),
    ("TMPDIR", "where its user wants the files of a rebuild, which are removed at its end"),
    ("TERM", "a dumb terminal has no live line and no colours"),
    ("NO_COLOR", "its user wants no colours"),
    ("NOTIFY_SOCKET", "where the service manager wants to hear of the start, reloads and the stop"),
    ("WATCHDOG_USEC", "how often it wants a sign of life"),
    ("WATCHDOG_PID", "the process from which it wants that sign"),
    ("GIT_SSH_COMMAND", "the operator's ssh for git is kept, and told not to ask anybody"),
    ("GIT_SSH", "a program with unknown options: git runs it as it is"),
    ("GIT_CONFIG_COUNT", "git has configuration from the environment"),
    ("GIT_CONFIG_PARAMETERS", "the same, from a calling git"),
    ("GIT_CONFIG_GLOBAL", "where git's configuration is"),
    ("GIT_CONFIG_SYSTEM", "where git's configuration is"),
    ("GIT_CONFIG_NOSYSTEM", "whether git has a configuration of the system"),
    ("XDG_CONFIG_HOME", "where git's configuration is"),
];

/// Returns the value of a variable of the table.
pub(crate) fn variable(name: &'static str) -> Option<OsString> {
    debug_assert!(VARIABLES.iter().any(|(known, _)| *known == name), "{name} is not in the table");
    env::var_os(name)
}

/// Returns all variables: some of git's are recognised by a part of their names.
pub(crate) fn all() -> impl Iterator<Item = (OsString, OsString)> {
    env::vars_os()
}
