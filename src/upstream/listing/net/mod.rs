//! Connections for listings: host names, addresses and TLS, below the HTTP client.

pub(super) mod addresses;
pub(super) mod resolver;
pub(super) mod tls;
