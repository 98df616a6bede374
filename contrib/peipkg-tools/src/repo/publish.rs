//! `publish`: adds packages to a repository, all of them or none (PSD-009 §6).
//!
//! Owns the order of the steps, which makes a publish safe to interrupt; [`super`] explains it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ed25519_dalek::SigningKey;
use peipkg_format::public_key::MAX_KEY;
use peipkg_format::repository_layout as layout;

use super::descriptor::public_key_file;
use super::entry::{Entry, Identity};
use super::error::RepoError;
use super::incoming::{self, Incoming};
use super::index::{Header, IndexKind};
use super::loss::{Successor, refuse_loss, refuse_loss_in};
use super::merge::{Order, Stop, merge};
use super::places::{self, Carried, Planned, Shared};
use super::previous::{self, Previous};
use super::published::{StoredIndex, Watch};
use super::sidecars::Sidecars;
use super::site::{self, Facts, NewestSoFar};
use super::staging::{self, Writing};
use super::store::{self, Unsynced};
use super::template::Template;
use super::{INCOMING, NEW_DESCRIPTOR, NEW_SIGNATURE, command, files, generation, lock};
use crate::cli::note;
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
    // Before the lock: two publishes, each into the other's input, would wait for each other. All of it,
    // because documents that are written meanwhile are read again.
    let load_all = || load().and_then(|previous| previous.check_archive().map(|()| previous));
    let other = if in_place { None } else { Some(generation::of_one_publish(input, load_all)?) };
    let _lock = lock::exclusive(output)?;
    staging::settle(output)?;

    let previous = other.map_or_else(load, Ok)?;
    let repo = &previous.descriptor.repo.name;
    let incoming =
        incoming::read(request, &previous).or_else(|error| previous.check_archive().and(Err(error)))?;
    let archive_path = IndexKind::Archive.path(input);
    let before = previous.index_version.max(previous::claimed_index_version(output).unwrap_or(0));
    let Some(index_version) = before.checked_add(1) else {
        return Err(RepoError::invalid(&archive_path, "no index_version is left to count up to"));
    };
    let header = Header { repo, index_version, generated_at: request.timestamp.as_str() };
    let (mut shared, mut in_the_way) = (Shared::new(&incoming), Vec::new());
    let mut watch = |entry: &Entry<'_>| {
        shared.check(entry);
        let carried = if in_place { None } else { Carried::of(entry) };
        in_the_way.extend(carried.and_then(|carried| carried.check(input, output).err()));
    };
    let begin = || Writing::begin(output, header, request.site.then(|| NewestSoFar::new(site::NEWEST)));
    let (writing, merged) = merge_all(request, &previous, &incoming, &mut watch, begin)?;
    let duplicates = match merged {
        Ok(()) => Vec::new(),
        Err(Stop::Duplicates(found)) => found,
        Err(stop) => return Err(explain(stop, &archive_path, &writing)),
    };
    let (staging, written) = writing.end(&key)?;
    let successor = Successor {
        repo,
        index_version,
        timestamp: &request.timestamp,
        archive: staging.path(IndexKind::Archive),
    };
    if rebuild {
        refuse_loss(&archive_path, &successor)?;
    }
    if !in_place {
        refuse_loss_in(output, &successor)?;
    }
    if !duplicates.is_empty() {
        return Err(explain_duplicates(&duplicates, &incoming, &archive_path));
    }
    // After the merge, which says of a package published already whether the bytes are the same.
    shared.end()?;
    let plan = places::plan(output, &incoming)?;
    RepoError::several(in_the_way)?;
    let elsewhere = match incoming.len() - plan.len() {
        0 => String::new(),
        count => format!(", {count} new stored elsewhere"),
    };

    incoming::print_warnings(&incoming);
    // Everything has been validated. From here on, the repository gets files that stay.
    let mut unsynced = place_all(output, &plan)?;
    let (arrived, altered) = match &previous.archive {
        Some(archive) if !in_place => carry_over(request, repo, archive, &mut unsynced)?,
        _ => (Vec::new(), Vec::new()),
    };
    let described = write_descriptor(request, &previous, &key, in_place)?;
    let mut sidecars = write_sidecars(output, &plan);
    let unsynced: Vec<_> = unsynced.into_paths().chain(described).chain(staging.paths()).collect();
    // The file of the new archive, whatever its path will be.
    let archive = StoredIndex::open(staging.path(IndexKind::Archive), IndexKind::Archive)?;
    let committed = files::sync_all(&unsynced).and_then(|()| staging.commit());
    // The packages are published from here on, so a later error must not fail the command: its
    // caller would publish them again.
    let mut late = vec![committed.inspect_err(|_| sidecars.undo())?];
    match finish_descriptor(output) {
        // A new repository without its descriptor is unusable.
        Err(error) if !output.join(layout::DESCRIPTOR).is_file() => return Err(error),
        finished => late.push(finished.err()),
    }
    sidecars.commit();
    let heals = incoming.is_empty();
    let from = (!in_place).then_some(&**input);
    late.push(write_other_sidecars(&mut sidecars, repo, &archive, heals, &previous, (from, arrived)).err());
    sidecars.finish();
    if !in_place {
        late.push(site::carry_over_others(input, output, request.site).err());
    }
    let (count, total) = (incoming.len(), written.archived);
    if request.site {
        let generated_at = request.timestamp.as_str();
        let facts =
            Facts::new(&previous.descriptor, index_version, generated_at, written.active, written.newest);
        late.push(site::write(output, &facts).err());
    }
    let problems = late.iter().flatten().chain(&altered).map(ToString::to_string);
    let problems = problems.chain(sidecars.into_problems());
    for problem in problems {
        note(command::PROGRAM, &format!("published, but {problem}"));
    }
    Ok(format!(
        "published {count} packages as index_version {index_version}, {total} in the archive{elsewhere}\n"
    ))
}

