//! The key `signers` of a recipe: the file with the keys of those whose tags are built. Pure: the
//! file's bytes are an argument.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Component, Path};

use base64ct::{Base64, Encoding as _};
use peipkg_format::problem::excerpt;

/// The armor around public keys of `OpenPGP`.
const ARMOR: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const ARMOR_END: &str = "-----END PGP PUBLIC KEY BLOCK-----";

/// Stands in the armor line of each private key.
const PRIVATE: &str = "PRIVATE KEY";

/// The `OpenPGP` packets of a public key, of a secret key and of a secret subkey (RFC 9580, section 5).
const PUBLIC_PACKET: u8 = 6;
const SECRET_PACKETS: [u8; 2] = [5, 7];

/// The file of a recipe's signers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signers {
    /// Its path in the recipe's directory.
    pub file: Box<str>,
    /// A number that changes with its bytes; 0 until it was read.
    pub digest: u64,
}

/// The kind of a file with signers, which is also that of their signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignersKind {
    /// An allowed-signers file of OpenSSH.
    OpenSsh,
    /// A keyring of `OpenPGP`.
    OpenPgp,
}

impl SignersKind {
    /// Returns the name of what makes such signatures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OpenSsh => "OpenSSH",
            Self::OpenPgp => "OpenPGP",
        }
    }
}

/// Checks that `path` cannot lead out of the recipe's directory.
///
/// # Errors
/// The end of a sentence that begins with the path.
pub(crate) fn check_path(path: &str) -> Result<(), &'static str> {
    let is_inside = |component| matches!(component, Component::Normal(_) | Component::CurDir);
    if path.is_empty() || !Path::new(path).components().all(is_inside) {
        return Err("does not name a file in the recipe's directory, such as \"allowed_signers\"");
    }
    Ok(())
}

/// Returns a number that changes with the bytes of a file.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// Recognises the kind of a file with signers.
///
/// # Errors
/// The end of a sentence that begins with the file's name.
pub(crate) fn kind_of(bytes: &[u8]) -> Result<SignersKind, String> {
    const PRIVATE_KEY: &str = "has a private key: keep it elsewhere, and write only public keys here";
    // The first byte of a packet is none of a text in UTF-8.
    if std::str::from_utf8(bytes).is_err()
        && let Some(packets) = packets(bytes)
    {
        let Packets { types, is_whole } = packets;
        return match types.first() {
            _ if types.iter().any(|packet| SECRET_PACKETS.contains(packet)) => Err(PRIVATE_KEY.to_owned()),
            Some(&PUBLIC_PACKET) if is_whole => Ok(SignersKind::OpenPgp),
            Some(&PUBLIC_PACKET) => {
                Err("is an OpenPGP keyring that is damaged or cut short: write the output of gpg --export"
                    .to_owned())
            }
            _ => {
                Err("has OpenPGP data, but no public key first: write the output of gpg --export".to_owned())
            }
        };
    }
    if bytes.get(8..12) == Some(b"KBXf") {
        return Err("is a keybox of GnuPG: write the output of gpg --export instead".to_owned());
    }
    let text = String::from_utf8_lossy(bytes);
    let is_private = |line: &str| line.starts_with("-----BEGIN ") && line.contains(PRIVATE);
    if text.lines().any(is_private) {
        return Err(PRIVATE_KEY.to_owned());
    }
    if text.lines().any(|line| line.starts_with(ARMOR)) {
        let count = |armor: &str| text.lines().filter(|line| line.starts_with(armor)).count();
        return if count(ARMOR) == count(ARMOR_END) {
            Ok(SignersKind::OpenPgp)
        } else {
            Err(format!("has {ARMOR} without its end"))
        };
    }
    let mut keys = 0;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Err(reason) = check_line(line) {
            return Err(format!(
                "is no OpenPGP keyring and no allowed-signers file of OpenSSH: line {number} {reason}, \
                 expected PRINCIPALS [OPTIONS] KEY-TYPE KEY"
            ));
        }
        keys += 1;
    }
    if keys == 0 {
        return Err(
            "has no key, expected an allowed-signers file of OpenSSH or an OpenPGP keyring".to_owned()
        );
    }
    Ok(SignersKind::OpenSsh)
}

/// Checks a line of an allowed-signers file.
fn check_line(line: &str) -> Result<(), String> {
    let (principals, rest) = word(line);
    if is_key_type(principals) {
        return Err("has no principals before the type of the key".to_owned());
    }
    let (mut kind, mut rest) = word(rest);
    if !is_key_type(kind) {
        check_options(kind)?;
        (kind, rest) = word(rest);
    }
    if !is_key_type(kind) {
        return Err(if kind.is_empty() {
            "ends before the type of the key".to_owned()
        } else {
            format!("has {:?} in the place of the type of the key", excerpt(kind))
        });
    }
    let (key, _) = word(rest);
    if is_key(key, kind) { Ok(()) } else { Err(format!("has no whole key of the type {kind}")) }
}

