//! `make install` and `make uninstall` with the binaries of this test run, and the files that they
//! leave.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::git_repo::{isolate, run};
use super::running::{Output, Running};
use super::tools::Tools;
use super::wait::PATIENCE;

/// Where the manager is installed.
pub const MANAGER: &str = "/usr/local/bin/peipkg-manager";
/// Where its configuration is.
pub const CONFIG: &str = "/etc/peipkg-manager/config.toml";
/// Where its unit is, with `INIT=systemd`.
pub const UNIT: &str = "/usr/local/lib/systemd/system/peipkg-manager.service";
/// Where the list of what was installed is.
pub const LIST: &str = "/usr/local/share/doc/peipkg-manager/installed-files";

/// Runs `make TARGET VARIABLE=VALUE…` with the binaries of this test run, whether it succeeds or
/// not.
#[track_caller]
pub fn make(target: &str, variables: &[&str]) -> Output {
    Running::spawn(&mut make_command(target, variables)).wait_exit(PATIENCE)
}

/// The command that [`make`] runs.
pub fn make_command(target: &str, variables: &[&str]) -> Command {
    let mut command = Command::new("make");
    command.arg("--silent").arg(target).arg(format!("BUILT={}", built().display())).args(variables);
    // The variables of the `make` that runs the tests would reach this one too.
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"] {
        command.env_remove(name);
    }
    for name in ["PREFIX", "SYSCONFDIR", "DESTDIR", "INIT", "TOOLS", "REPLACE"] {
        command.env_remove(name);
    }
    isolate(&mut command).current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

/// A directory with the stripped programs of this test run: symbols make a debug build ten times as
/// large.
pub fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let tools = Tools::get();
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stripped");
        fs::create_dir_all(&directory).expect("a directory below the target directory");
        for program in [&tools.manager, &tools.build, &tools.repo] {
            let name = program.file_name().expect("a name").to_string_lossy();
            // Another test run may write the same files.
            let fresh = directory.join(format!(".{name}.{}", std::process::id()));
            run(Command::new("strip").arg("-o").arg(&fresh).arg(program));
            fs::rename(fresh, directory.join(&*name)).expect("a stripped program");
        }
        directory
    })
}

/// `DESTDIR=root`.
pub fn destdir(root: &Path) -> String {
    format!("DESTDIR={}", root.display())
}

/// The sorted paths of all files below `root`, relative to it but with a leading slash; empty
/// directories end in a slash.
pub fn tree(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries: Vec<PathBuf> = fs::read_dir(&directory)
            .expect("a directory")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        let name = |path: &Path| format!("/{}", path.strip_prefix(root).expect("below it").display());
        if entries.is_empty() && directory != root {
            found.push(name(&directory) + "/");
        }
        for path in entries {
            if path.is_dir() && !path.is_symlink() {
                pending.push(path);
            } else {
                found.push(name(&path));
            }
        }
    }
    found.sort();
    found
}

/// An empty root, in a directory whose name needs quotes.
pub struct Root {
    home: TempDir,
}

impl Root {
    /// A new one.
    pub fn new() -> Self {
        Self { home: TempDir::with_prefix("a root ").unwrap() }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.home.path()
    }

    /// The path of `path` below this root.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir().join(path.trim_start_matches('/'))
    }

    /// Runs `make TARGET VARIABLE=VALUE…` with this root as `DESTDIR`.
    #[track_caller]
    pub fn make(&self, target: &str, variables: &[&str]) -> Output {
        let destdir = destdir(self.dir());
        let all: Vec<&str> = std::iter::once(destdir.as_str()).chain(variables.iter().copied()).collect();
        make(target, &all)
    }

    /// Installs into it.
    #[track_caller]
    pub fn install(&self, variables: &[&str]) -> Output {
        let output = self.make("install", variables);
        output.assert_success();
        output
    }

    /// Uninstalls an installation with the usual paths.
    #[track_caller]
    pub fn uninstall(&self) -> Output {
        let output = self.make("uninstall", &[]);
        output.assert_success();
        output
    }

    /// The content of a file in it.
    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Writes a file in it and creates the missing directories above.
    #[track_caller]
    pub fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// The installed manager, on a `PATH` that finds the installed tools first.
    pub fn manager(&self, arguments: &[&str]) -> Output {
        let machine = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(self.path("/usr/local/bin")).chain(std::env::split_paths(&machine));
        let mut command = Command::new(self.path(MANAGER));
        isolate(&mut command).env("PATH", std::env::join_paths(path).unwrap()).env("HOME", self.dir());
        Running::spawn(command.arg("--config").arg(self.path(CONFIG)).args(arguments)).wait_exit(PATIENCE)
    }
}
