//! Ways in which an upstream misbehaves.

use std::io::{self, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::message::{self, Incoming};
use super::{Shared, cgi, hostile};

/// A fault, in place of the right answer or applied to it.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Takes the request and never answers.
    Silent,
    /// Sends this and nothing more, and keeps the connection.
    Stalled {
        /// The beginning of an answer.
        start: String,
    },
    /// The right answer, one byte at a time.
    Trickle {
        /// The time between two bytes.
        every: Duration,
    },
    /// A status with a short text.
    Status {
        /// The status code.
        code: u16,
        /// The value of `Retry-After`.
        retry_after: Option<String>,
    },
    /// Status 200 and an HTML page, as from a captive portal.
    Page,
    /// Status 302 to this place: a URL, or a path on this server.
    Redirect {
        /// The value of `Location`.
        to: String,
    },
    /// The first bytes of the right answer, then the end of the connection.
    CloseAfter {
        /// The number of bytes, status line and header fields included.
        bytes: usize,
    },
    /// Status 200 and exactly this: a listing that git itself would never send.
    Answer {
        /// The value of `Content-Type`.
        content_type: String,
        /// The body.
        body: Vec<u8>,
    },
    /// The right answer with one text in place of another, as from a proxy that filters
    /// capabilities. The texts have the same length, because the protocol counts bytes.
    Rewrite {
        /// The text to replace.
        from: &'static str,
        /// The new text.
        to: &'static str,
    },
    /// The answer of a server that only knows the first version of git's protocol, rewritten in the
    /// same way.
    Old {
        /// The text to replace.
        from: &'static str,
        /// The new text.
        to: &'static str,
    },
    /// The repository's plain files, as from a server without git support. Such a repository needs
    /// `git update-server-info` after every change.
    PlainFiles,
    /// Status 200 and this block again and again, until the client has enough.
    Endless {
        /// The value of `Content-Type`.
        content_type: String,
        /// The block.
        block: Vec<u8>,
    },
    /// This status and zeros, as few bytes by gzip.
    Bomb {
        /// The status code.
        status: u16,
        /// The value of `Content-Type`.
        content_type: String,
        /// The number of zeros in MiB.
        mib: usize,
    },
    /// The right listing, but a fetch gets a pack of so many objects, one after the other until the
    /// client has enough.
    EndlessPack {
        /// The number of objects that the pack claims to have.
        objects: u32,
    },
}

/// The content type of a tag listing.
pub const ADVERTISEMENT: &str = "application/x-git-upload-pack-advertisement";

/// The content type of the answer to the second request of a listing.
pub const RESULT: &str = "application/x-git-upload-pack-result";

/// Applies `fault` to a request. An error ends the connection.
pub(super) fn perform(
    fault: &Fault,
    incoming: &mut Incoming<'_, '_>,
    mut stream: &TcpStream,
    shared: &Shared,
) -> io::Result<()> {
    let root = shared.root.path();
    match fault {
        Fault::Silent | Fault::Stalled { .. } => {
            incoming.drain()?;
            if let Fault::Stalled { start } = fault {
                stream.write_all(start.as_bytes())?;
            }
            // Wait for the client to give up, or for the server's end.
            io::copy(&mut stream, &mut io::sink())?;
            Err(io::ErrorKind::ConnectionAborted.into())
        }
        Fault::Trickle { every } => {
            cgi::serve(incoming, &mut Slow { stream, every: *every, shared }, root, false)
        }
        Fault::CloseAfter { bytes } => cgi::serve(incoming, &mut Cut { stream, left: *bytes }, root, false),
        Fault::Status { code, retry_after } => {
            incoming.drain()?;
            let mut fields: Vec<_> =
                retry_after.iter().map(|value| ("Retry-After", value.as_str())).collect();
            // git would show the text of an answer that it reads.
            fields.extend((*code >= 429).then_some(("Content-Type", "text/plain")));
            message::respond(&mut stream, *code, &fields, b"not today\n")
        }
        Fault::Page => {
            incoming.drain()?;
            let html = [("Content-Type", "text/html; charset=utf-8")];
            message::respond(
                &mut stream,
                200,
                &html,
                b"<!DOCTYPE html><title>Welcome</title><p>Please log in.\n",
            )
        }
        Fault::Redirect { to } => {
            incoming.drain()?;
            message::respond(&mut stream, 302, &[("Location", to)], b"over there\n")
        }
        Fault::Answer { content_type, body } => {
            incoming.drain()?;
            message::respond(&mut stream, 200, &[("Content-Type", content_type)], body)
        }
        Fault::Rewrite { from, to } | Fault::Old { from, to } => {
            assert_eq!(from.len(), to.len(), "the protocol counts bytes");
            if matches!(fault, Fault::Old { .. }) {
                incoming.request.headers.retain(|(name, _)| name != "git-protocol");
            }
            let mut answer = Vec::new();
            cgi::serve(incoming, &mut answer, root, false)?;
            for place in 0..answer.len() {
                if answer[place..].starts_with(from.as_bytes()) {
                    answer[place..place + from.len()].copy_from_slice(to.as_bytes());
                }
            }
            stream.write_all(&answer)
        }
        Fault::PlainFiles => {
            incoming.drain()?;
            let file = root.join(incoming.request.path.trim_start_matches('/'));
            match std::fs::read(file) {
                Ok(content) => {
                    message::respond(&mut stream, 200, &[("Content-Type", "text/plain")], &content)
                }
                Err(_) => message::respond(&mut stream, 404, &[], b"no such file\n"),
            }
        }
        Fault::Endless { content_type, block } => {
            incoming.drain()?;
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n")?;
            loop {
                stream.write_all(block)?;
            }
        }
        Fault::Bomb { status, content_type, mib } => {
            incoming.drain()?;
            let fields = [("Content-Type", content_type.as_str()), ("Content-Encoding", "gzip")];
            message::respond(&mut stream, *status, &fields, &hostile::gzip_of_zeros(*mib))
        }
        Fault::EndlessPack { objects } if incoming.begins_with(b"0011command=fetch")? => {
            incoming.drain()?;
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: {RESULT}\r\nConnection: close\r\n\r\n")?;
            stream.write_all(&hostile::pack_start(*objects))?;
            let object = hostile::pack_object();
            loop {
                stream.write_all(&object)?;
            }
        }
        Fault::EndlessPack { .. } => cgi::serve(incoming, &mut stream, root, false),
    }
}

/// Writes one byte at a time.
struct Slow<'a> {
    stream: &'a TcpStream,
    every: Duration,
    shared: &'a Shared,
}

impl Write for Slow<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.shared.pause(self.every) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.stream.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Writes a number of bytes and then fails.
struct Cut<'a> {
    stream: &'a TcpStream,
    left: usize,
}

impl Write for Cut<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let written = self.stream.write(&bytes[..bytes.len().min(self.left)])?;
        self.left -= written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
