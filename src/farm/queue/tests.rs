//! The order of the waiting versions.

use super::*;

fn candidate(version: &str) -> Candidate {
    Candidate {
        tag: format!("v{version}").into(),
        version: format!("{version}-1").parse().unwrap(),
        listed: None,
    }
}

fn candidates(versions: &[&str]) -> Vec<Candidate> {
    versions.iter().map(|version| candidate(version)).collect()
}

fn put(queue: &mut Queue, recipe: &str, versions: &[&str], urgency: Urgency) {
    queue.replace(&recipe.into(), candidates(versions), urgency, |_| false);
}

/// Builds the next version of a recipe that `may_build` admits, in no time.
fn build(queue: &mut Queue, may_build: impl Fn(&str) -> bool) -> Option<String> {
    let (recipe, candidate, _) = queue.pop(|recipe| may_build(recipe))?;
    queue.on_build_started(&recipe);
    queue.on_build_ended(&recipe, Duration::ZERO);
    Some(format!("{recipe} {}", candidate.tag))
}

fn drain(queue: &mut Queue) -> Vec<String> {
    std::iter::from_fn(|| build(queue, |_| true)).collect()
}

#[test]
fn pop_of_several_recipes_takes_turns_newest_version_first() {
    let mut queue = Queue::default();
    put(&mut queue, "a", &["1.9", "1.10", "1.0-rc1", "1.0"], Urgency::None);
    put(&mut queue, "b", &["2"], Urgency::None);
    put(&mut queue, "c", &["3", "4"], Urgency::None);
    assert_eq!(drain(&mut queue), ["a v1.10", "b v2", "c v4", "a v1.9", "c v3", "a v1.0", "a v1.0-rc1"]);
    assert!(queue.len() == 0);
}

#[test]
fn replace_after_webhook_makes_only_new_versions_urgent() {
    let mut queue = Queue::default();
    put(&mut queue, "a", &["1", "2"], Urgency::None);
    put(&mut queue, "b", &["1", "2"], Urgency::None);
    put(&mut queue, "b", &["1", "2", "0.9"], Urgency::New);
    // A later poll does not take the urgency away.
    put(&mut queue, "b", &["1", "2", "0.9"], Urgency::None);
    assert_eq!(drain(&mut queue), ["b v0.9", "a v2", "b v2", "a v1", "b v1"]);
}

#[test]
fn replace_after_webhook_of_whole_backlog_makes_only_newest_urgent() {
    let mut queue = Queue::default();
    put(&mut queue, "a", &["1", "2"], Urgency::None);
    put(&mut queue, "b", &["1", "2", "3"], Urgency::Newest);
    assert_eq!(drain(&mut queue), ["b v3", "a v2", "b v2", "a v1", "b v1"]);
}

#[test]
fn clear_urgency_of_recipe_returns_it_to_its_turn() {
    let mut queue = Queue::default();
    put(&mut queue, "a", &["1", "3"], Urgency::None);
    put(&mut queue, "b", &["1"], Urgency::None);
    put(&mut queue, "b", &["1", "2", "3"], Urgency::New);
    let has_urgent = |queue: &Queue| queue.iter().any(|(.., waits)| waits == Waits::Urgent);
    assert!(has_urgent(&queue));
    queue.clear_urgency(&"b".into());
    queue.clear_urgency(&"none".into());
    assert!(!has_urgent(&queue));
    put(&mut queue, "b", &["1", "2", "3"], Urgency::New);
    assert_eq!(drain(&mut queue), ["a v3", "b v3", "a v1", "b v2", "b v1"]);
}

#[test]
fn pop_of_versions_ordered_in_circles_returns_each_once() {
    // By the specification 1~r < 1 < 1+git < 1~r, and a library sort may panic on such an
    // order.
    let texts: Vec<String> = (0..40)
        .flat_map(|n| ["1~r", "1", "1+git", "1~s", "1+rest"].map(|text| format!("{text}.{n}")))
        .collect();
    let mut shuffled: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut random = 1_usize;
    for _ in 0..100 {
        for end in (1..shuffled.len()).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            shuffled.swap(end, (random >> 33) % (end + 1));
        }
        let mut queue = Queue::default();
        put(&mut queue, "a", &shuffled, Urgency::None);
        let built = drain(&mut queue);
        assert_eq!((built.len(), built[0].as_str()), (texts.len(), "a v1+rest.39"));
    }
}

#[test]
fn replace_without_a_version_drops_it() {
    let mut queue = Queue::default();
    put(&mut queue, "a", &["1", "2"], Urgency::None);
    put(&mut queue, "a", &["2"], Urgency::None);
    queue.insert_retry(&"a".into(), candidate("3"));
    queue.insert_retry(&"a".into(), candidate("3"));
    assert_eq!(drain(&mut queue), ["a v3", "a v2"]);
    put(&mut queue, "a", &["1"], Urgency::None);
    put(&mut queue, "a", &[], Urgency::None);
    assert!(queue.pop(|_| true).is_none());
    assert_eq!(queue.len(), 0);
}

#[test]
fn pop_of_a_recipe_that_may_not_build_leaves_its_turn() {
    let mut queue = Queue::default();
    put(&mut queue, "a", &["1", "2"], Urgency::None);
    put(&mut queue, "b", &["1", "2"], Urgency::None);
    let mut next = || build(&mut queue, |recipe| recipe != "a");
    assert_eq!([next(), next(), next()].map(Option::unwrap_or_default), ["b v2", "b v1", ""]);
    assert_eq!(drain(&mut queue), ["a v2", "a v1"]);
}

#[test]
fn retries_and_untried_versions_of_a_recipe_alternate() {
    let mut queue = Queue::default();
    let id: Arc<str> = "a".into();
    let is_retry = |candidate: &Candidate| ["v9", "v7"].contains(&&*candidate.tag);
    queue.replace(&id, candidates(&["9", "8", "7", "6", "5"]), Urgency::None, is_retry);
    queue.insert_retry(&id, candidate("4"));
    assert_eq!(drain(&mut queue), ["a v9", "a v8", "a v7", "a v6", "a v4", "a v5"]);
}

#[test]
fn replace_of_more_versions_than_may_wait_leaves_out_the_oldest() {
    let mut queue = Queue::default();
    let texts: Vec<String> = (0..MAX_WAITING + 5).map(|number| number.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let left_out = queue.replace(&"a".into(), candidates(&texts), Urgency::Newest, |_| false);
    assert_eq!((left_out, queue.len()), (5, MAX_WAITING));
    assert_eq!(drain(&mut queue).last().map(String::as_str), Some("a v5"));
}

#[test]
fn retain_without_a_recipe_drops_its_versions() {
    let mut queue = Queue::default();
    put(&mut queue, "a", &["1"], Urgency::None);
    put(&mut queue, "b", &["1"], Urgency::None);
    queue.retain(|recipe| &**recipe != "a", |_| true);
    assert_eq!(queue.len(), 1);
    assert_eq!(queue.iter().count(), 1);
    assert_eq!(drain(&mut queue), ["b v1"]);
}
