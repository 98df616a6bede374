//! Shared support of the process tests: real upstreams, farms in temporary directories, the tools,
//! and waiting with a deadline.
//!
//! It owns no expectation about the manager beyond its command line, its files and the form of its
//! log lines.
//!
//! | module | content |
//! |---|---|
//! | [`git_repo`] | upstream repositories, made with the git command |
//! | [`site`] | a farm for an init system to run |
//! | [`signing_keys`] | keys that sign tags |
//! | [`smart_http`] | those repositories over smart HTTP, with faults on request |
//! | [`recipes`] | recipes that build real packages |
//! | [`farm`] | a farm: configuration, key, recipes, state; runs the manager |
//! | [`running`] | a child process under a deadline, its output and its events |
//! | [`logfmt`] | a strict reader of log lines |
//! | [`s3`] | an object store with the requests that rclone sends |
//! | [`slurm`] | a real Slurm cluster of one node |
//! | [`executable`] | programs that a test writes and starts |
//! | [`latch`] | a point where a script waits for the test |
//! | [`client`] | raw HTTP requests and signatures computed by openssl |
//! | [`tools`] | where the binaries are |
//! | [`install`] | `make install` with the binaries of the test run |
//! | [`machine`] | a copy of this machine, for root's work and init systems |
//! | [`package`] | the content of published packages |
//! | [`desk`] | a sandbox for the commands of a page |
//! | [`follow`] | runs a page and compares its output |
//! | [`pages`] | the documents, and the commands in them |
//! | [`ports`] | ports for servers that a test starts |
//! | [`processes`] | processes by number: descendants, groups |
//! | [`optional`] | programs that a machine may lack |
//! | [`random`] | seeded numbers |
//! | [`static_files`] | a web server for the files of a directory |
//! | [`terminal`] | a real terminal |
//! | [`webdriver`] | a real browser, by keyboard and mouse |
//! | [`wait`] | waiting for a condition |

#![allow(dead_code, unused_imports, reason = "the tests and the benchmark each need a part of it")]
#![allow(unreachable_pub, reason = "`pub` says what is for the tests; nothing leaves a test crate")]
#![allow(
    clippy::format_push_string,
    clippy::format_collect,
    reason = "plain text is easier to read than `write!`"
)]
#![allow(clippy::new_without_default, reason = "a test calls `new`")]

pub mod client;
pub mod desk;
pub mod executable;
pub mod farm;
pub mod follow;
pub mod git_repo;
pub mod install;
pub mod latch;
pub mod logfmt;
pub mod machine;
pub mod optional;
pub mod package;
pub mod pages;
pub mod ports;
pub mod processes;
pub mod random;
pub mod recipes;
pub mod running;
pub mod s3;
pub mod signing_keys;
pub mod site;
pub mod slurm;
pub mod smart_http;
pub mod static_files;
pub mod terminal;
pub mod tools;
pub mod wait;
pub mod webdriver;
