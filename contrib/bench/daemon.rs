//! Measures the daemon: the time from a webhook to its build and to its answer, the cost of forged
//! and of half requests, the cost of an idle farm, and the throughput of the pages against a bare
//! `tiny_http` that answers with the same bytes. Prints a table with a goal beside each figure, and
//! fails on none.
//!
//! Needs git and openssl; uses wrk if it is installed. Arguments select measurements:
//! `cargo bench --bench daemon -- latency answers`. `BENCH_SCALE=small` measures a tenth, as a trial.

#[path = "../../tests/support/mod.rs"]
mod support;

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use support::client::{self, Connection, openssl_hmac_sha256};
use support::farm::{Farm, SECRET};
use support::git_repo::GitRepo;
use support::latch::Latch;
use support::optional::find_program;
use support::recipes::Recipe;
use support::running::Running;
use support::wait::PATIENCE;
use tempfile::TempDir;

const HEALTHZ: &str = "GET /healthz HTTP/1.1\r\nHost: farm\r\n\r\n";

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let measurements: [(&str, fn()); 6] = [
        ("latency", latency),
        ("answers", answers),
        ("forgeries", forgeries),
        ("halves", halves),
        ("idle", idle),
        ("throughput", throughput),
    ];
    for (name, measure) in measurements {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            measure();
        }
    }
}

/// Returns a count, or a tenth of it in a trial.
fn scaled(full: usize) -> usize {
    if std::env::var("BENCH_SCALE").is_ok_and(|scale| scale == "small") { full / 10 } else { full }
}

/// Returns a time, or a tenth of it in a trial.
fn seconds(full: usize) -> Duration {
    Duration::from_millis(100 * scaled(10 * full) as u64)
}

fn title(text: &str) {
    println!("\n{text}");
}

/// Prints one measurement beside its goal.
fn row(name: &str, measured: &str, goal: &str) {
    println!("  {name:<52} {measured:<22} {goal}");
}

/// Returns the time that the fraction `part` of `times` does not exceed.
fn quantile(times: &mut [Duration], part: f64) -> Duration {
    times.sort_unstable();
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a position"
    )]
    let place = (times.len() as f64 * part).ceil() as usize;
    times[place.clamp(1, times.len()) - 1]
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// Returns a field of `/proc/<pid>/status`: KiB, or a number without unit.
fn proc_status(pid: i32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = text.lines().find(|line| line.starts_with(field)).expect("a field");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

fn mebibytes(kib: u64) -> String {
    format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024)
}

fn threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives").count()
}

fn sockets(pid: i32) -> usize {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives").flatten();
    let target = |entry: fs::DirEntry| fs::read_link(entry.path()).unwrap_or_default();
    entries.map(target).filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// Returns the context switches of all threads so far: the voluntary ones, and all.
fn switches(pid: i32) -> (u64, u64) {
    let mut sum = (0, 0);
    for task in fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives").flatten() {
        let text = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        for (name, number) in text.lines().filter_map(|line| line.split_once(":\t")) {
            let number: u64 = number.trim().parse().unwrap_or(0);
            match name {
                "voluntary_ctxt_switches" => sum = (sum.0 + number, sum.1 + number),
                "nonvoluntary_ctxt_switches" => sum.1 += number,
                _ => {}
            }
        }
    }
    sum
}

