//! Too few files, threads and processes, and a log that cannot be written: whatever clients and
//! builds use up, the manager answers, says what it lacks, and goes on.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use crate::payloads::Addresses;
use crate::support::client::{Connection, exchange, get, request, webhook};
use crate::support::farm::{Farm, SECRET};
use crate::support::git_repo::{GitRepo, run};
use crate::support::optional::not_permitted;
use crate::support::processes::{sockets, status_number};
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::smart_http::SmartHttp;
use crate::support::tools::Tools;
use crate::support::wait::{PATIENCE, wait_until};

/// Limits the numbers of the files that a running process may open; `None` lifts the limit.
fn limit_files(pid: i32, to: Option<u64>) {
    let usual = getrlimit(Resource::Nofile);
    let limit = Rlimit { current: to.or(usual.current), maximum: usual.maximum };
    prlimit(Pid::from_raw(pid), Resource::Nofile, limit).unwrap();
}

/// A user who runs nothing but one farm: the limit on processes counts those of one user, and root
/// has none.
pub(crate) struct OwnUser(u32);

impl OwnUser {
    /// A new user; nothing if this process may not become another.
    pub(crate) fn new() -> Option<Self> {
        static USERS: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            not_permitted("root's right to become another user");
            return None;
        }
        let user =
            Self(200_000 + 100 * (std::process::id() % 10_000) + USERS.fetch_add(1, Ordering::Relaxed));
        let script = format!("exec {} test -x \"$0\"", user.become_it());
        let test = Command::new("sh").args(["-c", &script]).arg(&Tools::get().manager).status();
        if test.is_ok_and(|status| status.success()) {
            return Some(user);
        }
        not_permitted("programs that another user can run");
        None
    }

    /// A new user who owns `farm`.
    pub(crate) fn of(farm: &Farm) -> Option<Self> {
        let user = Self::new()?;
        user.give(farm.home());
        Some(user)
    }

    /// Gives a directory with all its content to the user.
    pub(crate) fn give(&self, directory: &Path) {
        run(Command::new("chown").args(["-R", &format!("{0}:{0}", self.0)]).arg(directory));
    }

    /// The beginning of a command line that runs the rest as this user.
    pub(crate) fn become_it(&self) -> String {
        format!("setpriv --reuid {0} --regid {0} --clear-groups", self.0)
    }

    /// Prepares the manager, run by this user with at most `processes` processes and threads.
    pub(crate) fn command(&self, farm: &Farm, arguments: &[&str], processes: &str) -> Command {
        let mut command = farm.command(arguments);
        command.arg("--config").arg(farm.config_path());
        farm.shell(&command, &format!("exec {} prlimit --nproc={processes} \"$@\"", self.become_it()))
    }

    /// Limits the processes that a running process may start, as [`Self::command`].
    pub(crate) fn limit(&self, pid: i32, processes: &str) {
        let script = format!("exec {} prlimit --pid {pid} --nproc={processes}:", self.become_it());
        run(Command::new("sh").args(["-c", &script]));
    }
}

/// The limit that is none.
pub(crate) const ENOUGH: &str = "10000";

/// A program's repository, the recipe for it with a webhook, and its signed webhook's body.
fn hooked(http: &SmartHttp, name: &str, versions: &[&str]) -> (GitRepo, Recipe, String) {
    let repo = GitRepo::program(versions);
    let url = http.serve(name, &repo);
    let body = crate::payloads::github_push(&Addresses::of(&url), "v9");
    (repo, Recipe::program(name, &url).watch("github_webhook = true"), body)
}

/// Sends 14 unsigned bodies of 2 MB at once, and expects their refusal.
fn post_large_bodies(addr: SocketAddr) {
    let body = vec![b'x'; 2_000_000];
    thread::scope(|scope| {
        let post = || request(addr, "POST", "/webhooks/github", &[], &body).status;
        let clients: Vec<_> = (0..14).map(|_| scope.spawn(post)).collect();
        for client in clients {
            assert_eq!(client.join().unwrap(), 401);
        }
    });
}

#[track_caller]
fn stop(mut daemon: Running) {
    daemon.signal(Signal::TERM);
    let output = daemon.wait_exit(PATIENCE);
    assert_eq!(output.status.code(), Some(0), "{output}");
    assert!(!output.stderr.contains("panicked"), "{output}");
}

