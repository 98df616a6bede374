//! The configuration file: what it may say, and what it means.
//!
//! Pure: the text is an argument, and no path in it is looked up. Everything is
//! read strictly and all problems are reported together. Paths must be absolute
//! because a daemon's working directory is an accident of how it was started.
//! An empty string in an optional key means the same as the key's absence.

mod draft;
mod keys;
mod listen_addr;
mod sections;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use peipkg_format::problem::Problem;

pub(crate) use self::draft::Draft;
pub(crate) use self::keys::{BinaryKey, Grant};
pub(crate) use self::listen_addr::ListenAddr;
pub(crate) use self::sections::{Http, Manager, Poll, Repo, Upload};
pub(crate) use self::values::STATE_SUBDIRS;
use crate::recipe::Recipe;

/// A configuration that is complete and consistent in itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// `[manager]`.
    pub manager: Manager,
    /// `[repo]`.
    pub repo: Repo,
    /// `[signing] key_file`: the private key that signs packages and the repository.
    pub key_file: PathBuf,
    /// `[upload]`.
    pub upload: Upload,
    /// `[http]`.
    pub http: Http,
    /// `[poll]`.
    pub poll: Poll,
    /// `[build] timeout`: one build's wall clock; `None` is no limit.
    pub build_timeout: Option<Duration>,
    /// `[[signing_key]]`: the keys for signing binaries, by distinct names.
    pub binary_keys: Vec<BinaryKey>,
    /// `[[grant]]`: which recipe may use which of them, by recipe id.
    pub grants: BTreeMap<String, Grant>,
}

impl Config {
    /// Reads the configuration from the text of the file at `path`.
    ///
    /// # Errors
    /// All problems of the file.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Vec<Problem>> {
        let (draft, problems) = Draft::read(path, text);
        match Self::of(draft) {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }

    /// Returns the configuration that `draft` stands for, if nothing that it needs is missing or
    /// wrong. Use it only if the file has no problem at all.
    pub(crate) fn of(draft: Draft) -> Option<Self> {
        let manager = Manager { id: draft.id?, recipes_dir: draft.recipes_dir?, state_dir: draft.state_dir? };
        Some(Self {
            path: draft.path,
            manager,
            repo: draft.repo?,
            key_file: draft.key_file?,
            upload: draft.upload?,
            http: draft.http?,
            poll: draft.poll?,
            build_timeout: draft.build_timeout,
            binary_keys: draft.binary_keys,
            grants: draft.grants.into_iter().map(|(recipe, (_, grant))| (recipe, grant)).collect(),
        })
    }

    /// Which keys a recipe may use; none for a recipe that no `[[grant]]` names.
    pub fn grant_of(&self, recipe_id: &str) -> &Grant {
        const NONE: &Grant = &Grant { inject_pubkey: Vec::new(), sign: Vec::new() };
        self.grants.get(recipe_id).unwrap_or(NONE)
    }

    /// What is missing here for the recipes, see [`Http::check_recipes`].
    pub fn check_recipes<'r>(&self, recipes: impl IntoIterator<Item = &'r Recipe>) -> Option<Problem> {
        self.http.check_recipes(&self.path, recipes)
    }
}

#[cfg(test)]
mod tests;
