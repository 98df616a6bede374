//! `[notify]`: a program that is told of each change of state, one at a time and in order.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::client::{get, status};
use crate::support::executable;
use crate::support::farm::{Farm, FarmBuilder};
use crate::support::git_repo::{GitRepo, run};
use crate::support::latch::Latch;
use crate::support::optional::require;
use crate::support::recipes::Recipe;
use crate::support::wait::{PATIENCE, wait_until};

/// A program that keeps what it is told, and shows when two of it run at once.
const TELL: &str = "#!/bin/sh
mkdir \"$HOME/told.lock\" || echo together >>\"$HOME/told\"
echo \"begin $*\" >>\"$HOME/told\"
cat >>\"$HOME/told\"
rmdir \"$HOME/told.lock\"
";

fn telling() -> FarmBuilder {
    Farm::builder().program("tell", TELL).config_extra("[notify]\ncommand = [\"tell\", \"a  b\", \"-x\"]")
}

/// What `tell` has been told, line by line.
fn told(farm: &Farm) -> Vec<Value> {
    let text = fs::read_to_string(farm.path("told")).unwrap_or_default();
    let lines = text.lines().filter(|line| *line != "begin a  b -x");
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{text}"))).collect()
}

/// The events of `tell`, as `event recipe version`.
fn events(farm: &Farm) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    told(farm)
        .iter()
        .map(|told| ["event", "recipe", "version"].map(|key| text(&told[key])).join(" "))
        .collect()
}

#[test]
fn program_is_told_of_failure_recovery_publish_and_a_refused_reload() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = telling().with(&Recipe::failing("tool", &repo.file_url())).http().build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_event("build failed", PATIENCE);
    wait_until("the failure is told", PATIENCE, || told(&farm).len() == 1);
    let failure = told(&farm).remove(0);
    let status = status(addr);
    assert_eq!(failure["cause"], status["failures"]["tool@1.0-1"]["last_error"]);
    assert_eq!((&failure["farm_id"], &failure["event"]), (&"test-farm".into(), &"build_failed".into()));
    assert!(
        failure["time"].as_str().is_some_and(|time| time.ends_with('Z') && time.len() == 20),
        "{failure}"
    );
    // A version that keeps failing is no news.
    farm.add(&Recipe::failing("tool", &repo.file_url()).build_sh("exit 8\n"));
    daemon.signal(Signal::HUP);
    daemon.wait_events("build failed", 2, PATIENCE);
    farm.write_recipe("broken", "?", "");
    daemon.signal(Signal::HUP);
    daemon.wait_event("reload refused, the current recipes stay", PATIENCE);
    farm.remove_recipe("broken");
    farm.add(&Recipe::program("tool", &repo.file_url()));
    daemon.signal(Signal::HUP);
    daemon.wait_event("build + publish complete", PATIENCE);
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_success().assert_only_events();
    // The end has waited for the last ones.
    let expected =
        ["build_failed tool 1.0-1", "reload_refused - -", "recovered tool 1.0-1", "published tool 1.0-1"];
    assert_eq!(events(&farm), expected);
    let refused = &told(&farm)[1];
    assert!(refused["cause"].as_str().unwrap().contains("broken/peipkg.toml:1:"), "{refused}");
    assert_eq!(told(&farm)[3]["cause"], Value::Null);
}

#[test]
fn sweep_tells_of_everything_before_its_end_one_at_a_time() {
    let repo = GitRepo::program(&["1.0", "1.1", "1.2", "1.3"]);
    let farm = telling().with(&Recipe::program("tool", &repo.file_url())).build();
    farm.once().assert_success().assert_only_events();
    let mut events = events(&farm);
    assert_eq!(events[0], "published tool 1.3-1");
    events.sort();
    assert_eq!(events, ["1.0", "1.1", "1.2", "1.3"].map(|version| format!("published tool {version}-1")));
    // Nothing has changed since.
    farm.once().assert_success();
    assert_eq!(told(&farm).len(), 4);
}

#[test]
fn upload_that_fails_is_told_with_its_cause() {
    let Some((_home, copy)) = crate::support::farm::remote_directory() else { return };
    let script = "#!/bin/sh\necho 'no route to host' >&2; exit 5\n";
    let repo = GitRepo::program(&["1.0"]);
    let farm = telling()
        .rclone(&copy)
        .program("rclone", script)
        .with(&Recipe::program("tool", &repo.file_url()))
        .build();
    let failed = farm.once().event("upload failed");
    assert_eq!(events(&farm), ["published tool 1.0-1", "upload_failed - -"]);
    assert_eq!(told(&farm)[1]["cause"], failed["error"].as_str());
}

#[test]
fn program_that_fails_is_logged_once_and_its_output_with_it() {
    let repo = GitRepo::program(&["1.0", "1.1", "1.2"]);
    let script = "#!/bin/sh\nyes | head -c 1000000\necho 'no such topic' >&2\nexit 3\n";
    let farm = telling().program("tell", script).with(&Recipe::program("tool", &repo.file_url())).build();
    let output = farm.once();
    let failed = output.assert_success().assert_only_events().event("notification failed");
    assert_eq!((&failed["level"][..], &failed["event"][..]), ("warn", "published"));
    assert_eq!(failed["error"], "tell exited with status 3: no such topic");
    // It may also close its input unread.
    let farm = telling().program("tell", "#!/bin/sh\nexec <&-\n");
    let farm = farm.with(&Recipe::program("tool", &repo.file_url())).build();
    assert!(farm.once().assert_success().events("notification failed").is_empty());
}

