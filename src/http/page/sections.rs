//! The sections of the page. Each names a few things in full and counts the others: `/status` has them
//! all. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use peipkg_format::problem::excerpt;
use peipkg_format::sort;

use crate::farm::status::{Failure, InFlight, Poll, Status, Time};
use crate::http::page::html::Html;
use crate::http::page::words::{Ago, Count};

/// How many recipes a page lists.
pub(super) const RECIPES: usize = 200;

/// How many things a section names.
const NAMED: usize = 20;

/// How long the page may be, in bytes, before failures are shown without the end of their logs.
const ROOM_FOR_LOGS: usize = 6 * 1024;

/// How long the page may be, in bytes, before each section only counts its further things. The rest of
/// 30 KB is for the recipes.
const ROOM: usize = 10 * 1024;

/// Writes the first of a section's things, at least one, and how many `all` has beyond them.
fn list<T>(
    html: &mut Html,
    things: impl IntoIterator<Item = T>,
    all: usize,
    mut write: impl FnMut(&mut Html, T),
) {
    let mut named = 0;
    for thing in things.into_iter().take(NAMED) {
        if named > 0 && html.len() > ROOM {
            break;
        }
        write(html, thing);
        named += 1;
    }
    if all > named {
        html.markup("<li class=d>and ").text(all - named).markup(" more, see <a href=status>status</a>");
    }
}

/// What holds the whole farm, or keeps it from a change.
pub(super) fn notices(html: &mut Html, status: &Status, now: Time) {
    if status.draining {
        html.markup("<p class=n>The manager stops as soon as the builds in progress are published.");
    }
    if let Some(since) = status.paused_since {
        html.markup("<p class=n>Builds were paused ").text(Ago(since, now));
        html.markup(": remove the file <code>pause</code> from the state directory and reload.");
    }
    if let Some(refused) = &status.reload_refused {
        html.markup("<div class=n>A reload was refused ").text(Ago(refused.at, now));
        html.markup(", the recipes before it are used.<ul>");
        list(html, &refused.problems, refused.problems_length, |html, problem| {
            html.markup("<li>").text(excerpt(problem));
        });
        html.markup("</ul></div>");
    }
}

/// The failed versions, with what helps to mend them.
pub(super) fn failures(html: &mut Html, status: &Status, now: Time) {
    let Some(failures) = &status.failures else { return };
    html.markup("<h2>Failed</h2>");
    list(html, failures, failures.len(), |html, (version, failure)| {
        html.markup("<article class=b><h3>").text(spaced(version)).markup("</h3><p>");
        html.text(excerpt(&failure.last_error)).markup("<p class=d>");
        let Failure { failures, next_retry, stage, .. } = failure;
        html.text(stage).markup(" failed");
        if *failures > 1 {
            html.text(format_args!(" {failures} times"));
        }
        if next_retry.seconds() <= now.seconds() {
            html.markup(", waits for its next try");
        } else {
            html.text(format_args!(", next try {}", Ago(*next_retry, now)));
        }
        // Without the names of the steps before: the cause is what the last one has written.
        let mut tail = failure.log_tail.iter().skip_while(|line| line.starts_with("== ")).peekable();
        if tail.peek().is_some() && html.len() < ROOM_FOR_LOGS {
            html.markup("<pre>");
            for line in tail {
                html.text(line).markup("\n");
            }
            html.markup("</pre>");
        }
        log(html, failure.log.as_deref());
        html.markup("</article>");
    });
}

