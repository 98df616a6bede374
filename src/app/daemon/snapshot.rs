//! The state of the farm, as `/status`, the page and the metrics show it. Must not change the farm.

use std::sync::Arc;
use std::time::SystemTime;

use crate::app::daemon::Loop;
use crate::farm::status::{RefusedWebhooks, Status};
use crate::state::troubles;

impl Loop {
    /// Returns the state of the farm.
    pub(super) fn snapshot(&mut self, refused: RefusedWebhooks) -> Arc<Status> {
        let calendar = self.calendar.corrected(SystemTime::now(), self.started.elapsed());
        let troubles = troubles::all();
        let notifications = self.audience.notifications();
        let is_current = calendar.started == self.calendar.started && troubles == self.troubles;
        let is_current = |snapshot: &&Arc<Status>| {
            is_current && snapshot.webhooks.refused == refused && snapshot.notifications == notifications
        };
        if let Some(snapshot) = self.snapshot.as_ref().filter(is_current) {
            return snapshot.clone();
        }
        (self.calendar, self.troubles) = (calendar, troubles.clone());
        let mut status = self.farm.status(&self.farm_id, self.calendar);
        let (warnings, count) = troubles.into_warnings();
        status.add_warnings(warnings, count);
        status.webhooks.refused = refused;
        status.notifications = notifications;
        let snapshot = Arc::new(status);
        self.snapshot.insert(snapshot).clone()
    }
}
