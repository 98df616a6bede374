//! The program `peipkg-repo`: passes its arguments on and returns the exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    peipkg_tools::cli::run(&peipkg_tools::repo::command::TOOL)
}
