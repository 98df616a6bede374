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
    assert_eq!(recipe.packages[0].description, "zlib");
}

#[test]
fn recipe_with_newer_values_is_read() {
    let text = GOOD.replace("\"zlib\"\ndep", "\"zlib — “runtime”\"\ndep");
    let text = text.replace("arch = \"any\" }", "arch = \"any\", root = \"initramfs.sub\" }");
    let optional = "optional_dependencies = [{ name = \"aa\", root = \"0_-\" }]\nside_effects";
    let recipe = read(&text.replace("side_effects", optional)).unwrap();
    let first = &recipe.packages[0];
    assert_eq!(first.description, "zlib — “runtime”");
    let roots: Vec<_> = first.dependencies.iter().map(|entry| entry.root.as_deref()).collect();
    assert_eq!(roots, [Some("initramfs.sub"), None]);
    assert_eq!(first.optional_dependencies[0].root.as_deref(), Some("0_-"));
}

/// The dependency of the good recipe that the tests give a claim.
const LIBC: &str = "{ name = \"libc\", constraint = \">= 2, < 3\" }";

#[test]
fn claims_are_read_on_both_sides() {
    let claims = "claims = { sink = { path = \"/run/x.sock\" }, binary = { path = \"/usr/bin/x\" } }";
    let text = GOOD.replace(LIBC, &format!("{{ name = \"libc\", {claims}, constraint = \"2\" }}"));
    let text =
        text.replace("{ name = \"libz.so.1\" }", "{ name = \"x\", claims.b1.target = \"/usr/bin/y\" }");
    let text = text.replace("name = \"x\", claims", "name = \"xx\", claims");
    let optional = "optional_dependencies = [{ name = \"aa\", claims = {} }]\nside_effects";
    let recipe = read(&text.replace("side_effects", optional)).unwrap();
    let first = &recipe.packages[0];
    let json = |value: &dyn Fn() -> serde_json::Result<String>| value().unwrap();
    assert_eq!(
        json(&|| serde_json::to_string(&first.dependencies[1])),
        r#"{"name":"libc","constraint":"2","claims":{"binary":{"path":"/usr/bin/x"},"sink":{"path":"/run/x.sock"}}}"#
    );
    assert_eq!(json(&|| serde_json::to_string(&first.optional_dependencies[0])), r#"{"name":"aa"}"#);
    assert_eq!(
        json(&|| serde_json::to_string(&first.provides[1])),
        r#"{"name":"xx","claims":{"b1":{"target":"/usr/bin/y"}}}"#
    );
}

#[test]
fn claims_wrong_are_refused_with_their_line() {
    let consumer = |claims: &str| format!("{{ name = \"libc\", claims = {claims} }}");
    for (claims, expected) in [
        ("{ binary = {} }", "claims: \"binary\" has no path"),
        ("{ binary = { path = \"/usr/bin/x\", target = \"/x\" } }", "has a target, which is for provides"),
        ("{ binary = { path = \"/tmp/x\" } }", "claims: \"binary\": path \"/tmp/x\""),
        ("{ B = { path = \"/usr/bin/x\" } }", "claims: slot \"B\""),
        (
            "{ binary = { path = \"/usr/bin/x\", pth = 1 } }",
            "unknown key \"pth\" in [[package]] dependencies claims \"binary\"; did you mean \"path\"?",
        ),
        ("{ binary = \"x\" }", "[[package]] dependencies claims \"binary\": expected a table, found string"),
        ("[]", "[[package]] dependencies claims: expected a table, found array"),
    ] {
        check(LIBC, &consumer(claims), 12, expected);
    }
    let provider = |claims: &str| format!("{{ name = \"libz.so.1\", claims = {claims} }}");
    for (claims, expected) in [
        ("{ b1 = { path = \"/usr/bin/x\" } }", "claims: \"b1\" has no target"),
        ("{ b1 = { target = \"usr/bin/x\" } }", "claims: \"b1\": target \"usr/bin/x\" is not absolute"),
    ] {
        check("{ name = \"libz.so.1\" }", &provider(claims), 13, expected);
    }
    check("\"libz-ng\"", "\"libz-ng\", claims = {}", 15, "unknown key \"claims\"");
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
    check(
        "\"https://zlib",
        "\"ftp://zlib",
        4,
        "[meta] homepage \"ftp://zlib.net\" is not an http or https URL",
    );
    check("\"Zlib\"", "\"Zlib\\u001b[1m\"", 3, "\"Zlib\\u{1b}[1m\" has a control character");
    check("\"Zlib\"", "\"\"\"Zlib\nMIT\"\"\"", 3, "\"Zlib\\nMIT\" has a control character");
    check(
        "arch = \"any\"",
        "foo = \"any\"",
        12,
        "known here: name, constraint, arch, root, claims, same_build",
    );
    check("\"var/lib/z/\"]", "1]", 17, "[[package]] files: element 2: expected a string, found integer");
    check("build_script = \"build.sh\"", "", 2, "missing key \"build_script\"");
    check("\"build.sh\"", "\"/build.sh\"", 6, "must be relative");
    check("name = \"libz-dev\"", "name = \"Libz\"", 20, "[[package]] name \"Libz\" has a character");
    check("\narchitecture = \"x86_64\"", "\n", 8, "missing key \"architecture\"");
    check("\"x86_64\"", "\"i386\"", 10, "unknown architecture \"i386\"");
    check(
        "\"zlib\"\ndep",
        "\"zlib\u{200b}\"\ndep",
        11,
        "[[package]] description \"zlib\\u{200b}\" has the character U+200B; allowed are",
    );
    check(
        "\"base\", arch = \"any\"",
        "\"base\", root = \"/mnt\"",
        12,
        "[[package]] dependencies root \"/mnt\" is not the name of a root",
    );
    check("\"libz-ng\"", "\"libz-ng\", root = \"a\"", 15, "unknown key \"root\"");
    check("constraint = \">= 2", "constrain = \">= 2", 12, "did you mean \"constraint\"?");
    check(
        ">= 2, < 3",
        "~> 2",
        12,
        "[[package]] dependencies constraint \"~> 2\" is not a list of comparisons",
    );
    check(
        "arch = \"any\"",
        "arch = \"x86_64\"",
        12,
        "[[package]] dependencies arch \"x86_64\" is not \"any\"",
    );
    check("\"base\"", "\"libc\"", 12, "[[package]] dependencies name \"libc\" is listed twice");
    check("version = \"1.3\"", "version = \"?\"", 13, "[[package]] provides version \"?\" is not a version");
    check("\"zlib\", con", "\"libGL.so\", con", 14, "[[package]] replaces name \"libGL.so\" has a character");
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
fn sign_is_read_in_order_with_clean_paths() {
    let sign = |path: &str| format!("[[sign]]\npath = {path:?}\nkey = \"tcb\"\n");
    for (path, clean) in [
        ("usr/bin/x", "usr/bin/x"),
        ("./usr//bin/./x/", "usr/bin/x"),
        ("usr/lib/../bin/x", "usr/bin/x"),
        ("usr/bin/*", "usr/bin/*"),
        ("usr/..x/x..", "usr/..x/x.."),
    ] {
        let text = GOOD.replace("[upstream]", &format!("{}{}[upstream]", sign("usr/lib/first"), sign(path)));
        let found = read(&text).unwrap().sign;
        let found: Vec<_> = found.iter().map(|it| (it.path.as_str(), it.key.as_str(), it.line)).collect();
        assert_eq!(found, [("usr/lib/first", "tcb", 25), (clean, "tcb", 28)]);
    }
    assert_eq!(read(GOOD).unwrap().sign, []);
}

#[test]
fn sign_wrong_is_refused_with_its_line() {
    let sign = |lines: &str| format!("[[sign]]\n{lines}\n[upstream]");
    let check_sign = |lines: &str, line, expected| check("[upstream]", &sign(lines), line, expected);
    check_sign("key = \"tcb\"", 25, "missing key \"path\" in [[sign]]");
    check_sign("path = \"usr/bin/x\"", 25, "missing key \"key\" in [[sign]]");
    check_sign("path = \"\"\nkey = \"tcb\"", 26, "[[sign]] path must not be empty");
    check_sign("path = \"usr/bin/x\"\nkey = \"\"", 27, "[[sign]] key must not be empty");
    check_sign("path = [\"usr/bin/x\"]\nkey = \"tcb\"", 26, "expected a string");
    check_sign("path = \"x\"\nkey = \"tcb\"\nkeys = 1", 28, "unknown key \"keys\" in [[sign]]");
    for path in ["/usr/bin/x", "//x", "..", "../x", "usr/../../x", "./../x", "usr/../.."] {
        let lines = format!("key = \"tcb\"\npath = {path:?}");
        check("[upstream]", &sign(&lines), 27, &format!("[[sign]] path {path:?} escapes $DESTDIR"));
    }
    let twice = |path: &str| {
        let first = "[[sign]]\npath = \"usr/bin/a\"\nkey = \"tcb\"\n";
        format!("{first}[[sign]]\nkey = \"b\"\npath = {path:?}\n[upstream]")
    };
    for path in ["usr/bin/a", "usr/./bin//a", "usr/lib/../bin/a/"] {
        let expected =
            format!("[[sign]] path {path:?} is the file of the [[sign]] in line 25, expected each");
        check("[upstream]", &twice(path), 30, &expected);
    }
    for path in [".", "./", "usr/.."] {
        check_sign(&format!("path = {path:?}\nkey = \"tcb\""), 26, "is $DESTDIR itself");
    }
    check("[upstream]", "[sign]\npath = \"x\"\nkey = \"tcb\"\n[upstream]", 25, "expected an array of tables");
}

#[test]
fn section_misspelt_is_refused_and_one_of_another_tool_is_not() {
    for (wrong, right) in [("[[sing]]", "sign"), ("[[packages]]", "package")] {
        let name = wrong.trim_matches(['[', ']']);
        let problem = format!("unknown key {name:?} at the top level; did you mean {right:?}?");
        check("[upstream]", &format!("{wrong}\nx = 1\n[upstream]"), 25, &problem);
    }
    let misspelt = GOOD.replace("[meta]", "[Meat]");
    let Err(problems) = read(&misspelt) else { panic!("{misspelt}") };
    assert!(problems.iter().any(|problem| problem.ends_with("did you mean \"meta\"?")), "{problems:?}");
    let others =
        ["[beta]", "[metal]", "[metadata]", "[lint]", "[[mirror]]", "[upsteam]", "[design]", "[packages]"];
    for other in others {
        assert!(read(&GOOD.replace("[upstream]", &format!("{other}\nx = 1\n[upstream]"))).is_ok(), "{other}");
    }
}
