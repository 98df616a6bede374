//! The versions that are built and not yet published, and which of them to publish next. Pure.
//!
//! One publish takes all versions that have never failed: groups form by themselves while a publish
//! is slow, and stay single while publishes are quick. While builds run, a publish is followed by a
//! rest: what they finish meanwhile costs no publish of its own. A version whose publish failed is tried alone
//! from then on, so one bad package delays only itself. Both kinds share the publisher's time, and so
//! do the recipes of the failed versions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use peipkg_format::archive_index::{Archive, Presence};
use peipkg_format::package::PackageName;
use peipkg_format::version::Version;

use crate::farm::counted::Counted;
use crate::farm::events::{JobKey, PendingOutputs, PublishJob};
use crate::farm::moment::Moment;
use crate::farm::turns::Turns;

/// How much longer than a publish the rest after it is: publishing must not keep a processor busy.
const REST: u32 = 3;

/// The longest rest after a publish. A version that is built must not wait long for one that is slow.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// The state of the publisher and of its queue.
#[derive(Debug, Default)]
pub(super) struct Publishing {
    /// All pending versions, by the name of their directory.
    pending: BTreeMap<String, Counted<Pending>>,
    /// The directories of each pending version.
    directories: HashMap<JobKey, Vec<String>>,
    /// The directories of the versions to publish together.
    together: BTreeSet<String>,
    /// The directories of the versions to publish alone, by recipe.
    alone: BTreeMap<Arc<str>, BTreeSet<String>>,
    turns: Turns<Kind>,
    turns_alone: Turns<Arc<str>>,
    /// The packages that are pending or being built.
    claimed: Archive,
    running: Option<Running>,
    /// When the rest after the last publish ends.
    rested: Moment,
    /// The end of the rest if a version waits for it.
    rests_until: Option<Moment>,
}

/// A pending version.
#[derive(Debug)]
struct Pending {
    outputs: PendingOutputs,
    /// The log of its build, until a publish of it alone has failed.
    log: Option<Arc<str>>,
    /// When its build was started, until a publish of it alone has failed; `None` if an earlier run
    /// built it.
    build_started: Option<Moment>,
    /// Whether a publish of it was refused, together with others or alone.
    is_suspect: bool,
}

/// The two kinds of publishes, which share the publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Together,
    Alone,
}

/// The publish in progress.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) started: Moment,
    /// Its versions. Each has its log, as soon as the publisher has begun or continued it.
    pub(super) versions: Vec<PublishJob>,
    kind: Kind,
}

impl Publishing {
    /// Adds a version that was just built. Its build has claimed its packages.
    pub(super) fn add_built(&mut self, outputs: PendingOutputs, log: Option<Arc<str>>, started: Moment) {
        self.add(Pending { outputs, log, build_started: Some(started), is_suspect: false });
    }

    /// Adds a version that an earlier run has built.
    pub(super) fn add_found(&mut self, outputs: PendingOutputs) {
        self.claim(&outputs.packages, &outputs.key.version);
        self.add(Pending { outputs, log: None, build_started: None, is_suspect: false });
    }

    fn add(&mut self, pending: Pending) {
        let directory = pending.outputs.directory.clone();
        self.directories.entry(pending.outputs.key.clone()).or_default().push(directory.clone());
        self.pending.insert(directory.clone(), Counted(pending));
        self.make_ready(directory);
    }

    /// Lets the failed publish of `key` wait for its turn.
    pub(super) fn retry(&mut self, key: &JobKey) {
        for directory in self.directories.get(key).cloned().unwrap_or_default() {
            self.make_ready(directory);
        }
    }

    fn make_ready(&mut self, directory: String) {
        let Some(pending) = self.pending.get(&directory) else { return };
        if pending.is_suspect {
            let recipe = pending.outputs.key.recipe.clone();
            self.turns.join(&Kind::Alone, false);
            self.turns_alone.join(&recipe, false);
            self.alone.entry(recipe).or_default().insert(directory);
        } else {
            self.turns.join(&Kind::Together, false);
            self.together.insert(directory);
        }
    }