/// Checks options, which commas separate (ssh-keygen(1), ALLOWED SIGNERS). ssh-keygen ignores a line with
/// other options, and only says so while it verifies.
fn check_options(options: &str) -> Result<(), String> {
    let mut is_quoted = false;
    let separated = options.split(|c| {
        is_quoted ^= c == '"';
        c == ',' && !is_quoted
    });
    for option in separated {
        let (name, value) = option.split_once('=').map_or((option, None), |(name, rest)| (name, Some(rest)));
        let text = value.and_then(|value| value.strip_prefix('"')?.strip_suffix('"'));
        let (is_fit, form) = match name.to_ascii_lowercase().as_str() {
            "cert-authority" => (value.is_none(), "cert-authority"),
            "namespaces" => (text.is_some(), "namespaces=\"git\""),
            "valid-after" => (text.is_some_and(is_time), "valid-after=\"20300131\" or \"20300131235900Z\""),
            "valid-before" => (text.is_some_and(is_time), "valid-before=\"20300131\" or \"20300131235900Z\""),
            _ => {
                let name = excerpt(name);
                return Err(format!("has {name:?}, which is no type of a key and none of the options"));
            }
        };
        if !is_fit {
            return Err(format!("has {}, which must be like {form}", excerpt(option)));
        }
    }
    Ok(())
}

/// Whether `text` is a time as ssh-keygen reads it: YYYYMMDD[HHMM[SS]][Z].
fn is_time(text: &str) -> bool {
    let digits = text.strip_suffix('Z').unwrap_or(text);
    let is_in = |place, least, most| digits.get(place).is_none_or(|part| (least..=most).contains(&part));
    digits.bytes().all(|byte| byte.is_ascii_digit())
        && [8, 12, 14].contains(&digits.len())
        && is_in(4..6, "01", "12")
        && is_in(6..8, "01", "31")
        && is_in(8..10, "00", "23")
        && is_in(10..12, "00", "59")
}

/// Splits off the first word. Space in quotes does not end it.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let mut is_quoted = false;
    let end = text.find(|c: char| {
        is_quoted ^= c == '"';
        c.is_ascii_whitespace() && !is_quoted
    });
    text.split_at(end.unwrap_or(text.len()))
}

fn is_key_type(word: &str) -> bool {
    ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|start| word.starts_with(start))
}

/// Whether `text` is a whole public key: strings, of which the first names its type (RFC 4253,
/// section 6.6).
fn is_key(text: &str, kind: &str) -> bool {
    let Ok(bytes) = Base64::decode_vec(text) else { return false };
    let (mut rest, mut first) = (&*bytes, None);
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let Some((string, after)) = after.split_at_checked(length) else { break };
        first.get_or_insert(string);
        rest = after;
    }
    // A certificate also has numbers, which do not look like strings.
    let is_whole = rest.is_empty() || kind.contains("-cert-");
    is_whole && first == Some(kind.as_bytes())
}

/// The packets of `OpenPGP` data.
struct Packets {
    /// Their types, as far as they can be told.
    types: Vec<u8>,
    /// Whether that is all of the data.
    is_whole: bool,
}

