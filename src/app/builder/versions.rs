//! Keeps the versions that the programs of a build have answered, until another version is installed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

use peipkg_format::provenance::Versions;

/// The state of a program's file, which differs once another version is installed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp(Option<(u64, u64, SystemTime)>);

impl Stamp {
    /// Looks at the file of a program.
    pub(super) fn of(program: &Path) -> Self {
        let state = |file: fs::Metadata| Some((file.ino(), file.len(), file.modified().ok()?));
        Self(fs::metadata(program).ok().and_then(state))
    }
}

/// The versions of programs, and the state of their files when they said them.
#[derive(Debug, Default)]
pub(in crate::app) struct KnownVersions {
    pub(super) stamps: Option<[Stamp; 2]>,
    pub(super) versions: Versions,
}
