//! What was read from the store, kept in memory: many who ask for the same thing at once cause one read.
//!
//! Enters: keys, and how to read what is behind one
//! Leaves: the same value for everyone until it is stale or makes room
//! Never:  reads by itself; holds its lock while anything is read
//! Time:   `Instant`: how old a value is
//! Spec:   none

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
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

/// What can be kept.
pub trait Keep: Clone + Send + Sync + 'static {
    /// Bytes of memory that it holds.
    fn bytes(&self) -> u64;

    /// Whether it may still be given out at `now`.
    fn is_fresh(&self, now: Instant) -> bool;
}

/// Values by key, those used least lately removed first.
#[derive(Debug)]
pub struct Shelf<V: Keep> {
    max_bytes: u64,
    hold: Duration,
    inner: Mutex<Inner<V>>,
    hits: AtomicU64,
    reads: AtomicU64,
}

#[derive(Debug)]
struct Inner<V: Keep> {
    entries: HashMap<ObjectKey, Entry<V>>,
    /// Keys by when they were used last, oldest first.
    by_use: BTreeMap<u64, ObjectKey>,
    uses: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Entry<V: Keep> {
    value: Shared<BoxFuture<'static, V>>,
    /// Which reading of the key it is, so that a late one does not settle a newer one's account.
    reading: u64,
    used: u64,
    used_at: Instant,
    /// What it takes; while it is read anew, what it took before.
    bytes: u64,
}

impl<V: Keep> Shelf<V> {
    /// An empty shelf for about `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        Self::holding(max_bytes, Duration::ZERO)
    }

    /// The same, on which nothing new takes the room of what was used within the last `hold`. Where more is asked for
    /// again and again than there is room for, some of it stays, instead of each pushing out the next.
    #[must_use]
    pub fn holding(max_bytes: u64, hold: Duration) -> Self {
        Self {
            max_bytes,
            hold,
            inner: Mutex::new(Inner {
                entries: HashMap::new(),
                by_use: BTreeMap::new(),
                uses: 0,
                bytes: 0,
            }),
            hits: AtomicU64::new(0),
            reads: AtomicU64::new(0),
        }
    }

    /// The value of `key` if it is there and fresh.
    #[must_use]
    pub fn peek(&self, key: &ObjectKey) -> Option<V> {
        let now = Instant::now();
        let mut inner = self.lock();
        let value = inner.entries.get(key)?.value.peek()?.clone();
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
    pub async fn get<F>(self: &Arc<Self>, key: &ObjectKey, read: impl FnOnce(Option<V>) -> F) -> V
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
        self.lock().bytes
    }

