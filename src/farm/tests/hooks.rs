//! Which upstreams a webhook polls, and what is said about one that polls none.

use super::*;

/// Returns a farm with a recipe for each of `upstreams`, after its first polls; those whose URL begins
/// with `-` want no hooks.
fn farm(upstreams: &[&str]) -> Bench {
    let recipes = upstreams.iter().enumerate().map(|(number, url)| {
        let (url, hook) = url.strip_prefix('-').map_or((*url, HOOK), |url| (url, ""));
        recipe(&format!("r{number}"), url, &[&format!("p{number}")], hook)
    });
    let mut bench = Bench::with_options(Options { poll_jobs: 99, ..options(false) }, recipes.collect());
    for upstream in bench.polls() {
        bench.tags(&upstream, &[]);
    }
    bench.seen();
    // A second webhook within a second of a listing would wait.
    bench.now += Duration::from_secs(2);
    bench
}

/// Plays a webhook with `names`, and expects polls of `expected`, or the notice that it polls none.
#[track_caller]
fn check(upstreams: &[&str], names: &[&str], expected: &[&str]) {
    let mut bench = farm(upstreams);
    hook(&mut bench, names);
    let is_matched = bench.farm.hooks.unmatched == 0;
    let found = if is_matched { bench.polls() } else { bench.seen() };
    assert_eq!(found, expected, "{names:?}");
    assert_eq!(bench.farm.hooks.last_matched.is_some(), is_matched && !names.is_empty());
    assert_eq!(bench.farm.hooks.last_received, Some(bench.now));
}

#[test]
fn webhook_for_a_host_with_another_name_matches_by_path() {
    let hidden = ["ssh://git@ssh.github.com:443/o/r.git", "gh:o/r", "https://h/x"];
    check(&hidden, &["github.com/o/r"], &["gh:o/r", "ssh://git@ssh.github.com:443/o/r.git"]);
    check(&["file:///srv/git/r"], &["h/srv/git/r"], &["file:///srv/git/r"]);
    // Only the path is known of this repository.
    check(&["https://bitbucket.org/o/r"], &["/o/r"], &["https://bitbucket.org/o/r"]);
    // An upstream with the whole name leaves the others alone, if its recipe wants hooks.
    check(&["https://h/o/r", "https://mirror/o/r"], &["h/o/r", "ssh.h/o/r"], &["https://h/o/r"]);
    check(&["-https://h/o/r", "gh:o/r"], &["h/o/r"], &["gh:o/r"]);
}

#[test]
fn webhook_for_no_recipe_is_reported_with_the_nearest() {
    let none = "no recipe has this upstream";
    let unwanted = "no recipe of this upstream has github_webhook = true";
    let farm = ["https://h/o/hello", "https://h/o/world", "-https://h/o/quiet"];
    check(&farm, &["h/other/hello"], &[&format!("unmatched other/hello: {none}, nearest r0")]);
    check(&farm, &["h/o/wrold"], &[&format!("unmatched o/wrold: {none}, nearest r1")]);
    check(&farm, &["h/o/unlike"], &[&format!("unmatched o/unlike: {none}")]);
    check(&farm, &["h/o/quiet"], &[&format!("unmatched o/quiet: {unwanted}, nearest r2")]);
    check(&farm, &["g/o/quiet"], &[&format!("unmatched o/quiet: {unwanted}, nearest r2")]);
    check(&[], &["h/o/r"], &[&format!("unmatched o/r: {none}")]);
    check(&["https://h"], &["h/é/ö"], &[&format!("unmatched é/ö: {none}")]);
    // Of two with the same end, the more similar one; names may be long.
    let many = ["https://h/an/other/place/hello", "https://h/p/hello"];
    check(&many, &["h/o/hello"], &[&format!("unmatched o/hello: {none}, nearest r1")]);
    let mut bench = self::farm(&farm);
    hook(&mut bench, &[&format!("h/{}", "x".repeat(2000))]);
    assert!(bench.farm.hooks.last_unmatched.as_ref().unwrap().repositories[0].chars().count() <= 200);
}

#[test]
fn webhook_without_a_repository_is_only_received() {
    check(&["https://h/o/r"], &[], &[]);
}

