//! The secrets of a URL or a remote, in every form in which a tool or a server may repeat them.
//! Pure.

use std::fmt::Write as _;

use base64ct::{Base64Unpadded, Encoding as _};

/// The shortest secret that is masked wherever it stands, in bytes. A shorter one would be found in
/// ordinary words; it is removed where it stands as in the URL, before the host's `@`.
const MIN_SECRET: usize = 3;

/// The shortest user name that is masked although a password follows it, in bytes: it may be a
/// token (`https://TOKEN:x-oauth-basic@host`). Names of people and accounts are ordinary words.
const MIN_TOKEN: usize = 16;

/// Texts that no message may show. It has no `Debug`, which would show them.
#[derive(Default, Clone)]
pub struct Secrets {
    /// Texts to find and their replacements, in the order to apply them. No text to find is empty.
    rules: Vec<(String, &'static str)>,
}

impl Secrets {
    /// Finds the secrets of a URL. `query` is its query and fragment, with the `?` or `#`.
    pub(crate) fn of_url(user_info: Option<&str>, query: &str) -> Self {
        let (mut in_place, mut anywhere) = (Vec::new(), Vec::new());
        if let Some(user_info) = user_info {
            let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
            for (user, password) in [(user.to_owned(), password.to_owned()), (lossy(user), lossy(password))] {
                in_place.push(format!("{user}:{password}@"));
                in_place.push(format!("{user}@"));
                anywhere.extend([&*user, ""].map(|end| base64(format!("{user}:{end}").as_bytes())));
                anywhere.push(base64(format!("{user}:{password}").as_bytes()));
            }
            in_place.retain(|text| text.len() > 1 && text != ":@");
            anywhere.push(base64(&[decoded(user), b":".to_vec(), decoded(password)].concat()));
            anywhere.retain(|text| text.len() > 4);
            add_forms(password, &mut anywhere);
            if password.is_empty() || password == "x-oauth-basic" || user.len() >= MIN_TOKEN {
                add_forms(user, &mut anywhere);
            }
        }
        if query.len() > MIN_SECRET {
            in_place.push(query.to_owned());
        }
        for parameter in query.split(['?', '#', '&', ';']) {
            add_forms(parameter.split_once('=').map_or(parameter, |(_, value)| value), &mut anywhere);
        }
        Self::of(in_place, anywhere)
    }

    /// Finds the secrets of an rclone remote that is configured in its own name
    /// (`:sftp,host=…,pass=…:path`): a parameter may be a password.
    pub(crate) fn of_remote(remote: &str) -> Self {
        let Some((_, rest)) = remote.split_once(',') else { return Self::default() };
        // A value in quotes may hold a colon.
        let parameters = rest.rsplit_once(':').map_or(rest, |(parameters, _)| parameters);
        let mut anywhere = vec![parameters.to_owned()];
        for parameter in parameters.split(',') {
            let value = parameter.split_once('=').map_or(parameter, |(_, value)| value);
            if !["true", "false"].contains(&value) {
                add_forms(value.trim_matches(['\'', '"']), &mut anywhere);
            }
        }
        Self::of(Vec::new(), anywhere)
    }

    fn of(mut in_place: Vec<String>, mut anywhere: Vec<String>) -> Self {
        // One secret may be a part of another: find the longer one first.
        for texts in [&mut in_place, &mut anywhere] {
            peipkg_format::sort::sort_by(texts, |a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
            texts.dedup();
        }
        let in_place = in_place.into_iter().map(|text| (text, ""));
        Self { rules: in_place.chain(anywhere.into_iter().map(|text| (text, "***"))).collect() }
    }

    /// Returns `text` without the secrets, and without the user info of every HTTP or FTP URL: a
    /// redirect may name a URL with secrets of its own.
    pub(crate) fn redact(&self, text: &str) -> String {
        let found = |text: String, (secret, shown): &(String, &str)| {
            if text.contains(secret) { text.replace(secret, shown) } else { text }
        };
        without_user_infos(self.rules.iter().fold(text.to_owned(), found))
    }

    /// Returns how many bytes at the end of `text` may begin a secret whose rest is still to come.
    pub fn begun(&self, text: &str) -> usize {
        let longest = |secret: &str| {
            let lengths = secret.char_indices().map(|(length, _)| length);
            lengths.filter(|length| text.ends_with(&secret[..*length])).max().unwrap_or(0)
        };
        let of_rules = self.rules.iter().map(|(secret, _)| longest(secret)).max().unwrap_or(0);
        let url = text.rfind("://").filter(|at| ends_in_authority(&text[at + 3..]));
        let of_url = url.map_or(0, |at| text.len() - at - 3);
        of_rules.max(of_url)
    }
}

/// The longest user info that is looked for, in bytes: a build log holds back so much.
const MAX_USER_INFO: usize = 500;

/// Returns whether a URL whose text after `://` is `text` may still get a user info.
fn ends_in_authority(text: &str) -> bool {
    text.len() <= MAX_USER_INFO && !text.contains(ends_authority)
}

fn ends_authority(c: char) -> bool {
    c.is_whitespace() || c.is_control() || "/?#'\"<>`()|\\".contains(c)
}

/// Removes the text before the `@` of every HTTP and FTP URL.
fn without_user_infos(text: String) -> String {
    if !text.contains("://") || !text.contains('@') {
        return text;
    }
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let scheme = shown.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        // The beginning of the scheme may be in the piece before this text.
        let is_begun = scheme.len() == shown.len();
        let is_secret = ["http", "https", "ftp", "ftps"].iter().any(|known| {
            scheme.eq_ignore_ascii_case(known) || is_begun && known.ends_with(&scheme.to_ascii_lowercase())
        });
        let authority = &part[..part.find(ends_authority).unwrap_or(part.len())];
        let user_info = authority.rfind('@').filter(|_| is_secret).map_or(0, |at| at + 1);
        shown.extend(["://", &part[user_info..]]);
    }
    shown
}

/// Adds the forms of one secret: as written, decoded, and encoded anew as programs do it.
fn add_forms(raw: &str, forms: &mut Vec<String>) {
    let bytes = decoded(raw);
    let plain = String::from_utf8_lossy(&bytes).into_owned();
    let spaced = plain.replace('+', " ");
    let of_bytes = |escape: fn(&mut String, u8)| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            escape(&mut text, *byte);
            text
        })
    };
    let encoded = [
        of_bytes(|text, byte| percent(text, byte, b"-._~")),
        of_bytes(|text, byte| percent(text, byte, b"*-._")),
        // `encodeURIComponent`
        of_bytes(|text, byte| percent(text, byte, b"-._~!'()*")),
        // A build log's escapes.
        of_bytes(|text, byte| {
            let _ = if byte < 0x80 {
                write!(text, "{}", char::from(byte))
            } else {
                write!(text, "\\x{byte:02x}")
            };
        }),
    ];
    let debug = plain.escape_debug().to_string();
    for form in encoded.into_iter().chain([raw.to_owned(), plain, spaced, debug]) {
        forms.extend([lower_case_escapes(&form), form.replace("%20", "+"), form]);
    }
    forms.retain(|form| form.len() >= MIN_SECRET);
}

