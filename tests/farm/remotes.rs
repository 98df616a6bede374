//! Uploads: the files that reach the remote, their order, and the files that stay there.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::farm::{Farm, FarmBuilder, published_in, remote_directory};
use crate::support::git_repo::{GitRepo, run};
use crate::support::optional::require;
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::tools::Tools;
use crate::support::wait::{PATIENCE, poll};

/// The files below `root`, relative and sorted, with their content.
pub(crate) fn tree(root: &Path) -> Vec<(String, Vec<u8>)> {
    let (mut files, mut pending) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let name = path.strip_prefix(root).expect("below the root").display().to_string();
                files.push((name, fs::read(path).expect("a file")));
            }
        }
    }
    files.sort();
    files
}

/// A farm with one recipe that uploads to `remote`.
fn uploading(repo: &GitRepo, remote: &Path) -> FarmBuilder {
    Farm::builder().with(&Recipe::program("tool", &repo.file_url())).rclone(remote)
}

#[test]
fn upload_makes_the_remote_equal_to_the_repository() {
    let Some((_home, copy)) = remote_directory() else { return };
    let repo = GitRepo::program(&["1.0"]);
    let farm = uploading(&repo, &copy).build();
    farm.once().assert_success().event("upload complete");
    // Files of an operator, beside those of the browse site.
    fs::create_dir_all(farm.repo_dir().join("assets/fonts/open")).unwrap();
    for file in ["assets/logo.svg", "assets/fonts/a.woff", "assets/fonts/open/b.woff"] {
        fs::write(farm.repo_dir().join(file), file).unwrap();
    }
    repo.add_versions(&["1.1"]);
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert!(!output.events("upload complete").is_empty(), "{output}");
    assert_eq!(published_in(&copy), ["tool 1.0-1 noarch", "tool 1.1-1 noarch"]);
    assert!(tree(&copy) == tree(&farm.repo_dir()));
    // Without a new package there is nothing to upload.
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert!(output.events("upload complete").is_empty(), "{output}");
    // The remote loses the files that the repository lacks.
    fs::write(copy.join("stale"), "").unwrap();
    fs::remove_dir_all(farm.repo_dir().join("assets/fonts/open")).unwrap();
    repo.add_versions(&["1.2"]);
    farm.once().assert_success().event("upload complete");
    assert!(tree(&copy) == tree(&farm.repo_dir()));
}

#[test]
fn upload_sends_packages_before_the_files_that_name_them() {
    let Some((_home, copy)) = remote_directory() else { return };
    let repo = GitRepo::program(&["1.0"]);
    let script = format!(
        "#!/bin/sh\n{{real}} \"$@\" || exit\n\
         (cd {} && find . -name '*.peipkg' -o -name repo.json -o -name archive.json | sort | tr '\\n' ' ')>>\"$HOME/passes\"\n\
         echo \"$1\" >>\"$HOME/passes\"\n",
        copy.display()
    );
    let farm = uploading(&repo, &copy).program("rclone", &script).build();
    farm.once().assert_success().assert_only_events().event("upload complete");
    let package = "./p/tool/1.0-1/tool_1.0-1_noarch.peipkg ";
    let all = format!("./index/archive.json {package}./repo.json ");
    let expected = format!("{package}copy\n{all}sync\n{all}sync\n");
    assert_eq!(fs::read_to_string(farm.path("passes")).unwrap(), expected);
}

#[test]
fn upload_failed_is_repeated_by_the_next_sweep() {
    let Some((_home, copy)) = remote_directory() else { return };
    let repo = GitRepo::program(&["1.0"]);
    let script = "#!/bin/sh\n[ -e \"$HOME/offline\" ] && { echo 'no route to host' >&2; exit 5; }\nexec {real} \"$@\"\n";
    let farm = uploading(&repo, &copy).program("rclone", script).build();
    fs::write(farm.path("offline"), "").unwrap();
    let output = farm.once();
    output.assert_success().assert_only_events();
    let failed = output.event("upload failed");
    assert_eq!((failed["level"].as_str(), failed.get("next_retry_after")), ("error", None));
    assert!(failed["error"].contains("rclone copy exited with status 5: no route to host"), "{output}");
    assert!(
        output.events("build failed").is_empty() && output.events("publish failed").is_empty(),
        "{output}"
    );
    farm.assert_published(&["tool 1.0-1 noarch"]);
    farm.assert_clean();
    fs::remove_file(farm.path("offline")).unwrap();
    let output = farm.once();
    output.assert_success().assert_only_events().event("upload complete");
    assert!(output.events("starting build").is_empty(), "{output}");
    assert!(tree(&copy) == tree(&farm.repo_dir()));
}

/// Lets an rclone read no settings, and make no directory for them at home.
fn without_settings(rclone: &mut Command) -> &mut Command {
    rclone.env("RCLONE_CONFIG", "/dev/null").env("XDG_CONFIG_HOME", "/dev/null")
}

