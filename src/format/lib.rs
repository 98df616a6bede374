//! The code that the manager and the companion tools of the Peios package system (PSD-009) share.
//!
//! - Values: [`version`], [`package`], [`printable`], [`description`], [`duration`], [`size`], [`hex`],
//!   [`object_id`].
//! - Documents: [`index_reader`] and [`archive_index`], [`signing_key`], [`public_key`],
//!   [`repository_layout`] and [`sidecars`], which name every file of a repository, and
//!   [`package_url`], which says where an entry's file is.
//! - Provenance: [`dsse`] envelopes, and the statement of a build in [`provenance`].
//! - Files that people write: [`strict_toml`] reads them and collects every [`problem`].
//! - Files that others may have left: [`regular_file`] reads them without blocking,
//!   [`unfit_byte`] finds what an editor may have added to a secret.
//! - [`remove_tree`] removes directories that builds leave; [`sort`] sorts with little code.
//!
//! Uses no network, thread or clock. Only [`regular_file`], [`remove_tree`] and
//! [`signing_key::load`] touch the file system.

pub mod archive_index;
pub mod description;
pub mod dsse;
pub mod duration;
pub mod hex;
pub mod index_reader;
pub mod object_id;
pub mod package;
pub mod package_url;
mod pem;
pub mod printable;
pub mod problem;
pub mod provenance;
pub mod public_key;
pub mod regular_file;
pub mod remove_tree;
pub mod repository_layout;
pub mod sidecars;
pub mod signing_key;
pub mod size;
pub mod sort;
pub mod strict_toml;
pub mod unfit_byte;
pub mod version;
