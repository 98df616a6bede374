//! All who follow the farm while it works: the log, the live line of a terminal, the service manager,
//! and the program of `[notify]`. Must not decide anything about the farm.

use std::sync::Arc;
use std::time::Instant;

use log::{Level, log_enabled};

use crate::app::notices;
use crate::app::notifier::{Counts, Notifier, Unsent};
use crate::app::progress::Line;
use crate::app::service_manager::ServiceManager;
use crate::farm::Farm;
use crate::farm::events::Notice;
use crate::farm::moment::Moment;
use crate::farm::progress::Progress;
use crate::farm::status::Notifications;
use crate::recipe::upstream_url::UpstreamUrl;

/// All who follow the farm.
pub(super) struct Audience {
    /// Shows the progress of a sweep on a terminal.
    line: Option<Line>,
    /// Is told of the start, reloads and the stop.
    service: ServiceManager,
    /// Runs the program of `[notify]`, if there is one.
    notifier: Option<Notifier>,
    /// Counts the notifications, also once the notifier is closed.
    notification_counts: Option<Arc<Counts>>,
    /// The listings in progress, the oldest first, for the line.
    listings: Vec<(UpstreamUrl, Moment)>,
}

impl Audience {
    pub(super) fn new(line: Option<Line>, service: ServiceManager, notifier: Option<Notifier>) -> Self {
        let counts = notifier.as_ref().map(|notifier| notifier.counts().clone());
        Self { line, service, notifier, notification_counts: counts, listings: Vec::new() }
    }

    /// Tells everyone of `notice`, when `farm` has decided what follows from it. The live line counts the
    /// polls that have found nothing new; other events would be lost among them.
    pub(super) fn tell(&mut self, notice: &Notice, farm: &Farm) {
        if self.line.is_none() || !notices::is_no_news(notice) || log_enabled!(Level::Debug) {
            notices::log(notice);
        }
        if let Some(notifier) = &mut self.notifier {
            notifier.tell(notice, |key| farm.is_failing(key));
        }
    }

    /// Returns the counts of the notifications; none without `[notify]`.
    pub(super) fn notifications(&self) -> Option<Notifications> {
        self.notification_counts.as_ref().map(|counts| counts.status())
    }

    /// Records that a listing has started.
    pub(super) fn on_listing_started(&mut self, upstream: &UpstreamUrl, now: Moment) {
        if self.line.is_some() {
            self.listings.push((upstream.clone(), now));
        }
    }

    /// Records that a listing has ended.
    pub(super) fn on_listing_ended(&mut self, upstream: &UpstreamUrl) {
        self.listings.retain(|(other, _)| other != upstream);
    }

    /// Whether anybody looks at the progress.
    pub(super) fn wants_progress(&self) -> bool {
        self.line.is_some() || self.service.is_there()
    }

    /// Shows the progress at `now`.
    pub(super) fn show(&mut self, mut progress: Progress, now: Moment) {
        self.service.show(&progress.in_short());
        self.service.send_due(Instant::now());
        let Some(line) = &mut self.line else { return };
        let listing = || {
            let (upstream, started) = self.listings.first()?;
            let others = match self.listings.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            Some((format!("listing {upstream}{others}"), *started))
        };
        progress.work = progress.work.or_else(listing);
        line.show(progress, now);
    }

    /// Tells the service manager that the start, or a reload, is over.
    pub(super) fn ready(&self) {
        self.service.ready();
    }

    /// Tells the service manager that a reload begins.
    pub(super) fn reloading(&self) {
        self.service.reloading();
    }

    /// Tells the service manager that the farm drains or ends.
    pub(super) fn stopping(&mut self) {
        self.service.stopping();
    }

    /// Returns when the service manager is to get the next message, whatever happens until then.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.service.next_due()
    }

    /// Leaves the signs of life to a thread of their own: the loop has ended, and the end of the process
    /// may wait for others.
    pub(super) fn beat_to_the_end(&mut self) {
        std::mem::replace(&mut self.service, ServiceManager::nobody()).beat_to_the_end();
    }

    /// Closes the notifier. Returns the notifications that its program has not had yet.
    pub(super) fn close_notifications(&mut self) -> Option<Unsent> {
        self.notifier.take().map(Notifier::close)
    }

    /// Removes the line from the terminal.
    pub(super) fn leave(self) {
        if let Some(line) = &self.line {
            line.clear();
        }
    }
}
