//! Whether a publish has come to its end: asked of one that is just over, and of one that was cut short.
//!
//! A publish stands if all that was to be published is in the repository, to the
//! byte, and the repository verifies. Else its journal brings the repository back
//! to what it was. A journal that is damaged cannot do that; then it is enough
//! that the repository is whole as it is, with the outputs or without them.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;

use log::warn;

use super::{PublishError, Publisher, at, is_empty, is_missing, lock, read_kept};
use crate::archive::{Archive, Presence};
use crate::farm::events::PendingOutputs;
use crate::identity::PackageName;
use crate::journal::{JournalError, Kept};
use crate::process::{Interrupt, ProcessError};

/// How much of an index is looked at at a time, in bytes.
const BLOCK: usize = 64 * 1024;

/// How much of the end of an index may be white space, in bytes, but for what closes it.
const TAIL: usize = 64;

/// How a publish that was cut short has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// There was none, or it has left nothing to settle.
    Nothing,
    /// It was whole: that of these kept outputs, in their directory below `publish/`.
    Stands(String),
    /// It was not, and the repository is as it was before.
    Undone,
}

/// Which publish is to be settled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// One that has just ended: what is in the repository now is its tool's work.
    Own,
    /// One that may have ended long ago: others may have published since.
    Earlier,
}

impl Publisher {
    /// Ends a publish that was cut short: it stands if it is whole, else it is undone.
    ///
    /// # Errors
    /// When the repository cannot be brought back; this can be tried again.
    pub fn settle(&self, interrupt: &Interrupt) -> Result<Settled, PublishError> {
        self.settle_of(Whose::Earlier, interrupt)
    }

    /// The same, where it is known which publish it is.
    pub(super) fn settle_of(&self, whose: Whose, interrupt: &Interrupt) -> Result<Settled, PublishError> {
        let (repo, journal) = (self.state.repo(), self.journal());
        let kept = match journal.read() {
            Ok(None) => return Ok(Settled::Nothing),
            Ok(Some(kept)) => Ok(kept),
            Err(JournalError::Damaged(reason)) => Err(reason),
            Err(JournalError::Unreadable(error)) => return Err(at(journal.path())(error)),
        };
        if is_missing(&repo) {
            // Somebody has taken the repository away, and with it all that could be mended.
            journal.forget().map_err(at(journal.path()))?;
            return Ok(Settled::Nothing);
        }
        if is_empty(&repo)? {
            // Perhaps it is to come back, and then nothing else can mend it.
            return Err(PublishError::Emptied { repo, journal: journal.path().to_owned() });
        }
        // The tool may have outlived its manager, and be at it still.
        drop(lock(&self.state.tool_lock(), interrupt)?);
        let settled = match kept {
            Ok(kept) => {
                let Some(settled) = self.standing(&kept, whose, interrupt)? else {
                    if journal.undo(&kept).map_err(at(&repo))? {
                        warn!(outputs = kept.outputs; "publish was cut short, repository restored");
                    }
                    return Ok(Settled::Undone);
                };
                settled
            }
            Err(reason) => {
                if let Some(found) = self.unsoundness(interrupt)? {
                    let journal = journal.path().to_owned();
                    return Err(PublishError::CannotSettle { journal, reason, found });
                }
                for outputs in self.kept_outputs().iter().filter(|outputs| self.missing(outputs).is_none()) {
                    self.sync_published(outputs)?;
                }
                warn!(path = journal.path().display().to_string(), reason; "journal is damaged, but the repository is whole");
                Settled::Nothing
            }
        };
        journal.forget().map_err(at(journal.path()))?;
        Ok(settled)
    }

    /// What of `outputs` is not in the repository, or not as it was built.
    pub(super) fn missing(&self, outputs: &PendingOutputs) -> Option<String> {
        let version = &outputs.key.version;
        if !self.are_listed_plainly(outputs) {
            let archive = match self.read_archive() {
                Ok(archive) => archive,
                Err(error) => return Some(error),
            };
            if let Some(package) = outputs.packages.iter().find(|package| !archive.has(package, version)) {
                return Some(format!("{} is not in the archive index", package.file_name(version)));
            }
        }
        let other = outputs.packages.iter().find(|package| !self.is_published_as_kept(outputs, package));
        other.map(|package| format!("{} is not the file that was built", package.file_name(version)))
    }

