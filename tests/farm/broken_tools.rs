//! Tools that misbehave: the manager bounds their output, verifies their results, and delays only
//! the version whose tool failed.

use std::fs;

use rustix::process::Signal;

use crate::support::farm::{Farm, published_in};
use crate::support::git_repo::GitRepo;
use crate::support::latch::Latch;
use crate::support::optional::require;
use crate::support::processes::status_number;
use crate::support::recipes::Recipe;
use crate::support::wait::PATIENCE;

/// Limit of the manager's peak memory, in KiB: far above its need, far below the size of the tool's
/// output.
const MEMORY: u64 = 64 * 1024;

/// Starts a process that leaves its group, keeps all inherited files open, and lives as long as the
/// farm's directory. A shell closes the standard input of background processes, so pass it on under
/// another number.
const STRAY: &str = "exec 9<&0\nsetsid sh -c 'while [ -d \"$HOME/bin\" ]; do sleep 0.1; done' &\nexec 9<&-\n";

/// A `peipkg-repo` whose `publish` runs `script`; in the script, `publish` runs the real one, and
/// `$repo` is the repository.
fn publishing(script: &str) -> String {
    format!(
        "#!/bin/sh\n[ \"$1\" = publish ] || exec {{real}} \"$@\"\n\
         publish() {{ {{real}} \"$@\"; }}\nrepo=$HOME/state/repo\n{script}\n"
    )
}

#[test]
fn publish_fails_after_it_was_done_counts_with_a_warning() {
    for (end, told) in [
        ("echo too late >&2; exit 1", "peipkg-repo publish exited with status 1: too late"),
        ("echo too late >&2; kill -9 $$", "peipkg-repo publish was ended by signal 9: too late"),
    ] {
        let repo = GitRepo::program(&["1.0"]);
        let farm = Farm::builder()
            .with(&Recipe::program("tool", &repo.file_url()))
            .program("peipkg-repo", &publishing(&format!("publish \"$@\"; {end}")))
            .build();
        let output = farm.once();
        output.assert_success().assert_only_events();
        assert_eq!(output.event("build + publish complete")["version"], "1.0-1");
        let warned = output.event("publish stands, although the tool failed");
        assert_eq!((warned["level"].as_str(), warned["error"].as_str()), ("warn", told), "{output}");
        assert!(warned["directory"].starts_with("tool@1.0-1"), "{output}");
        farm.once_without_builds(&["tool 1.0-1 noarch"]);
    }
}

#[test]
fn publish_found_done_at_the_next_start_is_not_repeated() {
    let repo = GitRepo::program(&["1.0"]);
    // The tool is gone, so nothing can verify the repository.
    let farm = Farm::builder()
        .with(&Recipe::program("tool", &repo.file_url()))
        .program("peipkg-repo", &publishing("publish \"$@\"; rm \"$0\"; exit 1"))
        .build();
    let remote = farm.path("remote");
    let output = farm.once();
    output.assert_success();
    let error = &output.event("publish failed")["error"];
    assert!(error.contains("cannot start peipkg-repo verify"), "{output}");
    fs::write(
        farm.config_path(),
        fs::read_to_string(farm.config_path()).unwrap()
            + &format!("\n[upload]\nbackend = \"rclone\"\nremote = \"{}\"\n", remote.display()),
    )
    .unwrap();
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert_eq!(output.event("pending packages are already published, removing them")["version"], "1.0-1");
    assert!(
        output.events("starting build").is_empty() && output.events("publish failed").is_empty(),
        "{output}"
    );
    assert!(remote.join("p/tool/1.0-1/tool_1.0-1_noarch.peipkg").exists(), "{output}");
    farm.assert_clean();
}

