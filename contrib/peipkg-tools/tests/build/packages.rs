//! Builds that must succeed, and the packages that they write.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use crate::archive::{file, list, read, ustar};
use crate::fixture::{FINGERPRINT, Fixture, Run, binary, names, system};

/// 2026-05-01T12:00:00Z, from `date +%s`.
const MTIME: u64 = 1_777_636_800;

const HELLO: &str = r#"license = "CC0-1.0"
homepage = "https://example.org/hello"

[[package]]
name = "hello"
architecture = "noarch"
description = "A greeting."
dependencies = [{ name = "zz", constraint = ">= 2" }, { name = "aa" }]
provides = [{ name = "greeting", version = "1" }]
files = ["usr/share/hello/MESSAGE"]
"#;
const HELLO_SCRIPT: &str =
    "mkdir -p $DESTDIR/usr/share/hello; echo 'Hello, Peios!' >$DESTDIR/usr/share/hello/MESSAGE";
/// Literal, so that a changed order of keys fails the test.
const HELLO_MANIFEST: &str = concat!(
    r#"{"schema_version":1,"name":"hello","version":"1.2-3","architecture":"noarch","description":"A greeting.","#,
    r#""license":"CC0-1.0","homepage":"https://example.org/hello","dependencies":[{"name":"aa"},"#,
    r#"{"name":"zz","constraint":">= 2"}],"optional_dependencies":[],"conflicts":[],"#,
    r#""provides":[{"name":"greeting","version":"1"}],"replaces":[],"side_effects":[],"size_installed":14,"#,
    r#""sd_overrides":[],"build":{"timestamp":"2026-05-01T12:00:00Z","farm_id":"test-farm","#,
    r#""source_ref":"git+https://example.org/x#refs/tags/v1.2"}}"#,
    "\n"
);
/// The hash comes from sha256sum.
const HELLO_FILES: &str = concat!(
    r#"{"schema_version":1,"algorithm":"sha256","entries":[{"path":"usr/share/hello/MESSAGE","size":14,"#,
    r#""hash":"4f91e7c17054930fd12bf2de72f8f31eb44090052475b88dc2338163d642e7ac"}]}"#,
    "\n"
);

/// Makes the archive of the greeting without signature and end.
fn hello_archive() -> Vec<u8> {
    let mut expected = file(".peipkg/manifest.json", HELLO_MANIFEST.as_bytes(), MTIME);
    expected.extend(file(".peipkg/files.json", HELLO_FILES.as_bytes(), MTIME));
    for directory in ["usr/", "usr/share/", "usr/share/hello/"] {
        expected.extend(ustar(directory, '5', "", 0, MTIME));
    }
    expected.extend(file("usr/share/hello/MESSAGE", b"Hello, Peios!\n", MTIME));
    expected
}

#[test]
fn package_unsigned_is_the_same_byte_for_byte() {
    let fixture = Fixture::new(HELLO, HELLO_SCRIPT).with("--sign-key", "");
    let run = fixture.build();
    let path = fixture.path("out/hello_1.2-3_noarch.peipkg");
    assert_eq!((run.stdout, run.stderr), (format!("{}\n", path.display()), String::new()));
    assert_eq!(names(&fixture.path("out")), ["hello_1.2-3_noarch.peipkg"]);
    let mut expected = hello_archive();
    expected.extend([0; 1024]);
    assert!(fixture.tar("hello_1.2-3_noarch.peipkg") == expected, "the archive differs");
    let mode = fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o444, 0o444, "a web server must be able to read it: {mode:o}");
}

