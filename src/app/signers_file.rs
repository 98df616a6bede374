//! Reads the files with the signers of recipes: for the roster, and for each build from its copy of the
//! recipe.

use std::path::{Path, PathBuf};

use peipkg_format::problem::Problem;
use peipkg_format::regular_file::{self, MAX_TEXT};

use crate::app::recipe_files::RecipeFiles;
use crate::recipe::signers::{self, Signers, SignersKind};
use crate::recipe::{BuildKeys, Recipe};
use crate::upstream::source::signatures::Verifiers;

/// Reads the file with the signers of a recipe. Returns why the recipe's builds will fail, if they will.
///
/// # Errors
/// If the file cannot be used.
pub(super) fn read(
    recipe: &mut Recipe,
    keys: &BuildKeys,
    files: Option<&RecipeFiles>,
    verifiers: &Verifiers,
) -> Result<Option<Problem>, Problem> {
    let (path, dir) = (recipe.file(), recipe.dir.clone());
    let Some(signers) = recipe.upstream.as_mut().and_then(|upstream| upstream.signers.as_mut()) else {
        return Ok(None);
    };
    let file = signers.file.clone();
    let problem = |text: String| {
        let message = format!("[upstream] signers {file:?} {text}");
        Problem { path: path.clone(), line: keys.signers_line, message }
    };
    let unreadable = |error| {
        problem(format!(
            "cannot be read: {error}; expected a file in the recipe's directory, an allowed-signers file \
             of OpenSSH or an OpenPGP keyring"
        ))
    };
    let bytes = regular_file::read(&dir.join(&*file), MAX_TEXT).map_err(unreadable)?;
    let kind = signers::kind_of(&bytes).map_err(problem)?;
    signers.digest = signers::digest(&bytes);
    // A recipe that is too large is a problem of its own.
    if files.is_some_and(|files| !files.contains(&file)) {
        let text = "is not among the files that a build gets: those in the recipe's directory, but no files \
                    of git or an editor";
        return Err(problem(text.to_owned()));
    }
    Ok(match verifiers.of(kind) {
        (_, Some(_)) => None,
        (program, None) => {
            Some(problem(format!("needs {program}, which is not on PATH, so its builds fail")))
        }
    })
}

/// A file with signers that a build uses.
pub(super) struct BuildSigners {
    pub(super) path: PathBuf,
    pub(super) kind: SignersKind,
}

/// Reads the file in the copy of a recipe; returns none if it is not the one that was loaded.
pub(super) fn of_copy(signers: &Signers, copy: &Path) -> Option<BuildSigners> {
    let path = copy.join(&*signers.file);
    let bytes = regular_file::read(&path, MAX_TEXT).ok()?;
    // The copy may differ: a change can leave size and time alone.
    let kind = signers::kind_of(&bytes).ok().filter(|_| signers::digest(&bytes) == signers.digest)?;
    Some(BuildSigners { path, kind })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn copy_of_other_signers_is_not_used() {
        let copy = tempfile::tempdir().unwrap();
        let line = |name: &str| {
            format!(
                "{name} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK5+a1++A81IJoBLrAsakmaAGFVjx8IVsjlRaEr5E0Bp\n"
            )
        };
        let loaded = Signers { file: "keys".into(), digest: signers::digest(line("a@x").as_bytes()) };
        for (name, is_used) in [("a@x", true), ("b@x", false)] {
            fs::write(copy.path().join("keys"), line(name)).unwrap();
            assert_eq!(of_copy(&loaded, copy.path()).is_some(), is_used, "{name}");
        }
        fs::remove_file(copy.path().join("keys")).unwrap();
        assert!(of_copy(&loaded, copy.path()).is_none());
    }
}
