//! Decides what is written or deleted next, so that no stored playlist ever names what is not stored.
//!
//! Enters: objects in the order they were made, requests to remove, results of attempts, the time
//! Leaves: one [`Step`] at a time, and what is to lie on the spool meanwhile; the caller carries out a step and
//!         reports before asking for the next
//! Never:  I/O, clocks, tasks
//! Time:   monotonic instants, as arguments that never go back
//! Spec:   [HLS] §4.4.4.7, §6.2.2
//!
//! What waits goes to the spool, oldest first; so the head of the queue lies on a disk and its tail in memory. When
//! there is no room, the oldest waiting media is given up: it would leave the window first. So is what has
//! waited for too long, and what still waits when it is due for removal. A playlist that names what was given up
//! gets a gap in its place. Init segments and manifests are never given up, and no object is because
//! the store was away.

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

mod entry;
mod known;
mod leftover;
mod removal;
mod retry;
mod spooling;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

pub use self::entry::Put;
use self::entry::{Entry, Spooled, Waiting, has_init};
pub(crate) use self::entry::{Place, SpoolId};
pub(crate) use self::leftover::{Look, Restored, Scope};
use self::removal::Removal;
use self::retry::Retry;
use super::names::with_gaps;
use crate::id::SegmentNumber;
use crate::media::{Item, ObjectKey, Payload};

/// The most objects waiting in memory, whatever their size: ten rungs of parts for a minute.
pub(crate) const MAX_WAITING_OBJECTS: usize = 4_096;

/// The most objects waiting, most of them on the spool: half a day of five renditions.
pub(crate) const MAX_SPOOLED_OBJECTS: usize = 120_000;

/// The most objects that are written at once: what a segment boundary brings at a usual ladder, so that a
/// store far away costs two round trips a boundary, media and manifests, however many renditions there are.
pub(crate) const MAX_BATCH: usize = 8;

/// The pause after a failed deletion. What is deleted late harms nobody.
const DELETE_PAUSE: Duration = Duration::from_secs(10);

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes in memory.
    pub(crate) memory_bytes: u64,
    /// How long media may wait; `None` where there is no spool, and memory is the limit.
    pub(crate) spool_age: Option<Duration>,
    /// How long a write that was given up, or whose process has died, may still be carried out.
    pub(crate) lateness: Duration,
}

/// What to do next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Write these, in any order or at once, then report all of them with [`Queue::settle`]. Never empty,
    /// and no two of the same key.
    Write(Vec<Write>),
    /// Delete this, then report with [`Queue::deleted`] or [`Queue::delete_failed`].
    Delete(ObjectKey),
    /// Nothing until then, or, for `None`, until something is pushed.
    Wait(Option<Instant>),
}

/// One object to be written.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// It; without its body where `from` is a file.
    pub(crate) put: Put,
    /// The file of the spool that alone has the body. One that cannot be read is told to [`Queue::unreadable`].
    pub(crate) from: Option<SpoolId>,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) stored: u64,
    pub(crate) deleted: u64,
    pub(crate) failures: u64,
    pub(crate) lost: u64,
    pub(crate) outdated: u64,
    pub(crate) superseded: u64,
}

/// A write that was given up.
#[derive(Debug)]
struct Late {
    /// When it cannot happen any more.
    until: Instant,
    /// What must not be removed before: itself, or what it names.
    names: BTreeSet<ObjectKey>,
}

/// The queue of one stream and what is known of its folder.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: Limits,
    waiting: Waiting,
    /// Manifests that name something not stored, and that nothing newer replaces.
    held: BTreeMap<ObjectKey, Entry>,
    writing: BTreeSet<Place>,
    retry: Option<Retry>,
    stored: BTreeSet<ObjectKey>,
    named: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// Objects of which a write was given up that may still happen. Media waits for that to be removed.
    late: BTreeMap<ObjectKey, Late>,
    /// Manifests as last stored, to be stored again over what comes late.
    last: BTreeMap<ObjectKey, Put>,
    /// When the batch under way was begun.
    writing_since: Option<Instant>,
    removal: Removal,
    /// What earlier broadcasts left, and this one has not written again.
    leftover: BTreeSet<ObjectKey>,
    /// What they left and this one lists.
    kept: BTreeSet<ObjectKey>,
    /// What stays, and is not to be thought of any more as soon as no playlist names it.
    forgotten: BTreeSet<ObjectKey>,
    /// When the folder is to be looked through for what they left.
    tidy_at: Option<Instant>,
    /// How long a look through it that is under way is waited for.
    look_until: Option<Instant>,
    /// Which of the broadcasts of this queue is under way.
    era: u64,
    /// From when on nothing that an earlier process wrote happens any more.
    quiet_at: Option<Instant>,
    delete_next: Option<Instant>,
    /// Whether media that was found stays.
    archive: bool,
    /// From which segment on it does not, all the same.
    recorded_below: Option<SegmentNumber>,
    /// Whether the stored MPD is an earlier broadcast's, whose names cannot be read.
    foreign_mpd: bool,
    counts: Counts,
}

