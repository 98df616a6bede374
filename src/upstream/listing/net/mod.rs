//! Host names, addresses and TLS for the HTTP client of listings, below ureq's `unversioned` API.
//!
//! ureq has a resolver and connectors of its own. Each file here says what fails with ureq's and
//! when to try ureq's again. A new minor version of ureq may change the API, so Cargo.toml pins it.

pub(super) mod addresses;
mod provider;
pub(super) mod resolver;
mod tcp;
pub(super) mod tls;
