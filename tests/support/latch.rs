//! A place in a build script where the build waits until the test lets it go on.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::wait::{PATIENCE, wait_until};

/// The latch; builds that wait at it go on when it is opened.
pub struct Latch {
    directory: TempDir,
}

impl Latch {
    /// A closed latch.
    pub fn new() -> Self {
        Self { directory: TempDir::with_prefix("latch-").expect("a temporary directory") }
    }

    /// A path beside the latch, for marks of the script.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The lines that wait, for a build script.
    pub fn script(&self) -> String {
        let (reached, open) = (self.path("reached"), self.path("open"));
        format!(": > {}\nwhile [ ! -e {} ]; do sleep 0.02; done\n", reached.display(), open.display())
    }

    /// Whether a build has come to the latch.
    pub fn is_reached(&self) -> bool {
        self.path("reached").exists()
    }

    /// Waits for a build to come to the latch.
    #[track_caller]
    pub fn wait_reached(&self) {
        wait_until("a build is at the latch", PATIENCE, || self.is_reached());
    }

    /// Lets builds go on, now and later.
    pub fn open(&self) {
        fs::write(self.path("open"), "").expect("the latch opens");
    }
}
