//! `[git]`: what git may use while it lists and fetches. Pure.

use peipkg_format::size;
use peipkg_format::strict_toml::{FromToml, Section};
use toml::de::DeValue;

/// The default of `[git] memory_limit`: enough to fetch a kernel, and little enough that a server
/// with 2 GiB survives a hostile upstream.
pub(crate) const DEFAULT_MEMORY_LIMIT: u64 = 1 << 30;

/// The default of `[git] source_limit`.
pub(crate) const DEFAULT_SOURCE_LIMIT: u64 = 4 << 30;

/// The least `[git] memory_limit`: with less, git and the libraries that it loads may fail to start.
const MIN_MEMORY_LIMIT: u64 = 16 << 20;

/// The least `[git] source_limit`: git's own files in an empty repository take some hundred KiB.
const MIN_SOURCE_LIMIT: u64 = 1 << 20;

/// `[git]`: limits in bytes; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GitLimits {
    /// The memory that one git child may allocate, in bytes.
    pub memory: Option<u64>,
    /// The disk space that one fetch may use, in bytes.
    pub source: Option<u64>,
}

impl Default for GitLimits {
    fn default() -> Self {
        Self { memory: Some(DEFAULT_MEMORY_LIMIT), source: Some(DEFAULT_SOURCE_LIMIT) }
    }
}

/// A size as the file has it.
enum Written {
    Text(String),
    Bytes(i64),
}

impl FromToml for Written {
    const EXPECTED: &'static str = "a size such as \"1GiB\"";
    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        String::from_toml(value).map(Self::Text).or_else(|| i64::from_toml(value).map(Self::Bytes))
    }
}

impl GitLimits {
    pub(super) fn read(mut section: Section<'_, '_>) -> Option<Self> {
        let memory = limit(&mut section, "memory_limit", DEFAULT_MEMORY_LIMIT, MIN_MEMORY_LIMIT);
        let source = limit(&mut section, "source_limit", DEFAULT_SOURCE_LIMIT, MIN_SOURCE_LIMIT);
        section.deny_unknown_keys();
        let limited = |bytes| Some(bytes).filter(|bytes| *bytes > 0);
        Some(Self { memory: limited(memory?), source: limited(source?) })
    }
}

/// Reads a limit; 0 is no limit. `None` is a problem, which has been reported.
fn limit(section: &mut Section<'_, '_>, key: &'static str, default: u64, least: u64) -> Option<u64> {
    // A value of another type has been reported.
    let Some(found) = section.optional::<Written>(key) else { return Some(default) };
    let (bytes, written) = match found.value {
        Written::Bytes(bytes) => (u64::try_from(bytes).ok(), bytes.to_string()),
        // An empty string means the same as no key.
        Written::Text(text) if text.is_empty() => return Some(default),
        Written::Text(text) => match size::parse(&text) {
            Ok(bytes) => (Some(bytes), text),
            Err(error) => {
                section.report(&found.span, format!("[git] {key}: {error}"));
                return None;
            }
        },
    };
    let bytes = bytes.filter(|bytes| *bytes == 0 || *bytes >= least);
    if bytes.is_none() {
        let least = size::format(least);
        let message = format!("[git] {key} must be at least {least}, or 0 for no limit, found {written}");
        section.report(&found.span, message);
    }
    bytes
}
