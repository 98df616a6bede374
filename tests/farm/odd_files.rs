//! FIFOs, devices, links and gigabytes in the places of files: each ends the start or is a warning,
//! and none blocks the manager or fills its memory.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::recipes::Recipe;
use crate::support::running::Output;
use crate::support::wait::PATIENCE;

/// How long a run may take that a blocking reader would never end.
const SOON: Duration = Duration::from_secs(20);

/// The things put in the place of a file, each with the words of its error.
const KINDS: [(&str, &str); 4] = [
    ("fifo", "is a FIFO, expected a regular file"),
    ("zero", "is a device, expected a regular file"),
    ("sparse", "is larger than "),
    ("socket", "is a socket, expected a regular file"),
];

/// Puts a file of this kind at `path`.
fn put(kind: &str, path: &Path) {
    let _ = fs::remove_file(path);
    match kind {
        "fifo" => mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap(),
        "zero" => symlink("/dev/zero", path).unwrap(),
        "sparse" => File::create(path).unwrap().set_len(5 << 30).unwrap(),
        // The path may be too long for a socket, unlike one relative to its directory.
        "socket" => mknodat(CWD, path, FileType::Socket, Mode::RUSR | Mode::WUSR, 0).unwrap(),
        other => panic!("{other}"),
    }
}

fn run(farm: &Farm, arguments: &[&str]) -> Output {
    farm.start(arguments).wait_exit(SOON)
}

/// A farm with one version of `tool`, published.
fn used() -> (Farm, GitRepo) {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    farm.once().assert_success();
    (farm, repo)
}

#[test]
fn operators_file_of_another_kind_ends_the_start() {
    let hooked = Recipe::manual("tool").watch("github_webhook = true");
    for (kind, reason) in KINDS {
        for (name, code) in
            [("config.toml", 1), ("farm.key", 1), ("webhook-secret", 1), ("recipes/tool/peipkg.toml", 1)]
        {
            let farm = Farm::builder().with(&hooked).http().build();
            put(kind, &farm.path(name));
            let output = run(&farm, &[]);
            output.assert_code(code);
            let last = output.stderr.lines().last().unwrap_or_default();
            assert!(last.contains(name) && last.contains(reason), "{kind}: {output}");
            let check = run(&farm, &["--check"]);
            check.assert_code(code);
            assert!(check.stdout.contains(name) && check.stdout.contains(reason), "{kind}: {check}");
        }
    }
}

#[test]
fn secret_or_key_with_an_unfit_byte_is_refused() {
    let pem = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
    let hooked = Recipe::manual("tool").watch("github_webhook = true");
    let keys = "[[signing_key]]\nname = \"tcb\"\nprivate = \"{home}/tcb\"\npubkey_env = \"TCB\"\n";
    let farm = Farm::builder().with(&hooked).http().config_extra(keys).build();
    for (name, good) in [("webhook-secret", "s3cret\r\n"), ("farm.key", pem), ("tcb", pem)] {
        fs::write(farm.path("tcb"), pem).unwrap();
        let good_bytes = fs::read(farm.path(name)).unwrap();
        for (bytes, reason) in [
            (format!("\u{feff}{good}").into_bytes(), "byte 1 (0xef) begins a byte order mark"),
            (good.encode_utf16().flat_map(u16::to_le_bytes).collect(), ""),
            ([b"\xff\xfe", good.as_bytes()].concat(), "byte 1 (0xff) begins a byte order mark"),
            (format!("\0{good}").into_bytes(), "byte 1 (0x00) is NUL"),
            (good.replacen('3', "\x1b", 1).into_bytes(), "(0x1b) is of a control character"),
        ] {
            fs::write(farm.path(name), bytes).unwrap();
            let output = run(&farm, &[]);
            output.assert_code(1);
            let last = output.stderr.lines().last().unwrap_or_default();
            assert!(last.contains(name) && last.contains(reason), "{name} {reason}: {output}");
            let check = run(&farm, &["--check"]);
            assert!(check.stdout.contains(reason) && check.status.code() == Some(1), "{name}: {check}");
        }
        fs::write(farm.path(name), good).unwrap();
        run(&farm, &["--check"]).assert_success();
        fs::write(farm.path(name), good_bytes).unwrap();
    }
}

