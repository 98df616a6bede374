//! What on this machine can change what git sends: environment, configuration, netrc.
//!
//! Most machines configure nothing of the kind, and then no process is needed to
//! know it: the files that git would read are searched for the few sections that
//! matter ([`mentions_relevant_section`]). Only when one is there, or when an
//! environment variable carries configuration, is git asked for all of it.
//!
//! They are read when an upstream is first listed, again after a reload, and as long as
//! they cannot be read ([`Known`]).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use log::{info, warn};

use crate::process::{Interrupt, environment};
use crate::upstream::git::{CONFIG_DEADLINE, Git};
use crate::upstream::listing::native_or_git::{self, Settings};

/// The longest configuration or netrc file that is searched here, in bytes; git is asked about a longer one.
const MAX_FILE: u64 = 1024 * 1024;

/// The longest configuration that is accepted from git, in bytes.
const MAX_CONFIGURATION: usize = 16 * 1024 * 1024;

/// The settings as they were last read. Threads share them.
#[derive(Debug, Default)]
pub(crate) struct Known {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When they were read, and what they are.
    read: Option<(Instant, Arc<Settings>)>,
    /// Why git lists everything, as far as the log has it.
    said: Option<String>,
}

impl Known {
    /// The settings for `git`, for a listing that has `begun` then. Who needs them while they are read waits.
    /// Those that could not be read serve the listings that have waited for them, and no later one.
    pub(crate) fn get(&self, git: &Git, begun: Instant, interrupt: &Interrupt) -> Arc<Settings> {
        let mut state = self.state();
        if let Some((at, settings)) = &state.read
            && (settings.unreadable.is_none() || *at >= begun)
        {
            return settings.clone();
        }
        let settings = Arc::new(read(git, interrupt));
        if !interrupt.is_triggered() {
            state.tell(&settings);
        }
        state.read = Some((Instant::now(), settings.clone()));
        settings
    }

