//! Signing binaries: `binary-sign`, `--binary-sign-key` and `[[sign]]`, against samples that the
//! deployed program made.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::elf;
use crate::executable;
use crate::fixture::{Fixture, META, Run, binary, names};
use crate::optional::not_permitted;

/// The binary of the sample, before and after.
pub(crate) const SAMPLE: &[u8] = include_bytes!("../samples/inputs/plain.elf");
pub(crate) const SIGNED_SAMPLE: &[u8] = include_bytes!("../samples/inputs/signed.elf");
/// The seed of the key that signed it.
pub(crate) const KEY: &[u8; 32] = include_bytes!("../samples/binary-key.seed");

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/samples");

/// Runs `binary-sign` with the key of the sample.
pub(crate) fn binary_sign(path: &Path) -> Run {
    let mut command = binary();
    command.args(["binary-sign", "--in"]).arg(path).arg("--key").arg(format!("{SAMPLES}/binary-key.seed"));
    Run::of(&mut command)
}

/// Signs the file at `path`, which must fail with this line and change nothing in its directory.
#[track_caller]
fn is_refused(path: &Path, reason: &str) {
    let directory = path.parent().unwrap();
    let state = || (names(directory), fs::symlink_metadata(path).ok().map(|it| (it.ino(), it.ctime_nsec())));
    let before = state();
    let run = binary_sign(path);
    let expected = format!("peipkg-build: cannot sign {}: {reason}", path.display());
    assert!(run.stderr.starts_with(&expected), "{:?}, expected {expected:?}", run.stderr);
    assert_eq!((run.status, run.stdout.as_str(), run.stderr.lines().count()), (Some(1), "", 1));
    assert_eq!(state(), before);
}

#[test]
fn binary_is_signed_as_by_the_deployed_program() {
    let place = tempfile::tempdir().unwrap();
    for (name, mode) in [("a", 0o755), ("b", 0o600), ("c", 0o444), ("d", 0o4751)] {
        let path = place.path().join(name);
        fs::write(&path, SAMPLE).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let run = binary_sign(&path);
        assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (Some(0), "", ""));
        assert!(fs::read(&path).unwrap() == SIGNED_SAMPLE, "the bytes differ");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
        is_refused(&path, "it is signed already: it has a section named .peios.sig\n");
    }
    assert_eq!(names(place.path()), ["a", "b", "c", "d"]);
    assert!(elf::is_signed(SIGNED_SAMPLE, KEY) && elf::signed(SAMPLE, KEY).unwrap() == SIGNED_SAMPLE);
}

#[test]
fn path_without_directory_is_signed() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("tool"), SAMPLE).unwrap();
    let mut command = binary();
    command.args(["binary-sign", "--key"]).arg(format!("{SAMPLES}/binary-key.seed")).args(["--in", "tool"]);
    assert_eq!(Run::of(command.current_dir(place.path())).status, Some(0));
    assert!(fs::read(place.path().join("tool")).unwrap() == SIGNED_SAMPLE);
}

#[test]
fn file_unfit_is_refused_and_unchanged() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    is_refused(&at("absent"), "No such file or directory");
    fs::create_dir(at("directory")).unwrap();
    is_refused(&at("directory"), "Is a directory");
    assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
    is_refused(&at("fifo"), "is a FIFO, expected a regular file");
    fs::write(at("real"), SAMPLE).unwrap();
    symlink("real", at("link")).unwrap();
    is_refused(&at("link"), "it is a symbolic link, expected the file that it leads to");
    let spoil = |name: &str, at: usize, value: &[u8]| {
        let mut bytes = SAMPLE.to_vec();
        bytes[at..at + value.len()].copy_from_slice(value);
        let path = place.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    fs::write(at("script"), "#!/bin/sh\n").unwrap();
    is_refused(&at("script"), "it is not a 64-bit little-endian ELF file\n");
    is_refused(&spoil("elf32", 4, &[1]), "it is not a 64-bit little-endian ELF file\n");
    is_refused(&spoil("big-endian", 5, &[2]), "it is not a 64-bit little-endian ELF file\n");
    is_refused(&spoil("none", 60, &[0, 0]), "it has no usable section headers: found 0 of 64 bytes");
    is_refused(&spoil("shstrndx", 62, &[6, 0]), "malformed ELF file: e_shstrndx is 6, expected the index");
    let past = "malformed ELF file: section headers of 384 bytes at offset 18446744073709551615 end behind";
    is_refused(&spoil("shoff", 40, &[0xff; 8]), past);
    assert!(fs::read(at("real")).unwrap() == SAMPLE);
}

