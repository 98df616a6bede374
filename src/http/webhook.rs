//! Checks the signature of GitHub's webhooks and reads which repository changed. Gitea and Forgejo
//! send the same headers and fields.
//!
//! Pure. The caller checks the signature over the raw bytes before it parses anything.

use std::borrow::Cow;

use peipkg_format::problem::excerpt;
use ring::hmac;
use serde::Deserialize;

use crate::recipe::upstream_url::UpstreamUrl;

/// The content of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Payload {
    /// Somebody set the webhook up; no repository changed.
    Ping,
    /// A repository with these names changed (see [`UpstreamUrl::repository`]).
    News(Vec<String>),
}

/// Why a signed payload is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PayloadError {
    /// The form has no such field.
    #[error("the form has no field \"payload\"")]
    NoField,
    /// The payload is not JSON or does not have the expected shape. The reason may quote any string
    /// of the payload.
    #[error("the payload cannot be read: {}", excerpt(.0))]
    Json(String),
    /// No repository is named.
    #[error("the payload names no repository")]
    NoRepository,
}

#[derive(Deserialize)]
struct Document {
    repository: Option<Repository>,
}

#[derive(Deserialize)]
#[allow(clippy::struct_field_names, reason = "GitHub names them so")]
struct Repository {
    html_url: Option<String>,
    clone_url: Option<String>,
    ssh_url: Option<String>,
}

/// Returns whether `signature`, the value of `X-Hub-Signature-256`, signs `body`. Takes the same
/// time for every wrong signature, so that nobody can guess it byte by byte. An empty secret signs
/// nothing.
pub(crate) fn is_signed(secret: &[u8], signature: Option<&str>, body: &[u8]) -> bool {
    let Some(claimed) = signature.and_then(|signature| signature.strip_prefix("sha256=")).and_then(unhex)
    else {
        return false;
    };
    if secret.is_empty() {
        return false;
    }
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), body, &claimed).is_ok()
}

/// Reads a body whose signature is right. `event` is the value of `X-GitHub-Event`, `content_type`
/// the value of `Content-Type`.
///
/// # Errors
/// When the body is not a payload of GitHub's shape.
pub(crate) fn parse(
    event: Option<&str>,
    content_type: Option<&str>,
    body: &[u8],
) -> Result<Payload, PayloadError> {
    if event == Some("ping") {
        return Ok(Payload::Ping);
    }
    let is_form = content_type.is_some_and(|found| {
        found
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .eq_ignore_ascii_case("application/x-www-form-urlencoded")
    });
    let json: Cow<'_, [u8]> = if is_form {
        let field = form_urlencoded::parse(body).find(|(name, _)| name == "payload");
        Cow::Owned(field.ok_or(PayloadError::NoField)?.1.into_owned().into_bytes())
    } else {
        Cow::Borrowed(body)
    };
    let document: Result<Document, _> = serde_json::from_slice(&json);
    let document = document.map_err(|error| PayloadError::Json(error.to_string()))?;
    let repository = document.repository.ok_or(PayloadError::NoRepository)?;
    let urls = [repository.html_url, repository.clone_url, repository.ssh_url];
    let urls: Vec<String> = urls.into_iter().flatten().collect();
    if urls.is_empty() {
        return Err(PayloadError::NoRepository);
    }
    // Skip what is not a URL: no recipe can have it as its upstream.
    let urls = urls.iter().filter_map(|url| url.parse::<UpstreamUrl>().ok());
    let mut names: Vec<String> = urls.map(|url| url.repository().to_owned()).collect();
    names.sort();
    names.dedup();
    Ok(Payload::News(names))
}

/// Reads 64 hexadecimal digits as 32 bytes.
fn unhex(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of GitHub's documentation.
    const SECRET: &[u8] = b"It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";
    const SIGNATURE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    #[test]
    fn signature_wrong_is_refused() {
        assert!(is_signed(SECRET, Some(SIGNATURE), BODY));
        assert!(is_signed(SECRET, Some(&SIGNATURE.to_uppercase().replace("SHA", "sha")), BODY));
        let shortened = &SIGNATURE[..SIGNATURE.len() - 1];
        let changed = SIGNATURE.replace("757", "758");
        let sha1 = SIGNATURE.replace("sha256", "sha1");
        for wrong in ["", "sha256=", shortened, &changed, &sha1, &SIGNATURE[7..], &format!("{SIGNATURE}0")] {
            assert!(!is_signed(SECRET, Some(wrong), BODY), "{wrong}");
        }
        assert!(!is_signed(SECRET, None, BODY));
        assert!(!is_signed(SECRET, Some(SIGNATURE), b"Hello, World?"));
        assert!(!is_signed(b"another", Some(SIGNATURE), BODY));
        // The true HMAC of the empty key: nobody may sign with no secret at all.
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b""), BODY);
        let digest = format!("sha256={}", peipkg_format::hex::encode(tag.as_ref()));
        assert!(!is_signed(b"", Some(&digest), BODY));
    }

    #[track_caller]
    fn names(event: &str, content_type: &str, body: &str) -> Vec<String> {
        match parse(Some(event), Some(content_type), body.as_bytes()).unwrap() {
            Payload::News(names) => names,
            Payload::Ping => vec!["ping".into()],
        }
    }

    #[test]
    fn payloads_of_each_kind_are_read() {
        let json = r#"{"ref":"refs/tags/v1","repository":{"id":1,"html_url":"https://h/o/r",
            "clone_url":"https://h/o/r.git","ssh_url":"git@ssh.h:o/r.git"},"sender":{}}"#;
        assert_eq!(names("push", "application/json", json), ["h/o/r", "ssh.h/o/r"]);
        let form =
            format!("x=1&payload={}", form_urlencoded::byte_serialize(json.as_bytes()).collect::<String>());
        let content_type = "Application/x-www-form-urlencoded; charset=utf-8";
        assert_eq!(names("push", content_type, &form), ["h/o/r", "ssh.h/o/r"]);
        assert_eq!(names("ping", "application/json", "{}"), ["ping"]);
    }

    #[test]
    fn payloads_without_a_repository_are_refused() {
        let error = |content_type: &str, body: &str| {
            parse(Some("push"), Some(content_type), body.as_bytes()).unwrap_err().to_string()
        };
        assert!(error("application/json", "{").starts_with("the payload cannot be read"));
        assert!(error("application/json", "[]").starts_with("the payload cannot be read"));
        assert_eq!(error("application/json", "{}"), "the payload names no repository");
        assert_eq!(error("application/json", r#"{"repository":{}}"#), "the payload names no repository");
        assert_eq!(error("application/x-www-form-urlencoded", "a=b"), "the form has no field \"payload\"");
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(error("application/json", &deep), "the payload names no repository");
        let deep = deep.replace("\"a\"", "\"repository\"");
        assert!(error("application/json", &deep).starts_with("the payload cannot be read"));
    }
}
