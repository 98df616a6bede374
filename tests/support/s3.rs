//! An object store on loopback: the part of S3 that rclone uses. It keeps objects in memory and
//! logs the requests.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::smart_http::Incoming;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `PUT`, `HEAD`, `DELETE`, `GET`; and `LIST` for a `GET` of the bucket.
    pub method: String,
    /// The object, without the bucket; empty for a listing.
    pub key: String,
    /// `Cache-Control` of an upload.
    pub cache_control: Option<String>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    requests: Vec<Request>,
    stopped: bool,
}

#[derive(Clone)]
struct Object {
    bytes: Vec<u8>,
    md5: String,
    mtime: String,
    cache_control: Option<String>,
}

/// The store, with buckets of any name. Dropping it stops it.
pub struct ObjectStore {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

impl ObjectStore {
    /// Starts a store without objects.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.lock().expect("answering threads do not panic").stopped {
                    break;
                }
                // rclone opens connections that it never uses, so give each a thread; it ends when
                // rclone does.
                let shared = shared.clone();
                thread::spawn(move || answer(&stream, &shared));
            }
        });
        Self { addr, state, thread: Some(thread) }
    }

    /// Its URL, for `endpoint`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Its objects, by `bucket/key`.
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state.lock().expect("answering threads do not panic");
        state.objects.iter().map(|(key, object)| (key.clone(), object.bytes.clone())).collect()
    }

    /// The `Cache-Control` of each object, by `bucket/key`.
    pub fn cache_controls(&self) -> BTreeMap<String, Option<String>> {
        let state = self.state.lock().expect("answering threads do not panic");
        state.objects.iter().map(|(key, object)| (key.clone(), object.cache_control.clone())).collect()
    }

    /// The requests since the last call.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().expect("answering threads do not panic").requests)
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        if let Ok(mut state) = self.state.lock() {
            state.stopped = true;
        }
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            // A panic in the thread has already been printed.
            let _ = thread.join();
        }
    }
}

fn answer(stream: &TcpStream, state: &Mutex<State>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut incoming = Incoming::read(&mut reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if incoming.request.header("expect").is_some() {
        (&*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let mut body = Vec::new();
    incoming.body().read_to_end(&mut body)?;
    let request = &incoming.request;
    let key = decode(request.path.trim_start_matches('/'));
    let header = |name| request.header(name).map(str::to_owned);
    let is_list = request.method == "GET" && !key.trim_end_matches('/').contains('/');
    let method = if is_list { "LIST" } else { request.method.as_str() };
    let object = key.split_once('/').map_or("", |(_, object)| object).to_owned();
    let (mtime, cache_control) = (header("x-amz-meta-mtime").unwrap_or_default(), header("cache-control"));
    let copied = header("x-amz-copy-source").map(|source| decode(source.trim_start_matches('/')));
    let recorded = Request { method: method.to_owned(), key: object, cache_control: cache_control.clone() };

    let mut state = state.lock().expect("answering threads do not panic");
    state.requests.push(recorded);
    let (status, about, content) = match method {
        "LIST" => (200, None, list(&state, &key, &request.query).into_bytes()),
        "PUT" => {
            // rclone sets times by a copy: keep the bytes and take everything else from the
            // request.
            let source = copied.and_then(|source| state.objects.get(&source).cloned());
            let content = if source.is_some() { &b"<CopyObjectResult></CopyObjectResult>"[..] } else { b"" };
            let (bytes, md5) = if let Some(source) = source {
                (source.bytes, source.md5)
            } else {
                let md5 = md5(&body);
                (body, md5)
            };
            let object = Object { bytes, md5, mtime, cache_control };
            state.objects.insert(key, object.clone());
            (200, Some(object), content.to_vec())
        }
        "DELETE" => {
            state.objects.remove(&key);
            (204, None, Vec::new())
        }
        _ => match state.objects.get(&key) {
            Some(object) => (200, Some(object.clone()), object.bytes.clone()),
            None => (404, None, Vec::new()),
        },
    };
    let mut head =
        format!("HTTP/1.1 {status} Test\r\nConnection: close\r\nContent-Length: {}\r\n", content.len());
    if let Some(object) = about {
        head += &format!("ETag: \"{}\"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n", object.md5);
        head += &format!("x-amz-meta-mtime: {}\r\n", object.mtime);
    }
    let content = if method == "HEAD" { Vec::new() } else { content };
    (&*stream).write_all(&[head.as_bytes(), b"\r\n", &content].concat())
}

/// The objects of `bucket`, all in one page.
fn list(state: &State, bucket: &str, query: &str) -> String {
    let parameter = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        decode(value.unwrap_or_default())
    };
    let (prefix, delimiter) = (parameter("prefix"), parameter("delimiter"));
    let start = format!("{}/{prefix}", bucket.trim_end_matches('/'));
    let mut directories: Vec<&str> = Vec::new();
    let mut text = String::from("<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>");
    for (key, object) in state.objects.iter().filter(|(key, _)| key.starts_with(&start)) {
        let rest = &key[start.len()..];
        match rest.split_once('/').filter(|_| !delimiter.is_empty()) {
            Some((directory, _)) if directories.contains(&directory) => {}
            Some((directory, _)) => {
                directories.push(directory);
                text += &format!("<CommonPrefixes><Prefix>{prefix}{directory}/</Prefix></CommonPrefixes>");
            }
            None => {
                text += &format!(
                    "<Contents><Key>{prefix}{rest}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                     <ETag>\"{}\"</ETag><Size>{}</Size></Contents>",
                    object.md5,
                    object.bytes.len()
                );
            }
        }
    }
    text + "</ListBucketResult>"
}

/// The `ETag` of an object.
fn md5(bytes: &[u8]) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["dgst", "-md5", "-r"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = openssl.spawn().expect("openssl");
    child.stdin.take().expect("a pipe").write_all(bytes).expect("openssl reads");
    let output = child.wait_with_output().expect("openssl ends");
    String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or_default().to_owned()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digits = if byte == b'%' { rest.next().zip(rest.next()) } else { None };
        let decoded = digits
            .and_then(|(high, low)| u8::from_str_radix(std::str::from_utf8(&[high, low]).ok()?, 16).ok());
        bytes.push(decoded.unwrap_or(byte));
    }
    String::from_utf8(bytes).expect("a name in UTF-8")
}