/// Starts an rclone that serves the directory `root` over `WebDAV` on a free port of 127.0.0.1.
/// Returns its address too.
fn serve_webdav(root: &Path) -> (Running, String) {
    let mut command = Command::new("rclone");
    command.args(["serve", "webdav", "--addr", "127.0.0.1:0"]).arg(root);
    without_settings(&mut command);
    let mut server = Running::spawn(&mut command);
    let url = poll(PATIENCE, || {
        assert!(!server.has_ended(), "{}", server.stderr());
        let text = server.stderr();
        let (_, rest) = text.split_once("http://127.0.0.1:")?;
        let port = rest.split_once('/')?.0;
        Some(format!("http://127.0.0.1:{port}"))
    });
    (server, url.expect("an address"))
}

#[test]
fn upload_remote_has_no_times_sends_every_index_and_signature() {
    if !require("rclone") {
        return;
    }
    let remote = tempfile::tempdir().unwrap();
    let (_server, url) = serve_webdav(remote.path());
    // Such a remote does not keep times, so rclone takes files of the same length for equal.
    let address = format!(":webdav,url='{url}',vendor=other:");
    let repo = GitRepo::program(&["1.0"]);
    let farm = uploading(&repo, address.as_ref()).build();
    farm.once().assert_success().assert_only_events().event("upload complete");
    repo.add_versions(&["1.1"]);
    farm.once().assert_success().assert_only_events().event("upload complete");
    assert!(tree(remote.path()) == tree(&farm.repo_dir()));
    run(Command::new(&Tools::get().repo).args(["verify", "--mode", "both", "--repo"]).arg(remote.path()));
}

#[test]
fn upload_not_begun_is_run_by_the_next_start() {
    let Some((_home, copy)) = remote_directory() else { return };
    let repo = GitRepo::program(&["1.0"]);
    // The manager dies in the verification before the upload: only a marker tells the next start of
    // the publish.
    let script = "#!/bin/sh\n[ \"$1\" = verify ] && [ ! -e \"$HOME/died\" ] || exec {real} \"$@\"\n\
                  : >\"$HOME/died\"; kill -9 \"$PPID\"\n";
    let farm = uploading(&repo, &copy).program("peipkg-repo", script).build();
    assert_eq!(farm.once().status.code(), None);
    assert!(farm.kept().is_empty() && !copy.exists());
    farm.once_without_builds(&["tool 1.0-1 noarch"]).event("upload complete");
    assert!(tree(&copy) == tree(&farm.repo_dir()));
}

#[test]
fn upload_repository_does_not_verify_is_refused() {
    let Some((_home, copy)) = remote_directory() else { return };
    let repo = GitRepo::program(&["1.0"]);
    let farm = uploading(&repo, &copy).build();
    farm.once().assert_success().assert_only_events().event("upload complete");
    let before = tree(&copy);
    let signature = farm.repo_dir().join("index/active.json.sig");
    let whole = fs::read(&signature).unwrap();
    fs::copy(farm.repo_dir().join("index/archive.json.sig"), &signature).unwrap();
    fs::write(farm.path("state/upload-owed"), "").unwrap();
    let failed = farm.once().assert_success().assert_only_events().event("upload failed");
    assert!(failed["error"].contains("peipkg-repo verify exited with status 1"), "{failed:?}");
    assert!(tree(&copy) == before);
    fs::write(&signature, whole).unwrap();
    farm.once().assert_success().assert_only_events().event("upload complete");
}

#[test]
fn upload_repository_lost_packages_keeps_them_on_the_remote() {
    let Some((_home, copy)) = remote_directory() else { return };
    let repo = GitRepo::program(&["1.0"]);
    let farm = uploading(&repo, &copy).build();
    farm.once().assert_success().assert_only_events().event("upload complete");
    let before = tree(&copy);
    let package = farm.repo_dir().join("p/tool/1.0-1/tool_1.0-1_noarch.peipkg");
    let (packages, aside) = (farm.repo_dir().join("p"), farm.path("aside"));

    // The disk is not mounted.
    fs::rename(&packages, &aside).unwrap();
    fs::write(farm.path("state/upload-owed"), "").unwrap();
    let failed = farm.once().assert_success().assert_only_events().event("upload failed");
    let expected = format!("the archive index names {}, but it is not there; restore it", package.display());
    assert!(failed["error"].contains(&expected), "{failed:?}");
    assert!(tree(&copy) == before);

    // A package is truncated; a new version must not hide that.
    fs::rename(&aside, &packages).unwrap();
    let whole = fs::read(&package).unwrap();
    fs::write(&package, &whole[1..]).unwrap();
    repo.add_versions(&["1.1"]);
    let output = farm.once();
    output.assert_success().assert_only_events().event("build + publish complete");
    let sizes = format!("it has {} bytes, expected {}", whole.len() - 1, whole.len());
    let failed = output.events("upload failed");
    assert!(!failed.is_empty() && failed.iter().all(|event| event["error"].contains(&sizes)), "{output}");
    assert!(tree(&copy) == before);

    fs::write(&package, &whole).unwrap();
    farm.once().assert_success().assert_only_events().event("upload complete");
    assert!(tree(&copy) == tree(&farm.repo_dir()));
}

