//! `contrib/logrotate`: the real logrotate with the file that `make install` installs.

use std::fs;
use std::io::Write as _;
use std::process::Command;

use tempfile::TempDir;

use crate::support::git_repo::run;
use crate::support::install::{destdir, make};
use crate::support::optional::require;
use crate::support::running::Running;
use crate::support::wait::PATIENCE;

const LOG: &str = "/var/log/peipkg-manager.log";

#[test]
fn log_of_a_manager_at_work_is_rotated() {
    if !require("logrotate") {
        return;
    }
    let root = TempDir::with_prefix("rotation-").unwrap();
    make("install", &[&destdir(root.path()), "INIT=sysvinit"]).assert_success();
    let file = root.path().join("etc/logrotate.d/peipkg-manager");
    // A missing log is not an error.
    let mut dry = Command::new("logrotate");
    let dry = Running::spawn(dry.arg("-d").arg(&file)).wait_exit(PATIENCE);
    assert!(!dry.assert_success().stderr.contains("error"), "{dry}");

    let log = root.path().join("manager.log");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(LOG), "{text}");
    fs::write(&file, text.replace(LOG, log.to_str().unwrap())).unwrap();
    // Services open the log once, to append.
    let mut writer = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
    for round in 1..=10 {
        writeln!(writer, "line {round}").unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), format!("line {round}\n"));
        run(Command::new("logrotate")
            .arg("--force")
            .arg("--state")
            .arg(root.path().join("state"))
            .arg(&file));
    }
    let kept = |number: u32| root.path().join(format!("manager.log.{number}.gz"));
    assert_eq!(run(Command::new("gzip").arg("-dc").arg(kept(1))), "line 10");
    assert!(kept(8).exists() && !kept(9).exists());
    // logrotate skips an empty log.
    run(Command::new("logrotate").arg("--force").arg("--state").arg(root.path().join("state")).arg(&file));
    assert_eq!(run(Command::new("gzip").arg("-dc").arg(kept(1))), "line 10");
}
