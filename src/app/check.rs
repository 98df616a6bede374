//! `--check`: reports every problem that would keep the farm from starting or all builds of a recipe
//! from succeeding, and every warning.
//!
//! The findings are the program's output, so they go to standard output only: one line each,
//! `FILE:LINE: message` or `FILE: message`, those of the configuration first, then by file and line.
//! A warning's message begins with `warning: `, and one that only informs with `note: `. If the farm
//! would start, a last line sums up.
//!
//! The exit code is 2 if the configuration file has a problem, 1 for any other problem, 0 without
//! problems. A recipe that cannot be built is a problem, but does not keep the farm from starting:
//! the service scripts know that by the last line.
//!
//! Changes no file, takes no lock and opens no socket, so it may run beside a manager.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::ToSocketAddrs as _;
use std::path::{Path, PathBuf};

use peipkg_format::problem::Problem;
use peipkg_format::repository_layout::DESCRIPTOR;
use peipkg_format::sort;

use crate::app::config_file;
use crate::app::key_files::{check_keys, read_webhook_secret, warn_if_exposed, warn_if_unlisted};
use crate::app::recipe_check;
use crate::app::roster::{self, Expected};
use crate::app::tools::Tools;
use crate::app::upload_remote;
use crate::config::{Draft, Http, ListenAddr, Upload};
use crate::farm::Roster;
use crate::state::state_dir::StateDir;

/// The findings of a check. Its `Display` form is the output of `--check`.
#[derive(Debug, Default)]
pub(super) struct Report {
    config: PathBuf,
    findings: Vec<Finding>,
    is_config_wrong: bool,
    recipes: usize,
    with_upstream: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct Finding {
    severity: Severity,
    problem: Problem,
}

/// Only an error keeps the farm from starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Note,
    Warning,
    /// The farm starts, but every build of a recipe will fail.
    Unbuildable,
    Error,
}

/// The words by which the service scripts know that only builds will fail.
const FARM_STARTS: &str = "the farm starts";

/// Checks the configuration file at `config` and everything that it names.
pub(super) fn check(config: &Path) -> Report {
    let mut report = Report { config: config.to_owned(), ..Report::default() };
    let draft = match config_file::read_draft(config) {
        Ok(draft) => draft,
        Err(problem) => {
            report.add_problems([problem]);
            Draft::default()
        }
    };
    report.is_config_wrong = !draft.problems.is_empty();
    report.add_problems(draft.problems.clone());
    let peipkg_build = report.check_tools(&draft);
    let keys = check_keys(draft.key_file.as_deref(), &draft.binary_keys);
    report.add_problems(keys.err().unwrap_or_default());
    let secret = draft.http.as_ref().and_then(|http| http.webhook_secret_file.as_deref());
    report.add_warnings(warn_if_exposed(draft.key_file.as_deref(), &draft.binary_keys, secret));
    if let Some(http) = &draft.http {
        report.check_http(http, draft.addr_line);
    }
    // Once the repository exists, it is too late to choose other names.
    if !draft.state_dir.as_ref().is_some_and(|state| state.join("repo").join(DESCRIPTOR).exists()) {
        report.add_warnings(draft.sample_names.clone());
    }
    if let Some(state_dir) = &draft.state_dir {
        let key_file = draft.key_file.as_deref();
        report.add_warnings(key_file.and_then(|key_file| warn_if_unlisted(key_file, state_dir)));
        report.add_problems(StateDir::probe(state_dir));
        report.add_warnings(StateDir::probe_logs(state_dir));
        let (notes, warnings) = StateDir::volumes(state_dir);
        report.add(Severity::Note, notes);
        report.add_warnings(warnings);
    }
    if let Some(recipes_dir) = &draft.recipes_dir {
        report.check_recipes(recipes_dir, &draft, peipkg_build.as_deref());
    }
    report.sort();
    report
}

impl Report {
    /// Returns the exit code of `--check`.
    pub(super) fn exit_code(&self) -> u8 {
        match self.worst() {
            _ if self.is_config_wrong => 2,
            Some(Severity::Unbuildable | Severity::Error) => 1,
            _ => 0,
        }
    }

    fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    fn add_problems(&mut self, problems: impl IntoIterator<Item = Problem>) {
        self.add(Severity::Error, problems);
    }

    fn add_warnings(&mut self, problems: impl IntoIterator<Item = Problem>) {
        self.add(Severity::Warning, problems);
    }

    fn add(&mut self, severity: Severity, problems: impl IntoIterator<Item = Problem>) {
        self.findings.extend(problems.into_iter().map(|problem| Finding { severity, problem }));
    }

    /// Adds a problem of the configuration file.
    fn add_config_problem(&mut self, line: Option<usize>, message: String) {
        let problem = Problem { path: self.config.clone(), line, message };
        self.add_problems([problem]);
    }

