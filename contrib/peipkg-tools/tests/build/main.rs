//! Tests the real `peipkg-build` against expectations that do not come from its code.

mod archive;
mod check;
mod command_line;
mod failures;
mod fixture;
mod packages;