    /// Removes a version that is not pending any more.
    fn remove(&mut self, directory: &str) -> Option<Pending> {
        let Counted(pending) = self.pending.remove(directory)?;
        self.take_ready(&pending.outputs);
        let PendingOutputs { key, packages, .. } = &pending.outputs;
        self.claimed.remove(packages, &key.version);
        if let Some(directories) = self.directories.get_mut(key) {
            directories.retain(|other| other != directory);
            if directories.is_empty() {
                self.directories.remove(key);
            }
        }
        Some(pending)
    }

    /// Removes a version from those that may be published now.
    fn take_ready(&mut self, outputs: &PendingOutputs) {
        self.together.remove(&outputs.directory);
        if self.together.is_empty() {
            self.turns.leave(&Kind::Together);
        }
        let recipe = &outputs.key.recipe;
        if let Some(directories) = self.alone.get_mut(recipe) {
            directories.remove(&outputs.directory);
            if directories.is_empty() {
                self.alone.remove(recipe);
                self.turns_alone.leave(recipe);
            }
        }
        if self.alone.is_empty() {
            self.turns.leave(&Kind::Alone);
        }
    }

    /// Starts the next publish, of the versions that `archive` does not have. `may_try_alone` admits the
    /// versions that were refused before. Calls `drop_published` with each version that is not pending
    /// any more because `archive` has its packages, all or some. Returns nothing if there is nothing to
    /// publish, or a publish runs.
    pub(super) fn start(
        &mut self,
        archive: &Archive,
        now: Moment,
        may_try_alone: impl Fn(&JobKey) -> bool,
        mut drop_published: impl FnMut(PendingOutputs, Presence),
    ) -> Option<Vec<PublishJob>> {
        while self.running.is_none() {
            let kind = *self.turns.iter().next()?;
            let directories: Vec<String> = match kind {
                Kind::Together => self.together.iter().cloned().collect(),
                Kind::Alone => {
                    let recipe = self.turns_alone.iter().next()?;
                    self.alone
                        .get(recipe)
                        .and_then(|directories| directories.first())
                        .cloned()
                        .into_iter()
                        .collect()
                }
            };
            let mut group = Vec::new();
            let mut taken = Archive::default();
            for directory in directories {
                let Some(pending) = self.pending.get_mut(&directory) else { continue };
                let PendingOutputs { key, packages, .. } = &pending.outputs;
                let presence = archive.presence(packages, &key.version);
                if presence != Presence::Absent {
                    if let Some(Pending { outputs, .. }) = self.remove(&directory) {
                        drop_published(outputs, presence);
                    }
                    continue;
                }
                if taken.presence(packages, &key.version) != Presence::Absent {
                    // Another version of this group has the same packages: let it go first.
                    continue;
                }
                taken.insert(packages, &key.version);
                let (log, is_new) = (pending.log.clone(), pending.build_started.is_some());
                let job = PublishJob { outputs: pending.outputs.clone(), log, is_new };
                self.take_ready(&job.outputs);
                if kind == Kind::Together || may_try_alone(&job.outputs.key) {
                    group.push(job);
                }
            }
            if let Some(first) = group.first() {
                self.turns.begin_use(&kind);
                if kind == Kind::Alone {
                    self.turns_alone.begin_use(&first.outputs.key.recipe);
                }
                self.running = Some(Running { started: now, versions: group.clone(), kind });
                return Some(group);
            }
        }
        None
    }

    /// Lets the publisher rest after the publish `running`.
    pub(super) fn rest_after(&mut self, running: &Running, now: Moment) {
        self.rested = now + (now.saturating_since(running.started) * REST).min(LONGEST_REST);
    }

