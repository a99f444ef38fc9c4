//! Writes one stream behind the live path.
//!
//! Enters: objects as they are made, what has left the window
//! Leaves: the same in the store, in the order that the queue decides
//! Never:  makes a caller wait; begins a batch before the last one has ended, so that no write overtakes
//!         another
//! Time:   tokio's clock
//! Spec:   none
//!
//! A stream has one writer, however many broadcasts follow one another: what one of them could not store yet goes
//! before what the next one makes. An attempt has no time limit here. A store across the network has one of its own
//! (`remote`), and what such an attempt still does later `guard` keeps from harm. A folder has none: a
//! hung disk fills the queue, whose policy then decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use object_store::Error;
use tokio::sync::watch;

use super::bucket::{Bucket, is_full, reason};
use super::guard::Guard;
use super::health::Failure;
use super::inventory::{self, Inventory};
use super::queue::Put;
use super::queue::{Look, Scope, Step, Write};
use super::shared::{Mode, Shared, now};
use super::spool::Spool;
use super::sweep::sweep;
use crate::id::SegmentNumber;
use crate::media::{Item, ObjectKey};

/// The pause after the folder of a stream could not be looked through.
const INVENTORY_PAUSE: Duration = Duration::from_secs(1);

/// The most that is remembered of what was stored, should nobody ask: some minutes of ten renditions.
const MAX_TOLD: usize = 8_192;

/// How often [`BroadcastWriter::flush`] looks.
const FLUSH_LOOK: Duration = Duration::from_millis(20);

/// Hands the objects of one broadcast to the store. Dropped without [`Self::finish`] after it has begun, it stops after
/// the operation under way, as a crash would.
#[derive(Debug)]
pub struct BroadcastWriter {
    shared: Arc<Shared>,
    /// Which of the broadcasts of its stream this is.
    run: u64,
    leftover_grace: Duration,
    has_begun: bool,
    finished: bool,
}

/// What was not written when [`BroadcastWriter::finish`] stopped waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Objects.
    pub objects: usize,
    /// Bytes, in memory and in the spool.
    pub bytes: u64,
    /// Those of them in the spool, which outlive the process.
    pub spooled: u64,
}

impl BroadcastWriter {
    pub(crate) const fn new(shared: Arc<Shared>, run: u64, leftover_grace: Duration) -> Self {
        Self {
            shared,
            run,
            leftover_grace,
            has_begun: false,
            finished: false,
        }
    }

    /// What is stored of the stream; what can be said `within` this time.
    pub async fn inventory(&self, within: Duration) -> Inventory {
        self.learned(within).await;
        self.inventory_now()
    }

    /// Waits until it is known what is stored, at most for `within`; whether it is.
    pub(crate) async fn learned(&self, within: Duration) -> bool {
        let mut learned = self.shared.learned.subscribe();
        let known = tokio::time::timeout(within, learned.wait_for(|learned| *learned)).await;
        matches!(known, Ok(Ok(_)))
    }

    /// What can be said now of what is stored.
    pub(crate) fn inventory_now(&self) -> Inventory {
        let is_known = *self.shared.learned.borrow();
        Inventory::new(self.shared.lock().queue.keys(), is_known)
    }

    /// Says that what is stored from segment `end` on belongs to no show: it goes as what was left, once the next
    /// broadcast begins.
    pub fn recorded_below(&self, end: SegmentNumber) {
        if let Some(mut state) = self.shared.lock_for(self.run) {
            state.queue.recorded_below(end);
        }
    }

    /// Begins the broadcast: what an earlier one left is removed once nothing stored names it, unless it is kept.
    pub fn begin(&mut self) {
        self.has_begun = true;
        if let Some(mut state) = self.shared.lock_for(self.run) {
            state.queue.begin(now(), self.leftover_grace);
        }
        self.shared.wake.notify_one();
    }

    /// Hands over an object. Objects are written in the order of these calls; a version of a manifest
    /// may be left out when a newer one follows. Returns at once; what a full queue loses is counted
    /// in [`Health::lost`](super::Health::lost). Once another broadcast of the stream has a writer, this one does
    /// nothing.
    pub fn put(&self, put: Put) {
        if let Some(mut state) = self.shared.lock_for(self.run) {
            state.queue.push(put, now());
        }
        self.shared.wake.notify_one();
        self.shared.spool_wake.notify_one();
    }

    /// Has an object removed `after` this long, or later if a stored playlist still names it then.
    /// [HLS] §6.2.2 asks for at least the segment's duration plus that of the longest playlist that
    /// listed it.
    pub fn delete_after(&self, key: ObjectKey, after: Duration) {
        if let Some(mut state) = self.shared.lock_for(self.run) {
            state.queue.retire(key, now() + after);
        }
        self.shared.wake.notify_one();
    }

    /// The segments and records that have been stored since the last call.
    #[must_use]
    pub fn take_stored(&self) -> Vec<ObjectKey> {
        std::mem::take(&mut self.shared.lock().told)
    }

    /// Leaves an object where it is for good, and thinks no more of it.
    pub fn forget(&self, key: &ObjectKey) {
        self.shared.lock().queue.forget(key);
    }

