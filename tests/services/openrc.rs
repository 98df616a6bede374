//! The `OpenRC` service, under the real openrc-run and supervise-daemon, in their own namespaces:
//! the machine's services and files stay untouched, and all processes end with the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::executable;
use crate::support::optional::{find_program, require, skip};
use crate::support::running::{Output, Running};
use crate::support::site::{Site, is_root};
use crate::support::wait::{PATIENCE, wait_until};

/// Imitates a machine booted by `OpenRC` in all that services can see, and then waits, as process 1,
/// for all others. `$1` is the service's directory with `init.d` and `conf.d`; `$2` the directory
/// of an `OpenRC` that is only unpacked, or empty.
const BOOT: &str = r#"
set -eu
[ -z "$2" ] || mount -t overlay overlay -o "lowerdir=$2:/usr" /usr
mount -t tmpfs tmpfs /run
for name in starting started stopping inactive wasinactive failed hotplugged daemons options exclusive scheduled tmp init.d; do
    mkdir -p "/run/openrc/$name"
done
: >/run/openrc/softlevel
mkdir /run/upper /run/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc
[ -z "$2" ] || { cp "$2/etc/rc.conf" /etc/; cp -r "$2/etc/runlevels" /etc/; }
# Debian's OpenRC wants this file, wherever insserv is.
: >>/etc/insserv.conf
mkdir -p /etc/init.d /etc/conf.d
mount --bind "$1/init.d" /etc/init.d
mount --bind "$1/conf.d" /etc/conf.d
echo booted
while :; do sleep 3600; done
"#;

/// A service that does nothing.
const NOTHING: &str = "#!/sbin/openrc-run\nstart() { :; }\nstop() { :; }\n";

struct Service {
    // Dropped first.
    machine: Running,
    site: Site,
}

impl Service {
    /// `None` if this machine lacks a program or a right.
    fn new(settings: &str) -> Option<Self> {
        if !is_root() {
            skip("the superuser's rights, for name spaces");
            return None;
        }
        if !(require("openrc-run") && require("unshare") && require("nsenter")) {
            return None;
        }
        let site = Site::new();
        let etc = site.farm.path("etc");
        let name = "peipkg-manager";
        Site::install("openrc/peipkg-manager.initd", &etc.join("init.d").join(name), &[]);
        Site::install("openrc/peipkg-manager.confd", &etc.join("conf.d").join(name), &[]);
        let log = format!("LOG={}\n", site.farm.path("log").display());
        let given = fs::read_to_string(etc.join("conf.d").join(name)).unwrap();
        fs::write(etc.join("conf.d").join(name), given + &site.settings() + &log + settings).unwrap();
        executable::write(&etc.join("init.d/net"), NOTHING.as_bytes());
        let mut machine = Command::new("unshare");
        machine.args([
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            "sh",
            "-c",
            BOOT,
            "boot",
        ]);
        let mut machine = Running::spawn(machine.arg(etc).arg(unpacked()));
        let is_up = |machine: &Running| machine.stdout().contains("booted");
        wait_until("the machine is up", PATIENCE, || is_up(&machine) || machine.has_ended());
        if !is_up(&machine) {
            skip(&format!(
                "name spaces with overlays, and got: {}",
                machine.wait_exit(PATIENCE).stderr.trim()
            ));
            return None;
        }
        let service = Self { machine, site };
        Some(service)
    }

    fn log(&self) -> PathBuf {
        self.site.farm.path("log")
    }

    fn begin(&self, argument: &str) -> Running {
        let first = self.machine.descendants().into_iter().find(|child| child.parent == self.machine.pid());
        let first = first.expect("the machine's first process").pid.to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &first, "--mount", "--pid"]);
        command.args(["rc-service", "--nocolor", "peipkg-manager", argument]);
        let path = std::env::var("PATH").unwrap_or_default();
        Running::spawn(command.env("PATH", format!("/usr/sbin:/sbin:{path}")).current_dir("/"))
    }

    #[track_caller]
    fn run(&self, argument: &str, code: i32) -> Output {
        let output = self.begin(argument).wait_exit(PATIENCE);
        output.assert_code(code);
        output
    }

    /// Starts the manager and waits for its build.
    #[track_caller]
    fn start_and_build(&self) -> i32 {
        self.run("start", 0);
        self.site.latch.wait_reached();
        self.site.manager().expect("one manager")
    }
}

