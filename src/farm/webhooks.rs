//! Decides which upstreams a webhook polls, and what to say about one that polls none. Pure.

use std::collections::BTreeSet;

use peipkg_format::problem::excerpt;
use peipkg_format::sort;

use crate::farm::events::Notice;
use crate::farm::hooks::Unmatched;
use crate::farm::moment::Moment;
use crate::farm::{Effects, Farm};
use crate::recipe::upstream_url::UpstreamUrl;

impl Farm {
    /// Asks for a poll of every upstream with one of these names and a recipe that wants hooks. A
    /// ping only tells whether there is one.
    pub(super) fn on_webhook_received(
        &mut self,
        repositories: &[String],
        is_ping: bool,
        now: Moment,
        effects: &mut Effects,
    ) {
        self.hooks.last_received = Some(now);
        self.hooks.received += 1;
        if repositories.is_empty() {
            self.hooks.unusable += 1;
            return;
        }
        let names = &self.hooks.names;
        let mut upstreams = self.that_want_hooks(names.find(repositories));
        if upstreams.is_empty() {
            // The URL names the host in another way: `ssh.github.com`, an alias of ssh's
            // configuration, or a prefix that git replaces.
            upstreams = self.that_want_hooks(names.find_paths(repositories));
        }
        // These come last, so that no upstream can take a name from another by a redirect.
        upstreams.extend(self.that_want_hooks(names.find_redirected(repositories)));
        if upstreams.is_empty() {
            return self.on_webhook_unmatched(repositories, now);
        }
        self.hooks.last_matched = Some(now);
        self.hooks.matched += 1;
        if is_ping || self.stopping.is_some() {
            return;
        }
        for upstream in upstreams {
            if self.schedule.trigger(&upstream, now) {
                for recipe in self.recipes_of(&upstream).filter(|id| self.wants_hooks(id)) {
                    effects.report(Notice::WebhookAccepted { recipe: recipe.clone() });
                }
            }
        }
    }

    /// Logs that a webhook has matched no recipe, if it is time. A manager that stops does not wait.
    pub(super) fn report_unmatched(&mut self, now: Moment, effects: &mut Effects) {
        if self.stopping.is_some() || self.hooks.line.due().is_some_and(|due| due <= now) {
            self.hooks.line.take(now).into_iter().for_each(|notice| effects.report(notice));
        }
    }

    fn on_webhook_unmatched(&mut self, repositories: &[String], now: Moment) {
        let names = &self.hooks.names;
        let known = names.find(repositories);
        let known = known.chain(names.find_redirected(repositories));
        let (nearest, reason) = match known.chain(names.find_paths(repositories)).min() {
            Some(upstream) => (Some(upstream), "no recipe of this upstream has github_webhook = true"),
            None => (names.nearest(repositories), "no recipe has this upstream"),
        };
        let nearest = nearest.and_then(|url| Some((self.recipes_of(url).next()?.clone(), url.clone())));
        let repositories: Vec<String> = repositories.iter().map(|name| excerpt(name).into_owned()).collect();
        let recipe = nearest.as_ref().map(|(recipe, _)| recipe.clone());
        let names = repositories.clone();
        self.hooks.line.record(Notice::WebhookUnmatched { names, reason, nearest, not_logged: 0 });
        self.hooks.unmatched += 1;
        self.hooks.last_unmatched = Some(Unmatched { received: now, repositories, reason, nearest: recipe });
    }

    /// Gives an upstream that is found at `target` the name of that place too: the forge has renamed
    /// the repository, and sends its webhooks under the new name.
    pub(super) fn on_redirect_followed(&mut self, upstream: UpstreamUrl, target: &UpstreamUrl) {
        if self.recipes_of(&upstream).next().is_some() {
            self.hooks.names.learn(upstream, target);
        }
    }

    /// Remembers the names of the watched upstreams, and forgets all others.
    pub(super) fn name_upstreams(&mut self) {
        let upstreams: Vec<_> = self.upstreams().map(|watchers| watchers[0].0.clone()).collect();
        self.hooks.names.watch(&upstreams);
    }

    fn that_want_hooks<'a>(&self, upstreams: impl Iterator<Item = &'a UpstreamUrl>) -> BTreeSet<UpstreamUrl> {
        upstreams
            .filter(|url| self.recipes_of(url).any(|id| self.wants_hooks(id)))
            .cloned()
            .fold(BTreeSet::new(), sort::included)
    }

    fn wants_hooks(&self, id: &str) -> bool {
        self.roster.get(id).is_some_and(|recipe| recipe.github_webhook)
    }
}