#[test]
fn files_few_and_clients_unfinished_do_not_stop_the_farm() {
    let http = SmartHttp::new();
    let (repo, recipe, body) = hooked(&http, "tool", &["1.0"]);
    let farm = Farm::builder().http().with(&recipe).build();
    let mut command = farm.command(&["--config"]);
    command.arg(farm.config_path());
    let mut daemon = Running::spawn(&mut farm.shell(&command, "ulimit -n 64 && exec \"$@\""));
    let addr = daemon.http_addr();
    let halves = [
        &b"GET /healthz HTTP/1.1\r\nHost: "[..],
        b"POST /webhooks/github HTTP/1.1\r\nContent-Length: 5000\r\n\r\nabc",
    ];
    let open = |number: usize| {
        let mut client = TcpStream::connect(addr).unwrap();
        client.write_all(halves[number % 2]).unwrap();
        client
    };
    let _clients: Vec<TcpStream> = (0..50).map(open).collect();
    for _ in 0..20 {
        assert_eq!(get(addr, "/healthz").text(), "ok");
    }
    daemon.wait_events("build + publish complete", 1, PATIENCE);
    let _more: Vec<TcpStream> = (0..50).map(open).collect();
    repo.add_versions(&["1.1"]);
    assert_eq!(webhook(addr, "push", SECRET, body.as_bytes()).status, 200);
    daemon.wait_events("build + publish complete", 2, PATIENCE);
    // Clients that made room before they finished are counted.
    let refused = daemon.wait_event("request refused", PATIENCE);
    assert_eq!((&*refused["level"], &*refused["reason"]), ("warn", "too many requests at once"));
    stop(daemon);
}

