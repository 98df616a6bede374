//! The deployed writer's tar headers, implemented a second time: from a description of that writer,
//! in bytes, and without code of the tools.

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Path in the archive. A directory's ends in a slash.
    pub(crate) path: Vec<u8>,
    pub(crate) flag: u8,
    pub(crate) target: Vec<u8>,
    pub(crate) content: Vec<u8>,
}

/// Where a block's fields begin and how long they are.
const NAME: (usize, usize) = (0, 100);
const TARGET: (usize, usize) = (157, 100);
const PREFIX: (usize, usize) = (345, 155);

impl Entry {
    pub(crate) fn file(path: &str, content: &[u8]) -> Self {
        Self { path: path.into(), flag: b'0', target: Vec::new(), content: content.to_vec() }
    }

    /// Returns every block of the entry: extended header, header, content.
    pub(crate) fn blocks(&self, mtime: u64) -> Vec<u8> {
        let at = split(&self.path);
        let mut all = Vec::new();
        let mut block = vec![0; 512];
        if long(&self.target) || (long(&self.path) && at.is_none()) {
            let mut records = Vec::new();
            for (key, value) in [("linkpath", &self.target), ("path", &self.path)] {
                if long(value) {
                    records.extend(record(key, value));
                }
            }
            let mut extended = vec![0; 512];
            put(&mut extended, NAME, &extended_name(&self.path));
            octal(&mut extended, &[(100, 8, 0), (108, 8, 0), (116, 8, 0)]);
            octal(&mut extended, &[(124, 12, records.len() as u64), (136, 12, 0)]);
            extended[156] = b'x';
            seal(&mut extended);
            all.extend(extended);
            all.extend(fill(records));
            put_cut(&mut block, NAME, &self.path);
            put_cut(&mut block, TARGET, &self.target);
        } else {
            let name = at.map_or(0, |at| at + 1);
            put(&mut block, NAME, &self.path[name..]);
            put(&mut block, PREFIX, &self.path[..at.unwrap_or(0)]);
            put(&mut block, TARGET, &self.target);
        }
        octal(&mut block, &[(100, 8, 0o777), (108, 8, 0), (116, 8, 0)]);
        octal(
            &mut block,
            &[(124, 12, self.content.len() as u64), (136, 12, mtime), (329, 8, 0), (337, 8, 0)],
        );
        block[156] = self.flag;
        put(&mut block, (265, 32), b"root");
        put(&mut block, (297, 32), b"root");
        seal(&mut block);
        all.extend(block);
        all.extend(fill(self.content.clone()));
        all
    }
}

/// Whether a path or target needs more than its field.
fn long(text: &[u8]) -> bool {
    text.len() > 100 || text.iter().any(|byte| *byte >= 0x80)
}

/// Where a path is split: the last slash at 1 to 155 that leaves a name of 1 to 100 bytes.
fn split(path: &[u8]) -> Option<usize> {
    if path.len() <= 100 || !path.is_ascii() {
        return None;
    }
    let end = match path.len() {
        157.. => 156,
        length if path[length - 1] == b'/' => length - 1,
        length => length,
    };
    let fits = |at: &usize| path[*at] == b'/' && (1..=100).contains(&(path.len() - at - 1));
    (1..end).rev().find(fits).filter(|at| *at <= 155 && !path[at + 1..end].contains(&b'/'))
}

/// The name of an extended header: `PaxHeaders.0` comes before the last component.
fn extended_name(path: &[u8]) -> Vec<u8> {
    let mut components: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    components.insert(components.len() - 1, b"PaxHeaders.0");
    let mut name = components.join(&b'/');
    name.retain(u8::is_ascii);
    name.truncate(100);
    while name.last() == Some(&b'/') {
        name.pop();
    }
    name
}

/// A record, whose length counts itself.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let made = |length: usize| [format!("{length} {key}=").as_bytes(), value, b"\n"].concat();
    let mut lengths = value.len()..=value.len() + 20;
    made(lengths.find(|length| made(*length).len() == *length).expect("a length that counts itself"))
}

fn put(block: &mut [u8], (at, length): (usize, usize), text: &[u8]) {
    assert!(text.len() <= length);
    block[at..at + text.len()].copy_from_slice(text);
}

/// Writes the ASCII of `text` as far as it fits. If the last byte of a text that does not fit is a
/// slash, the first slash of those at the end becomes a zero byte.
fn put_cut(block: &mut [u8], field: (usize, usize), text: &[u8]) {
    let ascii: Vec<u8> = text.iter().copied().filter(u8::is_ascii).collect();
    let mut kept = ascii[..ascii.len().min(100)].to_vec();
    if ascii.len() > 100 && kept[99] == b'/' {
        let end = kept.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        kept[end] = 0;
    }
    put(block, field, &kept);
}

/// Writes numbers as octal digits and a zero byte.
fn octal(block: &mut [u8], numbers: &[(usize, usize, u64)]) {
    for (at, length, number) in numbers {
        put(block, (*at, *length), format!("{number:0>width$o}\0", width = length - 1).as_bytes());
    }
}

/// Writes magic, version and checksum.
fn seal(block: &mut [u8]) {
    put(block, (257, 8), b"ustar\x0000");
    put(block, (148, 8), b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    put(block, (148, 8), format!("{sum:0>6o}\0 ").as_bytes());
}

/// Fills the last block with zeros.
fn fill(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().div_ceil(512) * 512, 0);
    bytes
}
