//! The companion tools of peipkg-manager: `peipkg-build` and `peipkg-repo`.
//!
//! Both implement the package format of PSD-009; modules name the sections they implement.

pub mod binary_sign;
pub mod build;
pub mod chunks;
pub mod cli;
pub mod detached_signature;
pub mod digest;
pub mod expression;
pub mod manifest;
pub mod package_reader;
pub mod package_writer;
pub mod payload;
pub mod repo;
pub mod signature;
pub mod stamp;
pub mod tar_header;
pub mod timestamp;
