//! What others may know of a queue.
//!
//! Enters: nothing
//! Leaves: what is stored, waits or is named; how much, and how it goes
//! Never:  changes anything
//! Time:   none
//! Spec:   none

use std::collections::BTreeSet;

use super::entry::{Place, Spooled};
use super::{Counts, Queue, Write};
use crate::media::ObjectKey;

/// What others may know.
impl Queue {
    /// What is stored, or will be before anything that is pushed from now on.
    pub(crate) fn keys(&self) -> BTreeSet<ObjectKey> {
        let there = self.stored.iter().chain(self.waiting.keys());
        there.cloned().collect()
    }

    /// The newest version of `key` that waits.
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Write> {
        if let Some(held) = self.held.get(key) {
            let put = held.put.clone();
            return Some(Write { put, from: None });
        }
        let place = self.waiting.of_key(key).next_back()?;
        let entry = self.waiting.get(place)?;
        let from = match entry.spooled {
            Spooled::Yes(id) if entry.put.may_be_lost() => Some(id),
            _ => None,
        };
        let put = entry.put.clone();
        Some(Write { put, from })
    }

    /// What each version of a manifest that is stored, or will be, names.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&ObjectKey, &BTreeSet<ObjectKey>)> {
        let waiting = self.waiting.iter().map(|(_, entry)| entry);
        let entries = waiting.chain(self.held.values());
        let entries = entries.filter(|entry| !entry.names.is_empty());
        let entries = entries.map(|entry| (&entry.put.key, &entry.names));
        let late = self.late.iter().map(|(key, late)| (key, &late.names));
        let manifests = self.named.iter().chain(late);
        manifests
            .filter(|(key, _)| key.item.is_manifest())
            .chain(entries)
    }

    /// The place behind all that waits now.
    pub(crate) const fn end(&self) -> Place {
        self.waiting.end()
    }

    /// Whether anything waits in a place before `end`.
    pub(crate) fn waits_before(&self, end: Place) -> bool {
        self.waiting.first().is_some_and(|(first, _)| first < end)
    }

    /// Whether everything that can be written is.
    pub(crate) fn is_flushed(&self) -> bool {
        let mut held = self.held.values();
        self.waiting.is_empty() && !held.any(|entry| self.storable_text(entry).is_some())
    }

    /// Objects waiting or held.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.held.len()
    }

    /// Bytes in memory, waiting or held.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let held = self.held.values().map(|entry| entry.len);
        self.waiting.memory_bytes() + held.sum::<u64>()
    }

    /// Bytes in the spool.
    pub(crate) const fn spooled_bytes(&self) -> u64 {
        self.waiting.spooled_bytes()
    }

    /// How often writing has failed since it last succeeded; zero when all is well.
    pub(crate) fn attempts(&self) -> u32 {
        self.retry.map_or(0, |retry| retry.attempts)
    }

    /// What has happened so far.
    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }
}
