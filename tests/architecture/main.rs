//! The rules of the house that no compiler holds: which room may import which, that no two files
//! import each other, which files are pure, where locks are and where the environment is read,
//! that each file says what it owns, and which dependencies must never come in.

mod imports;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use imports::{Imports, cycles};

/// The rooms below `src/`, lowest first. A room may import its own files and those of lower ranks;
/// rooms of one rank do not know each other. `src/format` is a crate, so the compiler keeps it below.
const RANKS: [&[&str]; 8] = [
    &["recipe"],
    &["config"],
    &["farm"],
    &["state", "process"],
    &["build_log"],
    &["upstream", "repository", "http"],
    &["app"],
    // The entry points, and the table of readers that tests and the fuzzer share.
    &["lib", "main", "readers"],
];

/// Pure files and rooms below `src/`: they compute, and leave the world alone.
const PURE: [&str; 39] = [
    "app/cli.rs",
    "app/logfmt.rs",
    "app/plan_report.rs",
    "app/terminal_line.rs",
    "build_log/names.rs",
    "build_log/text.rs",
    "config",
    "farm",
    "format/archive_index.rs",
    "format/description.rs",
    "format/dsse.rs",
    "format/duration.rs",
    "format/hex.rs",
    "format/index_reader.rs",
    "format/index_reader",
    "format/package.rs",
    "format/problem.rs",
    "format/provenance.rs",
    "format/repository_layout.rs",
    "format/seen.rs",
    "format/strict_toml.rs",
    "format/unfit_byte.rs",
    "format/version.rs",
    "format/version/order.rs",
    "http/frame.rs",
    "http/signature.rs",
    "http/webhook.rs",
    "process/explain.rs",
    "recipe",
    "repository/index_head.rs",
    "repository/upload/remote.rs",
    "repository/verdict.rs",
    "upstream/listing/http_url.rs",
    "upstream/listing/ls_refs.rs",
    "upstream/listing/ls_remote.rs",
    "upstream/listing/native_or_git.rs",
    "upstream/listing/pkt_line.rs",
    "upstream/listing/ref_name.rs",
    "upstream/source/prefetch.rs",
];

/// Names by which code reaches outside, waits, or tells the time.
const IMPURE: [&str; 21] = [
    "std::fs",
    "std::net",
    "std::os::unix",
    "std::process",
    "std::sync::mpsc",
    "std::thread",
    "std::env",
    "crossbeam",
    "rustix",
    "regular_file",
    "debug!(",
    "info!(",
    "warn!(",
    "error!(",
    "File::open",
    ".exists()",
    ".metadata()",
    "Instant::now",
    "SystemTime::now",
    ".elapsed()",
    "println!",
];

/// The files that hold a lock, and what it protects. None of it is state of the farm.
const LOCKS: [(&str, &str); 15] = [
    ("app/progress.rs", "the terminal's last line"),
    ("process/running_groups.rs", "the process groups that a second stop ends"),
    ("process/users_of.rs", "the work directories that builds have asked about"),
    ("repository/archive_file.rs", "how the archive index looked when it was read last"),
    ("repository/mod.rs", "the repository: no publish while an upload copies its indexes"),
    ("state/troubles.rs", "what is wrong at the edge and lasts, for `/status`"),
    ("upstream/git.rs", "git's ssh command, found out once"),
    ("upstream/listing/git_settings.rs", "git's settings, read once between reloads"),
    ("upstream/listing/mod.rs", "the upstreams that do not speak protocol version 2"),
    ("upstream/listing/net/addresses.rs", "the addresses that did not answer"),
    ("upstream/listing/net/resolver.rs", "the addresses of host names, for a minute"),
    ("upstream/listing/net/tls.rs", "the trust store, read once"),
    ("upstream/listing/one_request.rs", "the upstreams that one request lists, or does not"),
    ("upstream/source/economies.rs", "the economies that upstreams refused"),
    ("upstream/source/fetch.rs", "the cached repositories that no build uses now"),
];

/// The files that open or write a file without the reader of `format/regular_file.rs`, by which calls,
/// and why none can block.
const READ_OTHERWISE: [(&str, &[&str], &str); 1] =
    [("src/http/behind.rs", &["File::open("], "opens the state directory, which is locked by then")];

