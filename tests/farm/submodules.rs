//! Submodules: which are fetched, from where, and from which servers.

use crate::sources::{DAY, inspector, seen, sweep_cleanly};
use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::smart_http::{Fault, SmartHttp};

#[test]
fn submodules_are_fetched_recursively_and_only_on_request() {
    let siblings = tempfile::tempdir().unwrap();
    let http = SmartHttp::new();
    let inner = GitRepo::in_dir(siblings.path(), "inner.git");
    let pinned = inner.commit(&[("inner.c", "pinned")], DAY);
    inner.commit(&[("inner.c", "newer")], DAY);
    let inner_url = http.serve("inner.git", &inner);
    let outer = GitRepo::in_dir(siblings.path(), "outer.git");
    outer.add_submodule("nested", &inner_url, &pinned);
    let outer_commit = outer.commit(&[("outer.c", "")], DAY);
    http.serve("outer.git", &outer);
    let app = GitRepo::in_dir(siblings.path(), "app.git");
    app.add_submodule("deps/outer", "../outer.git", &outer_commit);
    app.add_submodule("inner", "../inner.git", &pinned);
    app.symlink("elsewhere", "/");
    app.commit(&[("content", "app")], DAY);
    app.tag_annotated("v1", DAY);
    let url = http.serve("app.git", &app);
    let with = inspector("with", &url).upstream("submodules = true");
    let farm = Farm::builder().with(&with).build();
    sweep_cleanly(&farm);
    farm.add(&inspector("without", &url));
    let output = farm.once();
    let warned = output.assert_success().event("submodules not fetched, the recipe lacks submodules = true");
    let fields = ["level", "recipe", "version", "submodules", "first"].map(|key| warned[key].as_str());
    assert_eq!(fields, ["warn", "without", "1-1", "2", "deps/outer"]);
    assert_eq!(
        seen(&farm, "with", "1-1", "tree"),
        ".\n./.gitmodules\n./content\n./deps\n./deps/outer\n./deps/outer/.gitmodules\n./deps/outer/nested\n\
         ./deps/outer/nested/inner.c\n./deps/outer/outer.c\n./elsewhere\n./inner\n./inner/inner.c\n"
    );
    assert_eq!(
        seen(&farm, "without", "1-1", "tree"),
        ".\n./.gitmodules\n./content\n./deps\n./deps/outer\n./elsewhere\n./inner\n"
    );
}

#[test]
fn submodules_of_one_version_do_not_leak_into_the_next() {
    let siblings = tempfile::tempdir().unwrap();
    let http = SmartHttp::new();
    let commit = http.serve_new(siblings.path(), "lib.git", &[("lib.c", "")]);
    let app = GitRepo::in_dir(siblings.path(), "app.git");
    app.add_submodule("sub", "../lib.git", &commit);
    app.commit(&[("content", "with")], DAY);
    app.tag_light("v1");
    app.git(&["config", "--file", ".gitmodules", "submodule.sub.update", "none"]);
    app.commit(&[("content", "without")], DAY);
    app.tag_light("v2");
    let url = http.serve("app.git", &app);
    let farm = Farm::builder().with(&inspector("app", &url).upstream("submodules = true")).build();
    sweep_cleanly(&farm);
    // The manager builds the newest first.
    assert_eq!(seen(&farm, "app", "2-1", "tree"), ".\n./.gitmodules\n./content\n./sub\n");
    assert_eq!(seen(&farm, "app", "1-1", "tree"), ".\n./.gitmodules\n./content\n./sub\n./sub/lib.c\n");
}

#[test]
fn submodule_url_relative_is_of_the_repository_that_has_it() {
    let siblings = tempfile::tempdir().unwrap();
    let http = SmartHttp::new();
    // Two repositories of one name: beside the source, and beside its submodule.
    let wrong = GitRepo::in_dir(siblings.path(), "wrong.git");
    wrong.commit(&[("inner.c", "wrong")], DAY);
    http.serve("inner.git", &wrong);
    let group = tempfile::tempdir_in(siblings.path()).unwrap();
    let inner = GitRepo::in_dir(group.path(), "inner.git");
    let inner_commit = inner.commit(&[("inner.c", "right")], DAY);
    http.serve("group/inner.git", &inner);
    let outer = GitRepo::in_dir(group.path(), "outer.git");
    outer.add_submodule("nested", "../inner.git", &inner_commit);
    outer.add_submodule("deeper/nested", "./../inner.git", &inner_commit);
    let outer_commit = outer.commit(&[("outer.c", "")], DAY);
    http.serve("group/outer.git", &outer);
    let app = GitRepo::in_dir(siblings.path(), "app.git");
    app.add_submodule("outer", "../group/outer.git", &outer_commit);
    app.commit(&[("content", "app")], DAY);
    app.tag_light("v1");
    let url = http.serve("app.git", &app);
    let farm = Farm::builder().with(&inspector("app", &url).upstream("submodules = true")).build();
    sweep_cleanly(&farm);
    let tree = seen(&farm, "app", "1-1", "tree");
    assert!(
        tree.contains("./outer/nested/inner.c\n") && tree.contains("./outer/deeper/nested/inner.c\n"),
        "{tree}"
    );
}

