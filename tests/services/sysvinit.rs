//! The init script, run by the machine's shell with dpkg's start-stop-daemon, and by busybox alone:
//! its exit codes, the drain, and the processes that it must not signal.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::executable;
use crate::support::git_repo::run;
use crate::support::optional::{find_program, require};
use crate::support::processes;
use crate::support::running::{Output, Running};
use crate::support::site::Site;
use crate::support::wait::{PATIENCE, wait_until};

/// A site with the script installed.
struct Service {
    site: Site,
    /// A directory with busybox under all its names, to test busybox alone.
    busybox: Option<TempDir>,
}

impl Service {
    fn new() -> Self {
        Self::with("", None)
    }

    /// Creates a service with `settings` beside the usual ones.
    fn with(settings: &str, busybox: Option<TempDir>) -> Self {
        let service = Self { site: Site::new(), busybox };
        let defaults = service.site.farm.path("defaults");
        Site::install("sysvinit/peipkg-manager", &service.script(), &[("DEFAULTS", &defaults)]);
        let log = format!("LOG={}\nPIDFILE={}\n", service.log().display(), service.pid_file().display());
        let path = service.busybox.as_ref().map(|directory| format!("PATH={}\n", directory.path().display()));
        fs::write(defaults, service.site.settings() + &log + &path.unwrap_or_default() + settings).unwrap();
        service
    }

    fn script(&self) -> PathBuf {
        self.site.farm.path("init.d/peipkg-manager")
    }

    fn log(&self) -> PathBuf {
        self.site.farm.path("log")
    }

    fn pid_file(&self) -> PathBuf {
        self.site.farm.path("pid")
    }

    fn pid(&self) -> i32 {
        let text = fs::read_to_string(self.pid_file()).expect("the pid file");
        text.lines().next().expect("a line").parse().expect("a number")
    }

    fn begin(&self, arguments: &[&str]) -> Running {
        let shell = self.busybox.as_ref().map_or("/bin/sh".into(), |directory| directory.path().join("sh"));
        let mut command = Command::new(shell);
        Running::spawn(command.arg(self.script()).args(arguments).env("LC_ALL", "C").current_dir("/"))
    }

    #[track_caller]
    fn run(&self, argument: &str, code: i32) -> Output {
        let output = self.begin(&[argument]).wait_exit(PATIENCE);
        output.assert_code(code);
        output
    }

    /// Starts the manager and waits for its build.
    #[track_caller]
    fn start_and_build(&self) -> i32 {
        self.run("start", 0);
        self.site.latch.wait_reached();
        assert_eq!(self.site.manager(), Some(self.pid()));
        self.pid()
    }
}

#[track_caller]
fn assert_says(output: &Output, part: &str) {
    assert!(output.stdout.contains(part) || output.stderr.contains(part), "{part:?} is not in\n{output}");
}

/// Checks the commands from the first start over a reload to the drain.
fn live(service: &Service) {
    service.run("status", 3);
    let pid = service.start_and_build();
    service.site.assert_users(pid);
    assert_says(&service.run("start", 0), "runs already");
    assert_says(&service.run("status", 0), &format!("runs, process {pid}"));
    service.site.add_recipe("added");
    service.run("reload", 0);
    let loaded = Site::wait_events(&service.log(), "recipe roster loaded", 2);
    assert_eq!((loaded[0]["count"].as_str(), loaded[1]["count"].as_str()), ("1", "2"));
    let stop = service.begin(&["stop"]);
    Site::wait_events(&service.log(), "stopping after the build in progress", 1);
    assert_says(&service.run("status", 0), "is stopping");
    assert_says(&service.run("start", 1), "still stopping");
    assert_says(&service.run("reload", 1), "is stopping");
    service.site.latch.open();
    stop.wait_exit(PATIENCE).assert_success();
    service.site.assert_drained(&service.log());
    assert!(!service.pid_file().exists());
    service.run("status", 3);
    service.run("stop", 0);
}

