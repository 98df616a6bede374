//! The same tag gives the same bytes: nothing that a build sees depends on the run, and no setting
//! of the machine changes the source.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::sources::DAY;
use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::smart_http::SmartHttp;
use crate::support::wait::PATIENCE;

/// A recipe that installs a record of all that its build can see.
fn witness(id: &str, url: &str) -> Recipe {
    let script = r#"
doc="$DESTDIR/usr/share/doc/ID"
mkdir -p "$doc"
{
    echo "$SOURCE_DIR $DESTDIR $(pwd) ${TMPDIR:-}"
    env | grep -v '^_=' | sort
    umask
    ulimit -a
    grep '^Sig[BIC]' /proc/self/status
    ls /proc/self/fd
    cd "$SOURCE_DIR"
    find . -printf '%p %y %m %T@ %l\n' | sort
    find . -type f | sort | xargs -d '\n' cksum
} >"$doc/seen"
"#;
    Recipe::program(id, url).build_sh(&script.replace("ID", id)).upstream("submodules = true")
}

fn seen(farm: &Farm, id: &str) -> String {
    farm.package(id, "1-1").text(&format!("usr/share/doc/{id}/seen"))
}

/// A source that shows what settings change: line ends, links, modes and attributes of its own.
fn sensitive(parent: &Path, name: &str) -> GitRepo {
    let repo = GitRepo::in_dir(parent, name);
    repo.write("text", b"one\ntwo\n");
    repo.write("dos", b"one\r\ntwo\r\n");
    repo.write("mixed.txt", b"one\r\ntwo\n");
    repo.write("sub dir/secret.c", b"$Id$ $Format:%H$ plain\n");
    repo.write("own.bat", b"echo\n");
    repo.write("wide.txt", b"w\0i\0d\0e\0\n\0");
    repo.write_executable("configure", b"#!/bin/sh\n");
    repo.symlink("link", "text");
    repo.write(
        ".gitattributes",
        b"*.bat text eol=crlf\n*.c ident export-subst\nwide.txt working-tree-encoding=UTF-16LE\n",
    );
    repo
}

#[test]
fn build_in_any_run_sees_the_same() {
    let siblings = tempfile::tempdir().unwrap();
    let repo = sensitive(siblings.path(), "app.git");
    repo.commit(&[], DAY);
    repo.tag_annotated("v1", DAY);
    let farm = Farm::builder().with(&witness("app", &repo.file_url())).build();
    let (elsewhere, mut packages) = (tempfile::tempdir().unwrap(), Vec::new());
    let mut runs = BTreeSet::new();
    for run in 0..10 {
        let arguments: &[&str] = if run % 2 == 0 { &["--once", "--config"] } else { &["--config"] };
        let mut manager = farm.command(arguments);
        manager.arg(farm.config_path());
        let umask = ["022", "002", "077", "000", "027"][run % 5];
        let mut command = farm.shell(&manager, &format!("umask {umask}; exec \"$@\""));
        if run % 3 == 0 {
            command.current_dir("/");
        }
        if run % 3 == 1 {
            command.env("TMPDIR", elsewhere.path()).env("A_VARIABLE", "a value").env("ZZZ", run.to_string());
            command.env("GIT_ATTR_SOURCE", "HEAD").env("SOURCE_DIR", "/else").env("MAKEFLAGS", "-j9");
        }
        let mut running = Running::spawn(&mut command);
        running.wait_event("build + publish complete", PATIENCE);
        if run % 2 == 1 {
            running.signal(Signal::TERM);
        }
        running.wait_exit(PATIENCE).assert_success();
        farm.assert_clean();
        runs.insert(seen(&farm, "app"));
        packages.push(farm.package("app", "1-1").bytes);
        fs::remove_dir_all(farm.state_dir()).unwrap();
    }
    assert_eq!(runs.len(), 1, "{runs:#?}");
    assert!(packages.iter().all(|package| *package == packages[0]), "the packages differ");
    let sources = farm.state_dir().join("sources/app@1-1");
    let seen = runs.pop_first().unwrap();
    assert!(seen.starts_with(&format!("{} ", sources.canonicalize().unwrap_or(sources).display())), "{seen}");
    assert!(seen.contains("./text f 644 1769904000.0"), "{seen}");
}

#[test]
fn survivor_of_an_earlier_manager_keeps_its_paths() {
    let siblings = tempfile::tempdir().unwrap();
    let repo = sensitive(siblings.path(), "app.git");
    repo.commit(&[], DAY);
    repo.tag_light("v1");
    let farm = Farm::builder().with(&witness("app", &repo.file_url())).build();
    let stage = farm.state_dir().join("stage/app@1-1");
    // `cat` waits for its input, as a build that lives on would.
    let mut survivor = Command::new("cat");
    survivor.env("DESTDIR", stage.join("tmp/peipkg-build-app@1-1/staged")).stdin(Stdio::piped());
    let mut survivor = survivor.spawn().unwrap();
    let source_dir = |farm: &Farm| {
        farm.once().assert_success().event("build + publish complete");
        let seen = seen(farm, "app");
        fs::remove_dir_all(farm.state_dir()).unwrap();
        seen.split(' ').next().unwrap().rsplit('/').next().unwrap().to_owned()
    };
    let beside = source_dir(&farm);
    drop(survivor.stdin.take());
    survivor.wait().unwrap();
    assert_eq!((beside.as_str(), source_dir(&farm).as_str()), ("app@1-1.2", "app@1-1"));
}

