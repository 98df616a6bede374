//! The browse site, used by keyboard and mouse.

use std::process::Command;

use crate::repository::Repository;
use crate::support::git_repo::run;
use crate::support::static_files::StaticFiles;
use crate::support::wait::{PATIENCE, wait_until};
use crate::support::webdriver::{Browser, key};

/// The names in the list, in order.
fn listed(browser: &Browser) -> Vec<String> {
    let names = browser.eval("[...document.querySelectorAll('#list .name')].map((link) => link.textContent)");
    serde_json::from_value(names).expect("names")
}

/// The element that has the focus: its text, or its id.
const FOCUSED: &str = "(document.activeElement.id || document.activeElement.textContent)";

/// Waits until the page of a package is complete.
#[track_caller]
fn wait_package(browser: &Browser, name: &str, version: &str) {
    browser.wait(&format!(
        "document.querySelector('#package-title')?.innerText.replace(/\\s+/g, ' ').startsWith('{name} {version} ') \
         && document.querySelector('#package .tree') !== null"
    ));
}

#[test]
fn packages_are_found_and_read_by_keyboard_below_a_path() {
    let Some(browser) = Browser::start() else { return };
    let repository = Repository::small();
    let server = StaticFiles::serve(&repository.root(), "/a/b/");
    browser.open(&server.url());
    browser.wait("document.querySelector('#list button') !== null");
    assert_eq!(listed(&browser)[0], "curl", "the newest package comes first");
    assert_eq!(browser.text("#status"), "5 packages");

    // Search as one types: the name itself first, then names, then texts.
    browser.press("/");
    browser.wait("document.activeElement.id === 'search'");
    browser.press("c");
    browser.press("url");
    browser.wait("document.querySelector('#status').innerText === '2 packages of 5'");
    assert_eq!(listed(&browser), ["curl", "curl-doc"]);
    browser.press(key::ESCAPE);
    browser.wait("document.querySelector('#status').innerText === '5 packages'");
    browser.press("JSON");
    browser.wait("document.querySelector('#status').innerText === '2 packages of 5'");
    assert_eq!(listed(&browser), ["json-schemas", "jq"]);
    browser.wait("location.hash === '#/?q=JSON'");

    // Down, up and down again; then open the second result.
    browser.press(key::DOWN);
    browser.wait(&format!("{FOCUSED} === 'json-schemas'"));
    browser.press(key::UP);
    browser.wait(&format!("{FOCUSED} === 'search'"));
    browser.press(&[key::DOWN, key::DOWN].concat());
    browser.wait(&format!("{FOCUSED} === 'jq'"));
    let outline = browser.eval("getComputedStyle(document.activeElement).outlineStyle");
    assert_eq!(outline, "solid", "the focus is not visible");
    browser.press(key::ENTER);
    wait_package(&browser, "jq", "1.7.1-3");
    assert_eq!(browser.eval("location.pathname + location.hash"), "/a/b/#/p/jq");
    assert_eq!(browser.eval("document.title"), "jq – small packages");
    let page = browser.text("#package");
    for part in [
        "A JSON processor",
        "peipkg install jq",
        "https://example.org/jq.git",
        "v1.7.1-3",
        "farm-1",
        "libc >= 2.0",
        "2026-04-20",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }

    // Escape leads back to the results, to the place that was left.
    browser.press(key::ESCAPE);
    browser.wait("!document.querySelector('#front').hidden");
    browser.wait(&format!("{FOCUSED} === 'jq'"));
    assert_eq!(listed(&browser), ["json-schemas", "jq"]);

    // Enter in the search opens the first result.
    browser.press("/");
    browser.press("curl");
    browser.press(key::ENTER);
    wait_package(&browser, "curl", "8.11.0-1");
    // The slash works there too, and typing leads back to the list.
    browser.press("/");
    browser.press("libc");
    browser.wait("!document.querySelector('#front').hidden");
    browser.wait("document.querySelector('#status').innerText === '1 package of 5'");
    browser.press("zzz");
    browser.wait("document.querySelector('#status').innerText === '0 packages of 5'");
    assert_eq!(browser.console(), [""; 0]);
    let requests = server.take_requests();
    assert!(requests.iter().all(|path| path.starts_with("/a/b/")), "{requests:?}");
}

