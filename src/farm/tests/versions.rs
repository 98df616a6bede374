//! Which tags give versions, which versions are built, and in which order.

use super::*;

#[test]
fn sweep_builds_the_unpublished_versions_and_ends() {
    let mut bench =
        Bench::new(true, vec![recipe("a", "u", &["pa", "pa-doc"], ""), recipe("b", "w", &["pb"], "")]);
    bench.event(Event::ArchiveRead(Ok(archive(&[("pa", "1.0-1"), ("pa-doc", "1.0-1"), ("pa", "1.1-1")]))));
    assert_eq!(bench.polls(), ["u", "w"]);
    assert_eq!(bench.farm.outcome(bench.now), None);
    bench.tags("u", &["v1.0", "v1.1", "v1.2", "other"]);
    assert_eq!(bench.seen(), ["partly published a@1.1-1", "build a@1.2-1"]);
    bench.tags("w", &["v2", "v10"]);
    assert_eq!(bench.farm.outcome(bench.now), None);
    bench.done();
    assert_eq!(bench.seen(), ["build b@10-1"]);
    bench.fail();
    assert_eq!(bench.seen(), ["failed b@10-1 once", "build b@2-1"], "one failure does not stop the others");
    bench.done();
    assert_eq!(bench.farm.outcome(bench.now), Some(Outcome::Clean), "a sweep does not wait for retries");
}

#[test]
fn recipes_of_one_upstream_are_polled_together() {
    let mut bench = Bench::new(
        true,
        vec![
            recipe("a", "u", &["pa"], ""),
            recipe("b", "u", &["pb"], "min_version = '2'"),
            recipe("c", "u", &["pc"], "peios_revision = 3"),
        ],
    );
    assert_eq!(bench.polls(), ["u"]);
    bench.tags("u", &["v1", "v2"]);
    let mut built = bench.seen();
    while bench.farm.outcome(bench.now).is_none() {
        bench.done();
        built.extend(bench.seen());
    }
    assert_eq!(built, ["build a@2-1", "build b@2-1", "build c@2-3", "build a@1-1", "build c@1-3"]);
}

#[test]
fn package_published_by_another_recipe_is_not_built_again() {
    let mut bench = Bench::new(true, vec![recipe("a", "u", &["same"], ""), recipe("b", "u", &["same"], "")]);
    bench.tags("u", &["v1"]);
    assert_eq!(bench.seen(), ["build a@1-1"]);
    bench.done();
    assert_eq!(bench.farm.outcome(bench.now), Some(Outcome::Clean));
    assert!(bench.seen().is_empty());
}

#[test]
fn bad_tags_are_skipped_with_one_warning_each() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    let long = format!("v{}", "1".repeat(300));
    let tags = ["v../../x", "v--help", "vé", &long, "v1", "v1.0_2"];
    bench.tags("u", &tags);
    let expected = [
        r#"skipped "v../../x""#,
        r#"skipped "v--help""#,
        r#"skipped "vé""#,
        &format!("skipped {long:?}"),
        r#"skipped "v1.0_2""#,
        "build a@1-1",
    ];
    assert_eq!(bench.seen(), expected);
    bench.done();
    bench.sleep_until(at(HOUR));
    assert_eq!(bench.polls(), ["u"]);
    bench.tags("u", &tags);
    assert!(bench.seen().is_empty(), "the next poll does not repeat the warnings");
    let many: Vec<String> = (0..1000).map(|n| format!("v_{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    bench.sleep_until(at(HOUR * 2));
    bench.tags("u", &many);
    let seen = bench.seen();
    assert_eq!((seen.len(), seen.last().unwrap().as_str()), (21, "skipped 980 more"));
}

#[test]
fn pattern_without_a_match_is_warned_about_once() {
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], "")]);
    let no_match = ["a: no ^v(.*)$ like 2.0"];
    bench.tags("u", &[]);
    assert!(bench.seen().is_empty(), "no tag is no tag that does not match");
    for expected in [&no_match[..], &[]] {
        bench.sleep_until(bench.now + HOUR);
        bench.polls();
        bench.tags("u", &["1.0", "2.0"]);
        assert_eq!(bench.seen(), expected);
    }
    // A tag that is too old or makes no version has matched.
    for (more, tag) in [("min_version = '2'", "v1.0"), ("", "v1.0_2")] {
        let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], more)]);
        bench.tags("u", &["1.0", tag, "zzz"]);
        assert!(!bench.seen().iter().any(|line| line.contains(" no ")), "{tag}");
    }
    // Another pattern is another mistake.
    let mut other = recipe("a", "u", &["pa"], "");
    let upstream = other.upstream.as_mut().unwrap();
    upstream.tag_pattern = crate::recipe::tag_pattern::TagPattern::parse("^release-(.*)$").unwrap().0;
    bench.event(loaded(vec![other]));
    bench.sleep_until(bench.now + HOUR);
    bench.polls();
    bench.tags("u", &["1.0", "2.0"]);
    assert_eq!(bench.seen(), ["a: no ^release-(.*)$ like 2.0"]);
}

