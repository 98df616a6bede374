//! What a person sees on a terminal: lines for people, and the live line of a sweep below them.

use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};

use crate::exhaustion::{ENOUGH, OwnUser};
use crate::support::farm::Farm;
use crate::support::git_repo::{GitRepo, run};
use crate::support::latch::Latch;
use crate::support::logfmt;
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::terminal::Terminal;
use crate::support::wait::{PATIENCE, wait_until};

/// The manager of `farm` with these variables.
fn manager(farm: &Farm, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = farm.command(arguments);
    command.arg("--config").arg(farm.config_path()).envs(variables.iter().copied());
    command
}

/// Whether a line without colours has the form for people.
fn is_for_people(line: &str) -> bool {
    let form = "dd:dd:dd ";
    let starts =
        line.chars().zip(form.chars()).all(|(c, f)| if f == 'd' { c.is_ascii_digit() } else { c == f });
    starts && ["info  ", "warn  ", "error "].iter().any(|level| line[form.len()..].starts_with(level))
}

fn without_colours(line: &str) -> String {
    ["0", "1", "2", "33", "1;31"]
        .iter()
        .fold(line.to_owned(), |line, code| line.replace(&format!("\u{1b}[{code}m"), ""))
}

fn exit_code(mut child: Child) -> Option<i32> {
    let mut status = None;
    wait_until("the manager ends", PATIENCE, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap().code()
}

/// The screen after `text`: each line as last drawn.
fn screen(text: &str) -> Vec<String> {
    let shown = |line: &str| {
        let last = line.rsplit(['\r', '\u{2}']).find(|part| !part.is_empty()).unwrap_or_default();
        last.rsplit("\u{1b}[2K").next().unwrap_or_default().to_owned()
    };
    text.split("\r\n").map(shown).collect()
}

#[test]
fn sweep_on_a_terminal_has_a_live_line_below_its_log() {
    let (repo, latch) = (GitRepo::program(&["1.0", "1.1"]), Latch::new());
    let recipe = Recipe::program("tool", &repo.file_url()).before_build(&latch.script());
    let farm = Farm::builder().with(&recipe).build();
    let terminal = Terminal::new();
    let child = terminal.run(&mut manager(&farm, &["--once"], &[("TERM", "xterm")]));
    terminal.wait_for("polled 1 of 1, 1 queued, building tool 1.1-1 for ");
    // A busy machine can leave out a second.
    wait_until("the time goes on", PATIENCE, || {
        (2..60).any(|seconds| terminal.text().contains(&format!("building tool 1.1-1 for {seconds}s")))
    });
    latch.open();
    assert_eq!(exit_code(child), Some(0));
    terminal.wait_for("peipkg-manager stopped");
    let text = terminal.text();
    // The terminal itself cuts what is too long, and is left as it was.
    for drawn in text.split("polled ").skip(1) {
        assert!(drawn.split("\u{1b}[?7").nth(1).is_some_and(|end| end.starts_with('h')), "{drawn:?}");
    }
    assert_eq!(text.matches("polled ").count(), text.matches("\u{1b}[?7l").count(), "{text:?}");
    let screen = screen(&text);
    let (last, log) = screen.split_last().unwrap();
    assert_eq!(last, "", "the live line was not removed: {screen:?}");
    let log: Vec<String> = log.iter().map(|line| without_colours(line)).collect();
    assert!(log.iter().all(|line| is_for_people(line)), "{log:#?}");
    // Where there is a live line, the others are left to it.
    let has = |text: &str| log.iter().any(|line| line.contains(text));
    assert!(has(" info  build + publish complete tool 1.1-1 took="), "{log:#?}");
    assert!(has(" info  poll complete            tool tags_seen=2 "), "{log:#?}");
    assert!(!has("polling upstream"), "{log:#?}");
}

#[test]
fn daemon_or_dumb_terminal_has_no_live_line() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &repo.file_url())).build();
    let terminal = Terminal::new();
    let dumb = terminal.run(&mut manager(&farm, &["--once"], &[("TERM", "dumb")]));
    assert_eq!(exit_code(dumb), Some(0));
    let plain = terminal.text();
    assert!(!plain.contains('\u{1b}') && !plain.contains("polled 1 of"), "{plain:?}");
    assert!(plain.lines().all(is_for_people), "{plain:?}");
    let terminal = Terminal::new();
    let daemon = terminal.run(&mut manager(&farm, &[], &[("TERM", "xterm")]));
    // Without a live line, each poll has its own.
    terminal.wait_for("poll complete");
    kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();
    assert_eq!(exit_code(daemon), Some(0));
    let text = terminal.text();
    let (cursor, line) =
        (text.contains("\u{1b}[2K") || text.contains("\u{1b}[1A"), text.contains("polled 1"));
    assert!(!cursor && !line, "{text:?}");
    assert!(
        text.contains("\u{1b}[2m") && text.lines().all(|line| is_for_people(&without_colours(line))),
        "{text:?}"
    );
}

