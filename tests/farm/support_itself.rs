//! Tests of the support that the other tests rely on.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use peipkg_format::signing_key::PrivateKey;
use rustix::process::Signal;

use crate::support::client::{Connection, exchange, openssl_hmac_sha256};
use crate::support::executable;
use crate::support::farm::{Farm, SEED};
use crate::support::git_repo::{GitRepo, git_command, run};
use crate::support::logfmt::{self, parse_line};
use crate::support::processes;
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::smart_http::{ADVERTISEMENT, Fault, Request, SmartHttp};
use crate::support::tools::Tools;
use crate::support::wait::{PATIENCE, wait_until};

/// The names that `git ls-remote --tags` finds at `url`.
fn tags(url: &str) -> Vec<String> {
    let listing = run(git_command(Path::new("/")).args(["ls-remote", "--tags", "--", url]));
    let name = |line: &str| line.split_once("refs/tags/").expect("a tag").1.to_owned();
    listing.lines().map(name).collect()
}

fn scratch() -> tempfile::TempDir {
    tempfile::TempDir::with_prefix("scratch-").expect("a temporary directory")
}

#[test]
fn commits_are_the_same_each_time_and_carry_the_committer_date() {
    let make = || {
        let repo = GitRepo::program(&["1.0", "1.1"]);
        repo.symlink("link", "/etc/passwd");
        repo.write_executable("tool", b"#!/bin/sh\n");
        let head = repo.commit(&[("a/b", "c")], "2026-03-04T05:06:07Z");
        (repo, head)
    };
    let ((repo, first), (_other, second)) = (make(), make());
    assert_eq!(first, second);
    assert_eq!(repo.git(&["log", "-1", "--format=%ct"]), "1772600767");
    assert_eq!(repo.git(&["log", "-1", "--format=%at"]), "981173106");
    let modes = repo.git(&["ls-tree", "HEAD", "link", "tool"]);
    assert!(modes.contains("120000 blob") && modes.contains("100755 blob"), "{modes}");
}

#[test]
fn executable_just_written_can_be_started_while_others_start() {
    let home = scratch();
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            let path = home.path().join(name);
            scope.spawn(move || {
                for _ in 0..50 {
                    executable::write(&path, b"#!/bin/sh\necho ran\n");
                    assert_eq!(run(&mut Command::new(&path)), "ran");
                }
            });
        }
    });
}

#[test]
fn tags_of_all_kinds_are_listed_over_protocol_2() {
    let repo = GitRepo::new();
    repo.commit(&[("a", "1")], "2026-01-01T00:00:00Z");
    repo.tag_light("light");
    repo.tag_light("--help");
    repo.tag_annotated("annotated", "2026-01-02T00:00:00Z");
    repo.tag_many((0..1000).map(|number| format!("v0.{number}")));
    let http = SmartHttp::new();
    let url = http.serve("lib.git", &repo);
    for url in [&url, &repo.file_url()] {
        let tags = tags(url);
        assert_eq!(tags.len(), 1004, "{tags:?}");
        for name in ["light", "--help", "annotated", "annotated^{}", "v0.999"] {
            assert!(tags.iter().any(|tag| tag == name), "{name}");
        }
    }
    let requests = http.requests();
    let seen: Vec<_> =
        requests.iter().map(|request| (request.method.as_str(), request.path.as_str())).collect();
    assert_eq!(seen, [("GET", "/lib.git/info/refs"), ("POST", "/lib.git/git-upload-pack")]);
    assert!(requests.iter().all(|request| request.git_protocol() == Some("version=2")));
    assert_eq!(requests[0].query, "service=git-upload-pack");
    assert_eq!(http.connections(), 1, "the two requests used several connections");
}

#[test]
fn empty_and_sha256_repositories_are_served() {
    let http = SmartHttp::new();
    assert!(tags(&http.serve("empty.git", &GitRepo::new())).is_empty());
    let repo = GitRepo::sha256();
    assert_eq!(repo.commit(&[], "2026-01-01T00:00:00Z").len(), 64);
    repo.tag_light("v1");
    assert_eq!(tags(&http.serve("sha256.git", &repo)), ["v1"]);
}

