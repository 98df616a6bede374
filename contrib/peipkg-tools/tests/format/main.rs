//! Holds the format that the tools write and read against packages of the deployed tools, against a
//! second implementation, and against hostile packages.

#[allow(dead_code, reason = "the tests of builds use the rest")]
#[path = "../build/fixture.rs"]
mod fixture;
#[allow(unreachable_pub, reason = "the manager's tests use it too")]
#[path = "../../../../tests/support/random.rs"]
mod random;
#[path = "../repo_support/mod.rs"]
mod repo_support;

mod hostile;
mod mutations;
mod newer_values;
mod payloads;
mod samples;
mod second;
