//! `/metrics` and the sample alerts, checked by Prometheus's own promtool.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::client::{get, status, webhook};
use crate::support::farm::{Farm, SECRET};
use crate::support::git_repo::GitRepo;
use crate::support::optional::require;
use crate::support::recipes::Recipe;
use crate::support::wait::{PATIENCE, wait_until};

const RULES: &str = "contrib/prometheus/peipkg-manager.rules.yml";

fn metrics(addr: SocketAddr) -> String {
    let answer = get(addr, "/metrics");
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("text/plain; version=0.0.4; charset=utf-8"))
    );
    answer.text()
}

/// The value of the series that begins its line with `series`.
#[track_caller]
fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("peipkg_manager_{series} ")));
    line.unwrap_or_else(|| panic!("no {series} in {metrics}")).parse().unwrap()
}

#[track_caller]
fn check(metrics: &str) {
    let mut tool = Command::new("promtool");
    tool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tool = tool.spawn().unwrap();
    tool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}\n{metrics}", String::from_utf8_lossy(&said));
}

/// What the command of the monitoring page for cron prints of `metrics`.
fn mailed(metrics: &str) -> Vec<String> {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/monitoring.md")).unwrap();
    let (_, command) = page.split_once("/metrics |\n").expect("the command of the page");
    let mut shell = Command::new("sh");
    shell.args(["-c", command.split("```").next().unwrap()]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    shell.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = shell.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn metrics_of_a_farm_in_trouble_are_accepted_by_promtool() {
    let repo = GitRepo::program(&["1", "2"]);
    let fails = "#!/bin/sh\nexit 1\n";
    let farm = Farm::builder()
        .http()
        .with(&Recipe::program("good", &repo.file_url()).watch("github_webhook = true"))
        .with(&Recipe::failing("bad", &repo.file_url()))
        .with(&Recipe::program("none", &repo.file_url()).tag_pattern("^x(.*)$"))
        .with(&Recipe::program("gone", "file:///nowhere/at/all"))
        .rclone("/nowhere".as_ref())
        .program("rclone", fails)
        .build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_events("build failed", 2, PATIENCE);
    daemon.wait_events("build + publish complete", 2, PATIENCE);
    daemon.wait_event("upload failed", PATIENCE);
    daemon.wait_event("poll failed", PATIENCE);
    webhook(addr, "push", SECRET, br#"{"repository":{"html_url":"https://h.example/a/b"}}"#);
    wait_until("the webhook", PATIENCE, || status(addr)["webhooks"]["unmatched"] == 1);
    for unusable in [&b"{}"[..], b"no JSON", br#"{"repository":{"html_url":"https://"}}"#] {
        webhook(addr, "push", SECRET, unusable);
    }
    wait_until("the unusable webhooks", PATIENCE, || status(addr)["webhooks"]["unusable"] == 3);
    webhook(addr, "push", "another secret", b"{}");
    wait_until("the refused webhook", PATIENCE, || status(addr)["webhooks"]["refused"] == 1);
    let found = metrics(addr);
    for (series, expected) in [
        ("info{farm_id=\"test-farm\",version=\"0.1.0\"}", 1.0),
        ("builds_attempted_total", 4.0),
        ("builds_succeeded_total", 2.0),
        ("builds_in_progress", 0.0),
        ("failed_versions{stage=\"build\"}", 2.0),
        ("failed_versions{stage=\"publish\"}", 0.0),
        ("recipe_failed_versions{recipe=\"bad\"}", 2.0),
        ("recipes", 4.0),
        ("recipes_poll_failed", 1.0),
        ("recipes_without_matching_tag", 1.0),
        ("warnings{event=\"no tag matches tag_pattern\"}", 1.0),
        ("build_failures_total", 2.0),
        ("publish_failures_total", 0.0),
        ("polls_total", 2.0),
        ("poll_failures_total", 1.0),
        ("uploads_total", 0.0),
        ("webhooks_refused_total", 1.0),
        ("paused", 0.0),
        ("upload_pending", 1.0),
        ("webhooks_received_total", 4.0),
        ("webhooks_matched_total", 0.0),
        ("webhooks_unusable_total", 3.0),
        ("webhooks_unmatched_total", 1.0),
    ] {
        assert!((value(&found, series) - expected).abs() < 0.1, "{series}: {found}");
    }
    assert!(value(&found, "upload_failures") >= 1.0);
    assert!(value(&found, "upload_failures_total") >= 1.0);
    let mailed = mailed(&found);
    let names: Vec<&str> = mailed.iter().map(|line| line.rsplit_once(' ').unwrap().0).collect();
    // No total: it would be mailed as long as the manager runs.
    assert_eq!(
        names,
        [
            "peipkg_manager_failed_versions{stage=\"build\"}",
            "peipkg_manager_recipes_poll_failed",
            "peipkg_manager_warnings{event=\"no tag matches tag_pattern\"}",
            "peipkg_manager_upload_failures",
        ]
    );
    // One upstream was never listed.
    let oldest = value(&found, "oldest_listing_time_seconds");
    assert!((oldest - value(&found, "start_time_seconds")).abs() < 2.0, "{found}");
    assert!(value(&found, "last_poll_time_seconds") >= value(&found, "start_time_seconds").floor());
    assert!(value(&found, "last_success_time_seconds") >= value(&found, "start_time_seconds").floor());
    if require("promtool") {
        check(&found);
    }
}

#[test]
fn metrics_of_an_empty_farm_are_accepted_by_promtool() {
    let farm = Farm::builder().http().config_extra("").build();
    let mut daemon = farm.daemon();
    let found = metrics(daemon.http_addr());
    assert!(!found.contains("upload"), "there is no remote: {found}");
    assert_eq!(mailed(&found), [""; 0]);
    if require("promtool") {
        check(&found);
    }
}

#[test]
fn sample_alerts_are_valid_and_ask_for_metrics_that_exist() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join(RULES);
    let text = std::fs::read_to_string(&rules).unwrap();
    let source = include_str!("../../src/http/metrics.rs");
    let mut names = 0;
    for rest in text.split("peipkg_manager_").skip(1) {
        let name = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
        assert!(source.contains(&format!("\"{name}\"")), "there is no metric {name}");
        names += 1;
    }
    assert!(names > 5, "{text}");
    if require("promtool") {
        let output = Command::new("promtool").args(["check", "rules"]).arg(&rules).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
