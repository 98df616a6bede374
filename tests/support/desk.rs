//! A desk: a sandbox in which a test runs the commands of a page. The page's absolute paths lie
//! below a temporary directory, and the `PATH` has only the programs of a list, so that an
//! unforeseen command is not found and can do no harm.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::executable;
use super::git_repo::{GitRepo, isolate, run};
use super::optional::find_program;
use super::running::{Output, Running};
use super::terminal::Terminal;
use super::tools::Tools;
use super::wait::PATIENCE;

/// The programs that the pages' commands, the demo and builds may call.
const PROGRAMS: &[&str] = &[
    "as", "awk", "basename", "cat", "cc", "chmod", "cmp", "cp", "curl", "cut", "date", "dd", "diff",
    "dirname", "env", "find", "gcc", "git", "grep", "gzip", "head", "hostname", "install", "ld", "ln", "ls",
    "make", "mkdir", "mkfifo", "mktemp", "mv", "openssl", "python3", "rclone", "readlink", "rm", "sed", "sh",
    "sort", "srun", "tail", "tar", "touch", "tr", "uname", "wc",
];

/// Directories that become the desk's own.
const MOVED: &[&str] = &["/etc/", "/var/lib/", "/srv/", "/root/", "/usr/local/", "/tmp/"];

/// The upstream of all examples.
pub const UPSTREAM: &str = "https://git.example.org/";

/// The desk. Dropping it stops its daemon and removes its directory.
pub struct Desk {
    daemon: Option<Running>,
    changes: Vec<(String, String)>,
    variables: Vec<(String, OsString)>,
    has_terminal: bool,
    /// The repository `hello` of [`UPSTREAM`].
    pub upstream: GitRepo,
    home: TempDir,
}

