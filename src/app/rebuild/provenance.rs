//! Compares a rebuild with the provenance of the published packages: a difference may explain why the
//! packages differ. Believes the file: `peipkg-repo verify` checks who signed it.

use peipkg_format::dsse::MAX_ENVELOPE;
use peipkg_format::package::PackageName;
use peipkg_format::provenance::{RECIPE, SOURCE, Statement};
use peipkg_format::regular_file;
use peipkg_format::sidecars::{self, Place};
use peipkg_format::version::Version;

use crate::app::builder::Built;
use crate::app::rebuild::report::Report;
use crate::repository::published_files::PublishedFile;

/// Returns the provenance beside the published packages, if there is one that names a package.
pub(super) fn find(
    published: &[Option<Result<PublishedFile, String>>],
    packages: &[PackageName],
    version: &Version,
) -> Option<Statement> {
    packages.iter().zip(published).find_map(|(package, published)| {
        let Some(Ok(PublishedFile { path: Some(path), .. })) = published else { return None };
        let name = package.file_name(version);
        [Place::Shared, Place::Alone].into_iter().find_map(|place| {
            let bytes = regular_file::read(&sidecars::provenance(path, place), MAX_ENVELOPE).ok()?;
            let found = Statement::read(&bytes, &|_, _| true).ok()?;
            found.subject.iter().any(|subject| subject.name == name).then_some(found)
        })
    })
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
