//! `make install` into an empty root, and `make uninstall`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::support::farm::published_in;
use crate::support::git_repo::{GitRepo, run};
use crate::support::install::{CONFIG, LIST, MANAGER, Root, UNIT, destdir, make_command, tree};
use crate::support::running::Running;
use crate::support::site::is_root;
use crate::support::wait::PATIENCE;

const RECIPE: &str = "/usr/local/share/doc/peipkg-manager/contrib/recipes/hello";

fn read_source(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The code spans in `text`.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn install_puts_every_file_where_the_page_says() {
    let root = Root::new();
    root.install(&[]);
    let page = read_source("docs/installing.md");
    let table = page.split_once("| what | where |\n|---|---|\n").unwrap().1.split("\n\n").next().unwrap();
    let installed = tree(root.dir());
    let mut places = Vec::new();
    for row in table.lines() {
        let cells: Vec<&str> = row.split('|').collect();
        let here: Vec<String> = code(cells[2])
            .map(|place| place.replace("PREFIX", "/usr/local").replace("SYSCONFDIR", "/etc") + "/")
            .collect();
        for place in &here {
            assert!(installed.iter().any(|path| path.starts_with(place)), "{place} is empty");
        }
        for name in code(cells[1]) {
            let is_it = |path: &String| {
                here.iter().any(|place| path.starts_with(place)) && path.split('/').any(|part| part == name)
            };
            assert!(installed.iter().any(is_it), "{name} is not in {here:?}");
        }
        places.extend(here);
    }
    for path in &installed {
        assert!(places.iter().any(|place| path.starts_with(place)), "{path} is in none of {places:?}");
    }
    // The files that the page does not name one by one.
    for program in ["peipkg-manager", "peipkg-build", "peipkg-repo"] {
        for name in [
            format!("bash-completion/completions/{program}"),
            format!("zsh/site-functions/_{program}"),
            format!("fish/vendor_completions.d/{program}.fish"),
        ] {
            assert!(root.path("/usr/local/share").join(&name).exists(), "{name}");
        }
    }
    let modes = [(MANAGER, 0o755), (CONFIG, 0o644), (LIST, 0o644), ("/etc/peipkg-manager/recipes", 0o755)];
    for (path, mode) in modes {
        assert_eq!(fs::metadata(root.path(path)).unwrap().permissions().mode() & 0o7777, mode, "{path}");
    }
    assert_eq!(root.read(CONFIG), read_source("docs/config.sample.toml"));
}

#[test]
fn uninstall_removes_every_unchanged_file() {
    let root = Root::new();
    fs::create_dir_all(root.path("/usr/local/bin")).unwrap();
    // Install again, as an update does, with each init system's files.
    for init in ["none", "systemd", "none"] {
        root.install(&[&format!("INIT={init}")]);
    }
    assert!(root.path(UNIT).exists());
    root.uninstall();
    assert_eq!(tree(root.dir()), ["/usr/local/bin/"], "a directory from before the installation was removed");
}

#[test]
fn installed_farm_works_and_its_files_survive_uninstall() {
    let root = Root::new();
    root.install(&[]);
    // The page's commands, with the root before each path.
    let (etc, var) = (root.path("/etc/peipkg-manager"), root.path("/var/lib/peipkg-manager"));
    let key = etc.join("farm.pem");
    run(Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&key));
    let config = root.read(CONFIG);
    let config = config
        .replace("\nid = \"farm-1\"", "\nid = \"my-farm\"")
        .replace("\nname = \"example\"", "\nname = \"my-packages\"")
        .replace("/etc/peipkg-manager", &etc.display().to_string())
        .replace("/var/lib/peipkg-manager", &var.display().to_string());
    root.write(CONFIG, &config);
    run(Command::new("cp").arg("-R").arg(root.path(RECIPE)).arg(etc.join("recipes")));
    let upstream = GitRepo::new();
    upstream.commit(&[("hello.sh", "#!/bin/sh\necho hello\n")], "2026-01-01T00:00:00Z");
    upstream.tag_light("v1.2.3");
    let recipe = "/etc/peipkg-manager/recipes/hello/peipkg.toml";
    let text = root.read(recipe).replace("https://git.example.org/hello.git", &upstream.file_url());
    root.write(recipe, &text);

    let check = root.manager(&["--check"]);
    check.assert_success();
    assert_eq!(check.stdout, format!("{}: ok, 1 recipe, 1 with an upstream\n", root.path(CONFIG).display()));
    let sweep = root.manager(&["--once"]);
    sweep.assert_success().assert_only_events();
    assert_eq!(sweep.event("build + publish complete")["version"], "1.2.3-1");
    let created = sweep.event("repository created");
    let key = &created["key"];
    assert!(var.join("repo/keys").join(format!("{key}.pub")).exists(), "{created:?}");
    assert_eq!(created["advice"], format!("peipkg repo add my-packages ADDRESS --anchor {key}"));
    assert_eq!(published_in(&var.join("repo")), ["hello 1.2.3-1 noarch"]);

    // An update keeps the configuration and reports that.
    let update = root.install(&[]);
    assert!(update.stdout.contains("config.toml, which exists\n"), "{update}");
    assert_eq!(root.read(CONFIG), config);
    let state = tree(&var);
    let removal = root.uninstall();
    assert!(removal.stdout.contains("config.toml, which was changed after the install\n"), "{removal}");
    let kept = ["config.toml", "farm.pem", "recipes/hello/build.sh", "recipes/hello/peipkg.toml"];
    let mut kept: Vec<String> = kept.iter().map(|name| format!("/etc/peipkg-manager/{name}")).collect();
    kept.extend(state.iter().map(|path| format!("/var/lib/peipkg-manager{path}")));
    assert_eq!(tree(root.dir()), kept);
}

