//! Upstreams: listing their tags ([`listing`]) and fetching the source of one ([`source`]).

pub(crate) mod git;
pub(crate) mod listing;
pub(crate) mod source;
