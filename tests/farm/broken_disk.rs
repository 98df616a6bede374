//! Disks that are full, read-only or damaged: the manager keeps nothing half-written, loses
//! nothing, and goes on by itself when the disk works again.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Command;

use rustix::io::Errno;

use crate::support::client::webhook;
use crate::support::farm::{Farm, SECRET};
use crate::support::git_repo::{GitRepo, run};
use crate::support::latch::Latch;
use crate::support::optional::{not_permitted, skip};
use crate::support::recipes::Recipe;
use crate::support::running::{Output, Running, os_error};
use crate::support::wait::PATIENCE;

/// Runs a sweep of `farm` by the shell script `script`, whose arguments are the manager's command
/// line.
#[track_caller]
pub(crate) fn sweep_in(farm: &Farm, script: &str) -> Output {
    let mut command = farm.command(&["--once", "--config"]);
    command.arg(farm.config_path());
    Running::spawn(&mut farm.shell(&command, script)).wait_exit(PATIENCE)
}

/// Whether a process may mount in its own namespace; some machines forbid it.
pub(crate) fn may_mount() -> bool {
    let mut command = Command::new("unshare");
    let output = command.args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
    let may = output.is_ok_and(|output| output.status.success());
    if !may {
        skip("unshare and mount namespaces");
    }
    may
}

/// The names of the temporary files below `state_dir` that only an interrupted write leaves.
pub(crate) fn half_written(farm: &Farm) -> String {
    let mut find = Command::new("find");
    run(find.arg(farm.state_dir()).args(["-name", "*.new", "-o", "-name", "*.tmp", "-o", "-name", "journal"]))
}

