//! Reads the roster: every recipe below `recipes_dir`, and how the recipes fit together and to the
//! configuration. A start, a reload and `--check` all read it here.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use peipkg_format::problem::{Problem, utf8_text};
use peipkg_format::regular_file::{self, MAX_TEXT};
use peipkg_format::sort;

use crate::app::recipe_files::{self, RecipeFiles};
use crate::app::signers_file;
use crate::config::{Grant, Http};
use crate::farm::Roster;
use crate::process::processors;
use crate::recipe::{BuildKeys, FILE_NAME, Recipe};
use crate::state::volumes::LOST_AND_FOUND;
use crate::upstream::source::signatures::Verifiers;

/// How many recipes make it worth starting another thread to read them.
const SHARE: usize = 256;

/// The most threads that read recipes: each keeps some memory, and a control group may allow fewer
/// processors than [`processors::count`] says.
const MAX_READERS: usize = 4;

/// The recipes that were read, and their problems.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The ids of all recipes, the broken ones included.
    pub ids: Vec<Arc<str>>,
    /// The recipes without problems.
    pub recipes: Vec<Arc<Recipe>>,
    /// The line of each package of these recipes in its file, in one list: a box for each recipe would
    /// lie among what the next one needs for a moment, and keep that memory from the system.
    package_lines: Vec<usize>,
    /// Warnings about any of the recipes, or about grants.
    pub warnings: Vec<Problem>,
    /// Why all builds of a recipe will fail. The others can be built, so the roster can be used.
    pub unbuildable: Vec<Problem>,
    /// Problems. Do not use a roster that has one.
    pub problems: Vec<Problem>,
}

/// The parts of a configuration that the recipes must fit to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    /// The configuration file.
    pub config: &'a Path,
    /// `[http]`, if it could be read.
    pub http: Option<&'a Http>,
    /// `[[grant]]`.
    pub grants: &'a BTreeMap<String, Grant>,
    /// The programs that verify signatures.
    pub verifiers: &'a Verifiers,
}

/// Reads the recipes below `recipes_dir`, sorted by id, and compares them with the configuration. Takes
/// the recipes that have not changed from `present`: a reload should not hold two rosters in memory.
///
/// # Errors
/// If the directory cannot be read.
pub(super) fn read(recipes_dir: &Path, expected: Expected<'_>, present: &Roster) -> Result<Reading, Problem> {
    let mut reading = read_recipes(recipes_dir, expected, present)?;
    let Expected { config, http, grants, .. } = expected;
    let shared = shared_packages(&reading);
    reading.warnings.extend(shared);
    for (recipe, grant) in grants.iter().filter(|(recipe, _)| !reading.ids.iter().any(|id| **id == **recipe))
    {
        let message = format!("[[grant]] recipe {recipe:?} does not exist");
        reading.warnings.push(Problem { path: config.to_owned(), line: Some(grant.line), message });
    }
    reading.problems.extend(http.and_then(|http| http.check_secret(config, &reading.recipes)));
    Ok(reading)
}

/// Reads the recipe `id` below `recipes_dir` alone, whatever the others are.
pub(super) fn read_one(recipes_dir: &Path, id: &str, expected: Expected<'_>) -> Reading {
    read_share(recipes_dir, &[id.into()], expected, &Roster::new())
}

/// Reads the recipes below `recipes_dir`, sorted by id.
fn read_recipes(recipes_dir: &Path, expected: Expected<'_>, present: &Roster) -> Result<Reading, Problem> {
    let names = recipe_directories(recipes_dir)?;
    let shares = processors::count().min(MAX_READERS);
    let mut shares = names.chunks(names.len().div_ceil(shares).max(SHARE));
    Ok(thread::scope(|scope| {
        let first = shares.next().unwrap_or_default();
        let helper = |share| {
            thread::Builder::new()
                .spawn_scoped(scope, move || read_share(recipes_dir, share, expected, present))
                .ok()
        };
        let others: Vec<_> = shares.map(|share| (share, helper(share))).collect();
        let mut reading = read_share(recipes_dir, first, expected, present);
        for (share, helper) in others {
            // If the system refuses a thread, read its share here.
            let read = helper.and_then(|helper| helper.join().ok());
            reading.append(read.unwrap_or_else(|| read_share(recipes_dir, share, expected, present)));
        }
        reading
    }))
}

