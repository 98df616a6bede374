//! The files of a recipe: the stamp by which a change shows, and the copy that a build uses. It must
//! not read what the recipe says.
//!
//! An operator edits the files while the manager runs. A build must use the recipe that the core
//! decided on: the edited one may not even be valid. So each build gets a copy, which is compared
//! with the stamp of the recipe as it was loaded.
//!
//! A recipe consists of the regular files in its directory that this user can read, at any depth and
//! also through links. The build script could not read others either.

use std::fs::{self, DirBuilder, File, FileTimes, Metadata, Permissions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use peipkg_format::regular_file;
use peipkg_format::sort;
use rustix::fs::{Access, access};

use crate::recipe::{FILE_NAME, Recipe};
use crate::state::durable::{FileError, at};

/// The largest recipe: a link may lead to a whole file system, or back to itself.
const MAX_FILES: usize = 10_000;
const MAX_BYTES: u64 = 1 << 30;

/// The deepest directory. A path may have 4096 bytes.
const MAX_DEPTH: usize = 32;

/// Why a recipe cannot be copied.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    /// It is not the recipe that was loaded any more.
    #[error("recipe changed, waiting for a reload")]
    Changed,
    #[error("cannot copy the recipe: {0}")]
    TooLarge(#[from] TooLarge),
    #[error("cannot copy the recipe: {0}")]
    File(#[from] FileError),
}

/// The recipe has too many files, or they are too large or too deep.
#[derive(Debug, thiserror::Error)]
#[error("more than {MAX_FILES} files, 1 GiB or {MAX_DEPTH} levels of directories")]
pub(super) struct TooLarge;

/// The files of a recipe that a build gets, sorted by path.
#[derive(Debug)]
pub(super) struct RecipeFiles(Vec<RecipeFile>);

/// A file of a recipe.
#[derive(Debug)]
pub(super) struct RecipeFile {
    /// Its path in the recipe's directory.
    pub path: PathBuf,
    state: FileState,
}

/// The state of a file, which differs after a change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FileState {
    size: u64,
    modified: Option<SystemTime>,
    is_executable: bool,
}

impl RecipeFile {
    /// Whether somebody may execute it.
    pub(super) fn is_executable(&self) -> bool {
        self.state.is_executable
    }
}

impl RecipeFiles {
    /// The files, sorted by path.
    pub(super) fn iter(&self) -> impl Iterator<Item = &RecipeFile> {
        self.0.iter()
    }

    /// Returns a number that changes with `text`, the recipe's, and with any of the files.
    pub(super) fn stamp(&self, text: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        for file in &self.0 {
            (&file.path, &file.state).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Whether `path`, relative to the recipe's directory, leads to one of the files in a copy of
    /// them. The copy has no links, and nothing is beside it.
    pub(super) fn contains(&self, path: &str) -> bool {
        let mut inner = PathBuf::new();
        for component in Path::new(path).components() {
            match component {
                Component::Normal(name) => inner.push(name),
                Component::CurDir => {}
                Component::ParentDir => {
                    let is_inside =
                        |file: &RecipeFile| file.path.parent().is_some_and(|at| at.starts_with(&inner));
                    if !self.0.iter().any(is_inside) || !inner.pop() {
                        return false;
                    }
                }
                Component::RootDir | Component::Prefix(_) => return false,
            }
        }
        // The slash of `build.sh/` is no component, but the system wants a directory there.
        let is_file = !path.ends_with('/') && !path.ends_with("/.");
        is_file && self.0.binary_search_by(|file| file.path.cmp(&inner)).is_ok()
    }
}

/// Copies the files of `recipe` to the directory `target`, which must not exist. Returns the path of
/// the copied recipe file.
///
/// # Errors
/// If the recipe is not the one that was loaded, or a file cannot be read or written.
pub(super) fn copy(recipe: &Recipe, target: &Path) -> Result<PathBuf, CopyError> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(at(parent))?;
    }
    // The operator may have let a group into `stage/`, but not into the recipe, whose URL may have a
    // password.
    DirBuilder::new().mode(0o700).create(target).map_err(at(target))?;
    let files = list(&recipe.dir)?;
    for file in &files.0 {
        let (from, to) = (recipe.dir.join(&file.path), target.join(&file.path));
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(at(parent))?;
        }
        match copy_file(&from, &to, &file.state) {
            Ok(true) => {}
            Ok(false) => return Err(CopyError::Changed),
            Err(error) if is_gone(&error) => return Err(CopyError::Changed),
            Err(error) => return Err(at(&from)(error).into()),
        }
    }
    let copy = target.join(FILE_NAME);
    // A recipe's file without UTF-8 was not loaded.
    let text = regular_file::read_text(&copy).map_err(|_| CopyError::Changed)?;
    if files.stamp(&text) == recipe.stamp { Ok(copy) } else { Err(CopyError::Changed) }
}

