//! Upstreams: [`listing`] finds their tags, [`source`] fetches the files of one tag.

pub(crate) mod git;
mod git_access;
pub(crate) mod git_error;
pub(crate) mod listing;
pub(crate) mod source;
