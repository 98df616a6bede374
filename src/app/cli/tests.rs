//! Tables of command lines: the options of good ones, the errors of bad ones.

use super::*;

fn parse_words(line: &str) -> Result<Command, UsageError> {
    parse(line.split_whitespace().map(OsString::from))
}

#[track_caller]
fn check(line: &str, config: &str, log_level: LevelFilter, mode: Mode) {
    let options = Options { config: config.into(), log_level, mode };
    assert_eq!(parse_words(line), Ok(Command::Run(options)), "{line}");
}

#[track_caller]
fn check_error(line: &str, expected: &str) {
    assert_eq!(parse_words(line).expect_err(line).to_string(), expected);
}

#[test]
fn command_line_is_parsed() {
    const DEFAULT: &str = "/etc/peipkg-manager/config.toml";
    use LevelFilter::{Debug, Error, Info, Warn};
    check("", DEFAULT, Info, Mode::Daemon);
    check("--once", DEFAULT, Info, Mode::Once);
    check("--check", DEFAULT, Info, Mode::Check);
    let version = "1:1.3.2-1".parse().unwrap();
    check("--rebuild a@b-1 --rebuild=hello@1:1.3.2-1", DEFAULT, Info, Mode::Rebuild("hello".into(), version));
    check("--config c.toml --log-level debug", "c.toml", Debug, Mode::Daemon);
    check("--config=c.toml --log-level=warn --once", "c.toml", Warn, Mode::Once);
    check("--config a --config b --log-level error", "b", Error, Mode::Daemon);
    check("--once --once=false --check=true", DEFAULT, Info, Mode::Check);
}

#[test]
fn long_flag_with_one_dash_is_parsed() {
    check("-once -config c.toml", "c.toml", LevelFilter::Info, Mode::Once);
    check("-config=c.toml -log-level=debug -once=true", "c.toml", LevelFilter::Debug, Mode::Once);
    check("-config -once", "-once", LevelFilter::Info, Mode::Daemon);
    check("--config -h", "-h", LevelFilter::Info, Mode::Daemon);
}

#[test]
fn help_and_version_with_other_flags_take_precedence() {
    for line in ["-h", "--help", "-help", "--once -h", "-hV"] {
        assert_eq!(parse_words(line), Ok(Command::Help), "{line}");
    }
    for line in ["-V", "--version", "-version"] {
        assert_eq!(parse_words(line), Ok(Command::Version), "{line}");
    }
    assert_eq!(version(), format!("peipkg-manager {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn command_line_wrong_is_refused() {
    check_error("--onec", "unknown flag \"--onec\"; did you mean \"--once\"?");
    check_error("-onec", "unknown flag \"--onec\"; did you mean \"--once\"?");
    check_error("--log_level=info", "unknown flag \"--log_level\"; did you mean \"--log-level\"?");
    check_error("--frobnicate", "unknown flag \"--frobnicate\"; --help lists all flags");
    check_error("-x", "unknown flag \"-x\"; --help lists all flags");
    check_error("--config", "--config needs a value: --config PATH");
    check_error("--config=", "--config needs a value: --config PATH");
    check_error("--once --log-level", "--log-level needs a value: --log-level LEVEL");
    check_error("--log-level loud", "--log-level must be debug, info, warn or error, found \"loud\"");
    check_error("--log-level INFO", "--log-level must be debug, info, warn or error, found \"INFO\"");
    check_error("--once=maybe", "--once is on or off: expected true or false, found \"maybe\"");
    let positional = "only flags are understood; --help lists them";
    check_error("build", &format!("unexpected argument \"build\", {positional}"));
    check_error("-", &format!("unexpected argument \"-\", {positional}"));
    check_error("--once true", &format!("unexpected argument \"true\", {positional}"));
    for two in [
        "--check --once",
        "--plan --once",
        "--check --plan",
        "--plan --check --once",
        "--once --rebuild a@1-1",
    ] {
        check_error(two, "--once, --check, --plan and --rebuild exclude each other, choose one");
    }
    for (found, reason) in [
        ("hello", "it has no @"),
        ("a/b@1-1", "the recipe's id \"a/b\" has '/', allowed are ASCII letters, digits and . _ + -"),
    ] {
        let start = "--rebuild needs RECIPE@VERSION, such as hello@1.3.2-1, found";
        check_error(&format!("--rebuild {found}"), &format!("{start} {found:?}: {reason}"));
    }
    check_error("--rebuild", "--rebuild needs a value: --rebuild RECIPE@VERSION");
}

#[test]
fn argument_not_unicode_is_a_path_or_an_error() {
    use std::os::unix::ffi::OsStringExt;
    let raw = OsString::from_vec(b"/etc/\xff".to_vec());
    let Ok(Command::Run(options)) = parse(["--config".into(), raw.clone()]) else { panic!("not a run") };
    assert_eq!(options.config, PathBuf::from(raw.clone()));
    let error = parse([raw]).unwrap_err().to_string();
    assert!(error.starts_with("unexpected argument \"/etc/\\xFF\", "), "{error}");
    let error = parse([OsString::from_vec(b"-\xff\n".to_vec())]).unwrap_err().to_string();
    assert_eq!(error, "unknown flag \"-\u{fffd}\"; --help lists all flags");
}

#[test]
fn help_lists_every_flag() {
    let expected = "\
peipkg-manager: the build-farm daemon of the Peios package system

Usage: peipkg-manager [flags]

Without --once, --check, --plan or --rebuild it runs until SIGTERM or SIGINT; SIGHUP reloads the recipes.

Flags:
      --config PATH             The configuration file [default: /etc/peipkg-manager/config.toml]
      --log-level LEVEL         The least level to log: debug, info, warn or error [default: info]
      --once                    Poll every recipe once, build, publish and upload what is new, and exit; no HTTP, no schedule
      --check                   Check configuration, recipes, tools and keys, print every problem, and exit
      --plan                    List every upstream, print what a sweep would do with each tag, and exit; change nothing
      --rebuild RECIPE@VERSION  Build a published version again, say whether it is the published one, and exit; change nothing
  -h, --help                    Print this help and exit
  -V, --version                 Print the version and exit

Exit codes: 0 done, failed builds included; 1 runtime error; 2 bad flag or configuration.
";
    assert_eq!(help(), expected);
    for flag in FLAGS {
        let value = flag.value.map_or("", |_| if flag.long == "rebuild" { " info@1-1" } else { " info" });
        assert!(parse_words(&format!("--{}{value}", flag.long)).is_ok(), "--{} is not parsed", flag.long);
    }
}
