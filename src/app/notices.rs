//! Logs the core's notices. Operators alert on these texts, so they are part of the interface, and
//! docs/monitoring.md lists them.

use std::time::Duration;

use log::{debug, error, info, warn};
use peipkg_format::duration;
use peipkg_format::problem::{Problem, shortened};

use crate::farm::events::{JobKey, Notice};

/// Logs a notice.
pub(super) fn log(notice: &Notice) {
    match notice {
        Notice::RosterLoaded { .. }
        | Notice::ReloadRefused { .. }
        | Notice::WebhookAccepted { .. }
        | Notice::WebhookUnmatched { .. }
        | Notice::BuildsPaused
        | Notice::BuildsResumed
        | Notice::RecipePaused { .. }
        | Notice::Draining { .. }
        | Notice::Aborting => log_farm(notice),
        Notice::PollStarted { .. }
        | Notice::PollComplete { .. }
        | Notice::PollFailed { .. }
        | Notice::NoTagMatches { .. }
        | Notice::ExcludeNamesNoTag { .. }
        | Notice::TagSkipped { .. }
        | Notice::MoreTagsSkipped { .. }
        | Notice::PartlyPublished { .. }
        | Notice::TagMoved { .. }
        | Notice::MoreTagsMoved { .. }
        | Notice::TagMovedBack { .. }
        | Notice::DedupCheckFailed { .. }
        | Notice::DedupCheckSucceeded
        | Notice::VersionsLeftOut { .. } => log_poll(notice),
        Notice::BuildStarted { .. }
        | Notice::BuildFailed { .. }
        | Notice::BuildInterrupted { .. }
        | Notice::RecipeChanged { .. }
        | Notice::RecipeLeftOut { .. }
        | Notice::UpstreamLeftOut { .. } => log_build(notice),
        Notice::BuildComplete { .. }
        | Notice::AlreadyPublished { .. }
        | Notice::PublishStarted { .. }
        | Notice::PublishFailed { .. }
        | Notice::GroupRefused { .. }
        | Notice::OutputsGone { .. }
        | Notice::NoFilesPublished { .. }
        | Notice::UploadStarted
        | Notice::UploadComplete { .. }
        | Notice::UploadFailed { .. } => log_publish(notice),
    }
}

/// Logs a notice about the life of the farm, reloads and webhooks.
fn log_farm(notice: &Notice) {
    match notice {
        Notice::RosterLoaded { count } => info!(count; "recipe roster loaded"),
        Notice::ReloadRefused { problems } => {
            for problem in problems {
                error!(problem:%; "reload refused, the current recipes stay");
            }
        }
        Notice::WebhookAccepted { recipe } => info!(recipe:%; "webhook accepted, triggering immediate poll"),
        Notice::WebhookUnmatched { names, reason, nearest, not_logged } => {
            let repositories = names.join(" ");
            let (nearest, nearest_upstream) =
                nearest.as_ref().map(|(recipe, upstream)| (&**recipe, upstream.to_string())).unzip();
            warn!(repositories, reason, nearest, nearest_upstream, not_logged; "webhook matches no recipe");
        }
        Notice::Draining { in_flight } if in_flight.is_empty() => info!("stopping, no build in progress"),
        Notice::Draining { in_flight } => {
            for JobKey { recipe, version } in in_flight {
                info!(recipe:%, version:%; "stopping after the build in progress");
            }
        }
        Notice::BuildsPaused => warn!(advice = "remove state_dir/pause and reload"; "builds are paused"),
        Notice::BuildsResumed => info!("builds go on"),
        Notice::RecipePaused { recipe } => info!(recipe:%; "recipe is paused, polling it without builds"),
        Notice::Aborting => warn!("stopping at once"),
        other => debug_assert!(false, "{other:?} is of another topic"),
    }
}

