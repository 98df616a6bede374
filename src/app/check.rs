//! `--check`: what would keep the farm from starting, and what is odd about it, all of it at once.
//!
//! The findings are the product, so they go to standard output, and to nowhere
//! else: one line each, `FILE:LINE: message` or `FILE: message`, the configuration's
//! first and then by file and line. A warning's message begins with `warning: `.
//! When there are no problems, one more line sums up.
//!
//! The exit code is the one that a start would end with: 2 when the
//! configuration does not fit its schema, whatever else is wrong; 1 for any
//! other problem; 0 when there is none, warnings or not.
//!
//! Nothing is changed: no file, no lock, no socket. It may run beside a manager.

use std::fmt;
use std::io;
use std::net::ToSocketAddrs as _;
use std::path::{Path, PathBuf};

use peipkg_format::problem::Problem;
use peipkg_format::repository_layout::DESCRIPTOR;

use crate::app::key_permissions;
use crate::app::roster;
use crate::app::startup;
use crate::config::{Draft, Http, ListenAddr, Upload};
use crate::state::state_dir::StateDir;

/// What a check has found. Its `Display` form is what `--check` prints.
#[derive(Debug, Default)]
pub(super) struct Report {
    config: PathBuf,
    findings: Vec<Finding>,
    misfit: bool,
    recipes: usize,
    with_upstream: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct Finding {
    is_warning: bool,
    problem: Problem,
}

/// Checks the configuration file at `config` and all that it names.
pub(super) fn check(config: &Path) -> Report {
    let mut report = Report { config: config.to_owned(), ..Report::default() };
    let draft = match startup::read_draft(config) {
        Ok((draft, problems)) => {
            report.misfit = !problems.is_empty();
            report.problems(problems);
            draft
        }
        Err(problem) => {
            report.problems([problem]);
            Draft::empty(config)
        }
    };
    report.check_tools(draft.upload.as_ref());
    let keys = startup::check_keys(draft.key_file.as_deref(), &draft.binary_keys);
    report.problems(keys.err().unwrap_or_default());
    let secret = draft.http.as_ref().and_then(|http| http.webhook_secret_file.as_deref());
    report.warnings(key_permissions::warnings(draft.key_file.as_deref(), &draft.binary_keys, secret));
    if let Some(http) = &draft.http {
        report.check_http(http, draft.addr_line);
    }
    // A farm that has begun with the sample's names stays with them.
    if !draft.state_dir.as_ref().is_some_and(|state| state.join("repo").join(DESCRIPTOR).exists()) {
        report.warnings(draft.sample_id.clone());
        report.warnings(draft.sample_name.clone());
    }
    if let Some(state_dir) = &draft.state_dir {
        report.problems(StateDir::probe(state_dir));
        report.warnings(StateDir::probe_logs(state_dir));
    }
    if let Some(recipes_dir) = &draft.recipes_dir {
        report.check_recipes(recipes_dir, &draft);
    }
    report.sort();
    report
}

impl Report {
    /// The exit code of `--check`.
    pub(super) fn exit_code(&self) -> u8 {
        match (self.misfit, self.findings.iter().all(|finding| finding.is_warning)) {
            (true, _) => 2,
            (false, false) => 1,
            (false, true) => 0,
        }
    }

    fn problems(&mut self, problems: impl IntoIterator<Item = Problem>) {
        self.findings.extend(problems.into_iter().map(|problem| Finding { is_warning: false, problem }));
    }

    fn warnings(&mut self, warnings: impl IntoIterator<Item = Problem>) {
        self.findings.extend(warnings.into_iter().map(|problem| Finding { is_warning: true, problem }));
    }

    /// A problem or a warning at a place in the configuration.
    fn in_config(&self, line: Option<usize>, message: String) -> Problem {
        Problem { path: self.config.clone(), line, message }
    }

    fn check_tools(&mut self, upload: Option<&Upload>) {
        // A missing program has no file; it is the configuration that needs it.
        let missing = startup::find_tools(upload.unwrap_or(&Upload::None)).err().unwrap_or_default();
        let problems: Vec<Problem> =
            missing.iter().map(|missing| self.in_config(None, missing.to_string())).collect();
        self.problems(problems);
    }

    /// Whether a server could listen and know its secret. Only a daemon with an address needs either.
    fn check_http(&mut self, http: &Http, addr_line: Option<usize>) {
        let Some(addr) = &http.addr else { return };
        if let Err(error) = resolve(addr) {
            let message = format!("[http] addr: cannot resolve {:?}: {error}", addr.to_string());
            self.problems([self.in_config(addr_line, message)]);
        }
        if let Some(file) = &http.webhook_secret_file {
            self.problems(startup::read_webhook_secret(file).err());
        }
    }

    fn check_recipes(&mut self, recipes_dir: &Path, draft: &Draft) {
        let reading = match roster::read(recipes_dir) {
            Ok(reading) => reading,
            Err(problem) => return self.problems([problem]),
        };
        if reading.ids.is_empty() && reading.problems.is_empty() {
            let message = "there is no recipe here, expected directories with a peipkg.toml";
            self.warnings([Problem::of_file(recipes_dir, message)]);
        }
        for (recipe, (line, _)) in draft.grants.iter().filter(|(recipe, _)| !reading.ids.contains(recipe)) {
            let message = format!("[[grant]] recipe {recipe:?} does not exist");
            self.warnings([self.in_config(Some(*line), message)]);
        }
        self.problems(
            draft.http.as_ref().and_then(|http| http.check_recipes(&self.config, &reading.recipes)),
        );
        self.recipes = reading.recipes.len();
        self.with_upstream = reading.recipes.iter().filter(|recipe| recipe.upstream.is_some()).count();
        self.problems(reading.problems);
        self.warnings(reading.warnings);
    }

    /// The configuration comes first: what is wrong there may be why other things are.
    fn sort(&mut self) {
        let config = &self.config;
        self.findings.sort_by_cached_key(|Finding { problem, .. }| {
            (problem.path != *config, problem.path.clone(), problem.line)
        });
        // One key file may have several names.
        self.findings.dedup();
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            finding.fmt(f)?;
        }
        if self.exit_code() == 0 {
            let noun = if self.recipes == 1 { "recipe" } else { "recipes" };
            let counts = format!("{} {noun}, {} with an upstream", self.recipes, self.with_upstream);
            writeln!(f, "{}: ok, {counts}", self.config.display())?;
        }
        Ok(())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { path, line, message } = &self.problem;
        let warning = if self.is_warning { "warning: " } else { "" };
        let message = format!("{warning}{message}");
        writeln!(f, "{}", Problem { path: path.clone(), line: *line, message })
    }
}

/// Looks a host name up. It is not bound: a manager that runs has the address.
fn resolve(addr: &ListenAddr) -> io::Result<()> {
    let Some(host) = addr.host.as_deref() else { return Ok(()) };
    match (host, addr.port).to_socket_addrs()?.next() {
        Some(_) => Ok(()),
        None => Err(io::Error::other("it has no address")),
    }
}
