//! What waits for a worker: bounded in number and in bytes.
//!
//! Enters: inputs of the source
//! Leaves: the same, in order
//! Never:  more than [`MAX_INPUTS`] of them, or [`MAX_BYTES`]: whoever gives more waits
//! Time:   none
//! Spec:   none

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::Input;

/// Source samples that wait for the worker: about a second; then the publisher is made to wait.
const MAX_INPUTS: usize = 128;
/// The same in bytes: four of the longest access unit that ingest takes.
const MAX_BYTES: usize = 32 << 20;
/// What bytes are counted in.
const UNIT: usize = 1_024;

/// The side that inputs go into.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    inputs: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
}

/// The side that they come out of.
#[derive(Debug)]
pub(super) struct Receiver(mpsc::Receiver<Waiting>);

/// Room for one input.
pub(super) struct Permit<'a> {
    place: mpsc::Permit<'a, Waiting>,
    room: OwnedSemaphorePermit,
}

/// An input, and the room that it takes.
#[derive(Debug)]
struct Waiting {
    input: Input,
    _room: OwnedSemaphorePermit,
}

pub(super) fn queue() -> (Sender, Receiver) {
    let (inputs, receiver) = mpsc::channel(MAX_INPUTS);
    let room = Arc::new(Semaphore::new(MAX_BYTES / UNIT));
    (Sender { inputs, room }, Receiver(receiver))
}

/// How much of the room an input of `bytes` takes: at least a little, at most all of it.
fn units(bytes: usize) -> u32 {
    let units = bytes.div_ceil(UNIT).clamp(1, MAX_BYTES / UNIT);
    u32::try_from(units).unwrap_or(u32::MAX)
}

impl Sender {
    /// Gives `input` when there is room; whether anybody will take it.
    pub(super) async fn send(&self, input: Input) -> bool {
        match self.reserve(input.bytes()).await {
            Some(permit) => {
                permit.send(input);
                true
            }
            None => false,
        }
    }

    /// Gives `input` if there is room now.
    pub(super) fn try_send(&self, input: Input) {
        let room = Arc::clone(&self.room).try_acquire_many_owned(units(input.bytes()));
        if let (Ok(place), Ok(room)) = (self.inputs.try_reserve(), room) {
            Permit { place, room }.send(input);
        }
    }

    /// Waits for room for an input of `bytes`; `None` if nobody takes any more. Cancel safe.
    pub(super) async fn reserve(&self, bytes: usize) -> Option<Permit<'_>> {
        let place = self.inputs.reserve().await.ok()?;
        let room = Arc::clone(&self.room).acquire_many_owned(units(bytes));
        let room = tokio::select! {
            room = room => room.ok()?,
            () = self.inputs.closed() => return None,
        };
        Some(Permit { place, room })
    }
}

impl Permit<'_> {
    pub(super) fn send(self, input: Input) {
        self.place.send(Waiting {
            input,
            _room: self.room,
        });
    }
}

impl Receiver {
    /// The next input; `None` once the source has ended. Cancel safe.
    pub(super) async fn recv(&mut self) -> Option<Input> {
        self.0.recv().await.map(|waiting| waiting.input)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::id::TrackId;
    use crate::media::Sample;
    use crate::time::{Span, Ticks};

    fn sample(data: &Bytes) -> Input {
        let sample = Sample {
            dts: Ticks::new(0),
            pts: Ticks::new(0),
            duration: Span::new(1),
            keyframe: true,
            data: data.clone(),
        };
        Input::Sample(TrackId::new(NonZeroU32::MIN), sample)
    }

    /// How many samples of `bytes` wait before the next one has to.
    async fn waiting(bytes: usize) -> usize {
        let (sender, mut receiver) = queue();
        let data = Bytes::from(vec![0; bytes]);
        let mut count = 0;
        let limit = Duration::from_secs(1);
        while tokio::time::timeout(limit, sender.send(sample(&data)))
            .await
            .is_ok()
        {
            count += 1;
        }
        receiver.recv().await.expect("one waits");
        assert!(sender.send(sample(&data)).await, "there is room again");
        drop(receiver);
        assert!(!sender.send(sample(&data)).await, "nobody takes it");
        count
    }

    #[tokio::test(start_paused = true)]
    async fn large_samples_wait_sooner_than_small_ones() {
        assert_eq!(waiting(10).await, MAX_INPUTS);
        assert_eq!(waiting(8 << 20).await, 4);
        assert_eq!(waiting(MAX_BYTES + 1).await, 1);
    }
}
