//! Text of others in the log: it can neither forge a line nor send control characters to a
//! terminal.

use std::fs;
use std::net::SocketAddr;

use rustix::process::Signal;

use crate::support::client::{Connection, webhook};
use crate::support::farm::{Farm, SECRET};
use crate::support::git_repo::GitRepo;
use crate::support::optional::require;
use crate::support::recipes::Recipe;
use crate::support::running::{Output, Running};
use crate::support::smart_http::{ADVERTISEMENT, Fault, RESULT, SmartHttp};
use crate::support::wait::PATIENCE;

/// Escape sequences for a terminal's title and colours in both encodings, line ends, a forged line,
/// and right-to-left text.
const HOSTILE: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\r\ntime=2026-01-01T00:00:00.000Z level=error msg=forged \u{202e}end\"\\";

/// A shell's way to print [`HOSTILE`], and some bytes that are no UTF-8.
const PRINT: &str = r#"printf '\033]0;owned\007\033[2J\302\23331m\r\ntime=2026-01-01T00:00:00.000Z level=error msg=forged \342\200\256end"\\\377\n'"#;

/// Checks that a log is safe for terminals and for readers of lines.
#[track_caller]
fn assert_harmless(stderr: &str) {
    let raw = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    assert!(!stderr.contains(raw), "{:?}", stderr.lines().find(|line| line.contains(raw)));
    assert!(!stderr.lines().any(|line| line.contains(" msg=forged") && !line.contains('"')), "{stderr}");
}

/// Checks a log, and that the event `message` contains the hostile text.
#[track_caller]
fn assert_logged(output: &Output, message: &str, field: &str) {
    assert_harmless(&output.stderr);
    output.assert_only_events();
    let events = output.events(message);
    assert!(!events.is_empty(), "no {message:?}\n{output}");
    for event in events {
        assert!(event[field].contains("end"), "{event:?}");
    }
    assert!(output.events("forged").is_empty(), "{output}");
}

/// A farm with one recipe, in which `program` prints the hostile text when its arguments match
/// `pattern` of a shell.
fn farm_with(program: &str, pattern: &str) -> (Farm, GitRepo) {
    let repo = GitRepo::program(&["1.0"]);
    let script =
        format!("#!/bin/sh\ncase \"$*\" in {pattern}) {PRINT} >&2; exit 1 ;; esac\nexec {{real}} \"$@\"\n");
    let farm = Farm::builder()
        .with(&Recipe::program("tool", &repo.file_url()))
        .rclone("/nowhere/at/all".as_ref())
        .program(program, &script);
    (farm.build(), repo)
}

#[test]
fn tool_output_hostile_stays_in_its_log_field() {
    if !require("rclone") {
        return;
    }
    for (program, pattern, message) in [
        ("git", "*ls-remote*", "poll failed"),
        ("git", "*fetch*", "build failed"),
        ("peipkg-build", "*", "build failed"),
        ("peipkg-repo", "publish*", "publish failed"),
        ("rclone", "*", "upload failed"),
    ] {
        let (farm, _repo) = farm_with(program, pattern);
        let output = farm.once();
        output.assert_success();
        assert_logged(&output, message, "error");
    }
    let (farm, _repo) = farm_with("peipkg-repo", "init*");
    let output = farm.once();
    output.assert_code(1).assert_one_line(&["peipkg-manager: cannot prepare the repository: ", "forged"]);
    assert_harmless(&output.stderr);
}

#[test]
fn build_output_name_hostile_stays_in_its_log_field() {
    let repo = GitRepo::program(&["1.0"]);
    let script = format!(
        "#!/bin/sh\nfor argument; do [ \"$previous\" = --out ] && out=$argument; previous=$argument; done\n\
         {{real}} \"$@\" || exit\nname=$({PRINT} | tr -d '\\377')\n: >\"$out/$name\"\n"
    );
    let tool = Recipe::program("tool", &repo.file_url());
    let farm = Farm::builder().with(&tool).program("peipkg-build", &script).build();
    let output = farm.once();
    output.assert_success();
    assert_logged(&output, "build failed", "error");
    farm.assert_clean();
}

#[test]
fn upstream_answer_hostile_stays_in_its_log_field() {
    let packet = |text: &str| format!("{:04x}{text}", text.len() + 4).into_bytes();
    let answer =
        |content_type: &str, body: Vec<u8>| Fault::Answer { content_type: content_type.to_owned(), body };
    let error = packet(&format!("ERR {HOSTILE}"));
    let faults = [
        answer(ADVERTISEMENT, error.clone()),
        answer(ADVERTISEMENT, HOSTILE.as_bytes().to_vec()),
        Fault::Redirect { to: "http://127.0.0.1:1/\u{1b}[2Jend".to_owned() },
        Fault::Redirect { to: "file:///\u{9b}31m\u{202e}end".to_owned() },
        answer("text/\u{1b}[2Jend", Vec::new()),
    ];
    for fault in faults {
        let http = SmartHttp::new();
        let url = http.serve("tool.git", &GitRepo::program(&["1.0"]));
        http.fault("tool.git", fault.clone());
        let farm = Farm::builder().with(&Recipe::program("tool", &url)).build();
        let output = farm.once();
        output.assert_success().assert_only_events();
        assert!(farm.published().is_empty(), "{output}");
        assert_harmless(&output.stderr);
    }
    // The second request of a listing, and the fetch.
    let http = SmartHttp::new();
    let url = http.serve("tool.git", &GitRepo::program(&["1.0"]));
    http.fault_second("tool.git", answer(RESULT, error));
    let farm = Farm::builder().with(&Recipe::program("tool", &url)).build();
    let output = farm.once();
    output.assert_success();
    assert_logged(&output, "poll failed", "error");
}

