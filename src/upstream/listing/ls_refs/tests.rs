//! Advertisements and listings: valid, invalid, and with one byte changed.

use std::cell::Cell;
use std::io::{self, Read};

use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef01234567";

const PLAIN: Server = Server { object_format: None };

/// Encodes lines as packets; `-` is a flush packet, `|` a delimiter.
fn packets(lines: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        match *line {
            "-" => pkt_line::write_flush(&mut bytes),
            "|" => pkt_line::write_delimiter(&mut bytes),
            line => pkt_line::write(&mut bytes, line.as_bytes()),
        }
    }
    bytes
}

#[track_caller]
fn check_advertisement(lines: &[&str], expected: Result<Option<ObjectFormat>, &str>) {
    let found = read_advertisement(packets(lines).as_slice());
    let found = found.map(|server| server.object_format).map_err(|error| error.to_string());
    assert_eq!(found, expected.map_err(str::to_owned));
}

#[test]
fn advertisement_of_version_2_is_read_and_others_are_refused() {
    const OLD: Result<Option<ObjectFormat>, &str> = Err("the server does not speak protocol version 2");
    let service = "# service=git-upload-pack\n";
    let (sha1, sha256) = (Some(ObjectFormat::Sha1), Some(ObjectFormat::Sha256));
    check_advertisement(
        &["version 2\n", "agent=git/2\n", "ls-refs=unborn\n", "object-format=sha1\n", "-"],
        Ok(sha1),
    );
    check_advertisement(&["version 2", "object-format=sha256", "ls-refs", "-"], Ok(sha256));
    check_advertisement(&[service, "-", "version 2\n", "ls-refs\n", "fetch=shallow\n", "-"], Ok(None));
    check_advertisement(&["version 1\n", "-"], OLD);
    check_advertisement(&[service, "-", &format!("{ID} HEAD\0multi_ack\n"), "-"], OLD);
    let bad = |lines: &[&str], reason: &str| {
        check_advertisement(lines, Err(&format!("the answer is not understood: {reason}")));
    };
    bad(&["-"], "it does not start with a protocol version");
    bad(&["version 3", "-"], "it does not start with a protocol version");
    bad(&[service, "version 2", "ls-refs", "-"], "no flush packet after the service's name");
    bad(&["version 2", "ls-refs", "|"], "the capabilities do not end with a flush packet");
    for cut_off in [&[] as &[&str], &[service], &[service, "-"], &["version 2"], &["version 2", "ls-refs"]] {
        check_advertisement(cut_off, Err("the answer ends before it is complete"));
    }
    bad(&["version 2", "ls-refs", "-", "-"], "more data follows its last packet");
    bad(&["version 2", "ls-refs2", "fetch", "-"], "the server cannot list refs");
    bad(&["version 2", "ls-refs", "object-format=md5", "-"], "object format \"md5\"");
    check_advertisement(&["ERR no such\nrepository\n"], Err("the server says: no such repository"));
}

#[test]
fn request_repeats_the_object_format_of_the_server() {
    let text = |format| String::from_utf8(request(Server { object_format: format })).unwrap();
    assert_eq!(text(None), "0014command=ls-refs\n00010009peel\n001aref-prefix refs/tags/\n0000");
    let sha256 =
        "0014command=ls-refs\n0019object-format=sha256\n00010009peel\n001aref-prefix refs/tags/\n0000";
    assert_eq!(text(Some(ObjectFormat::Sha256)), sha256);
}

#[track_caller]
fn check_tags(lines: &[&str], expected: Result<&[&str], &str>) {
    let found = read_tags(packets(lines).as_slice(), PLAIN).map_err(|error| error.to_string());
    let found = found.map(|tags| tags.iter().map(str::to_owned).collect::<Vec<_>>());
    let expected = expected.map(|tags| tags.iter().map(|tag| (*tag).to_owned()).collect());
    assert_eq!(found, expected.map_err(str::to_owned));
}

