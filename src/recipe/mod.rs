//! Recipes: the manager's part of a `peipkg.toml`.
//!
//! Pure: the text is an argument. The manager owns `[upstream]` and `[watch]`: an unknown key there
//! is an error. From `[[package]]` it reads name and architecture, to know which packages a build
//! produces, and from `[[sign]]` the keys that a build needs. The other keys and sections belong to
//! `peipkg-build`. Of these, it looks only at the build script and the descriptions, and refuses no
//! recipe for them: the official `peipkg-build` finds their problems in a build only.

mod build_keys;
pub(crate) mod secrets;
pub(crate) mod signers;
pub(crate) mod tag_pattern;
pub(crate) mod tag_reader;
pub(crate) mod upstream_url;

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use peipkg_format::duration;
use peipkg_format::package::{self, PackageName};
use peipkg_format::problem::Problem;
use peipkg_format::strict_toml::{At, Document, Section};
use peipkg_format::version::{Version, VersionError};

pub(crate) use crate::recipe::build_keys::BuildKeys;
use crate::recipe::signers::Signers;
use crate::recipe::tag_pattern::{TagPattern, useless_exclusion};
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

/// A recipe. A farm holds thousands, so it has no more than the farm needs after the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The name of its directory, which [`check_id`] accepts.
    pub id: Arc<str>,
    /// Its directory, as given to [`Recipe::parse`].
    pub dir: Box<Path>,
    /// The packages that a build produces, in the order of the file, without duplicates.
    pub packages: Box<[PackageName]>,
    /// Whether one of its packages wants files: not all are only metadata.
    pub claims_files: bool,
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
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The tags never to build, sorted.
    pub exclude: Box<[String]>,
    /// Whether a build script gets version, tag and commit in variables.
    pub export_version: bool,
    /// Whether to poll the repository, but to build nothing.
    pub paused: bool,
    /// Whether to build each version twice and to compare; `None` is the farm's setting.
    pub reproduce: Option<bool>,
    /// The file of those of whom one must have signed a tag; none for any tag.
    pub(crate) signers: Option<Box<Signers>>,
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
        Self::parse_whole(id, dir, text, stamp, warnings).map(|(recipe, _)| recipe)
    }

    /// Reads as [`Recipe::parse`]. Returns the keys that only a build uses, too.
    ///
    /// # Errors
    /// All problems of the file.
    pub(crate) fn parse_whole(
        id: &str,
        dir: &Path,
        text: &str,
        stamp: u64,
        warnings: &mut Vec<Problem>,
    ) -> Result<(Self, BuildKeys), Vec<Problem>> {
        let path = dir.join(FILE_NAME);
        let bad_id = check_id(id).err().map(|reason| Problem::of_file(&path, format!("recipe id {reason}")));
        let document = match Document::parse(&path, text) {
            Ok(document) => document,
            Err(problems) => return Err(bad_id.into_iter().chain(problems).collect()),
        };
        let mut root = document.root();
        let mut build_keys = BuildKeys::read(&mut root);
        let claims_files = root.sections("package").into_iter().any(|mut stanza| {
            stanza.optional::<Vec<String>>("files").is_some_and(|found| !found.value.is_empty())
        });
        // `peipkg-build` reports them; a recipe is not refused for what the manager does not own.
        document.discard_problems();
        let stanzas = root.sections("package");
        let has_package = !stanzas.is_empty();
        let (packages, package_lines): (Vec<_>, _) = packages(stanzas).into_iter().unzip();
        build_keys.package_lines = package_lines;
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
        let (id, dir, packages) = (id.into(), dir.into(), packages.into());
        let recipe = Self { id, dir, packages, claims_files, upstream, github_webhook, poll_interval, stamp };
        Ok((recipe, build_keys))
    }

    /// Whether it has an upstream that is polled, but nothing is built.
    pub(crate) fn is_paused(&self) -> bool {
        self.upstream.as_ref().is_some_and(|upstream| upstream.paused)
    }

    /// Returns the path of the recipe's file.
    pub fn file(&self) -> PathBuf {
        self.dir.join(FILE_NAME)
    }

    /// Tells whether both build the same versions of the same packages from the same tags.
    pub fn builds_the_same_as(&self, other: &Self) -> bool {
        self.packages == other.packages && self.upstream == other.upstream
    }
}

impl Upstream {
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
            let matcher = tag_pattern.as_ref().map(TagPattern::matcher);
            let useless = exclude.iter().filter_map(|tag| useless_exclusion(tag, matcher.as_ref()));
            warnings.extend(useless.map(|text| section.remark(&span, text)));
            exclude
        });
        let export_version = section.optional("export_version").is_some_and(|found| found.value);
        let paused = section.optional("paused").is_some_and(|found| found.value);
        let reproduce = section.optional("reproduce").map(|found| found.value);
        let signers = section.optional::<String>("signers").map(|found| {
            if let Err(reason) = signers::check_path(&found.value) {
                section.report(&found.span, format!("[upstream] signers {:?} {reason}", found.value));
            }
            Box::new(Signers { file: found.value.into(), digest: 0 })
        });
        section.deny_unknown_keys();
        Some(Self {
            url: url?,
            tag_pattern: tag_pattern?,
            peios_revision: peios_revision?,
            submodules,
            min_version,
            exclude: exclude.unwrap_or_default(),
            export_version,
            paused,
            reproduce,
            signers,
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
fn excluded_tags(section: &Section<'_, '_>, found: At<Vec<String>>) -> Box<[String]> {
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
    tags.into_iter().collect()
}

fn upstream_url(section: &Section<'_, '_>, found: &At<String>) -> Option<UpstreamUrl> {
    let report = |error: &UrlError| section.report(&found.span, format!("[upstream] git: {error}"));
    found.value.parse().inspect_err(report).ok()
}

#[cfg(test)]
mod tests;
