//! Sources with files in git-lfs: their content is built, or the build fails; never the pointers.

use std::process::Command;

use crate::sources::{DAY, inspector, seen, sweep_cleanly};
use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::optional::require;
use crate::support::recipes::Recipe;
use crate::support::running::{Output, Running};
use crate::support::smart_http::SmartHttp;
use crate::support::tools::Tools;
use crate::support::wait::PATIENCE;

const ATTRIBUTES: &str = "*.bin filter=lfs diff=lfs merge=lfs -text\n";

/// An upstream with two versions: `content` differs, `shared.bin` does not. `content` is in git-lfs
/// although no `*.bin`.
fn with_lfs() -> GitRepo {
    let repo = GitRepo::new();
    repo.write(
        ".gitattributes",
        format!("{ATTRIBUTES}[attr]big filter=lfs -text\n/content big\n").as_bytes(),
    );
    for number in 1..=2 {
        repo.write_lfs("shared.bin", "the same in all versions\n");
        repo.write_lfs("content", &format!("content of {number}\n"));
        repo.write_lfs("pointer.txt", "no attribute puts it into git-lfs\n");
        repo.commit(&[], DAY);
        repo.tag_annotated(&format!("v{number}"), DAY);
    }
    repo
}

/// A recipe that shows all content of its source.
fn reader(id: &str, url: &str) -> Recipe {
    Recipe::program(id, url).build_sh(&format!(
        "doc=\"$DESTDIR/usr/share/doc/{id}\"\nmkdir -p \"$doc\"\ncd \"$SOURCE_DIR\"\n\
         find . -type f ! -name .gitattributes ! -name .gitmodules ! -name .lfsconfig | sort | xargs head -n1 >\"$doc/all\"\n"
    ))
}

/// The first lines of the files of version `number` of [`with_lfs`].
fn expected(number: u8) -> String {
    format!(
        "==> ./content <==\ncontent of {number}\n\n==> ./pointer.txt <==\nversion https://git-lfs.github.com/spec/v1\n\n\
         ==> ./shared.bin <==\nthe same in all versions\n"
    )
}

/// Runs a sweep without git-lfs on the `PATH`.
fn once_without_lfs(farm: &Farm) -> Output {
    let path = Tools::get().path_without(&["git-lfs"]);
    let mut command = farm.command(&["--once", "--config"]);
    command.arg(farm.config_path()).env("PATH", path.path());
    Running::spawn(&mut command).wait_exit(PATIENCE)
}

#[test]
fn content_is_built_from_files_and_over_http_and_shared_by_versions() {
    if !require("git-lfs") {
        return;
    }
    let repo = with_lfs();
    let http = SmartHttp::new();
    let url = http.serve("app.git", &repo);
    http.require_auth("user", "pass:w@rd");
    let url = url.replace("//", "//user:pass%3Aw%40rd@");
    let farm = Farm::builder().with(&reader("local", &repo.file_url())).with(&reader("remote", &url)).build();
    sweep_cleanly(&farm);
    for id in ["local", "remote"] {
        for number in 1..=2 {
            assert_eq!(seen(&farm, id, &format!("{number}-1"), "all"), expected(number), "{id}");
        }
    }
    let requests = http.requests();
    let downloads = requests.iter().filter(|request| request.path.contains("/lfs-object/")).count();
    // git-lfs also fetches the content of the third pointer.
    assert_eq!(downloads, 4, "the shared file was not fetched once");
}

