//! DSSE envelopes: a document, its type, and signatures over both (secure-systems-lab/dsse, protocol
//! 1.0). Pure, and without cryptography: callers sign and verify.

use base64ct::{Base64, Base64Url, Encoding as _};
use serde::{Deserialize, Serialize};

/// The longest envelope that is read, in bytes: room for a statement about thousands of packages.
pub const MAX_ENVELOPE: u64 = 4 * 1024 * 1024;

/// The most signatures of an envelope: each is tried with each key.
const MAX_SIGNATURES: usize = 16;

/// An envelope. Its content counts only once [`Envelope::verified`] returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload_type: String,
    payload: Vec<u8>,
    signatures: Vec<Vec<u8>>,
}

/// Why an envelope is refused, as the end of a sentence about its file.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// It is longer than [`MAX_ENVELOPE`].
    #[error("is {0} bytes long, at most {MAX_ENVELOPE} are read")]
    TooLong(usize),
    /// It is not the JSON of an envelope.
    #[error("is no DSSE envelope: {0}")]
    Form(#[from] serde_json::Error),
    /// A field is not base64.
    #[error("is no DSSE envelope: {0} is not base64")]
    Encoding(&'static str),
    /// Nobody has signed it.
    #[error("has no signature")]
    Unsigned,
    /// It has more than [`MAX_SIGNATURES`].
    #[error("has {0} signatures, at most {MAX_SIGNATURES} are tried")]
    TooMany(usize),
    /// None of the keys made one of the signatures.
    #[error("is not signed by a key of the repository")]
    NotSigned,
    /// The signed document is of another type.
    #[error("holds a document of type {found:?}, expected {expected:?}")]
    Type {
        /// The type of the document.
        found: String,
        /// The type that the caller reads.
        expected: &'static str,
    },
}

/// The JSON form of an envelope, with its fields in the order in which they are written.
#[derive(Serialize, Deserialize)]
struct Document {
    #[serde(rename = "payloadType")]
    payload_type: String,
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
struct Signature {
    /// A hint without proof. Reading ignores it.
    #[serde(default, skip_deserializing)]
    keyid: String,
    sig: String,
}

/// Returns the bytes to sign: the pre-authentication encoding of a document and its type.
pub fn bytes_to_sign(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// Writes the envelope of a document with one signature of its [`bytes_to_sign`]: compact JSON and one
/// final newline. `keyid` tells readers which key to try first.
pub fn write(payload_type: &str, payload: &[u8], keyid: String, signature: &[u8]) -> Vec<u8> {
    let document = Document {
        payload_type: payload_type.to_owned(),
        payload: Base64::encode_string(payload),
        signatures: vec![Signature { keyid, sig: Base64::encode_string(signature) }],
    };
    // Strings always serialize.
    let mut json = serde_json::to_vec(&document).unwrap_or_default();
    json.push(b'\n');
    json
}

impl Envelope {
    /// Reads an envelope. Ignores unknown fields and key ids.
    ///
    /// # Errors
    /// When it is too long or no envelope, or has no signature or too many.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() as u64 > MAX_ENVELOPE {
            return Err(EnvelopeError::TooLong(bytes.len()));
        }
        let Document { payload_type, payload, signatures } = serde_json::from_slice(bytes)?;
        match signatures.len() {
            0 => return Err(EnvelopeError::Unsigned),
            1..=MAX_SIGNATURES => {}
            many => return Err(EnvelopeError::TooMany(many)),
        }
        let payload = decode(&payload).ok_or(EnvelopeError::Encoding("payload"))?;
        let signatures: Option<Vec<_>> = signatures.iter().map(|one| decode(&one.sig)).collect();
        let signatures = signatures.ok_or(EnvelopeError::Encoding("a signature"))?;
        Ok(Self { payload_type, payload, signatures })
    }

    /// Returns the document, if it is of the type `expected` and `is_signed` accepts a signature.
    /// `is_signed` gets the signed bytes and a signature, and tries every key that it trusts.
    ///
    /// # Errors
    /// When no signature is accepted, or the document is of another type.
    pub fn verified(
        &self,
        expected: &'static str,
        is_signed: &dyn Fn(&[u8], &[u8]) -> bool,
    ) -> Result<&[u8], EnvelopeError> {
        let message = bytes_to_sign(&self.payload_type, &self.payload);
        if !self.signatures.iter().any(|signature| is_signed(&message, signature)) {
            return Err(EnvelopeError::NotSigned);
        }
        if self.payload_type != expected {
            return Err(EnvelopeError::Type { found: self.payload_type.clone(), expected });
        }
        Ok(&self.payload)
    }
}

/// Decodes base64 of either alphabet: a signer may use any of them.
fn decode(text: &str) -> Option<Vec<u8>> {
    Base64::decode_vec(text).or_else(|_| Base64Url::decode_vec(text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "application/vnd.in-toto+json";

    #[test]
    fn bytes_to_sign_are_those_of_the_protocol() {
        let check = |payload_type: &str, payload: &str, expected: &str| {
            assert_eq!(bytes_to_sign(payload_type, payload.as_bytes()), expected.as_bytes());
        };
        let hello = "DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        check("http://example.com/HelloWorld", "hello world", hello);
        check(TYPE, "", "DSSEv1 28 application/vnd.in-toto+json 0 ");
        check("", "{}", "DSSEv1 0  2 {}");
        // Lengths count bytes, not characters.
        check("application/vnd.exämple+json", "ä", "DSSEv1 29 application/vnd.exämple+json 2 ä");
    }

    #[test]
    fn envelope_written_is_read_again() {
        let written = write(TYPE, b"{}", "k1".into(), b"signed");
        let text = format!(
            "{{\"payloadType\":\"{TYPE}\",\"payload\":\"e30=\",\"signatures\":[{{\"keyid\":\"k1\",\"sig\":\"c2lnbmVk\"}}]}}\n"
        );
        assert_eq!(String::from_utf8(written.clone()).unwrap(), text);
        let envelope = Envelope::parse(&written).unwrap();
        let is_signed = |message: &[u8], signature: &[u8]| {
            message == b"DSSEv1 28 application/vnd.in-toto+json 2 {}" && signature == b"signed"
        };
        assert_eq!(envelope.verified(TYPE, &is_signed).unwrap(), b"{}");
        assert!(matches!(envelope.verified("other", &is_signed), Err(EnvelopeError::Type { .. })));
        let error = envelope.verified(TYPE, &|_, _| false).unwrap_err();
        assert!(matches!(error, EnvelopeError::NotSigned), "{error}");
    }

    #[test]
    fn envelope_is_read_with_either_alphabet_and_unknown_fields() {
        let json = r#"{"x":1,"payload":"-_-_Pj8=","payloadType":"t","signatures":[{"sig":"-_-_","keyid":null},{"sig":"+/+/"}]}"#;
        let envelope = Envelope::parse(json.as_bytes()).unwrap();
        assert_eq!(envelope.payload, [0xfb, 0xff, 0xbf, 0x3e, 0x3f]);
        assert_eq!(envelope.signatures, [[0xfb, 0xff, 0xbf]; 2]);
    }

    #[test]
    fn envelope_malformed_is_refused() {
        let error = |json: &str| Envelope::parse(json.as_bytes()).unwrap_err().to_string();
        assert!(error("").starts_with("is no DSSE envelope: "));
        assert!(error(r#"{"payload":"","payloadType":"t"}"#).contains("missing field `signatures`"));
        let with = |payload: &str, signatures: &str| {
            error(&format!(r#"{{"payload":"{payload}","payloadType":"t","signatures":[{signatures}]}}"#))
        };
        assert_eq!(with("", ""), "has no signature");
        assert_eq!(with("e30", r#"{"sig":""}"#), "is no DSSE envelope: payload is not base64");
        assert_eq!(with("", r#"{"sig":"!"}"#), "is no DSSE envelope: a signature is not base64");
        let many = [r#"{"sig":""}"#; 17].join(",");
        assert_eq!(with("", &many), "has 17 signatures, at most 16 are tried");
        let long = vec![b' '; usize::try_from(MAX_ENVELOPE).unwrap() + 1];
        assert!(matches!(Envelope::parse(&long), Err(EnvelopeError::TooLong(_))));
    }
}
