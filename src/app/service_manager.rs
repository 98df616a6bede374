//! Tells the service manager that started the process how it is: ready, reloading, stopping, alive,
//! and what it does. The protocol is `sd_notify(3)`: a datagram to the socket that `NOTIFY_SOCKET`
//! names. Without that variable, every call does nothing.
//!
//! A message that the service manager does not take must not delay the farm. Only those that it waits
//! for, at a start, a reload and a stop, are worth a second. A status is sent again a second later, as it
//! may stay true for hours; a sign of life is not.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use log::debug;
use peipkg_format::problem::{OneLine, excerpt};
use rustix::time::{ClockId, clock_gettime};

use crate::process::environment;

/// How long to wait for a service manager that does not read, if it waits for the message.
const SEND_LIMIT: Duration = Duration::from_secs(1);

/// How long to wait before a status that found no room is sent again.
const RESEND_AFTER: Duration = Duration::from_secs(1);

/// The shortest time between two signs of life, whatever the service manager asks for: more would keep
/// the loop from its work.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// The service manager, if one wants to be told.
#[derive(Debug)]
pub(super) struct ServiceManager {
    socket: Option<Socket>,
    /// How often to send a sign of life.
    interval: Option<Duration>,
    last_beat: Instant,
    /// The status sent last.
    status: String,
    /// When to send the status again, if there was no room for it.
    resend: Option<Instant>,
    is_stopping: bool,
}

#[derive(Debug)]
struct Socket {
    own: UnixDatagram,
    address: SocketAddr,
}

impl ServiceManager {
    /// Finds the service manager by the variables that it has set.
    pub(super) fn from_environment() -> Self {
        let socket = environment::variable("NOTIFY_SOCKET").and_then(|name| {
            let opened = Socket::open(&name);
            opened.inspect_err(|error| debug!(error:%; "cannot reach the service manager")).ok()
        });
        let number = |name| environment::variable(name)?.to_str()?.parse::<u64>().ok();
        // The variables of another process, which this one has inherited, ask for nothing.
        let is_own = environment::variable("WATCHDOG_PID").is_none()
            || number("WATCHDOG_PID") == Some(u64::from(process::id()));
        let limit = number("WATCHDOG_USEC").filter(|limit| *limit > 0 && is_own && socket.is_some());
        let interval = limit.map(|limit| (Duration::from_micros(limit) / 2).max(MIN_INTERVAL));
        Self { socket, interval, ..Self::nobody() }
    }

    /// Returns one that sends nothing: no service manager listens.
    pub(super) fn nobody() -> Self {
        Self {
            socket: None,
            interval: None,
            last_beat: Instant::now(),
            status: String::new(),
            resend: None,
            is_stopping: false,
        }
    }

    /// Whether a service manager listens.
    pub(super) fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Says that the start, or a reload, is over.
    pub(super) fn ready(&self) {
        self.send_patiently("READY=1");
    }

    /// Says that a reload has begun. [`Self::ready`] ends it.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.send_patiently(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// Says that the process drains or ends, unless it has said so.
    pub(super) fn stopping(&mut self) {
        if !std::mem::replace(&mut self.is_stopping, true) {
            self.send_patiently("STOPPING=1");
        }
    }

    /// Says what the process does, unless it has said so.
    pub(super) fn show(&mut self, status: &str) {
        if self.socket.is_some() && self.status != status {
            status.clone_into(&mut self.status);
            self.send_status();
        }
    }

    fn send_status(&mut self) {
        // A line feed would begin another assignment.
        let sent = self.send(&format!("STATUS={}", OneLine(&excerpt(&self.status))));
        let has_no_room = sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        self.resend = has_no_room.then(|| Instant::now() + RESEND_AFTER);
        if sent.is_err() && !has_no_room {
            // No service manager listens, so let the next `show` send it.
            self.status.clear();
        }
    }

    /// Returns when [`Self::send_due`] has something to send.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.next_beat().into_iter().chain(self.resend).min()
    }

    fn next_beat(&self) -> Option<Instant> {
        self.interval.map(|interval| self.last_beat + interval)
    }

    /// Sends the sign of life, and the status that found no room, if they are due. The loop calls this
    /// between two events: if it hangs, the signs end.
    pub(super) fn send_due(&mut self, now: Instant) {
        if self.resend.is_some_and(|due| due <= now) {
            self.send_status();
        }
        if self.next_beat().is_some_and(|due| due <= now) {
            let _ = self.send("WATCHDOG=1");
            self.last_beat = now;
        }
    }

    /// Sends the signs of life that are wanted until the process ends, on a thread of its own. Whoever has
    /// told it to stop decides how long that may take.
    pub(super) fn beat_to_the_end(mut self) {
        let Some(interval) = self.interval else { return };
        let beat = move || {
            loop {
                self.send_due(Instant::now());
                thread::sleep((self.last_beat + interval).saturating_duration_since(Instant::now()));
            }
        };
        if let Err(error) = thread::Builder::new().name("beats".into()).spawn(beat) {
            debug!(error:%; "cannot reach the service manager");
        }
    }

    /// Sends a message, and waits up to [`SEND_LIMIT`] for room.
    fn send_patiently(&self, message: &str) {
        let Some(Socket { own, .. }) = &self.socket else { return };
        // If it stays non-blocking, only the wait is lost.
        let _ = own.set_nonblocking(false);
        let _ = self.send(message);
        let _ = own.set_nonblocking(true);
    }

    /// Sends a message if there is room.
    fn send(&self, message: &str) -> io::Result<()> {
        let Some(Socket { own, address }) = &self.socket else { return Ok(()) };
        let sent = own.send_to_addr(message.as_bytes(), address);
        sent.inspect_err(|error| debug!(error:%; "cannot reach the service manager")).map(drop)
    }
}

impl Socket {
    /// Opens a socket for messages to `name`: a path, or a name without a file that begins with `@`.
    fn open(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let own = UnixDatagram::unbound()?;
        own.set_write_timeout(Some(SEND_LIMIT))?;
        own.set_nonblocking(true)?;
        Ok(Self { own, address })
    }
}
