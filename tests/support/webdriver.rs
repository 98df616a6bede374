//! A real Chromium, driven through chromedriver by keyboard and mouse (the W3C's `WebDriver` over
//! HTTP on loopback). Dropping it ends both. It owns no expectation about any page.

use std::process::Command;
use std::{env, fs};

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::{exchange, request};
use super::optional::require;
use super::running::Running;
use super::wait::{PATIENCE, poll};

/// Keys without a character, as `WebDriver` names them.
pub mod key {
    /// Enter.
    pub const ENTER: &str = "\u{e007}";
    /// Escape.
    pub const ESCAPE: &str = "\u{e00c}";
    /// Tab.
    pub const TAB: &str = "\u{e004}";
    /// Arrow up.
    pub const UP: &str = "\u{e013}";
    /// Arrow down.
    pub const DOWN: &str = "\u{e015}";
}

/// The flags that Chromium needs on a machine without a display, a sandbox or a network. The last
/// three keep it from asking its maker's hosts.
const FLAGS: [&str; 8] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// A browser with one window.
pub struct Browser {
    driver: Running,
    addr: SocketAddr,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser. `None` if the machine has none: the calling test is then reported as
    /// skipped.
    pub fn start() -> Option<Self> {
        Self::with_preferences(&json!({}))
    }

    /// Starts a browser that runs no script of a page.
    pub fn without_javascript() -> Option<Self> {
        Self::with_preferences(&json!({"profile.managed_default_content_settings.javascript": 2}))
    }

    fn with_preferences(preferences: &Value) -> Option<Self> {
        if !require("chromium") || !require("chromedriver") {
            return None;
        }
        let profile = TempDir::with_prefix("browser-").expect("a temporary directory");
        let home = profile.path().join("home");
        fs::create_dir(&home).expect("a directory");
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").env_clear().env("HOME", &home).env("TMPDIR", &home);
        command.env("PATH", env::var_os("PATH").expect("a PATH"));
        let driver = Running::spawn(&mut command);
        let port = poll(PATIENCE, || {
            driver.stdout().split_once("successfully on port ")?.1.split_once('.')?.0.parse().ok()
        });
        let port: u16 = port.unwrap_or_else(|| panic!("chromedriver has no port: {}", driver.stdout()));
        let mut flags: Vec<String> = FLAGS.iter().map(|&flag| flag.to_owned()).collect();
        flags.push(format!("--user-data-dir={}", profile.path().join("data").display()));
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut browser = Self { driver, addr, session: String::new(), _profile: profile };
        let wanted = json!({
            "browserName": "chrome",
            // A dialog fails the test: it would mean that a page ran a foreign script.
            "unhandledPromptBehavior": "dismiss and notify",
            "timeouts": {"script": PATIENCE.as_millis(), "pageLoad": PATIENCE.as_millis()},
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": flags, "prefs": preferences},
        });
        let session = browser.send("POST", "/session", &json!({"capabilities": {"alwaysMatch": wanted}}));
        browser.session = format!("/session/{}", session["sessionId"].as_str().expect("a session"));
        Some(browser)
    }

    /// Opens `url`, and waits until it is loaded.
    #[track_caller]
    pub fn open(&self, url: &str) {
        // A change of the fragment alone would load nothing.
        self.command("url", &json!({"url": "about:blank"}));
        self.command("url", &json!({"url": url}));
    }

    /// Goes back in the history.
    #[track_caller]
    pub fn back(&self) {
        self.command("back", &json!({}));
    }

    /// Returns the value of a JavaScript expression in the page.
    #[track_caller]
    pub fn eval(&self, expression: &str) -> Value {
        self.command("execute/sync", &json!({"script": format!("return ({expression});"), "args": []}))
    }

    /// Runs the body of an asynchronous function in the page, and returns what it returns.
    #[track_caller]
    pub fn run(&self, body: &str) -> Value {
        let script = format!(
            "const done = arguments[arguments.length - 1];\
             (async () => {{ {body} }})().then(done, (error) => done({{error: String(error)}}));"
        );
        self.command("execute/async", &json!({"script": script, "args": []}))
    }

    /// Waits until a JavaScript expression is true in the page.
    #[track_caller]
    pub fn wait(&self, expression: &str) {
        let holds = poll(PATIENCE, || (self.eval(expression) == true).then_some(()));
        assert!(
            holds.is_some(),
            "never: {expression}\n{}\n{:?}",
            self.eval("document.body.innerText").as_str().unwrap_or_default(),
            self.console()
        );
    }

    /// The rendered text of the first element that matches a CSS selector.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        let text = self.eval(&format!("document.querySelector({selector:?})?.innerText"));
        text.as_str().unwrap_or_else(|| panic!("nothing matches {selector}")).trim().to_owned()
    }

    /// Presses and releases keys, each a character or of [`key`].
    #[track_caller]
    pub fn press(&self, keys: &str) {
        let presses = |key: char| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key}));
        let actions: Vec<Value> = keys.chars().flat_map(presses).collect();
        self.command("actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}));
    }

    /// Moves the mouse to the first element that matches a CSS selector, and clicks.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        let element = self.command("element", &json!({"using": "css selector", "value": selector}));
        let id =
            element.as_object().and_then(|element| element.values().next()?.as_str()).expect("an element");
        self.command(&format!("element/{id}/click"), &json!({}));
    }

    /// Sets the size of the window in pixels, and the colours that its user prefers: `light` or
    /// `dark`.
    #[track_caller]
    pub fn look(&self, width: u32, height: u32, scheme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools("Emulation.setEmulatedMedia", &json!({"features": features}));
    }

    /// The messages in the console since the last call: errors of scripts, of the network, and
    /// violations of a Content-Security-Policy.
    #[track_caller]
    pub fn console(&self) -> Vec<String> {
        let log = self.command("se/log", &json!({"type": "browser"}));
        let lines = log.as_array().expect("a list").iter();
        lines.map(|line| format!("{} {}", line["level"], line["message"])).collect()
    }

    #[track_caller]
    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.command("goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    #[track_caller]
    fn command(&self, path: &str, body: &Value) -> Value {
        self.send("POST", &format!("{}/{path}", self.session), body)
    }

    #[track_caller]
    fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = request(self.addr, method, path, &[("Content-Type", "application/json")], &bytes);
        let mut value: Value = serde_json::from_slice(&answer.body).expect("a JSON document");
        assert!(answer.status == 200, "{method} {path} {body}: {}", value["value"]["message"]);
        value["value"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Let the browser end by itself: killed, it may leave a process that still writes its
        // profile.
        let end =
            format!("DELETE {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.session, self.addr);
        let _ = exchange(self.addr, end.as_bytes(), Duration::from_secs(20));
    }
}
