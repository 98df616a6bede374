//! Listen addresses in the form of Go programs: `:8080`, `127.0.0.1:8080`, `[::1]:8080`,
//! `localhost:8080`. Pure: looks up no host name.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::fmt;
use std::str::FromStr;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddr {
    /// A host name, or an IP address without brackets; `None` is every address, IPv6 and IPv4.
    pub host: Option<String>,
    /// The TCP port; 0 lets the system choose.
    pub port: u16,
}

/// Why a string is no listen address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} {reason}, expected HOST:PORT such as \":8080\", \"127.0.0.1:8080\" or \"[::1]:8080\"")]
pub struct ListenAddrError {
    /// The string.
    pub found: String,
    /// The end of a sentence that begins with the string.
    pub reason: &'static str,
}

impl FromStr for ListenAddr {
    type Err = ListenAddrError;

    fn from_str(text: &str) -> Result<Self, ListenAddrError> {
        parse(text).map_err(|reason| ListenAddrError { found: text.to_owned(), reason })
    }
}

impl fmt::Display for ListenAddr {
    /// Writes the form that [`FromStr`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.as_deref() {
            Some(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            host => write!(f, "{}:{}", host.unwrap_or_default(), self.port),
        }
    }
}

fn parse(text: &str) -> Result<ListenAddr, &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("has no port")?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|_| digits).ok_or("has a port that is no number from 0 to 65535")?;
    if host.is_empty() {
        return Ok(ListenAddr { host: None, port });
    }
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host = match bracketed {
        Some(inner) => {
            inner.parse::<Ipv6Addr>().map_err(|_| "has no IPv6 address in its brackets")?;
            inner
        }
        None if host.contains(':') => return Err("has an IPv6 address without brackets"),
        None => {
            check_host(host)?;
            host
        }
    };
    Ok(ListenAddr { host: Some(host.to_owned()), port })
}

/// Checks an IPv4 address or a host name.
fn check_host(host: &str) -> Result<(), &'static str> {
    if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return host.parse::<Ipv4Addr>().map(|_| ()).map_err(|_| "has a malformed IPv4 address");
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if host.starts_with(['-', '.']) || !host.bytes().all(allowed) {
        return Err("has a malformed host name");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, host: Option<&str>, port: u16) {
        let expected = ListenAddr { host: host.map(str::to_owned), port };
        assert_eq!(text.parse(), Ok(expected.clone()));
        assert_eq!(expected.to_string(), text);
    }

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        let error = text.parse::<ListenAddr>().expect_err(text).to_string();
        let example = "expected HOST:PORT such as \":8080\", \"127.0.0.1:8080\" or \"[::1]:8080\"";
        assert_eq!(error, format!("{text:?} {expected}, {example}"));
    }

    #[test]
    fn addresses_are_read() {
        check(":8080", None, 8080);
        check(":0", None, 0);
        check("127.0.0.1:8080", Some("127.0.0.1"), 8080);
        check("0.0.0.0:65535", Some("0.0.0.0"), 65535);
        check("[::1]:8080", Some("::1"), 8080);
        check("[::]:80", Some("::"), 80);
        check("localhost:8080", Some("localhost"), 8080);
        check("build-1.example.org:80", Some("build-1.example.org"), 80);
    }

    #[test]
    fn addresses_malformed_are_refused() {
        check_error("8080", "has no port");
        check_error("localhost", "has no port");
        check_error("localhost:", "has a port that is no number from 0 to 65535");
        check_error(":http", "has a port that is no number from 0 to 65535");
        check_error(":+80", "has a port that is no number from 0 to 65535");
        check_error(":65536", "has a port that is no number from 0 to 65535");
        check_error("[::1]", "has a port that is no number from 0 to 65535");
        check_error("::1:8080", "has an IPv6 address without brackets");
        check_error("http://localhost:80", "has an IPv6 address without brackets");
        check_error("[::x]:80", "has no IPv6 address in its brackets");
        check_error("[127.0.0.1]:80", "has no IPv6 address in its brackets");
        check_error("256.0.0.1:80", "has a malformed IPv4 address");
        check_error("1.2.3:80", "has a malformed IPv4 address");
        check_error("*:80", "has a malformed host name");
        check_error("local host:80", "has a malformed host name");
        check_error("-x:80", "has a malformed host name");
    }
}