#[test]
fn ping_polls_nothing_and_tells_of_no_match() {
    let mut bench = farm(&["https://h/o/r"]);
    bench.event(Event::PingReceived { repositories: vec!["h/o/r".into()] });
    assert!(bench.polls().is_empty() && bench.farm.hooks.last_matched.is_some());
    bench.event(Event::PingReceived { repositories: vec!["h/o/s".into()] });
    assert_eq!((bench.seen().len(), bench.farm.hooks.unmatched), (1, 1));
    bench.event(Event::PingReceived { repositories: vec![] });
    assert_eq!((bench.seen().len(), bench.farm.hooks.unmatched), (0, 1));
}

#[test]
fn webhooks_for_no_recipe_share_a_line_each_second() {
    let none = "no recipe has this upstream";
    let mut bench = farm(&["https://h/o/r"]);
    let start = bench.now;
    for number in 0..100 {
        hook(&mut bench, &[&format!("h/x/{number}")]);
        bench.now += Duration::from_millis(5);
    }
    assert_eq!(bench.seen(), [format!("unmatched x/0: {none}")]);
    bench.sleep_until(start + Duration::from_mins(1));
    assert_eq!(bench.seen(), [format!("unmatched x/99: {none}, 98 more")]);
    assert_eq!(bench.farm.hooks.unmatched, 100);
    hook(&mut bench, &["h/x/a"]);
    hook(&mut bench, &["h/x/b"]);
    bench.event(Event::StopRequested);
    assert!(bench.seen().contains(&format!("unmatched x/b: {none}")), "stopping waits for no second");
}

/// The old URL of a renamed repository.
const OLD: &str = "https://h/old/r";

/// Returns whether a webhook for `name` polls [`OLD`].
#[track_caller]
fn is_polled(bench: &mut Bench, name: &str) -> bool {
    bench.now += HOUR * 100;
    bench.event(Event::DeadlineReached);
    for upstream in bench.polls() {
        bench.tags(&upstream, &[]);
    }
    bench.now += Duration::from_secs(2);
    hook(bench, &[name]);
    let polls = bench.polls();
    assert!(polls.is_empty() || polls == [OLD], "{polls:?}");
    for upstream in &polls {
        bench.tags(upstream, &[]);
    }
    !polls.is_empty()
}

#[test]
fn webhook_for_a_renamed_repository_matches_until_its_upstream_goes() {
    let redirect = |bench: &mut Bench, target: &str| {
        bench.event(Event::RedirectFollowed { upstream: OLD.into(), target: target.into() });
    };
    let mut bench = farm(&[OLD]);
    assert!(!is_polled(&mut bench, "h/new/name"));
    redirect(&mut bench, "https://h/New/name.git/");
    assert!(is_polled(&mut bench, "h/new/name") && is_polled(&mut bench, "h/old/r"));
    // The last redirect counts; one that only changes the spelling gives no name.
    redirect(&mut bench, "https://h/newer/name");
    assert!(is_polled(&mut bench, "h/newer/name") && !is_polled(&mut bench, "h/new/name"));
    let again = || recipe("r0", OLD, &["p0"], HOOK);
    bench.event(loaded(vec![again()]));
    assert!(is_polled(&mut bench, "h/newer/name"), "a reload keeps the names of upstreams that stay");
    redirect(&mut bench, "http://h/old/r.git");
    assert!(!is_polled(&mut bench, "h/newer/name"));
    redirect(&mut bench, "https://h/newer/name");
    bench.event(loaded(vec![]));
    redirect(&mut bench, "https://h/newer/name");
    assert!(bench.farm.hooks.knows_no_upstream());
    bench.event(loaded(vec![again()]));
    assert!(!is_polled(&mut bench, "h/newer/name"));
}

#[test]
fn redirect_takes_no_webhook_from_another_upstream() {
    for other in ["https://g/o/r", "gh:o/r"] {
        let mut bench = farm(&["https://evil/x", other]);
        bench.event(Event::RedirectFollowed {
            upstream: "https://evil/x".into(),
            target: "https://g/o/r".into(),
        });
        hook(&mut bench, &["g/o/r"]);
        let mut polls = bench.polls();
        polls.sort();
        let mut expected = [other, "https://evil/x"];
        expected.sort_unstable();
        assert_eq!(polls, expected);
    }
}
