//! Webhooks: the accepted ones, the polls that they cause, and answers without a wait.

use std::net::SocketAddr;
use std::process::Command;
use std::thread;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::forges::{settled, stop};
use crate::payloads::{self, Addresses};
use crate::support::client::{self, Response, openssl_hmac_sha256};
use crate::support::farm::{Farm, SECRET};
use crate::support::git_repo::{GitRepo, git_command, run};
use crate::support::latch::Latch;
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::smart_http::{Fault, Request, SmartHttp};
use crate::support::wait::{PATIENCE, wait_until};

const ACCEPTED: &str = "webhook accepted, triggering immediate poll";

/// A payload's name, headers and body.
type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a str);

fn hooked(id: &str, url: &str) -> Recipe {
    Recipe::program(id, url).watch("github_webhook = true")
}

fn signature(body: &[u8]) -> String {
    format!("sha256={}", openssl_hmac_sha256(SECRET.as_bytes(), body))
}

/// Sends `body` with `headers` and nothing else.
#[track_caller]
fn post(addr: SocketAddr, headers: &[(&str, &str)], body: &str) -> Response {
    client::request(addr, "POST", "/webhooks/github", headers, body.as_bytes())
}

#[track_caller]
fn assert_answer(answer: &Response, status: u16, text: &str) {
    assert_eq!((answer.status, answer.text().trim_end()), (status, text));
}

/// The recipes in the events about triggered polls so far.
fn triggered(daemon: &Running) -> Vec<String> {
    let events = daemon.events().into_iter().filter(|event| event["msg"] == ACCEPTED);
    events.map(|event| event["recipe"].clone()).collect()
}

/// Starts a daemon, and forgets the requests of its first polls.
fn settled_quietly(http: &SmartHttp, recipes: &[Recipe]) -> (Farm, Running, SocketAddr) {
    let started = settled(recipes);
    http.clear_log();
    started
}

#[test]
fn webhook_for_a_pushed_tag_starts_a_build() {
    // A bare repository, as on a forge, and a clone of it.
    let home = TempDir::with_prefix("forge-").unwrap();
    let source = GitRepo::program(&["1.0"]);
    run(git_command(home.path()).args(["clone", "--quiet", "--bare", &source.file_url(), "app.git"]));
    let bare = format!("file://{}/app.git", home.path().display());
    let farm = Farm::builder().with(&hooked("app", &bare)).http().build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_event("build + publish complete", PATIENCE);
    source.add_versions(&["1.1"]);
    source.git(&["push", "--quiet", &bare, "main", "v1.1"]);
    let path = format!("{}/app", home.path().display());
    let addresses = Addresses {
        html: format!("https://forge.example.org{path}"),
        clone: bare.clone(),
        ssh: format!("git@forge.example.org:{path}.git"),
    };
    let body = payloads::github_push(&addresses, "v1.1");
    assert_answer(&client::webhook(addr, "push", SECRET, body.as_bytes()), 200, "accepted");
    daemon.wait_events("build + publish complete", 2, PATIENCE);
    assert_eq!(triggered(&daemon), ["app"]);
    stop(daemon);
    farm.assert_published(&["app 1.0-1 noarch", "app 1.1-1 noarch"]);
    farm.assert_verifies();
}

