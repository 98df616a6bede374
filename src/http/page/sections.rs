//! The sections of the page. Each names a few things in full and counts the others: `/status` has them
//! all. Pure.

use std::collections::BTreeMap;

use peipkg_format::problem::{excerpt, shortened};
use peipkg_format::sort;

use crate::farm::status::{Failure, InFlight, Poll, Status, Time};
use crate::http::page::html::Html;
use crate::http::page::words::{Ago, Count, Times};

/// How many characters of a version are shown.
pub(super) const VERSION: usize = 40;

/// How many things a section names.
const NAMED: usize = 20;

/// How many warnings of one event, and problems of a refused reload, are named.
const FEW: usize = 3;

/// How many recipes with failures are shown: warnings need room too.
const FAILED: usize = 8;

/// How many failures show the end of their logs, and how many bytes of each.
const LOGS: usize = 3;
const LOG: usize = 1200;

/// How long the page may be, in bytes, before each section only counts its further things.
const ROOM: usize = 7_500;

/// How long the first thing of a section may make the page. The rest of 30 KB is for the recipes.
const MOST: usize = 9_600;

/// Writes the first of a section's things, and how many `all` has beyond them. `more` begins that line.
fn list<T>(
    html: &mut Html,
    things: impl IntoIterator<Item = T>,
    all: usize,
    more: &'static str,
    mut write: impl FnMut(&mut Html, T),
) {
    let mut named = 0;
    for thing in things.into_iter().take(NAMED) {
        if named > 0 && html.len() > ROOM {
            break;
        }
        let mut written = Html::default();
        write(&mut written, thing);
        if html.len() + written.len() > MOST {
            break;
        }
        html.append(&written);
        named += 1;
    }
    if all > named {
        html.markup(more).text("and ").text(all - named).markup(" more, see <a href=status>status</a>");
    }
}

/// The warning that [`failures`] shows.
const CANNOT_PUBLISH: &str = "dedup check failed";

/// Begins the line of [`list`] inside a list, and elsewhere.
const ITEM: &str = "<li class=d>";
const LINE: &str = "<p class=d>";

/// Writes the states that stop the whole farm or refuse a change: a drain, a pause, a refused reload.
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
        html.markup(": the recipes before it are used until you mend these and reload.<ul>");
        list(html, refused.problems.iter().take(FEW), refused.problems_length, ITEM, |html, problem| {
            html.markup("<li>").excerpt(problem);
        });
        html.markup("</ul></div>");
    }
}

/// Writes each failure, with what helps to mend it: the reading of the index, the upload, and the recipes
/// with failed versions, the one that has failed last first.
pub(super) fn failures(html: &mut Html, status: &Status, now: Time) {
    let failed_upload = status.upload.as_ref().filter(|upload| upload.failures > 0);
    let damaged = status.warnings.iter().find(|warning| warning.event == CANNOT_PUBLISH);
    if damaged.is_some() || failed_upload.is_some() || status.failures.is_some() {
        html.markup("<h2>Failed</h2>");
    }
    if let Some(damaged) = damaged {
        html.markup("<article class=b><h3>Archive index</h3><p>").excerpt(&damaged.detail);
        html.markup("<p class=d>nothing can be published: stop the manager and restore the index</article>");
    }
    if let Some(upload) = failed_upload {
        html.markup("<article class=b><h3>Upload</h3>");
        if let Some(error) = &upload.last_error {
            html.markup("<p>").excerpt(error);
        }
        html.markup("<p class=d>upload failed").text(Times(upload.failures));
        match (upload.started_at, upload.next_try) {
            (Some(started), _) => html.text(format_args!(", the next one was started {}", Ago(started, now))),
            (None, Some(next)) => html.text(format_args!(", next try {}", Ago(next, now))),
            (None, None) => html,
        };
        html.markup("</article>");
    }
    let Some(failures) = &status.failures else { return };
    let mut by_recipe: BTreeMap<&str, (&str, &Failure, usize)> = BTreeMap::new();
    for (key, failure) in failures {
        let (recipe, version) = key.split_once('@').unwrap_or((key, ""));
        let latest = by_recipe.entry(recipe).or_insert((version, failure, 0));
        latest.2 += 1;
        if latest.1.failed_at < failure.failed_at {
            (latest.0, latest.1) = (version, failure);
        }
    }
    let mut recipes: Vec<_> = by_recipe.into_iter().collect();
    sort::sort_by(&mut recipes, |(_, (_, a, _)), (_, (_, b, _))| b.failed_at.cmp(&a.failed_at));
    let (all, mut logs) = (recipes.len(), 0);
    list(
        html,
        recipes.into_iter().take(FAILED),
        all,
        LINE,
        |html, (recipe, (version, failure, versions))| {
            html.markup("<article class=b><h3>").text(recipe).markup(" ").text(shortened(version, VERSION));
            // The log has what the programs around the cause said.
            let error = failure.last_error.rsplit_once("; before that: ").filter(|_| failure.log.is_some());
            let error = error.map_or(&*failure.last_error, |(_, cause)| cause);
            html.markup("</h3><p>").excerpt(error).markup("<p class=d>");
            let Failure { failures, next_retry, stage, .. } = failure;
            html.text(stage).markup(" failed").text(Times(*failures));
            if next_retry.seconds() <= now.seconds() {
                html.markup(", waits for its next try");
            } else {
                html.text(format_args!(", next try {}", Ago(*next_retry, now)));
            }
            if versions > 1 {
                html.text(format_args!("; and {}", Count(versions - 1, "other failed version")));
            }
            logs += 1;
            if logs <= LOGS {
                log_tail(html, &failure.log_tail);
            }
            log(html, failure.log.as_deref());
            html.markup("</article>");
        },
    );
}

