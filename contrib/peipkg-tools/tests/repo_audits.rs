//! `peipkg-repo verify` of random repositories, against a second implementation that holds everything
//! and compares each entry with each; and how much memory an audit takes.

mod repo_support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};

use repo_support::{Farm, SEED, TIME, check, envelope};
use sha2::{Digest as _, Sha256};

/// An entry of an index, as far as the rules look at it.
#[derive(Clone, Debug)]
struct Item {
    name: &'static str,
    /// The version is this number with the revision 1.
    version: u32,
    architecture: &'static str,
    /// Each digit of the hash.
    hash: char,
    url: String,
    license: &'static str,
    form: Form,
}

/// How an entry is written.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// As the tools write it.
    Compact,
    Reversed,
    Spaced,
    Escaped,
}

impl Item {
    fn new(name: &'static str, version: u32, architecture: &'static str) -> Self {
        let url = format!("/p/{name}/{version}-1/{name}_{version}-1_{architecture}.peipkg");
        Self { name, version, architecture, hash: 'a', url, license: "MIT", form: Form::Compact }
    }

    fn file_name(&self) -> String {
        format!("{}_{}-1_{}.peipkg", self.name, self.version, self.architecture)
    }

    fn is_same_package(&self, other: &Self) -> bool {
        self.file_name() == other.file_name()
    }

    fn json(&self) -> String {
        let text = |text: &str| format!("{text:?}");
        let name = match self.form {
            Form::Escaped => format!("\"\\u00{:02x}{}\"", self.name.as_bytes()[0], &self.name[1..]),
            _ => text(self.name),
        };
        let value = self.hash.to_string().repeat(64);
        let mut fields = vec![
            ("name", name),
            ("version", format!("\"{}-1\"", self.version)),
            ("architecture", text(self.architecture)),
            ("description", text("a test")),
            ("license", text(self.license)),
            ("homepage", text("https://example.org")),
            ("dependencies", "[{\"name\":\"libc\",\"constraint\":\">= 2.0\"}]".to_owned()),
            ("optional_dependencies", "[]".to_owned()),
            ("conflicts", "[]".to_owned()),
            ("provides", "[]".to_owned()),
            ("replaces", "[]".to_owned()),
            ("side_effects", "[]".to_owned()),
            ("size_compressed", "1".to_owned()),
            ("size_installed", "1".to_owned()),
            ("hash", format!("{{\"algorithm\":\"sha256\",\"value\":\"{value}\"}}")),
            ("url", text(&self.url)),
            ("build", format!("{{\"timestamp\":\"{TIME}\",\"farm_id\":\"farm\"}}")),
        ];
        let (comma, colon) = if matches!(self.form, Form::Spaced) { (",\n  ", " : ") } else { (",", ":") };
        if matches!(self.form, Form::Reversed) {
            fields.reverse();
        }
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\"{colon}{value}")).collect();
        format!("{{{}}}", fields.join(comma))
    }

    /// Returns the rule that the entry breaks on its own.
    fn fault(&self) -> Option<String> {
        if self.name.starts_with('A') {
            return Some("has a character outside a-z, 0-9, '-', '.' and '+'".to_owned());
        }
        if self.hash == 'x' {
            return Some("has no hash of algorithm sha256 in 64 lower-case hexadecimal digits".to_owned());
        }
        let out =
            "has a part that starts with a dot; such names lead out of the repository or are work files";
        self.url.starts_with("..").then(|| format!("its url {:?} {out}", self.url))
    }
}

