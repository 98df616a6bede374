//! The command line of peipkg-manager: arguments in, exit code out; nothing else.

use std::env;
use std::process::ExitCode;

use peipkg_manager::cli::{self, Command, Mode};
use peipkg_manager::error::Error;
use peipkg_manager::farm::Outcome;
use peipkg_manager::{daemon, logging, startup};

fn main() -> ExitCode {
    match run() {
        Ok(Outcome::Clean) => ExitCode::SUCCESS,
        Ok(Outcome::Aborted) => ExitCode::FAILURE,
        Err(error) => {
            for line in error.to_string().lines() {
                eprintln!("peipkg-manager: {line}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn run() -> Result<Outcome, Error> {
    let options = match cli::parse(env::args_os().skip(1))? {
        Command::Run(options) => options,
        Command::Help => {
            print!("{}", cli::help());
            return Ok(Outcome::Clean);
        }
        Command::Version => {
            print!("{}", cli::version());
            return Ok(Outcome::Clean);
        }
    };
    logging::init(options.log_level.into());
    let config = startup::read_config(&options.config)?;
    daemon::run(config, options.mode == Mode::Once)
}
