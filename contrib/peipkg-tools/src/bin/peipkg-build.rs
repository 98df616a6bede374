//! The program `peipkg-build`: passes its arguments on and returns the exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    peipkg_tools::cli::run(&peipkg_tools::build::command::TOOL)
}