/// A file without end, whose headers ask for all of it, costs little memory.
#[test]
fn file_large_or_hostile_is_signed_in_little_memory() {
    const LENGTH: u64 = 192 << 20;
    let place = tempfile::tempdir().unwrap();
    let limited = |path: &Path| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -d 32768; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_peipkg-build")]);
        shell.args(["binary-sign", "--in"]).arg(path).arg("--key").arg(format!("{SAMPLES}/binary-key.seed"));
        Run::of(&mut shell)
    };
    let path = place.path().join("large");
    fs::write(&path, SAMPLE).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(LENGTH).unwrap();
    let run = limited(&path);
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""));
    let file = fs::File::open(&path).unwrap();
    assert!(file.metadata().unwrap().len() > LENGTH + 65);

    // Its names have 192 MiB.
    let mut bytes = SAMPLE.to_vec();
    let table = usize::try_from(u64::from_le_bytes(*bytes[40..].first_chunk().unwrap())).unwrap();
    let names = table + 64 * usize::from(bytes[62]);
    bytes[names + 24..names + 32].fill(0);
    bytes[names + 32..names + 40].copy_from_slice(&LENGTH.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(LENGTH).unwrap();
    let run = limited(&path);
    let expected = "its section names have 201326592 bytes, at most 67108864 are read\n";
    assert!(run.status == Some(1) && run.stderr.ends_with(expected), "{}", run.stderr);
}

#[test]
fn signal_leaves_the_file_unsigned_and_nothing_beside_it() {
    // Long enough to be signed for a second; most of it is not written.
    const LENGTH: u64 = 1 << 30;
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("large");
    fs::write(&path, SAMPLE).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(LENGTH).unwrap();
    let mut command = binary();
    command.args(["binary-sign", "--in"]).arg(&path).arg("--key").arg(format!("{SAMPLES}/binary-key.seed"));
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while names(place.path()).len() < 2 {
        assert!(Instant::now() < deadline, "no temporary file");
        sleep(Duration::from_millis(1));
    }
    let killed = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let expected = format!("peipkg-build: cannot sign {}: interrupted by signal 15\n", path.display());
    assert_eq!((killed.success(), output.status.code()), (true, Some(1)));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
    assert_eq!(names(place.path()), ["large"]);
    assert_eq!(fs::metadata(&path).unwrap().len(), LENGTH);
}

#[test]
fn binary_sign_command_line_wrong_is_refused() {
    let run = |arguments: &[&str]| Run::of(binary().arg("binary-sign").args(arguments));
    for (arguments, line) in [
        (&["--key", "k"][..], "missing required flag --in"),
        (&["--in", "x"], "missing required flag --key"),
        (&["--in", "x", "--key", "k", "--out", "y"], "unknown flag --out; --help lists the flags"),
    ] {
        let wrong = run(arguments);
        let line = format!("peipkg-build: {line}\n");
        assert_eq!((wrong.status, wrong.stdout.as_str(), wrong.stderr), (Some(2), "", line), "{arguments:?}");
    }
    let wrong = run(&["--in", "/bin/sh", "--key", "/nonexistent"]);
    let line = "peipkg-build: /nonexistent: cannot read the key: No such file or directory (os error 2)\n";
    assert_eq!((wrong.status, wrong.stderr.as_str()), (Some(1), line));
}

/// Makes a build whose script stages the sample as `usr/bin/x`, and runs `script` there.
fn staged_sample(sign: &str, script: &str) -> Fixture {
    let stanza = "[[package]]\nname = \"xx\"\narchitecture = \"x86_64\"\nfiles = [\"**\"]\n";
    let stage = "mkdir -p \"$DESTDIR/usr/bin\"; cp \"$SOURCE_DIR/plain.elf\" \"$DESTDIR/usr/bin/x\"; cd \"$DESTDIR/usr\"";
    let fixture = Fixture::new(&format!("{stanza}{sign}"), &format!("{stage}\n{script}"));
    fs::write(fixture.path("source/plain.elf"), SAMPLE).unwrap();
    fixture.with("--binary-sign-key", &format!("tcb={SAMPLES}/binary-key.seed"))
}

fn sign(path: &str) -> String {
    format!("[[sign]]\npath = \"{path}\"\nkey = \"tcb\"\n")
}

/// The files of the one package of a build.
fn contents(fixture: &Fixture) -> Vec<(String, Vec<u8>)> {
    fixture.build();
    let tar = fixture.tar("xx_1.2-3_x86_64.peipkg");
    let mut archive = tar::Archive::new(&tar[..]);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        (String::from_utf8(entry.path_bytes().into_owned()).unwrap(), content)
    });
    entries.filter(|(path, content)| path.starts_with("usr/") && !content.is_empty()).collect()
}

