//! Signing binaries: the step of a build that `[[sign]]` asks for, and the command
//! `peipkg-build binary-sign`.

use std::io;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use peipkg_format::problem::Problem;
use peipkg_format::regular_file;

use super::interrupt::Interrupt;
use super::request::{BINARY_KEY_FLAG, Request as BuildRequest};
use super::staged;
use super::to_sign::ToSign;
use crate::binary_sign::replace::sign_file;
use crate::cli::{Failure, Options};
use crate::signature::load_key;

/// The arguments of `binary-sign`.
#[derive(Debug)]
pub struct Request {
    path: PathBuf,
    key: PathBuf,
}

impl Request {
    /// Reads the flags.
    pub fn parse(options: &Options) -> Result<Self, Failure> {
        Ok(Self { path: options.path("--in")?, key: options.path("--key")? })
    }
}

/// Runs `peipkg-build binary-sign`: signs a file in place. Returns an empty text.
pub fn binary_sign(request: &Request) -> Result<String, Failure> {
    // An interrupted run must not leave its temporary file.
    let interrupt = Interrupt::watch()?;
    let key = load_key(&request.key)?;
    let signed = sign_file(&request.path, &key, regular_file::open, || interrupt.check());
    let failed = |error| Failure::Failed(vec![format!("cannot sign {}: {error}", request.path.display())]);
    signed.map(|()| String::new()).map_err(failed)
}

/// Finds the key of each binary to sign. The failure has a line for each key that was not given.
pub fn with_keys<'a>(
    sign: &'a [ToSign],
    request: &'a BuildRequest,
) -> Result<Vec<(&'a ToSign, &'a SigningKey)>, Failure> {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for entry in sign {
        let name = &entry.key;
        if let Some(key) = request.binary_keys.get(name) {
            found.push((entry, key));
        } else {
            let message =
                format!("[[sign]] key {name:?} is not given; {BINARY_KEY_FLAG} {name}=FILE gives it");
            problems.push(problem(&request.recipe, entry, message));
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(Failure::of_problems(&problems)) }
}

/// Signs the binaries below the directory `staged`, in order.
pub fn sign_staged(
    sign: &[(&ToSign, &SigningKey)],
    staged: &Path,
    recipe: &Path,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    for (entry, key) in sign {
        let failed = |error: &dyn std::fmt::Display| {
            let message = format!("cannot sign {}: {error}", entry.path);
            Failure::of_problems(&[problem(recipe, entry, message)])
        };
        let path = place(staged, &entry.path).map_err(|error| failed(&error))?;
        sign_file(&path, key, staged::open, || interrupt.check()).map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// Returns the path of a staged file after following the links to its directory. They must not lead
/// out of the staged tree: the file there is no part of the build.
fn place(staged: &Path, path: &str) -> io::Result<PathBuf> {
    let path = Path::new(path);
    let directory = staged.join(path.parent().unwrap_or(Path::new(""))).canonicalize()?;
    if !directory.starts_with(staged.canonicalize()?) {
        return Err(io::Error::other("a symbolic link in its path leads out of $DESTDIR"));
    }
    Ok(directory.join(path.file_name().unwrap_or_default()))
}

fn problem(recipe: &Path, entry: &ToSign, message: String) -> Problem {
    Problem { path: recipe.to_owned(), line: Some(entry.line), message }
}