    /// Whether the archive index has all of `outputs` in the form in which tools write it: compact, with the keys in the
    /// order of PSD-009 §6.2.4. Quotes within strings are escaped, so such bytes are an entry. This is asked after each
    /// publish, of an index that may be long: to understand all of it takes ten times as long.
    fn are_listed_plainly(&self, outputs: &PendingOutputs) -> bool {
        let version = &outputs.key.version;
        let begins = |PackageName { name, architecture }: &PackageName| {
            format!("{{\"name\":\"{name}\",\"version\":\"{version}\",\"architecture\":\"{architecture}\",")
        };
        let entries = outputs.packages.iter().map(begins).collect();
        File::open(self.state.archive_index()).is_ok_and(|index| has_all(index, entries).unwrap_or(false))
    }

    /// What becomes of the publish that `kept` would undo, if that is not to be done: it is whole, or it has left no
    /// trace and somebody else has published since, which to undo would lose.
    fn standing(
        &self,
        kept: &Kept,
        whose: Whose,
        interrupt: &Interrupt,
    ) -> Result<Option<Settled>, PublishError> {
        // The packages may have been there since an earlier publish that was undone: the indexes come to their end last.
        let outputs = read_kept(&self.state.publish().join(&kept.outputs));
        let Some(outputs) = outputs.filter(|_| self.journal().is_superseded(kept)) else {
            return Ok(None);
        };
        let is_whole = self.missing(&outputs).is_none();
        let is_of_others = !is_whole && whose == Whose::Earlier && self.has_none_of(&outputs);
        if !(is_whole || is_of_others) || self.fault(interrupt)?.is_some() {
            return Ok(None);
        }
        if is_of_others {
            return Ok(Some(Settled::Nothing));
        }
        self.sync_published(&outputs)?;
        Ok(Some(Settled::Stands(outputs.directory)))
    }

    /// Whether the archive index can be read, and names none of the packages of `outputs`.
    fn has_none_of(&self, PendingOutputs { key, packages, .. }: &PendingOutputs) -> bool {
        self.read_archive().is_ok_and(|archive| archive.presence(packages, &key.version) == Presence::Absent)
    }

    /// Why the repository is not whole, if a publish of any of the kept outputs may have been cut short in it.
    fn unsoundness(&self, interrupt: &Interrupt) -> Result<Option<String>, PublishError> {
        if let Some(found) = self.fault(interrupt)? {
            return Ok(Some(found));
        }
        let archive = match self.read_archive() {
            Ok(archive) => archive,
            Err(error) => return Ok(Some(error)),
        };
        let publish = self.state.publish();
        for entry in fs::read_dir(&publish).map_err(at(&publish))? {
            let path = entry.map_err(at(&publish))?.path();
            let Some(outputs) = read_kept(&path) else {
                return Ok(Some(format!("{} may have been published and cannot be read", path.display())));
            };
            let version = &outputs.key.version;
            let mut listed = outputs.packages.iter().filter(|package| archive.has(package, version));
            if let Some(package) = listed.find(|package| !self.is_published_as_kept(&outputs, package)) {
                return Ok(Some(format!("{} is not the file that was built", package.file_name(version))));
            }
        }
        Ok(None)
    }

    /// What `peipkg-repo verify` finds wrong, if anything.
    fn fault(&self, interrupt: &Interrupt) -> Result<Option<String>, PublishError> {
        match self.verify(interrupt) {
            Ok(()) => Ok(None),
            Err(error @ PublishError::Process(ProcessError::Failed { .. })) => Ok(Some(error.to_string())),
            // What could not be asked is not answered with no.
            Err(error) => Err(error),
        }
    }

