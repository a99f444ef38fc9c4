//! How the store is doing, for metrics, readiness and an operator.
//!
//! Enters: what writers did
//! Leaves: [`Health`]
//! Never:  decides anything
//! Time:   none
//! Spec:   none

use std::collections::BTreeMap;

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
    /// Media given up: the queue was full, or its removal fell due first. No stored playlist names it.
    pub lost: u64,
    /// Versions of manifests that a newer one overtook in the queue.
    pub superseded: u64,
    /// Objects waiting to be written.
    pub waiting_objects: u64,
    /// Bytes waiting to be written.
    pub waiting_bytes: u64,
    /// The broadcasts whose next object could not be written at the last attempt.
    pub failing: BTreeMap<StreamName, Failure>,
}

/// Why a broadcast's next object is not stored yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Attempts so far.
    pub attempts: u32,
    /// What the last one said.
    pub reason: String,
}

impl Health {
    /// Whether everything handed over could be written at the last attempt.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.failing.is_empty()
    }
}
