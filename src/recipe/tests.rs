//! Tables of recipes: the values of good ones, the problems of bad ones.

use super::tag_reader::TagVersion;
use super::*;

const PACKAGE: &str = "[[package]]\nname = \"jq\"\narchitecture = \"x86_64\"\n";

/// A recipe with a package and with `lines` at the end of `[upstream]`, which begins at line 4.
fn upstream(lines: &str) -> String {
    format!("{PACKAGE}[upstream]\ngit = \"https://example.org/jq\"\ntag_pattern = '^v(.+)$'\n{lines}")
}

fn read(text: &str, warnings: &mut Vec<Problem>) -> Result<Recipe, Vec<Problem>> {
    Recipe::parse("jq", Path::new("/r/jq"), text, 7, warnings)
}

#[track_caller]
fn parse(text: &str) -> Recipe {
    read(text, &mut Vec::new()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// The warnings about a recipe without problems.
#[track_caller]
fn warnings(text: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    read(text, &mut warnings).unwrap();
    warnings.iter().map(ToString::to_string).collect()
}

/// Checks the problems of a recipe. `expected` leaves out the path at the start of each.
#[track_caller]
fn check_problems(text: &str, expected: &[&str]) {
    let problems = read(text, &mut Vec::new()).err().unwrap_or_default();
    let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let expected: Vec<String> =
        expected.iter().map(|problem| format!("/r/jq/peipkg.toml:{problem}")).collect();
    assert_eq!(found, expected);
}

#[track_caller]
fn build_keys(text: &str) -> BuildKeys {
    Recipe::parse_whole("jq", Path::new("/r/jq"), text, 7, &mut Vec::new()).unwrap().1
}

#[track_caller]
fn check_tag(lines: &str, tag: &str, expected: &str) {
    let found = match parse(&upstream(lines)).upstream.unwrap().tag_reader().version_of(tag) {
        TagVersion::NoMatch => "no match".to_owned(),
        TagVersion::Excluded => "excluded".to_owned(),
        TagVersion::TooOld => "too old".to_owned(),
        TagVersion::Invalid { captured, reason } => format!("{captured:?}: {reason}"),
        TagVersion::Version(version) => version.to_string(),
    };
    assert_eq!(found, expected, "{tag}");
}

#[test]
fn recipe_with_every_key_is_read() {
    let recipe = parse(
        r#"
        [meta]
        license = "MIT"
        anything = "goes"
        [[package]]
        name = "libjq"
        architecture = "x86_64"
        files = ["usr/lib/**"]
        [[package]]
        name = "jq-doc"
        architecture = "noarch"
        dependencies = [{ name = "libjq", same_build = true }]
        [[package]]
        name = "libjq"
        architecture = "aarch64"
        [upstream]
        git = "git@github.com:jqlang/jq.git"
        tag_pattern = "^jq-(\\d+\\.\\d+)$"
        peios_revision = 3
        submodules = true
        min_version = "1.5"
        exclude = ["jq-1.6", "jq-1.7rc1", "not/of-the-pattern"]
        export_version = true
        [watch]
        github_webhook = true
        poll_interval = "1h30m"
        [provenance]
        "#,
    );
    assert_eq!((&*recipe.id, recipe.file().as_path()), ("jq", Path::new("/r/jq/peipkg.toml")));
    assert_eq!(recipe.stamp, 7);
    let packages: Vec<String> =
        recipe.packages.iter().map(|package| format!("{} {}", package.name, package.architecture)).collect();
    assert_eq!(packages, ["libjq x86_64", "jq-doc noarch", "libjq aarch64"]);
    assert_eq!((recipe.github_webhook, recipe.poll_interval), (true, Some(Duration::from_mins(90))));
    let upstream = recipe.upstream.unwrap();
    assert_eq!(upstream.url.secret_text(), "git@github.com:jqlang/jq.git");
    assert_eq!(upstream.tag_pattern.as_str(), r"^jq-(\d+\.\d+)$");
    assert_eq!((upstream.peios_revision, upstream.submodules), (3, true));
    assert_eq!(upstream.min_version.unwrap().as_str(), "1.5-1");
    assert!(upstream.exclude.iter().eq(["jq-1.6", "jq-1.7rc1", "not/of-the-pattern"]));
    assert!(upstream.export_version);
}

#[test]
fn keys_missing_have_their_defaults() {
    let recipe = parse("");
    assert!(recipe.upstream.is_none() && recipe.packages.is_empty());
    assert_eq!((recipe.github_webhook, recipe.poll_interval), (false, None));
    assert!(parse("[watch]\ngithub_webhook = true\n").github_webhook);
    let shortest = parse("[watch]\npoll_interval = \"1m\"\n");
    assert_eq!(shortest.poll_interval, Some(MIN_POLL_INTERVAL));
    let upstream = parse(&upstream("")).upstream.unwrap();
    assert_eq!((upstream.peios_revision, upstream.submodules, upstream.min_version), (1, false, None));
    assert_eq!((upstream.exclude.len(), upstream.export_version), (0, false));
}

#[test]
fn tags_give_their_versions() {
    check_tag("", "v1.7.1", "1.7.1-1");
    check_tag("", "1.7.1", "no match");
    check_tag("peios_revision = 4", "v1.7.1-rc1", "1.7.1-rc1-4");
    check_tag("peios_revision = 4294967295", "v1", "1-4294967295");
    check_tag("min_version = \"1.7\"", "v1.6.9", "too old");
    check_tag("min_version = \"1.7\"", "v1.7", "1.7-1");
    check_tag("min_version = \"1.7\"", "v1.7rc1", "too old");
    check_tag("min_version = \"1.7\"\npeios_revision = 2", "v1.10", "1.10-2");
    check_tag("min_version = \"1:0\"", "v1.10", "too old");
    check_tag("exclude = [\"v1.7\", \"v../x\", \"2\"]", "v1.7", "excluded");
    check_tag("exclude = [\"v1.7\", \"v../x\", \"2\"]", "v1.7.1", "1.7.1-1");
    check_tag("exclude = [\"v1.7\", \"v../x\", \"2\"]", "v../x", "excluded");
    check_tag("exclude = [\"v1.7\", \"v../x\", \"2\"]", "2", "no match");
    check_tag("exclude = [\"v1.7\"]\nmin_version = \"1.8\"", "v1.7", "excluded");
    check_tag("exclude = []", "v1.7", "1.7-1");
    check_tag(
        "",
        "v../../x",
        "\"../../x\": upstream version \"../../x\" does not start with an ASCII digit or letter",
    );
    check_tag(
        "",
        "v--help",
        "\"--help\": upstream version \"--help\" does not start with an ASCII digit or letter",
    );
    check_tag(
        "",
        "v1.\u{e9}",
        "\"1.\u{e9}\": upstream version \"1.\u{e9}\" has '\u{e9}', \
         allowed are ASCII letters, digits and . + - ~",
    );
    let long = "9".repeat(300);
    check_tag(
        "",
        &format!("v{long}"),
        &format!("\"{long}\": version is 302 bytes long, at most 128 fit into a file name"),
    );
}

#[test]
fn recipe_builds_the_same_until_a_key_changes_a_build() {
    let recipe = |lines: &str| parse(&upstream(lines));
    let before = recipe("");
    assert!(before.builds_the_same_as(&recipe("submodules = false\nexclude = []\n")));
    for lines in ["submodules = true", "peios_revision = 2", "exclude = [\"v1\"]", "export_version = true"] {
        assert!(!before.builds_the_same_as(&recipe(lines)), "{lines}");
    }
}

#[test]
fn warning_about_a_pattern_has_its_line() {
    let text = upstream("").replace("^v(.+)$", r"^v(\d+)\.(\d+)$");
    assert_eq!(
        warnings(&text),
        ["/r/jq/peipkg.toml:6: [upstream] tag_pattern: \"^v(\\\\d+)\\\\.(\\\\d+)$\" has 2 capture groups \
          and only the first counts, write (?:…) for the groups that capture nothing"]
    );
}

#[test]
fn id_unsafe_in_a_path_is_refused() {
    for good in ["jq", "libstdc++", "Python-3.13", "7zip", "a_b", &"a".repeat(64)] {
        assert_eq!(check_id(good), Ok(()), "{good}");
    }
    let check = |id: &str, expected: &str| {
        let problems = Recipe::parse(id, Path::new("/r/x"), "", 0, &mut Vec::new()).unwrap_err();
        assert_eq!(problems[0].to_string(), format!("/r/x/peipkg.toml: recipe id {expected}"));
    };
    check("", "\"\" does not start with an ASCII letter or digit");
    check("-x", "\"-x\" does not start with an ASCII letter or digit");
    check(".git", "\".git\" does not start with an ASCII letter or digit");
    check("a b", "\"a b\" has ' ', allowed are ASCII letters, digits and . _ + -");
    check("a\nb", "\"a\\nb\" has '\\n', allowed are ASCII letters, digits and . _ + -");
    check("caf\u{e9}", "\"caf\u{e9}\" has '\u{e9}', allowed are ASCII letters, digits and . _ + -");
    let long = "a".repeat(65);
    check(&long, &format!("\"{long}\" is 65 bytes long, at most 64 are allowed"));
}

#[test]
fn upstreams_wrong_are_named() {
    check_problems(
        "[upstream]\n",
        &[
            "1: missing key \"git\" in [upstream]",
            "1: missing key \"tag_pattern\" in [upstream]",
            "1: missing section [[package]], a recipe with [upstream] needs at least one",
        ],
    );
    check_problems(
        "upstream = 1\nwatch = []\npackage = 2",
        &[
            "1: upstream: expected a table, found integer",
            "2: watch: expected a table, found array",
            "3: package: expected an array of tables, found integer",
        ],
    );
    let with = |key: &str, value: &str| {
        let text = upstream("");
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        text.replace(line, &format!("{key} = {value}"))
    };
    check_problems(&with("git", "\"\""), &["5: [upstream] git must not be empty"]);
    check_problems(
        &with("git", "\"--upload-pack=x\""),
        &["5: [upstream] git: \"--upload-pack=x\" starts with '-', like an option; expected a URL"],
    );
    check_problems(
        &with("git", "\"https://a\\nb\""),
        &["5: [upstream] git: \"https://a\\nb\" has the control character '\\n'; expected a URL"],
    );
    check_problems(
        &with("tag_pattern", "\"v(\""),
        &["6: [upstream] tag_pattern: \"v(\" is not a regular expression: \
           found open group without closing ')'"],
    );
    check_problems(
        &with("tag_pattern", "\"^v1$\""),
        &["6: [upstream] tag_pattern: \"^v1$\" has no capture group, \
           one pair of parentheses must enclose the version"],
    );
    check_problems(
        &upstream("peios_revision = 0\nsubmodules = 1\nmin_version = \"v1.0/2\"\nminversion = \"1\"\n"),
        &[
            "7: [upstream] peios_revision must be from 1 to 4294967295, found 0",
            "8: [upstream] submodules: expected true or false, found integer",
            "9: [upstream] min_version \"v1.0/2\" is not a version: upstream version \"v1.0/2\" has '/', \
             allowed are ASCII letters, digits and . + - ~",
            "10: unknown key \"minversion\" in [upstream]; did you mean \"min_version\"?",
        ],
    );
    check_problems(
        &upstream("exclude = [\"v1\", \"v2\", \"v1\", \"\", \"refs/tags/v3\"]\nexport_version = \"yes\"\n"),
        &[
            "7: [upstream] exclude has the tag \"v1\" twice",
            "7: [upstream] exclude has an empty tag",
            "7: [upstream] exclude: write \"refs/tags/v3\" without \"refs/tags/\"",
            "8: [upstream] export_version: expected true or false, found string",
        ],
    );
    for (wrong, problem) in [
        ("\"v1\"", "expected an array of strings, found string"),
        ("true", "expected an array of strings, found boolean"),
        ("[1]", "element 1: expected a string, found integer"),
        ("[\"v1\", [\"v2\"]]", "element 2: expected a string, found array"),
    ] {
        check_problems(
            &upstream(&format!("exclude = {wrong}\n")),
            &[&format!("7: [upstream] exclude: {problem}")],
        );
    }
    check_problems(
        &upstream("peios_revision = \"2\""),
        &["7: [upstream] peios_revision: expected an integer, found string"],
    );
}

#[test]
fn packages_and_watches_wrong_are_named() {
    let stanza = "[[package]]\nname = \"../x\"\narchitecture = \"X\"\n";
    check_problems(
        &format!("{PACKAGE}{PACKAGE}{stanza}[[package]]\n"),
        &[
            "5: [[package]] \"jq\" for x86_64 is declared twice",
            "8: [[package]] name \"../x\" has a character outside a-z, 0-9, '-', '.' and '+'",
            "9: [[package]] architecture \"X\" is not an architecture such as noarch or x86_64",
            "10: missing key \"name\" in [[package]]",
            "10: missing key \"architecture\" in [[package]]",
        ],
    );
    check_problems(
        "[watch]\npoll_interval = \"30s\"\ngithub_webhok = true\n",
        &[
            "2: [watch] poll_interval must be at least 1m, found \"30s\"",
            "3: unknown key \"github_webhok\" in [watch]; did you mean \"github_webhook\"?",
        ],
    );
    check_problems(
        "[watch]\npoll_interval = \"1 hour\"\n",
        &["2: [watch] poll_interval: \"1 hour\" is not a duration: \
           unknown unit \" hour\", use ns, us, ms, s, m or h"],
    );
    let problems = Recipe::parse("jq", Path::new("/r/jq"), "[watch\n", 0, &mut Vec::new()).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].to_string().starts_with("/r/jq/peipkg.toml:1: not valid TOML: "), "{}", problems[0]);
}

