//! Repositories over smart HTTP on 127.0.0.1: a small threaded server around the real `git
//! http-backend`.
//!
//! It also serves the git-lfs content of the repositories. It keeps connections alive, logs requests, counts connections, may require a password, and
//! misbehaves on request.

mod cgi;
mod fault;
mod hostile;
mod lfs;
mod message;

pub use fault::{ADVERTISEMENT, Fault, RESULT};
pub use message::Request;

use std::collections::HashMap;
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tempfile::TempDir;

use super::git_repo::GitRepo;
pub(in crate::support) use message::Incoming;

/// Connections served at once; more wait to be accepted. More than any poller pool opens, and few
/// enough for any machine.
const MAX_CONNECTIONS: usize = 64;

/// The server. Dropping it closes all its connections.
pub struct SmartHttp {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// The state that the threads share.
struct Shared {
    root: TempDir,
    state: Mutex<State>,
    /// Signals the end of a connection and of the server.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stopped: bool,
    open: HashMap<u64, TcpStream>,
    accepted: usize,
    requests: Vec<Request>,
    faults: Vec<PlannedFault>,
    credentials: Option<String>,
    /// The directories of the served repositories, kept as long as they are served.
    homes: Vec<Arc<TempDir>>,
}

/// A fault for the paths that start with `prefix`, for so many more requests.
struct PlannedFault {
    prefix: String,
    fault: Fault,
    left: usize,
    /// Whether the manager's own client is spared.
    only_git: bool,
}

impl SmartHttp {
    /// Starts a server without repositories.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("the port");
        let root = TempDir::with_prefix("http-").expect("a temporary directory");
        let shared = Arc::new(Shared { root, state: Mutex::default(), changed: Condvar::new() });
        let acceptor = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || accept(&listener, &shared))
        };
        Self { addr, shared, acceptor: Some(acceptor) }
    }

    /// Serves `repo` as `/name` and returns its URL.
    pub fn serve(&self, name: &str, repo: &GitRepo) -> String {
        self.shared.state().homes.extend(repo.home());
        let path = self.shared.root.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a path below the root")).expect("a directory");
        symlink(repo.git_dir(), path).expect("a name that is not served yet");
        self.url(name)
    }

    /// Creates a repository with one commit of `files` in `parent`, beside those that refer to it
    /// by `../<name>`, serves it as `name`, and returns the commit's hash.
    pub fn serve_new(&self, parent: &Path, name: &str, files: &[(&str, &str)]) -> String {
        let repo = GitRepo::in_dir(parent, name);
        let commit = repo.commit(files, "2026-02-01T00:00:00Z");
        self.serve(name, &repo);
        commit
    }

    /// The URL of the repository `name`, which need not exist.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.addr)
    }

    /// The address that the server listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Requires these basic credentials from now on.
    pub fn require_auth(&self, user: &str, password: &str) {
        self.shared.state().credentials = Some(message::basic(user, password));
    }

    /// Applies `fault` to every request for the repository `name` from now on, or for all
    /// repositories if the name is empty. The last matching fault wins.
    pub fn fault(&self, name: &str, fault: Fault) {
        self.fault_times(name, fault, usize::MAX);
    }

    /// Applies `fault` to the second request of a listing or a fetch of the repository `name` from
    /// now on.
    pub fn fault_second(&self, name: &str, fault: Fault) {
        self.plan(format!("/{name}/git-upload-pack"), fault, usize::MAX, false);
    }

    /// Applies `fault` to the requests of git for paths that start with `/prefix` from now on. The
    /// manager's own client gets something else.
    pub fn fault_for_git(&self, prefix: &str, fault: Fault) {
        self.plan(format!("/{prefix}"), fault, usize::MAX, true);
    }

    /// Applies `fault` to the next `times` requests that [`Self::fault_second`] means.
    pub fn fault_second_times(&self, name: &str, fault: Fault, times: usize) {
        self.fault_second(name, fault);
        if let Some(planned) = self.shared.state().faults.last_mut() {
            planned.left = times;
        }
    }

    /// Applies `fault` to the next `times` requests for the repository `name`.
    pub fn fault_times(&self, name: &str, fault: Fault, times: usize) {
        let prefix = if name.is_empty() { "/".to_owned() } else { format!("/{name}/") };
        self.plan(prefix, fault, times, false);
    }

    fn plan(&self, prefix: String, fault: Fault, left: usize, only_git: bool) {
        self.shared.state().faults.push(PlannedFault { prefix, fault, left, only_git });
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.shared.state().faults.clear();
    }

    /// The requests so far, in order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    /// Forgets the requests and connections so far.
    pub fn clear_log(&self) {
        let mut state = self.shared.state();
        state.requests.clear();
        state.accepted = 0;
    }

    /// The number of connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.state().accepted
    }

    /// The number of connections that are open now.
    pub fn open_connections(&self) -> usize {
        self.shared.state().open.len()
    }
}

