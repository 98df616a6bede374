//! `verify`: finds every way in which a repository breaks PSD-009 §3.5 and §6.
//!
//! Reads only. Collects issues instead of stopping at the first one, so that one run reports
//! everything to repair.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use peipkg_format::version::Version;

use super::descriptor::{Descriptor, KeySet};
use super::entry::{FullEntry, Identity};
use super::error::RepoError;
use super::generation::{Generation, Signed};
use super::index::{Index, IndexKind};
use super::{MOVING, files, store};
use crate::digest::hex;
use crate::timestamp::Timestamp;

/// Which checks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Checks descriptor, indexes and signatures.
    Metadata,
    /// Checks the bytes of every package.
    Hashes,
    /// Checks metadata, then, if there is no issue, packages.
    Both,
}

/// The arguments of `verify`.
#[derive(Debug)]
pub struct Request {
    /// The repository.
    pub repo: PathBuf,
    /// Which checks run.
    pub mode: Mode,
    /// The directory of the packages; without one, they are in the repository.
    pub all_packages: Option<PathBuf>,
}

/// The result of an audit.
#[derive(Debug, Default)]
pub struct Report {
    /// One line each; empty if the repository is good.
    pub issues: Vec<String>,
    archive_entries: usize,
    active_entries: usize,
    index_version: u64,
    hashed: usize,
}

impl Report {
    /// Returns the summary line of a good repository.
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