#[test]
fn colours_are_left_out_if_the_user_wants_none() {
    let farm = Farm::builder().build();
    for (variables, expected) in [
        (&[("TERM", "xterm"), ("NO_COLOR", "1")][..], false),
        (&[("TERM", "xterm"), ("NO_COLOR", "")], true),
        (&[("TERM", "dumb")], false),
        (&[], false),
    ] {
        let terminal = Terminal::new();
        let mut command = manager(&farm, &["--once"], variables);
        if variables.is_empty() {
            command.env_remove("TERM");
        }
        assert_eq!(exit_code(terminal.run(&mut command)), Some(0));
        terminal.wait_for("peipkg-manager stopped");
        let text = terminal.text();
        assert_eq!(text.contains("\u{1b}[2m"), expected, "{variables:?} {text:?}");
    }
    // A pipe gets logfmt, whatever the variables say.
    let mut command = manager(&farm, &["--once"], &[("TERM", "xterm"), ("CLICOLOR_FORCE", "1")]);
    let output = Running::spawn(&mut command).wait_exit(PATIENCE);
    assert_eq!(logfmt::plain_lines(&output.stderr), [""; 0]);
}

#[test]
fn foreign_words_on_a_terminal_neither_forge_a_line_nor_move_the_cursor() {
    const HOSTILE: &str =
        "printf 'x\\r\\n11:40:10 info  forged\\033[2J\\033]0;title\\007\\342\\200\\256end\\n' >&2; exit 1\n";
    let repo = GitRepo::program(&["1.0"]);
    repo.tag_light("v2.0-\u{202e}\u{2066}gnp");
    let recipe = Recipe::program("tool", &repo.file_url()).tag_pattern("^v(.*)$").build_sh(HOSTILE);
    let farm = Farm::builder().with(&recipe).build();
    let terminal = Terminal::new();
    let child = terminal.run(&mut manager(&farm, &["--once"], &[("TERM", "dumb")]));
    assert_eq!(exit_code(child), Some(0));
    terminal.wait_for("peipkg-manager stopped");
    let text = terminal.text();
    assert!(text.contains("build failed") && text.contains("tag skipped"), "{text:?}");
    assert!(text.split("\r\n").all(|line| line.is_empty() || is_for_people(line)), "{text:?}");
    assert!(!text.split("\r\n").any(|line| line.contains(" info  forged") && line.starts_with("11:40:10")));
    let is_bad = |c: char| {
        c.is_control() && !matches!(c, '\r' | '\n')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!text.contains(is_bad), "{text:?}");
}

#[test]
fn live_line_names_the_upstream_that_it_waits_for() {
    let latch = Latch::new();
    let script = format!(
        "#!/bin/sh\nif echo \" $* \" | grep -q ' ls-remote '; then\n{}fi\nexec {real} \"$@\"\n",
        latch.script(),
        real = "{real}"
    );
    let repo = GitRepo::program(&["1.0"]);
    let farm =
        Farm::builder().program("git", &script).with(&Recipe::program("tool", &repo.file_url())).build();
    let terminal = Terminal::new();
    let child = terminal.run(&mut manager(&farm, &["--once"], &[("TERM", "xterm")]));
    let upstream = repo.file_url();
    // The terminal's 100 columns cut long paths.
    terminal.wait_for(&format!("polled 0 of 1, 0 queued, listing {}", &upstream[..20]));
    latch.open();
    assert_eq!(exit_code(child), Some(0));
}

#[test]
fn error_of_the_start_has_a_line_of_its_own() {
    let farm = Farm::builder().build();
    for mode in ["--once", "--plan"] {
        let terminal = Terminal::new();
        let child = terminal.run(farm.command(&[mode, "--config", "/nonexistent"]).env("TERM", "xterm"));
        assert_eq!(exit_code(child), Some(1));
        terminal.wait_for("peipkg-manager: /nonexistent: cannot read the configuration");
        assert!(terminal.text().starts_with("peipkg-manager: "), "{mode} {:?}", terminal.text());
    }
}

#[test]
fn sweep_without_threads_for_its_live_line_ends_as_usual() {
    let latch = Latch::new();
    let script = format!(
        "#!/bin/sh\nif echo \" $* \" | grep -q ' ls-remote '; then\n{}fi\nexec {{real}} \"$@\"\n",
        latch.script()
    );
    let farm = Farm::builder().program("git", &script).build();
    let repo = GitRepo::in_dir(farm.home(), "upstream");
    repo.add_versions(&["1.0"]);
    farm.add(&Recipe::program("tool", &repo.file_url()));
    let Some(user) = OwnUser::of(&farm) else { return };
    run(Command::new("chmod").args(["-R", "a+rwX"]).arg(latch.path("")));
    let terminal = Terminal::new();
    let child = terminal.run(user.command(&farm, &["--once"], ENOUGH).env("TERM", "xterm"));
    latch.wait_reached();
    // From now on, nothing can start: no ticker for the build, and no git for its source.
    user.limit(Pid::from_child(&child).as_raw_pid(), "1");
    latch.open();
    assert_eq!(exit_code(child), Some(0), "{}", terminal.text());
    terminal.wait_for("peipkg-manager stopped");
    let text = terminal.text();
    assert!(text.contains("starting build") && text.contains("cannot start git"), "{text}");
}
