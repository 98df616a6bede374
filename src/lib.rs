//! peipkg-manager: the build-farm daemon of the Peios package system.

pub mod cli;
pub mod config;
pub mod document;
pub mod duration;
pub mod identity;
pub mod problem;
pub mod recipe;
pub mod signing_key;
pub mod tag_pattern;
pub mod version;