#[test]
fn files_all_used_clients_get_503_and_the_log_a_line_a_second() {
    let farm = Farm::builder().http().build();
    let mut daemon = farm.daemon();
    let (addr, pid) = (daemon.http_addr(), daemon.pid());
    let idle = sockets(pid);
    assert_eq!(get(addr, "/healthz").text(), "ok");
    // The spare file gets lost, and is opened again below the files that the start has closed.
    limit_files(pid, Some(0));
    let client = TcpStream::connect(addr).unwrap();
    daemon.wait_event("cannot accept a connection", PATIENCE);
    limit_files(pid, None);
    drop(client);
    assert_eq!(get(addr, "/healthz").text(), "ok");
    let is_open = |number: &u64| fs::symlink_metadata(format!("/proc/{pid}/fd/{number}")).is_ok();
    // Leave no number free.
    wait_until("the last client's socket is closed", PATIENCE, || sockets(pid) <= idle);
    limit_files(pid, Some((0..1000).find(|number| !is_open(number)).unwrap()));
    let (begin, mut refused) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_secs(3) || (refused <= 20 && begin.elapsed() < PATIENCE) {
        let answer = exchange(addr, b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", PATIENCE);
        refused += u32::from(answer.is_ok_and(|answer| answer.status == 503));
    }
    assert!(refused > 20, "{refused} refusals\n{daemon}");
    limit_files(pid, None);
    wait_until("clients are served again", PATIENCE, || {
        let answer = exchange(addr, b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", PATIENCE);
        answer.is_ok_and(|answer| answer.text() == "ok")
    });
    let most = usize::try_from(begin.elapsed().as_secs()).unwrap() + 2;
    for message in ["cannot accept a connection", "request refused"] {
        let lines = daemon.wait_events(message, 2, PATIENCE);
        assert!(lines.len() <= most, "{message}: {} lines\n{daemon}", lines.len());
        assert!(lines.iter().any(|line| line["not_logged"] != "0"), "{daemon}");
    }
    stop(daemon);
}

#[test]
fn threads_and_processes_none_left_fail_polls_and_serve_clients() {
    let http = SmartHttp::new();
    let (repo, recipe, body) = hooked(&http, "tool", &["1.0"]);
    let farm = Farm::builder().http().with(&recipe).build();
    let Some(user) = OwnUser::of(&farm) else { return };
    let mut daemon = Running::spawn(&mut user.command(&farm, &[], ENOUGH));
    let addr = daemon.http_addr();
    daemon.wait_events("build + publish complete", 1, PATIENCE);
    user.limit(daemon.pid(), "1");
    // The name of a host is looked up in a thread.
    farm.add(&Recipe::program("named", "http://host.invalid/x").upstream("min_version = \"1\""));
    daemon.signal(Signal::HUP);
    let failed = daemon.wait_event("poll failed", PATIENCE);
    assert_eq!(failed["recipe"], "named");
    post_large_bodies(addr);
    repo.add_versions(&["1.1"]);
    assert_eq!(webhook(addr, "push", SECRET, body.as_bytes()).status, 200);
    let failed = daemon.wait_event("build failed", PATIENCE);
    assert!(failed["error"].contains("cannot start git"), "{daemon}");
    user.limit(daemon.pid(), ENOUGH);
    // A reload that changes its recipe retries at once.
    farm.remove_recipe("named");
    farm.add(&recipe.upstream("min_version = \"1.0\""));
    daemon.signal(Signal::HUP);
    daemon.wait_events("build + publish complete", 2, PATIENCE);
    stop(daemon);
}

#[test]
fn files_or_threads_too_few_for_the_start_end_it_with_an_error() {
    let farm = Farm::builder().http().build();
    let user = OwnUser::of(&farm);
    let mut command = farm.command(&["--config"]);
    command.arg(farm.config_path());
    let mut commands: Vec<_> = (10..50)
        .step_by(2)
        .map(|files| farm.shell(&command, &format!("ulimit -n {files} && exec \"$@\"")))
        .collect();
    if let Some(user) = &user {
        commands.clear();
        let with = |limit: String| farm.shell(&command, &format!("exec {} {limit} \"$@\"", user.become_it()));
        commands.extend((10..50).step_by(2).map(|files| with(format!("prlimit --nofile={files}"))));
        commands.extend((2..24).map(|processes| with(format!("prlimit --nproc={processes}"))));
    }
    let (mut refused, mut served) = (0, 0);
    for command in &mut commands {
        let mut daemon = Running::spawn(command);
        wait_until("the start has ended", PATIENCE, || {
            daemon.has_ended()
                || daemon.events().iter().any(|event| event["msg"] == "webhook server listening")
        });
        if !daemon.has_ended() {
            served += 1;
            stop(daemon);
            continue;
        }
        refused += 1;
        let output = daemon.wait_exit(PATIENCE);
        assert_eq!(output.status.code(), Some(1), "{output}");
        assert!(!output.stderr.contains("panicked"), "{output}");
        assert!(!farm.state_dir().join("http.sock").exists(), "{output}");
    }
    assert!(refused > 0 && served > 0, "{refused} refused, {served} served");
}

#[test]
fn memory_none_left_for_a_body_is_an_answer() {
    let farm = Farm::builder().http().build();
    let mut daemon = farm.daemon();
    let (addr, pid) = (daemon.http_addr(), Pid::from_raw(daemon.pid()));
    let body = vec![b'x'; 20_000_000];
    let mut statuses = Vec::new();
    for path in ["/webhooks/github", "/nowhere"] {
        for mebibytes in [0, 1, 4, 10, 16, 22, 28, 34, 40, 60] {
            let size = status_number(daemon.pid(), "VmData") << 10;
            let limit = Rlimit { current: Some(size + (mebibytes << 20)), maximum: None };
            prlimit(pid, Resource::Data, limit).unwrap();
            statuses.push(request(addr, "POST", path, &[], &body).status);
            prlimit(pid, Resource::Data, Rlimit { current: None, maximum: None }).unwrap();
            assert_eq!(get(addr, "/healthz").text(), "ok", "{daemon}");
        }
    }
    println!("{statuses:?}");
    assert!(statuses.contains(&503) && statuses.contains(&401) && statuses.contains(&404), "{statuses:?}");
    stop(daemon);
}

#[test]
fn build_leaving_processes_behind_does_not_stop_the_farm() {
    let http = SmartHttp::new();
    // More than the limit: the shell cannot start them all, and the build fails.
    let script = "n=0; while [ $n -lt 60 ]; do setsid sleep 25 & n=$((n + 1)); done\n";
    let url = http.serve("litter", &GitRepo::program(&["1.0"]));
    let farm = Farm::builder().http().with(&Recipe::program("litter", &url).before_build(script)).build();
    let Some(user) = OwnUser::of(&farm) else { return };
    let mut daemon = Running::spawn(&mut user.command(&farm, &[], "40"));
    let addr = daemon.http_addr();
    daemon.wait_event("build failed", PATIENCE);
    post_large_bodies(addr);
    let home = format!("HOME={}", farm.home().display());
    stop(daemon);
    for process in crate::support::processes::with_environment(&home) {
        let _ = kill_process(Pid::from_raw(process.pid).unwrap(), Signal::KILL);
    }
}

#[test]
fn ssh_command_that_could_not_be_read_is_read_again() {
    let git = "#!/bin/sh
case \"$*\" in *core.sshCommand*) [ ! -e \"$HOME/lack\" ] || kill -9 $$ ;; esac
exec {real} \"$@\"
";
    let farm = Farm::builder()
        .program("git", git)
        .program("own-ssh", "#!/bin/sh\n: >\"$HOME/asked\"\nexit 1\n")
        .program("ssh", "#!/bin/sh\nexit 1\n")
        .with(&Recipe::program("tool", "ssh://host.invalid/x"))
        .build();
    fs::write(farm.path(".gitconfig"), "[core]\n\tsshCommand = own-ssh\n").unwrap();
    fs::write(farm.path("lack"), "").unwrap();
    let mut command = farm.command(&["--config"]);
    command.arg(farm.config_path()).env("GIT_CONFIG_GLOBAL", farm.path(".gitconfig"));
    let mut daemon = Running::spawn(&mut command);
    daemon.wait_event("poll failed", PATIENCE);
    assert!(!farm.path("asked").exists());
    fs::remove_file(farm.path("lack")).unwrap();
    daemon.signal(Signal::HUP);
    daemon.wait_events("poll failed", 2, PATIENCE);
    assert!(farm.path("asked").exists(), "{daemon}");
    stop(daemon);
}

#[test]
fn log_that_cannot_be_written_does_not_stop_a_sweep() {
    let repo = GitRepo::program(&["1.0"]);
    for script in ["exec \"$@\" 2>/dev/full", "exec \"$@\" 2>&-", "{ \"$@\" 2>&1 >&3 | true; } 3>&1"] {
        let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
        crate::broken_disk::sweep_in(&farm, script).assert_success();
        farm.assert_published(&["tool 1.0-1 noarch"]);
    }
}

#[test]
fn webhooks_signed_are_accepted_while_others_flood_the_gate() {
    let http = SmartHttp::new();
    let (_repo, recipe, mut body) = hooked(&http, "tool", &["1.0"]);
    let farm = Farm::builder().http().with(&recipe).build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_event("build + publish complete", PATIENCE);
    // As long as GitHub's usual payloads.
    body.insert_str(body.rfind('}').unwrap(), &format!(",\"filler\":\"{}\"", "x".repeat(20_000)));
    let begin = Instant::now();
    let end = begin + PATIENCE;
    let done = AtomicBool::new(false);
    let is_over = || done.load(Ordering::Relaxed) || Instant::now() >= end;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // Sends all but the last byte of the longest body, again and again.
                let piece = vec![b'x'; 64 * 1024];
                while !is_over() {
                    let Ok(mut client) = Connection::open(addr, Duration::from_secs(1)) else { continue };
                    let head = b"POST /webhooks/github HTTP/1.1\r\nContent-Length: 26214400\r\n\r\n";
                    let mut left = 399;
                    let mut sent = client.send(head);
                    while sent.is_ok() && left > 0 && !is_over() {
                        sent = client.send(&piece);
                        left -= 1;
                    }
                }
            });
        }
        scope.spawn(|| {
            let burst = b"POST /webhooks/github HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}".repeat(100);
            while !is_over() {
                let Ok(mut client) = Connection::open(addr, Duration::from_secs(1)) else { continue };
                let _ = client.send(&burst);
                let _ = client.receive(false);
            }
        });
        let answers: Vec<u16> =
            (0..100).map(|_| webhook(addr, "push", SECRET, body.as_bytes()).status).collect();
        done.store(true, Ordering::Relaxed);
        assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    });
    let memory = status_number(daemon.pid(), "VmHWM");
    assert!(memory < 100 * 1024, "{memory} KiB");
    let lines = daemon.wait_events("request refused", 1, PATIENCE);
    let most = usize::try_from(begin.elapsed().as_secs()).unwrap() + 2;
    assert!(lines.len() <= most, "{daemon}");
    stop(daemon);
}
