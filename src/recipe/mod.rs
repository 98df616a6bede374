//! Recipes: what a `peipkg.toml` tells the manager.
//!
//! Pure: the text is an argument. The manager owns `[upstream]` and `[watch]`
//! and reads them strictly. Of `[[package]]` it reads name and architecture, to
//! know which packages a build makes; what else stands there, and every other
//! section, is `peipkg-build`'s business and is not looked at.

pub(crate) mod tag_pattern;
pub(crate) mod upstream_url;

use std::cmp::Ordering;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use peipkg_format::duration;
use peipkg_format::package::{self, PackageName};
use peipkg_format::problem::Problem;
use peipkg_format::strict_toml::{At, Document, Section};
use peipkg_format::version::{Version, VersionError};

use crate::recipe::tag_pattern::TagPattern;
use crate::recipe::upstream_url::{UpstreamUrl, UrlError};

/// The name of the file within a recipe's directory.
pub(crate) const FILE_NAME: &str = "peipkg.toml";

/// The shortest time between two polls of one upstream; hosts lock out who asks more often.
pub(crate) const MIN_POLL_INTERVAL: Duration = Duration::from_mins(1);

/// One recipe.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The name of its directory, which [`check_id`] accepts.
    pub id: Arc<str>,
    /// Its directory, as the caller named it.
    pub dir: PathBuf,
    /// What one build of it makes, in the order of the file; no two are the same.
    pub packages: Vec<PackageName>,
    /// The line of each of them in the file.
    pub package_lines: Vec<usize>,
    /// Where its versions come from; a recipe without is built by hand only.
    pub upstream: Option<Upstream>,
    /// Whether a webhook may trigger a poll of it.
    pub github_webhook: bool,
    /// How often its upstream is polled, at least [`MIN_POLL_INTERVAL`]; `None` is the farm's default.
    pub poll_interval: Option<Duration>,
    /// Changes when a file of the recipe's directory changes.
    pub stamp: u64,
}

/// `[upstream]`: where a recipe's source is, and which of its tags are versions.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Where git finds it.
    pub url: UpstreamUrl,
    /// Which tags are versions.
    pub tag_pattern: TagPattern,
    /// The revision that the captured version gets, at least 1.
    pub peios_revision: u32,
    /// Whether the source is fetched with its submodules.
    pub submodules: bool,
    /// Tags of older versions are not built. It is completed by the revision 1
    /// and to be compared by [`Version::compare_upstream`].
    pub min_version: Option<Version>,
}

/// What a tag means to a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagVersion {
    /// The pattern does not match, or captures nothing.
    NoMatch,
    /// A version older than `min_version`.
    TooOld,
    /// What was captured makes no version (PSD-009 §2.2).
    Invalid {
        /// What was captured; it may hold anything that the upstream serves.
        captured: String,
        /// Why it is no version.
        reason: VersionError,
    },
    /// The version of the package that the tag is built as.
    Version(Version),
}

impl Recipe {
    /// Reads the recipe `id` from the text of its file. Adds to `warnings`, for a broken recipe
    /// as well, what works but perhaps not as its author expects.
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
            upstream,
            github_webhook,
            poll_interval,
            stamp,
        })
    }

    /// The recipe's file.
    pub fn file(&self) -> PathBuf {
        self.dir.join(FILE_NAME)
    }
}

impl Recipe {
    /// Whether both build the same versions of the same packages from the same tags.
    pub fn builds_the_same_as(&self, other: &Self) -> bool {
        let upstream = |recipe: &Self| {
            let upstream = recipe.upstream.as_ref()?;
            let pattern = upstream.tag_pattern.as_str().to_owned();
            let Upstream { url, peios_revision, submodules, min_version, .. } = upstream.clone();
            Some((url, pattern, peios_revision, submodules, min_version))
        };
        self.packages == other.packages && upstream(self) == upstream(other)
    }
}

impl Upstream {
    /// What `tag` means.
    pub fn version_of(&self, tag: &str) -> TagVersion {
        let Some(captured) = self.tag_pattern.capture(tag) else { return TagVersion::NoMatch };
        let version: Version = match format!("{captured}-{}", self.peios_revision).parse() {
            Ok(version) => version,
            Err(reason) => return TagVersion::Invalid { captured, reason },
        };
        match &self.min_version {
            Some(least) if version.compare_upstream(least) == Ordering::Less => TagVersion::TooOld,
            _ => TagVersion::Version(version),
        }
    }

    /// `None` when a required key is missing or wrong, which is reported.
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
        section.deny_unknown_keys();
        Some(Self {
            url: url?,
            tag_pattern: tag_pattern?,
            peios_revision: peios_revision?,
            submodules,
            min_version,
        })
    }
}

/// Checks a recipe id: it becomes part of paths, log lines and status keys.
///
/// # Errors
/// What is wrong with it, as the end of a sentence that starts with "recipe id".
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

/// Warnings about sections that are probably meant for the manager. A section
/// of any other name is another tool's.
fn misspelt_sections(root: &Section<'_, '_>) -> Vec<Problem> {
    let misspelt = |meant| {
        let found = root.misspelt(meant)?;
        let message = format!("section [{}] is not read, did you mean [{meant}]?", found.value);
        Some(root.remark(&found.span, message))
    };
    ["upstream", "watch"].into_iter().filter_map(misspelt).collect()
}

/// Reads the packages that the stanzas declare, each with its line.
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

/// Reads a time between two polls; `key` names it in messages.
pub(crate) fn interval(section: &Section<'_, '_>, key: &str, found: &At<String>) -> Option<Duration> {
    let message = match duration::parse(&found.value) {
        Ok(interval) if interval >= MIN_POLL_INTERVAL => return Some(interval),
        Ok(_) => format!("{key} must be at least 1m, found {:?}", found.value),
        Err(error) => format!("{key}: {error}"),
    };
    section.report(&found.span, message);
    None
}

fn upstream_url(section: &Section<'_, '_>, found: &At<String>) -> Option<UpstreamUrl> {
    let report = |error: &UrlError| section.report(&found.span, format!("[upstream] git: {error}"));
    found.value.parse().inspect_err(report).ok()
}

#[cfg(test)]
mod tests;