#[test]
fn service_starts_reloads_and_drains() {
    live(&Service::new());
}

#[test]
fn service_with_busybox_alone_works() {
    if !require("busybox") {
        return;
    }
    let directory = TempDir::with_prefix("busybox-").unwrap();
    run(Command::new("chmod").arg("755").arg(directory.path()));
    let busybox = find_program("busybox").unwrap();
    for name in run(Command::new(&busybox).arg("--list")).lines() {
        symlink(&busybox, directory.path().join(name)).unwrap();
    }
    symlink(find_program("git").unwrap(), directory.path().join("git")).unwrap();
    assert!(directory.path().join("start-stop-daemon").exists(), "this busybox has no start-stop-daemon");
    live(&Service::with("", Some(directory)));
}

#[test]
fn configuration_broken_stops_nothing_and_starts_nothing() {
    let service = Service::new();
    let pid = service.start_and_build();
    let problem = service.site.break_config();
    for command in ["restart", "try-restart", "force-reload", "reload"] {
        assert_says(&service.run(command, 6), &problem);
        assert_eq!(service.site.manager(), Some(pid), "{command}");
    }
    service.site.mend_config();
    service.site.farm.write_recipe("bad", "[watch]\npoll_interval = 5\n", "");
    for command in ["restart", "reload"] {
        assert_says(&service.run(command, 1), "[watch] poll_interval");
        assert_eq!(service.site.manager(), Some(pid), "{command}");
    }
    assert_eq!(Site::wait_events(&service.log(), "recipe roster loaded", 1).len(), 1);
    service.site.farm.remove_recipe("bad");
    // An upgrade replaces the running program's file.
    let (daemon, fresh) = (service.site.daemon(), service.site.farm.bin_dir().join("fresh"));
    executable::copy(&daemon, &fresh);
    fs::rename(&fresh, &daemon).unwrap();
    service.site.latch.open();
    // One recipe that cannot be built must not keep the others from being built.
    let unbuildable = service.site.add_unbuildable();
    assert_says(&service.run("restart", 0), &unbuildable);
    assert_ne!(service.pid(), pid);
    assert_eq!(service.site.manager(), Some(service.pid()));
    let second = service.pid();
    service.run("try-restart", 0);
    assert_ne!(service.pid(), second);
    service.run("stop", 0);
    service.site.break_config();
    assert_says(&service.run("start", 6), &problem);
    service.run("status", 3);
}

#[test]
fn commands_without_a_manager_have_their_exit_codes() {
    let service = Service::new();
    service.begin(&[]).wait_exit(PATIENCE).assert_code(2);
    service.begin(&["status", "now"]).wait_exit(PATIENCE).assert_code(2);
    assert_says(&service.run("dance", 3), "usage: ");
    service.run("status", 3);
    service.run("stop", 0);
    service.run("reload", 7);
    for command in ["try-restart", "force-reload"] {
        assert_says(&service.run(command, 0), "does not run");
        service.run("status", 3);
    }
    fs::rename(service.site.farm.config_path(), service.site.farm.path("elsewhere")).unwrap();
    assert_says(&service.run("start", 6), "config.toml is not there");
    fs::rename(service.site.farm.path("elsewhere"), service.site.farm.config_path()).unwrap();
    fs::remove_file(service.site.daemon()).unwrap();
    assert_says(&service.run("start", 5), "peipkg-manager is not there");
    service.run("status", 3);
    service.run("stop", 0);
}

#[test]
fn service_without_its_user_or_root_is_refused() {
    let service = Service::with("RUN_AS=no-such-user-at-all\n", None);
    if crate::support::site::is_root() {
        assert_says(&service.run("start", 6), "there is no user no-such-user-at-all");
    } else {
        service.run("start", 4);
    }
    service.run("status", 3);
}

