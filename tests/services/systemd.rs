//! `contrib/systemd`: systemd's checks of the unit, and a farm under a real systemd that boots in a
//! copy of this machine.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::git_repo::{GitRepo, run};
use crate::support::install::{built, destdir, make};
use crate::support::logfmt::{self, Event};
use crate::support::machine::Machine;
use crate::support::optional::require;
use crate::support::pages::{Block, commands, fenced, page, section};
use crate::support::running::Running;
use crate::support::smart_http::SmartHttp;
use crate::support::wait::{PATIENCE, poll, wait_until};

/// Reduces a machine's systemd to the units for one service: it mounts nothing and starts no other
/// service.
const QUIET: &str = "
    rm -rf /lib/systemd/system-generators /etc/systemd/system-generators /etc/systemd/system
    rm -rf /lib/systemd/system/*.wants
    mkdir /etc/systemd/system
    printf '[Unit]\\nDefaultDependencies=no\\n' >/etc/systemd/system/quiet.target
";

const SYSTEMD: [&str; 5] =
    ["env", "container=other", "/lib/systemd/systemd", "--unit=quiet.target", "--log-target=console"];

/// Actions of honest builds that hardening often forbids; then actions that no build needs.
const BUILD: &str = r#"set -eu
install -d "$DESTDIR/usr/bin"
install -m 4755 "$SOURCE_DIR/hello.sh" "$DESTDIR/usr/bin/hello"
python3 -c 'import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)'
setarch "$(uname -m)" --addr-no-randomize true
: >/tmp/scratch
: >/dev/shm/scratch
grep -q . /proc/cpuinfo
python3 -c 'from socket import *; [socket(f, t) for f, t in ((AF_INET, SOCK_STREAM), (AF_INET6, SOCK_DGRAM), (AF_UNIX, SOCK_STREAM), (AF_NETLINK, SOCK_RAW))]'
unshare --user --map-root-user --mount --pid --uts --fork --mount-proc sh -c 'hostname sandbox && test "$(cat /proc/sys/kernel/hostname)" = sandbox'
# Where a part of /proc is covered, the line above fails too, but not under every version of systemd.
if grep ' /proc/' /proc/self/mountinfo >&2; then exit 1; fi
for place in /srv/for-all /home/for-all /etc /dev/console /proc/sys/kernel/hostname /proc/1/stat; do
    if [ -w "$place" ] || touch "$place/mark" 2>/dev/null; then echo "may write to $place" >&2; exit 1; fi
done
for place in /home/for-all /dev/console /proc/1/stat; do
    if [ -e "$place" ]; then echo "sees $place" >&2; exit 1; fi
done
"#;

/// The log of the service in these tests, which have no journal.
const LOG: &str = "/var/log/farm.log";

/// A copy of this machine with a running systemd and a farm, set up by the pages' commands. Its
/// upstream is `hello.git`.
struct Farm {
    machine: Machine,
}

impl Farm {
    #[track_caller]
    fn set_up(http: &SmartHttp, upstream: &GitRepo) -> Option<Self> {
        let machine = Machine::boot(QUIET, &SYSTEMD)?;
        let farm = Self { machine };
        wait_until("systemd is up", PATIENCE, || {
            farm.machine.try_run("systemctl is-active quiet.target").status.success()
        });
        // The copy covers parts of /proc, and below such a cover no sandbox of the unit can mount
        // its own.
        farm.machine.run("umount /proc/sys");
        let (installing, systemd) = (page("docs/installing.md"), page("contrib/systemd/README.md"));
        // The sections below it are other ways.
        let install = section(&installing, "## Build and install").split("\n### ").next().unwrap();
        farm.run(&commands(install));
        farm.run(&commands(section(&installing, "## Set up")));
        let url = http.serve("hello.git", upstream);
        farm.run(&format!(
            "cd /etc/peipkg-manager\n\
             sed -i -e 's/^id = .*/id = \"my-farm\"/' -e 's/^name = .*/name = \"my-packages\"/' config.toml\n\
             sed -i 's|^git = .*|git = \"{url}\"|' recipes/hello/peipkg.toml"
        ));
        farm.write("/etc/peipkg-manager/recipes/hello/build.sh", BUILD);
        farm.write(
            "/etc/systemd/system/peipkg-manager.service.d/test.conf",
            &format!("[Service]\nStandardError=append:{LOG}\nRestartSec=100ms\n"),
        );
        farm.run("install -d -m 777 /srv/for-all /home/for-all");
        // The page's console: its commands and their output.
        let screen = farm.run("runuser -u peipkg -- peipkg-manager --check");
        assert!(section(&installing, "## Set up").contains(&screen), "{screen}");
        farm.run(&commands(systemd.split("\n## ").next().unwrap()));
        Some(farm)
    }

    /// Runs `script` as root in the source's directory.
    #[track_caller]
    fn run(&self, script: &str) -> String {
        let directory = env!("CARGO_MANIFEST_DIR");
        self.machine.run(&format!(
            "export MAKEFLAGS='--silent BUILT={}'\ncd '{directory}'\n{script}",
            built().display()
        ))
    }

    #[track_caller]
    fn write(&self, path: &str, text: &str) {
        let path = self.machine.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Reads the service's `property` from systemd.
    #[track_caller]
    fn property(&self, property: &str) -> String {
        let script = format!("systemctl show --property={property} --value peipkg-manager");
        self.machine.run(&script).trim().to_owned()
    }

    fn events(&self, message: &str) -> Vec<Event> {
        let log = fs::read_to_string(self.machine.path(LOG)).unwrap_or_default();
        logfmt::events(&log).into_iter().filter(|event| event["msg"] == message).collect()
    }

    #[track_caller]
    fn wait_event(&self, message: &str, count: usize) -> Event {
        wait_until(message, PATIENCE, || {
            let failures = self.events("build failed");
            assert!(failures.is_empty(), "{failures:?}");
            self.events(message).len() >= count
        });
        self.events(message).remove(count - 1)
    }

    #[track_caller]
    fn wait_property(&self, property: &str, value: &str) {
        let found = poll(PATIENCE, || (self.property(property) == value).then_some(()));
        let log = self.machine.path(LOG);
        let last = self.property(property);
        assert!(found.is_some(), "{property} is {last:?}, not {value:?}: {}", log.display());
    }
}

