//! The clock of a second build: libfaketime shows its programs a time 400 days later.
//!
//! The processes of a build share two files of libfaketime in `/dev/shm`. The program `faketime` makes them
//! and removes them when it ends. A process that is given none makes its own, named by its process ID, and
//! leaves them there when it does not end with `exit`, as the shell dash does; a later process of that ID then
//! fails. So `faketime`'s files get a second name, the same for each build of a farm, until the build has ended.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use peipkg_format::problem::excerpt;

use crate::process::{Interrupt, Program};

/// Another day, month and year.
const OFFSET: &str = "+400d";

/// The least that [`OFFSET`] moves the time on, for a clock that is set while it is read.
const MIN_OFFSET: Duration = Duration::from_hours(300 * 24);

/// Prints the time that it sees and the variable that only `faketime` knows. `$FAKETIME_SHARED` has the names of
/// a semaphore and of shared memory, which end with `_` and a process ID. Instead of that, the second names end with
/// the argument. The C library may put something before the name of a semaphore.
const SCRIPT: &str = "set -e\n\
                      date +%s\n\
                      echo \"LD_PRELOAD=$LD_PRELOAD\"\n\
                      cd /dev/shm\n\
                      for name in $FAKETIME_SHARED; do\n\
                        for file in *\"${name#/}\"; do ln -f \"$file\" \"${file%_*}$1\"; done\n\
                      done";

/// The second names of both files, without the argument: glibc's and musl's of the semaphore, and the memory's.
const FILES: [&str; 3] = ["sem.faketime_sem", "faketime_sem", "faketime_shm"];

/// How long `faketime` may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The most that it may print, in bytes.
const MAX_PRINTED: usize = 4096;

/// What a build needs to see another time. Dropped, its files are removed.
pub(super) struct OtherClock {
    /// As `NAME=value`.
    pub(super) variables: Vec<String>,
    files: [PathBuf; 3],
}

impl OtherClock {
    /// Prepares the clock for the next build of the farm whose state is in `state_dir`.
    ///
    /// # Errors
    /// Says why `faketime` does not work here.
    pub(super) fn new(faketime: &Path, state_dir: &Path, interrupt: &Interrupt) -> Result<Self, String> {
        let directory = fs::metadata(state_dir).map_err(|error| error.to_string())?;
        let end = format!(".peipkg-manager-{:x}-{:x}", directory.dev(), directory.ino());
        let mut clock = Self {
            variables: vec![
                format!("FAKETIME_SHARED=/faketime_sem{end} /faketime_shm{end}"),
                format!("FAKETIME={OFFSET}"),
                "DONT_FAKE_MONOTONIC=1".to_owned(),
            ],
            files: FILES.map(|name| format!("/dev/shm/{name}{end}").into()),
        };
        let program = Program::new(faketime)
            .args(["-f", OFFSET, "/bin/sh", "-c", SCRIPT, "/bin/sh", &end])
            .deadline(Some(DEADLINE))
            .capture_stdout(MAX_PRINTED);
        let output = program.run(interrupt).map_err(|error| error.to_string())?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let time = printed.lines().next().and_then(|line| line.parse().ok()).map(Duration::from_secs);
        match printed.lines().nth(1) {
            Some(preload) if time.is_some_and(|time| time > now + MIN_OFFSET) => {
                clock.variables.push(preload.to_owned());
                Ok(clock)
            }
            _ => Err(format!("faketime shows no later time: {}", excerpt(&printed))),
        }
    }
}

impl Drop for OtherClock {
    fn drop(&mut self) {
        for file in &self.files {
            // Of the semaphore's names one is missing.
            let _ = fs::remove_file(file);
        }
    }
}
