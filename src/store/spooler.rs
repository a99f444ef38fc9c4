//! Moves what waits to the spool, beside the writing to the store.
//!
//! Enters: what the queue wants there, what it has no use for any more
//! Leaves: files
//! Never:  waits for the store, nor has it wait
//! Time:   tokio's clock
//! Spec:   none

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::queue::{Place, Put, SpoolId};
use super::shared::{Mode, Shared, now};
use super::spool::Spool;

/// How often is looked whether something has waited for long, while anything waits.
const PERIOD: Duration = Duration::from_millis(500);

/// The pause after the spool could not be written to.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// Runs until the writer behind `shared` has ended.
pub(crate) async fn run(shared: Arc<Shared>, spool: Arc<Spool>) {
    let moving = move_all(Arc::clone(&shared), spool);
    if AssertUnwindSafe(moving).catch_unwind().await.is_err() {
        let error = io::Error::other("its task broke down; this is a bug");
        tell(&shared, Some(&error));
    }
}

async fn move_all(shared: Arc<Shared>, spool: Arc<Spool>) {
    loop {
        let (batch, discarded, has_ended) = {
            let mut state = shared.lock();
            let has_ended = state.has_ended;
            let in_hurry = state.mode == Mode::Closing;
            let batch = if has_ended {
                Vec::new()
            } else {
                state.queue.take_for_spool(spool.room(), in_hurry, now())
            };
            (batch, state.queue.take_discarded(), has_ended)
        };
        discard(&shared, &spool, discarded).await;
        if has_ended {
            break;
        }
        if batch.is_empty() {
            wait(&shared).await;
        } else if let Err(error) = write(&shared, &spool, batch).await {
            tell(&shared, Some(&error));
            tokio::time::sleep(FAILURE_PAUSE).await;
        } else {
            tell(&shared, None);
        }
    }
}

async fn wait(shared: &Shared) {
    let has_unspooled = shared.lock().queue.has_unspooled();
    let woken = shared.spool_wake.notified();
    if has_unspooled {
        let _ = tokio::time::timeout(PERIOD, woken).await;
    } else {
        woken.await;
    }
}

async fn discard(shared: &Shared, spool: &Arc<Spool>, ids: Vec<SpoolId>) {
    if ids.is_empty() {
        return;
    }
    let (spool, stream) = (Arc::clone(spool), shared.stream.clone());
    let done = tokio::task::spawn_blocking(move || spool.discard(&stream, &ids));
    if let Err(error) = done.await {
        tracing::error!(%error, "the spool broke down; this is a bug");
    }
}

/// Writes `batch`, up to the first failure.
async fn write(shared: &Shared, spool: &Arc<Spool>, batch: Vec<(Place, Put)>) -> io::Result<()> {
    let mut failure = None;
    for (place, put) in batch {
        let id = match failure {
            None => {
                let (spool, stream) = (Arc::clone(spool), shared.stream.clone());
                let written = tokio::task::spawn_blocking(move || spool.write(&stream, &put));
                written
                    .await
                    .unwrap_or_else(|error| Err(io::Error::other(error)))
            }
            Some(_) => Err(io::ErrorKind::Interrupted.into()),
        };
        let is_used = {
            let mut state = shared.lock();
            state.queue.spooled(place, id.as_ref().ok().copied())
        };
        match id {
            Ok(id) if !is_used => discard(shared, spool, vec![id]).await,
            Ok(_) => {}
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
    }
    shared.report();
    failure.map_or(Ok(()), Err)
}

/// Tells how it went; one line when it begins to fail.
fn tell(shared: &Shared, failure: Option<&io::Error>) {
    let reason = failure.map(ToString::to_string);
    shared.health.send_if_modified(|health| {
        let has_begun = health.spool_failure.is_none() && reason.is_some();
        if let Some(reason) = reason.as_ref().filter(|_| has_begun) {
            tracing::warn!(stream = %shared.stream, %reason, "the spool cannot be written to (store.spool); \
                what the store does not take waits in memory");
        }
        let changes = health.spool_failure != reason;
        health.spool_failure = reason;
        changes
    });
}
