//! What goes to the spool, and what is given up to make room there.
//!
//! Enters: the room that is left; which files were written
//! Leaves: what is to be written next, and which files are of no use any more
//! Never:  files
//! Time:   monotonic instants, as arguments
//! Spec:   none

use std::time::{Duration, Instant};

use super::entry::{Entry, Place, Put, SpoolId};
use super::{MAX_SPOOLED_OBJECTS, Queue};
use crate::media::Item;

/// How long an object waits before it goes to the spool: a store that works takes far less.
pub(crate) const SPOOL_AFTER: Duration = Duration::from_secs(2);

/// The most that goes to the spool at a time.
const MAX_SPOOL_BATCH: usize = 32;

impl Queue {
    /// What is to be written to the spool now, where `room` bytes are free: what waits for long, or anything `in_hurry`.
    /// Each is reported with [`Self::spooled`]. Room is made by giving up the oldest media there.
    pub(crate) fn take_for_spool(
        &mut self,
        mut room: u64,
        in_hurry: bool,
        now: Instant,
    ) -> Vec<(Place, Put)> {
        if self.limits.spool_age.is_none() {
            return Vec::new();
        }
        self.lose_aged(now);
        let in_hurry = in_hurry
            || self.retry.is_some()
            || self.waiting.memory_bytes() > self.limits.memory_bytes / 2;
        let waits_long = |entry: &Entry| now.saturating_duration_since(entry.since) >= SPOOL_AFTER;
        let is_init = |entry: &Entry| matches!(entry.put.key.item, Item::Init(..));
        let due = |inits: bool| {
            let unspooled = self.waiting.unspooled();
            let due = unspooled.filter(move |(_, entry)| in_hurry || waits_long(entry));
            due.filter(move |(_, entry)| is_init(entry) == inits)
        };
        // An init segment that failed where others did not waits behind playlists that are nothing without it.
        let inits = self.waiting.has_init().then(|| due(true));
        let wanted = inits.into_iter().flatten().chain(due(false));
        let wanted = wanted.map(|(place, entry)| (place, entry.len));
        let wanted: Vec<_> = wanted.take(MAX_SPOOL_BATCH).collect();
        let mut batch = Vec::new();
        for (place, len) in wanted {
            while room < len || self.waiting.len() > MAX_SPOOLED_OBJECTS {
                let mut spooled = self.waiting.media_in_spool();
                let oldest = spooled.find(|place| !self.writing.contains(place));
                drop(spooled);
                let Some(oldest) = oldest else { break };
                room += self.waiting.get(oldest).map_or(0, |entry| entry.len);
                self.lose(oldest);
            }
            if room < len {
                break;
            }
            room -= len;
            batch.extend(self.waiting.begin_spooling(place).map(|put| (place, put)));
        }
        batch
    }

    /// The object at `place` is in the file `id` of the spool, or could not be written there. False if that file is
    /// of no use.
    pub(crate) fn spooled(&mut self, place: Place, id: Option<SpoolId>) -> bool {
        self.waiting.end_spooling(place, id)
    }

    /// Whether something waits that the spool does not have.
    pub(crate) fn has_unspooled(&self) -> bool {
        self.limits.spool_age.is_some() && self.waiting.unspooled_len() > 0
    }

    /// Files of the spool that are of no use any more.
    pub(crate) fn take_discarded(&mut self) -> Vec<SpoolId> {
        self.waiting.take_discarded()
    }
}
