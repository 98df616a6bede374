//! Undoing a publish, and journals that are damaged.

use std::io::Write as _;

use super::form::{CHECKSUM_LENGTH, parse_head};
use super::*;

const NAMES: [&str; 4] = ["repo.json", "repo.json.sig", "index/archive.json", "index/active.json"];

fn group() -> Vec<Member> {
    let packages = |name: &str| vec![(name.to_owned(), "1-1".to_owned(), "noarch".to_owned())];
    ["a", "b"].map(|name| Member { directory: format!("{name}@1-1.0"), packages: packages(name) }).into()
}

fn parse(bytes: &[u8]) -> Result<Saved, &'static str> {
    form::read(&mut &*bytes, bytes.len() as u64).unwrap()
}

/// The names and bytes of the saved files, in the order of their names.
fn saved_bytes(journal: &Journal, saved: &Saved) -> Vec<(String, String)> {
    let bytes = |file| io::read_to_string(journal.open(file).unwrap()).unwrap();
    let mut files: Vec<_> = saved.files.iter().map(|file| (file.name.clone(), bytes(file))).collect();
    files.sort();
    files
}

fn repository() -> (tempfile::TempDir, Journal) {
    let directory = tempfile::tempdir().unwrap();
    let repo = directory.path().join("repo");
    fs::create_dir_all(repo.join("index")).unwrap();
    for name in NAMES {
        fs::write(repo.join(name), format!("old {name}\n")).unwrap();
    }
    let journal = Journal::new(directory.path().join("journal"), repo);
    (directory, journal)
}

#[test]
fn publish_undone_restores_every_byte() {
    let (directory, journal) = repository();
    let repo = directory.path().join("repo");
    assert_eq!(journal.read().unwrap(), None);
    fs::write(repo.join(".others"), "").unwrap();
    journal.begin(group()).unwrap();
    let saved = journal.read().unwrap().unwrap();
    assert_eq!(saved.group, group());
    fs::write(repo.join("index/archive.json"), "half a new ind").unwrap();
    fs::write(repo.join("index/fresh.json"), "").unwrap();
    fs::create_dir_all(repo.join(".work/index")).unwrap();
    fs::remove_file(repo.join("repo.json")).unwrap();
    assert!(journal.undo(&saved).unwrap());
    for name in NAMES {
        assert_eq!(fs::read_to_string(repo.join(name)).unwrap(), format!("old {name}\n"));
    }
    assert!(!repo.join("index/fresh.json").exists() && !repo.join(".work").exists());
    assert!(repo.join(".others").exists());
    assert_eq!(journal.read().unwrap(), None);
}

#[test]
fn undo_without_changes_changes_nothing() {
    let (directory, journal) = repository();
    let repo = directory.path().join("repo");
    let begin = || {
        journal.begin(group()).unwrap();
        journal.read().unwrap().unwrap()
    };
    // Packages that no index lists stay.
    let saved = begin();
    fs::create_dir(repo.join("p")).unwrap();
    assert!(!journal.undo(&saved).unwrap());
    assert!(!journal.exists());
    let changes: [&dyn Fn(); 4] = [
        &|| fs::write(repo.join("repo.json"), "").unwrap(),
        &|| fs::write(repo.join("index/fresh.json"), "").unwrap(),
        &|| fs::create_dir(repo.join(".work")).unwrap(),
        &|| fs::remove_dir_all(repo.join("index")).unwrap(),
    ];
    for (number, change) in changes.iter().enumerate() {
        let saved = begin();
        change();
        let names = ["journal", "journal.active.json", "journal.archive.json"];
        let kept = names.map(|name| fs::read(directory.path().join(name)).unwrap());
        assert!(journal.undo(&saved).unwrap(), "change {number}");
        names.iter().zip(kept).for_each(|(name, kept)| fs::write(directory.path().join(name), kept).unwrap());
        assert!(!journal.undo(&saved).unwrap(), "change {number}");
    }
}

