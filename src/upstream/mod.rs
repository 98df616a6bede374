//! Upstreams: listing their tags and fetching a tag's source.

pub mod git;
pub mod http_url;
pub mod ls_refs;
pub mod pkt_line;
pub mod ref_name;
pub mod retry_after;
pub mod route;
mod source_tree;
pub mod sources;
