//! Compares the memory, threads and open files of a daemon after thousands of polls, requests,
//! builds and reloads with those after the first twentieth: they must not grow.
//!
//! A short form runs with the other tests; `make soak` sets `PEIPKG_SOAK_ROUNDS`.
//!
//! The daemon's own heap stays the same: a profile has 264 KiB after ten rounds and 265 KiB after a
//! hundred and ten. The C library's allocator grows a little, ever more slowly: it keeps freed
//! blocks for each thread.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::client::{self, Connection, openssl_hmac_sha256};
use crate::support::farm::{Farm, SECRET};
use crate::support::git_repo::GitRepo;
use crate::support::logfmt::Event;
use crate::support::processes::status_number;
use crate::support::random::number_from_environment;
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::smart_http::SmartHttp;
use crate::support::wait::{PATIENCE, poll, wait_until};

/// The rounds of the short form. The long one has 500: 20,000 polls and requests, 500 builds and
/// reloads.
const ROUNDS: usize = 20;

/// The fewest rounds before the first figures: until then, the daemon does things for the first
/// time.
const FIRST: usize = 5;

/// Half of them are listed over smart HTTP, half by git over `file://`. Each is polled twice a
/// round: for the reload, and for its webhook.
const UPSTREAMS: usize = 20;

/// How long nothing may change before the daemon counts as at rest: the server's spare threads end
/// after five seconds.
const REST: Duration = Duration::from_secs(6);

/// The daemon's resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Figures {
    /// `VmRSS`, in KiB.
    memory: u64,
    threads: u64,
    files: u64,
}

impl Figures {
    fn of(pid: i32) -> Self {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives").count() as u64;
        Self { memory: status_number(pid, "VmRSS"), threads: status_number(pid, "Threads"), files }
    }

    /// Waits for the daemon to come to rest and returns its figures.
    fn at_rest(pid: i32) -> Self {
        let mut figures = Self::of(pid);
        let mut since = Instant::now();
        wait_until("the daemon comes to rest", PATIENCE, || {
            let now = Self::of(pid);
            if (now.threads, now.files) != (figures.threads, figures.files) {
                since = Instant::now();
            }
            figures = now;
            since.elapsed() >= REST
        });
        figures
    }

    /// Whether the daemon has not grown from `first` to `self`: memory, threads and open files
    /// within 5 %. Memory may shrink.
    fn equal(self, first: Self) -> bool {
        self.memory <= first.memory + first.memory / 20 && self.same_handles(first)
    }

    fn same_handles(self, first: Self) -> bool {
        let near = |now: u64, then: u64| now.abs_diff(then) <= then / 20;
        near(self.threads, first.threads) && near(self.files, first.files)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB resident, {} threads, {} open files", self.memory, self.threads, self.files)
    }
}

/// Counts of events.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    polls: usize,
    builds: usize,
    /// The start reads the recipes as well.
    rosters: usize,
    requests: usize,
}

/// Counts events. Only forged webhooks may fail.
#[track_caller]
fn count(tally: &mut Tally, events: &[Event]) {
    for event in events {
        match event["msg"].as_str() {
            "poll complete" => tally.polls += 1,
            "build + publish complete" => tally.builds += 1,
            "recipe roster loaded" => tally.rosters += 1,
            "webhook signature invalid" => {}
            _ => assert_eq!(event["level"], "info", "{event:?}"),
        }
    }
}

