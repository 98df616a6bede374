//! The answer of `/metrics`: numbers of the snapshot in Prometheus's text format. It has no series for
//! each recipe, but one for each of the first recipes that fail. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use peipkg_format::sort;

use crate::farm::status::{Notifications, Status, Time, Webhooks};

/// How many failing recipes have a series of their own. Prometheus keeps each series that it has
/// ever seen.
const SERIES: usize = 100;

/// Renders the metrics.
pub(super) fn render(status: &Status) -> Vec<u8> {
    let mut out = Metrics(String::new());
    let text = |name: &'static str, value: &str| (name, value.to_owned());
    out.family("info", "gauge", "Always 1; the labels describe the manager.");
    out.labelled("info", &[text("farm_id", &status.farm_id), text("version", status.version)], 1.0);
    out.gauge("start_time_seconds", "When the manager was started, since 1970.", seconds(status.started_at));
    let totals = &status.totals;
    out.counter(
        "builds_attempted_total",
        "Builds started, and versions that an earlier run built and did not publish.",
        status.builds_attempted,
    );
    out.counter("build_failures_total", "Builds that failed.", totals.builds_failed);
    out.counter("builds_succeeded_total", "Versions published.", status.builds_succeeded);
    out.counter("publish_failures_total", "Publishes of one version that failed.", totals.publishes_failed);
    out.moment(
        "last_success_time_seconds",
        "When a version was published the last time, since 1970.",
        totals.last_success,
    );
    out.gauge("builds_in_progress", "Builds in progress.", number(status.builds.len()));
    out.moment(
        "oldest_build_start_time_seconds",
        "When the build that has run longest was started, since 1970.",
        status.builds.first().map(|build| build.started_at),
    );
    out.gauge(
        "publishes_in_progress",
        "Versions of the publish in progress.",
        number(status.publishes.len()),
    );
    out.moment(
        "publish_start_time_seconds",
        "When the publish in progress was started, since 1970.",
        status.publishes.first().map(|publish| publish.started_at),
    );
    out.gauge(
        "queue_length",
        "Versions that wait for a builder or the publisher.",
        number(status.queue_length),
    );
    out.failures(status);
    let polls = || status.polls.values();
    out.gauge("recipes", "Recipes.", number(status.recipes.len()));
    out.gauge(
        "recipes_poll_failed",
        "Recipes whose upstream could not be listed the last time.",
        number(polls().filter(|poll| poll.error.is_some()).count()),
    );
    out.gauge(
        "recipes_without_matching_tag",
        "Recipes whose upstream has tags, but none that is a version.",
        number(
            polls()
                .filter(|poll| poll.tags_matched == Some(0) && poll.tags_seen.is_some_and(|seen| seen > 0))
                .count(),
        ),
    );
    out.counter("polls_total", "Listings of upstreams that ended.", totals.polls);
    out.counter("poll_failures_total", "Listings that failed.", totals.polls_failed);
    out.moment("last_poll_time_seconds", "When a listing ended the last time, since 1970.", totals.last_poll);
    out.moment(
        "oldest_listing_time_seconds",
        "When the upstream was listed successfully for which this is longest ago, since 1970.",
        totals.oldest_listing,
    );
    out.family("warnings", "gauge", "Warnings whose causes last, by the message of their log line.");
    for (event, count) in &status.warnings_by_event {
        out.labelled("warnings", &[text("event", event)], number(*count));
    }
    out.gauge("held", "Recipes and versions that are held.", number(status.held_length));
    out.gauge("paused", "Whether the file pause holds all builds.", truth(status.paused_since.is_some()));
    out.gauge("draining", "Whether the manager has been told to stop.", truth(status.draining));
    out.gauge(
        "reload_refused",
        "Whether the last reload was refused.",
        truth(status.reload_refused.is_some()),
    );
    if status.upload_state != "not configured" {
        let upload = status.upload.as_ref();
        out.gauge("upload_pending", "Whether the remote lacks something.", truth(upload.is_some()));
        out.gauge(
            "upload_failures",
            "Failed uploads in a row.",
            upload.map_or(0.0, |upload| f64::from(upload.failures)),
        );
        out.counter("uploads_total", "Uploads that succeeded.", totals.uploads);
        out.counter("upload_failures_total", "Uploads that failed.", totals.uploads_failed);
        out.moment(
            "last_upload_time_seconds",
            "When an upload succeeded the last time, since 1970.",
            status.last_upload.as_ref().map(|done| done.finished_at),
        );
    }
    out.webhooks(&status.webhooks);
    if let Some(notifications) = &status.notifications {
        out.notifications(notifications);
    }
    out.0.into_bytes()
}