#[test]
fn submodule_behind_a_tip_is_fetched_from_a_server_that_refuses_its_id() {
    let siblings = tempfile::tempdir().unwrap();
    let http = SmartHttp::new();
    let lib = GitRepo::in_dir(siblings.path(), "lib.git");
    lib.commit(&[("lib.c", "oldest")], DAY);
    let pinned = lib.commit(&[("lib.c", "pinned")], DAY);
    lib.commit(&[("lib.c", "newer")], DAY);
    lib.commit(&[("lib.c", "newest")], DAY);
    http.serve("lib.git", &lib);
    let app = GitRepo::in_dir(siblings.path(), "app.git");
    for version in 1..=3 {
        app.add_submodule("lib", "../lib.git", &pinned);
        app.add_submodule("again", "../lib.git", &pinned);
        app.commit(&[("content", &version.to_string())], DAY);
        app.tag_light(&format!("v{version}"));
    }
    let url = http.serve("app.git", &app);
    // The first version of the protocol serves only what is advertised.
    http.fault("lib.git", Fault::Old { from: "~", to: "~" });
    let farm = Farm::builder().with(&inspector("app", &url).upstream("submodules = true")).build();
    sweep_cleanly(&farm);
    for version in 1..=3 {
        let tree = seen(&farm, "app", &format!("{version}-1"), "tree");
        assert!(tree.contains("./lib/lib.c\n") && tree.contains("./again/lib.c\n"), "{tree}");
    }
    let asked =
        http.requests().iter().filter(|request| request.path.starts_with("/lib.git/info/refs")).count();
    assert_eq!(asked, 2, "once by id, once plainly, and then it is in the cache");
}

#[test]
fn submodule_without_a_url_or_its_commit_fails_by_name() {
    let siblings = tempfile::tempdir().unwrap();
    let http = SmartHttp::new();
    http.serve_new(siblings.path(), "lib.git", &[("lib.c", "")]);
    let gone = "0123456789012345678901234567890123456789";
    let app = GitRepo::in_dir(siblings.path(), "app.git");
    app.add_submodule("deps/lib", "../lib.git", gone);
    app.commit(&[("content", "")], DAY);
    app.tag_light("v1");
    app.git(&["config", "--file", ".gitmodules", "--unset", "submodule.deps/lib.url"]);
    app.commit(&[("content", "")], DAY);
    app.tag_light("v2");
    app.git(&["config", "--file", ".gitmodules", "submodule.deps/lib.url", ""]);
    app.commit(&[("content", "")], DAY);
    app.tag_light("v3");
    let url = http.serve("app.git", &app);
    let farm = Farm::builder().with(&inspector("app", &url).upstream("submodules = true")).build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    let failed: Vec<String> =
        output.events("build failed").iter().map(|event| event["error"].clone()).collect();
    let start = "cannot fetch the source: submodule deps/lib: ";
    assert_eq!(failed.len(), 3, "{output}");
    assert!(failed.iter().any(|error| error.ends_with(".gitmodules has an empty url for it")), "{output}");
    assert!(failed.iter().all(|error| error.starts_with(start)), "{output}");
    assert!(failed.iter().any(|error| error.ends_with(".gitmodules has no url for it")), "{output}");
    let missing = format!("no branch or tag of {} has the commit {gone}", url.replace("app.git", "lib.git"));
    assert!(failed.iter().any(|error| error.ends_with(&missing)), "{output}");
    farm.assert_clean();
}

#[test]
fn gitmodules_damaged_or_without_submodules_is_only_a_file() {
    let repo = GitRepo::new();
    repo.commit(
        &[("content", "one"), (".gitmodules", "[submodule \"x\"]\n\tpath = content\n\turl = ../x.git\n")],
        DAY,
    );
    repo.tag_light("v1");
    repo.commit(&[("content", "two"), (".gitmodules", "[damaged\n")], DAY);
    repo.tag_light("v2");
    let farm = Farm::builder().with(&inspector("app", &repo.file_url())).build();
    sweep_cleanly(&farm);
    assert_eq!(
        (seen(&farm, "app", "1-1", "content"), seen(&farm, "app", "2-1", "content")),
        ("one".into(), "two".into())
    );
}
