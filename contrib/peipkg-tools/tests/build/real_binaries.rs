//! Signs programs and libraries that cc and rustc make. readelf and the programs themselves must find
//! them intact, and openssl the signature valid.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::elf;
use crate::optional::require;
use crate::signing::{KEY, binary_sign};

const PROGRAM: &str = "#include <stdio.h>
static int table[3] = {1, 2, 3};
int main(int count, char **words) {
    for (int at = 0; at < 3; at++) printf(\"%d %s\\n\", table[at] * count, count > 1 ? words[1] : \"-\");
    return 7;
}
";
const LIBRARY: &str = "int triple(int number) { return 3 * number; }\n";
const CALLER: &str = "#include <dlfcn.h>
#include <stdio.h>
int main(int count, char **words) {
    void *library = dlopen(words[1], RTLD_NOW);
    if (!library) { puts(dlerror()); return 1; }
    int (*triple)(int) = (int (*)(int))dlsym(library, \"triple\");
    printf(\"%d %d\\n\", triple(14), count);
    return 0;
}
";
const RUST: &str = "fn main() { println!(\"{:?}\", std::env::args().skip(1).collect::<Vec<_>>()) }\n";

#[track_caller]
fn run(program: impl AsRef<OsStr>, arguments: &[&str], place: &Path) -> Output {
    let program = program.as_ref();
    let output = Command::new(program).args(arguments).current_dir(place).output();
    output.unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

/// Runs a program that must succeed and complain about nothing.
#[track_caller]
fn succeed(program: &str, arguments: &[&str], place: &Path) -> String {
    let output = run(program, arguments, place);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && complaint.is_empty(), "{program} {arguments:?}: {complaint}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Signs the file `name`, and compares what programs say about it before and after. `tried` runs it.
#[track_caller]
fn check(name: &str, place: &Path, tried: &[&str]) {
    let path = place.join(name);
    let dumps = ["-lsdnrW", "--debug-dump=info"];
    let look = || (run(tried[0], &tried[1..], place), dumps.map(|dump| run("readelf", &[dump, name], place)));
    let plain = fs::read(&path).unwrap();
    let before = look();
    let signed = binary_sign(&path);
    assert_eq!((signed.status, signed.stderr.as_str()), (Some(0), ""), "{name}");
    let bytes = fs::read(&path).unwrap();
    assert!(bytes == elf::signed(&plain, KEY).unwrap(), "{name}: the bytes differ");
    assert_eq!(look(), before, "{name}");

    let sections = succeed("readelf", &["-SW", name], place);
    let section: Vec<&str> = sections.lines().filter(|line| line.contains(" .peios.sig ")).collect();
    let [section] = section[..] else { panic!("{name}: {sections}") };
    let fields: Vec<&str> = section.split("PROGBITS").nth(1).unwrap().split_whitespace().collect();
    let offset = format!("{:06x}", plain.len());
    assert_eq!(fields, ["0000000000000000", &offset, "000041", "00", "0", "0", "1"], "{name}");
    verify(&bytes, place);
}

/// Lets openssl verify the signature of a file.
#[track_caller]
fn verify(file: &[u8], place: &Path) {
    let (signature, hash) = elf::signature(file).unwrap();
    fs::write(place.join("hash"), hash).unwrap();
    fs::write(place.join("signature"), &signature[1..]).unwrap();
    let arguments = "pkeyutl -verify -rawin -pubin -inkey public.pem -in hash -sigfile signature";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    assert_eq!(succeed("openssl", &arguments, place), "Signature Verified Successfully\n");
    assert_eq!((signature[0], signature.len()), (1, 65));
}

/// Makes a directory with the sources, and the public key as openssl derives it.
fn workshop() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    for (name, text) in
        [("program.c", PROGRAM), ("library.c", LIBRARY), ("caller.c", CALLER), ("program.rs", RUST)]
    {
        fs::write(place.path().join(name), text).unwrap();
    }
    // The head of a private key in PKCS#8 (RFC 8410 §7).
    let head = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    fs::write(place.path().join("key.der"), [&head[..], KEY].concat()).unwrap();
    let arguments = ["pkey", "-inform", "DER", "-in", "key.der", "-pubout", "-out", "public.pem"];
    succeed("openssl", &arguments, place.path());
    place
}

#[test]
fn programs_of_cc_signed_are_intact() {
    if !["cc", "readelf", "openssl", "strip"].into_iter().all(require) {
        return;
    }
    let place = workshop();
    for (name, flags) in [
        ("plain", &[][..]),
        ("pie", &["-pie", "-fPIE"]),
        ("fixed", &["-no-pie"]),
        ("static", &["-static"]),
        ("debug", &["-g3"]),
        ("compressed", &["-g", "-gz"]),
        ("stripped", &["-s"]),
        ("many", &["-ffunction-sections", "-Wl,--emit-relocs"]),
    ] {
        succeed("cc", &[flags, &["-o", name, "program.c"]].concat(), place.path());
        check(name, place.path(), &[&format!("./{name}"), "word"]);
    }
    // A signed program may be stripped of its debug information, and then signed again.
    succeed("strip", &["-R", ".peios.sig", "-o", "again", "debug"], place.path());
    check("again", place.path(), &["./again", "word"]);
}

#[test]
fn libraries_signed_are_loaded() {
    if !["cc", "readelf", "openssl"].into_iter().all(require) {
        return;
    }
    let place = workshop();
    succeed("cc", &["-o", "caller", "caller.c"], place.path());
    for (name, flag) in [("library.so", "-O2"), ("debug.so", "-g"), ("stripped.so", "-s")] {
        succeed("cc", &["-shared", "-fPIC", flag, "-o", name, "library.c"], place.path());
        check(name, place.path(), &["./caller", &format!("./{name}")]);
        assert_eq!(succeed("./caller", &[&format!("./{name}")], place.path()), "42 2\n");
    }
    // An object file has no segments; the linker still takes it.
    succeed("cc", &["-c", "-o", "library.o", "library.c"], place.path());
    check("library.o", place.path(), &["cc", "-shared", "-o", "linked.so", "library.o"]);
    assert_eq!(succeed("./caller", &["./linked.so"], place.path()), "42 2\n");
}

#[test]
fn programs_of_rustc_signed_are_intact() {
    if !["rustc", "readelf", "openssl"].into_iter().all(require) {
        return;
    }
    let place = workshop();
    for (name, flag) in
        [("rust", "-Copt-level=1"), ("rust-debug", "-Cdebuginfo=1"), ("rust-stripped", "-Cstrip=symbols")]
    {
        succeed("rustc", &[flag, "-o", name, "program.rs"], place.path());
        check(name, place.path(), &[&format!("./{name}"), "a", "b"]);
    }
}
