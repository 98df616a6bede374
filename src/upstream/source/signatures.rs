//! Verifies that one of a recipe's signers has signed a tag.
//!
//! git verifies, with the recipe's file and a fresh home directory: nothing of the manager's user or
//! of the machine adds a key. For the programs' exit status alone, no tag counts as signed: what they
//! say of the signature must agree. A signature of OpenSSH is verified a second time: git lets the
//! tag itself tell the time at which its key has to be valid.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use peipkg_format::problem::excerpt;
use peipkg_format::regular_file;

use crate::process::{ProcessError, Program};
use crate::recipe::signers::SignersKind;
use crate::state::durable;
use crate::upstream::git::{GitError, unexpected};
use crate::upstream::source::attempt::Attempt;
pub(crate) use crate::upstream::source::signature_status::Signer;
use crate::upstream::source::signature_status::{
    Said, Status, imported, not_imported, of_openpgp, of_openssh,
};
use crate::upstream::source::signed_object::{SignatureKind, Signed, SignedObject};

/// The largest object of a tag, in bytes. It has a message and a signature.
const MAX_OBJECT: usize = 1024 * 1024;

/// The longest report of an import, in bytes: a few hundred for each key of the largest file.
const MAX_REPORT: u64 = 16 * 1024 * 1024;

/// What gpg is told in its home directory: start no daemon, ask no server, and trust the keys, which
/// the recipe names.
const GPG_CONF: &str = "no-autostart\nno-auto-key-retrieve\ntrust-model always\n";

/// The programs that git verifies with, as far as the machine has them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verifiers {
    /// `ssh-keygen`.
    pub ssh_keygen: Option<PathBuf>,
    /// `gpg`.
    pub gpg: Option<PathBuf>,
}

impl Verifiers {
    /// Returns the program for a kind of signatures, and its name.
    pub(crate) fn of(&self, kind: SignersKind) -> (&'static str, Option<&Path>) {
        match kind {
            SignersKind::OpenSsh => ("ssh-keygen", self.ssh_keygen.as_deref()),
            SignersKind::OpenPgp => ("gpg", self.gpg.as_deref()),
        }
    }
}

/// Who may sign the tags of a recipe, and how to verify it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys<'a> {
    /// The file with the signers, which nobody changes meanwhile.
    pub file: &'a Path,
    /// The file as the recipe calls it.
    pub name: &'a str,
    /// Its kind.
    pub kind: SignersKind,
    /// `gpg` or `ssh-keygen`.
    pub program: &'a Path,
    /// A directory for the programs' files. It is made here, and removed by the caller.
    pub home: &'a Path,
}

/// Verifies that one of `keys` has signed `tag`, which is in `repository`.
///
/// # Errors
/// [`GitError::Refused`] if none has, and other errors if that cannot be found out.
pub(super) fn verify(
    keys: Keys<'_>,
    repository: &Path,
    tag: &str,
    attempt: Attempt<'_>,
) -> Result<Signer, GitError> {
    let ask = attempt.local(repository).input(format!("refs/tags/{tag}\n").into_bytes());
    let answer = ask.args(["cat-file", "--batch"]).capture_stdout(MAX_OBJECT).run(attempt.interrupt)?.stdout;
    let object = SignedObject::parse(&answer)
        .ok_or_else(|| unexpected(&String::from_utf8_lossy(&answer), "a tag object or a commit"))?;
    let id = object.id.clone();
    let refused = |reason: String| GitError::Refused { reason, id: id.clone() };
    if let Some(name) = object.name.as_ref().filter(|name| *name != tag) {
        return Err(refused(format!("refused: its tag object is that of tag {:?}", excerpt(name))));
    }
    let is_commit = object.name.is_none();
    let signed = object.signed.ok_or_else(|| {
        let what = if is_commit { "the tag has no object of its own, and its commit" } else { "it" };
        refused(format!("refused: {what} is not signed"))
    })?;
    let found = match signed.kind {
        SignatureKind::OpenSsh => Ok(SignersKind::OpenSsh),
        SignatureKind::OpenPgp => Ok(SignersKind::OpenPgp),
        SignatureKind::Other(what) => Err(what),
    };
    if found != Ok(keys.kind) {
        let (found, name) = (found.map_or_else(|what| what, SignersKind::name), keys.name);
        let wanted = keys.kind.name();
        return Err(refused(format!("refused: signed with {found}, and {name:?} has keys of {wanted}")));
    }
    make_home(keys.home).map_err(|error| at(keys.home, error))?;
    let verifier = Verifier { keys, repository, attempt };
    let status = match keys.kind {
        SignersKind::OpenSsh => verifier.openssh(&object.id, is_commit, &signed)?,
        SignersKind::OpenPgp => verifier.openpgp(&object.id, is_commit)?,
    };
    match status {
        Status::Good(by) => Ok(by),
        Status::Refused(reason) => Err(refused(format!("refused: {reason}"))),
    }
}

