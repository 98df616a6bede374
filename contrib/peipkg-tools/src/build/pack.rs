//! `peipkg-build pack`: makes a package from a finished manifest and a staged tree.
//!
//! Writes the manifest anew in its canonical form, with the size of the payload. Corrects nothing
//! else: every other field must already be right.

use std::fs;
use std::path::{Path, PathBuf};

use peipkg_format::regular_file;

use super::interrupt::Interrupt;
use super::staged::Staged;
use super::{entries, failed, note_privileged, payload_problems, publish, read_staged, staged};
use crate::cli::{Failure, Options};
use crate::manifest::mentions::Mentions;
use crate::manifest::{MAX_MANIFEST, Manifest, rules};
use crate::package_writer::{Content, Package};
use crate::payload::is_known_architecture;
use crate::signature::load_key;
use crate::timestamp::Timestamp;

/// The arguments of `pack`.
#[derive(Debug)]
pub struct Request {
    manifest: PathBuf,
    staged: PathBuf,
    out: PathBuf,
    sign_key: Option<PathBuf>,
}

impl Request {
    /// Reads the flags.
    pub fn parse(options: &Options) -> Result<Self, Failure> {
        Ok(Self {
            manifest: options.path("--manifest")?,
            staged: options.path("--staged")?,
            out: options.path("--out")?,
            sign_key: options.optional_path("--sign-key"),
        })
    }
}

/// Runs `peipkg-build pack` and returns the path of the package.
pub fn pack(request: &Request) -> Result<String, Failure> {
    let interrupt = Interrupt::watch()?;
    let text = regular_file::read(&request.manifest, MAX_MANIFEST as u64);
    let text = text.map_err(|error| failed(&request.manifest, "manifest", error))?;
    let mut manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| failed(&request.manifest, "manifest", error))?;
    sort(&mut manifest);
    for conflict in &mut manifest.conflicts {
        // Unknown keys are left out. A conflict shares its type with dependencies, but not these keys.
        conflict.root = None;
        conflict.claims.clear();
    }
    let mut problems = rules::problems(&manifest);
    if problems.is_empty() && !is_known_architecture(&manifest.architecture) {
        // A reader accepts future architectures. A writer cannot tell where their files belong.
        let found = &manifest.architecture;
        problems.push(format!("unknown architecture {found:?}; known are x86_64, aarch64 and noarch"));
    }
    // The rules have already reported a malformed timestamp.
    let mtime = Timestamp::parse(&manifest.build.timestamp).map_or(Ok(0), |time| time.entry_mtime());
    let mtime =
        mtime.inspect_err(|problem| problems.push(format!("build.timestamp: {problem}"))).unwrap_or_default();
    let key = request.sign_key.as_deref().map(load_key).transpose()?;
    let tree = read_staged(&request.staged)?;
    let packed = entries(tree.iter(), &request.staged);
    let mut mentions = Mentions::of(&manifest);
    for entry in &packed {
        mentions.add(&entry.path, matches!(entry.content, Content::Symlink(_)));
    }
    problems.extend(mentions.missing());
    if !problems.is_empty() {
        let place = request.manifest.display();
        return Err(Failure::Failed(problems.iter().map(|line| format!("{place}: {line}")).collect()));
    }
    let share: Vec<&Staged> = tree.iter().collect();
    let problems = payload_problems(&share, &manifest.architecture, &request.staged)?;
    if !problems.is_empty() {
        return Err(Failure::Failed(problems));
    }
    note_privileged(&tree);
    let directory = request.out.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(|error| failed(directory, "output directory", error))?;
    let package = Package { manifest, entries: packed, mtime };
    let pending = package.write(&request.out, key.as_ref(), staged::open, || interrupt.check())?;
    publish(vec![pending])
}

/// Sorts the lists that the format requires to be sorted (PSD-009 §3.3.5, §4.1.8).
fn sort(manifest: &mut Manifest) {
    manifest.dependencies.sort_by(|a, b| a.name.cmp(&b.name));
    manifest.optional_dependencies.sort_by(|a, b| a.name.cmp(&b.name));
    manifest.conflicts.sort_by(|a, b| a.name.cmp(&b.name));
    manifest.provides.sort_by(|a, b| a.name.cmp(&b.name));
    manifest.replaces.sort_by(|a, b| a.name.cmp(&b.name));
    manifest.sd_overrides.sort_by(|a, b| a.path.cmp(&b.path));
}
