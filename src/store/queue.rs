//! Decides what is written or deleted next, so that no stored playlist ever names what is not stored.
//!
//! Enters: objects in the order they were made, requests to remove, results of attempts, the time
//! Leaves: one [`Step`] at a time; the caller carries it out and reports before asking again
//! Never:  I/O, clocks, tasks
//! Time:   monotonic instants, as arguments that never go back
//! Spec:   [HLS] §6.2.2
//!
//! Full policy: when the waiting bytes or objects exceed their limit, the oldest waiting media is
//! given up: it would leave the live window first. So is what still waits when it is due for removal.
//! Init segments and manifests are never given up, and no object is because it failed.

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

use super::names::named_by;
use crate::media::{Item, ObjectKey, Payload};

/// The most objects waiting, whatever their size: ten rungs of parts for a minute.
pub(crate) const MAX_WAITING_OBJECTS: usize = 4_096;

/// The first pause after a failed attempt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between attempts, so that a store that returns is noticed soon.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// The most objects that are written at once: what a segment boundary brings at a usual ladder, so that a
/// store far away costs two round trips a boundary, media and manifests, however many renditions there are.
pub(crate) const MAX_BATCH: usize = 8;

/// How long one object is tried before what is behind it gets its turn.
const RETRY_BUDGET: Duration = Duration::from_secs(30);

/// The pause after a failed deletion. What is deleted late harms nobody.
const DELETE_PAUSE: Duration = Duration::from_secs(10);

/// One object to be stored.
#[derive(Clone, Debug)]
pub struct Put {
    /// Where.
    pub key: ObjectKey,
    /// The bytes; they are shared, not copied.
    pub body: Payload,
    /// The value of `Content-Type`, kept by stores that keep such things.
    pub content_type: &'static str,
    /// The value of `Cache-Control`, likewise.
    pub cache_control: &'static str,
}

impl Put {
    const fn is_manifest(&self) -> bool {
        self.key.item.is_manifest()
    }

    const fn may_be_lost(&self) -> bool {
        matches!(self.key.item, Item::Segment(..) | Item::Part(..))
    }
}

/// What to do next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Write these, in any order or at once, then report all of them with [`Queue::settle`]. Never empty,
    /// and no two of the same key.
    Write(Vec<Put>),
    /// Delete this, then report with [`Queue::deleted`] or [`Queue::delete_failed`].
    Delete(ObjectKey),
    /// Nothing until then, or, for `None`, until something is pushed.
    Wait(Option<Instant>),
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) stored: u64,
    pub(crate) deleted: u64,
    pub(crate) failures: u64,
    pub(crate) lost: u64,
    pub(crate) superseded: u64,
}

/// The attempts at the object at the head.
#[derive(Clone, Copy, Debug)]
struct Retry {
    attempts: u32,
    since: Instant,
    next: Instant,
}

/// The queue of one broadcast and what is known of its folder.
#[derive(Debug)]
pub(crate) struct Queue {
    max_bytes: u64,
    waiting: VecDeque<Put>,
    /// Manifests that name something not stored, and that nothing newer replaces.
    held: BTreeMap<ObjectKey, Put>,
    bytes: u64,
    /// How many at the head of `waiting` are being written.
    writing: usize,
    retry: Option<Retry>,
    /// What has used up its budget and went to the back.
    set_back: BTreeSet<ObjectKey>,
    stored: BTreeSet<ObjectKey>,
    named: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    retired: BTreeMap<ObjectKey, Instant>,
    /// Whether the stored MPD is an earlier broadcast's, whose names cannot be read.
    foreign_mpd: bool,
    counts: Counts,
}

impl Queue {
    /// A queue that holds at most `max_bytes`, for a folder that holds `found` now, and whose
    /// playlists name `named`. Everything found is removed after `leftover_at`, as soon as no stored
    /// playlist names it, unless it is written again.
    pub(crate) fn new(
        max_bytes: u64,
        found: BTreeSet<ObjectKey>,
        named: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
        leftover_at: Instant,
    ) -> Self {
        let removable = |key: &&ObjectKey| !matches!(key.item, Item::Multivariant | Item::Mpd);
        Self {
            max_bytes,
            waiting: VecDeque::new(),
            held: BTreeMap::new(),
            bytes: 0,
            writing: 0,
            retry: None,
            set_back: BTreeSet::new(),
            foreign_mpd: found.iter().any(|key| matches!(key.item, Item::Mpd)),
            retired: found
                .iter()
                .filter(removable)
                .map(|key| (key.clone(), leftover_at))
                .collect(),
            stored: found,
            named,
            counts: Counts::default(),
        }
    }

    /// Adds an object behind all others.
    pub(crate) fn push(&mut self, put: Put) {
        self.retired.remove(&put.key);
        if put.is_manifest() {
            self.supersede(&put.key);
        }
        self.bytes += put.body.len();
        self.waiting.push_back(put);
        while self.bytes > self.max_bytes || self.waiting.len() > MAX_WAITING_OBJECTS {
            if !self.lose_oldest() {
                break;
            }
        }
    }

