//! `publish`: packages become part of a repository, all of them or none (PSD-009 §6).
//!
//! The order of the steps is the promise; the header of [`super`] says why.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ed25519_dalek::SigningKey;
use peipkg_manager::identity::{check_architecture, check_package_name};
use peipkg_manager::signing_key;
use peipkg_manager::version::Version;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::descriptor::{
    Descriptor, MAX_KEY, Status, TrustedKeys, key_path, public_key_file, signature_path,
};
use super::error::RepoError;
use super::index::{self, Entry, Header, Index, Kind, MAX_INDEX};
use super::merge::{Conflict, merge};
use super::staging::{self, Staging};
use super::store::{self, Unsynced};
use super::{DESCRIPTOR, INDEX_DIR, KEYS, NEW_DESCRIPTOR, NEW_SIGNATURE, files, lock};
use crate::cli::{Timestamp, note};
use crate::digest::{Digest, hex};
use crate::package_reader;
use crate::repo::template::Template;
use crate::signature::{Envelope, MAX_ENVELOPE, fingerprint};

/// What `publish` is told.
#[derive(Debug)]
pub struct Request {
    /// The repository as it was.
    pub input: PathBuf,
    /// Where the packages come from.
    pub source: Source,
    /// The private key's file.
    pub sign_key: PathBuf,
    /// When the indexes are said to be made.
    pub timestamp: Timestamp,
    /// The repository as it will be; may be the same directory.
    pub output: PathBuf,
    /// Where new packages are said to be.
    pub template: Template,
}

/// Where the packages of the new state come from.
#[derive(Debug)]
pub enum Source {
    /// New ones, in this directory; the archive stays.
    New(PathBuf),
    /// All that there ever were, below this directory; the archive is made anew.
    Rebuild(PathBuf),
}

/// A package that has been read and found good.
struct Incoming {
    path: PathBuf,
    file_name: String,
    name: String,
    version: String,
    architecture: String,
    hash: Digest,
    json: String,
}

impl Incoming {
    fn entry(&self) -> Entry<'_> {
        Entry {
            name: (&self.name).into(),
            version: (&self.version).into(),
            architecture: (&self.architecture).into(),
            json: &self.json,
        }
    }

    fn relative_path(&self) -> String {
        store::package_path(&self.name, &self.version, &self.file_name)
    }
}

/// The state before, as far as a publish needs it.
struct Previous {
    descriptor: Descriptor,
    descriptor_bytes: Vec<u8>,
    /// Whether the descriptor's signature counts; only a rebuild goes on without.
    descriptor_signed: bool,
    trusted: TrustedKeys,
    index_version: u64,
    /// The archive index as it is on disk; empty for a rebuild.
    archive: Vec<u8>,
}

