//! The companion tools of peipkg-manager: `peipkg-build` and `peipkg-repo`.
//!
//! The package format both work on is PSD-009's; the modules name its sections.

pub mod build;
pub mod cli;
pub mod digest;
pub mod expression;
pub mod manifest;
pub mod package_reader;
pub mod package_writer;
pub mod payload;
pub mod repo;
pub mod signature;
pub mod tar_header;
