//! Decides what becomes of a publish that failed or was cut short, from the facts that
//! [`inspect`](super::inspect) has found. Pure.
//!
//! An undo needs proof. Kept packages that are gone prove nothing: an operator may have emptied
//! `publish/`. An index that somebody else has published since is never set back: clients would
//! take it for a rollback attack (PSD-009 §6.2.3).

/// Whether the journal can restore the repository as it was before the publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Journal {
    Usable,
    Damaged,
}

/// When the publish has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Just now, under the lock: its tool has made every change in the repository since.
    JustNow,
    /// Perhaps long ago: others may have published since.
    Earlier,
}

/// How the two indexes in the repository differ from the saved ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Indexes {
    /// One of them is missing or is the saved one: no publish has finished.
    Unfinished,
    /// Both have changed, and no `index_version` is higher than the saved one plus one.
    Superseded,
    /// An `index_version` is higher than the saved one plus one: somebody has published since.
    Passed,
}

/// Whether the repository is whole: both indexes are new, `peipkg-repo verify` finds no fault, and
/// each entry that is new since the saved index has its file, with the entry's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repo {
    Whole,
    Faulty,
}

/// Which packages of the group the archive index lists. If nobody knows the group's packages
/// (an earlier version wrote the journal, and `publish/` was emptied), they count as listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// All of them.
    Listed,
    /// Each version with all of its packages or with none, and some with none.
    Apart,
    /// Some version with a part of its packages; or, right after the tool has run, anything but all
    /// packages as they were built.
    Torn,
}

/// The way in which the start settles an interrupted publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The repository stays. Versions that it lists are published, the others stay pending.
    Keep,
    /// The journal restores the repository.
    Undo,
    /// Only a person can tell: nothing is changed, and nothing is published before.
    Stop,
}

/// Decides about a publish that a journal tells of, in a repository that is there.
#[expect(clippy::match_same_arms, reason = "each arm is a row of the table")]
pub(super) fn decide(journal: Journal, indexes: Indexes, repo: Repo, group: Group) -> Verdict {
    use Verdict::{Keep, Stop, Undo};
    match (journal, indexes, repo, group) {
        (Journal::Usable, Indexes::Unfinished, _, _) => Undo,
        (Journal::Usable, Indexes::Superseded, Repo::Faulty, _) => Undo,
        (Journal::Usable, Indexes::Superseded, Repo::Whole, Group::Torn) => Undo,
        (Journal::Usable, Indexes::Superseded, Repo::Whole, Group::Listed | Group::Apart) => Keep,
        (Journal::Usable, Indexes::Passed, Repo::Whole, _) => Keep,
        (Journal::Usable, Indexes::Passed, Repo::Faulty, _) => Stop,
        (Journal::Damaged, _, Repo::Whole, _) => Keep,
        (Journal::Damaged, _, Repo::Faulty, _) => Stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEXES: [Indexes; 3] = [Indexes::Unfinished, Indexes::Superseded, Indexes::Passed];
    const GROUPS: [Group; 3] = [Group::Listed, Group::Apart, Group::Torn];

    /// Checks the verdicts for a whole and for a faulty repository, with each of [`GROUPS`].
    #[track_caller]
    fn check(journal: Journal, indexes: Indexes, whole: [Verdict; 3], faulty: [Verdict; 3]) {
        let decide = |repo| GROUPS.map(|group| decide(journal, indexes, repo, group));
        assert_eq!((decide(Repo::Whole), decide(Repo::Faulty)), (whole, faulty), "{journal:?} {indexes:?}");
    }

    #[test]
    fn publish_is_undone_only_on_proof() {
        use Verdict::{Keep, Stop, Undo};
        // Each row: Listed, Apart, Torn; in a whole repository, then in a faulty one.
        check(Journal::Usable, Indexes::Unfinished, [Undo; 3], [Undo; 3]);
        check(Journal::Usable, Indexes::Superseded, [Keep, Keep, Undo], [Undo; 3]);
        check(Journal::Usable, Indexes::Passed, [Keep; 3], [Stop; 3]);
        for indexes in INDEXES {
            check(Journal::Damaged, indexes, [Keep; 3], [Stop; 3]);
        }
    }
}
