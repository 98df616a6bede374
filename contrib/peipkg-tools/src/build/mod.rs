//! `peipkg-build`: makes packages from a recipe or from a staged tree.
//!
//! Owns the order of a build: check everything that needs no script, run the script, sign binaries,
//! check the payload, write the packages. A package appears in the output directory only when all are
//! complete. They are then renamed one by one, so a kill at that moment can leave some of them.

pub mod binary_sign;
pub mod command;
pub mod interrupt;
pub mod pack;
pub mod partition;
pub mod pattern;
pub mod recipe;
pub mod request;
pub mod scratch;
pub mod script;
pub mod staged;
pub mod to_sign;

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::path::{Component, Path, PathBuf};

use peipkg_format::problem::{Problem, utf8_text};
use peipkg_format::regular_file::{self, MAX_TEXT};
use peipkg_format::version::Version;

use self::interrupt::Interrupt;
use self::recipe::{Recipe, Stanza};
use self::request::Request;
use self::scratch::Scratch;
use self::script::Script;
use self::staged::{Staged, StagedError, StagedKind};
use crate::cli::{Failure, note};
use crate::detached_signature::{self, is_elf};
use crate::manifest::mentions::Mentions;
use crate::manifest::{Build, Manifest, SCHEMA_VERSION, rules};
use crate::package_writer::{Content, Entry, Package, PendingFile};
use crate::payload::{check_destination, check_target};
use crate::signature::load_key;

/// The name of the program, which opens every line on standard error.
pub const PROGRAM: &str = "peipkg-build";

/// Runs `peipkg-build build` and returns the paths of the packages, one a line.
pub fn build(request: &Request) -> Result<String, Failure> {
    let interrupt = Interrupt::watch()?;
    let build = Build {
        timestamp: request.timestamp.as_str().to_owned(),
        farm_id: request.farm_id.clone(),
        source_ref: request.source_ref.clone(),
        source_package: None,
    };
    let (recipe, manifests) = read_recipe(&request.recipe, &request.version, &build)
        .map_err(|problems| Failure::of_problems(&problems))?;
    let script = request.recipe.with_file_name(&recipe.script);
    let script = std::path::absolute(&script).map_err(|error| failed(&script, "build script", error))?;
    let source = existing(&request.source, "source tree", "directory", Metadata::is_dir)?;
    let key = request.sign_key.as_deref().map(load_key).transpose()?;
    let sign = binary_sign::with_keys(&recipe.sign, request)?;
    fs::create_dir_all(&request.out).map_err(|error| failed(&request.out, "output directory", error))?;

    let scratch = Scratch::new(&request.recipe, request.version.as_str())?;
    let (staged, work) = (scratch.staged(), scratch.work());
    Script {
        path: &script,
        source: &source,
        staged: &staged,
        work: &work,
        epoch: request.mtime,
        variables: &request.variables,
    }
    .run(&interrupt)?;
    // Before anything looks at the files: a signature changes size and hash.
    binary_sign::sign_staged(&sign, &staged, &request.recipe, &interrupt)?;
    let tree = read_staged(&staged)?;
    let shares = divide(&recipe, &manifests, &tree, &staged)?;

    let mut pending = Vec::new();
    for ((stanza, manifest), share) in recipe.packages.iter().zip(manifests).zip(shares) {
        let entries = entries(share.iter().map(|index| &tree[*index]), &staged);
        let package = Package { manifest, entries, mtime: request.mtime };
        let path = request.out.join(stanza.id.file_name(&request.version));
        pending.push(package.write(&path, key.as_ref(), staged::open, || interrupt.check())?);
    }
    interrupt.check()?;
    publish(pending)
}

/// Runs `peipkg-build check`: finds the problems of a recipe for which a build would fail before its
/// script runs, whatever its flags are. Prints nothing if there is none.
pub fn check(recipe: &Path) -> Result<String, Failure> {
    let version: Version = "0-1".parse()?;
    let timestamp = "1970-01-01T00:00:00Z".to_owned();
    let build = Build { timestamp, farm_id: String::new(), source_ref: String::new(), source_package: None };
    read_recipe(recipe, &version, &build).map_err(Failure::Findings)?;
    Ok(String::new())
}

