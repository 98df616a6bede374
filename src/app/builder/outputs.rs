//! The check of what `peipkg-build` wrote.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use peipkg_format::sort;

use crate::app::builder::error::BuildError;
use crate::farm::events::BuildJob;
use crate::state::durable::at;

/// Checks that the tool has written exactly the packages of the recipe.
pub(super) fn check_outputs(job: &BuildJob, out: &Path) -> Result<(), BuildError> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(out).map_err(at(out))? {
        let entry = entry.map_err(at(out))?;
        let is_file = entry.file_type().map_err(at(out))?.is_file();
        let name = entry.file_name().to_string_lossy().into_owned();
        found.insert(if is_file { name } else { format!("(not a file) {name}") });
    }
    let version = &job.candidate.version;
    let expected: BTreeSet<String> =
        job.recipe.packages.iter().map(|p| p.file_name(version)).fold(BTreeSet::new(), sort::included);
    if found == expected { Ok(()) } else { Err(BuildError::Outputs { found, expected }) }
}
