//! Programs that a machine may lack: skips their tests, but never silently.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::{env, thread};

/// Whether `program` is on the `PATH`. If not, reports the calling test as skipped on standard
/// error and in [`skipped_list`], or fails it with `PEIPKG_TEST_NO_SKIP=1`.
///
/// ```ignore
/// if !require("rclone") { return; }
/// ```
#[must_use]
pub fn require(program: &str) -> bool {
    if find_program(program).is_some() {
        return true;
    }
    skip(program);
    false
}

/// Reports the calling test as skipped because the machine lacks `needs`, or fails it, as
/// [`require`] does.
pub fn skip(needs: &str) {
    assert!(
        env::var_os("PEIPKG_TEST_NO_SKIP").is_none_or(|value| value.is_empty() || value == "0"),
        "skipped, which is not allowed: needs {needs}"
    );
    say_skipped(needs);
}

/// Reports the calling test as skipped because the machine does not permit `needs`. It passes even
/// with `PEIPKG_TEST_NO_SKIP=1`: a right cannot be installed.
pub fn not_permitted(needs: &str) {
    say_skipped(needs);
}

fn say_skipped(needs: &str) {
    let thread = thread::current();
    let line = format!("SKIPPED: {} needs {needs}\n", thread.name().unwrap_or("a test"));
    // The test harness captures `eprint!` and drops it for a passed test, and a skipped test
    // passes.
    io::stderr().write_all(line.as_bytes()).expect("standard error");
    let mut list =
        OpenOptions::new().create(true).append(true).open(skipped_list()).expect("the list of skipped tests");
    list.write_all(line.as_bytes()).expect("the list of skipped tests");
}

/// `target/skipped-tests.txt`, to which every skipped test appends a line. `make test` empties it
/// first.
pub fn skipped_list() -> PathBuf {
    // Cargo makes this directory below the target directory, wherever that is.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory");
    target.join("skipped-tests.txt")
}

/// The first executable called `program` on the `PATH`.
pub fn find_program(program: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let executable = |path: &PathBuf| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    env::split_paths(&env::var_os("PATH")?).map(|directory| directory.join(program)).find(executable)
}
