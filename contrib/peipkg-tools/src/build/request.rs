//! The command line of `peipkg-build build`: turns arguments into checked values.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use peipkg_format::version::Version;

use super::script::FIXED_VARIABLES;
use crate::cli::{Failure, Options};
use crate::expression::check_line;
use crate::signature::load_key;
use crate::timestamp::Timestamp;

/// The flag that gives a key for signing binaries.
pub const BINARY_KEY_FLAG: &str = "--binary-sign-key";

/// The arguments of a build.
#[derive(Debug)]
pub struct Request {
    /// The recipe's `peipkg.toml`.
    pub recipe: PathBuf,
    /// The source tree.
    pub source: PathBuf,
    /// The version of every package.
    pub version: Version,
    /// The source that the manifests record.
    pub source_ref: String,
    /// The farm that the manifests record.
    pub farm_id: String,
    /// The time that the manifests record.
    pub timestamp: Timestamp,
    /// The timestamp as modification time of every archive entry, in seconds since 1970.
    pub mtime: u64,
    /// The directory to write the packages to.
    pub out: PathBuf,
    /// The file of the private key; none for unsigned packages.
    pub sign_key: Option<PathBuf>,
    /// Further variables for the build script.
    pub variables: Vec<(String, OsString)>,
    /// The keys for signing binaries, by name.
    pub binary_keys: BTreeMap<String, SigningKey>,
}

impl Request {
    /// Reads the flags.
    pub fn parse(options: &Options) -> Result<Self, Failure> {
        let recipe = options.path("--recipe")?;
        let source = options.path("--source")?;
        let version = options.text("--version")?;
        let version = version.parse().map_err(|error| usage("--version", error))?;
        let source_ref = line(options, "--source-ref")?;
        let farm_id = line(options, "--farm-id")?;
        let timestamp = options.timestamp()?;
        let mtime = timestamp.entry_mtime().map_err(|problem| usage("--timestamp", problem))?;
        let out = options.path("--out")?;
        let sign_key = options.optional_path("--sign-key");
        let variables = variables(options)?;
        let binary_keys = binary_keys(options)?;
        Ok(Self {
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
            binary_keys,
        })
    }
}

/// Returns the text of a required flag that a manifest records.
fn line(options: &Options, flag: &str) -> Result<String, Failure> {
    let text = options.text(flag)?;
    check_line(text).map_err(|problem| usage(flag, format!("{text:?} {problem}")))?;
    Ok(text.to_owned())
}

/// Reads the variables of `--build-env`.
fn variables(options: &Options) -> Result<Vec<(String, OsString)>, Failure> {
    let mut variables: Vec<(String, OsString)> = Vec::new();
    for given in options.all("--build-env") {
        let pair = split_pair(given).filter(|(name, _)| is_variable_name(name));
        let (name, value) = pair.ok_or_else(|| usage("--build-env", "expected NAME=VALUE"))?;
        if FIXED_VARIABLES.contains(&name) {
            return Err(usage(
                "--build-env",
                format!("{name} is set by peipkg-build, expected another name"),
            ));
        }
        if variables.iter().any(|(earlier, _)| earlier == name) {
            return Err(usage("--build-env", format!("{name} is given twice")));
        }
        variables.push((name.to_owned(), value.to_owned()));
    }
    Ok(variables)
}

/// Reads the keys of [`BINARY_KEY_FLAG`], also those that no recipe uses: a wrong one must not wait
/// for its first use.
fn binary_keys(options: &Options) -> Result<BTreeMap<String, SigningKey>, Failure> {
    let mut keys = BTreeMap::new();
    for given in options.all(BINARY_KEY_FLAG) {
        let pair = split_pair(given).filter(|(name, path)| is_key_name(name) && !path.is_empty());
        let (name, path) = pair.ok_or_else(|| usage(BINARY_KEY_FLAG, "expected NAME=PATH"))?;
        if keys.contains_key(name) {
            return Err(usage(BINARY_KEY_FLAG, format!("{name} is given twice")));
        }
        keys.insert(name.to_owned(), load_key(Path::new(path))?);
    }
    Ok(keys)
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

fn usage(flag: &str, problem: impl std::fmt::Display) -> Failure {
    Failure::Usage(format!("{flag}: {problem}"))
}