#[test]
fn upload_remote_has_other_files_is_refused() {
    if !require("rclone") {
        return;
    }
    let remote = tempfile::tempdir().unwrap();
    fs::create_dir(remote.path().join("photos")).unwrap();
    fs::write(remote.path().join("photos/cat"), "").unwrap();
    let before = tree(remote.path());
    let repo = GitRepo::program(&["1.0"]);
    let farm = uploading(&repo, remote.path()).build();
    let failed = farm.once().assert_success().assert_only_events().event("upload failed");
    assert!(failed["error"].starts_with("the remote has \"photos/\" and no index: "), "{failed:?}");
    assert!(failed["error"].ends_with("give the repository another remote, or empty this one"), "{failed:?}");
    assert!(tree(remote.path()) == before);
    // The remains of an interrupted upload do not prevent the next; neither do files that no upload
    // removes.
    fs::rename(remote.path().join("photos"), remote.path().join("p")).unwrap();
    for directory in [remote.path(), &farm.repo_dir()] {
        fs::write(directory.join("robots.txt"), "").unwrap();
    }
    fs::write(remote.path().join(".htaccess"), "").unwrap();
    farm.once().assert_success().assert_only_events().event("upload complete");
    fs::remove_file(remote.path().join(".htaccess")).expect("a file that stays");
    assert!(tree(remote.path()) == tree(&farm.repo_dir()));
}

#[test]
fn upload_repository_begun_anew_does_not_replace_the_remote() {
    let Some((_home, copy)) = remote_directory() else { return };
    let repo = GitRepo::program(&["1.0", "1.1"]);
    let farm = uploading(&repo, &copy).build();
    assert!(!farm.once().assert_success().events("upload complete").is_empty());
    let before = tree(&copy);

    // First with a lower index version than the remote's; then with a higher one, but without its
    // packages.
    repo.git(&["tag", "--delete", "v1.0"]);
    fs::remove_dir_all(farm.repo_dir()).unwrap();
    let output = farm.once();
    output.assert_success().assert_only_events();
    let failed = output.events("upload failed").pop().expect("an upload that failed");
    assert!(failed["error"].contains("the remote has index_version 3, this repository "), "{output}");
    assert!(failed["error"].contains("restore the repository from the remote"), "{output}");
    assert!(tree(&copy) == before);
    for version in ["1.2", "1.3"] {
        repo.add_versions(&[version]);
        farm.once().assert_success();
    }
    let output = farm.once();
    output.assert_success().assert_only_events();
    let failed = output.event("upload failed");
    assert!(
        failed["error"].contains("the remote has tool 1.0-1 noarch, which this repository lacks"),
        "{output}"
    );
    assert!(tree(&copy) == before);

    // The command from the manual.
    fs::remove_dir_all(farm.repo_dir()).unwrap();
    run(without_settings(Command::new("rclone").arg("copy").args([&copy, &farm.repo_dir()])));
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert!(!output.events("upload complete").is_empty(), "{output}");
    assert!(output.events("upload failed").is_empty(), "{output}");
    farm.assert_published(&[
        "tool 1.0-1 noarch",
        "tool 1.1-1 noarch",
        "tool 1.2-1 noarch",
        "tool 1.3-1 noarch",
    ]);
    farm.assert_verifies();
    assert!(tree(&copy) == tree(&farm.repo_dir()));
}

#[test]
fn upload_package_is_being_written_does_not_fail() {
    let Some((_home, copy)) = remote_directory() else { return };
    let repo = GitRepo::program(&["1.0"]);
    // Print rclone's message once in each pass over the packages.
    let script = "#!/bin/sh\ncase $* in *--exclude*) [ -e \"$HOME/met-$1\" ] || {\n: >\"$HOME/met-$1\"\n\
         echo \"Failed to copy: can't copy - source file is being updated (size changed from 1 to 2)\" >&2\n\
         exit 6; } ;; esac\nexec {real} \"$@\"\n";
    let farm = uploading(&repo, &copy).program("rclone", script).build();
    let output = farm.once();
    output.assert_success().assert_only_events();
    assert!(output.events("upload failed").is_empty(), "{output}");
    output.event("upload complete");
    assert!(farm.path("met-copy").exists() && farm.path("met-sync").exists());
    assert!(tree(&copy) == tree(&farm.repo_dir()));
}
