//! An idle daemon sleeps: counts context switches, not time.

use std::fs;

use crate::support::client::get;
use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::recipes::Recipe;
use crate::support::wait::{PATIENCE, poll, wait_until};
use std::time::Duration;

/// How long no thread of an idle daemon may run: longer than the five seconds after which the HTTP
/// server ends its surplus threads.
const IDLE: Duration = Duration::from_secs(6);

/// The context switches of all threads of `pid` so far, and the number of threads.
fn activity(pid: i32) -> (u64, usize) {
    let tasks: Vec<_> =
        fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives").flatten().collect();
    let switches = tasks.iter().map(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let lines = status.lines().filter(|line| line.contains("voluntary_ctxt_switches"));
        lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>()
    });
    (switches.sum(), tasks.len())
}

#[test]
fn daemon_idle_does_not_wake_up() {
    let repo = GitRepo::program(&["1"]);
    let mut builder = Farm::builder().http().default_interval("168h");
    for number in 0..20 {
        builder =
            builder.with(&Recipe::program(&format!("app-{number}"), &repo.file_url()).tag_pattern("^x(1)$"));
    }
    let farm = builder.with(&Recipe::program("app", &repo.file_url())).build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_event("build + publish complete", PATIENCE);
    assert_eq!(get(addr, "/status").status, 200);
    let mut before = (0, 0);
    wait_until("the daemon sleeps for six seconds", PATIENCE, || {
        before = activity(daemon.pid());
        poll(IDLE, || (activity(daemon.pid()) != before).then_some(())).is_none()
    });
    assert!(before.1 <= 18, "{} threads", before.1);
}
