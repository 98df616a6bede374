//! As much of a configuration as could be read. Even a file with problems usually names the recipes
//! and keys, so one `--check` can report their problems too. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use peipkg_format::problem::Problem;
use peipkg_format::strict_toml::{Document, Section};

use super::git_limits::GitLimits;
use super::keys::{self, BinaryKey, Grant};
use super::notify::Notify;
use super::sections::{Build, Http, Poll, Repo, SAMPLE_ID, Upload};
use super::values::{file, line};

/// A configuration file's contents and problems. A field is `None` if its key is missing or wrong;
/// `problems` then says so.
#[derive(Debug, Clone, Default)]
pub(crate) struct Draft {
    /// The configuration file.
    pub path: PathBuf,
    /// Every problem of the file.
    pub problems: Vec<Problem>,
    /// `[manager] recipes_dir`.
    pub recipes_dir: Option<PathBuf>,
    /// `[manager] state_dir`.
    pub state_dir: Option<PathBuf>,
    /// `[signing] key_file`.
    pub key_file: Option<PathBuf>,
    /// `[upload]`.
    pub upload: Option<Upload>,
    /// The line of `[upload] remote`.
    pub remote_line: Option<usize>,
    /// `[http]`.
    pub http: Option<Http>,
    /// The line of `[http] addr`.
    pub addr_line: Option<usize>,
    /// `[notify]`.
    pub notify: Option<Notify>,
    /// Warnings about names that are still those of the sample configuration.
    pub sample_names: Vec<Problem>,
    /// The complete `[[signing_key]]` tables.
    pub binary_keys: Vec<BinaryKey>,
    /// The `[[grant]]` tables, by recipe id.
    pub grants: BTreeMap<String, Grant>,
    pub(super) id: Option<String>,
    pub(super) repo: Option<Repo>,
    pub(super) poll: Option<Poll>,
    pub(super) build: Option<Build>,
    pub(super) git: Option<GitLimits>,
}

impl Draft {
    /// Reads as much as possible of `text`, the text of the file at `path`.
    pub(crate) fn read(path: &Path, text: &str) -> Self {
        match Document::parse(path, text) {
            Ok(document) => {
                let draft = Self::read_sections(path, document.root());
                Self { problems: document.into_problems(), ..draft }
            }
            Err(problems) => Self::unreadable(path, problems),
        }
    }

    /// Returns the draft of a file of which nothing could be read.
    pub(crate) fn unreadable(path: &Path, problems: Vec<Problem>) -> Self {
        Self { path: path.to_owned(), problems, ..Self::default() }
    }

    fn read_sections(path: &Path, mut root: Section<'_, '_>) -> Self {
        let mut draft = Self::unreadable(path, Vec::new());
        if let Some(section) = root.required_section("manager") {
            draft.read_manager(section);
        }
        let state_dir = draft.state_dir.as_deref();
        draft.repo =
            root.required_section("repo").and_then(|section| Repo::read(section, &mut draft.sample_names));
        draft.key_file = root.required_section("signing").and_then(|mut section| {
            let found = section.required_text("key_file");
            let key_file = found.and_then(|found| file(&section, "[signing] key_file", found, state_dir));
            section.deny_unknown_keys();
            key_file
        });
        (draft.upload, draft.remote_line) =
            root.section("upload").map_or((Some(Upload::None), None), Upload::read);
        (draft.http, draft.addr_line) = root
            .section("http")
            .map_or_else(|| (Some(Http::default()), None), |section| Http::read(section, state_dir));
        draft.poll = root.required_section("poll").and_then(Poll::read);
        draft.build = root.section("build").map_or_else(|| Some(Build::default()), Build::read);
        draft.git = root.section("git").map_or(Some(GitLimits::default()), GitLimits::read);
        draft.notify = root.section("notify").map_or_else(|| Some(Notify::default()), Notify::read);
        let binary_keys = keys::binary_keys(root.sections("signing_key"), state_dir);
        draft.grants = keys::grants(root.sections("grant"), &binary_keys);
        draft.binary_keys = binary_keys.into_values().flatten().collect();
        root.deny_unknown_keys();
        draft
    }

    fn read_manager(&mut self, mut section: Section<'_, '_>) {
        let id = section.required_text("id");
        if let Some(found) = id.as_ref().filter(|found| found.value == SAMPLE_ID) {
            let message = format!(
                "[manager] id is the sample's {SAMPLE_ID:?}, choose your own; every package records it permanently"
            );
            self.sample_names.push(section.remark(&found.span, message));
        }
        self.id = id.and_then(|found| line(&section, "[manager] id", found));
        let state_dir = section.required_text("state_dir");
        self.state_dir = state_dir.and_then(|found| file(&section, "[manager] state_dir", found, None));
        let recipes_dir = section.required_text("recipes_dir");
        self.recipes_dir = recipes_dir
            .and_then(|found| file(&section, "[manager] recipes_dir", found, self.state_dir.as_deref()));
        section.deny_unknown_keys();
    }
}
