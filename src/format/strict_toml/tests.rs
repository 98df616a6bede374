//! Tests of strict reading: each problem with its line and its remedy.

use super::*;

fn problems(text: &str, read: impl FnOnce(&mut Section<'_, '_>)) -> Vec<String> {
    let document = match Document::parse(Path::new("c.toml"), text) {
        Ok(document) => document,
        Err(problems) => return problems.iter().map(ToString::to_string).collect(),
    };
    let mut root = document.root();
    read(&mut root);
    root.deny_unknown_keys();
    document.into_problems().iter().map(ToString::to_string).collect()
}

#[test]
fn problems_name_line_key_and_remedy() {
    let text = "[poll]\njobs = \"x\"\ndefault_intervall = 1\nzzz = 2\n[other]\n";
    let found = problems(text, |root| {
        let mut poll = root.section("poll").unwrap();
        assert_eq!(poll.optional::<i64>("jobs"), None);
        assert_eq!(poll.required::<String>("default_interval"), None);
        poll.deny_unknown_keys();
        assert!(root.required_section("manager").is_none());
    });
    assert_eq!(
        found,
        [
            "c.toml:1: missing key \"default_interval\" in [poll]",
            "c.toml:1: missing section [manager]",
            "c.toml:2: [poll] jobs: expected an integer, found string",
            "c.toml:3: unknown key \"default_intervall\" in [poll]; did you mean \"default_interval\"?",
            "c.toml:4: unknown key \"zzz\" in [poll]; known here: jobs, default_interval",
            "c.toml:5: unknown key \"other\" at the top level; known here: poll, manager",
        ]
    );
}

#[test]
fn element_of_another_type_is_named() {
    let text = "a = [\"x\",\n1]\nb = [[\"x\"]]\nc = \"x\"\nroo = 1\nfoo = 1\n";
    let found = problems(text, |root| {
        for key in ["a", "b", "c", "root"] {
            assert_eq!(root.optional::<Vec<String>>(key), None);
        }
    });
    assert_eq!(
        found,
        [
            "c.toml:2: a: element 2: expected a string, found integer",
            "c.toml:3: b: element 1: expected a string, found array",
            "c.toml:4: c: expected an array of strings, found string",
            "c.toml:5: unknown key \"roo\" at the top level; did you mean \"root\"?",
            "c.toml:6: unknown key \"foo\" at the top level; known here: a, b, c, root",
        ]
    );
}

#[test]
fn syntax_error_has_line_and_column() {
    let found = problems("a = 1\nb = \n", |_| ());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("c.toml:2: not valid TOML: "), "{found:?}");
    assert!(found[0].ends_with("(column 5)"), "{found:?}");
    let found = problems("a = = b\nc = = d\n", |_| ());
    assert!(
        matches!(&found[..], [a, b] if a.starts_with("c.toml:1:") && b.starts_with("c.toml:2:")),
        "{found:?}"
    );
}
