//! Remembers which tags a fetch has shown to be no release: they name no commit, or no signer of the recipe
//! has signed them. A tag stays skipped until it is moved; one that is not signed also until the recipe
//! has another file with signers. Pure.

use std::collections::{HashMap, HashSet};

use peipkg_format::object_id::ObjectId;

use crate::farm::events::NoCommit;
use crate::recipe::Upstream;

/// How many tags are remembered. A hostile upstream can have any number; each costs a fetch.
const KEPT: usize = 100_000;

/// The skipped tags, by the digest of the signers who have not signed them, if any, the redacted upstream
/// and the tag.
#[derive(Debug, Default)]
pub(super) struct SkippedTags(HashMap<(Option<u64>, String, String), Skipped>);

#[derive(Debug)]
struct Skipped {
    object: String,
    reason: String,
}

impl SkippedTags {
    /// Adds a tag, in the place of its older object.
    pub(super) fn add(&mut self, NoCommit { upstream, tag, object, reason, signers }: NoCommit) {
        if self.0.len() >= KEPT {
            self.0.clear();
        }
        self.0.insert((signers, upstream, tag), Skipped { object, reason });
    }

    /// Forgets the tags that are skipped by none of these recipes' `upstreams`.
    pub(super) fn keep<'a>(&mut self, upstreams: impl Iterator<Item = &'a Upstream>) {
        if self.0.is_empty() {
            return;
        }
        let wanted: HashSet<(Option<u64>, String)> = upstreams
            .flat_map(|upstream| {
                let url = upstream.url.to_string();
                [(None, url.clone()), (digest_of(upstream), url)]
            })
            .collect();
        self.0.retain(|(signers, url, _), _| wanted.contains(&(*signers, url.clone())));
    }

    /// Returns why no recipe can build the tag, if it still is so. `object` is the id of its object in the
    /// listing.
    pub(super) fn no_commit(&self, upstream: &Upstream, tag: &str, object: ObjectId) -> Option<&str> {
        self.reason(None, upstream, tag, object)
    }

    /// Returns why the recipes with these signers may not build the tag, if it still is so.
    pub(super) fn refused(&self, upstream: &Upstream, tag: &str, object: ObjectId) -> Option<&str> {
        let signers = digest_of(upstream)?;
        self.reason(Some(signers), upstream, tag, object)
    }

    fn reason(&self, signers: Option<u64>, upstream: &Upstream, tag: &str, object: ObjectId) -> Option<&str> {
        if self.0.is_empty() {
            return None;
        }
        let skipped = self.0.get(&(signers, upstream.url.to_string(), tag.to_owned()))?;
        (object.to_string() == skipped.object).then_some(&*skipped.reason)
    }
}

fn digest_of(upstream: &Upstream) -> Option<u64> {
    upstream.signers.as_ref().map(|signers| signers.digest)
}