/// Publishes and returns a line for the person who asked.
pub fn run(request: &Request) -> Result<String, RepoError> {
    let key = signing_key::load(&request.sign_key)
        .map_err(|source| RepoError::Key { path: request.sign_key.clone(), source })?;
    let (input, output) = (&request.input, &request.output);
    if !input.join(DESCRIPTOR).is_file() {
        return Err(RepoError::invalid(input, "holds no repo.json; peipkg-repo init creates a repository"));
    }
    fs::create_dir_all(output).map_err(RepoError::io(output, "create the directory"))?;
    let _lock = lock::take(output)?;
    staging::settle(output)?;

    let rebuild = matches!(request.source, Source::Rebuild(_));
    let previous = load_previous(request, &key, rebuild)?;
    let incoming = read_packages(request, &previous.trusted)?;
    let archive_path = input.join(INDEX_DIR).join(Kind::Archive.file_name());
    let published =
        if rebuild { Vec::new() } else { published_entries(&archive_path, &previous, &request.timestamp)? };
    let in_place = same_directory(input, output);
    let carried: Vec<String> =
        if in_place { Vec::new() } else { published.iter().filter_map(conventional_path).collect() };
    let new = incoming.iter().map(Incoming::entry).collect();
    let merged = merge(published, new).map_err(|conflict| explain(&conflict, &incoming, &archive_path))?;

    let Some(index_version) = previous.index_version.checked_add(1) else {
        return Err(RepoError::invalid(&archive_path, "no index_version is left to count up to"));
    };

    // Everything has been validated; writing starts here.
    let mut unsynced = Unsynced::default();
    for package in &incoming {
        store::place(&package.path, &package.hash, output, &package.relative_path(), &mut unsynced)?;
    }
    for relative in &carried {
        store::carry_over(input, output, relative, &mut unsynced)?;
    }
    let header = Header {
        repo: &previous.descriptor.repo.name,
        index_version,
        generated_at: request.timestamp.as_str(),
    };
    let staging = Staging::write(output, &key, header, &merged)?;
    let described = write_descriptor(request, &previous, &key)?;
    files::sync_all(&unsynced.into_paths().chain(described).chain(staging.paths()).collect::<Vec<_>>())?;
    // What has been published stays so, whatever does not go well from here.
    let late = [staging.commit()?, finish_descriptor(output).err()];
    for problem in late.iter().flatten() {
        note("peipkg-repo", &format!("published, but {problem}"));
    }
    let (count, total) = (incoming.len(), merged.archive.len());
    Ok(format!("published {count} packages as index_version {index_version}, {total} in the archive\n"))
}

/// Reads and verifies the state that is published onto.
fn load_previous(request: &Request, key: &SigningKey, rebuild: bool) -> Result<Previous, RepoError> {
    let input = &request.input;
    let (descriptor, descriptor_bytes) = Descriptor::load(input)?;
    let path = input.join(DESCRIPTOR);
    let public = key.verifying_key();
    let own = fingerprint(&public);
    let is_active = |key: &super::descriptor::Key| key.fingerprint == own && key.status == Status::Active;
    if !descriptor.repo.signing.keys.iter().any(is_active) {
        let listed: Vec<_> =
            descriptor.repo.signing.keys.iter().map(|key| key.fingerprint.as_str()).collect();
        let message = format!(
            "the signing key {own} is not an active key of this repository, which has {}",
            listed.join(", ")
        );
        return Err(RepoError::invalid(&path, message));
    }
    // Keys other than the one at hand matter only if something was signed with them.
    let (mut trusted, _) = TrustedKeys::load(&descriptor, input, &request.timestamp);
    trusted.add(public);
    let signed = trusted.check_bytes(&path, &descriptor_bytes);
    let descriptor_signed = signed.is_ok();
    if rebuild {
        let index_version = salvage_index_version(input, &request.timestamp);
        let archive = Vec::new();
        return Ok(Previous {
            descriptor,
            descriptor_bytes,
            descriptor_signed,
            trusted,
            index_version,
            archive,
        });
    }
    signed?;
    let read = |kind: Kind| {
        let path = input.join(INDEX_DIR).join(kind.file_name());
        let bytes = files::read(&path, MAX_INDEX)?;
        trusted.check_bytes(&path, &bytes)?;
        Ok::<_, RepoError>((path, bytes))
    };
    let version = |kind: Kind, path: &Path, bytes: &[u8]| {
        let index: Index<'_, IgnoredAny> = Index::parse(path, bytes, kind, &descriptor.repo.name)?;
        Ok::<_, RepoError>(index.index_version.unwrap_or(0))
    };
    let (path, active) = read(Kind::Active)?;
    let active = version(Kind::Active, &path, &active)?;
    let (path, archive) = read(Kind::Archive)?;
    // Another tool that was interrupted may have left the archive ahead; consumers have seen both.
    let index_version = active.max(version(Kind::Archive, &path, &archive)?);
    Ok(Previous { descriptor, descriptor_bytes, descriptor_signed, trusted, index_version, archive })
}

