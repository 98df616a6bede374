//! Keys for signing binaries: only recipes with a grant get a key.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::client::hex;
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