/// Builds, publishes and what waits.
pub(super) fn work(html: &mut Html, status: &Status, now: Time) {
    let in_progress = |html: &mut Html, heading: &'static str, jobs: &[InFlight]| {
        if jobs.is_empty() {
            return;
        }
        html.markup(heading);
        list(html, jobs, jobs.len(), |html, job| {
            html.markup("<article><h3>").text(&job.recipe).markup(" ").text(&job.version).markup("</h3>");
            html.markup("<p class=d>started ").text(Ago(job.started_at, now));
            log(html, job.log.as_deref());
            html.markup("</article>");
        });
    };
    in_progress(html, "<h2>Building</h2>", &status.builds);
    in_progress(html, "<h2>Publishing</h2>", &status.publishes);
    if status.queue_length > 0 {
        html.markup("<h2>Waiting</h2><ul class=c>");
        list(html, &status.queue, status.queue_length, |html, waiting| {
            html.markup("<li>").text(&waiting.recipe).markup(" ").text(&waiting.version);
            if waiting.reason != "poll" {
                html.markup(" <span class=d>").text(waiting.reason).markup("</span>");
            }
        });
        html.markup("</ul>");
    }
    if status.held_length > 0 {
        html.markup("<h2>Held</h2><ul>");
        list(html, &status.held, status.held_length, |html, held| {
            html.markup("<li>")
                .text(&held.recipe)
                .markup(" ")
                .text(held.version.as_deref().unwrap_or_default());
            html.markup(" <span class=d>")
                .text(held.reason)
                .markup("; until ")
                .text(held.until)
                .markup("</span>");
        });
        html.markup("</ul>");
    }
}

/// The warnings.
pub(super) fn warnings(html: &mut Html, status: &Status) {
    if status.warnings_length == 0 {
        return;
    }
    html.markup("<h2>Warnings</h2><ul>");
    list(html, &status.warnings, status.warnings_length, |html, warning| {
        html.markup("<li>");
        if let Some(recipe) = &warning.recipe {
            html.text(recipe).markup(": ");
        }
        html.text(warning.event);
        for part in [&warning.subject, &warning.detail].into_iter().filter(|part| !part.is_empty()) {
            html.markup(" <span class=d>").text(excerpt(part)).markup("</span>");
        }
    });
    html.markup("</ul>");
}

/// The upstreams that could not be listed. Recipes of one upstream share its error.
pub(super) fn failed_polls(html: &mut Html, status: &Status, now: Time) {
    let mut by_error: BTreeMap<&str, Vec<(&str, &Poll)>> = BTreeMap::new();
    for (recipe, poll) in &status.polls {
        if let Some(error) = &poll.error {
            by_error.entry(error).or_default().push((recipe, poll));
        }
    }
    if by_error.is_empty() {
        return;
    }
    html.markup("<h2>Upstreams not listed</h2><ul>");
    list(html, &by_error, by_error.len(), |html, (error, recipes)| {
        html.markup("<li>");
        for (place, (recipe, _)) in recipes.iter().take(NAMED).enumerate() {
            html.markup(if place == 0 { "" } else { ", " }).text(recipe);
        }
        if recipes.len() > NAMED {
            html.text(format_args!(" and {} more", recipes.len() - NAMED));
        }
        html.markup(" <span class=d>").text(excerpt(error));
        if let Some(next) = recipes.first().and_then(|(_, poll)| poll.next_poll) {
            html.markup("; next poll ").text(Ago(next, now));
        }
        html.markup("</span>");
    });
    html.markup("</ul>");
}

