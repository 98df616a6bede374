//! The program `peipkg-repo`: passes its arguments on and returns the exit status.

use std::process::ExitCode;

use peipkg_tools::cli;
use peipkg_tools::repo::command::{self, PROGRAM};

fn main() -> ExitCode {
    cli::run(PROGRAM, command::run)
}