#[test]
fn recipe_of_the_sample_gives_the_deployed_package() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).display().to_string();
    let inputs = format!("{SAMPLES}/inputs/signed-binary");
    let source = fs::File::open(format!("{inputs}/source.tar")).unwrap();
    tar::Archive::new(source).unpack(at("source")).unwrap();
    let mut command = binary();
    command.args(["build", "--recipe", &format!("{inputs}/peipkg.toml"), "--source", &at("source")]);
    command.args(["--version", "1.2.3-1", "--source-ref", "git+https://example.org/x#refs/tags/v1.2.3"]);
    command.args(["--farm-id", "sample", "--timestamp", "2024-03-15T10:30:00Z", "--out", &at("out")]);
    command.args(["--sign-key", &format!("{SAMPLES}/key.seed")]);
    command.args(["--binary-sign-key", &format!("tcb={SAMPLES}/binary-key.seed")]);
    let run = Run::of(&mut command);
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    let name = "signed-binary_1.2.3-1_x86_64.peipkg";
    let tar = |path: String| zstd::decode_all(&fs::read(path).unwrap()[..]).unwrap();
    assert!(tar(at(&format!("out/{name}"))) == tar(format!("{SAMPLES}/packages/{name}")), "the bytes differ");
}

#[test]
fn staged_binaries_are_signed_before_they_are_hashed() {
    let entries = sign("usr/bin/x") + &sign("usr/lib/../share/./deep//y/");
    let script =
        "mkdir -p share/deep; cp bin/x share/deep/y; cp bin/x bin/z; chmod 111 bin/x; ln -s deep share/link";
    let signed = SIGNED_SAMPLE.to_vec();
    let expected = [("usr/bin/x", &signed), ("usr/bin/z", &SAMPLE.to_vec()), ("usr/share/deep/y", &signed)]
        .map(|(path, content)| (path.to_owned(), content.clone()));
    assert!(contents(&staged_sample(&entries, script)) == expected);
    // Links within $DESTDIR may be on the way.
    let entries = sign("usr/bin/x") + &sign("usr/share/link/y");
    assert!(contents(&staged_sample(&entries, script)) == expected);
}

/// Such as a program with mode 4111. Root may read every file, so another user builds.
#[test]
fn file_that_its_owner_may_not_read_is_signed() {
    const NOBODY: u32 = 65534;
    let fixture = staged_sample(&sign("usr/bin/x"), "chmod 111 bin/x");
    let place = fixture.path("");
    let tool = place.join("peipkg-build");
    executable::copy(Path::new(env!("CARGO_BIN_EXE_peipkg-build")), &tool);
    fs::copy(format!("{SAMPLES}/binary-key.seed"), place.join("key.seed")).unwrap();
    let fixture = fixture.with("--binary-sign-key", &format!("tcb={}", place.join("key.seed").display()));
    let mut command = Command::new(&tool);
    command.arg("build").args(fixture.flags()).env("TMPDIR", place.join("tmp"));
    if rustix::process::geteuid().is_root() {
        let owned = Command::new("chown").args(["-R", "65534:65534"]).arg(&place).status().unwrap();
        assert!(owned.success());
        command.uid(NOBODY).gid(NOBODY);
    }
    let run = Run::of(&mut command);
    assert_eq!(run.status, Some(0), "{}", run.stderr);
    let tar = fixture.tar("xx_1.2-3_x86_64.peipkg");
    assert!(tar.windows(SIGNED_SAMPLE.len()).any(|bytes| bytes == SIGNED_SAMPLE));

    // By hand, the mode says no.
    let path = place.join("x");
    fs::write(&path, SAMPLE).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o111)).unwrap();
    let mut command = Command::new(&tool);
    command.args(["binary-sign", "--in"]).arg(&path).arg("--key").arg(place.join("key.seed"));
    if rustix::process::geteuid().is_root() {
        chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
    let run = Run::of(&mut command);
    assert!(run.stderr.contains("Permission denied") && run.status == Some(1), "{}", run.stderr);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o111);
}

/// A program must not get the rights of whoever signs it.
#[test]
fn owner_and_privileged_bits_are_kept_together_or_not_at_all() {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        not_permitted("root, to change owners");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let [tool, key, path] = ["tool", "key", "x"].map(|name| place.path().join(name));
    executable::copy(Path::new(env!("CARGO_BIN_EXE_peipkg-build")), &tool);
    fs::copy(format!("{SAMPLES}/binary-key.seed"), &key).unwrap();
    chown(place.path(), Some(NOBODY), None).unwrap();
    chown(&key, Some(NOBODY), None).unwrap();
    for (owner, signer, expected) in [(NOBODY, 0, (NOBODY, 0o6755)), (0, NOBODY, (NOBODY, 0o755))] {
        fs::write(&path, SAMPLE).unwrap();
        chown(&path, Some(owner), Some(owner)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o6755)).unwrap();
        let mut command = Command::new(&tool);
        command.args(["binary-sign", "--in"]).arg(&path).arg("--key").arg(&key).uid(signer).gid(signer);
        let run = Run::of(&mut command);
        assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""));
        let signed = fs::metadata(&path).unwrap();
        assert_eq!((signed.uid(), signed.mode() & 0o7777), expected);
    }
}

