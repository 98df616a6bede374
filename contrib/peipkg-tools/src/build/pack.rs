//! `peipkg-build pack`: a package from a finished manifest and a staged tree.
//!
//! The manifest is written anew in the one canonical form, with the payload's
//! own size; everything else it says must already be right.

use std::fs;
use std::path::{Path, PathBuf};

use peipkg_manager::identity::check_package_name;
use peipkg_manager::version::Version;

use super::flags::{entry_time, load_key};
use super::interrupt::Interrupt;
use super::staged::Staged;
use super::{entries, failed, note_privileged, payload_errors, publish, read_staged, staged};
use crate::cli::{Failure, Options, Timestamp};
use crate::expression::{
    SIDE_EFFECTS, check_constraint, check_description, check_homepage, check_relaxed_version,
    check_root_reference, check_virtual_name,
};
use crate::manifest::{Dependency, Manifest, SCHEMA_VERSION};
use crate::package_writer::{Package, PendingFile};
use crate::payload::is_known_architecture;

/// What to pack.
#[derive(Debug)]
pub struct Flags {
    manifest: PathBuf,
    staged: PathBuf,
    out: PathBuf,
    sign_key: Option<PathBuf>,
}

impl Flags {
    /// Reads the rest of the command line; `None` when help was asked for.
    pub fn parse(parser: &mut lexopt::Parser) -> Result<Option<Self>, Failure> {
        let once = ["--manifest", "--staged", "--out", "--sign-key"];
        let Some(options) = Options::parse(parser, &once, &[])? else { return Ok(None) };
        Ok(Some(Self {
            manifest: options.path("--manifest")?,
            staged: options.path("--staged")?,
            out: options.path("--out")?,
            sign_key: options.optional_path("--sign-key"),
        }))
    }
}

/// Runs `peipkg-build pack` and returns the path of the package.
pub fn pack(flags: &Flags) -> Result<String, Failure> {
    let interrupt = Interrupt::watch()?;
    let text = fs::read(&flags.manifest).map_err(|error| failed(&flags.manifest, "manifest", error))?;
    let mut manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| failed(&flags.manifest, "manifest", error))?;
    let mut wrong = Vec::new();
    check(&manifest, &mut wrong);
    sort(&mut manifest, &mut wrong);
    let mtime = Timestamp::parse(&manifest.build.timestamp).map_err(|error| error.to_string());
    let mtime = mtime.and_then(|timestamp| entry_time(&timestamp));
    let mtime = mtime.inspect_err(|error| wrong.push(error.clone())).unwrap_or_default();
    let key = flags.sign_key.as_deref().map(load_key).transpose()?;
    let tree = read_staged(&flags.staged)?;
    check_overrides(&manifest, &tree, &mut wrong);
    if !wrong.is_empty() {
        let place = flags.manifest.display();
        return Err(Failure::Failed(wrong.iter().map(|line| format!("{place}: {line}")).collect()));
    }
    let share: Vec<&Staged> = tree.iter().collect();
    let lines = payload_errors(&share, &manifest.architecture);
    if !lines.is_empty() {
        return Err(Failure::Failed(lines));
    }
    note_privileged(&tree);
    let directory = flags.out.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(|error| failed(directory, "output directory", error))?;
    let package = Package { manifest, entries: entries(tree.iter(), &flags.staged), mtime };
    let file = PendingFile::new(flags.out.clone());
    package.write(&file, key.as_ref(), staged::open, || interrupt.check())?;
    publish(vec![file])
}

