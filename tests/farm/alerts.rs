//! The sample alerts, tried by promtool: each fires when it should, and none on a farm that is well.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::optional::require;

const RULES: &str = "contrib/prometheus/peipkg-manager.rules.yml";

/// An alert, the series that let it fire, when it does so, in minutes, the labels that it has beside
/// `instance` and `job`, and its summary. A sample of a series is five minutes after the one before.
type Firing = (&'static str, &'static [(&'static str, &'static str)], u32, &'static str, &'static str);

const JOB: &str = ", job: peipkg-manager";

#[rustfmt::skip]
const FIRING: &[Firing] = &[
    ("ManagerDown", &[("up{}", "0x10")], 10, JOB, "farm does not answer"),
    ("VersionsFail", &[("failed_versions{stage=\"build\",}", "2x20")], 65, ", stage: build",
     "2 versions fail at their build, see the page of farm"),
    ("BuildHangs", &[("oldest_build_start_time_seconds{}", "0x100")], 420, JOB, "a build runs for 7h 0m 0s"),
    ("UploadFails", &[("upload_failures{}", "3x20")], 65, JOB, "the remote is out of date, 3 uploads have failed"),
    ("ReloadRefused", &[("reload_refused{}", "1x10")], 15, JOB,
     "the recipes have a problem, and those before it are used"),
    ("UpstreamsNotListed", &[("recipes_poll_failed{}", "2x300")], 1445, JOB,
     "the upstreams of 2 recipes cannot be listed"),
    ("PatternMatchesNothing", &[("recipes_without_matching_tag{}", "1x20")], 65, JOB,
     "no tag matches the tag_pattern of 1 recipes"),
    ("Paused", &[("paused{}", "1x300")], 1445, JOB, "the file pause holds all builds"),
    ("WebhooksUnmatched", &[("webhooks_unmatched_total{}", "0x5 1x5")], 50, JOB,
     "webhooks come for a repository that no recipe watches"),
    ("CannotPublish", &[("warnings{event=\"dedup check failed\",}", "1x10")], 10,
     ", job: peipkg-manager, event: \"dedup check failed\"", "the index cannot be read: nothing can be published"),
    ("TagMoved", &[("warnings{event=\"published tag moved\",}", "2x10")], 5,
     ", job: peipkg-manager, event: \"published tag moved\"",
     "2 published tags lead to other commits now, see the page of farm"),
    // The first skipped tag begins the series.
    ("TagsSkipped", &[("warnings{event=\"tag skipped\",}", "_x20 3x10")], 120,
     ", job: peipkg-manager, event: \"tag skipped\"", "more tags are skipped, 3 now, see the page of farm"),
    ("TagsSkipped", &[("warnings{event=\"tag skipped\",}", "3x20 4x10")], 120,
     ", job: peipkg-manager, event: \"tag skipped\"", "more tags are skipped, 4 now, see the page of farm"),
    ("Warnings", &[("warnings{event=\"recipe warning\",}", "2x300"), ("warnings{event=\"tag skipped\",}", "1x300")],
     1445, "", "2 warnings last, see the page of farm"),
    ("Held", &[("held{}", "1x300")], 1445, JOB, "1 recipes or versions are held, see the page of farm"),
    ("PublishHangs", &[("publish_start_time_seconds{}", "0x20")], 65, JOB, "a publish runs for 1h 5m 0s"),
    ("NothingListed", &[("start_time_seconds{}", "0x400")], 1500, JOB, "no upstream was listed for 1d 1h 0m 0s"),
    ("NothingListed", &[("start_time_seconds{}", "0x400"), ("last_poll_time_seconds{}", "3600x400")], 1560, JOB,
     "no upstream was listed for 1d 1h 0m 0s"),
    ("UpstreamNotListed", &[("oldest_listing_time_seconds{}", "0x600")], 2940, JOB,
     "one upstream was not listed for 2d 1h 0m 0s, see the page of farm"),
    ("NothingPublished", &[("start_time_seconds{}", "0x9000")], 44_640, JOB, "nothing was published for 31d 0h 0m 0s"),
    ("NotificationsFail", &[("notification_failures_total{}", "0x5 2x5"), ("notifications_dropped_total{}", "0x10")],
     50, JOB, "the program of [notify] fails, see the page of farm"),
    ("NotificationsFail", &[("notification_failures_total{}", "0x10"), ("notifications_dropped_total{}", "0x5 1x5")],
     50, JOB, "the program of [notify] fails, see the page of farm"),
    ("WebhooksRefused", &[("webhooks_refused_total{}", "0x5 1x5")], 50, JOB,
     "webhooks have no right signature: compare the secrets"),
];

