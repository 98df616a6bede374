//! Process tests of the installation and of the programs around the manager: `make install`, init
//! systems, cron, Slurm, nginx, and the commands of the documents.
//!
//! They need root, namespaces, or programs that a machine may lack. They are a crate of their own so
//! that `tests/farm` answers quickly.

#[path = "../support/mod.rs"]
mod support;

mod benchmarks;
mod cron;
mod documents;
mod github_actions;
mod hosting;
mod installing;
mod installing_over;
mod nginx;
mod openrc;
mod packages;
mod page_commands;
mod rotation;
mod runit;
mod slurm;
mod slurm_side_by_side;
mod systemd;
mod sysvinit;
