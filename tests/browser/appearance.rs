//! How the browse site looks: light and dark, on a phone and on a desk, with a keyboard and a
//! reader.

use serde_json::json;

use crate::repository::Repository;
use crate::support::static_files::StaticFiles;
use crate::support::webdriver::{Browser, key};

/// The least contrast of each text with what is behind it, and the text (WCAG 2.2 §1.4.3).
pub(crate) const CONTRAST: &str = "(() => {
    const channel = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const parse = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = ([red, green, blue]) =>
        0.2126 * channel(red / 255) + 0.7152 * channel(green / 255) + 0.0722 * channel(blue / 255);
    const behind = (element) => {
        for (let one = element; one; one = one.parentElement) {
            const color = parse(getComputedStyle(one).backgroundColor);
            if (color.length < 4 || color[3] > 0) return color;
        }
        return [255, 255, 255];
    };
    const visible = [...document.querySelectorAll('body *')].filter((one) =>
        one.checkVisibility() && [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
    return visible.map((one) => {
        const [text, back] = [light(parse(getComputedStyle(one).color)), light(behind(one))];
        return [(Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05), one.innerText.slice(0, 40)];
    }).sort((one, other) => one[0] - other[0])[0];
})()";

/// By how many pixels the page is wider than the window.
pub(crate) const OVERFLOW: &str =
    "document.documentElement.scrollWidth - document.documentElement.clientWidth";

#[test]
fn pages_are_readable_in_light_and_dark_at_every_width() {
    let Some(browser) = Browser::start() else { return };
    let repository = Repository::small();
    let server = StaticFiles::serve(&repository.root(), "/");
    for (width, height) in [(320, 640), (390, 844), (800, 600), (1280, 900)] {
        for (scheme, is_dark) in [("light", false), ("dark", true)] {
            browser.look(width, height, scheme);
            for route in ["", "#/?q=curl", "#/p/curl"] {
                browser.open(&format!("{}{route}", server.url()));
                browser.wait(match route {
                    "#/p/curl" => "document.querySelector('#package .tree') !== null",
                    _ => "document.querySelector('#list button') !== null",
                });
                let place = format!("{width} {scheme} {route}");
                let back = browser
                    .eval("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[1]");
                assert_eq!(back.as_u64().expect("a number") < 128, is_dark, "{place}");
                let contrast = browser.eval(CONTRAST);
                assert!(contrast[0].as_f64().expect("a number") >= 4.5, "{place}: {contrast}");
                assert_eq!(browser.eval(OVERFLOW), 0, "{place}");
            }
        }
    }
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn every_control_is_reached_by_tab_and_has_a_name() {
    let Some(browser) = Browser::start() else { return };
    let repository = Repository::small();
    let server = StaticFiles::serve(&repository.root(), "/");
    for route in ["", "#/p/curl"] {
        browser.open(&format!("{}{route}", server.url()));
        browser.wait("document.querySelector('#package .tree, #list button') !== null");
        browser.eval("document.activeElement.blur()");
        let controls = "[...document.querySelectorAll('a, button, input, summary, [tabindex=\"0\"]')].filter((one) => one.checkVisibility())";
        let count = browser.eval(&format!("{controls}.length")).as_u64().expect("a number");
        assert!(count > 10, "{count} controls only");
        browser.eval("window.reached = new Set()");
        browser.eval("document.addEventListener('focusin', (event) => reached.add(event.target))");
        for _ in 0..count + 3 {
            browser.press(key::TAB);
        }
        let missed = browser
            .eval(&format!("{controls}.filter((one) => !reached.has(one)).map((one) => one.outerHTML)"));
        assert_eq!(missed, json!([]), "{route}");
        let unnamed = format!(
            "{controls}.filter((one) => !(one.innerText.trim() || one.getAttribute('aria-label') || \
             one.getAttribute('aria-labelledby') || one.labels?.length)).map((one) => one.outerHTML)"
        );
        assert_eq!(browser.eval(&unnamed), json!([]), "{route}");
        // One heading of the first rank, and no rank left out.
        let ranks = browser.eval("[...document.querySelectorAll('h1, h2, h3')].filter((one) => one.checkVisibility()).map((one) => one.localName)");
        let ranks: Vec<String> = serde_json::from_value(ranks).expect("headings");
        assert_eq!(ranks.iter().filter(|rank| *rank == "h1").count(), 1, "{ranks:?}");
    }
}
