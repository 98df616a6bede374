//! Recipes: the manager's part of a `peipkg.toml`.
//!
//! Pure: the text is an argument. The manager owns `[upstream]` and `[watch]`: an unknown key there
//! is an error. From `[[package]]` it reads name and architecture, to know which packages a build
//! produces, and from `[[sign]]` the keys that a build needs. The other keys and sections belong to
//! `peipkg-build`. Of these, it looks only at the build script and the descriptions, and refuses no
//! recipe for them: the official `peipkg-build` finds their problems in a build only.

mod build_keys;
pub(crate) mod secrets;
pub(crate) mod tag_pattern;
pub(crate) mod upstream_url;

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use peipkg_format::duration;
use peipkg_format::package::{self, PackageName};
use peipkg_format::problem::Problem;
use peipkg_format::sort;
use peipkg_format::strict_toml::{At, Document, Section};
use peipkg_format::version::{Version, VersionError};

use crate::recipe::build_keys::{build_script, sign_keys, unfit_description};
use crate::recipe::tag_pattern::TagPattern;
use crate::recipe::upstream_url::{UpstreamUrl, UrlError};

/// The name of the file in a recipe's directory.
pub(crate) const FILE_NAME: &str = "peipkg.toml";

/// The variables of a build with `export_version`: the package version, the tag, and the full id of
/// the tagged commit.
pub(crate) const EXPORTED_VARIABLES: [&str; 3] = ["PEIPKG_VERSION", "PEIPKG_TAG", "PEIPKG_COMMIT"];

/// The shortest poll interval. A host may block a client that polls more often.
pub(crate) const MIN_POLL_INTERVAL: Duration = Duration::from_mins(1);

/// The beginning of a tag's full name, which recipes leave out.
const TAG_PREFIX: &str = "refs/tags/";

/// A recipe.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The name of its directory, which [`check_id`] accepts.
    pub id: Arc<str>,
    /// Its directory, as given to [`Recipe::parse`].
    pub dir: PathBuf,
    /// The packages that a build produces, in the order of the file, without duplicates.
    pub packages: Vec<PackageName>,
    /// The line of each package in the file.
    pub package_lines: Vec<usize>,
    /// The keys that its builds sign binaries with, each with its first line in the file.
    pub sign_keys: Vec<(String, usize)>,
    /// The build script, relative to its directory, with its line in the file.
    pub build_script: Option<(String, usize)>,
    /// Why all its builds will fail, as far as its text tells.
    pub unbuildable: Vec<Problem>,
    /// The source of its versions. The manager never builds a recipe without one.
    pub upstream: Option<Upstream>,
    /// Whether a webhook may trigger a poll.
    pub github_webhook: bool,
    /// How often to poll its upstream, at least [`MIN_POLL_INTERVAL`]; `None` is the farm's default.
    pub poll_interval: Option<Duration>,
    /// A number that changes with any file in the recipe's directory.
    pub stamp: u64,
}

/// `[upstream]`: the repository of a recipe's source, and which of its tags are versions.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// The repository's URL.
    pub url: UpstreamUrl,
    /// Which tags are versions.
    pub tag_pattern: TagPattern,
    /// The revision to add to the captured version, at least 1.
    pub peios_revision: u32,
    /// Whether to fetch the source with its submodules.
    pub submodules: bool,
    /// The oldest version to build. It has the revision 1, so compare with
    /// [`Version::compare_upstream`].
    pub min_version: Option<Version>,
    /// The tags never to build.
    pub exclude: BTreeSet<String>,
    /// Whether a build script gets version, tag and commit in variables.
    pub export_version: bool,
}

/// The meaning of a tag to a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagVersion {
    /// The pattern does not match, or captures nothing.
    NoMatch,
    /// The pattern matches, but the recipe excludes the tag.
    Excluded,
    /// The version is older than `min_version`.
    TooOld,
    /// The captured text is not a version (PSD-009 §2.2).
    Invalid {
        /// The captured text, unchecked: it comes from the upstream.
        captured: String,
        /// Why it is no version.
        reason: VersionError,
    },
    /// The package version to build the tag as.
    Version(Version),
}

