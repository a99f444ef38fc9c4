//! What was read from the store, kept in memory: many who ask for the same thing at once cause one read.
//!
//! Enters: keys, and how to read what is behind one
//! Leaves: the same value for everyone until it is stale or makes room
//! Never:  reads by itself; holds its lock while anything is read
//! Time:   `Instant`: how old a value is
//! Spec:   none

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use crate::media::ObjectKey;

/// What a key and its bookkeeping take beside the value, in bytes, roughly: what keeps the number of
/// entries bounded that have no bytes, such as "there is nothing".
const ENTRY_BYTES: u64 = 512;

/// How long a value stays that found no room; where even that takes more than there is, how long it is before it is
/// read again. Whoever asks in between gets the same, or waits for the next.
const PASSING: Duration = Duration::from_secs(1);

/// Which part of the room is for those that pass.
const PASSING_SHARE: u64 = 8;

/// What a value is kept under.
pub trait Name: Clone + Eq + Hash + fmt::Debug + fmt::Display + Send + Sync + 'static {}

impl<K: Clone + Eq + Hash + fmt::Debug + fmt::Display + Send + Sync + 'static> Name for K {}

/// What can be kept.
pub trait Keep: Clone + Send + Sync + 'static {
    /// Bytes of memory that it holds.
    fn bytes(&self) -> u64;

    /// Whether it may still be given out at `now`.
    fn is_fresh(&self, now: Instant) -> bool;
}

/// Values by key, those used least lately removed first. What finds no room stays for a moment, so that not everyone
/// who asks for it costs a reading.
#[derive(Debug)]
pub struct Shelf<V: Keep, K: Name = ObjectKey> {
    limits: Limits,
    inner: Mutex<Inner<V, K>>,
    hits: AtomicU64,
    reads: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    max_bytes: u64,
    /// Of those that pass. The newest of them stays, whatever it has.
    max_passing_bytes: u64,
    hold: Duration,
}

#[derive(Debug)]
struct Inner<V: Keep, K: Name> {
    entries: HashMap<K, Entry<V>>,
    /// Those that may have to make room, by when they were used last, oldest first.
    by_use: BTreeMap<u64, K>,
    /// Those that found no room and stay for a moment, by their reading, oldest first.
    passing: BTreeMap<u64, K>,
    uses: u64,
    /// What all take but those that pass.
    bytes: u64,
    passing_bytes: u64,
}

#[derive(Debug)]
struct Entry<V: Keep> {
    place: Place<V>,
    /// Which reading of the key it is, so that a late one does not settle a newer one's account.
    reading: u64,
    used: u64,
    used_at: Instant,
    /// What it takes; while it is read anew, what it took before.
    bytes: u64,
}

#[derive(Debug)]
enum Place<V: Keep> {
    /// It is being read. Nothing takes its room: what is there to be freed is with those who wait for it.
    Reading(Reading<V>),
    Shelved(Reading<V>),
    /// It found no room, and stays for a moment; until when.
    Passing(Reading<V>, Instant),
    /// Others that passed took the room of it before that. It is not read again until then.
    Gone(Instant),
}

type Reading<V> = Shared<BoxFuture<'static, V>>;

impl<V: Keep> Entry<V> {
    const fn reading(&self) -> Option<&Reading<V>> {
        match &self.place {
            Place::Reading(reading) | Place::Shelved(reading) | Place::Passing(reading, _) => {
                Some(reading)
            }
            Place::Gone(_) => None,
        }
    }
}

