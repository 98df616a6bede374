//! Finds the facts about a publish that failed or was cut short. Decides nothing and changes
//! nothing.
//!
//! A fact that cannot be found is an error, never a fault of the repository: an undo needs proof.

use std::collections::HashSet;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use peipkg_format::hex;
use peipkg_format::regular_file::{self, MAX_INDEX};
use peipkg_format::repository_layout::ARCHIVE_INDEX;
use ring::digest::{self, SHA256};

use crate::process::{Interrupt, ProcessError};
use crate::repository::journal::{INDEXES, Journal, Member, Saved};
use crate::repository::listed::{self, Entry, each_entry};
use crate::repository::verdict::{Ended, Group, Indexes};
use crate::repository::{Repository, index_head};
use crate::state::durable::{FileError, at};

/// How much of a file is held in memory at a time, in bytes.
const BLOCK: usize = 64 * 1024;

/// Why a fact cannot be found.
#[derive(Debug)]
pub(super) enum Unknown {
    /// A file cannot be read.
    File(FileError),
    /// `peipkg-repo verify` cannot run.
    Tool(ProcessError),
}

impl From<FileError> for Unknown {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<ProcessError> for Unknown {
    fn from(error: ProcessError) -> Self {
        Self::Tool(error)
    }
}

/// The facts about a publish.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) indexes: Indexes,
    pub(super) group: Group,
    /// How the repository is not whole, if so.
    pub(super) fault: Option<String>,
    /// The directories below `publish/` whose packages are all listed.
    pub(super) published: Vec<String>,
    /// The package files that are new since the saved index.
    pub(super) new_files: Vec<PathBuf>,
}

impl Repository {
    /// Finds the facts about the publish that `saved` can undo. Runs `peipkg-repo verify` only if
    /// both indexes are new.
    ///
    /// # Errors
    /// When a file cannot be read, or verify cannot run.
    pub(super) fn inspect(
        &self,
        saved: &Saved,
        ended: Ended,
        interrupt: &Interrupt,
    ) -> Result<Facts, Unknown> {
        let (indexes, stale) = indexes(&self.state.repo(), &self.journal, saved)?;
        let mut facts =
            Facts { indexes, group: Group::Torn, fault: stale, published: Vec::new(), new_files: Vec::new() };
        if facts.fault.is_none() {
            facts.fault = self.fault(interrupt)?;
        }
        if facts.fault.is_some() {
            return Ok(facts);
        }
        let members: Vec<_> = saved.group.iter().map(|member| self.completed(member)).collect();
        let key = |package: &(String, String, String)| listed::key(&package.0, &package.1, &package.2);
        let mut unlisted: HashSet<_> = members.iter().flat_map(|member| &member.packages).map(key).collect();
        let new = match self.new_entries(saved, &mut unlisted) {
            Ok(new) => new,
            Err(error) if error.is_io() => return Err(self.at_index(error).into()),
            Err(error) => {
                facts.fault = Some(self.at_index(error).to_string());
                return Ok(facts);
            }
        };
        for entry in &new {
            match self.file_of(entry)? {
                Ok(file) => facts.new_files.extend(file),
                Err(fault) => {
                    facts.fault = Some(fault);
                    return Ok(facts);
                }
            }
        }
        facts.group = Group::Listed;
        let altered = if ended == Ended::JustNow { self.altered(&members)? } else { Vec::new() };
        for member in &members {
            let lacking = member.packages.iter().filter(|package| unlisted.contains(&key(package))).count();
            match lacking {
                0 if !altered.contains(&member.directory) => {
                    facts.published.push(member.directory.clone());
                }
                lacking if ended == Ended::Earlier && lacking == member.packages.len() => {
                    // A version that is torn weighs more than one that is not there.
                    facts.group = if facts.group == Group::Torn { Group::Torn } else { Group::Apart };
                }
                _ => facts.group = Group::Torn,
            }
        }
        Ok(facts)
    }

    /// Returns the fault that `peipkg-repo verify` finds, if any. If verify could not run or did not
    /// come to an end, returns that error: the repository may be whole.
    pub(super) fn fault(&self, interrupt: &Interrupt) -> Result<Option<String>, ProcessError> {
        self.fault_at(&self.state.repo(), interrupt)
    }

