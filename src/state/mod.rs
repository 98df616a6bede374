//! The state directory: its layout and its lock, and writes and removals that survive a power cut.

pub(crate) mod durable;
pub(crate) mod lock;
pub(crate) mod state_dir;
