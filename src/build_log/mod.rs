//! Build logs: the output of each attempt's tools, one file an attempt.
//!
//! ```text
//! logs/<recipe>/<UTC time>_<version>_<attempt>.log      .ok.log, once the attempt has succeeded
//!
//! == 2026-11-22T11:40:11.793Z hello 1.0.0-1, attempt 1: tag v1.0.0 of https://git.example.org/hello.git
//! == 2026-11-22T11:40:11.794Z git fetch
//! == 2026-11-22T11:40:11.903Z peipkg-build build
//! cc -O2 -o hello hello.c
//! == 2026-11-22T11:40:12.214Z check of the outputs
//! == 2026-11-22T11:40:12.215Z peipkg-repo publish
//! == 2026-11-22T11:40:12.260Z done
//! ```
//!
//! A log grows as the output comes. [`capped_file`] bounds its size, [`names`] the number of a
//! recipe's logs, and [`text`] makes it safe to show on a terminal. A log must never fail a build:
//! an error here is a warning, once an attempt, and ends the log. For the same reason nothing here
//! syncs.

mod capped_file;
mod names;
mod text;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use log::warn;
use peipkg_format::problem::excerpt;
use peipkg_format::sort;
use peipkg_format::version::Version;

use crate::build_log::capped_file::CappedFile;
use crate::build_log::text::Cleaner;
use crate::process::Sink;
use crate::recipe::secrets::Secrets;
use crate::state::troubles;
use crate::state::volumes::LOST_AND_FOUND;

/// How many removed recipes keep their logs, newest first. An operator may still ask why a recipe
/// was given up.
const KEPT_OF_THE_GONE: usize = 20;

/// How many lines a failure shows of its log.
const TAIL_LINES: usize = 10;

/// The log of one attempt. Clones write to the same file.
#[derive(Clone)]
pub(crate) struct BuildLog(Rc<RefCell<Inner>>);

struct Inner {
    path: PathBuf,
    /// None if the file could not be created, or a write has failed.
    file: Option<CappedFile>,
    cleaner: Cleaner,
}

impl BuildLog {
    /// Removes the oldest logs of `recipe` below `logs`, and creates the log of an attempt at
    /// `version`. Its first line names the attempt and `what` it tries. The log redacts `secrets`,
    /// those of the upstream's URL. If the file cannot be created, the log warns and discards all
    /// output.
    pub(crate) fn begin(logs: &Path, recipe: &str, version: &Version, what: &str, secrets: Secrets) -> Self {
        let directory = logs.join(recipe);
        let (path, file, attempt) = match create(&directory, recipe, version) {
            Ok((path, file, attempt)) => (path, Some(CappedFile::new(file, capped_file::CAP)), attempt),
            Err(error) => {
                warn_of(&directory, &error);
                (directory, None, 0)
            }
        };
        let log = Self(Rc::new(RefCell::new(Inner { path, file, cleaner: Cleaner::new(secrets) })));
        log.note(format_args!("{recipe} {version}, attempt {attempt}: {what}"));
        if log.0.borrow().file.is_some() {
            troubles::end("cannot write the build log");
        }
        log
    }

    /// Discards all output: the file of the log could not be created, and the log has said so.
    pub(crate) fn nowhere() -> Self {
        Self(Rc::new(RefCell::new(Inner { path: PathBuf::new(), file: None, cleaner: Cleaner::default() })))
    }

    /// Continues the log at `path`, which another thread has begun. If the file cannot be opened, the
    /// log discards all output. It warns, unless the file is gone: later logs of the recipe may have
    /// taken its place.
    pub(crate) fn resume(path: &Path) -> Self {
        let opened = File::options().read(true).write(true).open(path);
        let file = opened.and_then(|file| CappedFile::resume(file, capped_file::CAP));
        if let Err(error) = &file
            && error.kind() != io::ErrorKind::NotFound
        {
            warn_of(path, error);
        }
        let cleaner = Cleaner::new(Secrets::default());
        Self(Rc::new(RefCell::new(Inner { path: path.to_owned(), file: file.ok(), cleaner })))
    }

