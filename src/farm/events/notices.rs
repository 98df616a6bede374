//! The notices to the operator, each a line of the log. [`crate::app::notices`] holds their texts.
//! Pure.

use std::sync::Arc;
use std::time::Duration;

use peipkg_format::object_id::ObjectId;
use peipkg_format::problem::Problem;

use super::jobs::JobKey;
use crate::recipe::upstream_url::UpstreamUrl;

/// A notice to the operator; one log line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the variants and fields are the log's own vocabulary, documented with the log events"
)]
pub(crate) enum Notice {
    RosterLoaded {
        count: usize,
    },
    ReloadRefused {
        problems: Vec<Problem>,
    },
    WebhookAccepted {
        recipe: Arc<str>,
    },
    WebhookUnmatched {
        names: Vec<String>,
        reason: &'static str,
        nearest: Option<(Arc<str>, UpstreamUrl)>,
        not_logged: u64,
    },
    PollStarted {
        recipe: Arc<str>,
        upstream: UpstreamUrl,
    },
    PollComplete {
        recipe: Arc<str>,
        tags_seen: usize,
        matches: usize,
        queued: usize,
    },
    PollFailed {
        recipe: Arc<str>,
        upstream: UpstreamUrl,
        reason: String,
        next_poll: Option<Duration>,
    },
    NoTagMatches {
        recipe: Arc<str>,
        tag_pattern: String,
        example: String,
    },
    ExcludeNamesNoTag {
        recipe: Arc<str>,
        exclude: String,
        example: String,
    },
    TagSkipped {
        recipe: Arc<str>,
        tag: String,
        reason: String,
    },
    MoreTagsSkipped {
        recipe: Arc<str>,
        count: usize,
    },
    PartlyPublished {
        key: JobKey,
    },
    TagMoved {
        key: JobKey,
        tag: String,
        published: ObjectId,
        listed: ObjectId,
    },
    MoreTagsMoved {
        recipe: Arc<str>,
        count: usize,
    },
    TagMovedBack {
        key: JobKey,
        tag: String,
    },
    DedupCheckFailed {
        recipe: Arc<str>,
        reason: String,
    },
    DedupCheckSucceeded,
    BuildStarted {
        key: JobKey,
        tag: String,
    },
    AlreadyPublished {
        key: JobKey,
    },
    PublishStarted {
        key: JobKey,
    },
    BuildComplete {
        key: JobKey,
        took: Duration,
    },
    BuildFailed {
        key: JobKey,
        failures: u32,
        retry_after: Option<Duration>,
        log: Option<Arc<str>>,
        reason: String,
    },
    PublishFailed {
        key: JobKey,
        failures: u32,
        retry_after: Option<Duration>,
        log: Option<Arc<str>>,
        reason: String,
    },
    RecipeChanged {
        key: JobKey,
    },
    RecipeLeftOut {
        recipe: Arc<str>,
        versions: usize,
    },
    UpstreamLeftOut {
        upstream: UpstreamUrl,
        versions: usize,
    },
    VersionsLeftOut {
        recipe: Arc<str>,
        versions: usize,
    },
    GroupRefused {
        versions: usize,
        reason: String,
    },
    OutputsGone {
        key: JobKey,
    },
    BuildInterrupted {
        key: JobKey,
    },
    UploadStarted,
    UploadComplete {
        took: Duration,
        recovered: bool,
    },
    UploadFailed {
        failures: u32,
        retry_after: Option<Duration>,
        reason: String,
    },
    BuildsPaused,
    BuildsResumed,
    NoFilesPublished {
        key: JobKey,
    },
    RecipePaused {
        recipe: Arc<str>,
    },
    Draining {
        in_flight: Vec<JobKey>,
    },
    Aborting,
}
