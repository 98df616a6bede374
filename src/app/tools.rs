//! The programs that the manager runs. It looks for them on `PATH` once, at the start, and keeps
//! their absolute paths: all children of a run use the same programs.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::config::{Notify, Upload};
use crate::process::environment;
use crate::upstream::source::signatures::Verifiers;

/// The absolute paths of the programs.
#[derive(Debug, Clone)]
pub(super) struct Tools {
    /// `git`.
    pub git: PathBuf,
    /// `peipkg-build`.
    pub peipkg_build: PathBuf,
    /// `peipkg-repo`.
    pub peipkg_repo: PathBuf,
    /// `faketime`, if the machine has it.
    pub faketime: Option<PathBuf>,
    /// `rclone`, if uploads are configured.
    pub rclone: Option<PathBuf>,
    /// The program of `[notify] command`, if there is one.
    pub notify: Option<PathBuf>,
}

/// A program that the manager needs and the machine does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum MissingTool {
    /// `PATH` does not have it.
    #[error("{program} is not on PATH ({searched}); it is needed to {purpose}")]
    NotOnPath {
        /// The program's name.
        program: String,
        /// The purpose for which the manager runs it.
        purpose: &'static str,
        /// The value of `PATH`.
        searched: String,
    },
    /// Its path is not that of an executable file.
    #[error("{} is not an executable file; it is needed to {purpose}", path.display())]
    NotExecutable {
        /// Its path.
        path: PathBuf,
        /// The purpose for which the manager runs it.
        purpose: &'static str,
    },
}

impl Tools {
    /// Looks for the programs that a run with `upload` and `notify` needs.
    ///
    /// # Errors
    /// Every missing program.
    pub(super) fn find(upload: &Upload, notify: &Notify) -> Result<Self, Vec<MissingTool>> {
        let path = environment::variable("PATH");
        let notify = notify.command.first().map(String::as_str);
        Self::find_in(path.as_deref(), *upload != Upload::None, notify)
    }

    /// Looks for git, the only program that a plan needs.
    ///
    /// # Errors
    /// If it is missing.
    pub(super) fn find_git() -> Result<PathBuf, MissingTool> {
        look_for(environment::variable("PATH").as_deref(), "git", "list upstreams")
    }

    /// Looks for the programs that every farm needs.
    ///
    /// # Errors
    /// Every missing program.
    pub(super) fn find_needed() -> Result<Self, Vec<MissingTool>> {
        Self::find_in(environment::variable("PATH").as_deref(), false, None)
    }

    /// Looks for the programs that verify signatures. Only recipes with signers need them.
    pub(super) fn find_verifiers() -> Verifiers {
        let path = environment::variable("PATH");
        let find = |program| find_program(path.as_deref(), program);
        Verifiers { ssh_keygen: find("ssh-keygen"), gpg: find("gpg") }
    }

    /// Looks for the programs in the directories of `path`, a value of `PATH`.
    fn find_in(
        path: Option<&OsStr>,
        with_rclone: bool,
        notify: Option<&str>,
    ) -> Result<Self, Vec<MissingTool>> {
        let mut missing = Vec::new();
        let mut find = |program: &str, purpose| {
            look_for(path, program, purpose).unwrap_or_else(|error| {
                missing.push(error);
                PathBuf::new()
            })
        };
        let tools = Self {
            git: find("git", "list and fetch upstreams"),
            peipkg_build: find("peipkg-build", "build packages"),
            peipkg_repo: find("peipkg-repo", "publish packages"),
            faketime: find_program(path, "faketime"),
            rclone: with_rclone.then(|| find("rclone", "upload to [upload] remote")),
            notify: notify.map(|program| find(program, "run [notify] command")),
        };
        if missing.is_empty() { Ok(tools) } else { Err(missing) }
    }
}

/// Finds `program`, which is a name or an absolute path.
fn look_for(path: Option<&OsStr>, program: &str, purpose: &'static str) -> Result<PathBuf, MissingTool> {
    if program.starts_with('/') {
        let path = PathBuf::from(program);
        return if is_executable(&path) {
            Ok(path)
        } else {
            Err(MissingTool::NotExecutable { path, purpose })
        };
    }
    find_program(path, program).ok_or_else(|| {
        let searched = path.unwrap_or_default().to_string_lossy().into_owned();
        MissingTool::NotOnPath { program: program.to_owned(), purpose, searched }
    })
}

/// Finds the first executable file of that name. Like a shell, resolves a relative entry of `PATH`
/// from the current directory.
fn find_program(path: Option<&OsStr>, program: &str) -> Option<PathBuf> {
    let candidates = env::split_paths(path?).map(|directory| directory.join(program));
    candidates.filter(|candidate| is_executable(candidate)).find_map(|found| std::path::absolute(found).ok())
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_first_executable_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| directory.path().join(name));
        for (place, mode) in [(&first, 0o644), (&second, 0o755)] {
            fs::create_dir(place).unwrap();
            fs::write(place.join("git"), "").unwrap();
            fs::set_permissions(place.join("git"), fs::Permissions::from_mode(mode)).unwrap();
        }
        let path = env::join_paths([&first, &second]).unwrap();
        assert_eq!(find_program(Some(&path), "git"), Some(second.join("git")));
        let missing = Tools::find_in(Some(&path), true, Some("/nowhere/tell")).unwrap_err();
        let texts: Vec<_> = missing.iter().map(ToString::to_string).collect();
        let names: Vec<_> = texts.iter().map(|text| text.split(" is not ").next().unwrap()).collect();
        assert_eq!(names, ["peipkg-build", "peipkg-repo", "rclone", "/nowhere/tell"]);
        assert_eq!(Tools::find_in(None, false, Some("tell")).unwrap_err().len(), 4);
    }
}