/// A package has no hard links: each name is a file of its own, signed if the recipe names it.
#[test]
fn hard_link_is_signed_under_each_name_that_the_recipe_has() {
    let signed = |entries: &str| {
        let files = contents(&staged_sample(entries, "ln bin/x bin/y"));
        files.into_iter().map(|(path, content)| (path, content == SIGNED_SAMPLE)).collect::<Vec<_>>()
    };
    let expected = |x, y| vec![("usr/bin/x".to_owned(), x), ("usr/bin/y".to_owned(), y)];
    assert_eq!(signed(&sign("usr/bin/x")), expected(true, false));
    assert_eq!(signed(&(sign("usr/bin/x") + &sign("usr/bin/y"))), expected(true, true));
}

#[test]
fn staged_path_unfit_is_refused_with_its_line() {
    // META has two lines, the package four.
    let line = |path: &str, reason: &str| format!("{{}}/recipe/peipkg.toml:7: cannot sign {path}: {reason}");
    assert_eq!(META.lines().count(), 2);
    let missing = "No such file or directory (os error 2)";
    let outside = "a symbolic link in its path leads out of $DESTDIR";
    for (path, script, reason) in [
        ("usr/bin/absent", ":", missing),
        ("usr/bin/*", ":", missing),
        ("absent/x", ":", missing),
        ("usr/bin", ":", "Is a directory (os error 21)"),
        ("usr/share/x", "ln -s nowhere share", missing),
        ("usr/bin/y", "ln -s x bin/y", "it is a symbolic link, expected the file that it leads to"),
        ("usr/bin/y", "mkfifo bin/y", "is a FIFO, expected a regular file"),
        ("usr/bin/y", ": >bin/y", "it is not a 64-bit little-endian ELF file"),
        ("usr/lib/x", "ln -s /bin lib", outside),
        ("usr/lib/x", "mkdir ../../out; mv bin/x ../../out; ln -s ../../out lib", outside),
        (
            "usr/lib/deep/x",
            "ln -s ../../work lib; mkdir ../../work/deep; cp bin/x ../../work/deep/x",
            outside,
        ),
    ] {
        staged_sample(&sign(path), script).fails(1, &[&line(path, reason)]);
    }
    // The same file by two paths, which only the staged tree shows.
    let twice =
        line("usr/sbin/x", "it is signed already: it has a section named .peios.sig").replace(":7:", ":10:");
    staged_sample(&(sign("usr/bin/x") + &sign("usr/sbin/x")), "ln -s bin sbin").fails(1, &[&twice]);
    let recipe =
        "{}/recipe/peipkg.toml:8: [[sign]] path \"../x\" escapes $DESTDIR, expected a path relative to it";
    staged_sample(&sign("../x"), "echo ran").fails(1, &[recipe]);
}

#[test]
fn key_not_given_is_named_before_the_script_runs() {
    let entries = sign("usr/bin/x") + &sign("usr/bin/y").replace("tcb", "boot") + &sign("usr/bin/z");
    let line = |line: usize, key: &str| {
        format!(
            "{{}}/recipe/peipkg.toml:{line}: [[sign]] key \"{key}\" is not given; --binary-sign-key {key}=FILE gives it"
        )
    };
    let fixture = staged_sample(&entries, "echo ran");
    fixture.fails(1, &[&line(10, "boot")]);
    let fixture = fixture.with("--binary-sign-key", "");
    fixture.fails(1, &[&line(7, "tcb"), &line(10, "boot"), &line(13, "tcb")]);
}

#[test]
fn binary_sign_keys_are_split_at_the_first_equals_sign_and_named_once() {
    let fixture = staged_sample(&sign("usr/bin/x"), ":");
    let odd = fixture.path("a=b").display().to_string();
    fs::copy(format!("{SAMPLES}/binary-key.seed"), &odd).unwrap();
    let fixture = fixture.with("--binary-sign-key", &format!("tcb={odd}"));
    assert!(contents(&fixture)[0].1 == SIGNED_SAMPLE);
    let mut command = fixture.command();
    command.args(["--binary-sign-key", &format!("tcb={SAMPLES}/binary-key.seed")]);
    let run = Run::of(&mut command);
    assert_eq!(
        (run.status, run.stderr.as_str()),
        (Some(2), "peipkg-build: --binary-sign-key: tcb is given twice\n")
    );
}
