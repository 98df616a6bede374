//! Reads the roster: every recipe below `recipes_dir`, and how the recipes fit together and to the
//! configuration. A start, a reload and `--check` all read it here.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;

use peipkg_format::problem::{Problem, utf8_text};
use peipkg_format::regular_file::{self, MAX_TEXT};
use peipkg_format::sort;

use crate::app::recipe_files::{self, RecipeFiles};
use crate::config::{Grant, Http};
use crate::recipe::{FILE_NAME, Recipe};
use crate::state::volumes::LOST_AND_FOUND;

/// How many recipes make it worth starting another thread to read them.
const SHARE: usize = 256;

/// The recipes that were read, and their problems.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The ids of all recipes, the broken ones included.
    pub ids: Vec<String>,
    /// The recipes without problems.
    pub recipes: Vec<Recipe>,
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
}

/// Reads the recipes below `recipes_dir`, sorted by id, and compares them with the configuration.
///
/// # Errors
/// If the directory cannot be read.
pub(super) fn read(recipes_dir: &Path, expected: Expected<'_>) -> Result<Reading, Problem> {
    let mut reading = read_recipes(recipes_dir)?;
    let Expected { config, http, grants } = expected;
    reading.warnings.extend(shared_packages(&reading.recipes));
    for (recipe, grant) in grants.iter().filter(|(recipe, _)| !reading.ids.contains(recipe)) {
        let message = format!("[[grant]] recipe {recipe:?} does not exist");
        reading.warnings.push(Problem { path: config.to_owned(), line: Some(grant.line), message });
    }
    reading.unbuildable.extend(ungranted_keys(&reading.recipes, expected));
    reading.problems.extend(http.and_then(|http| http.check_secret(config, &reading.recipes)));
    Ok(reading)
}

/// Reads the recipes below `recipes_dir`, sorted by id.
fn read_recipes(recipes_dir: &Path) -> Result<Reading, Problem> {
    let directories = recipe_directories(recipes_dir)?;
    let shares = thread::available_parallelism().map_or(1, NonZero::get);
    let mut shares = directories.chunks(directories.len().div_ceil(shares).max(SHARE));
    Ok(thread::scope(|scope| {
        let first = shares.next().unwrap_or_default();
        let helper = |share| thread::Builder::new().spawn_scoped(scope, move || read_share(share)).ok();
        let others: Vec<_> = shares.map(|share| (share, helper(share))).collect();
        let mut reading = read_share(first);
        for (share, helper) in others {
            // If the system refuses a thread, read its share here.
            let read = helper.and_then(|helper| helper.join().ok());
            reading.append(read.unwrap_or_else(|| read_share(share)));
        }
        reading
    }))
}

/// Reads the recipes in `directories`.
fn read_share(directories: &[PathBuf]) -> Reading {
    let mut reading = Reading::default();
    for directory in directories {
        let file = directory.join(FILE_NAME);
        let read = regular_file::read(&file, MAX_TEXT);
        // Ignore a directory without the file: it is no recipe.
        if let Err(error) = &read
            && (matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
                // A volume's own directory, which only root may read.
                || directory.ends_with(LOST_AND_FOUND))
        {
            continue;
        }
        let id = directory.file_name().and_then(|name| name.to_str());
        reading.ids.extend(id.map(str::to_owned));
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
        match Recipe::parse(id, directory, &text, stamp, &mut reading.warnings) {
            Ok(recipe) => {
                let script = files.ok().and_then(|files| unfit_script(&recipe, &files));
                reading.unbuildable.extend(recipe.unbuildable.iter().cloned().chain(script).map(of_builds));
                reading.recipes.push(recipe);
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
fn unfit_script(recipe: &Recipe, files: &RecipeFiles) -> Option<Problem> {
    let (script, line) = recipe.build_script.as_ref()?;
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
        self.warnings.append(&mut other.warnings);
        self.unbuildable.append(&mut other.unbuildable);
        self.problems.append(&mut other.problems);
    }
}

/// Finds the keys of `[[sign]]` that no grant gives to the recipe. The manager never builds a recipe
/// without `[upstream]`, so its keys need no grant.
fn ungranted_keys(recipes: &[Recipe], Expected { config, grants, .. }: Expected<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for recipe in recipes.iter().filter(|recipe| recipe.upstream.is_some()) {
        let granted = grants.get(&*recipe.id).map_or(&[][..], |grant| &grant.sign);
        for (key, line) in &recipe.sign_keys {
            if granted.iter().any(|granted| granted.name == *key) {
                continue;
            }
            let message = format!(
                "[[sign]] key {key:?} is not granted to this recipe, so its builds fail; \
                 name the key in sign of its [[grant]] in {}",
                config.display()
            );
            problems.push(Problem { path: recipe.file(), line: Some(*line), message });
        }
    }
    problems
}

/// Warns of packages that several recipes build. The archive index lists versions by package, so a
/// version that one of the recipes has published counts as published for the others.
fn shared_packages(recipes: &[Recipe]) -> Vec<Problem> {
    let mut builders = HashMap::new();
    let mut warnings = Vec::new();
    for recipe in recipes {
        for (package, line) in recipe.packages.iter().zip(&recipe.package_lines) {
            let (other, other_line): (&Recipe, usize) = *builders.entry(package).or_insert((recipe, *line));
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
    }
    warnings
}

/// Lists the entries of `recipes_dir`, sorted by name.
fn recipe_directories(recipes_dir: &Path) -> Result<Vec<PathBuf>, Problem> {
    let unreadable = |error: io::Error| {
        Problem::unreadable(recipes_dir, "recipes_dir", &error, "make it, with a directory for each recipe")
    };
    let entries = fs::read_dir(recipes_dir).map_err(unreadable)?;
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(unreadable)?;
    sort::sort(&mut paths);
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_read_by_several_threads_stay_in_order() {
        let home = tempfile::tempdir().unwrap();
        let count = SHARE * 5 / 2;
        for number in 0..count {
            let directory = home.path().join(format!("r{number:04}"));
            fs::create_dir(&directory).unwrap();
            let package = "[[package]]\nname = \"tool\"\narchitecture = \"noarch\"\n";
            fs::write(directory.join(FILE_NAME), if number % 100 == 99 { "?" } else { package }).unwrap();
        }
        let reading = read_recipes(home.path()).unwrap();
        assert!(reading.ids.len() == count && reading.ids.is_sorted());
        let broken: Vec<_> = reading.problems.iter().map(|problem| problem.path.clone()).collect();
        assert!(broken.is_sorted(), "{broken:?}");
        let ids = reading.recipes.iter().map(|recipe| &recipe.id);
        assert!(ids.is_sorted(), "{:?}", reading.recipes);
        assert_eq!((broken.len(), reading.recipes.len()), (count / 100, count - count / 100));
    }
}
