//! Reads the settings of this machine that can change what git sends: environment, configuration
//! and netrc. It does not judge them; `native_or_git` does.
//!
//! Most machines have no such settings, and finding that out should cost no process. So this file
//! first searches git's configuration files for the few sections that matter
//! ([`mentions_relevant_section`]). It runs git only if it finds one, or if an environment variable
//! carries configuration: only git knows includes and precedence.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use log::{info, warn};
use peipkg_format::regular_file::{self, MAX_TEXT};

use crate::process::{Interrupt, environment};
use crate::state::troubles;
use crate::upstream::git::{CONFIG_DEADLINE, Git};
use crate::upstream::listing::native_or_git::{self, Settings};

/// The longest configuration accepted from git, in bytes: a broken git must not fill the memory.
const MAX_CONFIGURATION: usize = 16 * 1024 * 1024;

/// Caches the settings from the first listing to the next reload. Settings that could not be read
/// are read again by the next listing. Threads share the cache.
#[derive(Debug, Default)]
pub(crate) struct CachedSettings {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the settings were read, and the settings.
    cached: Option<(Instant, Arc<Settings>)>,
    /// Why git lists every upstream, as logged last.
    logged_reason: Option<String>,
}

impl CachedSettings {
    /// Returns the settings for a listing that began at `begun`. Concurrent callers block while one
    /// reads. Unreadable settings serve the listings that began before the attempt to read them
    /// ended: otherwise blocked listings would each wait for a hung git in turn.
    pub(crate) fn get(&self, git: &Git, begun: Instant, interrupt: &Interrupt) -> Arc<Settings> {
        let mut state = self.state();
        if let Some((at, settings)) = &state.cached
            && (settings.unreadable.is_none() || *at >= begun)
        {
            return settings.clone();
        }
        let settings = Arc::new(read_settings(git, interrupt));
        if !interrupt.is_triggered() {
            state.log_if_changed(&settings);
        }
        state.cached = Some((Instant::now(), settings.clone()));
        settings
    }

    /// Clears the cache.
    pub(crate) fn forget(&self) {
        self.state().cached = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere does no harm: at worst the settings are read again.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Logs once that git lists every upstream: a farm then starts many processes, and one
    /// forgotten setting may be the reason.
    fn log_if_changed(&mut self, settings: &Settings) {
        let reason = settings.reason_for_git_everywhere();
        if reason == self.logged_reason {
            return;
        }
        self.logged_reason.clone_from(&reason);
        troubles::end("cannot read git's settings, git lists every upstream");
        troubles::end("git lists every upstream");
        match (reason, &settings.unreadable) {
            (Some(reason), Some(_)) => {
                warn!(reason; "cannot read git's settings, git lists every upstream");
                troubles::begin("cannot read git's settings, git lists every upstream", "", &reason);
            }
            (Some(reason), None) => {
                info!(reason; "git lists every upstream");
                troubles::begin("git lists every upstream", "", &reason);
            }
            (None, _) => {}
        }
    }
}

fn read_settings(git: &Git, interrupt: &Interrupt) -> Settings {
    let variables = environment::all().map(|(name, value)| (lossy(&name), lossy(&value)));
    let relevant = variables.filter(|(name, _)| native_or_git::is_relevant_variable(name)).collect();
    let mut settings = Settings { environment: relevant, ..Settings::default() };
    if may_be_configured(git.path()) {
        match configuration_from_git(git, interrupt) {
            Ok(configuration) => settings.configuration = configuration,
            Err(reason) => settings.unreadable = Some(reason),
        }
    }
    if let Some(home) = environment::variable("HOME") {
        match read_file(&Path::new(&home).join(".netrc")) {
            Ok(netrc) => settings.netrc = netrc.unwrap_or_default(),
            // curl ignores a netrc file that it cannot open.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::IsADirectory) => {}
            Err(error) => settings.unreadable = Some(format!("cannot read the netrc file: {error}")),
        }
    }
    settings
}

/// Returns whether git's configuration may have a setting that matters. An unreadable file may.
fn may_be_configured(git: &Path) -> bool {
    let by_environment = ["GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS"];
    by_environment.iter().any(|name| environment::variable(name).is_some())
        || configuration_files(git).iter().any(|path| match read_file(path) {
            Ok(text) => text.is_some_and(|text| mentions_relevant_section(&text)),
            Err(_) => true,
        })
}

/// Returns the files from which git reads its configuration (git-config, "FILES"). A repository's
/// file is not among them: listings run git in no repository.
fn configuration_files(git: &Path) -> Vec<PathBuf> {
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
        // A git with a prefix of its own has its own file; the program on the PATH may be a link to
        // it.
        for git in [Some(git.to_owned()), git.canonicalize().ok()].into_iter().flatten() {
            files.extend(git.ancestors().nth(2).map(|prefix| prefix.join("etc/gitconfig")));
        }
    }
    files
}

/// Reads a text file. Returns `None` if it does not exist. If a configuration cannot be read here or
/// is longer than one written by hand, git reads it; if netrc is, git lists.
fn read_file(path: &Path) -> io::Result<Option<String>> {
    // git's documented name for no file; the reader refuses devices.
    if path == Path::new("/dev/null") {
        return Ok(None);
    }
    match regular_file::read(path, MAX_TEXT) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        bytes => Ok(Some(String::from_utf8_lossy(&bytes?).into_owned())),
    }
}

/// Returns whether a configuration file has a section that can change what git sends over HTTP, or
/// that includes other files. Rather finds too much: git takes a section header anywhere in a line.
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

/// Returns whether git reads `value` as true. A form that is missing here only costs reading one
/// more file.
fn is_true(value: &str) -> bool {
    ["1", "true", "yes", "on"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// Has git print its whole configuration.
fn configuration_from_git(git: &Git, interrupt: &Interrupt) -> Result<Vec<(String, String)>, String> {
    let program = git.config().args(["--list", "-z"]).deadline(Some(CONFIG_DEADLINE));
    let output = program.capture_stdout(MAX_CONFIGURATION).run(interrupt);
    let output = output.map_err(|error| format!("cannot read git's configuration: {error}"))?;
    Ok(parse_list(&String::from_utf8_lossy(&output.stdout)))
}

/// Parses the output of `git config --list -z`: entries of key, line feed and value, each ended by
/// a zero byte. A key without a value means "true".
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
    fn section_that_matters_is_found_wherever_it_stands() {
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
    fn configuration_list_is_keys_with_values_of_any_text() {
        let list = "user.name\na\nb\0core.bare\0http.https://x/.proxy\n\0";
        let expected = [("user.name", "a\nb"), ("core.bare", "true"), ("http.https://x/.proxy", "")];
        assert_eq!(parse_list(list), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}
