//! Tables of good and bad recipes for the tests of `recipe`.

use super::*;

const GOOD: &str = r#"
[meta]
license = "Zlib"
homepage = "https://zlib.net"
source = "github:madler/zlib"
build_script = "build.sh"

[[package]]
name = "libz"
architecture = "x86_64"
description = "zlib"
dependencies = [{ name = "libc", constraint = ">= 2, < 3" }, { name = "base", arch = "any" }]
provides = [{ name = "libz.so.1" }, { name = "compress", version = "1.3" }]
replaces = [{ name = "zlib", constraint = "< 1" }]
conflicts = [{ name = "libz-ng" }]
side_effects = ["ldconfig"]
files = ["usr/lib/**", "var/lib/z/"]

[[package]]
name = "libz-dev"
architecture = "x86_64"
dependencies = [{ name = "libz", same_build = true }, { name = "libc-dev", same_build = false }]
files = []

[upstream]
git = "https://example.org/zlib"
[provenance]
x = 1
"#;

fn read(text: &str) -> Result<Recipe, Vec<String>> {
    let version = "1.3-2".parse().unwrap();
    let script = |_: &Path| Ok(());
    parse(Path::new("r.toml"), text, &version, script)
        .map_err(|all| all.iter().map(ToString::to_string).collect())
}

#[test]
fn recipe_with_everything_is_read() {
    let recipe = read(GOOD).unwrap();
    assert_eq!(recipe.script, Path::new("build.sh"));
    let names =
        |stanza: &Stanza| -> Vec<_> { stanza.dependencies.iter().map(|entry| entry.name.clone()).collect() };
    assert_eq!(names(&recipe.packages[0]), ["base", "libc"]);
    assert_eq!(recipe.packages[0].provides[0].version.as_deref(), Some("1.3"));
    assert_eq!(names(&recipe.packages[1]), ["libc-dev", "libz"]);
    assert_eq!(recipe.packages[1].dependencies[0].constraint, None);
    assert_eq!(recipe.packages[1].dependencies[1].constraint.as_deref(), Some("= 1.3-2"));
}

/// Replaces `from` by `to` in the good recipe, and expects exactly one problem, at `line`.
#[track_caller]
fn check(from: &str, to: &str, line: usize, expected: &str) {
    assert!(GOOD.contains(from), "{from}");
    let problems = read(&GOOD.replacen(from, to, 1)).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with(&format!("r.toml:{line}: ")), "{problems:?}");
    assert!(problems[0].contains(expected), "{problems:?}");
}

#[test]
fn problem_is_named_with_its_line() {
    check("homepage =", "homepag =", 4, "unknown key \"homepag\" in [meta]; did you mean \"homepage\"?");
    check("\"https://zlib", "\"ftp://zlib", 4, "is not an http or https URL");
    check("build_script = \"build.sh\"", "", 2, "missing key \"build_script\"");
    check("\"build.sh\"", "\"/build.sh\"", 6, "must be relative");
    check("name = \"libz-dev\"", "name = \"Libz\"", 20, "\"Libz\" has a character");
    check("\narchitecture = \"x86_64\"", "\n", 8, "missing key \"architecture\"");
    check("\"x86_64\"", "\"i386\"", 10, "unknown architecture \"i386\"");
    check("\"zlib\"\ndep", "\"zlib — runtime\"\ndep", 11, "printable ASCII");
    check("constraint = \">= 2", "constrain = \">= 2", 12, "did you mean \"constraint\"?");
    check(">= 2, < 3", "~> 2", 12, "is not a list of comparisons");
    check("arch = \"any\"", "arch = \"x86_64\"", 12, "is not \"any\"");
    check("\"base\"", "\"libc\"", 12, "\"libc\" is listed twice");
    check("version = \"1.3\"", "version = \"?\"", 13, "is not a version");
    check("\"zlib\", con", "\"libGL.so\", con", 14, "\"libGL.so\" has a character");
    check("{ name = \"libz-ng\" }", "{ constraint = \"1\" }", 15, "missing key \"name\"");
    check("[\"ldconfig\"]", "[\"reboot\"]", 16, "unknown side effect \"reboot\"");
    check("[\"ldconfig\"]", "[\"ldconfig\", \"ldconfig\"]", 16, "listed twice");
    check("[\"ldconfig\"]", "\"ldconfig\"", 16, "expected an array of strings");
    check("\"usr/lib/**\"", "\"/usr/lib/**\"", 17, "pattern \"/usr/lib/**\"");
    check("files = []", "", 19, "missing key \"files\"");
    check("name = \"libz\", same", "name = \"libx\", same", 22, "\"libx\" is not another package");
    check("name = \"libz\", same", "name = \"libz-dev\", same", 22, "is not another package");
    check("same_build = true", "constraint = \"1\", same_build = true", 22, "exclude each other");
}

#[test]
fn problems_are_reported_together() {
    let problems = read("[meta]\nx = 1\n[[package]]\nname = \"a\"\ny = 1\n").unwrap_err();
    assert_eq!(problems.len(), 6, "{problems:?}");
    assert_eq!(read("[meta]\nbuild_script = \"x\"\n").unwrap_err().len(), 1);
    assert_eq!(read("").unwrap_err().len(), 2);
}

#[test]
fn package_declared_twice_is_refused() {
    let problems = read(&GOOD.replace("libz-dev", "libz").replace(", same_build = true", "")).unwrap_err();
    assert!(problems[0].contains("already declared"), "{problems:?}");
}

#[test]
fn binary_signing_is_refused_in_one_line() {
    let problems = read("bad = 1\n[[sign]]\nkey = \"tcb\"\n").unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("r.toml:2: signing of binaries is not supported yet"), "{problems:?}");
}
