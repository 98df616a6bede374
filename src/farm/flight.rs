//! The builds in progress, and those that hung. Decides nothing. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::farm::events::BuildJob;
use crate::farm::moment::Moment;
use crate::recipe::upstream_url::UpstreamUrl;

/// A build in progress.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) job: BuildJob,
    pub(super) started: Moment,
    /// The path of its log, once it has one.
    pub(super) log: Option<Arc<str>>,
    /// The last lines of its log, once it is about to fail.
    pub(super) log_tail: Vec<String>,
}

/// The builder time that a single sweep has lost in hung attempts.
#[derive(Debug, Default)]
pub(super) struct Lost {
    pub(super) upstreams: HashMap<UpstreamUrl, Duration>,
    pub(super) recipes: HashMap<Arc<str>, Duration>,
}
