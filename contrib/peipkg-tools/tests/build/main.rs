//! The real `peipkg-build`, held against expectations that do not come from its code.

mod archive;
mod failures;
mod fixture;
mod packages;