#[test]
fn shallow_clone_with_submodules_works_over_http() {
    let siblings = scratch();
    let lib = GitRepo::in_dir(siblings.path(), "lib.git");
    let commit = lib.commit(&[("lib.c", "int x;\n")], "2026-01-01T00:00:00Z");
    let app = GitRepo::in_dir(siblings.path(), "app.git");
    let http = SmartHttp::new();
    let absolute = http.serve("lib.git", &lib);
    app.add_submodule("relative", "../lib.git", &commit);
    app.add_submodule("deps/absolute", &absolute, &commit);
    app.commit(&[("main.c", "int main(void) { return 0; }\n")], "2026-01-02T00:00:00Z");
    app.commit(&[("main.c", "int main(void) { return 1; }\n")], "2026-01-03T00:00:00Z");
    let url = http.serve("app.git", &app);
    let target = scratch();
    let mut clone = git_command(target.path());
    run(clone.args([
        "clone",
        "--quiet",
        "--depth=1",
        "--recurse-submodules",
        "--shallow-submodules",
        &url,
        "app",
    ]));
    for path in ["relative/lib.c", "deps/absolute/lib.c", "main.c"] {
        assert!(target.path().join("app").join(path).is_file(), "{path}");
    }
    assert_eq!(run(git_command(&target.path().join("app")).args(["rev-list", "--count", "HEAD"])), "1");
}

#[test]
fn branch_may_have_a_tags_name() {
    let repo = GitRepo::new();
    let tagged = repo.commit(&[("a", "tag")], "2026-01-01T00:00:00Z");
    repo.tag_light("v1");
    let later = repo.commit(&[("a", "branch")], "2026-01-02T00:00:00Z");
    repo.branch("v1");
    assert_eq!(repo.git(&["rev-parse", "refs/tags/v1"]), tagged);
    assert_eq!(repo.git(&["rev-parse", "refs/heads/v1"]), later);
}

#[test]
fn password_can_be_required() {
    let http = SmartHttp::new();
    let url = http.serve("a.git", &GitRepo::program(&["1"]));
    http.require_auth("user", "pass");
    let refused = git_command(Path::new("/")).args(["ls-remote", &url]).output().unwrap();
    assert!(!refused.status.success());
    assert_eq!(tags(&url.replace("//", "//user:pass@")), ["v1"]);
}

#[test]
fn faults_happen_where_and_as_often_as_requested() {
    let http = SmartHttp::new();
    let (bad, good) = (GitRepo::program(&["1"]), GitRepo::program(&["2"]));
    http.serve("bad.git", &bad);
    let good = http.serve("good.git", &good);
    let ask = |limit| {
        let request = "GET /bad.git/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: x\r\n\r\n";
        exchange(http.addr(), request.as_bytes(), limit)
    };
    http.fault_times("bad.git", Fault::Status { code: 503, retry_after: Some("7".to_owned()) }, 1);
    let answer = ask(PATIENCE).unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("7")));
    assert_eq!(ask(PATIENCE).unwrap().header("content-type"), Some(ADVERTISEMENT));
    http.fault("bad.git", Fault::Page);
    assert!(ask(PATIENCE).unwrap().text().contains("<!DOCTYPE html>"));
    http.fault("bad.git", Fault::Redirect { to: "/good.git/info/refs".to_owned() });
    assert_eq!(ask(PATIENCE).unwrap().header("location"), Some("/good.git/info/refs"));
    let wait = Duration::from_millis(100);
    for fault in [
        Fault::Silent,
        Fault::Trickle { every: wait },
        Fault::CloseAfter { bytes: 300 },
        Fault::Endless { content_type: ADVERTISEMENT.to_owned(), block: b"0000".repeat(1000) },
    ] {
        http.fault("bad.git", fault.clone());
        let limit = if matches!(fault, Fault::Silent | Fault::Trickle { .. }) { wait } else { PATIENCE };
        if matches!(fault, Fault::Endless { .. }) {
            let mut connection = Connection::open(http.addr(), limit).unwrap();
            connection.send(b"GET /bad.git/ HTTP/1.1\r\n\r\n").unwrap();
        } else {
            assert!(ask(limit).is_err(), "{fault:?}");
        }
    }
    assert_eq!(tags(&good), ["v2"], "the fault affects another repository");
    wait_until("the connections are closed", PATIENCE, || http.open_connections() == 0);
    http.clear_faults();
    assert_eq!(ask(PATIENCE).unwrap().status, 200);
}

