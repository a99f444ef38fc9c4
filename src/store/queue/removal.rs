//! Knows what is to be removed, and when.
//!
//! Enters: keys with the time at which each is to go
//! Leaves: those whose time has come
//! Never:  asks whether something still needs them
//! Time:   monotonic instants, as arguments
//! Spec:   none

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::media::ObjectKey;

/// Objects that are to go.
#[derive(Debug, Default)]
pub(crate) struct Removal {
    due: BTreeMap<ObjectKey, Instant>,
    in_order: BTreeSet<(Instant, ObjectKey)>,
}

impl Removal {
    /// Has `key` go at `due`, whatever was said of it before.
    pub(crate) fn set(&mut self, key: ObjectKey, due: Instant) {
        self.cancel(&key);
        self.in_order.insert((due, key.clone()));
        self.due.insert(key, due);
    }

    /// Has `key` go at `due` unless there is a time for it already.
    pub(crate) fn set_if_none(&mut self, key: &ObjectKey, due: Instant) {
        if !self.due.contains_key(key) {
            self.set(key.clone(), due);
        }
    }

    /// Takes back that `key` is to go.
    pub(crate) fn cancel(&mut self, key: &ObjectKey) {
        if let Some(due) = self.due.remove(key) {
            self.in_order.remove(&(due, key.clone()));
        }
    }

    /// What is to go by `now`, the earliest first.
    pub(crate) fn due(&self, now: Instant) -> impl Iterator<Item = &ObjectKey> {
        let is_due = move |(due, _): &&(Instant, ObjectKey)| *due <= now;
        self.in_order.iter().take_while(is_due).map(|(_, key)| key)
    }

    /// Everything that is to go, the earliest first.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = &(Instant, ObjectKey)> {
        self.in_order.iter()
    }
}