fn percent(text: &mut String, byte: u8, plain: &[u8]) {
    if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
        text.push(char::from(byte));
    } else {
        let _ = write!(text, "%{byte:02X}"); // writing to a string cannot fail
    }
}

/// Writes the digits of percent escapes in lower case.
fn lower_case_escapes(text: &str) -> String {
    let mut parts = text.split('%');
    let mut lower = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        lower.extend(["%", &digits.to_ascii_lowercase(), rest]);
    }
    lower
}

/// Decodes the percent escapes of a part of a URL. An escape that is none stays, as in git.
pub(crate) fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape =
            tail.get(..2).filter(|digits| *first == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let value = escape.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { &tail[2..] } else { tail };
    }
    bytes
}

fn lossy(text: &str) -> String {
    String::from_utf8_lossy(&decoded(text)).into_owned()
}

/// Encodes `bytes` as the `Authorization` header does (RFC 4648), without the padding: a tool may
/// leave it out.
fn base64(bytes: &[u8]) -> String {
    Base64Unpadded::encode_string(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(user_info: &str, query: &str, text: &str, expected: &str) {
        let user_info = Some(user_info).filter(|user_info| !user_info.is_empty());
        assert_eq!(Secrets::of_url(user_info, query).redact(text), expected);
    }

    #[test]
    fn secret_in_any_encoding_is_masked() {
        check("ghp%5FTok", "", "for 'http://ghp_Tok@h' and ghp%5fTok", "for 'http://h' and ***");
        check("me:p%40s%20s", "", "p@s s p%40s%20s p%40s+s p@s+s", "*** *** *** p@s+s");
        check("me:a%2Fbc", "", "a/bc a%2fbc a%2Fbc", "*** *** ***");
        check("me:a%22bc", "", "found \"a\\\"bc\"", "found \"***\"");
        check("me:a%ffbc", "", "a\u{fffd}bc a\\xffbc a%FFbc", "*** *** ***");
        check("me:s3cret", "", "Basic bWU6czNjcmV0 is it", "Basic *** is it");
        check("me:s3cret", "", "me is no secret, me@h either", "me is no secret, h either");
        check("AKIA0123456789abcdef:x-oauth-basic", "", "user AKIA0123456789abcdef", "user ***");
        check("tok:", "", "tok dG9rOg==", "*** ***==");
        check(
            "",
            "?private_token=to%2Bken&x=1",
            "is to+ken to%2bken ?private_token=to%2Bken&x=1",
            "is *** *** ",
        );
        check("", "#fragment", "fragment", "***");
    }

    #[test]
    fn user_info_of_a_foreign_url_is_removed() {
        check("", "", "for 'http://tok@h' and HTTPS://a:b@c@d/e@f", "for 'http://h' and HTTPS://d/e@f");
        check("", "", "ps://tok@h", "ps://h");
        for text in ["http://h/a@b", "ssh://git@h/x", "a@b", "http://h me@x", "see http://", "x://@ @"] {
            check("", "", text, text);
        }
        let begun = |text: &str| Secrets::default().begun(text);
        assert_eq!([begun("at http://tok"), begun("at http://tok/"), begun("at http://t o")], [3, 0, 0]);
        assert_eq!(begun(&format!("http://{}", "x".repeat(1000))), 0);
    }

    #[test]
    fn secret_shorter_than_three_bytes_stays_in_ordinary_words() {
        check("me:a", "?b=c", "a bad cat, me:a@h", "a bad cat, h");
        check("a", "", "a bad cat, a@h", "a bad cat, h");
    }

    #[test]
    fn remote_with_parameters_is_shown_without_their_values() {
        let secrets = Secrets::of_remote(":sftp,host=h.example,pass=secret,'x=y':pkgs");
        for text in [":sftp,host=h.example,pass=secret,'x=y':pkgs: denied", "login with secret to h.example"]
        {
            let shown = secrets.redact(text);
            assert!(!shown.contains("secret") && shown.contains("***"), "{shown}");
        }
        assert_eq!(Secrets::of_remote("r2:pkgs").redact("r2:pkgs: denied"), "r2:pkgs: denied");
    }
}
