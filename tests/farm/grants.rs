//! Keys for signing binaries: only recipes with a grant get a key, and their binaries are signed.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::signed_elf;
use crate::support::client::hex;
use crate::support::executable;
use crate::support::farm::Farm;
use crate::support::git_repo::{GitRepo, run};
use crate::support::recipes::Recipe;

/// A `peipkg-build` that records its arguments, one a line, in `arguments-<recipe>`.
const RECORDER: &str = "#!/bin/sh
for argument; do
    case $argument in */peipkg.toml) recipe=${argument%/*} ;; esac
done
printf '%s\\n' \"$@\" >\"$HOME/arguments-${recipe##*/}\"
exec {real} \"$@\"
";

/// Creates an Ed25519 key with openssl and returns the public key that openssl prints, as
/// hexadecimal digits.
fn openssl_key(path: &Path) -> String {
    run(Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(path));
    let mut public = Command::new("openssl");
    public.args(["pkey", "-pubout", "-outform", "DER", "-in"]).arg(path);
    let der = public.output().expect("openssl runs").stdout;
    // The public key is the end of its SubjectPublicKeyInfo (RFC 8410 §4).
    hex(&der[der.len() - 32..])
}

/// The values that the option `name` had in the recorded arguments of `recipe`.
fn values(farm: &Farm, recipe: &str, name: &str) -> Vec<String> {
    let text = fs::read_to_string(farm.path(&format!("arguments-{recipe}"))).expect("recorded arguments");
    let lines: Vec<&str> = text.lines().collect();
    lines.windows(2).filter(|pair| pair[0] == name).map(|pair| pair[1].to_owned()).collect()
}

