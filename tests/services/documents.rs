//! Follows the documents to the letter: runs each page's blocks in order at a desk, and compares
//! the output that the page shows with the real one, except times, hashes and counts.
//!
//! Commands that no test can run are in [`NOT_RUN`](crate::support::follow::NOT_RUN); tests check
//! only their syntax and flags.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use crate::support::desk::Desk;
use crate::support::follow::follow;
use crate::support::optional::require;
use crate::support::pages::{self, fenced, page};
use crate::support::s3::ObjectStore;
use crate::support::slurm::Slurm;
use crate::support::tools::Tools;
use crate::support::wait::{PATIENCE, wait_until};

#[test]
fn pages_are_all_followed() {
    let this = include_str!("documents.rs");
    for path in pages::all() {
        let has_commands = fenced(&path).iter().any(|block| block.script().is_some());
        assert!(!has_commands || this.contains(&format!("\"{path}\"")), "{path} is followed by no test");
    }
}

#[test]
fn front_page_commands_work() {
    let mut desk = Desk::new();
    desk.version("1.2.0", &[]);
    // Give the demo the programs of this test run.
    desk.variable("BIN", Tools::get().build.parent().unwrap());
    // Its readers sit at a terminal, and in their home directory.
    desk.use_terminal();
    let home = desk.path("/var/lib/peipkg-manager");
    desk.change("/home/me", home.to_str().unwrap());
    follow("README.md", &mut desk, |_, _| {});
    assert!(home.join("farm/state/repo/p/hello/1.0.0-1").exists());
}

#[test]
fn installing_page_commands_work() {
    let mut desk = Desk::new();
    desk.version("1.2.3", &[]);
    // Make the change that the page asks for.
    let config = desk
        .read("/etc/peipkg-manager/config.toml")
        .replace("farm-1", "my-farm")
        .replace("\"example\"", "\"my-packages\"");
    desk.write("/etc/peipkg-manager/config.toml", &config);
    follow("docs/installing.md", &mut desk, |_, _| {});
    assert!(desk.path("/var/lib/peipkg-manager/repo/p/hello/1.2.3-1").exists());
}

#[test]
fn configuration_page_commands_work() {
    let mut desk = Desk::new();
    follow("docs/configuration.md", &mut desk, |desk, block| {
        let config = "/etc/peipkg-manager/config.toml";
        if block.text.contains("the sample's") {
            let sample = desk.moved(&page("docs/config.sample.toml"));
            // Use the installed file: the page's own excerpt is shorter.
            let least = desk.read(config);
            desk.write(config, &sample);
            desk.write("least.toml", &least);
        }
        if block.text.contains("default_intervall") {
            desk.write(config, &desk.read("least.toml").replace("default_interval =", "default_intervall ="));
            desk.key();
            desk.recipe();
            let recipe = "[upstream]\ngit = \"https://git.example.org/b.git\"\ntag_pattern = '^v(\\d+)$'\n\n[[package]]\nname = \"bb\"\n\
                          architecture = \"noarch\"\nfiles = []\n[watch]\ngithub_webhok = true\n\n[meta]\nbuild_script = \"build.sh\"\n";
            desk.write("/etc/peipkg-manager/recipes/b/build.sh", "");
            desk.write("/etc/peipkg-manager/recipes/b/peipkg.toml", recipe);
        }
        if block.text.contains("the farm starts") {
            desk.write(config, &desk.read("least.toml"));
            let recipe = "[meta]\nlicense = \"MIT\"\nhomepage = \"https://git.example.org/b\"\nbuild_script = \"make.sh\"\n\n\
                          [[package]]\nname = \"bb\"\narchitecture = \"noarch\"\ndescription = \"b\"\nfiles = [\"usr/**\"]\n";
            desk.write("/etc/peipkg-manager/recipes/b/peipkg.toml", recipe);
        }
    });
}

#[test]
fn recipes_page_commands_work() {
    if !require("cc") {
        return;
    }
    let mut desk = Desk::new();
    let program = "#include <stdio.h>\nint main(void) { return puts(\"hello\") < 0; }\n";
    desk.version("1.3.2", &[("hello.c", program), ("hello.txt", "HELLO(1)\n")]);
    follow("docs/recipes.md", &mut desk, |_, _| {});
    for package in ["hello_1.3.2-1_x86_64.peipkg", "hello-doc_1.3.2-1_noarch.peipkg"] {
        assert!(desk.path("/tmp/hello-out").join(package).exists(), "{package}");
    }
}

