//! Writes one broadcast behind the live path.
//!
//! Enters: objects as they are made, what has left the window
//! Leaves: the same in the store, in the order that the queue decides
//! Never:  makes a caller wait; begins a batch before the last one has ended, so that no write overtakes
//!         another
//! Time:   tokio's clock
//! Spec:   none
//!
//! An attempt has no time limit here. A store across the network has one of its own (`remote`), and what such an
//! attempt still does later `guard` keeps from harm. A folder has none: a hung disk fills the queue, whose
//! policy then decides.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::bucket::{Bucket, reason};
use super::guard::Guard;
use super::health::{Failure, Health};
use super::queue::{Counts, Put, Queue, Step};
use crate::id::StreamName;
use crate::media::ObjectKey;

/// Hands the objects of one broadcast to the store. Dropped without [`Self::finish`], it stops after
/// the operation under way, as a crash would.
#[derive(Debug)]
pub struct BroadcastWriter {
    shared: Arc<Shared>,
    finished: bool,
}

/// What was not written when [`BroadcastWriter::finish`] stopped waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Objects.
    pub objects: usize,
    /// Bytes.
    pub bytes: u64,
}

/// A writer at work, as the store remembers it.
#[derive(Debug)]
pub(crate) struct Running {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// How a writer is to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// More may come.
    Open,
    /// Nothing more comes: write and delete what is left, then end.
    Closing,
    /// End after the operation under way.
    Stopped,
}

#[derive(Debug)]
struct Shared {
    stream: StreamName,
    state: Mutex<State>,
    wake: Notify,
    flushed: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    mode: Mode,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_mode(&self, mode: Mode) {
        self.lock().mode = mode;
        self.wake.notify_one();
    }
}

