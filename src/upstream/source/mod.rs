//! Sources: fetching the files of one tag, and prefetching those of the next builds.

mod attempt;
mod bare;
pub(crate) mod commit_times;
mod economies;
pub(crate) mod fetch;
pub(crate) mod gitmodules;
mod lfs;
pub(crate) mod not_commits;
mod prefetch;
mod signature_status;
pub(crate) mod signatures;
mod signed_object;
pub(crate) mod source_tree;
mod submodules;
mod work_tree;
