//! A point in a script where a build, or another child, waits until the test opens it.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::wait::{PATIENCE, wait_until};

/// The latch. Opening it lets every script at it go on.
pub struct Latch {
    directory: TempDir,
}

impl Latch {
    /// A closed latch.
    pub fn new() -> Self {
        Self { directory: TempDir::with_prefix("latch-").expect("a temporary directory") }
    }

    /// A path beside the latch, for files that the script leaves.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Shell lines that say they were reached, by a file, and wait for [`Latch::open`]. They fail when the
    /// latch is gone, so that what a killed manager has left ends with the test.
    pub fn script(&self) -> String {
        let (reached, open) = (self.path("reached"), self.path("open"));
        let (reached, open) = (reached.display(), open.display());
        format!(": > {reached}\nwhile [ ! -e {open} ]; do [ -e {reached} ] || exit 9; sleep 0.02; done\n")
    }

    /// Whether a script has reached the latch.
    pub fn is_reached(&self) -> bool {
        self.path("reached").exists()
    }

    /// Waits until a script has reached the latch.
    #[track_caller]
    pub fn wait_reached(&self) {
        wait_until("a script is at the latch", PATIENCE, || self.is_reached());
    }

    /// Lets scripts go on, now and later.
    pub fn open(&self) {
        fs::write(self.path("open"), "").expect("the latch opens");
    }
}