    /// Removes all waiting versions of a manifest but the oldest. The oldest stays in its place:
    /// were it always the newest that stays, a slow store would never get to one.
    fn supersede(&mut self, key: &ObjectKey) {
        if let Some(held) = self.held.remove(key) {
            self.bytes -= held.body.len();
            self.counts.superseded += 1;
        }
        let oldest = self.waiting.iter().position(|put| put.key == *key);
        let Some(oldest) = oldest else { return };
        let newer = (oldest + 1..self.waiting.len()).rev();
        let newer = newer.filter(|at| self.waiting.get(*at).is_some_and(|put| put.key == *key));
        for at in newer.collect::<Vec<_>>() {
            self.remove(at);
            self.counts.superseded += 1;
        }
    }

    fn lose_oldest(&mut self) -> bool {
        let oldest = (self.writing..self.waiting.len())
            .find(|at| self.waiting.get(*at).is_some_and(Put::may_be_lost));
        let Some(at) = oldest else { return false };
        self.lose(at);
        true
    }

    fn lose(&mut self, at: usize) {
        self.remove(at);
        self.counts.lost += 1;
        if at == 0 {
            self.retry = None;
        }
    }

    fn remove(&mut self, at: usize) -> Option<Put> {
        let put = self.waiting.remove(at)?;
        self.bytes -= put.body.len();
        self.set_back.remove(&put.key);
        Some(put)
    }

    /// Has `key` removed at `due`, or later if a stored playlist still names it then.
    pub(crate) fn retire(&mut self, key: ObjectKey, due: Instant) {
        self.retired.insert(key, due);
    }

    /// Takes back that `key` is to be removed.
    pub(crate) fn keep(&mut self, key: &ObjectKey) {
        self.retired.remove(key);
    }

    /// What to do next. While a step is under way, objects may be pushed and retired, but no other
    /// step may be asked for.
    pub(crate) fn next(&mut self, now: Instant) -> Step {
        self.lose_overdue(now);
        if let Some(key) = self.due(now) {
            return Step::Delete(key);
        }
        self.release();
        while let Some(head) = self.waiting.front() {
            if head.is_manifest() && !self.is_storable(head) {
                self.hold();
                continue;
            }
            return match self.retry.map(|retry| retry.next) {
                Some(next) if next > now => Step::Wait(Some(next)),
                _ => Step::Write(self.batch()),
            };
        }
        let removable = self
            .retired
            .iter()
            .filter(|(key, _)| self.is_removable(key));
        Step::Wait(removable.map(|(_, due)| *due).min())
    }

    /// Gives up waiting media whose time of removal has come: it would be written to be deleted.
    fn lose_overdue(&mut self, now: Instant) {
        while let Some(at) = self.waiting.iter().position(|put| {
            put.may_be_lost() && self.retired.get(&put.key).is_some_and(|due| *due <= now)
        }) {
            // A failed attempt may have written it all the same: it stays to be deleted.
            self.lose(at);
        }
    }

    fn due(&self, now: Instant) -> Option<ObjectKey> {
        let mut due = self.retired.iter().filter(|(_, due)| **due <= now);
        due.find(|(key, _)| self.is_removable(key))
            .map(|(key, _)| key.clone())
    }

    /// Whether nothing stored names `key` any more, and nothing waits to write it.
    fn is_removable(&self, key: &ObjectKey) -> bool {
        !self.foreign_mpd
            && !self.named.values().any(|names| names.contains(key))
            && !self.waiting.iter().any(|put| put.key == *key)
    }

    fn is_storable(&self, manifest: &Put) -> bool {
        if matches!(manifest.key.item, Item::Mpd) {
            let is_init = |key: &ObjectKey| matches!(key.item, Item::Init(..));
            return self.stored.iter().any(is_init)
                && !self.waiting.iter().any(|put| is_init(&put.key));
        }
        named_by(&manifest.key, &manifest.body.to_bytes()).is_subset(&self.stored)
    }

    /// Puts the manifest at the head aside, or drops it where a newer version waits.
    fn hold(&mut self) {
        self.retry = None;
        let Some(put) = self.remove(0) else { return };
        if self.waiting.iter().any(|newer| newer.key == put.key) {
            self.counts.superseded += 1;
        } else {
            self.bytes += put.body.len();
            self.held.insert(put.key.clone(), put);
        }
    }

    /// Puts held manifests back in front whose names have been stored since.
    fn release(&mut self) {
        if self.retry.is_some() {
            return;
        }
        let storable = self.held.values().filter(|put| self.is_storable(put));
        let keys: Vec<_> = storable.map(|put| put.key.clone()).collect();
        for key in keys {
            if let Some(put) = self.held.remove(&key) {
                self.waiting.push_front(put);
            }
        }
    }