#[test]
fn webhook_of_github_gitea_and_forgejo_is_understood() {
    let http = SmartHttp::new();
    let repo = GitRepo::new();
    repo.commit(&[], "2026-01-01T00:00:00Z");
    let url = http.serve("lib.git", &repo);
    let (_farm, mut daemon, addr) = settled_quietly(&http, &[hooked("lib", &url)]);
    let forge = Addresses::of(&url);
    let push = payloads::github_push(&forge, "v1");
    let gitea = payloads::gitea_push(&forge, "v1");
    let form = form(&push);
    let only = |field: &str, value: &str| format!(r#"{{"repository":{{"{field}":"{value}"}}}}"#);
    let shouted = only("clone_url", &url.replace("http://", "HTTPS://").to_uppercase().replace(".GIT", "/"));
    let json = ("Content-Type", "application/json");
    let cases: Vec<Case<'_>> = vec![
        ("push", vec![json, ("X-GitHub-Event", "push"), ("X-GitHub-Delivery", "72d3162e")], &push),
        (
            "form",
            vec![("Content-Type", "application/x-www-form-urlencoded"), ("X-GitHub-Event", "push")],
            &form,
        ),
        (
            "gitea",
            vec![
                json,
                ("X-Gitea-Event", "push"),
                ("X-Gitea-Signature", "0f"),
                ("X-Gogs-Event", "push"),
                ("X-GitHub-Event", "push"),
            ],
            &gitea,
        ),
        (
            "forgejo",
            vec![
                json,
                ("X-Forgejo-Event", "push"),
                ("X-Forgejo-Signature", "0f"),
                ("X-Gitea-Event", "push"),
                ("X-GitHub-Event", "push"),
            ],
            &gitea,
        ),
        ("no event", vec![json], &push),
        ("spelling", vec![json], &shouted),
    ];
    let more = [
        ("create", payloads::github_create(&forge, "v1")),
        ("release", payloads::github_release(&forge, "v1")),
        ("html", only("html_url", &forge.html)),
        ("clone", only("clone_url", &forge.clone)),
        ("ssh", only("ssh_url", &forge.ssh)),
    ];
    let rest = more.iter().map(|(name, body)| (*name, vec![json, ("X-GitHub-Event", *name)], body.as_str()));
    let all: Vec<_> = cases.into_iter().chain(rest).collect();
    for (number, (name, mut headers, body)) in all.into_iter().enumerate() {
        let signature = signature(body.as_bytes());
        headers.push(("X-Hub-Signature-256", &signature));
        let answer = post(addr, &headers, body);
        assert_eq!((answer.status, answer.text().trim_end()), (200, "accepted"), "{name}");
        // Wait for the poll before the next webhook: two webhooks at once would share a poll.
        daemon.wait_events("poll complete", number + 2, PATIENCE);
        wait_until(&format!("the webhook {name} is logged"), PATIENCE, || triggered(&daemon).len() > number);
        assert_eq!(triggered(&daemon).len(), number + 1, "{name}");
    }
    stop(daemon);
}

/// Encodes `json` as GitHub's form: the field `payload`, percent-encoded.
fn form(json: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        b' ' => "+".to_owned(),
        _ => format!("%{byte:02X}"),
    };
    format!("payload={}", json.bytes().map(byte).collect::<String>())
}

#[test]
fn webhook_answer_names_exactly_the_recipes_with_a_webhook() {
    let http = SmartHttp::new();
    let repo = GitRepo::program(&["1"]);
    let (url, other) = (http.serve("lib.git", &repo), http.serve("other.git", &repo));
    let none = r"^x(\d+)$";
    let recipes = [
        hooked("lib", &url).tag_pattern(none),
        // Another spelling of the same repository, which has its own listing.
        hooked("lib-dev", url.strip_suffix(".git").unwrap()).tag_pattern(none),
        Recipe::program("lib-old", &url).tag_pattern(none),
        hooked("other", &other).tag_pattern(none),
    ];
    http.serve("lib", &repo);
    let (_farm, mut daemon, addr) = settled_quietly(&http, &recipes);
    let body = payloads::github_push(&Addresses::of(&url), "v2");
    assert_eq!(client::webhook(addr, "push", SECRET, body.as_bytes()).status, 200);
    daemon.wait_for(PATIENCE, |events| {
        events.iter().filter(|event| event["msg"] == "poll complete").count() >= recipes.len() + 3
    });
    let mut reported = triggered(&daemon);
    reported.sort();
    assert_eq!(reported, ["lib", "lib-dev"]);
    assert!(http.requests().iter().all(|request| !request.path.starts_with("/other")));
    stop(daemon);
}

#[test]
fn webhook_for_no_recipe_polls_nothing() {
    let http = SmartHttp::new();
    let url = http.serve("lib.git", &GitRepo::program(&["1"]));
    let plain = Recipe::program("lib", &url).tag_pattern(r"^x(\d+)$");
    let (_farm, mut daemon, addr) = settled_quietly(&http, &[plain]);
    for url in [&url, "https://github.com/octocat/Hello-World.git"] {
        let body = payloads::github_push(&Addresses::of(url), "v2");
        assert_answer(&client::webhook(addr, "push", SECRET, body.as_bytes()), 200, "accepted");
    }
    let ping = payloads::github_ping(&Addresses::of(&url));
    assert_answer(&client::webhook(addr, "ping", SECRET, ping.as_bytes()), 200, "pong");
    // The main loop handles events in order: before the reload's poll it has handled the webhooks.
    daemon.signal(Signal::HUP);
    daemon.wait_events("poll complete", 2, PATIENCE);
    assert!(triggered(&daemon).is_empty());
    let listings = http.requests().iter().filter(|request| request.method == "POST").count();
    assert_eq!(listings, 1, "a webhook caused a listing");
    stop(daemon);
}