    fn read_archive(&self) -> Result<Archive, String> {
        let path = self.state.archive_index();
        let archive = File::open(&path).and_then(|file| Ok(Archive::read(BufReader::new(file))?));
        archive.map_err(|error| format!("{}: {error}", path.display()))
    }

    fn is_published_as_kept(&self, outputs: &PendingOutputs, package: &PackageName) -> bool {
        let version = &outputs.key.version;
        let kept = self.packages_of(&outputs.directory).join(package.file_name(version));
        is_same_file(&kept, &self.published_path(package, version)).unwrap_or(false)
    }
}

/// Whether each of `entries`, which are objects' beginnings, is somewhere in an index, which is whole.
fn has_all(mut index: impl Read, mut entries: Vec<String>) -> io::Result<bool> {
    let longest = entries.iter().map(String::len).max().unwrap_or(0);
    let mut block = vec![0; longest + BLOCK];
    let mut filled = 0;
    loop {
        match index.read(&mut block[filled..])? {
            0 => return Ok(entries.is_empty() && block[..filled].trim_ascii_end().ends_with(b"]}")),
            length => filled += length,
        }
        let text = &block[..filled];
        entries.retain(|entry| {
            let mut objects = text.iter().enumerate().filter(|(_, byte)| **byte == b'{');
            !objects.any(|(at, _)| text[at..].starts_with(entry.as_bytes()))
        });
        // An entry may go on in the next block; so may the end of all.
        let kept = filled.min(longest.max(TAIL));
        block.copy_within(filled - kept..filled, 0);
        filled = kept;
    }
}

/// Whether two files have the same bytes.
fn is_same_file(a: &Path, b: &Path) -> io::Result<bool> {
    let (a, b) = (File::open(a)?, File::open(b)?);
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (BufReader::with_capacity(64 * 1024, a), BufReader::with_capacity(64 * 1024, b));
    loop {
        let (left, right) = (a.fill_buf()?, b.fill_buf()?);
        let length = left.len().min(right.len());
        if length == 0 || left[..length] != right[..length] {
            return Ok(left.is_empty() && right.is_empty());
        }
        a.consume(length);
        b.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives as much as `step` bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(self.1);
            self.0.read(&mut buffer[..length])
        }
    }

    #[test]
    fn entries_are_found_wherever_a_block_ends() {
        let entry =
            |name: &str| format!("{{\"name\":\"{name}\",\"version\":\"1-1\",\"architecture\":\"noarch\",");
        let filler: String = (0..20_000).map(|n| entry(&format!("filler-{n}")) + "\"x\":{}},").collect();
        let index =
            format!("{{\"packages\":[{}\"x\":1}},{filler}{}\"x\":1}}]}}\n", entry("first"), entry("last"));
        let check = |index: &str, names: &[&str], expected: bool| {
            for step in [1, 1000, 65_536, usize::MAX] {
                // Byte by byte, a short one has to do.
                if step > 1 || index.len() < 10_000 {
                    let found =
                        has_all(Slow(index.as_bytes(), step), names.iter().map(|n| entry(n)).collect());
                    assert_eq!(found.unwrap(), expected, "{names:?} by {step}");
                }
            }
        };
        for all in
            [&["first"][..], &["last"], &["last", "filler-9999", "first"], &["filler-0", "filler-19999"]]
        {
            check(&index, all, true);
        }
        check(&index, &["first", "lost"], false);
        check(&index, &["las"], false);
        check(&index[..index.len() - 3], &["first"], false);
        let short = format!("{{\"packages\":[{}\"x\":1}},{}\"x\":1}}]}}\n", entry("first"), entry("last"));
        check(&short, &["first", "last"], true);
        check(&short, &["other"], false);
        check(&short[..short.len() - 2], &["first"], false);
        // What a string says is no entry: its quotes are escaped.
        let quoted = format!("{{\"packages\":[{{\"name\":{:?}}}]}}", entry("first"));
        check(&quoted, &["first"], false);
        check("", &["first"], false);
    }
}
