//! The browse site of hostile packages: whatever they say is text. It runs nothing and breaks
//! nothing.

use std::fs;

use serde_json::{Value, json};

use crate::repository::{PUBLISHED, Repository, manifest};
use crate::support::static_files::StaticFiles;
use crate::support::webdriver::Browser;

/// Text that would run as HTML, as an attribute, as a URL, or in the place of a template.
const EVIL: &str = "\"'></script></style><script>window.pwned=1;alert(1)</script><img src=x onerror=\"window.pwned=2\">\
                    <svg onload=window.pwned=3>{{keys}}&lt;\u{202e}\u{1}";

/// Scripts, frames, images and handlers in the page that are not its own, links to anything but the
/// web or this page, and the mark that a foreign script would leave.
const FOREIGN: &str = "[
    ...[...document.querySelectorAll('script')].filter((one) => !one.src.endsWith('/assets/browse.js')),
    ...[...document.querySelectorAll('img')].filter((one) => !one.src.endsWith('/assets/browse.svg')),
    ...document.querySelectorAll('iframe, object, embed, svg, style, base, form[action]'),
    ...[...document.querySelectorAll('*')].filter((one) => [...one.attributes].some((it) => /^on|^style$/.test(it.name))),
    ...[...document.querySelectorAll('a')].filter((one) => !['http:', 'https:'].includes(one.protocol)),
    ...[...document.querySelectorAll('a')].filter((one) => one.host !== location.host && one.rel !== 'noopener noreferrer'),
].map((one) => one.outerHTML).concat(window.pwned ? ['pwned ' + window.pwned] : [])";

#[track_caller]
fn assert_harmless(browser: &Browser) {
    assert_eq!(browser.eval(FOREIGN), json!([]));
    let console = browser.console();
    // A sidecar may be missing; anything else would be a script or a violation.
    let others: Vec<_> = console.iter().filter(|line| !line.contains("status of 404")).collect();
    assert!(others.is_empty(), "{others:?}");
}

/// An entry with `value` in each field.
fn entry(name: &Value, value: &Value) -> Value {
    let relation = json!([{"name": value, "constraint": value, "arch": value, "root": value}, value, null]);
    json!({
        "name": name, "version": value, "architecture": value, "description": value, "license": value,
        "homepage": value, "dependencies": relation, "optional_dependencies": relation, "conflicts": relation,
        "provides": relation, "replaces": relation, "side_effects": value, "size_compressed": value,
        "size_installed": value, "hash": {"algorithm": value, "value": value}, "url": value,
        "build": {"timestamp": value, "farm_id": value},
    })
}

fn odd_entries() -> Vec<Value> {
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    let mut entries = vec![
        Value::Null,
        json!(7),
        json!([]),
        json!({}),
        json!({"name": "only-a-name"}),
        json!({"name": "__proto__", "version": "1-1"}),
        json!({"name": "constructor", "version": "1-1", "build": null, "hash": null, "dependencies": {}}),
        entry(&json!(EVIL), &json!(EVIL)),
        entry(&json!("x".repeat(100_000)), &json!("y".repeat(100_000))),
    ];
    let values = [
        json!(null),
        json!(-1.5),
        json!(true),
        json!({"a": EVIL}),
        json!([EVIL]),
        json!(""),
        json!(1e300),
        deep,
    ];
    for (number, value) in values.iter().enumerate() {
        let mut odd = entry(&json!(format!("odd-{number}")), value);
        odd["version"] = "1-1".into();
        entries.push(odd);
    }
    for (number, url) in [
        "javascript:window.pwned=4",
        "JaVaScRiPt:window.pwned=4",
        " javascript:window.pwned=4",
        "java\nscript:window.pwned=4",
        "data:text/html,<script>window.pwned=5</script>",
        "//evil.example/x",
        "/\\evil.example/x",
        "/p/../../../etc/passwd",
        "/%2e%2e/%2e%2e/x",
        "https://user@evil.example/",
        "vbscript:x",
        "blob:x",
        "file:///etc/passwd",
        "http://[::1",
        "https://\u{0}x",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("linked-{number}");
        entries.push(json!({
            "name": name, "version": "1-1", "architecture": "noarch", "url": url, "homepage": url,
            "description": url, "build": {"timestamp": PUBLISHED, "farm_id": url},
        }));
    }
    entries
}

#[test]
fn index_with_anything_in_it_runs_nothing_and_hides_nothing() {
    let Some(browser) = Browser::start() else { return };
    let repository = Repository::new("evil", EVIL.trim_end_matches('\u{1}'));
    let entries = odd_entries();
    repository.replace_indexes(&entries);
    let server = StaticFiles::serve(&repository.root(), "/");
    browser.open(&server.url());
    browser.wait("document.querySelector('#list li') !== null");
    assert_harmless(&browser);
    // All that have a name and a version are there, each with a page.
    let shown = entries
        .iter()
        .filter(|one| one["name"].is_string() && one["version"].as_str().is_some_and(|it| !it.is_empty()));
    let count = shown.count();
    assert_eq!(browser.text("#status"), format!("{count} packages"));
    assert_eq!(browser.eval("document.querySelectorAll('#list li').length"), count);
    assert!(browser.text("#list").contains("<script>window.pwned=1;alert(1)</script>"));
    assert_eq!(browser.eval("document.title"), "evil packages");
    // No name that a shell would misread is in a command.
    let commands = browser.eval("[...document.querySelectorAll('#list code')].map((one) => one.innerText)");
    let commands: Vec<String> = serde_json::from_value(commands).expect("texts");
    let is_plain =
        |command: &String| command.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" -".contains(&byte));
    assert!(commands.len() > 20 && commands.iter().all(is_plain), "{commands:?}");
    // A long word makes the page no wider.
    browser.look(390, 844, "dark");
    assert_eq!(
        browser.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth"),
        0
    );

    let routes = browser.eval("[...document.querySelectorAll('#list .name')].map((one) => one.hash)");
    for route in serde_json::from_value::<Vec<String>>(routes).expect("routes") {
        browser.open(&format!("{}{route}", server.url()));
        browser.wait("document.querySelector('#package tbody tr') !== null");
        browser.wait("!document.querySelector('#package').innerText.includes('Loading')");
        assert_harmless(&browser);
        assert_eq!(
            browser.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth"),
            0,
            "{route}"
        );
    }
}

