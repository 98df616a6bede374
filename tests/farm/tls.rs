//! Upstreams over TLS: a certificate of the system's trust store is accepted, any other is not.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use peipkg_manager::Interrupt;
use peipkg_manager::LISTING_DEADLINE;
use peipkg_manager::Tags;
use peipkg_manager::smart_http;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use crate::support::farm::Farm;
use crate::support::git_repo::{GitRepo, run};
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::smart_http::{ADVERTISEMENT, Fault, RESULT, SmartHttp};
use crate::support::wait::PATIENCE;

/// The variable with the URL to list, for the child of [`certificate_trusted_is_accepted`].
const URL: &str = "PEIPKG_TEST_TLS_URL";

/// The variable with the URL of a server that hangs up, for the child of
/// [`connection_tls_refuses_is_left_to_git`].
const CLOSING_URL: &str = "PEIPKG_TEST_TLS_CLOSING_URL";

/// The repository with two answers to one request.
const TOO_MUCH: &str = "/too-much.git";

/// Variables that point TLS clients at other certificates than the system's.
const TRUST: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Creates a key and a self-signed certificate for `localhost` in `directory`.
fn certify(directory: &Path) -> Arc<ServerConfig> {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    command.args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "key.pem", "-out", "cert.pem"]);
    run(command.current_dir(directory));
    let chain = vec![CertificateDer::from_pem_file(directory.join("cert.pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(directory.join("key.pem")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("the default versions").with_no_client_auth();
    Arc::new(builder.with_single_cert(chain, key).expect("the key of the certificate"))
}

/// Starts a server that answers every request with the tag `v1`. A listing of [`TOO_MUCH`] has the tag `v2`
/// in an answer that nobody asked for. It lives as long as the test run.
fn serve(config: &Arc<ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("the port");
    let config = Arc::clone(config);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            // Ignore errors: a client hangs up on a certificate that it does not trust.
            thread::spawn(move || answer_all(stream, config));
        }
    });
    addr
}

fn answer_all(stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    loop {
        let mut request = Vec::new();
        let is_whole = |request: &[u8]| {
            let is_listing = request.starts_with(b"POST");
            request.ends_with(b"\r\n\r\n") && !is_listing || request.ends_with(b"0000") && is_listing
        };
        while !is_whole(&request) {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            request.push(byte[0]);
        }
        let listing = format!("003a{:040x} refs/tags/v1\n0000", 1);
        let (kind, body) = if request.starts_with(b"GET") {
            (ADVERTISEMENT, "000eversion 2\n000cls-refs\n0000")
        } else {
            (RESULT, listing.as_str())
        };
        let answer = |fields: &str, body: &str| {
            let length = body.len();
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
            )
        };
        let mut bytes = answer("", body);
        if kind == RESULT && request.windows(TOO_MUCH.len()).any(|path| path == TOO_MUCH.as_bytes()) {
            // The first one fills the client's buffer, so the second one stays with TLS.
            let padding = "x".repeat(4096 - bytes.len() - "X: \r\n".len());
            bytes = answer(&format!("X: {padding}\r\n"), body) + &answer("", &body.replace("v1", "v2"));
        }
        stream.write_all(bytes.as_bytes())?;
        stream.flush()?;
    }
}

fn list(url: &str) -> Result<Tags, smart_http::NativeError> {
    let client = smart_http::SmartHttp::new(1, LISTING_DEADLINE);
    let url = &url.parse().unwrap();
    let tags = client.list_tags(url, Instant::now(), |_| Ok(()), &Interrupt::new().unwrap());
    // List a second time, over the kept connection.
    tags.and_then(|_| client.list_tags(url, Instant::now(), |_| Ok(()), &Interrupt::new().unwrap()))
}

/// An environment variable names the system's trust store, so this test runs itself again with it.
#[test]
fn certificate_trusted_is_accepted() {
    if let Ok(url) = std::env::var(URL) {
        for url in [url.clone(), url.replace("/x.git", TOO_MUCH)] {
            assert!(list(&url).unwrap().iter().eq(["v1"]), "{url}");
        }
        return;
    }
    let directory = TempDir::with_prefix("tls-").unwrap();
    let addr = serve(&certify(directory.path()));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tls::certificate_trusted_is_accepted"]).env_remove("SSL_CERT_DIR");
    command.env("SSL_CERT_FILE", directory.path().join("cert.pem"));
    let output = run(command.env(URL, format!("https://localhost:{}/x.git", addr.port())));
    assert!(output.contains("1 passed"), "{output}");
}

/// Starts a server that passes every connection to `end`. It lives as long as the test run.
fn serve_and_end(end: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("the port");
    thread::spawn(move || listener.incoming().flatten().for_each(end));
    addr
}

fn list_once(client: &smart_http::SmartHttp, url: &str) -> Result<Tags, smart_http::NativeError> {
    client.list_tags(&url.parse().unwrap(), Instant::now(), |_| Ok(()), &Interrupt::new().unwrap())
}

