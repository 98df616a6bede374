//! `publish`: adds packages to a repository, all of them or none (PSD-009 §6).
//!
//! Owns the order of the steps, which makes a publish safe to interrupt; [`super`] explains it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ed25519_dalek::{SigningKey, VerifyingKey};
use peipkg_format::package_url::place;
use peipkg_format::repository_layout as layout;

use super::descriptor::{Descriptor, MAX_DESCRIPTOR, MAX_KEY, public_key_file};
use super::entry::{Entry, Identity, entry_json};
use super::error::RepoError;
use super::index::{Header, IndexKind};
use super::merge::{Conflict, Merged, merge};
use super::places::{self, Carried, Planned};
use super::previous::{self, Previous, Successor, refuse_loss};
use super::sidecars::Sidecars;
use super::site::{self, Facts};
use super::staging::{self, Staging};
use super::store::{self, Unsynced};
use super::template::Template;
use super::{INCOMING, NEW_DESCRIPTOR, NEW_SIGNATURE, clients, command, files, generation, lock};
use crate::cli::{note, warn};
use crate::digest::Digest;
use crate::package_reader;
use crate::signature::{Envelope, fingerprint, load_key};
use crate::timestamp::Timestamp;

/// The arguments of `publish`.
#[derive(Debug)]
pub struct Request {
    /// The repository before the publish.
    pub input: PathBuf,
    /// The packages of the new state.
    pub source: Source,
    /// The file of the private key.
    pub sign_key: PathBuf,
    /// The `generated_at` of the new indexes.
    pub timestamp: Timestamp,
    /// The repository after the publish; may be the same directory as the input.
    pub output: PathBuf,
    /// The URLs of new packages.
    pub template: Template,
    /// Whether to write the browse site.
    pub site: bool,
}

/// The packages of the new state.
#[derive(Debug)]
pub enum Source {
    /// The archive's packages, and those in this directory.
    New(PathBuf),
    /// All packages in and below this directory; the archive is made anew.
    Rebuild(PathBuf),
}

/// A package that was read and found good.
pub(super) struct Incoming {
    pub(super) path: PathBuf,
    pub(super) identity: Identity<'static>,
    pub(super) hash: Digest,
    /// Names a place: [`places`] may take it.
    pub(super) url: String,
    json: String,
    /// Reasons why deployed clients refuse it, or the index that lists it.
    warnings: Vec<String>,
}

impl Incoming {
    fn entry(&self) -> Entry<'_> {
        Entry { identity: self.identity.borrowed(), url: self.url.as_str().into(), json: &self.json }
    }
}

