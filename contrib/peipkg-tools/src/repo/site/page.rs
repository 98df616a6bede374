//! The page of the repository as it is without JavaScript: what it is, how to use it, what is
//! newest. Pure.

use std::fmt::Write as _;

use peipkg_format::package::check_package_name;
use peipkg_format::repository_layout::handle;

use super::Facts;
use super::markup::{escape, fill, package_link, web_link};
use super::newest::Newest;
use crate::timestamp::Timestamp;

/// The document with places for what differs between repositories.
const TEMPLATE: &str = include_str!("assets/index.html");

/// How much of a description is shown in the list, in characters. The page of the package has all.
const MOST_TEXT: usize = 300;

/// Returns the page as a document.
pub(super) fn render(facts: &Facts<'_>) -> String {
    let description = match facts.description {
        "" => String::new(),
        text => format!("<p><bdi>{}</bdi></p>\n", escape(text)),
    };
    let summary = match facts.description {
        "" => format!("Packages of {}", facts.name),
        text => text.to_owned(),
    };
    let count = match facts.packages {
        1 => "1 package".to_owned(),
        count => format!("{} packages", grouped(count)),
    };
    let handle = handle(facts.name);
    let mut add = format!("peipkg repo add {handle} ADDRESS");
    for key in &facts.keys {
        let _ = write!(add, " \\\n    --anchor {}", escape(key));
    }
    let newest: String = facts.newest.iter().map(item).collect();
    let published =
        Timestamp::parse(facts.generated_at).map_or(facts.generated_at.to_owned(), |time| minute(&time));
    fill(
        TEMPLATE,
        &[
            ("name", &escape(facts.name)),
            ("description", &description),
            ("summary", &escape(&summary)),
            ("count", &count),
            ("handle", &handle),
            ("anchors", &escape(&facts.keys.join(" "))),
            ("add", &add),
            ("newest", &newest),
            ("hide_none", if facts.packages == 0 { "" } else { " hidden" }),
            ("index_version", &facts.index_version.to_string()),
            ("generated_at", &escape(facts.generated_at)),
            ("published", &escape(&published)),
            ("keys", &keys(&facts.keys)),
        ],
    )
}

fn keys(fingerprints: &[&str]) -> String {
    let mut text = String::new();
    for key in fingerprints {
        let key = escape(key);
        let _ = writeln!(
            text,
            "<p>Signing key <a href=\"keys/{key}.pub\" download><code class=\"fingerprint\">{key}</code></a></p>"
        );
    }
    text
}

/// Returns one package as an element of the list. `browse.js` makes the same element, with a link to
/// the page of the package, which only it can show.
fn item(package: &Newest) -> String {
    let (name, mut text) = (escape(&package.name), String::from("<li class=\"package\">\n"));
    let _ = writeln!(
        text,
        "<p class=\"line\"><bdi class=\"name\">{name}</bdi> <bdi class=\"version\">{}</bdi> \
         <bdi class=\"arch\">{}</bdi></p>",
        escape(&package.version),
        escape(&package.architecture),
    );
    if !package.description.is_empty() {
        let _ = writeln!(text, "<p class=\"text\"><bdi>{}</bdi></p>", escape(&shorten(&package.description)));
    }
    let mut facts = Vec::new();
    if !package.license.is_empty() {
        facts.push(format!("<bdi>{}</bdi>", escape(&package.license)));
    }
    if let Some(bytes) = package.size_compressed {
        facts.push(format!("{} to download", size(bytes)));
    }
    if let Some(bytes) = package.size_installed {
        facts.push(format!("{} installed", size(bytes)));
    }
    if let Some(time) = &package.built {
        let farm = match package.farm.as_str() {
            "" => String::new(),
            farm => format!(" by <bdi>{}</bdi>", escape(farm)),
        };
        let (time, day) = (escape(time.as_str()), day(time));
        facts.push(format!("built <time datetime=\"{time}\">{day}</time>{farm}"));
    }
    if !facts.is_empty() {
        let _ = write!(text, "<p class=\"facts\">\n<span>{}</span>\n</p>\n", facts.join("</span>\n<span>"));
    }
    text.push_str("<p class=\"install\">\n");
    // A name with a space or worse must not get into a command that people copy.
    if check_package_name(&package.name).is_ok() {
        let _ = writeln!(text, "<code>peipkg install {name}</code>");
    }
    text.push_str("<span class=\"links\">\n");
    if let Some(url) = web_link(&package.homepage) {
        let _ = writeln!(text, "<a href=\"{}\" rel=\"noopener noreferrer\">homepage</a>", escape(url));
    }
    if let Some(url) = package_link(&package.url) {
        let _ =
            writeln!(text, "<a href=\"{}\" rel=\"noopener noreferrer\" download>download</a>", escape(&url));
    }
    text + "</span>\n</p>\n</li>\n"
}

/// Returns a number with a comma after each three digits.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MOST_TEXT) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn day(time: &Timestamp) -> String {
    escape(time.as_str().get(..10).unwrap_or_default())
}

fn minute(time: &Timestamp) -> String {
    format!("{} {} UTC", day(time), time.as_str().get(11..16).unwrap_or_default())
}

/// Returns a size for people, in binary units.
fn size(bytes: u64) -> String {
    let mut unit = 1_u64;
    let mut name = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if bytes / unit < 1024 {
            break;
        }
        (unit, name) = (unit * 1024, next);
    }
    // Tenths, rounded half up, without floating point.
    let tenths = (u128::from(bytes) * 10 + u128::from(unit) / 2) / u128::from(unit);
    match tenths {
        _ if unit == 1 => format!("{bytes} B"),
        0..100 => format!("{}.{} {name}", tenths / 10, tenths % 10),
        _ => format!("{} {name}", (tenths + 5) / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::facts;
    use super::*;

    #[test]
    fn page_is_the_expected_document() {
        assert_eq!(render(&facts()), include_str!("golden/index.html"));
    }

    #[test]
    fn page_of_an_empty_repository_has_every_place_filled() {
        let mut facts = facts();
        facts.newest.clear();
        (facts.description, facts.packages) = ("", 0);
        let page = render(&facts);
        assert!(!page.contains("{{") && page.contains(">0 packages<"), "{page}");
        assert!(page.contains("<p id=\"none\">No packages yet."), "{page}");
        assert!(page.contains("<meta name=\"description\" content=\"Packages of "), "{page}");
    }

    #[test]
    fn sizes_are_rounded_for_people() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1076, "1.1 KiB"),
            (10_188, "9.9 KiB"),
            (10_240, "10 KiB"),
            (1_048_575, "1024 KiB"),
            (1_572_864, "1.5 MiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn numbers_are_grouped_for_people() {
        let numbers = [0, 999, 1000, 50_000, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "50,000", "1,234,567"]);
    }

    #[test]
    fn long_description_is_cut_between_characters() {
        assert_eq!(shorten(&"漢".repeat(MOST_TEXT)), "漢".repeat(MOST_TEXT));
        assert_eq!(shorten(&"漢".repeat(MOST_TEXT + 1)), "漢".repeat(MOST_TEXT) + "…");
    }
}
