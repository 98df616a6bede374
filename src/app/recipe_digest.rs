//! The digest of a recipe: `dirHash` of in-toto, which `find`, `sort` and `sha256sum` compute too. It
//! must not read what the recipe says.
//!
//! A `dirHash` is the SHA-256 of the output of `sha256sum` for all files, sorted by the bytes of their
//! paths. It does not tell which files are executable, so those have a digest of their own.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use peipkg_format::hex;
use peipkg_format::sort;
use ring::digest::{self, SHA256};

use crate::app::recipe_files::{self, CopyError, RecipeFile};
use crate::repository::inspect::sha256;
use crate::state::durable::at;

/// The digests of a recipe's files, in hexadecimal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RecipeDigest {
    /// The `dirHash` of all files.
    pub files: String,
    /// The `dirHash` of the executable files alone.
    pub executables: String,
}

/// Returns the digests of the recipe in `directory`: of the files that a build gets.
///
/// # Errors
/// When a file cannot be read, or the recipe is too large to be built.
pub(super) fn of(directory: &Path) -> Result<RecipeDigest, CopyError> {
    let files = recipe_files::list(directory)?;
    let mut files: Vec<&RecipeFile> = files.iter().collect();
    // Paths compare by their parts, `sort` by all bytes: `a-b` is before `a/b`.
    let bytes = |file: &RecipeFile| file.path.as_os_str().as_bytes().to_owned();
    sort::sort_by(&mut files, |one, other| bytes(one).cmp(&bytes(other)));
    let (mut all, mut executables) = (digest::Context::new(&SHA256), digest::Context::new(&SHA256));
    for file in files {
        let path = directory.join(&file.path);
        let found = sha256(&path).map_err(at(&path))?.ok_or(CopyError::Changed)?;
        let line = line(&found, &bytes(file));
        all.update(&line);
        if file.is_executable() {
            executables.update(&line);
        }
    }
    let [files, executables] = [all, executables].map(|context| hex::encode(context.finish().as_ref()));
    Ok(RecipeDigest { files, executables })
}

/// Returns a line of `sha256sum`, which escapes some characters of a name and then begins with `\`.
fn line(digest: &str, name: &[u8]) -> Vec<u8> {
    let escape = |byte: &u8| match byte {
        b'\\' => b"\\\\".to_vec(),
        b'\n' => b"\\n".to_vec(),
        b'\r' => b"\\r".to_vec(),
        byte => vec![*byte],
    };
    let escaped: Vec<u8> = name.iter().flat_map(escape).collect();
    let mark: &[u8] = if escaped.len() == name.len() { b"" } else { b"\\" };
    [mark, digest.as_bytes(), b"  ", &escaped, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::process::Command;

    use super::*;

    /// The command that `docs/provenance.md` gives to auditors.
    const COMMAND: &str = "find -L . -type f -printf '%P\\0' | LC_ALL=C sort -z \
                           | xargs -0r sha256sum -- | sha256sum | cut -d' ' -f1";

    fn shell(directory: &Path, command: &str) -> String {
        let output = Command::new("sh").args(["-c", command]).current_dir(directory).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn digest_is_the_one_that_coreutils_compute() {
        let home = tempfile::tempdir().unwrap();
        let recipe = home.path().join("recipe");
        fs::create_dir_all(recipe.join("a/deep")).unwrap();
        fs::create_dir(home.path().join("common")).unwrap();
        fs::write(home.path().join("common/helper"), "help").unwrap();
        symlink("../common", recipe.join("common")).unwrap();
        for name in ["a/deep/b", "a-b", "a.b", "-x", "ü \" '", "line\nfeed", "back\\slash", "return\r"] {
            fs::write(recipe.join(name), name).unwrap();
        }
        fs::set_permissions(recipe.join("a-b"), Permissions::from_mode(0o755)).unwrap();
        let found = of(&recipe).unwrap();
        assert_eq!(found.files, shell(&recipe, COMMAND));
        let executables = COMMAND.replace("-type f", "-type f -perm /111");
        assert_eq!(found.executables, shell(&recipe, &executables));

        // Any change shows.
        fs::set_permissions(recipe.join("a.b"), Permissions::from_mode(0o755)).unwrap();
        let more = of(&recipe).unwrap();
        assert!(more.files == found.files && more.executables != found.executables);
        fs::rename(recipe.join("a.b"), recipe.join("a.c")).unwrap();
        assert_ne!(of(&recipe).unwrap().files, found.files);
        fs::write(recipe.join("a.c"), "x").unwrap();
        assert_ne!(of(&recipe).unwrap(), more);
    }
}
