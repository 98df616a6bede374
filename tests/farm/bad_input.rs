//! Bad input by an operator: checks the exit code and the one line that names the mistake, its
//! place and the remedy.

use std::fs;
use std::process::Command;

use rustix::io::Errno;

use crate::support::farm::Farm;
use crate::support::git_repo::{GitRepo, run};
use crate::support::latch::Latch;
use crate::support::recipes::Recipe;
use crate::support::running::{Output, Running, os_error};
use crate::support::tools::Tools;
use crate::support::wait::PATIENCE;

/// A recipe without mistakes.
const RECIPE: &str = "[meta]
license = \"MIT\"
build_script = \"build.sh\"
[[package]]
name = \"tool\"
architecture = \"noarch\"
files = [\"**\"]
[upstream]
git = \"https://example.invalid/tool.git\"
tag_pattern = '^v(.+)$'
[watch]
";

/// Checks that a run prints only its one line, logs nothing and creates no repository.
#[track_caller]
fn assert_refused(farm: &Farm, output: &Output, code: i32, parts: &[&str]) {
    output.assert_code(code).assert_one_line(&["peipkg-manager: "]).assert_one_line(parts);
    assert!(output.all_events().is_empty(), "{output}");
    assert!(!farm.repo_dir().exists(), "{output}");
}

/// The number of the first line of `text` that contains `part`.
#[track_caller]
fn line_of(text: &str, part: &str) -> usize {
    1 + text.lines().position(|line| line.contains(part)).unwrap_or_else(|| panic!("no {part:?} in {text}"))
}

#[test]
fn command_line_wrong_is_one_line() {
    let farm = Farm::builder().build();
    for (arguments, expected) in [
        (&["--onec"][..], "unknown flag \"--onec\"; did you mean \"--once\"?"),
        (&["--frobnicate"], "unknown flag \"--frobnicate\"; --help lists"),
        (&["-x"], "unknown flag \"-x\""),
        (&["--log-level"], "--log-level needs a value: --log-level LEVEL"),
        (&["--config="], "--config needs a value: --config PATH"),
        (&["--log-level", "loud"], "--log-level must be debug, info, warn or error, found \"loud\""),
        (&["--once=perhaps"], "--once is on or off: expected true or false, found \"perhaps\""),
        (&["--once", "tool"], "unexpected argument \"tool\", only flags are understood"),
        (&["--once", "--check"], "--once, --check, --plan and --rebuild exclude each other"),
        (&["--on\nce"], "unknown flag \"--on\\nce\""),
    ] {
        let output = Running::spawn(&mut farm.command(arguments)).wait_exit(PATIENCE);
        assert_refused(&farm, &output, 2, &[expected]);
    }
}

#[test]
fn config_unreadable_is_one_line() {
    let farm = Farm::builder().build();
    for (path, errno) in [("absent.toml", Errno::NOENT), ("recipes", Errno::ISDIR)] {
        let (path, reason) = (farm.path(path), os_error(errno));
        let arguments = ["--once", "--config", path.to_str().unwrap()];
        let output = Running::spawn(&mut farm.command(&arguments)).wait_exit(PATIENCE);
        let parts = [path.to_str().unwrap(), "cannot read the configuration", &reason];
        assert_refused(&farm, &output, 1, &parts);
    }
    fs::write(farm.config_path(), b"# \xff\n").unwrap();
    assert_refused(
        &farm,
        &farm.once(),
        2,
        &["config.toml:1: not valid TOML: the byte 0xff is not UTF-8, save the file as UTF-8"],
    );
}

#[test]
fn config_outside_its_schema_is_one_line_per_problem() {
    let farm = Farm::builder().build();
    let good = fs::read_to_string(farm.config_path()).unwrap();
    let interval = "default_interval = \"1000h\"";
    for (old, new, at, expected) in [
        (interval, "default_interval = = \"1h\"", "= =", "not valid TOML: "),
        (interval, "defualt_interval = \"1h\"", "[poll]", "missing key \"default_interval\" in [poll]"),
        (
            interval,
            "default_interval = \"soon\"",
            "soon",
            "[poll] default_interval: \"soon\" is not a duration",
        ),
        (
            interval,
            "default_interval = \"59s\"",
            "59s",
            "[poll] default_interval must be at least 1m, found \"59s\"",
        ),
        (
            interval,
            "default_interval = 60",
            "= 60",
            "[poll] default_interval: expected a string, found integer",
        ),
        ("[poll]\n", "[poll]\njob = 3\n", "job", "unknown key \"job\" in [poll]; did you mean \"jobs\"?"),
        ("[poll]\n", "[poll]\njobs = 0\n", "jobs", "[poll] jobs must be from 1 to 256, found 0"),
        (
            "[poll]\n",
            "[pol]\n[poll]\n",
            "[pol]",
            "unknown key \"pol\" at the top level; did you mean \"poll\"?",
        ),
        ("id = \"test-farm\"\n", "", "[manager]", "missing key \"id\" in [manager]"),
        ("id = \"test-farm\"", "id = \"\"", "id =", "[manager] id must not be empty"),
        ("name = \"test-repo\"", "name = true", "name", "[repo] name: expected a string, found boolean"),
        ("state_dir = \"", "state_dir = \"./", "state_dir", "[manager] state_dir must be an absolute path"),
        (
            "[poll]\n",
            "[http]\naddr = \"8080\"\n[poll]\n",
            "8080",
            "[http] addr: \"8080\" has no port, expected HOST:PORT",
        ),
        (
            "[poll]\n",
            "[http]\naddr = \":http\"\n[poll]\n",
            ":http",
            "[http] addr: \":http\" has a port that is no number",
        ),
        (
            "[poll]\n",
            "[build]\ntimeout = \"1d\"\n[poll]\n",
            "1d",
            "[build] timeout: \"1d\" is not a duration",
        ),
        (
            "[poll]\n",
            "[upload]\nbackend = \"rclone\"\n[poll]\n",
            "rclone",
            "missing key \"remote\" in [upload]",
        ),
        (
            "[poll]\n",
            "[upload]\nbackend = \"ftp\"\n[poll]\n",
            "ftp",
            "[upload] backend must be \"none\" or \"rclone\", found \"ftp\"",
        ),
        (
            "[poll]\n",
            "[[grant]]\nrecipe = \"a\"\nsign = [\"k\"]\n[poll]\n",
            "sign =",
            "[[grant]] sign: unknown signing key \"k\"",
        ),
    ] {
        let text = good.replacen(old, new, 1);
        assert_ne!(text, good, "{old}");
        fs::write(farm.config_path(), &text).unwrap();
        let output = farm.once();
        let place = format!("config.toml:{}: ", line_of(&text, at));
        if new.starts_with("defualt") {
            // A misspelt key is two problems: the key that is missing and the one that is unknown.
            output.assert_code(2);
            assert_eq!(output.stderr.lines().count(), 2, "{output}");
            assert!(output.stderr.contains(expected) && output.stderr.contains("did you mean"), "{output}");
        } else {
            assert_refused(&farm, &output, 2, &[&format!("{place}{expected}")]);
        }
    }
}

#[test]
fn recipes_broken_are_named() {
    let farm = Farm::builder().recipe("tool", RECIPE, "").build();
    let pattern = "tag_pattern = '^v(.+)$'";
    let git = "git = \"https://example.invalid/tool.git\"";
    for (old, new, at, expected) in [
        ("[watch]", "[watch", "[watch", "not valid TOML: "),
        (pattern, "tag_pattern = '^v(.+$'", "tag_pattern", "\"^v(.+$\" is not a regular expression"),
        (
            pattern,
            "tag_pattern = '^v.+$'",
            "tag_pattern",
            "has no capture group, one pair of parentheses must",
        ),
        (
            pattern,
            "tag_pattern = '(?P<x>.)'",
            "tag_pattern",
            "unknown group \"x\", known are major, minor, patch",
        ),
        (pattern, "tag_pattern = '(?P<major>.)'", "tag_pattern", "but none named \"minor\""),
        (pattern, "tag_pattern = '(?P<major>.)(.)'", "tag_pattern", "mixes named and unnamed groups"),
        (pattern, "", "[upstream]", "missing key \"tag_pattern\" in [upstream]"),
        (git, "git = \"--upload-pack=x\"", "git =", "[upstream] git: \"--upload-pack=x\" starts with '-'"),
        (git, "git = 7", "git =", "[upstream] git: expected a string, found integer"),
        (
            "[watch]",
            "submodule = true",
            "submodule",
            "unknown key \"submodule\" in [upstream]; did you mean \"submodules\"?",
        ),
        ("[watch]", "peios_revision = 0", "peios_", "[upstream] peios_revision must be from 1"),
        ("[watch]", "min_version = \"1/2\"", "min_", "[upstream] min_version \"1/2\" is not a version"),
        ("[watch]", "[watch]\nwebhook = 1", "webhook", "unknown key \"webhook\" in [watch]"),
        (
            "[watch]",
            "[watch]\npoll_interval = \"1s\"",
            "poll_",
            "[watch] poll_interval must be at least 1m, found \"1s\"",
        ),
        ("noarch", "No Arch", "No Arch", "architecture \"No Arch\" is not an architecture such as noarch"),
        ("\"tool\"", "\"../tool\"", "../tool", "[[package]] name \"../tool\" has a character outside"),
    ] {
        let text = RECIPE.replacen(old, new, 1);
        farm.write_recipe("tool", &text, "");
        let file = farm.path("recipes/tool/peipkg.toml");
        let place = format!("{}:{}: ", file.display(), line_of(&text, at));
        assert_refused(&farm, &farm.once(), 1, &[&place, expected]);
    }
    farm.remove_recipe("tool");
    fs::create_dir_all(farm.path("recipes/tool/peipkg.toml")).unwrap();
    assert_refused(
        &farm,
        &farm.once(),
        1,
        &[&format!("recipes/tool/peipkg.toml: cannot read the recipe: {}", os_error(Errno::ISDIR))],
    );
    fs::remove_dir_all(farm.recipes_dir()).unwrap();
    assert_refused(
        &farm,
        &farm.once(),
        1,
        &[&format!("/recipes: cannot read recipes_dir: {}; make it, ", os_error(Errno::NOENT))],
    );
}

#[test]
fn tool_missing_is_one_line() {
    let repo = GitRepo::program(&["1.0"]);
    let tool = Recipe::program("tool", &repo.file_url());
    let farm = Farm::builder().with(&tool).rclone("/nowhere/at/all".as_ref()).build();
    for (program, purpose) in [
        ("git", "it is needed to list and fetch upstreams"),
        ("peipkg-build", "it is needed to build packages"),
        ("peipkg-repo", "it is needed to publish packages"),
        ("rclone", "it is needed to upload"),
    ] {
        let path = Tools::get().path_without(&[program]);
        // A file of the tool's name without the right to execute it does not count.
        fs::write(farm.bin_dir().join(program), "").unwrap();
        let path = std::env::join_paths([farm.bin_dir(), path.path().to_owned()]).unwrap();
        let mut command = farm.command(&["--once", "--config", farm.config_path().to_str().unwrap()]);
        let output = Running::spawn(command.env("PATH", path)).wait_exit(PATIENCE);
        if program == "rclone" || output.stderr.lines().count() == 1 {
            assert_refused(&farm, &output, 1, &[&format!("{program} is not on PATH ("), purpose]);
        } else {
            // On a machine without rclone, two programs are missing.
            assert!(output.stderr.contains(purpose) && output.stderr.contains("rclone"), "{output}");
        }
        fs::remove_file(farm.bin_dir().join(program)).unwrap();
    }
}

#[test]
fn signing_key_invalid_is_one_line() {
    let farm = Farm::builder().build();
    let key = farm.key_path();
    let place = format!("{}: ", key.display());
    let openssl = |arguments: &[&str]| run(Command::new("openssl").args(arguments).arg("-out").arg(&key));
    fs::remove_file(&key).unwrap();
    assert_refused(
        &farm,
        &farm.once(),
        1,
        &[&place, &format!("cannot read the key: {}", os_error(Errno::NOENT)), "openssl genpkey"],
    );
    fs::create_dir(&key).unwrap();
    assert_refused(
        &farm,
        &farm.once(),
        1,
        &[&place, &format!("cannot read the key: {}", os_error(Errno::ISDIR))],
    );
    fs::remove_dir(&key).unwrap();
    for length in [0, 31, 33, 64] {
        fs::write(&key, vec![7; length]).unwrap();
        let found = format!("found {length} bytes, expected PEM PKCS#8 or a raw seed of 32 bytes");
        assert_refused(&farm, &farm.once(), 1, &[&place, "not an Ed25519 private key", &found]);
    }
    for algorithm in ["RSA", "X25519"] {
        openssl(&["genpkey", "-algorithm", algorithm, "-quiet"]);
        let parts =
            ["not an Ed25519 private key: found one for another algorithm", "expected an Ed25519 key"];
        assert_refused(&farm, &farm.once(), 1, &[&place, parts[0], parts[1]]);
    }
    let private = farm.path("private.pem");
    fs::write(&private, "").unwrap();
    run(Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&private));
    openssl(&["pkey", "-pubout", "-in", private.to_str().unwrap()]);
    assert_refused(
        &farm,
        &farm.once(),
        1,
        &[&place, "found a PEM block \"PUBLIC KEY\", expected an Ed25519 key"],
    );
}

