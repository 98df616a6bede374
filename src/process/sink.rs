//! Where the output of children goes. Whoever wants it implements [`Sink`]; this room knows none of them.

use std::fmt;

/// Receives the output of children as it comes.
pub(crate) trait Sink: fmt::Debug {
    /// Begins the output of `program`, such as `git fetch`.
    fn begin(&self, program: &str);

    /// Adds the next bytes that the program wrote to standard output or standard error.
    fn output(&self, bytes: &[u8]);
}
