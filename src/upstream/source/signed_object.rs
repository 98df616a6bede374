//! Reads a tag's object as git stores it: its signature, what the signature covers, and the name in it.
//! Pure.
//!
//! git verifies what git reads here. This reading only adds reasons to refuse a tag.

/// The beginnings of signatures that git knows.
const MARKERS: [(&[u8], SignatureKind); 4] = [
    (b"-----BEGIN SSH SIGNATURE-----", SignatureKind::OpenSsh),
    (b"-----BEGIN PGP SIGNATURE-----", SignatureKind::OpenPgp),
    (b"-----BEGIN PGP MESSAGE-----", SignatureKind::Other("an OpenPGP message")),
    (b"-----BEGIN SIGNED MESSAGE-----", SignatureKind::Other("an X.509 certificate")),
];

/// The headers that have signatures, by SHA-1 and by SHA-256 of the objects.
const HEADERS: [&[u8]; 2] = [b"gpgsig ", b"gpgsig-sha256 "];

/// The length of an object's id by SHA-1, in hexadecimal digits.
const SHA1_DIGITS: usize = 40;

/// The kind of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignatureKind {
    /// Of `ssh-keygen`.
    OpenSsh,
    /// Of `gpg`.
    OpenPgp,
    /// Made in a way that is not accepted.
    Other(&'static str),
}

/// The object of a tag: the tag object, or the commit of a light tag.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SignedObject {
    /// Its id.
    pub(super) id: String,
    /// The name that a tag object has in it; `None` for a commit, which has none.
    pub(super) name: Option<String>,
    /// The signature and what it covers, if there is one.
    pub(super) signed: Option<Signed>,
}

/// A signature and what it covers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signed {
    pub(super) kind: SignatureKind,
    pub(super) payload: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

impl SignedObject {
    /// Parses an answer of `git cat-file --batch`; returns `None` if it is not about a tag object or a
    /// commit.
    pub(super) fn parse(answer: &[u8]) -> Option<Self> {
        let (head, content) = split_line(answer)?;
        let mut words = std::str::from_utf8(head).ok()?.split(' ');
        let (id, kind, size) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
        let content = content.get(..size)?;
        let (name, signed) = match kind {
            "tag" => (Some(name_of(content)?), signed_tag(content)),
            "commit" => (None, signed_commit(content, id)),
            _ => return None,
        };
        Some(Self { id: id.to_owned(), name, signed })
    }
}

