//! The page of hostile, large and broken farms.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::farm::status::{Failure, Held, Poll, Queued, RefusedReload, Upload, Warning};

/// The most that a page of 200 recipes may have, in bytes.
const MOST: usize = 30_000;

const HOSTILE: &str = "</pre><script>alert(1)</script><img src=x onerror='alert(1)'>\"&amp;\u{202e}";

fn at(seconds: u64) -> Time {
    Time::of(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seconds))
}

/// A farm of `count` recipes in which all that can be wrong is wrong, with `text` wherever foreign text
/// can be.
fn broken(count: usize, text: &str) -> Status {
    let recipes: Vec<Arc<str>> = (0..count).map(|number| format!("recipe{number:05}").into()).collect();
    let failure = |_| Failure {
        failures: 12,
        next_retry: at(60),
        stage: "build",
        last_error: text.to_owned(),
        log: Some(text.into()),
        log_tail: vec![text.to_owned(); 10],
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
        let order = ["Failed", "Waiting", "Warnings", "Recipes", "Upload"];
        assert!(order.map(|heading| first.find(&format!("<h2>{heading}"))).is_sorted(), "{first}");
    }
}

#[test]
fn recipes_are_listed_once_over_all_pages_and_links_lead_through() {
    let status = broken(1001, "");
    let mut rows = Vec::new();
    for number in 1..=6 {
        let page = page(&status, &format!("page={number}"));
        let listed = page.split("<tr><td class=f>").skip(1).map(|row| row[..11].to_owned());
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
        assert!(page(&status, query).contains("Page 1 of 5"), "{query}");
    }
    for query in ["page=5", "page=6", "page=18446744073709551615", "a&page=5&b"] {
        assert!(page(&status, query).contains("Page 5 of 5"), "{query}");
    }
    assert!(page(&status, "page=18446744073709551616").contains("Page 1 of 5"));
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
