//! Malicious upstreams: they must neither read nor change anything outside their source tree.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::broken_disk::sweep_in;
use crate::support::farm::Farm;
use crate::support::git_repo::{GitRepo, git_command, run};
use crate::support::recipes::Recipe;
use crate::support::smart_http::SmartHttp;

const DAY: &str = "2026-02-01T00:00:00Z";

/// A recipe whose package holds its whole source tree, with links as links.
fn copier(id: &str, url: &str) -> Recipe {
    Recipe::program(id, url)
        .build_sh(&format!(
            "doc=\"$DESTDIR/usr/share/doc/{id}\"\nmkdir -p \"$doc\"\ncd \"$SOURCE_DIR\"\nfind . | sort >\"$doc/tree\"\n\
             grep -rl secret . >\"$doc/secrets\" || :\n"
        ))
        .upstream("submodules = true")
}

#[test]
fn submodule_points_into_the_machine_is_not_fetched() {
    let outside = tempfile::tempdir().unwrap();
    let secret = GitRepo::in_dir(outside.path(), "secret.git");
    let commit = secret.commit(&[("secret", "secret")], DAY);
    let mark = outside.path().join("ran");
    let siblings = tempfile::tempdir().unwrap();
    let http = SmartHttp::new();
    let urls = [
        secret.file_url(),
        secret.path().display().to_string(),
        format!("ext::sh -c touch% {}", mark.display()),
        format!("../../../../../../../../..{}", secret.path().display()),
        format!("--upload-pack=touch {}", mark.display()),
        format!("-u./touch {}", mark.display()),
        format!("file://{}\n[submodule \"x\"]", secret.path().display()),
    ];
    let mut builder = Farm::builder();
    for (number, url) in urls.iter().enumerate() {
        let app = GitRepo::in_dir(siblings.path(), &format!("app{number}.git"));
        app.add_submodule("sub", url, &commit);
        app.commit(&[("content", "app")], DAY);
        app.tag_light("v1");
        builder =
            builder.with(&copier(&format!("http{number}"), &http.serve(&format!("app{number}.git"), &app)));
        builder = builder.with(&copier(&format!("file{number}"), &app.file_url()));
    }
    let farm = builder.build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert_eq!(output.events("build failed").len(), 2 * urls.len(), "{output}");
    assert!(farm.published().is_empty(), "{output}");
    assert!(!mark.exists(), "a command of an upstream was run");
    farm.assert_clean();
}

#[test]
fn submodule_with_a_command_or_an_outside_path_is_refused() {
    let siblings = tempfile::tempdir().unwrap();
    let http = SmartHttp::new();
    let commit = http.serve_new(siblings.path(), "lib.git", &[("lib.c", "")]);
    let outside = tempfile::tempdir().unwrap();
    let mark = outside.path().join("ran");
    let app = GitRepo::in_dir(siblings.path(), "app.git");
    app.add_submodule("sub", "../lib.git", &commit);
    let touch = format!("!touch {}", mark.display());
    app.git(&["config", "--file", ".gitmodules", "submodule.sub.update", &touch]);
    app.commit(&[("content", "")], DAY);
    app.tag_light("v1");
    for (tag, path) in [("v2", "../../../outside"), ("v3", "/tmp/outside"), ("v4", ".git/hooks")] {
        app.git(&["config", "--file", ".gitmodules", "--unset-all", "submodule.sub.path"]);
        app.git(&["config", "--file", ".gitmodules", "submodule.sub.path", path]);
        app.commit(&[], DAY);
        app.tag_light(tag);
    }
    let farm = Farm::builder().with(&copier("app", &http.serve("app.git", &app))).build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert!(!mark.exists(), "a command of an upstream was run");
    assert!(!farm.path("outside").exists() && !farm.path("state/outside").exists());
    farm.assert_clean();
}