impl Recipe {
    /// Reads the recipe `id` from the text of its file. Adds to `warnings` what works, but perhaps
    /// not as the author expects, even if the recipe has problems.
    ///
    /// # Errors
    /// All problems of the file.
    pub fn parse(
        id: &str,
        dir: &Path,
        text: &str,
        stamp: u64,
        warnings: &mut Vec<Problem>,
    ) -> Result<Self, Vec<Problem>> {
        let path = dir.join(FILE_NAME);
        let bad_id = check_id(id).err().map(|reason| Problem::of_file(&path, format!("recipe id {reason}")));
        let document = match Document::parse(&path, text) {
            Ok(document) => document,
            Err(problems) => return Err(bad_id.into_iter().chain(problems).collect()),
        };
        let mut root = document.root();
        let sign_keys = sign_keys(root.sections("sign"));
        let build_script = root.section("meta").and_then(build_script);
        let unbuildable = root.sections("package").into_iter().filter_map(unfit_description).collect();
        // `peipkg-build` reports them; a recipe is not refused for what the manager does not own.
        document.discard_problems();
        let stanzas = root.sections("package");
        let has_package = !stanzas.is_empty();
        let (packages, package_lines) = packages(stanzas).into_iter().unzip();
        let (has_upstream, upstream) = match root.section("upstream") {
            Some(section) => (true, Upstream::read(section, warnings)),
            None => (false, None),
        };
        if has_upstream && !has_package {
            root.report(&(0..0), "missing section [[package]], a recipe with [upstream] needs at least one");
        }
        let (github_webhook, poll_interval) = root.section("watch").map_or((false, None), watch);
        warnings.extend(misspelt_sections(&root));
        let problems: Vec<Problem> = bad_id.into_iter().chain(document.into_problems()).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            id: id.into(),
            dir: dir.to_owned(),
            packages,
            package_lines,
            sign_keys,
            build_script,
            unbuildable,
            upstream,
            github_webhook,
            poll_interval,
            stamp,
        })
    }

    /// Returns the path of the recipe's file.
    pub fn file(&self) -> PathBuf {
        self.dir.join(FILE_NAME)
    }

    /// Tells whether both build the same versions of the same packages from the same tags.
    pub fn builds_the_same_as(&self, other: &Self) -> bool {
        let upstream = |recipe: &Self| {
            let upstream = recipe.upstream.as_ref()?;
            let pattern = upstream.tag_pattern.as_str().to_owned();
            let Upstream { url, peios_revision, submodules, min_version, exclude, export_version, .. } =
                upstream.clone();
            Some((url, pattern, peios_revision, submodules, min_version, exclude, export_version))
        };
        self.packages == other.packages && upstream(self) == upstream(other)
    }
}

impl Upstream {
    /// Returns the meaning of `tag`.
    pub fn version_of(&self, tag: &str) -> TagVersion {
        let Some(captured) = self.tag_pattern.capture(tag) else { return TagVersion::NoMatch };
        // Before the version: a tag that is no version may be excluded to end its warning.
        if self.exclude.contains(tag) {
            return TagVersion::Excluded;
        }
        let version: Version = match format!("{captured}-{}", self.peios_revision).parse() {
            Ok(version) => version,
            Err(reason) => return TagVersion::Invalid { captured, reason },
        };
        match &self.min_version {
            Some(least) if version.compare_upstream(least) == Ordering::Less => TagVersion::TooOld,
            _ => TagVersion::Version(version),
        }
    }

    /// Returns the excluded tags that the upstream may have; loading has warned of the others.
    pub(crate) fn possible_exclusions(&self) -> BTreeSet<&str> {
        let is_possible = |tag: &&String| useless_exclusion(tag, Some(&self.tag_pattern)).is_none();
        self.exclude.iter().filter(is_possible).map(String::as_str).fold(BTreeSet::new(), sort::included)
    }

    /// Reads `[upstream]`; returns `None` if a key is missing or wrong, and reports the problem.
    fn read(mut section: Section<'_, '_>, warnings: &mut Vec<Problem>) -> Option<Self> {
        let url = section.required_text("git").and_then(|found| upstream_url(&section, &found));
        let tag_pattern =
            section.required_text("tag_pattern").and_then(|found| match TagPattern::parse(&found.value) {
                Ok((pattern, warning)) => {
                    let remark =
                        |text| section.remark(&found.span, format!("[upstream] tag_pattern: {text}"));
                    warnings.extend(warning.map(remark));
                    Some(pattern)
                }
                Err(error) => {
                    section.report(&found.span, format!("[upstream] tag_pattern: {error}"));
                    None
                }
            });
        let peios_revision = section.optional::<i64>("peios_revision").map_or(Some(1), |found| {
            let revision = u32::try_from(found.value).ok().filter(|revision| *revision > 0);
            if revision.is_none() {
                let message = format!("must be from 1 to {}, found {}", u32::MAX, found.value);
                section.report(&found.span, format!("[upstream] peios_revision {message}"));
            }
            revision
        });
        let submodules = section.optional("submodules").is_some_and(|found| found.value);
        let min_version = section.optional::<String>("min_version").and_then(|found| {
            let version = format!("{}-1", found.value).parse();
            let report = |error: &VersionError| {
                let message = format!("[upstream] min_version {:?} is not a version: {error}", found.value);
                section.report(&found.span, message);
            };
            version.inspect_err(report).ok()
        });
        let exclude = section.optional("exclude").map(|found| {
            let span = found.span.clone();
            let exclude = excluded_tags(&section, found);
            let useless = exclude.iter().filter_map(|tag| useless_exclusion(tag, tag_pattern.as_ref()));
            warnings.extend(useless.map(|text| section.remark(&span, text)));
            exclude
        });
        let export_version = section.optional("export_version").is_some_and(|found| found.value);
        section.deny_unknown_keys();
        Some(Self {
            url: url?,
            tag_pattern: tag_pattern?,
            peios_revision: peios_revision?,
            submodules,
            min_version,
            exclude: exclude.unwrap_or_default(),
            export_version,
        })
    }
}

