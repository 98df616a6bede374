//! The design's own rules, where a compiler does not hold them: which files are pure, that every
//! file opens with its purpose, is short and in the code map, and what never gets into the tree of
//! dependencies.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The pure files, and directories of them, below `src/`.
const PURE: [&str; 25] = [
    "farm",
    "config",
    "recipe",
    "archive.rs",
    "build_log/names.rs",
    "build_log/text.rs",
    "version.rs",
    "identity.rs",
    "recipe.rs",
    "config.rs",
    "tag_pattern.rs",
    "duration.rs",
    "document.rs",
    "hex.rs",
    "problem.rs",
    "cli.rs",
    "webhook.rs",
    "status.rs",
    "upstream/ahead.rs",
    "upstream/http_url.rs",
    "upstream/ls_refs.rs",
    "upstream/pkt_line.rs",
    "upstream/ref_name.rs",
    "upstream/retry_after.rs",
    "upstream/route.rs",
];

/// Names of code that does I/O, waits, or reads the clock.
const IMPURE: [&str; 11] = [
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::env",
    "crossbeam",
    "rustix",
    "File::open",
    "Instant::now",
    "SystemTime::now",
    "println!",
];

/// Asynchronous runtimes, and crates that depend on one.
const RUNTIMES: [&str; 13] = [
    "tokio",
    "async-std",
    "smol",
    "futures-executor",
    "async-executor",
    "async-global-executor",
    "async-io",
    "actix-rt",
    "embassy-executor",
    "glommio",
    "monoio",
    "pollster",
    "hyper",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The `.rs` files at or below `path`.
fn rust_files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let below = entries.flat_map(|entry| {
        let entry = entry.expect("an entry");
        // Skip build outputs, which hold files of other projects.
        let skipped = entry.file_name() == "target" && entry.path().join("CACHEDIR.TAG").exists();
        if skipped { Vec::new() } else { rust_files_or_none(&entry.path()) }
    });
    below.collect()
}

fn rust_files_or_none(path: &Path) -> Vec<PathBuf> {
    if path.is_dir() || path.extension().is_some_and(|extension| extension == "rs") {
        return rust_files(path);
    }
    Vec::new()
}

/// The impure names in the text of a file, as `line: name`.
fn impurities(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        // Nested imports of the standard library would hide the names.
        let nested = code.contains("std::{");
        let named = IMPURE.iter().filter(|name| code.contains(**name)).copied();
        found.extend(named.chain(nested.then_some("std::{")).map(|name| format!("{}: {name}", index + 1)));
    }
    found
}

#[test]
fn pure_files_name_no_io_thread_or_clock() {
    let src = root().join("src");
    let mut count = 0;
    for file in PURE.iter().flat_map(|name| rust_files(&src.join(name))) {
        let text = fs::read_to_string(&file).expect("a source file");
        let found = impurities(&text);
        assert!(found.is_empty(), "{}: {found:?}", file.display());
        count += 1;
    }
    assert!(count >= 30, "{count} files only: has the list lost its directories?");
}

#[test]
fn impure_code_is_found() {
    assert!(impurities("//! Reads with std::fs.\nuse std::path::Path; // no std::fs\n").is_empty());
    assert_eq!(impurities("let now =\n    Instant::now();"), ["2: Instant::now"]);
    assert_eq!(impurities("use std::{fs, io};"), ["1: std::{"]);
    let src = root().join("src");
    for impure in ["builder.rs", "startup.rs", "daemon.rs"] {
        assert!(!impurities(&fs::read_to_string(src.join(impure)).unwrap()).is_empty(), "{impure}");
    }
}

#[test]
fn source_files_open_with_their_purpose_and_are_short() {
    let files: Vec<PathBuf> = ["src", "tests", "contrib"]
        .iter()
        .flat_map(|directory| rust_files(&root().join(directory)))
        .collect();
    assert!(files.len() >= 60, "{} files only", files.len());
    for file in files {
        let text = fs::read_to_string(&file).expect("a source file");
        assert!(text.starts_with("//! "), "{} does not open with its //! header", file.display());
        // A file of `src` still exceeds the limit.
        let lines = text.lines().count();
        let is_limited = !file.starts_with(root().join("src"));
        assert!(!is_limited || lines <= 400, "{} has {lines} lines, more than 400", file.display());
    }
}

#[test]
fn dependencies_have_no_asynchronous_runtime() {
    let lock: toml::Table = fs::read_to_string(root().join("Cargo.lock")).unwrap().parse().unwrap();
    let packages = lock["package"].as_array().expect("a list of packages");
    let names: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    assert!(names.contains(&"crossbeam-channel"), "{names:?}");
    for runtime in RUNTIMES {
        assert!(!names.contains(&runtime), "{runtime} is in Cargo.lock");
    }
}

#[test]
fn code_map_has_every_file() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let (_, map) = page.split_once("\n## Code map\n").unwrap();
    let map = map.split("\n## ").next().unwrap();
    let named: BTreeSet<&str> = map.split('`').skip(1).step_by(2).collect();
    let trees = [("src", ""), ("src/farm", "farm/"), ("contrib/peipkg-tools/src", "")];
    for (tree, prefix) in trees {
        for path in rust_files(&root().join(tree)) {
            let name = path.strip_prefix(root().join(tree)).unwrap().to_str().unwrap();
            let name = name.strip_prefix(prefix).unwrap_or(name);
            let is_of_tests = name.ends_with("tests.rs") || name.contains("tests/");
            let is_of_another_tree = tree == "src" && name.starts_with("farm/");
            // A crate's root and a directory that is named as a whole need no line of their own.
            let is_named = named.contains(name)
                || name == "lib.rs"
                || named.iter().any(|known| known.ends_with('/') && name.starts_with(known));
            assert!(is_of_tests || is_of_another_tree || is_named, "{tree}/{name} is not in the code map");
        }
    }
}