#[test]
fn program_that_succeeds_again_is_logged_once() {
    let repo = GitRepo::program(&["1.0", "1.1", "1.2", "1.3", "1.4"]);
    // The second and the third notification fail.
    let script = "#!/bin/sh\necho >>\"$HOME/calls\"\ncase $(wc -l <\"$HOME/calls\") in 2|3) exit 1;; esac\n";
    let farm = telling().program("tell", script).with(&Recipe::program("tool", &repo.file_url())).build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert_eq!(output.events("notification failed").len(), 1, "{output}");
    assert_eq!(output.events("notification succeeded").len(), 1, "{output}");
}

#[test]
fn program_that_hangs_delays_no_build_and_the_end_by_a_bounded_time() {
    let repo = GitRepo::program(&["1.0", "1.1"]);
    let farm = telling().program("tell", "#!/bin/sh\nexec sleep 1000\n");
    let farm = farm.with(&Recipe::program("tool", &repo.file_url())).build();
    let begun = Instant::now();
    let output = farm.once();
    let stopped =
        output.assert_success().assert_only_events().event("stopping before all notifications are sent");
    // The first one has had its 30 seconds, or is among these.
    assert!(["1", "2"].contains(&stopped["left"].as_str()), "{output}");
    assert!(begun.elapsed() < PATIENCE, "{output}");
    farm.assert_published(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
}

#[test]
fn end_waits_for_a_notification_in_the_open_and_a_second_stop_does_not() {
    let (repo, latch) = (GitRepo::program(&["1.0"]), Latch::new());
    // Not even a SIGTERM ends it.
    let script = format!("#!/bin/sh\ntrap '' TERM\n{}", latch.script());
    let farm = telling().program("tell", &script).http();
    let farm = farm.with(&Recipe::program("tool", &repo.file_url())).build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    latch.wait_reached();
    let notifications = || status(addr)["notifications"].clone();
    assert_eq!(notifications(), json!({ "told": 0, "failed": 0, "dropped": 0, "waiting": 1 }));
    assert_eq!(status(addr)["draining"], false);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait_event("waiting for the program of [notify]", PATIENCE)["left"], "1");
    assert_eq!(status(addr)["draining"], true);
    assert!(get(addr, "/").text().contains("Stopping"));
    assert_eq!(notifications()["waiting"], 1);
    daemon.signal(Signal::TERM);
    // The second one ends the program after a second, without the ten that a build has.
    let output = daemon.wait_exit(Duration::from_secs(8));
    output.assert_code(1).event("stopping before all notifications are sent");
}

#[test]
fn failure_that_ends_without_a_publish_has_recovered() {
    let repo = GitRepo::program(&["1.0", "2.0"]);
    let broken = |more: &str| Recipe::failing("tool", &repo.file_url()).upstream(more);
    let farm = telling().with(&broken("exclude = [\"v2.0\"]")).build();
    let mut daemon = farm.daemon();
    daemon.wait_event("build failed", PATIENCE);
    // The operator gives the version up; the next one fails too.
    farm.add(&broken("min_version = \"2\""));
    daemon.signal(Signal::HUP);
    daemon.wait_events("build failed", 2, PATIENCE);
    farm.remove_recipe("tool");
    daemon.signal(Signal::HUP);
    wait_until("four are told", PATIENCE, || told(&farm).len() == 4);
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_success().assert_only_events();
    let expected = [
        "build_failed tool 1.0-1",
        "recovered tool 1.0-1",
        "build_failed tool 2.0-1",
        "recovered tool 2.0-1",
    ];
    assert_eq!(events(&farm), expected);
}

#[test]
fn publish_that_ends_unseen_is_told_by_the_next_start() {
    let repo = GitRepo::program(&["1.0"]);
    // The script's parent is the manager.
    let script = "#!/bin/sh\n[ \"$1\" = publish ] && [ ! -e \"$HOME/died\" ] || exec {real} \"$@\"\n: >\"$HOME/died\"\n\
                  {real} \"$@\" && kill -9 \"$PPID\"\n";
    let farm =
        telling().program("peipkg-repo", script).with(&Recipe::program("tool", &repo.file_url())).build();
    assert_eq!(farm.once().status.code(), None);
    assert!(told(&farm).is_empty());
    farm.once_without_builds(&["tool 1.0-1 noarch"]);
    assert_eq!(events(&farm), ["published tool 1.0-1"]);
}

