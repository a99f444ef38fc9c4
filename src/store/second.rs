//! A store and, where there is one, a second one that is written beside it and read where the first fails.
//!
//! Enters: reads; a stream that is to be written
//! Leaves: what either store has; writers for each
//! Never:  makes the one wait for the other: each has its queue, its spool and its health
//! Time:   tokio's clock
//! Spec:   docs/storage.md

use std::ops::Range;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, join_all, select};

use super::inventory::Inventory;
use super::names::{has_ended, last_number, named_by, recorded_up_to};
use super::open::{ReadFailed, Store};
use super::queue::Put;
use super::shared::now;
use super::writer::{BroadcastWriter, Left};
use crate::id::StreamName;
use crate::media::{Item, ObjectKey, Payload};

/// How much longer than the one that answers the other may take before it is not waited for.
const HEDGE: Duration = Duration::from_millis(500);

/// How long a store that could not be read is asked last.
pub(super) const AWAY: Duration = Duration::from_secs(5);

/// What came of a read.
type Read = Result<Option<Payload>, ReadFailed>;

impl Store {
    /// Each store, for what is done in each on its own. Their order stays.
    #[must_use]
    pub fn each(&self) -> Vec<Self> {
        let mut first = self.clone();
        first.second = None;
        let second = self.second.as_deref().cloned();
        [first].into_iter().chain(second).collect()
    }