/// The entries of the archive. Consumers refuse an index that is older than the one
/// they know (PSD-009 §6.2.3), so none is made.
fn published_entries<'a>(
    path: &Path,
    previous: &'a Previous,
    now: &Timestamp,
) -> Result<Vec<Entry<'a>>, RepoError> {
    let archive: Index<'a, Vec<&'a RawValue>> =
        Index::parse(path, &previous.archive, Kind::Archive, &previous.descriptor.repo.name)?;
    if let Ok(then) = Timestamp::parse(&archive.generated_at)
        && now.seconds() < then.seconds()
    {
        let message = format!(
            "was made at {}, later than the --timestamp {}; consumers would refuse the new one",
            archive.generated_at,
            now.as_str()
        );
        return Err(RepoError::invalid(path, message));
    }
    let json = |source| RepoError::Json { path: path.to_owned(), source };
    archive.packages.into_iter().map(|raw| Entry::parse(raw).map_err(json)).collect()
}

/// Reads every package of the request; the errors of all of them are reported together.
fn read_packages(request: &Request, trusted: &TrustedKeys) -> Result<Vec<Incoming>, RepoError> {
    let paths = match &request.source {
        Source::New(directory) => store::find_packages(directory, false)?,
        Source::Rebuild(directory) => store::find_packages(directory, true)?,
    };
    let mut found: BTreeMap<String, Incoming> = BTreeMap::new();
    let mut errors = Vec::new();
    for path in paths {
        match read_package(&path, trusted, &request.template) {
            Ok(package) => match found.get(&package.file_name) {
                Some(first) if first.hash != package.hash => {
                    let message = format!("is not the same package as {}", first.path.display());
                    errors.push(RepoError::invalid(&path, message));
                }
                _ => {
                    found.insert(package.file_name.clone(), package);
                }
            },
            Err(error) => errors.push(error),
        }
    }
    match errors.len() {
        0 => Ok(found.into_values().collect()),
        _ => Err(RepoError::Several(errors)),
    }
}

fn read_package(path: &Path, trusted: &TrustedKeys, template: &Template) -> Result<Incoming, RepoError> {
    let file = File::open(path).map_err(RepoError::io(path, "open the package"))?;
    let package = package_reader::read(file, |fingerprint| trusted.get(fingerprint))
        .map_err(|source| RepoError::Package { path: path.to_owned(), source })?;
    let file_name = package.metadata.file_name();
    if path.file_name().is_none_or(|name| name != file_name.as_str()) {
        return Err(RepoError::invalid(path, format!("its manifest calls for the file name {file_name}")));
    }
    let manifest = &package.metadata.manifest;
    let url = template.expand(&manifest.name, &manifest.version, &manifest.architecture, &file_name);
    Ok(Incoming {
        path: path.to_owned(),
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        architecture: manifest.architecture.clone(),
        hash: package.hash,
        json: index::entry_json(&package, url),
        file_name,
    })
}

/// Says of each duplicate where it is and whether its bytes are the published ones.
fn explain(conflict: &Conflict<'_>, incoming: &[Incoming], archive: &Path) -> RepoError {
    let pairs = match conflict {
        Conflict::Version(entry, error) => {
            return RepoError::invalid(archive, format!("package {}: {error}", entry.name));
        }
        Conflict::Duplicates(pairs) => pairs,
    };
    let one = |(new, old): &(Entry<'_>, Entry<'_>)| {
        let package = incoming.iter().find(|package| package.json == new.json);
        let path = package.map_or(archive, |package| package.path.as_path());
        let same = package.is_some_and(|package| old.json.contains(&hex(&package.hash)));
        let bytes = if same { "with the same bytes" } else { "with other bytes" };
        let message =
            format!("{} {} {} is already published, {bytes}", new.name, new.version, new.architecture);
        RepoError::invalid(path, message)
    };
    RepoError::Several(pairs.iter().map(one).collect())
}

