//! The phases of an upstream's polls, as one table. Pure.

/// The state of an upstream's polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing, until its next poll is due.
    Idle,
    /// Waiting for a worker and for its host.
    Waiting,
    /// Being listed.
    Listing,
    /// Being listed, and once more afterwards: a reload may be newer than the answer.
    Again,
    /// Being listed, and once more afterwards: a webhook may be newer than the answer.
    AgainUrgent,
}

/// The reason for a change of phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its next poll is due.
    Due,
    /// The recipes were loaded.
    Reload,
    /// A webhook has come.
    Hook,
    /// A worker lists it now.
    Turn,
    /// Its listing has ended.
    End,
}

use Cause::{Due, End, Hook, Reload, Turn};
use Phase::{Again, AgainUrgent, Idle, Listing, Waiting};

/// The phase after each cause, by the phase before it.
#[rustfmt::skip]
const NEXT: [(Cause, [(Phase, Phase); 5]); 5] = [
    (Due,    [(Idle, Waiting), (Waiting, Waiting), (Listing, Listing),     (Again, Again),       (AgainUrgent, AgainUrgent)]),
    (Reload, [(Idle, Waiting), (Waiting, Waiting), (Listing, Again),       (Again, Again),       (AgainUrgent, AgainUrgent)]),
    (Hook,   [(Idle, Waiting), (Waiting, Waiting), (Listing, AgainUrgent), (Again, AgainUrgent), (AgainUrgent, AgainUrgent)]),
    (Turn,   [(Idle, Idle),    (Waiting, Listing), (Listing, Listing),     (Again, Again),       (AgainUrgent, AgainUrgent)]),
    (End,    [(Idle, Idle),    (Waiting, Waiting), (Listing, Idle),        (Again, Waiting),     (AgainUrgent, Waiting)]),
];

impl Phase {
    /// Returns the phase after `cause`.
    pub(super) fn after(self, cause: Cause) -> Self {
        let row = NEXT.iter().find(|(of, _)| *of == cause);
        let next = row.and_then(|(_, row)| row.iter().find(|(before, _)| *before == self));
        // The table has a row for each cause, and an entry for each phase.
        next.map_or(self, |(_, next)| *next)
    }

    /// Whether a listing runs.
    pub(super) fn is_listing(self) -> bool {
        matches!(self, Listing | Again | AgainUrgent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_complete() {
        for cause in [Due, Reload, Hook, Turn, End] {
            for phase in [Idle, Waiting, Listing, Again, AgainUrgent] {
                let row = NEXT.iter().find(|(of, _)| *of == cause).expect("a row");
                assert!(row.1.iter().any(|(before, _)| *before == phase), "{cause:?} {phase:?}");
            }
        }
    }
}