fn upstream() -> GitRepo {
    let upstream = GitRepo::new();
    upstream.commit(&[("hello.sh", "#!/bin/sh\necho hello\n")], "2026-01-01T00:00:00Z");
    upstream.tag_light("v1.0.0");
    upstream
}

#[test]
fn farm_under_systemd_works_as_the_pages_say() {
    if !require("/lib/systemd/systemd") || !require("python3") {
        return;
    }
    let (http, upstream) = (SmartHttp::new(), upstream());
    let Some(farm) = Farm::set_up(&http, &upstream) else { return };
    let complete = farm.wait_event("build + publish complete", 1);
    assert_eq!((&complete["recipe"][..], &complete["version"][..]), ("hello", "1.0.0-1"));
    assert_eq!(farm.property("User"), "peipkg");
    assert_eq!(farm.property("Type"), "notify");
    farm.wait_property("StatusText", "idle");
    assert!(!farm.machine.path("/tmp/scratch").exists(), "the build wrote to the machine's /tmp");
    // A web server runs as another user.
    farm.run("runuser -u nobody -- cat /var/lib/peipkg-manager/repo/repo.json /var/lib/peipkg-manager/repo/index/*");

    reload(&farm);
    watchdog(&farm);
    drain(&farm, &upstream);
    ends_and_starts(&farm);

    let removal = page("contrib/systemd/README.md");
    farm.run(&commands(section(&removal, "## Remove")));
    assert_eq!(farm.property("LoadState"), "not-found");
    farm.run("test -e /var/lib/peipkg-manager/repo/repo.json && test -e /etc/peipkg-manager/config.toml");
}

