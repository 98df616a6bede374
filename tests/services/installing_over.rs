//! `make install` and `make uninstall` over existing files, and when they are interrupted.

use std::fs;

use tempfile::TempDir;

use crate::support::executable;
use crate::support::install::{CONFIG, LIST, MANAGER, Root, UNIT, destdir, make_command, tree};
use crate::support::processes::status_field;
use crate::support::running::Running;
use crate::support::wait::PATIENCE;

#[test]
fn files_of_others_are_neither_overwritten_nor_removed() {
    const TOOL: &str = "/usr/local/bin/peipkg-build";
    const PAGE: &str = "/usr/local/share/man/man8/peipkg-manager.8";
    let root = Root::new();
    root.write(CONFIG, "# mine\n");
    root.write(TOOL, "the official one");
    root.write(PAGE, "another manager's");
    let install = root.install(&["TOOLS=no", "INIT=systemd"]);
    assert!(
        install.stdout.contains("man8/peipkg-manager.8, which make install did not write\n"),
        "{install}"
    );
    assert_eq!(root.read(PAGE), "another manager's");
    assert_eq!((root.read(CONFIG).as_str(), root.read(TOOL).as_str()), ("# mine\n", "the official one"));
    assert!(!root.path("/usr/local/bin/peipkg-repo").exists());
    root.write(UNIT, "[Service]\nExecStart=/mine\n");
    let update = root.install(&["TOOLS=no", "INIT=systemd"]);
    let documents = root.path("/usr/local/share/doc/peipkg-manager/contrib");
    let says = format!(
        "kept {}, which make install with PREFIX=/usr/local did not write; compare it with {}\n",
        root.path(UNIT).display(),
        documents.join("systemd/peipkg-manager.service").display()
    );
    assert!(update.stdout.contains(&says), "{update}");
    assert_eq!(root.read(UNIT), "[Service]\nExecStart=/mine\n");
    // Another package, say, replaces the program.
    root.write(MANAGER, "another");
    let removal = root.uninstall();
    assert!(
        removal.stdout.contains("bin/peipkg-manager, which was changed after the install\n"),
        "{removal}"
    );
    assert_eq!(tree(root.dir()), [CONFIG, TOOL, MANAGER, UNIT, PAGE]);
}

#[test]
fn programs_of_others_are_replaced_only_on_request() {
    const BUILD: &str = "/usr/local/bin/peipkg-build";
    let kept = format!("{BUILD}.orig");
    let root = Root::new();
    let refused = |variables: &[&str], choices: &str| {
        let output = root.make("install", variables);
        output.assert_code(2);
        for word in [root.path(BUILD).to_str().unwrap(), choices] {
            assert!(output.stderr.contains(word), "expected {word:?}\n{output}");
        }
    };
    root.write(BUILD, "the official one");
    refused(&["INIT=sysvinit"], "; give TOOLS=no, another PREFIX, or REPLACE=yes");
    root.write(MANAGER, "the other manager");
    refused(&[], "; give another PREFIX, or REPLACE=yes");
    assert_eq!(tree(root.dir()), [BUILD, MANAGER], "a refused installation wrote files");

    // An update needs no REPLACE=yes, and keeps no second original.
    for variables in [&["REPLACE=yes"][..], &["REPLACE=yes"], &[]] {
        root.install(variables);
        assert_eq!(root.read(&kept), "the official one");
    }
    assert!(fs::read(root.path(BUILD)).unwrap().starts_with(b"\x7fELF"));
    let removal = root.uninstall();
    assert!(removal.stdout.contains("bin/peipkg-build from peipkg-build.orig\n"), "{removal}");
    assert_eq!(tree(root.dir()), [BUILD, MANAGER]);
    assert_eq!(
        (root.read(BUILD).as_str(), root.read(MANAGER).as_str()),
        ("the official one", "the other manager")
    );

    // A package overwrites our program and does not know the kept original.
    root.install(&["REPLACE=yes"]);
    root.write(BUILD, "a newer official one");
    refused(&[], "REPLACE=yes");
    refused(&["REPLACE=yes"], "to peipkg-build.orig, which exists");
    root.uninstall();
    assert_eq!(tree(root.dir()), [BUILD, &kept, MANAGER]);
    assert_eq!(
        (root.read(BUILD).as_str(), root.read(&kept).as_str()),
        ("a newer official one", "the official one")
    );
}