    /// The keys and values that have been read, in no order.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(ObjectKey, V)> {
        let inner = self.lock();
        let read = |(key, entry): (&ObjectKey, &Entry<V>)| {
            Some((key.clone(), entry.value.peek()?.clone()))
        };
        inner.entries.iter().filter_map(read).collect()
    }

    fn begin<F>(
        self: &Arc<Self>,
        key: &ObjectKey,
        read: impl FnOnce(Option<V>) -> F,
    ) -> Shared<BoxFuture<'static, V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let now = Instant::now();
        let mut inner = self.lock();
        let mut stale = None;
        if let Some(entry) = inner.entries.get(key) {
            let value = entry.value.clone();
            match value.peek() {
                Some(read) if !read.is_fresh(now) => stale = Some(read.clone()),
                _ => {
                    inner.touch(key, now);
                    self.hits.fetch_add(1, Ordering::Relaxed);
                    return value;
                }
            }
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        let value = read(stale).boxed().shared();
        let reading = inner.insert(key, value.clone(), now);
        drop(inner);
        let (shelf, key, task) = (Arc::clone(self), key.clone(), value.clone());
        tokio::spawn(async move {
            // What is read may be anybody's. Who waits for it breaks down as well; whoever asks next reads anew.
            match AssertUnwindSafe(task).catch_unwind().await {
                Ok(value) => {
                    let bytes = value.bytes();
                    let limits = (shelf.max_bytes, shelf.hold);
                    shelf.lock().settle((&key, reading), bytes, limits);
                }
                Err(_) => {
                    tracing::error!(%key, "reading this broke down; this is a bug");
                    shelf.lock().give_up(&key, reading);
                }
            }
        });
        value
    }

    fn lock(&self) -> MutexGuard<'_, Inner<V>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: Keep> Inner<V> {
    fn insert(
        &mut self,
        key: &ObjectKey,
        value: Shared<BoxFuture<'static, V>>,
        now: Instant,
    ) -> u64 {
        // Nothing else takes the room of what is read anew.
        let bytes = self.remove(key).unwrap_or(ENTRY_BYTES);
        self.uses += 1;
        self.by_use.insert(self.uses, key.clone());
        self.bytes += bytes;
        let entry = Entry {
            value,
            reading: self.uses,
            used: self.uses,
            used_at: now,
            bytes,
        };
        self.entries.insert(key.clone(), entry);
        self.uses
    }

    fn touch(&mut self, key: &ObjectKey, now: Instant) {
        self.uses += 1;
        if let Some(entry) = self.entries.get_mut(key)
            && let Some(key) = self.by_use.remove(&entry.used)
        {
            entry.used = self.uses;
            entry.used_at = now;
            self.by_use.insert(self.uses, key);
        }
    }

    /// Takes into account how large `reading` of `key` became, and makes room: nothing else goes for what has none
    /// anyway.
    fn settle(
        &mut self,
        (key, reading): (&ObjectKey, u64),
        bytes: u64,
        (max_bytes, hold): (u64, Duration),
    ) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        if entry.reading != reading {
            return;
        }
        let taken = ENTRY_BYTES + bytes;
        self.bytes = self.bytes - entry.bytes + taken;
        entry.bytes = taken;
        if taken > max_bytes {
            self.remove(key);
        }
        let now = Instant::now();
        while self.bytes > max_bytes {
            let Some((_, oldest)) = self.by_use.first_key_value() else {
                return;
            };
            let oldest = oldest.clone();
            let used = self.entries.get(&oldest).map(|entry| entry.used_at);
            let is_held = used.is_some_and(|at| now.duration_since(at) < hold);
            if !is_held || self.remove(key).is_none() {
                self.remove(&oldest);
            }
        }
    }

    /// Forgets `reading` of `key`, which never came to an end.
    fn give_up(&mut self, key: &ObjectKey, reading: u64) {
        if self
            .entries
            .get(key)
            .is_some_and(|entry| entry.reading == reading)
        {
            self.remove(key);
        }
    }

    /// Takes it out; how many bytes it took.
    fn remove(&mut self, key: &ObjectKey) -> Option<u64> {
        let entry = self.entries.remove(key)?;
        self.by_use.remove(&entry.used);
        self.bytes -= entry.bytes;
        Some(entry.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Value {
        number: u64,
        bytes: u64,
        until: Option<Instant>,
    }

    impl Keep for Value {
        fn bytes(&self) -> u64 {
            self.bytes
        }

        fn is_fresh(&self, now: Instant) -> bool {
            self.until.is_none_or(|until| now < until)
        }
    }

    fn value(number: u64, bytes: u64) -> Value {
        Value {
            number,
            bytes,
            until: None,
        }
    }

    fn key(number: u64) -> ObjectKey {
        let path = format!("live/demo/v720/{number}.m4s");
        path.parse().expect("a key")
    }

    /// Asks for the first key, of which `value` is read once `gate` opens.
    fn ask_behind(
        gate: &Arc<Notify>,
        shelf: &Arc<Shelf<Value>>,
        value: Value,
    ) -> JoinHandle<Value> {
        let (shelf, gate) = (Arc::clone(shelf), Arc::clone(gate));
        tokio::spawn(async move {
            let read = |_| async move {
                gate.notified().await;
                value
            };
            shelf.get(&key(1), read).await
        })
    }

    #[tokio::test]
    async fn a_thousand_who_ask_at_once_cause_one_read() {
        let shelf = Arc::new(Shelf::new(1 << 20));
        let gate = Arc::new(Notify::new());
        let asked = (0..1_000).map(|_| ask_behind(&gate, &shelf, value(7, 1_000)));
        let asked: Vec<_> = asked.collect();
        // Who asked first goes away; the others get what it asked for all the same.
        tokio::task::yield_now().await;
        asked[0].abort();
        gate.notify_one();
        for asked in asked.into_iter().skip(1) {
            assert_eq!(asked.await.expect("an answer"), value(7, 1_000));
        }
        assert_eq!(shelf.counts(), (999, 1));
    }

    #[tokio::test]
    async fn what_broke_down_while_it_was_read_is_read_anew() {
        let shelf = Arc::new(Shelf::new(1 << 20));
        let asked = {
            let shelf = Arc::clone(&shelf);
            tokio::spawn(async move {
                let read = |_| async { panic!("of what was read") };
                shelf.get(&key(1), read).await
            })
        };
        assert!(asked.await.is_err());
        while shelf.bytes() > 0 {
            tokio::task::yield_now().await;
        }
        let read = |_| async { value(7, 1_000) };
        assert_eq!(shelf.get(&key(1), read).await, value(7, 1_000));
    }

    #[tokio::test]
    async fn what_is_stale_is_read_again_and_shown_to_who_reads() {
        let shelf = Arc::new(Shelf::new(1 << 20));
        let soon = Instant::now() + Duration::from_millis(5);
        let first = Value {
            until: Some(soon),
            ..value(1, 10)
        };
        let read = |stale: Option<Value>| async move {
            assert_eq!(stale, None);
            first
        };
        shelf.get(&key(1), read).await;
        tokio::time::sleep_until(soon.into()).await;
        assert_eq!(shelf.peek(&key(1)), None);
        let read =
            |stale: Option<Value>| async move { value(stale.map_or(0, |s| s.number) + 1, 10) };
        assert_eq!(shelf.get(&key(1), read).await, value(2, 10));
        assert_eq!(shelf.peek(&key(1)), Some(value(2, 10)));
    }

    #[tokio::test]
    async fn what_is_larger_than_the_shelf_pushes_nothing_out() {
        let shelf = Arc::new(Shelf::new(10_000));
        shelf.get(&key(1), |_| async { value(1, 1_000) }).await;
        let large = shelf.get(&key(2), |_| async { value(2, 20_000) }).await;
        assert_eq!(large.number, 2);
        tokio::task::yield_now().await;
        assert_eq!(shelf.peek(&key(1)), Some(value(1, 1_000)));
        assert_eq!(shelf.bytes(), 1_000 + ENTRY_BYTES);
    }

    #[tokio::test]
    async fn of_more_than_there_is_room_for_that_is_asked_for_in_turn_some_stays() {
        let shelf = Arc::new(Shelf::holding(10_000, Duration::from_secs(3_600)));
        for _ in 0..10 {
            for number in 0..5 {
                let read = |_| async move { value(number, 2_000) };
                assert_eq!(shelf.get(&key(number), read).await.number, number);
                tokio::task::yield_now().await;
            }
        }
        // Three have room. Without the hold each would be gone before it is asked for again.
        assert_eq!(shelf.counts(), (27, 3 + 20));
    }

    #[tokio::test]
    async fn what_is_read_anew_keeps_its_place() {
        let shelf = Arc::new(Shelf::holding(5_000, Duration::from_secs(3_600)));
        let now = Instant::now();
        let stale = Value {
            until: Some(now),
            ..value(1, 4_000)
        };
        shelf.get(&key(1), |_| async move { stale }).await;
        tokio::task::yield_now().await;
        let gate = Arc::new(Notify::new());
        let again = ask_behind(&gate, &shelf, value(1, 4_000));
        tokio::task::yield_now().await;
        shelf.get(&key(2), |_| async { value(2, 4_000) }).await;
        tokio::task::yield_now().await;
        gate.notify_one();
        again.await.expect("read");
        tokio::task::yield_now().await;
        assert_eq!(shelf.peek(&key(1)), Some(value(1, 4_000)));
        assert_eq!(shelf.peek(&key(2)), None);
    }

    proptest! {
        #[test]
        fn it_holds_no_more_than_it_may_and_knows_how_much(
            asked in proptest::collection::vec((0_u64..40, 0_u64..4_000), 1..200),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                let shelf = Arc::new(Shelf::new(20_000));
                for (number, bytes) in asked {
                    let kept = shelf.get(&key(number), |_| async move { value(number, bytes) }).await;
                    assert_eq!(kept.number, number);
                    tokio::task::yield_now().await;
                    let held = shelf.snapshot();
                    let sum: u64 = held.iter().map(|(_, value)| value.bytes + ENTRY_BYTES).sum();
                    assert_eq!(sum, shelf.bytes());
                    assert!(sum <= 20_000);
                    assert_eq!(shelf.lock().by_use.len(), held.len());
                    // What was used last stays.
                    assert!(shelf.peek(&key(number)).is_some());
                }
            });
        }
    }
}
