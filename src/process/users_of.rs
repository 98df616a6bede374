//! Finds out whether a process uses a directory: one that outlived an earlier manager, or that has
//! left the process group of its build.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{BuildHasher as _, RandomState};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// How much of a process's arguments and variables is searched, in bytes. Linux allows 6 MiB.
const MAX_TEXT: u64 = 8 * 1024 * 1024;

/// Tells whether processes use the directories of builds, and looks at the processes only if some may:
/// looking takes some milliseconds for each hundred of them.
///
/// Once no process uses anything below the roots, none of an earlier manager is left. From then on, only
/// directories that this manager has asked about before can have users. Two looks in a row must find none:
/// the system does not list processes all at once, so one look may miss a process whose parent starts it
/// and ends meanwhile. A second look, for a later build, misses it too only if the same happens again.
#[derive(Debug)]
pub(crate) struct WorkUsers {
    /// The directories that hold those of the builds, also without links.
    roots: Vec<PathBuf>,
    seen: Mutex<Seen>,
    hasher: RandomState,
}

/// What earlier questions have shown.
#[derive(Debug, Default)]
struct Seen {
    /// A hash of each list of directories that was asked about.
    asked: HashSet<u64>,
    /// How many looks in a row have found nothing below the roots in use.
    unused: u32,
}

/// After how many such looks no process of an earlier manager can be left.
const ENOUGH: u32 = 2;

impl WorkUsers {
    /// The users of the directories in `roots`.
    pub(crate) fn new(roots: impl IntoIterator<Item = PathBuf>) -> Self {
        let with_links = |root: PathBuf| root.canonicalize().into_iter().chain([root]);
        let roots = roots.into_iter().flat_map(with_links).collect();
        Self { roots, seen: Mutex::default(), hasher: RandomState::new() }
    }

    /// As [`are_in_use`], of directories below the roots that the caller will use if nobody does.
    pub(crate) fn are_in_use(&self, directories: &[&Path]) -> bool {
        self.look_if_needed(directories, are_in_use)
    }

    fn look_if_needed(&self, directories: &[&Path], are_in_use: impl Fn(&[&Path]) -> bool) -> bool {
        // Locked while looking: two looks at the same time would be one.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = seen.asked.insert(self.hasher.hash_one(directories));
        let mut is_unused = is_new && seen.unused >= ENOUGH;
        if is_new && !is_unused {
            let roots: Vec<&Path> = self.roots.iter().map(PathBuf::as_path).collect();
            is_unused = !are_in_use(&roots);
            seen.unused = if is_unused { seen.unused + 1 } else { 0 };
        }
        drop(seen);
        !is_unused && are_in_use(directories)
    }
}

/// Returns whether another process works in one of `directories`, or has its path in an argument or
/// variable. A build that lives on can then still write there, even if the directory was removed.
/// Processes of other users count only if the system lets the manager see them; they cannot write
/// there.
fn are_in_use(directories: &[&Path]) -> bool {
    let own = std::process::id().to_string();
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    let is_process = |name: &OsStr| name.as_bytes().iter().all(u8::is_ascii_digit) && *name != *own;
    let paths = processes.flatten().filter(|entry| is_process(&entry.file_name())).map(|entry| entry.path());
    paths.into_iter().any(|process| uses(&process, directories))
}

fn uses(process: &Path, directories: &[&Path]) -> bool {
    let working = fs::read_link(process.join("cwd")).unwrap_or_default();
    if directories.iter().any(|directory| working.starts_with(directory)) {
        return true;
    }
    ["cmdline", "environ"].iter().any(|name| {
        let text = text_of(&process.join(name));
        directories.iter().any(|directory| names(&text, directory.as_os_str().as_bytes()))
    })
}

fn text_of(file: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    // A process that has ended, or that this user may not look at, has no text.
    let _ = File::open(file).and_then(|file| file.take(MAX_TEXT).read_to_end(&mut text));
    text
}