/// Reads the recipes in the directories `names`.
fn read_share(recipes_dir: &Path, names: &[OsString], expected: Expected<'_>, present: &Roster) -> Reading {
    let mut reading = Reading::default();
    // The lists have their places before what reading a recipe needs, and leave no holes as they grow.
    reading.ids.reserve_exact(names.len());
    reading.recipes.reserve_exact(names.len());
    reading.package_lines.reserve(names.len());
    for name in names {
        let directory = &recipes_dir.join(name);
        let file = directory.join(FILE_NAME);
        let read = regular_file::read(&file, MAX_TEXT);
        // Ignore a directory without the file: it is no recipe.
        if let Err(error) = &read
            && (matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
                // A volume's own directory, which only root may read.
                || name == LOST_AND_FOUND)
        {
            continue;
        }
        let id = name.to_str();
        let known = id.and_then(|id| present.get_key_value(id)).map(|(id, _)| id.clone());
        reading.ids.extend(known.or_else(|| id.map(Arc::from)));
        let unreadable = |error| Problem::of_file(&file, format!("cannot read the recipe: {error}"));
        let text = match read.map_err(unreadable).and_then(|bytes| utf8_text(&file, bytes)) {
            Ok(text) => text,
            Err(problem) => {
                reading.problems.push(problem);
                continue;
            }
        };
        let Some(id) = id else {
            let message = "the recipe's directory name is not UTF-8";
            reading.problems.push(Problem::of_file(directory, message));
            continue;
        };
        let files = recipe_files::list(directory);
        if let Err(error) = &files {
            let message = format!("its builds will fail, the directory has {error}");
            reading.unbuildable.push(Problem::of_file(directory.join(FILE_NAME), message));
        }
        let stamp = files.as_ref().map_or(0, |files| files.stamp(&text));
        match Recipe::parse_whole(id, directory, &text, stamp, &mut reading.warnings) {
            Ok((mut recipe, keys)) => {
                match signers_file::read(&mut recipe, &keys, files.as_ref().ok(), expected.verifiers) {
                    Ok(missing) => reading.unbuildable.extend(missing),
                    Err(problem) => {
                        reading.problems.push(problem);
                        continue;
                    }
                }
                let script = files.ok().and_then(|files| unfit_script(&recipe, &keys, &files));
                let ungranted = ungranted_keys(&recipe, &keys, expected);
                let unbuildable = keys.unbuildable.into_iter().chain(script).map(of_builds);
                reading.unbuildable.extend(unbuildable.chain(ungranted));
                reading.package_lines.extend(keys.package_lines);
                let unchanged = present.get(&recipe.id).filter(|present| ***present == recipe);
                reading.recipes.push(unchanged.cloned().unwrap_or_else(|| Arc::new(recipe)));
            }
            Err(found) => reading.problems.extend(found),
        }
    }
    reading
}

/// Says of a problem that it makes all builds of its recipe fail.
pub(super) fn of_builds(problem: Problem) -> Problem {
    Problem { message: format!("its builds will fail: {}", problem.message), ..problem }
}

/// Finds a build script that no build could read. A recipe without `[upstream]` is built by hand, in
/// its own directory: there, it may have a script that the manager would not copy.
fn unfit_script(recipe: &Recipe, keys: &BuildKeys, files: &RecipeFiles) -> Option<Problem> {
    let (script, line) = keys.build_script.as_ref()?;
    if files.contains(script) {
        return None;
    }
    let message = if Path::new(script).is_absolute() {
        "build_script must be relative to the recipe's directory".to_owned()
    } else if let Err(error) = regular_file::open(&recipe.dir.join(script)) {
        format!("build_script {script:?} cannot be read: {error}")
    } else if recipe.upstream.is_some() {
        format!(
            "build_script {script:?} is not among the files that a build gets: those in the recipe's \
             directory, but no files of git or an editor"
        )
    } else {
        return None;
    };
    Some(Problem { path: recipe.file(), line: Some(*line), message })
}

impl Reading {
    /// Adds a reading of further recipes.
    fn append(&mut self, mut other: Self) {
        self.ids.append(&mut other.ids);
        self.recipes.append(&mut other.recipes);
        self.package_lines.append(&mut other.package_lines);
        self.warnings.append(&mut other.warnings);
        self.unbuildable.append(&mut other.unbuildable);
        self.problems.append(&mut other.problems);
    }
}

/// Finds the keys of `[[sign]]` that no grant gives to the recipe. The manager never builds a recipe
/// without `[upstream]`, so its keys need no grant.
fn ungranted_keys(recipe: &Recipe, keys: &BuildKeys, expected: Expected<'_>) -> Vec<Problem> {
    if recipe.upstream.is_none() {
        return Vec::new();
    }
    let granted = expected.grants.get(&*recipe.id).map_or(&[][..], |grant| &grant.sign);
    let is_ungranted = |(key, _): &&(String, usize)| !granted.iter().any(|granted| granted.name == *key);
    let problem = |(key, line): &(String, usize)| {
        let message = format!(
            "[[sign]] key {key:?} is not granted to this recipe, so its builds fail; \
             name the key in sign of its [[grant]] in {}",
            expected.config.display()
        );
        Problem { path: recipe.file(), line: Some(*line), message }
    };
    keys.sign_keys.iter().filter(is_ungranted).map(problem).collect()
}

