//! TLS for the HTTP client: rustls with the certificates that the system trusts.
//!
//! ureq's own connector falls short in three ways:
//! - It parses the trust store again for each connection whose request has settings of its own, as
//!   ours have a time limit, and once for each of several connections that begin at the same time.
//!   With eight pollers that left up to 2.5 MB of memory in use. Parsing the store costs a listing
//!   more memory and time than anything else; here it happens once.
//! - It reports a failed handshake like a broken connection. Here it is a [`NoTls`], and git lists:
//!   git's TLS may have what rustls lacks, such as another trust store or older algorithms.
//! - It links the code for client certificates and, for the system's trust store, a platform
//!   verifier, which logs each bad certificate once more. Without both the program is smaller.
//!   An upstream that wants a client certificate needs git's settings, so git lists it anyway.
//!
//! Try ureq's connector again when it takes a prepared `rustls::ClientConfig` and has an error for
//! handshakes.

use std::fmt;
use std::fs;
use std::io::{self, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use peipkg_format::regular_file;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use ureq::Error;
use ureq::unversioned::transport::time::{Duration, Instant};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, NextTimeout, Transport, TransportAdapter,
};

use crate::upstream::listing::net::provider;
use crate::upstream::listing::net::tcp::RestingBuffers;

/// The longest file of certificates, in bytes: many times as long as any system's.
const MAX_BUNDLE: u64 = 16 * 1024 * 1024;

/// Puts TLS around connections of `https` URLs.
#[derive(Default)]
pub(crate) struct TlsConnector {
    /// `None` until certificates are found. A system without any is asked again each time, so
    /// installing them needs no restart.
    config: Mutex<Option<Arc<ClientConfig>>>,
}

/// Why TLS failed before the first byte of an answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoTls(String);

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() {
            return Ok(Some(Either::A(transport)));
        }
        self.shake_hands(details, transport.boxed()).map(Either::B).map(Some)
    }
}

impl TlsConnector {
    /// Makes a connection over `transport`.
    // Not inline: its values would take a page or two of the stack of every request without TLS.
    #[inline(never)]
    fn shake_hands(
        &self,
        details: &ConnectionDetails<'_>,
        transport: Box<dyn Transport>,
    ) -> Result<TlsTransport, Error> {
        let config = self.config().map_err(no_tls)?;
        let host = details.uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| Error::BadUri(details.uri.to_string()))?;
        let mut connection =
            ClientConnection::new(config, name).map_err(|error| no_tls(error.to_string()))?;
        let mut socket = TransportAdapter::new(transport, details.current_time.clone());
        socket.set_timeout(time_left(details));
        connection.complete_io(&mut socket).map_err(into_no_tls)?;
        let stream = StreamOwned::new(connection, socket);
        Ok(TlsTransport { buffers: RestingBuffers::new(details.config), stream, has_answered: false })
    }

    /// Returns the settings of all connections. Concurrent callers block while one prepares them.
    fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = &*config {
            return Ok(config.clone());
        }
        Ok(config.insert(client_config()?).clone())
    }
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnector").finish_non_exhaustive()
    }
}

/// Returns the time that is left to connect.
pub(crate) fn time_left(details: &ConnectionDetails<'_>) -> NextTimeout {
    let mut timeout = details.timeout;
    let now = (details.current_time)();
    if let (Duration::Exact(limit), Instant::Exact(now), Instant::Exact(start)) =
        (timeout.after, now, details.now)
    {
        timeout.after = Duration::Exact(limit.saturating_sub(now.saturating_duration_since(start)));
    }
    timeout
}

