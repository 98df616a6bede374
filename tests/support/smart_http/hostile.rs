//! The bytes of hostile answers: bombs and endless packs.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::thread;

/// The size of the object in [`pack_object`]: with its framing it fits into one packet.
const OBJECT: usize = 60_000;

/// `mib` MiB of zeros, compressed with gzip.
pub(super) fn gzip_of_zeros(mib: usize) -> Vec<u8> {
    let mut gzip = Command::new("gzip");
    let mut child = gzip.arg("-9").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("gzip starts");
    let (mut stdin, mut stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    let feeder = thread::spawn(move || {
        let zeros = vec![0; 1 << 20];
        for _ in 0..mib {
            stdin.write_all(&zeros).expect("gzip reads");
        }
    });
    let mut packed = Vec::new();
    stdout.read_to_end(&mut packed).expect("gzip writes");
    feeder.join().expect("the zeros are written");
    assert!(child.wait().expect("gzip ends").success(), "gzip");
    packed
}

/// The beginning of the answer to a fetch, up to the head of a pack of `objects` objects.
pub(super) fn pack_start(objects: u32) -> Vec<u8> {
    let mut head = b"PACK\0\0\0\x02".to_vec();
    head.extend(objects.to_be_bytes());
    let mut answer = packet(b"packfile\n");
    answer.extend(on_band_one(&head));
    answer
}

/// An object of a pack: a blob that is not compressed.
pub(super) fn pack_object() -> Vec<u8> {
    let content = vec![b'x'; OBJECT];
    // The type (3 for a blob) and the lowest four bits of the size, then seven bits in each byte.
    let mut object = vec![0x80 | 3 << 4 | low_byte(OBJECT & 15)];
    let mut rest = OBJECT >> 4;
    while rest > 127 {
        object.push(0x80 | low_byte(rest & 127));
        rest >>= 7;
    }
    object.push(low_byte(rest));
    // zlib (RFC 1950) with one stored block (RFC 1951 §3.2.4).
    let length = u16::try_from(OBJECT).expect("a stored block has at most 65,535 bytes");
    object.extend([0x78, 0x01, 0x01]);
    object.extend(length.to_le_bytes());
    object.extend((!length).to_le_bytes());
    object.extend(&content);
    let (a, b) = content.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    object.extend((b << 16 | a).to_be_bytes());
    on_band_one(&object)
}

fn low_byte(number: usize) -> u8 {
    u8::try_from(number).expect("a few bits")
}

/// A packet of the side band that carries the pack.
fn on_band_one(data: &[u8]) -> Vec<u8> {
    packet(&[b"\x01", data].concat())
}

fn packet(data: &[u8]) -> Vec<u8> {
    let mut packet = format!("{:04x}", data.len() + 4).into_bytes();
    packet.extend(data);
    packet
}
