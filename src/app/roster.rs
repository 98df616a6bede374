//! Reads the recipes below `recipes_dir`, the broken ones for their problems.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;

use peipkg_format::problem::Problem;

use crate::recipe::{FILE_NAME, Recipe};

/// Fewer recipes than these are not worth a thread that helps to read them.
const SHARE: usize = 256;

/// What was read, broken recipes included.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The id of every recipe that there is.
    pub ids: Vec<String>,
    /// Those that can be used.
    pub recipes: Vec<Recipe>,
    /// What is odd, about any of them.
    pub warnings: Vec<Problem>,
    /// What is wrong. A roster with a problem must not be used.
    pub problems: Vec<Problem>,
}

/// Reads every recipe below `recipes_dir`, sorted by id, whatever is wrong with it.
///
/// # Errors
/// When the directory itself cannot be read.
pub(super) fn read(recipes_dir: &Path) -> Result<Reading, Problem> {
    let directories = recipe_directories(recipes_dir)?;
    let shares = thread::available_parallelism().map_or(1, NonZero::get);
    let mut shares = directories.chunks(directories.len().div_ceil(shares).max(SHARE));
    let mut reading = thread::scope(|scope| {
        let first = shares.next().unwrap_or_default();
        let helper = |share| thread::Builder::new().spawn_scoped(scope, move || read_all(share)).ok();
        let others: Vec<_> = shares.map(|share| (share, helper(share))).collect();
        let mut reading = read_all(first);
        for (share, helper) in others {
            // A system that refuses threads does not keep recipes from being read.
            let read = helper.and_then(|helper| helper.join().ok());
            reading.append(read.unwrap_or_else(|| read_all(share)));
        }
        reading
    });
    let made_twice = shared_packages(&reading.recipes);
    reading.warnings.extend(made_twice);
    Ok(reading)
}

/// Reads the recipes in `directories`, whatever is wrong with them.
fn read_all(directories: &[PathBuf]) -> Reading {
    let mut reading = Reading::default();
    for directory in directories {
        let file = directory.join(FILE_NAME);
        let text = fs::read_to_string(&file);
        // A directory without the file is no recipe.
        if let Err(error) = &text
            && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        {
            continue;
        }
        let id = directory.file_name().and_then(|name| name.to_str());
        reading.ids.extend(id.map(str::to_owned));
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                reading.problems.push(Problem::of_file(file, format!("cannot read the recipe: {error}")));
                continue;
            }
        };
        let Some(id) = id else {
            let message = "the recipe's directory name is not UTF-8";
            reading.problems.push(Problem::of_file(directory, message));
            continue;
        };
        let stamp = stamp_of(directory, &text);
        match Recipe::parse(id, directory, &text, stamp, &mut reading.warnings) {
            Ok(recipe) => reading.recipes.push(recipe),
            Err(found) => reading.problems.extend(found),
        }
    }
    reading
}

impl Reading {
    /// Adds what was read of further recipes.
    fn append(&mut self, mut other: Self) {
        self.ids.append(&mut other.ids);
        self.recipes.append(&mut other.recipes);
        self.warnings.append(&mut other.warnings);
        self.problems.append(&mut other.problems);
    }
}

/// Warnings about packages that several recipes make: versions are looked up by package, not by recipe.
fn shared_packages(recipes: &[Recipe]) -> Vec<Problem> {
    let mut makers = HashMap::new();
    let mut warnings = Vec::new();
    for recipe in recipes {
        for (package, line) in recipe.packages.iter().zip(&recipe.package_lines) {
            let (other, other_line): (&Recipe, usize) = *makers.entry(package).or_insert((recipe, *line));
            if other.id != recipe.id {
                let message = format!(
                    "[[package]] {:?} for {} is made by {}:{other_line} too; of each version, only what is built first is published",
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

/// A number that changes with the recipe's text and with what lies beside it: the
/// build script, patches.
fn stamp_of(directory: &Path, text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let mut files: Vec<_> = fs::read_dir(directory).into_iter().flatten().flatten().collect();
    files.sort_by_key(fs::DirEntry::file_name);
    for file in files {
        file.file_name().hash(&mut hasher);
        // Through links, as the build script would read it.
        if let Ok(metadata) = fs::metadata(file.path()) {
            (metadata.len(), metadata.modified().ok()).hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// The entries of `recipes_dir`, sorted by name.
fn recipe_directories(recipes_dir: &Path) -> Result<Vec<PathBuf>, Problem> {
    let unreadable = |error: io::Error| {
        Problem::unreadable(recipes_dir, "recipes_dir", &error, "make it, with a directory for each recipe")
    };
    let entries = fs::read_dir(recipes_dir).map_err(unreadable)?;
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(unreadable)?;
    paths.sort();
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
        let reading = read(home.path()).unwrap();
        assert!(reading.ids.len() == count && reading.ids.is_sorted());
        let broken: Vec<_> = reading.problems.iter().map(|problem| problem.path.clone()).collect();
        assert!(broken.is_sorted(), "{broken:?}");
        let ids = reading.recipes.iter().map(|recipe| &recipe.id);
        assert!(ids.is_sorted(), "{:?}", reading.recipes);
        assert_eq!((broken.len(), reading.recipes.len()), (count / 100, count - count / 100));
    }
}
