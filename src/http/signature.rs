//! Checks that a webhook comes from a forge that knows the secret. Pure.
//!
//! GitHub, Gitea, Forgejo, Gogs and Bitbucket sign the body; GitLab repeats the secret. Every check
//! takes the same time for every wrong value, so that nobody can guess a right one byte by byte. An
//! empty secret signs nothing.

use ring::hmac;

/// The headers with an HMAC-SHA256 of the body in hexadecimal digits, and the text before the digits.
/// GitHub, Gitea and Forgejo fill `X-Hub-Signature` with an HMAC-SHA1, which counts for nothing;
/// Bitbucket with an HMAC-SHA256.
const SIGNATURES: [(&str, &str); 4] = [
    ("x-hub-signature-256", "sha256="),
    ("x-hub-signature", "sha256="),
    ("x-gitea-signature", ""),
    ("x-gogs-signature", ""),
];

/// The header with GitLab's secret token.
const TOKEN: &str = "x-gitlab-token";

/// Checks the signature of `body`. `header` returns the value of a header by its name in lower case.
///
/// One right signature is enough, whatever the other headers say: nobody can make one without the
/// secret, and forges send several for older receivers.
///
/// # Errors
/// The reason, if there is no right signature.
pub(crate) fn check_signature<'a>(
    secret: &[u8],
    header: impl Fn(&'static str) -> Option<&'a str>,
    body: &[u8],
) -> Result<(), &'static str> {
    let claims: Vec<(&str, &str)> =
        SIGNATURES.iter().filter_map(|(name, prefix)| Some((*prefix, header(name)?))).collect();
    if claims.is_empty() {
        return Err(if header(TOKEN).is_some() {
            "the request is not signed, but has a token: GitLab's path is /webhooks/gitlab"
        } else {
            "the request is not signed"
        });
    }
    let key = key_of(secret)?;
    // Hash the body once: a request may carry 25 MiB and all headers.
    let right = hmac::sign(&key, body);
    let is_right = |(prefix, value): &(&str, &str)| {
        let claimed = value.strip_prefix(prefix).and_then(unhex);
        claimed.is_some_and(|claimed| are_equal(&key, right.as_ref(), &claimed))
    };
    if claims.iter().any(is_right) {
        return Ok(());
    }
    let is_form = header("content-type").is_some_and(is_form);
    Err(if is_form && claims.iter().any(|(prefix, _)| prefix.is_empty()) {
        "the signature is wrong; Gitea, Forgejo and Gogs do not sign forms: choose application/json"
    } else {
        "the signature is wrong"
    })
}

/// Checks that GitLab's token is the secret. `header` returns the value of a header by its name in
/// lower case.
///
/// # Errors
/// The reason, if it is not.
pub(crate) fn check_token<'a>(
    secret: &[u8],
    header: impl Fn(&'static str) -> Option<&'a str>,
) -> Result<(), &'static str> {
    let token = header(TOKEN).ok_or("the request has no X-Gitlab-Token")?;
    // A header has no white space around its value.
    let is_right = are_equal(&key_of(secret)?, secret.trim_ascii(), token.trim_ascii().as_bytes());
    if is_right { Ok(()) } else { Err("the token is wrong") }
}

/// Returns whether a content type is that of a form.
pub(crate) fn is_form(content_type: &str) -> bool {
    let name = content_type.split(';').next().unwrap_or_default().trim();
    name.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn key_of(secret: &[u8]) -> Result<hmac::Key, &'static str> {
    if secret.trim_ascii().is_empty() {
        return Err("the secret is empty");
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, secret))
}