/// Checks the values of the manifest (PSD-009 §3.3, §4.1).
fn check(manifest: &Manifest, wrong: &mut Vec<String>) {
    let mut follow = |key: &str, value: &str, result: Result<(), &'static str>| {
        if let Err(message) = result {
            wrong.push(format!("{key} {value:?} {message}"));
        }
    };
    if manifest.schema_version != SCHEMA_VERSION {
        follow("schema_version", &manifest.schema_version.to_string(), Err("is not known"));
    }
    follow("name", &manifest.name, check_package_name(&manifest.name));
    let version = manifest.version.parse::<Version>();
    follow("version", &manifest.version, version.map(drop).map_err(|_| "is not a version"));
    let architecture = &manifest.architecture;
    let known = if is_known_architecture(architecture) { Ok(()) } else { Err("is not known") };
    follow("architecture", architecture, known);
    follow("description", &manifest.description, check_description(&manifest.description));
    if !manifest.homepage.is_empty() {
        follow("homepage", &manifest.homepage, check_homepage(&manifest.homepage));
    }
    if let Some(root) = &manifest.default_root {
        follow("default_root", root, check_root_reference(root));
    }
    let mut dependencies = |key: &str, list: &[Dependency], rule: fn(&str) -> Result<(), &'static str>| {
        for entry in list {
            follow(key, &entry.name, rule(&entry.name));
            if let Some(constraint) = &entry.constraint {
                follow(key, constraint, check_constraint(constraint));
            }
            if let Some(arch) = entry.arch.as_ref().filter(|arch| *arch != "any") {
                follow(key, arch, Err("is not \"any\""));
            }
        }
    };
    dependencies("dependencies", &manifest.dependencies, check_virtual_name);
    dependencies("optional_dependencies", &manifest.optional_dependencies, check_virtual_name);
    dependencies("conflicts", &manifest.conflicts, check_package_name);
    for entry in &manifest.provides {
        follow("provides", &entry.name, check_virtual_name(&entry.name));
        if let Some(version) = &entry.version {
            follow("provides", version, check_relaxed_version(version));
        }
    }
    for entry in &manifest.replaces {
        follow("replaces", &entry.name, check_package_name(&entry.name));
        if let Some(constraint) = &entry.constraint {
            follow("replaces", constraint, check_constraint(constraint));
        }
    }
    for effect in &manifest.side_effects {
        let known = SIDE_EFFECTS.contains(&effect.as_str());
        follow("side_effects", effect, if known { Ok(()) } else { Err("is not known") });
    }
}

/// Sorts what the format wants sorted (PSD-009 §3.3.5, §4.1.8) and reports what is listed twice.
fn sort(manifest: &mut Manifest, wrong: &mut Vec<String>) {
    manifest.dependencies.sort_by(|a, b| a.name.cmp(&b.name));
    manifest.optional_dependencies.sort_by(|a, b| a.name.cmp(&b.name));
    manifest.conflicts.sort_by(|a, b| a.name.cmp(&b.name));
    manifest.provides.sort_by(|a, b| a.name.cmp(&b.name));
    manifest.replaces.sort_by(|a, b| a.name.cmp(&b.name));
    manifest.sd_overrides.sort_by(|a, b| a.path.cmp(&b.path));
    let mut effects: Vec<&str> = manifest.side_effects.iter().map(String::as_str).collect();
    effects.sort_unstable();
    let names = |list: &'_ [Dependency]| list.iter().map(|entry| entry.name.clone()).collect::<Vec<_>>();
    let lists = [
        ("dependencies", names(&manifest.dependencies)),
        ("optional_dependencies", names(&manifest.optional_dependencies)),
        ("conflicts", names(&manifest.conflicts)),
        ("provides", manifest.provides.iter().map(|entry| entry.name.clone()).collect()),
        ("replaces", manifest.replaces.iter().map(|entry| entry.name.clone()).collect()),
        ("side_effects", effects.into_iter().map(str::to_owned).collect()),
        ("sd_overrides", manifest.sd_overrides.iter().map(|entry| entry.path.clone()).collect()),
    ];
    for (key, names) in lists {
        let twice = names.windows(2).filter(|pair| pair[0] == pair[1]);
        wrong.extend(twice.map(|pair| format!("{key}: {:?} is listed twice", pair[0])));
    }
}

/// Checks that every override is of a file or directory of the payload, by its path in the archive.
fn check_overrides(manifest: &Manifest, tree: &[Staged], wrong: &mut Vec<String>) {
    for entry in &manifest.sd_overrides {
        let is_entry = |staged: &Staged| match &staged.kind {
            staged::Kind::File { .. } => staged.path == entry.path,
            staged::Kind::Directory => entry.path.strip_suffix('/') == Some(&staged.path),
            staged::Kind::Symlink(_) => false,
        };
        if !tree.iter().any(is_entry) {
            wrong.push(format!("sd_overrides: {:?} is no file or directory of the payload", entry.path));
        }
    }
}
