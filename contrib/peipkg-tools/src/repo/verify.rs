//! `verify`: finds every way in which a repository breaks PSD-009 §3.5 and §6.
//!
//! Reads only. Collects issues instead of stopping at the first one, so that one run reports
//! everything to repair.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use peipkg_format::package_url::Place;
use peipkg_format::regular_file;
use peipkg_format::repository_layout as layout;

use super::descriptor::{Descriptor, KeySet, MAX_DESCRIPTOR};
use super::entry::FullEntry;
use super::error::RepoError;
use super::generation::{self, Signed};
use super::index::{Index, IndexKind, MAX_INDEX};
use super::index_stream::{self, Each};
use super::listed::Listed;
use super::{MOVING, files, store};
use crate::digest::{Digest, hex, sha256};
use crate::signature::MAX_ENVELOPE;
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
    /// The directory of the packages; without one, their URLs say where they are.
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
    /// Entries of the archive with an http or https URL.
    elsewhere: usize,
}

impl Report {
    /// Returns the summary line of a good repository.
    pub fn summary(&self) -> String {
        let (active, all) = (self.active_entries, self.archive_entries);
        let some = |count: usize, text: &str| match count {
            0 => String::new(),
            count => format!(", {count} {text}"),
        };
        let (hashed, elsewhere) =
            (some(self.hashed, "package files hashed"), some(self.elsewhere, "stored elsewhere"));
        format!(
            "ok: {all} packages, {active} of them current, index_version {}{hashed}{elsewhere}\n",
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

/// An index and its signature, as far as they could be read.
struct Read {
    path: PathBuf,
    file: File,
    digest: Result<Digest, RepoError>,
    signature: Result<Vec<u8>, RepoError>,
    index: Result<Head, RepoError>,
}

/// An index without its entries, but with their number.
type Head = Index<'static, usize>;

/// Audits a repository.
pub fn run(request: &Request) -> Report {
    let (mut report, archive) = generation::of_one_publish(&request.repo, || audit(request));
    if let Some(archive) = archive.filter(|_| request.mode != Mode::Metadata && report.issues.is_empty()) {
        check_packages(&mut report, request, archive);
    }
    report
}

/// The archive index after the audit, to read its entries again.
struct Archive {
    path: PathBuf,
    file: File,
    digest: Digest,
    repo: String,
}

/// Checks the documents. Returns the archive index if both indexes can be read.
fn audit(request: &Request) -> (Report, Option<Archive>) {
    let mut report = Report::default();
    let root = &request.repo;
    let described = Signed::read(root.join(layout::DESCRIPTOR), MAX_DESCRIPTOR);
    let Some(described) = report.value_or_issue(described) else { return (report, None) };
    let parsed = Descriptor::parse(&described.path, &described.bytes);
    let Some(descriptor) = report.value_or_issue(parsed) else { return (report, None) };
    let name = &descriptor.repo.name;
    let (mut faults, mut listed, mut elsewhere) = (Vec::new(), Listed::default(), 0);
    let mut check = |kind: IndexKind, entry: &FullEntry<'_>| {
        let problem = entry.problem();
        faults.extend(problem.map(|problem| format!("{} index: {}: {problem}", kind.as_str(), shown(entry))));
        // An entry with a problem may be of any length, and is not compared.
        faults.is_empty()
    };
    let active = read_index(root, IndexKind::Active, name, &mut |entry, json| {
        if check(IndexKind::Active, &entry) {
            listed.add_active(&entry, json);
        }
    });
    listed.end_active();
    let archive = read_index(root, IndexKind::Archive, name, &mut |entry, json| {
        elsewhere += usize::from(matches!(entry.place(), Ok(Place::Elsewhere(_))));
        if check(IndexKind::Archive, &entry) {
            listed.add_archived(&entry, json);
        }
    });
    let indexes = (report.value_or_issue(active), report.value_or_issue(archive));
    let (Some(active), Some(archive)) = indexes else { return (report, None) };
    if request.mode != Mode::Hashes {
        for problem in descriptor.url_problems(root) {
            report.issue(RepoError::invalid(&described.path, problem));
        }
        check_signatures(&mut report, root, &descriptor, &described, [&active, &archive]);
    }
    let indexes = (report.value_or_issue(active.index), report.value_or_issue(archive.index));
    let digest = report.value_or_issue(archive.digest);
    let ((Some(active), Some(archived)), Some(digest)) = (indexes, digest) else { return (report, None) };
    report.active_entries = active.packages;
    report.archive_entries = archived.packages;
    report.elsewhere = elsewhere;
    report.index_version = active.index_version.unwrap_or(0);
    if request.mode != Mode::Hashes {
        check_heads(&mut report, &active, &archived);
        report.issues.append(&mut faults);
        if report.issues.is_empty() {
            report.issues = listed.end();
        }
    }
    let archive =
        Archive { path: archive.path, file: archive.file, digest, repo: descriptor.repo.name.clone() };
    (report, Some(archive))
}

/// Reads an index of the repository `name` at `root`, and passes on its entries.
fn read_index(root: &Path, kind: IndexKind, name: &str, each: Each<'_>) -> Result<Read, RepoError> {
    let path = kind.path(root);
    let file = regular_file::open_up_to(&path, MAX_INDEX).map_err(RepoError::io(&path, "read the file"))?;
    let signature = files::read(&layout::signature(&path), MAX_ENVELOPE as u64);
    let (digest, index) = index_stream::read(&path, &file, kind, name, each);
    Ok(Read { path, file, digest, signature, index })
}

fn check_signatures(
    report: &mut Report,
    root: &Path,
    descriptor: &Descriptor,
    described: &Signed,
    indexes: [&Read; 2],
) {
    let now = Timestamp::at(SystemTime::now());
    let (trusted, problems) = KeySet::read_trusted(descriptor, root, &now);
    for problem in problems {
        report.issue(problem);
    }
    let mut check = |path: &Path, digest: &Digest, signature: &Result<Vec<u8>, RepoError>| match signature {
        Ok(envelope) => drop(report.value_or_issue(trusted.check_digest(path, digest, envelope))),
        Err(error) => report.issue(error),
    };
    check(&described.path, &sha256(&described.bytes), &described.signature);
    for index in indexes {
        // An index that could not be read to its end is an issue already.
        if let Ok(digest) = &index.digest {
            check(&index.path, digest, &index.signature);
        }
    }
    if root.join(MOVING).is_dir() && !report.issues.is_empty() {
        report.issue("a publish was interrupted; the next publish completes it");
    }
}

/// Checks the fields of both indexes before their entries.
fn check_heads(report: &mut Report, active: &Head, archive: &Head) {
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

/// Finds and hashes every package of the archive index (PSD-009 §3.5.2).
fn check_packages(report: &mut Report, request: &Request, archive: Archive) {
    let mut found = HashMap::new();
    if let Some(directory) = &request.all_packages {
        let Some(paths) = report.value_or_issue(store::find_packages(directory, true)) else { return };
        for path in paths {
            found.insert(path.file_name().unwrap_or_default().to_os_string(), path);
        }
    }
    let Archive { path, file, digest, repo } = archive;
    let mut check = |entry: FullEntry<'_>, _: &str| {
        let name = shown(&entry);
        let place = match entry.place() {
            Ok(place) => place,
            Err(problem) => return report.issue(format!("archive index: {name}: {problem}")),
        };
        let path = match (&request.all_packages, place) {
            (Some(_), _) => found.get(std::ffi::OsStr::new(&entry.identity().file_name())).cloned(),
            (None, Place::Local(path)) => Some(request.repo.join(path)),
            (None, Place::Elsewhere(_)) => None,
        };
        let Some(path) = path.filter(|path| path.is_file()) else {
            if let Place::Local(_) = place {
                report.issue(format!("package missing: {name}"));
            }
            return;
        };
        let Some(computed) = report.value_or_issue(store::hash_file(&path)) else { return };
        report.hashed += 1;
        let computed = hex(&computed);
        if computed != entry.hash.value {
            let claimed = &entry.hash.value;
            report.issue(format!("hash mismatch: {name} computed {computed} index claims {claimed}"));
        } else if path.metadata().is_ok_and(|metadata| metadata.len() != entry.size_compressed) {
            report.issue(format!("size mismatch: {name} index claims {} bytes", entry.size_compressed));
        }
    };
    // The file of the audit, although a publish may have put another in its place by now.
    let (again, _) = index_stream::read(&path, &file, IndexKind::Archive, &repo, &mut check);
    if again.is_ok_and(|again| again != digest) {
        report.issue(format!("{} changed while it was read", path.display()));
    }
}

/// Returns the file name of an unchecked entry, with every character escaped that could forge a
/// line of the report.
fn shown(entry: &FullEntry<'_>) -> String {
    entry.identity().file_name().escape_debug().to_string()
}
