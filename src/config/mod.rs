//! The configuration file: its keys and their meaning.
//!
//! Pure: the text is an argument, and no path in it is looked up. An unknown key is an error, and
//! all problems are reported together. Paths must be absolute: a daemon's working directory depends
//! on how it was started. An empty string in an optional key means the same as no key.

mod draft;
mod git_limits;
mod keys;
mod listen_addr;
mod notify;
mod remote;
mod sections;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use peipkg_format::problem::Problem;

pub(crate) use self::draft::Draft;
pub(crate) use self::git_limits::GitLimits;
pub(crate) use self::keys::{BinaryKey, Grant};
pub(crate) use self::listen_addr::ListenAddr;
pub(crate) use self::notify::Notify;
pub(crate) use self::remote::{Place, place};
pub(crate) use self::sections::{Build, Http, Manager, Poll, Repo, Upload};
pub(crate) use self::values::STATE_SUBDIRS;

/// A complete, consistent configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The configuration file.
    pub path: PathBuf,
    /// `[manager]`.
    pub manager: Manager,
    /// `[repo]`.
    pub repo: Repo,
    /// `[signing] key_file`: the private key to sign packages and the repository with.
    pub key_file: PathBuf,
    /// `[upload]`.
    pub upload: Upload,
    /// `[http]`.
    pub http: Http,
    /// `[poll]`.
    pub poll: Poll,
    /// `[build]`.
    pub build: Build,
    /// `[git]`.
    pub git: GitLimits,
    /// `[notify]`.
    pub notify: Notify,
    /// `[[signing_key]]`: the keys to sign binaries with. Their names are distinct.
    pub binary_keys: Vec<BinaryKey>,
    /// `[[grant]]`: which of these keys a recipe may use, by recipe id.
    pub grants: BTreeMap<String, Grant>,
}

impl Config {
    /// Reads the configuration from `text`, the text of the file at `path`.
    ///
    /// # Errors
    /// All problems of the file.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Vec<Problem>> {
        Self::try_from(Draft::read(path, text))
    }

    fn complete(draft: Draft) -> Option<Self> {
        let manager = Manager { id: draft.id?, recipes_dir: draft.recipes_dir?, state_dir: draft.state_dir? };
        Some(Self {
            path: draft.path,
            manager,
            repo: draft.repo?,
            key_file: draft.key_file?,
            upload: draft.upload?,
            http: draft.http?,
            poll: draft.poll?,
            build: draft.build?,
            git: draft.git?,
            notify: draft.notify?,
            binary_keys: draft.binary_keys,
            grants: draft.grants,
        })
    }

    /// Returns the keys that a recipe may use: none if it has no `[[grant]]`.
    pub fn grant_of(&self, recipe_id: &str) -> &Grant {
        const NONE: &Grant = &Grant { line: 0, inject_pubkey: Vec::new(), sign: Vec::new() };
        self.grants.get(recipe_id).unwrap_or(NONE)
    }
}

impl TryFrom<Draft> for Config {
    type Error = Vec<Problem>;

    /// Completes a draft.
    ///
    /// # Errors
    /// All problems of the draft.
    fn try_from(mut draft: Draft) -> Result<Self, Vec<Problem>> {
        let problems = std::mem::take(&mut draft.problems);
        match Self::complete(draft) {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }
}

#[cfg(test)]
mod tests;