#[test]
fn listing_is_tags_in_the_order_of_the_server() {
    let line = |rest: &str| format!("{ID} {rest}\n");
    check_tags(&["-"], Ok(&[]));
    check_tags(&[&line("refs/tags/v2"), &line("refs/tags/a/b"), "-"], Ok(&["v2", "a/b"]));
    check_tags(&[&line("HEAD symref-target:refs/heads/main"), &line("refs/heads/v1"), "-"], Ok(&[]));
    check_tags(&["unborn HEAD symref-target:refs/heads/main\n", "-"], Ok(&[]));
    check_tags(&[&line(&format!("refs/tags/v1 peeled:{ID}")), "-"], Ok(&["v1"]));
    check_tags(&[&line("refs/tags/a..b"), &line("refs/tags/v1^{}"), &line("refs/tags/"), "-"], Ok(&[]));
    let bad = |line: &str| {
        let shown = line.trim_end().replace('\0', "\\0");
        check_tags(&[line, "-"], Err(&format!("the answer is not understood: \"{shown}\" is not a ref")));
    };
    bad("");
    bad(ID);
    bad(&format!("{} refs/tags/v1\n", &ID[1..]));
    bad(&format!("{ID}0 refs/tags/v1\n"));
    bad(&format!("x{} refs/tags/v1\n", &ID[1..]));
    bad(&line("refs/tags/v1 peeled:1"));
    bad(&line(&format!("refs/tags/v1 peeled:{ID}{}", &ID[..24])));
    bad(&line(&format!("refs/tags/v1 peeled:{ID} peeled:{ID}")));
    bad(&line("refs/tags/v1\0x"));
    let unended = Err("the answer is not understood: the refs do not end with a flush packet");
    check_tags(&[&line("refs/tags/v1")], Err("the answer ends before it is complete"));
    check_tags(&[], Err("the answer ends before it is complete"));
    check_tags(&[&line("refs/tags/v1"), "|"], unended);
    check_tags(&["-", "-"], Err("the answer is not understood: more data follows its last packet"));
    check_tags(&["ERR upload-pack: not our ref"], Err("the server says: upload-pack: not our ref"));
}

#[test]
fn listing_has_the_ids_of_each_tag() {
    let other = ID.replace('0', "F");
    for (format, padding) in [(None, 0), (Some(ObjectFormat::Sha1), 0), (Some(ObjectFormat::Sha256), 24)] {
        let server = Server { object_format: format };
        let (id, other) = (format!("{ID}{}", &ID[..padding]), format!("{other}{}", &ID[..padding]));
        let lines = [
            format!("{id} refs/tags/light\n"),
            format!("{id} refs/tags/annotated peeled:{other}\n"),
            format!("{id} refs/tags/odd symref-target:refs/tags/x peeled:{other}\n"),
        ];
        let lines: Vec<&str> = lines.iter().map(String::as_str).chain(["-"]).collect();
        let tags = read_tags(packets(&lines).as_slice(), server).unwrap();
        let object: ObjectId = id.parse().unwrap();
        let light = ListedTag { object, peeled: None };
        let annotated = ListedTag { object, peeled: other.parse().ok() };
        let expected = [("light", light), ("annotated", annotated), ("odd", annotated)];
        assert_eq!(tags.listed().collect::<Vec<_>>(), expected);
        let wrong = if padding == 0 { Some(ObjectFormat::Sha256) } else { None };
        assert!(read_tags(packets(&lines).as_slice(), Server { object_format: wrong }).is_err());
    }
}

#[test]
fn read_error_is_not_a_malformed_answer() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let bytes = packets(&["version 2"]);
    assert!(matches!(read_advertisement(bytes.chain(Broken)), Err(AnswerError::Read(_))));
}

/// Returns one byte per read, and counts the reads.
struct Counted<'a> {
    bytes: &'a [u8],
    reads: &'a Cell<usize>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads.set(self.reads.get() + 1);
        let length = self.bytes.len().min(buffer.len()).min(1);
        buffer[..length].copy_from_slice(&self.bytes[..length]);
        self.bytes = &self.bytes[length..];
        Ok(length)
    }
}

/// Changes, removes and doubles each byte in turn, and truncates the answer before it. Reading must
/// not panic, loop or read a byte twice.
fn mutate(answer: &[u8], read: impl Fn(Counted<'_>)) {
    let reads = Cell::new(0);
    let run = |bytes: &[u8]| {
        reads.set(0);
        read(Counted { bytes, reads: &reads });
        assert!(
            reads.get() <= bytes.len() + 2,
            "{} reads of {:?}",
            reads.get(),
            bytes.escape_ascii().to_string()
        );
    };
    for place in 0..answer.len() {
        run(&answer[..place]);
        for value in 0..=u8::MAX {
            let mut changed = answer.to_vec();
            changed[place] = value;
            run(&changed);
        }
        let (before, after) = answer.split_at(place);
        run(&[before, &after[1..]].concat());
        run(&[before, &after[..1], after].concat());
    }
}

#[test]
fn answer_with_any_byte_changed_is_read_or_refused() {
    let advertisement = packets(&[
        "# service=git-upload-pack\n",
        "-",
        "version 2\n",
        "ls-refs=unborn\n",
        "object-format=sha1\n",
        "-",
    ]);
    mutate(&advertisement, |reader| drop(read_advertisement(reader)));
    let listing = packets(&[
        &format!("{ID} refs/tags/v1\n"),
        &format!("{ID} refs/tags/a/b peeled:{ID}\n"),
        "ERR no\n",
        "-",
    ]);
    mutate(&listing, |reader| drop(read_tags(reader, PLAIN)));
}
