//! The browse site when something is slow, broken, missing, doubled or at another address.

use std::fs;

use serde_json::{Value, json};

use crate::repository::{Repository, manifest};
use crate::support::static_files::{Answer, StaticFiles};
use crate::support::webdriver::{Browser, key};

/// An entry of an index, of the package that is stored at `url`.
fn entry(name: &str, version: &str, architecture: &str, url: &str) -> Value {
    let mut entry = manifest(name, version, architecture, "text");
    entry["url"] = url.into();
    entry
}

#[track_caller]
fn wait_status(browser: &Browser, text: &str) {
    browser.wait(&format!("document.querySelector('#status').innerText === {text:?}"));
}

#[test]
fn relative_and_rooted_urls_are_one_place() {
    let Some(browser) = Browser::start() else { return };
    let repository = Repository::new("relative", "");
    for name in ["aa", "bb"] {
        repository.add(&manifest(name, "1:1-1", "noarch", "text"), &[&format!("usr/share/{name}/text")]);
    }
    repository.publish_with(&["--package-url-template", "pool/{name}_{version}_{arch}.peipkg"]);
    let mut entries = repository.archive();
    assert_eq!(entries[0]["url"], "pool/aa_1:1-1_noarch.peipkg");
    entries[1]["url"] = format!("/{}", entries[1]["url"].as_str().unwrap()).into();
    entries.push(entry("cc", "1-1", "noarch", "HTTPS://Packages.example.org/cc.peipkg"));
    repository.replace_indexes(&entries);
    let server = StaticFiles::serve(&repository.root(), "/a/");
    browser.open(&server.url());
    browser.wait("document.querySelector('#list button') !== null");
    let links = "[...document.querySelectorAll('#list a[download]')].map((link) => link.href)";
    let expected = ["aa", "bb"].map(|name| format!("{}pool/{name}_1%3A1-1_noarch.peipkg", server.url()));
    assert_eq!(
        browser.eval(links),
        json!([expected[0], expected[1], "https://packages.example.org/cc.peipkg"])
    );
    for (name, link) in ["aa", "bb"].iter().zip(&expected) {
        browser.open(&format!("{}#/p/{name}", server.url()));
        browser.wait("document.querySelector('#package .tree') !== null");
        assert_eq!(browser.eval("document.querySelector('#package tbody a[download]').href"), link.as_str());
    }
    // The right names of sidecars were asked for at once.
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn address_is_followed_while_the_search_has_the_focus() {
    let Some(browser) = Browser::start() else { return };
    let repository = Repository::small();
    let server = StaticFiles::serve(&repository.root(), "/");
    browser.open(&format!("{}#/?q=json", server.url()));
    wait_status(&browser, "2 packages of 5");
    browser.click("#home");
    wait_status(&browser, "5 packages");
    browser.press("/");
    browser.wait("document.activeElement.id === 'search'");
    browser.back();
    wait_status(&browser, "2 packages of 5");
    assert_eq!(browser.eval("document.querySelector('#search').value"), "json");
    browser.eval("location.hash = '#/?q=libc'");
    wait_status(&browser, "1 package of 5");
    assert_eq!(
        browser.eval("[document.querySelector('#search').value, document.activeElement.id]"),
        json!(["libc", "search"])
    );

    // Opening a result at once keeps the letters that were typed last.
    browser.press("-no");
    browser.press(key::ESCAPE);
    wait_status(&browser, "5 packages");
    browser.press("curl");
    wait_status(&browser, "2 packages of 5");
    browser.press(&[key::DOWN, key::ENTER].concat());
    browser.wait("document.querySelector('#package .tree') !== null");
    browser.back();
    browser.wait("!document.querySelector('#front').hidden && location.hash === '#/?q=curl'");
    wait_status(&browser, "2 packages of 5");
    assert_eq!(browser.eval("location.hash + document.querySelector('#search').value"), "#/?q=curlcurl");
    // Typing on the page of a package loses no key.
    browser.eval("history.forward()");
    browser
        .wait("document.querySelector('#package .tree') !== null && document.querySelector('#front').hidden");
    browser.press("/");
    browser.press("json-schemas");
    browser.wait("document.querySelector('#search').value === 'json-schemas'");
    wait_status(&browser, "1 package of 5");
    browser.back();
    browser.wait("document.querySelector('#front').hidden && location.hash === '#/p/curl'");
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn script_and_index_that_fail_once_are_loaded_again() {
    let Some(browser) = Browser::start() else { return };
    let repository = Repository::small();
    let server = StaticFiles::serve(&repository.root(), "/");
    // The page has its script, and the worker has none.
    server.plan("assets/browse.js", &[Answer::File, Answer::Error]);
    server.plan("index/active.json", &[Answer::Error]);
    browser.open(&server.url());
    browser.wait("document.querySelector('#notice').innerText.includes('the script could not be started')");
    assert_eq!(browser.text("#status"), "5 packages");
    assert_eq!(browser.eval("document.querySelectorAll('#list li').length"), 5);
    // With a query, the list of the page would be no answer.
    browser.press("/");
    browser.press("j");
    browser.wait("document.querySelector('#notice').innerText.includes('the server answers 500')");
    assert_eq!(browser.text("#packages-title"), "Results");
    assert_eq!(browser.eval("document.querySelectorAll('#list li').length"), 0);
    assert_eq!(browser.text("#status"), "");
    browser.press("q");
    wait_status(&browser, "1 package of 5");
    browser.wait("document.querySelector('#notice').hidden");

    let null = repository.root().join("index/active.json");
    let index = fs::read(&null).unwrap();
    fs::write(&null, "null").unwrap();
    browser.open(&server.url());
    let expected = "The index cannot be read: index/active.json: has no list of packages. \
                    Below is the list from when the page was made.";
    browser.wait(&format!("document.querySelector('#notice').innerText === {expected:?}"));
    fs::write(&null, index).unwrap();
    // A reader of a link to a package has no list to go back to.
    server.plan("assets/browse.js", &[Answer::File, Answer::Error, Answer::Error]);
    browser.open(&format!("{}#/p/curl", server.url()));
    browser.wait("document.querySelector('#package').innerText.includes('The index cannot be read')");
    browser.eval("location.hash = '#/p/jq'");
    browser.wait("document.querySelector('#package tbody tr') !== null");
}

#[test]
fn slow_index_shows_that_it_is_loaded() {
    let Some(browser) = Browser::start() else { return };
    let repository = Repository::small();
    let server = StaticFiles::serve(&repository.root(), "/");
    server.plan("index/active.json", &[Answer::Held]);
    browser.open(&server.url());
    browser.press("/");
    browser.press("json");
    wait_status(&browser, "Loading the index…");
    assert_eq!(browser.eval("document.querySelector('#list').getAttribute('aria-busy')"), "true");
    server.release();
    wait_status(&browser, "2 packages of 5");
    browser.wait("!document.querySelector('#list').hasAttribute('aria-busy')");
}

#[test]
fn architectures_of_a_package_have_a_page_each() {
    let Some(browser) = Browser::start() else { return };
    let repository = Repository::new("two", "");
    let of = |name: &str, version: &str, architecture: &str| entry(name, version, architecture, "");
    let listed = [
        of("libz", "1:2.0-1", "x86_64"),
        of("multi", "1-1", "aarch64"),
        of("multi", "1-1", "x86_64"),
        of("other", "1-1", "x86_64"),
    ];
    repository.replace_index("active", &listed);
    let older =
        [of("libz", "1:2.0-1", "aarch64"), of("libz", "1:1.0-1", "aarch64"), of("gone", "1-1", "aarch64")];
    repository.replace_index("archive", &[&listed[..], &older].concat());
    let server = StaticFiles::serve(&repository.root(), "/");
    browser.open(&server.url());
    wait_status(&browser, "4 packages");
    let links = browser.eval("[...document.querySelectorAll('#list .name')].map((link) => link.hash)");
    assert_eq!(links, json!(["#/p/libz", "#/p/multi/1-1/aarch64", "#/p/multi/1-1/x86_64", "#/p/other"]));
    let title = "document.querySelector('#package-title').innerText.replace(/\\s+/g, ' ')";
    for (route, heading, is_current) in [
        ("multi/1-1/aarch64", "multi 1-1 aarch64", true),
        ("multi/1-1/x86_64", "multi 1-1 x86_64", true),
        ("libz/1%3A2.0-1/aarch64", "libz 1:2.0-1 aarch64", true),
        ("libz/1%3A1.0-1/aarch64", "libz 1:1.0-1 aarch64", false),
        ("gone", "gone 1-1 aarch64", false),
    ] {
        browser.open(&format!("{}#/p/{route}", server.url()));
        browser
            .wait(&format!("{title} === {heading:?} && document.querySelector('#package tbody') !== null"));
        let page = browser.text("#package");
        assert_eq!(page.contains("This is not the current version."), !is_current, "{page}");
        // The command installs the current version.
        assert_eq!(page.contains("peipkg install"), is_current, "{page}");
        assert_eq!(page.contains("Add the repository first"), is_current, "{page}");
        if is_current {
            browser.click("#package summary");
            let add = browser.text("#package pre");
            assert!(add.starts_with("peipkg repo add two http://") && add.contains("--anchor"), "{add}");
        }
    }
}

#[test]
fn nothing_found_is_said_and_providers_are_named() {
    let Some(browser) = Browser::start() else { return };
    let repository = Repository::small();
    let server = StaticFiles::serve(&repository.root(), "/");
    browser.open(&format!("{}#/?q=zzzz", server.url()));
    wait_status(&browser, "0 packages of 5");
    assert_eq!(browser.text("#none"), "No package matches “zzzz”. Show all packages.");
    browser.click("#none a");
    wait_status(&browser, "5 packages");
    assert_eq!(browser.eval("document.querySelector('#none').hidden"), true);
    browser.press("/");
    browser.press("LIBC-API");
    wait_status(&browser, "1 package of 5");
    assert_eq!(browser.text("#list .name"), "libc");
    browser.open(&format!("{}#/p/libc-api", server.url()));
    browser.wait("document.querySelector('#package').innerText.includes('There is no such package')");
    assert!(browser.text("#package").contains("Provided by libc."));
    browser.click("#package a[href='#/p/libc']");
    browser.wait("document.querySelector('#package .tree') !== null");

    let empty = Repository::new("empty", "");
    let server = StaticFiles::serve(&empty.root(), "/");
    for script in [true, false] {
        let Some(browser) = (if script { Browser::start() } else { Browser::without_javascript() }) else {
            return;
        };
        browser.open(&server.url());
        wait_status(&browser, "0 packages");
        browser.wait(&format!("document.querySelector('#form').hidden !== {script}"));
        assert_eq!(browser.text("#none"), "No packages yet. peipkg-repo publish adds them.");
    }
}

#[test]
fn command_is_safe_for_a_shell_and_names_no_password() {
    let Some(browser) = Browser::start() else { return };
    let repository = Repository::small();
    let server = StaticFiles::serve(&repository.root(), "/a%20b'$(x);&!*/");
    let url = server.url().replace("http://", "http://user:secret@");
    browser.open(&url);
    wait_status(&browser, "5 packages");
    browser.wait("document.querySelector('#list a.name') !== null");
    let add = browser.text("#add");
    let host = server.url()["http://".len()..].split('/').next().unwrap().to_owned();
    let expected = format!("peipkg repo add small http://{host}/a%20b%27%24%28x%29%3B%26%21%2A \\\n");
    assert!(add.starts_with(&expected), "{add}");
    // The same files are there.
    browser.open(&format!("{url}#/p/curl"));
    browser.wait("document.querySelector('#package .tree') !== null");
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn focus_is_never_under_the_bar() {
    let Some(browser) = Browser::start() else { return };
    let repository = Repository::new("long", "");
    let entries: Vec<_> =
        (0..40).map(|number| entry(&format!("a{number}"), "1-1", "noarch", "/p/x")).collect();
    repository.replace_indexes(&entries);
    let server = StaticFiles::serve(&repository.root(), "/");
    for (width, height) in [(1280, 720), (375, 667)] {
        browser.look(width, height, "light");
        browser.open(&format!("{}#/?q=a", server.url()));
        wait_status(&browser, "40 packages of 40");
        browser.press("/");
        browser.press(&key::DOWN.repeat(25));
        for _ in 0..24 {
            browser.press(key::UP);
            let gap = browser.eval(
                "document.activeElement.getBoundingClientRect().top - document.querySelector('.top').getBoundingClientRect().bottom",
            );
            assert!(gap.as_f64().expect("a number") >= 0.0, "{width}: {gap}");
        }
        assert_eq!(browser.text(":focus"), browser.text("#list .name"), "the first result has the focus");
    }
    // A phone shows packages on its first screen, and controls that a finger meets.
    browser.open(&server.url());
    wait_status(&browser, "40 packages");
    browser.wait("document.querySelector('#list a.name').getBoundingClientRect().bottom < innerHeight");
    let low = browser.eval(
        "[...document.querySelectorAll('#list a, #list button, summary')].map((one) => one.getBoundingClientRect().height).filter((height) => height < 32)",
    );
    assert_eq!(low, json!([]));
    browser.click("#use summary");
    browser.wait("document.querySelector('#add').checkVisibility()");
}

#[test]
fn long_lists_are_shown_in_parts() {
    let Some(browser) = Browser::start() else { return };
    let repository = Repository::small();
    let root = repository.root();
    let mut entries = repository.archive();
    let curl = entries.iter().find(|one| one["version"] == "8.11.0-1" && one["name"] == "curl").unwrap();
    let older = |number: i32| {
        let mut older = curl.clone();
        older["version"] = format!("7.{number}-1").into();
        older
    };
    entries.extend((0..700).map(older).collect::<Vec<_>>());
    repository.replace_index("archive", &entries);
    let mut files: Vec<_> =
        (0..700).map(|number| json!({"path": format!("usr/bin/{number}"), "size": 5})).collect();
    files.push(json!({"path": "usr/share/negative", "size": -3}));
    fs::write(root.join("p/curl/8.11.0-1/files.json"), json!({"entries": files}).to_string()).unwrap();
    let server = StaticFiles::serve(&root, "/");
    browser.open(&format!("{}#/p/curl", server.url()));
    browser.wait("document.querySelector('#package .tree') !== null && document.querySelector('#package tbody') !== null");
    // The first level of a large tree is open, and no more.
    assert_eq!(browser.text(".tree"), "usr/701 files\nbin/700 files\nshare/1 file");
    for (list, all) in [("tbody", 702), (".tree ul ul", 700)] {
        if list != "tbody" {
            browser.click(".tree ul summary");
        }
        let count = format!("document.querySelectorAll({:?}).length", format!("{list} > *"));
        browser.wait(&format!("{count} === 501"));
        assert_eq!(browser.text(&format!("{list} button")), format!("Show more ({} left)", all - 500));
        browser.click(&format!("{list} button"));
        browser.wait(&format!("{count} === {all}"));
        let focused =
            format!("document.querySelector('{list}').children[500].contains(document.activeElement)");
        assert_eq!(browser.eval(&focused), true, "{list}");
    }
    browser.eval("[...document.querySelectorAll('.tree ul summary')].at(-1).click()");
    browser.wait("document.querySelector('.tree').innerText.includes('negative')");
    assert!(!browser.text(".tree").contains("-3"));
}