/// A reload with a broken recipe fails, says why, and changes nothing; one with a good recipe is
/// followed, although another cannot be built.
fn reload(farm: &Farm) {
    const SECOND: &str = "/etc/peipkg-manager/recipes/second/peipkg.toml";
    farm.run("cp -R /etc/peipkg-manager/recipes/hello /etc/peipkg-manager/recipes/second");
    let good = fs::read_to_string(farm.machine.path(SECOND)).unwrap();
    let good = good.replace("name = \"hello\"", "name = \"second\"");
    farm.write(SECOND, &good.replace("[upstream]", "[upstream]\ntag_patern = \"x\""));
    let pid = farm.property("MainPID");
    let refused = farm.machine.try_run("systemctl reload peipkg-manager");
    assert!(!refused.status.success(), "{refused}");
    assert_eq!((farm.property("MainPID"), farm.property("ActiveState")), (pid.clone(), "active".to_owned()));
    assert!(
        farm.events("reload refused, the current recipes stay").is_empty(),
        "a reload with a broken recipe reached the manager"
    );
    farm.write(SECOND, &good);
    farm.run("mkdir /etc/peipkg-manager/recipes/third");
    let third = good.replace("name = \"second\"", "name = \"third\"").replace("'^v", "'^never-");
    farm.write("/etc/peipkg-manager/recipes/third/peipkg.toml", &third);
    farm.run("systemctl reload peipkg-manager");
    farm.run("rm -r /etc/peipkg-manager/recipes/third");
    assert_eq!(farm.wait_event("build + publish complete", 2)["recipe"], "second");
    assert_eq!(farm.property("MainPID"), pid);
}

/// The watchdog leaves an idle manager alone, and starts one again whose loop hangs.
fn watchdog(farm: &Farm) {
    let drop_in = "/etc/systemd/system/peipkg-manager.service.d/watchdog.conf";
    farm.write(drop_in, "[Service]\nWatchdogSec=6s\n");
    farm.run("systemctl daemon-reload && systemctl restart peipkg-manager");
    let pid = farm.property("MainPID");
    let beat = || farm.property("WatchdogTimestampMonotonic").parse::<u64>().expect("a time");
    let first = beat();
    wait_until("signs of life for longer than the limit", PATIENCE, || beat() > first + 7_000_000);
    assert_eq!(farm.property("MainPID"), pid);
    farm.run(&format!("kill -STOP {pid}"));
    wait_until("another manager runs", PATIENCE, || {
        farm.property("ActiveState") == "active" && !["0", &pid].contains(&farm.property("MainPID").as_str())
    });
    fs::remove_file(farm.machine.path(drop_in)).unwrap();
    farm.run("systemctl daemon-reload && systemctl restart peipkg-manager");
}

/// A stop waits for the build in progress, which is published.
fn drain(farm: &Farm, upstream: &GitRepo) {
    farm.write(
        "/etc/peipkg-manager/recipes/hello/build.sh",
        &format!(
            "cd /var/lib/peipkg-manager\n: >at-gate\nuntil [ -e gate-open ]; do sleep 0.02; done\ncd \"$OLDPWD\"\n{BUILD}"
        ),
    );
    upstream.tag_light("v1.1.0");
    farm.run("systemctl reload peipkg-manager");
    let gate = farm.machine.path("/var/lib/peipkg-manager/at-gate");
    wait_until("the build waits for the file", PATIENCE, || gate.exists());
    // The second recipe has the same upstream: its version is built already, or waits.
    wait_until("the status names the build", PATIENCE, || {
        let status = farm.property("StatusText");
        ["building hello 1.1.0-1", "building hello 1.1.0-1, 1 queued"].contains(&status.as_str())
    });
    let mut stop = Running::spawn(&mut farm.machine.command("systemctl stop peipkg-manager"));
    farm.wait_event("stopping after the build in progress", 1);
    assert_eq!(farm.property("ActiveState"), "deactivating");
    assert!(!stop.has_ended());
    farm.run("touch /var/lib/peipkg-manager/gate-open");
    stop.wait_exit(PATIENCE).assert_success();
    assert_eq!((farm.property("Result"), farm.property("ExecMainStatus")), ("success".into(), "0".into()));
    let versions = farm.events("build + publish complete");
    assert!(versions.iter().any(|event| event["version"] == "1.1.0-1" && event["recipe"] == "hello"));
}

