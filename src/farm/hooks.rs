//! The names under which webhooks know the upstreams, and what is remembered of the last webhooks for
//! `/status`. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use peipkg_format::sort;

use crate::farm::events::Notice;
use crate::farm::moment::Moment;
use crate::farm::schedule::hash_of;
use crate::recipe::upstream_url::UpstreamUrl;

/// The webhooks since the start, and the names of the upstreams.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    pub(super) names: Names,
    /// When the last one came, a ping included.
    pub(super) last_received: Option<Moment>,
    /// How many came, pings included.
    pub(super) received: u64,
    /// How many of them concerned a recipe.
    pub(super) matched: u64,
    /// When the last one came that concerned a recipe.
    pub(super) last_matched: Option<Moment>,
    /// How many named a repository, but concerned no recipe.
    pub(super) unmatched: u64,
    /// The last one of these.
    pub(super) last_unmatched: Option<Unmatched>,
    /// How many named no repository, or none that can be read.
    pub(super) unusable: u64,
    pub(super) line: UnmatchedLine,
}

/// The log line about webhooks that concern no recipe.
#[derive(Debug, Default)]
pub(super) struct UnmatchedLine {
    /// The line of the last one, if it is not logged yet.
    waiting: Option<Notice>,
    /// How many others share the line.
    others: u64,
    /// When the next line may be logged.
    earliest: Moment,
}

/// A webhook that named a repository, but concerned no recipe.
#[derive(Debug)]
pub(super) struct Unmatched {
    pub(super) received: Moment,
    /// The names of the repository, shortened.
    pub(super) repositories: Vec<String>,
    pub(super) reason: &'static str,
    /// The recipe that it was most likely meant for.
    pub(super) nearest: Option<Arc<str>>,
}

/// The names of the upstreams, see [`UpstreamUrl::repository`].
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The watched upstreams, sorted by the hashes of their paths: a map would hold each name twice.
    by_path: Vec<(u64, UpstreamUrl)>,
    /// The upstreams by the names that redirects gave them.
    by_new_name: HashMap<Box<str>, Vec<UpstreamUrl>>,
    /// The upstreams that a redirect gave a name, and the name.
    redirected: HashMap<UpstreamUrl, Box<str>>,
}

impl Hooks {
    #[cfg(test)]
    pub(super) fn knows_no_upstream(&self) -> bool {
        let Names { by_path, by_new_name, redirected } = &self.names;
        by_path.is_empty() && by_new_name.is_empty() && redirected.is_empty()
    }
}

impl UnmatchedLine {
    /// The least time between two lines: whoever has the secret, such as a hook of a whole
    /// organisation, could fill the log.
    const PAUSE: Duration = Duration::from_secs(1);

    /// Puts `notice` in the place of the one that waits.
    pub(super) fn record(&mut self, notice: Notice) {
        if self.waiting.replace(notice).is_some() {
            self.others += 1;
        }
    }

    /// Returns when the line is due, if one waits.
    pub(super) fn due(&self) -> Option<Moment> {
        self.waiting.is_some().then_some(self.earliest)
    }

    /// Takes the line that waits.
    pub(super) fn take(&mut self, now: Moment) -> Option<Notice> {
        let mut notice = self.waiting.take()?;
        self.earliest = now + Self::PAUSE;
        if let Notice::WebhookUnmatched { not_logged, .. } = &mut notice {
            *not_logged = std::mem::take(&mut self.others);
        }
        Some(notice)
    }
}

impl Names {
    /// Remembers the names of `urls`, and forgets all others.
    pub(super) fn watch(&mut self, urls: &[UpstreamUrl]) {
        let mut before = std::mem::take(self);
        self.by_path = urls.iter().map(|url| (hash_of(path_of(&url.repository())), url.clone())).collect();
        sort::sort_by(&mut self.by_path, |(a, _), (b, _)| a.cmp(b));
        for (url, name) in before.redirected.drain() {
            if self.by_hash(hash_of(path_of(&url.repository()))).any(|known| *known == url) {
                self.add_new_name(url, name);
            }
        }
    }