/// Returns the name in a tag object.
fn name_of(tag: &[u8]) -> Option<String> {
    let mut lines = tag.split(|byte| *byte == b'\n');
    for header in [&b"object "[..], b"type "] {
        lines.next().filter(|line| line.starts_with(header))?;
    }
    let name = lines.next()?.strip_prefix(b"tag ")?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// Splits a tag object before the last line that begins a signature, as git does.
fn signed_tag(tag: &[u8]) -> Option<Signed> {
    let (mut found, mut place) = (None, 0);
    while let Some(rest) = tag.get(place..).filter(|rest| !rest.is_empty()) {
        if let Some(kind) = kind_of(rest) {
            found = Some((place, kind));
        }
        place += split_line(rest).map_or(rest.len(), |(line, _)| line.len() + 1);
    }
    let (place, kind) = found?;
    let (payload, _) = without_signatures(&tag[..place]);
    Some(Signed { kind, payload, signature: tag[place..].to_owned() })
}

/// Takes the signature out of a commit's headers.
fn signed_commit(commit: &[u8], id: &str) -> Option<Signed> {
    let (payload, [sha1, sha256]) = without_signatures(commit);
    let signature = if id.len() == SHA1_DIGITS { sha1 } else { sha256 };
    let kind = kind_of(&signature)
        .or_else(|| (!signature.is_empty()).then_some(SignatureKind::Other("nothing known")))?;
    Some(Signed { kind, payload, signature })
}

/// Splits an object into what its signatures cover, and the signatures of its headers.
fn without_signatures(object: &[u8]) -> (Vec<u8>, [Vec<u8>; 2]) {
    let (mut payload, mut signatures) = (Vec::new(), [Vec::new(), Vec::new()]);
    let (mut rest, mut open) = (object, None);
    while let Some((line, after)) = split_line(rest).filter(|(line, _)| !line.is_empty()) {
        let header = HEADERS.iter().position(|header| line.starts_with(header));
        let value = match (header, open) {
            (Some(header), _) => {
                open = Some(header);
                Some((header, &line[HEADERS[header].len()..]))
            }
            (None, Some(header)) if line.starts_with(b" ") => Some((header, &line[1..])),
            (None, _) => None,
        };
        if let Some((header, value)) = value {
            signatures[header].extend_from_slice(value);
            signatures[header].push(b'\n');
        } else {
            open = None;
            payload.extend_from_slice(line);
            payload.push(b'\n');
        }
        rest = after;
    }
    payload.extend_from_slice(rest);
    (payload, signatures)
}

fn kind_of(text: &[u8]) -> Option<SignatureKind> {
    MARKERS.iter().find(|(marker, _)| text.starts_with(marker)).map(|(_, kind)| *kind)
}

/// Splits off the first line, if it has an end.
fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == b'\n')?;
    Some((&text[..end], &text[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "056e045188a22ac4de43ec7dd2902b76969ef7de";
    const SSH: &str = "-----BEGIN SSH SIGNATURE-----\nU1NI\n-----END SSH SIGNATURE-----\n";
    const PGP: &str = "-----BEGIN PGP SIGNATURE-----\n\niHU\n-----END PGP SIGNATURE-----\n";

    #[track_caller]
    fn parse(id: &str, kind: &str, content: &str) -> Option<SignedObject> {
        SignedObject::parse(format!("{id} {kind} {}\n{content}\n", content.len()).as_bytes())
    }

    #[expect(clippy::unnecessary_wraps, reason = "the calls compare it with an option")]
    fn signed(kind: SignatureKind, payload: &str, signature: &str) -> Option<Signed> {
        Some(Signed { kind, payload: payload.into(), signature: signature.into() })
    }

    #[test]
    fn signature_of_a_tag_is_its_end() {
        let head = format!("object {ID}\ntype commit\ntag v1\ntagger A <a@b> 1 +0000\n");
        let text = format!("{head}\none\n");
        let check = |content: &str, expected| {
            let found = parse(ID, "tag", content).unwrap();
            assert_eq!((found.id.as_str(), found.name.as_deref()), (ID, Some("v1")));
            assert_eq!(found.signed, expected);
        };
        check(&text, None);
        check(&format!("{text}{SSH}"), signed(SignatureKind::OpenSsh, &text, SSH));
        check(&format!("{text}{PGP}"), signed(SignatureKind::OpenPgp, &text, PGP));
        // The last one counts, and a signature is not in the middle of a line.
        let both = format!("{text}{PGP}");
        check(&format!("{both}{SSH}"), signed(SignatureKind::OpenSsh, &both, SSH));
        check(&format!("{text} {SSH}"), None);
        let x509 = "-----BEGIN SIGNED MESSAGE-----\nx";
        check(&format!("{text}{x509}"), signed(MARKERS[3].1, &text, x509));
        // A header for the other hash is no part of what the signature covers.
        let other = format!("{head}gpgsig-sha256 {}\n\none\n", SSH.trim_end().replace('\n', "\n "));
        check(&format!("{other}{PGP}"), signed(SignatureKind::OpenPgp, &text, PGP));
    }

    #[test]
    fn signature_of_a_commit_is_the_header_of_its_hash() {
        let headers = |name: &str, text: &str| format!("{name} {}\n", text.trim_end().replace('\n', "\n "));
        let (before, after) = ("tree t\nparent p\nauthor A\ncommitter A\n", "encoding x\n\ngpgsig no\n x\n");
        let plain = format!("{before}{after}");
        let both = format!("{before}{}{}{after}", headers("gpgsig", SSH), headers("gpgsig-sha256", PGP));
        let of = |id: &str, content: &str| parse(id, "commit", content).unwrap().signed;
        assert_eq!(of(ID, &plain), None);
        assert_eq!(of(ID, &both), signed(SignatureKind::OpenSsh, &plain, SSH));
        assert_eq!(of(&"a".repeat(64), &both), signed(SignatureKind::OpenPgp, &plain, PGP));
        let only_other = format!("{before}{}{after}", headers("gpgsig-sha256", PGP));
        assert_eq!(of(ID, &only_other), None);
        // The signature of a merged tag is another one's.
        let merged = format!("{before}mergetag object {ID}\n type commit\n{after}");
        assert_eq!(of(ID, &merged), None);
        assert_eq!(parse(ID, "commit", &plain).unwrap().name, None);
    }

    #[test]
    fn answer_about_something_else_is_refused() {
        assert_eq!(parse(ID, "tree", ""), None);
        assert_eq!(SignedObject::parse(b"refs/tags/v1 missing\n"), None);
        assert_eq!(SignedObject::parse(b""), None);
        assert_eq!(parse(ID, "tag", "object x\ntag v1\ntype commit\n"), None);
        assert_eq!(SignedObject::parse(format!("{ID} tag 99\nobject").as_bytes()), None);
    }
}
