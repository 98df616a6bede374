//! The page of hostile, large and broken farms.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::farm::status::{
    Failure, Held, InFlight, Poll, Queued, RefusedReload, RefusedWebhooks, UnmatchedWebhook, Upload, Warning,
};

/// The most that a page of 200 recipes may have, in bytes.
const MOST: usize = 30_000;

const HOSTILE: &str = "</pre><script>alert(1)</script><img src=x onerror='alert(1)'>\"&amp;\u{202e}";

fn at(seconds: u64) -> Time {
    Time::of(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seconds))
}

/// A farm of `count` recipes in which all that can be wrong is wrong, with `text` wherever foreign text
/// can be.
fn broken(count: usize, text: &str) -> Status {
    of_recipes((0..count).map(|number| format!("recipe{number:05}").into()).collect(), text)
}

fn of_recipes(recipes: Vec<Arc<str>>, text: &str) -> Status {
    let count = recipes.len();
    let failure = |_| Failure {
        failures: 12,
        next_retry: at(60),
        stage: "build",
        last_error: text.to_owned(),
        log: Some(text.into()),
        log_tail: vec![text.to_owned(); 10],
        failed_at: Duration::ZERO,
    };
    let poll = |number: usize| Poll {
        last_poll: Some(at(0)),
        tags_seen: None,
        error: Some(format!("{text}{number}").into()),
        next_poll: Some(at(3000)),
        tags_matched: Some(12),
        newest_published: Some("12.10.2-1".into()),
        last_success: None,
    };
    let warning = |recipe: &Arc<str>| Warning {
        event: "tag skipped",
        recipe: Some(recipe.clone()),
        subject: text.to_owned(),
        detail: text.to_owned(),
    };
    let held = |recipe: &Arc<str>| Held { recipe: recipe.clone(), version: None, reason: "x", until: "y" };
    let queued =
        |recipe: &Arc<str>| Queued { recipe: recipe.clone(), version: "1.0-1".to_owned(), reason: "retry" };
    Status {
        farm_id: text.into(),
        failures: Some(recipes.iter().map(|id| (format!("{id}@1.2.3-1"), failure(id))).collect()),
        polls: recipes.iter().enumerate().map(|(number, id)| (id.clone(), poll(number))).collect(),
        warnings: recipes.iter().map(warning).collect(),
        warnings_length: recipes.len(),
        warnings_by_event: [("tag skipped", recipes.len())].into(),
        held_recipes: recipes.iter().cloned().collect(),
        unlisted: recipes.iter().map(|id| (id.clone(), text.into())).collect(),
        held: recipes.iter().map(held).collect(),
        held_length: recipes.len(),
        queue: recipes.iter().map(queued).collect(),
        queue_length: recipes.len(),
        reload_refused: Some(RefusedReload {
            at: at(0),
            problems: vec![text.to_owned(); count],
            problems_length: count,
        }),
        upload: Some(Upload {
            failures: 2,
            started_at: None,
            next_try: Some(at(9)),
            last_error: Some(text.to_owned()),
        }),
        upload_state: "failed",
        draining: true,
        paused_since: Some(at(0)),
        recipes,
        ..Status::default()
    }
}

fn page(status: &Status, query: &str) -> String {
    String::from_utf8(render(status, at(30), number(query))).unwrap()
}

#[test]
fn foreign_text_is_escaped_in_every_section() {
    let page = page(&broken(3, HOSTILE), "");
    for markup in ["<script", "<img", "onerror='", "\u{202e}"] {
        assert!(!page.contains(markup), "{markup} in {page}");
    }
    assert!(page.matches("&lt;script&gt;").count() >= 10, "{page}");
    assert!(page.contains("\\u{202e}"), "{page}");
}

