//! Tests of our pages in a real browser: Chromium, by keyboard and mouse, over HTTP on loopback.
//!
//! They are a crate of their own because a browser takes a second to start and much memory.

#[path = "../support/mod.rs"]
mod support;

mod appearance;
mod farm;
mod hostile;
mod many;
mod repository;
mod site;
mod states;
mod without;
