//! What the provenance of a build says that is known before it: its start, its recipe, and the programs'
//! versions.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

use peipkg_format::provenance::Versions;

use crate::app::recipe_digest::{self, RecipeDigest};
use crate::app::recipe_files::CopyError;

/// What is known of a build before it begins.
pub(in crate::app) struct Inputs {
    /// When it begins.
    pub started: SystemTime,
    /// The digest of the recipe.
    pub recipe: RecipeDigest,
}

impl Inputs {
    /// Notes the time, and the digest of the recipe's `copy`: a build may change its files.
    pub(super) fn of(copy: &Path) -> Result<Self, CopyError> {
        Ok(Self { started: SystemTime::now(), recipe: recipe_digest::of(copy)? })
    }
}

/// The versions of programs, and the state of their files when they said them.
#[derive(Debug, Default)]
pub(in crate::app) struct KnownVersions {
    pub(super) stamps: Option<[Stamp; 2]>,
    pub(super) versions: Versions,
}

/// The state of a program's file, which differs once another version is installed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp(Option<(u64, u64, SystemTime)>);

impl Stamp {
    pub(super) fn of(program: &Path) -> Self {
        let state = |file: fs::Metadata| Some((file.ino(), file.len(), file.modified().ok()?));
        Self(fs::metadata(program).ok().and_then(state))
    }
}
