//! The peipkg-manager program. Its code is in the library.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    peipkg_manager::run(env::args_os().skip(1))
}
