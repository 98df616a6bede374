//! The webhooks of all forges, and what the manager tells of those that match no recipe.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;

use rustix::process::Signal;
use serde_json::Value;

use crate::payloads::{self, Addresses};
use crate::support::client::{self, Response, openssl_hmac_sha256};
use crate::support::farm::{Farm, SECRET};
use crate::support::git_repo::GitRepo;
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::smart_http::{Fault, SmartHttp};
use crate::support::wait::{PATIENCE, wait_until};

const ACCEPTED: &str = "webhook accepted, triggering immediate poll";
const UNMATCHED: &str = "webhook matches no recipe";

fn hooked(id: &str, url: &str) -> Recipe {
    Recipe::program(id, url).tag_pattern(r"^x(\d+)$").watch("github_webhook = true")
}

/// Starts a daemon with HTTP and waits for its first polls.
pub(crate) fn settled(recipes: &[Recipe]) -> (Farm, Running, SocketAddr) {
    let mut builder = Farm::builder().http();
    for recipe in recipes {
        builder = builder.with(recipe);
    }
    let farm = builder.build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_events("poll complete", recipes.len(), PATIENCE);
    (farm, daemon, addr)
}

#[track_caller]
pub(crate) fn stop(mut daemon: Running) {
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_code(0).assert_only_events();
}

#[track_caller]
fn push(addr: SocketAddr, url: &str) {
    let body = payloads::github_push(&Addresses::of(url), "v1");
    let answer = client::webhook(addr, "push", SECRET, body.as_bytes());
    assert_eq!((answer.status, answer.text().trim_end()), (200, "accepted"), "{url}");
}

/// The webhooks of `/status`, once they satisfy `condition`.
fn webhooks(addr: SocketAddr, condition: impl Fn(&Value) -> bool) -> Value {
    let mut found = Value::Null;
    wait_until("the webhooks of /status", PATIENCE, || {
        found = client::status(addr)["webhooks"].clone();
        condition(&found)
    });
    found
}

#[test]
fn webhook_of_each_forge_polls_its_upstream() {
    let http = SmartHttp::new();
    let repo = GitRepo::program(&["1"]);
    let url = http.serve("lib.git", &repo);
    let (_farm, mut daemon, addr) = settled(&[hooked("lib", &url)]);
    let forge = Addresses::of(&url);
    let (gogs, bitbucket) = (payloads::gogs_push(&forge, "v1"), payloads::bitbucket_push(&forge, "v1"));
    let gitlab = ["push", "tag_push"].map(|kind| payloads::gitlab_push(&forge, kind, "v1"));
    let data_center = r#"{"eventKey":"repo:refs_changed","repository":{"slug":"lib","project":{"key":"X"},
        "links":{"clone":[{"href":"{clone}","name":"http"}]}}}"#;
    let data_center = data_center.replace("{clone}", &forge.clone);
    let digits = |body: &str| openssl_hmac_sha256(SECRET.as_bytes(), body.as_bytes());
    let prefixed = |body: &str| format!("sha256={}", digits(body));
    let cases = [
        ("github", vec![("X-Gogs-Event", "push".into()), ("X-Gogs-Signature", digits(&gogs))], &gogs),
        ("github", vec![("X-Gitea-Signature", digits(&gogs))], &gogs),
        (
            "github",
            vec![("X-Event-Key", "repo:push".into()), ("X-Hub-Signature", prefixed(&bitbucket))],
            &bitbucket,
        ),
        ("github", vec![("X-Hub-Signature", prefixed(&data_center))], &data_center),
        // One right signature is enough.
        (
            "github",
            vec![("X-Hub-Signature-256", "sha256=0f".into()), ("X-Gogs-Signature", digits(&gogs))],
            &gogs,
        ),
        (
            "gitlab",
            vec![("X-Gitlab-Event", "Push Hook".into()), ("X-Gitlab-Token", SECRET.into())],
            &gitlab[0],
        ),
        (
            "gitlab",
            vec![("X-Gitlab-Event", "Tag Push Hook".into()), ("X-Gitlab-Token", SECRET.into())],
            &gitlab[1],
        ),
    ];
    for (number, (path, headers, body)) in cases.iter().enumerate() {
        let mut headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        headers.push(("Content-Type", "application/json"));
        let answer = client::request(addr, "POST", &format!("/webhooks/{path}"), &headers, body.as_bytes());
        assert_eq!((answer.status, answer.text().trim_end()), (200, "accepted"), "{number}");
        // Two webhooks at once would share a poll.
        daemon.wait_events("poll complete", number + 2, PATIENCE);
        assert_eq!(daemon.events().iter().filter(|event| event["msg"] == ACCEPTED).count(), number + 1);
    }
    let webhooks = webhooks(addr, |_| true);
    assert_eq!(webhooks["last_matched"], webhooks["last_received"]);
    assert_eq!((&webhooks["unmatched"], &webhooks["last_unmatched"]), (&0.into(), &Value::Null));
    stop(daemon);
}

