//! `--check` on recipes: the manager's own findings, and those of `peipkg-build check`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use crate::check::{NOBODY, NOWHERE, REST, check, listing};
use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::optional::not_permitted;
use crate::support::recipes::Recipe;
use crate::support::tools::Tools;

#[test]
fn check_broken_recipe_does_not_blame_the_schema() {
    let farm = Farm::builder().recipe("one", &format!("[watch]\npoll_interval = 5\n{REST}"), "").build();
    let expected =
        "{home}/recipes/one/peipkg.toml:2: [watch] poll_interval: expected a string, found integer";
    check(&farm, 1, &[expected]);
}

#[test]
fn check_pattern_in_double_quotes_suggests_single_ones() {
    let recipe = "[upstream]\ngit = \"file:///x\"\ntag_pattern = \"^v(\\d+)$\"\n";
    let farm = Farm::builder().recipe("one", recipe, "").build();
    let output = farm.run(&["--check"]);
    output.assert_code(1);
    let line = output.stdout.trim_end();
    assert!(line.contains("/recipes/one/peipkg.toml:3: not valid TOML: "), "{output}");
    assert!(line.ends_with("; single quotes leave backslashes alone"), "{output}");
}

#[test]
fn check_package_of_two_recipes_warns() {
    let farm = Farm::builder()
        .with(&Recipe::manual("one").package("tool"))
        .with(&Recipe::program("three", NOWHERE).package("other"))
        .recipe("two", "[[package]]\nname = \"tool\"\narchitecture = \"x86_64\"\nfiles = []\n[[package]]\narchitecture = \"noarch\"\nname = \"tool\"\nfiles = []\n[meta]\nbuild_script = \"build.sh\"\n", "")
        .build();
    let line = "{home}/recipes/two/peipkg.toml:7: warning: [[package]] \"tool\" for noarch is built by \
                {home}/recipes/one/peipkg.toml:6 too; only the first build of each version is published";
    check(&farm, 0, &[line, "{home}/config.toml: ok, 3 recipes, 1 with an upstream"]);
    farm.remove_recipe("three");
    let warned = farm.once().event("recipe warning");
    let home = farm.home().display().to_string();
    assert_eq!(warned["problem"], line.replace("{home}", &home).replace("warning: ", ""));
}

#[test]
fn check_long_list_is_whole_and_its_reader_may_stop() {
    const RECIPES: usize = 1000;
    let farm = Farm::builder().build();
    for number in 0..RECIPES {
        farm.write_recipe(
            &format!("r{number:04}"),
            &format!("[watch]\nno = 1\npoll_interval = 5\n{REST}"),
            "",
        );
    }
    let output = farm.run(&["--check"]);
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines.len(), 2 * RECIPES);
    assert!(lines.is_sorted());
    output.assert_code(1);

    let mut child = farm
        .command(&["--check", "--config"])
        .arg(farm.config_path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the manager");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the manager's end");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(1), &b""[..]));
}

#[test]
fn check_names_cannot_break_a_line() {
    let farm = Farm::builder().recipe("a\n\x1b[2Jb: ok", REST, "").build();
    let output = farm.run(&["--check"]);
    assert_eq!(output.stdout.lines().count(), 1, "{output}");
    assert!(output.stdout.contains("recipes/a\\n\\u{1b}[2Jb: ok/peipkg.toml: recipe id "), "{output}");
    output.assert_code(1);
}

/// A recipe whose first line is `[meta]`, with its build script.
fn recipe(farm: &Farm, id: &str, toml: &str) {
    farm.write_recipe(id, toml, "exit 1\n");
}

#[test]
fn check_recipe_that_no_build_accepts_fails_and_the_farm_starts() {
    let upstream = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("good", &upstream.file_url())).build();
    recipe(&farm, "relations", &REST.replace("\"tool\"\n", "\"other\"\ndependencies = [{ name = \"a\" }]\n"));
    recipe(&farm, "script", REST);
    fs::remove_file(farm.path("recipes/script/build.sh")).expect("a script");
    let texts = REST.replace("\n[[", "\nlicence = \"MIT\"\n[[").replace("\"tool\"", "\"texts\"");
    let texts = texts.replace("files = [\"", "description = \"two\\nlines\"\nfiles = [\"/");
    recipe(&farm, "texts", &texts);
    let before = listing(farm.home());
    let output = farm.run(&["--check"]);
    assert_eq!(listing(farm.home()), before);
    output.assert_code(1);
    let place = |line: &str| format!("{}/recipes/{line}", farm.home().display());
    let fails = "its builds will fail:";
    let expected = [
        place(&format!(
            "relations/peipkg.toml:5: {fails} [[package]] dependencies name \"a\" is not 2 to 128 characters long"
        )),
        place(&format!("script/peipkg.toml:2: {fails} build_script \"build.sh\" cannot be read: ")),
        place(&format!("texts/peipkg.toml:3: {fails} unknown key \"licence\" in [meta]; did you mean")),
        place(&format!("texts/peipkg.toml:7: {fails} [[package]] description \"two\\nlines\" has ")),
        place(&format!("texts/peipkg.toml:8: {fails} files: pattern \"/usr/**\" starts with a slash")),
        format!(
            "{}: the farm starts, but all builds of 3 of 4 recipes will fail",
            farm.config_path().display()
        ),
    ];
    assert_eq!(output.stdout.lines().count(), expected.len(), "{output}");
    for (line, start) in output.stdout.lines().zip(&expected) {
        assert!(line.starts_with(start), "expected {start:?}\n{output}");
    }
    farm.once().assert_success();
    farm.assert_published(&["good 1.0-1 noarch"]);
}

