//! The HTTP side: `/healthz`, `/status` and the signed webhook, served by `tiny_http` behind a gate
//! of our own. It reads snapshots and sends events; it must not know anything else of the farm.
//!
//! `mod.rs` opens the sockets and connects the gate to `tiny_http`; `gate.rs` says why there is a
//! gate.

mod backend;
mod client;
pub(crate) mod frame;
mod gate;
mod pieces;
mod routes;
mod snapshot;
mod socket;
#[cfg(test)]
mod tests;
pub(crate) mod webhook;

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::Sender;
use log::info;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

pub(crate) use self::snapshot::SnapshotRequest;
use crate::config::ListenAddr;
use crate::farm::events::Event;
use crate::farm::status::Status;

/// The connections between the gate and `tiny_http`: as many as the threads that its pool starts
/// with and always keeps, so they cost no thread. Each carries one request at a time.
const BACKENDS: usize = 4;

/// How long `tiny_http` may take to accept one of these connections. It takes milliseconds; a start
/// that hangs must end with an error.
const BACKEND_DEADLINE: Duration = Duration::from_secs(10);

/// The most connections that wait to be accepted. The gate accepts at once; this is for a burst.
const BACKLOG: i32 = 1024;

/// Listens on `addr`. Without a host, on every address, IPv6 and IPv4.
///
/// # Errors
/// When the host is unknown or the port is taken or not allowed.
pub(crate) fn bind(addr: &ListenAddr) -> io::Result<TcpListener> {
    match &addr.host {
        Some(host) => {
            let listener = TcpListener::bind((host.as_str(), addr.port))?;
            // A second listen only changes the length of the queue.
            rustix::net::listen(&listener, BACKLOG)?;
            Ok(listener)
        }
        // A machine without IPv6 can still serve IPv4.
        None => bind_everywhere(addr.port).or_else(|error| {
            if error.kind() == io::ErrorKind::AddrInUse {
                return Err(error);
            }
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, addr.port))
        }),
    }
}

/// Binds an IPv6 socket that accepts IPv4 as well, whatever the system's default is.
fn bind_everywhere(port: u16) -> io::Result<TcpListener> {
    let address = SocketAddr::from(([0u16; 8], port));
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET6, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_ipv6_v6only(&socket, false)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// A server with all its sockets and connections, before it accepts its first client.
pub(crate) struct Server {
    listener: TcpListener,
    behind: tiny_http::Server,
    backends: Vec<UnixStream>,
}

/// Why the server behind the gate cannot be started.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The directory refuses the socket.
    Socket(io::Error),
    /// `tiny_http` does not start or accepts no connection: the process lacks files or threads.
    Connection(io::Error),
}

impl Server {
    /// Starts `tiny_http` and connects the gate to it, over a Unix socket in `directory` that is
    /// removed again: only the gate can ever talk to `tiny_http`, and nothing is left behind.
    /// Clients will come from `listener`.
    ///
    /// # Errors
    /// When the socket cannot be made or a connection is not accepted.
    pub(crate) fn open(listener: TcpListener, directory: &Path) -> Result<Self, OpenError> {
        let directory = File::open(directory).map_err(OpenError::Socket)?;
        // A Unix socket needs a short path, but the state directory may have a long one.
        let path = PathBuf::from(format!("/proc/self/fd/{}/http.sock", directory.as_raw_fd()));
        // A manager that was killed in this function has left its socket.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(OpenError::Socket(error)),
            _ => {}
        }
        let behind = UnixListener::bind(&path).map_err(OpenError::Socket)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(OpenError::Socket)?;
        let behind = tiny_http::Server::from_listener(behind, None).map_err(io::Error::other);
        let behind = behind.map_err(OpenError::Connection)?;
        // Connect twice as often as needed: while the pool starts, it makes threads beyond its
        // four, and those that have not served a connection by now would idle forever.
        let surplus = (0..2 * BACKENDS).map(|_| connect(&path, &behind));
        let mut backends = surplus.collect::<io::Result<Vec<_>>>().map_err(OpenError::Connection)?;
        backends.truncate(BACKENDS);
        fs::remove_file(&path).map_err(OpenError::Socket)?;
        Ok(Self { listener, behind, backends })
    }

    /// Serves from threads of its own, until the process ends. Shows `snapshot` until the receiver of
    /// `events` answers requests for newer ones. Without a secret no webhook is accepted.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start<M: From<Event> + From<SnapshotRequest> + Send + 'static>(
        self,
        secret: Option<Vec<u8>>,
        snapshot: Arc<Status>,
        events: Sender<M>,
    ) -> io::Result<()> {
        let Self { listener, behind, backends } = self;
        let addr = listener.local_addr()?;
        let routes = routes::Routes::new(secret, snapshot, events);
        thread::Builder::new().name("http".into()).spawn(move || routes.serve(&behind))?;
        gate::start(listener, backends)?;
        info!(addr:%; "webhook server listening");
        Ok(())
    }
}

/// Connects to `tiny_http` and waits until a thread of its pool serves the connection. From then on
/// the connection needs no file and no thread that `tiny_http` does not have; it panics where the
/// system refuses one.
///
/// # Errors
/// When the connection is not accepted in time.
fn connect(path: &Path, server: &tiny_http::Server) -> io::Result<UnixStream> {
    let mut socket = UnixStream::connect(path)?;
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    // The thread that serves the connection has put this request into the queue.
    let request = server.recv_timeout(BACKEND_DEADLINE)?.ok_or(io::ErrorKind::TimedOut)?;
    // Take its writer, or the dropped request would answer 500 and the gate would find that answer.
    drop(request.into_writer());
    Ok(socket)
}