/// One page of the recipes.
pub(super) fn recipes(html: &mut Html, status: &Status, now: Time, number: usize, last: usize) {
    html.markup("<h2>Recipes</h2>");
    if status.recipes.is_empty() {
        html.markup("<p class=d>There are none. Each directory in recipes_dir with a peipkg.toml is one.");
        return;
    }
    let failed =
        status.failures.iter().flatten().map(|(version, _)| version.split('@').next().unwrap_or(version));
    let failed = failed.fold(BTreeSet::new(), sort::included);
    let held = status.held.iter().filter(|held| held.version.is_none());
    let held = held.map(|held| &*held.recipe).fold(BTreeSet::new(), sort::included);
    html.markup("<table>");
    if last > 1 {
        html.markup("<caption>").text(format_args!("Page {number} of {last}")).markup("</caption>");
    }
    html.markup("<tr><th>Recipe<th>Published<th>Tags<th>Polled<th>Next poll");
    for id in status.recipes.iter().skip((number - 1) * RECIPES).take(RECIPES) {
        html.markup(if failed.contains(&**id) { "<tr><td class=f>" } else { "<tr><td>" }).text(id);
        let Some(poll) = status.polls.get(id) else {
            html.markup("<td class=d>built by hand<td><td><td>");
            continue;
        };
        html.markup("<td>").text(poll.newest_published.as_deref().unwrap_or("–"));
        match (poll.tags_matched, poll.tags_seen) {
            (Some(0), Some(seen)) if seen > 0 => html.markup("<td class=w>0 of ").text(seen),
            (Some(matched), _) => html.markup("<td>").text(matched),
            (None, _) => html.markup("<td>"),
        };
        html.markup(if poll.error.is_some() { "<td class=w>" } else { "<td>" });
        html.text(poll.last_poll.map(|at| Ago(at, now)).as_ref().map_or(&"" as &dyn Display, |ago| ago));
        html.markup("<td>");
        html.text(poll.next_poll.map(|at| Ago(at, now)).as_ref().map_or(&"now" as &dyn Display, |ago| ago));
        if held.contains(&**id) {
            html.markup(", held");
        }
    }
    html.markup("</table>");
    if last > 1 {
        let link = |html: &mut Html, markup: &'static str, to: usize| {
            html.markup("<a href=\"?page=").text(to).markup(markup);
        };
        html.markup("<nav>");
        if number > 1 {
            link(html, "\">First</a>", 1);
            link(html, "\">Previous</a>", number - 1);
        }
        if number < last {
            link(html, "\">Next</a>", number + 1);
            link(html, "\">Last</a>", last);
        }
        html.markup("</nav>");
    }
}

/// How the remote stands to the repository.
pub(super) fn upload(html: &mut Html, status: &Status, now: Time) {
    html.markup("<h2>Upload</h2>").markup(match status.upload_state {
        "not configured" => "<p>No remote is configured",
        "up to date" => "<p>The remote is up to date",
        "running" => "<p>An upload runs",
        "waiting" => "<p>An upload waits",
        _ => "<p class=f>The last upload failed",
    });
    if let Some(done) = &status.last_upload {
        html.text(format_args!(", last upload {} took {} s", Ago(done.finished_at, now), done.took_seconds));
    }
    let Some(upload) = &status.upload else { return };
    if let Some(started) = upload.started_at {
        html.text(format_args!(", started {}", Ago(started, now)));
    }
    if upload.failures > 0 {
        html.text(format_args!(", {}", Count(upload.failures as usize, "failure")));
    }
    if let Some(next) = upload.next_try {
        html.text(format_args!(", next try {}", Ago(next, now)));
    }
    if let Some(error) = &upload.last_error {
        html.markup("<p class=f>").text(excerpt(error));
    }
}

/// The webhooks since the start.
pub(super) fn webhooks(html: &mut Html, status: &Status, now: Time) {
    let hooks = &status.webhooks;
    html.markup("<h2>Webhooks</h2><p>");
    html.text(format_args!(
        "{} received, {} matched, {} unmatched",
        hooks.received, hooks.matched, hooks.unmatched
    ));
    if let Some(last) = hooks.last_received {
        html.text(format_args!(", last one {}", Ago(last, now)));
    }
    if let Some(hook) = &hooks.last_unmatched {
        html.markup("<p class=w>").text(excerpt(&hook.repositories.join(" ")));
        html.text(format_args!(" {}: {}", Ago(hook.received, now), hook.reason));
        if let Some(nearest) = &hook.nearest {
            html.text(format_args!("; the nearest recipe is {nearest}"));
        }
    }
}

/// Where the log is.
fn log(html: &mut Html, path: Option<&str>) {
    if let Some(path) = path {
        html.markup("<p class=l>").text(path);
    }
}

/// Returns `<recipe>@<version>` as people read it.
fn spaced(version: &str) -> String {
    version.replacen('@', " ", 1)
}