/// A webhook about the repository at `url`, signed with `secret`, as bytes.
fn hook(url: &str, secret: &str) -> Vec<u8> {
    let body = format!(r#"{{"ref":"refs/tags/v1","repository":{{"clone_url":"{url}"}}}}"#);
    let (signature, length) = (openssl_hmac_sha256(secret.as_bytes(), body.as_bytes()), body.len());
    let head = "POST /webhooks/github HTTP/1.1\r\nHost: farm\r\nContent-Type: application/json\r\nX-GitHub-Event: push\r\n";
    format!("{head}X-Hub-Signature-256: sha256={signature}\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

fn recipe(number: usize, url: &str) -> Recipe {
    Recipe::program(&format!("app-{number}"), url).watch("github_webhook = true")
}

/// A farm at work.
struct Soak {
    repos: Vec<GitRepo>,
    urls: Vec<String>,
    /// A webhook for each of `urls`.
    hooks: Vec<Vec<u8>>,
    forged: Vec<u8>,
    /// Serves every second upstream.
    server: SmartHttp,
    daemon: Running,
    farm: Farm,
    addr: SocketAddr,
    tally: Tally,
    /// The length of the log read so far.
    seen: usize,
}

impl Soak {
    /// A daemon whose upstreams have no tags yet.
    fn new() -> Self {
        let server = SmartHttp::new();
        let (mut repos, mut urls) = (Vec::new(), Vec::new());
        let mut builder = Farm::builder().http().default_interval("168h");
        for number in 0..UPSTREAMS {
            let repo = GitRepo::new();
            let files = [("program.sh", "#!/bin/sh\necho program\n"), ("README", "A program.\n")];
            repo.commit(&files, "2026-01-01T12:00:00Z");
            let url = if number % 2 == 0 {
                repo.file_url()
            } else {
                server.serve(&format!("app-{number}.git"), &repo)
            };
            builder = builder.with(&recipe(number, &url));
            repos.push(repo);
            urls.push(url);
        }
        let hooks = urls.iter().map(|url| hook(url, SECRET)).collect();
        let forged = hook(&urls[0], "another secret");
        let farm = builder.build();
        let mut daemon = farm.daemon();
        let addr = daemon.http_addr();
        let mut soak =
            Self { repos, urls, hooks, forged, server, daemon, farm, addr, tally: Tally::default(), seen: 0 };
        soak.await_tally("the first polls", |tally| tally.polls == UPSTREAMS);
        soak
    }

    #[track_caller]
    fn await_tally(&mut self, what: &str, reached: impl Fn(&Tally) -> bool) {
        let met = poll(PATIENCE, || {
            count(&mut self.tally, &self.daemon.events_since(&mut self.seen));
            reached(&self.tally).then_some(())
        });
        assert!(met.is_some(), "{what}, within {PATIENCE:?}: {:?}", self.tally);
    }

    /// Changes a recipe's script, and adds or removes a recipe without upstream, so that the next
    /// reload has work to do.
    fn reload(&mut self, round: usize) {
        let number = round % UPSTREAMS;
        self.farm.add(&recipe(number, &self.urls[number]).before_build(&format!("# round {round}")));
        if round.is_multiple_of(2) {
            self.farm.add(&Recipe::manual("guest"));
        } else {
            self.farm.remove_recipe("guest");
        }
        self.daemon.signal(Signal::HUP);
    }

    /// Sends every upstream's webhook and as many other requests between them, half of all on new
    /// connections.
    fn send_requests(&mut self) {
        let open = || Connection::open(self.addr, PATIENCE).expect("a connection");
        let mut shared = open();
        let mut request = |bytes: &[u8], fresh: bool, status: u16| {
            let mut own = fresh.then(open);
            let connection = own.as_mut().unwrap_or(&mut shared);
            connection.send(bytes).expect("the request is taken");
            assert_eq!(connection.receive(false).expect("an answer").status, status);
            self.tally.requests += 1;
        };
        let others: [(&[u8], u16); 5] = [
            (b"GET /healthz HTTP/1.1\r\nHost: farm\r\n\r\n", 200),
            (b"GET /status HTTP/1.1\r\nHost: farm\r\n\r\n", 200),
            (&self.forged, 401),
            (b"GET /nothing HTTP/1.1\r\nHost: farm\r\n\r\n", 404),
            (b"DELETE /status HTTP/1.1\r\nHost: farm\r\n\r\n", 405),
        ];
        for number in 0..UPSTREAMS {
            // The number of other requests is odd, so each comes on both kinds of connections.
            let fresh = number % 2 == 0;
            request(&self.hooks[number], fresh, 200);
            let (bytes, status) = others[number % others.len()];
            request(bytes, !fresh, status);
        }
    }

    fn round(&mut self, round: usize) {
        let before = self.tally;
        self.reload(round);
        self.await_tally("the polls of a reload", |tally| {
            tally.rosters == before.rosters + 1 && tally.polls >= before.polls + UPSTREAMS
        });
        self.repos[round % UPSTREAMS].tag_light(&format!("v{}", round / UPSTREAMS));
        self.send_requests();
        self.await_tally("the polls of the webhooks, and a build", |tally| {
            // More, if a webhook's listing shows nothing new and is repeated.
            tally.polls >= before.polls + 2 * UPSTREAMS && tally.builds == before.builds + 1
        });
        self.server.clear_log();
    }
}

#[test]
fn daemon_long_at_work_does_not_grow() {
    let rounds = number_from_environment("PEIPKG_SOAK_ROUNDS", ROUNDS as u64);
    let rounds = usize::try_from(rounds).expect("a number of rounds").max(FIRST);
    let mut soak = Soak::new();
    let begin = Instant::now();
    let mut first = None;
    for round in 0..rounds {
        soak.round(round);
        if round + 1 == rounds.div_ceil(20).max(FIRST) {
            let figures = Figures::at_rest(soak.daemon.pid());
            println!("after {} rounds: {figures}", round + 1);
            first = Some(figures);
        }
    }
    let first = first.expect("the first twentieth is over");
    let pid = soak.daemon.pid();
    poll(PATIENCE, || Figures::of(pid).same_handles(first).then_some(()));
    let last = Figures::of(pid);
    println!("after {rounds} rounds: {last}");
    println!("{:?} in {:.0} s", soak.tally, begin.elapsed().as_secs_f64());

    assert!(last.equal(first), "the daemon has grown: first {first}, then {last}");
    assert_eq!(client::status(soak.addr)["recipes"].as_array().map(Vec::len), Some(UPSTREAMS + rounds % 2));
    soak.farm.assert_clean();
    soak.daemon.signal(Signal::TERM);
    soak.daemon.wait_exit(PATIENCE).assert_code(0).assert_only_events();
    soak.farm.assert_clean();
    soak.farm.assert_verifies();
    assert_eq!(soak.farm.published().len(), rounds);
}