#[test]
fn section_misspelt_warns() {
    let check = |section: &str, expected: Option<&str>| {
        let found = warnings(&format!("{PACKAGE}{section}\n"));
        let expected = expected.map(|expected| format!("/r/jq/peipkg.toml:4: section {expected}"));
        assert_eq!(found, Vec::from_iter(expected), "{section}");
    };
    check("[upstreem]\nno = 1", Some("[upstreem] is not read, did you mean [upstream]?"));
    check("[Upstream]", Some("[Upstream] is not read, did you mean [upstream]?"));
    check("[[upstreams]]", Some("[upstreams] is not read, did you mean [upstream]?"));
    check("[wacth]", Some("[wacth] is not read, did you mean [watch]?"));
    for others in ["[patch]", "[build]", "[up]", "[stream]", "[[match]]", "[waste]"] {
        check(others, None);
    }
    assert_eq!(warnings(&upstream("[upstreams]\n")), <[String; 0]>::default());
}

#[test]
fn sign_keys_are_read_and_nothing_else_of_sign() {
    let keys = |sign: &str| build_keys(&upstream(&format!("{sign}\n"))).sign_keys;
    let sign = |key: &str| format!("[[sign]]\npath = 'usr/bin/jq'\nkey = {key}\n");
    let found = keys(&(sign("'tcb'") + &sign("'boot'") + &sign("'tcb'")));
    assert_eq!(found, [("tcb".to_owned(), 9), ("boot".to_owned(), 12)]);
    // `peipkg-build` refuses these; the manager does not.
    for foreign in
        ["[[sign]]", "[sign]\nkey = 'tcb'", "[[sign]]\nkey = 1", "[[sign]]\nkey = ''", "[[sign]]\nx = 1"]
    {
        assert_eq!(keys(foreign), []);
    }
    assert_eq!(keys(""), []);
    // A problem of the manager's own sections is still reported.
    check_problems(
        &format!("{}[watch]\npoll_interval = 1\n[[sign]]\nkey = 1\n", upstream("")),
        &["8: [watch] poll_interval: expected a string, found integer"],
    );
}