    /// Returns the value, or reports its error as an issue, or each of several.
    fn value_or_issue<T>(&mut self, result: Result<T, RepoError>) -> Option<T> {
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

type FullIndex<'a> = Index<'a, Vec<FullEntry<'a>>>;

/// Audits a repository.
pub fn run(request: &Request) -> Report {
    let mut report = Report::default();
    let root = &request.repo;
    let generation = Generation::read(root);
    let Some(described) = report.value_or_issue(generation.descriptor) else { return report };
    let parsed = Descriptor::parse(&described.path, &described.bytes);
    let Some(descriptor) = report.value_or_issue(parsed) else { return report };
    let indexes = (report.value_or_issue(generation.active), report.value_or_issue(generation.archive));
    let (Some(active), Some(archive)) = indexes else { return report };
    if request.mode != Mode::Hashes {
        check_signatures(&mut report, root, &descriptor, [&described, &active, &archive]);
    }
    let name = &descriptor.repo.name;
    let indexes: (Option<FullIndex<'_>>, Option<FullIndex<'_>>) = (
        report.value_or_issue(Index::parse(&active.path, &active.bytes, IndexKind::Active, name)),
        report.value_or_issue(Index::parse(&archive.path, &archive.bytes, IndexKind::Archive, name)),
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
    let (trusted, problems) = KeySet::read_trusted(descriptor, root, &now);
    for problem in problems {
        report.issue(problem);
    }
    for document in documents {
        match &document.signature {
            Ok(envelope) => {
                report.value_or_issue(trusted.check(&document.path, &document.bytes, envelope));
            }
            Err(error) => report.issue(error),
        }
    }
    if root.join(MOVING).is_dir() && !report.issues.is_empty() {
        report.issue("a publish was interrupted; the next publish completes it");
    }
}

/// Checks the fields of both indexes before their entries.
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

/// Checks the entries of both indexes, alone and against each other (PSD-009 §6.2.7, §6.3.5,
/// §6.3.6).
fn check_entries(report: &mut Report, active: &FullIndex<'_>, archive: &FullIndex<'_>) {
    for (kind, index) in [("active", active), ("archive", archive)] {
        for entry in &index.packages {
            if let Some(problem) = entry.problem() {
                report.issue(format!("{kind} index: {}: {problem}", shown(entry)));
            }
        }
    }
    if report.issues.is_empty() {
        let listed = check_archive(report, archive);
        check_active(report, active, listed);
    }
}

/// The packages of an archive index.
#[derive(Default)]
struct Listed<'a> {
    entries: HashMap<Identity<'a>, &'a FullEntry<'a>>,
    /// The newest version of each name.
    newest: HashMap<&'a str, Version>,
}

/// Checks that the archive's entries are sorted and unique, and collects them.
fn check_archive<'a>(report: &mut Report, archive: &'a FullIndex<'a>) -> Listed<'a> {
    let mut listed = Listed::default();
    let mut previous: Option<(&str, Version)> = None;
    for entry in &archive.packages {
        let identity = entry.identity();
        let file_name = identity.file_name();
        if listed.entries.insert(identity, entry).is_some() {
            report.issue(format!("archive index: {file_name} is listed twice"));
        }
        let Ok(version) = entry.version.parse::<Version>() else { continue };
        if let Some((name, before)) = &previous {
            let same = *name == entry.name;
            // The specification's order has cycles. Within one, any order is right.
            let is_older = before.compare(&version).is_lt() && before.sort_cmp(&version).is_lt();
            if **name > *entry.name || (same && is_older) {
                report.issue(format!("archive index: {file_name} is out of order"));
            }
        }
        match listed.newest.get(&*entry.name) {
            Some(found) if found.sort_cmp(&version).is_ge() => {}
            _ => drop(listed.newest.insert(&entry.name, version.clone())),
        }
        previous = Some((&entry.name, version));
    }
    listed
}

/// Checks that the active index is sorted and lists the newest entry of each name in the archive.
fn check_active(report: &mut Report, active: &FullIndex<'_>, mut listed: Listed<'_>) {
    for pair in active.packages.windows(2) {
        if pair[0].name >= pair[1].name {
            let file_name = pair[1].identity().file_name();
            report.issue(format!("active index: {file_name} is out of order or listed twice"));
        }
    }
    for entry in &active.packages {
        let name = entry.identity().file_name();
        match listed.entries.get(&entry.identity()) {
            None => report.issue(format!("active index: {name} is not in the archive index")),
            Some(archived) if archived.hash.value != entry.hash.value => {
                report.issue(format!("active index: {name} has another hash in the archive index"));
            }
            Some(_) => {}
        }
        let version = entry.version.parse::<Version>();
        match (listed.newest.remove(&*entry.name), version) {
            (Some(newest), Ok(version)) if newest.compare(&version).is_gt() => {
                report.issue(format!(
                    "active index: {name} is older than version {newest} in the archive index"
                ));
            }
            _ => {}
        }
    }
    let mut missing: Vec<_> = listed.newest.into_keys().collect();
    missing.sort_unstable();
    for name in missing {
        report.issue(format!("active index: {name} is missing, the archive index has it"));
    }
}

/// Finds and hashes every package of the archive index (PSD-009 §3.5.2).
fn check_packages(report: &mut Report, request: &Request, archive: &FullIndex<'_>) {
    let mut elsewhere = HashMap::new();
    if let Some(directory) = &request.all_packages {
        let Some(paths) = report.value_or_issue(store::find_packages(directory, true)) else { return };
        for path in paths {
            elsewhere.insert(path.file_name().unwrap_or_default().to_os_string(), path);
        }
    }
    for entry in &archive.packages {
        let identity = entry.identity();
        let name = identity.file_name();
        let path = match &request.all_packages {
            Some(_) => elsewhere.get(std::ffi::OsStr::new(&name)).cloned(),
            None => Some(own_file(&request.repo, &entry.url, &identity)),
        };
        let Some(path) = path.filter(|path| path.is_file()) else {
            report.issue(format!("package missing: {name}"));
            continue;
        };
        let Some(computed) = report.value_or_issue(store::hash_file(&path)) else { continue };
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

/// Returns the path of a package in the repository: where its URL says, if that is relative and
/// there, else its conventional place.
fn own_file(root: &Path, url: &str, identity: &Identity<'_>) -> PathBuf {
    let by_url = files::below(root, url).filter(|path| path.is_file());
    by_url.unwrap_or_else(|| root.join(identity.package_path()))
}

/// Returns the file name of an unchecked entry, with every character escaped that could forge a
/// line of the report.
fn shown(entry: &FullEntry<'_>) -> String {
    entry.identity().file_name().escape_debug().to_string()
}
