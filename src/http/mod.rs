//! The HTTP side: `/healthz`, `/status` and the signed webhook, on `tiny_http`
//! behind a gate of our own. It reads snapshots and sends events; nothing else
//! of the farm is known here.

mod client;
pub(crate) mod frame;
mod gate;
mod routes;
mod slots;
pub(crate) mod webhook;

use std::fs::{self, File, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crossbeam_channel::Sender;
use log::info;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::config::ListenAddr;
use crate::farm::events::Event;
use crate::farm::status::Status;

/// How many connections may wait to be taken. The gate takes them at once; this is for a burst.
const BACKLOG: i32 = 1024;

/// Where the loop publishes its snapshot and the routes find it. The lock is
/// held for the copy of a pointer only.
#[derive(Debug, Default)]
pub(crate) struct Board {
    latest: Mutex<Arc<Status>>,
    version: AtomicU64,
}

impl Board {
    /// Replaces the snapshot.
    pub(crate) fn publish(&self, status: Status) {
        let status = Arc::new(status);
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = status;
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The latest snapshot.
    pub(crate) fn latest(&self) -> Arc<Status> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A number that grows with each snapshot.
    fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }
}

/// Listens on `addr`. Without a host that is every address, IPv6 and IPv4.
///
/// # Errors
/// When the host is unknown or the port is taken or not allowed.
pub(crate) fn bind(addr: &ListenAddr) -> io::Result<TcpListener> {
    match &addr.host {
        Some(host) => {
            let listener = TcpListener::bind((host.as_str(), addr.port))?;
            // Listening once more does no more than lengthen the queue.
            rustix::net::listen(&listener, BACKLOG)?;
            Ok(listener)
        }
        // A machine without IPv6 has IPv4 all the same.
        None => bind_everywhere(addr.port).or_else(|error| {
            if error.kind() == io::ErrorKind::AddrInUse {
                return Err(error);
            }
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, addr.port))
        }),
    }
}

/// An IPv6 socket that takes IPv4 as well, whatever the system's default is.
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

/// A server that has its sockets, and answers nobody yet.
pub(crate) struct Server {
    listener: TcpListener,
    behind: tiny_http::Server,
    path: PathBuf,
    /// `path` goes through this open directory.
    directory: File,
}

impl Server {
    /// Takes the sockets: `listener` for the clients, and one in `directory`, for
    /// this process alone, for the server behind the gate.
    ///
    /// # Errors
    /// When the system refuses the second one.
    pub(crate) fn open(listener: TcpListener, directory: &Path) -> io::Result<Self> {
        let (path, directory) = socket_path(directory)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let behind = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let behind = tiny_http::Server::from_listener(behind, None).map_err(io::Error::other)?;
        Ok(Self { listener, behind, path, directory })
    }

    /// Serves from threads of its own, until the process ends. Without a secret no
    /// webhook is accepted.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start<M: From<Event> + Send + 'static>(
        self,
        secret: Option<Vec<u8>>,
        board: Arc<Board>,
        events: Sender<M>,
    ) -> io::Result<()> {
        let Self { listener, behind, path, directory } = self;
        let addr = listener.local_addr()?;
        let shown = board.clone();
        thread::Builder::new().name("http".into()).spawn(move || {
            let _directory = directory;
            routes::Routes::new(secret, shown, events).serve(&behind);
        })?;
        gate::start(listener, path, board)?;
        info!(addr:%; "webhook server listening");
        Ok(())
    }
}

/// A path to the server's socket that is short, as Unix sockets want it, however
/// long the name of the state directory is; and the open directory that it needs.
fn socket_path(directory: &Path) -> io::Result<(PathBuf, File)> {
    let handle = File::open(directory)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/http.sock", handle.as_raw_fd()));
    Ok((path, handle))
}