#[test]
fn start_manager_ends_at_once_fails() {
    let service = Service::new();
    let pid = service.start_and_build();
    // The check cannot know that another process holds the state directory: here a manager whose
    // pid file is gone.
    fs::remove_file(service.pid_file()).unwrap();
    // On a busy machine, the end can come after the script's usual two seconds.
    let defaults = service.site.farm.path("defaults");
    let changes = [("DEFAULTS", defaults.as_path()), ("START_SECONDS", Path::new("30"))];
    Site::install("sysvinit/peipkg-manager", &service.script(), &changes);
    assert_says(&service.run("start", 1), "has ended at once");
    let log = fs::read_to_string(service.log()).unwrap();
    assert!(log.contains("in use"), "{log}");
    service.run("status", 3);
    assert_eq!(service.site.manager(), Some(pid));
}

/// Processes that a stale pid file may name.
#[test]
fn pid_file_stale_never_leads_to_another_process() {
    let service = Service::new();
    let mut sleep = Running::spawn(Command::new("sleep").arg("1000"));
    // The other farm's manager has the same name and program.
    let other = Service::new();
    let manager = other.start_and_build();
    let other_start = fs::read_to_string(other.pid_file()).unwrap().lines().nth(1).unwrap().to_owned();
    let earlier = other_start.parse::<u64>().unwrap() - 1;
    let stale = [
        format!("{}\n", sleep.pid()),
        format!("{}\n1\n", sleep.pid()),
        format!("{manager}\n{earlier}\n"),
        // The number of a process that has ended.
        "4194304\n17\n".to_owned(),
        "-1\n".to_owned(),
        "not a number\n".to_owned(),
        String::new(),
    ];
    for text in stale {
        fs::write(service.pid_file(), &text).unwrap();
        assert_says(&service.run("status", 1), "does not run");
        service.run("reload", 7);
        assert!(!service.pid_file().with_extension("stopping").exists());
        assert_says(&service.run("stop", 0), "does not run");
        assert!(!service.pid_file().exists(), "{text:?}");
        service.run("status", 3);
    }
    // A stale pid file does not prevent a start either.
    fs::write(service.pid_file(), format!("{}\n1\n", sleep.pid())).unwrap();
    service.start_and_build();
    service.site.latch.open();
    service.run("stop", 0);
    assert!(!sleep.has_ended());
    assert_eq!(other.site.manager(), Some(manager));
    assert!(Site::wait_events(&other.log(), "starting build", 1).len() == 1);
    let log = fs::read_to_string(other.log()).unwrap();
    assert!(!log.contains("stopping"), "{log}");
    // An interrupted script has written only the number; then the name decides.
    fs::write(other.pid_file(), format!("{manager}\n")).unwrap();
    other.run("status", 0);
    other.site.latch.open();
    other.run("stop", 0);
    assert!(!processes::is_alive(manager));
}

#[test]
fn stop_build_takes_too_long_interrupts_it() {
    let service = Service::with("STOP_TIMEOUT=1\n", None);
    let pid = service.start_and_build();
    let children = processes::descendants(pid);
    assert!(children.len() >= 2, "{children:?}");
    assert_says(&service.run("stop", 0), "its build is interrupted");
    Site::wait_events(&service.log(), "build interrupted", 1);
    service.run("status", 3);
    let left: Vec<_> = children.iter().filter(|child| processes::is_alive(child.pid)).collect();
    assert!(left.is_empty(), "{left:?}");
    service.site.farm.assert_published(&[]);
}

#[test]
fn stop_repeated_still_drains() {
    let service = Service::new();
    service.start_and_build();
    let impatient = service.begin(&["stop"]);
    Site::wait_events(&service.log(), "stopping after the build in progress", 1);
    impatient.kill(false);
    let stop = service.begin(&["stop"]);
    wait_until("the second stop waits", PATIENCE, || {
        stop.stdout().contains("finishes the build in progress")
    });
    service.site.latch.open();
    stop.wait_exit(PATIENCE).assert_success();
    service.site.assert_drained(&service.log());
}