#[test]
fn packages_are_followed_by_mouse_at_the_root() {
    let Some(browser) = Browser::start() else { return };
    let repository = Repository::small();
    let server = StaticFiles::serve(&repository.root(), "/");
    browser.open(&server.url());
    browser.wait("document.querySelector('#list button') !== null");
    let add = format!(
        "peipkg repo add small {} \\\n    --anchor {} \\\n    --insecure",
        server.url().trim_end_matches('/'),
        repository.fingerprint()
    );
    assert_eq!(browser.text("#add"), add);
    browser.click("#list button");
    browser.wait("document.querySelector('#list button').innerText === 'Copied'");
    browser.press("/");
    let paste = "navigator.clipboard.readText()";
    let copied = browser.run(&format!("return {paste}.catch(() => 'not permitted');"));
    assert!(["peipkg install curl", "not permitted"].contains(&copied.as_str().unwrap()), "{copied}");

    browser.click("a.name[href='#/p/curl']");
    wait_package(&browser, "curl", "8.11.0-1");
    let page = browser.text("#package");
    // A dependency that another package provides, one that nobody has, and who needs this package.
    assert!(page.contains("libc-api >= 2.0, provided by libc"), "{page}");
    assert_eq!(browser.eval("document.querySelector('a[href=\"#/p/zlib-ng\"]')"), serde_json::Value::Null);
    assert!(page.contains("jq (optional)"), "{page}");
    // The tree of files, and a directory that is closed and opened.
    assert!(page.contains("3 files") && page.contains("share/doc/curl/"), "{page}");
    assert!(page.contains("NEWS"), "{page}");
    browser.click("#package .tree summary");
    browser.wait("!document.querySelector('#package').innerText.includes('NEWS')");
    browser.click("#package .tree summary");
    browser.wait("document.querySelector('#package').innerText.includes('NEWS')");

    // An older version, from the archive.
    browser.click("a[href='#/p/curl/8.10.1-1/x86_64']");
    wait_package(&browser, "curl", "8.10.1-1");
    assert!(browser.text("#package").contains("This is not the current version."));
    browser.click(".notice a");
    wait_package(&browser, "curl", "8.11.0-1");
    browser.click("#package a[href='#/p/libc']");
    wait_package(&browser, "libc", "2.40-1");
    let page = browser.text("#package");
    assert!(page.contains("curl >= 2.0 for libc-api") && page.contains("jq >= 2.0"), "{page}");
    browser.back();
    wait_package(&browser, "curl", "8.11.0-1");
    browser.click("#home");
    browser.wait("!document.querySelector('#front').hidden");
    // The download is the package itself.
    let expected = format!("{}p/curl/8.11.0-1/curl_8.11.0-1_x86_64.peipkg", server.url());
    assert_eq!(browser.eval("document.querySelector('#list a[download]').href"), expected);
    let length =
        browser.run(&format!("return (await (await fetch('{expected}')).arrayBuffer()).byteLength;"));
    let file = repository.root().join("p/curl/8.11.0-1/curl_8.11.0-1_x86_64.peipkg");
    assert_eq!(length, std::fs::metadata(file).unwrap().len());
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn packages_with_other_sidecars_or_none_are_still_shown() {
    let Some(browser) = Browser::start() else { return };
    let repository = Repository::small();
    // Two packages in one directory: each has sidecars that begin with its file's name.
    let root = repository.root();
    let index = std::fs::read_to_string(root.join("index/archive.json")).unwrap();
    let mut index: serde_json::Value = serde_json::from_str(&index).unwrap();
    std::fs::create_dir(root.join("pool")).unwrap();
    for entry in index["packages"].as_array_mut().unwrap() {
        let (old, field) =
            (entry["url"].as_str().unwrap().to_owned(), |name: &str| entry[name].as_str().unwrap());
        let (directory, file) = old[1..].rsplit_once('/').unwrap();
        match field("name") {
            "jq" | "libc" => {
                for kind in ["manifest.json", "files.json"] {
                    let from = root.join(directory).join(kind);
                    std::fs::rename(from, root.join(format!("pool/{file}.{kind}"))).unwrap();
                }
                std::fs::rename(root.join(&old[1..]), root.join("pool").join(file)).unwrap();
                entry["url"] = format!("pool/{file}").into();
            }
            "curl-doc" => entry["url"] = "HTTPS://packages.example.org/curl-doc.peipkg".into(),
            // The sidecars of another package: an older publish has left them.
            "json-schemas" => {
                let manifest = root.join(directory).join("manifest.json");
                std::fs::write(
                    manifest,
                    r#"{"name":"json-schemas","version":"2-1","architecture":"noarch"}"#,
                )
                .unwrap();
            }
            _ => {}
        }
    }
    repository.replace_indexes(index["packages"].as_array().unwrap());
    let server = StaticFiles::serve(&root, "/");
    browser.open(&format!("{}#/p/jq", server.url()));
    wait_package(&browser, "jq", "1.7.1-3");
    assert!(browser.text("#package").contains("v1.7.1-3"));
    assert_eq!(browser.console(), [""; 0]);
    assert_eq!(browser.eval(PROVENANCE), serde_json::Value::Null);
    browser.open(&format!("{}#/p/curl-doc", server.url()));
    browser.wait(
        "document.querySelector('#package').innerText.includes('The package file is at another address')",
    );
    let link = "document.querySelector('#package a[download]').href";
    assert_eq!(browser.eval(link), "https://packages.example.org/curl-doc.peipkg");
    assert_eq!(browser.console(), [""; 0]);
    browser.open(&format!("{}#/p/json-schemas", server.url()));
    browser.wait("document.querySelector('#package').innerText.includes('is not in this repository')");
    for missing in ["#/p/none", "#/p/%", "#/p/curl/9/x86_64"] {
        browser.open(&format!("{}{missing}", server.url()));
        browser.wait("document.body.innerText.includes(location.hash === '#/p/%' ? 'Newest packages' : 'There is no such package')");
    }
    // An index that cannot be read leaves the list of the page, and says so.
    std::fs::write(root.join("index/active.json"), "{").unwrap();
    browser.open(&server.url());
    browser.wait("document.querySelector('#notice').innerText.startsWith('The index cannot be read: ')");
    assert_eq!(listed(&browser).len(), 5);
}

/// The address of the link to a package's provenance, or null.
const PROVENANCE: &str = "[...document.querySelectorAll('#package a')].find((one) => one.innerText === 'Provenance')?.href ?? null";

#[test]
fn provenance_is_linked_from_its_package_only() {
    let Some(browser) = Browser::start() else { return };
    let repository = Repository::small();
    let root = repository.root();
    let envelope = |package: &str| {
        let sum = run(Command::new("sha256sum").arg(root.join(package)));
        let digest = sum.split(' ').next().unwrap();
        let statement =
            format!("{{\"subject\":[{{\"name\":\"ü\",\"digest\":{{\"sha256\":\"{digest}\"}}}}]}}");
        let payload = run(Command::new("sh").args(["-c", "printf %s \"$1\" | base64 -w0", "sh", &statement]));
        format!("{{\"payloadType\":\"application/vnd.in-toto+json\",\"payload\":\"{payload}\"}}")
    };
    let [jq, libc] = ["p/jq/1.7.1-3/jq_1.7.1-3_x86_64.peipkg", "p/libc/2.40-1/libc_2.40-1_x86_64.peipkg"];
    std::fs::write(root.join("p/jq/1.7.1-3/provenance.json"), envelope(jq)).unwrap();
    // The name that a shared directory asks for; and one of another package.
    std::fs::write(root.join(format!("{libc}.provenance.json")), envelope(libc)).unwrap();
    std::fs::write(root.join("p/curl/8.11.0-1/provenance.json"), envelope(jq)).unwrap();
    let server = StaticFiles::serve(&root, "/a/");
    for (name, version, expected) in [
        ("jq", "1.7.1-3", "p/jq/1.7.1-3/provenance.json"),
        ("libc", "2.40-1", &format!("{libc}.provenance.json")),
    ] {
        browser.open(&format!("{}#/p/{name}", server.url()));
        wait_package(&browser, name, version);
        browser.wait(&format!("({PROVENANCE}) === '{}{expected}'", server.url()));
    }
    for (name, version) in [("curl", "8.11.0-1"), ("json-schemas", "3-1")] {
        server.take_requests();
        browser.open(&format!("{}#/p/{name}", server.url()));
        wait_package(&browser, name, version);
        // The second place was asked too.
        let last = format!("{name}_{version}_");
        wait_until("both places are asked", PATIENCE, || {
            server
                .take_requests()
                .iter()
                .any(|path| path.contains(&last) && path.ends_with("provenance.json"))
        });
        assert_eq!(browser.eval(PROVENANCE), serde_json::Value::Null);
    }
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn feed_is_a_document_whose_links_lead_to_the_packages() {
    let Some(browser) = Browser::start() else { return };
    let repository = Repository::small();
    std::fs::write(repository.root().join("empty.html"), "<!doctype html><title>empty</title>").unwrap();
    let server = StaticFiles::serve(&repository.root(), "/x/");
    browser.open(&format!("{}empty.html", server.url()));
    let found = browser.run(
        "const text = await (await fetch('feed.xml')).text();
         const feed = new DOMParser().parseFromString(text, 'application/xml').documentElement;
         const entries = [...feed.querySelectorAll('entry')];
         return {
             root: feed.namespaceURI + ' ' + feed.localName,
             titles: entries.map((entry) => entry.querySelector('title').textContent),
             link: new URL(entries[0].querySelector('link').getAttribute('href'), location.href).href,
         };",
    );
    assert_eq!(found["root"], "http://www.w3.org/2005/Atom feed");
    assert_eq!(found["titles"][0], "curl 8.11.0-1 (x86_64)");
    assert_eq!(found["titles"].as_array().unwrap().len(), 5);
    browser.open(found["link"].as_str().expect("a link"));
    wait_package(&browser, "curl", "8.11.0-1");
}
