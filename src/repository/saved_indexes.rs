//! Checks the indexes that the journal keeps beside itself, before an undo puts them back: a disk may have
//! altered them. The signature of an index is its only checksum, and `peipkg-repo verify` knows it.
//! So verify gets the repository as the undo would leave it, made of links in `stage/`.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use peipkg_format::repository_layout::INDEX_DIRECTORY;

use crate::process::Interrupt;
use crate::repository::Repository;
use crate::repository::inspect::Unknown;
use crate::repository::journal::{Saved, SavedFile};
use crate::state::durable::{self, at};

impl Repository {
    /// Whether an undo can rely on the indexes beside the journal. One that the repository has too, to the
    /// byte, needs no check: a tool that refuses a repository with a bad signature has changed nothing.
    ///
    /// # Errors
    /// When verify cannot run, or the file system refuses.
    pub(super) fn can_restore(&self, saved: &Saved, interrupt: &Interrupt) -> Result<bool, Unknown> {
        let repo = self.state.repo();
        let is_needed = |saved: &SavedFile| self.journal.is_other(saved).unwrap_or(true);
        if !saved.beside().any(is_needed) {
            return Ok(true);
        }
        let view = self.state.stage().join(self.state.unique_name("undo"));
        let made = self.make_view(&view, &repo, saved).map_err(at(&view));
        let fault = made.map_err(Unknown::File).and_then(|()| Ok(self.fault_at(&view, interrupt)?));
        durable::clear(&view);
        Ok(fault?.is_none())
    }

    /// Makes a directory that looks like the repository before the publish.
    fn make_view(&self, view: &Path, repo: &Path, saved: &Saved) -> io::Result<()> {
        fs::create_dir_all(view.join(INDEX_DIRECTORY))?;
        for saved in saved.files() {
            let path = view.join(&saved.name);
            if saved.offset.is_none() {
                symlink(self.journal.copy_of(&saved.name), path)?;
            } else {
                self.journal.copy(saved, &mut durable::create(&path)?)?;
            }
        }
        for entry in fs::read_dir(repo)? {
            let name = entry?.file_name();
            let is_hidden = name.as_encoded_bytes().starts_with(b".");
            if name != INDEX_DIRECTORY && !is_hidden && name.to_str().is_none_or(|n| saved.file(n).is_none())
            {
                symlink(repo.join(&name), view.join(&name))?;
            }
        }
        Ok(())
    }
}