#[test]
fn key_reaches_only_the_recipes_that_it_is_granted_to() {
    let repo = GitRepo::program(&["1.0"]);
    let recipe = |id: &str| {
        let dump =
            format!("mkdir -p \"$DESTDIR/usr/share/doc/{id}\"\nenv >\"$DESTDIR/usr/share/doc/{id}/env\"");
        Recipe::program(id, &repo.file_url()).before_build(&dump)
    };
    let keys = "[[signing_key]]
name = \"tcb\"
private = \"{home}/tcb.pem\"
pubkey_env = \"TCB_PUBKEY\"
[[signing_key]]
name = \"boot\"
private = \"{home}/boot.pem\"
[[grant]]
recipe = \"injected\"
inject_pubkey = [\"tcb\"]
[[grant]]
recipe = \"signing\"
sign = [\"boot\", \"tcb\"]
[[grant]]
recipe = \"absent\"
sign = [\"boot\"]
";
    let farm = Farm::builder()
        .with(&recipe("injected"))
        .with(&recipe("signing"))
        .with(&recipe("plain"))
        .config_extra(keys)
        .program("peipkg-build", RECORDER)
        .build();
    let tcb = openssl_key(&farm.path("tcb.pem"));
    openssl_key(&farm.path("boot.pem"));
    let output = farm.once();
    output.assert_success().assert_only_events();
    farm.assert_published(&["injected 1.0-1 noarch", "plain 1.0-1 noarch", "signing 1.0-1 noarch"]);

    assert_eq!(values(&farm, "injected", "--build-env"), [format!("TCB_PUBKEY={tcb}")]);
    assert!(values(&farm, "injected", "--binary-sign-key").is_empty());
    let paths = ["boot", "tcb"].map(|name| format!("{name}={}", farm.path(&format!("{name}.pem")).display()));
    assert_eq!(values(&farm, "signing", "--binary-sign-key"), paths);
    assert!(values(&farm, "signing", "--build-env").is_empty());
    for name in ["--build-env", "--binary-sign-key"] {
        assert!(values(&farm, "plain", name).is_empty());
    }
    assert_eq!(values(&farm, "plain", "--sign-key"), [farm.key_path().display().to_string()]);

    let seen = |id: &str| farm.package(id, "1.0-1").text(&format!("usr/share/doc/{id}/env"));
    assert!(seen("injected").contains(&format!("TCB_PUBKEY={tcb}\n")));
    for id in ["signing", "plain"] {
        assert!(!seen(id).contains("PUBKEY") && !seen(id).contains("tcb"), "{}", seen(id));
    }
    let warning = output.event("recipe warning");
    assert_eq!(warning["level"], "warn");
    let problem = &warning["problem"];
    assert!(problem.ends_with(": [[grant]] recipe \"absent\" does not exist"), "{problem}");
    assert!(!output.stderr.contains(&tcb), "{output}");
}

/// Configures the keys `tcb` and `boot`. The recipe `loader` may sign with `tcb`.
const KEYS: &str = "[[signing_key]]
name = \"tcb\"
private = \"{home}/tcb.pem\"
pubkey_env = \"TCB_PUBKEY\"
[[signing_key]]
name = \"boot\"
private = \"{home}/boot.pem\"
pubkey_env = \"BOOT_PUBKEY\"
[[grant]]
recipe = \"loader\"
sign = [\"tcb\"]
inject_pubkey = [\"tcb\", \"boot\"]
";

/// Compiles a program, which prints the public key that the build got.
const COMPILE: &str = "printf '#include <stdio.h>\\nint main(void) { puts(\"%s\"); return 0; }\\n' \"${TCB_PUBKEY-none}\" >loader.c
cc -o loader loader.c
mkdir -p \"$DESTDIR/usr/bin\"
cp loader \"$DESTDIR/usr/bin/loader\"
cp loader \"$DESTDIR/usr/bin/unsigned\"
";

/// The text of a recipe that signs its program with `key`.
fn signing(recipe: &Recipe, key: &str) -> String {
    let toml = recipe.toml();
    format!("{toml}[[sign]]\npath = \"usr/bin/loader\"\nkey = \"{key}\"\n")
}

#[test]
fn binary_of_a_published_package_is_signed_with_the_granted_key() {
    let upstream = GitRepo::program(&["1.0"]);
    let recipe = |id: &str| Recipe::program(id, &upstream.file_url()).build_sh(COMPILE);
    let (loader, other) = (recipe("loader"), recipe("other"));
    let farm = Farm::builder()
        .recipe("loader", &signing(&loader, "tcb"), &loader.script())
        .recipe("other", &signing(&other, "tcb"), &other.script())
        .config_extra(KEYS)
        .build();
    let public = openssl_key(&farm.path("tcb.pem"));
    openssl_key(&farm.path("boot.pem"));
    let output = farm.once();
    output.assert_success().assert_only_events();
    farm.assert_published(&["loader 1.0-1 noarch"]);
    farm.assert_verifies();

    let package = farm.package("loader", "1.0-1");
    let program = package.content("usr/bin/loader");
    let (signature, hash) = signed_elf::signature(program).expect("a signature");
    assert_eq!((signature.len(), signature[0]), (65, 1));
    for (name, bytes) in [("hash", &hash[..]), ("signature", &signature[1..])] {
        fs::write(farm.path(name), bytes).expect("a file");
    }
    executable::write(&farm.path("program"), program);
    let says = Command::new(farm.path("program")).output().expect("the signed program runs").stdout;
    assert_eq!(String::from_utf8_lossy(&says).trim(), public);
    let verify = "pkeyutl -verify -rawin -inkey tcb.pem -in hash -sigfile signature";
    run(Command::new("openssl").args(verify.split(' ')).current_dir(farm.home()));
    assert!(signed_elf::signature(package.content("usr/bin/unsigned")).is_none());

    let warning = output.event("recipe warning");
    let ungranted = "[[sign]] key \"tcb\" is not granted to this recipe, so its builds fail";
    assert!(warning["problem"].contains(ungranted), "{output}");
    let failed = output.event("build failed");
    assert_eq!(failed["recipe"], "other");
    let error = &failed["error"];
    let expected = "[[sign]] key \"tcb\" is not given; --binary-sign-key tcb=FILE gives it";
    assert!(error.contains("peipkg.toml:") && error.ends_with(expected), "{error}");
}

#[test]
fn check_names_each_sign_key_without_a_grant() {
    let nowhere = "file:///nowhere/at/all.git";
    let recipe = |id: &str, key: &str| signing(&Recipe::program(id, nowhere), key);
    // Injecting a key does not let a recipe sign with it.
    let boot = |path: &str| format!("[[sign]]\npath = \"{path}\"\nkey = \"boot\"\n");
    let farm = Farm::builder()
        .recipe("loader", &(recipe("loader", "tcb") + &boot("usr/bin/x") + &boot("usr/bin/y")), "")
        .recipe("other", &recipe("other", "none"), "")
        .recipe("by-hand", &signing(&Recipe::manual("by-hand"), "tcb"), "")
        .config_extra(KEYS)
        .build();
    openssl_key(&farm.path("tcb.pem"));
    openssl_key(&farm.path("boot.pem"));
    let output = farm.run(&["--check"]);
    let home = farm.home().display();
    let line = |id: &str, key: &str| {
        let file = farm.path(&format!("recipes/{id}/peipkg.toml"));
        let text = fs::read_to_string(&file).expect("a recipe");
        let found = format!("key = \"{key}\"");
        let line = 1 + text.lines().position(|line| line == found).expect("the key");
        format!(
            "{}:{line}: [[sign]] key \"{key}\" is not granted to this recipe, so its builds fail; \
             name the key in sign of its [[grant]] in {home}/config.toml\n",
            file.display()
        )
    };
    let last = format!("{home}/config.toml: the farm starts, but all builds of 2 of 3 recipes will fail\n");
    assert_eq!(output.stdout, line("loader", "boot") + &line("other", "none") + &last, "{output}");
    output.assert_code(1);
}