impl Drop for SmartHttp {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.stopped = true;
        for stream in state.open.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        // Wake the acceptor with a last connection; it checks `stopped` first.
        let _ = TcpStream::connect(self.addr);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the state")
    }

    /// Waits for `interval`. Returns false if the server stops.
    fn pause(&self, interval: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.state(), interval, |state| !state.stopped);
        !waited.expect("no thread panics while it holds the state").0.stopped
    }

    /// Takes the fault for this request and counts it.
    fn next_fault(&self, request: &Request) -> Option<Fault> {
        let is_manager = request.header("user-agent").is_some_and(|agent| agent.contains("peipkg-manager"));
        let mut state = self.state();
        let planned = state.faults.iter_mut().rev().find(|planned| {
            planned.left > 0 && request.path.starts_with(&planned.prefix) && !(planned.only_git && is_manager)
        })?;
        planned.left = planned.left.saturating_sub(usize::from(planned.left != usize::MAX));
        Some(planned.fault.clone())
    }
}

/// Accepts until the server stops, then waits for the connections' threads.
fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    let mut last_id = 0;
    for stream in listener.incoming() {
        let state = shared.state();
        let full = |state: &mut State| !state.stopped && state.open.len() >= MAX_CONNECTIONS;
        let mut state =
            shared.changed.wait_while(state, full).expect("no thread panics while it holds the state");
        if state.stopped {
            break;
        }
        let Ok(stream) = stream else { continue };
        let Ok(handle) = stream.try_clone() else { continue };
        state.accepted += 1;
        last_id += 1;
        let id = last_id;
        state.open.insert(id, handle);
        drop(state);
        threads.retain(|thread| !thread.is_finished());
        let shared = Arc::clone(shared);
        threads.push(thread::spawn(move || {
            // The client or a requested fault has caused the error: end the connection.
            let _ = serve_connection(&stream, &shared);
            let _ = stream.shutdown(Shutdown::Both);
            shared.state().open.remove(&id);
            shared.changed.notify_all();
        }));
    }
    for thread in threads {
        let _ = thread.join();
    }
}

/// Answers requests until the client or an answer closes the connection.
fn serve_connection(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(mut incoming) = Incoming::read(&mut reader)? {
        let request = incoming.request.clone();
        let credentials = {
            let mut state = shared.state();
            state.requests.push(request.clone());
            state.credentials.clone()
        };
        if request.header("expect").is_some() {
            (&*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let keep_alive = request.keeps_alive();
        let mut out = stream;
        if let Some(fault) = shared.next_fault(&request) {
            fault::perform(&fault, &mut incoming, stream, shared)?;
        } else if credentials.is_some() && request.header("authorization") != credentials.as_deref() {
            incoming.drain()?;
            let ask = [("WWW-Authenticate", "Basic realm=\"upstream\"")];
            message::respond(&mut out, 401, &ask, b"who are you?\n")?;
        } else {
            let root = shared.root.path();
            if !lfs::serve(&mut incoming, &mut out, root)? {
                cgi::serve(&mut incoming, &mut out, root, credentials.is_some())?;
            }
        }
        if !keep_alive {
            break;
        }
    }
    Ok(())
}
