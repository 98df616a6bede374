//! Values that are newer than PSD-009 v0.22: built by the real tool, published, and read back from
//! the index.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::fixture::{Fixture, META, Run, binary};
use crate::repo_support::{Farm, Raw, SEED, check, entries, file, link, manifest, pack};

/// The length of a detached signature, and a good one.
const LENGTH: usize = 3310;
const GOOD: [u8; LENGTH] = [1; LENGTH];

/// A recipe of one `noarch` package of everything, with these further keys, signed by the farm's
/// key.
fn fixture(keys: &str, script: &str) -> Fixture {
    let stanza = format!("[[package]]\nname = \"xx\"\narchitecture = \"noarch\"\nfiles = [\"**\"]\n{keys}\n");
    let fixture = Fixture::new(&stanza, script);
    fs::write(fixture.path("key.raw"), SEED).unwrap();
    let key = fixture.path("key.raw").display().to_string();
    fixture.with("--sign-key", &key)
}

/// Builds the package and publishes it in a new farm.
#[track_caller]
fn published(fixture: &Fixture) -> Farm {
    fixture.build();
    let farm = Farm::new();
    let package = fs::read(fixture.path("out/xx_1.2-3_noarch.peipkg")).unwrap();
    farm.put("xx", "1.2-3", "noarch", &package);
    check(&farm.publish(), 0, "");
    check(&farm.verify(), 0, "");
    farm
}

/// Publishes a package of this manifest and payload. Returns exit status and standard error.
fn publish(manifest: Value, payload: Vec<Raw>) -> (Option<i32>, String) {
    let farm = Farm::new();
    farm.put("aa", "1-1", "noarch", &pack(&entries(manifest, payload), Some(SEED)));
    let output = farm.publish();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(farm.listed("active").len(), usize::from(output.status.success()), "{text}");
    (output.status.code(), text.replace(&farm.new_dir().display().to_string(), "NEW"))
}

