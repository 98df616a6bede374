//! The signers of a recipe, for one build.

use std::path::Path;

use crate::app::builder::error::BuildError;
use crate::app::builder::parts::Builder;
use crate::app::recipe_files::CopyError;
use crate::app::signers_file::{self, BuildSigners};
use crate::farm::events::BuildJob;
use crate::upstream::source::signatures::Keys;

/// The signers, and the program that verifies their signatures.
pub(super) struct Signers<'a> {
    file: BuildSigners,
    name: &'a str,
    program: &'a Path,
}

impl Signers<'_> {
    /// Returns them for a fetch. The programs get the directory `home`, which must not exist.
    pub(super) fn keys<'a>(&'a self, home: &'a Path) -> Keys<'a> {
        let BuildSigners { path, kind } = &self.file;
        Keys { file: path, name: self.name, kind: *kind, program: self.program, home }
    }
}

impl Builder {
    /// Returns the signers of the recipe, if it has some; their file is in its `copy`.
    ///
    /// # Errors
    /// If the file is not the one that was loaded, or its program is missing.
    pub(super) fn signers<'a>(
        &'a self,
        job: &'a BuildJob,
        copy: &Path,
    ) -> Result<Option<Signers<'a>>, BuildError> {
        let Some(signers) = &job.upstream.signers else { return Ok(None) };
        let file = signers_file::of_copy(signers, copy).ok_or(CopyError::Changed)?;
        let name = &*signers.file;
        match self.verifiers.of(file.kind) {
            (_, Some(program)) => Ok(Some(Signers { file, name, program })),
            (program, None) => Err(BuildError::VerifierMissing { signers: name.to_owned(), program }),
        }
    }
}
