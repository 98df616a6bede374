//! Tags that move: while their version waits, while it fails, and after it was published.

use super::*;
use crate::farm::commits::PublishedCommits;
use crate::farm::events::{BuiltFrom, ListedTag};
use crate::farm::status::Calendar;
use peipkg_format::object_id::ObjectId;

fn id(digit: u8) -> ObjectId {
    ObjectId::from_bytes(&[digit; 20]).unwrap()
}

/// Lists tags of upstream `u`: `(name, tag object, commit)`, with 0 for a light tag's object.
fn list(bench: &mut Bench, tags: &[(&str, u8, u8)]) {
    let mut listed = Tags::default();
    for (name, object, commit) in tags {
        let tag = match object {
            0 => ListedTag { object: id(*commit), peeled: None },
            object => ListedTag { object: id(*object), peeled: Some(id(*commit)) },
        };
        listed.push(name, tag);
    }
    bench.event(Event::PollFinished { upstream: "u".into(), tags: Ok(listed) });
}

/// Ends the oldest build, of `commit`, and its publish well.
fn done(bench: &mut Bench, commit: u8) {
    let job = &bench.farm.flights.first().expect("a build in progress").job;
    let built_from = Some(BuiltFrom { tag: job.candidate.tag.clone(), commit: id(commit) });
    let outputs = PendingOutputs { built_from, ..outputs("a", job.candidate.version.as_str(), &["pa"]) };
    bench.finish(BuildOutcome::Built { outputs, log: None });
    bench.published();
}

/// Returns the notices about moved tags, and the commits to remember, since the last look.
fn moves(bench: &mut Bench) -> Vec<String> {
    let short = |id: &ObjectId| id.to_string()[1..2].to_owned();
    let describe = |effect| match effect {
        Effect::Report(Notice::TagMoved { key, tag, published, listed }) => {
            Some(format!("{key} {tag} {}>{}", short(&published), short(&listed)))
        }
        Effect::Report(Notice::TagMovedBack { key, tag }) => Some(format!("{key} {tag} back")),
        Effect::Report(Notice::MoreTagsMoved { recipe, count }) => Some(format!("{recipe} {count} more")),
        Effect::RememberCommits(recipe, commits) => {
            let commits: Vec<String> = commits.iter().map(|(v, id)| format!("{v}={}", short(id))).collect();
            Some(format!("{recipe} {}", commits.join(" ")))
        }
        Effect::StartBuild(job) => Some(format!("build {}", job.key())),
        _ => None,
    };
    bench.effects.drain(..).filter_map(describe).collect()
}

fn warnings(bench: &Bench) -> Vec<String> {
    let status = bench.farm.status(&"f".into(), Calendar { started: std::time::SystemTime::UNIX_EPOCH });
    status.warnings.iter().map(|warning| format!("{} {}", warning.event, warning.subject)).collect()
}

#[test]
fn published_tag_moved_warns_once_and_until_it_points_back() {
    for more in ["", "paused = true"] {
        let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
        list(&mut bench, &[("v1", 0, 1)]);
        done(&mut bench, 1);
        bench.event(loaded(vec![recipe("a", "u", &["pa"], more)]));
        bench.effects.clear();
        // A tag that becomes annotated, or is signed again, leads to the same commit.
        for tag in [("v1", 0, 1), ("v1", 8, 1), ("v1", 9, 1)] {
            list(&mut bench, &[tag]);
            assert_eq!(moves(&mut bench), [""; 0]);
        }
        list(&mut bench, &[("v1", 9, 2)]);
        assert_eq!(moves(&mut bench), ["a@1-1 v1 1>2"], "nothing is built");
        list(&mut bench, &[("v1", 9, 2)]);
        bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1")]))));
        list(&mut bench, &[("v1", 9, 2)]);
        assert_eq!(moves(&mut bench), [""; 0], "it was told");
        bench.event(Event::PollFinished { upstream: "u".into(), tags: Err(no_route()) });
        assert_eq!(warnings(&bench), ["published tag moved 1-1"]);
        list(&mut bench, &[("v1", 0, 3)]);
        assert_eq!(moves(&mut bench), ["a@1-1 v1 1>3"], "it moves again");
        list(&mut bench, &[("v1", 0, 1)]);
        assert_eq!(moves(&mut bench), ["a@1-1 v1 back"]);
        assert_eq!(warnings(&bench), [""; 0]);
    }
}

