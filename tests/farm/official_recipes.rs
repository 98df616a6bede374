//! The recipes of the official set, in their shape: names, patterns, sections and punctuation are
//! theirs, build scripts and words are not. A farm that moves here must not change any of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::farm::Farm;

/// Every recipe: its name, `peipkg.toml` and `build.sh`.
fn recipes() -> BTreeMap<String, [String; 2]> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/official-recipes");
    let entries = fs::read_dir(&directory).expect("the recipes").map(|entry| entry.expect("a recipe"));
    let read = |path: &Path| fs::read_to_string(path).expect("a file of a recipe");
    let texts = |path: &Path| ["peipkg.toml", "build.sh"].map(|name| read(&path.join(name)));
    entries.map(|entry| (entry.file_name().into_string().expect("a name"), texts(&entry.path()))).collect()
}

#[test]
fn recipes_of_the_official_set_pass_the_check() {
    let recipes = recipes();
    assert_eq!(recipes.len(), 10, "{:?}", recipes.keys());
    let signed = recipes.iter().filter(|(_, [toml, _])| toml.contains("[[sign]]"));
    let grants = signed.map(|(id, _)| format!("[[grant]]\nrecipe = \"{id}\"\nsign = [\"tcb\"]\n"));
    let grants = grants.collect::<Vec<_>>().concat();
    assert_eq!(grants.matches("[[grant]]").count(), 2, "{grants}");
    let key = "[[signing_key]]\nname = \"tcb\"\nprivate = \"{home}/farm.key\"\n";
    let mut farm = Farm::builder().config_extra(&format!("{key}{grants}"));
    for (id, [toml, script]) in &recipes {
        farm = farm.recipe(id, toml, script);
    }
    let farm = farm.build();
    let output = farm.run(&["--check"]);
    let ok = format!("{}: ok, 10 recipes, 10 with an upstream\n", farm.config_path().display());
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), (ok.as_str(), ""), "{output}");
    output.assert_code(0);
}
