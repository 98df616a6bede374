//! An entry as the reader passes it on: its text, and the fields that a caller asks for. Pure.

use serde::Deserialize;
use serde::de::Error as _;
use serde_json::Error;

use super::compact::{Compact, FromCompact};
use crate::problem::excerpt;

/// An entry of an index.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The entry as it is in the document.
    pub json: &'a str,
    /// The place of `json` in the document, in bytes.
    pub at: u64,
    /// Its number, from 1.
    pub number: usize,
    pub(super) compact: Option<Compact<'a>>,
}

impl<'a> Entry<'a> {
    /// Reads the fields of `E`. Those of an entry in compact form are known already.
    ///
    /// # Errors
    /// When a field is missing, is there twice, or has another type.
    pub fn read<E: FromCompact<'a> + Deserialize<'a>>(&self) -> Result<E, Error> {
        match self.compact {
            Some(compact) => Ok(E::from_compact(compact)),
            None => self.parse(),
        }
    }

    /// Reads the fields of `E`, whatever the form of the entry.
    ///
    /// # Errors
    /// As [`Entry::read`].
    pub fn parse<E: Deserialize<'a>>(&self) -> Result<E, Error> {
        serde_json::from_str(self.json).map_err(|error| self.explain(&error))
    }

    /// Names the entry: the place that `error` has is one in the entry.
    fn explain(&self, error: &Error) -> Error {
        #[derive(Deserialize)]
        struct Named {
            name: String,
        }
        // Quoted, because the names of a foreign index may hold any character.
        let name = match serde_json::from_str(self.json) {
            Ok(Named { name }) => format!(" ({:?})", excerpt(&name)),
            Err(_) => String::new(),
        };
        Error::custom(format!("entry {}{name}: {}", self.number, reason(error)))
    }
}

/// Returns the reason of an error without its place.
pub(super) fn reason(error: &Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}