/// Checks a recipe id: it becomes part of paths, log lines and status keys.
///
/// # Errors
/// The end of a sentence that begins with "recipe id".
pub(crate) fn check_id(id: &str) -> Result<(), String> {
    const MAX_LEN: usize = 64;

    if id.len() > MAX_LEN {
        return Err(format!("{id:?} is {} bytes long, at most {MAX_LEN} are allowed", id.len()));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-');
    if !id.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return Err(format!("{id:?} does not start with an ASCII letter or digit"));
    }
    match id.chars().find(|c| !allowed(*c)) {
        Some(bad) => Err(format!("{id:?} has {bad:?}, allowed are ASCII letters, digits and . _ + -")),
        None => Ok(()),
    }
}

/// Warns of sections whose names are almost those of the manager's. It ignores other sections, so a
/// misspelt one would have no effect.
fn misspelt_sections(root: &Section<'_, '_>) -> Vec<Problem> {
    let misspelt = |meant| {
        let found = root.misspelt(meant)?;
        let message = format!("section [{}] is not read, did you mean [{meant}]?", found.value);
        Some(root.remark(&found.span, message))
    };
    ["upstream", "watch"].into_iter().filter_map(misspelt).collect()
}

/// Reads the packages of the `[[package]]` stanzas, each with its line.
fn packages(stanzas: Vec<Section<'_, '_>>) -> Vec<(PackageName, usize)> {
    let mut packages = Vec::new();
    let mut seen = HashSet::new();
    for mut stanza in stanzas {
        let name = stanza.required::<String>("name");
        let architecture = stanza.required::<String>("architecture");
        let (Some(name), Some(architecture)) = (name, architecture) else { continue };
        if let Err(reason) = package::check_package_name(&name.value) {
            stanza.report(&name.span, format!("[[package]] name {:?} {reason}", name.value));
        }
        if let Err(reason) = package::check_architecture(&architecture.value) {
            let message = format!("[[package]] architecture {:?} {reason}", architecture.value);
            stanza.report(&architecture.span, message);
        }
        let package = PackageName { name: name.value, architecture: architecture.value };
        if seen.insert(package.clone()) {
            packages.push((package, stanza.line_of(&name.span)));
        } else {
            let message =
                format!("[[package]] {:?} for {} is declared twice", package.name, package.architecture);
            stanza.report(&name.span, message);
        }
    }
    packages
}

/// Reads `[watch]`.
fn watch(mut section: Section<'_, '_>) -> (bool, Option<Duration>) {
    let github_webhook = section.optional("github_webhook").is_some_and(|found| found.value);
    let poll_interval = section
        .optional::<String>("poll_interval")
        .and_then(|found| interval(&section, "[watch] poll_interval", &found));
    section.deny_unknown_keys();
    (github_webhook, poll_interval)
}

/// Reads a poll interval. `key` names it in messages.
pub(crate) fn interval(section: &Section<'_, '_>, key: &str, found: &At<String>) -> Option<Duration> {
    let message = match duration::parse(&found.value) {
        Ok(interval) if interval >= MIN_POLL_INTERVAL => return Some(interval),
        Ok(_) => format!("{key} must be at least 1m, found {:?}", found.value),
        Err(error) => format!("{key}: {error}"),
    };
    section.report(&found.span, message);
    None
}

/// Reads `exclude`. A tag that is listed twice most likely stands in the place of another one.
fn excluded_tags(section: &Section<'_, '_>, found: At<Vec<String>>) -> BTreeSet<String> {
    let mut tags = BTreeSet::new();
    for tag in found.value {
        if tag.is_empty() {
            section.report(&found.span, "[upstream] exclude has an empty tag");
        } else if tag.starts_with(TAG_PREFIX) {
            let message = format!("[upstream] exclude: write {tag:?} without {TAG_PREFIX:?}");
            section.report(&found.span, message);
        } else if tags.contains(&tag) {
            section.report(&found.span, format!("[upstream] exclude has the tag {tag:?} twice"));
        } else {
            tags.insert(tag);
        }
    }
    tags
}

/// Warns of an entry of `exclude` that excludes nothing, whatever tags the upstream has.
fn useless_exclusion(tag: &str, tag_pattern: Option<&TagPattern>) -> Option<String> {
    // git refuses tags with one of these characters.
    if let Some(glob) = tag.chars().find(|c| matches!(c, '*' | '?' | '[')) {
        return Some(format!(
            "[upstream] exclude: {tag:?} excludes nothing, no tag has {glob:?}; \
             patterns are not read, write each tag in full"
        ));
    }
    let is_foreign = tag_pattern.is_some_and(|pattern| pattern.capture(tag).is_none());
    is_foreign.then(|| {
        format!(
            "[upstream] exclude: {tag:?} excludes nothing, tag_pattern does not match it; \
             write the tag, not the version"
        )
    })
}

fn upstream_url(section: &Section<'_, '_>, found: &At<String>) -> Option<UpstreamUrl> {
    let report = |error: &UrlError| section.report(&found.span, format!("[upstream] git: {error}"));
    found.value.parse().inspect_err(report).ok()
}

#[cfg(test)]
mod tests;