/// Writes the indexes of the published packages and the `incoming` ones. `watch` receives every
/// published entry once. Returns how the merge ended.
///
/// # Errors
/// When the published archive index is not the one that a trusted key has signed, or is broken.
fn merge_all(
    request: &Request,
    previous: &Previous,
    incoming: &[Incoming],
    watch: Watch<'_>,
    begin: impl Fn() -> Result<Writing, RepoError>,
) -> Result<(Writing, Result<(), Stop>), RepoError> {
    let new = || incoming.iter().map(Incoming::entry).collect();
    let mut writing = begin()?;
    let Some(archive) = &previous.archive else {
        let merged = merge(None, Order::Sorted, new(), &mut writing);
        return Ok((writing, merged));
    };
    let end = |entries| previous.end_archive(entries, &archive.path, &request.timestamp);
    let mut entries = archive.entries_beside(Some(writing.archive_output()), watch)?;
    let merged = merge(Some((&mut entries, archive.file())), Order::Sorted, new(), &mut writing);
    end(entries)?;
    if !matches!(merged, Err(Stop::Unordered)) {
        return Ok((writing, merged));
    }
    drop(writing);
    let (mut writing, mut nothing) = (begin()?, |_: &Entry<'_>| ());
    let mut entries = archive.entries_beside(Some(writing.archive_output()), &mut nothing)?;
    let merged = merge(Some((&mut entries, archive.file())), Order::Any, new(), &mut writing);
    end(entries)?;
    Ok((writing, merged))
}

/// Places the new packages, and returns what is left to sync.
fn place_all(output: &Path, plan: &[Planned<'_>]) -> Result<Unsynced, RepoError> {
    let mut unsynced = Unsynced::default();
    for Planned { package, relative, is_there } in plan {
        if *is_there {
            store::keep(output, relative, &mut unsynced)?;
        } else {
            store::place(&package.path, &package.hash, output, relative, &mut unsynced)?;
        }
        unsynced.sync_many()?;
    }
    Ok(unsynced)
}

/// Writes the sidecars of the new packages, with the provenance beside their files.
fn write_sidecars(output: &Path, plan: &[Planned<'_>]) -> Sidecars {
    let mut sidecars = Sidecars::new(output);
    for Planned { package, relative, .. } in plan {
        sidecars.write(relative);
        sidecars.carry(&package.path, relative, &package.identity.file_name());
    }
    sidecars.sync();
    sidecars
}

/// Writes the sidecars of the packages that `arrived`, or, if `heals` is set, those of the whole new
/// `archive`. Brings their provenance from the repository `from`, if that is another one.
fn write_other_sidecars(
    sidecars: &mut Sidecars,
    repo: &str,
    archive: &StoredIndex,
    heals: bool,
    previous: &Previous,
    (from, arrived): (Option<&Path>, Vec<usize>),
) -> Result<(), RepoError> {
    let mut write = |entry: &Entry<'_>| {
        if let Some(path) = places::of_entry(entry) {
            sidecars.write(path);
            if let Some(from) = from {
                sidecars.carry(&from.join(path), path, &entry.identity.file_name());
            }
        }
    };
    if heals {
        let each = |_, entry: &Entry<'_>| {
            write(entry);
            Ok(())
        };
        return archive.each(repo, each).map(drop);
    }
    let mut arrived = arrived.into_iter().peekable();
    let (Some(_), Some(published)) = (arrived.peek(), &previous.archive) else { return Ok(()) };
    let each = |number, entry: &Entry<'_>| {
        if arrived.next_if_eq(&number).is_some() {
            write(entry);
        }
        Ok(())
    };
    published.each(repo, each).map(drop)
}