/// Returns the bytes of a signed `push` webhook for the repository at `url`.
fn signed_hook(url: &str) -> Vec<u8> {
    let body = format!(r#"{{"ref":"refs/tags/v1","repository":{{"clone_url":"{url}"}}}}"#);
    let signature = openssl_hmac_sha256(SECRET.as_bytes(), body.as_bytes());
    hook(&format!("sha256={signature}"), &body)
}

fn hook(signature: &str, body: &str) -> Vec<u8> {
    let head = "POST /webhooks/github HTTP/1.1\r\nHost: farm\r\nContent-Type: application/json\r\nX-GitHub-Event: push\r\n";
    let length = body.len();
    format!("{head}X-Hub-Signature-256: {signature}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

fn hooked(id: &str, url: &str) -> Recipe {
    Recipe::program(id, url).watch("github_webhook = true")
}

/// Sends `bytes` `times` times, on a new connection each time if `fresh`. Returns the time that
/// each answer took.
fn ask(addr: SocketAddr, bytes: &[u8], times: usize, fresh: bool, status: u16) -> Vec<Duration> {
    let open = || Connection::open(addr, PATIENCE).expect("a connection");
    let mut connection = open();
    let once = |_| {
        let begin = Instant::now();
        if fresh {
            connection = open();
        }
        connection.send(bytes).expect("the request is taken");
        assert_eq!(connection.receive(false).expect("an answer").status, status);
        begin.elapsed()
    };
    (0..times).map(once).collect()
}

/// Makes a farm of `recipes` recipes, each with its own upstream that has nothing to build.
fn quiet_farm(recipes: usize, forge: &TempDir) -> support::farm::FarmBuilder {
    let repo = GitRepo::in_dir(forge.path(), "origin");
    repo.commit(&[], "2026-01-01T00:00:00Z");
    repo.tag_light("other");
    // Polls are spread over a week, so that none falls into a measurement.
    (0..recipes).fold(Farm::builder().http().default_interval("168h"), |builder, number| {
        let path = forge.path().join(format!("upstream-{number}"));
        symlink(repo.path(), &path).expect("a link to the repository");
        builder.with(&hooked(&format!("recipe-{number}"), &format!("file://{}", path.display())))
    })
}

fn forge() -> TempDir {
    TempDir::with_prefix("forge-").expect("a temporary directory")
}

fn latency() {
    title("A new tag: from its webhook to the start of its build");
    let repo = GitRepo::program(&["1"]);
    let farm = Farm::builder().http().with(&hooked("app", &repo.file_url())).build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_event("build + publish complete", PATIENCE);
    let bytes = signed_hook(&repo.file_url());
    let mut times = Vec::new();
    let rounds = scaled(20);
    for round in 2..2 + rounds {
        thread::sleep(Duration::from_secs(1)); // the shortest time between two listings for webhooks
        repo.tag_light(&format!("v{round}"));
        let begin = SystemTime::now();
        ask(addr, &bytes, 1, true, 200);
        let started = daemon.wait_events("starting build", round, PATIENCE).pop().expect("an event");
        let started = humantime::parse_rfc3339(&started["time"]).expect("a time");
        // The log's clock shows milliseconds.
        times.push(started.duration_since(begin).unwrap_or_default());
        daemon.wait_events("build + publish complete", round, PATIENCE);
    }
    let case = format!("webhook sent to `starting build`, median of {rounds}");
    row(&case, &milliseconds(quantile(&mut times, 0.5)), "<= 300 ms");
    row("the slowest", &milliseconds(quantile(&mut times, 1.0)), "");
}

fn answers() {
    let recipes = scaled(500);
    title(&format!("Webhooks while a build runs and {recipes} recipes are polled"));
    let (forge, latch, built) = (forge(), Latch::new(), GitRepo::program(&["1"]));
    let farm = quiet_farm(recipes, &forge).build();
    let recipe = hooked("slow", &built.file_url()).before_build(&latch.script());
    farm.add(&recipe);
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    latch.wait_reached();
    // A reload polls every recipe again while the webhooks arrive.
    daemon.wait_events("poll complete", recipes + 1, PATIENCE);
    let bytes = signed_hook(&built.file_url());
    let mut times = Vec::new();
    let mut polled = recipes + 1;
    for _ in 0..3 {
        daemon.signal(Signal::HUP);
        daemon.wait_events("polling upstream", polled + 1, PATIENCE);
        times.extend(ask(addr, &bytes, scaled(200), true, 200));
        polled += recipes + 1;
        daemon.wait_events("poll complete", polled, PATIENCE);
    }
    row(&format!("answered, median of {}", times.len()), &milliseconds(quantile(&mut times, 0.5)), "");
    row("answered, p99", &milliseconds(quantile(&mut times, 0.99)), "<= 10 ms");
    row("answered, the slowest", &milliseconds(quantile(&mut times, 1.0)), "");
    latch.open();
}

fn forgeries() {
    let each = scaled(25_000);
    title(&format!("{} webhooks with a bad signature", 4 * each));
    let repo = GitRepo::program(&["1"]);
    let farm = Farm::builder().http().with(&hooked("app", &repo.file_url())).build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_event("build + publish complete", PATIENCE);
    let body = format!(r#"{{"repository":{{"clone_url":"{}"}}}}"#, repo.file_url());
    let valid = openssl_hmac_sha256(SECRET.as_bytes(), body.as_bytes());
    let other = openssl_hmac_sha256(b"another secret", body.as_bytes());
    let bad = [
        hook(&format!("sha256={other}"), &body),
        hook(&format!("sha256={}", &valid[..63]), &body),
        hook("", &body),
        hook(&format!("sha256={valid}"), &format!("{body} ")),
    ];
    ask(addr, &bad[0], 1000, false, 401);
    let (pid, begin) = (daemon.pid(), Instant::now());
    let before = proc_status(pid, "VmRSS:");
    thread::scope(|scope| {
        for bytes in &bad {
            scope.spawn(move || ask(addr, bytes, each, false, 401));
        }
    });
    let took = begin.elapsed();
    let events = daemon.events();
    let polls = events.iter().filter(|event| event["msg"] == "polling upstream").count();
    let lines = events.iter().filter(|event| event["msg"] == "webhook signature invalid").count();
    row("accepted", &format!("{} (401: {})", polls - 1, 4 * each), "0");
    row("resident memory before", &mebibytes(before), "");
    row("resident memory after", &mebibytes(proc_status(pid, "VmRSS:")), "flat");
    row("time", &format!("{:.1} s, {lines} log lines", took.as_secs_f64()), "");
}

fn halves() {
    let count = scaled(2000);
    title(&format!("{count} clients that send half a request"));
    let farm = Farm::builder().http().build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    let pid = daemon.pid();
    ask(addr, HEALTHZ.as_bytes(), 10, true, 200);
    let (idle_threads, idle_sockets) = (threads(pid), sockets(pid));
    raise_open_files();
    let mut clients = Vec::new();
    let mut times = Vec::new();
    for number in 0..count {
        let mut stream = TcpStream::connect(addr).expect("a connection");
        let begun = [
            "GET /healthz HTTP/1.1\r\nHost: ",
            "POST /webhooks/github HTTP/1.1\r\nContent-Length: 5000\r\n\r\nabc",
        ];
        // The daemon closes connections beyond its limit; writing to one fails.
        let _ = stream.write_all(begun[number % 2].as_bytes());
        clients.push(stream);
        if number % 10 == 0 {
            times.extend(ask(addr, HEALTHZ.as_bytes(), 1, true, 200));
        }
    }
    times.extend(ask(addr, HEALTHZ.as_bytes(), scaled(800), true, 200));
    row(&format!("/healthz, median of {}", times.len()), &milliseconds(quantile(&mut times, 0.5)), "");
    row("/healthz, p99", &milliseconds(quantile(&mut times, 0.99)), "<= 100 ms");
    row("peak resident memory", &mebibytes(proc_status(pid, "VmHWM:")), "<= 32 MiB");
    row("threads, sockets at that time", &format!("{}, {}", threads(pid), sockets(pid)), "");
    thread::sleep(Duration::from_secs(30));
    let left = format!("{} (+{}), {}", threads(pid), threads(pid).saturating_sub(idle_threads), sockets(pid));
    row("threads, sockets 30 s later", &left, &format!("{idle_threads}, {idle_sockets} as before"));
}

fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // If the limit stays too low, a later connection fails with the reason.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

fn idle() {
    let recipes = scaled(200);
    title(&format!("An idle farm of {recipes} recipes, for {:?}", seconds(30)));
    let forge = forge();
    let farm = quiet_farm(recipes, &forge).build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_events("poll complete", recipes, PATIENCE);
    ask(addr, HEALTHZ.as_bytes(), 1, true, 200);
    let pid = daemon.pid();
    // Wait until short-lived threads have ended and memory is returned.
    thread::sleep(seconds(8));
    let before = switches(pid);
    thread::sleep(seconds(30));
    let after = switches(pid);
    row("resident memory", &mebibytes(proc_status(pid, "VmRSS:")), "<= 6 MiB");
    row("resident memory shared with the program file", &mebibytes(proc_status(pid, "RssFile:")), "");
    row("threads", &threads(pid).to_string(), "<= 18");
    row("voluntary context switches meanwhile", &(after.0 - before.0).to_string(), "<= 5");
    row("all context switches meanwhile", &(after.1 - before.1).to_string(), "");
}

fn throughput() {
    title("Throughput against a bare tiny_http with the same bytes");
    let rounds = scaled(10).min(5);
    let forge = forge();
    let farm = quiet_farm(scaled(200), &forge).build();
    let mut daemon: Running = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_events("poll complete", scaled(200), PATIENCE);
    for (page, kind) in [("/healthz", "text/plain; charset=utf-8"), ("/status", "application/json")] {
        let body = client::get(addr, page).body;
        let bare = bare_server(body.clone(), kind);
        let mut ratios: Vec<(f64, f64, f64)> = (0..rounds)
            .map(|_| {
                let (ours, theirs) = (throughput_of(addr, page), throughput_of(bare, page));
                (ours / theirs, ours, theirs)
            })
            .collect();
        ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (ratio, ours, theirs) = ratios[rounds / 2];
        row(&format!("{page} ({} bytes), median ratio of {rounds}", body.len()), &format!("{ratio:.2}"), "");
        row("", &format!("{ours:.0} : {theirs:.0} a second"), ">= 20000 /healthz");
    }
}

/// Starts a server of one thread that answers every request with `body`. It ends with the process.
fn bare_server(body: Vec<u8>, kind: &'static str) -> SocketAddr {
    let server = tiny_http::Server::http("127.0.0.1:0").expect("a free port");
    let addr = server.server_addr().to_ip().expect("an IP address");
    thread::spawn(move || {
        for request in server.incoming_requests() {
            let header = tiny_http::Header::from_bytes("Content-Type", kind).expect("a header");
            let (headers, length) = (vec![header], body.len());
            let response = tiny_http::Response::new(200.into(), headers, body.as_slice(), Some(length), None);
            // A client that has hung up needs no answer.
            let _ = request.respond(response.with_chunked_threshold(usize::MAX));
        }
    });
    addr
}

/// Measures the requests a second for `page` over eight connections.
fn throughput_of(addr: SocketAddr, page: &str) -> f64 {
    if find_program("wrk").is_none() {
        return throughput_without_wrk(addr, page);
    }
    let mut command = Command::new("wrk");
    let output =
        command.args(["-t1", "-c8", "-d2s"]).arg(format!("http://{addr}{page}")).output().expect("wrk runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")).expect("wrk's report");
    rate.trim().parse().expect("a number")
}

fn throughput_without_wrk(addr: SocketAddr, page: &str) -> f64 {
    let (begin, request) = (Instant::now(), format!("GET {page} HTTP/1.1\r\nHost: farm\r\n\r\n"));
    let client = || {
        let mut connection = Connection::open(addr, PATIENCE).expect("a connection");
        let mut count = 0_u32;
        while begin.elapsed() < Duration::from_secs(2) {
            connection.send(request.as_bytes()).expect("the request is taken");
            connection.receive(false).expect("an answer");
            count += 1;
        }
        count
    };
    let count: u32 = thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|client| client.join().expect("a client")).sum()
    });
    f64::from(count) / begin.elapsed().as_secs_f64()
}