    /// Waits until everything that was handed over is written, at most for `within`; whether it is.
    pub async fn flush(&self, within: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            if self.shared.lock().queue.is_flushed() {
                return true;
            }
            if tokio::time::Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(FLUSH_LOOK).await;
        }
    }

    /// Keeps an object that an earlier broadcast left, until [`Self::delete_after`].
    pub fn keep(&self, key: &ObjectKey) {
        if let Some(mut state) = self.shared.lock_for(self.run) {
            state.queue.keep(key);
        }
    }

    /// Waits until everything is written, at most for `within`, and says what is left. Retries and
    /// due removals go on in the background while the runtime lives; what is in the spool by then is stored by the
    /// next process if this one ends.
    pub async fn finish(mut self, within: Duration) -> Left {
        self.finished = true;
        let mut flushed = self.shared.flushed.subscribe();
        self.shared.set_mode(self.run, Mode::Closing);
        let waited = tokio::time::timeout(within, flushed.wait_for(|flushed| *flushed)).await;
        if waited.is_err() {
            tracing::warn!(stream = %self.shared.stream, "the store did not take everything in time");
        }
        let state = self.shared.lock();
        let spooled = state.queue.spooled_bytes();
        Left {
            objects: state.queue.len(),
            bytes: state.queue.memory_bytes() + spooled,
            spooled,
        }
    }
}

impl Drop for BroadcastWriter {
    fn drop(&mut self) {
        let mode = match (self.finished, self.has_begun) {
            (true, _) => return,
            (false, true) => Mode::Stopped,
            // What earlier broadcasts left goes on.
            (false, false) => Mode::Closing,
        };
        self.shared.set_mode(self.run, mode);
    }
}

