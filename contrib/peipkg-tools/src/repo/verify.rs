//! `verify`: every way in which a repository is not what it should be (PSD-009 §3.5, §6).
//!
//! Read-only. It collects issues instead of stopping at the first one, because
//! whoever repairs a repository wants to know all of them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use peipkg_format::package::{check_architecture, check_package_name};
use peipkg_format::version::Version;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::descriptor::{Descriptor, TrustedKeys};
use super::error::RepoError;
use super::generation::{Generation, Signed};
use super::index::{Index, Kind};
use super::{MOVING, files, store};
use crate::cli::Timestamp;
use crate::digest::{hex, sha256};
use crate::package_reader::unhex;

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Descriptor, indexes, signatures.
    Metadata,
    /// The bytes of every package.
    Hashes,
    /// Metadata, and the packages if the metadata is good.
    Both,
}

/// What `verify` is told.
#[derive(Debug)]
pub struct Request {
    /// The repository.
    pub repo: PathBuf,
    /// What is checked.
    pub mode: Mode,
    /// Where the packages are; without it, they are the repository's own.
    pub all_packages: Option<PathBuf>,
}

/// What has been found.
#[derive(Debug, Default)]
pub struct Report {
    /// One line each; none means that the repository is good.
    pub issues: Vec<String>,
    archive_entries: usize,
    active_entries: usize,
    index_version: u64,
    hashed: usize,
}

impl Report {
    /// One line about a good repository.
    pub fn summary(&self) -> String {
        let (active, all) = (self.active_entries, self.archive_entries);
        let hashed = match self.hashed {
            0 => String::new(),
            files => format!(", {files} package files hashed"),
        };
        format!(
            "ok: {all} packages, {active} of them current, index_version {}{hashed}\n",
            self.index_version
        )
    }

    fn issue(&mut self, error: impl std::fmt::Display) {
        self.issues.push(error.to_string());
    }

    /// The value, or its error as an issue.
    fn take<T>(&mut self, result: Result<T, RepoError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(RepoError::Several(errors)) => {
                for error in errors {
                    self.issue(error);
                }
                None
            }
            Err(error) => {
                self.issue(error);
                None
            }
        }
    }
}

/// An entry of either index, whole (PSD-009 §6.2.4).
#[derive(Deserialize)]
struct FullEntry<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    version: Cow<'a, str>,
    #[serde(borrow)]
    architecture: Cow<'a, str>,
    #[serde(rename = "dependencies")]
    _dependencies: Vec<IgnoredAny>,
    #[serde(rename = "conflicts")]
    _conflicts: Vec<IgnoredAny>,
    size_compressed: u64,
    #[serde(rename = "size_installed")]
    _size_installed: u64,
    #[serde(borrow)]
    hash: Hash<'a>,
    #[serde(borrow)]
    url: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Hash<'a> {
    #[serde(borrow)]
    algorithm: Cow<'a, str>,
    #[serde(borrow)]
    value: Cow<'a, str>,
}

type FullIndex<'a> = Index<'a, Vec<FullEntry<'a>>>;

impl FullEntry<'_> {
    fn file_name(&self) -> String {
        format!("{}_{}_{}.peipkg", self.name, self.version, self.architecture)
    }

    /// The file name as it may be printed: with characters that would forge a line escaped.
    fn shown(&self) -> String {
        self.file_name().escape_debug().to_string()
    }

    /// What is wrong with it alone.
    fn problem(&self) -> Option<String> {
        let name = check_package_name(&self.name).err().map(str::to_owned);
        let version = || self.version.parse::<Version>().err().map(|error| error.to_string());
        let architecture = || check_architecture(&self.architecture).err().map(str::to_owned);
        let hash = || {
            let good = self.hash.algorithm == "sha256" && unhex(&self.hash.value).is_some();
            (!good).then(|| "has a malformed hash".to_owned())
        };
        let url = || self.url.is_empty().then(|| "has no url".to_owned());
        name.or_else(version).or_else(architecture).or_else(hash).or_else(url)
    }
}

/// Audits the repository.
pub fn run(request: &Request) -> Report {
    let mut report = Report::default();
    let root = &request.repo;
    let generation = Generation::read(root);
    let Some(described) = report.take(generation.descriptor) else { return report };
    let parsed = Descriptor::parse(&described.path, &described.bytes);
    let Some(descriptor) = report.take(parsed) else { return report };
    let indexes = (report.take(generation.active), report.take(generation.archive));
    let (Some(active), Some(archive)) = indexes else { return report };
    if request.mode != Mode::Hashes {
        check_signatures(&mut report, root, &descriptor, [&described, &active, &archive]);
    }
    let name = &descriptor.repo.name;
    let indexes: (Option<FullIndex<'_>>, Option<FullIndex<'_>>) = (
        report.take(Index::parse(&active.path, &active.bytes, Kind::Active, name)),
        report.take(Index::parse(&archive.path, &archive.bytes, Kind::Archive, name)),
    );
    let (Some(active), Some(archive)) = indexes else { return report };
    report.active_entries = active.packages.len();
    report.archive_entries = archive.packages.len();
    report.index_version = active.index_version.unwrap_or(0);
    if request.mode != Mode::Hashes {
        check_heads(&mut report, &active, &archive);
        check_entries(&mut report, &active, &archive);
    }
    if request.mode != Mode::Metadata && report.issues.is_empty() {
        check_packages(&mut report, request, &archive);
    }
    report
}