/// Uses a stand-in for logger, because a test must not write to the machine's log.
#[test]
fn log_can_go_to_syslog() {
    let service = Service::with("LOG=syslog\nPATH=$stand_ins:$PATH\n", None);
    let (defaults, bin) = (service.site.farm.path("defaults"), service.site.farm.path("stand-ins"));
    let logger =
        format!("#!/bin/sh\necho \"$*\" >'{0}.arguments'\nexec cat >>'{0}'\n", service.log().display());
    fs::create_dir(&bin).unwrap();
    service.site.farm.write_program("logger", &logger);
    fs::rename(service.site.farm.bin_dir().join("logger"), bin.join("logger")).unwrap();
    let settings = format!("stand_ins={}\n{}", bin.display(), fs::read_to_string(&defaults).unwrap());
    fs::write(defaults, settings).unwrap();
    service.start_and_build();
    let stop = service.begin(&["stop"]);
    Site::wait_events(&service.log(), "stopping after the build in progress", 1);
    service.site.latch.open();
    stop.wait_exit(PATIENCE).assert_success();
    Site::wait_events(&service.log(), "peipkg-manager stopped", 1);
    service.site.assert_drained(&service.log());
    let arguments = fs::read_to_string(service.log().with_extension("arguments")).unwrap();
    assert_eq!(arguments, "-t peipkg-manager -p daemon.info\n");
}

#[test]
fn runlevels_start_it_after_the_network() {
    if !require("insserv") {
        return;
    }
    let service = Service::new();
    let root = TempDir::with_prefix("runlevels-").unwrap();
    let (etc, init) = (root.path().join("etc"), root.path().join("etc/init.d"));
    fs::create_dir_all(&init).unwrap();
    "0123456S".chars().for_each(|level| fs::create_dir(etc.join(format!("rc{level}.d"))).unwrap());
    fs::copy(service.script(), init.join("peipkg-manager")).unwrap();
    for name in ["network", "remote_fs"] {
        let header = "# Required-Start:\n# Required-Stop:\n# Default-Start: 2 3 4 5\n# Default-Stop: 0 1 6\n";
        let script =
            format!("#!/bin/sh\n### BEGIN INIT INFO\n# Provides: {name}\n{header}### END INIT INFO\n");
        executable::write(&init.join(name), script.as_bytes());
    }
    let facilities = "$network network\n$remote_fs remote_fs\n$named +bind\n$time +ntp\n$syslog +rsyslog\n";
    fs::write(etc.join("insserv.conf"), facilities).unwrap();
    let mut insserv = Command::new("insserv");
    insserv.arg("-p").arg(&init).arg("-i").arg(&init).arg("-c").arg(etc.join("insserv.conf"));
    insserv.args(["network", "remote_fs", "peipkg-manager"]);
    run(&mut insserv);
    let link = |level: char, name: &str| -> String {
        let entries = fs::read_dir(etc.join(format!("rc{level}.d"))).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut found = names.filter(|entry| &entry[3..] == name);
        found.next().unwrap_or_else(|| panic!("{name} is not in runlevel {level}"))[..3].to_owned()
    };
    for level in "2345".chars() {
        let (own, network) = (link(level, "peipkg-manager"), link(level, "network"));
        assert!(own.starts_with('S') && own > network, "{level}: {own} {network}");
    }
    for level in "016".chars() {
        let (own, network) = (link(level, "peipkg-manager"), link(level, "network"));
        assert!(own.starts_with('K') && own < network, "{level}: {own} {network}");
    }
}

#[test]
fn shell_scripts_of_all_services_are_clean() {
    if !require("shellcheck") {
        return;
    }
    let contrib = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib");
    let scripts = [
        "sysvinit/peipkg-manager",
        "openrc/peipkg-manager.initd",
        "openrc/peipkg-manager.confd",
        "runit/run",
        "runit/finish",
        "runit/log/run",
        "runit/control/h",
        "runit/control/t",
    ];
    let mut shellcheck = Command::new("shellcheck");
    shellcheck.args(["--shell", "sh"]).args(scripts.map(|script| contrib.join(script)));
    run(&mut shellcheck);
}