    /// Has them read again when they are next needed.
    pub(crate) fn forget(&self) {
        self.state().read = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole whatever panicked beside it: at worst the settings are read again.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Says once if git has to list everything: that costs a farm many processes, and one word may be the reason.
    fn tell(&mut self, settings: &Settings) {
        let reason = settings.against_all();
        if reason == self.said {
            return;
        }
        self.said.clone_from(&reason);
        match (reason, &settings.unreadable) {
            (Some(reason), Some(_)) => {
                warn!(reason; "git's settings cannot be read, it lists every upstream");
            }
            (Some(reason), None) => info!(reason; "git lists every upstream"),
            (None, _) => {}
        }
    }
}

/// Reads all of it for `git`.
fn read(git: &Git, interrupt: &Interrupt) -> Settings {
    let variables = environment::all().map(|(name, value)| (lossy(&name), lossy(&value)));
    let of_git = variables.filter(|(name, _)| native_or_git::is_relevant_variable(name)).collect();
    let mut settings = Settings { environment: of_git, ..Settings::default() };
    if may_be_configured(git.path()) {
        match ask(git, interrupt) {
            Ok(configuration) => settings.configuration = configuration,
            Err(reason) => settings.unreadable = Some(reason),
        }
    }
    if let Some(home) = environment::variable("HOME") {
        match read_file(&Path::new(&home).join(".netrc")) {
            Ok(netrc) => settings.netrc = netrc.unwrap_or_default(),
            // curl does without a file that it cannot open.
            Err(error) if is_closed(&error) => {}
            Err(error) => settings.unreadable = Some(format!("netrc cannot be read: {error}")),
        }
    }
    settings
}

/// Whether any of git's configuration may matter.
fn may_be_configured(git: &Path) -> bool {
    let by_environment = ["GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS"];
    by_environment.iter().any(|name| environment::variable(name).is_some())
        || candidates(git).iter().any(|path| match read_file(path) {
            Ok(text) => text.is_some_and(|text| mentions_relevant_section(&text)),
            Err(_) => true,
        })
}

/// The files that git reads its configuration from (git-config, "FILES"). That of a repository is not among
/// them: git is run in none.
fn candidates(git: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if let Some(file) = environment::variable("GIT_CONFIG_GLOBAL") {
        files.push(PathBuf::from(file));
    } else {
        let home = environment::variable("HOME").map(PathBuf::from);
        let xdg = environment::variable("XDG_CONFIG_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
        let xdg = xdg.or_else(|| Some(home.as_ref()?.join(".config")));
        files.extend(xdg.map(|directory| directory.join("git/config")));
        files.extend(home.map(|directory| directory.join(".gitconfig")));
    }
    if let Some(file) = environment::variable("GIT_CONFIG_SYSTEM") {
        files.push(PathBuf::from(file));
    } else if !environment::variable("GIT_CONFIG_NOSYSTEM").is_some_and(|value| is_true(&lossy(&value))) {
        files.push(PathBuf::from("/etc/gitconfig"));
        // A git of its own prefix has its own; the program on the PATH may be a link to it.
        for git in [Some(git.to_owned()), git.canonicalize().ok()].into_iter().flatten() {
            files.extend(git.ancestors().nth(2).map(|prefix| prefix.join("etc/gitconfig")));
        }
    }
    files
}

/// A text file; `None` if it does not exist.
fn read_file(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Err(error) if is_absent(&error) => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too long"));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Whether there is no such file; the way to it may lead through what is no directory.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether there is something that cannot be read as a file.
fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::IsADirectory)
}

/// Whether a configuration file has a section that can change what git sends over
/// HTTP, or leads to further files. Too much is found rather than too little: a
/// section header need not stand at the start of its line.
fn mentions_relevant_section(text: &str) -> bool {
    const SECTIONS: [&str; 6] = ["http", "url", "include", "protocol", "credential", "remote"];
    text.split('[').skip(1).any(|rest| {
        let rest = rest.trim_ascii_start().as_bytes();
        let starts = |section: &&str| {
            rest.get(..section.len()).is_some_and(|start| start.eq_ignore_ascii_case(section.as_bytes()))
        };
        SECTIONS.iter().any(starts)
    })
}

/// What git takes for "true"; any doubt means that the file is looked at.
fn is_true(value: &str) -> bool {
    ["1", "true", "yes", "on"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// All of git's configuration, from git.
fn ask(git: &Git, interrupt: &Interrupt) -> Result<Vec<(String, String)>, String> {
    let program = git.config().args(["--list", "-z"]).deadline(Some(CONFIG_DEADLINE));
    let output = program.capture_stdout(MAX_CONFIGURATION).run(interrupt);
    let output = output.map_err(|error| format!("git's configuration cannot be read: {error}"))?;
    Ok(parse_list(&String::from_utf8_lossy(&output.stdout)))
}

/// Reads the output of `git config --list -z`: key, line feed and value, each ended by a
/// zero byte. A key without a value means "true".
fn parse_list(list: &str) -> Vec<(String, String)> {
    let entries = list.split('\0').filter(|entry| !entry.is_empty());
    let pair = |entry: &str| {
        let (key, value) = entry.split_once('\n').unwrap_or((entry, "true"));
        (key.to_owned(), value.to_owned())
    };
    entries.map(pair).collect()
}

fn lossy(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_that_matter_are_found() {
        for text in [
            "[http]\n\tproxy = x",
            "[user]\nname = x\n  [HTTP \"https://x\"] proxy = y",
            "[url \"x\"]",
            "[ include ]\npath = x",
            "[includeIf \"gitdir:/\"]",
            "[Protocol]",
            "[credential]",
            "[remote \"https://x\"]",
            "[user] name = a [b]\n[http]",
        ] {
            assert!(mentions_relevant_section(text), "{text}");
        }
        for text in ["", "[user]\n\tname = http", "[core]\n# url\n", "http", "[init]"] {
            assert!(!mentions_relevant_section(text), "{text}");
        }
    }

    #[test]
    fn configuration_lists_are_read() {
        let list = "user.name\na\nb\0core.bare\0http.https://x/.proxy\n\0";
        let expected = [("user.name", "a\nb"), ("core.bare", "true"), ("http.https://x/.proxy", "")];
        assert_eq!(parse_list(list), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}
