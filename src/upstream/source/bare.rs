//! The manager's bare repositories: makes one, and fetches into it.
//!
//! git cannot take a URL or a tag for an option: a URL follows `--`, and a tag is always written
//! `refs/tags/<tag>`. The full name also makes git ignore a branch of the same name.

use std::fs;
use std::path::Path;

use crate::process::{ProcessError, Program};
use crate::recipe::upstream_url::UpstreamUrl;
use crate::state::durable;
use crate::upstream::git::GitError;
use crate::upstream::git_access;
use crate::upstream::source::attempt::Attempt;

/// git's messages if the upstream names its objects by SHA-256: from a server with protocol version
/// 2, and from an older one.
const OTHER_OBJECT_FORMAT: [&str; 2] =
    ["mismatched algorithms", "Server does not support this repository's object format"];

/// Where git's message about an object has the object's id. A plain file server does not tell its
/// format, so git fails when it looks for an object by an id of the other length.
const UNKNOWN_OBJECT: &str = "bad revision '";

/// The lengths of an object's id by SHA-1 and SHA-256, in hexadecimal digits.
const SHA1_DIGITS: usize = 40;
const SHA256_DIGITS: usize = 64;

/// Whether to fetch the history too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum History {
    /// Only the named commits.
    None,
    /// All of it.
    All,
}

/// Makes a repository at `path`, of the upstream's object format, and fetches into it.
///
/// # Errors
/// When git fails.
pub(super) fn init_and_fetch<T>(
    path: &Path,
    attempt: Attempt<'_>,
    mut fetch: impl FnMut() -> Result<T, GitError>,
) -> Result<T, GitError> {
    init(path, "sha1", attempt)?;
    match fetch() {
        Err(GitError::Process(ProcessError::Failed { tail, .. })) if is_of_other_format(&tail) => {
            durable::clear(path);
            init(path, "sha256", attempt)?;
            fetch()
        }
        result => result,
    }
}

/// Returns whether git's messages say that the upstream names its objects by SHA-256.
fn is_of_other_format(tail: &str) -> bool {
    let names_long_id = |(_, rest): (&str, &str)| {
        rest.split_once('\'').is_some_and(|(id, _)| {
            id.len() == SHA256_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
    };
    OTHER_OBJECT_FORMAT.iter().any(|text| tail.contains(text))
        || tail.split_once(UNKNOWN_OBJECT).is_some_and(names_long_id)
}

fn init(path: &Path, object_format: &str, attempt: Attempt<'_>) -> Result<(), GitError> {
    let tree = |error| GitError::Tree { path: path.to_owned(), error };
    fs::create_dir_all(path).map_err(tree)?;
    let program = attempt.local(path).args(["init", "--quiet", "--bare", "--template="]);
    let program = program.arg(format!("--object-format={object_format}"));
    Ok(program.run(attempt.interrupt).map(drop)?)
}

/// Fetches tags.
///
/// # Errors
/// When git fails.
pub(super) fn fetch_tags<'t>(
    repository: &Path,
    url: &UpstreamUrl,
    tags: impl IntoIterator<Item = &'t str>,
    history: History,
    attempt: Attempt<'_>,
) -> Result<(), ProcessError> {
    let refspecs = tags.into_iter().map(|tag| format!("+refs/tags/{tag}:refs/tags/{tag}"));
    fetch(attempt.transport(repository, url), url, refspecs, history, attempt)
}

/// Makes a repository at `path` for a submodule's `commit`.
///
/// # Errors
/// When git fails.
pub(super) fn init_for_commit(path: &Path, commit: &str, attempt: Attempt<'_>) -> Result<(), GitError> {
    init(path, if commit.len() == SHA1_DIGITS { "sha1" } else { "sha256" }, attempt)
}

/// Fetches a commit that a submodule names. Without history, asks the server for the commit by its
/// id; some refuse ids that are no branch's tip. With all history, asks for all branches and tags.
///
/// # Errors
/// When git fails, or no branch or tag has the commit.
pub(super) fn fetch_commit(
    repository: &Path,
    url: &UpstreamUrl,
    commit: &str,
    history: History,
    attempt: Attempt<'_>,
) -> Result<(), GitError> {
    // An upstream chooses the URL, and must not read files of this machine by it. `git submodule`
    // sets the same variable.
    let program = attempt.transport(repository, url).env("GIT_PROTOCOL_FROM_USER", "0");
    let refspecs: &[&str] = match history {
        History::None => &[commit],
        History::All => &["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"],
    };
    fetch(program, url, refspecs.iter().map(|text| (*text).to_owned()), history, attempt)?;
    has_commit(repository, commit, attempt).map_err(|error| match error {
        ProcessError::Failed { .. } => {
            let reason = format!("no branch or tag of {url} has the commit {commit}");
            GitError::SubmoduleSource { reason }
        }
        other => other.into(),
    })
}

/// Checks that the repository has a commit.
///
/// # Errors
/// When it has not, or git fails.
pub(super) fn has_commit(repository: &Path, commit: &str, attempt: Attempt<'_>) -> Result<(), ProcessError> {
    let program = attempt.local(repository).args(["cat-file", "-e"]).arg(format!("{commit}^{{commit}}"));
    program.run(attempt.interrupt).map(drop)
}

fn fetch(
    program: Program,
    url: &UpstreamUrl,
    refspecs: impl IntoIterator<Item = String>,
    history: History,
    attempt: Attempt<'_>,
) -> Result<(), ProcessError> {
    let options = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-auto-maintenance"];
    let depth: &[&str] = if history == History::None { &["--depth=1"] } else { &[] };
    let program = program.args(options).args(depth.iter().copied()).args(attempt.git.upload_pack(url));
    program.args(["--", &git_access::name(url)]).args(refspecs).run(attempt.interrupt).map(drop)
}