/// Returns the lines that an audit must print.
fn expected(active: &[Item], archive: &[Item]) -> Vec<String> {
    let faults = |kind: &str, items: &[Item]| -> Vec<String> {
        let line =
            |item: &Item| item.fault().map(|fault| format!("{kind} index: {}: {fault}", item.file_name()));
        items.iter().filter_map(line).collect()
    };
    let faults = [faults("active", active), faults("archive", archive)].concat();
    if !faults.is_empty() {
        return faults;
    }
    let mut lines = Vec::new();
    for pair in active.windows(2).filter(|pair| pair[0].name >= pair[1].name) {
        lines.push(format!("active index: {} is out of order or listed twice", pair[1].file_name()));
    }
    // The entries of one name that follow each other.
    let groups: Vec<&[Item]> = archive.chunk_by(|one, next| one.name == next.name).collect();
    let place = |item: &Item| item.url.trim_start_matches('/').to_owned();
    let mut before: Vec<String> = Vec::new();
    for (number, group) in groups.iter().enumerate() {
        for (at, item) in group.iter().enumerate() {
            let mut find = |line: String| lines.push(format!("archive index: {} {line}", item.file_name()));
            if at == 0 && number > 0 && groups[number - 1][0].name > item.name {
                find("is out of order".to_owned());
            }
            if group[..at].iter().any(|other| other.is_same_package(item)) {
                find("is listed twice".to_owned());
            }
            if before.contains(&place(item)) {
                find(format!("has the url {:?} of another entry", item.url));
            }
            if at > 0 && group[at - 1].version < item.version {
                find("is out of order".to_owned());
            }
            before.push(place(item));
        }
    }
    let mut sorted = active.to_vec();
    sorted.sort_by_key(|item| item.name);
    for own in &sorted {
        let mut find = |line: String| lines.push(format!("active index: {} {line}", own.file_name()));
        match archive.iter().rfind(|item| item.is_same_package(own)) {
            None => find("is not in the archive index".to_owned()),
            Some(item) if item.hash != own.hash => find("has another hash in the archive index".to_owned()),
            Some(item) if item.url != own.url => find("has another url in the archive index".to_owned()),
            Some(item) if item.license != own.license => {
                find("differs from its entry in the archive index".to_owned());
            }
            Some(_) => {}
        }
        let of_name = groups.iter().filter(|group| group[0].name == own.name);
        let mut newest = of_name.filter_map(|group| group.iter().map(|item| item.version).max());
        if let Some(newer) = newest.rfind(|version| *version > own.version) {
            find(format!("is older than version {newer}-1 in the archive index"));
        }
    }
    let missing = archive.iter().map(|item| item.name).collect::<BTreeSet<_>>().into_iter();
    let missing = missing.filter(|name| !active.iter().any(|item| item.name == *name));
    lines.extend(missing.map(|name| format!("active index: {name} is missing, the archive index has it")));
    lines
}

/// Marsaglia's xorshift: the same numbers in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 32).unwrap() % end
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

const NAMES: [&str; 7] = ["aa", "ab", "abc", "b-c", "b.c", "lib+", "zz"];

/// Makes two indexes without an issue.
fn good_indexes(random: &mut Random) -> [Vec<Item>; 2] {
    let (mut active, mut archive) = (Vec::new(), Vec::new());
    for name in NAMES {
        let newest = u32::try_from(random.below(4)).unwrap();
        for version in (1..=newest).rev() {
            archive.push(Item::new(name, version, "noarch"));
            if random.below(4) == 0 {
                archive.push(Item::new(name, version, "x86_64"));
            }
        }
        let of_newest = archive.iter().filter(|item| item.name == name && item.version == newest);
        let of_newest: Vec<_> = of_newest.cloned().collect();
        active.extend((!of_newest.is_empty()).then(|| of_newest[random.below(of_newest.len())].clone()));
    }
    [active, archive]
}

/// Changes an index in one way.
fn mutate(random: &mut Random, items: &mut Vec<Item>) {
    if items.is_empty() {
        return;
    }
    let (at, other) = (random.below(items.len()), random.below(items.len()));
    match random.below(15) {
        0 => drop(items.remove(at)),
        1 => items.insert(other, items[at].clone()),
        2 => items.swap(at, other),
        3 => items.reverse(),
        4 => items[at].hash = random.of(&['0', '1']),
        5 => items[at].url = format!("/p/{}", random.below(3)),
        6 => items[at].url = items[other].url.trim_start_matches('/').to_owned(),
        7 => items[at].license = random.of(&["ISC", "0BSD"]),
        8 => items[at].name = random.of(&NAMES),
        9 => items[at].version = u32::try_from(random.below(5)).unwrap() + 1,
        10 => items.iter_mut().for_each(|item| item.form = random.of(&[Form::Compact, Form::Spaced])),
        11 => items[at].form = random.of(&[Form::Reversed, Form::Spaced, Form::Escaped]),
        12 => items.rotate_left(at),
        13 => items.truncate(at),
        _ if random.below(4) > 0 => items[at].architecture = random.of(&["noarch", "arm64"]),
        _ => match random.below(3) {
            0 => items[at].name = "Aa",
            1 => items[at].hash = 'x',
            _ => "../x".clone_into(&mut items[at].url),
        },
    }
}

