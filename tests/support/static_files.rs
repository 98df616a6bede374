//! A web server on loopback that serves the files of a directory, as any static hosting does.
//! Dropping it stops it.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

use tiny_http::{Header, Response, Server};

/// How many requests are answered at once: browsers open six connections.
const THREADS: usize = 6;

/// The server of one directory.
pub struct StaticFiles {
    server: Arc<Server>,
    threads: Vec<JoinHandle<()>>,
    prefix: String,
    state: Arc<State>,
}

/// How a request is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// With the file.
    File,
    /// With an error of the server.
    Error,
    /// With the file, once [`StaticFiles::release`] is called.
    Held,
}

#[derive(Default)]
struct State {
    requests: Mutex<Vec<String>>,
    /// The answers to the next requests for a path relative to the root; then come files.
    plans: Mutex<HashMap<String, VecDeque<Answer>>>,
    released: Mutex<bool>,
    on_release: Condvar,
}

impl State {
    /// Returns the answer to a request for this path, once it may be given.
    fn next(&self, path: &str) -> Answer {
        let mut plans = self.plans.lock().expect("no thread panics");
        let answer = plans.get_mut(path).and_then(VecDeque::pop_front).unwrap_or(Answer::File);
        drop(plans);
        if answer == Answer::Held {
            let released = self.released.lock().expect("no thread panics");
            drop(self.on_release.wait_while(released, |released| !*released).expect("no thread panics"));
        }
        answer
    }
}

impl StaticFiles {
    /// Serves the files of `root` below `prefix`, which begins and ends with a slash.
    pub fn serve(root: &Path, prefix: &str) -> Self {
        let server = Arc::new(Server::http("127.0.0.1:0").expect("a free port"));
        let state = Arc::new(State::default());
        let answer = {
            let (server, state) = (Arc::clone(&server), Arc::clone(&state));
            let (root, prefix) = (root.to_owned(), prefix.to_owned());
            move || {
                for request in server.incoming_requests() {
                    state.requests.lock().expect("no thread panics").push(request.url().to_owned());
                    let path = request.url().strip_prefix(&prefix);
                    if path.is_some_and(|path| state.next(path) == Answer::Error) {
                        let _ = request.respond(Response::from_string("broken").with_status_code(500));
                        continue;
                    }
                    let path = path.map(|path| file(&root, path));
                    let content = path.and_then(|path| Some((kind(&path), fs::read(path).ok()?)));
                    let sent = match content {
                        None => request.respond(Response::from_string("not found").with_status_code(404)),
                        Some((kind, bytes)) => {
                            let kind = Header::from_bytes("Content-Type", kind).expect("a header");
                            request.respond(Response::from_data(bytes).with_header(kind))
                        }
                    };
                    // A browser that was closed meanwhile wants no answer.
                    let _ = sent;
                }
            }
        };
        let threads = (0..THREADS).map(|_| thread::spawn(answer.clone())).collect();
        Self { server, threads, prefix: prefix.to_owned(), state }
    }

    /// The URL of the directory.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.server.server_addr(), self.prefix)
    }

    /// The paths that were asked for since the last call.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.requests.lock().expect("no thread panics"))
    }

    /// Answers the next requests for `path`, relative to the root, in these ways.
    pub fn plan(&self, path: &str, answers: &[Answer]) {
        let answers = answers.iter().copied().collect();
        self.state.plans.lock().expect("no thread panics").insert(path.to_owned(), answers);
    }

    /// Answers all requests that are held, and holds no other.
    pub fn release(&self) {
        *self.state.released.lock().expect("no thread panics") = true;
        self.state.on_release.notify_all();
    }
}

/// The file of a URL's path.
fn file(root: &Path, path: &str) -> PathBuf {
    let path = path.split('?').next().expect("a part");
    // Decode byte by byte: the names are of the test's own packages.
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        let encoded = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(encoded.unwrap_or(*first));
        rest = if encoded.is_some() { &tail[2..] } else { tail };
    }
    let name = String::from_utf8(bytes).expect("a name in UTF-8");
    assert!(!name.split('/').any(|part| part == ".."), "{name} leads out of the directory");
    root.join(if name.is_empty() { "index.html" } else { &name })
}

fn kind(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html",
        Some("css") => "text/css",
        Some("js") => "text/javascript",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        Some("xml") => "application/xml",
        _ => "application/octet-stream",
    }
}

impl Drop for StaticFiles {
    fn drop(&mut self) {
        self.release();
        for _ in &self.threads {
            self.server.unblock();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