/// Copies a file, and returns whether it was in the given state all the time.
fn copy_file(from: &Path, to: &Path, state: &FileState) -> io::Result<bool> {
    let source = regular_file::open(from)?;
    let is_same = || Ok::<_, io::Error>(FileState::of(&source.metadata()?) == Some(state.clone()));
    if !is_same()? {
        return Ok(false);
    }
    let mut target = File::create_new(to)?;
    io::copy(&mut (&source).take(state.size), &mut target)?;
    let mode = if state.is_executable { 0o755 } else { 0o644 };
    target.set_permissions(Permissions::from_mode(mode))?;
    if let Some(modified) = state.modified {
        // A build may look at the time. Not all file systems have every time.
        let _ = target.set_times(FileTimes::new().set_modified(modified));
    }
    is_same()
}

/// Whether a file has gone, or become something else, since it was listed.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, IsADirectory, NotADirectory, NotFound};
    // The reader calls a FIFO or a device an invalid input.
    matches!(error.kind(), NotFound | NotADirectory | IsADirectory | InvalidInput)
}

/// Lists the files of the recipe in `directory`.
///
/// # Errors
/// If the recipe is too large to be built.
pub(super) fn list(directory: &Path) -> Result<RecipeFiles, TooLarge> {
    let (mut files, mut bytes, mut entries) = (Vec::new(), 0, 0);
    let mut directories = vec![(PathBuf::new(), 0)];
    while let Some((inner, depth)) = directories.pop() {
        // A directory that cannot be read has no files for the build either.
        for entry in fs::read_dir(directory.join(&inner)).into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), inner.join(entry.file_name()));
            let Ok(metadata) = fs::metadata(entry.path()) else { continue };
            if is_litter(name.as_bytes()) {
                continue;
            }
            entries += 1;
            if metadata.is_dir() {
                directories.push((path, depth + 1));
            } else if let Some(state) = FileState::of(&metadata)
                && access(entry.path(), Access::READ_OK).is_ok()
            {
                bytes += state.size;
                files.push(RecipeFile { path, state });
            }
            if entries > MAX_FILES || bytes > MAX_BYTES || depth > MAX_DEPTH {
                return Err(TooLarge);
            }
        }
    }
    sort::sort_by(&mut files, |a, b| a.path.cmp(&b.path));
    Ok(RecipeFiles(files))
}

/// Tells whether git or an editor makes files of this name beside those of the recipe. An open
/// editor must not delay the recipe's builds.
fn is_litter(name: &[u8]) -> bool {
    let is_swap = |name: &[u8]| matches!(name, [b'.', .., b'.', b's', b'w', _]);
    name == b".git" || name.ends_with(b"~") || name.starts_with(b".#") || is_swap(name)
}

