//! `peipkg-repo compare`: equal or not, and where packages differ.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fixture::{Run, binary};

struct Pair {
    home: tempfile::TempDir,
}

impl Pair {
    fn new() -> Self {
        let pair = Self { home: tempfile::tempdir().unwrap() };
        fs::write(pair.path("key"), [1; 32]).unwrap();
        fs::write(pair.path("other-key"), [2; 32]).unwrap();
        pair
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Builds a package named `name`, at `time`, with the files that `script` makes below `usr/share/t`.
    #[track_caller]
    fn build(&self, name: &str, script: &str, time: &str, key: Option<&str>) -> PathBuf {
        let recipe = self.path("recipe");
        fs::create_dir_all(&recipe).unwrap();
        fs::create_dir_all(self.path("source")).unwrap();
        fs::write(
            recipe.join("peipkg.toml"),
            "[meta]\nlicense = \"MIT\"\nbuild_script = \"build.sh\"\n[[package]]\nname = \"tt\"\n\
             architecture = \"noarch\"\ndescription = \"t\"\nfiles = [\"usr/**\"]\n",
        )
        .unwrap();
        let script =
            format!("set -eu\nmkdir -p \"$DESTDIR/usr/share/t\"; cd \"$DESTDIR/usr/share/t\"\n{script}\n");
        fs::write(recipe.join("build.sh"), script).unwrap();
        let out = self.path(name);
        let mut command = binary();
        command
            .arg("build")
            .arg("--recipe")
            .arg(recipe.join("peipkg.toml"))
            .arg("--source")
            .arg(self.path("source"));
        command.args(["--version", "1-1", "--source-ref", "x", "--farm-id", "f", "--timestamp", time]);
        command.arg("--out").arg(&out);
        if let Some(key) = key {
            command.arg("--sign-key").arg(self.path(key));
        }
        let run = Run::of(&mut command);
        assert_eq!(run.status, Some(0), "{}", run.stderr);
        out.join("tt_1-1_noarch.peipkg")
    }

    fn script(&self, name: &str, script: &str) -> PathBuf {
        self.build(name, script, TIME, Some("key"))
    }
}

const TIME: &str = "2026-01-01T00:00:00Z";

fn compare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peipkg-repo"));
    command.arg("compare");
    command
}

/// Compares two files; checks the exit status and the lines on standard output.
#[track_caller]
fn check(first: &Path, second: &Path, code: i32, lines: &[&str]) {
    let run = Run::of(compare().arg("--first").arg(first).arg("--second").arg(second));
    assert_eq!(
        (run.stdout.lines().collect::<Vec<_>>(), run.status),
        (lines.to_vec(), Some(code)),
        "{}",
        run.stderr
    );
}

#[test]
fn equal_packages_are_equal() {
    let pair = Pair::new();
    check(&pair.script("a", "echo x >x"), &pair.script("b", "echo x >x"), 0, &[]);
}

#[test]
fn members_that_differ_are_named_payload_first() {
    let pair = Pair::new();
    let a = pair
        .script("a", "printf 0123456789abcdef >x; echo 1 >only; ln -s x l; ln -s x k; mkdir d; echo >d/f");
    let b = pair
        .script("b", "printf 01234567/9abcdef >x; ln -s y l; echo y >y; ln -s x k; echo >d; printf 0123 >z");
    let lines = [
        "usr/share/t/d: is only in the second",
        "usr/share/t/d/: is only in the first",
        "usr/share/t/d/f: is only in the first",
        "usr/share/t/l: leads to \"x\" in the first, to \"y\" in the second",
        "usr/share/t/only: is only in the first",
        "usr/share/t/x: differs at byte 8: 3839616263646566 \"89abcdef\", 2f39616263646566 \"/9abcdef\"",
        "usr/share/t/y: is only in the second",
        "usr/share/t/z: is only in the second",
    ];
    let run = Run::of(compare().arg("--first").arg(&a).arg("--second").arg(&b));
    let found: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(found[..lines.len()], lines, "{}", run.stdout);
    assert!(found[lines.len()].starts_with(".peipkg/manifest.json: differs at byte "), "{}", run.stdout);
    assert!(found[lines.len() + 1].starts_with(".peipkg/files.json: differs at byte "), "{}", run.stdout);
    assert_eq!((found.len(), run.status), (lines.len() + 2, Some(1)));
}

