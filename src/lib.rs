//! peipkg-manager: the build-farm daemon of the Peios package system.
//!
//! It polls git upstreams for new tags, builds each new version with `peipkg-build`, publishes it
//! with `peipkg-repo` and uploads the repository with rclone. One thread, the loop in
//! `app::daemon`, owns all state and lets the pure core in `farm` decide; the other threads only
//! send it events. ARCHITECTURE.md has the map.
//!
//! The program is [`run`]. Tests and benchmarks use the other public items.

mod app;
mod build_log;
mod config;
mod farm;
mod http;
#[cfg(test)]
mod mutation_tests;
mod process;
#[cfg(any(test, fuzzing))]
pub mod readers;
mod recipe;
mod repository;
mod state;
mod upstream;

pub use crate::app::{cli, run};
pub use crate::config::Config;
pub use crate::farm::events::{ListedTag, PollError, PollFault, Tags};
pub use crate::farm::status;
pub use crate::process::Interrupt;
pub use crate::recipe::Recipe;
pub use crate::recipe::tag_reader::TagVersion;
pub use crate::upstream::git::Git;
pub use crate::upstream::listing::{LISTING_DEADLINE, Lister, ref_name, smart_http};
