//! Undoing a publish, and journals that are damaged.

use super::form::parse_text;
use super::*;

const NAMES: [&str; 4] = ["repo.json", "repo.json.sig", "index/archive.json", "index/active.json"];

fn group() -> Vec<Member> {
    let packages = |name: &str| vec![(name.to_owned(), "1-1".to_owned(), "noarch".to_owned())];
    ["a", "b"].map(|name| Member { directory: format!("{name}@1-1.0"), packages: packages(name) }).into()
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
        assert!(journal.undo(&saved).unwrap(), "change {number}");
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
    let header = r#"{"outputs":"a@1-1.0","hidden":[],"files":[["repo.json",3]]}"#;
    let saved = parse_text(format!("{header}\nold").as_bytes()).unwrap();
    let member = Member { directory: "a@1-1.0".into(), packages: Vec::new() };
    assert_eq!((saved.group.as_slice(), saved.file("repo.json")), (&[member][..], Some(&b"old"[..])));
    let nobody = parse_text(b"{\"hidden\":[],\"files\":[]}\n");
    assert_eq!(nobody, Err("it names no packages"));
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

/// Moves the archive index from the journal to a clone of its own, as a file system that shares blocks
/// between files would have it.
fn clone_by_hand(directory: &Path) {
    let text = fs::read_to_string(directory.join("journal")).unwrap();
    let index = "old index/archive.json\n";
    let text = text[..text.len() - CHECKSUM_LENGTH].replacen(index, "", 1);
    let text = text.replacen("]]}\n", "]],\"cloned\":[\"index/archive.json\"]}\n", 1);
    let mut file = ChecksumWriter::new(fs::File::create(directory.join("journal")).unwrap());
    file.write_all(text.as_bytes()).unwrap();
    file.finish().unwrap();
    fs::write(directory.join("journal.archive.json"), index).unwrap();
}

#[test]
fn index_cloned_is_restored_too() {
    let (directory, journal) = repository();
    let index = directory.path().join("repo/index/archive.json");
    journal.begin(group()).unwrap();
    clone_by_hand(directory.path());
    fs::write(&index, "half a new ind").unwrap();
    let saved = journal.read().unwrap().unwrap();
    assert_eq!(saved.file("index/archive.json"), Some(&b"old index/archive.json\n"[..]));
    assert!(journal.undo(&saved).unwrap());
    assert_eq!(fs::read_to_string(&index).unwrap(), "old index/archive.json\n");
    assert!(!journal.exists() && !directory.path().join("journal.archive.json").exists());
}

#[test]
fn journal_without_its_clone_is_damaged() {
    let (directory, journal) = repository();
    journal.begin(group()).unwrap();
    clone_by_hand(directory.path());
    let clone = directory.path().join("journal.archive.json");
    // Only a journal that is settled leaves a clone that nobody needs.
    journal.clear_unfinished();
    for damage in ["old index/archive.jso", "old index/archive.json\n\n", ""] {
        fs::write(&clone, damage).unwrap();
        assert!(matches!(journal.read(), Err(JournalError::Damaged(_))), "{damage:?}");
    }
    fs::remove_file(&clone).unwrap();
    assert!(matches!(journal.read(), Err(JournalError::Damaged(_))));
    fs::remove_file(directory.path().join("journal")).unwrap();
    fs::write(&clone, "left").unwrap();
    journal.clear_unfinished();
    assert!(!clone.exists());
}