/// Prepares the settings of all connections.
fn client_config() -> Result<Arc<ClientConfig>, String> {
    let places = openssl_probe::probe();
    let roots = trusted_roots(places.cert_file.as_deref(), &places.cert_dir)?;
    let provider = Arc::new(provider::provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?.with_root_certificates(roots);
    Ok(Arc::new(builder.with_no_client_auth()))
}

/// Reads the trust store: `file`, or `directories` where there is none. git lists an upstream whose
/// certificate is in the directories alone.
fn trusted_roots(file: Option<&Path>, directories: &[PathBuf]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let mut failure = None;
    if let Some(file) = file {
        failure = add_certificates(file, &mut roots).err();
    } else {
        let entries = directories.iter().flat_map(fs::read_dir).flatten().flatten();
        // Skip what is no file: the directories may hold others.
        entries.for_each(|entry| drop(add_certificates(&entry.path(), &mut roots)));
    }
    if roots.is_empty() {
        let reason = failure.map_or_else(String::new, |error| format!(": {error}"));
        return Err(format!("the system has no trusted certificates{reason}"));
    }
    Ok(roots)
}

/// Adds the certificates in a file. Keeps only the part of each that verifies others before it reads
/// the next one: all of them at once would leave the heap of the process half a megabyte larger.
fn add_certificates(path: &Path, roots: &mut RootCertStore) -> io::Result<()> {
    let file = BufReader::new(regular_file::open_up_to(path, MAX_BUNDLE)?);
    for certificate in CertificateDer::pem_reader_iter(file) {
        match certificate {
            // Skip certificates that rustls cannot parse: one of them must not disable the others.
            Ok(certificate) => drop(roots.add(certificate)),
            Err(pem::Error::Io(error)) => return Err(error),
            Err(_) => {}
        }
        // A directory has links to its files.
        if let Some((last, others)) = roots.roots.split_last()
            && others.contains(last)
        {
            roots.roots.pop();
        }
    }
    Ok(())
}

fn no_tls(reason: impl Into<String>) -> Error {
    Error::Other(NoTls(reason.into()).into())
}

/// Turns `error` into a [`NoTls`], unless it is a time-out.
fn into_no_tls(error: io::Error) -> Error {
    match Error::from(error) {
        Error::Io(error) => no_tls(error.to_string()),
        error => error,
    }
}

/// A connection over TLS.
pub(crate) struct TlsTransport {
    buffers: RestingBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
    /// Whether the server has sent a byte of an answer.
    has_answered: bool,
}

impl TlsTransport {
    /// Classifies `error`. With TLS 1.3 a server may refuse the handshake, by an alert or by
    /// closing, after the client has finished it; so any failure before the first answer is a
    /// [`NoTls`].
    fn error(&self, error: io::Error) -> Error {
        if self.has_answered { error.into() } else { into_no_tls(error) }
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.set_timeout(timeout);
        let written = self.stream.write_all(&self.buffers.output()[..amount]);
        written.map_err(|error| self.error(error))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf()).map_err(|error| self.error(error))?;
        if amount == 0 && !self.has_answered {
            return Err(no_tls("the server closed the connection before it had answered"));
        }
        self.has_answered = true;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    /// Whether the connection can take a request: its socket is open, and TLS holds no bytes, which the next
    /// request would take for its answer.
    fn is_open(&mut self) -> bool {
        self.buffers.rest();
        self.stream.conn.wants_read() && self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTransport").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates self-signed certificates in files of `directory`, which are named by their subjects.
    fn certify(directory: &Path, subjects: &[&str]) {
        for subject in subjects {
            let mut openssl = std::process::Command::new("openssl");
            openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
            openssl.args(["-nodes", "-keyout", "/dev/null", "-subj", &format!("/CN={subject}"), "-out"]);
            assert!(openssl.arg(directory.join(subject)).output().unwrap().status.success());
        }
    }

    #[test]
    fn trust_store_is_the_bundle_or_the_directories() {
        let (home, certs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        certify(certs.path(), &["one", "two", "three"]);
        std::os::unix::fs::symlink("one", certs.path().join("1234abcd.0")).unwrap();
        fs::write(certs.path().join("README"), "no certificate").unwrap();
        fs::create_dir(certs.path().join("java")).unwrap();
        let read = |name: &str| fs::read_to_string(certs.path().join(name)).unwrap();
        let bundle = home.path().join("bundle.pem");
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        fs::write(&bundle, ["# Two roots\n", &read("one"), broken, &read("two")].concat()).unwrap();
        let directories = [certs.path().to_owned(), home.path().join("none")];
        let count = |file, directories: &[PathBuf]| trusted_roots(file, directories).map(|roots| roots.len());
        assert_eq!(count(Some(&bundle), &directories), Ok(2));
        assert_eq!(count(None, &directories), Ok(3));
        let none = "the system has no trusted certificates";
        assert_eq!(count(None, &[]), Err(none.to_owned()));
        fs::write(&bundle, "").unwrap();
        assert_eq!(count(Some(&bundle), &directories), Err(none.to_owned()));
        fs::remove_file(&bundle).unwrap();
        assert!(count(Some(&bundle), &directories).unwrap_err().starts_with(&format!("{none}: ")));
    }

    #[test]
    fn trust_store_is_read_without_holding_the_certificates() {
        let home = tempfile::tempdir().unwrap();
        certify(home.path(), &["root"]);
        let bundle = home.path().join("bundle.pem");
        // Long comments, and one root again and again: only it is kept.
        let entry = format!(
            "{}\n{}",
            "# a comment\n".repeat(100),
            fs::read_to_string(home.path().join("root")).unwrap()
        );
        fs::write(&bundle, entry.repeat(500)).unwrap();
        let counted = allocation_counter::measure(|| {
            assert_eq!(trusted_roots(Some(&bundle), &[]).unwrap().len(), 1);
        });
        assert!(counted.bytes_max < 64 * 1024, "{} bytes", counted.bytes_max);
    }
}