    /// What is at the head and may be written at once: media, or manifests that name only what is stored.
    /// After a failure only the head, to see whether the store is back.
    fn batch(&mut self) -> Vec<Put> {
        let most = if self.retry.is_some() { 1 } else { MAX_BATCH };
        let mut batch: Vec<Put> = Vec::new();
        for put in self.waiting.iter().take(most) {
            let goes_along = batch.first().is_none_or(|head| {
                head.is_manifest() == put.is_manifest()
                    && batch.iter().all(|other| other.key != put.key)
                    && (!put.is_manifest() || self.is_storable(put))
            });
            if !goes_along {
                break;
            }
            batch.push(put.clone());
        }
        self.writing = batch.len();
        batch
    }

    /// The batch under way has ended; `failed` says of which objects the write failed. Those stay in
    /// their places, in front of everything else.
    pub(crate) fn settle(&mut self, failed: &BTreeSet<ObjectKey>, now: Instant) {
        let batch = std::mem::take(&mut self.writing);
        let mut at = 0;
        for _ in 0..batch {
            match self.waiting.get(at) {
                Some(put) if failed.contains(&put.key) => at += 1,
                _ => self.written(at),
            }
        }
        if at == 0 {
            self.retry = None;
        } else {
            self.write_failed(at, now);
        }
    }

    fn written(&mut self, at: usize) {
        let Some(put) = self.remove(at) else { return };
        self.counts.stored += 1;
        if put.is_manifest() {
            let names = named_by(&put.key, &put.body.to_bytes());
            self.named.insert(put.key.clone(), names);
            self.foreign_mpd &= !matches!(put.key.item, Item::Mpd);
        }
        self.stored.insert(put.key);
    }

    /// The writes of the first `count` have failed. The head is tried again after a pause; when that has
    /// gone on for long, it goes to the back, and from then on has one attempt whenever its turn comes.
    fn write_failed(&mut self, count: usize, now: Instant) {
        self.counts.failures += count as u64;
        for put in self
            .waiting
            .iter()
            .take(count)
            .filter(|put| put.is_manifest())
        {
            // A failed write may have happened all the same: until one succeeds, what either
            // version names is named.
            let names = named_by(&put.key, &put.body.to_bytes());
            self.named.entry(put.key.clone()).or_default().extend(names);
        }
        let attempts = self.retry.map_or(0, |retry| retry.attempts) + 1;
        let since = self.retry.map_or(now, |retry| retry.since);
        let next = now + self.pause(attempts);
        self.retry = Some(Retry {
            attempts,
            since,
            next,
        });
        let Some(head) = self.waiting.front() else {
            return;
        };
        let used_up = now.saturating_duration_since(since) >= RETRY_BUDGET;
        if !used_up && !self.set_back.contains(&head.key) {
            return;
        }
        if self.waiting.iter().skip(1).any(|put| put.key == head.key) {
            self.remove(0);
            self.counts.superseded += 1;
        } else {
            self.set_back.insert(head.key.clone());
            self.waiting.rotate_left(1);
        }
        // The pause stays, the budget of the new head begins.
        self.retry = Some(Retry {
            attempts,
            since: now,
            next,
        });
    }

    /// Doubles with each attempt up to a cap, less up to a quarter that differs from object to object
    /// so that broadcasts do not try in step.
    fn pause(&self, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(10);
        let full = (FIRST_PAUSE * 2_u32.pow(doublings)).min(MAX_PAUSE);
        let seed = self
            .waiting
            .front()
            .map_or(0, |put| xxh3_64(put.key.to_string().as_bytes()));
        let share = u32::try_from(seed.wrapping_add(u64::from(attempts)) % 256).unwrap_or(0);
        full - full / 4 * share / 256
    }

    /// The deletion under way has succeeded, or there was nothing to delete.
    pub(crate) fn deleted(&mut self, key: &ObjectKey) {
        self.retired.remove(key);
        self.stored.remove(key);
        self.named.remove(key);
        self.counts.deleted += 1;
    }

    /// The deletion under way has failed; it is tried again later. The object counts as gone, since
    /// it may be.
    pub(crate) fn delete_failed(&mut self, key: &ObjectKey, now: Instant) {
        self.counts.failures += 1;
        self.stored.remove(key);
        if let Some(due) = self.retired.get_mut(key) {
            *due = now + DELETE_PAUSE;
        }
    }

    /// Whether everything that can be written is.
    pub(crate) fn is_flushed(&self) -> bool {
        self.waiting.is_empty() && !self.held.values().any(|put| self.is_storable(put))
    }

    /// Objects waiting or held.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.held.len()
    }

    /// Bytes waiting or held.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How often the object at the head has failed; zero when all is well.
    pub(crate) fn attempts(&self) -> u32 {
        self.retry.map_or(0, |retry| retry.attempts)
    }

    /// What has happened so far.
    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
#[expect(
    clippy::disallowed_methods,
    reason = "an instant to begin from cannot be had otherwise"
)]
mod tests;