fn check_signatures(report: &mut Report, root: &Path, descriptor: &Descriptor, documents: [&Signed; 3]) {
    let now = Timestamp::at(SystemTime::now());
    let (trusted, problems) = TrustedKeys::load(descriptor, root, &now);
    for problem in problems {
        report.issue(problem);
    }
    for document in documents {
        match &document.signature {
            Ok(envelope) => {
                let digest = sha256(&document.bytes);
                report.take(trusted.check_envelope(&document.path, &digest, envelope));
            }
            Err(error) => report.issue(error),
        }
    }
    if root.join(MOVING).is_dir() && !report.issues.is_empty() {
        report.issue("a publish was interrupted; the next one completes it");
    }
}

/// What both indexes say before their entries.
fn check_heads(report: &mut Report, active: &FullIndex<'_>, archive: &FullIndex<'_>) {
    for (kind, index) in [("active", active), ("archive", archive)] {
        match index.index_version {
            None | Some(0) => report.issue(format!("{kind} index has no positive index_version")),
            Some(_) => {}
        }
        if let Err(error) = Timestamp::parse(&index.generated_at) {
            report.issue(format!("{kind} index: generated_at: {error}"));
        }
    }
    if active.index_version != archive.index_version {
        report.issue(format!(
            "the active index has index_version {}, the archive index {}",
            active.index_version.unwrap_or(0),
            archive.index_version.unwrap_or(0)
        ));
    }
}

/// The entries of both indexes, alone and against each other (PSD-009 §6.2.7, §6.3.5, §6.3.6).
fn check_entries(report: &mut Report, active: &FullIndex<'_>, archive: &FullIndex<'_>) {
    for (kind, index) in [("active", active), ("archive", archive)] {
        for entry in &index.packages {
            if let Some(problem) = entry.problem() {
                report.issue(format!("{kind} index: {}: {problem}", entry.shown()));
            }
        }
    }
    if !report.issues.is_empty() {
        return;
    }
    for pair in active.packages.windows(2) {
        if pair[0].name >= pair[1].name {
            report.issue(format!("active index: {} is out of order or there twice", pair[1].file_name()));
        }
    }
    let mut known = HashMap::new();
    let mut newest: HashMap<&str, Version> = HashMap::new();
    let mut previous: Option<(&str, Version)> = None;
    for entry in &archive.packages {
        let identity = (&*entry.name, &*entry.version, &*entry.architecture);
        if known.insert(identity, entry).is_some() {
            report.issue(format!("archive index: {} is there twice", entry.file_name()));
        }
        let Ok(version) = entry.version.parse::<Version>() else { continue };
        if let Some((name, before)) = &previous {
            let same = *name == entry.name;
            // Where the specification's order goes in circles, none is wrong.
            let is_older = before.compare(&version).is_lt() && before.sort_cmp(&version).is_lt();
            if **name > *entry.name || (same && is_older) {
                report.issue(format!("archive index: {} is out of order", entry.file_name()));
            }
        }
        match newest.get(&*entry.name) {
            Some(found) if found.sort_cmp(&version).is_ge() => {}
            _ => drop(newest.insert(&entry.name, version.clone())),
        }
        previous = Some((&entry.name, version));
    }
    for entry in &active.packages {
        let name = entry.file_name();
        match known.get(&(&*entry.name, &*entry.version, &*entry.architecture)) {
            None => report.issue(format!("active index: {name} is not in the archive index")),
            Some(archived) if archived.hash.value != entry.hash.value => {
                report.issue(format!("active index: {name} has another hash in the archive index"));
            }
            Some(_) => {}
        }
        let version = entry.version.parse::<Version>();
        match (newest.remove(&*entry.name), version) {
            (Some(newest), Ok(version)) if newest.compare(&version).is_gt() => {
                report.issue(format!(
                    "active index: {name} is older than version {newest} in the archive index"
                ));
            }
            _ => {}
        }
    }
    let mut missing: Vec<_> = newest.into_keys().collect();
    missing.sort_unstable();
    for name in missing {
        report.issue(format!("active index: {name} is missing, the archive index has it"));
    }
}

/// Finds and hashes every package of the archive index (PSD-009 §3.5.2).
fn check_packages(report: &mut Report, request: &Request, archive: &FullIndex<'_>) {
    let mut elsewhere = HashMap::new();
    if let Some(directory) = &request.all_packages {
        let Some(paths) = report.take(store::find_packages(directory, true)) else { return };
        for path in paths {
            elsewhere.insert(path.file_name().unwrap_or_default().to_os_string(), path);
        }
    }
    for entry in &archive.packages {
        let name = entry.file_name();
        let path = match &request.all_packages {
            Some(_) => elsewhere.get(std::ffi::OsStr::new(&name)).cloned(),
            None => Some(own_file(&request.repo, entry)),
        };
        let Some(path) = path.filter(|path| path.is_file()) else {
            report.issue(format!("package missing: {name}"));
            continue;
        };
        let Some(computed) = report.take(store::hash_file(&path)) else { continue };
        report.hashed += 1;
        let computed = hex(&computed);
        if computed != entry.hash.value {
            let claimed = &entry.hash.value;
            report.issue(format!("hash mismatch: {name} computed {computed} index claims {claimed}"));
        } else if path.metadata().is_ok_and(|metadata| metadata.len() != entry.size_compressed) {
            report.issue(format!("size mismatch: {name} index claims {} bytes", entry.size_compressed));
        }
    }
}

/// Where the repository itself has a package: at its URL if that is relative, else by convention.
fn own_file(root: &Path, entry: &FullEntry<'_>) -> PathBuf {
    if let Some(path) = files::below(root, &entry.url).filter(|path| path.is_file()) {
        return path;
    }
    root.join(store::package_path(&entry.name, &entry.version, &entry.file_name()))
}