#[test]
fn file_cannot_grow_fails_only_its_publish() {
    const VERSIONS: usize = 12;
    let names: Vec<String> = (0..VERSIONS).map(|number| format!("1.{number}")).collect();
    let repo = GitRepo::program(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    // Room for each package, but not for the index of all.
    let output = sweep_in(&farm, "trap '' XFSZ; ulimit -f 8; exec \"$@\"");
    output.assert_success().assert_only_events();
    let failed = output.events("publish failed");
    assert!(!failed.is_empty(), "the file size limit is too high for this test\n{output}");
    for event in failed {
        assert!(event["error"].contains(&os_error(Errno::FBIG)), "{output}");
    }
    assert!(output.events("build failed").is_empty(), "{output}");
    farm.assert_verifies();
    assert_eq!(half_written(&farm), "");
    let published = farm.published().len();
    assert!(published > 0 && published < VERSIONS, "{published}\n{output}");

    let output = farm.once();
    output.assert_success().assert_only_events();
    assert!(output.events("starting build").is_empty(), "a built version was built again\n{output}");
    assert_eq!(farm.published().len(), VERSIONS);
    farm.assert_clean();
    farm.assert_verifies();
}

#[test]
fn disk_full_delays_only_builds_that_do_not_fit() {
    if !may_mount() {
        return;
    }
    let repo = GitRepo::program(&["1.0", "1.1"]);
    // Incompressible data, of which a file system of 4 MiB cannot hold three copies.
    let large = Recipe::program("large", &repo.file_url()).before_build(
        "mkdir -p \"$DESTDIR/usr/bin\"\nhead -c 1500000 /dev/urandom >\"$DESTDIR/usr/bin/data\"",
    );
    let farm = Farm::builder().with(&Recipe::program("small", &repo.file_url())).with(&large).build();
    let script = format!(
        "cd '{home}' && mkdir -p state && mount -t tmpfs -o size=4m tmpfs state || exit 9\n\
         \"$@\" || exit\n\
         echo 'msg=\"half written:\"' $(find state -name '*.new' -o -name '*.tmp' -o -name journal)\n\
         echo 'left:' $(ls state/sources state/stage | grep -v :)\n\
         mount -o remount,size=64m state\n\
         \"$@\" || exit\n\
         peipkg-repo verify --repo state/repo || exit\n\
         ls state/publish state/repo/p/*\n",
        home = farm.home().display()
    );
    fs::write(farm.path("script"), script).unwrap();
    let output = sweep_in(&farm, "exec unshare -rm sh script \"$@\"");
    output.assert_success();
    assert!(output.stderr.contains("No space left on device"), "{output}");
    for event in output.all_events().iter().filter(|event| event["level"] == "error") {
        assert_eq!(event["recipe"], "large", "{output}");
    }
    assert!(
        output.stdout.contains("msg=\"half written:\"\n") && output.stdout.contains("left:\n"),
        "{output}"
    );
    let expected =
        "state/publish:\n\nstate/repo/p/large:\n1.0-1\n1.1-1\n\nstate/repo/p/small:\n1.0-1\n1.1-1\n";
    assert!(output.stdout.ends_with(expected), "{output}");
}

#[test]
fn state_directory_read_only_says_so() {
    if !may_mount() {
        return;
    }
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    farm.once().assert_success();
    let script = "mount --bind state state && mount -o remount,ro,bind state || exit 9; exec \"$@\"";
    let output = sweep_in(&farm, &format!("exec unshare -rm sh -c '{script}' sh \"$@\""));
    output.assert_code(1).assert_one_line(&["Read-only file system", "state/lock"]);
    farm.once().assert_success();
}

#[test]
fn lost_and_found_of_another_owner_stays_without_a_warning() {
    if !rustix::process::geteuid().is_root() {
        not_permitted("root's right to give files away");
        return;
    }
    let farm = Farm::builder().build();
    let found = farm.path("state/sources/lost+found");
    fs::create_dir_all(&found).unwrap();
    fs::set_permissions(&found, Permissions::from_mode(0o700)).unwrap();
    chown(&found, Some(1), None).unwrap();
    // Root without capabilities has the rights of any owner of a state directory.
    let output = sweep_in(&farm, "exec setpriv --bounding-set=-all \"$@\"");
    output.assert_success().assert_only_events();
    assert!(output.events("clear staging dir failed").is_empty(), "{output}");
    assert!(found.exists());
}

#[test]
fn repository_unwritable_for_a_while_gets_everything_afterwards() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    farm.once().assert_success();
    // Even root cannot create a directory below a file.
    let (packages, away) = (farm.path("state/repo/p"), farm.path("p"));
    fs::rename(&packages, &away).unwrap();
    fs::write(&packages, "").unwrap();
    repo.add_versions(&["1.1"]);
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert_eq!(output.event("publish failed")["version"], "1.1-1");
    farm.assert_published(&["tool 1.0-1 noarch"]);
    fs::remove_file(&packages).unwrap();
    fs::rename(&away, &packages).unwrap();
    farm.once_without_builds(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
}

#[test]
fn index_unreadable_is_not_overwritten() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    farm.once().assert_success();
    let index = farm.path("state/repo/index/archive.json");
    let whole = fs::read(&index).unwrap();
    fs::write(&index, &whole[..whole.len() / 2]).unwrap();
    repo.add_versions(&["1.1"]);
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert!(output.event("dedup check failed")["error"].contains("archive.json: "), "{output}");
    assert!(output.events("build + publish complete").is_empty(), "{output}");
    assert!(
        fs::read(&index).unwrap() == whole[..whole.len() / 2],
        "what was left of the index was overwritten"
    );
    assert_eq!(half_written(&farm), "");
    fs::write(&index, &whole).unwrap();
    farm.once_without_builds(&["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
}

#[test]
fn index_broken_during_a_publish_is_not_believed() {
    let repo = GitRepo::program(&["1.0"]);
    let recipe = Recipe::program("tool", "https://example.org/tool.git").watch("github_webhook = true");
    let farm = Farm::builder().http().build();
    let latch = Latch::new();
    let wait = latch.script();
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = publish ] || exec {{real}} \"$@\"\ncp state/repo/index/archive.json whole\n\
         echo '{{' >state/repo/index/archive.json\n{wait}cp whole state/repo/index/archive.json\nexec {{real}} \"$@\"\n"
    );
    farm.write_program("peipkg-repo", &script);
    let config = format!("[url \"{}\"]\ninsteadOf = https://example.org/tool.git\n", repo.file_url());
    fs::write(farm.path("gitconfig"), config).unwrap();
    farm.add(&recipe);
    let mut command = farm.command(&["--config"]);
    let mut daemon =
        Running::spawn(command.arg(farm.config_path()).env("GIT_CONFIG_GLOBAL", farm.path("gitconfig")));
    let addr = daemon.http_addr();
    latch.wait_reached();
    let body = br#"{"repository":{"clone_url":"https://example.org/tool.git"}}"#;
    assert_eq!(webhook(addr, "push", SECRET, body).status, 200);
    daemon.wait_events("poll complete", 2, PATIENCE);
    latch.open();
    daemon.wait_event("build + publish complete", PATIENCE);
    let warned = daemon.events().into_iter().find(|event| event["msg"] == "dedup check failed");
    assert_eq!(warned, None, "{daemon}");
    farm.assert_published(&["tool 1.0-1 noarch"]);
}

#[test]
fn build_leaves_what_cannot_be_removed_it_is_published_with_a_warning() {
    if !may_mount() {
        return;
    }
    let repo = GitRepo::program(&["1.0", "1.1"]);
    // A mount in the source and one in the build's temporary directory: neither can be removed.
    let mount = "mkdir \"$SOURCE_DIR/mount\"\nmount -t tmpfs tmpfs \"$SOURCE_DIR/mount\"\n";
    let tool = "#!/bin/sh\nif [ \"$1\" = build ]; then mkdir \"$TMPDIR/mount\" && mount -t tmpfs tmpfs \"$TMPDIR/mount\" || exit 9; fi\nexec {real} \"$@\"";
    let recipe = Recipe::program("app", &repo.file_url()).before_build(mount);
    let farm = Farm::builder().with(&recipe).program("peipkg-build", tool).build();
    let output = sweep_in(&farm, "exec unshare -rm \"$@\"");
    output.assert_success().assert_only_events();
    assert_eq!(output.events("clear staging dir failed").len(), 4, "{output}");
    assert!(output.events("build failed").is_empty(), "{output}");
    farm.assert_published(&["app 1.0-1 noarch", "app 1.1-1 noarch"]);
    farm.assert_verifies();
    // Without the mounts, the next start removes the rest.
    farm.once().assert_success();
    farm.assert_clean();
}
