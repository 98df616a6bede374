//! Upstreams: listing their tags and fetching a tag's source.

pub mod git;
mod source_tree;
pub mod sources;
