//! The paths of the binaries: cargo has built the manager for the tests; the companion tools are
//! built once per run.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

/// The binaries under test and a `PATH` that finds them.
pub struct Tools {
    /// `peipkg-manager`.
    pub manager: PathBuf,
    /// `peipkg-build`.
    pub build: PathBuf,
    /// `peipkg-repo`.
    pub repo: PathBuf,
    /// A directory with links to the three and nothing else.
    directory: PathBuf,
}

impl Tools {
    /// The manager's path. Does not build the companion tools.
    pub fn manager() -> &'static Path {
        Path::new(env!("CARGO_BIN_EXE_peipkg-manager"))
    }

    /// The tools. The first call builds the companion tools, and fails the test if that fails.
    pub fn get() -> &'static Self {
        static TOOLS: OnceLock<Tools> = OnceLock::new();
        TOOLS.get_or_init(Self::prepare)
    }

    /// The machine's `PATH` after the tools' directory, so that our tools win over installed ones.
    pub fn path(&self) -> OsString {
        let machine = std::env::var_os("PATH").unwrap_or_default();
        let all = std::iter::once(self.directory.clone()).chain(std::env::split_paths(&machine));
        std::env::join_paths(all).expect("no directory of the PATH contains a colon")
    }

    /// A directory of links to all programs on [`Tools::path`] except `missing`, to be the whole
    /// `PATH`.
    pub fn path_without(&self, missing: &[&str]) -> TempDir {
        let mirror = TempDir::with_prefix("path-").expect("a temporary directory");
        for directory in std::env::split_paths(&self.path()) {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let name = entry.file_name();
                if !missing.iter().any(|missing| name == *missing) {
                    // The link exists if an earlier directory of the PATH has the program, and that
                    // one wins.
                    let _ = symlink(entry.path(), mirror.path().join(name));
                }
            }
        }
        mirror
    }

    fn prepare() -> Self {
        let manager = Self::manager().to_owned();
        let binaries = manager.parent().expect("the profile's directory");
        build_companions(binaries);
        // All runs share the directory: the links never change.
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tools");
        fs::create_dir_all(&directory).expect("the tools' directory");
        let link = |name: &str| {
            let binary = binaries.join(name);
            assert!(binary.is_file(), "{} is missing: does peipkg-tools build it?", binary.display());
            let link = directory.join(name);
            let fresh = directory.join(format!(".{name}.{}", std::process::id()));
            symlink(&binary, &fresh).expect("a link to a tool");
            fs::rename(fresh, link).expect("a link to a tool");
            binary
        };
        link("peipkg-manager");
        let (build, repo) = (link("peipkg-build"), link("peipkg-repo"));
        Self { manager, build, repo, directory }
    }
}

/// Builds `peipkg-tools` with the profile and into the target directory that `binaries` belongs to.
/// Cargo offers a test only the binaries of its own package.
fn build_companions(binaries: &Path) {
    let profile = match binaries.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(other) => other,
        None => panic!("{} is not a profile's directory", binaries.display()),
    };
    let target = binaries.parent().expect("the target directory");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "peipkg-tools", "--bins", "--profile", profile]);
    command.arg("--target-dir").arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
    // Build scripts of dependencies depend on the package variables that cargo sets for a test.
    // Passed on, they would make cargo run these scripts, and compile everything that depends on
    // them, in each test run and again in the next build.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| name.to_string_lossy().starts_with(start)) {
            command.env_remove(name);
        }
    }
    super::git_repo::run(&mut command);
}