/// Renames complete packages into place, and returns their absolute paths, one a line.
fn publish(pending: Vec<PendingFile>) -> Result<String, Failure> {
    let absolute = |file: &PendingFile| {
        std::path::absolute(file.path()).map_err(|error| failed(file.path(), "package", error))
    };
    let paths: Vec<PathBuf> = pending.iter().map(absolute).collect::<Result<_, _>>()?;
    let mut written = String::new();
    for (file, path) in pending.into_iter().zip(paths) {
        file.publish().map_err(|error| failed(&path, "package", error))?;
        written += &without_parents(path).display().to_string();
        written.push('\n');
    }
    Ok(written)
}

/// Returns an absolute path without its `..`, unless one follows a link and so leads elsewhere.
fn without_parents(path: PathBuf) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        if component == Component::ParentDir {
            cleaned.pop();
        } else {
            cleaned.push(component);
        }
    }
    let real = |path: &Path| path.canonicalize().ok();
    if real(&cleaned).is_some_and(|found| Some(found) == real(&path)) { cleaned } else { path }
}

/// Reads the recipe, and makes the manifest of each of its packages.
fn read_recipe(
    path: &Path,
    version: &Version,
    build: &Build,
) -> Result<(Recipe, Vec<Manifest>), Vec<Problem>> {
    let unreadable = |error| vec![Problem::of_file(path, format!("cannot read the recipe: {error}"))];
    let bytes = regular_file::read(path, MAX_TEXT).map_err(unreadable)?;
    let text = utf8_text(path, bytes).map_err(|problem| vec![problem])?;
    let check_script = |script: &Path| {
        let found = regular_file::open(&path.with_file_name(script));
        found.map(drop).map_err(|error| error.to_string())
    };
    let recipe = recipe::parse(path, &text, version, check_script)?;
    let manifests: Vec<Manifest> =
        recipe.packages.iter().map(|stanza| manifest_of(stanza, &recipe, version, build)).collect();
    let mut problems = Vec::new();
    for (stanza, manifest) in recipe.packages.iter().zip(&manifests) {
        let label = label(&recipe, stanza);
        problems.extend(rules::problems(manifest).into_iter().map(|line| Problem {
            path: path.to_owned(),
            line: Some(stanza.line),
            message: format!("{label}: {line}"),
        }));
    }
    if problems.is_empty() { Ok((recipe, manifests)) } else { Err(problems) }
}

/// Returns the absolute form of a path, which must exist and be of the given kind.
fn existing(path: &Path, what: &str, kind: &str, is_kind: fn(&Metadata) -> bool) -> Result<PathBuf, Failure> {
    let metadata = fs::metadata(path).map_err(|error| failed(path, what, error))?;
    if !is_kind(&metadata) {
        return Err(failed(path, what, format!("not a {kind}")));
    }
    std::path::absolute(path).map_err(|error| failed(path, what, error))
}

/// Reads the staged tree. The failure has a line for each entry that no package can carry.
fn read_staged(staged: &Path) -> Result<Vec<Staged>, Failure> {
    staged::read(staged).map_err(|error| match error {
        StagedError::Unfit(lines) => Failure::Failed(lines),
        error @ StagedError::Unreadable { .. } => error.into(),
    })
}

/// Divides the tree, which is staged at `staged`, among the stanzas, whose `manifests` follow their
/// order, and checks every share.
fn divide(
    recipe: &Recipe,
    manifests: &[Manifest],
    tree: &[Staged],
    staged: &Path,
) -> Result<Vec<BTreeSet<usize>>, Failure> {
    let paths: Vec<_> = tree
        .iter()
        .map(|staged| partition::Path {
            path: &staged.path,
            is_directory: staged.kind == StagedKind::Directory,
        })
        .collect();
    let stanzas: Vec<_> =
        recipe.packages.iter().map(|stanza| (label(recipe, stanza), stanza.files.as_slice())).collect();
    let partition = partition::divide(&stanzas, &paths).map_err(Failure::Failed)?;
    let mut problems = Vec::new();
    for ((label, _), (manifest, share)) in stanzas.iter().zip(manifests.iter().zip(&partition.shares)) {
        let share: Vec<&Staged> = share.iter().map(|index| &tree[*index]).collect();
        let mut lines = payload_problems(&share, &manifest.architecture, staged)?;
        let mut mentions = Mentions::of(manifest);
        for staged in &share {
            mentions.add(&staged.path, matches!(staged.kind, StagedKind::Symlink(_)));
        }
        lines.extend(mentions.missing());
        problems.extend(lines.iter().map(|line| format!("{label}: {line}")));
    }
    if !problems.is_empty() {
        return Err(Failure::Failed(problems));
    }
    for index in partition.unclaimed_directories {
        let path = &tree[index].path;
        note(PROGRAM, &format!("empty directory {path} is left out; a pattern \"{path}/\" would claim it"));
    }
    note_privileged(tree);
    Ok(partition.shares)
}