/// Reads the packets of `OpenPGP` data (RFC 9580, section 4.2); none if it is no such data. gpg writes no
/// key in parts of unknown length.
fn packets(mut bytes: &[u8]) -> Option<Packets> {
    let mut types = Vec::new();
    while let Some((&head, rest)) = bytes.split_first() {
        if head & 0x80 == 0 {
            break;
        }
        let is_new = head & 0x40 != 0;
        let number = |count: usize| {
            let digits = rest.get(..count)?;
            Some((count, digits.iter().fold(0, |number, digit| number << 8 | usize::from(*digit))))
        };
        let length = match (is_new, head & 3, rest.first()) {
            (true, _, Some(0..192)) | (false, 0, _) => number(1),
            (true, _, Some(192..224)) => number(2).map(|(count, length)| (count, length - 0xc000 + 192)),
            (true, _, Some(255)) => rest
                .get(1..5)
                .map(|digits| (5, digits.iter().fold(0, |number, digit| number << 8 | usize::from(*digit)))),
            (false, 1, _) => number(2),
            (false, 2, _) => number(4),
            _ => None,
        };
        types.push(if is_new { head & 0x3f } else { head >> 2 & 0xf });
        let Some((count, length)) = length else { break };
        let Some(after) = rest.get(count.saturating_add(length)..) else { break };
        bytes = after;
    }
    (!types.is_empty()).then_some(Packets { types, is_whole: bytes.is_empty() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK5+a1++A81IJoBLrAsakmaAGFVjx8IVsjlRaEr5E0Bp";

    #[track_caller]
    fn check(bytes: impl AsRef<[u8]>, expected: Result<SignersKind, &str>) {
        let found = kind_of(bytes.as_ref());
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(*found, expected),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            _ => panic!("{found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn signers_of_openssh_are_lines() {
        let ok = Ok(SignersKind::OpenSsh);
        check(format!("alice@example.com {KEY}"), ok);
        check(format!("# team\n\n*@example.com,!eve {KEY} a comment\r\n"), ok);
        check(format!("\"bo b\" namespaces=\"git, file\",Valid-Before=\"20300131\" {KEY}"), ok);
        check(format!("ca cert-authority {KEY}"), ok);
        for time in ["20300131", "20300131Z", "203001312359", "20300131235960Z"] {
            check(format!("a valid-after=\"{time}\",valid-before=\"{time}\" {KEY}"), ok);
        }
        for empty in ["", "\n\n", "# nothing\n"] {
            check(empty, Err("has no key"));
        }
        check(format!("a {KEY}\n{KEY}"), Err("line 2 has no principals"));
        check(format!("alice valid-befor=\"2030\" {KEY}"), Err("line 1 has \"valid-befor\""));
        for (option, form) in [
            ("namespaces=git", "namespaces=git, which must be like namespaces=\"git\""),
            ("cert-authority=\"yes\"", "must be like cert-authority"),
            ("valid-after", "must be like valid-after=\"20300131\""),
            ("valid-before=20300131", "must be like valid-before=\"20300131\""),
        ] {
            check(format!("a {option} {KEY}"), Err(form));
        }
        for time in
            ["", "2030", "2030-01-31", "20301301", "20300100", "2030013124", "203001312400", "20300131+1"]
        {
            check(format!("a valid-before=\"{time}\" {KEY}"), Err("must be like valid-before"));
        }
        check("alice namespaces=\"git\"", Err("line 1 ends before the type"));
        check(&KEY[..60], Err("line 1 has no principals"));
        check(format!("a {}", &KEY[..60]), Err("line 1 has no whole key of the type ssh-ed25519"));
        check(format!("a {}", KEY.replace("ed25519 ", "rsa ")), Err("no whole key of the type ssh-rsa"));
        check("hello world\n", Err("line 1 has \"world\""));
        check(b"\x7fELF\x01\x02\xff", Err("line 1"));
        check(format!("a {KEY}\n-----BEGIN OPENSSH PRIVATE KEY-----\nx"), Err("has a private key"));
    }

    #[test]
    fn signers_of_openpgp_are_public_keys() {
        let ok = Ok(SignersKind::OpenPgp);
        check(format!("Alice's\n{ARMOR}\n\nx\n{ARMOR_END}\n"), ok);
        check(format!("{ARMOR}\n\nx\n"), Err("without its end"));
        let private = "-----BEGIN PGP PRIVATE KEY BLOCK-----\nx";
        check(format!("{ARMOR}\n\nx\n{ARMOR_END}\n{private}"), Err("has a private key"));
        // Packets with the lengths of the old and the new format.
        let (public, user) = ([0x98, 2, 0xff, 0xff], [0xcd, 1, b'u']);
        check([&public[..], &user, &[0x99, 0, 1, 9], &[0xc6, 0xff, 0, 0, 0, 1, 9]].concat(), ok);
        check(
            [0xc6, 0xc0, 0].iter().copied().chain([1; 192]).chain([0x95, 0, 0]).collect::<Vec<_>>(),
            Err("private"),
        );
        check([&public[..], &user, &[0x94, 1, 9]].concat(), Err("has a private key"));
        check([&public[..], &[0x9c, 1, 9]].concat(), Err("has a private key"));
        check([0x88, 1, 0xff], Err("no public key first"));
        // gpg would import only the keys before the damage.
        for rest in [&[0xcd, 2, b'u'][..], &[0xcd], &[0], b"\n", &[0xcd, 0xe0]] {
            check([&public[..], rest].concat(), Err("damaged or cut short"));
        }
        check(b"\0\0\0 \x01\x01\0\x02KBXf\0\xff", Err("keybox"));
    }

    #[test]
    fn signers_path_stays_in_the_recipe() {
        for good in ["allowed_signers", "./keys.asc", "keys/team.gpg"] {
            assert_eq!(check_path(good), Ok(()), "{good}");
        }
        for bad in ["", "/etc/keys", "../keys", "keys/../../x", "keys/.."] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
    }
}