#[test]
fn publish_succeeds_without_publishing_does_not_count() {
    let repo = GitRepo::program(&["1.0"]);
    let package = "p/tool/1.0-1/tool_1.0-1_noarch.peipkg";
    for (script, missing) in [
        ("exit 0", "is not in the archive index"),
        // An empty copy, and one with another byte.
        (&format!("publish \"$@\"; : >\"$repo/{package}\""), "is not the file that was built"),
        (
            &format!("publish \"$@\"; printf x | dd of=\"$repo/{package}\" conv=notrunc 2>&1"),
            "is not the file that was built",
        ),
        (&format!("publish \"$@\"; rm \"$repo/{package}\""), "is not the file that was built"),
        // An index that names only one of the two packages.
        (
            "publish \"$@\"; sed -i 's/\"tool-doc\"/\"other\"/' \"$repo/index/archive.json\"",
            "tool-doc_1.0-1_noarch.peipkg is not in the archive index",
        ),
        ("publish \"$@\"; echo '{' >\"$repo/index/archive.json\"", "index/archive.json: "),
    ] {
        let farm = Farm::builder()
            .with(&Recipe::program("tool", &repo.file_url()).with_doc())
            .program("peipkg-repo", &publishing(script))
            .build();
        let output = farm.once();
        output.assert_success().assert_only_events();
        let failed = output.event("publish failed");
        let expected = "peipkg-repo publish exited with status 0, but ";
        assert!(failed["error"].starts_with(expected) && failed["error"].contains(missing), "{output}");
        assert!(output.events("build + publish complete").is_empty(), "{output}");
        farm.assert_published(&[]);
        farm.assert_verifies();
        assert_eq!(farm.kept().len(), 1, "{output}");

        fs::remove_file(farm.bin_dir().join("peipkg-repo")).unwrap();
        farm.once_without_builds(&["tool 1.0-1 noarch", "tool-doc 1.0-1 noarch"]);
    }
}

#[test]
fn publish_of_something_else_is_undone() {
    let repo = GitRepo::program(&["1.0"]);
    let other = Farm::builder().with(&Recipe::program("other", &repo.file_url())).build();
    other.once().assert_success();
    let script = format!(
        "publish $(echo \"$@\" | sed 's|--new [^ ]*|--new {}/p/other/1.0-1|')",
        other.repo_dir().display()
    );
    let tool = Recipe::program("tool", &repo.file_url());
    let farm = Farm::builder().with(&tool).program("peipkg-repo", &publishing(&script)).build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert!(output.event("publish failed")["error"].contains("is not in the archive index"), "{output}");
    farm.assert_published(&[]);
    farm.assert_verifies();
}

#[test]
fn tool_killed_fails_its_task() {
    let repo = GitRepo::program(&["1.0"]);
    let url = repo.file_url();
    let dies = "#!/bin/sh\ncase \"$*\" in *recipes/crash/*) kill -SEGV $$ ;; esac\nexec {real} \"$@\"\n";
    let farm = Farm::builder()
        .with(&Recipe::program("crash", &url))
        .with(&Recipe::program("halt", &url))
        .with(&Recipe::program("tool", &url))
        .program("peipkg-build", dies)
        .program(
            "peipkg-repo",
            &publishing("case \"$*\" in *publish/halt@*) kill -9 $$ ;; esac\npublish \"$@\""),
        )
        .build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    let failed = output.event("build failed");
    let expected = ("crash", "peipkg-build build was ended by signal 11: (no output)");
    assert_eq!((failed["recipe"].as_str(), failed["error"].as_str()), expected);
    let failed = output.event("publish failed");
    let expected = ("halt", "peipkg-repo publish was ended by signal 9: (no output)");
    assert_eq!((failed["recipe"].as_str(), failed["error"].as_str()), expected);
    farm.assert_published(&["tool 1.0-1 noarch"]);
    farm.assert_verifies();
    assert!(matches!(farm.kept().as_slice(), [name] if name.starts_with("halt@1.0-1")));
}