    /// Looks for the programs. The configuration needs them, so a missing one is its problem. Asks
    /// rclone for the remote. Returns the path of `peipkg-build` if no program is missing.
    fn check_tools(&mut self, draft: &Draft) -> Option<PathBuf> {
        match Tools::find(
            draft.upload.as_ref().unwrap_or(&Upload::None),
            &draft.notify.clone().unwrap_or_default(),
        ) {
            Ok(tools) => {
                self.add_warnings(tools.rclone.and_then(|rclone| upload_remote::unknown(draft, &rclone)));
                Some(tools.peipkg_build)
            }
            Err(missing) => {
                for missing in missing {
                    self.add_config_problem(None, missing.to_string());
                }
                None
            }
        }
    }

    /// Checks that the server could listen and has its secret, if one is configured.
    fn check_http(&mut self, http: &Http, addr_line: Option<usize>) {
        let Some(addr) = &http.addr else { return };
        if let Err(error) = resolve(addr) {
            let message = format!("[http] addr: cannot resolve {:?}: {error}", addr.to_string());
            self.add_config_problem(addr_line, message);
        }
        if let Some(file) = &http.webhook_secret_file {
            self.add_problems(read_webhook_secret(file).err());
        }
    }

    fn check_recipes(&mut self, recipes_dir: &Path, draft: &Draft, peipkg_build: Option<&Path>) {
        let verifiers = Tools::find_verifiers();
        let (http, grants) = (draft.http.as_ref(), &draft.grants);
        let expected = Expected { config: &self.config, http, grants, verifiers: &verifiers };
        let reading = match roster::read(recipes_dir, expected, &Roster::new()) {
            Ok(reading) => reading,
            Err(problem) => return self.add_problems([problem]),
        };
        if reading.ids.is_empty() && reading.problems.is_empty() {
            let message = "there is no recipe here, expected directories with a peipkg.toml";
            self.add_warnings([Problem::of_file(recipes_dir, message)]);
        }
        self.recipes = reading.recipes.len();
        self.with_upstream = reading.recipes.iter().filter(|recipe| recipe.upstream.is_some()).count();
        let known = reading.problems.iter().chain(&reading.unbuildable);
        let asked = peipkg_build.map(|tool| recipe_check::ask(tool, recipes_dir, &reading.ids, known));
        let asked = asked.unwrap_or_default();
        self.add_problems(reading.problems);
        self.add(Severity::Unbuildable, reading.unbuildable.into_iter().chain(asked.unbuildable));
        self.add_warnings(asked.warnings);
        self.add(Severity::Note, asked.note);
        self.add_warnings(reading.warnings);
    }

    /// Sorts the findings, those of the configuration first: they may be the cause of others.
    fn sort(&mut self) {
        let config = &self.config;
        sort::sort_by(&mut self.findings, |a, b| {
            let key = |problem: &Problem| (problem.path != *config, problem.line);
            let (a, b) = (&a.problem, &b.problem);
            let ((a_is_later, a_line), (b_is_later, b_line)) = (key(a), key(b));
            a_is_later.cmp(&b_is_later).then_with(|| a.path.cmp(&b.path)).then(a_line.cmp(&b_line))
        });
        // The configuration may name one file in several keys.
        self.findings.dedup();
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            finding.fmt(f)?;
        }
        let config = self.config.display();
        match self.worst() {
            Some(Severity::Error) => Ok(()),
            Some(Severity::Unbuildable) => {
                let findings = self.findings.iter().filter(|found| found.severity == Severity::Unbuildable);
                let recipes: BTreeSet<&Path> =
                    findings.map(|found| found.problem.path.as_path()).fold(BTreeSet::new(), sort::included);
                let counts = format!("{} of {}", recipes.len(), counted(self.recipes));
                writeln!(f, "{config}: {FARM_STARTS}, but all builds of {counts} will fail")
            }
            _ => {
                writeln!(
                    f,
                    "{config}: ok, {}, {} with an upstream",
                    counted(self.recipes),
                    self.with_upstream
                )
            }
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { path, line, message } = &self.problem;
        let severity = match self.severity {
            Severity::Note => "note: ",
            Severity::Warning => "warning: ",
            Severity::Unbuildable | Severity::Error => "",
        };
        let message = format!("{severity}{message}");
        writeln!(f, "{}", Problem { path: path.clone(), line: *line, message })
    }
}

fn counted(recipes: usize) -> String {
    format!("{recipes} {}", if recipes == 1 { "recipe" } else { "recipes" })
}

/// Looks up a host name. Does not bind the address: a running manager holds it.
fn resolve(addr: &ListenAddr) -> io::Result<()> {
    let Some(host) = addr.host.as_deref() else { return Ok(()) };
    match (host, addr.port).to_socket_addrs()?.next() {
        Some(_) => Ok(()),
        None => Err(io::Error::other("it has no address")),
    }
}
