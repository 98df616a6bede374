//! The command line of `peipkg-build build`, in plain values.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use peipkg_format::signing_key;
use peipkg_format::version::Version;

use super::script::FIXED_VARIABLES;
use crate::cli::{Failure, Options, Timestamp};
use crate::tar_header::MAX_NUMBER;

/// What one build is to do.
#[derive(Debug)]
pub struct Flags {
    /// The recipe's `peipkg.toml`.
    pub recipe: PathBuf,
    /// The source tree.
    pub source: PathBuf,
    /// The version of every package.
    pub version: Version,
    /// Recorded in the manifests.
    pub source_ref: String,
    /// Recorded in the manifests.
    pub farm_id: String,
    /// Recorded in the manifests, and the modification time of every entry.
    pub timestamp: Timestamp,
    /// The time in seconds since 1970, at most [`MAX_NUMBER`].
    pub mtime: u64,
    /// The directory of the packages.
    pub out: PathBuf,
    /// The private key; none for unsigned packages.
    pub sign_key: Option<PathBuf>,
    /// Further variables for the build script.
    pub variables: Vec<(String, OsString)>,
}

impl Flags {
    /// Reads the rest of the command line; `None` when help was asked for.
    pub fn parse(parser: &mut lexopt::Parser) -> Result<Option<Self>, Failure> {
        let once = [
            "--recipe",
            "--source",
            "--version",
            "--source-ref",
            "--farm-id",
            "--timestamp",
            "--out",
            "--sign-key",
        ];
        let Some(options) = Options::parse(parser, &once, &["--build-env", "--binary-sign-key"])? else {
            return Ok(None);
        };
        let recipe = options.path("--recipe")?;
        let source = options.path("--source")?;
        let version = options.text("--version")?;
        let version = version.parse().map_err(|error| usage("--version", error))?;
        let source_ref = options.text("--source-ref")?.to_owned();
        let farm_id = options.text("--farm-id")?.to_owned();
        let timestamp = options.timestamp()?;
        let mtime = entry_time(&timestamp).map_err(|wrong| usage("--timestamp", wrong))?;
        let out = options.path("--out")?;
        let sign_key = options.optional_path("--sign-key");
        let variables = variables(&options)?;
        check_binary_keys(&options)?;
        Ok(Some(Self {
            recipe,
            source,
            version,
            source_ref,
            farm_id,
            timestamp,
            mtime,
            out,
            sign_key,
            variables,
        }))
    }
}

/// A timestamp as the modification time of archive entries.
///
/// # Errors
/// What is wrong with it; the archive stores whole seconds in eleven octal
/// digits and nothing else (PSD-009 §3.1.4 rules 2 and 12).
pub fn entry_time(timestamp: &Timestamp) -> Result<u64, String> {
    let text = timestamp.as_str();
    let seconds = timestamp.whole_seconds().ok_or_else(|| format!("{text:?} has a fraction of a second"))?;
    if seconds > MAX_NUMBER { Err(format!("{text:?} is too late for an archive entry")) } else { Ok(seconds) }
}

fn variables(options: &Options) -> Result<Vec<(String, OsString)>, Failure> {
    let mut variables: Vec<(String, OsString)> = Vec::new();
    for given in options.all("--build-env") {
        let pair = split_pair(given).filter(|(name, _)| is_variable_name(name));
        let (name, value) = pair.ok_or_else(|| usage("--build-env", "expected NAME=VALUE"))?;
        if FIXED_VARIABLES.contains(&name) {
            return Err(usage("--build-env", format!("{name} is set by the build itself")));
        }
        if variables.iter().any(|(earlier, _)| earlier == name) {
            return Err(usage("--build-env", format!("{name} is given twice")));
        }
        variables.push((name.to_owned(), value.to_owned()));
    }
    Ok(variables)
}

/// Checks the keys for binaries, which no recipe that is accepted can use yet.
fn check_binary_keys(options: &Options) -> Result<(), Failure> {
    const FLAG: &str = "--binary-sign-key";
    let mut names = Vec::new();
    for given in options.all(FLAG) {
        let pair = split_pair(given).filter(|(name, path)| is_key_name(name) && !path.is_empty());
        let (name, path) = pair.ok_or_else(|| usage(FLAG, "expected NAME=PATH"))?;
        if names.contains(&name) {
            return Err(usage(FLAG, format!("{name} is given twice")));
        }
        names.push(name);
        load_key(Path::new(path))?;
    }
    Ok(())
}

/// Reads a private key; the failure names its file.
pub fn load_key(path: &Path) -> Result<SigningKey, Failure> {
    match signing_key::load(path) {
        Ok(key) => Ok(SigningKey::from_bytes(key.seed())),
        Err(error) => Err(Failure::Failed(vec![format!("{}: {error}", path.display())])),
    }
}

fn split_pair(given: &OsStr) -> Option<(&str, &OsStr)> {
    let bytes = given.as_bytes();
    let at = bytes.iter().position(|byte| *byte == b'=')?;
    let name = std::str::from_utf8(&bytes[..at]).ok()?;
    Some((name, OsStr::from_bytes(&bytes[at + 1..])))
}

fn is_variable_name(name: &str) -> bool {
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    starts_well && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn is_key_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn usage(flag: &str, wrong: impl std::fmt::Display) -> Failure {
    Failure::Usage(format!("{flag}: {wrong}"))
}
