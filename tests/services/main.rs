//! Process tests of whatever is installed or stands around the manager: `make install`, init
//! systems, cron, Slurm, nginx, and the commands of the documents.
//!
//! They need programs that a machine may lack, root or namespaces, and take longer than
//! `tests/farm`, which they are kept apart from so that it answers quickly.

#[path = "../support/mod.rs"]
mod support;

mod cron;
mod documents;
mod github_actions;
mod hosting;
mod installing;
mod installing_over;
mod nginx;
mod openrc;
mod page_commands;
mod rotation;
mod runit;
mod slurm;
mod systemd;
mod sysvinit;
