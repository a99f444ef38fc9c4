//! How the store is doing, for metrics, readiness and an operator.
//!
//! Enters: what writers did
//! Leaves: [`Health`]
//! Never:  decides anything
//! Time:   none
//! Spec:   none

use std::collections::BTreeMap;
use std::fmt;

use super::queue::Counts;
use crate::id::StreamName;

/// The state of a store and of all its writers. Counters only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Objects stored.
    pub stored: u64,
    /// Objects deleted.
    pub deleted: u64,
    /// Attempts that failed, writing and deleting.
    pub failures: u64,
    /// Media given up: there was no room to keep it, it waited for too long, or the spool's file of it was not
    /// whole. It is a gap in the stored playlists.
    pub lost: u64,
    /// Media that fell due for removal before it was stored. No playlist lists it any more.
    pub outdated: u64,
    /// Versions of manifests that a newer one overtook in the queue.
    pub superseded: u64,
    /// Objects waiting to be written, in memory or in the spool.
    pub waiting_objects: u64,
    /// Bytes waiting in memory.
    pub waiting_bytes: u64,
    /// Bytes waiting in the spool.
    pub spooled_bytes: u64,
    /// The streams whose next object could not be written at the last attempt.
    pub failing: BTreeMap<StreamName, Failure>,
    /// What the system said when the spool could last not be written to; `None` when it could.
    pub spool_failure: Option<String>,
    /// Whether it is the second of two.
    pub is_second: bool,
}

/// Why a stream's next object is not stored yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Attempts so far.
    pub attempts: u32,
    /// What the last one said.
    pub reason: String,
    /// Media given up since the first.
    pub lost: u64,
}

impl Health {
    /// Whether everything handed over could be written at the last attempt.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.failing.is_empty()
    }

    /// Whether media is being given up: what is recorded now has holes.
    #[must_use]
    pub fn is_losing(&self) -> bool {
        self.failing.values().any(|failure| failure.lost > 0)
    }

    /// Takes the change of one writer's share from `before` to `after` into account.
    pub(crate) fn add_change(&mut self, before: &Share, after: &Share) {
        let (old, new) = (&before.counts, &after.counts);
        self.stored += new.stored - old.stored;
        self.deleted += new.deleted - old.deleted;
        self.failures += new.failures - old.failures;
        self.lost += new.lost - old.lost;
        self.outdated += new.outdated - old.outdated;
        self.superseded += new.superseded - old.superseded;
        self.waiting_objects = self.waiting_objects + after.objects - before.objects;
        self.waiting_bytes = self.waiting_bytes + after.memory_bytes - before.memory_bytes;
        self.spooled_bytes = self.spooled_bytes + after.spooled_bytes - before.spooled_bytes;
    }
}

impl fmt::Display for Health {
    /// One line for an operator.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((stream, failure)) = self.failing.first_key_value() else {
            return f.write_str("the store takes everything");
        };
        let store = if self.is_second {
            "second store"
        } else {
            "store"
        };
        write!(
            f,
            "the {store} fails for stream \"{stream}\": {}",
            failure.reason
        )?;
        match self.failing.len() - 1 {
            0 => {}
            1 => f.write_str(", and for one more")?,
            more => write!(f, ", and for {more} more")?,
        }
        let mib = (self.waiting_bytes + self.spooled_bytes) / (1024 * 1024);
        let lost: u64 = self.failing.values().map(|failure| failure.lost).sum();
        write!(
            f,
            "; live goes on, {mib} MiB wait, {lost} objects were given up"
        )?;
        if let Some(reason) = &self.spool_failure {
            write!(f, "; the spool fails too: {reason}")?;
        }
        Ok(())
    }
}

/// One writer's share of the [`Health`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Share {
    pub(crate) counts: Counts,
    pub(crate) objects: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) spooled_bytes: u64,
}
