//! Upstream repositories, made with the git command and independent of the machine's git
//! configuration.
//!
//! Identities and dates are fixed, so that the same calls give the same hashes. The author date is
//! always [`AUTHOR_DATE`] and never equals the committer date, so that a test fails where the
//! manager reads the wrong one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

/// The author date of every commit, older than any committer date in use.
pub const AUTHOR_DATE: &str = "2001-02-03T04:05:06Z";

/// An upstream with a work tree; the branch is `main`.
pub struct GitRepo {
    path: PathBuf,
    /// Keeps the directory alive when the repository has one of its own; a server may share it.
    home: Option<Arc<TempDir>>,
}

impl GitRepo {
    /// An empty repository in a temporary directory of its own.
    pub fn new() -> Self {
        Self::in_own_home("sha1")
    }

    /// An empty repository with the SHA-256 object format.
    pub fn sha256() -> Self {
        Self::in_own_home("sha256")
    }

    /// An empty repository at `parent/name`. Repositories below one parent are siblings, for
    /// relative submodule URLs; call them `lib.git` and so on, and the same relative URL holds for
    /// `file://` and over HTTP.
    pub fn in_dir(parent: &Path, name: &str) -> Self {
        Self::init(parent.join(name), None, "sha1")
    }

    /// A repository with one commit and one light tag `v<version>` for each of `versions`, in that
    /// order, a day apart from 2026-01-01 on. The files are those that
    /// [`super::recipes::Recipe::program`] installs.
    pub fn program(versions: &[&str]) -> Self {
        let repo = Self::new();
        repo.add_versions(versions);
        repo
    }

    /// Adds to `self` what [`GitRepo::program`] starts with. The days go on from the number of
    /// commits there are.
    pub fn add_versions(&self, versions: &[&str]) {
        for version in versions {
            let day = 1 + self.commits();
            assert!(day <= 31, "program repositories have at most 31 versions: use tag_many");
            let script = format!("#!/bin/sh\necho 'program {version}'\n");
            let readme = format!("This is version {version}.\n");
            let files = [("program.sh", script.as_str()), ("README", readme.as_str())];
            self.commit(&files, &format!("2026-01-{day:02}T12:00:00Z"));
            self.tag_light(&format!("v{version}"));
        }
    }

    fn in_own_home(format: &str) -> Self {
        let home = tempfile::Builder::new().prefix("upstream-").tempdir().expect("a temporary directory");
        Self::init(home.path().join("repo.git"), Some(Arc::new(home)), format)
    }

    fn init(path: PathBuf, home: Option<Arc<TempDir>>, format: &str) -> Self {
        fs::create_dir_all(&path).expect("the repository's directory");
        let repo = Self { path, home };
        repo.git(&["init", "--quiet", "--initial-branch=main", &format!("--object-format={format}")]);
        repo
    }

    /// Keeps the repository's own directory alive, if it has one.
    pub(super) fn home(&self) -> Option<Arc<TempDir>> {
        self.home.clone()
    }

    /// The directory of the work tree.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that git clients talk to.
    pub fn git_dir(&self) -> PathBuf {
        self.path.join(".git")
    }

    /// The `file://` URL of the repository.
    pub fn file_url(&self) -> String {
        format!("file://{}", self.path.display())
    }

    /// Runs git in the repository and returns its standard output without the last line end. Fails
    /// the test if git fails.
    #[track_caller]
    pub fn git(&self, arguments: &[&str]) -> String {
        run(git_command(&self.path).args(arguments))
    }

    /// Writes `path` into the work tree, for the next commit.
    pub fn write(&self, path: &str, content: &[u8]) {
        let path = self.parent_made(path);
        fs::write(path, content).expect("a file of the work tree");
    }

    /// Writes `path` as an executable, for the next commit.
    pub fn write_executable(&self, path: &str, content: &[u8]) {
        self.write(path, content);
        fs::set_permissions(self.path.join(path), fs::Permissions::from_mode(0o755)).expect("a mode");
    }

    /// Writes the git-lfs pointer of `content` to `path`, for the next commit, and puts the content
    /// where git-lfs keeps it. Which paths are in git-lfs is up to `.gitattributes`.
    pub fn write_lfs(&self, path: &str, content: &str) {
        let hash = ring::digest::digest(&ring::digest::SHA256, content.as_bytes());
        let oid = super::client::hex(hash.as_ref());
        let size = content.len();
        let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n");
        self.write(path, pointer.as_bytes());
        self.write(&format!(".git/lfs/objects/{}/{}/{oid}", &oid[..2], &oid[2..4]), content.as_bytes());
    }

