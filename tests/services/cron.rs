//! `contrib/cron`: the real cron runs its table in a copy of this machine, with the log in the
//! test's own syslog.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::support::git_repo::GitRepo;
use crate::support::install::built;
use crate::support::logfmt::{self, Event};
use crate::support::machine::Machine;
use crate::support::optional::require;
use crate::support::pages::{commands, page, section};
use crate::support::processes;
use crate::support::running::Running;
use crate::support::smart_http::SmartHttp;
use crate::support::wait::{PATIENCE, wait_until};

const TABLE: &str = "contrib/cron/peipkg-manager";

/// The path to which the page copies the table.
const LIVE: &str = "/etc/cron.d/peipkg-manager";

/// The message of a syslog datagram, without the head from `logger`: priority, time, host, tag.
struct Syslog {
    socket: UnixDatagram,
    lines: Vec<String>,
}

impl Syslog {
    /// Listens on the copy's syslog socket.
    fn listen(machine: &Machine) -> Self {
        let socket = UnixDatagram::bind(machine.path("/dev/log")).unwrap();
        machine.run("chmod 666 /dev/log");
        socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        Self { socket, lines: Vec::new() }
    }

    /// The manager's events so far.
    fn events(&mut self) -> Vec<Event> {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if let Some((_, line)) = text.split_once(" peipkg-manager: ") {
                self.lines.push(line.trim_end_matches(['\0', '\n']).to_owned());
            }
        }
        logfmt::events(&(self.lines.join("\n") + "\n"))
    }

    #[track_caller]
    fn wait(&mut self, message: &str, count: usize) -> Vec<Event> {
        let mut found = Vec::new();
        wait_until(message, PATIENCE, || {
            found = self.events().into_iter().filter(|event| event["msg"] == message).collect();
            found.len() >= count
        });
        found
    }
}

/// A copy of this machine with a farm whose build waits for the file `gate-open` in the state
/// directory, and with the page's cron table alone, with `when` instead of each half hour. Process
/// 1 is `init`.
#[track_caller]
fn machine(http: &SmartHttp, upstream: &GitRepo, when: &str, init: &[&str]) -> Option<(Machine, Syslog)> {
    let installing = page("docs/installing.md");
    let url = http.serve("hello.git", upstream);
    let prepare = format!(
        "rm -rf /etc/cron.d/* /etc/crontab /var/spool/cron/crontabs/*\n\
         export MAKEFLAGS='--silent BUILT={}'\n\
         cd '{}'\n\
         {}{}{}\
         sed -i 's|^[*]/30 [*] [*] [*] [*]|{when}|' {LIVE}\n\
         sed -i 's|^git = .*|git = \"{url}\"|' /etc/peipkg-manager/recipes/hello/peipkg.toml\n\
         sed -i '1a until [ -e /var/lib/peipkg-manager/gate-open ]; do sleep 0.02; done' /etc/peipkg-manager/recipes/hello/build.sh\n\
         cd /",
        built().display(),
        env!("CARGO_MANIFEST_DIR"),
        // The sections below it are other ways.
        commands(section(&installing, "## Build and install").split("\n### ").next().unwrap()),
        commands(section(&installing, "## Set up")),
        commands(page("contrib/cron/README.md").split("\n## ").next().unwrap()),
    );
    let machine = Machine::boot(&prepare, init)?;
    let syslog = Syslog::listen(&machine);
    Some((machine, syslog))
}

fn upstream() -> GitRepo {
    let upstream = GitRepo::new();
    upstream.commit(&[("hello.sh", "#!/bin/sh\necho hello\n")], "2026-01-01T00:00:00Z");
    upstream.tag_light("v1.0.0");
    upstream
}

fn published(machine: &Machine) -> bool {
    let index = fs::read_to_string(machine.path("/var/lib/peipkg-manager/repo/index/archive.json"));
    index.is_ok_and(|index| index.contains("1.0.0-1"))
}

#[test]
fn cron_runs_the_sweep_and_its_log_goes_to_syslog() {
    if !require("cron") {
        return;
    }
    let (http, upstream) = (SmartHttp::new(), upstream());
    // cron runs its `@reboot` lines at its start, so start it after the syslog.
    let init = ["sh", "-c", "until [ -e /run/go ]; do sleep 0.02; done; exec cron -f"];
    let Some((machine, mut syslog)) = machine(&http, &upstream, "@reboot", &init) else { return };
    machine.run("touch /run/go");
    syslog.wait("starting build", 1);
    assert_eq!(machine.run("stat -c %U /var/lib/peipkg-manager/lock").trim(), "peipkg");
    machine.run("touch /var/lib/peipkg-manager/gate-open");
    let complete = syslog.wait("build + publish complete", 1);
    assert_eq!(complete[0]["version"], "1.0.0-1");
    syslog.wait("peipkg-manager stopped", 1);
    assert!(published(&machine));
}

#[test]
fn sweep_another_is_at_work_is_silent() {
    if !require("flock") || !require("logger") {
        return;
    }
    let (http, upstream) = (SmartHttp::new(), upstream());
    let Some((machine, mut syslog)) = machine(&http, &upstream, "*/30 * * * *", &["sleep", "infinity"])
    else {
        return;
    };
    // Run the words after the user as cron does, with the table's shell and PATH.
    let table = page(TABLE);
    let path = table.lines().find(|line| line.starts_with("PATH=")).unwrap();
    let line = table.split_once("* * * * peipkg ").unwrap().1.trim();
    let job = format!("{path}\nexport PATH\nexec runuser -u peipkg -- sh -c '{line}'");
    let first = Running::spawn(&mut machine.command(&job));
    syslog.wait("starting build", 1);
    syslog.events();
    let before = syslog.lines.len();
    let second = machine.try_run(&job);
    second.assert_success();
    assert_eq!((second.stdout.as_str(), second.stderr.as_str()), ("", ""));
    syslog.events();
    assert_eq!(syslog.lines.len(), before, "{:?}", syslog.lines);
    // Only `flock` itself holds the lock, not the processes that the sweep has started.
    let mut builders = Vec::new();
    wait_until("the build script runs", PATIENCE, || {
        builders = processes::descendants(first.pid());
        builders.iter().any(|process| process.name == "peipkg-build")
    });
    for process in builders.iter().filter(|process| process.name != "flock") {
        let files = fs::read_dir(format!("/proc/{}/fd", process.pid)).into_iter().flatten().flatten();
        for file in files {
            let target = fs::read_link(file.path()).unwrap_or_default();
            assert!(!target.ends_with("sweep-lock"), "{process:?} holds the lock");
        }
    }
    machine.run("touch /var/lib/peipkg-manager/gate-open");
    first.wait_exit(PATIENCE).assert_success();
    syslog.wait("peipkg-manager stopped", 1);
    assert!(published(&machine));
}

#[test]
fn page_explains_the_line_as_it_is() {
    let table = page(TABLE);
    let line = table.lines().find(|line| line.starts_with("*/30 ")).unwrap();
    assert!(page("contrib/cron/README.md").contains(&format!("\n{line}\n")), "{line}");
}