#[test]
fn webhooks_twenty_at_once_are_few_polls() {
    let http = SmartHttp::new();
    let url = http.serve("lib.git", &GitRepo::program(&["1"]));
    let (_farm, mut daemon, addr) = settled_quietly(&http, &[hooked("lib", &url).tag_pattern(r"^x(\d+)$")]);
    // Delay the first webhook's listing until all webhooks have come.
    http.fault_times("lib.git", Fault::Silent, 1);
    let body = payloads::github_push(&Addresses::of(&url), "v2");
    let send = || assert_eq!(client::webhook(addr, "push", SECRET, body.as_bytes()).status, 200);
    send();
    wait_until("the upstream is asked", PATIENCE, || !http.requests().is_empty());
    thread::scope(|scope| (0..19).for_each(|_| drop(scope.spawn(send))));
    daemon.wait_events(ACCEPTED, 2, PATIENCE);
    assert_eq!(triggered(&daemon).len(), 2, "expected the running poll and one more");
    assert_eq!(client::get(addr, "/healthz").status, 200);
    assert_eq!(http.requests().len(), 1);
    stop(daemon);
}

#[test]
fn webhook_wrong_signature_is_refused() {
    let http = SmartHttp::new();
    let url = http.serve("lib.git", &GitRepo::program(&["1"]));
    let (_farm, mut daemon, addr) = settled_quietly(&http, &[hooked("lib", &url).tag_pattern(r"^x(\d+)$")]);
    let body = payloads::github_push(&Addresses::of(&url), "v2");
    let right = signature(body.as_bytes());
    let flipped = format!("{}{}", &right[..70], if right.ends_with('0') { "1" } else { "0" });
    let other_secret = format!("sha256={}", openssl_hmac_sha256(b"another secret", body.as_bytes()));
    let other_body = signature(b"{}");
    let with_newline =
        format!("sha256={}", openssl_hmac_sha256(format!("{SECRET}\n").as_bytes(), body.as_bytes()));
    let wrong = [
        "",
        "sha256=",
        "sha256",
        &right[7..],
        &right[..70],
        &right[..39],
        &flipped,
        &other_secret,
        &other_body,
        &with_newline,
        &right.replace("sha256", "sha1"),
        &right.replace("sha256", "SHA256"),
        &format!("{right}00"),
        &format!("{right},{right}"),
    ];
    let invalid = (401, "webhook signature invalid");
    for signature in wrong {
        let answer = post(addr, &[("X-GitHub-Event", "push"), ("X-Hub-Signature-256", signature)], &body);
        assert_eq!((answer.status, answer.text().trim_end()), invalid, "{signature:?}");
    }
    let mut unsigned = vec![("X-GitHub-Event", "push")];
    for more in
        [("X-Gitea-Signature", right.as_str()), ("X-Gitlab-Token", SECRET), ("X-GitHub-Event", "ping")]
    {
        unsigned.push(more);
        let answer = post(addr, &unsigned, &body);
        assert_eq!((answer.status, answer.text().trim_end()), invalid, "{unsigned:?}");
    }
    // The server checks the signature of the bytes before it parses them.
    for changed in [format!("{body} "), body.replace('\n', " "), "{".to_owned(), String::new()] {
        let answer = post(addr, &[("X-Hub-Signature-256", &right), ("X-GitHub-Event", "ping")], &changed);
        assert_eq!((answer.status, answer.text().trim_end()), invalid);
    }
    // The first signature counts; a later one cannot replace it.
    let answer = post(addr, &[("X-Hub-Signature-256", &flipped), ("X-Hub-Signature-256", &right)], &body);
    assert_eq!(answer.status, 401);
    let warning = daemon.wait_event("webhook signature invalid", PATIENCE);
    assert_eq!(warning["level"], "warn");
    assert!(triggered(&daemon).is_empty() && http.requests().is_empty());
    assert_answer(&client::webhook(addr, "push", SECRET, body.as_bytes()), 200, "accepted");
    daemon.wait_event(ACCEPTED, PATIENCE);
    let log = daemon.stderr();
    assert!(!log.contains(SECRET) && !log.contains(&right[7..]), "{log}");
    stop(daemon);
}

