//! The state directory: its layout, its locks, and writes that survive a power cut. Must not know
//! what its files mean.

pub(crate) mod durable;
pub(crate) mod lock;
pub(crate) mod state_dir;
pub(crate) mod troubles;
pub(crate) mod volumes;