/// A text that grows. The names of all metrics begin with `peipkg_manager_`.
struct Metrics(String);

impl Metrics {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP peipkg_manager_{name} {help}\n# TYPE peipkg_manager_{name} {kind}\n");
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help);
        self.labelled(name, &[], value);
    }

    /// Adds a time, if there is one.
    fn moment(&mut self, name: &str, help: &str, time: Option<Time>) {
        if let Some(time) = time {
            self.gauge(name, help, seconds(time));
        }
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        let _ = writeln!(self.0, "peipkg_manager_{name} {value}");
    }

    fn labelled(&mut self, name: &str, labels: &[(&str, String)], value: f64) {
        let _ = write!(self.0, "peipkg_manager_{name}");
        for (place, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if place == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn webhooks(&mut self, hooks: &Webhooks) {
        self.counter("webhooks_received_total", "Signed webhooks, pings included.", hooks.received);
        self.counter(
            "webhooks_matched_total",
            "Signed webhooks for a repository that a recipe watches.",
            hooks.matched,
        );
        self.counter(
            "webhooks_unmatched_total",
            "Signed webhooks for a repository that no recipe watches.",
            hooks.unmatched,
        );
        self.counter(
            "webhooks_unusable_total",
            "Signed webhooks that name no repository, or none that can be read.",
            hooks.unusable,
        );
        self.counter(
            "webhooks_refused_total",
            "Requests to a webhook's path without a right signature.",
            hooks.refused.refused,
        );
    }

    fn notifications(&mut self, counts: &Notifications) {
        let Notifications { told, failed, dropped, waiting } = *counts;
        self.counter("notifications_total", "Notifications that the program has taken.", told);
        self.counter("notification_failures_total", "Notifications with which it failed.", failed);
        self.counter("notifications_dropped_total", "Notifications dropped as too many waited.", dropped);
        self.gauge(
            "notifications_waiting",
            "Notifications that wait for the program.",
            number(usize::try_from(waiting).unwrap_or(usize::MAX)),
        );
    }

    /// Adds how many versions fail, by stage, and the recipes with the most of them.
    fn failures(&mut self, status: &Status) {
        let mut by_stage = BTreeMap::from([("build", 0), ("publish", 0)]);
        let mut by_recipe: BTreeMap<&str, usize> = BTreeMap::new();
        for (version, failure) in status.failures.iter().flatten() {
            *by_stage.entry(failure.stage).or_default() += 1;
            *by_recipe.entry(version.split('@').next().unwrap_or_default()).or_default() += 1;
        }
        self.family("failed_versions", "gauge", "Versions that failed and wait for a retry.");
        for (stage, count) in by_stage {
            self.labelled("failed_versions", &[("stage", stage.to_owned())], number(count));
        }
        if by_recipe.is_empty() {
            return;
        }
        let mut recipes: Vec<_> = by_recipe.into_iter().collect();
        sort::sort_by(&mut recipes, |(_, a), (_, b)| b.cmp(a));
        let help = "Failed versions of a recipe, for the 100 recipes with the most of them.";
        self.family("recipe_failed_versions", "gauge", help);
        for (recipe, count) in recipes.into_iter().take(SERIES) {
            self.labelled("recipe_failed_versions", &[("recipe", recipe.to_owned())], number(count));
        }
    }
}

fn truth(value: bool) -> f64 {
    f64::from(u8::from(value))
}

#[allow(clippy::cast_precision_loss, reason = "no number here is near 2^53")]
fn number(value: usize) -> f64 {
    value as f64
}

#[allow(clippy::cast_precision_loss, reason = "no time here is near 2^53")]
fn seconds(time: Time) -> f64 {
    time.seconds() as f64
}
