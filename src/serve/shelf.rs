//! What was read from the store, kept in memory: many who ask for the same thing at once cause one read.
//!
//! Enters: keys, and how to read what is behind one
//! Leaves: the same value for everyone until it is stale or makes room
//! Never:  reads by itself; holds its lock while anything is read
//! Time:   `Instant`: how old a value is
//! Spec:   none

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

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
    bytes: u64,
}

impl<V: Keep> Shelf<V> {
    /// An empty shelf for about `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
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
        let mut inner = self.lock();
        let value = inner.entries.get(key)?.value.peek()?.clone();
        if !value.is_fresh(Instant::now()) {
            return None;
        }
        inner.touch(key);
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
                    inner.touch(key);
                    self.hits.fetch_add(1, Ordering::Relaxed);
                    return value;
                }
            }
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        let value = read(stale).boxed().shared();
        let reading = inner.insert(key, value.clone());
        drop(inner);
        let (shelf, key, task) = (Arc::clone(self), key.clone(), value.clone());
        tokio::spawn(async move {
            let bytes = task.await.bytes();
            shelf.lock().settle(&key, reading, bytes, shelf.max_bytes);
        });
        value
    }

    fn lock(&self) -> MutexGuard<'_, Inner<V>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: Keep> Inner<V> {
    fn insert(&mut self, key: &ObjectKey, value: Shared<BoxFuture<'static, V>>) -> u64 {
        self.remove(key);
        self.uses += 1;
        self.by_use.insert(self.uses, key.clone());
        self.bytes += ENTRY_BYTES;
        let entry = Entry {
            value,
            reading: self.uses,
            used: self.uses,
            bytes: ENTRY_BYTES,
        };
        self.entries.insert(key.clone(), entry);
        self.uses
    }

    fn touch(&mut self, key: &ObjectKey) {
        self.uses += 1;
        if let Some(entry) = self.entries.get_mut(key)
            && let Some(key) = self.by_use.remove(&entry.used)
        {
            entry.used = self.uses;
            self.by_use.insert(self.uses, key);
        }
    }

    /// Takes into account how large `reading` of `key` became, and makes room.
    fn settle(&mut self, key: &ObjectKey, reading: u64, bytes: u64, max_bytes: u64) {
        if let Some(entry) = self.entries.get_mut(key)
            && entry.reading == reading
        {
            entry.bytes += bytes;
            self.bytes += bytes;
        }
        while self.bytes > max_bytes {
            let Some((_, oldest)) = self.by_use.first_key_value() else {
                return;
            };
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &ObjectKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_use.remove(&entry.used);
            self.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::sync::Notify;

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

    #[tokio::test]
    async fn a_thousand_who_ask_at_once_cause_one_read() {
        let shelf = Arc::new(Shelf::new(1 << 20));
        let gate = Arc::new(Notify::new());
        let ask = || {
            let (shelf, gate) = (Arc::clone(&shelf), Arc::clone(&gate));
            tokio::spawn(async move {
                let read = |_| async move {
                    gate.notified().await;
                    value(7, 1_000)
                };
                shelf.get(&key(1), read).await
            })
        };
        let asked: Vec<_> = (0..1_000).map(|_| ask()).collect();
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