impl<V: Keep, K: Name> Shelf<V, K> {
    /// An empty shelf for about `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        Self::holding(max_bytes, Duration::ZERO)
    }

    /// The same, on which nothing new takes the room of what was used within the last `hold`. Where more is asked for
    /// again and again than there is room for, some of it stays, instead of each pushing out the next.
    #[must_use]
    pub fn holding(max_bytes: u64, hold: Duration) -> Self {
        let max_passing_bytes = max_bytes / PASSING_SHARE;
        Self {
            limits: Limits {
                max_bytes: max_bytes - max_passing_bytes,
                max_passing_bytes,
                hold,
            },
            inner: Mutex::new(Inner {
                entries: HashMap::new(),
                by_use: BTreeMap::new(),
                passing: BTreeMap::new(),
                uses: 0,
                bytes: 0,
                passing_bytes: 0,
            }),
            hits: AtomicU64::new(0),
            reads: AtomicU64::new(0),
        }
    }

    /// The value of `key` if it is there and fresh.
    #[must_use]
    pub fn peek(&self, key: &K) -> Option<V> {
        let now = now();
        let mut inner = self.lock();
        let value = inner.entries.get(key)?.reading()?.peek()?.clone();
        if !value.is_fresh(now) {
            return None;
        }
        inner.touch(key, now);
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(value)
    }

    /// The value of `key`, by `read` where there is no fresh one and nobody is reading it already. `read` is
    /// given the stale one. It goes on as a task of its own, also if everyone who waits for it goes away.
    ///
    /// Must be called within a tokio runtime.
    pub async fn get<F>(self: &Arc<Self>, key: &K, read: impl FnOnce(Option<V>) -> F) -> V
    where
        F: Future<Output = V> + Send + 'static,
    {
        let value = self.begin(key, read);
        value.await
    }

    /// How many requests were answered from memory or joined a reading under way, and how many readings
    /// there were.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let hits = self.hits.load(Ordering::Relaxed);
        (hits, self.reads.load(Ordering::Relaxed))
    }

    /// Bytes that it holds, as it counts them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let inner = self.lock();
        inner.bytes + inner.passing_bytes
    }

    /// The keys and values that have been read, in no order.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(K, V)> {
        let inner = self.lock();
        let read =
            |(key, entry): (&K, &Entry<V>)| Some((key.clone(), entry.reading()?.peek()?.clone()));
        inner.entries.iter().filter_map(read).collect()
    }

    fn begin<F>(self: &Arc<Self>, key: &K, read: impl FnOnce(Option<V>) -> F) -> Reading<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let now = now();
        let mut inner = self.lock();
        let (mut stale, mut not_before) = (None, None);
        if let Some(entry) = inner.entries.get(key) {
            if let Place::Gone(until) = entry.place {
                not_before = Some(until);
            }
            if let Some(value) = entry.reading().cloned() {
                match value.peek() {
                    Some(read) if !read.is_fresh(now) => stale = Some(read.clone()),
                    _ => {
                        inner.touch(key, now);
                        self.hits.fetch_add(1, Ordering::Relaxed);
                        return value;
                    }
                }
            }
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        let value = later(not_before, read(stale)).boxed().shared();
        let reading = inner.insert(key, value.clone(), now);
        drop(inner);
        tokio::spawn(Arc::clone(self).attend(key.clone(), reading, value.clone()));
        value
    }

    /// Sees to it that `reading` of `key`, which gives `value`, comes to an end, and what becomes of that.
    async fn attend(self: Arc<Self>, key: K, reading: u64, value: Reading<V>) {
        // What is read may be anybody's. Who waits for it breaks down as well; whoever asks next reads anew.
        let Ok(value) = AssertUnwindSafe(value).catch_unwind().await else {
            tracing::error!(%key, "reading this broke down; this is a bug");
            return self.lock().give_up(&key, reading);
        };
        let bytes = value.bytes();
        drop(value);
        let has_room = self.lock().settle((&key, reading), bytes, self.limits);
        if !has_room {
            tokio::time::sleep(PASSING).await;
            self.lock().give_up(&key, reading);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<V, K>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn later<F: Future>(not_before: Option<Instant>, read: F) -> F::Output {
    if let Some(at) = not_before {
        tokio::time::sleep_until(at.into()).await;
    }
    read.await
}

impl<V: Keep, K: Name> Inner<V, K> {
    fn insert(&mut self, key: &K, value: Reading<V>, now: Instant) -> u64 {
        // Nothing else takes the room of what is read anew. What only passed has none.
        let was_shelved = self
            .entries
            .get(key)
            .is_some_and(|entry| matches!(entry.place, Place::Shelved(_)));
        let bytes = self.remove(key).filter(|_| was_shelved);
        let bytes = bytes.unwrap_or(ENTRY_BYTES);
        self.uses += 1;
        self.bytes += bytes;
        let entry = Entry {
            place: Place::Reading(value),
            reading: self.uses,
            used: self.uses,
            used_at: now,
            bytes,
        };
        self.entries.insert(key.clone(), entry);
        self.uses
    }

    fn touch(&mut self, key: &K, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        self.uses += 1;
        if let Some(key) = self.by_use.remove(&entry.used) {
            self.by_use.insert(self.uses, key);
        }
        entry.used = self.uses;
        entry.used_at = now;
    }

    /// Takes into account how large `reading` of `key` became, and makes room: nothing else goes for what has none
    /// anyway. Whether it has: otherwise it passes.
    fn settle(&mut self, (key, reading): (&K, u64), bytes: u64, limits: Limits) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return true;
        };
        if entry.reading != reading {
            return true;
        }
        let Place::Reading(value) = &entry.place else {
            return true;
        };
        let value = value.clone();
        let others = self.bytes - entry.bytes;
        let (used, taken) = (entry.used, ENTRY_BYTES + bytes);
        let excess = (others + taken).saturating_sub(limits.max_bytes);
        self.bytes = others;
        entry.bytes = taken;
        let Some(going) = self.that_free(excess, limits.hold) else {
            self.pass(key, value, limits.max_passing_bytes);
            return false;
        };
        for key in going {
            self.remove(&key);
        }
        self.bytes += taken;
        if let Some(entry) = self.entries.get_mut(key) {
            entry.place = Place::Shelved(value);
        }
        self.by_use.insert(used, key.clone());
        true
    }

    /// Those used least lately that have `excess` bytes together; `None` where what is not held has less.
    fn that_free(&self, excess: u64, hold: Duration) -> Option<Vec<K>> {
        let now = now();
        let (mut freed, mut going) = (0, Vec::new());
        let mut oldest = self.by_use.values();
        while freed < excess {
            let key = oldest.next()?;
            let entry = self.entries.get(key)?;
            if now.duration_since(entry.used_at) < hold {
                return None;
            }
            freed += entry.bytes;
            going.push(key.clone());
        }
        Some(going)
    }

    /// Keeps `value` of `key`, which found no room, for a moment, if need be in the place of those that did so before.
    fn pass(&mut self, key: &K, value: Reading<V>, max_bytes: u64) {
        let until = now() + PASSING;
        if let Some(entry) = self.entries.get_mut(key) {
            entry.place = Place::Passing(value, until);
            self.passing_bytes += entry.bytes;
            self.passing.insert(entry.reading, key.clone());
        }
        while self.passing_bytes > max_bytes && self.passing.len() > 1 {
            let Some((_, key)) = self.passing.pop_first() else {
                return;
            };
            if let Some(entry) = self.entries.get_mut(&key)
                && let Place::Passing(_, until) = entry.place
            {
                self.passing_bytes -= entry.bytes;
                self.bytes += ENTRY_BYTES;
                entry.bytes = ENTRY_BYTES;
                entry.place = Place::Gone(until);
            }
        }
    }

    /// Forgets `reading` of `key`: it never came to an end, or has passed.
    fn give_up(&mut self, key: &K, reading: u64) {
        if self
            .entries
            .get(key)
            .is_some_and(|entry| entry.reading == reading)
        {
            self.remove(key);
        }
    }

    /// Takes it out; how many bytes it took.
    fn remove(&mut self, key: &K) -> Option<u64> {
        let entry = self.entries.remove(key)?;
        self.by_use.remove(&entry.used);
        if self.passing.remove(&entry.reading).is_some() {
            self.passing_bytes -= entry.bytes;
        } else {
            self.bytes -= entry.bytes;
        }
        Some(entry.bytes)
    }
}

/// By the runtime's clock, which is the machine's.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