impl Desk {
    /// A desk with the programs, a clone of the source to work in, and an empty upstream.
    pub fn new() -> Self {
        let home = TempDir::with_prefix("desk-").expect("a temporary directory");
        let at = |path: &str| home.path().join(path.trim_start_matches('/'));
        for directory in [
            "bin",
            "source",
            "upstreams",
            "srv",
            "root",
            "tmp",
            "etc/cron.d",
            "etc/nginx/conf.d",
            "etc/service",
            "etc/sv",
            "etc/peipkg-manager/recipes",
            "var/lib/peipkg-manager",
            "usr/local/bin",
            "source/target/release",
        ] {
            fs::create_dir_all(at(directory)).expect("a directory");
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        for name in ["Cargo.toml", "Makefile", "contrib", "docs", "src"] {
            symlink(source.join(name), at("source").join(name)).expect("a link");
        }
        // The same files as after `make install`.
        let documents = at("usr/local/share/doc/peipkg-manager");
        fs::create_dir_all(&documents).expect("a directory");
        symlink(source.join("contrib"), documents.join("contrib")).expect("a link");
        fs::copy(source.join("docs/config.sample.toml"), at("etc/peipkg-manager/config.toml"))
            .expect("a sample");

        for program in PROGRAMS {
            let usual = ["/usr/bin", "/bin"].map(|directory| Path::new(directory).join(program));
            let found = usual.into_iter().find(|path| path.exists()).or_else(|| find_program(program));
            if let Some(found) = found {
                symlink(found, at("bin").join(program)).expect("a link");
            }
        }
        let tools = Tools::get();
        for (name, tool) in [("peipkg-build", &tools.build), ("peipkg-repo", &tools.repo)] {
            symlink(tool, at("bin").join(name)).expect("a link");
            symlink(tool, at("usr/local/bin").join(name)).expect("a link");
        }
        // Name the configuration: the manager's default path is the machine's.
        let config = at("etc/peipkg-manager/config.toml");
        let manager = format!(
            "case \" $* \" in *' --config'*) ;; *) set -- \"$@\" --config '{}' ;; esac\nexec '{}' \"$@\"\n",
            config.display(),
            tools.manager.display()
        );
        // A page's users do not exist here, so run the command as the present one.
        let runuser = "while [ \"$1\" != -- ]; do shift; done\nshift\nexec \"$@\"\n";
        for (name, script) in
            [("peipkg-manager", manager.as_str()), ("runuser", runuser), ("sudo", "exec \"$@\"\n")]
        {
            executable::write(&at("bin").join(name), format!("#!/bin/sh\n{script}").as_bytes());
        }
        for name in ["peipkg-manager", "peipkg-build", "peipkg-repo"] {
            symlink(at("bin").join(name), at("source/target/release").join(name)).expect("a link");
        }
        let upstreams = at("upstreams");
        let rewritten = format!("[url \"file://{}/\"]\n\tinsteadOf = {UPSTREAM}\n", upstreams.display());
        fs::write(at("gitconfig"), rewritten).expect("git's configuration");
        let upstream = GitRepo::in_dir(&upstreams, "hello.git");
        let desk = Self {
            daemon: None,
            changes: Vec::new(),
            variables: Vec::new(),
            has_terminal: false,
            upstream,
            home,
        };
        let sample = fs::read_to_string(source.join("docs/config.sample.toml")).expect("the sample");
        desk.write("/etc/peipkg-manager/config.toml", &sample);
        desk
    }

    /// The path below the desk that stands for the absolute `path` of a page.
    pub fn path(&self, path: &str) -> PathBuf {
        self.home.path().join(path.trim_start_matches('/'))
    }

    /// The path of a file that a page names; a relative one is below the clone of the source.
    pub fn place(&self, name: &str) -> PathBuf {
        if name.starts_with('/') { self.path(name) } else { self.path("source").join(name) }
    }

    /// Writes a file that a page names.
    pub fn write(&self, name: &str, text: &str) {
        let place = self.place(name);
        fs::create_dir_all(place.parent().expect("a parent")).expect("a directory");
        fs::write(place, self.moved(text)).expect("a file");
    }

    /// The text of a file that a page names.
    #[track_caller]
    pub fn read(&self, name: &str) -> String {
        let place = self.place(name);
        fs::read_to_string(&place).unwrap_or_else(|error| panic!("{}: {error}", place.display()))
    }

    /// Replaces `from` by `to` in the pages from now on.
    pub fn change(&mut self, from: &str, to: &str) {
        self.changes.push((from.to_owned(), to.to_owned()));
    }

    /// Sets an environment variable for the commands.
    pub fn variable(&mut self, name: &str, value: impl Into<OsString>) {
        self.variables.push((name.to_owned(), value.into()));
    }

    /// Lets the commands write to a terminal without colours from now on.
    pub fn use_terminal(&mut self) {
        self.has_terminal = true;
    }

    /// Writes a key to the path in the examples.
    pub fn key(&self) {
        self.run("openssl genpkey -algorithm ed25519 -out /etc/peipkg-manager/farm.pem");
    }

    /// Copies the sample recipe to the path in the examples.
    pub fn recipe(&self) {
        self.run("cp -R contrib/recipes/hello /etc/peipkg-manager/recipes/");
    }

    /// Adds a version to the upstream: the tag `v<version>`, on a commit of `files` and a program
    /// that prints the version.
    pub fn version(&self, version: &str, files: &[(&str, &str)]) {
        let program = format!("#!/bin/sh\necho hello, version {version}\n");
        let all: Vec<(&str, &str)> =
            [("hello.sh", program.as_str())].into_iter().chain(files.iter().copied()).collect();
        self.upstream.commit(&all, "2026-01-01T00:00:00Z");
        self.upstream.tag_light(&format!("v{version}"));
    }

    /// Replaces the tables in `fragment` in the configuration.
    pub fn configure(&self, fragment: &str) {
        let config = self.read("/etc/peipkg-manager/config.toml");
        let is_header = |line: &str| line.starts_with('[');
        let replaced: Vec<&str> =
            fragment.lines().filter(|line| is_header(line) && !line.starts_with("[[")).collect();
        let mut drops = false;
        let kept = config.lines().filter(|line| {
            if is_header(line) {
                drops = replaced.contains(line);
            }
            !drops
        });
        let kept: String = kept.map(|line| format!("{line}\n")).collect();
        self.write("/etc/peipkg-manager/config.toml", &format!("{kept}\n{fragment}"));
    }

    /// Runs shell text of a page to its end.
    #[track_caller]
    pub fn try_run(&self, script: &str) -> Output {
        if self.has_terminal {
            let mut command = self.command("sh", &["-c", &self.moved(script)]);
            return Terminal::new().output_of(command.env("TERM", "xterm"));
        }
        Running::spawn(&mut self.command("sh", &["-c", &self.moved(script)])).wait_exit(PATIENCE)
    }

    /// Runs shell text of a page and returns its output as the page would show it. The first
    /// failure fails the test.
    #[track_caller]
    pub fn run(&self, script: &str) -> String {
        let output = self.try_run(&format!("exec 2>&1\nset -e\n{script}"));
        output.assert_success();
        self.shown(&output.stdout)
    }

    /// Starts the daemon and waits until it has polled and built everything.
    #[track_caller]
    pub fn start_daemon(&mut self) {
        let mut daemon = Running::spawn(&mut self.command("peipkg-manager", &[]));
        daemon.wait_for(PATIENCE, |events| {
            let count = |message: &str| events.iter().filter(|event| event["msg"] == message).count();
            let polled = count("poll complete") >= count("polling upstream").max(1);
            let queued: usize =
                events.iter().filter_map(|event| event.get("queued")?.parse::<usize>().ok()).sum();
            polled && count("build + publish complete") + count("build failed") >= queued
        });
        self.daemon = Some(daemon);
    }

    /// The daemon.
    #[track_caller]
    pub fn daemon(&mut self) -> &mut Running {
        self.daemon.as_mut().expect("a daemon was started")
    }

    /// Stops the daemon with SIGTERM.
    #[track_caller]
    pub fn stop_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.signal(rustix::process::Signal::TERM);
            daemon.wait_exit(PATIENCE).assert_success();
        }
    }

    /// Translates `text` of a page to the paths of the desk.
    pub fn moved(&self, text: &str) -> String {
        let changed = self.changes.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        let home = self.home.path().display().to_string();
        let mut result = String::new();
        let mut rest = changed.as_str();
        while let Some(next) = rest.chars().next() {
            let before = result.chars().next_back();
            let begins = before.is_none_or(|c| !(c.is_alphanumeric() || "._-/}".contains(c)));
            // Do not translate a path twice.
            if rest.starts_with(&home) {
                result += &home;
                rest = &rest[home.len()..];
                continue;
            }
            if begins && MOVED.iter().any(|directory| rest.starts_with(directory)) {
                result += &home;
            }
            result.push(next);
            rest = &rest[next.len_utf8()..];
        }
        result
    }

    /// Translates output back to the paths of the page.
    pub fn shown(&self, output: &str) -> String {
        let home = self.home.path().display().to_string();
        let shown = self.changes.iter().fold(output.to_owned(), |text, (from, to)| text.replace(to, from));
        shown.replace(&format!("file://{home}/upstreams/"), UPSTREAM).replace(&home, "")
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("bin").join(program));
        command.args(arguments).env_clear().current_dir(self.path("source"));
        isolate(&mut command).env("GIT_CONFIG_GLOBAL", self.path("gitconfig"));
        command.env("PATH", self.path("bin")).env("HOME", self.path("/var/lib/peipkg-manager"));
        command.env("TMPDIR", self.path("tmp"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Whether the shell accepts the syntax of `script`.
#[track_caller]
pub fn assert_syntax(place: &str, script: &str) {
    let output = Command::new("sh").args(["-n", "-c", script]).output().expect("sh");
    assert!(output.status.success(), "{place}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Returns the output of `program --help`.
#[track_caller]
pub fn help_of(program: &Path) -> String {
    run(Command::new(program).arg("--help"))
}
