//! Reading the recipes below `recipes_dir`, all of them or none.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use crate::problem::Problem;
use crate::recipe::{FILE_NAME, Recipe};

/// What was read, broken recipes included.
#[derive(Debug, Default)]
pub struct Reading {
    /// The id of every recipe that there is.
    pub ids: Vec<String>,
    /// Those that can be used.
    pub recipes: Vec<Recipe>,
    /// What is odd, about any of them.
    pub warnings: Vec<Problem>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// Reads every recipe below `recipes_dir`, sorted by id, with warnings about them.
///
/// # Errors
/// Every problem of every recipe: a roster with a broken recipe is none.
pub fn load(recipes_dir: &Path) -> Result<(Vec<Recipe>, Vec<Problem>), Vec<Problem>> {
    let Reading { recipes, warnings, problems, .. } = read(recipes_dir).map_err(|problem| vec![problem])?;
    if problems.is_empty() { Ok((recipes, warnings)) } else { Err(problems) }
}

/// Reads every recipe below `recipes_dir`, sorted by id, whatever is wrong with it.
///
/// # Errors
/// When the directory itself cannot be read.
pub fn read(recipes_dir: &Path) -> Result<Reading, Problem> {
    let mut reading = Reading::default();
    for directory in recipe_directories(recipes_dir)? {
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
        match Recipe::parse_with(id, &directory, &text, &mut reading.warnings) {
            Ok(recipe) => reading.recipes.push(Recipe { stamp: stamp_of(&directory, &text), ..recipe }),
            Err(found) => reading.problems.extend(found),
        }
    }
    let shared = shared_packages(&reading.recipes);
    reading.warnings.extend(shared);
    Ok(reading)
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
