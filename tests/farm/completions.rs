//! Shell completions: runs each in its own shell and compares its offers with the table of flags.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use peipkg_manager::cli::{self, Flag};

use crate::support::git_repo::run;
use crate::support::optional::require;

const LEVELS: [&str; 4] = ["debug", "error", "info", "warn"];

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("contrib/completions").join(name)
}

/// Runs `script` in `shell`, with the file of completions as its first argument and then `words`.
#[track_caller]
pub(crate) fn ask(shell: &[&str], script: &str, name: &str, words: &[&str]) -> Vec<String> {
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).arg("-c").arg(script);
    // fish has no name for the script.
    if shell[0] != "fish" {
        command.arg(shell[0]);
    }
    // fish makes directories for its settings and its history.
    let home = TempDir::with_prefix("shell-").unwrap();
    for place in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"] {
        command.env(place, home.path());
    }
    command.arg(file(name)).args(words).current_dir(env!("CARGO_MANIFEST_DIR"));
    let mut lines: Vec<String> = run(&mut command).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// The flags as `--name`, sorted.
fn flags() -> Vec<String> {
    let mut flags: Vec<String> = cli::FLAGS.iter().map(|flag| format!("--{}", flag.long)).collect();
    flags.sort();
    flags
}

#[test]
fn bash_completes_every_flag_and_its_value() {
    // Do as bash does on a tab: put the words into an array and call the function.
    const SCRIPT: &str = r#"
        set -eu
        . "$1"; shift
        complete -p peipkg-manager | grep -q -- '-F _peipkg_manager '
        COMP_WORDS=(peipkg-manager "$@") COMP_CWORD=$#
        # Outside of a completion `compopt` fails.
        _peipkg_manager || :
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let offered = |words: &[&str]| ask(&["bash", "--norc"], SCRIPT, "peipkg-manager.bash", words);
    assert_eq!(offered(&["--"]), flags());
    assert_eq!(offered(&["--once", ""]), flags());
    assert_eq!(offered(&["--ch"]), ["--check"]);
    assert_eq!(offered(&["--log-level", ""]), LEVELS);
    // bash splits at the equals sign.
    assert_eq!(offered(&["--log-level", "="]), LEVELS);
    assert_eq!(offered(&["--log-level", "=", "d"]), ["debug"]);
    assert_eq!(offered(&["--config", "Carg"]), ["Cargo.lock", "Cargo.toml"]);
}

#[test]
fn zsh_completes_every_flag_and_its_value() {
    if !require("zsh") {
        return;
    }
    // The file is the body of a function that hands its specifications to `_arguments`.
    let script = r#"_arguments() { print -rl -- "$@" }; . "$1""#;
    let lines = ask(&["zsh", "-f"], script, "_peipkg-manager", &[]);
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.contains('[')) {
        // The flags that exclude this one, the flag, the text in brackets, the kind of its value.
        let line =
            line.split_once(')').filter(|_| line.starts_with('(')).map_or(line.as_str(), |(_, rest)| rest);
        let (flag, rest) = line.split_once('[').unwrap();
        found.insert(flag.to_owned(), rest.to_owned());
    }
    let mut expected = BTreeMap::new();
    for Flag { long, short, value, help, .. } in cli::FLAGS {
        let equals = if value.is_some() { "=" } else { "" };
        let takes = match *long {
            "config" => ":path:_files".to_owned(),
            "log-level" => ":level:(debug info warn error)".to_owned(),
            "rebuild" => ":RECIPE@VERSION:".to_owned(),
            _ => String::new(),
        };
        expected.insert(format!("--{long}{equals}"), format!("{help}]{takes}"));
        if let Some(letter) = short {
            expected.insert(format!("-{letter}"), format!("{help}]"));
        }
    }
    assert_eq!(found, expected);
}

#[test]
fn fish_completes_every_flag_and_its_value() {
    if !require("fish") {
        return;
    }
    let script = r#"source $argv[1]; complete --do-complete "peipkg-manager $argv[2]""#;
    let offered = |line: &str| ask(&["fish", "--no-config"], script, "peipkg-manager.fish", &[line]);
    let first = |lines: Vec<String>| -> Vec<String> {
        lines.iter().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
    };
    let mut expected: Vec<String> =
        cli::FLAGS.iter().map(|flag| format!("--{}\t{}", flag.long, flag.help)).collect();
    expected.sort();
    // fish offers `--config=` beside `--config`.
    let long: Vec<String> = offered("--").into_iter().filter(|line| !line.contains("=\t")).collect();
    assert_eq!(long, expected);
    for flag in cli::FLAGS.iter().filter(|flag| flag.short.is_some()) {
        let line = format!("-{}\t{}", flag.short.unwrap(), flag.help);
        assert!(offered("-").contains(&line), "{line}: {:?}", offered("-"));
    }
    assert_eq!(first(offered("--log-level ")), LEVELS);
    assert_eq!(first(offered("--config Carg")), ["Cargo.lock", "Cargo.toml"]);
}