#[test]
fn chunked_requests_are_understood() {
    let http = SmartHttp::new();
    http.serve("a.git", &GitRepo::program(&["1"]));
    let head = "POST /a.git/git-upload-pack HTTP/1.1\r\nGit-Protocol: version=2\r\nTransfer-Encoding: chunked\r\n\
                Content-Type: application/x-git-upload-pack-request\r\n\r\n";
    let body = "14\r\n0014command=ls-refs\n\r\n4\r\n0000\r\n0\r\n\r\n";
    let mut connection = Connection::open(http.addr(), PATIENCE).unwrap();
    for _ in 0..2 {
        connection.send(format!("{head}{body}").as_bytes()).unwrap();
        assert!(connection.receive(false).unwrap().text().contains("refs/tags/v1"));
    }
}

#[test]
fn compressed_requests_are_understood() {
    let repo = GitRepo::new();
    for number in 0..40 {
        repo.commit(&[("a", &number.to_string())], "2026-01-01T00:00:00Z");
        repo.tag_light(&format!("v{number}"));
    }
    let http = SmartHttp::new();
    let url = http.serve("a.git", &repo);
    let target = GitRepo::new();
    // git compresses a request with forty wants.
    target.git(&["fetch", "--quiet", "--depth=1", &url, "refs/tags/*:refs/tags/*"]);
    assert_eq!(target.git(&["tag"]).lines().count(), 40);
    let compressed = |request: &Request| request.header("content-encoding") == Some("gzip");
    assert!(http.requests().iter().any(compressed), "{:#?}", http.requests());
}

#[test]
fn tools_are_found_and_can_be_hidden() {
    let tools = Tools::get();
    let shown = |path: &OsStr, name: &str| {
        std::env::split_paths(path).any(|directory| directory.join(name).is_file())
    };
    for name in ["peipkg-manager", "peipkg-build", "peipkg-repo", "git", "sh"] {
        assert!(shown(&tools.path(), name), "{name}");
    }
    let path = tools.path_without(&["git", "peipkg-repo"]);
    let path = path.path().as_os_str();
    assert!(!shown(path, "git") && !shown(path, "peipkg-repo"));
    assert!(shown(path, "peipkg-build") && shown(path, "sh"));
}

