//! What follows a failed write: when the next attempt is, and at what.
//!
//! Enters: the failures and successes of writes
//! Leaves: pauses; another object to try when it is not clear whether the store is away or one object cannot be stored
//! Never:  changes the order because the store was away
//! Time:   monotonic instants, as arguments
//! Spec:   none

use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

use super::entry::Place;
use super::{MAX_WAITING_OBJECTS, Queue};

/// The first pause after a failed attempt; it doubles with each further one.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between attempts, so that a store that returns is noticed soon.
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(5);

/// How long one object is tried before it is seen whether others can be written.
const RETRY_BUDGET: Duration = Duration::from_secs(30);

/// How often an object that alone fails goes to the back, with one attempt at each turn, before it is given up.
const MAX_TURNS: u32 = 16;

/// The attempts since the last one that succeeded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    pub(super) attempts: u32,
    /// What is tried, and since when.
    head: Place,
    since: Instant,
    pub(super) next: Instant,
    /// Whether the next attempt is at something else, to see whether it is the store or the object that fails.
    pub(super) elsewhere: bool,
}

impl Queue {
    /// Something to be written that is not the head, and does not depend on it.
    pub(super) fn other_than_head(&self) -> Option<Place> {
        let (_, head) = self.waiting.first()?;
        let mut others = self.waiting.iter().skip(1).take(MAX_WAITING_OBJECTS);
        let other = others.find(|(_, entry)| {
            entry.put.key != head.put.key
                && (!entry.put.is_manifest() || self.is_storable_as_it_is(entry))
        });
        other.map(|(place, _)| place)
    }

    /// A write has failed. The head is tried again after a pause; when that has gone on for long, something else
    /// is tried in turn with it, to see whether the store is away or the object cannot be stored.
    pub(super) fn write_failed(&mut self, now: Instant) {
        let Some((place, head)) = self.waiting.first() else {
            return;
        };
        let before = self.retry;
        let attempts = before.map_or(0, |retry| retry.attempts) + 1;
        let since = before
            .filter(|retry| retry.head == place)
            .map_or(now, |retry| retry.since);
        let is_doubtful = head.set_back > 0 || now.saturating_duration_since(since) >= RETRY_BUDGET;
        self.retry = Some(Retry {
            attempts,
            head: place,
            since,
            next: now + self.pause(attempts),
            elsewhere: is_doubtful && !before.is_some_and(|retry| retry.elsewhere),
        });
    }

    /// The head fails where others do not: it goes to the back, and is given up if that does not help. Of a
    /// manifest, a newer version will do.
    pub(super) fn set_head_back(&mut self) {
        let Some((place, head)) = self.waiting.first() else {
            return;
        };
        if head.set_back >= MAX_TURNS && head.put.may_be_lost() {
            self.lose(place);
            return;
        }
        let Some(mut entry) = self.waiting.take(place) else {
            return;
        };
        if entry.put.is_manifest() && self.waiting.has(&entry.put.key) {
            self.waiting.discard(&entry);
            self.counts.superseded += 1;
            return;
        }
        entry.set_back += 1;
        self.waiting.push_back(entry);
    }

    /// Doubles with each attempt up to a cap, less up to a quarter that differs from object to object
    /// so that broadcasts do not try in step.
    fn pause(&self, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(10);
        let full = (FIRST_PAUSE * 2_u32.pow(doublings)).min(MAX_PAUSE);
        let head = self.waiting.first();
        let seed = head.map_or(0, |(_, entry)| {
            xxh3_64(entry.put.key.to_string().as_bytes())
        });
        let share = u32::try_from(seed.wrapping_add(u64::from(attempts)) % 256).unwrap_or(0);
        full - full / 4 * share / 256
    }
}