#[test]
fn webhooks_page_commands_work() {
    let mut desk = Desk::new();
    desk.key();
    desk.recipe();
    desk.version("1.0.0", &[]);
    let recipe = "/etc/peipkg-manager/recipes/hello/peipkg.toml";
    let fragment =
        fenced("docs/webhooks.md").into_iter().find(|block| block.text.contains("[watch]")).unwrap();
    desk.write(recipe, &format!("{}\n{}", desk.read(recipe), fragment.text));
    let mut seen = 0;
    follow("docs/webhooks.md", &mut desk, |desk, block| {
        if block.text.contains("curl ") {
            let http = desk.read("/etc/peipkg-manager/config.toml").replace("127.0.0.1:8080", "127.0.0.1:0");
            desk.write("/etc/peipkg-manager/config.toml", &http);
            desk.start_daemon();
            let addr = desk.daemon().http_addr();
            desk.change("127.0.0.1:8080", &addr.to_string());
            desk.version("1.1.0", &[]);
            seen = desk.daemon().stderr().len();
        }
        if block.text.starts_with("level=info msg=\"webhook accepted") {
            desk.daemon().wait_events("build + publish complete", 2, PATIENCE);
            let log: String = desk.daemon().stderr()[seen..]
                .lines()
                .filter_map(|line| Some(line.split_once(' ')?.1.to_owned() + "\n"))
                .collect();
            assert!(
                log.starts_with(&block.text),
                "{}:\n{}--- is not the start of\n{log}",
                block.place,
                block.text
            );
        }
    });
}

#[test]
fn monitoring_page_commands_work() {
    let mut desk = Desk::new();
    desk.key();
    desk.recipe();
    desk.write("/etc/peipkg-manager/recipes/hello/build.sh", "set -eu\ncd \"$SOURCE_DIR\"\nmake\n");
    desk.configure("[http]\naddr = \"127.0.0.1:0\"\n");
    let makefile = ("Makefile", "all:\n\tinstall -D -m 755 hello.sh $(DESTDIR)/usr/bin/hello\n");
    desk.version("1.0.0", &[makefile]);
    desk.run("peipkg-manager --once");
    desk.version("1.1.0", &[makefile]);
    fs::remove_file(desk.upstream.path().join("Makefile")).unwrap();
    desk.version("1.2.0", &[]);
    desk.start_daemon();
    let addr = desk.daemon().http_addr();
    desk.change("127.0.0.1:8080", &addr.to_string());
    follow("docs/monitoring.md", &mut desk, |_, _| {});
}

#[test]
fn hosting_page_commands_work() {
    if !require("rclone") {
        return;
    }
    let (mut desk, store) = (Desk::new(), ObjectStore::start());
    desk.change("https://0123456789abcdef.r2.cloudflarestorage.com", &store.url());
    // An archive has the paths of the desk.
    let packed = format!("/root/restored{}", desk.path("/var/lib").display());
    desk.change("/root/restored/var/lib", &packed);
    desk.key();
    desk.recipe();
    desk.version("1.2.3", &[]);
    follow("docs/hosting.md", &mut desk, |desk, block| {
        if block.text.contains("remote = \"/srv/mirror\"") {
            // The page asks last about the file that is uploaded first.
            desk.run("peipkg-manager --once");
            assert!(store.objects().contains_key("packages/repo.json"));
        }
    });
    assert!(desk.path("/srv/mirror/repo.json").exists());
}

#[test]
fn recovery_page_commands_work() {
    if !require("rclone") {
        return;
    }
    let mut desk = Desk::new();
    desk.key();
    desk.recipe();
    for version in ["1.0.0", "1.1.0", "1.2.0", "1.3.0"] {
        desk.version(version, &[]);
        desk.run("peipkg-manager --once");
    }
    desk.write(
        "/var/lib/peipkg-manager/.config/rclone/rclone.conf",
        "[r2]\ntype = alias\nremote = /srv/r2\n",
    );
    follow("docs/recovery.md", &mut desk, |desk, block| {
        if block.text.contains("rclone copy r2:packages repo") {
            // The remote still has the lost files.
            desk.run(
                "mkdir /srv/r2\nmv /var/lib/peipkg-manager/repo /srv/r2/packages\npeipkg-manager --once",
            );
        }
        if block.text.contains("FAIL: ") {
            let index = desk.path("/var/lib/peipkg-manager/repo/index/archive.json");
            fs::OpenOptions::new().write(true).open(index).unwrap().set_len(200).unwrap();
        }
    });
    desk.run("peipkg-repo verify --repo /var/lib/peipkg-manager/repo");
}