#[test]
fn grant_key_is_checked_before_anything_starts() {
    let keys = "[[signing_key]]\nname = \"tcb\"\nprivate = \"{home}/tcb\"\npubkey_env = \"TCB\"\n";
    let farm = Farm::builder().config_extra(keys).build();
    assert_refused(
        &farm,
        &farm.once(),
        1,
        &[&format!("/tcb: cannot read the key: {}", os_error(Errno::NOENT))],
    );
}

#[test]
fn state_directory_unusable_is_one_line() {
    let farm = Farm::builder().build();
    let good = fs::read_to_string(farm.config_path()).unwrap();
    // Even root cannot create anything below a file.
    fs::write(farm.config_path(), good.replace("/state\"", "/farm.key/state\"")).unwrap();
    let reason = format!("/farm.key/state: {}", os_error(Errno::NOTDIR));
    let parts = [reason.as_str(), "the manager must be able to write there"];
    assert_refused(&farm, &farm.once(), 1, &parts);
    fs::write(farm.config_path(), good).unwrap();
    fs::create_dir_all(farm.repo_dir()).unwrap();
    fs::write(farm.repo_dir().join("precious"), "").unwrap();
    let output = farm.once();
    output.assert_code(1).assert_one_line(&["/state/repo has no repo.json but is not empty"]);
    assert!(farm.repo_dir().join("precious").exists());
}

#[test]
fn state_directory_held_by_another_manager_is_refused() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().build();
    let latch = Latch::new();
    farm.add(&Recipe::program("tool", &repo.file_url()).before_build(&latch.script()));
    let first = farm.start(&["--once"]);
    latch.wait_reached();
    let output = farm.once();
    let holder = format!("in use by another peipkg-manager (process {})", first.pid());
    output.assert_code(1).assert_one_line(&["state_dir ", "/state: ", &holder]);
    latch.open();
    first.wait_exit(PATIENCE).assert_success().event("build + publish complete");
    farm.assert_published(&["tool 1.0-1 noarch"]);
    farm.once().assert_success();
}
