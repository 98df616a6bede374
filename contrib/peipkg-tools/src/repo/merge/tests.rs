//! Tests of the order of both indexes, with published archives in files as other tools sort them.

use std::fs;

use super::super::index::IndexKind;
use super::super::published::StoredIndex;
use super::*;

/// Both indexes as lists of entries.
#[derive(Debug, Default)]
struct Lists {
    archive: Vec<String>,
    active: Vec<String>,
}

impl Sink for Lists {
    fn archive(&mut self, json: &str) -> io::Result<()> {
        self.archive.push(short(json));
        Ok(())
    }

    fn active(&mut self, json: &str, _: Option<&str>) -> io::Result<()> {
        self.active.push(short(json));
        Ok(())
    }
}

/// Makes the entry of `name version architecture`.
fn json(text: &str) -> String {
    let [name, version, architecture] = text.split(' ').collect::<Vec<_>>().try_into().unwrap();
    format!(r#"{{"name":"{name}","version":"{version}","architecture":"{architecture}"}}"#)
}

/// Turns an entry back into `name version architecture`.
fn short(json: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    ["name", "version", "architecture"].map(|field| value[field].as_str().unwrap()).join(" ")
}

/// Merges, and returns whether the published archive was out of order too.
fn try_merge(published: &[&str], new: &[&str]) -> (Lists, bool, Result<(), Stop>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("archive.json");
    let entries: Vec<String> = published.iter().copied().map(json).collect();
    fs::write(&path, format!("{{\"packages\":[{}]}}", entries.join(",\n"))).unwrap();
    let index = StoredIndex::open(path, IndexKind::Archive).unwrap();
    let new: Vec<(&str, String)> = new.iter().map(|text| (*text, json(text))).collect();
    let merge = |order: Order| {
        let new = new.iter().map(|(text, json)| {
            let [name, version, architecture] =
                text.split(' ').map(Cow::from).collect::<Vec<_>>().try_into().unwrap();
            let identity = Identity { name, version, architecture };
            Entry { identity, url: Cow::default(), json, built: None }
        });
        let (mut nothing, mut lists) = (|_: &Entry<'_>| (), Lists::default());
        let mut entries = index.entries(&mut nothing).unwrap();
        let merged = merge(Some((&mut entries, index.file())), order, new.collect(), &mut lists);
        (lists, merged)
    };
    let (any, merged_any) = merge(Order::Any);
    let (sorted, merged_sorted) = merge(Order::Sorted);
    let is_unordered = matches!(merged_sorted, Err(Stop::Unordered));
    if !is_unordered {
        assert_eq!(format!("{sorted:?} {merged_sorted:?}"), format!("{any:?} {merged_any:?}"));
    }
    (any, is_unordered, merged_any)
}

/// Checks the lists, and returns whether the published archive was out of order.
#[track_caller]
fn check(published: &[&str], new: &[&str], archive: &[&str], active: &[&str]) -> bool {
    let (lists, is_unordered, merged) = try_merge(published, new);
    merged.unwrap();
    assert_eq!(lists.archive, archive);
    assert_eq!(lists.active, active);
    is_unordered
}

#[test]
fn versions_of_circular_order_are_put_in_one_order() {
    // The specification says 1~r < 1 < 1+git < 1~r. The standard sort may panic on such an
    // order of more than twenty elements.
    let forms = ["1~r", "1", "1+git", "1~s", "1+rest"];
    let texts: Vec<String> = (0..200_usize)
        .map(|n| format!("a {}.{}-1 noarch", forms[(n * 7 + n / 5) % 5], n * 31 % 200))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for start in (1..texts.len()).step_by(11) {
        let (published, new) = (&texts[start..], &texts[..start]);
        let (lists, _, merged) = try_merge(published, new);
        merged.unwrap();
        assert_eq!(lists.archive.len(), texts.len());
        assert!(lists.active[0].starts_with("a 1+rest."), "{:?}", lists.active);
    }
}

#[test]
fn entries_merged_are_in_order() {
    check(&[], &[], &[], &[]);
    check(
        &[],
        &["b 1-1 noarch", "a 1-1 noarch"],
        &["a 1-1 noarch", "b 1-1 noarch"],
        &["a 1-1 noarch", "b 1-1 noarch"],
    );
    check(
        &["b 1.9-1 noarch", "b 1.10-rc.1-1 noarch"],
        &["b 1.10-1 noarch", "a 1-1 noarch", "c 1-1 noarch", "b 1:0.1-1 noarch"],
        &[
            "a 1-1 noarch",
            "b 1:0.1-1 noarch",
            "b 1.10-1 noarch",
            "b 1.10-rc.1-1 noarch",
            "b 1.9-1 noarch",
            "c 1-1 noarch",
        ],
        &["a 1-1 noarch", "b 1:0.1-1 noarch", "c 1-1 noarch"],
    );
}

#[test]
fn names_that_begin_other_names_are_in_order() {
    let sorted = ["a 2-1 noarch", "a 1-1 noarch", "a-b 1-1 noarch", "a0 1-1 noarch", "ab 1-1 noarch"];
    let active = [sorted[0], sorted[2], sorted[3], sorted[4]];
    for mask in 0..32_u32 {
        let part = |bit: u32| {
            let chosen = sorted.iter().enumerate().filter(|(place, _)| mask >> place & 1 == bit);
            chosen.map(|(_, text)| *text).collect::<Vec<_>>()
        };
        assert!(!check(&part(0), &part(1), &sorted, &active), "{mask:b}");
    }
}

#[test]
fn architectures_and_aliases_are_merged() {
    let all = ["a 2-1 aarch64", "a 2-1 noarch", "a 2-1 x86_64", "a 1-1 x86_64"];
    check(&all[3..], &[all[2], all[0], all[1]], &all, &["a 2-1 x86_64"]);
    // Also if nothing of that name is new.
    check(
        &all,
        &["b 1-1 noarch"],
        &[&all[..], &["b 1-1 noarch"]].concat(),
        &["a 2-1 x86_64", "b 1-1 noarch"],
    );
    check(&all[..2], &[], &all[..2], &["a 2-1 noarch"]);
    let newer = ["a 2-1 aarch64", "a 1-1 x86_64"];
    check(&newer[1..], &newer[..1], &newer, &newer[..1]);
    let aliases = ["a 1.0~a-1 noarch", "a 1.0~alpha-1 noarch"];
    check(&aliases[1..], &aliases[..1], &aliases, &aliases[..1]);
}

#[test]
fn archive_in_another_order_is_put_in_order() {
    let sorted = ["a 1-1 noarch", "b 2-1 noarch", "b 1-1 noarch"];
    assert!(check(&[sorted[2], sorted[0]], &[sorted[1]], &sorted, &sorted[..2]));
    assert!(check(&["b 2-1 noarch", "a 1-1 noarch", "b 1-1 noarch"], &[], &sorted, &sorted[..2]));
}

#[test]
fn name_of_a_foreign_archive_in_another_order_is_put_in_order() {
    let sorted = ["a 1.10-1 noarch", "a 1.9-1 noarch", "a 1.2-1 noarch", "b 1-1 noarch"];
    for foreign in [[0, 2, 1], [1, 0, 2], [2, 1, 0], [1, 2, 0]] {
        let published = foreign.map(|place| sorted[place]);
        check(&published, &sorted[3..], &sorted, &[sorted[0], sorted[3]]);
        check(&published, &[], &sorted[..3], &sorted[..1]);
    }
    // Architectures of one version that are apart.
    let apart = ["a 2-1 noarch", "a 1-1 noarch", "a 2-1 x86_64"];
    check(&apart, &[], &[apart[0], apart[2], apart[1]], &[apart[2]]);
    // A version that cannot be sorted stays where its tool has put it.
    for strange in [
        ["a 1-1 noarch", "a what noarch", "a 2-1 noarch"],
        ["a 1-1 noarch", "a 2-1 noarch", "a what noarch"],
        ["a what noarch", "a 1-1 noarch", "a 2-1 noarch"],
    ] {
        check(&strange, &sorted[3..], &[&strange[..], &[sorted[3]]].concat(), &[strange[0], sorted[3]]);
        let (.., merged) = try_merge(&strange, &["a 3-1 noarch"]);
        assert!(matches!(&merged, Err(Stop::Version(name, _)) if name == "a"), "{merged:?}");
    }
}

#[test]
fn words_of_two_versions_are_in_the_specifications_order() {
    let texts = ["a 1~r-1 noarch", "a 1+git-1 noarch"];
    check(&texts[..1], &texts[1..], &texts, &texts[..1]);
    check(&texts[1..], &texts[..1], &texts, &texts[..1]);
}

#[test]
fn duplicates_are_refused() {
    let published = ["a 1-1 noarch", "b 1-1 noarch"];
    let (_, _, merged) = try_merge(&published, &["b 1-1 x86_64", "b 1-1 noarch"]);
    let Err(Stop::Duplicates(found)) = merged else { panic!("{merged:?}") };
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0.to_string(), "b 1-1 noarch");
}

#[test]
fn order_of_numbers_is_that_of_versions() {
    let parts = ["0", "1", "01", "2", "9", "10", "123456789", "1234567890", "a", ""];
    let mut texts = Vec::new();
    for one in parts {
        texts.extend([format!("{one}-1"), format!("1-{one}"), one.to_owned()]);
        texts.extend(parts.map(|two| format!("{one}.{two}-1")));
        texts.extend(parts.map(|two| format!("1-{one}-{two}")));
        texts.extend([
            format!("1.{one}.0-2"),
            format!("1.{one}~rc1-1"),
            format!("1:{one}-1"),
            format!("{one}.-1"),
        ]);
    }
    let mut plain = 0;
    for one in &texts {
        for other in &texts {
            if is_plainly_in_order(one, other) {
                plain += 1;
                assert!(!is_out_of_order(one, other), "{one} {other}");
            }
        }
    }
    assert!(plain > 1000, "{plain}");
}
