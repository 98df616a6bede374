//! Writes programs that a test starts right away.
//!
//! The kernel refuses to execute a file that a process has open for writing. A process that another test
//! starts has copies of all open files of this process between its fork and its exec. So a child writes
//! the program: no other process gets the child's open files.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes an executable with mode 755. Replaces an existing file.
#[track_caller]
pub fn write(path: &Path, content: &[u8]) {
    let mut child = install(Path::new("/dev/stdin"), path).spawn().expect("install is on the PATH");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(content).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    drop(input);
    assert!(child.wait().expect("install ends").success(), "cannot write {}", path.display());
}

/// Copies an executable, with mode 755. Replaces an existing file.
#[track_caller]
pub fn copy(from: &Path, to: &Path) {
    let status = install(from, to).status().expect("install is on the PATH");
    assert!(status.success(), "cannot copy {} to {}", from.display(), to.display());
}

fn install(from: &Path, to: &Path) -> Command {
    let mut install = Command::new("install");
    install.args(["-m", "755", "--"]).args([from, to]).stdin(Stdio::piped());
    install
}