/// Returns whether `text` has `path`, itself or as the beginning of a longer path. `lib@1-1` is not
/// in `lib@1-10`.
fn names(text: &[u8], path: &[u8]) -> bool {
    let ends =
        |next: Option<&u8>| next.is_none_or(|byte| !byte.is_ascii_alphanumeric() && !b"._+~-".contains(byte));
    let mut found = text.windows(path.len()).enumerate().filter(|(_, window)| *window == path);
    found.any(|(offset, _)| ends(text.get(offset + path.len())))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn path_in_a_text_is_found_whole() {
        let path = b"/s/lib@1-1";
        for text in ["/s/lib@1-1", "a\0X=/s/lib@1-1\0b", "--out=/s/lib@1-1/tmp", "/s/lib@1-10 /s/lib@1-1:"] {
            assert!(names(text.as_bytes(), path), "{text:?}");
        }
        for text in ["", "/s/lib@1-10", "/s/lib@1-1.2/x", "/s/lib@1-"] {
            assert!(!names(text.as_bytes(), path), "{text:?}");
        }
    }

    #[test]
    fn processes_are_looked_at_only_while_some_may_use_a_directory() {
        let users = WorkUsers::new(["/s/sources".into()]);
        let looks = std::cell::RefCell::new(Vec::new());
        let ask = |directory: &str, used: &'static [&'static str]| {
            looks.borrow_mut().clear();
            let found = users.look_if_needed(&[Path::new(directory)], |directories| {
                looks.borrow_mut().push(directories[0].display().to_string());
                used.iter().any(|used| directories.iter().any(|place| Path::new(used).starts_with(place)))
            });
            (found, looks.borrow().join(" "))
        };
        // While a process of an earlier manager lives, each build looks.
        let survivor = &["/s/sources/a/x"];
        assert_eq!(ask("/s/sources/a", survivor), (true, "/s/sources /s/sources/a".into()));
        assert_eq!(ask("/s/sources/b", survivor), (false, "/s/sources /s/sources/b".into()));
        // A single look may have missed one.
        assert_eq!(ask("/s/sources/c", &[]), (false, "/s/sources".into()));
        assert_eq!(ask("/s/sources/d", &["/s/sources/d/x"]), (true, "/s/sources /s/sources/d".into()));
        assert_eq!(ask("/s/sources/e", &[]), (false, "/s/sources".into()));
        // A directory that was asked about before tells nothing of the others.
        assert_eq!(ask("/s/sources/c", &[]), (false, "/s/sources/c".into()));
        assert_eq!(ask("/s/sources/f", &[]), (false, "/s/sources".into()));
        // When none is left, only a second build of a version looks: the first may have left one.
        assert_eq!(ask("/s/sources/g", &[]), (false, String::new()));
        assert_eq!(ask("/s/sources/g", &["/s/sources/g/x"]), (true, "/s/sources/g".into()));
        assert_eq!(ask("/s/sources/a", &[]), (false, "/s/sources/a".into()));
    }

    #[test]
    fn process_that_uses_a_directory_is_found() {
        let root = tempfile::tempdir().unwrap();
        let (used, unused) = (root.path().join("used"), root.path().join("unused"));
        fs::create_dir(&used).unwrap();
        assert!(!are_in_use(&[&used, &unused]));
        let by = |change: &dyn Fn(&mut Command)| {
            // `cat` waits for the end of its input, which comes when `child` is dropped.
            let mut command = Command::new("cat");
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            change(&mut command);
            let mut child = command.spawn().unwrap();
            // A process that has just begun its program may have no arguments and variables yet.
            let deadline = Instant::now() + Duration::from_secs(10);
            while !are_in_use(&[&used]) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            let found = [are_in_use(&[&unused, &used]), are_in_use(&[&unused])];
            drop(child.stdin.take());
            child.wait().unwrap();
            found
        };
        assert_eq!(by(&|command| _ = command.current_dir(&used)), [true, false]);
        assert_eq!(by(&|command| _ = command.env("SOURCE_DIR", used.join("x"))), [true, false]);
        assert_eq!(by(&|command| _ = command.arg("-").arg(used.join("missing"))), [true, false]);
        assert!(!are_in_use(&[&used]));
    }
}
