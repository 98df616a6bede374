//! The command line of peipkg-manager: arguments in, exit code out; nothing else.

use std::env;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use peipkg_format::problem::OneLine;
use peipkg_manager::cli::{self, Command, Mode};
use peipkg_manager::error::Error;
use peipkg_manager::farm::Outcome;
use peipkg_manager::progress::Line;
use peipkg_manager::{check, daemon, logging, startup};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            for line in error.to_string().lines() {
                complain(line);
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn run() -> Result<ExitCode, Error> {
    let options = match cli::parse(env::args_os().skip(1))? {
        Command::Run(options) => options,
        Command::Help => return Ok(print(cli::help(), ExitCode::SUCCESS)),
        Command::Version => return Ok(print(cli::version(), ExitCode::SUCCESS)),
    };
    if options.mode == Mode::Check {
        let report = check::check(&options.config);
        let code = ExitCode::from(report.exit_code());
        return Ok(print(report, code));
    }
    let once = options.mode == Mode::Once;
    let line = if once { Line::of_stderr() } else { None };
    logging::init(options.log_level.into(), line.clone());
    let config = startup::read_config(&options.config)?;
    Ok(match daemon::run(config, once, line)? {
        Outcome::Clean => ExitCode::SUCCESS,
        Outcome::Aborted => ExitCode::FAILURE,
    })
}

/// Prints a line to standard error, if anybody can read it.
fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "peipkg-manager: {}", OneLine(line));
}

/// Prints `text` and gives `code`, or a failure if the text could not be written. A reader that has seen
/// enough, such as `head`, is no failure.
fn print(text: impl Display, code: ExitCode) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => code,
    }
}