/// Publishes, and returns a summary line.
pub fn run(request: &Request) -> Result<String, RepoError> {
    let key = load_key(&request.sign_key)?;
    let (input, output) = (&request.input, &request.output);
    if !input.join(layout::DESCRIPTOR).is_file() {
        return Err(RepoError::invalid(input, "holds no repo.json; peipkg-repo init creates a repository"));
    }
    fs::create_dir_all(output).map_err(RepoError::io(output, "create the directory"))?;
    let (rebuild, in_place) = (matches!(request.source, Source::Rebuild(_)), same_directory(input, output));
    let load = || previous::load(input, &request.timestamp, &key, rebuild);
    // Before the lock: two publishes, each into the other's input, would wait for each other.
    let other = if in_place { None } else { Some(generation::of_one_publish(input, load)?) };
    let _lock = lock::exclusive(output)?;
    staging::settle(output)?;

    let previous = other.map_or_else(load, Ok)?;
    let incoming = read_packages(request, &previous)?;
    let archive_path = IndexKind::Archive.path(input);
    let published = if rebuild {
        Vec::new()
    } else {
        previous::published_entries(&archive_path, &previous, &request.timestamp)?
    };
    let carried: Vec<Carried<'_>> =
        if in_place { Vec::new() } else { published.iter().filter_map(places::to_carry_over).collect() };
    let before = previous.index_version.max(previous::claimed_index_version(output).unwrap_or(0));
    let Some(index_version) = before.checked_add(1) else {
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
        refuse_loss_in(output, &successor)?;
    }
    let shared = places::check_shared(&published, &incoming);
    let merged = merge(published, new).map_err(|conflict| explain(&conflict, &incoming, &archive_path))?;
    // After the merge, which says of a package published already whether the bytes are the same.
    shared?;
    let plan = places::plan(output, &incoming)?;
    places::check_carried(input, output, &carried)?;
    let elsewhere = match incoming.len() - plan.len() {
        0 => String::new(),
        count => format!(", {count} new stored elsewhere"),
    };

    print_warnings(&incoming);
    // Everything has been validated; writing starts here.
    let mut unsynced = Unsynced::default();
    for Planned { package, relative, is_there } in &plan {
        if *is_there {
            store::keep(output, relative, &mut unsynced)?;
        } else {
            store::place(&package.path, &package.hash, output, relative, &mut unsynced)?;
        }
    }
    let (arrived, altered) = store::carry_over(input, output, carried, &mut unsynced)?;
    let header = Header {
        repo: &previous.descriptor.repo.name,
        index_version,
        generated_at: request.timestamp.as_str(),
    };
    let staging = Staging::write(output, &key, header, &merged)?;
    let described = write_descriptor(request, &previous, &key, in_place)?;
    let mut sidecars = Sidecars::new(output);
    for package in &plan {
        sidecars.write(package.relative);
    }
    sidecars.sync();
    let unsynced: Vec<_> = unsynced.into_paths().chain(described).chain(staging.paths()).collect();
    let committed = files::sync_all(&unsynced).and_then(|()| staging.commit());
    // The packages are published from here on, so a later error must not fail the command: its
    // caller would publish them again.
    let mut late = vec![committed.inspect_err(|_| sidecars.undo())?];
    match finish_descriptor(output) {
        // A new repository without its descriptor is unusable.
        Err(error) if !output.join(layout::DESCRIPTOR).is_file() => return Err(error),
        finished => late.push(finished.err()),
    }
    // A publish of nothing heals the sidecars of the whole archive.
    let others = if incoming.is_empty() { all_places(&merged) } else { arrived };
    for path in &others {
        sidecars.write(path);
    }
    sidecars.finish();
    if !in_place {
        late.push(site::carry_over_others(input, output, request.site).err());
    }
    if request.site {
        let generated_at = request.timestamp.as_str();
        let facts = Facts::new(&previous.descriptor, index_version, generated_at, &merged.active);
        late.push(site::write(output, &facts).err());
    }
    let problems = late.iter().flatten().chain(&altered).map(ToString::to_string);
    let problems = problems.chain(sidecars.into_problems());
    for problem in problems {
        note(command::PROGRAM, &format!("published, but {problem}"));
    }
    let (count, total) = (incoming.len(), merged.archive.len());
    Ok(format!(
        "published {count} packages as index_version {index_version}, {total} in the archive{elsewhere}\n"
    ))
}

/// Returns the paths of all packages that are stored here.
fn all_places(merged: &Merged<'_>) -> Vec<String> {
    merged.archive.iter().filter_map(|json| places::of_json(json)).collect()
}

fn print_warnings(packages: &[Incoming]) {
    for package in packages {
        for warning in &package.warnings {
            warn(command::PROGRAM, &format!("{}: {warning}", package.path.display()));
        }
    }
}

/// Refuses to replace the repository `output` by a successor that is of another repository, older,
/// or lacks one of its packages.
fn refuse_loss_in(output: &Path, successor: &Successor<'_>) -> Result<(), RepoError> {
    let path = output.join(layout::DESCRIPTOR);
    let found = files::read(&path, MAX_DESCRIPTOR).and_then(|bytes| Descriptor::parse(&path, &bytes));
    if let Ok(found) = found
        && found.repo.name != successor.repo
    {
        let message = format!("is of repository {:?}, expected {:?}", found.repo.name, successor.repo);
        return Err(RepoError::invalid(&path, message));
    }
    refuse_loss(&IndexKind::Archive.path(output), successor)
}

/// Reads every package of the request, and reports the errors of all packages together.
fn read_packages(request: &Request, previous: &Previous) -> Result<Vec<Incoming>, RepoError> {
    // A package stays published when the key that signed it expires, and when clients refuse it.
    let (paths, keys, is_published) = match &request.source {
        Source::New(directory) => (store::find_packages(directory, false)?, &previous.trusted, false),
        Source::Rebuild(directory) => (store::find_packages(directory, true)?, &previous.listed, true),
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
        match read_package(&path, key, &request.template, is_published) {
            Ok(package) => match found.get(&package.identity.file_name()) {
                Some(first) if first.hash != package.hash => {
                    let message = format!("is not the same package as {}", first.path.display());
                    errors.push(RepoError::invalid(&path, message));
                }
                _ => {
                    found.insert(package.identity.file_name(), package);
                }
            },
            Err(error) => errors.push(error),
        }
    }
    for fingerprint in former.into_inner() {
        let line = format!("packages are signed by key {fingerprint}, which is no longer accepted");
        note(command::PROGRAM, &line);
    }
    RepoError::several(errors).map(|()| found.into_values().collect())
}