#[test]
fn recipe_of_another_kind_is_refused_at_the_reload() {
    let farm = Farm::builder().with(&Recipe::manual("tool")).with(&Recipe::manual("other")).build();
    let mut daemon = farm.daemon();
    daemon.wait_event("recipe roster loaded", PATIENCE);
    for (count, (kind, reason)) in (1..).zip(KINDS) {
        put(kind, &farm.recipes_dir().join("tool/peipkg.toml"));
        daemon.signal(Signal::HUP);
        let refused =
            daemon.wait_events("reload refused, the current recipes stay", count, SOON).remove(count - 1);
        assert!(refused["problem"].contains(reason), "{refused:?}");
    }
    // Entries of `recipes_dir` that are no directories are no recipes.
    farm.remove_recipe("tool");
    for (name, target) in [("fifo", ""), ("zero", "/dev/zero"), ("lost", "/not/there"), ("self", "self")] {
        match target {
            "" => put("fifo", &farm.recipes_dir().join(name)),
            target => symlink(target, farm.recipes_dir().join(name)).unwrap(),
        }
    }
    fs::remove_file(farm.recipes_dir().join("self")).unwrap();
    daemon.signal(Signal::HUP);
    let loaded = daemon.wait_events("recipe roster loaded", 2, SOON).remove(1);
    assert_eq!(loaded["count"], "1");
    daemon.signal(Signal::TERM);
    daemon.wait_exit(SOON).assert_success();
}

#[test]
fn control_file_of_another_kind_ends_the_start() {
    for (kind, reason) in KINDS {
        let (farm, _repo) = used();
        let journal = farm.path("state/journal");
        put(kind, &journal);
        // Gigabytes that are no journal are a damaged journal beside a whole repository.
        if kind == "sparse" {
            run(&farm, &["--once"]).assert_code(1);
        } else {
            run(&farm, &["--once"]).assert_code(1).assert_one_line(&["state/journal: ", reason]);
        }
        fs::remove_file(&journal).unwrap();
        for lock in ["state/lock", "state/tool-lock"] {
            if kind == "sparse" {
                continue;
            }
            let path = farm.path(lock);
            put(kind, &path);
            let output = run(&farm, &["--once"]);
            // The daemon needs the lock of the tool only for a publish.
            if lock == "state/lock" {
                output.assert_code(1).assert_one_line(&[lock, "is not a regular file, remove it"]);
                let check = run(&farm, &["--check"]);
                assert!(check.stdout.contains("is not a regular file"), "{check}");
            } else {
                output.assert_success();
            }
            fs::remove_file(&path).unwrap();
        }
        farm.once().assert_success();
    }
}

#[test]
fn tool_lock_of_another_kind_fails_the_publish() {
    for kind in ["fifo", "zero", "socket"] {
        let (farm, repo) = used();
        repo.add_versions(&["1.1"]);
        put(kind, &farm.path("state/tool-lock"));
        let output = run(&farm, &["--once"]);
        output.assert_success();
        let failed = output.event("publish failed");
        assert!(failed["error"].contains("tool-lock"), "{output}");
        fs::remove_file(farm.path("state/tool-lock")).unwrap();
        farm.once_without_builds(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
    }
}

#[test]
fn pending_file_of_another_kind_is_a_warning() {
    for (kind, reason) in KINDS {
        let (farm, repo) = used();
        let entry = farm.path("state/publish/tool@9-1.1-1");
        fs::create_dir_all(entry.join("packages")).unwrap();
        put(kind, &entry.join("job.json"));
        // An entry that is no directory.
        put("fifo", &farm.path("state/publish/tool@8-1.1-1"));
        repo.add_versions(&["1.1"]);
        let output = run(&farm, &["--once"]);
        output.assert_success();
        let warned = output.events("cannot read pending packages, leaving them alone");
        assert!(warned.iter().any(|event| event["error"].contains(reason)), "{output}");
        farm.assert_published(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
    }
}

#[test]
fn repository_file_of_another_kind_delays_the_publish() {
    for (kind, _) in KINDS {
        for name in ["index/archive.json", "index/active.json", "repo.json", "index/archive.json.sig"] {
            let (farm, repo) = used();
            repo.add_versions(&["1.1"]);
            let (path, aside) = (farm.repo_dir().join(name), farm.path("aside"));
            fs::rename(&path, &aside).unwrap();
            put(kind, &path);
            let output = farm.start(&["--once"]).wait_exit(Duration::from_secs(40));
            assert!(output.status.code().is_some(), "{kind} {name}: {output}");
            assert!(output.events("build + publish complete").is_empty(), "{kind} {name}: {output}");
            fs::rename(&aside, &path).unwrap();
            farm.once().assert_success();
            farm.assert_published(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
            farm.assert_verifies();
        }
    }
}

#[test]
fn work_file_left_by_a_build_as_a_link_or_fifo_is_replaced() {
    let repo = GitRepo::program(&["1.0"]);
    // `DESTDIR` is stage/<job>/tmp/<scratch>/staged.
    for plant in ["mkfifo", "ln -s \"$VICTIM\""] {
        let victim = tempfile::NamedTempFile::new().unwrap();
        fs::write(victim.path(), "precious").unwrap();
        let script = format!("VICTIM={}\n{plant} \"$DESTDIR/../../../job.json\"", victim.path().display());
        let farm =
            Farm::builder().with(&Recipe::program("tool", &repo.file_url()).before_build(&script)).build();
        run(&farm, &["--once"]).assert_success();
        farm.assert_published(&["tool 1.0-1 noarch"]);
        assert_eq!(fs::read_to_string(victim.path()).unwrap(), "precious");
    }
}
