//! `docs/hosting.md` and `contrib/rclone`: the real rclone uploads to an object store with the
//! configuration of the page.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::farm::Farm;
use crate::support::git_repo::{GitRepo, run};
use crate::support::optional::{find_program, require};
use crate::support::pages::{blocks, page};
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::s3::{ObjectStore, Request};
use crate::support::wait::PATIENCE;

const FOREVER: &str = "public, max-age=31536000, immutable";

fn wrapper() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/rclone/rclone")
}

/// A farm that uploads to `store` with the page's remote, with or without the wrapper.
struct Site {
    store: ObjectStore,
    upstream: GitRepo,
    farm: Farm,
}

impl Site {
    fn new(wrapped: bool) -> Option<Self> {
        if !require("rclone") {
            return None;
        }
        let (store, upstream) = (ObjectStore::start(), GitRepo::program(&["1.0"]));
        let farm = Farm::builder()
            .with(&Recipe::program("tool", &upstream.file_url()))
            .rclone("r2:packages".as_ref())
            .build();
        let page = page("docs/hosting.md");
        let described = page.split("```ini\n").find(|rest| rest.contains("[r2]")).unwrap();
        let described = described.split("```").next().unwrap();
        let endpoint = described.lines().find_map(|line| line.strip_prefix("endpoint = ")).unwrap();
        fs::write(farm.path("rclone.conf"), described.replace(endpoint, &store.url())).unwrap();
        if wrapped {
            std::os::unix::fs::symlink(wrapper(), farm.bin_dir().join("rclone")).unwrap();
        }
        Some(Self { store, upstream, farm })
    }

    /// Runs one sweep and returns its requests to the store.
    fn sweep(&self) -> Vec<Request> {
        let mut command = self.farm.command(&["--once"]);
        command.arg("--config").arg(self.farm.config_path());
        command.env("RCLONE_CONFIG", self.farm.path("rclone.conf"));
        command.env("PEIPKG_RCLONE", find_program("rclone").unwrap());
        // Some machines set this variable to a file that rclone cannot read.
        command.env_remove("AWS_CA_BUNDLE");
        let output = Running::spawn(&mut command).wait_exit(PATIENCE);
        output.assert_success();
        output.event("upload complete");
        assert_eq!(self.store.objects(), self.repository());
        self.store.take_requests()
    }

    #[track_caller]
    fn assert_cache_headers(&self) {
        let found = self.store.cache_controls();
        assert!(found.len() > 4, "{found:#?}");
        for (key, found) in &found {
            let is_immutable = key.ends_with(".peipkg") || key.starts_with("packages/keys/");
            let expected = if is_immutable { FOREVER } else { "no-cache" };
            assert_eq!(found.as_deref(), Some(expected), "{key}");
        }
    }

    /// The expected objects: the files of the repository.
    fn repository(&self) -> BTreeMap<String, Vec<u8>> {
        let root = self.farm.repo_dir();
        let files = run(Command::new("find").arg(&root).args(["-type", "f"]));
        let name = |file: &str| format!("packages{}", file.strip_prefix(root.to_str().unwrap()).unwrap());
        files.lines().map(|file| (name(file), fs::read(file).unwrap())).collect()
    }
}

fn puts(requests: &[Request]) -> Vec<&Request> {
    requests.iter().filter(|request| request.method == "PUT").collect()
}

fn is_entry_point(request: &Request) -> bool {
    let starts = ["index/", "repo.json", "index.html", "feed.xml", "assets/"];
    starts.iter().any(|start| request.key.starts_with(start))
}

fn count(requests: &[Request], method: &str) -> usize {
    requests.iter().filter(|request| request.method == method).count()
}