fn read_package<'k>(
    path: &Path,
    key: impl Fn(&str) -> Option<&'k VerifyingKey>,
    template: &Template,
    is_published: bool,
) -> Result<Incoming, RepoError> {
    let file = files::open(path)?;
    let refuse = |source| RepoError::Package { path: path.to_owned(), source };
    let mut package = package_reader::read(file, key).map_err(refuse)?;
    let mut warnings = clients::warnings(&package.metadata.manifest);
    match package.misplaced.take() {
        Some(problem) if is_published => warnings.push(problem.to_string()),
        Some(problem) => return Err(refuse(problem)),
        None => {}
    }
    let manifest = &package.metadata.manifest;
    let identity = Identity {
        name: manifest.name.clone().into(),
        version: manifest.version.clone().into(),
        architecture: manifest.architecture.clone().into(),
    };
    let file_name = identity.file_name();
    if path.file_name().is_none_or(|name| name != file_name.as_str()) {
        return Err(RepoError::invalid(path, format!("its manifest calls for the file name {file_name}")));
    }
    let url = template.expand(&manifest.name, &manifest.version, &manifest.architecture);
    if let Err(error) = place(&url) {
        // The template is good, but may begin with the name of a package called `index`.
        return Err(RepoError::invalid(path, format!("its url {url:?} {error}; use another template")));
    }
    let json = entry_json(&package, &url);
    Ok(Incoming { path: path.to_owned(), identity, hash: package.hash, url, json, warnings })
}

/// Turns a conflict into an error, which names the file of each duplicate and whether its bytes
/// equal the published ones.
fn explain(conflict: &Conflict<'_>, incoming: &[Incoming], archive: &Path) -> RepoError {
    let pairs = match conflict {
        Conflict::Version(name, error) => {
            return RepoError::invalid(archive, format!("package {name}: {error}"));
        }
        Conflict::Duplicates(pairs) => pairs,
    };
    let one = |(new, old): &(Entry<'_>, Entry<'_>)| {
        let package = incoming.iter().find(|package| package.identity == new.identity);
        let path = package.map_or(archive, |package| package.path.as_path());
        let same = new.hash() == old.hash();
        let bytes = if same { "with the same bytes" } else { "with other bytes" };
        RepoError::invalid(path, format!("{} is already published, {bytes}", new.identity))
    };
    RepoError::Several(pairs.iter().map(one).collect())
}

/// Writes the keys that the output lacks, and, unless the output has them, the descriptor and its
/// signature under temporary names. Returns the paths to sync before the commit.
fn write_descriptor(
    request: &Request,
    previous: &Previous,
    key: &SigningKey,
    in_place: bool,
) -> Result<Vec<PathBuf>, RepoError> {
    let (input, output) = (&request.input, &request.output);
    let keys = output.join(layout::KEY_DIRECTORY);
    let mut written = Vec::new();
    let mut write_key = |relative: &str, bytes: &[u8]| {
        let (temporary, target) = (output.join(INCOMING), output.join(relative));
        files::write(&temporary, bytes)?;
        files::rename(&temporary, &target)?;
        written.extend([target, keys.clone()]);
        Ok::<_, RepoError>(())
    };
    let own = layout::key(&fingerprint(&key.verifying_key()));
    if files::create_dir(&keys)? || !output.join(&own).exists() {
        write_key(&own, public_key_file(key).as_bytes())?;
    }
    for listed in previous.descriptor.repo.signing.keys.iter().filter(|_| !in_place) {
        let relative = layout::key(&listed.fingerprint);
        if input.join(&relative).is_file() && !output.join(&relative).exists() {
            write_key(&relative, &files::read(&input.join(&relative), MAX_KEY)?)?;
        }
    }
    let signature = previous.descriptor_signature.clone();
    if !in_place || signature.is_none() {
        let signature =
            signature.unwrap_or_else(|| Envelope::sign_bytes(key, &previous.descriptor_bytes).to_json());
        for (name, bytes) in [(NEW_SIGNATURE, &signature), (NEW_DESCRIPTOR, &previous.descriptor_bytes)] {
            files::write(&output.join(name), bytes)?;
            written.push(output.join(name));
        }
    }
    Ok(written)
}

/// Moves the files of [`write_descriptor`] into place, and sets the descriptor's modification time.
fn finish_descriptor(output: &Path) -> Result<(), RepoError> {
    let path = output.join(layout::DESCRIPTOR);
    if output.join(NEW_DESCRIPTOR).exists() {
        files::rename(&output.join(NEW_SIGNATURE), &layout::signature(&path))?;
        files::rename(&output.join(NEW_DESCRIPTOR), &path)?;
        files::sync_all(&[output.to_owned()])?;
    }
    // Mirrors watch this file for changes.
    files::open(&path)?.set_modified(SystemTime::now()).map_err(RepoError::io(&path, "set the time"))
}

fn same_directory(one: &Path, other: &Path) -> bool {
    matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}
