//! Compares a rebuild with the provenance of the published packages: a difference may explain why the
//! packages differ. Believes no provenance that a key of the repository has not signed.

use std::io;
use std::path::Path;

use peipkg_format::dsse::MAX_ENVELOPE;
use peipkg_format::package::PackageName;
use peipkg_format::provenance::{RECIPE, SOURCE, Statement};
use peipkg_format::regular_file;
use peipkg_format::sidecars::{self, Place};
use peipkg_format::version::Version;

use crate::app::builder::Built;
use crate::app::rebuild::report::Report;
use crate::repository::listed_keys::ListedKeys;
use crate::repository::published_files::PublishedFile;

/// Returns the provenance beside the published packages, if a key of the repository at `repo` has signed it
/// and it is about one of them. Notes which one is ignored, and why.
pub(super) fn find(
    repo: &Path,
    published: &[Option<Result<PublishedFile, String>>],
    packages: &[PackageName],
    version: &Version,
    report: &mut Report,
) -> Option<Statement> {
    for (package, published) in packages.iter().zip(published) {
        let Some(Ok(file @ PublishedFile { path: Some(path), .. })) = published else { continue };
        let name = package.file_name(version);
        let at_root = path.strip_prefix(repo).is_ok_and(sidecars::is_at_root);
        // At the root, a file of this name may be anybody's.
        let places = if at_root { &[Place::Shared][..] } else { &[Place::Shared, Place::Alone] };
        for place in places.iter().copied() {
            let path = sidecars::provenance(path, place);
            match read(repo, &path) {
                Ok(Some(statement)) if file.is_subject_of(&statement, &name) => return Some(statement),
                Ok(Some(_)) => report.note(format!("ignored: {} is not about {name}", path.display())),
                Ok(None) => {}
                Err(reason) => report.note(format!("ignored: {} {reason}", path.display())),
            }
        }
    }
    None
}

/// Reads a provenance, if there is one. An error is the end of a sentence about it.
fn read(repo: &Path, path: &Path) -> Result<Option<Statement>, String> {
    let bytes = match regular_file::read(path, MAX_ENVELOPE) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot be read: {error}")),
    };
    let keys = ListedKeys::read(repo).map_err(|error| format!("cannot be checked: {error}"))?;
    let statement = Statement::read(&bytes, &|message, signature| keys.have_signed(message, signature));
    statement.map(Some).map_err(|error| error.to_string())
}

/// Notes what the rebuild was made of otherwise than the published packages.
pub(super) fn compare(recorded: &Statement, built: &Built<'_>, tool: &str, report: &mut Report) {
    let digest = |name| recorded.dependency(name).map(|dependency| &dependency.digest);
    let commit = digest(SOURCE).map(|digest| digest.git_commit.as_str()).filter(|commit| !commit.is_empty());
    if let Some(commit) = commit.filter(|commit| *commit != built.commit.id) {
        report.note(format!("the tag points to another commit now; the packages are of commit {commit}"));
    }
    let recipe = digest(RECIPE).map(|digest| digest.dir_hash.as_str()).filter(|hash| !hash.is_empty());
    let executables = recorded.dependency(RECIPE).map(|recipe| recipe.annotations.executables.as_str());
    let is_changed = recipe.is_some_and(|hash| hash != built.inputs.recipe.files)
        || executables.is_some_and(|hash| !hash.is_empty() && hash != built.inputs.recipe.executables);
    if is_changed {
        report.note("the recipe has changed since".to_owned());
    }
    let recorded_tool = &recorded.predicate.run_details.builder.version.build;
    if !recorded_tool.is_empty() && recorded_tool != tool {
        report.note(format!("built by {recorded_tool}, rebuilt by {tool}"));
    }
}
