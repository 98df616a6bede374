//! Tests the real `peipkg-build` against expectations that do not come from its code.

mod archive;
mod check;
mod command_line;
mod compare;
mod elf;
#[path = "../../../../tests/support/executable.rs"]
#[expect(dead_code, unreachable_pub, reason = "shared with the manager's tests")]
mod executable;
mod failures;
mod fixture;
#[path = "../../../../tests/support/optional.rs"]
#[expect(unreachable_pub, reason = "shared with the manager's tests")]
mod optional;
mod packages;
#[path = "../../../../tests/support/random.rs"]
#[expect(unreachable_pub, reason = "shared with the manager's tests")]
mod random;
mod real_binaries;
mod signing;
mod signing_random;