#[test]
fn page_of_a_broken_farm_is_small_and_counts_what_it_leaves_out() {
    let text =
        "fatal: unable to access 'https://git.example.org/library.git/': Could not resolve host ".repeat(2);
    for count in [1, 200, 10_000] {
        let status = broken(count, &text);
        let first = page(&status, "");
        assert!(first.len() <= MOST, "{} bytes with {count} recipes", first.len());
        assert!(first.contains("<h3>recipe00000 1.2.3-1</h3>"), "{first}");
        assert_eq!(first.contains("more, see"), count > 1, "{first}");
        for heading in ["Failed", "Waiting", "Held", "Warnings", "Upstreams not listed", "Upload", "Webhooks"]
        {
            assert!(first.contains(&format!("<h2>{heading}</h2>")), "no {heading} in {first}");
        }
        let order = ["Failed", "Upstreams not listed", "Waiting", "Warnings", "Recipes", "Upload"];
        assert!(order.map(|heading| first.find(&format!("<h2>{heading}"))).is_sorted(), "{first}");
    }
}

#[test]
fn page_is_small_with_the_longest_names_and_with_text_that_is_escaped() {
    let texts = ["x", "&", "'", "\u{202e}", "\u{1b}", "大", "a b ", "\u{202e}大&"];
    for count in [1, 2, 199, 200, 201, 10_000] {
        let ids = || (0..count).map(|number| format!("{number:064}").into()).collect();
        for text in texts {
            let mut status = of_recipes(ids(), &text.repeat(5000));
            let version: Box<str> = "1".repeat(500).into();
            let in_flight = InFlight {
                recipe: status.recipes[0].clone(),
                version: version.to_string(),
                started_at: at(0),
                log: Some(text.repeat(5000).into()),
            };
            (status.builds, status.publishes) = (vec![in_flight.clone(); 64], vec![in_flight; 64]);
            status.webhooks.refused = RefusedWebhooks { refused: u64::MAX, last_refused: Some(at(0)) };
            status.webhooks.last_unmatched = Some(UnmatchedWebhook {
                received: at(0),
                repositories: vec![text.repeat(5000); 16],
                reason: "no recipe of this upstream has github_webhook = true",
                nearest: Some(status.recipes[0].clone()),
            });
            for poll in status.polls.values_mut() {
                (poll.newest_published, poll.tags_seen) = (Some(version.clone()), Some(usize::MAX));
                (poll.last_poll, poll.tags_matched) = (Some(Time::default()), Some(0));
            }
            for query in ["", "page=2", "page=3", "page=9999"] {
                let page = page(&status, query);
                assert!(page.len() <= MOST, "{} bytes with {count} recipes, {text:?}{query}", page.len());
                assert!(page.contains("<table>") && page.matches("<tr>").count() > 1, "{page}");
            }
            assert!(page(&status, "").contains("<article class=b><h3>0000"), "one failure is named");
        }
    }
}

#[test]
fn each_failing_recipe_is_shown_once_the_latest_first() {
    let mut status = broken(0, "");
    let failure = |minutes: u64| Failure {
        failures: 1,
        next_retry: at(60),
        stage: "build",
        last_error: format!("tool: failed; before that: error {minutes}"),
        log: Some("/log".into()),
        log_tail: vec!["== git fetch".to_owned(), format!("log {minutes}")],
        failed_at: Duration::from_mins(minutes),
    };
    let many = (0..30).map(|number| (format!("aaa@0.{number}-1"), failure(number + 10)));
    let others = [("bbb@1-1".to_owned(), failure(1)), ("mmm@1-1".to_owned(), failure(2))];
    let last = ("zzz@3-1".to_owned(), failure(50));
    status.failures = Some(many.chain(others).chain([last]).collect());
    let page = page(&status, "");
    let headings: Vec<&str> =
        page.split("<h3>").skip(1).map(|rest| rest.split("</h3>").next().unwrap()).collect();
    assert_eq!(headings, ["Upload", "zzz 3-1", "aaa 0.29-1", "mmm 1-1", "bbb 1-1"]);
    assert!(page.contains("error 39") && page.contains("and 29 other failed versions"), "{page}");
    assert!(page.contains("33 versions failed"), "{page}");
    assert!(!page.contains("tool: failed"), "the cause is enough: {page}");
    let logs: Vec<&str> =
        page.split("<pre>").skip(1).map(|rest| rest.split("</pre>").next().unwrap()).collect();
    assert_eq!(logs, ["log 50\n", "log 39\n", "log 2\n"], "only the first ones show their logs");
    // With wordy logs too, more than their recipes are named.
    let wordy = page_of_wordy_logs();
    assert!(wordy.matches("<article class=b>").count() >= 6, "{wordy}");
    assert!(wordy.contains("<p class=d>and "), "{wordy}");
}

