//! Opens files whose place others may have filled: with a FIFO, a device, or gigabytes.
//!
//! Every file that a person, an earlier run or another program has left is read through here: a
//! plain `File::open` blocks for ever on a FIFO, and reading `/dev/zero` ends when the memory does.
//! Links are followed: operators link configurations, recipes and keys. The file at the end of the
//! links must be a regular one.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

/// The longest file that people write, in bytes: far longer than any recipe or configuration, and
/// far shorter than a disk image named by mistake.
pub const MAX_TEXT: u64 = 1024 * 1024;

/// The longest index, in bytes: room for a million entries.
pub const MAX_INDEX: u64 = 1 << 30;

/// Opens a regular file for reading. Never blocks.
///
/// # Errors
/// When the system refuses, or `path` leads to something else than a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    open_if(path, FileType::is_file).map(|(file, _)| file)
}

/// Opens a regular file of at most `cap` bytes. The file may still grow: bound what you read, too.
///
/// # Errors
/// As [`open`]; also when the file is longer.
pub fn open_up_to(path: &Path, cap: u64) -> io::Result<File> {
    open_with_length(path, cap).map(|(file, _)| file)
}

/// Opens a regular file of at most `cap` bytes, and returns its length too.
fn open_with_length(path: &Path, cap: u64) -> io::Result<(File, u64)> {
    let (file, length) = open_if(path, FileType::is_file)?;
    if length > cap { Err(too_large(cap)) } else { Ok((file, length)) }
}

/// Opens a regular file or a directory, to sync it. Never blocks.
///
/// # Errors
/// As [`open`].
pub fn open_to_sync(path: &Path) -> io::Result<File> {
    open_if(path, |kind| kind.is_file() || kind.is_dir()).map(|(file, _)| file)
}

/// Reads a regular file of at most `cap` bytes.
///
/// # Errors
/// As [`open_up_to`].
pub fn read(path: &Path, cap: u64) -> io::Result<Vec<u8>> {
    let (file, length) = open_with_length(path, cap)?;
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
    // The file may grow meanwhile, and those below /proc claim to be empty.
    file.take(cap + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > cap { Err(too_large(cap)) } else { Ok(bytes) }
}

/// Copies a regular file and its permissions to `to`, which must not exist.
///
/// # Errors
/// As [`open`]; also when `to` cannot be written.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let (mut from, mut to) = (open(from)?, File::create_new(to)?);
    io::copy(&mut from, &mut to)?;
    to.set_permissions(from.metadata()?.permissions())
}

/// Reads a regular file of at most [`MAX_TEXT`] bytes in UTF-8.
///
/// # Errors
/// As [`read`]; also when the file is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    let text = String::from_utf8(read(path, MAX_TEXT)?);
    text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "is not UTF-8"))
}

/// Opens a file of a fit kind, and returns its length too.
fn open_if(path: &Path, is_fit: impl Fn(&FileType) -> bool) -> io::Result<(File, u64)> {
    let check = |found: FileType| if is_fit(&found) { Ok(()) } else { Err(unfit(found)) };
    // Look before opening: to open a device can rewind a tape or arm a watchdog.
    check(fs::metadata(path)?.file_type())?;
    // Somebody may exchange the file right now. `NONBLOCK` opens even a FIFO at once.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let found = file.metadata()?;
    check(found.file_type())?;
    Ok((file, found.len()))
}

fn unfit(found: FileType) -> io::Error {
    let found = if found.is_dir() {
        // As `read` would say.
        return rustix::io::Errno::ISDIR.into();
    } else if found.is_fifo() {
        "a FIFO"
    } else if found.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    io::Error::new(io::ErrorKind::InvalidInput, format!("is {found}, expected a regular file"))
}

fn too_large(cap: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("is larger than {cap} bytes, the most that is read"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use rustix::fs::{CWD, FileType as Node, Mode, mknodat};

    use super::*;

    /// Reads `path` by a thread of its own, so that a reader which blocks fails the test.
    fn read_soon(path: &Path) -> Result<usize, String> {
        let (sender, receiver) = mpsc::channel();
        let path = path.to_owned();
        thread::spawn(move || sender.send(read(&path, 100).map(|bytes| bytes.len())));
        let result = receiver.recv_timeout(Duration::from_secs(20)).expect("the reader returns");
        result.map_err(|error| error.to_string())
    }

    #[test]
    fn file_of_another_kind_is_refused_at_once() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::write(at("good"), [7; 100]).unwrap();
        fs::write(at("long"), [7; 101]).unwrap();
        File::create(at("sparse")).unwrap().set_len(1 << 40).unwrap();
        mknodat(CWD, at("fifo"), Node::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        for (link, target) in
            [("to-good", "good"), ("to-fifo", "fifo"), ("to-zero", "/dev/zero"), ("loop", "loop")]
        {
            symlink(target, at(link)).unwrap();
        }
        for (name, expected) in [
            ("good", Ok(100)),
            ("to-good", Ok(100)),
            ("long", Err("is larger than 100 bytes")),
            ("sparse", Err("is larger than 100 bytes")),
            ("fifo", Err("is a FIFO, expected a regular file")),
            ("to-fifo", Err("is a FIFO, expected a regular file")),
            ("socket", Err("is a socket, expected a regular file")),
            ("to-zero", Err("is a device, expected a regular file")),
            ("/dev/tty", Err("is a device, expected a regular file")),
            (".", Err("directory")),
            ("loop", Err("")),
            ("absent", Err("")),
        ] {
            match (read_soon(&at(name)), expected) {
                (Ok(length), Ok(expected)) => assert_eq!(length, expected, "{name}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{name}: {error}"),
                (found, _) => panic!("{name}: {found:?}"),
            }
        }
        assert!(open_to_sync(home.path()).is_ok() && open_to_sync(&at("fifo")).is_err());
    }

    #[test]
    fn file_that_claims_to_be_empty_is_bounded() {
        // A file below /proc has the length 0.
        assert!(read(Path::new("/proc/self/status"), MAX_TEXT).unwrap().len() > 100);
        assert_eq!(read(Path::new("/proc/self/status"), 10).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