#[test]
fn published_tag_moved_is_excluded_gone_or_of_another_revision_ends_the_warning() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    list(&mut bench, &[("v1", 0, 1)]);
    done(&mut bench, 1);
    let check = |bench: &mut Bench, tags: &[(&str, u8, u8)], more: &str, expected: &[&str]| {
        bench.event(loaded(vec![recipe("a", "u", &["pa"], more)]));
        list(bench, tags);
        assert_eq!(warnings(bench), expected, "{more} {tags:?}");
        bench.event(loaded(vec![recipe("a", "u", &["pa"], "")]));
        list(bench, &[("v1", 0, 2)]);
        assert_eq!(warnings(bench), ["published tag moved 1-1"]);
    };
    check(&mut bench, &[("v1", 0, 2)], "", &["published tag moved 1-1"]);
    check(&mut bench, &[("v1", 0, 2)], "exclude = ['v1']", &[]);
    check(&mut bench, &[("v1", 0, 2)], "min_version = '2'", &[]);
    check(&mut bench, &[("w1", 0, 2)], "exclude = ['v1']", &["no tag matches tag_pattern ^v(.*)$"]);
    bench.event(loaded(vec![recipe("a", "u", &["pa"], "peios_revision = 2")]));
    list(&mut bench, &[("v1", 0, 2)]);
    bench.effects.clear();
    done(&mut bench, 2);
    list(&mut bench, &[("v1", 0, 2)]);
    assert_eq!((warnings(&bench), moves(&mut bench)), (vec![], vec![]));
    list(&mut bench, &[("v1", 0, 1)]);
    assert_eq!(moves(&mut bench), ["a@1-2 v1 2>1"], "the first revision's commit is not the second's");
}

#[test]
fn tag_that_moves_during_its_build_is_noticed_by_the_next_listing() {
    // The listing after the publish shows what the one before the build showed, or what came since.
    for (listed, expected) in [(1, "a@1-1 v1 2>1"), (3, "a@1-1 v1 2>3")] {
        let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
        list(&mut bench, &[("v1", 0, 1)]);
        list(&mut bench, &[("v1", 0, 2)]);
        list(&mut bench, &[("v1", 0, 1)]);
        done(&mut bench, 2);
        bench.effects.clear();
        list(&mut bench, &[("v1", 0, listed)]);
        assert_eq!(moves(&mut bench), [expected]);
    }
}

#[test]
fn published_version_stays_compared_whoever_may_sign_its_tag_today() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "signers = 'keys'")]);
    let refused = |tag| events::NoCommit { signers: Some(0), ..names_a_tree(tag) };
    let at_zero = |tag| events::NoCommit { object: id(2).to_string(), ..refused(tag) };
    bench.event(Event::NoCommitsFound(vec![at_zero("v1"), at_zero("v2")]));
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1")]))));
    let mut known = PublishedCommits::default();
    known.set(&"a".into(), "1-1", id(1));
    bench.event(Event::CommitsFound(known));
    list(&mut bench, &[("v1", 0, 2), ("v2", 0, 2), ("v3", 0, 2)]);
    assert_eq!(moves(&mut bench), ["a@1-1 v1 1>2", "build a@3-1"]);
    assert_eq!(warnings(&bench), ["published tag moved 1-1", "tag skipped v2"]);
}

