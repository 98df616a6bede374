//! Writes the provenance of a build beside its packages, signed by the farm's key.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use peipkg_format::provenance::{
    self, Annotations, Dependency, Digests, ExternalParameters, InternalParameters, Metadata, RECIPE,
    RunDetails, SOURCE, Sha256, Statement, Subject, Versions, percent_encoded,
};
use peipkg_format::signing_key;
use peipkg_format::sort;

use crate::app::builder::error::BuildError;
use crate::app::builder::parts::Builder;
use crate::app::builder::versions::{KnownVersions, Stamp};
use crate::app::public_keys::{fingerprint_of, key_pair};
use crate::app::recipe_digest::{self, RecipeDigest};
use crate::app::recipe_files::CopyError;
use crate::farm::events::BuildJob;
use crate::process::Program;
use crate::recipe::secrets::Secrets;
use crate::repository::inspect::sha256;
use crate::repository::pending::PROVENANCE_FILE;
use crate::state::durable::{self, at};
use crate::upstream::source::commit_times::Commit;

/// How long a program may take to say its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(10);

/// The longest version of a program, in characters.
const MAX_VERSION: usize = 128;

/// The longest answer to read, in bytes: programs also print their license and their features.
const MAX_ANSWER: usize = 64 * 1024;

/// The start of a build and the digest of its recipe, noted before it begins.
pub(in crate::app) struct Inputs {
    started: SystemTime,
    /// The digest of the recipe.
    pub recipe: RecipeDigest,
}

impl Inputs {
    /// Notes the time, and the digest of the recipe's `copy`: a build may change its files.
    pub(super) fn of(copy: &Path) -> Result<Self, CopyError> {
        Ok(Self { started: SystemTime::now(), recipe: recipe_digest::of(copy)? })
    }
}

impl Builder {
    /// Writes the provenance of the packages in `out/packages` to `out`.
    ///
    /// # Errors
    /// When a package or the key cannot be read, or the file system refuses.
    pub(super) fn write_provenance(
        &self,
        job: &BuildJob,
        inputs: &Inputs,
        commit: &Commit,
        out: &Path,
    ) -> Result<(), BuildError> {
        let finished = SystemTime::now();
        let mut subjects = Vec::new();
        for package in &job.recipe.packages {
            let name = package.file_name(&job.candidate.version);
            let path = out.join("packages").join(&name);
            let found = sha256(&path).map_err(at(&path))?;
            subjects.push(Subject { name, digest: Sha256 { sha256: found.unwrap_or_default() } });
        }
        sort::sort_by(&mut subjects, |one, other| one.name.cmp(&other.name));
        let version = self.versions();
        let time = |time| humantime::format_rfc3339_seconds(time).to_string();
        let run_details = RunDetails {
            builder: provenance::Builder { id: provenance::builder_id(&self.config.manager.id), version },
            metadata: Metadata { started_on: time(inputs.started), finished_on: time(finished) },
        };
        let statement = Statement::new(
            subjects,
            external_parameters(job),
            self.internal_parameters(job),
            dependencies(job, inputs, commit),
            run_details,
        );
        // The tool has just read it, and may have got a new one since the start.
        let key_file = &self.config.key_file;
        let key = signing_key::load(key_file).and_then(|key| key_pair(&key));
        let key = key.map_err(|error| BuildError::Sign { path: key_file.clone(), error })?;
        let json = statement.write(fingerprint_of(&key), &|message| key.sign(message).as_ref().to_vec());
        let path = out.join(PROVENANCE_FILE);
        let written = durable::create(&path).and_then(|mut file| file.write_all(&json));
        Ok(written.map_err(at(&path))?)
    }

    fn internal_parameters(&self, job: &BuildJob) -> InternalParameters {
        let grant = self.config.grant_of(&job.recipe.id);
        let injected = grant.inject_pubkey.iter();
        let injected = injected.filter_map(|key| {
            self.public_keys.of(&key.private).map(|public| format!("{}={public}", key.env))
        });
        InternalParameters {
            injected_keys: injected.collect(),
            signing_keys: grant.sign.iter().map(|key| key.name.clone()).collect(),
        }
    }

    /// Asks each program for its version, again only when its file has changed. Asks after the build: a
    /// program that has built answers.
    fn versions(&self) -> Versions {
        let programs = [&self.git, &self.peipkg_build];
        let stamps = programs.map(|program| Stamp::of(program));
        let mut known = self.versions.borrow_mut();
        if known.stamps.as_ref() != Some(&stamps) {
            let [git, build] = programs.map(|program| self.version_of(program));
            let manager = env!("CARGO_PKG_VERSION").to_owned();
            *known = KnownVersions { stamps: Some(stamps), versions: Versions { manager, build, git } };
        }
        known.versions.clone()
    }

    /// Returns the first line that a program answers to `--version`, or nothing if it does not answer.
    pub(in crate::app) fn version_of(&self, program: &Path) -> String {
        let program = Program::new(program).arg("--version").supervised().deadline(Some(VERSION_DEADLINE));
        let answer = program.capture_stdout(MAX_ANSWER).run(&self.interrupt);
        let answer = answer.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let answer = answer.unwrap_or_default();
        // Everybody can read the statement.
        let line = Secrets::default().redact(answer.lines().next().unwrap_or_default().trim());
        line.chars().filter(|c| !c.is_control()).take(MAX_VERSION).collect()
    }
}

fn external_parameters(job: &BuildJob) -> ExternalParameters {
    ExternalParameters {
        source: job.upstream.url.uri(),
        tag: job.candidate.tag.to_string(),
        recipe: job.recipe.id.to_string(),
        version: job.candidate.version.to_string(),
        submodules: job.upstream.submodules,
        export_version: job.upstream.export_version,
    }
}

fn dependencies(job: &BuildJob, inputs: &Inputs, commit: &Commit) -> Vec<Dependency> {
    let tag = percent_encoded(&job.candidate.tag, b"/");
    let source = Dependency {
        name: SOURCE.to_owned(),
        uri: format!("{}@refs/tags/{tag}", job.upstream.url.uri()),
        digest: Digests {
            git_commit: commit.id.clone(),
            git_tag: commit.tag_object.clone().unwrap_or_default(),
            ..Digests::default()
        },
        ..Dependency::default()
    };
    let recipe = Dependency {
        name: RECIPE.to_owned(),
        digest: Digests { dir_hash: inputs.recipe.files.clone(), ..Digests::default() },
        annotations: Annotations { executables: inputs.recipe.executables.clone() },
        ..Dependency::default()
    };
    vec![source, recipe]
}