#[test]
fn check_long_list_of_the_tool_is_whole() {
    const PROBLEMS: usize = 2000;
    let farm = Farm::builder().build();
    let keys: Vec<String> =
        (0..PROBLEMS).map(|number| format!("an_unknown_key_of_some_length_{number} = 1\n")).collect();
    recipe(&farm, "long", &REST.replacen("[[", &format!("{}[[", keys.concat()), 1));
    let output = farm.run(&["--check"]);
    output.assert_code(1);
    let place = format!("{}/recipes/long/peipkg.toml:", farm.home().display());
    let lines: Vec<String> = output
        .stdout
        .lines()
        .filter_map(|line| Some(line.strip_prefix(&place)?.split_once(':')?.0.to_owned()))
        .collect();
    assert_eq!(lines, (3..3 + PROBLEMS).map(|line| line.to_string()).collect::<Vec<_>>());
}

#[test]
fn check_endless_list_of_the_tool_is_cut_and_says_so() {
    let farm = Farm::builder()
        .with(&Recipe::manual("one"))
        .program("peipkg-build", &tool("[ $2 = --help ] || { yes \"$3:1: x\" | head -c 5000000; exit 1; }"))
        .build();
    let output = farm.run(&["--check"]);
    output.assert_code(1);
    let line = "recipes/one/peipkg.toml: its builds will fail: these are its first problems";
    assert_eq!(output.stdout.lines().filter(|found| found.contains(line)).count(), 1);
}

#[test]
fn check_problem_for_manager_and_tool_is_said_once() {
    let farm = Farm::builder().build();
    recipe(&farm, "lost", "");
    fs::remove_file(farm.path("recipes/lost/peipkg.toml")).expect("a recipe");
    fs::create_dir(farm.path("recipes/lost/peipkg.toml")).expect("a directory");
    recipe(&farm, "name", &REST.replace("\"tool\"", "\"Tool\"").replace("noarch", "no arch"));
    recipe(&farm, "none", &REST.replace("architecture = \"noarch\"\n", ""));
    recipe(
        &farm,
        "twice",
        &format!(
            "{REST}{}",
            REST.split_once("[[").map_or("", |(_, rest)| rest).replacen("package", "[[package", 1)
        ),
    );
    recipe(&farm, "syntax", "x = = 1\ny = = 2\n");
    recipe(&farm, "latin", "");
    fs::write(farm.path("recipes/latin/peipkg.toml"), b"[meta]\n# \xe9t\xe9\n").expect("a recipe");
    let output = farm.run(&["--check"]);
    output.assert_code(1);
    let home = format!("{}/recipes/", farm.home().display());
    let places: Vec<String> = output
        .stdout
        .lines()
        .map(|line| line.strip_prefix(&home).expect(line).split(": ").next().expect("a place").to_owned())
        .collect();
    let expected = [
        "latin/peipkg.toml:2",
        "lost/peipkg.toml",
        "name/peipkg.toml:4",
        "name/peipkg.toml:5",
        "none/peipkg.toml:3",
        "syntax/peipkg.toml:1",
        "syntax/peipkg.toml:2",
        "twice/peipkg.toml:8",
    ];
    assert_eq!(places, expected, "{output}");
    assert!(!output.stdout.contains("warning"), "{output}");
}

/// A `peipkg-build` that records its arguments, runs `check` for that command, and else the real
/// one.
fn tool(check: &str) -> String {
    let real = Tools::get().build.display();
    format!(
        "#!/bin/sh\necho \"$*\" >>\"${{0%/*}}/calls\"\ncase $1 in check) :; {check} ;; esac\nexec {real} \"$@\"\n"
    )
}

