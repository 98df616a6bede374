//! Text as markup: escapes what packages say, and decides which of their URLs become links. Pure.
//!
//! Whatever a package says is text, never markup. Both HTML and XML read the escaped form.

use std::borrow::Cow;
use std::fmt::Write as _;

use peipkg_format::package_url::{self, Place};

/// Returns `text` as the content of an element or of a quoted attribute. Characters that XML cannot
/// hold, such as most control characters, become U+FFFD.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' => escaped.push(character),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Fills the `{{name}}` places of `template` from `values`, in one pass: a value that contains such
/// a place is not filled in turn. The values are markup already.
///
/// # Panics
/// When the template names a value that is not there; a test renders every template.
pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut parts = template.split("{{");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("}}").expect("every place of a template is closed");
        let value = values.iter().find(|(known, _)| *known == name);
        filled.push_str(value.unwrap_or_else(|| panic!("the template needs {name}")).1);
        filled.push_str(rest);
    }
    filled
}

/// Returns a reference to the package file with this `url` of an index, relative to the
/// repository's root or absolute. `None` if the URL leads out of the repository without naming a
/// host, or is no web address: it must not become a link.
pub(super) fn package_link(url: &str) -> Option<Cow<'_, str>> {
    match package_url::place(url).ok()? {
        Place::Local(path) => Some(encode(path, "/").into()),
        Place::Elsewhere(url) => Some(url.into()),
    }
}

/// Returns `url` if it is a web address.
pub(super) fn web_link(url: &str) -> Option<&str> {
    match package_url::below(url) {
        Ok(Place::Elsewhere(url)) => Some(url),
        _ => None,
    }
}

/// Returns the fragment that opens the page of package `name` in `index.html`.
pub(super) fn route(name: &str) -> String {
    format!("#/p/{}", encode(name, ""))
}

/// Percent-encodes `text`, all but unreserved characters (RFC 3986 §2.3) and those in `kept`. The
/// colon is encoded too: before the first slash of a relative URL it would end a scheme.
fn encode(text: &str, kept: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let character = char::from(byte);
        if byte.is_ascii_alphanumeric() || "-._~".contains(character) || kept.contains(character) {
            encoded.push(character);
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_for_html_and_xml() {
        assert_eq!(escape("<a href='x'>\"&\"</a>"), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;&quot;&lt;/a&gt;");
        assert_eq!(
            escape("a\0b\u{1b}c\r\u{85}d\n\t\u{ffff}漢"),
            "a\u{fffd}b\u{fffd}c\u{fffd}\u{fffd}d\n\t\u{fffd}漢"
        );
    }

    #[test]
    fn template_value_is_not_filled_in_turn() {
        let values = [("a", "{{b}}"), ("b", "B")];
        assert_eq!(fill("<{{a}}|{{b}}>", &values), "<{{b}}|B>");
        assert_eq!(fill("plain", &values), "plain");
    }

    #[test]
    fn package_link_stays_below_the_repository_or_names_a_web_address() {
        #[track_caller]
        fn check(url: &str, expected: Option<&str>) {
            assert_eq!(package_link(url).as_deref(), expected, "{url:?}");
        }
        check("/p/a/1-1/a_1-1_noarch.peipkg", Some("p/a/1-1/a_1-1_noarch.peipkg"));
        check("/pool/a_1:2+3~4-1_noarch.peipkg", Some("pool/a_1%3A2%2B3~4-1_noarch.peipkg"));
        check("/javascript:alert(1)", Some("javascript%3Aalert%281%29"));
        check("/p/%2e%2e/x", Some("p/%252e%252e/x"));
        check("p/a", Some("p/a"));
        check("https://x.org/a?b=c", Some("https://x.org/a?b=c"));
        check("HTTPS://x.org/a", Some("HTTPS://x.org/a"));
        for bad in [
            "",
            "/",
            "/p/x?y#z",
            "//host/a",
            "/p//a",
            "/p/../a",
            "/./a",
            "/p/..",
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            "file:///etc/passwd",
            "data:text/html,x",
            " https://x.org",
            "https:/x.org",
            "https://x.org/a b",
            "java\nscript:x",
            "https://x.org\\@y.org/",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn route_of_any_name_is_one_fragment() {
        assert_eq!(route("libstdc++"), "#/p/libstdc%2B%2B");
        assert_eq!(route("a/\"b é"), "#/p/a%2F%22b%20%C3%A9");
    }
}
