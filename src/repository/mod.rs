//! The signed repository: publishing into it, judging and undoing a publish that was cut short,
//! reading its archive index, uploading it.
//!
//! `peipkg-repo` writes the repository; nothing here changes a published file.

pub(crate) mod archive_file;
pub(crate) mod journal;
pub(crate) mod peipkg_repo;
pub(crate) mod pending;
pub(crate) mod publish;
pub(crate) mod published;
pub(crate) mod settle;
pub(crate) mod timestamp;
pub(crate) mod upload;
