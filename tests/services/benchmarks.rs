//! `contrib/bench`: a tenth of some benchmarks runs to its end, so that they work when somebody needs
//! a figure. No figure is judged here.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::git_repo::run;
use crate::support::optional::require;
use crate::support::tools::Tools;

/// Runs measurements of `program`; returns what it prints and the rows that it keeps for the summary.
fn measure(program: &str, measurements: &[&str]) -> (String, Vec<serde_json::Value>) {
    let (tools, home) = (Tools::get(), TempDir::with_prefix("bench-").unwrap());
    for (name, path) in
        [("peipkg-manager", &tools.manager), ("peipkg-build", &tools.build), ("peipkg-repo", &tools.repo)]
    {
        symlink(path, home.path().join(name)).unwrap();
    }
    let results = home.path().join("results");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/bench").join(program);
    let mut command = Command::new("python3");
    command.arg("-B").arg(script).args(measurements);
    command.env("BIN", home.path()).env("CARGO_TARGET_DIR", home.path().join("target"));
    command.env("BENCH_SCALE", "small").env("ROUNDS", "1").env("BENCH_RESULTS", &results);
    // No peer is fetched from the network.
    let printed = run(command.env("PIP_NO_INDEX", "1"));
    let kept = std::fs::read_to_string(results).unwrap_or_default();
    let left = std::fs::read_dir(home.path().join("target")).unwrap();
    assert_eq!(left.count(), 0, "{program} has left files");
    (printed, kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn publishes_are_measured_against_sha256sum() {
    if !require("python3") || !require("openssl") {
        return;
    }
    let (printed, kept) = measure("publish.py", &[]);
    assert_eq!(printed.matches("sha256sum of the new archive index: CPU").count(), 3, "{printed}");
    let ratio = kept.iter().find(|row| row["case"].as_str().unwrap().contains("CPU against sha256sum"));
    assert_eq!(ratio.unwrap()["goal"], "<= 0.8x", "{printed}");
}

#[test]
fn sweeps_are_measured_against_other_programs() {
    if !require("python3") || !require("curl") {
        return;
    }
    let (printed, kept) = measure("sweeps.py", &["polls"]);
    let measured = |peer: &str| {
        let row = kept.iter().find(|row| row["case"].as_str().unwrap().ends_with(peer));
        row.unwrap_or_else(|| panic!("{printed}"))["measured"].as_str().unwrap().to_owned()
    };
    assert_eq!(measured("CPU against nvchecker"), "nvchecker is not installed");
    assert!(measured("CPU against git ls-remote").starts_with("1/"), "{printed}");
}

#[test]
fn builds_and_daemons_are_measured() {
    if !require("python3") {
        return;
    }
    let (printed, _) = measure("versions.py", &["many"]);
    assert!(printed.contains("20 versions of 5 upstreams"), "{printed}");
    let (printed, _) = measure("daemons.py", &["start", "size"]);
    assert!(printed.contains("start to /healthz"), "{printed}");
}