/// Logs a notice about polls and the tags that they find.
fn log_poll(notice: &Notice) {
    match notice {
        Notice::PollStarted { recipe, upstream } => info!(recipe:%, upstream:%; "polling upstream"),
        Notice::PollComplete { recipe, tags_seen, matches, queued } => {
            info!(recipe:%, tags_seen, matches_emitted = matches, queued; "poll complete");
        }
        Notice::PollFailed { recipe, upstream, reason, next_poll } => {
            let next_poll_after = next_poll.map(duration::format);
            warn!(recipe:%, upstream:%, error = reason, next_poll_after; "poll failed");
        }
        Notice::NoTagMatches { recipe, tag_pattern, example } => {
            warn!(recipe:%, tag_pattern, example; "no tag matches tag_pattern");
        }
        Notice::ExcludeNamesNoTag { recipe, exclude, example } => {
            warn!(recipe:%, exclude, example; "exclude names no tag of the upstream");
        }
        Notice::TagSkipped { recipe, tag, reason } => warn!(recipe:%, tag, reason; "tag skipped"),
        Notice::MoreTagsSkipped { recipe, count } => warn!(recipe:%, count; "more tags skipped"),
        Notice::PartlyPublished { key: JobKey { recipe, version } } => {
            warn!(recipe:%, version:%, advice = "raise peios_revision"; "version is only partly published, skipping it");
        }
        Notice::TagMoved { key: JobKey { recipe, version }, tag, published, listed } => {
            warn!(recipe:%, version:%, tag, published_commit:% = published, listed_commit:% = listed; "published tag moved");
        }
        Notice::MoreTagsMoved { recipe, count } => warn!(recipe:%, count; "more published tags moved"),
        Notice::TagMovedBack { key: JobKey { recipe, version }, tag } => {
            info!(recipe:%, version:%, tag; "published tag points back");
        }
        Notice::DedupCheckFailed { recipe, reason } => warn!(recipe:%, error = reason; "dedup check failed"),
        Notice::DedupCheckSucceeded => info!("dedup check succeeded"),
        Notice::VersionsLeftOut { recipe, versions } => {
            warn!(recipe:%, versions; "too many versions wait, leaving the oldest to later polls");
        }
        other => debug_assert!(false, "{other:?} is of another topic"),
    }
}

/// Logs a notice about builds.
fn log_build(notice: &Notice) {
    match notice {
        Notice::BuildStarted { key: JobKey { recipe, version }, tag } => {
            info!(recipe:%, version:%, tag; "starting build");
        }
        Notice::BuildFailed { key: JobKey { recipe, version }, failures, retry_after, log, reason } => {
            let next_retry_after = retry_after.map(duration::format);
            let log = log.as_deref();
            error!(recipe:%, version:%, failures, next_retry_after, log, error = reason; "build failed");
        }
        Notice::BuildInterrupted { key: JobKey { recipe, version } } => {
            warn!(recipe:%, version:%; "build interrupted");
        }
        Notice::RecipeChanged { key: JobKey { recipe, version } } => {
            warn!(recipe:%, version:%, advice = "reload with SIGHUP"; "recipe changed, waiting for a reload");
        }
        Notice::RecipeLeftOut { recipe, versions } => {
            warn!(recipe:%, versions; "build timed out, leaving other versions of this recipe to the next sweep");
        }
        Notice::UpstreamLeftOut { upstream, versions } => {
            warn!(upstream:%, versions; "fetch hung, leaving other versions of this upstream to the next sweep");
        }
        other => debug_assert!(false, "{other:?} is of another topic"),
    }
}

/// Logs a notice about publishes and uploads.
fn log_publish(notice: &Notice) {
    match notice {
        Notice::BuildComplete { key: JobKey { recipe, version }, took } => {
            let took = rounded(*took);
            info!(recipe:%, version:%, took; "build + publish complete");
        }
        Notice::AlreadyPublished { key: JobKey { recipe, version } } => {
            info!(recipe:%, version:%; "pending packages are already published, removing them");
        }
        Notice::PublishStarted { key: JobKey { recipe, version } } => {
            info!(recipe:%, version:%; "publishing pending packages");
        }
        Notice::PublishFailed { key: JobKey { recipe, version }, failures, retry_after, log, reason } => {
            let next_retry_after = retry_after.map(duration::format);
            let log = log.as_deref();
            error!(recipe:%, version:%, failures, next_retry_after, log, error = reason; "publish failed");
        }
        Notice::GroupRefused { versions, reason } => {
            warn!(versions, error = reason; "publish of several versions failed, publishing each alone");
        }
        Notice::NoFilesPublished { key: JobKey { recipe, version } } => {
            let advice = "check that build.sh installs below DESTDIR";
            warn!(recipe:%, version:%, advice; "published packages have no files");
        }
        Notice::OutputsGone { key: JobKey { recipe, version } } => {
            warn!(recipe:%, version:%; "pending packages are gone, building the version again");
        }
        Notice::UploadStarted => debug!("starting upload"),
        Notice::UploadComplete { took, .. } => {
            let took = rounded(*took);
            info!(took; "upload complete");
        }
        Notice::UploadFailed { failures, retry_after, reason } => {
            let next_retry_after = retry_after.map(duration::format);
            error!(failures, next_retry_after, error = reason; "upload failed");
        }
        other => debug_assert!(false, "{other:?} is of another topic"),
    }
}

/// Whether a notice only says that a poll goes on, or has found nothing new.
pub(super) fn is_no_news(notice: &Notice) -> bool {
    matches!(notice, Notice::PollStarted { .. } | Notice::PollComplete { queued: 0, .. })
}

/// Returns the problems of a refused reload in one line, as many as one has room for.
pub(super) fn shown_problems(problems: &[Problem]) -> String {
    const MOST: usize = 2000;
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    shortened(&problems.join("; "), MOST).into_owned()
}

/// Formats a duration, rounded down to milliseconds.
fn rounded(took: Duration) -> String {
    duration::format(Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)))
}
