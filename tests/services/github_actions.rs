//! `contrib/github-actions`: runs the workflow's steps in order, as GitHub does, with the real
//! programs.
//!
//! Leaves out GitHub's own part: the steps that `use` an action, and its caches, which are always
//! empty here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::farm::published_in;
use crate::support::git_repo::{GitRepo, git_command, isolate, run};
use crate::support::optional::require;
use crate::support::pages::page;
use crate::support::recipes::Recipe;
use crate::support::running::{Output, Running};
use crate::support::tools::Tools;
use crate::support::wait::PATIENCE;

const WORKFLOW: &str = "contrib/github-actions/farm.yml";

/// Reads the workflow with an installed YAML parser. `None` without one.
fn workflow() -> Option<Value> {
    // Debian's package of yamllint brings the parser for Debian's python3.
    if !require("yamllint") {
        return None;
    }
    let mut command = Command::new("/usr/bin/python3");
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let json = run(command.args(["-c", script]).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(WORKFLOW)));
    Some(serde_json::from_str(&json).unwrap())
}

/// The state that GitHub keeps between two runs: the recipes, the settings, the remote.
struct GitHub {
    workflow: Value,
    settings: BTreeMap<String, String>,
    home: TempDir,
}

impl GitHub {
    fn new(workflow: Value) -> Self {
        let home = TempDir::with_prefix("github-").unwrap();
        for directory in ["recipes-repo/recipes", "store/packages"] {
            fs::create_dir_all(home.path().join(directory)).unwrap();
        }
        let key = home.path().join("key.pem");
        run(Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&key));
        // Only this configuration knows the remote.
        let rclone = format!("[store]\ntype = alias\nremote = {}\n", home.path().join("store").display());
        let manager = Self::source_of_programs(home.path());
        let settings = [
            ("github.repository_id", "4711"),
            ("vars.PEIPKG_REPO_NAME", "my-packages"),
            ("vars.PEIPKG_REMOTE", "store:packages"),
            ("vars.PEIPKG_MANAGER_SOURCE", &manager),
            ("vars.PEIPKG_MANAGER_REF", "v1"),
            ("secrets.PEIPKG_SIGNING_KEY", &fs::read_to_string(key).unwrap()),
            ("secrets.PEIPKG_RCLONE_CONF", &rclone),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self { workflow, settings, home }
    }

    /// A repository whose `make` copies the programs of this test run to the place of ours.
    fn source_of_programs(home: &Path) -> String {
        let repo = home.join("manager");
        fs::create_dir(&repo).unwrap();
        let tools = Tools::get();
        let programs =
            [&tools.manager, &tools.build, &tools.repo].map(|path| path.display().to_string()).join(" ");
        let makefile = format!("all:\n\tmkdir -p target/release\n\tcp {programs} target/release\n");
        fs::write(repo.join("Makefile"), makefile).unwrap();
        let commands: [&[&str]; 4] =
            [&["init", "--quiet"], &["add", "."], &["commit", "--quiet", "-m", "x"], &["tag", "v1"]];
        for arguments in commands {
            run(git_command(&repo).args(arguments));
        }
        format!("file://{}", repo.display())
    }

    fn remote(&self) -> PathBuf {
        self.home.path().join("store/packages")
    }

    fn add(&self, recipe: &Recipe) {
        let directory = self.home.path().join("recipes-repo/recipes").join(&recipe.id);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("peipkg.toml"), recipe.toml()).unwrap();
        fs::write(directory.join("build.sh"), recipe.script()).unwrap();
    }

    /// Replaces each `${{ … }}` in `text` as GitHub would.
    #[track_caller]
    fn expand(&self, text: &str) -> String {
        let mut parts = text.split("${{");
        let mut expanded = parts.next().unwrap().to_owned();
        for part in parts {
            let (name, rest) = part.split_once("}}").unwrap();
            let value = self.settings.get(name.trim()).unwrap_or_else(|| panic!("{name} is not known"));
            expanded += value;
            expanded += rest;
        }
        expanded
    }

    /// Runs the job on a fresh machine up to its end or the first failure. Returns the steps that
    /// ran.
    #[track_caller]
    fn run(&self) -> Vec<(String, Output)> {
        let machine = TempDir::with_prefix("runner-").unwrap();
        let path_file = machine.path().join("github-path");
        fs::write(&path_file, "").unwrap();
        let mut done = Vec::new();
        let job = &self.workflow["jobs"]["sweep"];
        assert_eq!(self.workflow["defaults"]["run"]["shell"], "bash");
        for step in job["steps"].as_array().unwrap() {
            let Some(script) = step["run"].as_str() else {
                assert!(step["uses"].is_string(), "{step}");
                continue;
            };
            let file = machine.path().join("step.sh");
            fs::write(&file, self.expand(script)).unwrap();
            let mut command = Command::new("bash");
            // GitHub's meaning of `shell: bash`.
            command.args(["--noprofile", "--norc", "-eo", "pipefail"]).arg(&file);
            isolate(&mut command).current_dir(self.home.path().join("recipes-repo"));
            for env in [&self.workflow["env"], &step["env"]] {
                for (name, value) in env.as_object().into_iter().flatten() {
                    command.env(name, self.expand(value.as_str().unwrap()));
                }
            }
            let added = fs::read_to_string(&path_file).unwrap();
            let usual = std::env::var_os("PATH").unwrap_or_default();
            let path = added.lines().map(PathBuf::from).chain(std::env::split_paths(&usual));
            command.env("PATH", std::env::join_paths(path).unwrap()).env("HOME", machine.path());
            command.env("GITHUB_PATH", &path_file).env("RUNNER_TEMP", machine.path());
            command.env("GITHUB_WORKSPACE", self.home.path().join("recipes-repo"));
            let output = Running::spawn(&mut command).wait_exit(PATIENCE);
            let failed = !output.status.success();
            done.push((step["name"].as_str().unwrap().to_owned(), output));
            if failed {
                break;
            }
        }
        for secret in ["farm/farm.pem", ".config/rclone/rclone.conf"] {
            let mode = fs::metadata(machine.path().join(secret)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{secret} is not for all to read");
        }
        done
    }
}