    /// Gives an upstream that is found at `target` the name of that place too, in place of the one that
    /// an earlier redirect gave it.
    pub(super) fn learn(&mut self, upstream: UpstreamUrl, target: &UpstreamUrl) {
        let name = target.repository();
        if self.redirected.get(&upstream).is_some_and(|known| **known == *name) {
            return;
        }
        if let Some(before) = self.redirected.remove(&upstream)
            && let Some(urls) = self.by_new_name.get_mut(&before)
        {
            urls.retain(|url| *url != upstream);
            if urls.is_empty() {
                self.by_new_name.remove(&before);
            }
        }
        // A redirect from http to https, or to `.git`, changes no name.
        if upstream.repository() != name {
            self.add_new_name(upstream, name.into());
        }
    }

    fn add_new_name(&mut self, upstream: UpstreamUrl, name: Box<str>) {
        self.by_new_name.entry(name.clone()).or_default().push(upstream.clone());
        self.redirected.insert(upstream, name);
    }

    /// Returns the upstreams whose URLs have one of `names`.
    pub(super) fn find<'a>(&'a self, names: &'a [String]) -> impl Iterator<Item = &'a UpstreamUrl> {
        names.iter().flat_map(|name| self.of_path(path_of(name)).filter(move |url| url.repository() == *name))
    }

    /// Returns the upstreams that redirects gave one of `names`.
    pub(super) fn find_redirected(&self, names: &[String]) -> impl Iterator<Item = &UpstreamUrl> {
        names.iter().filter_map(|name| self.by_new_name.get(name.as_str())).flatten()
    }

    /// Returns the upstreams that share the path of one of `names`, whatever their hosts are.
    pub(super) fn find_paths<'a>(&'a self, names: &'a [String]) -> impl Iterator<Item = &'a UpstreamUrl> {
        names.iter().flat_map(|name| self.of_path(path_of(name)))
    }

    fn of_path<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a UpstreamUrl> {
        self.by_hash(hash_of(path)).filter(move |url| path_of(&url.repository()) == path)
    }

    fn by_hash(&self, hash: u64) -> impl Iterator<Item = &UpstreamUrl> {
        let first = self.by_path.partition_point(|(other, _)| *other < hash);
        self.by_path[first..].iter().take_while(move |(other, _)| *other == hash).map(|(_, url)| url)
    }

    /// Returns the upstream whose path ends like one of `names`, or is a misspelling of one. Looks at
    /// every upstream: about 10 ms for 10,000, and only for whoever knows the secret.
    pub(super) fn nearest(&self, names: &[String]) -> Option<&UpstreamUrl> {
        let paths: BTreeSet<&str> =
            names.iter().map(|name| path_of(name)).fold(BTreeSet::new(), sort::included);
        let pairs = self.by_path.iter().filter_map(|(_, url)| {
            let name = url.repository();
            let unlike = paths.iter().filter_map(|path| unlikeness(path, path_of(&name)));
            Some((unlike.min()?, url))
        });
        pairs.min().map(|(_, upstream)| upstream)
    }
}

/// Returns how unlike two paths are, the most similar first; `None` if they have nothing in common.
fn unlikeness(path: &str, known: &str) -> Option<(bool, usize)> {
    let last = |path: &str| path.rsplit('/').next().map(str::len);
    let is_renamed = path[path.len() - last(path)?..] != known[known.len() - last(known)?..];
    let most = if is_renamed { 1 + known.len() / 8 } else { usize::MAX };
    if path.len().abs_diff(known.len()) > most {
        return None;
    }
    let distance = strsim::damerau_levenshtein(path, known);
    (distance <= most).then_some((is_renamed, distance))
}

/// Returns the name of a repository without its host.
fn path_of(name: &str) -> &str {
    name.split_once('/').map_or("", |(_, path)| path)
}
