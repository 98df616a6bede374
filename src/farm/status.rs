//! The document of `/status`: an immutable snapshot of the farm, which holds no secret. Pure.

mod by_recipe;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

pub use crate::farm::calendar::{Calendar, Time};
pub use crate::farm::status::by_recipe::ByRecipe;

/// How many entries a list of the document has at most. An upstream may have any number of tags.
pub(crate) const LISTED: usize = 1000;

/// The document. Users depend on the names and order of the first six fields; further ones may be
/// added.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Status {
    /// `[manager] id`.
    pub farm_id: Arc<str>,
    /// The ids of all recipes, in order.
    pub recipes: Vec<Arc<str>>,
    /// Builds started since the manager was.
    pub builds_attempted: u64,
    /// Versions published since the manager was started.
    pub builds_succeeded: u64,
    /// The oldest build in progress, else a version whose publish is in progress.
    pub in_flight: Option<InFlight>,
    /// The failed versions that wait for a retry, by `<recipe>@<version>`; null if there are none.
    pub failures: Option<BTreeMap<String, Failure>>,
    /// The manager's version.
    pub version: &'static str,
    /// When the manager was started.
    pub started_at: Time,
    /// The versions that wait for a builder or the publisher, recipe by recipe; only the first of a
    /// long queue.
    pub queue: Vec<Queued>,
    /// How many versions wait for a builder or the publisher, in all.
    pub queue_length: usize,
    /// All builds in progress, the oldest first.
    pub builds: Vec<InFlight>,
    /// The versions of the publish in progress.
    pub publishes: Vec<InFlight>,
    /// The polls of each recipe with an upstream.
    pub polls: ByRecipe<Poll>,
    /// The signed webhooks since the manager was started.
    pub webhooks: Webhooks,
    /// The upload that is owed to the remote, if one is.
    pub upload: Option<Upload>,
    /// How the remote stands to the repository: `not configured`, `up to date`, `waiting`, `running` or
    /// `failed`.
    pub upload_state: &'static str,
    /// The last successful upload since the manager was started.
    pub last_upload: Option<Done>,
    /// Whether the manager has been told to stop.
    pub draining: bool,
    /// Since when the file `pause` holds all builds.
    pub paused_since: Option<Time>,
    /// The recipes and versions that are held although nothing has failed; only the first of many.
    pub held: Vec<Held>,
    /// How many entries `held` would have in all.
    pub held_length: usize,
    /// The last reload, if it was refused.
    pub reload_refused: Option<RefusedReload>,
    /// The warnings that the log gave once and that still hold; only the first of many.
    pub warnings: Vec<Warning>,
    /// How many warnings there are in all.
    pub warnings_length: usize,
    /// Counts of the notifications; null without `[notify]`.
    pub notifications: Option<Notifications>,
    /// How many warnings of each event there are, for `/metrics`.
    #[serde(skip)]
    pub warnings_by_event: BTreeMap<&'static str, usize>,
    /// All recipes that are held, for the page.
    #[serde(skip)]
    pub held_recipes: BTreeSet<Arc<str>>,
    /// The recipes whose upstreams could not be listed, each with the URL, for the page.
    #[serde(skip)]
    pub unlisted: Vec<(Arc<str>, Arc<str>)>,
    /// Counts since the start, for `/metrics`.
    #[serde(skip)]
    pub totals: Totals,
}

/// Counts since the manager was started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Listings that ended.
    pub polls: u64,
    /// Those that failed.
    pub polls_failed: u64,
    /// When the last one ended.
    pub last_poll: Option<Time>,
    /// When the last successful listing ended of the upstream for which this is longest ago; before its
    /// first one, since when it is watched.
    pub oldest_listing: Option<Time>,
    /// Builds that failed.
    pub builds_failed: u64,
    /// Publishes that failed.
    pub publishes_failed: u64,
    /// When a version was published the last time, of whichever recipe.
    pub last_success: Option<Time>,
    /// Uploads that succeeded.
    pub uploads: u64,
    /// Those that failed.
    pub uploads_failed: u64,
}

/// Counts of the notifications since the manager was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Notifications {
    /// How many the program has taken.
    pub told: u64,
    /// With how many it has failed. They are not repeated.
    pub failed: u64,
    /// How many were dropped because too many waited.
    pub dropped: u64,
    /// How many wait, with the one that the program is told of.
    pub waiting: u64,
}

/// An upload, or a build with its publish, that has succeeded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Done {
    /// When it ended.
    pub finished_at: Time,
    /// How long it took, in seconds.
    pub took_seconds: f64,
}

/// A recipe or a version that is not built, although it has not failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The recipe's id.
    pub recipe: Arc<str>,
    /// The package version; null for all versions of the recipe.
    pub version: Option<String>,
    /// Why.
    pub reason: &'static str,
    /// The event that ends the hold.
    pub until: &'static str,
}