    /// Returns the file's path, or none if the file could not be created or a write has failed.
    pub(crate) fn path(&self) -> Option<Arc<str>> {
        let inner = self.0.borrow();
        inner.file.as_ref().map(|_| Arc::from(inner.path.display().to_string()))
    }

    /// Adds a line of the manager's with the time: a step that begins, or how the attempt ended.
    pub(crate) fn note(&self, line: impl fmt::Display) {
        let mut inner = self.0.borrow_mut();
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        let text = inner.cleaner.line(&format!("== {now} {line}"));
        inner.write(&text);
    }

    /// Returns the last [`TAIL_LINES`] lines so far, each cut: the farm keeps them in memory for each
    /// failure. They are as safe to show as the file. None if the log has ended early.
    pub(crate) fn tail(&self) -> Vec<String> {
        let inner = self.0.borrow();
        let Some(Ok(text)) = inner.file.as_ref().map(CappedFile::tail) else { return Vec::new() };
        let mut lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.drain(..lines.len().saturating_sub(TAIL_LINES));
        lines.iter().map(|line| excerpt(line).into_owned()).collect()
    }

    /// Renames the file to end in `.ok.log`, so that it is removed before the logs of failures.
    /// Call it at most once.
    pub(crate) fn mark_success(&self) {
        let mut inner = self.0.borrow_mut();
        if inner.file.is_none() {
            return;
        }
        let path = inner.path.with_extension(names::OF_SUCCESS);
        match fs::rename(&inner.path, &path) {
            Ok(()) => inner.path = path,
            // An operator has removed the file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn_of(&inner.path, &error),
        }
    }
}

impl Sink for BuildLog {
    fn begin(&self, program: &str) {
        self.note(program);
    }

    fn output(&self, bytes: &[u8]) {
        let mut inner = self.0.borrow_mut();
        let text = inner.cleaner.push(bytes);
        inner.write(&text);
    }
}

impl fmt::Debug for BuildLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BuildLog").field(&self.0.borrow().path).finish()
    }
}

impl Inner {
    fn write(&mut self, text: &str) {
        let Some(file) = &mut self.file else { return };
        if let Err(error) = file.write(text.as_bytes()) {
            warn_of(&self.path, &error);
            // End the log here: an unmarked hole in its middle would mislead its reader.
            self.file = None;
        }
    }
}

/// Returns the text that a log would have of an output in `pieces`.
#[cfg(any(test, fuzzing))]
pub(crate) fn cleaned<'a>(secrets: Secrets, pieces: impl Iterator<Item = &'a [u8]>) -> String {
    let mut cleaner = Cleaner::new(secrets);
    let text: String = pieces.map(|piece| cleaner.push(piece)).collect();
    text + &cleaner.end_line()
}

/// Removes the logs of all removed recipes but the newest [`KEPT_OF_THE_GONE`]. `recipes` are the
/// present ones.
pub(crate) fn forget_gone(logs: &Path, recipes: &BTreeSet<&str>) {
    // An empty roster more likely means a file system that is not mounted.
    if recipes.is_empty() {
        return;
    }
    // Ignore a directory that cannot be read: the next attempt warns about it.
    let entries = fs::read_dir(logs).into_iter().flatten().flatten();
    let is_gone = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        name != LOST_AND_FOUND && !name.to_str().is_some_and(|id| recipes.contains(id))
    };
    let gone: Vec<PathBuf> = entries.filter(is_gone).map(|entry| entry.path()).collect();
    if gone.len() <= KEPT_OF_THE_GONE {
        return;
    }
    // A directory changes when an attempt creates its log.
    let changed = |path: &PathBuf| fs::symlink_metadata(path).and_then(|metadata| metadata.modified()).ok();
    let mut gone: Vec<_> = gone.into_iter().map(|path| (changed(&path), path)).collect();
    sort::sort_by(&mut gone, |a, b| a.0.cmp(&b.0));
    gone.truncate(gone.len() - KEPT_OF_THE_GONE);
    for (_, directory) in gone {
        remove(&directory, &names_in(&directory).unwrap_or_default());
        // This fails if other files are in the directory: leave them.
        let _ = fs::remove_dir(&directory);
    }
}

