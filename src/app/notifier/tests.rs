//! Which notifications the program gets, and which the queue drops.

use std::fs;

use peipkg_format::problem::Problem;

use super::*;

fn key(version: &str) -> JobKey {
    JobKey { recipe: "tool".into(), version: version.parse().unwrap() }
}

/// A notifier whose program keeps what it is told, and holds the first one until there is a file `open`.
fn keeping(home: &Path) -> Notifier {
    let at = |name: &str| home.join(name).display().to_string();
    let (begun, open, told) = (at("begun"), at("open"), at("told"));
    let script = format!(": >'{begun}'; until [ -e '{open}' ]; do sleep 0.02; done; cat >>'{told}'");
    Notifier::start("/bin/sh".into(), vec!["-c".to_owned(), script], "farm".into(), || ()).unwrap()
}

/// Waits until the program is done, and ends the notifier.
fn end(notifier: Notifier) {
    let unsent = notifier.close();
    let deadline = std::time::Instant::now() + DEADLINE;
    while !unsent.is_told() {
        assert!(std::time::Instant::now() < deadline, "the program does not end");
        thread::sleep(Duration::from_millis(5));
    }
    unsent.end();
}

/// Ends the notifier and returns what its program was told: event, version without its revision, cause.
fn told(home: &Path, notifier: Notifier) -> Vec<String> {
    fs::write(home.join("open"), "").unwrap();
    end(notifier);
    let text = fs::read_to_string(home.join("told")).unwrap_or_default();
    let told = text.lines().map(|line| {
        let told: serde_json::Value = serde_json::from_str(line).unwrap();
        let part = |key: &str| told[key].as_str().map_or("-", |text| text.trim_end_matches("-1")).to_owned();
        ["event", "version", "cause"].map(part).join(" ")
    });
    told.collect()
}

fn build_failed(version: &str, failures: u32) -> Notice {
    let (retry_after, log, reason) = (Some(DEADLINE), None, "no disk".to_owned());
    Notice::BuildFailed { key: key(version), failures, retry_after, log, reason }
}

fn publish_failed(version: &str, failures: u32) -> Notice {
    let (retry_after, log, reason) = (Some(DEADLINE), None, "no disk".to_owned());
    Notice::PublishFailed { key: key(version), failures, retry_after, log, reason }
}

fn complete(version: &str) -> Notice {
    Notice::BuildComplete { key: key(version), took: DEADLINE }
}

fn polled() -> Notice {
    Notice::PollComplete { recipe: "tool".into(), tags_seen: 1, matches: 1, queued: 0 }
}

#[test]
fn program_is_told_of_changes_alone() {
    #[track_caller]
    fn check(notices: &[Notice], still_failing: &[&str], expected: &[&str]) {
        let home = tempfile::tempdir().unwrap();
        let mut notifier = keeping(home.path());
        for notice in notices {
            notifier.tell(notice, |key| still_failing.contains(&key.version.as_str()));
        }
        assert_eq!(told(home.path(), notifier), expected, "{notices:?}");
    }
    let failed = build_failed;
    check(&[failed("1-1", 1), failed("1-1", 2)], &[], &["build_failed 1 no disk"]);
    check(&[complete("1-1"), polled()], &[], &["published 1 -"]);
    // The count begins again with the publish, or with another recipe.
    let both = [failed("1-1", 1), publish_failed("1-1", 1), publish_failed("1-1", 2), complete("1-1")];
    let all = ["build_failed 1 no disk", "publish_failed 1 no disk", "recovered 1 -", "published 1 -"];
    check(&both, &[], &all);
    check(&[failed("1-1", 1), polled(), failed("1-1", 1)], &["1-1"], &["build_failed 1 no disk"]);
    // Given up, with another version that goes on failing.
    let two = [failed("1-1", 1), failed("2-1", 1), polled(), polled(), failed("2-1", 9)];
    check(&two, &["2-1"], &["build_failed 1 no disk", "build_failed 2 no disk", "recovered 1 -"]);
    let gone = [failed("1-1", 1), Notice::RosterLoaded { count: 0 }, failed("1-1", 1)];
    let again = ["build_failed 1 no disk", "recovered 1 -", "build_failed 1 no disk"];
    check(&gone, &[], &again);
    // Another run has published it.
    let found = Notice::AlreadyPublished { key: key("1-1") };
    check(&[failed("1-1", 1), found], &[], &["build_failed 1 no disk", "recovered 1 -", "published 1 -"]);
    let uploaded = |recovered| Notice::UploadComplete { took: DEADLINE, recovered };
    let upload = |failures| Notice::UploadFailed { failures, retry_after: None, reason: "x".to_owned() };
    let uploads = [uploaded(false), upload(1), upload(2), uploaded(true)];
    check(&uploads, &[], &["upload_failed - x", "upload_recovered - -"]);
    let problem = |text: &str| Problem::of_file("a/peipkg.toml", text);
    let refused = Notice::ReloadRefused { problems: vec![problem("b"), problem("c")] };
    check(&[refused], &[], &["reload_refused - a/peipkg.toml: b; a/peipkg.toml: c"]);
    check(&[Notice::Aborting], &[], &[]);
}

