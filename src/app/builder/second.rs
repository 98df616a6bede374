//! The second build of a version that must be reproducible: the same source and recipe, in other
//! surroundings. Its packages are compared with those of the first build, and never published.
//!
//! Everything of it lies in the first build's stage, and goes with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use peipkg_format::problem::shortened;

use crate::app::builder::error::{BuildError, in_own_paths};
use crate::app::builder::other_clock::OtherClock;
use crate::app::builder::parts::Builder;
use crate::app::builder::tool::check_outputs;
use crate::app::comparison::{Comparison, compare};
use crate::app::recipe_files;
use crate::build_log::BuildLog;
use crate::farm::events::BuildJob;
use crate::process::Sink as _;
use crate::state::durable::at;
use crate::upstream::source::commit_times::Commit;
use crate::upstream::source::source_tree;

/// What the second build's programs find in the environment. The companion tool and the official one set
/// `LC_ALL` and `TZ` themselves for the build script; another tool may pass them on.
const ENVIRONMENT: [(&str, &str); 2] = [("LC_ALL", "C.UTF-8"), ("TZ", "GMT-14")];

/// Begins the names of the members that describe a package.
const OWN_MEMBER: &str = ".peipkg/";

/// How many differences of a package the reason of a failure names. The log has all that the tool names.
const IN_REASON: usize = 3;

/// The most characters of a difference in the reason: the log has all. A path alone may have 4096.
const MAX_LINE: usize = 600;

/// The source and recipe of the second build, copied before the first one can change them.
pub(super) struct SecondBuild {
    stage: PathBuf,
    source: PathBuf,
    /// The recipe's copy.
    recipe: PathBuf,
}

impl Builder {
    /// Whether a version is built twice.
    pub(super) fn builds_twice(&self, job: &BuildJob) -> bool {
        job.upstream.reproduce.unwrap_or(self.config.build.reproduce)
    }

    /// Copies the source tree and the recipe into a part of `stage`, the first build's.
    pub(super) fn prepare_second(
        &self,
        job: &BuildJob,
        commit: &Commit,
        source: &Path,
        stage: &Path,
    ) -> Result<SecondBuild, BuildError> {
        let stage = stage.join("second");
        // Its length differs from the first build's: a path can have been padded.
        let copy = stage.join("another-source-directory");
        let directories = ["out/packages", "tmp", "home"].map(|name| stage.join(name));
        for directory in &directories {
            fs::create_dir_all(directory).map_err(at(directory))?;
        }
        let recipe = recipe_files::copy(&job.recipe, &stage.join("recipes").join(&*job.recipe.id))?;
        source_tree::copy(source, &copy, commit.time, &self.interrupt)?;
        Ok(SecondBuild { stage, source: copy, recipe })
    }

    /// Builds a second time, and fails unless the packages in `first` are the same.
    pub(super) fn build_second(
        &self,
        job: &BuildJob,
        commit: &Commit,
        second: &SecondBuild,
        first: &Path,
        deadline: Option<Instant>,
        log: &BuildLog,
    ) -> Result<(), BuildError> {
        let SecondBuild { stage, source, recipe } = second;
        let clock = self
            .faketime
            .as_deref()
            .map(|program| OtherClock::new(program, self.state.root(), &self.interrupt, log));
        log.note(format_args!(
            "second build, in other surroundings: source, stage, TMPDIR, HOME, umask, processors, locale, \
             time zone{}",
            match &clock {
                Some(Ok(_)) => ", clock".to_owned(),
                Some(Err(error)) => format!("; without another clock: {error}"),
                None => String::new(),
            }
        ));
        let clock = clock.and_then(Result::ok);
        // A build that records the time in seconds must find another one.
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        thread::sleep(
            Duration::from_secs(1).saturating_sub(Duration::from_nanos(since_epoch.subsec_nanos().into())),
        );
        let mut program = self.peipkg_build(job, recipe, commit, source, stage, deadline);
        program = program.env("HOME", stage.join("home"));
        for (name, value) in ENVIRONMENT {
            program = program.env(name, value);
        }
        for variable in clock.iter().flat_map(|clock| &clock.variables) {
            program = program.arg("--build-env").arg(variable);
        }
        let copy = recipe.parent().unwrap_or(recipe);
        let built = program
            .supervised_elsewhere()
            .hide(job.upstream.url.secrets())
            .log_to(log)
            .run(&self.interrupt)
            .map_err(|error| in_own_paths(error, copy, &job.recipe.dir));
        let packages = stage.join("out/packages");
        let checked = built.map_err(BuildError::from).and_then(|_| check_outputs(job, &packages));
        checked.map_err(|error| BuildError::Second { has_clock: clock.is_some(), error: Box::new(error) })?;
        log.note("comparison of both builds");
        self.compare_builds(job, first, &packages, log)
    }

    fn compare_builds(
        &self,
        job: &BuildJob,
        first: &Path,
        second: &Path,
        log: &BuildLog,
    ) -> Result<(), BuildError> {
        let mut found = None;
        for package in &job.recipe.packages {
            let name = package.file_name(&job.candidate.version);
            let (a, b) = (first.join(&name), second.join(&name));
            let mut lines = match compare(&self.peipkg_repo, &a, &b, &self.interrupt)? {
                Comparison::Same => continue,
                Comparison::SameContent(remark) => vec![remark],
                Comparison::Different(lines) => lines,
            };
            log.output(format!("{name}:\n  {}\n", lines.join("\n  ")).as_bytes());
            // The package's own lists of files only follow the files.
            if lines.iter().any(|line| !line.starts_with(OWN_MEMBER)) {
                lines.retain(|line| !line.starts_with(OWN_MEMBER));
            }
            lines.truncate(IN_REASON);
            // Another tool may print lines of any length.
            let lines: Vec<_> = lines.iter().map(|line| shortened(line, MAX_LINE)).collect();
            found.get_or_insert((name, lines.join("; ")));
        }
        match found {
            None => Ok(()),
            Some((package, difference)) => Err(BuildError::NotReproducible { package, difference }),
        }
    }
}
