//! Replaces the pointers of git-lfs in a work tree by the files' content.
//!
//! git-lfs fetches the content into the repository, by the settings of the manager's user. A second
//! git writes it, without any settings: so the files do not depend on them, and versions that share
//! a cached repository share the content.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use peipkg_format::regular_file;
use peipkg_format::sort;

use crate::process::ProcessError;
use crate::recipe::upstream_url::UpstreamUrl;
use crate::upstream::git::GitError;
use crate::upstream::source::attempt::Attempt;

/// Every `.gitattributes` that puts files into git-lfs contains it.
const ATTRIBUTE: &[u8] = b"filter=lfs";

/// The beginnings of pointers, of today's git-lfs and of its first versions.
const POINTERS: [&[u8]; 2] =
    [b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/"];

/// The size that a pointer stays below, in bytes.
const MAX_POINTER: u64 = 1024;

/// The largest `.gitattributes` that is read. git itself ignores larger ones.
const MAX_ATTRIBUTES: u64 = 100 * 1024 * 1024;

/// How many bytes of paths one git gets as arguments.
const MAX_ARGUMENTS: usize = 64 * 1024;

/// The longest answer about the attributes of [`MAX_ARGUMENTS`] of paths.
const MAX_ANSWER: usize = 1024 * 1024;

/// `lfs.fetchinclude` and `lfs.fetchexclude` of a user or an upstream would leave pointers.
const FETCH_ALL: [&str; 4] = ["-c", "lfs.fetchinclude=", "-c", "lfs.fetchexclude="];

/// Replaces the pointers of `revision`, which is written in `directory`.
///
/// # Errors
/// When git-lfs is needed and missing or does not work, or does not deliver the content.
pub(super) fn replace_pointers(
    repository: &Path,
    url: &UpstreamUrl,
    revision: &str,
    directory: &Path,
    attempt: Attempt<'_>,
) -> Result<(), GitError> {
    let io = |error| GitError::Tree { path: directory.to_owned(), error };
    if !uses_lfs(directory).map_err(io)? {
        return Ok(());
    }
    let candidates = candidates(directory).map_err(io)?;
    let pointers = with_filter(candidates, repository, directory, attempt)?;
    let Some(first) = pointers.first() else { return Ok(()) };
    if let Err(error) = attempt.transport(repository, url).args(["lfs", "version"]).run(attempt.interrupt) {
        return Err(match error {
            // The words of a git that finds no such program.
            ProcessError::Failed { ref tail, .. } if tail.contains("is not a git command") => {
                GitError::LfsMissing { files: pointers.len(), path: first.clone() }
            }
            other => other.into(),
        });
    }
    // In a bare repository git-lfs reads the upstream's `.lfsconfig` from HEAD.
    let head = attempt.local(repository).args(["update-ref", "--no-deref", "HEAD"]);
    head.arg(format!("{revision}^{{commit}}")).run(attempt.interrupt)?;
    let origin = format!("remote.origin.url={}", url.address());
    let fetch = attempt.transport(repository, url).args(["-c", &origin]).args(FETCH_ALL);
    let fetched = fetch.args(["lfs", "fetch", "origin", revision]).run(attempt.interrupt);
    match fetched {
        // Only a failure may be about a file that merely looks like a pointer.
        Ok(_) | Err(ProcessError::Failed { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let storage = storage(repository, url, attempt)?;
    for path in &pointers {
        fs::remove_file(directory.join(path)).map_err(io)?;
    }
    // git writes the missing files.
    let write = attempt.work_tree(repository, directory).args(FETCH_ALL).args(storage).args([
        "-c",
        "filter.lfs.process=git-lfs filter-process",
        "-c",
        "filter.lfs.smudge=git-lfs smudge -- %f",
        "-c",
        "filter.lfs.required=true",
    ]);
    let written = write.args(["checkout-index", "--all", "--quiet"]).run(attempt.interrupt);
    // git-lfs also tries to fetch what only looks like a pointer, so its failure counts only if
    // content is missing.
    if written.is_err() {
        fetched?;
    }
    written?;
    match pointers.into_iter().find(|path| is_pointer(&directory.join(path)).unwrap_or(true)) {
        Some(path) => Err(GitError::LfsPointer { path }),
        None => Ok(()),
    }
}

/// Returns whether an attribute file of the tree mentions git-lfs.
fn uses_lfs(directory: &Path) -> io::Result<bool> {
    let mut found = false;
    walk(directory, |path, name| {
        if !found && name == ".gitattributes" {
            let mut text = Vec::new();
            regular_file::open(path)?.take(MAX_ATTRIBUTES).read_to_end(&mut text)?;
            found = text.windows(ATTRIBUTE.len()).any(|window| window == ATTRIBUTE);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Lists the files that look like pointers, by their paths below `directory`.
fn candidates(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    walk(directory, |path, _| {
        if is_pointer(path)? {
            found.push(path.strip_prefix(directory).unwrap_or(path).to_owned());
        }
        Ok(())
    })?;
    sort::sort(&mut found);
    Ok(found)
}

/// Calls `visit` with the path and name of each regular file below `directory`.
fn walk(directory: &Path, mut visit: impl FnMut(&Path, &OsString) -> io::Result<()>) -> io::Result<()> {
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                visit(&entry.path(), &entry.file_name())?;
            }
        }
    }
    Ok(())
}

fn is_pointer(path: &Path) -> io::Result<bool> {
    if fs::symlink_metadata(path)?.len() >= MAX_POINTER {
        return Ok(false);
    }
    let mut start = Vec::new();
    regular_file::open(path)?.take(MAX_POINTER).read_to_end(&mut start)?;
    Ok(POINTERS.iter().any(|pointer| start.starts_with(pointer)))
}

/// Returns those of `paths` whose attribute `filter` is `lfs`.
fn with_filter(
    paths: Vec<PathBuf>,
    repository: &Path,
    directory: &Path,
    attempt: Attempt<'_>,
) -> Result<Vec<PathBuf>, GitError> {
    let mut found = Vec::new();
    let mut paths = paths.into_iter().peekable();
    while paths.peek().is_some() {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while let Some(path) = paths.next_if(|_| bytes < MAX_ARGUMENTS) {
            bytes += path.as_os_str().len();
            chunk.push(path.into_os_string());
        }
        let ask = attempt.work_tree(repository, directory).directory(directory).capture_stdout(MAX_ANSWER);
        let ask = ask.args(["check-attr", "-z", "filter", "--"]).args(chunk);
        let answer = ask.run(attempt.interrupt)?.stdout;
        let fields: Vec<&[u8]> = answer.split(|byte| *byte == 0).collect();
        let is_lfs = |entry: &&[&[u8]]| matches!(entry, [_, _, b"lfs"]);
        found.extend(
            fields.chunks(3).filter(is_lfs).map(|entry| OsString::from_vec(entry[0].to_owned()).into()),
        );
    }
    Ok(found)
}

/// Returns the option for the place where git-lfs keeps content, if the user has set one.
fn storage(repository: &Path, url: &UpstreamUrl, attempt: Attempt<'_>) -> Result<Vec<OsString>, GitError> {
    let ask = attempt.transport(repository, url).capture_stdout(MAX_ANSWER);
    // `--default` makes a missing setting an empty answer, not a failure.
    let answer = ask.args(["config", "--get", "--default=", "lfs.storage"]).run(attempt.interrupt)?.stdout;
    let place = answer.trim_ascii_end();
    if place.is_empty() {
        return Ok(Vec::new());
    }
    let mut option = OsString::from("lfs.storage=");
    option.push(std::ffi::OsStr::from_bytes(place));
    Ok(vec!["-c".into(), option])
}
