//! Process tests: the real manager with real git, real tools and real upstreams, one module per
//! topic.
//!
//! They are one crate so that they link once. Tests that install something or need a service are in
//! `tests/services`. A test never sleeps: it waits for a condition, with a deadline.

#[path = "../support/mod.rs"]
mod support;

mod alerts;
mod bad_input;
mod bad_upstreams;
mod broken_disk;
mod broken_tools;
mod build_logs;
mod busy_hosts;
mod causes;
mod chaos;
mod check;
mod check_recipes;
mod clocks;
mod completions;
mod daemon;
mod document_flags;
mod environment;
mod exhaustion;
mod forges;
mod full_disk;
mod git_lfs;
mod git_limits;
mod grants;
mod hanging_fetches;
mod hostile_upstreams;
mod hostile_words;
mod http;
mod http_fuzz;
mod http_load;
mod http_status;
mod idle;
mod lasting;
mod late_tags;
mod layouts;
mod listing;
mod listing_ways;
mod long_index;
mod loose_packages;
mod manual;
mod metrics;
mod moved_tags;
mod no_files;
mod notifying;
mod odd_files;
mod official_recipes;
mod one_request;
mod other_users;
mod pausing;
mod payloads;
mod plain_servers;
mod plan;
mod plan_and_sweep;
mod progress;
mod provenance;
mod publishing;
mod rebuilding;
mod recipe_tags;
mod remote_places;
mod remote_readers;
mod remotes;
mod repository_links;
mod reproducing;
mod scale;
mod second_stop;
mod secrets;
mod service_manager;
mod settling;
mod sidecars;
mod signals;
#[path = "../../contrib/peipkg-tools/tests/build/elf.rs"]
#[expect(dead_code, reason = "shared with the tests of the tools")]
mod signed_elf;
mod signed_tags;
mod signers;
mod soak;
mod source_bytes;
mod sources;
mod status_fields;
mod submodules;
mod supervision;
mod support_itself;
mod sweep;
mod tls;
mod tool_completions;
mod tool_manuals;
mod trust;
mod undoing;
mod uploads;
mod volumes;
mod webhooks;
