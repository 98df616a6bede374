//! The archive format of PSD-009 §3.1.4 and POSIX, implemented a second time without the tool's
//! code, so that the tests can compare the two. `tests/format` does so for all names.

/// One entry as a reader sees it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) flag: char,
    pub(crate) target: String,
    pub(crate) content: Vec<u8>,
}

impl Entry {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.content).unwrap()
    }
}

/// Makes the header block of an entry with short path and target, from the table of POSIX.
pub(crate) fn ustar(path: &str, flag: char, target: &str, size: usize, mtime: u64) -> Vec<u8> {
    let fields: [(usize, String); 17] = [
        (100, path.into()),
        (8, "0000777".into()),
        (8, "0000000".into()),
        (8, "0000000".into()),
        (12, format!("{size:011o}")),
        (12, format!("{mtime:011o}")),
        (8, "        ".into()),
        (1, flag.into()),
        (100, target.into()),
        (6, "ustar".into()),
        (2, "00".into()),
        (32, "root".into()),
        (32, "root".into()),
        (8, "0000000".into()),
        (8, "0000000".into()),
        (155, String::new()),
        (12, String::new()),
    ];
    let mut block = Vec::new();
    for (width, text) in fields {
        let end = block.len() + width;
        block.extend_from_slice(text.as_bytes());
        block.resize(end, 0);
    }
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(block.len(), 512);
    block
}

/// Makes a file entry: header, content and padding.
pub(crate) fn file(path: &str, content: &[u8], mtime: u64) -> Vec<u8> {
    let mut bytes = ustar(path, '0', "", content.len(), mtime);
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().div_ceil(512) * 512, 0);
    bytes
}

/// Reads an archive and checks every rule of PSD-009 §3.1.4.
#[track_caller]
pub(crate) fn read(bytes: &[u8], mtime: u64) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut at = 0;
    let (mut long_path, mut long_target) = (None, None);
    while bytes[at..at + 512].iter().any(|byte| *byte != 0) {
        let block = &bytes[at..at + 512];
        let text = |from: usize, length: usize| {
            let field = &block[from..from + length];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(length);
            assert!(field[end..].iter().all(|byte| *byte == 0), "padding of the field at {from}");
            String::from_utf8(field[..end].to_vec()).unwrap()
        };
        let number = |from, length| u64::from_str_radix(&text(from, length), 8).unwrap();
        let size = usize::try_from(number(124, 12)).unwrap();
        let content = &bytes[at + 512..at + 512 + size];
        at += 512 + size.div_ceil(512) * 512;
        assert!(bytes[at - (size.wrapping_neg() % 512)..at].iter().all(|byte| *byte == 0));
        assert_eq!(&block[257..265], b"ustar\x0000");
        let flag = char::from(block[156]);
        if flag == 'x' {
            let records = std::str::from_utf8(content).unwrap();
            assert_eq!((&long_path, &long_target), (&None, &None));
            for record in records.split_inclusive('\n') {
                let (length, rest) = record.split_once(' ').unwrap();
                assert_eq!(length.parse(), Ok(record.len()));
                match rest.trim_end_matches('\n').split_once('=').unwrap() {
                    ("path", value) => long_path = Some(value.to_owned()),
                    ("linkpath", value) if long_path.is_none() => long_target = Some(value.to_owned()),
                    (other, _) => panic!("record {other}"),
                }
            }
            continue;
        }
        assert_eq!((number(100, 8), number(108, 8), number(116, 8)), (0o777, 0, 0));
        assert_eq!(number(136, 12), mtime);
        assert_eq!((text(265, 32), text(297, 32)), ("root".into(), "root".into()));
        assert_eq!((number(329, 8), number(337, 8), text(500, 12)), (0, 0, String::new()));
        let name = match text(345, 155) {
            prefix if prefix.is_empty() => text(0, 100),
            prefix => format!("{prefix}/{}", text(0, 100)),
        };
        let full = |long: Option<String>, short: String| match long {
            Some(long) => {
                assert!(long.len() > 100 && long.starts_with(&short), "{long}");
                long
            }
            None => short,
        };
        entries.push(Entry {
            path: full(long_path.take(), name),
            flag,
            target: full(long_target.take(), text(157, 100)),
            content: content.to_vec(),
        });
    }
    assert_eq!(bytes.len(), at + 1024);
    assert!(bytes[at..].iter().all(|byte| *byte == 0));
    let payload: Vec<&str> = entries
        .iter()
        .map(|entry| entry.path.as_str())
        .filter(|path| !path.starts_with(".peipkg/"))
        .collect();
    assert!(payload.is_sorted_by(|a, b| a.as_bytes() < b.as_bytes()), "{payload:?}");
    entries
}

/// Lists the entries of an archive: type, path and target.
pub(crate) fn list(entries: &[Entry]) -> Vec<String> {
    entries
        .iter()
        .map(|entry| match entry.target.as_str() {
            "" => format!("{} {}", entry.flag, entry.path),
            target => format!("{} {} -> {target}", entry.flag, entry.path),
        })
        .collect()
}