/// Carries published packages over to another output. Returns the numbers of the entries whose packages
/// arrived, and why others did not.
fn carry_over(
    request: &Request,
    repo: &str,
    archive: &StoredIndex,
    unsynced: &mut Unsynced,
) -> Result<(Vec<usize>, Vec<RepoError>), RepoError> {
    let (mut arrived, mut altered) = (Vec::new(), Vec::new());
    archive.each(repo, |number, entry| {
        let Some(package) = Carried::of(entry) else { return Ok(()) };
        match store::carry_over(&request.input, &request.output, &package, unsynced)? {
            Ok(true) => arrived.push(number),
            Ok(false) => {}
            Err(problem) => altered.push(problem),
        }
        unsynced.sync_many()
    })?;
    Ok((arrived, altered))
}

/// Turns the reason why a merge ended early into an error.
fn explain(stop: Stop, archive: &Path, writing: &Writing) -> RepoError {
    match stop {
        Stop::Version(name, error) => RepoError::invalid(archive, format!("package {name}: {error}")),
        Stop::Write(error) => writing.error(error),
        Stop::Read(error) => RepoError::io(archive, "read the file")(error),
        Stop::Unordered => RepoError::invalid(archive, "changed while it was read"),
        Stop::Duplicates(_) => unreachable!("explained with the packages"),
    }
}

/// Names the file of each duplicate, and whether its bytes equal the published ones.
fn explain_duplicates(
    duplicates: &[(Identity<'_>, bool)],
    incoming: &[Incoming],
    archive: &Path,
) -> RepoError {
    let one = |(identity, same): &(Identity<'_>, bool)| {
        let package = incoming.iter().find(|package| package.identity == *identity);
        let path = package.map_or(archive, |package| package.path.as_path());
        let bytes = if *same { "with the same bytes" } else { "with other bytes" };
        RepoError::invalid(path, format!("{identity} is already published, {bytes}"))
    };
    RepoError::Several(duplicates.iter().map(one).collect())
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
pub(super) fn finish_descriptor(output: &Path) -> Result<(), RepoError> {
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
