//! Sources: fetching the files of one tag, and prefetching those of the next builds.

pub(crate) mod commit_times;
pub(crate) mod fetch;
pub(crate) mod not_commits;
mod prefetch;
mod source_tree;
