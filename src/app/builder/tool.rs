//! The command line of `peipkg-build`.

use std::ffi::OsString;
use std::path::Path;
use std::time::Instant;

use crate::app::builder::Builder;
use crate::farm::events::BuildJob;
use crate::process::Program;
use crate::recipe::EXPORTED_VARIABLES;
use crate::upstream::source::commit_times::Commit;

impl Builder {
    /// Returns the build's command line.
    pub(super) fn peipkg_build(
        &self,
        job: &BuildJob,
        recipe: &Path,
        commit: &Commit,
        source: &Path,
        stage: &Path,
        deadline: Option<Instant>,
    ) -> Program {
        // `Display` redacts the URL: the reference is published with the package.
        let source_ref = format!("git+{}#refs/tags/{}", job.upstream.url, job.candidate.tag);
        let timestamp = humantime::format_rfc3339_seconds(commit.time).to_string();
        let mut program = Program::new(&self.peipkg_build)
            // A killed tool leaves its temporary files behind. Here they are removed with the stage.
            .env("TMPDIR", stage.join("tmp"))
            .deadline(deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())))
            .arg("build")
            .arg("--recipe")
            .arg(recipe)
            .arg("--source")
            .arg(source)
            .args(["--version", job.candidate.version.as_str(), "--source-ref", &source_ref])
            .args(["--farm-id", &self.config.manager.id, "--timestamp", &timestamp])
            .arg("--out")
            .arg(stage.join("out/packages"))
            .arg("--sign-key")
            .arg(&self.config.key_file);
        if job.upstream.export_version {
            let values = [job.candidate.version.as_str(), &job.candidate.tag, &commit.id];
            for (name, value) in EXPORTED_VARIABLES.into_iter().zip(values) {
                program = program.arg("--build-env").arg(format!("{name}={value}"));
            }
        }
        let grant = self.config.grant_of(&job.recipe.id);
        for key in &grant.inject_pubkey {
            if let Some(public) = self.public_keys.of(&key.private) {
                program = program.arg("--build-env").arg(format!("{}={public}", key.env));
            }
        }
        for key in &grant.sign {
            let mut value = OsString::from(format!("{}=", key.name));
            value.push(&key.private);
            program = program.arg("--binary-sign-key").arg(value);
        }
        program
    }
}