    /// Writers for a broadcast of `stream`, one for each store; as [`Self::broadcast`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn writers(&self, stream: &StreamName) -> Writers {
        let writers = self.each().into_iter();
        let writers = writers.map(|store| store.broadcast(stream.clone()));
        Writers(writers.collect())
    }

    pub(super) async fn read(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Read {
        let second = self.second.as_deref();
        for store in [self].into_iter().chain(second) {
            if let Some(waiting) = store.waiting(key).await {
                let part = |range| waiting.slice(range);
                return Ok(Some(range.map_or_else(|| waiting.clone(), part)));
            }
        }
        let Some(second) = second else {
            return self.fetch(key, range).await;
        };
        if range.is_none() && matches!(key.item, Item::Media(_) | Item::Show(_)) {
            return self.fetch_newest(second, key).await;
        }
        let (one, other) = if self.is_away() && !second.is_away() {
            (second, self)
        } else {
            (self, second)
        };
        one.fetch_or(other, key, range).await
    }

    /// What this store has, or `other` where this one fails, is slow or has none.
    async fn fetch_or(&self, other: &Self, key: &ObjectKey, range: Option<Range<u64>>) -> Read {
        let mut reading = pin!(self.fetch(key, range.clone()));
        let first = match tokio::time::timeout(HEDGE, &mut reading).await {
            Ok(first) => first,
            Err(_) => match select(reading, pin!(other.fetch(key, range.clone()))).await {
                Either::Left((first, _)) => first,
                Either::Right((Ok(Some(found)), _)) => {
                    self.set_away();
                    return Ok(Some(found));
                }
                // It may have it, and nobody else has.
                Either::Right((_, reading)) => return reading.await,
            },
        };
        match first {
            Ok(Some(found)) => Ok(Some(found)),
            Ok(None) if other.is_away() => Ok(None),
            Ok(None) => Ok(other.fetch(key, range).await.unwrap_or(None)),
            Err(error) => match other.fetch(key, range).await {
                Ok(Some(found)) => Ok(Some(found)),
                _ => Err(error),
            },
        }
    }

    /// The newer of two live playlists, or of two records of a show: a store that was away is behind until it has
    /// everything.
    async fn fetch_newest(&self, second: &Self, key: &ObjectKey) -> Read {
        if self.is_away() || second.is_away() {
            let (one, other) = if self.is_away() {
                (second, self)
            } else {
                (self, second)
            };
            return one.fetch_or(other, key, None).await;
        }
        let both = select(
            Box::pin(self.fetch(key, None)),
            Box::pin(second.fetch(key, None)),
        );
        let (answer, rest, late) = match both.await {
            Either::Left((answer, rest)) => (answer, rest, second),
            Either::Right((answer, rest)) => (answer, rest, self),
        };
        let rest = if matches!(answer, Ok(Some(_))) {
            let waited = tokio::time::timeout(HEDGE, rest).await;
            waited.unwrap_or_else(|_| {
                late.set_away();
                Ok(None)
            })
        } else {
            rest.await
        };
        let age = |text: &Payload| {
            let text = text.to_bytes();
            match key.item {
                Item::Show(_) => recorded_up_to(&text),
                _ => (last_number(&named_by(key, &text)), has_ended(&text)),
            }
        };
        match (answer, rest) {
            (Ok(Some(one)), Ok(Some(other))) if age(&one) < age(&other) => Ok(Some(other)),
            (Ok(Some(found)), _) | (_, Ok(Some(found))) => Ok(Some(found)),
            (Ok(None), _) | (_, Ok(None)) => Ok(None),
            (Err(error), Err(_)) => Err(error),
        }
    }

    /// What this store itself has.
    async fn fetch(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Read {
        let read = self.bucket().get(key, range).await;
        read.map_err(|error| {
            self.set_away();
            ReadFailed::of(&key, &error)
        })
    }

    fn is_away(&self) -> bool {
        self.away.borrow().is_some_and(|until| until > now())
    }

    fn set_away(&self) {
        self.away.send_replace(Some(now() + AWAY));
    }
}

/// The writers of one broadcast, one for each store. What one of them cannot do, or does late, concerns no other.
#[derive(Debug)]
pub struct Writers(Vec<BroadcastWriter>);

impl Writers {
    /// Each, in the order of [`Store::each`].
    #[must_use]
    pub fn each(&self) -> &[BroadcastWriter] {
        &self.0
    }

    /// What is stored of the stream anywhere; what can be said `within` this time. Once one store has said it, the
    /// others are not waited for any longer than they usually take.
    pub async fn inventory(&self, within: Duration) -> Inventory {
        let asked = self.0.iter().map(|writer| writer.learned(within));
        let first = futures_util::future::select_all(asked.map(Box::pin)).await;
        let (is_known, _, rest) = first;
        let left = if is_known { HEDGE.min(within) } else { within };
        let _ = tokio::time::timeout(left, join_all(rest)).await;
        let each = self.0.iter().map(BroadcastWriter::inventory_now);
        Inventory::of_all(each)
    }

    /// See [`BroadcastWriter::begin`].
    pub fn begin(&mut self) {
        self.0.iter_mut().for_each(BroadcastWriter::begin);
    }

    /// See [`BroadcastWriter::put`].
    pub fn put(&self, put: &Put) {
        self.0.iter().for_each(|writer| writer.put(put.clone()));
    }

    /// See [`BroadcastWriter::delete_after`].
    pub fn delete_after(&self, key: &ObjectKey, after: Duration) {
        for writer in &self.0 {
            writer.delete_after(key.clone(), after);
        }
    }

    /// See [`BroadcastWriter::keep`].
    pub fn keep(&self, key: &ObjectKey) {
        self.0.iter().for_each(|writer| writer.keep(key));
    }

    /// See [`BroadcastWriter::forget`].
    pub fn forget(&self, key: &ObjectKey) {
        self.0.iter().for_each(|writer| writer.forget(key));
    }

    /// See [`BroadcastWriter::finish`]; what is left, of all.
    pub async fn finish(self, within: Duration) -> Left {
        let finishing = self.0.into_iter().map(|writer| writer.finish(within));
        let left = join_all(finishing).await;
        left.into_iter().fold(Left::default(), |all, left| Left {
            objects: all.objects + left.objects,
            bytes: all.bytes + left.bytes,
            spooled: all.spooled + left.spooled,
        })
    }
}
