//! Process tests: the real manager with real git, real tools and real upstreams, one module per topic.
//!
//! They are one crate so that they link once. A test never sleeps: it waits for a condition, with a deadline.

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod bad_upstreams;
mod broken_disk;
mod broken_tools;
mod build_logs;
mod busy_hosts;
mod chaos;
mod check;
mod clocks;
mod completions;
mod cron;
mod daemon;
mod document_flags;
mod documents;
mod environment;
mod full_disk;
mod github_actions;
mod grants;
mod hanging_fetches;
mod hostile_upstreams;
mod hostile_words;
mod hosting;
mod http;
mod http_load;
mod http_status;
mod idle;
mod installing;
mod installing_over;
mod listing;
mod listing_ways;
mod manual;
mod nginx;
mod page_commands;
mod payloads;
mod progress;
mod publishing;
mod purity;
mod remote_readers;
mod remotes;
mod rotation;
mod scale;
mod service_openrc;
mod service_runit;
mod service_sysvinit;
mod settling;
mod signals;
mod slurm;
mod soak;
mod sources;
mod support_itself;
mod sweep;
mod systemd;
mod tls;
mod uploads;
mod webhooks;