impl Running {
    /// Ends the writer once the operation under way is over.
    pub(crate) async fn stop(self) {
        self.shared.set_mode(Mode::Stopped);
        if let Err(error) = self.task.await {
            tracing::error!(stream = %self.shared.stream, %error, "a store writer failed");
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

impl BroadcastWriter {
    pub(crate) fn start(
        stream: StreamName,
        queue: Queue,
        bucket: Bucket,
        health: Arc<watch::Sender<Health>>,
    ) -> (Self, Running) {
        let shared = Arc::new(Shared {
            stream,
            state: Mutex::new(State {
                queue,
                mode: Mode::Open,
            }),
            wake: Notify::new(),
            flushed: watch::Sender::new(false),
        });
        let worker = Worker {
            shared: Arc::clone(&shared),
            guard: Guard::new(bucket.clone()),
            bucket,
            reported: Reported::default(),
            health,
        };
        let running = Running {
            shared: Arc::clone(&shared),
            task: tokio::spawn(worker.run()),
        };
        let writer = Self {
            shared,
            finished: false,
        };
        (writer, running)
    }

    /// Hands over an object. Objects are written in the order of these calls; a version of a manifest
    /// may be left out when a newer one follows. Returns at once; what a full queue loses is counted
    /// in [`Health::lost`].
    pub fn put(&self, put: Put) {
        self.shared.lock().queue.push(put);
        self.shared.wake.notify_one();
    }

    /// Has an object removed `after` this long, or later if a stored playlist still names it then.
    /// [HLS] §6.2.2 asks for at least the segment's duration plus that of the longest playlist that
    /// listed it.
    pub fn delete_after(&self, key: ObjectKey, after: Duration) {
        self.shared.lock().queue.retire(key, now() + after);
        self.shared.wake.notify_one();
    }

    /// Keeps an object that an earlier broadcast left, until [`Self::delete_after`].
    pub fn keep(&self, key: &ObjectKey) {
        self.shared.lock().queue.keep(key);
    }

    /// Waits until everything is written, at most for `within`, and says what is left. Retries and
    /// due removals go on in the background while the runtime lives.
    pub async fn finish(mut self, within: Duration) -> Left {
        self.finished = true;
        let mut flushed = self.shared.flushed.subscribe();
        self.shared.set_mode(Mode::Closing);
        let waited = tokio::time::timeout(within, flushed.wait_for(|flushed| *flushed)).await;
        if waited.is_err() {
            tracing::warn!(stream = %self.shared.stream, "the store did not take everything in time");
        }
        let state = self.shared.lock();
        Left {
            objects: state.queue.len(),
            bytes: state.queue.bytes(),
        }
    }
}

impl Drop for BroadcastWriter {
    fn drop(&mut self) {
        if !self.finished {
            self.shared.set_mode(Mode::Stopped);
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The task behind one [`BroadcastWriter`].
struct Worker {
    shared: Arc<Shared>,
    bucket: Bucket,
    guard: Guard,
    reported: Reported,
    health: Arc<watch::Sender<Health>>,
}

/// This writer's share of the store's [`Health`] as last reported.
#[derive(Clone, Copy, Debug, Default)]
struct Reported {
    counts: Counts,
    objects: u64,
    bytes: u64,
}

impl Worker {
    async fn run(mut self) {
        loop {
            let (step, mode, flushed) = {
                let mut state = self.shared.lock();
                if state.mode == Mode::Stopped {
                    break;
                }
                let step = state.queue.next(now());
                (step, state.mode, state.queue.is_flushed())
            };
            match step {
                Step::Write(batch) => self.write(&batch).await,
                Step::Delete(key) => self.delete(&key).await,
                Step::Wait(until) => {
                    self.report(None);
                    if mode == Mode::Closing {
                        self.shared
                            .flushed
                            .send_if_modified(|value| std::mem::replace(value, flushed) != flushed);
                        if until.is_none() {
                            break;
                        }
                    }
                    self.wait(until).await;
                }
            }
        }
        self.leave();
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

    async fn write(&mut self, batch: &[Put]) {
        let writes = batch.iter().map(|put| self.guard.put(put));
        let written = join_all(writes).await;
        let mut failed = BTreeMap::new();
        for (put, result) in batch.iter().zip(written) {
            if let Err(error) = result {
                failed.insert(put.key.clone(), reason(&error));
            }
        }
        let attempts = {
            let mut state = self.shared.lock();
            state.queue.settle(&failed.keys().cloned().collect(), now());
            state.queue.attempts()
        };
        let failure = failed.into_iter().next();
        if let Some((key, reason)) = failure.as_ref().filter(|_| attempts <= 1) {
            tracing::warn!(%key, %reason, "cannot be stored; trying on");
        }
        self.report(Some(failure.map(|(_, reason)| reason)));
    }

    async fn delete(&mut self, key: &ObjectKey) {
        let deleted = self.bucket.delete(key).await;
        {
            let mut state = self.shared.lock();
            match deleted {
                Ok(()) => state.queue.deleted(key),
                Err(error) => {
                    tracing::warn!(%key, reason = %reason(&error), "cannot be deleted");
                    state.queue.delete_failed(key, now());
                }
            }
        }
        self.report(None);
    }

    /// Adds what changed to the store's health. `written` is the outcome of a write, if there was one.
    fn report(&mut self, written: Option<Option<String>>) {
        let (reported, attempts) = {
            let state = self.shared.lock();
            let reported = Reported {
                counts: state.queue.counts(),
                objects: state.queue.len() as u64,
                bytes: state.queue.bytes(),
            };
            (reported, state.queue.attempts())
        };
        let before = std::mem::replace(&mut self.reported, reported);
        self.health.send_modify(|health| {
            add_change(health, &before, &reported);
            match written {
                Some(Some(reason)) => {
                    let failure = Failure {
                        attempts: attempts.max(1),
                        reason,
                    };
                    health.failing.insert(self.shared.stream.clone(), failure);
                }
                Some(None) => {
                    health.failing.remove(&self.shared.stream);
                }
                None => {}
            }
        });
    }

    /// Takes this writer's waiting objects and failure out of the store's health.
    fn leave(&mut self) {
        self.report(None);
        let left = Reported {
            counts: self.reported.counts,
            ..Reported::default()
        };
        self.health.send_modify(|health| {
            add_change(health, &self.reported, &left);
            health.failing.remove(&self.shared.stream);
        });
    }
}

fn add_change(health: &mut Health, before: &Reported, after: &Reported) {
    health.stored += after.counts.stored - before.counts.stored;
    health.deleted += after.counts.deleted - before.counts.deleted;
    health.failures += after.counts.failures - before.counts.failures;
    health.lost += after.counts.lost - before.counts.lost;
    health.superseded += after.counts.superseded - before.counts.superseded;
    health.waiting_objects = health.waiting_objects + after.objects - before.objects;
    health.waiting_bytes = health.waiting_bytes + after.bytes - before.bytes;
}