    /// Makes `path` a symbolic link to `target`, for the next commit.
    pub fn symlink(&self, path: &str, target: &str) {
        symlink(target, self.parent_made(path)).expect("a symbolic link");
    }

    /// Declares a submodule, for the next commit: `path` holds `commit` of the repository at `url`,
    /// absolute or relative. Nothing is fetched, so `url` may be anything.
    pub fn add_submodule(&self, path: &str, url: &str, commit: &str) {
        let set = |key: &str, value: &str| {
            self.git(&["config", "--file", ".gitmodules", &format!("submodule.{path}.{key}"), value]);
        };
        set("path", path);
        set("url", url);
        // The empty directory is how a work tree shows a submodule that is not checked out; without
        // it, `add` drops the entry.
        fs::create_dir_all(self.path.join(path)).expect("the submodule's directory");
        self.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")]);
    }

    /// Writes `files`, commits the whole work tree with the committer date `date` (RFC 3339) and
    /// returns the commit's hash.
    #[track_caller]
    pub fn commit(&self, files: &[(&str, &str)], date: &str) -> String {
        for (path, content) in files {
            self.write(path, content.as_bytes());
        }
        self.git(&["add", "--all", "--force"]);
        let mut command = git_command(&self.path);
        command.args(["commit", "--quiet", "--allow-empty", "--message", date]);
        run(command.env("GIT_COMMITTER_DATE", date));
        self.head()
    }

    /// The hash of the commit that is checked out.
    pub fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    /// The number of commits on the branch.
    fn commits(&self) -> usize {
        let all = self.git(&["rev-list", "--all", "--count"]);
        all.parse().expect("git counts commits")
    }

    /// Tags the current commit with a light tag of exactly this name, even `--help`.
    pub fn tag_light(&self, name: &str) {
        self.git(&["update-ref", &format!("refs/tags/{name}"), "HEAD"]);
    }

    /// Tags the current commit with an annotated tag made at `date` (RFC 3339).
    pub fn tag_annotated(&self, name: &str, date: &str) {
        let mut command = git_command(&self.path);
        command.args(["tag", "--annotate", "--message", "a tag", "--", name]);
        run(command.env("GIT_COMMITTER_DATE", date));
    }

    /// Creates a branch at the current commit, possibly with a tag's name.
    pub fn branch(&self, name: &str) {
        self.git(&["update-ref", &format!("refs/heads/{name}"), "HEAD"]);
    }

    /// Writes light tags of the current commit into `packed-refs`, which takes a moment for a
    /// hundred thousand. Nothing checks the names, but git does not advertise one that breaks its
    /// rules: use `Fault::Answer` for such a name.
    pub fn tag_many<N: AsRef<str>>(&self, names: impl IntoIterator<Item = N>) {
        self.git(&["pack-refs", "--all"]);
        let file = self.git_dir().join("packed-refs");
        let head = self.head();
        let mut refs: BTreeMap<String, String> = BTreeMap::new();
        let mut last = String::new();
        for line in
            fs::read_to_string(&file).unwrap_or_default().lines().filter(|line| !line.starts_with('#'))
        {
            if let Some((_, name)) = line.split_once(' ') {
                name.clone_into(&mut last);
            }
            refs.entry(last.clone()).or_default().push_str(&format!("{line}\n"));
        }
        for name in names {
            let name = format!("refs/tags/{}", name.as_ref());
            let line = format!("{head} {name}\n");
            refs.insert(name, line);
        }
        let header = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
        let text: String = std::iter::once(header).chain(refs.into_values()).collect();
        fs::write(file, text).expect("packed-refs");
    }

    fn parent_made(&self, path: &str) -> PathBuf {
        let path = self.path.join(path);
        fs::create_dir_all(path.parent().expect("a path in the work tree")).expect("a directory");
        path
    }
}

/// Sets the variables that keep git away from the machine's configuration and from the terminal.
pub fn isolate(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        // A test run from a git hook inherits variables that point at another repository.
        if name.as_encoded_bytes().starts_with(b"GIT_") {
            command.env_remove(name);
        }
    }
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    command.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C").env("TZ", "UTC")
}

/// Prepares an isolated git command in `directory`, with fixed identities and dates.
pub fn git_command(directory: &Path) -> Command {
    let mut command = Command::new("git");
    isolate(&mut command).current_dir(directory).stdin(std::process::Stdio::null());
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "A U Thor").env(format!("GIT_{role}_EMAIL"), "a@example.org");
        command.env(format!("GIT_{role}_DATE"), AUTHOR_DATE);
    }
    command
}

/// Runs `command` and returns its standard output without the last line end. Fails the test if the
/// command fails.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n--- stdout\n{out}\n--- stderr\n{err}", output.status);
    out.trim_end_matches('\n').to_owned()
}
