//! A publish needs no more memory in a large repository than in a small one, measured by a limit on the
//! address space; and it reads and writes each index once, as the kernel counts.

mod repo_support;

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use repo_support::{Farm, SEED, check, envelope, sha256};
use sha2::{Digest as _, Sha256};

/// How the published packages are spread over names.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// One version each.
    Names,
    /// Ten versions each.
    Versions,
}

/// Makes a repository whose indexes list `count` packages. The files of the packages are missing.
fn farm_of(count: usize, shape: Shape) -> Farm {
    let farm = Farm::new();
    let each = if shape == Shape::Names { 1 } else { 10 };
    let entry = |name: usize, version: usize| {
        format!(
            "{{\"name\":\"pkg-{name:06}\",\"version\":\"1.{version}-1\",\"architecture\":\"noarch\",\
             \"description\":\"{}\",\"license\":\"MIT\",\"homepage\":\"https://example.org\",\
             \"dependencies\":[{{\"name\":\"libc\",\"constraint\":\">= 2.0\"}}],\"optional_dependencies\":[],\
             \"conflicts\":[],\"provides\":[],\"replaces\":[],\"side_effects\":[],\"size_compressed\":1,\
             \"size_installed\":1,\"hash\":{{\"algorithm\":\"sha256\",\"value\":\"{}\"}},\
             \"url\":\"/p/{name}/{version}.peipkg\",\"build\":{{\"timestamp\":\"2026-04-30T12:{:02}:00Z\",\
             \"farm_id\":\"farm\"}}}}",
            "A tool. ".repeat(20),
            sha256(name.to_string().as_bytes()),
            name % 60,
        )
    };
    for (kind, versions) in [("archive", each), ("active", 1)] {
        let mut text = format!(
            "{{\"schema_version\":1,\"repo\":\"farm\",\"kind\":\"{kind}\",\"index_version\":1,\
             \"generated_at\":\"2026-05-01T12:00:00Z\",\"packages\":["
        );
        for name in 0..count / each {
            for version in (each - versions..each).rev() {
                let comma = if text.ends_with('[') { "" } else { "," };
                write!(text, "{comma}{}", entry(name, version)).unwrap();
            }
        }
        text.push_str("]}\n");
        let path = farm.repo().join(format!("index/{kind}.json"));
        fs::write(&path, &text).unwrap();
        fs::write(path.with_extension("json.sig"), envelope(SEED, &Sha256::digest(&text)).to_string())
            .unwrap();
    }
    farm.add("pkg-000007", "2.0-1", "noarch");
    farm
}

/// Arguments of a publish into `out`.
fn publish(out: &str) -> [&str; 11] {
    let mut arguments = Farm::PUBLISH;
    arguments[10] = out;
    arguments
}

/// Whether a publish into `out` succeeds with so much address space, in KiB.
fn fits(count: usize, shape: Shape, out: &str, space: u32) -> bool {
    let farm = farm_of(count, shape);
    let command = farm.command(&publish(out));
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -v \"$0\"; exec \"$@\"", &space.to_string()]);
    limited.arg(command.get_program()).args(command.get_args()).current_dir(farm.dir.path());
    limited.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn memory_of_a_publish_does_not_grow_with_the_archive() {
    // In steps of half a MiB. The longer archive has 11 MB.
    const STEP: u32 = 512;
    for (shape, out) in [(Shape::Names, "REPO"), (Shape::Versions, "REPO"), (Shape::Versions, "next")] {
        let (mut too_little, mut enough) = (1, 128);
        assert!(fits(1000, shape, out, enough * STEP), "{shape:?}");
        while enough - too_little > 1 {
            let middle = too_little.midpoint(enough);
            *(if fits(1000, shape, out, middle * STEP) { &mut enough } else { &mut too_little }) = middle;
        }
        assert!(
            fits(20_000, shape, out, (enough + 2) * STEP),
            "{shape:?} {out}: more than {enough} * {STEP} KiB"
        );
    }
}

#[test]
fn each_byte_of_the_indexes_is_read_and_written_once() {
    let farm = farm_of(20_000, Shape::Versions);
    let length = |kind: &str| fs::metadata(farm.repo().join(format!("index/{kind}.json"))).unwrap().len();
    let indexes = length("archive") + length("active");
    assert!(indexes > 11_000_000, "{indexes}");
    let mut child = farm.command(&Farm::PUBLISH).stdout(Stdio::null()).spawn().unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{}", child.id()));
    let deadline = Instant::now() + Duration::from_mins(1);
    // Until it is waited for, an ended process keeps its counters.
    while !fs::read_to_string(process.join("stat")).unwrap().contains(") Z ") {
        assert!(Instant::now() < deadline, "the publish does not end");
        thread::sleep(Duration::from_millis(5));
    }
    let counters = fs::read_to_string(process.join("io")).unwrap();
    assert!(child.wait().unwrap().success());
    let counter = |name: &str| -> u64 {
        let line = counters.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    };
    // The rest is the package, keys, the browse site, and a second look at the head of the archive.
    for name in ["rchar:", "wchar:"] {
        let count = counter(name);
        assert!(count >= indexes && count - indexes < 1 << 20, "{name} {count} of {indexes}");
    }
    check(&farm.publish(), 1, "is already published, with the same bytes");
}
