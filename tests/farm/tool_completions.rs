//! Shell completions of `peipkg-build` and `peipkg-repo`: runs each in its own shell and compares
//! its offers with the tables of commands and flags.

use peipkg_tools::cli::table::{COMMON, Command, Flag, Takes, Times, Tool};
use peipkg_tools::{build, repo};

use crate::completions::ask;
use crate::support::optional::require;

const TOOLS: [&Tool; 2] = [&build::command::TOOL, &repo::command::TOOL];

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// The names of all commands, and `help`.
fn commands(tool: &Tool) -> Vec<String> {
    let names = tool.commands.iter().map(|command| command.name);
    sorted(names.chain(["help"]).map(str::to_owned).collect())
}

fn flags(command: &Command) -> Vec<String> {
    let names = command.flags.iter().map(|flag| flag.name);
    sorted(names.chain(["--help"]).map(str::to_owned).collect())
}

/// Calls `check` with each command and flag, and the offers for the flag's value: its words, files,
/// directories or nothing. Completes in the repository's directory, where `s` begins `src/` alone,
/// and `Cargo.l` a file.
fn each_value(tool: &Tool, check: impl Fn(&Command, &Flag, &str, &[&str])) {
    for command in tool.commands {
        for flag in command.flags {
            match flag.takes {
                Takes::Nothing => {}
                Takes::Text => check(command, flag, "", &[]),
                Takes::File => check(command, flag, "Cargo.l", &["Cargo.lock"]),
                Takes::Directory => {
                    check(command, flag, "sr", &["src"]);
                    check(command, flag, "Cargo.l", &[]);
                }
                Takes::Word(words) => {
                    let mut words = words.to_vec();
                    words.sort_unstable();
                    check(command, flag, "", &words);
                }
            }
        }
    }
}

#[test]
fn bash_completes_the_tools() {
    // Do as bash does on a tab: put the words into an array and call the function.
    const SCRIPT: &str = r#"
        set -eu
        . "$1"; shift
        tool=$1
        complete -p "$tool" | grep -q -- "-F _${tool//-/_} "
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=(unset)
        # Outside of a completion `compopt` fails.
        "_${tool//-/_}" || :
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    for tool in TOOLS {
        let offered = |words: &[&str]| -> Vec<String> {
            let words = [&[tool.name], words].concat();
            let lines = ask(&["bash", "--norc"], SCRIPT, &format!("{}.bash", tool.name), &words);
            lines.into_iter().filter(|line| !line.is_empty()).collect()
        };
        let first = [commands(tool), vec!["--help".to_owned(), "--version".to_owned()]].concat();
        assert_eq!(offered(&[""]), sorted(first));
        assert_eq!(
            offered(&["help", ""]),
            commands(tool).into_iter().filter(|name| name != "help").collect::<Vec<_>>()
        );
        assert_eq!(offered(&["help", "build", ""]), [""; 0]);
        for command in tool.commands {
            assert_eq!(offered(&[command.name, "--"]), flags(command), "{}", command.name);
            let many = [&[command.name][..], &["x"; 12], &["--h"]].concat();
            assert_eq!(offered(&many), ["--help"], "{}", command.name);
        }
        each_value(tool, |command, flag, start, expected| {
            // bash splits at the equals sign.
            let equals: &[&str] = if start.is_empty() { &["="] } else { &["=", start] };
            for value in [&[start], equals] {
                let words = [&[command.name, flag.name], value].concat();
                assert_eq!(offered(&words), expected, "{words:?}");
            }
        });
    }
}

#[test]
fn zsh_completes_the_tools() {
    // The file is the body of a function that hands its specifications to these two. `_arguments`
    // tells it the state by variables.
    const SCRIPT: &str = r#"
        completes() {
            _arguments() {
                [[ $1 == -C ]] || print -rl -- "$@"
                state=$given line=($word)
            }
            _describe() { print -rl -- "${(P@)2}" }
            . "$1"
        }
        given=$2 word=$3
        completes "$1"
    "#;
    if !require("zsh") {
        return;
    }
    for tool in TOOLS {
        let file = format!("_{}", tool.name);
        let offered = |state: &str, word: &str| ask(&["zsh", "-f"], SCRIPT, &file, &[state, word]);
        let described = tool.commands.iter().map(|command| format!("{}:{}", command.name, command.about));
        let described = sorted(described.chain(["help:prints this text".to_owned()]).collect());
        assert_eq!(offered("command", ""), described);
        assert_eq!(offered("flags", "help"), described);
        for command in tool.commands {
            let specification = |flag: &Flag| {
                let repeated = if flag.times == Times::Any { "*" } else { "" };
                let (equals, value) = match flag.takes {
                    Takes::Nothing => ("", String::new()),
                    Takes::Text => ("=", format!(":{}:", flag.value)),
                    Takes::File => ("=", format!(":{}:_files", flag.value)),
                    Takes::Directory => ("=", format!(":{}:_files -/", flag.value)),
                    Takes::Word(words) => ("=", format!(":{}:({})", flag.value, words.join(" "))),
                };
                format!("{repeated}{}{equals}[{}]{value}", flag.name, flag.help)
            };
            let (short, long, help) = COMMON[0];
            let both = [short, long].map(|name| format!("(- *){name}[{help}]"));
            let expected = sorted(command.flags.iter().map(specification).chain(both).collect());
            assert_eq!(offered("flags", command.name), expected, "{}", command.name);
        }
    }
}

#[test]
fn fish_completes_the_tools() {
    if !require("fish") {
        return;
    }
    for tool in TOOLS {
        let script = r#"source $argv[1]; complete --do-complete "$argv[2]""#;
        let offered = |words: &str| -> Vec<String> {
            let line = format!("{} {words}", tool.name);
            let lines = ask(&["fish", "--no-config"], script, &format!("{}.fish", tool.name), &[&line]);
            // fish offers `--config=` beside `--config`.
            lines.into_iter().filter(|line| !line.contains("=\t")).collect()
        };
        let first = |lines: Vec<String>| -> Vec<String> {
            lines
                .iter()
                .map(|line| line.split('\t').next().unwrap().trim_end_matches('/').to_owned())
                .collect()
        };
        let described = |name: &str, help: &str| format!("{name}\t{help}");
        let all = tool.commands.iter().map(|command| described(command.name, command.about));
        assert_eq!(offered(""), sorted(all.chain([described("help", COMMON[0].2)]).collect()));
        let common = COMMON.iter().map(|(_, long, help)| described(long, help)).collect();
        assert_eq!(offered("--"), sorted(common));
        for command in tool.commands {
            let flags = command.flags.iter().map(|flag| described(flag.name, flag.help));
            let flags = flags.chain([described("--help", COMMON[0].2)]).collect();
            assert_eq!(offered(&format!("{} --", command.name)), sorted(flags), "{}", command.name);
        }
        each_value(tool, |command, flag, start, expected| {
            assert_eq!(
                first(offered(&format!("{} {} {start}", command.name, flag.name))),
                expected,
                "{flag:?}"
            );
        });
    }
}