#[test]
fn trust_page_commands_work() {
    let mut desk = Desk::new();
    desk.key();
    desk.recipe();
    desk.version("1.0.0", &[]);
    desk.run("peipkg-manager --once");
    follow("docs/trust.md", &mut desk, |desk, block| {
        if block.text.contains("--retire") {
            desk.version("1.1.0", &[]);
            desk.run("peipkg-manager --once");
        }
    });
    // Every version is built again, and the new key has signed the packages.
    let log = desk.try_run("peipkg-manager --once").to_string();
    assert_eq!(log.matches("build + publish complete").count(), 2, "{log}");
    let repo = desk.path("/var/lib/peipkg-manager/repo");
    assert!(repo.join("p/hello/1.1.0-2").exists() && repo.join("p/hello/1.0.0-2").exists());
    desk.run("peipkg-repo verify --repo /var/lib/peipkg-manager/repo");
}

#[test]
fn companion_tools_page_commands_work() {
    let mut desk = Desk::new();
    desk.run("mkdir recipes hello-1.3.2\ncp -R contrib/recipes/hello recipes/\nopenssl genpkey -algorithm ed25519 -out farm.pem");
    desk.write("hello-1.3.2/hello.sh", "#!/bin/sh\necho hello\n");
    // Sign any program of the system.
    desk.run("cp \"$(command -v env)\" loader\nopenssl genpkey -algorithm ed25519 -out tcb.pem");
    follow("docs/companion-tools.md", &mut desk, |_, _| {});
}

#[test]
fn scaling_page_commands_work() {
    let mut desk = Desk::new();
    desk.recipe();
    let recipe = "/etc/peipkg-manager/recipes/hello/peipkg.toml";
    desk.write(recipe, &desk.read(recipe).replace("\"noarch\"", "\"x86_64\""));
    follow("docs/scaling.md", &mut desk, |_, _| {});
    desk.run("openssl genpkey -algorithm ed25519 -out /etc/peipkg-manager/aarch64/farm.pem");
    assert!(
        desk.read("/etc/peipkg-manager/aarch64/recipes/hello/peipkg.toml")
            .contains("architecture = \"aarch64\"")
    );
    // The page's reader has a remote of that name.
    desk.write("/var/lib/peipkg-manager/.config/rclone/rclone.conf", "[r2]\ntype = memory\n");
    let check = desk.run("peipkg-manager --check");
    assert_eq!(check, "/etc/peipkg-manager/config.toml: ok, 1 recipe, 1 with an upstream\n");
}

#[test]
fn moving_page_commands_work() {
    let mut desk = Desk::new();
    desk.key();
    // The version is built but not yet published.
    desk.run("mkdir -p target\nln -s \"$(dirname \"$(command -v peipkg-manager)\")\" target/release");
    desk.run("mkdir -p /var/lib/peipkg-manager/publish");
    follow("docs/moving-from-go.md", &mut desk, |_, _| {});
}

#[test]
fn slurm_page_commands_work() {
    let Some(slurm) = Slurm::start() else { return };
    let mut desk = Desk::new();
    let mut sample = std::process::Command::new("true");
    slurm.environment(&mut sample);
    for (name, value) in sample.get_envs() {
        desk.variable(name.to_str().unwrap(), value.unwrap());
    }
    desk.variable("PEIPKG_SLURM_BUILD", &Tools::get().build);
    desk.key();
    desk.recipe();
    desk.version("1.3.2", &[]);
    desk.run("mkdir -p /var/lib/peipkg-manager/stage");
    follow("contrib/slurm/README.md", &mut desk, |_, _| {});
    assert!(desk.path("/var/lib/peipkg-manager/stage/by-hand-out/hello_1.3.2-1_noarch.peipkg").exists());
    wait_until("Slurm has completed the build as a job", PATIENCE, || {
        slurm.ended().contains("Name=hello@1.3.2-1 JobState=COMPLETED")
    });
}

#[test]
fn pages_that_only_copy_work() {
    for path in [
        "contrib/cron/README.md",
        "contrib/nginx/README.md",
        "contrib/openrc/README.md",
        "contrib/rclone/README.md",
        "contrib/runit/README.md",
        "contrib/systemd/README.md",
        "contrib/sysvinit/README.md",
        "docs/performance.md",
    ] {
        follow(path, &mut Desk::new(), |_, _| {});
    }
}

#[test]
fn notify_page_commands_work() {
    if !require("curl") {
        return;
    }
    // It takes the place of ntfy.sh.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = String::new();
        let mut buffer = [0; 4096];
        while !request.ends_with("a test\n") {
            let length = stream.read(&mut buffer).unwrap();
            assert!(length > 0, "{request}");
            request += &String::from_utf8_lossy(&buffer[..length]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        request
    });
    let mut desk = Desk::new();
    desk.change("https://ntfy.sh/my-secret-topic", &format!("http://{address}/my-secret-topic"));
    follow("contrib/notify/README.md", &mut desk, |_, _| {});
    let request = server.join().unwrap();
    assert!(
        request.starts_with("POST /my-secret-topic ")
            && request.contains("\r\nTitle: build_failed: hello 1.0-1\r\n"),
        "{request}"
    );
}