#[test]
fn repository_without_a_descriptor_saves_nothing() {
    let (directory, journal) = repository();
    fs::remove_file(directory.path().join("repo/repo.json")).unwrap();
    let error = journal.begin(group()).unwrap_err().to_string();
    assert!(
        error.contains("/journal: cannot save ") && error.contains("repo/repo.json: No such file"),
        "{error}"
    );
    assert!(!journal.exists());
}

#[test]
fn publish_finished_keeps_its_index() {
    let (directory, journal) = repository();
    journal.begin(group()).unwrap();
    fs::write(directory.path().join("repo/index/archive.json"), "new").unwrap();
    journal.forget().unwrap();
    assert_eq!(journal.read().unwrap(), None);
    assert_eq!(fs::read_to_string(directory.path().join("repo/index/archive.json")).unwrap(), "new");
}

#[test]
fn journal_of_an_earlier_version_is_read() {
    let header = format!("{}\n", r#"{"outputs":"a@1-1.0","hidden":[],"files":[["repo.json",3]]}"#);
    let begin = header.len() as u64;
    let saved = parse_head(header.as_bytes(), begin + 3).unwrap();
    let member = Member { directory: "a@1-1.0".into(), packages: Vec::new() };
    let file = SavedFile { name: "repo.json".into(), length: 3, offset: Some(begin) };
    assert_eq!((saved.group.as_slice(), saved.file("repo.json")), (&[member][..], Some(&file)));
    for (end, error) in [(2, "a file in it is too long"), (4, "it is too long")] {
        assert_eq!(parse_head(header.as_bytes(), begin + end), Err(error));
    }
    let long = header.replace("3]", "18446744073709551615]");
    assert_eq!(parse_head(long.as_bytes(), u64::MAX), Err("a file in it is too long"));
    let nobody = b"{\"hidden\":[],\"files\":[]}\n";
    assert_eq!(parse_head(nobody, nobody.len() as u64), Err("it names no packages"));
}

#[test]
fn journal_with_any_byte_changed_is_noticed() {
    let (directory, journal) = repository();
    journal.begin(group()).unwrap();
    let whole = fs::read(directory.path().join("journal")).unwrap();
    assert!(parse(&whole).is_ok());
    for at in 0..whole.len() {
        assert!(parse(&whole[..at]).is_err(), "cut off at {at}");
        let mut other = whole.clone();
        other[at] ^= 4;
        assert!(parse(&other).is_err(), "changed at {at}");
        other[at] = 0;
        assert!(parse(&other).is_err(), "zero at {at}");
    }
    assert!(parse(&[&whole[..], b"x"].concat()).is_err());
    fs::write(directory.path().join("journal"), "").unwrap();
    assert!(matches!(journal.read(), Err(JournalError::Damaged("it is too short"))));
}

#[test]
fn journal_unfinished_is_removed() {
    let (directory, journal) = repository();
    let unfinished = directory.path().join("journal.new");
    fs::write(&unfinished, "half").unwrap();
    journal.clear_unfinished();
    assert!(!unfinished.exists());
    journal.clear_unfinished();
}

/// Rewrites the journal and its checksum.
fn rewrite(directory: &Path, change: impl Fn(&str) -> String) {
    let text = fs::read_to_string(directory.join("journal")).unwrap();
    let text = change(&text[..text.len() - CHECKSUM_LENGTH]);
    let mut file = ChecksumWriter::new(File::create(directory.join("journal")).unwrap());
    file.write_all(text.as_bytes()).unwrap();
    file.finish().unwrap();
}

fn names_in(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn indexes_are_files_of_their_own_as_long_as_the_journal() {
    let (directory, journal) = repository();
    journal.begin(group()).unwrap();
    assert_eq!(
        names_in(directory.path()),
        ["journal", "journal.active.json", "journal.archive.json", "repo"]
    );
    // A tool may write in place.
    let index = directory.path().join("repo/index/archive.json");
    File::options().write(true).open(&index).unwrap().write_all(b"NEW").unwrap();
    let copy = fs::read_to_string(directory.path().join("journal.archive.json")).unwrap();
    assert_eq!(copy, "old index/archive.json\n");
    let text = fs::read_to_string(directory.path().join("journal")).unwrap();
    assert!(text.contains("old repo.json.sig\n") && !text.contains("old index"), "{text}");
    journal.forget().unwrap();
    assert_eq!(names_in(directory.path()), ["repo"]);
}

#[test]
fn journal_with_the_indexes_in_it_or_as_clones_is_read() {
    for is_cloned in [false, true] {
        let (directory, journal) = repository();
        journal.begin(group()).unwrap();
        let index = directory.path().join("repo/index/archive.json");
        let expected = saved_bytes(&journal, &journal.read().unwrap().unwrap());
        rewrite(directory.path(), |text| {
            let beside = r#","beside":["index/active.json","index/archive.json"]"#;
            if is_cloned {
                return text.replace("\"beside\"", "\"cloned\"");
            }
            // The first line names the files in the order of their bytes.
            text.replace(beside, "") + "old index/active.json\nold index/archive.json\n"
        });
        if !is_cloned {
            journal.clear_copies();
        }
        fs::write(&index, "half a new ind").unwrap();
        let saved = journal.read().unwrap().unwrap();
        assert_eq!(saved.beside().count(), if is_cloned { 2 } else { 0 });
        assert_eq!(saved_bytes(&journal, &saved), expected);
        assert!(journal.undo(&saved).unwrap());
        assert_eq!(fs::read_to_string(&index).unwrap(), "old index/archive.json\n");
        assert_eq!(names_in(directory.path()), ["repo"]);
    }
}

#[test]
fn earlier_version_takes_a_journal_without_indexes_for_damaged() {
    let (directory, journal) = repository();
    journal.begin(group()).unwrap();
    let text = fs::read_to_string(directory.path().join("journal")).unwrap();
    // It does not know the key.
    let text = text[..text.len() - CHECKSUM_LENGTH].replace("\"beside\"", "\"unknown\"");
    let line = text.split_inclusive('\n').next().unwrap();
    assert_eq!(parse_head(line.as_bytes(), text.len() as u64), Err("a file in it is too long"));
}

#[test]
fn journal_without_its_copy_is_damaged() {
    let (directory, journal) = repository();
    journal.begin(group()).unwrap();
    let copy = directory.path().join("journal.archive.json");
    // Only a journal that is settled leaves a copy that nobody needs.
    journal.clear_unfinished();
    for damage in ["old index/archive.jso", "old index/archive.json\n\n", ""] {
        fs::write(&copy, damage).unwrap();
        assert!(matches!(journal.read(), Err(JournalError::Damaged(_))), "{damage:?}");
    }
    fs::remove_file(&copy).unwrap();
    assert!(matches!(journal.read(), Err(JournalError::Damaged(_))));
    fs::remove_file(directory.path().join("journal")).unwrap();
    fs::write(&copy, "left").unwrap();
    journal.clear_unfinished();
    assert_eq!(names_in(directory.path()), ["repo"]);
}

#[test]
fn failed_begin_leaves_nothing_and_names_the_file() {
    // Each cannot be written.
    for name in ["journal", "journal.new", "journal.active.json", "journal.archive.json"] {
        let (directory, journal) = repository();
        let blocked = directory.path().join(name);
        fs::create_dir_all(blocked.join("x")).unwrap();
        let error = journal.begin(group()).unwrap_err().to_string();
        // The journal is written under another name first.
        let named = blocked.display().to_string().replace(".new", "");
        assert!(error.starts_with(&named) && error.contains("directory"), "{error}");
        journal.clear_unfinished();
        assert_eq!(names_in(directory.path()), ["repo"], "{name}");
        journal.begin(group()).unwrap();
    }
}