#[test]
fn webhook_with_a_wrong_token_or_signature_is_refused_with_a_reason() {
    let (_farm, mut daemon, addr) = settled(&[]);
    let post = |path: &str, headers: &[(&str, &str)]| -> Response {
        client::request(addr, "POST", path, headers, b"{}")
    };
    let digits = openssl_hmac_sha256(SECRET.as_bytes(), b"{}");
    let signed = format!("sha256={digits}");
    let longer = format!("{SECRET}x");
    let wrong: [(&str, &[(&str, &str)]); 8] = [
        ("/webhooks/gitlab", &[]),
        ("/webhooks/gitlab", &[("X-Gitlab-Token", "")]),
        ("/webhooks/gitlab", &[("X-Gitlab-Token", &SECRET[1..])]),
        ("/webhooks/gitlab", &[("X-Gitlab-Token", &longer)]),
        ("/webhooks/gitlab", &[("X-Hub-Signature-256", &signed)]),
        ("/webhooks/gitlab", &[("X-Gitlab-Token", "x"), ("X-Gitlab-Token", SECRET)]),
        ("/webhooks/github", &[("X-Gitlab-Token", SECRET)]),
        ("/webhooks/github", &[("X-Gogs-Signature", &signed)]),
    ];
    for (path, headers) in wrong {
        let answer = post(path, headers);
        let expected = (401, "webhook signature invalid");
        assert_eq!((answer.status, answer.text().trim_end()), expected, "{path} {headers:?}");
    }
    let warning = daemon.wait_event("webhook signature invalid", PATIENCE);
    assert_eq!((&*warning["reason"], &*warning["level"]), ("the request has no X-Gitlab-Token", "warn"));
    // An event without a repository is signed, and no mistake.
    assert_eq!(post("/webhooks/gitlab", &[("X-Gitlab-Token", SECRET)]).status, 200);
    assert_eq!(post("/webhooks/github", &[("X-Hub-Signature", &signed)]).status, 200);
    let answer = client::get(addr, "/webhooks/gitlab");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    let webhooks = webhooks(addr, |found| !found["last_received"].is_null());
    assert_eq!((&webhooks["unmatched"], &webhooks["last_matched"]), (&0.into(), &Value::Null));
    assert!(!daemon.stderr().contains(SECRET) && !daemon.stderr().contains(&digits));
    stop(daemon);
}

#[test]
fn webhook_for_no_recipe_is_logged_and_on_the_status() {
    let home = GitRepo::program(&["1"]);
    let quiet = Recipe::program("quiet", &format!("{}/.", home.file_url())).tag_pattern(r"^x(\d+)$");
    let (_farm, mut daemon, addr) = settled(&[hooked("hello", &home.file_url()), quiet]);
    let last = home.file_url().trim_end_matches(".git").rsplit('/').next().unwrap().to_owned();
    push(addr, &format!("https://forge.example/somebody/{last}.git"));
    let warning = daemon.wait_event(UNMATCHED, PATIENCE);
    let name = format!("forge.example/somebody/{last}").to_lowercase();
    assert_eq!((&*warning["level"], &*warning["repositories"]), ("warn", &*name));
    assert_eq!((&*warning["reason"], &*warning["nearest"]), ("no recipe has this upstream", "hello"));
    assert_eq!(warning["nearest_upstream"], home.file_url());
    let found = webhooks(addr, |found| found["unmatched"] == 1);
    assert_eq!(found["last_matched"], Value::Null);
    assert_eq!(found["last_unmatched"]["repositories"], serde_json::json!([name]));
    assert_eq!(found["last_unmatched"]["received"], found["last_received"]);
    assert_eq!(found["last_unmatched"]["nearest"], "hello");
    // A ping shows the mistake at once.
    let ping = payloads::github_ping(&Addresses::of("https://forge.example/o/nothing-alike"));
    let answer = client::webhook(addr, "ping", SECRET, ping.as_bytes());
    assert_eq!((answer.status, answer.text().trim_end()), (200, "pong"));
    let warning = daemon.wait_events(UNMATCHED, 2, PATIENCE).remove(1);
    assert!(!warning.contains_key("nearest"), "{warning:?}");
    stop(daemon);
}