#[test]
fn signature_covers_the_bytes_before_it() {
    let fixture = Fixture::new(HELLO, HELLO_SCRIPT);
    fixture.build();
    let bytes = fixture.tar("hello_1.2-3_noarch.peipkg");
    let signed = hello_archive();
    assert!(bytes.starts_with(&signed));
    let entries = read(&bytes, MTIME);
    let envelope = entries.last().unwrap();
    assert_eq!((envelope.path.as_str(), envelope.flag), (".peipkg/signature", '0'));
    let text = envelope.text();
    let start = format!(
        "{{\"schema_version\":1,\"algorithm\":\"ed25519\",\"key_fingerprint\":\"{FINGERPRINT}\",\"signature\":\""
    );
    let signature = text.strip_prefix(&start).and_then(|rest| rest.strip_suffix("\"}\n")).unwrap();
    assert_eq!(signature.len(), 86);

    let Some(hashed) = system("sha256sum", &[], &signed) else { return };
    let digest = hex_bytes(std::str::from_utf8(&hashed.stdout[..64]).unwrap());
    let place = |name| fixture.path(name);
    fs::write(place("digest"), digest).unwrap();
    let public = place("public.pem");
    let key = place("key.pem");
    let derive = ["pkey", "-pubout", "-in"].map(std::ffi::OsStr::new);
    let arguments = [&derive[..], &[key.as_os_str(), "-out".as_ref(), public.as_os_str()]].concat();
    if system("openssl", &arguments, b"").is_none() {
        return;
    }
    let decoded = system(
        "openssl",
        &["base64", "-d", "-A"].map(std::ffi::OsStr::new),
        format!("{signature}==").as_bytes(),
    );
    fs::write(place("signature"), decoded.unwrap().stdout).unwrap();
    let verify = ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey"].map(std::ffi::OsStr::new);
    let (digest, signature) = (place("digest"), place("signature"));
    let rest =
        [public.as_os_str(), "-in".as_ref(), digest.as_os_str(), "-sigfile".as_ref(), signature.as_os_str()];
    let verified = system("openssl", &[&verify[..], &rest].concat(), b"").unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

fn hex_bytes(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

#[test]
fn build_twice_with_both_key_forms_gives_the_same_bytes() {
    let fixture = Fixture::new(HELLO, HELLO_SCRIPT);
    let name = "out/hello_1.2-3_noarch.peipkg";
    fixture.build();
    let first = fs::read(fixture.path(name)).unwrap();
    fixture.build();
    assert!(fs::read(fixture.path(name)).unwrap() == first);
    let raw_key = fixture.path("key.raw").display().to_string();
    let fixture = fixture.with("--sign-key", &raw_key);
    fixture.build();
    assert!(fs::read(fixture.path(name)).unwrap() == first);
}

#[test]
fn path_or_target_long_is_split_or_gets_an_extended_header() {
    let directory = format!("usr/share/{}", "d".repeat(60));
    let (fits, long) = (format!("{directory}/{}", "e".repeat(29)), format!("{directory}/{}", "e".repeat(30)));
    let target = format!("../../../etc/{}", "t".repeat(120));
    let script = format!(
        "mkdir -p $DESTDIR/{directory}; echo a >$DESTDIR/{fits}; echo b >$DESTDIR/{long}; \
         ln -s {target} $DESTDIR/{directory}/link; ln -s {target} $DESTDIR/{directory}/{}",
        "l".repeat(30)
    );
    assert_eq!((fits.len(), long.len()), (100, 101));
    let fixture = Fixture::simple("\"usr/**\"", &script).with("--sign-key", "");
    fixture.build();
    let bytes = fixture.tar("xx_1.2-3_noarch.peipkg");
    let listed = list(&read(&bytes, MTIME));
    let expected = [
        "0 .peipkg/manifest.json".to_owned(),
        "0 .peipkg/files.json".to_owned(),
        "5 usr/".to_owned(),
        "5 usr/share/".to_owned(),
        format!("5 {directory}/"),
        format!("0 {fits}"),
        format!("0 {long}"),
        format!("2 {directory}/link -> {target}"),
        format!("2 {directory}/{} -> {target}", "l".repeat(30)),
    ];
    assert_eq!(listed, expected);
    // POSIX: the length of a record counts its own digits, and the link's header follows.
    let record = format!("147 linkpath={target}\n111 path={directory}/{}\n", "l".repeat(30));
    let at = bytes.windows(record.len()).position(|window| window == record.as_bytes()).unwrap();
    assert_eq!(at % 512, 0);
    assert_eq!((bytes[at - 512 + 156], bytes[at + 512 + 156]), (b'x', b'2'));
    let extended =
        bytes.chunks(512).filter(|block| &block[257..262] == b"ustar" && block[156] == b'x').count();
    assert_eq!(extended, 2, "only what cannot be split has an extended header");
    // An independent reader.
    if let Some(listing) = system("tar", &["-tf", "-"].map(std::ffi::OsStr::new), &bytes) {
        let listing = String::from_utf8(listing.stdout).unwrap();
        let paths: Vec<&str> = expected.iter().map(|line| line[2..].split(" -> ").next().unwrap()).collect();
        assert_eq!(listing.lines().collect::<Vec<_>>(), paths);
    }
}

const SPLIT: &str = r#"
[[package]]
name = "libfoo"
architecture = "x86_64"
side_effects = ["ldconfig"]
files = ["usr/lib/x86_64-linux-peios/libfoo.so.*", "var/lib/foo/"]

[[package]]
name = "libfoo-dev"
architecture = "x86_64"
dependencies = [{ name = "libc-dev" }, { name = "libfoo", same_build = true }]
files = ["usr/include/**", "usr/lib/x86_64-linux-peios/libfoo.so"]

[[package]]
name = "foo-meta"
architecture = "noarch"
files = []
"#;
const SPLIT_SCRIPT: &str = "lib=$DESTDIR/usr/lib/x86_64-linux-peios; mkdir -p $lib $DESTDIR/usr/include/foo $DESTDIR/var/lib/foo
echo so >$lib/libfoo.so.1.2; ln -s libfoo.so.1.2 $lib/libfoo.so.1; ln -s libfoo.so.1 $lib/libfoo.so
echo a >$DESTDIR/usr/include/foo.h; echo b >$DESTDIR/usr/include/foo/b.h; ln $DESTDIR/usr/include/foo.h $DESTDIR/usr/include/hard.h
mkdir $DESTDIR/usr/include/empty";

#[test]
fn build_of_several_packages_makes_each() {
    let fixture = Fixture::new(SPLIT, SPLIT_SCRIPT);
    let run = fixture.build();
    let packages =
        ["foo-meta_1.2-3_noarch.peipkg", "libfoo-dev_1.2-3_x86_64.peipkg", "libfoo_1.2-3_x86_64.peipkg"];
    assert_eq!(names(&fixture.path("out")), packages);
    assert_eq!(run.stdout.lines().count(), 3);
    let expected = "peipkg-build: note: empty directory usr/include/empty is left out; \
        a pattern \"usr/include/empty/\" would claim it\n";
    assert_eq!(run.stderr, expected);
    let payload = |name: &str| {
        let mut listed = list(&read(&fixture.tar(name), MTIME));
        listed.retain(|line| !line.contains(".peipkg/"));
        listed
    };
    assert_eq!(payload(packages[0]), [""; 0]);
    assert_eq!(
        payload(packages[1]),
        [
            "5 usr/",
            "5 usr/include/",
            "0 usr/include/foo.h",
            "5 usr/include/foo/",
            "0 usr/include/foo/b.h",
            "0 usr/include/hard.h",
            "5 usr/lib/",
            "5 usr/lib/x86_64-linux-peios/",
            "2 usr/lib/x86_64-linux-peios/libfoo.so -> libfoo.so.1",
        ]
    );
    assert_eq!(
        payload(packages[2]),
        [
            "5 usr/",
            "5 usr/lib/",
            "5 usr/lib/x86_64-linux-peios/",
            "2 usr/lib/x86_64-linux-peios/libfoo.so.1 -> libfoo.so.1.2",
            "0 usr/lib/x86_64-linux-peios/libfoo.so.1.2",
            "5 var/",
            "5 var/lib/",
            "5 var/lib/foo/",
        ]
    );
    let manifest = read(&fixture.tar(packages[1]), MTIME).remove(0);
    let dependencies = r#""dependencies":[{"name":"libc-dev"},{"name":"libfoo","constraint":"= 1.2-3"}],"#;
    assert!(manifest.text().contains(dependencies), "{}", manifest.text());
    assert!(manifest.text().contains("\"size_installed\":6,"), "{}", manifest.text());
}

#[test]
fn script_gets_exactly_its_environment() {
    let script = "mkdir -p $DESTDIR/etc; tr '\\0' '\\n' </proc/$$/environ | sort >$DESTDIR/etc/env
        pwd >$DESTDIR/etc/pwd; ls -A >$DESTDIR/etc/ls; if read line; then exit 9; fi
        echo to-stdout; echo to-stderr >&2";
    let fixture = Fixture::simple("\"etc/*\"", script).with("--build-env", "TCB_KEY=00=ff");
    fixture.write("source/x", "");
    let run = Run::of(fixture.command().env("SECRET", "1").env("LANG", "de_DE").env("PATH", "/usr/bin:/bin"));
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), "to-stdout\nto-stderr\n"));
    assert!(!run.stdout.contains("to-stdout"), "{}", run.stdout);
    let entries = read(&fixture.tar("xx_1.2-3_noarch.peipkg"), MTIME);
    let content = |path: &str| entries.iter().find(|entry| entry.path == path).unwrap().text();
    let work = content("etc/pwd").trim_end();
    let scratch = work.strip_suffix("/work").unwrap();
    assert!(scratch.starts_with(&*fixture.path("tmp/peipkg-build").display().to_string()), "{scratch}");
    let source = fixture.path("source").display().to_string();
    let expected = format!(
        "DESTDIR={scratch}/staged\nLC_ALL=C\nPATH=/usr/bin:/bin\nSOURCE_DATE_EPOCH=1777636800\n\
         SOURCE_DIR={source}\nTCB_KEY=00=ff\nTZ=UTC\n"
    );
    assert_eq!(content("etc/env"), expected);
    assert_eq!(content("etc/ls"), "", "the script starts in an empty directory");
}

