//! Runs one reader of outside bytes under libFuzzer: `PEIPKG_FUZZ_READER` names it. The manager
//! owns the table of readers, which its tests use too.

#![no_main]

use std::env;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use peipkg_manager::readers::{READERS, Reader};

static READER: OnceLock<Reader> = OnceLock::new();

fn reader() -> Reader {
    let name = env::var("PEIPKG_FUZZ_READER").unwrap_or_default();
    let found = READERS.iter().find(|(reader, _)| *reader == name);
    found.unwrap_or_else(|| panic!("PEIPKG_FUZZ_READER names no reader: {name:?}")).1
}

fuzz_target!(|bytes: &[u8]| READER.get_or_init(reader)(bytes));