/// Creates a tree object in `repo` from lines of `git ls-tree`, with any names.
fn tree(repo: &Path, lines: &str) -> String {
    let mut command = git_command(repo);
    command.args(["mktree", "--missing"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("git");
    child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("git reads");
    let output = child.wait_with_output().expect("git ends");
    assert!(output.status.success(), "git mktree: {lines}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Tags a commit of `tree`.
fn tag_tree(repo: &GitRepo, tag: &str, tree: &str) {
    let commit = run(git_command(repo.path()).args(["commit-tree", "-m", "hostile", tree]));
    repo.git(&["update-ref", &format!("refs/tags/{tag}"), &commit]);
}

#[test]
fn links_in_place_of_submodules_and_git_files_lead_nowhere() {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join(".git")).unwrap();
    fs::write(outside.path().join(".git/precious"), "secret").unwrap();
    fs::write(outside.path().join("precious"), "secret").unwrap();
    let before = run(Command::new("find").arg(outside.path()).args(["-printf", "%p %T@\n"]));

    let siblings = tempfile::tempdir().unwrap();
    let http = SmartHttp::new();
    let commit = http.serve_new(siblings.path(), "lib.git", &[("precious", "overwritten")]);
    let app = GitRepo::in_dir(siblings.path(), "app.git");
    app.commit(&[("content", "app")], DAY);
    let target = outside.path().display().to_string();
    let blob = |text: &str| {
        fs::write(app.path().join("blob"), text).unwrap();
        app.git(&["hash-object", "-w", "blob"])
    };
    let link = blob(&target);
    let modules = |path: &str| blob(&format!("[submodule \"sub\"]\n\tpath = {path}\n\turl = ../lib.git\n"));
    let content = blob("app");
    // The submodule's path is a link that points outside.
    let one =
        tree(app.path(), &format!("100644 blob {}\t.gitmodules\n120000 blob {link}\tsub\n", modules("sub")));
    // The path lies below such a link, whose name is a directory's in another spelling.
    let below = tree(app.path(), &format!("160000 commit {commit}\tsub\n"));
    let two = format!(
        "100644 blob {}\t.gitmodules\n040000 tree {below}\tDeps\n120000 blob {link}\tdeps\n",
        modules("Deps/sub")
    );
    let two = tree(app.path(), &two);
    // `.git` is a link, a file or a directory of the upstream.
    let three = tree(app.path(), &format!("120000 blob {link}\t.git\n100644 blob {content}\tcontent\n"));
    let four = tree(app.path(), &format!("100644 blob {content}\t.git\n100644 blob {content}\tcontent\n"));
    let inner = tree(app.path(), &format!("120000 blob {link}\tconfig\n"));
    let five = tree(app.path(), &format!("040000 tree {inner}\t.git\n100644 blob {content}\tcontent\n"));
    // A plain link to the outside is harmless: a build sees it as a link.
    let six = tree(app.path(), &format!("100644 blob {content}\tcontent\n120000 blob {link}\tout\n"));
    for (tag, tree) in [("v1", one), ("v2", two), ("v3", three), ("v4", four), ("v5", five), ("v6", six)] {
        tag_tree(&app, tag, &tree);
    }
    let url = http.serve("app.git", &app);
    let plain = Recipe::program("plain", &url).build_sh(
        "doc=\"$DESTDIR/usr/share/doc/plain\"\nmkdir -p \"$doc\"\ncd \"$SOURCE_DIR\"\nfind . | sort >\"$doc/tree\"\n",
    );
    let farm = Farm::builder().with(&copier("app", &url)).with(&plain).build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    let after = run(Command::new("find").arg(outside.path()).args(["-printf", "%p %T@\n"]));
    assert_eq!(after, before, "something outside was touched\n{output}");
    let published = farm.published();
    for id in ["app", "plain"] {
        assert!(published.contains(&format!("{id} 6-1 noarch")), "{output}");
        for number in 3..=5 {
            assert!(!published.contains(&format!("{id} {number}-1 noarch")), "{published:?}\n{output}");
        }
    }
    for line in &published {
        let mut words = line.split(' ');
        let (name, version) = (words.next().unwrap(), words.next().unwrap());
        let listed = farm.package(name, version).text(&format!("usr/share/doc/{name}/tree"));
        assert!(!listed.lines().any(|path| path.split('/').any(|part| part == ".git")), "{line}: {listed}");
    }
    farm.assert_clean();
    farm.assert_verifies();
}

#[test]
fn tree_deeper_than_files_may_be_open_is_removed() {
    let repo = GitRepo::new();
    repo.commit(&[(&("d/".repeat(300) + "file"), "")], DAY);
    repo.tag_light("v1");
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url()).build_sh("exit 1")).build();
    let output = sweep_in(&farm, "ulimit -n 256; exec \"$@\"");
    output.assert_success().assert_only_events().event("build failed");
    assert!(output.events("clear staging dir failed").is_empty(), "{output}");
    farm.assert_clean();
}

#[test]
fn names_in_any_spelling_do_not_get_past_git() {
    let outside = tempfile::tempdir().unwrap();
    let mark = outside.path().join("ran");
    let siblings = tempfile::tempdir().unwrap();
    let http = SmartHttp::new();
    // The submodule has a file of its own at the place of its metadata.
    let commit = http.serve_new(siblings.path(), "lib.git", &[("lib.c", "")]);
    let app = GitRepo::in_dir(siblings.path(), "app.git");
    app.commit(&[("content", "app")], DAY);
    let blob = |text: &str| {
        fs::write(app.path().join("blob"), text).unwrap();
        app.git(&["hash-object", "-w", "blob"])
    };
    let content = blob("app");
    let hook = blob(&format!("#!/bin/sh\ntouch {}\n", mark.display()));
    let hooks = tree(
        app.path(),
        &format!("100755 blob {hook}\tpost-checkout\n100755 blob {hook}\tpost-index-change\n"),
    );
    let config = blob(&format!(
        "[core]\n\trepositoryformatversion = 0\n\tbare = true\n\tfsmonitor = touch {0}\n\tsshCommand = touch {0}\n",
        mark.display()
    ));
    let empty = tree(app.path(), &format!("100644 blob {content}\tkeep\n"));
    let head = blob("ref: refs/heads/main\n");
    let bare = format!(
        "100644 blob {head}\tHEAD\n100644 blob {config}\tconfig\n100644 blob {content}\tcontent\n\
         040000 tree {hooks}\thooks\n040000 tree {empty}\tobjects\n040000 tree {empty}\trefs\n"
    );
    let git_dir = tree(app.path(), &bare);
    let mut trees = Vec::new();
    // Names that some file systems treat as `.git`.
    for name in [".GIT", "git~1", ".git ", ".git::$INDEX_ALLOCATION"] {
        trees.push(format!("040000 tree {git_dir}\t{name}\n100644 blob {content}\tcontent\n"));
    }
    // A bare repository as the source itself, and in a directory of it.
    trees.push(bare);
    trees.push(format!("100644 blob {content}\tcontent\n040000 tree {git_dir}\tinner\n"));
    let modules = |text: &str| {
        let link = blob(text);
        format!(
            "100644 blob {link}\t.gitmodules\n100644 blob {content}\tcontent\n160000 commit {commit}\tsub\n"
        )
    };
    // git makes file names of the names and paths of submodules.
    for name in ["../../../../outside", "..", "a/../../../outside", "-x"] {
        trees.push(modules(&format!("[submodule \"{name}\"]\n\tpath = sub\n\turl = ../lib.git\n")));
    }
    for path in ["\"sub\\r\"", "-x", "../sub", "sub/../../sub", "\"sub\\n\""] {
        trees.push(modules(&format!("[submodule \"sub\"]\n\tpath = {path}\n\turl = ../lib.git\n")));
    }
    for url in [
        "\"../lib.git\\nhost=evil\"",
        "-u../lib.git",
        "https::ext::sh",
        "\"--config=core.fsmonitor=touch x\"",
        "",
    ] {
        trees.push(modules(&format!("[submodule \"sub\"]\n\tpath = sub\n\turl = {url}\n")));
    }
    // `.gitmodules` itself is a link to the outside.
    let link = blob("/etc/passwd");
    trees.push(format!(
        "120000 blob {link}\t.gitmodules\n100644 blob {content}\tcontent\n160000 commit {commit}\tsub\n"
    ));
    for (number, lines) in (1..).zip(&trees) {
        let made = tree(app.path(), lines);
        tag_tree(&app, &format!("v{number}"), &made);
    }
    let url = http.serve("app.git", &app);
    let with = copier("with", &url);
    let without = Recipe::program("without", &url).tag_pattern("^v([1-6])$").build_sh(
        "doc=\"$DESTDIR/usr/share/doc/without\"\nmkdir -p \"$doc\"\ncd \"$SOURCE_DIR\"\nfind . | sort >\"$doc/tree\"\n",
    );
    let farm = Farm::builder().with(&with).with(&without).build();
    let before = run(Command::new("find").arg(farm.home()).arg("-maxdepth").arg("2"));
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert!(!mark.exists(), "a command of an upstream was run\n{output}");
    let now = run(Command::new("find").arg(farm.home()).arg("-maxdepth").arg("2"));
    let strange = |line: &&str| !before.contains(*line) && !line.contains("/state");
    assert_eq!(now.lines().filter(strange).collect::<Vec<_>>(), Vec::<&str>::new(), "{output}");
    let layout = run(Command::new("ls").arg(farm.state_dir()));
    assert_eq!(
        layout.split_whitespace().collect::<Vec<_>>(),
        ["lock", "logs", "publish", "published-commits", "repo", "sources", "stage", "tool-lock"]
    );
    let built = output.events("build + publish complete").len();
    let failed = output.events("build failed").len();
    assert_eq!(built + failed, trees.len() + 6, "{output}");
    let published = farm.published();
    for refused in
        ["with", "without"].iter().flat_map(|id| (1..=4).map(move |number| format!("{id} {number}-1 noarch")))
    {
        assert!(!published.contains(&refused), "{refused}\n{output}");
    }
    // A repository among the files counts as plain files.
    for id in ["with", "without"] {
        let listed = farm.package(id, "6-1").text(&format!("usr/share/doc/{id}/tree"));
        assert!(listed.contains("./inner/config\n"), "{listed}");
    }
    farm.assert_clean();
    farm.assert_verifies();
}