/// A bad configuration is not tried again; a manager that is killed is started again.
fn ends_and_starts(farm: &Farm) {
    const CONFIG: &str = "/etc/peipkg-manager/config.toml";
    let good = fs::read_to_string(farm.machine.path(CONFIG)).unwrap();
    farm.write(CONFIG, &format!("{good}\nunknown = 1\n"));
    farm.machine.try_run("systemctl start peipkg-manager");
    farm.wait_property("ActiveState", "failed");
    assert_eq!((farm.property("ExecMainStatus"), farm.property("NRestarts")), ("2".into(), "0".into()));
    farm.write(CONFIG, &good);
    farm.run("systemctl start peipkg-manager");
    farm.wait_property("ActiveState", "active");
    let polls = farm.events("peipkg-manager starting").len();
    farm.run("systemctl kill --signal=KILL --kill-who=main peipkg-manager");
    farm.wait_property("NRestarts", "1");
    farm.wait_event("peipkg-manager starting", polls + 1);
}

#[test]
fn unit_verified_by_systemd_is_clean() {
    if !require("systemd-analyze") {
        return;
    }
    let home = TempDir::with_prefix("unit-").unwrap();
    let prefix = home.path().display();
    // Install without DESTDIR, so that the unit's programs exist.
    make("install", &[&format!("PREFIX={prefix}"), &format!("SYSCONFDIR={prefix}/etc")]).assert_success();
    let unit = home.path().join("share/doc/peipkg-manager/contrib/systemd/peipkg-manager.service");
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        Running::spawn(command.args(arguments).arg(&unit)).wait_exit(PATIENCE)
    };
    let output = analyze(&["verify", "--man=no"]);
    output.assert_success();
    assert_eq!(output.stderr, "", "{output}");
    // Keep the exposure low: 4.2 with systemd 252, where a service without hardening has 9.6. Each
    // version counts differently.
    analyze(&["security", "--offline=true", "--threshold=48", "--no-pager"]).assert_success();
    // The page's changes, as `systemctl edit` would write them.
    let drop_ins = unit.with_extension("service.d");
    fs::create_dir(&drop_ins).unwrap();
    let examples = fenced("contrib/systemd/README.md").into_iter().filter(|block| block.language == "ini");
    let mut seen = 0;
    for Block { place, text, .. } in examples {
        fs::write(drop_ins.join("override.conf"), &text).unwrap();
        let output = analyze(&["verify", "--man=no"]);
        output.assert_success();
        // systemd 252 does not know this type; nothing else may be wrong.
        let unknown = |line: &&str| line.ends_with("Failed to parse service type, ignoring: notify-reload");
        let others: Vec<_> = output.stderr.lines().filter(|line| !unknown(line)).collect();
        assert!(others.is_empty(), "{place}\n{output}");
        // systemd sends its signal before it runs these commands.
        assert!(!text.contains("notify-reload") || text.contains("\nExecReload=\n"), "{place}");
        seen += 1;
    }
    assert_eq!(seen, 2);
}

#[test]
fn sysusers_file_makes_the_user_of_the_page() {
    if !require("systemd-sysusers") {
        return;
    }
    let root = TempDir::with_prefix("sysusers-").unwrap();
    make("install", &[&destdir(root.path()), "INIT=systemd"]).assert_success();
    run(Command::new("systemd-sysusers").arg(format!("--root={}", root.path().display())));
    let users = fs::read_to_string(Path::new(root.path()).join("etc/passwd")).unwrap();
    let user = users.lines().find(|line| line.starts_with("peipkg:")).unwrap_or_else(|| panic!("{users}"));
    let useradd = page("docs/installing.md");
    let useradd = useradd.lines().find(|line| line.starts_with("useradd ")).unwrap();
    let fields: Vec<&str> = user.split(':').collect();
    assert!(
        useradd.contains(&format!("--home-dir {} --shell {}", fields[5], fields[6])),
        "{user}\n{useradd}"
    );
}
