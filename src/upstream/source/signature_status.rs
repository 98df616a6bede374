//! Reads what git, ssh-keygen and gpg say of a signature. Pure.
//!
//! A text that is not known is no verdict: the build fails, and is tried again.

use peipkg_format::problem::excerpt;

use crate::process::ProcessError;
use crate::upstream::git::{GitError, unexpected};

/// Who has signed a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signer {
    /// The principal, or the user id of the key.
    pub name: String,
    /// The fingerprint of the key, as its program writes it.
    pub key: String,
}

/// The messages of a program that has exited.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) text: String,
    /// That it failed, if it did.
    pub(super) error: Option<ProcessError>,
}

impl Said {
    /// Returns the error that the program could not verify anything.
    pub(super) fn into_error(self, signers: &str) -> GitError {
        match self.error {
            Some(error) => GitError::Unverified { reason: error.to_string(), signers: signers.to_owned() },
            None => unexpected(&self.text, "a result of the verification"),
        }
    }
}

/// Returns the error that gpg has imported none of the keys in the file `signers`, as it says, or how it failed.
pub(super) fn not_imported(said: Said, signers: &str) -> GitError {
    let messages = said.text.lines().filter_map(|line| line.strip_prefix("gpg: "));
    let telling =
        messages.map(str::trim).filter(|text| !["keybox ", "Total "].iter().any(|s| text.starts_with(s)));
    let telling = telling.collect::<Vec<_>>().join("; ");
    if telling.is_empty() {
        return said.into_error(signers);
    }
    let reason = format!("gpg cannot import its keys: {}", excerpt(&telling));
    GitError::Unverified { reason, signers: signers.to_owned() }
}

/// A verdict about a signature.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It is good, and of one of the signers.
    Good(Signer),
    /// It is not, for this reason.
    Refused(String),
}

/// What ssh-keygen says of a good signature, before the principal if one of the signers made it.
const GOOD: &str = "Good \"git\" signature ";

/// What it says of a bad one: the signature does not fit, cannot be read, or is for something else.
const DAMAGED: [&str; 5] = [
    "incorrect signature",
    "invalid format",
    "invalid signature",
    "namespace does not match",
    "Signature verification failed",
];

/// What ssh-keygen says if nobody in the file fits.
const NOBODY: [&str; 2] = ["No principal matched", "Could not verify signature"];

/// The beginnings of messages of a git or ssh-keygen that could not do its work.
const BROKEN: [&str; 4] = ["fatal:", "error:", "usage:", "No user exists for uid"];

/// A reason to refuse a tag about which git fails without a word: it finds no tagger with a date in it, or
/// gpg finds no detached signature. A git that cannot work says why.
const UNREADABLE: &str = "its signature, its tagger or its date cannot be read";

/// Reads what is said of an OpenSSH signature. `signers` is the name of the file.
///
/// # Errors
/// If the programs could not verify it.
pub(super) fn of_openssh(said: Said, signers: &str) -> Result<Status, GitError> {
    let has = |text: &str| said.text.contains(text);
    let good = said.text.lines().find_map(|line| line.strip_prefix(GOOD));
    let (named, key) = (good.and_then(|good| good.strip_prefix("for ")), good.and_then(key_of));
    if said.error.is_none() {
        return match named.and_then(|named| Some((named.rsplit_once(" with ")?.0, key?))) {
            Some((name, key)) => Ok(Status::Good(Signer { name: name.to_owned(), key: key.to_owned() })),
            None => Err(said.into_error(signers)),
        };
    }
    let whose = key.map_or_else(|| "its signer's key".to_owned(), |key| format!("the key {}", excerpt(key)));
    let refused = |reason: String| Ok(Status::Refused(reason));
    if said.text.is_empty() {
        return refused(UNREADABLE.to_owned());
    }
    if said.text.lines().any(|line| BROKEN.iter().any(|broken| line.starts_with(broken))) {
        Err(said.into_error(signers))
    } else if has("key has expired") {
        refused(format!("{whose} has expired by its valid-before in {signers:?}"))
    } else if has("key is not yet valid") {
        refused(format!("{whose} is not yet valid by its valid-after in {signers:?}"))
    } else if has("not permitted for use in signature namespace") {
        refused(format!("{whose} may not sign for git by its namespaces in {signers:?}"))
    } else if good.is_some() {
        refused(format!("signed by {whose}, for which {signers:?} has no valid entry"))
    } else if DAMAGED.iter().any(|text| has(text)) {
        refused("its signature does not fit: the tag was changed, or the signature is damaged".to_owned())
    } else if NOBODY.iter().any(|text| has(text)) {
        refused(format!("{signers:?} has no valid entry for {whose}"))
    } else {
        Err(said.into_error(signers))
    }
}