#[test]
fn package_with_markup_in_every_field_that_the_tools_let_through_runs_nothing() {
    let evil: String = EVIL.chars().filter(|c| c.is_ascii() && !c.is_control()).collect();
    let repository = Repository::new(&evil, &evil);
    let mut described = manifest("evil", "1.0-1", "noarch", &evil);
    described["license"] = evil.as_str().into();
    described["homepage"] = "https://example.org/?'onmouseover='alert(1)'&lt;script&gt;".into();
    described["build"]["farm_id"] = evil.as_str().into();
    described["build"]["source_ref"] = format!("git+https://example.org/{evil}#refs/tags/{evil}").into();
    repository.add(&described, &["usr/share/evil/<img src=x onerror=alert(9)>", "usr/share/evil/plain"]);
    repository.publish();
    let page = fs::read_to_string(repository.root().join("index.html")).unwrap();
    assert!(!page.contains("<script>") && page.matches("<script").count() == 1, "{page}");

    for browser in [Browser::start(), Browser::without_javascript()] {
        let Some(browser) = browser else { return };
        let server = StaticFiles::serve(&repository.root(), "/");
        browser.open(&server.url());
        browser.wait("document.querySelector('#list').innerText.includes('<script>window.pwned=1')");
        assert_harmless(&browser);
        assert_eq!(browser.eval("document.title"), format!("{evil} packages"));
    }
    let Some(browser) = Browser::start() else { return };
    let server = StaticFiles::serve(&repository.root(), "/");
    // Sidecars are unsigned files of anybody who can write there.
    let beside = repository.root().join("p/evil/1.0-1");
    for files in [
        "files.json of the package",
        r#"{"entries":[{"path":"__proto__/../<b>","size":"<i>"},{"path":7},null,{"path":""},{"path":"//"}]}"#,
    ] {
        browser.open(&format!("{}#/p/evil", server.url()));
        browser.wait("document.querySelector('#package .tree') !== null");
        assert_harmless(&browser);
        assert!(
            browser.text("#package").contains("https://example.org/\"'></script>"),
            "the source is not shown"
        );
        if files.starts_with('{') {
            assert!(browser.text(".tree").contains("<b>"));
        } else {
            assert!(browser.text(".tree").contains("<img src=x onerror=alert(9)>"));
        }
        fs::write(beside.join("files.json"), r#"{"entries":[{"path":"__proto__/../<b>","size":"<i>"},{"path":7},null,{"path":""},{"path":"//"}]}"#).unwrap();
    }
}

/// The policy is the second wall: it holds when a script of ours would fail.
#[test]
fn policy_of_the_page_stops_what_the_script_would_let_through() {
    let Some(browser) = Browser::start() else { return };
    let repository = Repository::small();
    let server = StaticFiles::serve(&repository.root(), "/");
    browser.open(&server.url());
    browser.wait("document.querySelector('#list button') !== null");
    assert!(browser.console().is_empty());
    let found = browser.run(
        "const blocked = [];
         addEventListener('securitypolicyviolation', (event) => blocked.push(event.effectiveDirective));
         const attempt = async (work) => { try { await work(); } catch {} };
         await attempt(() => (document.body.innerHTML += '<b>x</b>'));
         await attempt(() => {
             const image = document.createElement('img');
             image.src = 'data:,x';
             document.body.append(image);
             image.setAttribute('onerror', 'window.pwned = 1');
         });
         await attempt(() => {
             const link = document.createElement('a');
             link.href = 'javascript:window.pwned = 2';
             document.body.append(link);
             link.click();
         });
         await attempt(() => fetch('https://evil.example/'));
         await attempt(() => { const frame = document.createElement('iframe'); frame.src = '/'; document.body.append(frame); });
         const pause = () => new Promise((resolve) => setTimeout(resolve, 100));
         // The browser reports a frame from another process.
         for (let round = 0; round < 300 && !blocked.includes('frame-src'); round++) await pause();
         await pause();
         return { blocked, pwned: window.pwned ?? null };",
    );
    assert_eq!(found["pwned"], Value::Null);
    let blocked: Vec<&str> =
        found["blocked"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    for directive in ["require-trusted-types-for", "img-src", "connect-src", "frame-src"] {
        assert!(blocked.contains(&directive), "{directive} is not in {blocked:?}");
    }
    assert!(blocked.iter().any(|directive| directive.starts_with("script-src")), "{blocked:?}");
}