#[test]
fn webhook_signed_nonsense_is_refused_without_harm() {
    let farm = Farm::builder().http().build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    let deep = format!("{{\"repository\":{}", "[".repeat(200_000));
    for body in ["", "{", "[]", "null", "\u{0}\u{1}", r#"{"repository":{}}"#, r#"{"repository":[]}"#, &deep] {
        let answer = client::webhook(addr, "push", SECRET, body.as_bytes());
        assert_eq!(answer.status, 400, "{body:.40}");
    }
    assert_eq!(client::get(addr, "/healthz").text(), "ok");
    stop(daemon);
}

#[test]
fn webhook_without_a_secret_is_refused() {
    let config = "[manager]\nid = \"test-farm\"\nrecipes_dir = \"{home}/recipes\"\nstate_dir = \"{home}/state\"\n\
                  [repo]\nname = \"test-repo\"\n[signing]\nkey_file = \"{home}/farm.key\"\n\
                  [poll]\ndefault_interval = \"1h\"\n[http]\naddr = \"127.0.0.1:0\"\n";
    let farm = Farm::builder().config_text(config).build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    let body = payloads::github_ping(&Addresses::of("https://github.com/a/b"));
    for secret in [SECRET, "\n", " "] {
        let answer = client::webhook(addr, "ping", secret, body.as_bytes());
        assert_answer(&answer, 401, "webhook signature invalid");
    }
    // Sign with an empty secret by Python: openssl takes no empty key.
    let mut command = Command::new("python3");
    command.args([
        "-c",
        "import hmac,sys;print(hmac.new(b'',sys.argv[1].encode(),'sha256').hexdigest())",
        &body,
    ]);
    if crate::support::optional::require("python3") {
        let signature = format!("sha256={}", run(&mut command));
        assert_answer(
            &post(addr, &[("X-Hub-Signature-256", &signature)], &body),
            401,
            "webhook signature invalid",
        );
    }
    assert_answer(&post(addr, &[], &body), 401, "webhook signature invalid");
    stop(daemon);
}

#[test]
fn webhook_while_a_build_runs_and_polls_hang_is_answered() {
    let (http, latch) = (SmartHttp::new(), Latch::new());
    let repo = GitRepo::program(&["1"]);
    let url = http.serve("slow.git", &repo);
    let farm = Farm::builder().http().with(&hooked("slow", &url).before_build(&latch.script())).build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    latch.wait_reached();
    for number in 0..50 {
        http.fault(&format!("hangs-{number}.git"), Fault::Silent);
        farm.add(&Recipe::program(&format!("hangs-{number}"), &http.url(&format!("hangs-{number}.git"))));
    }
    daemon.signal(Signal::HUP);
    // As many listings hang as one host may have, so the webhook's poll must wait.
    let is_hanging = |request: &&Request| request.path.starts_with("/hangs-");
    wait_until("the polls hang", PATIENCE, || http.requests().iter().filter(is_hanging).count() >= 4);
    let body = payloads::github_push(&Addresses::of(&url), "v1");
    for _ in 0..20 {
        assert_eq!(client::webhook(addr, "push", SECRET, body.as_bytes()).status, 200);
    }
    daemon.wait_event(ACCEPTED, PATIENCE);
    assert_eq!(client::status(addr)["in_flight"]["recipe"], "slow");
    daemon.signal(Signal::TERM);
    daemon.wait_event("stopping after the build in progress", PATIENCE);
    latch.open();
    let output = daemon.wait_exit(PATIENCE);
    output.assert_code(0).assert_only_events();
    assert!(output.events(ACCEPTED).len() <= 2, "twenty webhooks caused more than two polls\n{output}");
    farm.assert_published(&["slow 1-1 noarch"]);
}

#[test]
fn webhook_while_draining_is_answered_and_starts_nothing() {
    let (http, latch) = (SmartHttp::new(), Latch::new());
    let repo = GitRepo::program(&["1"]);
    let url = http.serve("slow.git", &repo);
    let farm = Farm::builder().http().with(&hooked("slow", &url).before_build(&latch.script())).build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    latch.wait_reached();
    daemon.signal(Signal::TERM);
    daemon.wait_event("stopping after the build in progress", PATIENCE);
    http.clear_log();
    let body = payloads::github_push(&Addresses::of(&url), "v1");
    assert_eq!(client::webhook(addr, "push", SECRET, body.as_bytes()).status, 200);
    latch.open();
    let output = daemon.wait_exit(PATIENCE);
    output.assert_code(0).assert_only_events();
    assert!(output.events(ACCEPTED).is_empty() && http.requests().is_empty());
    farm.assert_published(&["slow 1-1 noarch"]);
}
