//! The table of the recipes, which goes over as many pages as it needs. Pure.

use std::collections::BTreeSet;
use std::fmt::Display;

use peipkg_format::problem::shortened;
use peipkg_format::sort;

use crate::farm::status::{Status, Time};
use crate::http::page::html::Html;
use crate::http::page::sections::VERSION;
use crate::http::page::words::Ago;

/// How many recipes a page lists at most.
const RECIPES: usize = 200;

/// How many bytes the first page may have, without what follows the table, so that it stays within
/// 30 kB.
const FIRST_PAGE: usize = 29_000;

/// How many bytes the recipes of each further page may take.
const ROOM_FOR_MORE_RECIPES: usize = 25_500;

/// How many bytes a row has at most, beside the recipe's id and version.
const ROW: usize = 100;

/// Returns the first recipe of each page, at least of one. `taken` says how many bytes the first page has
/// beside its recipes. Counts each row with the longest that it can have: a page must not be too long.
pub(super) fn pages(status: &Status, taken: usize) -> Vec<usize> {
    let (mut pages, mut room) = (vec![0], FIRST_PAGE.saturating_sub(taken));
    for (place, id) in status.recipes.iter().enumerate() {
        let newest = status.polls.get(id).and_then(|poll| poll.newest_published.as_deref());
        let row = ROW + id.len() + shortened(newest.unwrap_or_default(), VERSION).len();
        let is_full = pages.last().is_some_and(|first| place - first == RECIPES);
        room = if is_full || row > room {
            pages.push(place);
            ROOM_FOR_MORE_RECIPES - row
        } else {
            room - row
        };
    }
    pages
}

/// One page of the recipes.
pub(super) fn recipes(html: &mut Html, status: &Status, now: Time, number: usize, pages: &[usize]) {
    let last = pages.len();
    html.markup("<h2>Recipes</h2>");
    if status.recipes.is_empty() {
        html.markup("<p class=d>There are none. Each directory in recipes_dir with a peipkg.toml is one.");
        return;
    }
    let failed =
        status.failures.iter().flatten().map(|(version, _)| version.split('@').next().unwrap_or(version));
    let failed = failed.fold(BTreeSet::new(), sort::included);
    html.markup("<table>");
    if last > 1 {
        html.markup("<caption>").text(format_args!("Page {number} of {last}")).markup("</caption>");
    }
    html.markup("<tr><th>Recipe<th>Published<th>Tags<th>Polled<th>Next poll");
    let first = pages.get(number - 1).copied().unwrap_or_default();
    let end = pages.get(number).copied().unwrap_or(status.recipes.len());
    for id in &status.recipes[first..end] {
        html.markup(if failed.contains(&**id) { "<tr><td class=f>" } else { "<tr><td>" }).text(id);
        let Some(poll) = status.polls.get(id) else {
            html.markup("<td class=d>built by hand<td><td><td>");
            continue;
        };
        html.markup("<td>").text(shortened(poll.newest_published.as_deref().unwrap_or("–"), VERSION));
        match (poll.tags_matched, poll.tags_seen) {
            (Some(0), Some(seen)) if seen > 0 => html.markup("<td class=w>0 of ").text(seen),
            (Some(matched), _) => html.markup("<td>").text(matched),
            (None, _) => html.markup("<td>"),
        };
        html.markup(if poll.error.is_some() { "<td class=w>" } else { "<td>" });
        html.text(poll.last_poll.map(|at| Ago(at, now)).as_ref().map_or(&"" as &dyn Display, |ago| ago));
        html.markup("<td>");
        html.text(poll.next_poll.map(|at| Ago(at, now)).as_ref().map_or(&"now" as &dyn Display, |ago| ago));
        if status.held_recipes.contains(id) {
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