fn page_of_wordy_logs() -> String {
    let mut status = broken(200, "cc: error: unrecognized command-line option");
    for failure in status.failures.iter_mut().flatten().map(|(_, failure)| failure) {
        failure.log_tail = vec!["x".repeat(1000); 10];
    }
    (status.reload_refused, status.paused_since, status.draining) = (None, None, false);
    page(&status, "")
}

#[test]
fn warnings_of_one_event_hide_no_other() {
    let mut status = broken(200, "text");
    (status.failures, status.queue_length) = (None, 0);
    let warning = |event| Warning { event, recipe: None, subject: "one".into(), detail: String::new() };
    status.add_warnings(
        vec![warning("dedup check failed"), warning("notification failed"), warning("recipe warning")],
        [("dedup check failed", 1), ("notification failed", 1), ("recipe warning", 10_000)].into(),
    );
    let page = page(&status, "");
    let section = page.split("<h2>Warnings</h2>").nth(1).unwrap().split("</ul>").next().unwrap();
    let events = ["dedup check failed", "notification failed", "recipe warning", "tag skipped"];
    assert!(events.map(|event| section.find(event).expect(event)).is_sorted(), "{section}");
    assert!(section.contains("and 9999 more") && section.contains("and 197 more"), "{section}");
    assert!(page.contains("<strong class=f>Nothing can be published"), "{page}");
}

#[test]
fn upstreams_not_listed_are_named() {
    let mut status = broken(3, "");
    let url = |place: usize| format!("https://h{place}.example/<x>.git").into();
    status.unlisted =
        status.recipes.iter().zip([url(1), url(1), url(2)]).map(|(id, url)| (id.clone(), url)).collect();
    for (poll, error) in status.polls.values_mut().zip(["one", "one", "two"]) {
        poll.error = Some(error.into());
    }
    let section = |status: &Status| {
        page(status, "")
            .split("<h2>Upstreams not listed</h2>")
            .nth(1)
            .unwrap()
            .split("</ul>")
            .next()
            .unwrap()
            .to_owned()
    };
    let found = section(&status);
    assert!(
        found.contains(
            "recipe00000, recipe00001<p class=d>https://h1.example/&lt;x&gt;.git: one; next poll in "
        ),
        "{found}"
    );
    assert!(found.contains("recipe00002<p class=d>https://h2.example/&lt;x&gt;.git: two; "), "{found}");
    for poll in status.polls.values_mut() {
        poll.error = Some("three".into());
    }
    assert!(section(&status).contains("https://h1.example/&lt;x&gt;.git and others: three; "));
}

#[test]
fn held_recipes_and_refused_webhooks_are_not_well() {
    let mut status = Status { recipes: vec!["a".into()], ..Status::default() };
    assert!(page(&status, "").contains("<strong class=g>All is well"));
    assert!(!page(&status, "").contains("right signature"));
    status.webhooks.refused = RefusedWebhooks { refused: 3, last_refused: Some(at(20)) };
    assert!(page(&status, "").contains("3 without a right signature, last one 10 s ago"));
    status.held_recipes = ["a".into()].into();
    assert!(page(&status, "").contains("<strong class=w>1 recipe held"));
}

