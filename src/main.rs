//! The peipkg-manager program. Its code is in the library.

// `make` links it; contrib/release/no_unwinder.rs says what for.
#[cfg(no_unwinder)]
extern crate no_unwinder;

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    peipkg_manager::run(env::args_os().skip(1))
}
