//! The clock of a second build: libfaketime shows its programs a time 400 days later.
//!
//! The processes of a build share two files of libfaketime in `/dev/shm`. The program `faketime` makes them
//! and removes them when it ends. A process that is given none makes its own, named by its process ID, and
//! leaves them there when it does not end with `exit`, as the shell dash does; a later process of that ID then
//! fails. So `faketime`'s files get a second name until the build has ended. It is the same for each build of
//! one thread of a farm: builds at once must not remove each other's files.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use peipkg_format::problem::excerpt;

use crate::build_log::BuildLog;
use crate::process::{Interrupt, Program};

/// Another day, month and year.
const OFFSET: &str = "+400d";

/// Checks that its time is later, gives the files their second names, and prints the variables for the build, of
/// which only `faketime` knows the first. `$FAKETIME_SHARED` has the names of a semaphore and of shared memory,
/// which end with `_` and a process ID. Instead of that, the second names end with the argument. The C library may
/// put something before the name of a semaphore. `rm` and `link` fail if another user has made a directory of that
/// name; `ln` would leave the file in it.
const SCRIPT: &str = "set -e\n\
                      later=$(($(date +%s) - $(LD_PRELOAD= date +%s)))\n\
                      [ $later -gt 30000000 ] || { echo \"its time is $later seconds later\" >&2; exit 1; }\n\
                      cd /dev/shm\n\
                      for name in $FAKETIME_SHARED; do\n\
                        for file in *\"${name#/}\"; do\n\
                          rm -f \"${file%_*}$1\"\n\
                          link \"$file\" \"${file%_*}$1\"\n\
                        done\n\
                      done\n\
                      echo \"LD_PRELOAD=$LD_PRELOAD\"\n\
                      echo \"FAKETIME=$FAKETIME\"\n\
                      echo \"FAKETIME_SHARED=/faketime_sem$1 /faketime_shm$1\"\n\
                      echo DONT_FAKE_MONOTONIC=1";

/// The second names of both files, without the argument: glibc's and musl's of the semaphore, and the memory's.
const FILES: [&str; 3] = ["sem.faketime_sem", "faketime_sem", "faketime_shm"];

/// How long `faketime` may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The most that it may print, in bytes.
const MAX_PRINTED: usize = 4096;

/// Holds the variables by which a build sees another time. When it is dropped, it removes libfaketime's files.
pub(super) struct OtherClock {
    /// The variables, each as `NAME=value`.
    pub(super) variables: Vec<String>,
    /// The end of the files' names.
    end: String,
}

impl OtherClock {
    /// Prepares the clock for this thread's next build, of the farm whose state is in `state_dir`. What
    /// `faketime` says goes to `log`.
    ///
    /// # Errors
    /// Says why `faketime` does not work here.
    pub(super) fn new(
        faketime: &Path,
        state_dir: &Path,
        interrupt: &Interrupt,
        log: &BuildLog,
    ) -> Result<Self, String> {
        let directory = fs::metadata(state_dir).map_err(|error| error.to_string())?;
        let (device, inode, builder) = (directory.dev(), directory.ino(), thread::current());
        let end = format!(".peipkg-manager-{device:x}-{inode:x}-{}", builder.name().unwrap_or_default());
        let mut clock = Self { variables: Vec::new(), end };
        let program = Program::new(faketime)
            .args(["-f", OFFSET, "/bin/sh", "-c", SCRIPT, "/bin/sh", &clock.end])
            // faketime keeps the libraries that it finds there.
            .without_env("LD_PRELOAD")
            .deadline(Some(DEADLINE))
            .capture_stdout(MAX_PRINTED)
            .log_to(log);
        let output = program.run(interrupt).map_err(|error| error.to_string())?;
        let printed = String::from_utf8_lossy(&output.stdout);
        if !printed.starts_with("LD_PRELOAD=") {
            return Err(format!("faketime answered {}", excerpt(&printed)));
        }
        clock.variables = printed.lines().map(str::to_owned).collect();
        Ok(clock)
    }
}

impl Drop for OtherClock {
    fn drop(&mut self) {
        for name in FILES {
            // One of the semaphore's two names is missing.
            let _ = fs::remove_file(format!("/dev/shm/{name}{}", self.end));
        }
    }
}
