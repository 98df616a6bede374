//! Tests of the reader: it takes and refuses the same documents as `serde_json`, whatever their white
//! space, their order of fields, and the places where a read ends.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use serde::Deserialize;
use serde_json::Value;

use super::*;

/// An entry in compact form.
const COMPACT: &str = r#"{"name":"a","version":"1.0-1","architecture":"x86_64","description":"A tool — for “everybody”","license":"MIT","homepage":"https://example.org","dependencies":[{"name":"libc","constraint":">= 2.0"}],"optional_dependencies":[],"conflicts":["x",[1]],"provides":[{"name":"a.so.1","version":"1"},{"name":"b"}],"replaces":[],"side_effects":[],"size_compressed":1064,"size_installed":0,"hash":{"algorithm":"sha256","value":"79f0987a"},"url":"/p/a","build":{"timestamp":"2024-03-15T10:30:00Z","farm_id":"sample of a farm"}}"#;

/// All fields of [`Compact`] except its time.
#[derive(Debug, PartialEq, Deserialize)]
struct View<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    version: Cow<'a, str>,
    architecture: Cow<'a, str>,
    size_compressed: u64,
    size_installed: u64,
    hash: BTreeMap<String, String>,
    url: Cow<'a, str>,
    build: BTreeMap<String, Value>,
}

impl<'a> FromCompact<'a> for View<'a> {
    fn from_compact(entry: Compact<'a>) -> Self {
        let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        View {
            name: entry.name.into(),
            version: entry.version.into(),
            architecture: entry.architecture.into(),
            size_compressed: entry.size_compressed,
            size_installed: entry.size_installed,
            hash: [text("algorithm", "sha256"), text("value", entry.hash)].into(),
            url: entry.url.into(),
            build: [("timestamp".to_owned(), entry.built.into())].into(),
        }
    }
}

/// An index as `serde_json` reads it.
#[derive(Debug, Deserialize)]
struct Index {
    #[serde(rename = "packages")]
    _packages: Vec<IgnoredAny>,
}

/// Returns at most some bytes at each read.
struct Drip<'a>(&'a [u8], usize);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(self.1);
        self.0.read(&mut buffer[..length])
    }
}

fn read(document: impl Read) -> Result<(Vec<String>, Option<u64>), String> {
    let mut reader = IndexReader::new(document);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry().map_err(|error| error.to_string())? {
        entries.push(entry.json.to_owned());
    }
    let version = reader.field("index_version").map_err(|error| error.to_string())?;
    Ok((entries, version))
}

#[track_caller]
fn check_refused(document: &str, expected: &str) {
    let error = read(document.as_bytes()).unwrap_err();
    assert_eq!(error, expected, "{document}");
}