#[test]
fn workflow_publishes_new_versions_and_fails_if_a_build_does() {
    let Some(workflow) = workflow() else { return };
    if !require("rclone") {
        return;
    }
    let github = GitHub::new(workflow);
    let upstream = GitRepo::program(&["1.0"]);
    github.add(&Recipe::program("app", &upstream.file_url()));
    github.add(&Recipe::failing("bad", &upstream.file_url()));

    let steps = github.run();
    let (name, report) = steps.last().unwrap();
    assert_eq!(name, "Report failures", "{report}");
    report.assert_code(1);
    assert!(report.stdout.starts_with("::error::time=") && report.stdout.contains("recipe=bad"), "{report}");
    assert_eq!(published_in(&github.remote()), ["app 1.0-1 noarch"]);

    // The next run has another machine, which knows only the remote.
    upstream.add_versions(&["1.1"]);
    fs::remove_dir_all(github.home.path().join("recipes-repo/recipes/bad")).unwrap();
    let steps = github.run();
    for (name, step) in &steps {
        assert!(step.status.success(), "{name}\n{step}");
        let secret = &github.settings["secrets.PEIPKG_SIGNING_KEY"];
        let secret = secret.lines().nth(1).unwrap();
        assert!(!step.stdout.contains(secret) && !step.stderr.contains(secret), "{name} shows the key");
    }
    let (_, sweep) = steps.iter().find(|(name, _)| name == "Sweep").unwrap();
    assert!(sweep.stdout.contains("version=1.1-1") && !sweep.stdout.contains("version=1.0-1"), "{sweep}");
    assert_eq!(published_in(&github.remote()), ["app 1.0-1 noarch", "app 1.1-1 noarch"]);
    let mut verify = Command::new(&Tools::get().repo);
    run(verify.args(["verify", "--mode", "both", "--repo"]).arg(github.remote()));
}

#[test]
fn workflow_remote_does_not_verify_is_not_built_upon() {
    let Some(workflow) = workflow() else { return };
    if !require("rclone") {
        return;
    }
    let github = GitHub::new(workflow);
    let upstream = GitRepo::program(&["1.0"]);
    github.add(&Recipe::program("app", &upstream.file_url()));
    github.run();
    fs::write(github.remote().join("index/archive.json"), "{}").unwrap();
    let steps = github.run();
    let (name, step) = steps.last().unwrap();
    assert_eq!((name.as_str(), step.status.success()), ("Fetch the repository", false), "{step}");
    assert_eq!(fs::read_to_string(github.remote().join("index/archive.json")).unwrap(), "{}");
}

#[test]
fn page_names_the_workflows_settings() {
    let names = |text: &str, start: &str| -> BTreeSet<String> {
        let of = |rest: &str| {
            rest.split(|c: char| !(c.is_ascii_uppercase() || c == '_')).next().unwrap().to_owned()
        };
        text.split(start).skip(1).map(of).collect()
    };
    let workflow = page(WORKFLOW);
    let wanted: BTreeSet<String> = &names(&workflow, "vars.") | &names(&workflow, "secrets.");
    let readme = page("contrib/github-actions/README.md");
    let documented: BTreeSet<String> =
        names(&readme, "   | `").into_iter().filter(|name| !name.is_empty()).collect();
    assert_eq!(wanted, documented);
}

#[test]
fn workflow_does_not_run_for_strangers_nor_twice_at_once() {
    let Some(workflow) = workflow() else { return };
    // YAML reads the key `on` as a boolean.
    let triggers: BTreeSet<&str> = workflow["true"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(triggers, ["push", "schedule", "workflow_dispatch"].into());
    assert_eq!(workflow["true"]["push"]["branches"], serde_json::json!(["main"]));
    assert_eq!(workflow["permissions"], serde_json::json!({ "contents": "read" }));
    assert_eq!(workflow["concurrency"]["cancel-in-progress"], false);
}