/// The task that writes to the store.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    bucket: Bucket,
    guard: Guard,
    spool: Option<Arc<Spool>>,
    /// The folder, where the store is one.
    root: Option<std::path::PathBuf>,
    /// Since when the store fails, and what had been given up by then.
    outage: Option<(Instant, u64)>,
    /// Whether the last deletion failed.
    cannot_delete: bool,
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        bucket: Bucket,
        spool: Option<Arc<Spool>>,
        root: Option<std::path::PathBuf>,
    ) -> Self {
        Self {
            shared,
            guard: Guard::new(bucket.clone()),
            bucket,
            spool,
            root,
            outage: None,
            cannot_delete: false,
        }
    }

    pub(crate) async fn run(mut self) {
        self.restore().await;
        if self.learn().await {
            if let Some(root) = &self.root {
                sweep(root, &self.shared.stream).await;
            }
            self.shared.learned.send_replace(true);
            while self.step().await {}
        }
        self.shared.leave();
    }

    /// Takes up what an earlier process left in the spool.
    async fn restore(&self) {
        let Some(spool) = self.spool.clone() else {
            return;
        };
        let stream = self.shared.stream.clone();
        let left = tokio::task::spawn_blocking(move || spool.load(&stream)).await;
        let left = left.unwrap_or_default();
        if !left.is_empty() {
            let bytes: u64 = left.iter().map(|restored| restored.len).sum();
            tracing::info!(stream = %self.shared.stream, objects = left.len(), bytes,
                "an earlier process left these in the spool; they are stored first");
        }
        self.shared.lock().queue.restore(left);
        self.shared.report();
    }

    /// Looks at what is stored; tries until the store says. False if the writer is stopped before.
    async fn learn(&mut self) -> bool {
        loop {
            match inventory::take(&self.bucket, &self.shared.stream, None).await {
                Ok((found, named)) => {
                    self.shared.lock().queue.learn(found, named, now());
                    self.succeeded();
                    return true;
                }
                Err(error) => self.failed(&error),
            }
            tokio::time::sleep(INVENTORY_PAUSE).await;
            if self.shared.end_if_stopped() {
                return false;
            }
        }
    }

    /// One step; false if it was the last.
    async fn step(&mut self) -> bool {
        let (step, mode, goes_on) = {
            let mut state = self.shared.lock();
            let step = state.queue.next(now());
            let is_over = state.mode == Mode::Stopped
                || (state.mode == Mode::Closing && matches!(step, Step::Wait(None)));
            state.has_ended |= is_over;
            if let Some(look) = state.queue.take_tidying(now()) {
                tokio::spawn(tidy(Arc::clone(&self.shared), self.bucket.clone(), look));
            }
            (step, state.mode, !is_over)
        };
        match step {
            _ if mode == Mode::Stopped => {}
            Step::Write(batch) => self.write(batch).await,
            Step::Delete(key) => self.delete(&key).await,
            Step::Wait(until) => {
                self.shared.report();
                if mode == Mode::Closing {
                    self.shared.tell_flushed();
                }
                if goes_on {
                    self.wait(until).await;
                }
            }
        }
        goes_on
    }

    async fn wait(&self, until: Option<Instant>) {
        let woken = self.shared.wake.notified();
        match until {
            Some(until) => {
                let _ = tokio::time::timeout_at(until.into(), woken).await;
            }
            None => woken.await,
        }
    }

    async fn write(&mut self, batch: Vec<Write>) {
        let puts = join_all(batch.into_iter().map(|write| self.load(write))).await;
        let puts: Vec<_> = puts.into_iter().flatten().collect();
        let written = join_all(puts.iter().map(|put| self.guard.put(put))).await;
        let mut failed = BTreeMap::new();
        let mut overtaken = Vec::new();
        for (put, result) in puts.iter().zip(written) {
            match result {
                Ok(None) => {}
                Ok(Some(names)) => overtaken.push((&put.key, names)),
                Err(error) => {
                    failed.insert(put.key.clone(), error);
                }
            }
        }
        let keys: BTreeSet<_> = failed.keys().cloned().collect();
        {
            let mut state = self.shared.lock();
            let stored = puts.iter().map(|put| &put.key);
            let told = stored.filter(|key| {
                let is_of_interest = matches!(key.item, Item::Segment(..) | Item::Show(_));
                is_of_interest && !keys.contains(*key)
            });
            let room = MAX_TOLD.saturating_sub(state.told.len());
            state.told.extend(told.take(room).cloned());
            state.queue.settle(&keys, now());
            if failed.values().any(is_full) {
                state.queue.make_room(now());
            }
            for (key, names) in overtaken {
                state.queue.overtaken(key, names);
            }
        }
        self.shared.spool_wake.notify_one();
        match failed.into_values().next() {
            Some(error) => self.failed(&error),
            // Of a batch of which nothing could be read, nothing was written.
            None if puts.is_empty() => self.shared.report(),
            None => self.succeeded(),
        }
    }

    /// The object with its body; `None` if the spool does not have it whole any more.
    async fn load(&self, write: Write) -> Option<Put> {
        let Some(id) = write.from else {
            return Some(write.put);
        };
        let key = write.put.key;
        let read = match &self.spool {
            Some(spool) => Arc::clone(spool).read_later(&self.shared.stream, id).await,
            None => None,
        };
        // A file that says it is another object's is no better than a torn one.
        let put = read.filter(|put| put.key == key);
        if put.is_none() {
            tracing::warn!(%key, "the spool's file of this object is not whole; it is given up");
            self.shared.lock().queue.unreadable(&key);
        }
        put
    }

    async fn delete(&mut self, key: &ObjectKey) {
        match self.bucket.delete(key).await {
            Ok(()) => {
                let attempts = {
                    let mut state = self.shared.lock();
                    state.queue.deleted(key);
                    state.queue.attempts()
                };
                self.cannot_delete = false;
                // A disk that is full gives room and takes nothing yet.
                match attempts {
                    0 => self.succeeded(),
                    _ => self.shared.report(),
                }
            }
            Err(error) => {
                self.shared.lock().queue.delete_failed(key, now());
                self.shared.report();
                // What is deleted late harms nobody: one line is enough until it works again.
                if !std::mem::replace(&mut self.cannot_delete, true) {
                    tracing::warn!(%key, reason = %reason(&error), "cannot be deleted; trying on");
                }
            }
        }
    }

    /// The store did what it was asked to.
    fn succeeded(&mut self) {
        if let Some((since, lost)) = self.outage.take() {
            let lost = self.shared.lock().queue.counts().lost - lost;
            let away = Duration::from_secs(now().saturating_duration_since(since).as_secs());
            tracing::info!(stream = %self.shared.stream, ?away, lost, "the store is back");
        }
        self.shared.tell_failure(None);
    }

    /// It did not: one line for an outage, however long.
    fn failed(&mut self, error: &Error) {
        let (attempts, lost) = {
            let state = self.shared.lock();
            (state.queue.attempts(), state.queue.counts().lost)
        };
        let reason = reason(error);
        if self.outage.is_none() {
            tracing::warn!(stream = %self.shared.stream, %reason, "the store fails; what it cannot take waits");
        }
        let (_, before) = *self.outage.get_or_insert_with(|| (now(), lost));
        self.shared.tell_failure(Some(Failure {
            attempts: attempts.max(1),
            reason,
            lost: lost - before,
        }));
    }
}

/// Looks through all of a stream's folder for what no broadcast needs any more, beside the writing.
async fn tidy(shared: Arc<Shared>, bucket: Bucket, look: Look) {
    let looked = async {
        let scope = shared.lock().queue.scope();
        let found = match scope {
            Scope::Near(from) => inventory::take(&bucket, &shared.stream, from).await?.0,
            Scope::All => bucket.list(&shared.stream).await?,
        };
        // After the listing: what is named now was not all named before.
        let named = inventory::named(&bucket, &shared.stream).await?;
        Ok::<_, Error>((found, named))
    };
    match looked.await {
        Ok((found, named)) => shared.lock().queue.tidy(look, (&found, named), now()),
        Err(error) => {
            let stream = &shared.stream;
            tracing::debug!(%stream, reason = %reason(&error), "what earlier broadcasts stored stays for now");
            shared.lock().queue.tidy_later(look, now());
        }
    }
    shared.wake.notify_one();
}

/// Health as all writers of a store report it.
pub(crate) type Reports = Arc<watch::Sender<super::Health>>;