/// Returns the fingerprint at the end of a line.
fn key_of(line: &str) -> Option<&str> {
    Some(line.rsplit_once(" key ")?.1.trim())
}

/// Returns the fingerprints of the keys that an import has brought; none if a private key came too, or
/// nothing.
pub(super) fn imported(report: &str) -> Option<Vec<String>> {
    /// The place of the number of private keys in `IMPORT_RES`.
    const PRIVATE: usize = 9;
    let mut keys = Vec::new();
    for (keyword, rest) in lines(report) {
        let mut fields = rest.split(' ');
        match keyword {
            "IMPORT_OK" => keys.extend(fields.nth(1).map(str::to_owned)),
            "IMPORT_RES" if fields.nth(PRIVATE) != Some("0") => return None,
            _ => {}
        }
    }
    (!keys.is_empty()).then_some(keys)
}

/// Reads what is said of an `OpenPGP` signature. It must be of one of the `known` keys, which the file
/// `signers` has brought.
///
/// # Errors
/// If the programs could not verify it.
pub(super) fn of_openpgp(said: Said, known: &[String], signers: &str) -> Result<Status, GitError> {
    // The primary key is the last field of VALIDSIG, the key of the signature the first one.
    const PRIMARY: usize = 9;
    let find = |wanted: &str| lines(&said.text).find(|(keyword, _)| *keyword == wanted).map(|(_, rest)| rest);
    let count = |wanted: &str| lines(&said.text).filter(|(keyword, _)| *keyword == wanted).count();
    let key = find("VALIDSIG").and_then(|rest| rest.split(' ').nth(PRIMARY));
    let named = |rest: &str| {
        let (id, name) = rest.split_once(' ').unwrap_or((rest, ""));
        format!("the key {} ({})", key.unwrap_or(id), excerpt(name))
    };
    let refused = |reason: String| Ok(Status::Refused(reason));
    if find("BADSIG").is_some() {
        return refused(
            "its signature does not fit: the tag was changed, or the signature is damaged".to_owned(),
        );
    }
    if let Some(rest) = find("REVKEYSIG") {
        return refused(format!("{} is revoked", named(rest)));
    }
    if let Some(rest) = find("EXPKEYSIG") {
        return refused(format!("{} has expired", named(rest)));
    }
    if let Some(rest) = find("EXPSIG") {
        return refused(format!("the signature by {} has expired", named(rest)));
    }
    if let Some(rest) = find("NO_PUBKEY") {
        return refused(format!("signed by the key {}, which {signers:?} does not have", excerpt(rest)));
    }
    if let Some(rest) = find("ERRSIG") {
        let key = rest.split(' ').next().unwrap_or_default();
        return refused(format!("gpg cannot check a signature such as this one by the key {}", excerpt(key)));
    }
    if said.text.lines().any(|line| line.starts_with("[GNUPG:] NODATA")) {
        return refused("its signature is damaged".to_owned());
    }
    // gpg cannot go on at data of another kind.
    let is_other_data = find("FAILURE").is_some_and(|rest| rest.starts_with("verify "));
    if said.error.is_some() && (said.text.is_empty() || is_other_data) {
        return refused(UNREADABLE.to_owned());
    }
    match (find("GOODSIG"), key) {
        (Some(_), Some(_)) if count("GOODSIG") + count("VALIDSIG") > 2 => {
            refused("it has several signatures, expected one".to_owned())
        }
        // Another key can be only one of the machine's settings.
        (Some(_), Some(key)) if !known.iter().any(|known| known == key) => {
            refused(format!("signed by the key {key}, which {signers:?} does not have"))
        }
        (Some(good), Some(key)) if said.error.is_none() => {
            let name = good.split_once(' ').map_or("", |(_, name)| name);
            Ok(Status::Good(Signer { name: name.to_owned(), key: key.to_owned() }))
        }
        _ => Err(said.into_error(signers)),
    }
}