#[test]
fn entries_are_found_in_any_form_of_the_document() {
    let entry = COMPACT.to_owned();
    for document in [
        format!(r#"{{"index_version":7,"packages":[{entry},{entry}]}}"#),
        format!(
            "\n {{ \"packages\"\t: [\n{entry}\r\n,\n{entry} ] , \"more\" : [{{}}],\"index_version\":7 }}\n\n"
        ),
        format!(r#"{{"packages":[{entry},{entry}],"\u0069ndex_version":7}}"#),
    ] {
        for length in [1, 2, 7, 1 << 20] {
            let (entries, version) = read(Drip(document.as_bytes(), length)).unwrap();
            assert_eq!((entries, version), (vec![entry.clone(), entry.clone()], Some(7)), "{document}");
        }
    }
    assert_eq!(read(&br#"{"packages":[]}"#[..]), Ok((Vec::new(), None)));
    assert_eq!(
        read(&br#"{"packages":[ 1 ,"]",[[]],{"a":{}},null,-1.5e3]}"#[..]).unwrap().0,
        ["1", r#""]""#, "[[]]", r#"{"a":{}}"#, "null", "-1.5e3"]
    );
}

#[test]
fn places_of_entries_are_those_in_the_document() {
    // Around the ends of blocks, short entries and some that are longer than several blocks.
    let mut document = br#"{"packages":["#.to_vec();
    let mut expected = Vec::new();
    for number in 0..2000_usize {
        if number > 0 {
            document.extend(b", ");
        }
        let length = if number % 700 == 699 { 3 * BLOCK } else { number % 400 };
        let entry = match number % 3 {
            0 => COMPACT.replace("A tool", &"x".repeat(length)),
            1 => format!("{{\"name\": \"{}\"}}", "é".repeat(length)),
            _ => format!("{number}"),
        };
        expected.push((document.len() as u64, entry.len()));
        document.extend(entry.bytes());
    }
    document.extend(b"]}");
    let mut reader = IndexReader::new(Drip(&document, 10_007));
    for (number, (at, length)) in (1..).zip(expected) {
        let entry = reader.next_entry().unwrap().unwrap();
        assert_eq!((entry.number, entry.at, entry.json.len()), (number, at, length));
        let start = usize::try_from(at).unwrap();
        assert_eq!(entry.json.as_bytes(), &document[start..start + length]);
    }
    assert!(reader.next_entry().unwrap().is_none());
    assert_eq!(reader.count(), 2000);
}

#[test]
fn document_broken_anywhere_is_refused_at_its_place() {
    let whole = format!("{{\"repo\":\"r\",\n\"packages\":[{COMPACT}\n,{{\"name\": \"b\"}}]\n,\"x\":[1]}}\n");
    assert!(read(whole.as_bytes()).is_ok());
    let end = whole.trim_end().len();
    for length in 0..end {
        let error = read(&whole.as_bytes()[..length]).unwrap_err();
        let place = String::from_utf8_lossy(&whole.as_bytes()[..length]).matches('\n').count() + 1;
        assert!(error.contains("EOF while parsing"), "{length}: {error}");
        assert!(error.contains(&format!(" at line {place} column ")), "{length}: {error}");
    }
    let json = |document: &str| serde_json::from_str::<Index>(document).unwrap_err().to_string();
    for document in [
        "{\"packages\":[]}\nx",
        "{\"packages\":[1 2]}",
        "{\"packages\":[1,]}",
        "{\"packages\":[],}",
        "{\"packages\" []}",
        "{\"packages\":[\n{\"a\" 1}]}",
        "{\"packages\":[],\"x\":[1,\n2,,]}",
        "{\"packages\":[\"\n\"]}",
        "{\"packages\":[{\"a\":01}]}",
        "{packages:[]}",
    ] {
        check_refused(document, &json(document));
    }
    check_refused("[]", "expected an index, which is an object at line 1 column 1");
    check_refused("{}", "missing field `packages`");
    check_refused(r#"{"packages":{}}"#, "expected an array of packages at line 1 column 13");
    for twice in [r#""packages":[]"#, r#""repo":1"#, r#""other":1"#] {
        let error = read(format!(r#"{{{twice},"packages":[], {twice}}}"#).as_bytes()).unwrap_err();
        assert!(error.starts_with("duplicate field "), "{error}");
    }
    for bytes in [&b"{\"packages\":[{\"a\":\"\xff\"}]}"[..], b"{\"x\":\"\xe9\",\"packages\":[]}"] {
        assert!(read(bytes).unwrap_err().starts_with("invalid unicode code point at line 1 column "));
    }
    let error = read(&b"{\n\"packages\":[ {\n\n \"a\":\"\xff\"}]}"[..]).unwrap_err();
    assert_eq!(error, "invalid unicode code point at line 4 column 7");
    let spoilt = COMPACT.as_bytes().iter().map(|byte| if *byte == b'M' { 0xff } else { *byte });
    let spoilt = [&b"{\"packages\":["[..], &spoilt.collect::<Vec<_>>(), b"]}"].concat();
    assert!(read(&*spoilt).unwrap_err().starts_with("invalid unicode code point at line 1 column "));
}

#[test]
fn fields_of_the_index_are_read_by_type() {
    let document = &br#"{"packages":[],"repo":"\u0072","kind":7,"index_version":null}"#[..];
    let mut reader = IndexReader::new(document);
    assert!(reader.next_entry().unwrap().is_none());
    assert_eq!(reader.field::<String>("repo").unwrap().as_deref(), Some("r"));
    assert_eq!(reader.field::<Option<u64>>("index_version").unwrap(), Some(None));
    assert_eq!(reader.field::<String>("generated_at").unwrap(), None);
    let error = reader.field::<String>("kind").unwrap_err().to_string();
    assert_eq!(error, "field kind: invalid type: integer `7`, expected a string");
    assert!(!reader.has_all_fields());
}

#[test]
fn entry_without_end_is_not_held_in_memory() {
    for (head, endless) in
        [(r#"{"packages":[{"name":""#, b'x'), (r#"{"x":"#, b'['), (r#"{"packages":[1,"#, b' ')]
    {
        let error = read(head.as_bytes().chain(io::repeat(endless))).unwrap_err();
        assert_eq!(error, "no entry ends within 16777216 bytes");
    }
}

#[test]
fn entry_with_a_wrong_field_is_named() {
    let document = &br#"{"packages":[{"name":"a\nb","version":1},[]]}"#[..];
    let mut reader = IndexReader::new(document);
    let mut error = || {
        let entry = reader.next_entry().unwrap().unwrap();
        entry.read::<View<'_>>().unwrap_err().to_string()
    };
    assert!(error().starts_with(r#"entry 1 ("a\nb"): invalid type: integer `1`"#));
    assert!(error().starts_with("entry 2: invalid length 0"));
}

/// Spoils one byte, or takes it out, or doubles it: the two ways to read an entry must agree.
#[test]
fn compact_form_is_read_as_the_parser_reads_it() {
    let mut compact = 0;
    let mut check = |entry: &[u8]| {
        // The reader needs some bytes behind the entry.
        let document = [&b"{\"packages\":["[..], entry, b"]}                "].concat();
        let mut reader = IndexReader::new(&*document);
        let Ok(Some(found)) = reader.next_entry() else {
            let is_list = serde_json::from_slice::<Vec<Value>>(&[b"[", entry, b"]"].concat()).is_ok();
            assert!(!is_list, "{}", entry.escape_ascii());
            return;
        };
        let start = usize::try_from(found.at).unwrap();
        let shape = Shape::of(&document[start..]);
        assert_eq!(shape.is_some(), found.compact.is_some());
        if let Some(shape) = shape {
            compact += 1;
            assert_eq!(shape.length, found.json.len(), "{}", entry.escape_ascii());
            let mut expected: View<'_> = serde_json::from_str(found.json).unwrap();
            expected.build.remove("farm_id");
            assert_eq!(found.read::<View<'_>>().unwrap(), expected);
        }
    };
    check(COMPACT.as_bytes());
    let long = COMPACT.replace("1064", "12345678901234567890");
    check(long.as_bytes());
    for at in 0..COMPACT.len() {
        let (before, after) = (&COMPACT.as_bytes()[..at], &COMPACT.as_bytes()[at + 1..]);
        check(&[before, after].concat());
        for token in [&b"\\"[..], b"\"", b"\x1f", b"0", b"\x7f", b"\xff", b"[", b"-"] {
            check(&[before, token, after].concat());
            check(&[before, token, &COMPACT.as_bytes()[at..]].concat());
        }
    }
    assert!(compact > 1000, "only {compact} were compact");
}