#[test]
fn install_variables_in_the_environment_work_as_on_the_command_line() {
    let root = Root::new();
    let mut command = make_command("install", &[&destdir(root.dir())]);
    command.env("TOOLS", "no").env("INIT", "runit").env("PREFIX", "/opt/farm");
    Running::spawn(&mut command).wait_exit(PATIENCE).assert_success();
    assert!(root.path("/etc/sv/peipkg-manager/run").exists());
    assert!(root.path("/opt/farm/bin/peipkg-manager").exists());
    assert!(root.path("/opt/farm/share/man/man8/peipkg-manager.8").exists());
    // The official tools have their own pages and completions.
    let of_tools: Vec<String> = tree(root.dir())
        .into_iter()
        .filter(|path| ["peipkg-build", "peipkg-repo"].iter().any(|tool| path.contains(tool)))
        .filter(|path| !path.contains("/share/doc/"))
        .collect();
    assert_eq!(of_tools, [""; 0]);
}

#[test]
fn install_with_chosen_paths_puts_them_into_the_files() {
    const LIVE: [(&str, &[&str]); 4] = [
        ("systemd", &["systemd/system/peipkg-manager.service", "sysusers.d/peipkg-manager.conf"]),
        ("sysvinit", &["init.d/peipkg-manager", "logrotate.d/peipkg-manager"]),
        ("openrc", &["init.d/peipkg-manager", "conf.d/peipkg-manager", "logrotate.d/peipkg-manager"]),
        ("runit", &["sv/peipkg-manager/run", "sv/peipkg-manager/log/run"]),
    ];
    // The built-in paths, whatever paths were chosen.
    const BUILT_IN: [&str; 3] = [
        "by default `/etc/peipkg-manager/config.toml`",
        "look for `/etc/peipkg-manager/config.toml`",
        "Pa /etc/peipkg-manager/config.toml",
    ];
    for (init, files) in LIVE {
        let root = Root::new();
        root.install(&["PREFIX=/opt/farm", "SYSCONFDIR=/opt/farm/etc", &format!("INIT={init}")]);
        for file in files {
            assert!(root.path("/etc").join(file).exists(), "{init}: {file}");
        }
        for path in tree(root.dir()).iter().filter(|path| !path.ends_with("/installed-files")) {
            let Ok(text) = fs::read_to_string(root.path(path)) else { continue };
            for line in text.lines().filter(|line| !BUILT_IN.iter().any(|part| line.contains(part))) {
                let line = line.replace("/opt/farm/etc/peipkg-manager", "");
                for wrong in ["/usr/local/bin/peipkg", "/usr/local/share/doc", "/etc/peipkg-manager"] {
                    assert!(!line.contains(wrong), "{path}: {line}");
                }
            }
        }
    }
    let root = Root::new();
    root.install(&["PREFIX=/opt/farm", "SYSCONFDIR=/opt/farm/etc", "INIT=systemd"]);
    let unit = root.read("/etc/systemd/system/peipkg-manager.service");
    let start = "ExecStart=/opt/farm/bin/peipkg-manager --config /opt/farm/etc/peipkg-manager/config.toml\n";
    for (file, line) in [
        ("docs/configuration.md", "by default `/etc/peipkg-manager/config.toml`"),
        ("docs/installing.md", "look for `/etc/peipkg-manager/config.toml`"),
        (
            "docs/installing.md",
            "cp -R /opt/farm/share/doc/peipkg-manager/contrib/recipes/hello /opt/farm/etc/",
        ),
    ] {
        let text = root.read(&format!("/opt/farm/share/doc/peipkg-manager/{file}"));
        assert!(text.contains(line), "{line}\n{text}");
    }
    let manual = root.read("/opt/farm/share/man/man8/peipkg-manager.8");
    assert!(manual.contains("Pa /etc/peipkg-manager/config.toml"), "{manual}");
    assert!(unit.contains(start) && unit.contains("PATH=/opt/farm/bin:/usr/local/sbin:"), "{unit}");
    // With the usual paths, the files are those of the source.
    root.install(&["INIT=systemd"]);
    let unit = root.read("/usr/local/lib/systemd/system/peipkg-manager.service");
    assert_eq!(unit, read_source("contrib/systemd/peipkg-manager.service"));
    for page in ["installing.md", "config.sample.toml"] {
        let installed = root.read(&format!("/usr/local/share/doc/peipkg-manager/docs/{page}"));
        assert_eq!(installed, read_source(&format!("docs/{page}")));
    }
}

