//! The package for Debian, built by dpkg-buildpackage and installed in a copy of the machine, and the
//! licences that packages must carry.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::git_repo::run;
use crate::support::install::make_command;
use crate::support::machine::Machine;
use crate::support::optional::require;
use crate::support::running::Running;
use crate::support::wait::PATIENCE;

#[test]
fn deb_is_installed_and_removed_with_what_belongs_to_it() {
    if !require("dpkg-buildpackage") {
        return;
    }
    let Some(machine) = Machine::boot("", &["sleep", "infinity"]) else { return };
    let out = TempDir::with_prefix("deb-").unwrap();
    let mut command = make_command("deb", &[]);
    // Compressing the programs of a test run, which are large, takes long on a busy machine.
    command.env("OUT", out.path()).env("DEBFULLNAME", r"A&B | C/D\1").env("DEBEMAIL", "ab@example.org");
    Running::spawn(&mut command).wait_exit(10 * PATIENCE).assert_success();
    let packages: Vec<_> = fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(packages.len(), 1, "{packages:?}");
    fs::copy(&packages[0], machine.path("/root/package.deb")).unwrap();

    machine.run("dpkg -i /root/package.deb");
    assert!(machine.run("/usr/bin/peipkg-manager --version").starts_with("peipkg-manager "));
    assert_eq!(
        machine.run("dpkg-query -W -f '${Maintainer}' peipkg-manager"),
        r"A&B | C/D\1 <ab@example.org>"
    );
    assert_eq!(machine.run("stat -c %U:%a /var/lib/peipkg-manager"), "peipkg:755\n");
    assert_eq!(
        machine.run("dpkg-query -W -f '${Conffiles}' peipkg-manager | cut -d ' ' -f 2"),
        "/etc/peipkg-manager/config.toml\n"
    );
    let listed = machine.run("dpkg -L peipkg-manager");
    for file in [
        "/usr/bin/peipkg-repo",
        "/usr/lib/systemd/system/peipkg-manager.service",
        "/usr/share/man/man8/peipkg-manager.8.gz",
        "/usr/share/doc/peipkg-manager/copyright",
        "/usr/share/doc/peipkg-manager/THIRD-PARTY.txt",
    ] {
        assert!(listed.lines().any(|line| line == file), "{file} is not in\n{listed}");
    }
    machine.run(
        "cat /usr/lib/systemd/system/peipkg-manager.service | grep -q ExecStart=/usr/bin/peipkg-manager",
    );

    // A second install, as an update, keeps the configuration that somebody edited.
    machine.run("echo '# mine' >>/etc/peipkg-manager/config.toml; dpkg -i --force-confold /root/package.deb");
    assert!(machine.run("cat /etc/peipkg-manager/config.toml").ends_with("# mine\n"));
    machine.run("dpkg -r peipkg-manager");
    assert!(!machine.path("/usr/bin/peipkg-manager").exists());
    assert!(machine.path("/etc/peipkg-manager/config.toml").exists());
    machine.run("dpkg -P peipkg-manager");
    assert!(!machine.path("/etc/peipkg-manager").exists());
    // What was published outlives the package.
    assert_eq!(machine.run("stat -c %U /var/lib/peipkg-manager"), "peipkg\n");
}

#[test]
fn alpine_package_is_made_of_what_make_install_installs() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/alpine/APKBUILD")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(text.contains(&format!("\npkgver={version}\n")), "{text}");
    let read = |set: &[(&str, &str)]| {
        let mut command = Command::new("sh");
        command.args(["-euc", ". contrib/alpine/APKBUILD; echo \"$maintainer $url\""]);
        command.env_remove("MAINTAINER").env_remove("PACKAGE_URL").envs(set.iter().copied());
        run(command.current_dir(env!("CARGO_MANIFEST_DIR")))
    };
    // Names that belong to nobody.
    assert_eq!(read(&[]), "Local build <nobody@example.com> https://example.com");
    let set = [("MAINTAINER", "Ann <ann@example.org>"), ("PACKAGE_URL", "https://ann.example.org")];
    assert_eq!(read(&set), "Ann <ann@example.org> https://ann.example.org");
}

#[test]
fn licences_of_all_linked_libraries_are_up_to_date() {
    if !require("python3") {
        return;
    }
    let mut command = Command::new("python3");
    command.arg("contrib/licences/third-party.py").arg("--check");
    command.env("CARGO_NET_OFFLINE", "true").current_dir(env!("CARGO_MANIFEST_DIR"));
    Running::spawn(&mut command).wait_exit(PATIENCE).assert_success();
}