/// Removes the logs that must make room for the next attempt's, and creates its file. Returns its
/// path and the attempt's number too.
fn create(directory: &Path, recipe: &str, version: &Version) -> io::Result<(PathBuf, File, u32)> {
    // The recipe's name may come from the pending packages of an earlier run, so a damaged file
    // there could lead out of the directory.
    if !matches!(Path::new(recipe).components().collect::<Vec<_>>()[..], [Component::Normal(_)]) {
        return Err(io::Error::other("not the name of a recipe"));
    }
    let names = match names_in(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(directory)?;
            Vec::new()
        }
        names => names?,
    };
    let now = SystemTime::now();
    let plan = names::plan(&names, version.as_str(), now);
    remove(directory, &plan.doomed);
    let path = directory.join(names::name(now, version.as_str(), plan.attempt));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    Ok((path, file, plan.attempt))
}

/// Lists the names in a directory that are UTF-8, as those of all logs are.
fn names_in(directory: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
    entries.filter_map(Result::transpose).collect()
}

/// Removes those of `names` in `directory` that are names of logs.
fn remove(directory: &Path, names: &[String]) {
    for name in names.iter().filter(|name| names::is_log(name)) {
        let path = directory.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(path = path.display().to_string(), error:%; "cannot remove an old build log");
                troubles::begin_while_there("cannot remove an old build log", &path, &error);
                // Warn once: the others would most likely fail too.
                return;
            }
            _ => {}
        }
    }
}

fn warn_of(path: &Path, error: &io::Error) {
    let path = path.display().to_string();
    warn!(path, error:%; "cannot write the build log");
    troubles::begin("cannot write the build log", &path, &error);
}

#[cfg(test)]
mod tests {
    use peipkg_format::problem::MAX_EXCERPT;

    use super::*;
    use crate::recipe::upstream_url::UpstreamUrl;

    fn begin(logs: &Path, recipe: &str, version: &str) -> BuildLog {
        let secrets = UpstreamUrl::from("https://me:s3cret@h/x").secrets();
        BuildLog::begin(logs, recipe, &version.parse().unwrap(), "a test", secrets)
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names = names_in(directory).unwrap();
        sort::sort(&mut names);
        names
    }

    #[test]
    fn log_while_written_can_be_read() {
        let logs = tempfile::tempdir().unwrap();
        let log = begin(logs.path(), "tool", "1.0-1");
        let path = log.path().unwrap();
        let text = || fs::read_to_string(&*path).unwrap();
        assert!(text().ends_with("Z tool 1.0-1, attempt 1: a test\n"), "{}", text());
        Sink::begin(&log, "git fetch");
        log.output(b"half a line, s3cret");
        assert!(text().ends_with("Z git fetch\nhalf a line, ***"), "{}", text());
        log.clone().note("done\nthat is");
        assert!(
            text().contains("half a line, ***\n== ") && text().ends_with("Z done that is\n"),
            "{}",
            text()
        );
    }

    #[test]
    fn tail_of_a_log_is_its_last_ten_lines() {
        let logs = tempfile::tempdir().unwrap();
        let log = begin(logs.path(), "tool", "1.0-1");
        assert!(log.tail()[0].ends_with("tool 1.0-1, attempt 1: a test"), "{:?}", log.tail());
        for number in 0..20_000 {
            log.output(format!("line {number}\n\n").as_bytes());
        }
        log.output(b"\x1b[2J s3cret \xff\rhalf");
        log.note("failed: it breaks");
        let tail = log.tail();
        assert_eq!(tail.len(), TAIL_LINES);
        assert_eq!((tail[0].as_str(), tail[6].as_str()), ("line 19993", "line 19999"));
        assert_eq!((tail[7].as_str(), tail[8].as_str()), (r"\x1b[2J *** \xff", "half"));
        assert!(tail[9].ends_with("Z failed: it breaks"), "{tail:?}");
        log.output(format!("cc {} error", "\u{fc}".repeat(4000)).as_bytes());
        let cut = log.tail().pop().unwrap();
        assert_eq!(cut.chars().count(), MAX_EXCERPT);
        assert!(cut.starts_with("cc \u{fc}") && cut.ends_with("\u{fc} error"), "{cut}");
    }

