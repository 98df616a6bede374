//! A repository of packages as a directory: create it, publish to it, audit it (PSD-009 §6).
//!
//! # Files
//!
//! [`layout`] names the files that consumers read. Unfinished files are hidden at the root:
//!
//! ```text
//! .lock                 held by a publish; see [`lock`]
//! .init.tmp/            marks an `init` that has not finished
//! .incoming.tmp         a package, key or sidecar being written
//! .index.tmp/           new index files; after the commit, the old ones
//! .index.next/          complete index files being moved one by one
//! .repo.json.tmp, .repo.json.sig.tmp
//!                       a descriptor for another directory than the input
//! .site.tmp             a file of the browse site being written
//! ```
//!
//! # How a publish changes a repository
//!
//! A publish validates everything before it writes anything that stays:
//!
//! 1. Write the four index files to `.index.tmp`, entry by entry as the old archive is read. If a check
//!    fails, such as that of the old archive's signature, remove them.
//! 2. Copy each package to `.incoming.tmp` and rename it to the place that its URL names. A package
//!    with an http or https URL is stored elsewhere, by somebody else. No index names these files
//!    yet, so a crash leaves only files that no consumer sees. The next publish finds them in place
//!    and replaces those whose bytes differ. Then write the [`sidecars`] of the packages, which may not
//!    take the space of packages and indexes on a full disk. Sync everything new: files first, then
//!    directories. If a step fails, remove the new sidecars; after a kill they stay beside their
//!    packages. Remove those of other names after the commit.
//! 3. Exchange `.index.tmp` and `index` in one system call. This is the commit. It publishes all
//!    packages at once and keeps each document together with its signature.
//! 4. Set the modification time of the descriptor: mirrors watch it, and a publish does not
//!    change its content. If the output is another directory, move the descriptor there now; it
//!    was written before the commit. An error after the commit is printed as a note, and the
//!    command succeeds.
//! 5. Write the browse site; see [`site`]. Its errors are notes too. A publish that ends before this
//!    step leaves the page of an earlier index, and the next publish replaces it.
//!
//! Some file systems cannot exchange directories, and `index` may hold foreign files. Then step 3
//! renames `.index.tmp` to `.index.next` and moves its files one by one: the archive, its
//! signature, the active index, its signature. The archive moves first so that it never lacks a
//! package of the active index, and its move is the commit. The next publish completes the moves
//! if `.index.next` holds no archive, and discards `.index.next` if it does.
//!
//! An interrupted publish can therefore be repeated. Before the commit, the packages are still
//! new; after it, they are published, and publishing them again reports duplicates.
//!
//! A publish locks its output. While it reads the documents of another input, it takes that one's lock
//! shared; so does `verify`. `init` writes `repo.json` last, and `.init.tmp` marks a repository without
//! it.

mod both_indexes;
mod clients;
pub mod command;
pub mod descriptor;
mod entry;
pub mod error;
mod files;
mod full_entry;
mod generation;
mod hashing;
mod incoming;
pub mod index;
mod index_stream;
pub mod init;
mod listed;
mod lock;
mod loss;
mod merge;
mod places;
mod previous;
mod provenance;
pub mod publish;
mod published;
mod sidecars;
mod site;
mod staging;
mod store;
pub mod template;
pub mod verify;

/// The file whose lock a publish holds.
const LOCK: &str = ".lock";
/// Marks a repository that `init` has not finished: `init` may start over there.
const MARKER: &str = ".init.tmp";
/// The file being copied: package, key or sidecar. One name, so that one removal clears it.
const INCOMING: &str = ".incoming.tmp";
/// The directory of new index files.
const WRITING: &str = ".index.tmp";
/// The directory of complete index files that move one by one.
const MOVING: &str = ".index.next";
/// A new descriptor before it moves into place.
const NEW_DESCRIPTOR: &str = ".repo.json.tmp";
/// The new descriptor's signature before it moves into place.
const NEW_SIGNATURE: &str = ".repo.json.sig.tmp";
/// A file of the browse site before it moves into place.
const SITE: &str = ".site.tmp";
/// Files that an interrupted publish may leave.
const WORKING_FILES: [&str; 4] = [INCOMING, NEW_DESCRIPTOR, NEW_SIGNATURE, SITE];