#[test]
fn version_published_by_an_earlier_manager_is_believed_once() {
    for once in [false, true] {
        let mut bench = Bench::new(once, vec![recipe("a", "u", &["pa"], ""), recipe("b", "u", &["pb"], "")]);
        bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1"), ("pa", "2-1"), ("pb", "1-1")]))));
        let mut known = PublishedCommits::default();
        known.set(&"a".into(), "1-1", id(7));
        bench.event(Event::CommitsFound(known));
        list(&mut bench, &[("v1", 0, 1), ("v2", 9, 2)]);
        let found = moves(&mut bench);
        assert_eq!(found[..3], ["a@1-1 v1 7>1", "a 2-1=2", "b 1-1=1"], "{found:?}");
        if !once {
            list(&mut bench, &[("v1", 0, 3), ("v2", 9, 2)]);
            assert_eq!(moves(&mut bench), ["a@1-1 v1 7>3", "b@1-1 v1 1>3"]);
        }
    }
}

#[test]
fn version_found_published_after_a_crash_has_the_commit_of_its_build() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1-1")]))));
    let built_from = Some(BuiltFrom { tag: "v1".into(), commit: id(1) });
    bench.event(Event::OutputsFound(vec![PendingOutputs { built_from, ..outputs("a", "1-1", &["pa"]) }]));
    bench.effects.clear();
    list(&mut bench, &[("v1", 0, 2)]);
    assert_eq!(moves(&mut bench), ["a@1-1 v1 1>2"]);
}

#[test]
fn many_published_tags_moved_name_some_and_count_the_rest() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    let names: Vec<String> = (1..=300).map(|number| format!("v{number}")).collect();
    let versions: Vec<String> = (1..=300).map(|number| format!("{number}-1")).collect();
    let published: Vec<_> = versions.iter().map(|version| ("pa", version.as_str())).collect();
    bench.event(Event::ArchiveRead(Ok(archive(&published))));
    for commit in [1, 2] {
        bench.effects.clear();
        list(&mut bench, &names.iter().map(|name| (name.as_str(), 0, commit)).collect::<Vec<_>>());
    }
    let found = moves(&mut bench);
    assert_eq!((found.len(), &*found[20]), (21, "a 280 more"));
    assert_eq!(warnings(&bench).len(), 21);
}

#[test]
fn waiting_version_whose_tag_moves_is_built_as_it_is_listed_then() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    list(&mut bench, &[("v1", 0, 1), ("v2", 0, 2)]);
    list(&mut bench, &[("v1", 9, 5), ("v2", 0, 2)]);
    bench.fail();
    let listed = bench.farm.flights[0].job.candidate.listed.unwrap();
    assert_eq!((listed.object, listed.commit()), (id(9), id(5)));
}

#[test]
fn failed_version_whose_tag_moves_is_retried_at_once() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    list(&mut bench, &[("v1", 8, 1)]);
    bench.fail();
    bench.effects.clear();
    for tag in [("v1", 8, 1), ("v1", 9, 1)] {
        list(&mut bench, &[tag]);
        assert_eq!(moves(&mut bench), [""; 0], "the same commit waits for its retry");
    }
    list(&mut bench, &[("v1", 9, 2)]);
    assert_eq!(moves(&mut bench), ["build a@1-1"]);
    assert_eq!(bench.farm.flights[0].job.candidate.listed.unwrap().commit(), id(2));
    // A listing during the build shows a move, and the build fails.
    list(&mut bench, &[("v1", 9, 3)]);
    bench.fail();
    assert_eq!(moves(&mut bench), ["build a@1-1"]);
    assert_eq!(bench.farm.flights[0].job.candidate.listed.unwrap().commit(), id(3));
    bench.fail();
    list(&mut bench, &[("v1", 9, 3)]);
    assert_eq!(moves(&mut bench), [""; 0], "the same commit waits for its retry");
    // A sweep tries once.
    let mut bench = Bench::new(true, vec![recipe("a", "u", &["pa"], ""), recipe("b", "w", &["pb"], "")]);
    list(&mut bench, &[("v1", 8, 1)]);
    bench.fail();
    bench.effects.clear();
    list(&mut bench, &[("v1", 8, 2)]);
    assert_eq!(moves(&mut bench), [""; 0]);
}