/// `make install` into `root` with a stand-in for `install`, which runs `script` and then becomes the
/// machine's program.
fn install_with_stand_in(root: &Root, script: &str) {
    let programs = TempDir::with_prefix("programs-").unwrap();
    let stand_in = format!("#!/bin/sh\nPATH=${{PATH#*:}}\n{script}\nexec install \"$@\"\n");
    executable::write(&programs.path().join("install"), stand_in.as_bytes());
    let machine = std::env::var_os("PATH").unwrap();
    let path = std::iter::once(programs.path().to_owned()).chain(std::env::split_paths(&machine));
    let mut command = make_command("install", &[&destdir(root.dir())]);
    command.env("PATH", std::env::join_paths(path).unwrap());
    Running::spawn(&mut command).wait_exit(PATIENCE).assert_code(2);
}

#[test]
fn install_fails_can_be_undone() {
    let root = Root::new();
    // As on a full disk.
    install_with_stand_in(&root, "case $* in *man8*) exit 1 ;; esac");
    assert!(root.path(MANAGER).exists() && !root.path(CONFIG).exists(), "{:?}", tree(root.dir()));
    root.uninstall();
    assert_eq!(tree(root.dir()), [] as [&str; 0]);
}

/// Whether the test run ignores a signal, for example under nohup: a shell cannot catch it then.
fn is_ignored(number: u32) -> bool {
    u64::from_str_radix(&status_field("self", "SigIgn"), 16).unwrap() & (1 << (number - 1)) != 0
}

#[test]
fn install_ended_by_a_signal_can_be_undone() {
    for (signal, number) in [("HUP", 1), ("INT", 2), ("TERM", 15)] {
        if is_ignored(number) {
            continue;
        }
        let root = Root::new();
        // In the middle of its work.
        install_with_stand_in(&root, &format!("case $* in *man8*) kill -{signal} $PPID ;; esac"));
        assert!(root.path(MANAGER).exists() && !root.path(CONFIG).exists(), "{:?}", tree(root.dir()));
        root.uninstall();
        assert_eq!(tree(root.dir()), [] as [&str; 0], "{signal}");
    }
}

#[test]
fn service_file_of_another_prefix_stays_and_is_not_called_changed() {
    const SCRIPT: &str = "/etc/init.d/peipkg-manager";
    let root = Root::new();
    root.install(&["INIT=sysvinit"]);
    let script = root.read(SCRIPT);
    let second = root.install(&["INIT=sysvinit", "PREFIX=/opt/farm"]);
    let place = root.path(SCRIPT).display().to_string();
    let says = format!("kept {place}, which make install with PREFIX=/opt/farm did not write;");
    assert!(second.stdout.contains(&says) && !second.stdout.contains("changed"), "{second}");
    assert_eq!(root.read(SCRIPT), script);
}

#[test]
fn directory_in_the_place_of_a_file_is_refused() {
    const PAGE: &str = "/usr/local/share/doc/peipkg-manager/docs/recovery.md";
    for place in [UNIT, PAGE] {
        let root = Root::new();
        let mine = format!("{place}/mine");
        root.write(&mine, "mine");
        let output = root.make("install", &["INIT=systemd"]);
        output.assert_code(2);
        let place = root.path(place).display().to_string();
        let expected = format!("make install: {place} is a directory, expected a file: move it away");
        let lines: Vec<&str> = output.stderr.lines().filter(|line| !line.contains("***")).collect();
        assert_eq!(lines, [expected], "{output}");
        if root.path(LIST).exists() {
            root.uninstall();
        }
        assert_eq!(tree(root.dir()), [mine]);
    }
}
