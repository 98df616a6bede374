//! The begin of an upload: the repository is settled, and no publish changes it meanwhile.

use std::path::Path;

use rustix::io::Errno;

use crate::support::farm::{Farm, FarmBuilder, published_in, remote_directory};
use crate::support::git_repo::GitRepo;
use crate::support::recipes::Recipe;
use crate::support::running::os_error;

/// Shell functions for stand-ins of programs. `await PATTERN` waits for a file, a minute at most;
/// `number NAME` says how often it was called with it.
const SHELL: &str = "#!/bin/sh
await() { tries=6000; until ls $1 >/dev/null 2>&1; do tries=$((tries - 1)); [ $tries -gt 0 ] || exit 9; sleep 0.01; done; }
number() { echo >>\"$HOME/$1\"; wc -l <\"$HOME/$1\"; }
";

/// A farm with `versions` to build that uploads to `remote`.
fn uploading(remote: &Path, versions: &[&str]) -> (GitRepo, FarmBuilder) {
    let repo = GitRepo::program(versions);
    let builder = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).rclone(remote);
    (repo, builder)
}

#[test]
fn publish_not_undone_is_undone_before_an_upload() {
    let Some((_home, copy)) = remote_directory() else { return };
    // The third publish leaves an index that verifies but names a missing package, and a directory
    // in the way of the old index.
    let publish = format!(
        "{SHELL}[ \"$1\" = publish ] && [ $(number publishes) = 3 ] || exec {{real}} \"$@\"\n\
         {{real}} \"$@\" && cd \"$HOME/state/repo\" && rm -r p/tool/1.1-1 && mkdir index/archive.json.new\nexit 1\n"
    );
    // The second build waits for the first upload, which waits for the fourth build; that one waits
    // for the end of the third publish, removes the directory and fails. The third build waits for the
    // second publish, which could bring its version too otherwise.
    let build = format!(
        "{SHELL}[ \"$1\" = build ] || exec {{real}} \"$@\"\ncase $(number builds) in\n2) await \"$HOME/uploading\" ;;\n\
         3) until grep -q '\"1.2-1\"' \"$HOME/state/repo/index/archive.json\"; do sleep 0.01; done ;;\n\
         4) until grep -q 'publish failed' $HOME/state/logs/tool/*_1.1-1_*; do sleep 0.01; done\n\
         rm -r \"$HOME/state/repo/index/archive.json.new\" && : >\"$HOME/go\"; exit 1 ;;\nesac\nexec {{real}} \"$@\"\n"
    );
    let upload = format!("{SHELL}: >\"$HOME/uploading\"\nawait \"$HOME/go\"\nexec {{real}} \"$@\"\n");
    let (_repo, builder) = uploading(&copy, &["1.0", "1.1", "1.2", "1.3"]);
    let programs = [("peipkg-repo", publish), ("peipkg-build", build), ("rclone", upload)];
    let farm = programs.iter().fold(builder, |farm, (name, script)| farm.program(name, script)).build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    let failed = output.event("publish failed");
    assert!(failed["version"] == "1.1-1" && failed["error"].contains(&os_error(Errno::ISDIR)), "{output}");
    assert_eq!(output.event("build failed")["version"], "1.0-1");
    output.event("publish was cut short, repository restored");
    assert!(output.events("upload failed").is_empty(), "{output}");
    assert_eq!(output.events("upload complete").len(), 2, "{output}");
    assert_eq!(published_in(&copy), ["tool 1.2-1 noarch", "tool 1.3-1 noarch"]);
}

#[test]
fn upload_reads_the_repository_publishing_waits() {
    let Some((_home, copy)) = remote_directory() else { return };
    // Hold the first upload's verification until the manager is about to publish the second
    // version, and a second longer: a publish that does not wait would happen in that time. The
    // second build waits for that verification.
    let script = format!(
        "{SHELL}case $1 in\npublish) [ $(number publishes) = 1 ] || : >\"$HOME/publishing\" ;;\n\
         verify) if [ $(number verifies) = 1 ]; then\n: >\"$HOME/verifying\"\nawait \"$HOME/state/publish/*/job.json\"\n: >\"$HOME/ready\"\n\
         for i in $(seq 100); do [ -e \"$HOME/publishing\" ] && : >\"$HOME/overlap\"; sleep 0.01; done\nfi ;;\n\
         esac\nexec {{real}} \"$@\"\n"
    );
    let (_repo, builder) = uploading(&copy, &["1.0", "1.1"]);
    let build =
        format!("{SHELL}[ $(number builds) = 1 ] || await \"$HOME/verifying\"\nexec {{real}} \"$@\"\n");
    let farm = builder.program("peipkg-repo", &script).program("peipkg-build", &build).build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert!(farm.path("ready").exists() && farm.path("publishing").exists(), "{output}");
    assert!(!farm.path("overlap").exists(), "{output}");
    assert_eq!(published_in(&copy), ["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
}