/// The end of a log, as far as there is room. Without the names of the steps before: the cause is what
/// the last one has written.
fn log_tail(html: &mut Html, lines: &[String]) {
    let mut tail = Vec::new();
    let mut room = LOG;
    for line in lines.iter().rev().take_while(|line| !line.starts_with("== ")) {
        let mut written = Html::default();
        written.excerpt(line).markup("\n");
        let Some(left) = room.checked_sub(written.len()) else { break };
        room = left;
        tail.push(written);
    }
    if !tail.is_empty() {
        html.markup("<pre>");
        tail.iter().rev().for_each(|line| html.append(line));
        html.markup("</pre>");
    }
}

/// Builds, publishes and what waits.
pub(super) fn work(html: &mut Html, status: &Status, now: Time) {
    let in_progress = |html: &mut Html, heading: &'static str, jobs: &[InFlight]| {
        if jobs.is_empty() {
            return;
        }
        html.markup(heading);
        list(html, jobs, jobs.len(), LINE, |html, job| {
            html.markup("<article><h3>")
                .text(&job.recipe)
                .markup(" ")
                .text(shortened(&job.version, VERSION))
                .markup("</h3>");
            html.markup("<p class=d>started ").text(Ago(job.started_at, now));
            log(html, job.log.as_deref());
            html.markup("</article>");
        });
    };
    in_progress(html, "<h2>Building</h2>", &status.builds);
    in_progress(html, "<h2>Publishing</h2>", &status.publishes);
    if status.queue_length > 0 {
        html.markup("<h2>Waiting</h2><ul class=c>");
        list(html, &status.queue, status.queue_length, ITEM, |html, waiting| {
            html.markup("<li>").text(&waiting.recipe).markup(" ").text(shortened(&waiting.version, VERSION));
            if waiting.reason != "poll" {
                html.markup(" <span class=d>").text(waiting.reason).markup("</span>");
            }
        });
        html.markup("</ul>");
    }
    if status.held_length > 0 {
        html.markup("<h2>Held</h2><ul>");
        list(html, &status.held, status.held_length, ITEM, |html, held| {
            html.markup("<li>")
                .text(&held.recipe)
                .markup(" ")
                .text(shortened(held.version.as_deref().unwrap_or_default(), VERSION));
            html.markup(" <span class=d>")
                .text(held.reason)
                .markup("; until ")
                .text(held.until)
                .markup("</span>");
        });
        html.markup("</ul>");
    }
}