/// The only file that reads environment variables.
const ENVIRONMENT: &str = "process/environment.rs";

/// Runtimes of asynchronous programs, and crates that bring one along.
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

/// The longest source file, in lines: one topic, read in one go.
const MAX_LINES: usize = 400;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The `.rs` files at or below `path`, with their paths below it, sorted. Build outputs are left out.
fn rust_files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return if path.extension().is_some_and(|extension| extension == "rs") {
            vec![path.to_owned()]
        } else {
            Vec::new()
        };
    }
    if path.join("CACHEDIR.TAG").exists() {
        return Vec::new();
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut files: Vec<_> = entries.flat_map(|entry| rust_files(&entry.expect("an entry").path())).collect();
    files.sort();
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The sources of the manager's crate: path below `src/` and text. Tests are left out: they may
/// import whatever they hold to account. `src/format` is a crate of its own.
fn sources() -> BTreeMap<String, String> {
    let src = root().join("src");
    let is_test = |name: &str| {
        name.split(['/', '.']).any(|part| matches!(part, "tests" | "model_tests" | "mutation_tests"))
    };
    let named = rust_files(&src).into_iter().map(|path| {
        let name = path.strip_prefix(&src).expect("a file below src").to_str().expect("UTF-8").to_owned();
        (name, read(&path))
    });
    named.filter(|(name, _)| !is_test(name) && !name.starts_with("format/")).collect()
}

/// The rank of the room of a file, such as `farm/queue.rs`.
fn rank(file: &str) -> Option<usize> {
    let room = file.split(['/', '.']).next().unwrap_or_default();
    RANKS.iter().position(|rooms| rooms.contains(&room))
}

/// The imports that no file may have, as `from -> to`.
fn forbidden(imports: &Imports) -> Vec<String> {
    let room = |file: &str| file.split(['/', '.']).next().unwrap_or_default().to_owned();
    let is_forbidden = |from: &str, to: &str| room(from) != room(to) && rank(to) >= rank(from);
    let edges = imports.iter().flat_map(|(from, to)| to.iter().map(move |to| (from, to)));
    edges.filter(|(from, to)| is_forbidden(from, to)).map(|(from, to)| format!("{from} -> {to}")).collect()
}

#[test]
fn rooms_import_downwards_only() {
    let sources = sources();
    for file in sources.keys() {
        assert!(rank(file).is_some(), "src/{file} is in no room of the table");
    }
    let imports = imports::of(&sources);
    let edges: usize = imports.values().map(std::collections::BTreeSet::len).sum();
    assert!(edges > 100, "{edges} imports only: are they still found?");
    assert_eq!(forbidden(&imports), [""; 0]);
}

#[test]
fn files_do_not_import_each_other() {
    assert_eq!(cycles(&imports::of(&sources())), [[""; 0]; 0]);
}

#[test]
fn forbidden_import_is_found() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let mut sources = BTreeMap::from([
        file("farm/mod.rs", "mod queue; use crate::recipe::{self, Recipe};"),
        file("farm/queue.rs", "use super::Farm; #[cfg(test)] mod tests { use crate::app::cli; }"),
        file("recipe/mod.rs", "pub struct Recipe;"),
        file("app/cli.rs", "fn f() -> crate::farm::Farm { crate::farm::queue::new() }"),
    ]);
    let imports = imports::of(&sources);
    assert_eq!(imports["app/cli.rs"].iter().collect::<Vec<_>>(), ["farm/mod.rs", "farm/queue.rs"]);
    assert_eq!(forbidden(&imports), [""; 0]);
    assert_eq!(cycles(&imports), [[""; 0]; 0]);
    sources.insert("recipe/mod.rs".into(), "fn f() { let _ = crate::farm::queue::Queue::new(); }".into());
    sources.insert("farm/mod.rs".into(), "mod queue; use self::queue::Queue;".into());
    let imports = imports::of(&sources);
    assert_eq!(forbidden(&imports), ["recipe/mod.rs -> farm/queue.rs"]);
    assert_eq!(cycles(&imports), [["farm/mod.rs", "farm/queue.rs"]]);
}

