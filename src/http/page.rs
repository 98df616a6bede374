//! The page for people at `/`: the snapshot of `/status` as HTML, the worst first. It needs no script
//! and no other file, and stays small however large the farm is. It must not change anything. Pure.

mod html;
mod recipes;
mod sections;
#[cfg(test)]
mod tests;
mod words;

use crate::farm::status::{Status, Time};
use crate::http::page::html::Html;
use crate::http::page::words::{Ago, Count};

/// The style of the page. [`POLICY`] has its hash.
const STYLE: &str = include_str!("page/style.css");

/// The answer's `Content-Security-Policy`: nothing runs and nothing is loaded, even if markup got in.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'sha256-9uqoshg+xHAIfn5aky4bJA2Aj7s0U83+sWvZX7fV074='; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Returns which page of the recipes a query asks for. A query that is none of ours gets the first.
pub(super) fn number(query: &str) -> usize {
    let asked = query.split('&').find_map(|part| part.strip_prefix("page="));
    asked.and_then(|number| number.parse().ok()).unwrap_or(1)
}

/// Renders page `number` of the recipes as of `now`; the last one if there are fewer. The first page
/// has all else too.
pub(super) fn render(status: &Status, now: Time, number: usize) -> Vec<u8> {
    let mut html = Html::default();
    let verdict = Verdict::of(status);
    html.markup("<!doctype html><html lang=en><meta charset=utf-8><title>");
    html.text(&verdict.text).markup(" · ").excerpt(&status.farm_id);
    html.markup("</title><meta name=viewport content=\"width=device-width\"><meta http-equiv=refresh content=30><style>");
    html.markup(STYLE);
    html.markup("</style><header><h1>").excerpt(&status.farm_id).markup("</h1>");
    html.markup(verdict.markup).text(&verdict.text).markup("</strong> · ");
    html.text(Count(status.recipes.len(), "recipe"));
    html.text(format_args!(" · {} building · {} waiting", status.builds.len(), status.queue_length));
    html.markup("</header><main>");
    let head = html.len();
    sections::notices(&mut html, status, now);
    sections::failures(&mut html, status, now);
    sections::failed_polls(&mut html, status, now);
    sections::work(&mut html, status, now);
    sections::warnings(&mut html, status);
    let mut rest = Html::default();
    sections::upload(&mut rest, status, now);
    sections::webhooks(&mut rest, status, now);
    // The more there is to say on the first page, the fewer recipes it has.
    let pages = recipes::pages(status, html.len() + rest.len());
    let number = number.clamp(1, pages.len());
    if number > 1 {
        html.truncate(head);
    }
    recipes::recipes(&mut html, status, now, number, &pages);
    if number == 1 {
        html.append(&rest);
    }
    html.markup("</main><footer>peipkg-manager ").text(status.version).markup(", started ");
    html.text(Ago(status.started_at, now));
    html.text(format_args!(": {} started, ", Count(as_count(status.builds_attempted), "build")));
    html.text(format_args!(
        "{} published. As of {now}, ",
        Count(as_count(status.builds_succeeded), "version")
    ));
    html.markup("loaded again every 30 s. For programs: <a href=status>status</a>, <a href=metrics>metrics</a></footer>");
    html.into_bytes()
}

fn as_count(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// The state of the farm in a few words.
struct Verdict {
    markup: &'static str,
    text: String,
}

impl Verdict {
    /// Returns the worst that there is to say.
    fn of(status: &Status) -> Self {
        let failed = status.failures.as_ref().map_or(0, std::collections::BTreeMap::len);
        let bad_polls = status.polls.values().filter(|poll| poll.error.is_some()).count();
        let held = status.held_recipes.len();
        let (markup, text) = if status.cannot_publish() {
            ("<p><strong class=f>", "Nothing can be published".to_owned())
        } else if failed > 0 {
            ("<p><strong class=f>", format!("{} failed", Count(failed, "version")))
        } else if status.upload.as_ref().is_some_and(|upload| upload.failures > 0) {
            ("<p><strong class=f>", "Upload failed".to_owned())
        } else if status.reload_refused.is_some() {
            ("<p><strong class=f>", "Reload refused".to_owned())
        } else if status.draining {
            ("<p><strong class=w>", "Stopping".to_owned())
        } else if status.paused_since.is_some() {
            ("<p><strong class=w>", "Paused".to_owned())
        } else if bad_polls > 0 {
            ("<p><strong class=w>", format!("Upstreams of {} not listed", Count(bad_polls, "recipe")))
        } else if status.warnings_length > 0 {
            ("<p><strong class=w>", Count(status.warnings_length, "warning").to_string())
        } else if held > 0 {
            ("<p><strong class=w>", format!("{} held", Count(held, "recipe")))
        } else {
            ("<p><strong class=g>", "All is well".to_owned())
        };
        Self { markup, text }
    }
}
