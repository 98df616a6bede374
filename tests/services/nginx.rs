//! `contrib/nginx`: the real nginx with this configuration, in front of the real manager, over TLS.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::support::client::{exchange, openssl_hmac_sha256};
use crate::support::farm::{Farm, SECRET};
use crate::support::git_repo::{GitRepo, run};
use crate::support::optional::require;
use crate::support::pages::page;
use crate::support::ports::free_port;
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::wait::{PATIENCE, wait_until};

/// The host name in the configuration; curl resolves it to loopback.
const NAME: &str = "farm.example.org";

/// nginx in front of a farm that has published a version of `app`.
struct Site {
    nginx: Running,
    daemon: Running,
    farm: Farm,
    http: SocketAddr,
    https: SocketAddr,
}

/// An answer, as printed by curl.
struct Answer {
    status: String,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    fn assert_status(&self, status: u16) -> &Self {
        assert_eq!(self.status, status.to_string(), "{}\n{}", self.head, String::from_utf8_lossy(&self.body));
        self
    }

    /// The values of the field `name`, lower case.
    fn fields(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }
}

impl Site {
    fn start() -> Self {
        let repo = GitRepo::program(&["1.0"]);
        let app = Recipe::program("app", &repo.file_url()).watch("github_webhook = true");
        let farm = Farm::builder().with(&app).http().build();
        let mut daemon = farm.daemon();
        let manager = daemon.http_addr();
        daemon.wait_event("build + publish complete", PATIENCE);
        let [http, https] = [(); 2].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        let directory = farm.path("nginx");
        fs::create_dir(&directory).unwrap();
        let (cert, key) = certificate(&directory);
        let site = page("contrib/nginx/peipkg-manager.conf");
        // Make the operator's changes, and use this test's ports.
        let replaced = [
            ("listen 80;", format!("listen {http};")),
            ("listen 443 ssl;", format!("listen {https} ssl;")),
            ("listen [::]:80;", String::new()),
            ("listen [::]:443 ssl;", String::new()),
            ("/etc/letsencrypt/live/farm.example.org/fullchain.pem", cert.display().to_string()),
            ("/etc/letsencrypt/live/farm.example.org/privkey.pem", key.display().to_string()),
            ("http://127.0.0.1:8080", format!("http://{manager}")),
            ("/var/lib/peipkg-manager/repo", farm.repo_dir().display().to_string()),
        ];
        let site = replaced.iter().fold(site, |site, (from, to)| {
            assert!(site.contains(from), "{from} is not in the configuration");
            site.replace(from, to)
        });
        fs::write(directory.join("site.conf"), site).unwrap();
        // As root, nginx runs its workers as a user who may not enter a test's directory.
        let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {name};\n"))
            .concat();
        let main = format!(
            "{user}daemon off;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\n\
             http {{\naccess_log off;\n{paths}include site.conf;\n}}\n"
        );
        fs::write(directory.join("nginx.conf"), main).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&directory).arg("-c").arg(directory.join("nginx.conf")).args(["-e", "stderr"]);
        let mut nginx = Running::spawn(&mut command);
        wait_until("nginx listens", PATIENCE, || {
            assert!(!nginx.has_ended(), "{nginx}");
            std::net::TcpStream::connect(https).is_ok()
        });
        Self { nginx, daemon, farm, http, https }
    }

    /// Requests `path` over TLS, with more arguments for curl.
    #[track_caller]
    fn curl(&self, path: &str, arguments: &[&str]) -> Answer {
        let directory = self.farm.path("nginx");
        let (head, body) = (directory.join("head"), directory.join("body"));
        for file in [&head, &body] {
            fs::write(file, "").unwrap();
        }
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "60", "--write-out", "%{http_code}"]);
        command.arg("--cacert").arg(directory.join("cert.pem")).arg("--noproxy").arg("*");
        command.arg("--resolve").arg(format!("{NAME}:{}:{}", self.https.port(), self.https.ip()));
        command.arg("--dump-header").arg(&head).arg("--output").arg(&body).args(arguments);
        let status = run(command.arg(format!("https://{NAME}:{}{path}", self.https.port())));
        let head = fs::read_to_string(head).unwrap();
        Answer { status, head, body: fs::read(body).unwrap() }
    }

    /// Posts `body` as GitHub does, with `signature`.
    #[track_caller]
    fn post(&self, body: &[u8], signature: &str) -> Answer {
        let file = self.farm.path("nginx/posted");
        fs::write(&file, body).unwrap();
        let data = format!("@{}", file.display());
        let signature = format!("X-Hub-Signature-256: sha256={signature}");
        let headers = ["Content-Type: application/json", "X-GitHub-Event: push", &signature, "Expect:"];
        let mut arguments = vec!["--data-binary", data.as_str()];
        arguments.extend(headers.iter().flat_map(|header| ["--header", header]));
        self.curl("/webhooks/github", &arguments)
    }

    fn stop(mut self) {
        self.nginx.signal(Signal::TERM);
        self.nginx.wait_exit(PATIENCE).assert_success();
        self.daemon.signal(Signal::TERM);
        self.daemon.wait_exit(PATIENCE).assert_success().assert_only_events();
    }
}

