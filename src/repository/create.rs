//! Creates the repository. Must not change one that is there.
//!
//! `repo/` may be a link to a directory of another disk, or the root of a disk. So the new repository
//! is made within, and moved out of a hidden directory by renames, the descriptor last:
//!
//! ```text
//! repo/.creating/   peipkg-repo init is at work; the next start removes it
//! repo/.created/    whole and synced; the next start moves the rest, if the descriptor is among it
//! ```

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use log::info;
use peipkg_format::repository_layout::{self, DESCRIPTOR, KEY_DIRECTORY, handle};
use peipkg_format::sort;

use crate::config::Repo;
use crate::process::Interrupt;
use crate::repository::Repository;
use crate::repository::publish::PublishError;
use crate::repository::settle::{is_empty, is_missing};
use crate::repository::verdict::Ended;
use crate::state::durable::{self, at, link_target};

/// Where `peipkg-repo init` works, below `repo/`.
const CREATING: &str = ".creating";

/// The new repository when it is complete, below `repo/`.
const CREATED: &str = ".created";

impl Repository {
    /// Settles a publish that an earlier manager left, then creates the repository if there is
    /// none. A repository has a descriptor only if it is whole.
    ///
    /// # Errors
    /// When a publish cannot be settled, `peipkg-repo init` fails, or `repo/` holds other files.
    pub(crate) fn prepare(&self, interrupt: &Interrupt) -> Result<(), PublishError> {
        self.journal.clear_unfinished();
        // Settle first: a publish that was cut short may have lost the repository's descriptor.
        self.settle(Ended::Earlier, interrupt)?;
        let repo = self.state.repo();
        if !repo.join(DESCRIPTOR).exists() {
            self.create(&repo, interrupt)?;
        }
        // A crash may have left it, empty.
        let _ = fs::remove_dir(repo.join(CREATED));
        Ok(())
    }

    fn create(&self, repo: &Path, interrupt: &Interrupt) -> Result<(), PublishError> {
        let target = link_target(repo);
        if is_missing(&target) {
            // A link to a disk that is not mounted must not begin a second repository. The first run
            // of the tool creates its lock file.
            if target != repo && self.state.tool_lock().exists() {
                return Err(PublishError::Dangling { repo: repo.to_owned(), target });
            }
            fs::create_dir(&target).and_then(|()| durable::sync_parent(&target)).map_err(at(&target))?;
        }
        let created = repo.join(CREATED);
        // Without it, the descriptor was moved, and somebody has removed it since.
        if !created.join(DESCRIPTOR).exists() {
            self.init(repo, &created, interrupt)?;
        }
        move_out(&created, repo).map_err(at(repo))?;
        self.announce(repo);
        Ok(())
    }

    /// Logs what a client needs to trust the new repository.
    fn announce(&self, repo: &Path) {
        let names = fs::read_dir(repo.join(KEY_DIRECTORY)).into_iter().flatten().flatten();
        let mut names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let key = names.find_map(|name| name.strip_suffix(".pub").map(str::to_owned));
        let key = key.unwrap_or_default();
        let advice = format!("peipkg repo add {} ADDRESS --anchor {key}", handle(&self.config.repo.name));
        let repository = repo.display().to_string();
        info!(repository, key, advice; "repository created");
    }

    /// Makes a new repository at `created`, whole or not at all.
    fn init(&self, repo: &Path, created: &Path, interrupt: &Interrupt) -> Result<(), PublishError> {
        let Repo { name, description } = &self.config.repo;
        let program = self.tool.writer("init", interrupt)?;
        let creating = repo.join(CREATING);
        durable::remove(&creating).map_err(at(&creating))?;
        // It is empty if a crash left it.
        let _ = fs::remove_dir(created);
        if !is_empty(repo)? {
            return Err(PublishError::NoRepository(repo.to_owned()));
        }
        let program = program.args(["--name", name, "--description", description]);
        let made = program.arg("--out").arg(&creating).run(interrupt);
        made.inspect_err(|_| drop(durable::remove(&creating)))?;
        // Sync all files, such as the keys: no later publish writes them again.
        durable::sync_file_system(&creating).map_err(at(&creating))?;
        fs::rename(&creating, created).map_err(at(created))?;
        Ok(())
    }
}

/// Moves the files in `created` to `repo`, the descriptor and its signature last.
fn move_out(created: &Path, repo: &Path) -> io::Result<()> {
    let names = fs::read_dir(created)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
    let mut names = names?;
    let signature = repository_layout::signature(DESCRIPTOR);
    let place = |name: &OsString| (name == DESCRIPTOR, *name == *signature.as_os_str());
    sort::sort_by(&mut names, |a, b| place(a).cmp(&place(b)));
    for name in &names {
        if name == DESCRIPTOR {
            durable::sync(repo)?;
        }
        fs::rename(created.join(name), repo.join(name))?;
    }
    fs::remove_dir(created)?;
    durable::sync(repo)
}