/// The series of a farm that is well for a day and an hour: it has failed and moved on, long ago.
const WELL: &[(&str, &str)] = &[
    ("up{}", "1x400"),
    ("start_time_seconds{}", "0x400"),
    ("last_poll_time_seconds{}", "0+300x400"),
    ("oldest_listing_time_seconds{}", "0+300x400"),
    ("last_success_time_seconds{}", "0x400"),
    ("failed_versions{stage=\"build\",}", "3x10 0x400"),
    ("failed_versions{stage=\"publish\",}", "0x400"),
    ("recipes_poll_failed{}", "1x200 0x1 1x200"),
    ("recipes_without_matching_tag{}", "0x400"),
    ("reload_refused{}", "0x400"),
    ("upload_failures{}", "5x10 0x400"),
    ("paused{}", "0x400"),
    ("held{}", "0x400"),
    ("webhooks_unmatched_total{}", "7x400"),
    ("webhooks_refused_total{}", "7x400"),
    ("notification_failures_total{}", "7x400"),
    ("notifications_dropped_total{}", "7x400"),
    ("warnings{event=\"recipe warning\",}", "1x200 _x10 1x200"),
    ("warnings{event=\"tag skipped\",}", "4x250 3x200"),
];

/// Returns the names of all alerts, without the word that begins them.
fn alerts() -> BTreeSet<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(RULES)).unwrap();
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("- alert: Peipkg"));
    names.map(str::to_owned).collect()
}

/// Writes the beginning of a test with these series.
fn begin(test: &mut String, series: &[(&str, &str)]) {
    test.push_str("- interval: 5m\n  input_series:\n");
    for (name, values) in series {
        let name =
            if name.starts_with("up{") { (*name).to_owned() } else { format!("peipkg_manager_{name}") };
        let name = name.replace('}', "instance=\"farm\",job=\"peipkg-manager\"}");
        writeln!(test, "  - series: '{name}'\n    values: '{values}'").unwrap();
    }
    test.push_str("  alert_rule_test:\n");
}

#[test]
fn each_sample_alert_fires_and_none_without_a_reason() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join(RULES);
    let mut test = format!("rule_files: [{rules:?}]\nevaluation_interval: 5m\ntests:\n");
    let mut tried = BTreeSet::new();
    for (alert, series, minutes, labels, summary) in FIRING {
        begin(&mut test, series);
        writeln!(test, "  - {{eval_time: {minutes}m, alertname: Peipkg{alert}, exp_alerts: [").unwrap();
        writeln!(
            test,
            "    {{exp_labels: {{instance: farm{labels}}}, exp_annotations: {{summary: {summary:?}}}}}]}}"
        )
        .unwrap();
        tried.insert((*alert).to_owned());
    }
    assert_eq!(tried, alerts());
    begin(&mut test, WELL);
    for alert in &tried {
        writeln!(test, "  - {{eval_time: 25h, alertname: Peipkg{alert}, exp_alerts: []}}").unwrap();
    }
    if !require("promtool") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("alerts.test.yml");
    fs::write(&file, test).unwrap();
    let output = Command::new("promtool").args(["test", "rules"]).arg(&file).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}