#[test]
fn root_of_a_dependency_reaches_the_index() {
    let keys = "dependencies = [{ root = \"initramfs.sub\", name = \"libc\", arch = \"any\", constraint = \">= 2\" }]
        optional_dependencies = [{ name = \"busybox\", root = \"initramfs\" }]\nconflicts = [{ name = \"old\" }]";
    let fixture = fixture(keys, "mkdir -p $DESTDIR/etc; echo 1 >$DESTDIR/etc/x");
    let farm = published(&fixture);
    let relations = concat!(
        r#""dependencies":[{"name":"libc","constraint":">= 2","arch":"any","root":"initramfs.sub"}],"#,
        r#""optional_dependencies":[{"name":"busybox","root":"initramfs"}],"conflicts":[{"name":"old"}],"#
    );
    let stream = fixture.tar("xx_1.2-3_noarch.peipkg");
    assert!(String::from_utf8_lossy(&stream).contains(relations));
    for index in ["active", "archive"] {
        let text = fs::read_to_string(farm.repo().join(format!("index/{index}.json"))).unwrap();
        assert!(text.contains(relations), "{text}");
    }
}

#[test]
fn keys_of_a_relation_that_are_unknown_reach_the_index_unchanged() {
    let mut manifest = manifest("aa", "1-1", "noarch");
    let dependency = r#"{"zz":[1.50,{"b":null,"a":1e2}],"name":"libc","root":"a.b","é":"\u00e9"}"#;
    // A conflict has no root, so a root there is as unknown as any other key.
    let conflict = r#"{"root":"/mnt","name":"old","claims":{}}"#;
    manifest["dependencies"] = json!("DEPENDENCIES");
    manifest["conflicts"] = json!("CONFLICTS");
    let mut all = entries(manifest, Vec::new());
    let text = String::from_utf8(all[0].content.clone()).unwrap();
    let text = text.replace("\"DEPENDENCIES\"", &format!("[ {dependency} ]"));
    all[0].content = text.replace("\"CONFLICTS\"", &format!("[\n{conflict}]")).into();
    let farm = Farm::new();
    farm.put("aa", "1-1", "noarch", &pack(&all, Some(SEED)));
    check(&farm.publish(), 0, "");
    let index = fs::read_to_string(farm.repo().join("index/archive.json")).unwrap();
    assert!(index.contains(&format!("\"dependencies\":[{dependency}],")), "{index}");
    assert!(index.contains(&format!("\"conflicts\":[{conflict}],")), "{index}");
}

#[test]
fn pack_keeps_the_root_of_a_dependency_and_no_other() {
    let fixture = fixture("", "");
    let mut manifest = manifest("xx", "1.2-3", "noarch");
    manifest["dependencies"] = json!([{"root": "a.b", "name": "libc"}]);
    manifest["conflicts"] = json!([{"root": "a", "name": "old", "claims": {"bin": {"path": "/etc/x"}}}]);
    let pack = |manifest: &Value| {
        fixture.write("manifest.json", &manifest.to_string());
        let mut command = binary();
        command.arg("pack").arg("--manifest").arg(fixture.path("manifest.json"));
        command.arg("--staged").arg(fixture.path("source")).arg("--out").arg(fixture.path("out/xx.peipkg"));
        Run::of(&mut command)
    };
    assert_eq!(pack(&manifest).status, Some(0));
    let text = String::from_utf8_lossy(&fixture.tar("xx.peipkg")).into_owned();
    assert!(text.contains(r#""dependencies":[{"name":"libc","root":"a.b"}],"#), "{text}");
    assert!(text.contains(r#""conflicts":[{"name":"old"}],"#), "{text}");
    manifest["dependencies"] = json!([{"root": "../a", "name": "libc"}]);
    let place = fixture.path("manifest.json").display().to_string();
    let reason = "dependencies: \"libc\": root \"../a\" is not the name of a root such as initramfs";
    let expected = format!("peipkg-build: {place}: {reason}\n");
    assert_eq!((pack(&manifest).status, pack(&manifest).stderr), (Some(1), expected));
}

#[test]
fn destinations_that_are_new_are_built_and_published() {
    let fixture = fixture(
        "",
        "cd $DESTDIR; mkdir -p usr/lib usr/libexec/x usr/src/dist/x system/x etc
         for file in usr/lib/os-release usr/libexec/x/y usr/src/dist/x/x.tar system/x/y; do echo 1 >$file; done
         ln -s ../usr/lib/os-release etc/os-release; ln -s ../usr/libexec/x/y etc/y",
    );
    let farm = published(&fixture);
    assert_eq!(farm.index("active")["packages"][0]["size_installed"], 8);
    // The link needs no entry of the package at its target.
    let (status, text) = publish(
        manifest("aa", "1-1", "noarch"),
        vec![link("etc/os-release", "../usr/lib/os-release"), link("usr/lib/os-release", "../share/x")],
    );
    assert_eq!((status, text.as_str()), (Some(0), ""));
}

#[test]
fn destinations_at_the_root_and_beside_the_new_ones_are_refused() {
    let paths = [
        "bin/x",
        "lib/x",
        "lib64/x",
        "sbin/x",
        "usr/lib/libexec/x",
        "usr/lib/os-release.d/x",
        "usr/src/linux/x",
    ];
    let script =
        paths.map(|path| format!("file=$DESTDIR/{path}; mkdir -p $file; rmdir $file; echo 1 >$file"));
    let outside = "is outside the permitted destinations (PSD-009 §3.4.1)";
    let mut lines: Vec<String> = paths.iter().map(|path| format!("xx: {path} {outside}")).collect();
    lines.extend(["bin", "lib", "lib64", "sbin"].map(|path| format!("xx: {path} {outside}")));
    lines.extend(
        ["usr/lib/libexec", "usr/lib/os-release.d", "usr/src/linux"]
            .map(|path| format!("xx: {path} {outside}")),
    );
    lines.sort();
    fixture("", &script.join("\n")).fails(1, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    for (entry, expected) in [
        (file("bin/x", b""), outside),
        (link("lib", "usr/lib"), outside),
        (Raw { typeflag: b'5', ..file("sbin/", b"") }, outside),
        (Raw { typeflag: b'5', ..file("usr/lib/os-release/", b"") }, outside),
        (link("etc/x", "../lib64/ld.so"), "leads outside the permitted destinations (PSD-009 §3.4.8)"),
    ] {
        let (status, text) = publish(manifest("aa", "1-1", "noarch"), vec![entry]);
        assert!(status == Some(1) && text.contains(expected), "{text}");
    }
}

#[test]
fn description_of_any_script_is_built_and_published() {
    let description = "Ein Werkzeug — für “alle”, ab 5 € (漢字, עברית) <b>";
    let fixture = fixture(&format!("description = \"{description}\""), "");
    let farm = published(&fixture);
    assert_eq!(farm.index("active")["packages"][0]["description"], description);
    let stream = fixture.tar("xx_1.2-3_noarch.peipkg");
    let text = format!("\"description\":\"{description}\",");
    assert!(String::from_utf8_lossy(&stream).contains(&text), "escaped");
}

#[test]
fn description_with_an_invisible_character_is_refused_by_both_tools() {
    for (character, code) in
        [('\u{a0}', "U+00A0"), ('\u{202e}', "U+202E"), ('\u{e000}', "U+E000"), ('\u{fffd}', "U+FFFD")]
    {
        let reason = format!(
            "has the character {code}; allowed are letters, marks, numbers, punctuation, symbols and the space U+0020"
        );
        let text = format!("a{character}b");
        let line = format!(
            "{{}}/recipe/peipkg.toml:{}: [[package]] description {text:?} {reason}",
            META.lines().count() + 5
        );
        fixture(&format!("description = \"{text}\""), "").fails(1, &[&line]);
        let mut manifest = manifest("aa", "1-1", "noarch");
        manifest["description"] = json!(text);
        let expected = format!(
            "peipkg-repo: NEW/aa_1-1_noarch.peipkg: .peipkg/manifest.json: description {text:?} {reason}\n"
        );
        assert_eq!(publish(manifest, Vec::new()), (Some(1), expected));
    }
}

#[test]
fn detached_signature_beside_its_file_is_built_and_published() {
    let script = "mkdir -p $DESTDIR/usr/bin; cd $DESTDIR/usr/bin; echo '#!/bin/sh' >x; : >x-y; : >x.conf
        { printf '\\001'; head -c 3309 /dev/zero; } >x.peios.sig; cp x.peios.sig x.peios.sig.peios.sig";
    published(&fixture("", script));
}

#[test]
fn detached_signature_wrong_is_refused_by_both_tools() {
    let elf = b"\x7fELF\x02";
    let first = |byte: u8| [&[byte][..], &GOOD[1..]].concat();
    let length = "is a detached signature, which has exactly 3310 bytes";
    let none = "signs a regular file of the same package, which has none of that name";
    let no_file = "has the name of a detached signature but is no regular file";
    let own = |content: &[u8]| file("opt/x", content);
    let signature = |content: &[u8]| file("opt/x.peios.sig", content);
    let cases: [(Vec<Raw>, &str); 9] = [
        (vec![own(b""), signature(&GOOD[1..])], length),
        (vec![own(b"1"), signature(&[&GOOD[..], b"1"].concat())], length),
        (vec![own(b"1"), signature(b"")], length),
        (vec![own(b"1"), signature(&first(0))], "is a detached signature, whose first byte must be 0x01"),
        (vec![own(elf), signature(&GOOD)], "signs an ELF file, whose signature belongs into the file itself"),
        (vec![signature(&GOOD)], none),
        (vec![file("opt/.peios.sig", &GOOD)], none),
        (vec![link("opt/x", "y"), signature(&GOOD)], none),
        (vec![own(b"1"), link("opt/x.peios.sig", "x")], no_file),
    ];
    for (payload, reason) in cases {
        let path = payload.last().unwrap().path.clone();
        let (status, text) = publish(manifest("aa", "1-1", "noarch"), payload.clone());
        let expected = format!("peipkg-repo: NEW/aa_1-1_noarch.peipkg: entry {path:?} {reason}\n");
        assert_eq!((status, text), (Some(1), expected));
        let fixture = fixture("", "cp -a $SOURCE_DIR/. $DESTDIR/");
        fs::create_dir(fixture.path("source/opt")).unwrap();
        for raw in payload {
            let place = fixture.path("source").join(raw.path);
            match raw.typeflag {
                b'2' => std::os::unix::fs::symlink(raw.link, place).unwrap(),
                _ => fs::write(place, raw.content).unwrap(),
            }
        }
        fixture.fails(1, &[&format!("xx: {path} {reason}")]);
    }
}

#[test]
fn values_that_deployed_clients_refuse_are_published_with_a_warning() {
    let mut described = manifest("aa", "1-1", "noarch");
    described["dependencies"] = json!([{"name": "libGL.so.1"}, {"name": "pkgconfig(zlib)"}]);
    described["provides"] = json!([
        {"name": "VirtName.so+1", "version": "2.0-1"}, {"name": "cmd(sh)"}, {"name": "http-server", "version": "1.27.0"},
        {"name": "lib_x.so"}, {"name": "smtp", "version": "3"},
    ]);
    let index = "deployed clients refuse an index with a virtual name that is neither a package name \
        (PSD-009 §2.1) nor namespace(argument), and with it all packages of the repository";
    let version = "deployed clients refuse a package that provides a version without revision, such as -1";
    let lines = [
        format!("dependencies: \"libGL.so.1\": {index}"),
        format!("provides: \"VirtName.so+1\" and 1 more: {index}"),
        format!("provides: version \"1.27.0\" and 1 more: {version}"),
    ];
    let lines = lines.map(|line| format!("peipkg-repo: warning: NEW/aa_1-1_noarch.peipkg: {line}\n"));
    assert_eq!(publish(described, Vec::new()), (Some(0), lines.concat()));
    // Nothing to warn of.
    let mut described = manifest("aa", "1-1", "noarch");
    described["provides"] = json!([{"name": "libstdc++.so.6", "version": "2.0-1"}, {"name": "pc(gtk+-3.0)"}]);
    assert_eq!(publish(described, Vec::new()), (Some(0), String::new()));
}

#[test]
fn paths_over_the_formats_limits_are_refused_with_the_limit() {
    let deep = format!("mkdir -p $DESTDIR/etc{}", "/d".repeat(256));
    let line = format!(
        "{:?} has more than 256 components, the most that are allowed (PSD-009 §3.2.10)",
        format!("etc{}", "/d".repeat(256))
    );
    fixture("", &deep).fails(1, &[&line]);
    let component = "c".repeat(250);
    let script = format!(
        "cd $DESTDIR; for at in opt {0}{1} {2}; do mkdir $at; cd $at; done; : >{3}",
        format!("{component} ").repeat(15),
        "",
        "d".repeat(150),
        "e".repeat(200)
    );
    let path = format!("opt/{}{}/{}", format!("{component}/").repeat(15), "d".repeat(150), "e".repeat(200));
    let line = format!("{path:?} is longer than 4096 bytes, the most that is allowed (PSD-009 §3.2.7)");
    fixture("", &script).fails(1, &[&line]);
}

/// The recipes whose files the build need not sign.
#[test]
fn recipes_of_the_official_set_are_built() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/official-recipes");
    let mut built = 0;
    for recipe in fs::read_dir(directory).unwrap() {
        let recipe = recipe.unwrap().path();
        let text = fs::read_to_string(recipe.join("peipkg.toml")).unwrap();
        if text.contains("[[sign]]") {
            continue;
        }
        let fixture = fixture("", "");
        let run = fixture.with("--recipe", &recipe.join("peipkg.toml").display().to_string()).build();
        assert_eq!(run.stderr, "", "{}", recipe.display());
        built += 1;
    }
    assert_eq!(built, 8);
}
