//! `peipkg-repo`: arguments in, exit status out; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    peipkg_tools::cli::run("peipkg-repo", peipkg_tools::repo::command::run)
}