/// The programs, as one verification runs them.
struct Verifier<'a> {
    keys: Keys<'a>,
    repository: &'a Path,
    attempt: Attempt<'a>,
}

impl Verifier<'_> {
    fn openssh(&self, id: &str, is_commit: bool, signed: &Signed) -> Result<Status, GitError> {
        let Keys { file, home, name, .. } = self.keys;
        let git = self.git().arg("-c").arg(setting("gpg.ssh.allowedSignersFile", file));
        let status = of_openssh(self.said(git.args(verb(is_commit)).arg(id))?, name)?;
        let Status::Good(by) = &status else { return Ok(status) };
        let signature = home.join("signature");
        write(&signature, &signed.signature).map_err(|error| at(&signature, error))?;
        let program = self.alone(Program::new(self.keys.program)).input(signed.payload.clone());
        let program = program.args(["-Y", "verify", "-n", "git", "-f"]).arg(file);
        let program = program.args(["-I", &by.name, "-s"]).arg(&signature);
        let now = of_openssh(self.said(program)?, name)?;
        Ok(if matches!(now, Status::Good(_)) { status } else { now })
    }

    fn openpgp(&self, id: &str, is_commit: bool) -> Result<Status, GitError> {
        let Keys { file, home, name, .. } = self.keys;
        let (conf, report) = (home.join("gpg.conf"), home.join("import"));
        write(&conf, GPG_CONF.as_bytes()).map_err(|error| at(&conf, error))?;
        let gpg = self.alone(Program::new(self.keys.program)).args(["--batch", "--no-tty", "--status-file"]);
        let said = self.said(gpg.arg(&report).args(["--import", "--"]).arg(file))?;
        // A gpg that cannot work makes no report; then its words tell why.
        let text = regular_file::read(&report, MAX_REPORT).unwrap_or_default();
        let known = imported(&String::from_utf8_lossy(&text)).ok_or_else(|| not_imported(said, name))?;
        of_openpgp(self.said(self.git().args(verb(is_commit)).arg(id))?, &known, name)
    }

    /// Prepares a git that verifies with the one program. Those of the other kinds cannot run.
    fn git(&self) -> Program {
        let own = match self.keys.kind {
            SignersKind::OpenSsh => "gpg.ssh.program",
            SignersKind::OpenPgp => "gpg.openpgp.program",
        };
        let git = self.alone(self.attempt.local(self.repository));
        ["gpg.ssh.program", "gpg.openpgp.program", "gpg.x509.program"].into_iter().fold(git, |git, key| {
            let program = if key == own { self.keys.program } else { Path::new("/dev/null") };
            git.arg("-c").arg(setting(key, program))
        })
    }

    /// Gives a program the private home directory, and one way to read a time.
    fn alone(&self, program: Program) -> Program {
        let home = self.keys.home;
        let program = ["HOME", "GNUPGHOME", "XDG_CONFIG_HOME", "TMPDIR"]
            .into_iter()
            .fold(program, |program, name| program.env(name, home));
        let left = self.attempt.end.saturating_duration_since(Instant::now());
        let program = program.env("LC_ALL", "C").without_env("LANGUAGE").env("TZ", "UTC0");
        program.deadline(Some(left)).supervised().log_to(self.attempt.log)
    }

    /// Runs a program; returns its messages, and whether it has succeeded.
    fn said(&self, program: Program) -> Result<Said, GitError> {
        match program.run(self.attempt.interrupt) {
            Ok(output) => Ok(Said { text: output.tail, error: None }),
            Err(ProcessError::Failed { program, status, tail }) if status.code().is_some() => {
                let text = tail.clone();
                Ok(Said { text, error: Some(ProcessError::Failed { program, status, tail }) })
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn verb(is_commit: bool) -> [&'static str; 2] {
    [if is_commit { "verify-commit" } else { "verify-tag" }, "--raw"]
}

fn setting(key: &str, value: &Path) -> OsString {
    let mut setting = OsString::from(key);
    setting.push("=");
    setting.push(value);
    setting
}

/// Makes the empty directory that only this user can look into: gpg wants it so.
fn make_home(home: &Path) -> io::Result<()> {
    if let Some(parent) = home.parent() {
        fs::create_dir_all(parent)?;
    }
    DirBuilder::new().mode(0o700).create(home)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    durable::create(path)?.write_all(bytes)
}

fn at(path: &Path, error: io::Error) -> GitError {
    GitError::Tree { path: path.to_owned(), error }
}