    /// Whether the next publish waits for the end of the rest, because builds may finish more for it.
    pub(super) fn rests(&mut self, now: Moment, are_builds_running: bool) -> bool {
        let waits = self.running.is_none() && are_builds_running && self.ready_len() > 0;
        self.rests_until = (waits && now < self.rested).then_some(self.rested);
        self.rests_until.is_some()
    }

    /// Returns when a waiting version is published, although builds may still run.
    pub(super) fn rests_until(&self) -> Option<Moment> {
        self.rests_until
    }

    /// Returns the publish in progress.
    pub(super) fn running(&self) -> Option<&Running> {
        self.running.as_ref()
    }

    /// Records the log of a version of the publish in progress.
    pub(super) fn set_log(&mut self, key: &JobKey, log: &Arc<str>) {
        let versions = self.running.iter_mut().flat_map(|running| &mut running.versions);
        for job in versions.filter(|job| job.outputs.key == *key) {
            job.log = Some(log.clone());
        }
    }

    /// Ends the publish in progress. Returns it, with its versions still pending.
    pub(super) fn end(&mut self, now: Moment) -> Option<Running> {
        let running = self.running.take()?;
        let took = now.saturating_since(running.started);
        self.turns.end_use(&running.kind, took);
        if let (Kind::Alone, Some(job)) = (running.kind, running.versions.first()) {
            self.turns_alone.end_use(&job.outputs.key.recipe, took);
        }
        Some(running)
    }

    /// Removes a version that is published, or whose packages are gone. Returns when its build was
    /// started, if that was part of the same attempt.
    pub(super) fn finish(&mut self, directory: &str) -> Option<Moment> {
        self.remove(directory)?.build_started
    }

    /// Lets a version wait for the next publish: the last one ended without trying it.
    pub(super) fn put_back(&mut self, directory: String) {
        self.make_ready(directory);
    }

    /// Lets a version of a refused group wait for a publish of its own.
    pub(super) fn suspect(&mut self, directory: String) {
        if let Some(pending) = self.pending.get_mut(&directory) {
            pending.is_suspect = true;
        }
        self.make_ready(directory);
    }

    /// Records that the publish of a version alone has failed. It waits for [`Self::retry`].
    pub(super) fn fail(&mut self, directory: &str) {
        if let Some(pending) = self.pending.get_mut(directory) {
            pending.is_suspect = true;
            pending.log = None;
            pending.build_started = None;
        }
    }

    /// Whether a version is pending.
    pub(super) fn is_pending(&self, key: &JobKey) -> bool {
        self.directories.contains_key(key)
    }

    /// Returns the versions that are pending.
    pub(super) fn keys(&self) -> impl Iterator<Item = &JobKey> {
        self.directories.keys()
    }

    /// Returns how many versions are pending, without those of the publish in progress.
    pub(super) fn waiting(&self) -> usize {
        self.pending.len() - self.running.as_ref().map_or(0, |running| running.versions.len())
    }

    /// Returns the versions that may be published now, in no useful order.
    pub(super) fn ready(&self) -> impl Iterator<Item = &PendingOutputs> {
        let directories = self.together.iter().chain(self.alone.values().flatten());
        directories.filter_map(|directory| Some(&self.pending.get(directory)?.outputs))
    }

    /// Returns how many versions may be published now.
    pub(super) fn ready_len(&self) -> usize {
        self.together.len() + self.alone.values().map(BTreeSet::len).sum::<usize>()
    }

    /// Claims packages for a build.
    pub(super) fn claim(&mut self, packages: &[PackageName], version: &Version) {
        self.claimed.insert(packages, version);
    }

    /// Releases the claim of a build that left no packages.
    pub(super) fn unclaim(&mut self, packages: &[PackageName], version: &Version) {
        self.claimed.remove(packages, version);
    }

    /// Whether a build makes one of these packages, or has made it.
    pub(super) fn is_claimed(&self, packages: &[PackageName], version: &Version) -> bool {
        self.claimed.presence(packages, version) != Presence::Absent
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.directories.is_empty() && self.claimed.is_empty()
    }
}