#[test]
fn content_does_not_depend_on_settings() {
    if !require("git-lfs") {
        return;
    }
    let lib = with_lfs();
    let repo = with_lfs();
    let http = SmartHttp::new();
    http.serve("lib.git", &lib);
    repo.write(".lfsconfig", b"[lfs]\n\tfetchexclude = *\n");
    repo.add_submodule("lib", "../lib.git", &lib.head());
    repo.commit(&[], DAY);
    repo.tag_light("v3");
    let url = http.serve("app.git", &repo);
    let recipe = reader("app", &url).upstream("submodules = true").upstream("min_version = \"3\"");
    let farm = Farm::builder().with(&recipe).build();
    std::fs::write(
        farm.path(".gitconfig"),
        "[lfs]\n\tfetchexclude = shared.bin\n\tstorage = elsewhere\n\tskipdownloaderrors = true\n\
         [filter \"lfs\"]\n\tsmudge = false\n\tprocess =\n\trequired = false\n",
    )
    .unwrap();
    let mut command = farm.command(&["--once", "--config"]);
    command.arg(farm.config_path()).env_remove("GIT_CONFIG_GLOBAL");
    command.env("GIT_LFS_SKIP_SMUDGE", "1").env("GIT_LFS_SKIP_DOWNLOAD_ERRORS", "1");
    let output = Running::spawn(&mut command).wait_exit(PATIENCE);
    output.assert_success().event("build + publish complete");
    let all = seen(&farm, "app", "3-1", "all");
    for path in ["./content", "./lib/content"] {
        assert!(all.contains(&format!("==> {path} <==\ncontent of 2\n")), "{all}");
    }
    assert_eq!(all.matches("the same in all versions").count(), 2, "{all}");
    farm.assert_clean();
}

#[test]
fn git_lfs_missing_fails_by_name_and_only_where_it_is_needed() {
    let repo = with_lfs();
    let plain = GitRepo::new();
    // The attribute is there, the files are not pointers: git-lfs would leave them as they are.
    plain.commit(&[(".gitattributes", ATTRIBUTES), ("x.bin", "plain"), ("content", "plain")], DAY);
    plain.tag_light("v1");
    let farm = Farm::builder()
        .with(&reader("app", &repo.file_url()))
        .with(&inspector("plain", &plain.file_url()))
        .build();
    let output = once_without_lfs(&farm);
    output.assert_success().assert_only_events();
    farm.assert_published(&["plain 1-1 noarch"]);
    let failed = output.events("build failed");
    assert_eq!(failed.len(), 2, "{output}");
    for event in failed {
        assert_eq!(event["recipe"], "app");
        let error = "cannot fetch the source: the source has 2 files in git-lfs, such as content, \
                     and git-lfs is not installed";
        assert_eq!(event["error"], error, "{output}");
    }
    farm.assert_clean();
}

#[test]
fn git_lfs_that_does_not_work_fails_with_its_words() {
    let repo = with_lfs();
    let farm = Farm::builder().with(&reader("app", &repo.file_url()).tag_pattern("^v(1)$")).build();
    let words = "git-lfs: error while loading shared libraries: libc.so.6: cannot open shared object file";
    farm.write_program("git-lfs", &format!("#!/bin/sh\necho '{words}' >&2\nexit 127\n"));
    let output = farm.once();
    let expected = format!("cannot fetch the source: git lfs exited with status 127: {words}");
    assert_eq!(output.event("build failed")["error"], expected, "{output}");
}

#[test]
fn content_missing_on_the_server_fails() {
    if !require("git-lfs") {
        return;
    }
    let repo = with_lfs();
    let http = SmartHttp::new();
    let urls = [repo.file_url(), http.serve("app.git", &repo)];
    crate::support::git_repo::run(Command::new("rm").arg("-r").arg(repo.git_dir().join("lfs")));
    let farm = Farm::builder().with(&reader("local", &urls[0])).with(&reader("remote", &urls[1])).build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert_eq!(output.events("build failed").len(), 4, "{output}");
    for event in output.events("build failed") {
        let object = event["error"].split_once("git lfs exited with status 2: ").map(|(_, error)| error);
        let mut words = object.unwrap_or_default().split(|c: char| !c.is_ascii_hexdigit());
        assert!(words.any(|word| word.len() == 64), "no object is named: {output}");
    }
    assert!(farm.published().is_empty());
    farm.assert_clean();
}
