//! Ports for servers that a test starts.

use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Returns a port that is free on `127.0.0.1`, and each port once in this process. By default, the kernel
/// gives ports from 32768 to connections and to listeners that ask for any, so it takes none of these
/// before the server binds it.
pub fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    // Test runs beside each other begin at different ports.
    let first = || AtomicU16::new(20_000 + u16::try_from(process::id() % 100).expect("below 100") * 100);
    loop {
        let port = NEXT.get_or_init(first).fetch_add(1, Ordering::Relaxed);
        assert!(port < 32_000, "no port below 32000 is free");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
