//! Tests the real `peipkg-build` against expectations that do not come from its code.

mod archive;
mod failures;
mod fixture;
mod packages;
