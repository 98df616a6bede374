//! Starts `tiny_http` behind the gate, with all the connections that it will ever have.
//!
//! `tiny_http` gives each connection a thread and two files, and panics where the system refuses
//! one. So a few connections are made and confirmed before the first client, and then its listening
//! socket is shut down: from then on `tiny_http` starts no thread and opens no file. Its threads read
//! requests from their connections and queue them; all else happens in the thread of the routes.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use rustix::fs::Mode;
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType};

/// The connections between the gate and `tiny_http`: as many as the threads that its pool starts
/// with. Each carries one request at a time.
const CONNECTIONS: usize = 4;

/// The most threads that `tiny_http` starts: one that accepts, those of its pool, and one for each
/// connection that it accepts before those are ready. Unused ones end after five seconds.
const THREADS: usize = 1 + 2 * CONNECTIONS;

/// The files that `tiny_http` opens: two for each connection, and one for the connection that it
/// waits for.
const FILES: usize = 2 * CONNECTIONS + 1;

/// How long `tiny_http` may take for one step of the start. It takes milliseconds; a start that hangs
/// must end with an error.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why the server behind the gate cannot be started.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The directory refuses the socket.
    Socket(io::Error),
    /// `tiny_http` does not start or accepts no connection: the process lacks files or threads.
    Connection(io::Error),
}

/// Starts `tiny_http` and returns the gate's ends of its connections. They are made over a Unix socket
/// in `directory` that is removed before `tiny_http` starts: only the gate can ever talk to it.
///
/// # Errors
/// When the socket cannot be made, or the process lacks files or threads.
pub(super) fn open(directory: &Path) -> Result<(tiny_http::Server, Vec<UnixStream>), OpenError> {
    let (listener, connections) = connect(directory).map_err(OpenError::Socket)?;
    let server = serve(listener, &connections).map_err(OpenError::Connection)?;
    Ok((server, connections))
}

/// Connects to a new socket, whose queue holds the connections until they are accepted.
fn connect(directory: &Path) -> io::Result<(UnixListener, Vec<UnixStream>)> {
    let directory = File::open(directory)?;
    // A Unix socket needs a short path, but the state directory may have a long one.
    let path = PathBuf::from(format!("/proc/self/fd/{}/http.sock", directory.as_raw_fd()));
    // A manager that was killed in this function has left its socket.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // The file gets its mode from the socket, so no other user can connect, not even for a moment.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&path)?)?;
    rustix::net::listen(&socket, i32::try_from(CONNECTIONS).unwrap_or(i32::MAX))?;
    let connections: io::Result<_> = (0..CONNECTIONS).map(|_| UnixStream::connect(&path)).collect();
    fs::remove_file(&path)?;
    Ok((UnixListener::from(socket), connections?))
}

/// Starts `tiny_http`, waits until a thread of its own serves each connection, and ends the thread
/// that accepts connections.
fn serve(listener: UnixListener, connections: &[UnixStream]) -> io::Result<tiny_http::Server> {
    let socket = listener.try_clone()?;
    reserve_files(&socket)?;
    reserve_threads()?;
    let server = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
    for mut connection in connections {
        connection.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
        // The thread that serves the connection has put this request into the queue.
        let request = server.recv_timeout(DEADLINE)?.ok_or(io::ErrorKind::TimedOut)?;
        // Take its writer, or the dropped request would answer 500 and the gate would find that.
        drop(request.into_writer());
    }
    rustix::net::shutdown(&socket, Shutdown::Both)?;
    // The thread queues the error that ends it.
    match server.recv_timeout(DEADLINE) {
        Err(_) => Ok(server),
        Ok(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Fails if `tiny_http` would panic for want of a file.
fn reserve_files(any: &impl AsFd) -> io::Result<()> {
    let files = (0..FILES).map(|_| rustix::io::fcntl_dupfd_cloexec(any, 0));
    files.collect::<Result<Vec<OwnedFd>, _>>()?;
    Ok(())
}

/// Fails if `tiny_http` would panic for want of a thread.
fn reserve_threads() -> io::Result<()> {
    let count = || fs::read_dir("/proc/self/task").map(Iterator::count);
    let before = count()?;
    let (end, ended) = bounded::<()>(0);
    let spawn = |_| {
        let ended = ended.clone();
        // Receiving fails as soon as all threads are there.
        thread::Builder::new().spawn(move || ended.recv())
    };
    let threads = (0..THREADS).map(spawn).collect::<io::Result<Vec<_>>>();
    drop(end);
    for thread in threads? {
        let _ = thread.join();
    }
    // A limit counts a thread for a moment after it was joined.
    let deadline = Instant::now() + DEADLINE;
    while count()? > before && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