/// Warns of packages that several recipes build. The archive index lists versions by package, so a
/// version that one of the recipes has published counts as published for the others.
fn shared_packages(Reading { recipes, package_lines, .. }: &Reading) -> Vec<Problem> {
    let mut builders = HashMap::new();
    let mut warnings = Vec::new();
    let packages =
        recipes.iter().flat_map(|recipe| recipe.packages.iter().map(move |package| (recipe, package)));
    for ((recipe, package), line) in packages.zip(package_lines) {
        let (other, other_line): (&Recipe, usize) = *builders.entry(package).or_insert((&**recipe, *line));
        if other.id != recipe.id {
            let message = format!(
                "[[package]] {:?} for {} is built by {}:{other_line} too; only the first build of each version is published",
                package.name,
                package.architecture,
                other.file().display()
            );
            warnings.push(Problem { path: recipe.file(), line: Some(*line), message });
        }
    }
    warnings
}

/// Returns the names of the entries of `recipes_dir`, sorted.
fn recipe_directories(recipes_dir: &Path) -> Result<Vec<OsString>, Problem> {
    let unreadable = |error: io::Error| {
        Problem::unreadable(recipes_dir, "recipes_dir", &error, "make it, with a directory for each recipe")
    };
    let entries = fs::read_dir(recipes_dir).map_err(unreadable)?;
    let names: io::Result<Vec<OsString>> = entries.map(|entry| Ok(entry?.file_name())).collect();
    let mut names = names.map_err(unreadable)?;
    sort::sort(&mut names);
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGE: &str = "[[package]]\nname = \"tool\"\narchitecture = \"noarch\"\n";

    /// Writes recipes of several kilobytes.
    fn write_recipes(home: &Path, count: usize) {
        for number in 0..count {
            let directory = home.join(format!("r{number:04}"));
            fs::create_dir(&directory).unwrap();
            let keys: Vec<_> = (0..100).map(|key| format!("key-{key:02} = [\"a\", \"b\"]\n")).collect();
            fs::write(directory.join(FILE_NAME), format!("{PACKAGE}[meta]\n{}", keys.concat())).unwrap();
        }
    }

    #[test]
    fn recipes_reread_are_the_present_ones_until_their_text_changes() {
        let home = tempfile::tempdir().unwrap();
        write_recipes(home.path(), 3);
        let expected = Expected {
            config: home.path(),
            http: None,
            grants: &BTreeMap::new(),
            verifiers: &Verifiers::default(),
        };
        let read = |present: &Roster| read(home.path(), expected, present).unwrap().recipes;
        let first = read(&Roster::new());
        let present: Roster = first.iter().map(|recipe| (recipe.id.clone(), recipe.clone())).collect();
        // A change within the same second that leaves length and time alone.
        let path = first[1].file();
        let (text, modified) =
            (fs::read_to_string(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
        fs::write(&path, text.replace("tool", "fool")).unwrap();
        fs::File::options().append(true).open(&path).unwrap().set_modified(modified).unwrap();
        let again = read(&present);
        let is_present: Vec<bool> =
            first.iter().zip(&again).map(|(one, other)| Arc::ptr_eq(one, other)).collect();
        assert_eq!(is_present, [true, false, true]);
        assert_eq!(again[1].packages[0].name, "fool");
    }

    #[test]
    fn reload_holds_one_document_at_a_time() {
        let home = tempfile::tempdir().unwrap();
        // One thread reads so few: the counter counts for one thread.
        let count = SHARE - 1;
        write_recipes(home.path(), count);
        let expected = Expected {
            config: home.path(),
            http: None,
            grants: &BTreeMap::new(),
            verifiers: &Verifiers::default(),
        };
        let first = read(home.path(), expected, &Roster::new()).unwrap().recipes;
        let present: Roster = first.into_iter().map(|recipe| (recipe.id.clone(), recipe)).collect();
        let counted = allocation_counter::measure(|| {
            drop(read(home.path(), expected, &present).unwrap());
        });
        let most = counted.bytes_max / count as u64;
        assert!(most <= 500, "{most} bytes for each recipe");
    }

    #[test]
    fn recipes_read_by_several_threads_stay_in_order() {
        let home = tempfile::tempdir().unwrap();
        let count = SHARE * 5 / 2;
        for number in 0..count {
            let directory = home.path().join(format!("r{number:04}"));
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join(FILE_NAME), if number % 100 == 99 { "?" } else { PACKAGE }).unwrap();
        }
        let expected = Expected {
            config: home.path(),
            http: None,
            grants: &BTreeMap::new(),
            verifiers: &Verifiers::default(),
        };
        let reading = read_recipes(home.path(), expected, &Roster::new()).unwrap();
        assert!(reading.ids.len() == count && reading.ids.is_sorted());
        let broken: Vec<_> = reading.problems.iter().map(|problem| problem.path.clone()).collect();
        assert!(broken.is_sorted(), "{broken:?}");
        let ids = reading.recipes.iter().map(|recipe| &recipe.id);
        assert!(ids.is_sorted(), "{:?}", reading.recipes);
        assert_eq!((broken.len(), reading.recipes.len()), (count / 100, count - count / 100));
    }
}
