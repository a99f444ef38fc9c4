//! What earlier broadcasts and processes left: in the spool, to be stored first; in the store, to be listed on or removed.
//!
//! Enters: what the spool and the store hold when a process or a broadcast begins
//! Leaves: the queue, which goes on from there
//! Never:  has anything removed that a playlist may name, or a write still under way may
//! Time:   monotonic instants, as arguments
//! Spec:   [HLS] §6.2.2

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::entry::{Entry, Put, SpoolId, Spooled};
use super::{DELETE_PAUSE, Queue};
use crate::media::{Item, ObjectKey};
use crate::store::names::{has_ended, last_number};

/// What an earlier process left in the spool.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) id: SpoolId,
    /// Without its body where it is media.
    pub(crate) put: Put,
    /// Bytes of the body.
    pub(crate) len: u64,
    pub(crate) since: Instant,
}

impl Queue {
    /// Puts what an earlier process left in the spool before everything else. `left` is in order.
    pub(crate) fn restore(&mut self, left: Vec<Restored>) {
        for restored in left.into_iter().rev() {
            let mut entry = Entry::new(restored.put, restored.since);
            entry.len = restored.len;
            entry.spooled = Spooled::Yes(restored.id);
            entry.attempted = true;
            entry.restored = true;
            self.waiting.push_front(entry);
        }
    }

    /// Takes note that the folder holds `found` at `now`, and that its playlists name `named`. What an earlier process
    /// left of manifests is dropped if newer ones are stored: somebody else has gone on meanwhile, or it had
    /// been stored already.
    pub(crate) fn learn(
        &mut self,
        found: BTreeSet<ObjectKey>,
        named: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
        now: Instant,
    ) {
        self.quiet_at = Some(now + self.limits.lateness);
        self.archive |= found.iter().any(|key| key.item.is_of_show());
        self.drop_outdated(&named);
        self.named.extend(named);
        if self.tidy_at.is_some() {
            self.leave(found.iter());
        }
        self.stored.extend(found);
        self.foreign_mpd = self.has_stored_mpd();
    }

    /// Leaves media that was found where it is: it belongs to a show, whose record says how long.
    pub(crate) const fn keep_archive(&mut self) {
        self.archive = true;
    }

    /// Whether media that was found stays.
    pub(crate) const fn has_archive(&self) -> bool {
        self.archive
    }

    /// Thinks no more of an object that stays: no manifest of a live window will name it again.
    pub(crate) fn forget(&mut self, key: &ObjectKey) {
        self.removal.cancel(key);
        self.leftover.remove(key);
        self.stored.remove(key);
    }

    /// Takes `keys` for what earlier broadcasts left, except what this one has or keeps.
    fn leave<'a>(&mut self, keys: impl Iterator<Item = &'a ObjectKey>) {
        let archive = self.archive;
        let is_left = |key: &&ObjectKey| {
            may_go(&key.item, archive)
                && !self.kept.contains(key)
                && !self.stored.contains(key)
                && !self.waiting.has(key)
        };
        let left: Vec<_> = keys.filter(is_left).cloned().collect();
        self.leftover.extend(left);
    }

    /// Whether the folder is to be looked through now for what earlier broadcasts left, which [`Self::tidy`] is
    /// to be told; or [`Self::tidy_later`].
    pub(crate) fn take_tidying(&mut self, now: Instant) -> bool {
        self.tidy_at.take_if(|at| *at <= now).is_some()
    }

    /// The folder could not be looked through.
    pub(crate) fn tidy_later(&mut self, now: Instant) {
        self.tidy_at.get_or_insert(now + DELETE_PAUSE);
    }

    /// Has what earlier broadcasts left removed, as soon as nothing names it: the folder holds `found`, and its
    /// playlists name `named`.
    pub(crate) fn tidy(
        &mut self,
        found: &BTreeSet<ObjectKey>,
        named: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
        now: Instant,
    ) {
        // Of what this broadcast writes meanwhile, either version counts until the next one.
        for (key, names) in named {
            self.named.entry(key).or_default().extend(names);
        }
        self.leave(found.iter());
        for key in std::mem::take(&mut self.leftover) {
            self.removal.set_if_none(&key, now);
        }
    }

    fn has_stored_mpd(&self) -> bool {
        // Manifests come before everything else.
        let mut manifests = self.stored.iter().take_while(|key| key.item.is_manifest());
        manifests.any(|key| matches!(key.item, Item::Mpd))
    }

    fn drop_outdated(&mut self, named: &BTreeMap<ObjectKey, BTreeSet<ObjectKey>>) {
        let restored = self.waiting.iter();
        let restored = restored.filter(|(_, entry)| entry.restored && entry.put.is_manifest());
        let mut dropped = Vec::new();
        let mut manifests = Vec::new();
        let mut is_overtaken = false;
        for (place, entry) in restored {
            manifests.push(place);
            let stored = named.get(&entry.put.key).and_then(last_number);
            let ours = last_number(&entry.names);
            is_overtaken |= stored > ours;
            if stored == ours && stored.is_some() && !has_ended(&entry.put.body.to_bytes()) {
                dropped.push(place);
            }
        }
        for place in if is_overtaken { manifests } else { dropped } {
            self.waiting.remove(place);
            self.counts.superseded += 1;
        }
    }

    /// A new broadcast begins at `now`: everything that is there is removed after `grace`, as soon as no stored
    /// playlist names it, unless it is written again or kept.
    pub(crate) fn begin(&mut self, now: Instant, grace: Duration) {
        self.kept.clear();
        let there = self.stored.iter().chain(self.waiting.keys());
        let archive = self.archive;
        let goes = |key: &&ObjectKey| may_go(&key.item, archive);
        self.leftover = there.filter(goes).cloned().collect();
        // The process before this one may have died with the write of a playlist under way.
        self.tidy_at = Some(now + grace.max(self.limits.lateness));
        self.foreign_mpd = self.has_stored_mpd();
    }

    /// Has `key` removed at `due`, or later if a stored playlist still names it then.
    pub(crate) fn retire(&mut self, key: ObjectKey, due: Instant) {
        // A playlist that names what an earlier process stored may be under way since that died.
        let is_kept = self.kept.remove(&key);
        let quiet_at = self.quiet_at.filter(|_| is_kept);
        self.removal
            .set(key, quiet_at.map_or(due, |at| due.max(at)));
    }

    /// Takes back that `key` is to be removed.
    pub(crate) fn keep(&mut self, key: &ObjectKey) {
        self.removal.cancel(key);
        self.leftover.remove(key);
        self.kept.insert(key.clone());
    }
}

/// Whether what an earlier broadcast left is to go. Of a stream with shows only playlists do: its media belongs to
/// them.
const fn may_go(item: &Item, archive: bool) -> bool {
    match item {
        Item::Multivariant | Item::Mpd => false,
        Item::Media(_) => true,
        Item::Init(..) | Item::Segment(..) | Item::Part(..) => !archive,
        Item::Show(_) | Item::ShowMultivariant(_) | Item::ShowMpd(_) | Item::ShowMedia(..) => false,
    }
}
