//! The service directory for runit, under a real runsv: how the commands of sv reach the manager.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::support::optional::require;
use crate::support::processes;
use crate::support::running::{Output, Running};
use crate::support::site::Site;
use crate::support::wait::{PATIENCE, wait_until};

/// A site whose service directory runsv watches.
struct Service {
    // Drop runsv first, so that it does not restart the manager.
    runsv: Option<Running>,
    site: Site,
}

impl Service {
    /// `None` without runit.
    fn new() -> Option<Self> {
        if !(require("runsv") && require("sv") && require("svlogd") && require("chpst")) {
            return None;
        }
        let service = Self { runsv: None, site: Site::new() };
        for file in ["run", "finish", "log/run", "control/h", "control/t"] {
            Site::install(&format!("runit/{file}"), &service.directory().join(file), &[]);
        }
        fs::write(service.directory().join("conf"), service.site.settings()).unwrap();
        let log = format!("LOG_DIR={}\nRUN_AS={}\n", service.log_directory().display(), Site::user());
        fs::write(service.directory().join("log/conf"), log).unwrap();
        Some(service)
    }

    /// Lets runsv start the manager and waits for its build.
    #[track_caller]
    fn start_and_build(&mut self) -> i32 {
        self.start();
        self.site.latch.wait_reached();
        self.site.manager().expect("one manager")
    }

    fn start(&mut self) {
        self.runsv = Some(Running::spawn(Command::new("runsv").arg(self.directory())));
        let control = self.directory().join("supervise/ok");
        wait_until("runsv answers", PATIENCE, || control.exists());
    }

    fn directory(&self) -> PathBuf {
        self.site.farm.path("sv/peipkg-manager")
    }

    fn log_directory(&self) -> PathBuf {
        self.site.farm.path("logs")
    }

    fn log(&self) -> PathBuf {
        self.log_directory().join("current")
    }

    fn begin(&self, arguments: &[&str]) -> Running {
        Running::spawn(Command::new("sv").args(arguments).arg(self.directory()))
    }

    #[track_caller]
    fn sv(&self, arguments: &[&str]) -> Output {
        let output = self.begin(arguments).wait_exit(PATIENCE);
        output.assert_success();
        output
    }

    /// Reads runsv's status of the manager.
    fn state(&self) -> String {
        fs::read_to_string(self.directory().join("supervise/stat")).unwrap().trim().to_owned()
    }

    /// How long the manager has been down; 0 if it is up.
    fn seconds_down(&self) -> u32 {
        let status = self.sv(&["status"]).stdout;
        let after = status.strip_prefix("down: ").and_then(|text| text.split_once(": "));
        after
            .and_then(|(_, text)| text.split_once('s'))
            .map_or(0, |(seconds, _)| seconds.parse().unwrap_or(0))
    }

    /// Waits for `text` in the log, `count` times.
    #[track_caller]
    fn wait_log(&self, text: &str, count: usize) {
        let read = || fs::read_to_string(self.log()).unwrap_or_default();
        wait_until(&format!("{text:?} is logged"), PATIENCE, || read().matches(text).count() >= count);
    }

    /// Ends runsv and its log service and checks that they end with the manager.
    #[track_caller]
    fn exit(&mut self) {
        self.sv(&["exit"]);
        self.runsv.take().expect("runsv").wait_exit(PATIENCE).assert_success();
    }
}