#[test]
fn tool_writes_300_megabytes_costs_no_memory() {
    let repo = GitRepo::program(&["1.0"]);
    let url = repo.file_url();
    let build = "#!/bin/sh
case \"$*\" in
*recipes/loud/*) yes 'all work and no play' | head -n 15000000 >&2; exit 1 ;;
*recipes/long/*) head -c 100000000 /dev/zero | tr '\\0' x >&2; exit 1 ;;
*recipes/tool/*) yes 'all work and no play' | head -c 100000000 ;;
esac
exec {real} \"$@\"
";
    let farm = Farm::builder()
        .with(&Recipe::program("loud", &url))
        .with(&Recipe::program("long", &url))
        .with(&Recipe::program("tool", &url))
        .program("peipkg-build", build)
        .build();
    let mut daemon = farm.daemon();
    daemon.wait_event("build + publish complete", PATIENCE);
    let failed = daemon.wait_events("build failed", 2, PATIENCE);
    let peak = status_number(daemon.pid(), "VmHWM");
    assert!(peak < MEMORY, "{peak} KiB");
    for (recipe, expected) in [("loud", "all work"), ("long", "xxxxx")] {
        let event = failed.iter().find(|event| event["recipe"] == recipe).expect("its failure");
        assert!(event["error"].contains(expected) && event["error"].len() < 1100, "{event:?}");
    }
    farm.assert_published(&["tool 1.0-1 noarch"]);
}

#[test]
fn git_lists_without_end_costs_only_its_upstream() {
    let repo = GitRepo::program(&["1.0"]);
    let lists =
        "#!/bin/sh\ncase \"$*\" in *ls-remote*endless*) yes 'a refs/tags/v1' ;; esac\nexec {real} \"$@\"\n";
    let farm = Farm::builder()
        .with(&Recipe::program("endless", "file:///srv/endless.git"))
        .with(&Recipe::program("tool", &repo.file_url()))
        .program("git", lists)
        .build();
    let mut daemon = farm.daemon();
    daemon.wait_event("build + publish complete", PATIENCE);
    let failed = daemon.wait_event("poll failed", PATIENCE);
    assert_eq!(failed["error"], "git ls-remote wrote more than 37748736 bytes to its standard output");
    let peak = status_number(daemon.pid(), "VmHWM");
    assert!(peak < MEMORY + 16 * 1024, "{peak} KiB");
}

#[test]
fn tool_leaves_a_process_running_delays_nothing() {
    if !require("setsid") || !require("rclone") {
        return;
    }
    let repo = GitRepo::program(&["1.0", "1.1"]);
    let leaves = format!("#!/bin/sh\n{STRAY}{{real}} \"$@\"\n");
    let remote = tempfile::tempdir().unwrap();
    let farm = Farm::builder()
        .with(&Recipe::program("tool", &repo.file_url()))
        .with(&Recipe::program("app", &repo.file_url()).before_build("sleep 1000 &\n"))
        .program("peipkg-build", &leaves)
        .program("peipkg-repo", &leaves)
        .program("rclone", &leaves)
        .rclone(remote.path())
        .build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert!(output.events("waiting for a tool of an earlier manager to end").is_empty(), "{output}");
    assert!(!output.events("upload complete").is_empty(), "{output}");
    let all = ["app 1.0-1 noarch", "app 1.1-1 noarch", "tool 1.0-1 noarch", "tool 1.1-1 noarch"];
    farm.assert_published(&all);
    farm.assert_clean();
    farm.assert_verifies();
}

#[test]
fn publish_outlives_its_manager_delays_the_next_start() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    let latch = Latch::new();
    let script = format!("echo run >>\"$HOME/runs\"\n{}publish \"$@\"", latch.script());
    farm.write_program("peipkg-repo", &publishing(&script));
    let first = farm.start(&["--once"]);
    latch.wait_reached();
    first.kill(false);
    // SIGTERM ends a manager that waits for the tool of an earlier one.
    let mut second = farm.daemon();
    let waits = "waiting for a tool of an earlier manager to end";
    let event = second.wait_event(waits, PATIENCE);
    assert_eq!(event["lock"], farm.path("state/tool-lock").display().to_string());
    assert!(event["holder"].starts_with("process "), "{event:?}");
    second.signal(Signal::TERM);
    second.wait_exit(PATIENCE / 2).assert_code(0).assert_only_events();
    let mut third = farm.daemon();
    third.wait_event(waits, PATIENCE);
    latch.open();
    let event = third.wait_event("pending packages are already published, removing them", PATIENCE);
    assert_eq!(event["version"], "1.0-1");
    third.wait_event("poll complete", PATIENCE);
    assert_eq!(fs::read_to_string(farm.path("runs")).unwrap(), "run\n", "it was published a second time");
    farm.assert_published(&["tool 1.0-1 noarch"]);
    farm.assert_clean();
    farm.assert_verifies();
}

#[test]
fn upload_outlives_its_manager_delays_the_next_start() {
    if !require("rclone") {
        return;
    }
    let repo = GitRepo::program(&["1.0"]);
    let remote = tempfile::tempdir().unwrap();
    let copy = remote.path().join("copy");
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).rclone(&copy).build();
    // Each rclone logs its begin and its end.
    let (latch, log) = (Latch::new(), "\"$HOME/runs\"");
    let script =
        format!("#!/bin/sh\necho begin >>{log}\n{}{{real}} \"$@\"\necho end >>{log}\n", latch.script());
    farm.write_program("rclone", &script);
    let first = farm.start(&["--once"]);
    latch.wait_reached();
    first.kill(false);
    let mut second = farm.daemon();
    let event = second.wait_event("waiting for a tool of an earlier manager to end", PATIENCE);
    assert_eq!(event["lock"], farm.path("state/upload-lock").display().to_string());
    latch.open();
    second.wait_event("upload complete", PATIENCE);
    assert_eq!(fs::read_to_string(farm.path("runs")).unwrap(), "begin\nend\n".repeat(6));
    assert_eq!(published_in(&copy), ["tool 1.0-1 noarch"]);
}

#[test]
fn saved_package_refused_is_built_anew_once_removed() {
    let repo = GitRepo::program(&["1.0"]);
    // While the file exists, two of three packages are garbage.
    let garbage = "#!/bin/sh\nprevious=\nfor argument; do\n[ \"$previous\" = --out ] && out=$argument\n\
                   previous=$argument\ndone\n{real} \"$@\" || exit\n[ ! -e \"$HOME/broken\" ] || \
                   for file in \"$out\"/bad*; do [ ! -e \"$file\" ] || echo garbage >\"$file\"; done\n";
    let mut builder = Farm::builder().program("peipkg-build", garbage);
    for id in ["good", "bad-one", "bad-two"] {
        builder = builder.with(&Recipe::program(id, &repo.file_url()));
    }
    let farm = builder.build();
    fs::write(farm.path("broken"), "").unwrap();
    for _ in 0..2 {
        let output = farm.once();
        output.assert_success().assert_only_events();
        let refused = output.events("publish failed");
        assert!(refused.iter().map(|event| &event["recipe"]).eq(["bad-one", "bad-two"]), "{output}");
        farm.assert_published(&["good 1.0-1 noarch"]);
        assert_eq!(farm.kept().len(), 2, "{output}");
    }
    fs::remove_file(farm.path("broken")).unwrap();

    // Remove the second while the manager publishes the first.
    let removing =
        "case \"$*\" in *bad-one@*) rm -r \"$HOME\"/state/publish/bad-two@* ;; esac\npublish \"$@\"";
    farm.write_program("peipkg-repo", &publishing(removing));
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert_eq!(output.event("publish failed")["recipe"], "bad-one");
    let gone = output.event("pending packages are gone, building the version again");
    assert_eq!((gone["level"].as_str(), gone["recipe"].as_str()), ("warn", "bad-two"));
    assert_eq!(output.event("starting build")["recipe"], "bad-two", "{output}");
    farm.assert_published(&["bad-two 1.0-1 noarch", "good 1.0-1 noarch"]);

    // Remove the first while no manager runs.
    for name in farm.kept() {
        fs::remove_dir_all(farm.path("state/publish").join(name)).unwrap();
    }
    farm.once().assert_success().assert_only_events().event("starting build");
    farm.assert_published(&["bad-one 1.0-1 noarch", "bad-two 1.0-1 noarch", "good 1.0-1 noarch"]);
    farm.assert_clean();
    farm.assert_verifies();
}