#[test]
fn modes_are_no_part_of_a_package() {
    let script = "mkdir -p $DESTDIR/usr/bin $DESTDIR/usr/share/locked; echo x >$DESTDIR/usr/bin/su
        chmod 4111 $DESTDIR/usr/bin/su; echo y >$DESTDIR/usr/share/locked/y; chmod 0 $DESTDIR/usr/share/locked
        mkdir -p ro/x; echo z >ro/x/z; chmod -R a-w ro";
    let fixture = Fixture::simple("\"usr/**\"", script);
    let run = fixture.build();
    let note = "peipkg-build: note: usr/bin/su is staged with a set-user-ID or set-group-ID bit, \
        which packages do not carry\n";
    assert_eq!(run.stderr, note);
    assert_eq!(read(&fixture.tar("xx_1.2-3_noarch.peipkg"), MTIME).len(), 9);
}

#[test]
fn pack_makes_what_build_makes() {
    let fixture = Fixture::new(HELLO, HELLO_SCRIPT);
    fixture.build();
    let source = fixture.path("staged/usr/share/hello");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("MESSAGE"), "Hello, Peios!\n").unwrap();
    let manifest =
        HELLO_MANIFEST.replace("\"size_installed\":14", "\"size_installed\":0").replace(',', " ,\n");
    fixture.write("manifest.json", &manifest);
    let mut pack = binary();
    pack.arg("pack").arg("--manifest").arg(fixture.path("manifest.json"));
    pack.arg("--staged").arg(fixture.path("staged")).arg("--sign-key").arg(fixture.path("key.pem"));
    pack.arg("--out").arg(fixture.path("packed.peipkg"));
    let run = Run::of(&mut pack);
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    let (packed, built) = (fixture.path("packed.peipkg"), fixture.path("out/hello_1.2-3_noarch.peipkg"));
    assert!(fs::read(packed).unwrap() == fs::read(built).unwrap());

    fixture.write("manifest.json", &manifest.replace("\"hello\"", "\"-h\"").replace("\"aa\"", "\"zz\""));
    let run = Run::of(&mut pack);
    let place = fixture.path("manifest.json").display().to_string();
    let expected = format!(
        "peipkg-build: {place}: name \"-h\" does not start with a lowercase letter or a digit\n\
         peipkg-build: {place}: dependencies: \"zz\" is listed twice\n"
    );
    assert_eq!((run.status, run.stderr), (Some(1), expected));

    let claims = r#""provides":[{"name":"greeting","claims":{"text":{"target":"/usr/share/hello/none"}}}]"#;
    let provides = r#""provides":[{"name":"greeting","version":"1"}]"#;
    fixture.write("manifest.json", &HELLO_MANIFEST.replace(provides, claims));
    let run = Run::of(&mut pack);
    let expected = format!(
        "peipkg-build: {place}: provides: the target of a claim, \"/usr/share/hello/none\", is not in the payload\n"
    );
    assert_eq!((run.status, run.stderr), (Some(1), expected));
    fixture.write("manifest.json", &HELLO_MANIFEST.replace(provides, &claims.replace("none", "MESSAGE")));
    assert_eq!(Run::of(&mut pack).status, Some(0));
}

/// The writer keeps the list of many files once, as text.
#[test]
fn build_of_many_files_takes_little_memory() {
    let script =
        "mkdir -p $DESTDIR/usr/share/xx && cd $DESTDIR/usr/share/xx && seq -f %050g 50000 | xargs touch";
    let fixture = Fixture::simple("\"usr/**\"", script);
    let mut child = fixture.command().stdout(Stdio::null()).spawn().unwrap();
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0));
        sleep(Duration::from_millis(2));
    }
    assert!(child.wait().unwrap().success());
    assert!(peak > 0 && peak < 46 << 10, "{peak} KiB");
}