#[test]
fn abort_with_nothing_to_tell_leaves_nothing() {
    let (repo, latch) = (GitRepo::program(&["1.0"]), Latch::new());
    let recipe = Recipe::program("tool", &repo.file_url()).before_build(&latch.script());
    let farm = telling().with(&recipe).build();
    let mut daemon = farm.daemon();
    latch.wait_reached();
    daemon.signal(Signal::TERM);
    daemon.wait_event("stopping after the build in progress", PATIENCE);
    daemon.signal(Signal::TERM);
    let output = daemon.wait_exit(PATIENCE);
    output.assert_code(1);
    assert!(output.events("stopping before all notifications are sent").is_empty(), "{output}");
}

#[test]
fn program_missing_is_found_before_anything_runs() {
    let missing = [
        ("[\"no-such-program\"]", "no-such-program is not on PATH"),
        ("[\"/nowhere/tell\", \"x\"]", "/nowhere/tell is not an executable file"),
    ];
    for (command, expected) in missing {
        let farm = Farm::builder().config_extra(&format!("[notify]\ncommand = {command}")).build();
        let output = farm.once();
        output.assert_code(1);
        assert!(output.stderr.contains(expected) && output.stderr.contains("[notify] command"), "{output}");
        let check = farm.run(&["--check"]);
        check.assert_code(1);
        assert!(check.stdout.contains(expected), "{check}");
        assert!(!farm.state_dir().exists());
    }
    let farm = Farm::builder().config_extra("[notify]\ncommand = \"tell\"").build();
    farm.once().assert_code(2);
}

fn example(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/notify").join(name)
}

/// Takes one request and returns its head and its body.
fn one_request(listener: &TcpListener) -> (String, String) {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    (head, String::from_utf8(body).unwrap())
}

#[test]
fn examples_with_curl_send_what_the_farm_says() {
    if !require("curl") {
        return;
    }
    for (name, head_has, body_has) in [
        ("webhook", "Content-Type: application/json", "{\"event\":\"build_failed\",\"recipe\":\"tool\""),
        ("ntfy", "Title: build_failed: tool 1.0-1\r\nPriority: high", "this build fails \"on\" purpose\n"),
    ] {
        let repo = GitRepo::program(&["1.0"]);
        let script = "echo 'this build fails \"on\" purpose' >&2\nexit 7\n";
        let recipe = Recipe::program("tool", &repo.file_url()).build_sh(script);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let options = format!("url = \"http://{}/x\"\n", listener.local_addr().unwrap());
        let command = format!("[\"{}\", \"{{home}}/options.curl\"]", example(name).display());
        let farm =
            Farm::builder().with(&recipe).config_extra(&format!("[notify]\ncommand = {command}")).build();
        fs::write(farm.path("options.curl"), options).unwrap();
        let server = thread::spawn(move || one_request(&listener));
        let output = farm.once();
        output.assert_success().assert_only_events();
        assert!(output.events("notification failed").is_empty(), "{output}");
        let (head, body) = server.join().unwrap();
        assert!(head.contains(head_has), "{head}");
        assert!(body.contains(body_has), "{body}");
        // A server that refuses makes the program fail, and the log says so.
        let refused = farm.once().event("notification failed");
        assert!(refused["error"].contains("curl"), "{refused:?}");
    }
}

#[test]
fn example_with_sendmail_writes_a_mail() {
    let home = tempfile::tempdir().unwrap();
    // It shows what any sendmail is given.
    executable::write(&home.path().join("sendmail"), b"#!/bin/sh\necho \"$*\"; cat\n");
    let mail = |line: &str| {
        let mut command = Command::new(example("mail"));
        let path = format!("{}:{}", home.path().display(), std::env::var("PATH").unwrap());
        let mut child = command
            .arg("ops@example.org")
            .env("PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let end = r#""time":"2026-11-22T11:40:12Z","farm_id":"fä"rm"}"#.replace("fä\"rm", "fä rm");
    let cause = format!(r#"x \"y\" \\n, grün{}"#, " long".repeat(1000));
    let text = mail(&format!(
        "{{\"event\":\"build_failed\",\"recipe\":\"tool\",\"version\":\"1.0-1\",\"cause\":\"{cause}\",{end}\n"
    ));
    let lines: Vec<&str> = text.lines().collect();
    let expected =
        ["-i -- ops@example.org", "To: ops@example.org", "Subject: build_failed: tool 1.0-1 (f rm)"];
    assert_eq!(lines[..3], expected, "{text}");
    assert!(text.contains("\n\nx \"y\" \\n, grün long"), "{text}");
    assert!(text.lines().all(|line| line.len() < 998), "{text}");
    let text = mail(&format!(
        "{{\"event\":\"reload_refused\",\"recipe\":null,\"version\":null,\"cause\":\"a:1: b\",{end}\n"
    ));
    assert!(text.contains("\nSubject: reload_refused (f rm)\n") && text.contains("\n\na:1: b\n"), "{text}");
    let line =
        format!("{{\"event\":\"published\",\"recipe\":\"t\",\"version\":\"1-1\",\"cause\":null,{end}\n");
    assert_eq!(mail(&line), "", "a publish is no mail");
}

#[test]
fn examples_have_no_findings_of_shellcheck() {
    if require("shellcheck") {
        run(Command::new("shellcheck").args(["mail", "webhook", "ntfy"].map(example)));
    }
}
