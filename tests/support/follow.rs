//! Runs the blocks of a page at a [`Desk`] and compares the output that the page shows with the
//! output of its commands.
//!
//! A block that begins with a path in a comment is that file; tables of a configuration go into the
//! configuration; `sh` and `console` are run, but for what is in [`NOT_RUN`].

use regex_lite::Regex;

use super::desk::{Desk, assert_syntax};
use super::pages::{Block, fenced};

/// Prefixes of commands that are not run here, and why.
pub const NOT_RUN: &[(&str, &str)] = &[
    ("make install", "tests/services/installing.rs does"),
    ("make uninstall", "tests/services/installing.rs does"),
    ("make bench", "takes minutes"),
    ("make test", "is what runs this"),
    ("make static", "builds for release; make reproducible does"),
    ("peipkg repo add", "is a command of the clients"),
    ("make", "builds for release; the test has built"),
    ("cargo ", "builds"),
    ("python3 contrib/bench/", "takes minutes"),
    ("useradd ", "needs root; tests/services/systemd.rs runs it in a copy of the machine"),
    ("install -d -o ", "needs that user; tests/services/systemd.rs runs it"),
    ("chown ", "needs that user"),
    ("systemctl ", "needs systemd; tests/services/systemd.rs runs it in a copy of the machine"),
    ("sv ", "needs runit; tests/services/runit.rs has one"),
    ("rc-", "needs OpenRC; tests/services/openrc.rs has one"),
    ("update-rc.d ", "needs sysvinit; tests/services/sysvinit.rs has one"),
    ("service ", "needs sysvinit; tests/services/sysvinit.rs has one"),
];

/// Whether `command` is one of [`NOT_RUN`]. `make` alone is only that word.
fn is_not_run(command: &str) -> bool {
    let assignment = Regex::new(r"^[A-Z_]+=\S* ").unwrap();
    let mut command = command.strip_prefix("sudo ").unwrap_or(command);
    while let Some(found) = assignment.find(command) {
        command = &command[found.end()..];
    }
    let is_it =
        |start: &&str| if *start == "make" { command.trim() == *start } else { command.starts_with(start) };
    NOT_RUN.iter().map(|(start, _)| start).any(is_it)
}

/// Removes the commands of [`NOT_RUN`] from `script`.
fn runnable(script: &str) -> String {
    let mut result = String::new();
    let mut drops = false;
    let mut begins = true;
    for line in script.lines() {
        if begins {
            drops = is_not_run(line);
        }
        begins = !line.ends_with('\\');
        result += &if drops { ":\n".to_owned() } else { format!("{line}\n") };
    }
    result
}

/// Replaces the parts of a text that differ from run to run: times, hashes, numbers.
pub fn masked(text: &str) -> String {
    let masks = [
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
        (r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d", "<time>"),
        (r"\d{8}T\d{6}\.\d{3}Z", "<time>"),
        (r"\b\d\d:\d\d:\d\d\b", "<time>"),
        (r"\btook=[0-9a-z.]+", "took=<duration>"),
        (r#""took_seconds": [0-9.]+"#, "\"took_seconds\": <number>"),
        (r"\b[0-9a-f]{64}\b", "<hash>"),
        (r"index_version \d+", "index_version <n>"),
        (r#""next_poll": "[^"]*""#, "\"next_poll\": \"<time>\""),
    ];
    masks.iter().fold(text.to_owned(), |text, (pattern, mask)| {
        Regex::new(pattern).unwrap().replace_all(&text, *mask).into_owned()
    })
}

/// Follows the page at `path`. `before` prepares the desk for a block that needs more than the page
/// has said so far.
#[track_caller]
pub fn follow(path: &str, desk: &mut Desk, mut before: impl FnMut(&mut Desk, &Block)) {
    let mut written = String::new();
    for block in fenced(path) {
        before(desk, &block);
        let (text, place) = (&block.text, &block.place);
        match block.language.as_str() {
            _ if block.file().is_some() => desk.write(block.file().unwrap(), text),
            "toml" if text.contains("[manager]") => desk.write("/etc/peipkg-manager/config.toml", text),
            "toml" if text.contains("[[package]]") => {}
            "toml" => desk.configure(text),
            "json" => drop(
                serde_json::from_str::<serde_json::Value>(text).unwrap_or_else(|e| panic!("{place}: {e}")),
            ),
            "sh" => {
                assert_syntax(place, text);
                written = desk.run(&runnable(text));
            }
            "console" => match block.session() {
                Some(steps) => {
                    for (command, _) in &steps {
                        assert_syntax(place, command);
                    }
                    do_steps(desk, place, &steps);
                }
                // The block shows a part of the previous block's output.
                None => assert!(
                    masked(&written).contains(&masked(text)),
                    "{place}:\n{text}\n--- is not in\n{written}"
                ),
            },
            "ini" | "" => assert!(!text.contains("\n$ "), "{place}: commands belong into a console"),
            other => panic!("{place}: {other:?} is no language of these pages"),
        }
    }
    desk.stop_daemon();
}

/// Types the commands of a console into one shell, and compares what they write with what the page
/// shows, if it shows anything.
#[track_caller]
fn do_steps(desk: &mut Desk, place: &str, steps: &[(String, String)]) {
    const END: &str = "\u{1e}";
    let is_daemon = |command: &str| command.split('#').next().unwrap().trim() == "peipkg-manager";
    let stamp = Regex::new(r"\d{8}T\d{6}\.\d{3}Z").unwrap();
    let mut script = String::from("exec 2>&1\n");
    for (command, _) in steps.iter().filter(|(command, _)| !is_daemon(command)) {
        let command = runnable(&stamp.replace_all(command, "*"));
        script +=
            &format!("{command}__status=$?; printf '{END}%s{END}' \"$__status\"; (exit \"$__status\")\n");
    }
    let output = desk.try_run(&script);
    let mut parts = output.stdout.split(END);
    for (number, (command, expected)) in steps.iter().enumerate() {
        if is_daemon(command) {
            desk.start_daemon();
            continue;
        }
        let (written, status) = parts.next().zip(parts.next()).unwrap_or_else(|| panic!("{place}: {output}"));
        let asks = steps.get(number + 1).is_some_and(|(next, _)| next == "echo $?");
        assert!(status == "0" || asks || !expected.is_empty(), "{place}: {command}: {status}\n{written}");
        if !expected.is_empty() {
            assert_eq!(masked(&desk.shown(written)), masked(expected), "{place}: {command}");
        }
    }
}