#[track_caller]
fn check_left_to_git(result: &Result<Tags, smart_http::NativeError>, expected: &str) {
    let is_right =
        matches!(result, Err(smart_http::NativeError::NotUnderstood(reason)) if reason.contains(expected));
    assert!(is_right, "{result:?}");
}

/// Runs itself again with its own trust store, as the test above: first an empty one, then one with
/// the certificate.
#[test]
fn connection_tls_refuses_is_left_to_git() {
    if let (Ok(url), Ok(closing)) = (std::env::var(URL), std::env::var(CLOSING_URL)) {
        let store = PathBuf::from(std::env::var_os(TRUST[0]).unwrap());
        let client = smart_http::SmartHttp::new(1, LISTING_DEADLINE);
        check_left_to_git(&list_once(&client, &url), "the system has no trusted certificates");
        std::fs::copy(store.with_file_name("cert.pem"), store).unwrap();
        let tags = list_once(&client, &url).expect("the failed reading of the trust store is not cached");
        assert!(tags.iter().eq(["v1"]));
        check_left_to_git(&list_once(&client, &closing), "");
        return;
    }
    let directory = TempDir::with_prefix("tls-").unwrap();
    let config = certify(directory.path());
    let addr = serve(&config);
    // Hang up after the handshake, as a server may do that requires a client certificate.
    let closing = serve_and_end(move |mut stream| {
        let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        while connection.is_handshaking() && connection.complete_io(&mut stream).is_ok() {}
    });
    let store = directory.path().join("store.pem");
    std::fs::write(&store, "").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tls::connection_tls_refuses_is_left_to_git"]).env_remove(TRUST[1]);
    command.env(TRUST[0], store).env(URL, format!("https://localhost:{}/x.git", addr.port()));
    let output = run(command.env(CLOSING_URL, format!("https://localhost:{}/x.git", closing.port())));
    assert!(output.contains("1 passed"), "{output}");
}

#[test]
fn connection_ends_in_the_handshake_is_left_to_git() {
    // Closing with unread data resets the connection; otherwise it ends in order.
    let reset = serve_and_end(|mut stream| drop(stream.read_exact(&mut [0])));
    let closed = serve_and_end(|mut stream| drop(stream.read(&mut [0; 16 * 1024])));
    for addr in [reset, closed] {
        let client = smart_http::SmartHttp::new(1, LISTING_DEADLINE);
        check_left_to_git(&list_once(&client, &format!("https://localhost:{}/x.git", addr.port())), "");
    }
}

#[test]
fn certificate_untrusted_warns_once() {
    let directory = TempDir::with_prefix("tls-").unwrap();
    let addr = serve(&certify(directory.path()));
    let http = SmartHttp::new();
    let good = http.serve("good.git", &GitRepo::program(&["1"]));
    let bad = format!("https://localhost:{}/bad.git", addr.port());
    // First only the issuer is wrong, then the name too.
    let worse = bad.replace("localhost", "127.0.0.1");
    let farm = Farm::builder().with(&Recipe::program("bad", &bad)).with(&Recipe::program("good", &good));
    let farm = farm.with(&Recipe::program("worse", &worse)).build();
    let mut command = farm.command(&["--once", "--log-level", "debug", "--config"]);
    for name in TRUST {
        command.env_remove(name);
    }
    let output = Running::spawn(command.arg(farm.config_path())).wait_exit(PATIENCE);
    output.assert_success().assert_only_events();
    let mut warnings = output.all_events();
    warnings.retain(|event| ["warn", "error"].contains(&event["level"].as_str()));
    assert_eq!(warnings.len(), 2, "{output}");
    for warning in warnings {
        assert_eq!(warning["msg"], "poll failed");
        // git decides in the end: it may trust a certificate that the native listing does not.
        assert!(warning["error"].starts_with("git ls-remote exited with status 128: "), "{output}");
    }
    let mut listings = output.events("listing upstream");
    listings.retain(|event| event["way"] == "git");
    assert_eq!(listings.len(), 2, "{output}");
    assert!(listings.iter().all(|event| !event["reason"].is_empty()), "{output}");
    farm.assert_published(&["good 1-1 noarch"]);
}

#[test]
fn redirect_to_https_is_followed_with_tls() {
    // The first byte of a TLS handshake (RFC 8446 §5.1).
    const HANDSHAKE: u8 = 22;
    let (first_bytes, received) = mpsc::channel();
    let addr = serve_and_end(move |mut stream| {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a client that speaks first");
        first_bytes.send(byte[0]).expect("the test waits");
    });
    let http = SmartHttp::new();
    let to = format!("https://localhost:{}/x.git/info/refs?service=git-upload-pack", addr.port());
    http.fault("a.git", Fault::Redirect { to });
    let failure = list(&http.url("a.git")).unwrap_err();
    assert!(matches!(failure, smart_http::NativeError::NotUnderstood(_)), "{failure:?}");
    assert_eq!(received.recv_timeout(PATIENCE).expect("a connection"), HANDSHAKE);
}