/// A reload that was refused: the recipes before it are still used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedReload {
    /// When.
    pub at: Time,
    /// The first problems, as in the log.
    pub problems: Vec<String>,
    /// How many there are.
    pub problems_length: usize,
}

/// A warning whose cause lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// The message of its log line.
    pub event: &'static str,
    /// The recipe that it concerns, if it concerns one.
    pub recipe: Option<Arc<str>>,
    /// The tag, version, path or the like that it concerns; empty if it concerns none.
    pub subject: String,
    /// Further detail, such as the cause.
    pub detail: String,
}

/// A build or a publish in progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InFlight {
    /// The recipe's id.
    pub recipe: Arc<str>,
    /// The package version.
    pub version: String,
    /// When it was started.
    pub started_at: Time,
    /// The name of the log file with its output.
    pub log: Option<Arc<str>>,
}

/// A version that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// How often it failed in a row.
    pub failures: u32,
    /// When it is retried.
    pub next_retry: Time,
    /// `build` or `publish`.
    pub stage: &'static str,
    /// Why it failed the last time, in one line.
    pub last_error: String,
    /// The name of the log file with the output of that attempt.
    pub log: Option<Arc<str>>,
    /// The last lines of that log, if a build failed.
    pub log_tail: Vec<String>,
    /// When it failed the last time, since the start: the page shows the latest first.
    #[serde(skip)]
    pub failed_at: Duration,
}

/// A version that waits for a builder or the publisher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Queued {
    /// The recipe's id.
    pub recipe: Arc<str>,
    /// The package version.
    pub version: String,
    /// Why it waits: `webhook`, `poll`, `retry` or `publish`.
    pub reason: &'static str,
}

/// The polls of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Poll {
    /// When the last listing of its upstream ended.
    pub last_poll: Option<Time>,
    /// How many tags there were.
    pub tags_seen: Option<usize>,
    /// Why the last listing failed.
    pub error: Option<Arc<str>>,
    /// When it is listed next; null while a listing waits or runs.
    pub next_poll: Option<Time>,
    /// How many tags were versions of the recipe when it was last matched with them.
    pub tags_matched: Option<u32>,
    /// The newest of these versions that is published.
    pub newest_published: Option<Box<str>>,
    /// The last version that was built and published since the manager was started; absent before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Box<Done>>,
}

/// The signed webhooks since the manager was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Webhooks {
    /// When the last one came, a ping included.
    pub last_received: Option<Time>,
    /// When the last one came whose repository a recipe watches.
    pub last_matched: Option<Time>,
    /// How many named a repository that no recipe watches.
    pub unmatched: u64,
    /// The last one of these.
    pub last_unmatched: Option<UnmatchedWebhook>,
    /// How many came, pings included.
    pub received: u64,
    /// How many named a repository that a recipe watches.
    pub matched: u64,
    /// How many named no repository that can be read.
    pub unusable: u64,
    /// Requests to the webhooks' paths without a right signature.
    #[serde(flatten)]
    pub refused: RefusedWebhooks,
}

/// The webhooks that had no right signature: the forge and the farm may have different secrets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RefusedWebhooks {
    /// How many came.
    pub refused: u64,
    /// When the last one came.
    pub last_refused: Option<Time>,
}

/// A signed webhook that named a repository which no recipe watches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnmatchedWebhook {
    /// When it came.
    pub received: Time,
    /// The names of the repository, as host and path.
    pub repositories: Vec<String>,
    /// Why no recipe was meant.
    pub reason: &'static str,
    /// The recipe with the most similar upstream.
    pub nearest: Option<Arc<str>>,
}

/// An upload that is owed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Upload {
    /// How often it failed in a row.
    pub failures: u32,
    /// When the upload in progress was started; null if there is none.
    pub started_at: Option<Time>,
    /// When it is tried next; null while an upload is in progress.
    pub next_try: Option<Time>,
    /// Why it failed the last time, in one line.
    pub last_error: Option<String>,
}

impl Status {
    /// Returns the document as JSON, with a final newline.
    pub fn to_json(&self) -> Vec<u8> {
        /// The bytes that nearly every recipe stays below, with its poll.
        const RECIPE: usize = 256;
        // A vector that grows would leave holes as large as the document.
        let mut json = Vec::with_capacity(RECIPE * (1 + self.polls.len()));
        // Strings, numbers and maps with string keys always serialize.
        let _ = serde_json::to_writer(&mut json, self);
        json.push(b'\n');
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_without_work_has_fixed_fields_first_and_null() {
        let status = Status { farm_id: "farm".into(), recipes: vec!["a".into()], ..Status::default() };
        let json = String::from_utf8(status.to_json()).unwrap();
        assert!(
            json.starts_with(
                r#"{"farm_id":"farm","recipes":["a"],"builds_attempted":0,"builds_succeeded":0,"in_flight":null,"failures":null,"#
            ),
            "{json}"
        );
        assert!(json.ends_with("}\n"));
    }
}