#[test]
fn log_lines_are_read_strictly() {
    #[track_caller]
    fn check(rest: &str, expected: Option<&[(&str, &str)]>) {
        let line = format!("time=2026-05-07T14:32:11.123Z level=info msg={rest}");
        let found = parse_line(&line).ok().map(|mut event| {
            event.remove("time");
            event.remove("level");
            event
        });
        let pairs = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect::<logfmt::Event>()
        };
        assert_eq!(found, expected.map(pairs), "{line}");
    }
    check("x", Some(&[("msg", "x")]));
    check(
        r#""poll complete" recipe=libz n=41"#,
        Some(&[("msg", "poll complete"), ("recipe", "libz"), ("n", "41")]),
    );
    check(r#""" a="" b="=" "#.trim_end(), Some(&[("msg", ""), ("a", ""), ("b", "=")]));
    check(r#""a\"b\\c\nd\re\tf""#, Some(&[("msg", "a\"b\\c\nd\re\tf")]));
    check(r#""\x1b[0m\u0085\u{1f600}é""#, Some(&[("msg", "\u{1b}[0m\u{85}\u{1f600}é")]));
    for bad in [
        "",
        "x ",
        "x  a=b",
        "x a",
        "x a=",
        "x =b",
        "x A=b",
        "x a=b=c",
        "x a=b a=c",
        "x msg=y",
        "x a=\"b",
        "x a=\"b\"c",
        "x a=\"\\q\"",
        "x a=\"\\x9\"",
        "x a=\"\\xff\"",
        "x a=\"\\ud800\"",
        "x a=\"\u{1b}\"",
        "x a=b\u{1b}",
        "x a=b\"",
        "x a=\\n",
        "\"a\"\"b\"",
        "x a=\"\\u{}\"",
    ] {
        check(bad, None);
    }
    for bad in [
        "level=info time=2026-05-07T14:32:11.123Z msg=x",
        "time=2026-05-07T14:32:11Z level=info msg=x",
        "time=2026-05-07T14:32:11.123Z level=INFO msg=x",
        "time=2026-05-07T14:32:11.123Z msg=x level=info",
        "time=2026-05-07T14:32:11.123Z level=info",
        "",
    ] {
        assert!(parse_line(bad).is_err(), "{bad}");
    }
}

/// A shell script in place of the manager, which logs a line for each of `events`.
fn stand_in(script: &str) -> Running {
    let log = "log() { echo \"time=2026-05-07T14:32:11.123Z level=info msg=\\\"$1\\\"${2:+ $2}\" >&2; }\n";
    Running::spawn(Command::new("sh").arg("-c").arg(format!("{log}{script}")))
}

#[test]
fn running_process_is_watched_and_signalled() {
    let mut running = stand_in(
        "trap 'log stopping signal=term; exit 3' TERM\n\
         echo out\nlog 'webhook server listening' addr=127.0.0.1:8080\n\
         while :; do sleep 0.01; done",
    );
    assert_eq!(running.http_addr(), "127.0.0.1:8080".parse().unwrap());
    running.signal(Signal::TERM);
    let output = running.wait_exit(PATIENCE);
    output.assert_code(3).assert_only_events();
    assert_eq!(output.event("stopping")["signal"], "term");
    assert_eq!(output.stdout, "out\n");
    let text = output.to_string();
    assert!(text.contains("exit status: 3") && text.contains("sh -c"), "{text}");
}

#[test]
fn running_dropped_ends_its_children() {
    // The child has a process group of its own, as the manager's children have.
    let mut running = stand_in("setsid sleep 600 & log started pid=$!\nwait");
    let pid: i32 = running.wait_event("started", PATIENCE)["pid"].parse().unwrap();
    wait_until("the child has a group of its own", PATIENCE, || {
        running.descendants().iter().any(|process| process.pid == pid && process.group == pid)
    });
    let parent = running.pid();
    drop(running);
    wait_until("parent and child have ended", PATIENCE, || {
        !processes::is_alive(pid) && !processes::is_alive(parent)
    });
}

#[test]
#[should_panic(expected = "ended before the condition was met")]
fn waiting_for_an_ended_process_fails_at_once() {
    stand_in("log done").wait_event("never", PATIENCE);
}

#[test]
fn farm_built_has_its_files() {
    let farm = Farm::builder()
        .with(&Recipe::program("tool", "file:///nowhere").with_doc().upstream("peios_revision = 2"))
        .http()
        .config_extra("[build]\ntimeout = \"5s\"")
        .build();
    assert_eq!(fs::read(farm.key_path()).unwrap(), SEED);
    let config: toml::Table = fs::read_to_string(farm.config_path()).unwrap().parse().unwrap();
    assert_eq!(config["manager"]["state_dir"].as_str(), farm.state_dir().to_str());
    assert_eq!(config["http"]["addr"].as_str(), Some("127.0.0.1:0"));
    assert_eq!(config["build"]["timeout"].as_str(), Some("5s"));
    let recipe = fs::read_to_string(farm.path("recipes/tool/peipkg.toml")).unwrap();
    let recipe: toml::Table = recipe.parse().unwrap();
    assert_eq!(recipe["package"].as_array().unwrap().len(), 2);
    assert_eq!(recipe["package"][1]["dependencies"][0]["same_build"].as_bool(), Some(true));
    assert_eq!(recipe["upstream"]["peios_revision"].as_integer(), Some(2));
    assert!(farm.published().is_empty());
    farm.assert_clean();
}

#[test]
fn stand_in_hides_a_program_and_can_call_it() {
    let farm = Farm::builder().program("git", "#!/bin/sh\necho in front\nexec {real} \"$@\"\n").build();
    let output =
        Running::spawn(Command::new("git").arg("--version").env("PATH", farm.bin_dir())).wait_exit(PATIENCE);
    assert!(output.assert_success().stdout.starts_with("in front\ngit version "), "{output}");
}

#[test]
fn pem_key_is_the_raw_key() {
    let farm = Farm::builder().pem_key().build();
    let pem = fs::read(farm.key_path()).unwrap();
    let key = peipkg_format::signing_key::parse(&pem).unwrap();
    let PrivateKey::Pkcs8(document) = key else { panic!("the key is a raw one") };
    assert!(document.ends_with(&SEED));
}

#[test]
fn openssl_computes_the_documented_signature() {
    // The example of GitHub's page on validating webhook deliveries.
    let digest = openssl_hmac_sha256(b"It's a Secret to Everybody", b"Hello, World!");
    assert_eq!(digest, "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
}