    /// As [`Repository::fault`], of a repository at `repo`.
    pub(super) fn fault_at(
        &self,
        repo: &Path,
        interrupt: &Interrupt,
    ) -> Result<Option<String>, ProcessError> {
        match self.tool.verify(repo, interrupt) {
            Ok(()) => Ok(None),
            Err(error) if has_judged(&error) => Ok(Some(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Adds the packages to a member that an earlier version has written, if they are pending.
    pub(super) fn completed(&self, member: &Member) -> Member {
        let is_complete = !member.packages.is_empty() || !self.pending.contains(&member.directory);
        let pending = if is_complete { None } else { self.pending.get(&member.directory) };
        pending.map_or_else(|| member.clone(), |outputs| Member::from(&outputs))
    }

    /// Returns the directories of those members of which the repository has a pending package in another
    /// form, or not at all.
    fn altered(&self, members: &[Member]) -> Result<Vec<String>, FileError> {
        let is_pending = |member: &&Member| self.pending.contains(&member.directory);
        let pending = members.iter().filter(is_pending);
        let pending: Vec<_> = pending.filter_map(|member| self.pending.get(&member.directory)).collect();
        let listing = self.listing(&pending)?;
        let altered = pending.into_iter().filter(|outputs| self.published(outputs, &listing).is_err());
        Ok(altered.map(|outputs| outputs.directory).collect())
    }

    /// Returns the entries of the archive index that the saved one does not have as they are.
    /// Removes each listed package from `unlisted`.
    fn new_entries(&self, saved: &Saved, unlisted: &mut HashSet<String>) -> serde_json::Result<Vec<Entry>> {
        // Keep only a hash of each saved entry: an index may list many.
        let (hasher, mut old) = (RandomState::new(), HashSet::new());
        // A saved index that was broken already tells nothing: then each entry counts as new.
        if let Some(saved) = saved.file(ARCHIVE_INDEX) {
            let mut before = self.journal.open(saved).map_err(serde_json::Error::io)?;
            match each_entry(&mut before, &mut |entry| _ = old.insert(hasher.hash_one(&entry))) {
                Err(error) if error.is_io() => return Err(error),
                _ => {}
            }
        }
        let mut new = Vec::new();
        let index = regular_file::open_up_to(&self.state.archive_index(), MAX_INDEX);
        each_entry(&mut index.map_err(serde_json::Error::io)?, &mut |entry| {
            unlisted.remove(&entry.key());
            if !old.contains(&hasher.hash_one(&entry)) {
                new.push(entry);
            }
        })?;
        Ok(new)
    }

    /// Returns the file of `entry`, or how it is missing or not the file that the entry names. An
    /// entry with the URL of a server has none here.
    fn file_of(&self, entry: &Entry) -> Result<Result<Option<PathBuf>, String>, FileError> {
        let Some(expected) = entry.hash() else {
            return Ok(Err(format!("the archive index has no hash of {}", entry.shown_name())));
        };
        let path = match entry.path(&self.state.repo()) {
            Ok(Some(path)) => path,
            elsewhere => return Ok(elsewhere),
        };
        Ok(match sha256(&path).map_err(at(&path))? {
            Some(found) if found == expected => Ok(Some(path)),
            Some(_) => Err(format!("{} is not the file that the archive index lists", entry.shown_name())),
            None => Err(format!("{} is missing", entry.shown_name())),
        })
    }

    fn at_index(&self, error: serde_json::Error) -> FileError {
        at(&self.state.archive_index())(error.into())
    }
}

/// Whether a run of verify has found a fault. A signal, as of the kernel that lacks memory, a panic
/// (101), or a shell that cannot start the tool (126, 127) says nothing about the repository.
fn has_judged(error: &ProcessError) -> bool {
    let ProcessError::Failed { status, .. } = error else { return false };
    status.code().is_some_and(|code| code != 101 && code < 126)
}

/// Returns how far the indexes in the repository at `repo` are ahead of the saved ones, and how one
/// of them is missing or old, if so.
fn indexes(repo: &Path, journal: &Journal, saved: &Saved) -> Result<(Indexes, Option<String>), FileError> {
    let (mut stale, mut has_passed) = (None, false);
    for name in INDEXES {
        let Some(before) = saved.file(name) else { continue };
        let path = repo.join(name);
        match journal.is_other(before) {
            Ok(true) => {}
            Ok(false) => stale = Some(format!("{name} is the one from before the publish")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                stale = Some(format!("{name} is missing"));
                continue;
            }
            // No tool writes a FIFO, a device or such a length.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::FileTooLarge) =>
            {
                stale = Some(format!("{name} {error}"));
                continue;
            }
            Err(error) => return Err(at(&path)(error)),
        }
        let now = regular_file::open(&path).map_err(at(&path))?;
        let before = journal.open(before).map_err(at(&path))?;
        if let (Some(before), Some(now)) = (index_version(before), index_version(now)) {
            has_passed |= now > before.saturating_add(1);
        }
    }
    let indexes = match stale {
        _ if has_passed => Indexes::Passed,
        Some(_) => Indexes::Unfinished,
        None => Indexes::Superseded,
    };
    Ok((indexes, stale))
}

fn index_version(index: impl io::Read) -> Option<u64> {
    index_head::field(index, "index_version")
}

/// Returns the SHA-256 of the file at `path` in hexadecimal, or nothing if there is no such file.
pub(crate) fn sha256(path: &Path) -> io::Result<Option<String>> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Ok(None),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    let (mut file, mut block) = (regular_file::open(path)?, vec![0; BLOCK]);
    let mut digest = digest::Context::new(&SHA256);
    loop {
        match file.read(&mut block)? {
            0 => return Ok(Some(hex::encode(digest.finish().as_ref()))),
            length => digest.update(&block[..length]),
        }
    }
}
