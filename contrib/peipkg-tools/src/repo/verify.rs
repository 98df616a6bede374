//! `verify`: finds every way in which a repository breaks PSD-009 §3.5 and §6.
//!
//! Reads only. Collects issues instead of stopping at the first one, so that one run reports
//! everything to repair.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use peipkg_format::package_url::Place;
use peipkg_format::regular_file;
use peipkg_format::repository_layout as layout;

use super::descriptor::{Descriptor, KeySet, MAX_DESCRIPTOR};
use super::error::RepoError;
use super::full_entry::FullEntry;
use super::generation::{self, Signed};
use super::index::{IndexKind, MAX_INDEX};
use super::index_stream::{Head, IndexStream};
use super::provenance::Found;
use super::{MOVING, both_indexes, files, provenance, store};
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
    /// Packages whose provenance is theirs.
    attested: usize,
    /// Packages whose provenance only a revoked key signed.
    attested_by_revoked: usize,
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
        let attested = some(self.attested, "with verified provenance");
        let by_revoked = some(self.attested_by_revoked, "with provenance by a revoked key");
        format!(
            "ok: {all} packages, {active} of them current, index_version {}{hashed}{elsewhere}{attested}{by_revoked}\n",
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

/// Audits a repository.
pub fn run(request: &Request) -> Report {
    let (mut report, archive) = generation::of_one_publish(&request.repo, || audit(request));
    if let Some(archive) = archive.filter(|_| request.mode != Mode::Metadata && report.issues.is_empty()) {
        check_packages(&mut report, request, &archive);
    }
    report
}

/// An index and its signature.
struct Document {
    path: PathBuf,
    file: File,
    signature: Result<Vec<u8>, RepoError>,
}

impl Document {
    fn open(root: &Path, kind: IndexKind) -> Result<Self, RepoError> {
        let path = kind.path(root);
        let file =
            regular_file::open_up_to(&path, MAX_INDEX).map_err(RepoError::io(&path, "read the file"))?;
        let signature = files::read(&layout::signature(&path), MAX_ENVELOPE as u64);
        Ok(Self { path, file, signature })
    }
}

/// The archive index after the audit, to read its entries again.
struct Archive {
    document: Document,
    digest: Digest,
    repo: String,
    keys: provenance::Keys,
}

/// Checks the documents. Returns the archive index if both indexes can be read.
fn audit(request: &Request) -> (Report, Option<Archive>) {
    let mut report = Report::default();
    let root = &request.repo;
    let described = Signed::read(root.join(layout::DESCRIPTOR), MAX_DESCRIPTOR);
    let Some(described) = report.value_or_issue(described) else { return (report, None) };
    let parsed = Descriptor::parse(&described.path, &described.bytes);
    let Some(descriptor) = report.value_or_issue(parsed) else { return (report, None) };
    let [active, archive] = [IndexKind::Active, IndexKind::Archive].map(|kind| Document::open(root, kind));
    let documents = (report.value_or_issue(active), report.value_or_issue(archive));
    let (Some(active), Some(archive)) = documents else { return (report, None) };
    let both = both_indexes::read(&active.file, &archive.file);
    let name = &descriptor.repo.name;
    let (active_digest, active_head) = both.active.finish(&active.path, IndexKind::Active, name);
    let (digest, head) = both.archive.finish(&archive.path, IndexKind::Archive, name);
    if request.mode != Mode::Hashes {
        for problem in descriptor.url_problems(root) {
            report.issue(RepoError::invalid(&described.path, problem));
        }
        let indexes = [(&active, &active_digest), (&archive, &digest)];
        check_signatures(&mut report, root, &descriptor, &described, indexes);
    }
    let heads = (report.value_or_issue(active_head), report.value_or_issue(head));
    let digest = report.value_or_issue(digest);
    let ((Some(active), Some(archived)), Some(digest)) = (heads, digest) else { return (report, None) };
    report.active_entries = active.packages;
    report.archive_entries = archived.packages;
    report.elsewhere = both.elsewhere;
    report.index_version = active.index_version.unwrap_or(0);
    if request.mode != Mode::Hashes {
        check_heads(&mut report, &active, &archived);
        report.issues.extend(both.faults);
        if report.issues.is_empty() {
            report.issues = both.differences;
        }
    }
    let keys = provenance::Keys::read(&descriptor, root);
    (report, Some(Archive { document: archive, digest, repo: descriptor.repo.name, keys }))
}

fn check_signatures(
    report: &mut Report,
    root: &Path,
    descriptor: &Descriptor,
    described: &Signed,
    indexes: [(&Document, &Result<Digest, RepoError>); 2],
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
    for (index, digest) in indexes {
        // An index that could not be read to its end is an issue already.
        if let Ok(digest) = digest {
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
fn check_packages(report: &mut Report, request: &Request, archive: &Archive) {
    let mut found = Vec::new();
    if let Some(directory) = &request.all_packages {
        let Some(paths) = report.value_or_issue(store::find_packages(directory, true)) else { return };
        found = paths;
        found.sort_by(|one, other| one.file_name().cmp(&other.file_name()));
    }
    let find = |name: &str| {
        let name = Some(OsStr::new(name));
        let up_to = found.partition_point(|path| path.file_name() <= name);
        found[..up_to].last().filter(|path| path.file_name() == name)
    };
    let mut check = |entry: &FullEntry<'_>| {
        let name = entry.shown();
        let place = match entry.place() {
            Ok(place) => place,
            Err(problem) => return report.issue(format!("archive index: {name}: {problem}")),
        };
        let path = match (&request.all_packages, place) {
            (Some(_), _) => find(&entry.file_name()).cloned(),
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
        let directory = request.all_packages.as_ref().unwrap_or(&request.repo);
        match provenance::check(directory, &path, &entry.file_name(), &computed, &archive.keys) {
            Ok(Found::Verified) => report.attested += 1,
            Ok(Found::Revoked) => report.attested_by_revoked += 1,
            Ok(Found::Nothing) => {}
            Err(problem) => report.issue(problem),
        }
    };
    let Archive { document, digest, repo, .. } = archive;
    // The file of the audit, although a publish may have put another in its place by now.
    let mut again = IndexStream::new(&document.file);
    while let Some((entry, _)) = again.next() {
        check(&entry);
    }
    let (again, _) = again.finish(&document.path, IndexKind::Archive, repo);
    if again.is_ok_and(|again| again != *digest) {
        report.issue(format!("{} changed while it was read", document.path.display()));
    }
}