impl FileState {
    /// Returns the state of a regular file.
    fn of(metadata: &Metadata) -> Option<Self> {
        let is_executable = metadata.permissions().mode() & 0o111 != 0;
        let modified = metadata.modified().ok();
        metadata.is_file().then_some(Self { size: metadata.len(), modified, is_executable })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    const TEXT: &str = "[[package]]\nname = \"tool\"\narchitecture = \"noarch\"\n";

    /// A recipe of several files, loaded.
    fn recipe(home: &Path) -> Recipe {
        let directory = home.join("recipes/tool");
        fs::create_dir_all(directory.join("patches/deep")).unwrap();
        fs::create_dir(home.join("common")).unwrap();
        fs::write(home.join("common/helper.sh"), "help").unwrap();
        symlink("../../common", directory.join("common")).unwrap();
        symlink("nowhere", directory.join("dangling")).unwrap();
        fs::write(directory.join(FILE_NAME), TEXT).unwrap();
        fs::write(directory.join("build.sh"), "make").unwrap();
        fs::set_permissions(directory.join("build.sh"), Permissions::from_mode(0o700)).unwrap();
        fs::write(directory.join("patches/deep/fix"), "fix").unwrap();
        let stamp = list(&directory).unwrap().stamp(TEXT);
        Recipe::parse("tool", &directory, TEXT, stamp, &mut Vec::new()).unwrap()
    }

    /// Changes a loaded recipe, and copies it.
    #[track_caller]
    fn check(change: impl FnOnce(&Path), is_same: bool) {
        let home = tempfile::tempdir().unwrap();
        let recipe = recipe(home.path());
        change(&recipe.dir);
        match copy(&recipe, &home.path().join("stage/recipe")) {
            Ok(_) => assert!(is_same, "the change was not seen"),
            Err(CopyError::Changed) => assert!(!is_same, "nothing has changed"),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn copy_has_the_files_of_the_recipe() {
        let home = tempfile::tempdir().unwrap();
        let (recipe, target) = (recipe(home.path()), home.path().join("stage/recipe"));
        assert_eq!(copy(&recipe, &target).unwrap(), target.join(FILE_NAME));
        let read = |name: &str| fs::read_to_string(target.join(name)).unwrap();
        let names = [FILE_NAME, "build.sh", "patches/deep/fix", "common/helper.sh"];
        assert_eq!(names.map(read), [TEXT, "make", "fix", "help"]);
        let mode = |name: &str| fs::metadata(target.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(["build.sh", FILE_NAME, "."].map(mode), [0o755, 0o644, 0o700]);
        let modified = |path: PathBuf| fs::metadata(path).unwrap().modified().unwrap();
        assert_eq!(modified(target.join("build.sh")), modified(recipe.dir.join("build.sh")));
    }

    #[test]
    fn changed_recipe_is_not_copied() {
        check(|_| {}, true);
        check(|recipe| fs::write(recipe.join("build.sh"), "make all").unwrap(), false);
        check(|recipe| fs::write(recipe.join("patches/deep/fix"), "other").unwrap(), false);
        check(|recipe| fs::write(recipe.join("common/helper.sh"), "other").unwrap(), false);
        check(|recipe| fs::write(recipe.join("new"), "").unwrap(), false);
        check(|recipe| fs::remove_file(recipe.join("patches/deep/fix")).unwrap(), false);
        check(|recipe| fs::remove_dir_all(recipe).unwrap(), false);
        let rename = |recipe: &Path| fs::rename(recipe.join("patches/deep"), recipe.join("deep")).unwrap();
        check(rename, false);
        let mode = |recipe: &Path| {
            fs::set_permissions(recipe.join("build.sh"), Permissions::from_mode(0o600)).unwrap();
        };
        check(mode, false);
        let same_size = |recipe: &Path| {
            let file = File::create(recipe.join("build.sh")).unwrap();
            io::copy(&mut &b"fake"[..], &mut &file).unwrap();
            file.set_modified(SystemTime::now() + Duration::from_secs(1)).unwrap();
        };
        check(same_size, false);
        // The time of the recipe's own file may be the same: its text counts too.
        let same_time = |recipe: &Path| {
            let path = recipe.join(FILE_NAME);
            let modified = fs::metadata(&path).unwrap().modified().unwrap();
            fs::write(&path, TEXT.replace("tool", "fool")).unwrap();
            File::options().append(true).open(&path).unwrap().set_modified(modified).unwrap();
        };
        check(same_time, false);
    }

    #[test]
    fn file_that_became_something_else_since_it_was_listed_is_gone() {
        let home = tempfile::tempdir().unwrap();
        let (from, to) = (home.path().join("from"), home.path().join("to"));
        fs::write(&from, "make").unwrap();
        let state = FileState::of(&fs::metadata(&from).unwrap()).unwrap();
        assert!(copy_file(&from, &to, &state).unwrap());
        fs::remove_file(&from).unwrap();
        assert!(is_gone(&copy_file(&from, &to, &state).unwrap_err()), "nothing");
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &from, fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        assert!(is_gone(&copy_file(&from, &to, &state).unwrap_err()), "a FIFO");
        fs::remove_file(&from).unwrap();
        fs::create_dir(&from).unwrap();
        assert!(is_gone(&copy_file(&from, &to, &state).unwrap_err()), "a directory");
    }

    #[test]
    fn file_that_no_build_could_use_is_no_change() {
        let fifo = |recipe: &Path| {
            let mode = rustix::fs::Mode::RWXU;
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, recipe.join("fifo"), kind, mode, 0).unwrap();
        };
        check(fifo, true);
        check(|recipe| symlink("/dev/zero", recipe.join("zero")).unwrap(), true);
        for litter in [".build.sh.swp", "build.sh~", ".#build.sh"] {
            check(|recipe| fs::write(recipe.join(litter), "").unwrap(), true);
        }
    }

    #[test]
    fn path_is_found_as_a_build_would_find_it() {
        let home = tempfile::tempdir().unwrap();
        let recipe = recipe(home.path());
        fs::write(home.path().join("recipes/beside.sh"), "").unwrap();
        fs::write(recipe.dir.join("old.sh~"), "").unwrap();
        fs::create_dir(recipe.dir.join("empty")).unwrap();
        let files = list(&recipe.dir).unwrap();
        let (dir, copy) = (&recipe.dir, home.path().join("stage/deep/recipe"));
        super::copy(&recipe, &copy).unwrap();
        let good = [
            "build.sh",
            "./build.sh",
            "patches//deep/./fix",
            "patches/../build.sh",
            "patches/deep/../../build.sh",
            "common/helper.sh",
        ];
        let bad = [
            "",
            ".",
            "patches",
            "build.sh/",
            "build.sh/.",
            "build.sh/../build.sh",
            "empty/../build.sh",
            "none/../build.sh",
            "../beside.sh",
            "../tool/build.sh",
            "../../common/helper.sh",
            "old.sh~",
            "dangling",
            "/bin/sh",
        ];
        for path in good {
            assert!(
                files.contains(path) && copy.join(path).is_file() && dir.join(path).is_file(),
                "{path:?}"
            );
        }
        for path in bad {
            let absolute = path.starts_with('/');
            assert!(!files.contains(path) && (absolute || !copy.join(path).is_file()), "{path:?}");
        }
    }

    #[test]
    fn recipe_without_end_is_too_large() {
        let home = tempfile::tempdir().unwrap();
        let recipe = recipe(home.path());
        symlink(".", recipe.dir.join("loop")).unwrap();
        assert!(list(&recipe.dir).is_err());
        let error = copy(&recipe, &home.path().join("copy")).unwrap_err();
        assert!(error.to_string().ends_with("more than 10000 files, 1 GiB or 32 levels of directories"));
    }
}
