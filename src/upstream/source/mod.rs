//! Sources: fetching the files of one tag, and prefetching those of the next builds.

pub(crate) mod commit_times;
pub(crate) mod fetch;
mod prefetch;
mod source_tree;
