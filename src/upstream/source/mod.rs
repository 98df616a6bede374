//! Sources: fetching one tag, with those of the next builds where that is cheap.

pub(crate) mod commit_times;
pub(crate) mod fetch;
mod prefetch;
mod source_tree;
