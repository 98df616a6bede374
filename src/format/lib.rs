//! What the manager and the companion tools share: versions, names, keys and the files of the
//! Peios package system (PSD-009), and how strict TOML is read and reported.
//!
//! It knows no network, no thread and no clock. Only [`remove_tree`] and [`signing_key::load`]
//! touch the file system.

pub mod archive_index;
pub mod duration;
pub mod hex;
pub mod package;
pub mod problem;
pub mod remove_tree;
pub mod repository_layout;
pub mod signing_key;
pub mod strict_toml;
pub mod version;