/// Sends bytes, which need not be a request, and ignores the answer.
fn send(addr: SocketAddr, bytes: &[u8]) {
    let mut connection = Connection::open(addr, PATIENCE).expect("a connection");
    connection.send(bytes).expect("the bytes are taken");
    let _ = connection.receive(false);
}

/// A webhook with `text` in each of its fields.
fn hook(text: &str) -> String {
    format!(
        "POST /webhooks/github HTTP/1.1\r\nX-GitHub-Event: {text}\r\nX-Hub-Signature-256: {text}\r\n\
         Content-Type: {text}\r\nContent-Length: 0\r\n\r\n"
    )
}

#[test]
fn client_request_hostile_stays_in_its_log_field() {
    let repo = GitRepo::program(&["1.0"]);
    let hooked = Recipe::program("tool", &repo.file_url()).watch("github_webhook = true");
    let farm = Farm::builder().http().with(&hooked).build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_event("build + publish complete", PATIENCE);
    let line = HOSTILE.replace(['\r', '\n'], " ");
    for head in [
        format!("GET /{line} HTTP/1.1\r\nHost: farm\r\n\r\n"),
        format!("GET /status?{} HTTP/1.1\r\nHost: farm\r\n\r\n", line.replace(' ', "")),
        "GET /%1b%5b2J%0d%0alevel=error HTTP/1.1\r\nHost: farm\r\n\r\n".to_owned(),
        format!("{line} / HTTP/1.1\r\nHost: farm\r\n\r\n"),
        hook(&line),
        // The same without the characters that the gate refuses.
        hook(&line.replace(|c: char| c.is_control() || !c.is_ascii(), "_")),
    ] {
        send(addr, head.as_bytes());
    }
    let quoted = serde_json::to_string(HOSTILE).unwrap();
    let long = serde_json::to_string(&HOSTILE.repeat(100_000)).unwrap();
    let bodies = [
        (format!("{{\"repository\":{quoted}}}"), 400),
        (format!("{{\"repository\":{long}}}"), 400),
        (format!("{{{quoted}:{quoted},\"repository\":{{\"clone_url\":{quoted},\"html_url\":3}}}}"), 200),
        (HOSTILE.to_owned(), 400),
        (format!("{{\"ref\":{quoted},\"repository\":{{\"clone_url\":{quoted}}},\"sender\":{quoted}}}"), 200),
    ];
    for (body, status) in &bodies {
        assert_eq!(webhook(addr, "push", SECRET, body.as_bytes()).status, *status, "{body:.100}");
    }
    let refused = daemon.wait_events("webhook payload refused", 3, PATIENCE);
    for event in refused {
        assert!(event["error"].len() < 400, "{event:?}");
    }
    assert_eq!(daemon.wait_events("webhook signature invalid", 1, PATIENCE).len(), 1);
    daemon.signal(Signal::TERM);
    let output = daemon.wait_exit(PATIENCE);
    output.assert_code(0).assert_only_events();
    assert_harmless(&output.stderr);
}

#[test]
fn recipe_name_hostile_stays_in_its_log_field() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    let mut daemon = farm.daemon();
    daemon.wait_event("build + publish complete", PATIENCE);
    let good = Recipe::program("other", &repo.file_url()).toml();
    let name = serde_json::to_string(HOSTILE).unwrap();
    // The name of a directory, a package, an upstream, a key, a pattern.
    let directory = HOSTILE.replace('/', " ");
    for (id, toml) in [
        (directory.as_str(), good.clone()),
        ("name", good.replace("name = \"other\"", &format!("name = {name}"))),
        ("git", good.replace("git = \"", "git = \"-\\u001b[2Jend")),
        ("key", good.replace("[upstream]\n", &format!("[upstream]\n{name} = 1\n"))),
        ("pattern", good.replace("'^v(\\d+(?:\\.\\d+)*)$'", &name.replace("end", "end("))),
        ("broken", format!("{good}\n\u{1b}[2Jend")),
    ] {
        assert!(id == directory || toml != good, "{id}");
        farm.write_recipe(id, &toml, "");
    }
    daemon.signal(Signal::HUP);
    daemon.wait_events("reload refused, the current recipes stay", 6, PATIENCE);
    daemon.signal(Signal::TERM);
    let output = daemon.wait_exit(PATIENCE);
    output.assert_code(0).assert_only_events();
    assert_harmless(&output.stderr);

    // The same when the start refuses them.
    let output = farm.once();
    output.assert_code(1);
    assert!(output.stderr.lines().all(|line| line.starts_with("peipkg-manager: /")), "{output}");
    assert_harmless(&output.stderr);
    let output =
        Running::spawn(farm.command(&["--check", "--config"]).arg(farm.config_path())).wait_exit(PATIENCE);
    assert_harmless(&output.stdout);
    fs::remove_dir_all(farm.recipes_dir().join(directory)).unwrap();
}