fn calls(farm: &Farm) -> Vec<String> {
    let text = fs::read_to_string(farm.bin_dir().join("calls")).expect("the calls");
    text.lines().map(str::to_owned).collect()
}

/// Recipes with a problem for each of the manager's own checks of what a build reads, and others.
fn with_unfit_recipes(farm: &Farm) {
    let texts = |text: &str| REST.replace("files", &format!("description = \"{text}\"\nfiles"));
    let script = |path: &str| REST.replace("\"build.sh\"", &format!("{path:?}"));
    let upstream = "[upstream]\ngit = \"file:///nowhere\"\ntag_pattern = '^v(.+)$'\n";
    let named = |id: &str, text: String| recipe(farm, id, &text.replace("\"tool\"", &format!("{id:?}")));
    named("absolute", script("/bin/true"));
    named("by-hand", script("../escape.sh"));
    named("escape", format!("{}{upstream}", script("../escape.sh")));
    named("good", format!("{}{upstream}", texts("A tool \u{2014} for \u{201c}all\u{201d}")));
    named("inside", format!("{}{upstream}", script("sub/../build.sh")));
    named("missing", REST.to_owned());
    named("no-file", script("."));
    named("spaces", texts("a\\u00a0b"));
    named("unknown", texts("c").replace("description", "descriptoin"));
    fs::write(farm.path("recipes/escape.sh"), "exit 1\n").expect("a script");
    fs::remove_file(farm.path("recipes/missing/build.sh")).expect("a script");
    fs::create_dir(farm.path("recipes/inside/sub")).expect("a directory");
    fs::write(farm.path("recipes/inside/sub/patch"), "").expect("a patch");
}

/// The manager's own findings about the recipes of [`with_unfit_recipes`].
const OWN: [&str; 5] = [
    "absolute/peipkg.toml:2: its builds will fail: build_script must be relative to the recipe's directory",
    "escape/peipkg.toml:2: its builds will fail: build_script \"../escape.sh\" is not among the files that a build \
     gets: those in the recipe's directory, but no files of git or an editor",
    "missing/peipkg.toml:2: its builds will fail: build_script \"build.sh\" cannot be read: \
     No such file or directory (os error 2)",
    "no-file/peipkg.toml:2: its builds will fail: build_script \".\" cannot be read: Is a directory (os error 21)",
    "spaces/peipkg.toml:6: its builds will fail: [[package]] description \"a\\u{a0}b\" has the character U+00A0; \
     allowed are letters, marks, numbers, punctuation, symbols and the space U+0020",
];

#[test]
fn check_by_a_tool_without_the_command_says_so_and_what_the_manager_finds() {
    for (check_command, answer) in [
        (
            "echo 'unknown command: check' >&2; exit 2",
            " (peipkg-build check exited with status 2: unknown command: check)",
        ),
        (
            "echo 'unknown command: check' >&2; exit 1",
            " (peipkg-build check exited with status 1: unknown command: check)",
        ),
        ("echo 'usage: peipkg-build build|pack'; exit 0", ""),
        ("exit 0", ""),
    ] {
        let farm = Farm::builder().program("peipkg-build", &tool(check_command)).build();
        with_unfit_recipes(&farm);
        let note = format!(
            "{}: note: this peipkg-build has no check command, so only the build script and the descriptions are \
             checked of what it reads in a recipe{answer}",
            farm.bin_dir().join("peipkg-build").display(),
        );
        let own = OWN.map(|line| format!("{{home}}/recipes/{line}"));
        let sum = "{home}/config.toml: the farm starts, but all builds of 5 of 9 recipes will fail";
        let mut expected = vec![&*note];
        expected.extend(own.iter().map(|line| &**line));
        expected.push(sum);
        check(&farm, 1, &expected);
        assert_eq!(calls(&farm), ["check --help"], "{check_command}");
    }
}

#[test]
fn check_by_the_companion_tool_repeats_no_finding_of_the_manager() {
    let real = Tools::get().build.display();
    let other_words = format!(
        "[ $2 = --help ] && exec {real} \"$@\"; found=$({real} \"$@\") && exit 0; \
         echo \"$found\" | sed 's/: /: in other words, /'; exit 1"
    );
    for (check_command, start) in [("", "unknown key"), (&*other_words, "in other words, unknown key")] {
        let farm = Farm::builder().program("peipkg-build", &tool(check_command)).build();
        with_unfit_recipes(&farm);
        let output = farm.run(&["--check"]);
        output.assert_code(1);
        let home = format!("{}/recipes/", farm.home().display());
        let mut lines: Vec<_> = output.stdout.lines().filter_map(|line| line.strip_prefix(&home)).collect();
        let unknown = lines.pop().expect("a line");
        let start = format!("unknown/peipkg.toml:6: its builds will fail: {start}");
        assert!(unknown.starts_with(&start), "{output}");
        assert_eq!(lines, OWN, "{output}");
    }
}