impl Queue {
    /// A queue for a folder of which nothing is known yet: no step may be asked for before [`Self::learn`].
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            waiting: Waiting::default(),
            held: BTreeMap::new(),
            writing: BTreeSet::new(),
            retry: None,
            stored: BTreeSet::new(),
            named: BTreeMap::new(),
            late: BTreeMap::new(),
            last: BTreeMap::new(),
            writing_since: None,
            removal: Removal::default(),
            leftover: BTreeSet::new(),
            kept: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            tidy_at: None,
            look_until: None,
            era: 0,
            quiet_at: None,
            delete_next: None,
            archive: false,
            recorded_below: None,
            foreign_mpd: false,
            counts: Counts::default(),
        }
    }

    /// Adds an object behind all others, at `now`.
    pub(crate) fn push(&mut self, put: Put, now: Instant) {
        self.removal.cancel(&put.key);
        self.leftover.remove(&put.key);
        if put.is_manifest() {
            self.supersede(&put.key);
        }
        self.waiting.push_back(Entry::new(put, now));
        while self.waiting.memory_bytes() > self.limits.memory_bytes
            || self.waiting.unspooled_len() > MAX_WAITING_OBJECTS
        {
            let mut media = self.waiting.media_in_memory();
            let oldest = media.find(|place| !self.writing.contains(place));
            let Some(oldest) = oldest else { break };
            drop(media);
            self.lose(oldest);
        }
    }

    /// Removes all waiting versions of a manifest but the oldest. The oldest stays in its place:
    /// were it always the newest that stays, a slow store would never get to one.
    fn supersede(&mut self, key: &ObjectKey) {
        if let Some(held) = self.held.remove(key) {
            self.waiting.discard(&held);
            self.counts.superseded += 1;
        }
        for newer in self.waiting.of_key(key).skip(1).collect::<Vec<_>>() {
            self.waiting.remove(newer);
            self.counts.superseded += 1;
        }
    }

    fn lose(&mut self, place: Place) {
        if self.waiting.remove(place).is_some() {
            self.counts.lost += 1;
        }
    }

    /// What to do next. While a step is under way, objects may be pushed, retired and spooled, but no other
    /// step may be asked for.
    pub(crate) fn next(&mut self, now: Instant) -> Step {
        self.expire(now);
        self.release();
        // A store across the network that is away would let each deletion run into its time limit; a disk that
        // is full needs the room.
        if (self.retry.is_none() || self.limits.lateness.is_zero())
            && let Some(key) = self.deletable(now)
        {
            return Step::Delete(key);
        }
        while let Some((place, head)) = self.waiting.first() {
            if head.put.is_manifest() && !self.make_storable(place) {
                self.hold(place);
                continue;
            }
            return match self.retry.map(|retry| retry.next) {
                Some(next) if next > now => Step::Wait(Some(next)),
                _ => Step::Write(self.batch(now)),
            };
        }
        self.retry = None;
        Step::Wait(self.next_removal(now))
    }

    /// Gives up waiting media that is of no use any more or has waited for too long.
    fn expire(&mut self, now: Instant) {
        self.repeat_after_late(now);
        let waiting = |key: &&ObjectKey| self.waiting.has(key);
        let due: Vec<_> = self.removal.due(now).filter(waiting).cloned().collect();
        for key in due {
            for place in self.waiting.of_key(&key).collect::<Vec<_>>() {
                let entry = self.waiting.get(place);
                let Some(entry) = entry.filter(|entry| entry.put.may_be_lost()) else {
                    continue;
                };
                // A failed attempt may have written it all the same: it stays to be deleted.
                if !entry.attempted {
                    self.removal.cancel(&key);
                }
                self.waiting.remove(place);
                self.counts.outdated += 1;
            }
        }
        self.lose_aged(now);
    }

    /// Has manifests stored once more that a late write may have overwritten with an older version.
    fn repeat_after_late(&mut self, now: Instant) {
        self.late
            .retain(|key, late| key.item.is_manifest() || late.until > now);
        let is_over = |(key, late): &(&ObjectKey, &Late)| {
            late.until <= now && !self.waiting.has(key) && !self.held.contains_key(*key)
        };
        let over = self.late.iter().filter(is_over);
        let last = over.filter_map(|(key, _)| self.last.get(key));
        for put in last.cloned().collect::<Vec<_>>() {
            self.waiting.push_back(Entry::new(put, now));
        }
    }

    /// Gives up media that has waited for too long.
    fn lose_aged(&mut self, now: Instant) {
        let Some(age) = self.limits.spool_age else {
            return;
        };
        let is_too_old = |place: &Place| {
            let entry = self.waiting.get(*place);
            entry.is_some_and(|entry| now.saturating_duration_since(entry.since) >= age)
        };
        let writing = |place: &Place| self.writing.contains(place);
        let media = self.waiting.media().filter(|place| !writing(place));
        for place in media.take_while(is_too_old).collect::<Vec<_>>() {
            self.lose(place);
        }
    }

    fn deletable(&self, now: Instant) -> Option<ObjectKey> {
        if self.delete_next.is_some_and(|next| next > now) {
            return None;
        }
        let mut due = self.removal.due(now);
        due.find(|key| self.is_removable(key)).cloned()
    }

    /// Whether nothing names `key` any more, stored or waiting, and nothing waits to write it.
    fn is_removable(&self, key: &ObjectKey) -> bool {
        !self.foreign_mpd
            && !self.is_named(key)
            && !self.late.values().any(|late| late.names.contains(key))
            && !self.named.values().any(|names| names.contains(key))
            && !self.waiting.has(key)
    }

    fn next_removal(&self, now: Instant) -> Option<Instant> {
        let mut removals = self.removal.in_order();
        let removable = removals.find(|(_, key)| self.is_removable(key));
        let due = removable.map(|(due, _)| *due);
        let due = due.map(|due| self.delete_next.map_or(due, |pause| due.max(pause)));
        let late = self.late.values().map(|late| late.until);
        let late = late.filter(|until| *until > now).min();
        let look = self.look_until.filter(|until| *until > now);
        let planned = late.into_iter().chain(self.tidy_at).chain(look);
        let next = due.into_iter().chain(planned).min()?;
        Some(next.max(now))
    }

    /// Whether the manifest at `place` names only what is stored; if it is what was given up that is missing,
    /// makes gaps of it.
    fn make_storable(&mut self, place: Place) -> bool {
        let Some(entry) = self.waiting.get(place) else {
            return false;
        };
        let Some(text) = self.storable_text(entry) else {
            return false;
        };
        if let Some(text) = text {
            self.waiting.rewrite(place, text);
        }
        true
    }

    /// `None` if the manifest cannot be stored; else what it has to say, if that is not what it says.
    fn storable_text(&self, entry: &Entry) -> Option<Option<Payload>> {
        let key = &entry.put.key;
        if matches!(key.item, Item::Mpd) {
            let is_ready = has_init(self.stored.iter()) && !self.waiting.has_init();
            return is_ready.then_some(None);
        }
        let missing: BTreeSet<_> = entry.names.difference(&self.stored).cloned().collect();
        if missing.is_empty() {
            return Some(None);
        }
        let is_media = |key: &ObjectKey| matches!(key.item, Item::Segment(..) | Item::Part(..));
        let are_given_up = missing
            .iter()
            .all(|name| is_media(name) && !self.waiting.has(name));
        let has_media = entry
            .names
            .iter()
            .any(|name| is_media(name) && !missing.contains(name));
        let is_newest = self.waiting.of_key(key).nth(1).is_none();
        if !are_given_up || !(has_media || is_newest) {
            return None;
        }
        Some(Some(with_gaps(key, &entry.put.body, &missing)))
    }

    /// Puts the manifest at the head aside, or drops it where a newer version waits.
    fn hold(&mut self, place: Place) {
        let Some(entry) = self.waiting.take(place) else {
            return;
        };
        if self.waiting.has(&entry.put.key) {
            self.waiting.discard(&entry);
            self.counts.superseded += 1;
        } else {
            self.held.insert(entry.put.key.clone(), entry);
        }
    }

    /// Puts held manifests back in front that can be stored by now.
    fn release(&mut self) {
        if self.retry.is_some() || self.held.is_empty() {
            return;
        }
        let held = self.held.iter();
        let storable = held.filter(|(_, entry)| self.storable_text(entry).is_some());
        for key in storable.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            if let Some(entry) = self.held.remove(&key) {
                self.waiting.push_front(entry);
            }
        }
    }

    /// What is at the head and may be written at once: media, or manifests that name only what is stored.
    /// After a failure only the head, to see whether the store is back.
    fn batch(&mut self, now: Instant) -> Vec<Write> {
        let most = if self.retry.is_some() { 1 } else { MAX_BATCH };
        let elsewhere = self.retry.filter(|retry| retry.elsewhere);
        let elsewhere = elsewhere.and_then(|_| self.other_than_head());
        let mut places: Vec<Place> = elsewhere.into_iter().collect();
        let mut keys = BTreeSet::new();
        let mut writes_manifests = None;
        let following = self.waiting.iter().take(most);
        for (place, entry) in following.filter(|_| elsewhere.is_none()) {
            let is_manifest = entry.put.is_manifest();
            let goes_along = *writes_manifests.get_or_insert(is_manifest) == is_manifest
                && (!is_manifest || self.is_storable_as_it_is(entry))
                && keys.insert(&entry.put.key);
            if !goes_along {
                break;
            }
            places.push(place);
        }
        let mut batch = Vec::new();
        for place in &places {
            if let Some(entry) = self.waiting.get_mut(*place) {
                entry.attempted = true;
                let from = match entry.spooled {
                    Spooled::Yes(id) if entry.put.may_be_lost() => Some(id),
                    _ => None,
                };
                let put = entry.put.clone();
                batch.push(Write { put, from });
            }
        }
        self.writing = places.into_iter().collect();
        self.writing_since = Some(now);
        batch
    }

    fn is_storable_as_it_is(&self, entry: &Entry) -> bool {
        matches!(self.storable_text(entry), Some(None))
    }

    /// The body of `key`, which was to be written, cannot be read from the spool.
    pub(crate) fn unreadable(&mut self, key: &ObjectKey) {
        for place in self.waiting.of_key(key).collect::<Vec<_>>() {
            if self.writing.remove(&place) {
                self.lose(place);
            }
        }
    }

    /// The batch under way has ended; `failed` says of which objects the write failed. Those stay in
    /// their places.
    pub(crate) fn settle(&mut self, failed: &BTreeSet<ObjectKey>, now: Instant) {
        let mut failures: u32 = 0;
        for place in std::mem::take(&mut self.writing) {
            let Some(entry) = self.waiting.get(place) else {
                continue;
            };
            if !failed.contains(&entry.put.key) {
                self.written(place);
                continue;
            }
            failures += 1;
            let (key, names) = (entry.put.key.clone(), entry.names.clone());
            self.late_write(&key, &names, now);
            if key.item.is_manifest() {
                // A failed write may have happened all the same: what either version names is named.
                self.named.entry(key).or_default().extend(names);
            }
        }
        if failures == 0 {
            if self.retry.take().is_some_and(|retry| retry.elsewhere) {
                self.set_head_back();
            }
        } else {
            self.counts.failures += u64::from(failures);
            self.write_failed(now);
        }
    }

    /// In place of the version of `key` that was to be written last somebody else's stands, which names `names`.
    pub(crate) fn overtaken(&mut self, key: &ObjectKey, names: BTreeSet<ObjectKey>) {
        self.named.entry(key.clone()).or_default().extend(names);
    }

    /// The write of `key`, which names `names`, may happen yet.
    fn late_write(&mut self, key: &ObjectKey, names: &BTreeSet<ObjectKey>, now: Instant) {
        if self.limits.lateness.is_zero() {
            return;
        }
        let until = now + self.limits.lateness;
        let late = self.late.entry(key.clone()).or_insert_with(|| Late {
            until,
            names: BTreeSet::new(),
        });
        late.until = until;
        late.names.extend(names.iter().cloned());
        if !key.item.is_manifest() {
            late.names.insert(key.clone());
        }
    }

    fn written(&mut self, place: Place) {
        let Some(entry) = self.waiting.remove(place) else {
            return;
        };
        self.counts.stored += 1;
        if entry.put.is_manifest() {
            let key = &entry.put.key;
            self.foreign_mpd &= !matches!(key.item, Item::Mpd);
            self.named.insert(key.clone(), entry.names);
            self.forget_unnamed(key);
            let is_over = |late: &Late| self.writing_since.is_some_and(|at| at >= late.until);
            if self.late.get(key).is_some_and(is_over) {
                self.late.remove(key);
            }
            // There are ever more manifests of shows, of any length, and each is written once or twice.
            if !key.item.is_of_show() || self.late.contains_key(key) {
                self.last.insert(key.clone(), entry.put.clone());
            } else {
                self.last.remove(key);
            }
        }
        self.stored.insert(entry.put.key);
    }

    /// The deletion under way has succeeded, or there was nothing to delete.
    pub(crate) fn deleted(&mut self, key: &ObjectKey) {
        self.removal.cancel(key);
        self.stored.remove(key);
        self.named.remove(key);
        self.last.remove(key);
        self.late.remove(key);
        self.delete_next = None;
        self.counts.deleted += 1;
    }

    /// The deletion under way has failed; it is tried again later. The object counts as gone, since
    /// it may be.
    pub(crate) fn delete_failed(&mut self, key: &ObjectKey, now: Instant) {
        self.counts.failures += 1;
        self.stored.remove(key);
        self.delete_next = Some(now + DELETE_PAUSE);
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "an instant to begin from cannot be had otherwise"
)]
mod tests;