#[test]
fn exclude_that_excludes_nothing_warns() {
    let check = |exclude: &str, expected: &[&str]| {
        let found = warnings(&upstream(&format!("exclude = [{exclude}]\n")));
        let expected: Vec<String> = expected
            .iter()
            .map(|expected| format!("/r/jq/peipkg.toml:7: [upstream] exclude: {expected}"))
            .collect();
        assert_eq!(found, expected, "{exclude}");
    };
    let glob = |tag, c| {
        format!("\"{tag}\" excludes nothing, no tag has '{c}'; patterns are not read, write each tag in full")
    };
    let foreign = |tag| {
        format!("\"{tag}\" excludes nothing, tag_pattern does not match it; write the tag, not the version")
    };
    check("'v1', 'v2.0-rc1'", &[]);
    check("'v1.*'", &[&glob("v1.*", '*')]);
    check("'v1.?', 'v[12]'", &[&glob("v1.?", '?'), &glob("v[12]", '[')]);
    check("'1.0', 'v1.0'", &[&foreign("1.0")]);
}

#[test]
fn recipe_broken_has_its_warnings_too() {
    let mut warnings = Vec::new();
    let text = "[upstreem]\n[watch]\npoll_interval = \"1\"\n";
    let problems = read(text, &mut warnings).unwrap_err();
    assert_eq!((problems.len(), warnings.len()), (1, 1));
}
