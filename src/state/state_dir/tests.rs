//! The lock, the leftovers and the permissions of a state directory.

use super::*;

#[test]
fn second_manager_is_refused_with_the_holders_process() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    let error = StateDir::open(root.path()).unwrap_err().to_string();
    assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
    drop(state);
    assert_eq!(
        fs::read_to_string(root.path().join("lock")).unwrap(),
        "",
        "the id of a process that has ended"
    );
    StateDir::open(root.path()).unwrap();
}

#[test]
fn only_the_repository_is_readable_by_others() {
    let root = tempfile::tempdir().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let state = StateDir::open(root.path()).unwrap();
    let private = [state.sources(), state.stage(), state.publish(), state.logs()];
    assert_eq!(private.each_ref().map(|path| mode(path)), [0o700; 4]);
    drop(state);
    // An earlier version created them so.
    for path in &private {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    drop(StateDir::open(root.path()).unwrap());
    assert_eq!(private.each_ref().map(|path| mode(path)), [0o700, 0o750, 0o750, 0o750]);
}

#[test]
fn leftovers_are_removed_and_links_not_followed() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), "").unwrap();
    let state = StateDir::open(root.path()).unwrap();
    fs::create_dir_all(state.sources().join("a/b")).unwrap();
    std::os::unix::fs::symlink(outside.path(), state.sources().join("a/link")).unwrap();
    std::os::unix::fs::symlink(outside.path(), state.stage().join("link")).unwrap();
    fs::write(state.publish().join("pending"), "").unwrap();
    assert!(state.clear_leftovers().is_empty());
    assert!(fs::read_dir(state.sources()).unwrap().next().is_none());
    assert!(fs::read_dir(state.stage()).unwrap().next().is_none());
    assert!(state.publish().join("pending").exists());
    assert!(outside.path().join("precious").exists());
}

#[test]
fn work_name_is_the_subject_unless_something_holds_it() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::open(root.path()).unwrap();
    for directory in [state.sources(), state.stage()] {
        fs::create_dir_all(directory.join("lib@1-1/left")).unwrap();
    }
    let free = |_: &[&Path]| false;
    assert_eq!(state.work_name("lib@1-1", free), "lib@1-1");
    assert!(!state.sources().join("lib@1-1").exists() && !state.stage().join("lib@1-1").exists());
    let held = |held: PathBuf| move |paths: &[&Path]| paths.contains(&held.as_path());
    assert_eq!(state.work_name("lib@1-1", held(state.sources().join("lib@1-1"))), "lib@1-1.2");
    assert_eq!(state.work_name("lib@1-1", held(state.stage().join("lib@1-1"))), "lib@1-1.2");
    assert!(state.work_name("lib@1-1", |_: &[&Path]| true).starts_with("lib@1-1."));
    // A survivor may have the path without the links that lead to it.
    let link = root.path().join("link");
    std::os::unix::fs::symlink("linked", &link).unwrap();
    fs::create_dir(root.path().join("linked")).unwrap();
    let linked = StateDir::open(&link).unwrap();
    let real = root.path().canonicalize().unwrap().join("linked/stage/lib@1-1");
    assert_eq!(linked.work_name("lib@1-1", held(real)), "lib@1-1.2");
}

#[test]
fn directory_not_writable_is_an_error() {
    let error = StateDir::open(Path::new("/dev/null/state")).unwrap_err().to_string();
    assert!(error.starts_with("state_dir /dev/null/state: "), "{error}");
}

#[test]
fn probe_finds_obstacles_and_creates_nothing() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("var/state");
    let probe = || StateDir::probe(&root).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(probe().is_empty());
    assert!(fs::read_dir(home.path()).unwrap().next().is_none());

    fs::write(home.path().join("var"), "").unwrap();
    let found = probe();
    assert!(matches!(&found[..], [one] if one.contains("Not a directory")), "{found:?}");

    fs::remove_file(home.path().join("var")).unwrap();
    fs::create_dir(home.path().join("var")).unwrap();
    std::os::unix::fs::symlink("nowhere", &root).unwrap();
    let found = probe();
    assert!(matches!(&found[..], [one] if one.contains("No such file")), "{found:?}");

    fs::remove_file(&root).unwrap();
    drop(StateDir::open(&root).unwrap());
    assert!(probe().is_empty());
    for name in ["stage", "publish"] {
        fs::remove_dir(root.join(name)).unwrap();
        fs::write(root.join(name), "").unwrap();
    }
    let found = probe();
    let expected = ["stage", "publish"].map(|name| {
        let reason =
            "cannot write to the state_dir: not a directory; the manager must be able to write there";
        format!("{}: {reason}", root.join(name).display())
    });
    assert_eq!(found, expected);
}