/// The directory to which the package of the `OpenRC` on the `PATH` was unpacked. Empty if it is
/// installed.
fn unpacked() -> PathBuf {
    let program = find_program("openrc-run").expect("openrc-run was on the PATH a moment ago");
    let root = program.parent().and_then(Path::parent).expect("a program in sbin").to_owned();
    if root == Path::new("/") || root == Path::new("/usr") { PathBuf::new() } else { root }
}

#[track_caller]
fn assert_says(output: &Output, part: &str) {
    assert!(output.stdout.contains(part) || output.stderr.contains(part), "{part:?} is not in\n{output}");
}

#[test]
fn service_starts_reloads_and_drains() {
    let Some(service) = Service::new("") else { return };
    service.run("status", 3);
    service.run("reload", 1);
    let pid = service.start_and_build();
    service.site.assert_users(pid);
    service.run("status", 0);
    assert_says(&service.run("start", 0), "already been started");
    assert_eq!(service.site.manager(), Some(pid));
    service.site.add_recipe("added");
    service.run("reload", 0);
    let loaded = Site::wait_events(&service.log(), "recipe roster loaded", 2);
    assert_eq!((loaded[0]["count"].as_str(), loaded[1]["count"].as_str()), ("1", "2"));
    let stop = service.begin("stop");
    Site::wait_events(&service.log(), "stopping after the build in progress", 1);
    assert_says(&service.run("status", 4), "stopping");
    service.site.latch.open();
    stop.wait_exit(PATIENCE).assert_success();
    service.site.assert_drained(&service.log());
    service.run("status", 3);
    service.run("stop", 0);
}

#[test]
fn configuration_broken_stops_nothing_and_starts_nothing() {
    let Some(service) = Service::new("") else { return };
    let pid = service.start_and_build();
    let problem = service.site.break_config();
    for command in ["restart", "reload"] {
        assert_says(&service.run(command, 1), &problem);
        service.run("status", 0);
        assert_eq!(service.site.manager(), Some(pid), "{command}");
    }
    assert_eq!(Site::wait_events(&service.log(), "recipe roster loaded", 1).len(), 1);
    // Stopping needs no configuration.
    service.site.latch.open();
    service.run("stop", 0);
    assert_says(&service.run("start", 1), &problem);
    service.run("status", 3);
    service.site.mend_config();
    // One recipe that cannot be built must not keep the others from being built.
    let unbuildable = service.site.add_unbuildable();
    for (starts, command) in [(2, "start"), (3, "restart")] {
        assert_says(&service.run(command, 0), &unbuildable);
        Site::wait_events(&service.log(), "peipkg-manager starting", starts);
    }
    assert_says(&service.run("reload", 0), &unbuildable);
    Site::wait_events(&service.log(), "recipe roster loaded", 4);
    service.run("stop", 0);
    assert_eq!(service.site.manager(), None);
}

#[test]
fn stop_build_takes_too_long_interrupts_it() {
    let Some(service) = Service::new("STOP_TIMEOUT=1\n") else { return };
    service.start_and_build();
    service.run("stop", 0);
    Site::wait_events(&service.log(), "build interrupted", 1);
    Site::wait_events(&service.log(), "peipkg-manager stopped", 1);
    assert_eq!(service.site.manager(), None);
    service.site.farm.assert_published(&[]);
}

#[test]
fn stop_repeated_still_drains() {
    let Some(service) = Service::new("") else { return };
    service.start_and_build();
    let impatient = service.begin("stop");
    Site::wait_events(&service.log(), "stopping after the build in progress", 1);
    impatient.kill(true);
    let again = service.begin("stop");
    wait_until("the second stop prints that it waits", PATIENCE, || {
        !again.stdout().is_empty() || !again.stderr().is_empty()
    });
    service.site.latch.open();
    again.wait_exit(PATIENCE);
    Site::wait_events(&service.log(), "peipkg-manager stopped", 1);
    service.site.assert_drained(&service.log());
}

#[test]
fn manager_killed_is_started_again() {
    let Some(service) = Service::new("") else { return };
    let pid = service.start_and_build();
    service.site.latch.open();
    Site::wait_events(&service.log(), "build + publish complete", 1);
    let process = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    Site::wait_events(&service.log(), "peipkg-manager starting", 2);
    service.run("status", 0);
    service.run("stop", 0);
    assert_eq!(service.site.manager(), None);
}
