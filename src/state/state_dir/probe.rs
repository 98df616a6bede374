//! Checks whether a state directory can be used, for `--check`. It changes nothing.

use std::fs;
use std::io;
use std::path::Path;

use peipkg_format::problem::Problem;
use rustix::fs::{Access, access};

/// Checks that files can be created in the directory at `path` or, if it is missing, that it can be
/// created itself.
pub(super) fn probe_directory(path: &Path) -> Result<(), Problem> {
    let problem = |place: &Path, error: io::Error| {
        let message = if place == path {
            format!("cannot write to the state_dir: {error}")
        } else {
            format!("cannot create the state_dir in {}: {error}", place.display())
        };
        Problem::of_file(path, format!("{message}; the manager must be able to write there"))
    };
    for place in path.ancestors() {
        match fs::symlink_metadata(place) {
            Ok(_) => return probe_existing(place).map_err(|error| problem(place, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(problem(path, error)),
        }
    }
    Ok(())
}

/// Checks that files can be created in the directory at `place`.
pub(super) fn probe_existing(place: &Path) -> io::Result<()> {
    if !fs::metadata(place)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(access(place, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)?)
}