/// The warnings by their events, each with a few causes.
pub(super) fn warnings(html: &mut Html, status: &Status) {
    let count = &status.warnings_by_event;
    let listed = status.warnings.iter().map(|warning| warning.event);
    let mut events: Vec<&str> = Vec::new();
    for event in listed.chain(count.keys().copied()) {
        if event != CANNOT_PUBLISH && !events.contains(&event) {
            events.push(event);
        }
    }
    let all = events.len();
    if all == 0 {
        return;
    }
    html.markup("<h2>Warnings</h2><ul>");
    list(html, events, all, ITEM, |html, event| {
        html.markup("<li>").text(event).markup(advice(event));
        let mut named = 0;
        for warning in status.warnings.iter().filter(|warning| warning.event == event).take(FEW) {
            html.markup("<p class=d>");
            if let Some(recipe) = &warning.recipe {
                html.text(recipe).markup(" ");
            }
            let (subject, detail) = (excerpt(&warning.subject), excerpt(&warning.detail));
            let colon = if subject.is_empty() || detail.is_empty() { "" } else { ": " };
            html.excerpt(&format!("{subject}{colon}{detail}"));
            named += 1;
        }
        let more = count.get(event).map_or(0, |count| count.saturating_sub(named));
        if more > 0 {
            html.markup("<p class=d>and ").text(more).markup(" more");
        }
    });
    html.markup("</ul>");
}

/// Returns what mends a warning that does not say so itself.
fn advice(event: &str) -> &'static str {
    match event {
        "no tag matches tag_pattern" => ": mend the pattern and reload",
        "published tag moved" => {
            ": ask the upstream why; raise peios_revision to build the new commit, or exclude the tag"
        }
        "published packages have no files" => ": mend build.sh, raise peios_revision and reload",
        _ => "",
    }
}

/// The upstreams that could not be listed. Recipes of one upstream share its error.
pub(super) fn failed_polls(html: &mut Html, status: &Status, now: Time) {
    let mut by_error: BTreeMap<&str, Vec<(&str, &str, &Poll)>> = BTreeMap::new();
    for (recipe, url) in &status.unlisted {
        let poll = status.polls.get(recipe);
        if let Some((poll, error)) = poll.and_then(|poll| Some((poll, poll.error.as_ref()?))) {
            by_error.entry(error).or_default().push((recipe, url, poll));
        }
    }
    if by_error.is_empty() {
        return;
    }
    html.markup("<h2>Upstreams not listed</h2><ul>");
    list(html, &by_error, by_error.len(), ITEM, |html, (error, recipes)| {
        html.markup("<li>");
        for (place, (recipe, ..)) in recipes.iter().take(NAMED).enumerate() {
            html.markup(if place == 0 { "" } else { ", " }).text(recipe);
        }
        if recipes.len() > NAMED {
            html.text(format_args!(" and {} more", recipes.len() - NAMED));
        }
        html.markup("<p class=d>");
        if let Some((_, url, _)) = recipes.first() {
            let is_one = recipes.iter().all(|(_, other, _)| other == url);
            html.excerpt(url).markup(if is_one { ": " } else { " and others: " });
        }
        html.excerpt(error);
        if let Some(next) = recipes.first().and_then(|(.., poll)| poll.next_poll) {
            html.markup("; next poll ").text(Ago(next, now));
        }
    });
    html.markup("</ul>");
}

/// How the remote stands to the repository. [`failures`] has a failed upload.
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
    if let Some(started) = status.upload.as_ref().and_then(|upload| upload.started_at) {
        html.text(format_args!(", started {}", Ago(started, now)));
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
    if hooks.unusable > 0 {
        html.text(format_args!(", {} without a repository", hooks.unusable));
    }
    if let Some(last) = hooks.last_received {
        html.text(format_args!(", last one {}", Ago(last, now)));
    }
    if let Some(last) = hooks.refused.last_refused {
        html.markup("<p class=w>")
            .text(hooks.refused.refused)
            .markup(" without a right signature, last one ");
        html.text(Ago(last, now)).markup(": compare the secrets");
    }
    if let Some(hook) = &hooks.last_unmatched {
        html.markup("<p class=w>").excerpt(&hook.repositories.join(" "));
        html.text(format_args!(" {}: {}", Ago(hook.received, now), hook.reason));
        if let Some(nearest) = &hook.nearest {
            html.text(format_args!("; the nearest recipe is {nearest}"));
        }
    }
}

/// Where the log is.
fn log(html: &mut Html, path: Option<&str>) {
    if let Some(path) = path {
        html.markup("<p class=l>").excerpt(path);
    }
}
