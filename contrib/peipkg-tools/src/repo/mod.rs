//! A repository of packages as a directory: created, published to, audited (PSD-009 §6).
//!
//! # What is on disk
//!
//! ```text
//! repo.json, repo.json.sig              the descriptor
//! index/{active,archive}.json{,.sig}    the indexes
//! keys/<fingerprint>.pub                the public keys
//! p/<name>/<version>/<file name>        the packages
//! .index.tmp, .index.next, .init.tmp,
//! .incoming.tmp, .repo.json.tmp,
//! .repo.json.sig.tmp                    work in progress; never part of the repository
//! ```
//!
//! # How it changes
//!
//! A publish validates everything before it writes anything. Then:
//!
//! 1. Package files are copied to `.incoming.tmp` and renamed to their place under `p/`, one by one. No index names them
//!    yet, so a crash leaves files that nobody sees; the next publish finds them
//!    in place, and replaces them when their bytes differ.
//! 2. The four index files are written to `.index.tmp`, and all that is new is
//!    made durable: files, then directories.
//! 3. `.index.tmp` and `index` change places in one system call. This is the
//!    commit: before it nothing has been published, after it everything has,
//!    and document and signature always match.
//! 4. The descriptor, which a publish does not change, gets a new time stamp:
//!    mirrors are told to watch it. In another directory than before, it is put
//!    in place now, having been written before the commit: what fails after the
//!    commit is told and is no failure.
//!
//! Where a file system cannot exchange directories, or `index` has files of
//! somebody else, step 3 is a rename per file instead: `.index.tmp` becomes
//! `.index.next`, then archive, its signature, active and its signature move,
//! in this order, so that the archive is never behind. The commit is then the
//! move of the archive: whoever finds an `.index.next` *without* an archive
//! completes the moves, and one *with* an archive throws it away.
//!
//! So an interrupted publish can always be repeated: if the commit was not
//! reached, the same packages are new; if it was, they are published, and
//! repeating is the error that a duplicate always is.
//!
//! A publish holds a lock on the directory it writes to, and `verify` shares one
//! while it reads the documents. `init` writes
//! `repo.json` last, and `.init.tmp` marks what it has not completed.

pub mod command;
pub mod descriptor;
pub mod error;
mod files;
mod generation;
pub mod index;
pub mod init;
mod lock;
mod merge;
mod previous;
pub mod publish;
mod staging;
mod store;
pub mod template;
pub mod verify;

/// The descriptor (PSD-009 §6.4.2).
pub const DESCRIPTOR: &str = "repo.json";
/// The directory of the indexes (PSD-009 §6.4.2).
pub const INDEX_DIR: &str = "index";
/// The directory of the public keys (PSD-009 §6.4.2).
pub const KEYS: &str = "keys";
/// The file name of the archive index.
pub const ARCHIVE: &str = "archive.json";
/// The file name of the active index.
pub const ACTIVE: &str = "active.json";
/// What the name of a detached signature adds.
pub const SIGNATURE_SUFFIX: &str = ".sig";
/// Marks a repository that is being created: its presence allows a retry to start over.
const MARKER: &str = ".init.tmp";
/// Where index files are written.
const WRITING: &str = ".index.tmp";
/// Complete index files on their way, one by one.
const MOVING: &str = ".index.next";
/// A new descriptor on its way.
const NEW_DESCRIPTOR: &str = ".repo.json.tmp";
/// Its signature on its way.
const NEW_SIGNATURE: &str = ".repo.json.sig.tmp";
/// The files that an interrupted publish may leave.
const WORKING_FILES: [&str; 3] = [store::INCOMING, NEW_DESCRIPTOR, NEW_SIGNATURE];
