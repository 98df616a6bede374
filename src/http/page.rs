//! The page for people at `/`: the snapshot of `/status` as HTML, the worst first. It needs no script
//! and no other file, and stays small however large the farm is. It must not change anything. Pure.

mod html;
mod sections;

use crate::farm::status::{Status, Time};
use crate::http::page::html::Html;

/// The style of the page. [`POLICY`] has its hash.
const STYLE: &str = include_str!("page/style.css");

/// The answer's `Content-Security-Policy`: nothing runs and nothing is loaded, even if markup got in.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'sha256-5apbjIijusHJnEcBvSs7B7o+a7Hbe19GR6Cr8trfqAY='; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// How many recipes a page lists.
pub(super) const RECIPES: usize = 200;

/// Returns which page of the recipes a query asks for. A query that is none of ours gets the first.
pub(super) fn number(query: &str) -> usize {
    let asked = query.split('&').find_map(|part| part.strip_prefix("page="));
    asked.and_then(|number| number.parse().ok()).unwrap_or(1)
}

/// Renders page `number` of the recipes as of `now`; the last one if there are fewer. The first page
/// has all else too.
pub(super) fn render(status: &Status, now: Time, number: usize) -> Vec<u8> {
    let last = status.recipes.len().div_ceil(RECIPES).max(1);
    let number = number.clamp(1, last);
    let mut html = Html::default();
    let verdict = Verdict::of(status);
    html.markup("<!doctype html><html lang=en><meta charset=utf-8><title>");
    html.text(format_args!("{} · {}", verdict.text, status.farm_id));
    html.markup("</title><meta name=viewport content=\"width=device-width\"><meta http-equiv=refresh content=30><style>");
    html.markup(STYLE);
    html.markup("</style><header><h1>").text(&status.farm_id).markup("</h1>");
    html.markup(verdict.markup).text(&verdict.text).markup("</strong> · ");
    html.text(Count(status.recipes.len(), "recipe"));
    html.text(format_args!(" · {} building · {} waiting", status.builds.len(), status.queue_length));
    html.markup("</header><main>");
    if number == 1 {
        sections::notices(&mut html, status, now);
        sections::failures(&mut html, status, now);
        sections::work(&mut html, status, now);
        sections::warnings(&mut html, status);
        sections::failed_polls(&mut html, status, now);
    }
    sections::recipes(&mut html, status, now, number, last);
    if number == 1 {
        sections::upload(&mut html, status, now);
        sections::webhooks(&mut html, status, now);
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
        let failed = status.failures.as_ref().map_or(0, |failures| failures.len());
        let bad_polls = status.polls.values().filter(|poll| poll.error.is_some()).count();
        let (markup, text) = if failed > 0 {
            ("<p class=b><strong>", format!("{} failed", Count(failed, "version")))
        } else if status.upload_state == "failed" {
            ("<p class=b><strong>", "Upload failed".to_owned())
        } else if status.reload_refused.is_some() {
            ("<p class=b><strong>", "Reload refused".to_owned())
        } else if status.draining {
            ("<p class=w><strong>", "Stopping".to_owned())
        } else if status.paused_since.is_some() {
            ("<p class=w><strong>", "Paused".to_owned())
        } else if bad_polls > 0 {
            ("<p class=w><strong>", format!("Upstreams of {} not listed", Count(bad_polls, "recipe")))
        } else if status.warnings_length > 0 {
            ("<p class=w><strong>", Count(status.warnings_length, "warning").to_string())
        } else {
            ("<p class=g><strong>", "All is well".to_owned())
        };
        Self { markup, text }
    }
}

/// A number of things.
struct Count(usize, &'static str);

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} {}{plural}", self.0, self.1)
    }
}

/// A time as its distance from now.
struct Ago(Time, Time);

impl std::fmt::Display for Ago {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (time, now) = (self.0.seconds(), self.1.seconds());
        let distance = match time.abs_diff(now) {
            0 => return f.write_str("now"),
            seconds @ ..120 => format!("{seconds} s"),
            seconds @ ..7200 => format!("{} min", seconds / 60),
            seconds @ ..172_800 => format!("{} h", seconds / 3600),
            // Further than any time that the farm plans.
            seconds if time > now && seconds > 3_652 * 86_400 => return f.write_str("never"),
            seconds => format!("{} d", seconds / 86_400),
        };
        if time > now { write!(f, "in {distance}") } else { write!(f, "{distance} ago") }
    }
}