    #[test]
    fn log_of_success_is_renamed() {
        let logs = tempfile::tempdir().unwrap();
        let log = begin(logs.path(), "tool", "1.0-1");
        log.mark_success();
        let path = log.path().unwrap();
        assert!(path.ends_with("_1.0-1_1.ok.log"), "{path}");
        log.note("the end");
        assert!(fs::read_to_string(&*path).unwrap().ends_with(" the end\n"));
        assert_eq!(names(&logs.path().join("tool")).len(), 1);
    }

    #[test]
    fn many_logs_keep_the_newest_whole() {
        let logs = tempfile::tempdir().unwrap();
        let directory = logs.path().join("tool");
        let mut paths: Vec<PathBuf> = Vec::new();
        for attempt in 1..=names::KEPT + 3 {
            let log = begin(logs.path(), "tool", "1.0-1");
            log.note(attempt);
            paths.push(PathBuf::from(&*log.path().unwrap()));
        }
        fs::write(directory.join("notes"), "").unwrap();
        begin(logs.path(), "tool", "1.1-1");
        let left = paths.iter().filter(|path| path.exists()).count();
        assert_eq!(left, names::KEPT - 1);
        assert!(paths[4..].iter().all(|path| path.exists()) && directory.join("notes").exists());
        for (index, path) in paths.iter().enumerate().skip(4) {
            let text = fs::read_to_string(path).unwrap();
            assert!(text.ends_with(&format!(" {}\n", index + 1)), "{text}");
        }
        assert_eq!(names(&directory).len(), names::KEPT + 1);
    }

    #[test]
    fn log_of_unsafe_recipe_name_has_no_file() {
        let home = tempfile::tempdir().unwrap();
        let logs = home.path().join("logs");
        for recipe in ["..", "../x", "/x", "a/b", ""] {
            let log = begin(&logs, recipe, "1.0-1");
            log.note("nothing");
            assert_eq!(log.path(), None, "{recipe}");
        }
        assert_eq!(names(home.path()), Vec::<String>::new());
    }

    #[test]
    fn removed_recipes_beyond_the_limit_lose_their_logs() {
        let logs = tempfile::tempdir().unwrap();
        let at = |name: &str| logs.path().join(name);
        let ids: Vec<String> = (0..KEPT_OF_THE_GONE + 3).map(|number| format!("gone{number:02}")).collect();
        for (age, id) in ids.iter().rev().enumerate() {
            begin(logs.path(), id, "1.0-1");
            if age == ids.len() - 2 {
                fs::write(at(id).join("notes"), "").unwrap();
            }
            let time = SystemTime::now() - std::time::Duration::from_secs(60 * age as u64);
            File::open(at(id)).unwrap().set_modified(time).unwrap();
        }
        begin(logs.path(), "there", "1.0-1");
        File::open(at("there")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        forget_gone(logs.path(), &BTreeSet::new());
        assert_eq!(names(logs.path()).len(), ids.len() + 1);
        forget_gone(logs.path(), &["there"].into());
        // Only the other file stays.
        assert_eq!(names(&at("gone01")), ["notes"]);
        let left: Vec<&str> = ids[3..].iter().map(String::as_str).collect();
        assert_eq!(names(logs.path()), [&["gone01"], &left[..], &["there"]].concat());
        assert_eq!(names(&at("gone03")).len(), 1);
    }
}