/// Settings that change a work tree, a new repository, or what git runs.
const SETTINGS: &str = "[core]
\tautocrlf = true
\teol = crlf
\tattributesFile = {home}/attributes
\tsymlinks = false
\tfileMode = false
\tignoreCase = true
\tprecomposeUnicode = true
\tsparseCheckout = true
\thooksPath = {home}/hooks
\tfsmonitor = {home}/hooks/post-checkout
\tprotectNTFS = true
\tsharedRepository = 0600
\tsafecrlf = true
[checkout]
\tworkers = 4
\tthresholdForParallelism = 0
[filter \"upper\"]
\tsmudge = tr a-z A-Z
\tclean = cat
\trequired = true
[init]
\ttemplateDir = {home}/template
\tdefaultObjectFormat = sha256
[submodule]
\trecurse = true
\tactive = nothing
[submodule \"lib\"]
\tupdate = none
\turl = file:///nowhere
[fetch]
\trecurseSubmodules = true
[attr]
\ttree = HEAD
[clone]
\tdefaultRemoteName = other
[url \"{http}\"]
\tinsteadOf = mirror:
";

#[test]
fn settings_of_the_machine_do_not_change_the_source_but_reach_the_upstream() {
    let siblings = tempfile::tempdir().unwrap();
    let http = SmartHttp::new();
    let lib = sensitive(siblings.path(), "lib.git");
    let pinned = lib.commit(&[], DAY);
    http.serve("lib.git", &lib);
    let app = sensitive(siblings.path(), "app.git");
    app.add_submodule("lib", "../lib.git", &pinned);
    app.commit(&[], DAY);
    app.tag_annotated("v1", DAY);
    http.serve("app.git", &app);
    // Only `insteadOf` leads to the server.
    let farm = Farm::builder().with(&witness("app", "mirror:x/app.git")).build();
    let attributes = "* text eol=crlf filter=upper ident working-tree-encoding=UTF-16\n";
    for (path, text) in [
        ("attributes", attributes),
        ("xdg/git/attributes", attributes),
        ("template/info/attributes", attributes),
        ("template/info/sparse-checkout", "/nothing\n"),
        ("template/hooks/post-checkout", "#!/bin/sh\ntouch ran\n"),
        ("hooks/post-checkout", "#!/bin/sh\ntouch ran\n"),
        ("hooks/post-index-change", "#!/bin/sh\ntouch ran\n"),
    ] {
        let path = farm.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    crate::support::git_repo::run(Command::new("chmod").arg("-R").arg("+x").arg(farm.path("hooks")));
    let home = farm.home().display().to_string();
    let transport = format!("[url \"{}\"]\n\tinsteadOf = mirror:x/\n", http.url(""));
    let all = SETTINGS.replace("{home}", &home).replace("{http}", &http.url(""));
    let mut seen_by = Vec::new();
    for kind in ["none", "user", "system", "environment", "parameters"] {
        let mut command = farm.command(&["--once", "--config"]);
        command.arg(farm.config_path());
        let file = farm.path("settings");
        fs::write(&file, if kind == "none" { &transport } else { &all }).unwrap();
        fs::write(&file, fs::read_to_string(&file).unwrap().replace("mirror:\n", "mirror:x/\n")).unwrap();
        match kind {
            "system" => command.env_remove("GIT_CONFIG_NOSYSTEM").env("GIT_CONFIG_SYSTEM", &file),
            _ => command.env("GIT_CONFIG_GLOBAL", &file),
        };
        if kind == "environment" {
            let pairs =
                [("core.autocrlf", "true"), ("filter.upper.smudge", "tr a-z A-Z"), ("core.eol", "crlf")];
            for (number, (key, value)) in pairs.into_iter().enumerate() {
                command
                    .env(format!("GIT_CONFIG_KEY_{number}"), key)
                    .env(format!("GIT_CONFIG_VALUE_{number}"), value);
            }
            command.env("GIT_CONFIG_COUNT", "3").env("GIT_TEMPLATE_DIR", farm.path("template"));
            command.env("XDG_CONFIG_HOME", farm.path("xdg"));
        }
        if kind == "parameters" {
            command.env("GIT_CONFIG_PARAMETERS", "'core.autocrlf'='true' 'core.symlinks'='false'");
            command.env("GIT_ATTR_SOURCE", "refs/tags/v1").env("GIT_DEFAULT_HASH", "sha256");
        }
        let output = Running::spawn(&mut command).wait_exit(PATIENCE);
        output.assert_success().event("build + publish complete");
        farm.assert_clean();
        seen_by.push((kind, seen(&farm, "app")));
        fs::remove_dir_all(farm.state_dir()).unwrap();
    }
    let (_, plain) = &seen_by[0];
    for line in ["./link l 777 1769904000.0000000000 text", "./configure f 755 ", "./lib/text f 644 "] {
        assert!(plain.contains(line), "{line}: {plain}");
    }
    for (kind, seen) in &seen_by {
        assert_eq!(seen, plain, "{kind}");
    }
    let ran = crate::support::git_repo::run(Command::new("find").arg(farm.home()).args(["-name", "ran"]));
    assert_eq!(ran, "");
}