#[test]
fn failed_upload_comes_first_also_while_the_next_one_runs() {
    for started_at in [None, Some(at(20))] {
        let upload = Upload {
            failures: 3,
            started_at,
            next_try: started_at.is_none().then(|| at(90)),
            last_error: Some("rclone: no <credentials>".to_owned()),
        };
        let upload_state = if started_at.is_some() { "running" } else { "failed" };
        let status = Status { upload: Some(upload), upload_state, ..broken(0, "") };
        let page = page(&Status { failures: None, draining: false, ..status }, "");
        assert!(page.contains("<strong class=f>Upload failed"), "{page}");
        let failed = page.split("<h2>Failed</h2>").nth(1).unwrap().split("<h2>").next().unwrap();
        assert!(
            failed.starts_with("<article class=b><h3>Upload</h3><p>rclone: no &lt;credentials&gt;"),
            "{failed}"
        );
        let next =
            if started_at.is_some() { "the next one was started 10 s ago" } else { "next try in 60 s" };
        assert!(failed.contains(&format!("upload failed 3 times, {next}")), "{failed}");
    }
}

#[test]
fn list_items_are_only_in_lists() {
    for count in [1, 3, 200] {
        let page = page(&broken(count, "text"), "");
        let outside = page.split("</ul>").filter_map(|part| part.split("<ul").next());
        for part in outside {
            assert!(!part.contains("<li"), "{part}");
        }
    }
}

#[test]
fn recipes_are_listed_once_over_all_pages_and_links_lead_through() {
    let status = broken(1001, "");
    let mut rows = Vec::new();
    for number in 1..=6 {
        let page = page(&status, &format!("page={number}"));
        let listed: Vec<String> =
            page.split("<tr><td class=f>").skip(1).map(|row| row[..11].to_owned()).collect();
        assert!((1..=200).contains(&listed.len()), "{}", listed.len());
        rows.extend(listed);
        assert!(page.contains(&format!("Page {number} of 6")));
        assert_eq!(page.contains(&format!("?page={}\">Next", number + 1)), number < 6, "{number}");
        assert_eq!(page.contains(&format!("?page={}\">Previous", number - 1)), number > 1, "{number}");
        assert_eq!(page.contains("<h2>Failed"), number == 1, "only the first page has all sections");
    }
    assert_eq!(rows, status.recipes.iter().map(ToString::to_string).collect::<Vec<_>>());
}

#[test]
fn query_that_names_no_page_shows_the_first_and_a_large_number_the_last() {
    let status = broken(1000, "");
    for query in
        ["", "page", "page=", "page=0", "page=-1", "page=x", "page=%32", "page=1e9", "a=b&page=1", "PAGE=3"]
    {
        assert!(page(&status, query).contains("Page 1 of 6"), "{query}");
    }
    for query in ["page=6", "page=7", "page=18446744073709551615", "a&page=6&b"] {
        assert!(page(&status, query).contains("Page 6 of 6"), "{query}");
    }
    assert!(page(&status, "page=18446744073709551616").contains("Page 1 of 6"));
    assert!(page(&Status::default(), "page=7").contains("There are none"));
}

#[test]
fn policy_has_the_hash_of_the_style() {
    let digest = ring::digest::digest(&ring::digest::SHA256, STYLE.as_bytes());
    let mut hash = String::new();
    for group in digest.as_ref().chunks(3) {
        let bits =
            group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        for place in 0..4 {
            let index = (bits >> (18 - 6 * place)) as usize & 63;
            hash.push(if place <= group.len() { char::from(alphabet[index]) } else { '=' });
        }
    }
    assert!(POLICY.contains(&format!("'sha256-{hash}'")), "the hash of style.css is {hash}");
    assert!(!STYLE.contains("</"), "the style would end the element");
}
