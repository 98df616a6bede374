//! `publish`: packages become part of a repository, all of them or none (PSD-009 §6).
//!
//! The order of the steps is the promise; the header of [`super`] says why.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ed25519_dalek::{SigningKey, VerifyingKey};
use peipkg_format::package::{check_architecture, check_package_name};
use peipkg_format::signing_key;
use peipkg_format::version::Version;

use super::descriptor::{Descriptor, MAX_KEY, key_path, public_key_file, signature_path};
use super::error::RepoError;
use super::index::{self, Entry, Header, Kind};
use super::merge::{Conflict, merge};
use super::previous::{self, Previous, Successor, refuse_loss};
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

/// Publishes and returns a line for the person who asked.
pub fn run(request: &Request) -> Result<String, RepoError> {
    let key = signing_key::load(&request.sign_key)
        .map_err(|source| RepoError::Key { path: request.sign_key.clone(), source })?;
    let key = SigningKey::from_bytes(key.seed());
    let (input, output) = (&request.input, &request.output);
    if !input.join(DESCRIPTOR).is_file() {
        return Err(RepoError::invalid(input, "holds no repo.json; peipkg-repo init creates a repository"));
    }
    fs::create_dir_all(output).map_err(RepoError::io(output, "create the directory"))?;
    let _lock = lock::take(output)?;
    staging::settle(output)?;

    let rebuild = matches!(request.source, Source::Rebuild(_));
    let previous = previous::load(input, &request.timestamp, &key, rebuild)?;
    let incoming = read_packages(request, &previous)?;
    let archive_path = input.join(INDEX_DIR).join(Kind::Archive.file_name());
    let published = if rebuild {
        Vec::new()
    } else {
        previous::published_entries(&archive_path, &previous, &request.timestamp)?
    };
    let in_place = same_directory(input, output);
    let carried: Vec<String> =
        if in_place { Vec::new() } else { published.iter().filter_map(conventional_path).collect() };
    let Some(index_version) = previous.index_version.checked_add(1) else {
        return Err(RepoError::invalid(&archive_path, "no index_version is left to count up to"));
    };
    let new: Vec<_> = incoming.iter().map(Incoming::entry).collect();
    let successor = Successor {
        repo: &previous.descriptor.repo.name,
        index_version,
        timestamp: &request.timestamp,
        packages: published.iter().chain(&new).collect(),
    };
    if rebuild {
        refuse_loss(&archive_path, &successor)?;
    }
    if !in_place {
        refuse_other(output, &successor)?;
    }
    let merged = merge(published, new).map_err(|conflict| explain(&conflict, &incoming, &archive_path))?;

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

/// Refuses to publish into a repository that would lose by it.
fn refuse_other(output: &Path, successor: &Successor<'_>) -> Result<(), RepoError> {
    if let Ok((other, _)) = Descriptor::load(output)
        && other.repo.name != successor.repo
    {
        let message = format!("is of repository {:?}, expected {:?}", other.repo.name, successor.repo);
        return Err(RepoError::invalid(&output.join(DESCRIPTOR), message));
    }
    refuse_loss(&output.join(INDEX_DIR).join(Kind::Archive.file_name()), successor)
}

/// Reads every package of the request; the errors of all of them are reported together.
fn read_packages(request: &Request, previous: &Previous) -> Result<Vec<Incoming>, RepoError> {
    let (paths, keys) = match &request.source {
        Source::New(directory) => (store::find_packages(directory, false)?, &previous.trusted),
        // What was published under a key that has had its time is still part of the history.
        Source::Rebuild(directory) => (store::find_packages(directory, true)?, &previous.listed),
    };
    let former = RefCell::new(BTreeSet::new());
    let key = |fingerprint: &str| {
        let found = keys.get(fingerprint);
        if found.is_some() && previous.trusted.get(fingerprint).is_none() {
            former.borrow_mut().insert(fingerprint.to_owned());
        }
        found
    };
    let mut found: BTreeMap<String, Incoming> = BTreeMap::new();
    let mut errors = Vec::new();
    for path in paths {
        match read_package(&path, key, &request.template) {
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
    for fingerprint in former.into_inner() {
        note(
            "peipkg-repo",
            &format!("packages are signed by key {fingerprint}, which is no longer accepted"),
        );
    }
    match errors.len() {
        0 => Ok(found.into_values().collect()),
        _ => Err(RepoError::Several(errors)),
    }
}

fn read_package<'k>(
    path: &Path,
    key: impl Fn(&str) -> Option<&'k VerifyingKey>,
    template: &Template,
) -> Result<Incoming, RepoError> {
    let file = File::open(path).map_err(RepoError::io(path, "open the package"))?;
    let package = package_reader::read(file, key)
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
        let is_it = |package: &&Incoming| {
            new.name == package.name
                && new.version == package.version
                && new.architecture == package.architecture
        };
        let package = incoming.iter().find(is_it);
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
