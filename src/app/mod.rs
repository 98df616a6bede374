//! The program: command line, start, the loop, its threads and its log.
//!
//! This room may import every other one, and none may import it. Decisions belong in `farm`. Only
//! this file prints errors and ends with an exit code.

mod audience;
mod builder;
mod check;
pub mod cli;
mod comparison;
mod config_file;
mod daemon;
mod error;
mod key_files;
pub(crate) mod logfmt;
pub(crate) mod logging;
mod message;
mod notices;
mod notifier;
mod plan;
mod plan_report;
mod poller;
mod progress;
pub(crate) mod public_keys;
mod publisher;
mod rebuild;
mod recipe_check;
mod recipe_digest;
mod recipe_files;
mod roster;
mod service_manager;
mod signals;
mod startup;
mod terminal_line;
mod tool_commands;
mod tools;
mod upload_remote;
mod uploader;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::{self, ExitCode};
use std::time::Duration;

use log::LevelFilter;
use peipkg_format::problem::OneLine;

use crate::app::cli::{Command, Mode};
use crate::app::error::Error;
use crate::app::progress::Line;
use crate::farm::Outcome;
use crate::process::{inherited, supervisor};

/// Runs the program with its arguments, without its name. Prints an error that ends it, one line per
/// problem. Returns the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    abort_on_panic();
    inherited::reset_signals();
    let args: Vec<OsString> = args.into_iter().collect();
    if let Some(code) = run_supervisor(&args) {
        return code;
    }
    match try_run(args) {
        Ok(code) => code,
        Err(error) => {
            for line in error.to_string().lines() {
                print_error(line);
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// Makes a panic of any thread end the process, whatever the build's profile. Otherwise the farm would
/// wait for a worker that is gone. The service manager starts it again, and nothing is lost.
fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}

/// Runs as the supervisor of another process, if this process has to be one: of a build, or as
/// process 1 of a container.
fn run_supervisor(args: &[OsString]) -> Option<ExitCode> {
    let (command, result) = match args {
        [first, grace, program, rest @ ..]
            if first == supervisor::ARGUMENT || first == supervisor::ARGUMENT_CHANGED =>
        {
            inherited::close_files();
            if first == supervisor::ARGUMENT_CHANGED {
                supervisor::change_surroundings();
            }
            let grace = grace.to_str().and_then(|grace| grace.parse().ok()).unwrap_or_default();
            let mut command = process::Command::new(program);
            let result = supervisor::supervise_build(command.args(rest), Duration::from_millis(grace));
            (command, result)
        }
        _ => {
            let mut command = supervisor::below_process_1()?;
            let result = supervisor::supervise_manager(command.args(args));
            (command, result)
        }
    };
    Some(match result {
        Ok(ended) => {
            ended.left.iter().for_each(|line| print_error(line));
            ExitCode::from(ended.exit_code())
        }
        Err(error) => {
            print_error(&format!("cannot start {}: {error}", command.get_program().display()));
            ExitCode::FAILURE
        }
    })
}

fn try_run(args: impl IntoIterator<Item = OsString>) -> Result<ExitCode, Error> {
    let options = match cli::parse(args)? {
        Command::Run(options) => options,
        Command::Help => return Ok(print(cli::help(), ExitCode::SUCCESS)),
        Command::Version => return Ok(print(cli::version(), ExitCode::SUCCESS)),
    };
    if options.mode == Mode::Check {
        let report = check::check(&options.config);
        let code = ExitCode::from(report.exit_code());
        return Ok(print(report, code));
    }
    let line = if options.mode == Mode::Daemon { None } else { Line::of_stderr() };
    let once = options.mode == Mode::Once;
    if options.mode == Mode::Plan {
        // The plan itself says what a sweep would log.
        let level =
            if options.log_level == LevelFilter::Info { LevelFilter::Warn } else { options.log_level };
        logging::init(level, line.clone());
        let config = config_file::read_config(&options.config)?;
        let report = plan::plan(&config, line.clone()).inspect_err(|_| clear(line.as_ref()))?;
        let code = if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        return Ok(print(report, code));
    }
    if let Mode::Rebuild(recipe, version) = options.mode {
        logging::init(options.log_level.min(LevelFilter::Warn), None);
        let report = rebuild::rebuild(config_file::read_config(&options.config)?, &recipe, version)?;
        let code = if report.is_same() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        return Ok(print(report, code));
    }
    logging::init(options.log_level, line.clone());
    let config = config_file::read_config(&options.config)?;
    let ended = daemon::run(config, once, line.clone()).inspect_err(|_| clear(line.as_ref()))?;
    Ok(match ended {
        Outcome::Clean => ExitCode::SUCCESS,
        Outcome::Unfinished | Outcome::Aborted => ExitCode::FAILURE,
    })
}

/// Takes the live line from the terminal: an error comes in its place.
fn clear(line: Option<&Line>) {
    if let Some(line) = line {
        line.clear();
    }
}

/// Prints a line to standard error. Ignores a closed standard error.
fn print_error(line: &str) {
    let _ = writeln!(io::stderr(), "peipkg-manager: {}", OneLine(line));
}

/// Prints `text` and returns `code`, or a failure if the text cannot be written. A reader that closes
/// the pipe early, such as `head`, is no failure.
fn print(text: impl Display, code: ExitCode) -> ExitCode {
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            print_error(&format!("cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => code,
    }
}
