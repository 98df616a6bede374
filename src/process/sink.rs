//! The interface for the output of children. Rooms above implement [`Sink`]; this room must not know
//! them.

use std::fmt;

/// Receives the output of children as it comes.
pub(crate) trait Sink: fmt::Debug {
    /// Begins the output of `program`, such as `git fetch`.
    fn begin(&self, program: &str);

    /// Adds the next bytes that the program wrote to standard output or standard error.
    fn output(&self, bytes: &[u8]);
}