#[test]
fn webhook_for_a_recipe_without_the_key_names_it() {
    let http = SmartHttp::new();
    let url = http.serve("lib.git", &GitRepo::program(&["1"]));
    let (_farm, mut daemon, addr) = settled(&[Recipe::program("lib", &url).tag_pattern(r"^x(\d+)$")]);
    push(addr, &url);
    let warning = daemon.wait_event(UNMATCHED, PATIENCE);
    let reason = "no recipe of this upstream has github_webhook = true";
    assert_eq!((&*warning["reason"], &*warning["nearest"]), (reason, "lib"));
    stop(daemon);
}

#[test]
fn webhook_for_a_renamed_repository_polls_it() {
    let http = SmartHttp::new();
    http.serve("new-name.git", &GitRepo::program(&["1"]));
    let target = format!("{}/info/refs?service=git-upload-pack", http.url("new-name.git"));
    http.fault("old.git", Fault::Redirect { to: target });
    let (_farm, mut daemon, addr) = settled(&[hooked("renamed", &http.url("old.git"))]);
    push(addr, &http.url("new-name"));
    assert_eq!(daemon.wait_event(ACCEPTED, PATIENCE)["recipe"], "renamed");
    assert!(daemon.events().iter().all(|event| event["msg"] != UNMATCHED));
    stop(daemon);
}

#[test]
fn webhook_for_a_repository_behind_an_alias_polls_it() {
    let repo = GitRepo::program(&["1"]);
    let farm = Farm::builder().http().with(&hooked("tool", "gh:team/tool")).build();
    fs::create_dir(farm.path("team")).unwrap();
    symlink(repo.git_dir(), farm.path("team/tool")).unwrap();
    let alias = format!("[url \"file://{}/\"]\n\tinsteadOf = gh:\n", farm.home().display());
    fs::write(farm.path("gitconfig"), alias).unwrap();
    let mut command = farm.command(&["--config"]);
    command.arg(farm.config_path()).env("GIT_CONFIG_GLOBAL", farm.path("gitconfig"));
    let mut daemon = Running::spawn(&mut command);
    let addr = daemon.http_addr();
    daemon.wait_event("poll complete", PATIENCE);
    push(addr, "https://github.com/team/tool");
    assert_eq!(daemon.wait_event(ACCEPTED, PATIENCE)["recipe"], "tool");
    daemon.wait_events("poll complete", 2, PATIENCE);
    stop(daemon);
}

#[test]
fn post_to_an_unknown_path_is_logged_once_a_second() {
    let (_farm, mut daemon, addr) = settled(&[]);
    let post = |path: &str| client::request(addr, "POST", path, &[], b"{}").status;
    for (path, status) in [("/webhooks/github/?key=secret", 404), ("/webhook", 404), ("/", 405)] {
        assert_eq!(post(path), status);
    }
    assert_eq!(client::get(addr, "/webhook").status, 404);
    let warning = daemon.wait_event("POST to an unknown path", PATIENCE);
    assert_eq!((&*warning["path"], &*warning["not_logged"]), ("/webhooks/github/", "0"));
    wait_until("another line", PATIENCE, || {
        post("/again");
        daemon.events().iter().filter(|event| event["msg"] == "POST to an unknown path").count() > 1
    });
    let events = daemon.wait_events("POST to an unknown path", 2, PATIENCE);
    assert!(events[1]["not_logged"].parse::<u32>().unwrap() >= 2, "{events:?}");
    assert!(!daemon.stderr().contains("secret"));
    stop(daemon);
}