#[test]
fn queue_full_drops_publishes_first_and_keeps_the_order() {
    let home = tempfile::tempdir().unwrap();
    let mut notifier = keeping(home.path());
    notifier.tell(&complete("0-1"), |_| true);
    // The first one is with the program, the queue is empty.
    let deadline = std::time::Instant::now() + DEADLINE;
    while !home.path().join("begun").exists() {
        assert!(std::time::Instant::now() < deadline, "the program does not begin");
        thread::sleep(Duration::from_millis(5));
    }
    notifier.tell(&build_failed("1-1", 1), |_| true);
    for number in 2..=WAITING + 3 {
        notifier.tell(&complete(&format!("{number}-1")), |_| true);
    }
    notifier.tell(&build_failed("1000-1", 1), |_| true);
    let mut expected = vec!["published 0 -".to_owned(), "build_failed 1 no disk".to_owned()];
    expected.extend((6..=WAITING + 3).map(|number| format!("published {number} -")));
    expected.push("build_failed 1000 no disk".to_owned());
    assert_eq!(told(home.path(), notifier), expected);
}

#[test]
fn queue_full_of_failures_drops_the_oldest_and_a_new_publish() {
    let home = tempfile::tempdir().unwrap();
    let mut notifier = keeping(home.path());
    for number in 0..WAITING * 2 {
        notifier.tell(&build_failed(&format!("{number}-1"), 1), |_| true);
    }
    notifier.tell(&complete("1-2"), |_| true);
    let told = told(home.path(), notifier);
    assert_eq!(told.last().unwrap(), &format!("build_failed {} no disk", WAITING * 2 - 1));
    assert!((WAITING..=WAITING + 1).contains(&told.len()), "{}", told.len());
}

#[test]
fn end_at_once_drops_what_is_left_and_ends_the_program() {
    let home = tempfile::tempdir().unwrap();
    let idle = keeping(home.path()).close();
    assert_eq!(idle.counts.status(), Notifications::default());
    idle.end();
    let mut notifier = keeping(home.path());
    notifier.tell(&complete("1-1"), |_| true);
    notifier.tell(&complete("2-1"), |_| true);
    let (unsent, begun) = (notifier.close(), std::time::Instant::now());
    assert!(!unsent.is_told());
    assert_eq!(unsent.counts.status(), Notifications { waiting: 2, ..Notifications::default() });
    unsent.end();
    assert!(begun.elapsed() < DEADLINE, "the program waits for ever");
}

#[test]
fn notifications_told_and_failed_are_counted() {
    let script = "grep -q '\"2-1\"' && exit 1; exit 0".to_owned();
    let args = vec!["-c".to_owned(), script];
    let mut notifier = Notifier::start("/bin/sh".into(), args, "farm".into(), || ()).unwrap();
    for version in ["1-1", "2-1", "3-1"] {
        notifier.tell(&complete(version), |_| true);
    }
    let counts = notifier.counts().clone();
    end(notifier);
    assert_eq!(counts.status(), Notifications { told: 2, failed: 1, dropped: 0, waiting: 0 });
}
