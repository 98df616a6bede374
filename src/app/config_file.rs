//! Reads the configuration file, for a start and for `--check`. [`crate::config`] decides what its
//! text means.

use std::path::Path;

use peipkg_format::problem::{Problem, utf8_text};
use peipkg_format::regular_file::{self, MAX_TEXT};

use crate::app::error::Error;
use crate::app::upload_remote;
use crate::config::{Config, Draft};

/// Reads the configuration file.
///
/// # Errors
/// If it cannot be read, or has a problem.
pub(super) fn read_config(path: &Path) -> Result<Config, Error> {
    let draft = read_draft(path).map_err(Error::ConfigUnreadable)?;
    Config::try_from(draft).map_err(Error::Config)
}

/// Reads as much of the configuration file as possible, and all its problems.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn read_draft(path: &Path) -> Result<Draft, Problem> {
    let bytes = regular_file::read(path, MAX_TEXT).map_err(|error| {
        let advice = "--config names another, docs/config.sample.toml is one to start from";
        Problem::unreadable(path, "the configuration", &error, advice)
    })?;
    let text = match utf8_text(path, bytes) {
        Ok(text) => text,
        Err(problem) => return Ok(Draft::unreadable(path, vec![problem])),
    };
    let mut draft = Draft::read(path, &text);
    draft.problems.extend(upload_remote::overlap(&draft));
    Ok(draft)
}
