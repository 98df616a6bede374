//! peipkg-manager: the build-farm daemon of the Peios package system.
//!
//! It watches git upstreams for new tags, builds each new version with
//! `peipkg-build`, publishes it with `peipkg-repo` and uploads the repository
//! with `rclone`. One thread, the loop in [`daemon`], owns all state and lets
//! the pure core in [`farm`] decide; pollers, builder and listener only send it
//! events. ARCHITECTURE.md has the map.

pub mod archive_file;
pub mod build_log;
pub mod builder;
pub mod check;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod durable;
pub mod error;
pub mod exposure;
pub mod farm;
pub mod http;
pub mod journal;
pub mod logging;
#[cfg(test)]
mod mutation_tests;
pub mod poller;
pub mod process;
pub mod progress;
pub mod publish;
#[cfg(any(test, fuzzing))]
pub mod readers;
pub mod recipe;
pub mod report;
pub mod roster;
pub mod signals;
pub mod startup;
pub mod state_dir;
pub mod status;
pub mod tag_pattern;
pub mod tools;
pub mod upload;
pub mod upstream;
pub mod upstream_url;
pub mod webhook;
