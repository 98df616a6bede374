//! The messages that list tags in git's protocol version 2 (gitprotocol-v2, "Capability
//! Advertisement" and "ls-refs"). Pure: bytes in, tags out.
//!
//! The request asks for peeled objects, so that one listing shows the commits of annotated tags, and for
//! no symbolic refs.

use std::borrow::Cow;
use std::io::Read;

use peipkg_format::object_id::{ObjectId, SHA1, SHA256};

use crate::farm::events::{ListedTag, Tags};
use crate::upstream::listing::pkt_line::{self, Packet, PacketError, Packets};
use crate::upstream::listing::ref_name;

/// The prefix of the refs to list.
const NAMESPACE: &[u8] = b"refs/tags/";

/// The hash by which a repository names its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ObjectFormat {
    /// 40 hexadecimal digits.
    Sha1,
    /// 64 hexadecimal digits.
    Sha256,
}

/// The capabilities of a server that speaks version 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Server {
    /// `None` when the server names none, which means SHA-1.
    pub object_format: Option<ObjectFormat>,
}

/// Why an answer gives no listing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    /// The server speaks an older version only.
    #[error("the server does not speak protocol version 2")]
    OlderVersion,
    /// The server lacks a capability, or its answer breaks the protocol.
    #[error("the answer is not understood: {0}")]
    NotUnderstood(String),
    /// The answer ends before it is complete.
    #[error("the answer ends before it is complete")]
    CutOff,
    /// The answer could not be read.
    #[error("{0}")]
    Read(std::io::Error),
    /// The server reports an error, as one line.
    #[error("the server says: {0}")]
    Remote(String),
}

impl From<PacketError> for AnswerError {
    fn from(error: PacketError) -> Self {
        match error {
            PacketError::Read(error) => Self::Read(error),
            PacketError::CutOff => Self::CutOff,
            PacketError::Malformed(reason) => Self::NotUnderstood(reason),
            PacketError::Remote(message) => Self::Remote(message),
        }
    }
}

/// Reads the answer to `GET <url>/info/refs?service=git-upload-pack`, to its end.
///
/// # Errors
/// When the answer is not the advertisement of a server that lists refs in version 2.
pub(crate) fn read_advertisement(reader: impl Read) -> Result<Server, AnswerError> {
    let mut packets = Packets::new(reader);
    let mut first = packets.next_packet()?;
    if first == Some(Packet::Data(b"# service=git-upload-pack")) {
        match packets.next_packet()? {
            Some(Packet::Flush) => {}
            None => return Err(AnswerError::CutOff),
            _ => return Err(not_understood("no flush packet after the service's name")),
        }
        first = packets.next_packet()?;
    }
    match first {
        Some(Packet::Data(b"version 2")) => {}
        // Version 0 names no version; its first line has a zero byte before the capabilities.
        Some(Packet::Data(line)) if line == b"version 1" || line.contains(&0) => {
            return Err(AnswerError::OlderVersion);
        }
        None => return Err(AnswerError::CutOff),
        _ => return Err(not_understood("it does not start with a protocol version")),
    }
    let (mut lists_refs, mut object_format) = (false, None);
    loop {
        match packets.next_packet()? {
            Some(Packet::Data(line)) => {
                lists_refs |= line == b"ls-refs" || line.starts_with(b"ls-refs=");
                if let Some(format) = line.strip_prefix(b"object-format=") {
                    object_format = Some(parse_format(format)?);
                }
            }
            Some(Packet::Flush) => break,
            None => return Err(AnswerError::CutOff),
            _ => return Err(not_understood("the capabilities do not end with a flush packet")),
        }
    }
    packets.expect_end()?;
    if !lists_refs {
        return Err(not_understood("the server cannot list refs"));
    }
    Ok(Server { object_format })
}

/// Returns the body of the request that lists the tags of `server`.
pub(crate) fn request(server: Server) -> Vec<u8> {
    let mut body = Vec::with_capacity(100);
    pkt_line::write(&mut body, b"command=ls-refs\n");
    match server.object_format {
        Some(ObjectFormat::Sha1) => pkt_line::write(&mut body, b"object-format=sha1\n"),
        Some(ObjectFormat::Sha256) => pkt_line::write(&mut body, b"object-format=sha256\n"),
        None => {}
    }
    pkt_line::write_delimiter(&mut body);
    pkt_line::write(&mut body, b"peel\n");
    pkt_line::write(&mut body, &[b"ref-prefix ", NAMESPACE, b"\n"].concat());
    pkt_line::write_flush(&mut body);
    body
}

/// Reads the answer to [`request`], to its end. Returns the tags without `refs/tags/`, in the
/// server's order, without those whose name git does not accept. Skips other refs: a server may
/// ignore the requested prefix.
///
/// # Errors
/// When the answer breaks the protocol.
pub(crate) fn read_tags(reader: impl Read, server: Server) -> Result<Tags, AnswerError> {
    let length = match server.object_format {
        None | Some(ObjectFormat::Sha1) => SHA1,
        Some(ObjectFormat::Sha256) => SHA256,
    };
    let mut packets = Packets::new(reader);
    let mut tags = Tags::default();
    loop {
        match packets.next_packet()? {
            Some(Packet::Data(line)) => {
                if let Some((name, tag)) = parse_ref(line, length)? {
                    tags.push(&name, tag);
                }
            }
            Some(Packet::Flush) => break,
            None => return Err(AnswerError::CutOff),
            _ => return Err(not_understood("the refs do not end with a flush packet")),
        }
    }
    packets.expect_end()?;
    tags.shrink();
    Ok(tags)
}

/// Reads `<object id> SP <name> [SP <attribute>]…`, where an id has `length` bytes. Returns `None` if
/// the ref is not a tag.
fn parse_ref(line: &[u8], length: usize) -> Result<Option<(Cow<'_, str>, ListedTag)>, AnswerError> {
    let no_ref = || not_understood(format!("{:?} is not a ref", pkt_line::one_line(line)));
    let id = |hex: &[u8]| {
        let id = ObjectId::from_hex(hex).filter(|id| id.as_bytes().len() == length);
        id.ok_or_else(no_ref)
    };
    let mut fields = line.split(|byte| *byte == b' ');
    let (Some(object), Some(name)) = (fields.next(), fields.next()) else { return Err(no_ref()) };
    if object == b"unborn" {
        return Ok(None);
    }
    let object = id(object)?;
    let mut peeled = fields.filter_map(|field| field.strip_prefix(b"peeled:"));
    let tag = ListedTag { object, peeled: peeled.next().map(id).transpose()? };
    // git, written in C, would read only up to a zero byte and find another name than we do.
    if peeled.next().is_some() || line.contains(&0) {
        return Err(no_ref());
    }
    let Some(name_of_tag) = name.strip_prefix(NAMESPACE) else { return Ok(None) };
    let is_valid = ref_name::is_valid(&name[b"refs/".len()..]);
    Ok(is_valid.then(|| (String::from_utf8_lossy(name_of_tag), tag)))
}

fn parse_format(format: &[u8]) -> Result<ObjectFormat, AnswerError> {
    match format {
        b"sha1" => Ok(ObjectFormat::Sha1),
        b"sha256" => Ok(ObjectFormat::Sha256),
        _ => Err(not_understood(format!("object format {:?}", pkt_line::one_line(format)))),
    }
}

fn not_understood(reason: impl Into<String>) -> AnswerError {
    AnswerError::NotUnderstood(reason.into())
}

#[cfg(test)]
mod tests;
