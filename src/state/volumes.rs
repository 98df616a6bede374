//! Directories that are volumes of their own: finds out what is mounted where, and moves
//! directories from one file system to another.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use peipkg_format::regular_file;

use crate::state::durable;

/// The directory that `mkfs` puts into the root of a volume, for `fsck`. Only root may read it.
pub(crate) const LOST_AND_FOUND: &str = "lost+found";

/// The table of mounts.
const MOUNTS: &str = "/proc/self/mountinfo";

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Its number, which tells it from other mounts of the same file system.
    pub id: String,
    /// The file system's type, such as `ext4`.
    pub kind: String,
    /// The device, or what the file system calls its source.
    pub source: String,
}

impl Mount {
    /// Whether the file system forgets its files when the machine stops.
    pub(crate) fn is_volatile(&self) -> bool {
        matches!(&*self.kind, "tmpfs" | "ramfs")
    }
}

/// Returns the mount that holds `path`, which must exist. `None` if the system does not tell.
pub(crate) fn mount_of(path: &Path) -> Option<Mount> {
    find_mount(&regular_file::read_text(Path::new(MOUNTS)).ok()?, &fs::canonicalize(path).ok()?)
}

/// Finds the mount of `path`, which has no links, in the text of a `mountinfo` (proc(5)).
fn find_mount(mounts: &str, path: &Path) -> Option<Mount> {
    let lines = mounts.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ');
        let (id, point) = (fields.next()?, unescape(fields.nth(3)?));
        let point = Path::new(OsStr::from_bytes(&point)).to_owned();
        let mut fields = file_system.split(' ');
        let (kind, source) = (fields.next()?.to_owned(), fields.next()?);
        let source = String::from_utf8_lossy(&unescape(source)).into_owned();
        let depth = point.components().count();
        path.starts_with(&point).then(|| (depth, Mount { id: id.to_owned(), kind, source }))
    });
    // The last of several mounts at one place hides the others.
    lines.max_by_key(|(depth, _)| *depth).map(|(_, mount)| mount)
}

/// Decodes the octal escapes of white space and backslashes.
fn unescape(text: &str) -> Vec<u8> {
    let mut parts = text.split('\\');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part
            .split_at_checked(3)
            .and_then(|(code, rest)| Some((u8::from_str_radix(code, 8).ok()?, rest)))
        {
            Some((byte, rest)) => {
                bytes.push(byte);
                bytes.extend(rest.as_bytes());
            }
            None => bytes.extend([b"\\", part.as_bytes()].concat()),
        }
    }
    bytes
}

/// Moves the directory `from` to `to` in one step. If they are on two file systems, copies it to
/// `beside` first, which must be on that of `to`, and syncs the copy; a crash can leave `beside`.
///
/// # Errors
/// When the file system refuses; `to` is then unchanged.
pub(crate) fn move_directory(from: &Path, to: &Path, beside: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        result => return result,
    }
    let moved = copy_synced(from, beside).and_then(|()| fs::rename(beside, to));
    // The copy's error says more than that of its removal.
    moved.inspect_err(|_| drop(durable::remove(beside)))?;
    durable::clear(from);
    Ok(())
}

/// Copies the directories and regular files of `from` to the new directory `to`, and syncs the file
/// system of the copy.
///
/// # Errors
/// When the file system refuses, or `from` has a file of another kind.
fn copy_synced(from: &Path, to: &Path) -> io::Result<()> {
    copy(from, to)?;
    durable::sync_file_system(to)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_file() {
            regular_file::copy(&entry.path(), &target)?;
        } else {
            return Err(io::Error::other(format!("{} is no regular file", entry.path().display())));
        }
    }
    // After the files: the directory may be read-only.
    fs::set_permissions(to, fs::metadata(from)?.permissions())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:26 / /tmp rw - tmpfs tmpfs rw,size=100k
31 22 254:2 /repos /var/lib/farm/repo rw shared:7 master:2 - ext4 /dev/disk\\040one rw
32 22 0:27 / /var/lib/with\\040space rw - tmpfs none rw
33 22 254:1 / /mnt rw - ext4 /dev/vda1 rw
34 33 0:28 / /mnt rw - xfs /dev/vdb rw
nonsense
";

    #[test]
    fn mount_of_a_path_is_the_deepest_and_last() {
        let check = |path: &str, id: &str, kind: &str, source: &str| {
            let [id, kind, source] = [id, kind, source].map(str::to_owned);
            assert_eq!(find_mount(TABLE, Path::new(path)), Some(Mount { id, kind, source }), "{path}");
        };
        check("/var/lib/farm", "22", "ext4", "/dev/vda1");
        check("/var/lib/farm/repo", "31", "ext4", "/dev/disk one");
        check("/var/lib/farm/repo/p/x", "31", "ext4", "/dev/disk one");
        check("/var/lib/farm/repository", "22", "ext4", "/dev/vda1");
        check("/var/lib/with space/x", "32", "tmpfs", "none");
        check("/mnt/x", "34", "xfs", "/dev/vdb");
        assert_eq!(find_mount("", Path::new("/")), None);
        assert!(mount_of(Path::new("/")).is_some() && mount_of(Path::new("/no/such")).is_none());
    }

    #[test]
    fn escapes_of_the_table_are_decoded() {
        for (text, expected) in
            [("a\\040b\\134", "a b\\"), ("\\x\\9", "\\x\\9"), ("", ""), ("\\777é", "\\777é")]
        {
            assert_eq!(unescape(text), expected.as_bytes(), "{text}");
        }
    }

    #[test]
    fn copy_has_all_files_and_modes_but_no_links() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let home = tempfile::tempdir().unwrap();
        let (from, to) = (home.path().join("from"), home.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::write(from.join("a/b/file"), "text").unwrap();
        fs::set_permissions(from.join("a"), fs::Permissions::from_mode(0o750)).unwrap();
        copy_synced(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("a/b/file")).unwrap(), "text");
        assert_eq!(fs::metadata(to.join("a")).unwrap().permissions().mode() & 0o777, 0o750);
        symlink("x", from.join("link")).unwrap();
        let error = copy_synced(&from, &home.path().join("again")).unwrap_err().to_string();
        assert!(error.ends_with("link is no regular file"), "{error}");
    }
}