#[test]
fn service_starts_reloads_and_drains() {
    let Some(mut service) = Service::new() else { return };
    let pid = service.start_and_build();
    service.site.assert_users(pid);
    assert!(service.sv(&["status"]).stdout.starts_with("run: "));
    service.site.add_recipe("added");
    service.sv(&["hup"]);
    let loaded = Site::wait_events(&service.log(), "recipe roster loaded", 2);
    assert_eq!((loaded[0]["count"].as_str(), loaded[1]["count"].as_str()), ("1", "2"));
    service.sv(&["down"]);
    Site::wait_events(&service.log(), "stopping after the build in progress", 1);
    wait_until("runsv has noted its SIGTERM", PATIENCE, || service.state() == "run, got TERM, want down");
    // A second command must not interrupt the build.
    service.sv(&["down"]);
    service.sv(&["term"]);
    let down = service.begin(&["-w", "60", "down"]);
    service.site.latch.open();
    down.wait_exit(PATIENCE).assert_success();
    service.site.assert_drained(&service.log());
    assert_eq!(service.state(), "down");
    service.sv(&["up"]);
    Site::wait_events(&service.log(), "peipkg-manager starting", 2);
    service.exit();
    assert_eq!(service.site.manager(), None);
}

#[test]
fn runsv_told_to_exit_drains() {
    let Some(mut service) = Service::new() else { return };
    service.start_and_build();
    service.sv(&["exit"]);
    Site::wait_events(&service.log(), "stopping after the build in progress", 1);
    service.site.latch.open();
    service.runsv.take().expect("runsv").wait_exit(PATIENCE).assert_success();
    service.site.assert_drained(&service.log());
}

#[test]
fn restart_drains_and_an_interrupt_cuts_it_short() {
    let Some(mut service) = Service::new() else { return };
    let pid = service.start_and_build();
    let children = processes::descendants(pid);
    assert!(children.len() >= 2, "{children:?}");
    service.sv(&["term"]);
    Site::wait_events(&service.log(), "stopping after the build in progress", 1);
    service.sv(&["interrupt"]);
    Site::wait_events(&service.log(), "build interrupted", 1);
    // runsv restarts the manager, with a delay because it ended with 1.
    Site::wait_events(&service.log(), "peipkg-manager starting", 2);
    let left: Vec<_> = children.iter().filter(|child| processes::is_alive(child.pid)).collect();
    assert!(left.is_empty(), "{left:?}");
    Site::wait_events(&service.log(), "starting build", 2);
    service.sv(&["term"]);
    Site::wait_events(&service.log(), "stopping after the build in progress", 2);
    service.site.latch.open();
    Site::wait_events(&service.log(), "peipkg-manager starting", 3);
    service.site.farm.assert_published(&["slow 1.0-1 noarch"]);
    service.exit();
}

#[test]
fn configuration_broken_stops_nothing_and_is_tried_once() {
    let Some(mut service) = Service::new() else { return };
    let pid = service.start_and_build();
    let problem = service.site.break_config();
    service.sv(&["hup"]);
    service.wait_log(&problem, 1);
    service.wait_log("peipkg-manager: not reloaded", 1);
    service.sv(&["term"]);
    service.wait_log(&problem, 2);
    service.wait_log("peipkg-manager: not restarted", 1);
    assert_eq!((service.site.manager(), service.state().as_str()), (Some(pid), "run"));
    assert_eq!(Site::wait_events(&service.log(), "recipe roster loaded", 1).len(), 1);
    // Stopping needs no configuration.
    service.site.latch.open();
    service.sv(&["-w", "60", "down"]);
    service.sv(&["up"]);
    service.wait_log("the service stays down", 1);
    // runsv would retry after a second.
    wait_until("the manager has been down for three seconds", PATIENCE, || service.seconds_down() >= 3);
    service.wait_log(&problem, 3);
    service.site.mend_config();
    service.sv(&["up"]);
    Site::wait_events(&service.log(), "peipkg-manager starting", 2);
    let log = fs::read_to_string(service.log()).unwrap();
    assert_eq!(log.matches(&problem).count(), 3, "{log}");
    // One recipe that cannot be built must not keep the others from being built.
    let unbuildable = service.site.add_unbuildable();
    service.sv(&["hup"]);
    service.wait_log(&unbuildable, 1);
    Site::wait_events(&service.log(), "recipe roster loaded", 3);
    service.sv(&["term"]);
    service.wait_log(&unbuildable, 2);
    Site::wait_events(&service.log(), "peipkg-manager starting", 3);
    service.exit();
}
