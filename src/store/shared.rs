//! What the tasks of one stream's writer share with those who hand objects over.
//!
//! Enters: objects, the outcomes of steps
//! Leaves: the queue under a lock that nobody holds for long; word for those who wait; the stream's
//! share of [`Health`](super::health::Health)
//! Never:  I/O
//! Time:   tokio's clock
//! Spec:   none

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::FutureExt;
use tokio::sync::{Notify, watch};

use super::health::{Failure, Share};
use super::queue::Queue;
use super::writer::Reports;
use crate::id::StreamName;
use crate::media::ObjectKey;

/// How a writer is to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// More may come.
    Open,
    /// Nothing more comes: write and delete what is left, then end.
    Closing,
    /// End after the operation under way.
    Stopped,
}

/// The writer of one stream.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) stream: StreamName,
    state: Mutex<State>,
    /// Wakes the task that writes to the store.
    pub(crate) wake: Notify,
    /// Wakes the one that writes to the spool.
    pub(crate) spool_wake: Notify,
    /// Whether everything is written, and nothing more comes.
    pub(crate) flushed: watch::Sender<bool>,
    /// Whether it is known what is stored.
    pub(crate) learned: watch::Sender<bool>,
    pub(crate) health: Reports,
}

/// What is under the lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) queue: Queue,
    pub(crate) mode: Mode,
    /// What has been stored since somebody last asked, as far as it concerns a show.
    pub(crate) told: Vec<ObjectKey>,
    /// The broadcast that is written now.
    run: u64,
    /// Whether the writer has ended, or will without looking again.
    pub(crate) has_ended: bool,
    /// As last reported.
    reported: Share,
}

impl Shared {
    /// A writer that drains `queue` and ends, unless somebody attaches.
    pub(crate) fn new(stream: StreamName, queue: Queue, health: Reports) -> Self {
        let state = State {
            queue,
            mode: Mode::Closing,
            told: Vec::new(),
            run: 0,
            has_ended: false,
            reported: Share::default(),
        };
        Self {
            stream,
            state: Mutex::new(state),
            wake: Notify::new(),
            spool_wake: Notify::new(),
            flushed: watch::Sender::new(false),
            learned: watch::Sender::new(false),
            health,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same for broadcast `run`; `None` once another one has attached: nothing old lands after something new.
    pub(crate) fn lock_for(&self, run: u64) -> Option<MutexGuard<'_, State>> {
        Some(self.lock()).filter(|state| state.run == run)
    }

    /// Has the writer go on for another broadcast, whose number this gives; `None` if it has ended.
    pub(crate) fn attach(&self) -> Option<u64> {
        let mut state = self.lock();
        if state.has_ended || state.mode == Mode::Stopped {
            return None;
        }
        state.mode = Mode::Open;
        state.run += 1;
        self.flushed.send_replace(false);
        Some(state.run)
    }

    /// Changes how to go on, unless another broadcast than `run` has attached since.
    pub(crate) fn set_mode(&self, run: u64, mode: Mode) {
        let mut state = self.lock();
        if state.run == run {
            state.mode = mode;
        }
        drop(state);
        self.wake.notify_one();
        self.spool_wake.notify_one();
    }

    /// Whether the writer ends, or will without looking again.
    pub(crate) fn is_stopped(&self) -> bool {
        let state = self.lock();
        state.has_ended || state.mode == Mode::Stopped
    }

    /// Whether the writer is to stop, which it then has.
    pub(crate) fn end_if_stopped(&self) -> bool {
        let mut state = self.lock();
        state.has_ended |= state.mode == Mode::Stopped;
        state.has_ended
    }

    /// Tells whether everything is written.
    pub(crate) fn tell_flushed(&self) {
        let state = self.lock();
        let flushed = state.mode == Mode::Closing && state.queue.is_flushed();
        self.flushed
            .send_if_modified(|value| std::mem::replace(value, flushed) != flushed);
    }

    /// Adds what has changed to the store's health.
    pub(crate) fn report(&self) {
        let mut state = self.lock();
        let share = Share {
            counts: state.queue.counts(),
            objects: state.queue.len() as u64,
            memory_bytes: state.queue.memory_bytes(),
            spooled_bytes: state.queue.spooled_bytes(),
        };
        let before = std::mem::replace(&mut state.reported, share);
        self.health
            .send_modify(|health| health.add_change(&before, &share));
    }

    /// Adds what has changed, and whether the last step failed.
    pub(crate) fn tell_failure(&self, failure: Option<Failure>) {
        self.report();
        self.health.send_modify(|health| {
            match failure {
                Some(failure) => health.failing.insert(self.stream.clone(), failure),
                None => health.failing.remove(&self.stream),
            };
        });
    }

    /// Runs the writer's `task`. If it breaks down, the writer has ended, and its stream fails until another
    /// broadcast has one: what it was in the middle of is not gone on with.
    pub(crate) async fn watch(self: Arc<Self>, task: impl Future<Output = ()>) {
        if AssertUnwindSafe(task).catch_unwind().await.is_ok() {
            return;
        }
        tracing::error!(stream = %self.stream, "its writer broke down; this is a bug. Nothing more of it is stored \
            until it is published again");
        let lost = self.lock().queue.len() as u64;
        self.leave();
        self.wake.notify_one();
        let failure = Failure {
            attempts: 1,
            reason: "its writer broke down; this is a bug".to_owned(),
            lost: lost.max(1),
        };
        self.health.send_modify(|health| {
            health.failing.insert(self.stream.clone(), failure);
        });
    }

    /// Takes what waits and the failure out of the store's health: the writer has ended.
    pub(crate) fn leave(&self) {
        self.tell_failure(None);
        let mut state = self.lock();
        state.has_ended = true;
        let left = Share {
            counts: state.reported.counts,
            ..Share::default()
        };
        let before = std::mem::replace(&mut state.reported, left);
        self.health
            .send_modify(|health| health.add_change(&before, &left));
        drop(state);
        self.spool_wake.notify_one();
    }
}

/// The time, on the clock that tests may stop.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
