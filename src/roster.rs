//! Reading the recipes below `recipes_dir`, all of them or none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::problem::Problem;
use crate::recipe::Recipe;

/// The file that makes a directory a recipe.
const RECIPE_FILE: &str = "peipkg.toml";

/// Reads every recipe below `recipes_dir`, sorted by id, with warnings about them.
///
/// # Errors
/// Every problem of every recipe: a roster with a broken recipe is none.
pub fn load(recipes_dir: &Path) -> Result<(Vec<Recipe>, Vec<Problem>), Vec<Problem>> {
    let (mut recipes, mut warnings, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for directory in recipe_directories(recipes_dir).map_err(|problem| vec![problem])? {
        let file = directory.join(RECIPE_FILE);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            // A directory without the file is no recipe.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                continue;
            }
            Err(error) => {
                problems.push(Problem::of_file(file, format!("cannot read the recipe: {error}")));
                continue;
            }
        };
        let Some(id) = directory.file_name().and_then(|name| name.to_str()) else {
            problems.push(Problem::of_file(directory, "the recipe's directory name is not UTF-8"));
            continue;
        };
        match Recipe::parse(id, &directory, &text) {
            Ok((recipe, notes)) => {
                recipes.push(recipe);
                warnings.extend(notes);
            }
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok((recipes, warnings)) } else { Err(problems) }
}

/// The entries of `recipes_dir`, sorted by name.
fn recipe_directories(recipes_dir: &Path) -> Result<Vec<PathBuf>, Problem> {
    let unreadable =
        |error: io::Error| Problem::of_file(recipes_dir, format!("cannot read recipes_dir: {error}"));
    let entries = fs::read_dir(recipes_dir).map_err(unreadable)?;
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(unreadable)?;
    paths.sort();
    Ok(paths)
}