/// The impure names in the code of a file, as `line: name`.
fn impurities(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        // A nested import of the standard library would hide such a name.
        let nested = code.contains("std::{");
        let named = IMPURE.iter().filter(|name| code.contains(**name)).copied();
        found.extend(named.chain(nested.then_some("std::{")).map(|name| format!("{}: {name}", index + 1)));
    }
    found
}

#[test]
fn pure_files_only_compute() {
    let src = root().join("src");
    for place in PURE {
        let files = rust_files(&src.join(place));
        assert!(!files.is_empty(), "{place} is not there");
        for file in files {
            let found = impurities(&read(&file));
            assert!(found.is_empty(), "{}: {found:?}", file.display());
        }
    }
}

#[test]
fn impure_code_is_found() {
    assert!(impurities("//! Reads with std::fs.\nuse std::path::Path; // no std::fs\n").is_empty());
    assert_eq!(impurities("let now =\n    Instant::now();"), ["2: Instant::now"]);
    assert_eq!(impurities("use std::{fs, io};"), ["1: std::{"]);
    for impure in ["app/builder/mod.rs", "app/config_file.rs", "app/daemon.rs"] {
        assert!(!impurities(&read(&root().join("src").join(impure))).is_empty(), "{impure}");
    }
}

/// The calls in the code of a file that read, and that block on a FIFO or read a device without end.
fn careless_reads(text: &str) -> Vec<&'static str> {
    const CALLS: [&str; 5] = ["File::open(", "fs::read(", "fs::read_to_string(", "fs::copy(", "fs::write("];
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code: Vec<&str> = code.lines().filter_map(|line| line.split("//").next()).collect();
    CALLS.into_iter().filter(|call| code.iter().any(|line| line.contains(call))).collect()
}

#[test]
fn files_are_read_by_the_one_reader() {
    let tools = root().join("contrib/peipkg-tools/src");
    let own =
        ["src/format", "src/app", "src/build_log", "src/http", "src/repository", "src/state", "src/upstream"];
    let places = own.into_iter().map(|place| root().join(place)).chain([tools]);
    for file in places.flat_map(|place| rust_files(&place)).filter(|file| !file.ends_with("tests.rs")) {
        let found = careless_reads(&read(&file));
        let name = file.strip_prefix(root()).expect("a file of ours").display().to_string();
        let allowed = READ_OTHERWISE.iter().find(|(allowed, ..)| *allowed == name).map_or(&[][..], |it| it.1);
        assert_eq!(found, allowed, "{name}: see src/format/regular_file.rs");
    }
}

#[test]
fn locks_are_the_listed_ones() {
    let locks = ["Mutex", "RwLock", "OnceLock", "LazyLock", "Condvar"];
    let code = |text: &str| -> String {
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    };
    let has_lock = |text: &str| locks.iter().any(|lock| code(text).contains(lock));
    let found: Vec<_> =
        sources().into_iter().filter(|(_, text)| has_lock(text)).map(|(file, _)| file).collect();
    assert_eq!(found, LOCKS.map(|(file, _)| file));
}

#[test]
fn environment_is_read_in_one_place() {
    // An import of the functions themselves would hide the module's name at the call.
    let reads = |text: &str| ["env::var", "env::{", "env::*"].iter().any(|name| text.contains(name));
    let found: Vec<_> = sources().into_iter().filter(|(_, text)| reads(text)).map(|(file, _)| file).collect();
    assert_eq!(found, [ENVIRONMENT]);
}

#[test]
fn source_files_say_what_they_own_and_stay_short() {
    let places = ["src", "tests", "contrib"];
    let files: Vec<PathBuf> = places.iter().flat_map(|place| rust_files(&root().join(place))).collect();
    assert!(files.len() >= 60, "{} files only", files.len());
    for file in files {
        let text = read(&file);
        assert!(text.starts_with("//! "), "{} does not open with its //! header", file.display());
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines, at most {MAX_LINES} are allowed", file.display());
    }
}

#[test]
fn dependencies_have_no_asynchronous_runtime() {
    let lock: toml::Table = read(&root().join("Cargo.lock")).parse().expect("a lock file");
    let packages = lock["package"].as_array().expect("a list of packages");
    let names: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    assert!(names.contains(&"crossbeam-channel"), "{names:?}");
    for runtime in RUNTIMES {
        assert!(!names.contains(&runtime), "{runtime} is in Cargo.lock");
    }
}