/// Compares by the HMACs of both, so the time tells neither where they differ nor how long the
/// secret is.
fn are_equal(key: &hmac::Key, one: &[u8], other: &[u8]) -> bool {
    hmac::verify(key, one, hmac::sign(key, other).as_ref()).is_ok()
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
    const DIGITS: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    const WRONG: &str = "the signature is wrong";

    #[track_caller]
    fn check(headers: &[(&str, &str)], expected: Result<(), &str>) {
        let header =
            |name: &'static str| headers.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
        assert_eq!(check_signature(SECRET, header, BODY), expected, "{headers:?}");
        assert!(check_signature(SECRET, header, b"Hello, World?").is_err(), "{headers:?}");
        assert!(check_signature(b"another", header, BODY).is_err(), "{headers:?}");
    }

    #[test]
    fn signature_of_each_forge_is_accepted_and_a_wrong_one_is_not() {
        let shouted = SIGNATURE.to_uppercase().replace("SHA", "sha");
        let changed = SIGNATURE.replace("757", "758");
        let longer = format!("{SIGNATURE}0");
        for name in ["x-hub-signature-256", "x-hub-signature"] {
            check(&[(name, SIGNATURE)], Ok(()));
            check(&[(name, &shouted)], Ok(()));
            let sha1 = SIGNATURE.replace("sha256", "sha1");
            let shorter = &SIGNATURE[..SIGNATURE.len() - 1];
            for wrong in ["", "sha256=", shorter, &changed, &sha1, DIGITS, &longer] {
                check(&[(name, wrong)], Err(WRONG));
            }
        }
        for name in ["x-gitea-signature", "x-gogs-signature"] {
            check(&[(name, DIGITS)], Ok(()));
            for wrong in ["", "0", SIGNATURE, &changed[7..], &DIGITS[1..]] {
                check(&[(name, wrong)], Err(WRONG));
            }
        }
    }

    #[test]
    fn signature_right_beside_a_wrong_one_is_enough() {
        let sha1 = "sha1=0000000000000000000000000000000000000000";
        check(&[("x-hub-signature", sha1), ("x-hub-signature-256", SIGNATURE)], Ok(()));
        check(&[("x-hub-signature-256", "sha256=0f"), ("x-gogs-signature", DIGITS)], Ok(()));
        check(&[("x-hub-signature", sha1), ("x-gitea-signature", "0f")], Err(WRONG));
    }

    #[test]
    fn request_without_a_signature_is_refused_with_advice() {
        check(&[], Err("the request is not signed"));
        check(&[("x-github-event", "ping")], Err("the request is not signed"));
        let gitlab = "the request is not signed, but has a token: GitLab's path is /webhooks/gitlab";
        check(&[("x-gitlab-token", "It's a Secret to Everybody")], Err(gitlab));
        let form = ("content-type", "application/x-www-form-urlencoded");
        check(&[form, ("x-hub-signature-256", "sha256=0f")], Err(WRONG));
        let advice =
            "the signature is wrong; Gitea, Forgejo and Gogs do not sign forms: choose application/json";
        check(&[form, ("x-gogs-signature", "0f")], Err(advice));
    }

    #[test]
    fn secret_empty_signs_nothing() {
        // The true HMAC of the empty key, and its token.
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b""), BODY);
        let digits = peipkg_format::hex::encode(tag.as_ref());
        assert!(check_signature(b"", |name| (name == "x-gogs-signature").then_some(&*digits), BODY).is_err());
        assert!(check_token(b"", |_| Some("")).is_err());
        assert!(check_token(b" ", |_| Some(" ")).is_err());
    }

    #[track_caller]
    fn check_gitlab(token: Option<&str>, expected: Result<(), &str>) {
        let header = |name| token.filter(|_| name == "x-gitlab-token");
        assert_eq!(check_token(SECRET, header), expected, "{token:?}");
    }

    #[test]
    fn token_other_than_the_secret_is_refused() {
        check_gitlab(Some("It's a Secret to Everybody"), Ok(()));
        check_gitlab(None, Err("the request has no X-Gitlab-Token"));
        for wrong in ["", "I", "It's a Secret to Everybod", "It's a Secret to Everybody.", SIGNATURE] {
            check_gitlab(Some(wrong), Err("the token is wrong"));
        }
    }
}
