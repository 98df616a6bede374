//! Keys of ssh-keygen and gpg, and the programs that sign tags with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::executable;
use crate::support::git_repo::{GitRepo, run};

/// Keys, and the programs that sign with them.
pub struct Keys {
    /// The home directory of gpg, and the keys of ssh-keygen.
    pub home: TempDir,
}

impl Keys {
    pub fn new() -> Self {
        Self { home: TempDir::new().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Makes an OpenSSH key, and returns its public line.
    pub fn openssh(&self, name: &str) -> String {
        let path = self.path(name);
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&path));
        fs::read_to_string(path.with_extension("pub")).unwrap().trim().to_owned()
    }

    pub fn gpg(&self, arguments: &[&str]) -> String {
        let mut gpg = Command::new("gpg");
        gpg.args(["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]);
        run(gpg.arg("--homedir").arg(self.home.path()).args(arguments))
    }

    /// Makes a key of `gpg`, and returns it in armor.
    pub fn openpgp(&self, name: &str, options: &[&str]) -> String {
        let id = format!("{name} <{name}@example.com>");
        self.gpg(&[options, &["--quick-generate-key", &id, "ed25519", "sign", "1y"]].concat());
        self.gpg(&["--armor", "--export", name])
    }

    /// Returns the options for a git that signs with the key `name`.
    pub fn options(&self, name: &str, is_pgp: bool) -> Vec<String> {
        let program = self.path("sign-with-gpg");
        let (format, key) = if is_pgp {
            let text = format!(
                "#!/bin/sh\nexec gpg --homedir {} --batch --pinentry-mode loopback --passphrase '' \"$@\"\n",
                self.home.path().display()
            );
            executable::write(&program, text.as_bytes());
            ("openpgp", format!("{name}@example.com"))
        } else {
            ("ssh", self.path(name).display().to_string())
        };
        let settings = [
            format!("gpg.format={format}"),
            format!("user.signingkey={key}"),
            format!("gpg.program={}", program.display()),
        ];
        settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]).collect()
    }

    pub fn sign(&self, repo: &GitRepo, key: &str, is_pgp: bool, arguments: &[&str]) {
        let options = self.options(key, is_pgp);
        let arguments: Vec<&str> =
            options.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        repo.git(&arguments);
    }

    pub fn tag(&self, repo: &GitRepo, key: &str, is_pgp: bool, tag: &str) {
        self.sign(repo, key, is_pgp, &["tag", "-s", "-m", "release", tag]);
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // gpg has started an agent in this home.
        let mut end = Command::new("gpgconf");
        let _ = end.arg("--homedir").arg(self.home.path()).args(["--kill", "all"]).status();
    }
}