#[test]
fn two_tags_of_one_version_are_built_once() {
    let text = "[upstream]\ngit = 'u'\ntag_pattern = '^v?(\\d+)$'\n[[package]]\nname = 'pa'\narchitecture = 'noarch'";
    let recipe = Recipe::parse("a", Path::new("a"), text, 0, &mut Vec::new()).unwrap();
    let mut bench = Bench::new(true, vec![recipe]);
    bench.tags("u", &["1", "v1", "2"]);
    assert_eq!(bench.seen(), [r#"skipped "v1""#, "build a@2-1"]);
    bench.done();
    assert_eq!(bench.seen(), ["build a@1-1"]);
}

#[test]
fn unreadable_index_warns_and_builds_go_on() {
    let mut bench = Bench::new(true, vec![recipe("a", "u", &["pa"], "")]);
    bench.event(Event::ArchiveRead(Err("archive.json: EOF".into())));
    bench.tags("u", &["v1"]);
    assert_eq!(bench.seen(), ["dedup failed a", "build a@1-1"]);
}

#[test]
fn webhook_polls_each_recipe_that_wants_it_and_builds_new_versions_first() {
    let hook = |id: &str, upstream: &str, package: &str| {
        let mut recipe = recipe(id, upstream, &[package], "");
        recipe.github_webhook = true;
        recipe
    };
    let mut bench = Bench::new(
        false,
        vec![
            hook("a", "https://git.example/x.git", "pa"),
            hook("b", "ssh://git@git.example/x", "pb"),
            recipe("c", "https://git.example/x", &["pc"], ""),
            recipe("d", "https://git.example/d", &["pd"], ""),
        ],
    );
    for upstream in bench.polls() {
        bench.tags(&upstream, &["v1", "v2"]);
    }
    assert_eq!(bench.seen(), ["build d@2-1"]);
    for _ in 0..3 {
        bench.event(Event::WebhookReceived { repositories: vec!["git.example/x".into()] });
    }
    assert_eq!(
        bench.polls(),
        ["https://git.example/x.git", "ssh://git@git.example/x"],
        "repeated hooks coalesce"
    );
    bench.event(Event::WebhookReceived { repositories: vec!["git.example/unknown".into()] });
    assert!(bench.polls().is_empty());
    bench.tags("ssh://git@git.example/x", &["v0.5", "v1", "v2"]);
    bench.done();
    assert_eq!(bench.seen(), ["build b@0.5-1"], "ahead of everything that waited");
}

#[test]
fn webhook_with_two_new_tags_builds_both_first_and_no_other_recipe_s() {
    let recipes = vec![
        recipe("a", "https://h/a", &["pa"], HOOK),
        recipe("b", "w", &["pb"], ""),
        recipe("c", "https://h/a", &["pc"], ""),
    ];
    let mut bench = Bench::new(false, recipes);
    bench.event(Event::ArchiveRead(Ok(archive(&[
        ("pa", "1-1"),
        ("pa", "2-1"),
        ("pc", "1-1"),
        ("pc", "2-1"),
    ]))));
    bench.tags("https://h/a", &["v1", "v2"]);
    bench.tags("w", &["v1", "v2", "v3"]);
    bench.event(Event::WebhookReceived { repositories: vec!["h/a".into()] });
    bench.seen();
    // A release, and a security fix on an old branch.
    bench.tags("https://h/a", &["v1", "v1.1", "v2", "v2.1"]);
    let mut built = Vec::new();
    for _ in 0..4 {
        bench.done();
        built.extend(bench.seen());
    }
    assert_eq!(built, ["build a@2.1-1", "build a@1.1-1", "build c@2.1-1", "build b@2-1"]);
}

#[test]
fn excluded_tag_that_the_upstream_lacks_is_named_once() {
    let table: [(&str, &[&str], Option<&str>); 7] = [
        ("'v1'", &["v1", "v2"], None),
        ("'v1', 'v3'", &["v1", "v2"], Some("no tag v3 like v2")),
        ("'vv1'", &["v1", "vvv1", "v2"], Some("no tag vv1 like vvv1")),
        ("'v3', 'v1-rc'", &["v1", "v2"], Some("no tag v1-rc v3 like v2")),
        ("'v3'", &["1", "2"], Some("a: no ^v(.*)$ like 2")),
        ("'v3'", &[], None),
        // Loading warns of these.
        ("'1', 'v*', '2'", &["v1", "v2"], None),
    ];
    let warnings = |bench: &mut Bench| -> Vec<String> {
        bench.seen().into_iter().filter(|text| text.contains("no ")).collect()
    };
    for (exclude, tags, expected) in table {
        let more = format!("exclude = [{exclude}]\nmin_version = '9'");
        let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], &more)]);
        bench.tags("u", tags);
        assert_eq!(warnings(&mut bench), Vec::from_iter(expected), "{exclude}");
    }
    let more = "exclude = ['v1', 'v3']\nmin_version = '9'";
    let mut bench = Bench::new(false, vec![recipe("a", "u", &["pa"], more)]);
    let polls: [(&[&str], &[&str]); 4] = [
        (&["v1", "v2"], &["no tag v3 like v2"]),
        (&["v1", "v2", "v4"], &[]),
        (&["v2"], &["no tag v1 v3 like v2"]),
        (&["v1", "v3"], &[]),
    ];
    for (tags, expected) in polls {
        bench.sleep_until(bench.now + 2 * HOUR);
        bench.tags("u", tags);
        assert_eq!(warnings(&mut bench), expected, "{tags:?}");
    }
}