#[test]
fn recipe_whose_script_no_build_gets_is_a_warning_of_the_start_and_its_builds_fail() {
    let upstream = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("tool", &upstream.file_url())).build();
    let toml = Recipe::program("tool", &upstream.file_url()).toml();
    fs::write(farm.path("recipes/tool/peipkg.toml"), toml.replace("build.sh", "../tool.sh"))
        .expect("a recipe");
    fs::rename(farm.path("recipes/tool/build.sh"), farm.path("recipes/tool.sh")).expect("a script");
    let output = farm.once();
    let problem = output.event("recipe warning")["problem"].clone();
    assert!(
        problem.contains("tool/peipkg.toml:3: its builds will fail: build_script \"../tool.sh\" "),
        "{output}"
    );
    assert!(output.event("build failed")["error"].contains("build_script"), "{output}");
}

#[test]
fn check_as_a_user_who_cannot_read_the_script_says_so() {
    if !rustix::process::geteuid().is_root() {
        return not_permitted("root, to become another user");
    }
    let farm = Farm::builder().program("peipkg-build", &tool("exit 2")).build();
    recipe(&farm, "tool", REST);
    fs::set_permissions(farm.path("recipes/tool/build.sh"), Permissions::from_mode(0o600)).expect("a mode");
    fs::set_permissions(farm.home(), Permissions::from_mode(0o755)).expect("a mode");
    let mut command = farm.command(&["--check", "--config"]);
    let output = command.arg(farm.config_path()).uid(NOBODY).gid(NOBODY).output().expect("the manager");
    let printed = String::from_utf8_lossy(&output.stdout);
    let expected = "/recipes/tool/peipkg.toml:2: its builds will fail: build_script \"build.sh\" cannot be read: \
                    Permission denied (os error 13)\n";
    assert!(printed.contains(expected), "{printed}");
}

#[test]
fn check_by_a_tool_that_hangs_or_crashes_warns() {
    for (check_command, reason) in [
        ("kill -9 $$", "peipkg-build check was ended by signal 9: (no output)"),
        (
            "echo 'cannot load the image' >&2; exit 125",
            "peipkg-build check exited with status 125: cannot load the image",
        ),
        ("exec nowhere/peipkg-build", "peipkg-build check exited with status 127: "),
        ("exec yes", "peipkg-build check wrote more than 65536 bytes to its standard output"),
        ("exec sleep 1000", "peipkg-build check was still running after 10s: "),
    ] {
        let farm = Farm::builder()
            .with(&Recipe::manual("good"))
            .recipe("broken", &REST.replace("files", "filse"), "")
            .program("peipkg-build", &tool(check_command))
            .build();
        let output = farm.run(&["--check"]);
        output.assert_code(0);
        let warning = format!(
            "{}/recipes: warning: cannot ask peipkg-build about the recipes: {reason}",
            farm.home().display()
        );
        assert!(output.stdout.starts_with(&warning), "{output}");
        assert!(output.stdout.ends_with("config.toml: ok, 2 recipes, 0 with an upstream\n"), "{output}");
        assert_eq!(output.stdout.lines().count(), 2, "{output}");
        assert_eq!(calls(&farm), ["check --help"], "{check_command}");
    }
}

#[test]
fn check_by_a_tool_that_fails_says_so_once() {
    let fails = "[ $2 = --help ] || { echo \"$3:1: fake\"; echo 'no memory' >&2; exit 3; }";
    let lies = "[ $2 = --help ] || { echo '/elsewhere/peipkg.toml:1: fake'; exit 1; }";
    for (check_command, reason) in [
        (fails, "peipkg-build check exited with status 3: no memory"),
        (lies, "peipkg-build check exited with status 1: /elsewhere/peipkg.toml:1: fake"),
    ] {
        let farm = Farm::builder()
            .with(&Recipe::manual("one"))
            .with(&Recipe::manual("two"))
            .program("peipkg-build", &tool(check_command))
            .build();
        let line = format!(
            "{{home}}/recipes/one/peipkg.toml: warning: cannot ask peipkg-build about this recipe and those after it: {reason}"
        );
        check(&farm, 0, &[&line, "{home}/config.toml: ok, 2 recipes, 0 with an upstream"]);
        assert_eq!(calls(&farm).len(), 2, "{check_command}");
    }
}