#[test]
fn upload_with_the_wrapper_sets_cache_headers_packages_first() {
    let Some(site) = Site::new(true) else { return };
    let requests = site.sweep();
    let puts = puts(&requests);
    site.assert_cache_headers();
    let first = puts.iter().position(|put| is_entry_point(put)).expect("an index");
    assert!(first >= 2 && puts[first..].iter().all(|put| is_entry_point(put)), "{puts:#?}");

    // The next upload asks for no object that exists, and sends the new ones.
    site.upstream.add_versions(&["1.1"]);
    let requests = site.sweep();
    let sent = |requests: &[Request]| {
        let sent = requests.iter().filter(|put| put.method == "PUT" && !is_entry_point(put));
        let mut sent: Vec<String> = sent.map(|put| put.key.clone()).collect();
        sent.sort();
        sent
    };
    let new = ["files.json", "manifest.json", "provenance.json", "tool_1.1-1_noarch.peipkg"];
    assert_eq!(sent(&requests), new.map(|name| format!("p/tool/1.1-1/{name}")));
    let old = |request: &&Request| {
        request.method == "HEAD" && request.key.starts_with("p/") && !request.key.contains("1.1-1")
    };
    assert_eq!(requests.iter().filter(old).count(), 0, "{requests:#?}");
    // A file with a new time only, such as the descriptor, keeps its header.
    site.assert_cache_headers();

    // A sidecar of another content and the same length is sent again.
    let sidecar = site.farm.repo_dir().join("p/tool/1.0-1/manifest.json");
    fs::write(&sidecar, fs::read_to_string(&sidecar).unwrap().replace("A program", "a program")).unwrap();
    site.upstream.add_versions(&["1.2"]);
    assert!(sent(&site.sweep()).contains(&"p/tool/1.0-1/manifest.json".to_owned()));
}

/// Only packages and keys keep their bytes under one name.
#[test]
fn upload_with_the_wrapper_replaces_other_files_of_the_same_size() {
    let Some(site) = Site::new(true) else { return };
    site.sweep();
    let others = ["robots.txt", "p/tool/1.0-1/notes.json", "assets/fonts/a.css"];
    fs::create_dir(site.farm.repo_dir().join("assets/fonts")).unwrap();
    for (version, text) in [("1.1", "one"), ("1.2", "two")] {
        for other in others {
            fs::write(site.farm.repo_dir().join(other), text).unwrap();
        }
        site.upstream.add_versions(&[version]);
        // The sweep compares every object with the repository.
        site.sweep();
        site.assert_cache_headers();
    }
    for other in others {
        fs::remove_file(site.farm.repo_dir().join(other)).unwrap();
    }
    site.upstream.add_versions(&["1.3"]);
    site.sweep();
}

#[test]
fn upload_without_the_wrapper_costs_two_requests_per_package_and_directory() {
    let Some(site) = Site::new(false) else { return };
    let first = site.sweep();
    assert!(puts(&first).iter().all(|put| put.cache_control.is_none()), "{first:#?}");
    site.upstream.add_versions(&["1.1"]);
    let requests = site.sweep();
    let old = |request: &&Request| request.method == "HEAD" && request.key.ends_with("1.0-1_noarch.peipkg");
    assert_eq!(requests.iter().filter(old).count(), 2, "{requests:#?}");
    assert!(count(&requests, "LIST") > 2 * 3, "{requests:#?}");
}

#[test]
fn upload_can_be_asked_for() {
    let Some(site) = Site::new(true) else { return };
    site.sweep();
    // The page's command for a repository older than its remote.
    let touch = blocks(&page("docs/hosting.md"), "sh");
    let touch = touch.lines().find(|line| line.starts_with("touch ")).unwrap();
    let touch = touch.replace("/var/lib/peipkg-manager", &site.farm.state_dir().display().to_string());
    run(Command::new("sh").arg("-c").arg(touch));
    assert!(!site.sweep().is_empty());
}

#[test]
fn wrapper_is_plain_shell_and_passes_other_commands_on() {
    if require("shellcheck") {
        run(Command::new("shellcheck").args(["--shell", "sh"]).arg(wrapper()));
    }
    let wrapped = |arguments: &[&str], real: &str| {
        Running::spawn(Command::new(wrapper()).args(arguments).env("PEIPKG_RCLONE", real)).wait_exit(PATIENCE)
    };
    for arguments in [&["copy", "a", "b"][..], &["version"], &["sync", "--include", "*.txt", "a", "b"], &[]] {
        let output = wrapped(arguments, "/bin/echo");
        assert_eq!(output.assert_success().stdout, format!("{}\n", arguments.join(" ")));
    }
    wrapped(&[], wrapper().to_str().unwrap())
        .assert_code(1)
        .assert_one_line(&["PEIPKG_RCLONE is this script"]);
}