/// Where a published package is by convention, whatever its URL says.
fn conventional_path(entry: &Entry<'_>) -> Option<String> {
    // What another tool has signed is still held to the grammar before it becomes a path.
    check_package_name(&entry.name).ok()?;
    check_architecture(&entry.architecture).ok()?;
    entry.version.parse::<Version>().ok()?;
    let file_name = format!("{}_{}_{}.peipkg", entry.name, entry.version, entry.architecture);
    Some(store::package_path(&entry.name, &entry.version, &file_name))
}

/// Writes what the new state lacks of keys, and of a descriptor with its signature; returns what
/// has to be made durable before the commit.
fn write_descriptor(
    request: &Request,
    previous: &Previous,
    key: &SigningKey,
) -> Result<Vec<PathBuf>, RepoError> {
    let (input, output) = (&request.input, &request.output);
    let in_place = same_directory(input, output);
    let mut written = Vec::new();
    let mut write_key = |relative: &str, bytes: &[u8]| {
        let (temporary, target) = (output.join(store::INCOMING), output.join(relative));
        files::write(&temporary, bytes)?;
        files::rename(&temporary, &target)?;
        written.extend([target, output.join(KEYS)]);
        Ok::<_, RepoError>(())
    };
    let own = key_path(&fingerprint(&key.verifying_key()));
    if files::create_dir(&output.join(KEYS))? || !output.join(&own).exists() {
        write_key(&own, public_key_file(key).as_bytes())?;
    }
    for listed in previous.descriptor.repo.signing.keys.iter().filter(|_| !in_place) {
        let relative = key_path(&listed.fingerprint);
        if input.join(&relative).is_file() && !output.join(&relative).exists() {
            write_key(&relative, &files::read(&input.join(&relative), MAX_KEY)?)?;
        }
    }
    if !in_place || !previous.descriptor_signed {
        let envelope = if previous.descriptor_signed {
            files::read(&signature_path(&input.join(DESCRIPTOR)), MAX_ENVELOPE as u64)?
        } else {
            Envelope::sign_bytes(key, &previous.descriptor_bytes).to_json()
        };
        for (name, bytes) in [(NEW_SIGNATURE, &envelope), (NEW_DESCRIPTOR, &previous.descriptor_bytes)] {
            files::write(&output.join(name), bytes)?;
            written.push(output.join(name));
        }
    }
    Ok(written)
}

/// Puts into place what [`write_descriptor`] has written, and touches the descriptor.
fn finish_descriptor(output: &Path) -> Result<(), RepoError> {
    let path = output.join(DESCRIPTOR);
    if output.join(NEW_DESCRIPTOR).exists() {
        files::rename(&output.join(NEW_SIGNATURE), &signature_path(&path))?;
        files::rename(&output.join(NEW_DESCRIPTOR), &path)?;
        files::sync_all(&[output.to_owned()])?;
    }
    // Mirrors watch this file to learn that there is something new.
    let touched = OpenOptions::new().write(true).open(&path);
    touched
        .and_then(|file| file.set_modified(SystemTime::now()))
        .map_err(RepoError::io(&path, "set the time"))
}

fn same_directory(one: &Path, other: &Path) -> bool {
    matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}

/// The highest version either index claims, read from whatever is left of them. With nothing
/// left, seconds since 1970 are more than any number of publishes (PSD-009 §6.2.3).
fn salvage_index_version(root: &Path, now: &Timestamp) -> u64 {
    let claimed = |kind: Kind| {
        let bytes = files::read(&root.join(INDEX_DIR).join(kind.file_name()), MAX_INDEX).ok()?;
        let head = String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]).into_owned();
        let (_, after) = head.split_once("\"index_version\"")?;
        let digits = after.trim_start_matches(|c: char| c == ':' || c.is_ascii_whitespace());
        let end = digits.find(|c: char| !c.is_ascii_digit())?;
        digits[..end].parse().ok()
    };
    let highest = [Kind::Active, Kind::Archive].into_iter().filter_map(claimed).max();
    highest.unwrap_or_else(|| now.seconds())
}