/// Returns the status lines of gpg, each split after its keyword.
fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let status = text.lines().filter_map(|line| line.strip_prefix("[GNUPG:] "));
    status.map(|line| line.split_once(' ').unwrap_or((line, "")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    const KEY: &str = "54C09CCFB0A5ACE307011BE031113BAC82C69FCC";

    fn said(code: i32, text: &str) -> Said {
        let (program, tail) = ("git verify-tag".to_owned(), text.to_owned());
        let failed = ProcessError::Failed { program, status: ExitStatus::from_raw(code << 8), tail };
        Said { text: text.to_owned(), error: (code != 0).then_some(failed) }
    }

    /// Checks for a signer, for a part of a reason, or for an error.
    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "a call is easier to read")]
    fn check(found: Result<Status, GitError>, expected: Option<Result<(&str, &str), &str>>) {
        match (&found, expected) {
            (Ok(Status::Good(signer)), Some(Ok((name, key)))) => {
                assert_eq!((signer.name.as_str(), signer.key.as_str()), (name, key));
            }
            (Ok(Status::Refused(reason)), Some(Err(part))) => assert!(reason.contains(part), "{reason}"),
            (Err(_), None) => {}
            _ => panic!("{found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn status_of_openssh_needs_a_principal_and_success() {
        let of = |code, text: &str| of_openssh(said(code, text), "keys");
        let good = "Good \"git\" signature for a with b with ED25519 key SHA256:x";
        check(of(0, good), Some(Ok(("a with b", "SHA256:x"))));
        check(of(1, good), Some(Err("no valid entry")));
        check(of(0, ""), None);
        check(of(0, "Good \"git\" signature with ED25519 key SHA256:x"), None);
        check(
            of(1, "Good \"git\" signature with ED25519 key SHA256:x\nNo principal matched."),
            Some(Err("the key SHA256:x, for")),
        );
        check(
            of(1, "Good \"git\" signature with RSA key SHA256:x\nf:2: key has expired: v"),
            Some(Err("the key SHA256:x has expired")),
        );
        check(
            of(
                1,
                "Could not verify signature.\nf:3: key is not permitted for use in signature namespace \"git\"",
            ),
            Some(Err("may not sign for git")),
        );
        check(
            of(1, "Signature verification failed: incorrect signature\nCould not verify signature."),
            Some(Err("does not fit")),
        );
        check(of(1, "Could not verify signature.\nfatal: cannot exec 'x'"), None);
        check(of(255, "No user exists for uid 7"), None);
        check(of(1, ""), Some(Err("cannot be read")));
        check(of(1, "something new"), None);
    }

    #[test]
    fn status_of_openpgp_needs_agreement() {
        let known = [KEY.to_owned()];
        let of = |code, text: &str| of_openpgp(said(code, text), &known, "keys");
        let valid = |key: &str| format!("[GNUPG:] VALIDSIG AA 2026-11-27 1 0 4 0 22 8 00 {key}\n");
        let good = "[GNUPG:] GOODSIG 31 Carol <c@x>\n";
        check(of(0, &format!("{good}{}", valid(KEY))), Some(Ok(("Carol <c@x>", KEY))));
        check(of(1, &format!("{good}{}", valid(KEY))), None);
        check(of(0, good), None);
        check(of(0, ""), None);
        check(of(1, ""), Some(Err("cannot be read")));
        check(of(1, "[GNUPG:] NEWSIG\n[GNUPG:] FAILURE verify 38\n"), Some(Err("cannot be read")));
        check(of(1, "[GNUPG:] FAILURE gpg-exit 33554433\n"), None);
        check(of(128, "fatal: no memory\n"), None);
        check(of(0, &valid(KEY)), None);
        check(of(0, &format!("{good}{}", valid("BB"))), Some(Err("does not have")));
        check(of(0, &format!("{good}{}{good}", valid(KEY))), Some(Err("several signatures")));
        // A message that quotes a status line is none.
        check(of(0, &format!("gpg: [GNUPG:] GOODSIG 31 C\n{}", valid(KEY))), None);
        let cases = [
            ("BADSIG 31 C", "does not fit"),
            ("REVKEYSIG 31 C", "is revoked"),
            ("EXPKEYSIG 31 C", "has expired"),
            ("EXPSIG 31 C", "the signature by"),
            ("ERRSIG 31 22 8 00 1 9 -\n[GNUPG:] NO_PUBKEY 31", "the key 31, which"),
            ("ERRSIG 31 99 8 00 1 4 -", "gpg cannot check"),
            ("NODATA 4", "damaged"),
        ];
        for (status, reason) in cases {
            for code in [0, 1] {
                check(of(code, &format!("[GNUPG:] {status}\n{}", valid(KEY))), Some(Err(reason)));
            }
        }
    }

    #[test]
    fn import_brings_public_keys_only() {
        let report = |private: u32| {
            format!(
                "[GNUPG:] IMPORTED 31 C\n[GNUPG:] IMPORT_OK 1 {KEY}\n[GNUPG:] IMPORT_RES 1 0 1 0 0 0 0 0 0 {private} 0 0 0 0 0\n"
            )
        };
        assert_eq!(imported(&report(0)), Some(vec![KEY.to_owned()]));
        assert_eq!(imported(&report(1)), None);
        assert_eq!(imported("[GNUPG:] NODATA 1\n"), None);
        let text = "gpg: keybox '/x' created\ngpg: key 31: new key but contains no user ID - skipped\n\
                    gpg: Total number processed: 1\n";
        assert_eq!(
            not_imported(said(0, text), "keys").to_string(),
            "cannot verify the signature of the tag by \"keys\": gpg cannot import its keys: \
             key 31: new key but contains no user ID - skipped"
        );
    }
}
