//! The HTTP side: `/healthz`, `/status`, the page, `/metrics` and the signed webhook, served by `tiny_http` behind a gate
//! of our own. It reads snapshots and sends events; it must not know anything else of the farm.
//!
//! `mod.rs` opens the socket for the clients and starts the two threads: the gate, which holds the
//! clients, and the routes, which answer what `tiny_http` hands them. `gate.rs` says why there is a
//! gate, `behind.rs` how `tiny_http` stands behind it.

mod backend;
mod behind;
mod client;
mod desk;
pub(crate) mod frame;
mod gate;
mod limited;
mod metrics;
mod page;
mod pieces;
mod routes;
pub(crate) mod signature;
mod snapshot;
mod socket;
#[cfg(test)]
mod tests;
pub(crate) mod webhook;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::Sender;
use log::info;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

pub(crate) use self::behind::OpenError;
pub(crate) use self::snapshot::SnapshotRequest;
use crate::config::ListenAddr;
use crate::farm::events::Event;
use crate::farm::status::Status;

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
    connections: Vec<UnixStream>,
}

impl Server {
    /// Starts `tiny_http` and connects the gate to it, over a socket in `directory` that is removed
    /// again. Clients will come from `listener`.
    ///
    /// # Errors
    /// When the socket cannot be made, or the process lacks files or threads.
    pub(crate) fn open(listener: TcpListener, directory: &Path) -> Result<Self, OpenError> {
        let (behind, connections) = behind::open(directory)?;
        Ok(Self { listener, behind, connections })
    }

    /// Serves from threads of its own, until the process ends. Shows `snapshot` until the receiver of
    /// `events` answers requests for newer ones. Without a secret no webhook is accepted.
    ///
    /// # Errors
    /// When the system refuses a thread or a file. Nothing else is needed later: a client can use
    /// up only its own socket.
    pub(crate) fn start<M: From<Event> + From<SnapshotRequest> + Send + 'static>(
        self,
        secret: Option<Vec<u8>>,
        snapshot: Arc<Status>,
        events: Sender<M>,
    ) -> io::Result<()> {
        let Self { listener, behind, connections } = self;
        let addr = listener.local_addr()?;
        let routes = routes::Routes::new(secret, snapshot, events);
        thread::Builder::new().name("http".into()).spawn(move || routes.serve(&behind))?;
        gate::start(listener, connections, gate::max_clients())?;
        info!(addr:%; "webhook server listening");
        Ok(())
    }
}
