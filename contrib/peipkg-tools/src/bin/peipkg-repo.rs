//! The program `peipkg-repo`: passes its arguments on and returns the exit status.

// `make` links it; contrib/release/no_unwinder.rs says what for.
#[cfg(no_unwinder)]
extern crate no_unwinder;

use std::process::ExitCode;

fn main() -> ExitCode {
    peipkg_tools::cli::run(&peipkg_tools::repo::command::TOOL)
}