#[test]
fn offset_is_right_beyond_the_first_chunk_and_at_the_end() {
    let pair = Pair::new();
    let a = pair.script("a", "head -c 1000000 /dev/zero >big");
    let b = pair.script("b", "head -c 1000000 /dev/zero >big; printf '\\377' | dd of=big bs=1 seek=500001 conv=notrunc status=none");
    let run = Run::of(compare().arg("--first").arg(&a).arg("--second").arg(&b));
    let line = "usr/share/t/big: differs at byte 500001: 0000000000000000, ff00000000000000\n";
    assert!(run.stdout.starts_with(line), "{}", run.stdout);
    let c = pair.script("c", "head -c 1000001 /dev/zero >big");
    let run = Run::of(compare().arg("--first").arg(&a).arg("--second").arg(&c));
    let line = "usr/share/t/big: differs at byte 1000000: the end, 00; it has 1000000 bytes in the first, 1000001 in the second\n";
    assert!(run.stdout.starts_with(line), "{}", run.stdout);
}

#[test]
fn many_differences_are_counted() {
    let pair = Pair::new();
    let script = |text: &str| format!("for n in $(seq 40); do echo {text} >$n; done");
    let (a, b) = (pair.script("a", &script("a")), pair.script("b", &script("b")));
    let run = Run::of(compare().arg("--first").arg(&a).arg("--second").arg(&b));
    assert_eq!(run.stdout.lines().count(), 11);
    // The documents count too; the manifest is the same, as sizes are.
    assert_eq!(run.stdout.lines().last(), Some("and 31 more"));
}

#[test]
fn time_alone_is_a_difference() {
    let pair = Pair::new();
    let a = pair.script("a", "echo x >x");
    let b = pair.build("b", "echo x >x", "2026-01-01T00:01:00Z", Some("key"));
    let run = Run::of(compare().arg("--first").arg(&a).arg("--second").arg(&b));
    assert!(
        run.stdout.contains("the times of the entries differ: 1767225600, 1767225660\n"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains(".peipkg/manifest.json: differs at byte "), "{}", run.stdout);
    assert_eq!(run.status, Some(1));
}

#[test]
fn signature_by_another_key_and_other_compression_are_no_difference() {
    let pair = Pair::new();
    let a = pair.script("a", "echo x >x");
    let b = pair.build("b", "echo x >x", TIME, Some("other-key"));
    let [one, other] = [
        "34750f98bd59fcfc946da45aaabe933be154a4b5094e1c4abf42866505f3c97e",
        "6a3803d5f059902a1c6dafbc9ba4729212f7caac08634cc3ae76b27529f03827",
    ];
    let line =
        format!("the same but for the signature: the first is by key {one}, the second by key {other}");
    check(&a, &b, 0, &[&line]);
    let tar = zstd::decode_all(fs::read(&a).unwrap().as_slice()).unwrap();
    let loose = pair.path("loose.peipkg");
    fs::write(&loose, zstd::encode_all(tar.as_slice(), 1).unwrap()).unwrap();
    if fs::read(&loose).unwrap() != fs::read(&a).unwrap() {
        check(&a, &loose, 0, &["the same but for the compression"]);
    }
    // One key cannot make two signatures.
    let mut bad = tar.clone();
    let at = bad.windows(13).rposition(|window| window == b"\"signature\":\"").unwrap() + 20;
    bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
    fs::write(&loose, zstd::encode_all(bad.as_slice(), 3).unwrap()).unwrap();
    let line = format!(".peipkg/signature: key {one} cannot have made both, one signature is altered");
    check(&a, &loose, 1, &[&line]);
    let unsigned = pair.build("c", "echo x >x", TIME, None);
    check(&a, &unsigned, 1, &[".peipkg/signature: is only in the first"]);
}

#[test]
fn damaged_package_is_compared_by_bytes_and_missing_one_is_an_error() {
    let pair = Pair::new();
    let a = pair.script("a", "echo x >x");
    let cut = pair.path("cut");
    let bytes = fs::read(&a).unwrap();
    fs::write(&cut, &bytes[..100]).unwrap();
    let run = Run::of(compare().arg("--first").arg(&a).arg("--second").arg(&cut));
    assert!(run.stdout.starts_with("the files differ at byte 100: "), "{}", run.stdout);
    assert!(run.stdout.contains(", the end\ncannot read the second package: "), "{}", run.stdout);
    assert_eq!(run.status, Some(1));
    // Equal bytes are equal, whatever they are.
    check(&cut, &cut, 0, &[]);
    let none = pair.path("none");
    check(&a, &none, 2, &[]);
    check(&none, &a, 2, &[]);
    assert!(Command::new("mkfifo").arg(&none).status().unwrap().success());
    check(&a, &none, 2, &[]);
    let run = Run::of(compare().args(["--first", "x"]));
    assert_eq!((run.status, run.stdout.as_str()), (Some(2), ""));
}