/// Returns the stanza's name, with its architecture if another stanza has the same name.
fn label(recipe: &Recipe, stanza: &Stanza) -> String {
    let namesakes = recipe.packages.iter().filter(|other| other.id.name == stanza.id.name).count();
    if namesakes == 1 {
        stanza.id.name.clone()
    } else {
        format!("{} ({})", stanza.id.name, stanza.id.architecture)
    }
}

/// Returns a line for each entry that breaks the rules of a payload. `share` is staged at `root`, and
/// must be sorted by [`partition::compare`].
fn payload_problems(share: &[&Staged], architecture: &str, root: &Path) -> Result<Vec<String>, Failure> {
    let find = |path: &str| share.binary_search_by(|staged| partition::compare(&staged.path, path)).ok();
    let own = |path: &str| find(path).is_some();
    let is_elf =
        |index: usize| staged::start(root, share[index]).map(|start| start.map(|(_, start)| is_elf(&start)));
    let mut lines = Vec::new();
    for staged in share {
        let path = &staged.path;
        if let Err(problem) = check_destination(path, staged.kind == StagedKind::Directory, architecture) {
            lines.push(format!("{path} {problem}"));
        } else if let StagedKind::Symlink(target) = &staged.kind
            && let Err(problem) = check_target(path, target, own)
        {
            lines.push(format!("{path}: target {target:?} {problem}"));
        }
        if let Some(subject) = detached_signature::subject(path) {
            let problem = match staged::start(root, staged)? {
                None => Err(detached_signature::NO_FILE),
                Some((size, start)) => {
                    let subject = find(subject).map(is_elf).transpose()?.flatten();
                    detached_signature::check(size, &start, subject)
                }
            };
            lines.extend(problem.err().map(|problem| format!("{path} {problem}")));
        }
    }
    Ok(lines)
}

/// Notes each program that loses a mode bit it may rely on (PSD-009 §3.4.6).
fn note_privileged(tree: &[Staged]) {
    for staged in tree {
        if staged.kind == (StagedKind::File { is_privileged: true }) {
            let path = &staged.path;
            note(
                PROGRAM,
                &format!(
                    "{path} is staged with a set-user-ID or set-group-ID bit, which packages do not carry"
                ),
            );
        }
    }
}

fn entries<'a>(share: impl Iterator<Item = &'a Staged>, root: &Path) -> Vec<Entry> {
    let entry = |staged: &Staged| match &staged.kind {
        StagedKind::File { .. } => {
            Entry { path: staged.path.clone(), content: Content::File(root.join(&staged.path)) }
        }
        StagedKind::Directory => Entry { path: format!("{}/", staged.path), content: Content::Directory },
        StagedKind::Symlink(target) => {
            Entry { path: staged.path.clone(), content: Content::Symlink(target.clone()) }
        }
    };
    share.map(entry).collect()
}

fn manifest_of(stanza: &Stanza, recipe: &Recipe, version: &Version, build: &Build) -> Manifest {
    Manifest {
        schema_version: SCHEMA_VERSION,
        name: stanza.id.name.clone(),
        version: version.to_string(),
        architecture: stanza.id.architecture.clone(),
        description: stanza.description.clone(),
        license: recipe.license.clone(),
        homepage: recipe.homepage.clone(),
        default_root: None,
        dependencies: stanza.dependencies.clone(),
        optional_dependencies: stanza.optional_dependencies.clone(),
        conflicts: stanza.conflicts.clone(),
        provides: stanza.provides.clone(),
        replaces: stanza.replaces.clone(),
        side_effects: stanza.side_effects.clone(),
        size_installed: 0,
        sd_overrides: Vec::new(),
        build: build.clone(),
    }
}

fn failed(path: &Path, what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::Failed(vec![format!("{what} {}: {error}", path.display())])
}