/// Writes and signs an index.
fn write(farm: &Farm, kind: &str, entries: impl Iterator<Item = String>) {
    let mut text =
        format!("{{\"schema_version\":1,\"repo\":\"farm\",\"kind\":\"{kind}\",\"index_version\":2,");
    write!(text, "\"generated_at\":\"{TIME}\",\"packages\":[").unwrap();
    text += &entries.collect::<Vec<_>>().join(",");
    text += "]}\n";
    let path = farm.repo().join(format!("index/{kind}.json"));
    fs::write(path.with_extension("json.sig"), envelope(SEED, &Sha256::digest(&text)).to_string()).unwrap();
    fs::write(path, text).unwrap();
}

/// A part of each line of a report.
const RULES: [&str; 12] = [
    "is out of order or listed twice",
    "archive index: aa_1-1_noarch.peipkg is out of order",
    "is listed twice",
    "of another entry",
    "is not in the archive index",
    "another hash",
    "another url",
    "differs from its entry",
    "is older than version",
    "is missing",
    "has a character outside",
    "lead out of",
];

#[test]
fn audit_of_random_repositories_finds_what_a_second_implementation_finds() {
    let (farm, mut random) = (Farm::new(), Random(0x9e37_79b9_7f4a_7c15));
    let (mut seen, mut broken) = ([0; 2], BTreeSet::new());
    for number in 0..300 {
        let [mut active, mut archive] = good_indexes(&mut random);
        if number == 0 {
            // The last name of the archive has a newer version, and another active entry follows.
            active = vec![Item::new("aa", 1, "noarch"), Item::new("zz", 1, "noarch")];
            archive = vec![Item::new("aa", 2, "noarch"), Item::new("aa", 1, "noarch")];
        }
        for _ in 0..if number == 0 { 0 } else { random.below(4) } {
            match random.below(5) {
                0 | 1 => mutate(&mut random, &mut active),
                2 | 3 => mutate(&mut random, &mut archive),
                // In the same way in both.
                _ => {
                    let state = random.0;
                    mutate(&mut random, &mut active);
                    random.0 = state;
                    mutate(&mut random, &mut archive);
                }
            }
        }
        write(&farm, "active", active.iter().map(Item::json));
        write(&farm, "archive", archive.iter().map(Item::json));
        let output = farm.run(&["verify", "--repo", "REPO", "--mode", "metadata"]);
        let expected = expected(&active, &archive);
        let stderr = String::from_utf8(output.stderr.clone()).unwrap();
        let found: Vec<_> = stderr.lines().filter_map(|line| line.strip_prefix("FAIL: ")).collect();
        assert_eq!(found, expected, "repository {number}\nactive: {active:?}\narchive: {archive:?}");
        check(&output, i32::from(!expected.is_empty()), "");
        seen[usize::from(expected.is_empty())] += 1;
        for rule in RULES {
            broken.extend(expected.iter().any(|line| line.contains(rule)).then_some(rule));
        }
    }
    assert!(seen.iter().all(|count| *count > 10), "{seen:?}");
    assert_eq!(broken.len(), RULES.len(), "{broken:?}");
}

/// Whether an audit succeeds with so much address space, in KiB. A look at its memory from time to
/// time would miss the peak.
fn succeeds_within(farm: &Farm, space: u32) -> bool {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -v \"$0\"; exec \"$@\"", &space.to_string()]);
    shell.args([env!("CARGO_BIN_EXE_peipkg-repo"), "verify", "--mode", "metadata", "--repo"]);
    shell.arg(farm.repo()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn audit_takes_no_more_memory_for_many_entries() {
    let farm = Farm::new();
    let write_both = |count: u32| {
        let json = Item { hash: '0', ..Item::new("aa", 1, "noarch") }.json();
        let entries = || (0..count).map(|number| json.replace("aa", &format!("aa{number:06}")));
        write(&farm, "active", entries());
        write(&farm, "archive", entries());
    };
    write_both(1_000);
    let (mut too_little, mut enough) = (0, 32 << 10);
    assert!(succeeds_within(&farm, enough));
    while enough - too_little > 64 {
        let middle = u32::midpoint(too_little, enough);
        if succeeds_within(&farm, middle) { enough = middle } else { too_little = middle }
    }
    write_both(20_000);
    // A hash of each URL: a table of 32,768 slots of 9 bytes while one of half the size is emptied.
    assert!(succeeds_within(&farm, enough + 768), "{enough} KiB for 1,000 entries");
}
