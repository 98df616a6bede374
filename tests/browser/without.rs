//! The browse site without JavaScript, and as a file.

use crate::repository::{Repository, file_url};
use crate::support::static_files::StaticFiles;
use crate::support::webdriver::Browser;

/// Checks that the page says everything that needs no script.
#[track_caller]
fn assert_says_everything(browser: &Browser, repository: &Repository) {
    let page = browser.text("body");
    for part in [
        "Packages of the tests",
        &format!("peipkg repo add small ADDRESS \\\n    --anchor {}", repository.fingerprint()),
        "ADDRESS is the address of this page",
        "peipkg install PACKAGE",
        "Newest packages",
        "5 packages",
        "Transfers data by URL, with TLS",
        "8.11.0-1",
        "MIT",
        "built 2026-04-30 by farm-1",
        "peipkg install curl",
        "Index version 2, published 2026-05-01 12:34 UTC",
        "Atom feed",
        "Signing key",
    ] {
        assert!(page.contains(part), "{part:?} is not in {page}");
    }
    // The style sheet is there, and nothing that works by script alone.
    assert_eq!(browser.eval("getComputedStyle(document.querySelector('.packages')).listStyleType"), "none");
    assert_eq!(browser.eval("getComputedStyle(document.querySelector('#form')).display"), "none");
    assert_eq!(browser.eval("document.querySelector('#more').hidden"), true);
}

#[test]
fn page_without_javascript_says_everything() {
    let Some(browser) = Browser::without_javascript() else { return };
    let repository = Repository::small();
    let server = StaticFiles::serve(&repository.root(), "/a/");
    browser.open(&server.url());
    assert_says_everything(&browser, &repository);
    assert!(browser.text("#notice").contains("need JavaScript"));
    let link = browser.eval("document.querySelector('#list a[download]').href");
    assert_eq!(link, format!("{}p/curl/8.11.0-1/curl_8.11.0-1_x86_64.peipkg", server.url()));
}

#[test]
fn page_as_a_file_says_everything_and_why_it_cannot_search() {
    let Some(browser) = Browser::start() else { return };
    let repository = Repository::small();
    browser.open(&file_url(&repository.root().join("index.html")));
    browser.wait("document.querySelector('#notice').innerText.startsWith('Search needs this page to come from a web server')");
    assert_says_everything(&browser, &repository);
    assert_eq!(browser.console(), [""; 0]);
}