#[test]
fn install_impossible_is_one_line_and_changes_nothing() {
    let cases: [(&str, &[&str], &str); 10] = [
        ("install", &["INIT=upstart"], "INIT=upstart: expected systemd, sysvinit, openrc, runit or none"),
        ("install", &["TOOLS=maybe"], "TOOLS=maybe: expected yes or no"),
        ("install", &["REPLACE=perhaps"], "REPLACE=perhaps: expected yes or no"),
        ("install", &["PREFIX=usr"], "PREFIX=usr: expected an absolute path"),
        ("install", &["PREFIX="], "PREFIX=: expected an absolute path"),
        ("install", &["PREFIX=/usr/"], "PREFIX=/usr/: expected a path without a slash at its end"),
        ("install", &["PREFIX=/a|b"], "PREFIX=/a|b: expected a path of letters, digits and . _ + - only"),
        ("install", &["SYSCONFDIR=/a b"], "SYSCONFDIR=/a b: expected a path of letters, digits"),
        ("install", &["BUILT=/nowhere"], "/nowhere/peipkg-manager is missing: run make first"),
        ("uninstall", &[], "installed-files is missing: was it installed with another PREFIX or DESTDIR?"),
    ];
    for (target, variables, expected) in cases {
        let root = Root::new();
        let output = root.make(target, variables);
        output.assert_code(2);
        // make adds a line of its own.
        let lines: Vec<&str> = output.stderr.lines().filter(|line| !line.contains("***")).collect();
        assert!(lines.len() == 1 && lines[0].contains(expected), "expected {expected:?}\n{output}");
        assert!(lines[0].starts_with(&format!("make {target}: ")), "{output}");
        assert_eq!(tree(root.dir()), [] as [&str; 0]);
    }
}

#[test]
fn install_that_may_not_write_everywhere_writes_nothing() {
    // Each place is the last that a program or a file of some kind needs.
    for place in ["usr/local/share/man", "usr/local/share/doc", "etc/peipkg-manager", "usr/local/bin"] {
        let root = Root::new();
        let (parent, name) = place.rsplit_once('/').unwrap();
        root.write(place, "a file");
        let output = root.make("install", &[]);
        output.assert_code(2);
        assert!(output.stderr.contains(&format!("{name} is no directory, expected one for ")), "{output}");
        assert_eq!(tree(root.dir()), [format!("/{place}")]);

        // Root without its capabilities, and whoever is not root, may not write here.
        fs::remove_file(root.path(place)).unwrap();
        fs::set_permissions(root.path(parent), fs::Permissions::from_mode(0o555)).unwrap();
        let variables = [destdir(root.dir()), "INIT=none".to_owned()];
        let make = make_command("install", &[&variables[0], &variables[1]]);
        let mut command = Command::new(if is_root() { "setpriv" } else { "env" });
        if is_root() {
            command.args(["--bounding-set=-all", "--inh-caps=-all"]);
        }
        command.arg(make.get_program()).args(make.get_args()).current_dir(make.get_current_dir().unwrap());
        for (name, value) in make.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let output = Running::spawn(&mut command).wait_exit(PATIENCE);
        output.assert_code(2);
        assert!(output.stderr.contains("become root, or give PREFIX and SYSCONFDIR"), "{output}");
        assert_eq!(tree(root.dir()), [format!("/{parent}/")]);
        fs::set_permissions(root.path(parent), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn links_between_installed_pages_lead_somewhere() {
    let root = Root::new();
    root.install(&[]);
    let mut checked = 0;
    let is_page = |path: &&String| Path::new(path.as_str()).extension().is_some_and(|kind| kind == "md");
    for path in tree(root.dir()).iter().filter(is_page) {
        let text = root.read(path);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            // Manual pages are read with man.
            let is_manual = Path::new(link)
                .extension()
                .is_some_and(|section| ["1", "5", "8"].iter().any(|manual| section == *manual));
            if link.is_empty() || link.contains("://") || is_manual {
                continue;
            }
            assert!(root.path(path).parent().unwrap().join(link).exists(), "{path}: {link}");
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked}");
}