/// Creates a self-signed certificate for [`NAME`] and its key.
fn certificate(directory: &Path) -> (PathBuf, PathBuf) {
    let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    command.args(["-days", "2", "-subj", &format!("/CN={NAME}"), "-addext"]);
    command.arg(format!("subjectAltName=DNS:{NAME}")).arg("-keyout").arg(&key).arg("-out").arg(&cert);
    run(&mut command);
    (cert, key)
}

#[test]
fn nginx_passes_webhooks_and_hides_the_status() {
    if !require("nginx") || !require("curl") {
        return;
    }
    let mut site = Site::start();
    site.curl("/healthz", &[]).assert_status(200);
    let status = site.curl("/status", &[]);
    let document: serde_json::Value = serde_json::from_slice(&status.assert_status(200).body).unwrap();
    assert_eq!(document["recipes"][0], "app");
    // The configuration does not permit this machine's other address.
    site.curl("/status", &["--interface", "127.0.0.2"]).assert_status(403);
    site.curl("/healthz", &["--interface", "127.0.0.2"]).assert_status(200);
    site.curl("/status/", &["--interface", "127.0.0.2"]).assert_status(404);
    site.curl("//status", &["--interface", "127.0.0.2"]).assert_status(403);
    // The page and its links.
    for path in ["/farm/", "/farm/?page=2", "/farm/status", "/farm/metrics", "/metrics"] {
        site.curl(path, &[]).assert_status(200);
        site.curl(path, &["--interface", "127.0.0.2"]).assert_status(403);
    }
    assert!(site.curl("/farm/", &[]).body.starts_with(b"<!doctype html>"));
    site.curl("/farm/webhooks/github", &[]).assert_status(404);

    let url = fs::read_to_string(site.farm.path("recipes/app/peipkg.toml")).unwrap();
    let url = url.split("git = \"").nth(1).unwrap().split('"').next().unwrap();
    let hook = |padding: usize| {
        format!(r#"{{"repository":{{"clone_url":"{url}"}},"pad":"{}"}}"#, "x".repeat(padding)).into_bytes()
    };
    let body = hook(0);
    site.post(&body, &"0".repeat(64)).assert_status(401);
    site.post(&body, &openssl_hmac_sha256(SECRET.as_bytes(), &body)).assert_status(200);
    site.daemon.wait_events("webhook accepted, triggering immediate poll", 1, PATIENCE);
    // GitHub's largest payload, and a larger one.
    let body = hook(25_000_000);
    site.post(&body, &openssl_hmac_sha256(SECRET.as_bytes(), &body)).assert_status(200);
    let refused = site.post(&hook(26 << 20), &"0".repeat(64));
    let by = String::from_utf8_lossy(&refused.assert_status(413).body).into_owned();
    assert!(by.contains("nginx"), "the manager refused the payload, not nginx: {by}");
    site.daemon.wait_events("webhook accepted, triggering immediate poll", 2, PATIENCE);

    // Plain HTTP only redirects to TLS.
    let plain = format!("GET /status HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
    let answer = exchange(site.http, plain.as_bytes(), PATIENCE).unwrap();
    let location = format!("https://{NAME}/status");
    assert_eq!((answer.status, answer.header("location")), (301, Some(location.as_str())));
    site.stop();
}

#[test]
fn nginx_serves_the_repository_with_cache_headers() {
    if !require("nginx") || !require("curl") {
        return;
    }
    let site = Site::start();
    let repo = site.farm.repo_dir();
    let mut served = Vec::new();
    let mut pending = vec![repo.clone()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                served.push(path);
            }
        }
    }
    let (mut for_ever, mut sidecars) = (0, 0);
    for file in &served {
        let path = format!("/{}", file.strip_prefix(&repo).unwrap().display());
        let answer = site.curl(&path, &[]);
        assert!(answer.assert_status(200).body == fs::read(file).unwrap(), "{path}");
        let immutable = path.ends_with(".peipkg") || path.starts_with("/keys/");
        let is_sidecar = path.starts_with("/p/") && file.extension().is_some_and(|it| it == "json");
        sidecars += usize::from(is_sidecar);
        let expected = if immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
        assert_eq!(answer.fields("cache-control"), [expected], "{path}");
        for_ever += usize::from(immutable);
        // Two states of the index within one second must differ for a client.
        for field in ["etag", "last-modified"] {
            assert_eq!(answer.fields(field).is_empty(), !immutable, "{path} {field}");
        }
        let kind = match file.extension().and_then(|extension| extension.to_str()) {
            Some("json") => "application/json",
            Some("xml") => "application/xml",
            Some("svg") => "image/svg+xml",
            Some("css") => "text/css",
            Some("html") => "text/html",
            Some("js") => "text/javascript",
            _ => "application/octet-stream",
        };
        assert_eq!(answer.fields("content-type"), [kind], "{path}");
    }
    assert!(for_ever >= 2 && sidecars == 3 && served.len() >= for_ever + 12, "{served:?}");
    // A conditional request for a later state.
    let then = repo.join("repo.json").display().to_string();
    site.curl("/repo.json", &["--time-cond", &then, "--header", "If-None-Match: *"]).assert_status(200);
    let packed = site.curl("/index/archive.json", &["--header", "Accept-Encoding: gzip"]);
    assert_eq!(
        (packed.fields("content-encoding"), packed.fields("vary")),
        (vec!["gzip"], vec!["Accept-Encoding"])
    );

    // The page is at the address that clients use.
    let page = site.curl("/", &[]);
    assert!(page.assert_status(200).body == fs::read(repo.join("index.html")).unwrap());
    assert_eq!(
        (page.fields("content-type"), page.fields("cache-control")),
        (vec!["text/html"], vec!["no-cache"])
    );

    // No client may read the files of an unfinished publish.
    fs::create_dir(repo.join(".index.tmp")).unwrap();
    fs::write(repo.join(".index.tmp/archive.json"), "{}").unwrap();
    for name in ["p/.x", "p/app/.x/y", "keys/.x"] {
        fs::create_dir_all(repo.join(name).parent().unwrap()).unwrap();
        fs::write(repo.join(name), "unfinished").unwrap();
    }
    for path in ["/.index.tmp/archive.json", "/p/.x", "/p/app/.x/y", "/keys/.x", "/lock", "/p/none"] {
        not_there(&site, path, "404");
    }
    for path in ["/assets", "/assets/", "/p", "/p/", "/p/app", "/p/app/", "/keys/", "/index", "/index/"] {
        not_there(&site, path, "404");
    }
    for path in ["/../lock", "/p/%2e%2e/%2e%2e/lock"] {
        not_there(&site, path, "400");
    }
    assert!(fs::read(site.farm.state_dir().join("lock")).is_ok());
    site.curl("/repo.json", &["--request", "POST", "--data", "x"]).assert_status(405);
    site.curl("/repo.json", &["--request", "DELETE"]).assert_status(405);
    site.stop();
}

/// Requests exactly `path` and checks that the answer has `status` and may not be cached.
#[track_caller]
fn not_there(site: &Site, path: &str, status: &str) {
    let answer = site.curl(path, &["--path-as-is"]);
    assert_eq!(answer.status, status, "{path}: {}", answer.head);
    assert!(answer.fields("cache-control").is_empty(), "{path}: {}", answer.head);
}
