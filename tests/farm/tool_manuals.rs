//! The manual pages of `peipkg-build` and `peipkg-repo`: each must have the commands and flags of
//! the tool's table, and no others.

use peipkg_tools::cli::table::{COMMON, Flag, Takes, Times, Tool};
use peipkg_tools::{build, repo};

use crate::support::pages::page;

const TOOLS: [&Tool; 2] = [&build::command::TOOL, &repo::command::TOOL];

/// The flag as the pages write it: `Fl -name Ar value`.
fn marked(flag: &Flag) -> String {
    let value = flag.value.to_lowercase().replace('=', " Ns = Ns Ar ");
    let value = if value.is_empty() { value } else { format!(" Ar {value}") };
    format!("Fl {}{value}", &flag.name[1..])
}

/// The part of `text` from the line `start` up to a line that begins with one of `ends`.
#[track_caller]
fn part<'a>(text: &'a str, start: &str, ends: &[&str]) -> &'a str {
    let (_, rest) = text.split_once(&format!("\n{start}\n")).unwrap_or_else(|| panic!("no {start:?}"));
    let end = ends.iter().filter_map(|end| rest.find(&format!("\n{end}"))).min();
    &rest[..end.unwrap_or(rest.len())]
}

#[test]
fn manual_pages_of_the_tools_have_every_flag() {
    for tool in TOOLS {
        let text = page(&format!("docs/{}.1", tool.name));
        let synopsis = part(&text, ".Sh SYNOPSIS", &[".Sh "]);
        let mut sections: Vec<&str> =
            text.split("\n.Ss ").skip(1).map(|it| it.lines().next().unwrap()).collect();
        assert_eq!(sections.pop(), Some("Common flags"));
        let names: Vec<&str> = tool.commands.iter().map(|command| command.name).collect();
        assert_eq!(sections, names);
        for command in tool.commands {
            let usage = part(synopsis, &format!(".Cm {}", command.name), &[".Nm"]);
            let expected = command.flags.iter().map(|flag| match flag.times {
                Times::Required => format!(".{}", marked(flag)),
                Times::Once => format!(".Op {}", marked(flag)),
                Times::Any => format!(".Oo {} Oc Ns ...", marked(flag)),
            });
            assert_eq!(usage.lines().collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{}", command.name);

            let section = part(&text, &format!(".Ss {}", command.name), &[".Ss ", ".Sh "]);
            let items: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix(".It ")).collect();
            let expected: Vec<String> = command.flags.iter().map(marked).collect();
            assert_eq!(items, expected, "{}", command.name);
            for flag in command.flags {
                let Takes::Word(words) = flag.takes else { continue };
                let item = section.split("\n.It ").find(|item| item.starts_with(&marked(flag))).unwrap();
                for word in words {
                    let word = format!(".Cm {word}");
                    assert!(item.lines().any(|line| line.trim_end_matches(" ,") == word), "{word}: {item}");
                }
            }
        }
        let common: Vec<&str> = part(&text, ".Ss Common flags", &[".Sh "])
            .lines()
            .filter_map(|line| line.strip_prefix(".It "))
            .collect();
        assert_eq!(common, COMMON.map(|(short, long, _)| format!("Fl {} , Fl {}", &short[1..], &long[1..])));
        // Elsewhere, a page names no flag that does not exist.
        for found in text.split("Fl -").skip(1).map(|rest| rest.split([' ', '\n']).next().unwrap()) {
            let name = format!("--{found}");
            let mut flags = tool.commands.iter().flat_map(|command| command.flags);
            let is_common = COMMON.iter().any(|(_, long, _)| *long == name);
            assert!(is_common || flags.any(|flag| flag.name == name), "{}: there is no {name}", tool.name);
        }
    }
}
