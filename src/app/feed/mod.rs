//! Where the media of a broadcast go: one transcoder, and for a while the one that takes its place as well.
//!
//! Enters: what the live input sends; what the publication says of a successor
//! Leaves: the same in the transcoders
//! Never:  has the one on air wait for the other; decides when another is needed
//! Time:   the broadcast's clock, told to both
//! Spec:   docs/resilience.md

mod waiting;

use futures_util::future::OptionFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::waiting::Waiting;
use crate::app::inputs::Item;
use crate::app::publication::{Successors, Told};
use crate::id::SegmentNumber;
use crate::time::WallTime;
use crate::transcode::{self, Outputs, RETRY_AFTER, Transcoder};

/// How often a successor is tried: what does not work three times will not.
pub(super) const MAX_ATTEMPTS: u32 = 3;

/// What is told of successors and not heard yet: all that there can be of one.
const MAX_TOLD: usize = 4;

/// Starts a transcoder whose first segment is no earlier than this.
pub(super) type Start = Box<dyn Fn(SegmentNumber) -> Option<(Transcoder, Outputs)> + Send + Sync>;

/// Something for a transcoder.
#[derive(Clone, Debug)]
enum Piece {
    Item(Item),
    Detach,
}

/// One or two transcoders that are fed alike.
pub(super) struct Feed {
    current: Fed,
    /// The one that is to take over.
    next: Option<Fed>,
    /// The one that was on air before the current one, until that has proven itself: where it fails, this one goes on.
    former: Option<Fed>,
    start: Start,
    offer: mpsc::Sender<Outputs>,
    told: mpsc::Receiver<Told>,
    attempts: u32,
    /// Before this, no other is tried.
    paused_until: Option<Instant>,
}

/// A transcoder, and what it has not taken.
struct Fed {
    transcoder: Transcoder,
    waiting: Waiting,
}

impl Fed {
    fn new(transcoder: Transcoder) -> Self {
        Self {
            transcoder,
            waiting: Waiting::default(),
        }
    }

    /// Gives it all that waits.
    async fn drain(&mut self) -> Result<(), transcode::Error> {
        while let Some(piece) = self.waiting.pop_front() {
            hand(&self.transcoder, piece).await?;
        }
        Ok(())
    }

    /// Gives it all that waits, and then its end.
    async fn finish(mut self) {
        // Whoever has ended says why.
        let _ = self.drain().await;
    }

    /// Gives it `piece` after what waits, as far as it takes that at once.
    async fn offer(&mut self, piece: Piece) {
        // What it takes by now makes room.
        self.give_some().await;
        self.waiting.push(piece);
        self.give_some().await;
    }

    async fn give_some(&mut self) {
        while let Some(piece) = self.waiting.front() {
            let handed = tokio::select! {
                biased;
                handed = hand(&self.transcoder, piece.clone()) => Some(handed),
                () = std::future::ready(()) => None,
            };
            match handed {
                Some(Ok(())) => drop(self.waiting.pop_front()),
                // It has ended, which the publication says.
                Some(Err(_)) => return self.waiting.clear(),
                None => break,
            }
        }
    }
}

impl Feed {
    /// Feeds `current`; others are started by `start`. The publication's side of it goes with it.
    pub(super) fn new(current: Transcoder, start: Start) -> (Self, Successors) {
        let (offer, come) = mpsc::channel(1);
        let (tell, told) = mpsc::channel(MAX_TOLD);
        let feed = Self {
            current: Fed::new(current),
            next: None,
            former: None,
            start,
            offer,
            told,
            attempts: 0,
            paused_until: None,
        };
        (feed, Successors { come, told: tell })
    }

    /// Tells the time, after what waits.
    pub(super) async fn clock(&mut self, now: WallTime) {
        for fed in self.unawaited() {
            fed.give_some().await;
        }
        let beside = self.next.iter().chain(&self.former);
        // By the time of now, what waits would be late.
        let none_waits = |fed: &&Fed| fed.waiting.is_empty();
        for fed in beside.chain([&self.current]).filter(none_waits) {
            fed.transcoder.clock(now);
        }
    }

    /// Gives `item`. Waits while the transcoder on air is behind, but not for one that is yet to prove itself.
    ///
    /// # Errors
    /// [`transcode::Error::Stopped`] once that has ended.
    pub(super) async fn give(&mut self, item: Item) -> Result<(), transcode::Error> {
        self.pass(Piece::Item(item)).await
    }

    /// Tells that the source has gone.
    ///
    /// # Errors
    /// As for [`Self::give`].
    pub(super) async fn detach(&mut self) -> Result<(), transcode::Error> {
        self.pass(Piece::Detach).await
    }

    /// Has what waits taken by the transcoder that goes on, and by the one that may have to in its place: the source
    /// has ended.
    pub(super) async fn finish(mut self) {
        self.listen();
        let Self {
            current,
            next,
            former,
            ..
        } = self;
        // One that is yet to take over does so while the current one, which is given no more, comes to its end.
        let last = next.unwrap_or(current);
        tokio::join!(last.finish(), OptionFuture::from(former.map(Fed::finish)));
    }

    /// Whether another transcoder may be tried.
    pub(super) fn may_succeed(&mut self) -> bool {
        self.listen();
        let is_alone = self.next.is_none() && self.former.is_none();
        let is_paused = self
            .paused_until
            .is_some_and(|until| Instant::now() < until);
        is_alone && !is_paused && self.current.waiting.is_empty() && self.attempts < MAX_ATTEMPTS
    }

    /// Starts another transcoder, which has been given `items`, to take over with segment `first` or a later one.
    pub(super) fn succeed(&mut self, first: SegmentNumber, items: Vec<Item>) {
        self.attempts += 1;
        let Some((transcoder, outputs)) = (self.start)(first) else {
            return;
        };
        if self.offer.try_send(outputs).is_ok() {
            let waiting = Waiting::of(items);
            self.next = Some(Fed {
                transcoder,
                waiting,
            });
        }
    }

    /// Those that nobody waits for: what is beside the one on air, and that one too while another may have to take its
    /// place. Did all wait for one that hangs, there would be silence in what the other has made meanwhile.
    fn unawaited(&mut self) -> impl Iterator<Item = &mut Fed> {
        let current = self.former.is_some().then_some(&mut self.current);
        self.next.iter_mut().chain(&mut self.former).chain(current)
    }

    async fn pass(&mut self, piece: Piece) -> Result<(), transcode::Error> {
        self.listen();
        for fed in self.unawaited() {
            fed.offer(piece.clone()).await;
        }
        if self.former.is_some() {
            // Whether it has failed is told.
            return Ok(());
        }
        let handed = match self.current.drain().await {
            Ok(()) => hand(&self.current.transcoder, piece).await,
            ended => ended,
        };
        // It may have been taken off the air meanwhile: then the one that is has been given this.
        if handed.is_ok() || !self.listen() {
            return handed;
        }
        self.current.drain().await
    }

    /// Hears what became of the other one; whether it is the one on air now.
    fn listen(&mut self) -> bool {
        let mut has_changed = false;
        while let Ok(told) = self.told.try_recv() {
            let other = match told {
                Told::TookOver => self.next.take(),
                Told::FellBack => {
                    self.paused_until = Some(Instant::now() + RETRY_AFTER);
                    self.former.take()
                }
                Told::Proven => {
                    self.former = None;
                    None
                }
                Told::Failed => {
                    self.next = None;
                    None
                }
            };
            if let Some(other) = other {
                let before = std::mem::replace(&mut self.current, other);
                self.former = (told == Told::TookOver).then_some(before);
                has_changed = true;
            }
        }
        has_changed
    }
}

async fn hand(transcoder: &Transcoder, piece: Piece) -> Result<(), transcode::Error> {
    match piece {
        Piece::Item(Item::Track(info)) => transcoder.track(info).await,
        Piece::Item(Item::Sample { track, sample, .. }) => transcoder.sample(track, sample).await,
        Piece::Detach => transcoder.detach().await,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Mutex;
    use std::time::Duration;

    use tokio::task::JoinHandle;

    use super::waiting::MAX_SAMPLES;
    use super::*;
    use crate::app::inputs::made_up::{sample, sound};
    use crate::media::MediaKind;
    use crate::time::Grid;
    use crate::transcode::Output;

    fn transcoder() -> (Transcoder, Outputs) {
        let grid = Grid::new(NonZeroU32::new(2_000).expect("not zero"));
        let stream = "film".parse().expect("legal");
        Transcoder::copy(stream, grid, SegmentNumber::new(0))
    }

    /// Sound number `n`.
    fn heard(n: usize) -> Item {
        let ms = i64::try_from(n).expect("small") * 40;
        sample(MediaKind::Audio, ms, true, 1)
    }

    /// How many samples come out, to the end.
    fn count(mut outputs: Outputs) -> JoinHandle<usize> {
        tokio::spawn(async move {
            let mut count = 0;
            while let Some(output) = outputs.next().await {
                count += usize::from(matches!(output, Output::Sample { .. }));
            }
            count
        })
    }

    /// A feed with a successor, which was given `count` samples of sound and of which nobody asks anything yet.
    struct Succeeding {
        feed: Feed,
        successors: Successors,
        next: Outputs,
        current: JoinHandle<usize>,
    }

    async fn succeeding(held: usize) -> Succeeding {
        let (current, outputs) = transcoder();
        let next = Mutex::new(Some(transcoder()));
        let start = move |_| next.lock().expect("whole").take();
        let (mut feed, mut successors) = Feed::new(current, Box::new(start));
        let current = count(outputs);
        feed.give(sound()).await.expect("taken");
        let items = [sound()].into_iter().chain((0..held).map(heard));
        feed.succeed(SegmentNumber::new(0), items.collect());
        let next = successors.come.recv().await.expect("offered");
        Succeeding {
            feed,
            successors,
            next,
            current,
        }
    }

    #[tokio::test]
    async fn nothing_is_lost_while_the_successor_takes_some_of_what_waits() {
        let held = MAX_SAMPLES - 1;
        let mut made = succeeding(held).await;
        for n in held..held + 100 {
            made.feed.give(heard(n)).await.expect("taken");
        }
        let next = count(made.next);
        made.feed.finish().await;
        assert_eq!(next.await.expect("counted"), held + 100);
        assert_eq!(made.current.await.expect("counted"), 100);
    }

    #[tokio::test]
    async fn what_waits_for_the_successor_is_given_to_it_where_the_source_ends_then() {
        for has_taken_over in [false, true] {
            let mut made = succeeding(1_000).await;
            made.feed.give(heard(1_000)).await.expect("taken");
            if has_taken_over {
                made.successors.told.try_send(Told::TookOver).expect("room");
            }
            let next = count(made.next);
            made.feed.finish().await;
            assert_eq!(next.await.expect("counted"), 1_001, "{has_taken_over}");
        }
    }

    #[tokio::test]
    async fn the_one_before_goes_on_where_a_successor_fails_soon_after_it_took_over() {
        for is_heard_first in [false, true] {
            let mut made = succeeding(0).await;
            made.successors.told.try_send(Told::TookOver).expect("room");
            for n in 0..10 {
                made.feed.give(heard(n)).await.expect("taken");
            }
            assert!(!made.feed.may_succeed(), "it is yet to prove itself");
            drop(made.next);
            if is_heard_first {
                made.successors.told.try_send(Told::FellBack).expect("room");
            }
            for n in 10..200 {
                made.feed.give(heard(n)).await.expect("taken");
            }
            made.feed.finish().await;
            assert_eq!(
                made.current.await.expect("counted"),
                200,
                "{is_heard_first}"
            );
        }
    }

    /// What took over is [`Succeeding::next`], of which nobody asks anything: it hangs.
    #[tokio::test(start_paused = true)]
    async fn the_one_before_hears_all_that_goes_on_while_the_one_that_took_over_hangs() {
        let all = 2 * MAX_SAMPLES;
        for has_failed in [false, true] {
            let mut made = succeeding(0).await;
            made.successors.told.try_send(Told::TookOver).expect("room");
            for n in 0..all {
                let given = made.feed.give(heard(n));
                let given = tokio::time::timeout(Duration::from_secs(1), given).await;
                given.expect("nobody waits for it").expect("taken");
                tokio::task::yield_now().await;
            }
            let next = if has_failed {
                drop(made.next);
                made.successors.told.try_send(Told::FellBack).expect("room");
                tokio::spawn(std::future::ready(0))
            } else {
                made.successors.told.try_send(Told::Proven).expect("room");
                count(made.next)
            };
            made.feed.give(heard(all)).await.expect("taken");
            made.feed.finish().await;
            let (next, former) = (next.await, made.current.await);
            let (next, former) = (next.expect("counted"), former.expect("counted"));
            if has_failed {
                assert_eq!(former, all + 1);
            } else {
                assert_eq!(former, all);
                // What waited for it, and some on its way.
                assert!((MAX_SAMPLES..MAX_SAMPLES + 500).contains(&next), "{next}");
            }
        }
    }

    #[tokio::test]
    async fn what_waits_is_given_while_the_source_is_silent() {
        let mut made = succeeding(0).await;
        made.successors.told.try_send(Told::TookOver).expect("room");
        for n in 0..1_000 {
            made.feed.give(heard(n)).await.expect("taken");
            tokio::task::yield_now().await;
        }
        let (made_of_it, taken) = mpsc::channel(2_000);
        tokio::spawn(async move {
            while let Some(output) = made.next.next().await {
                if matches!(output, Output::Sample { .. }) {
                    made_of_it.send(()).await.expect("room");
                }
            }
        });
        for _ in 0..1_000 {
            made.feed.clock(WallTime::from_micros(0)).await;
            tokio::task::yield_now().await;
        }
        // The last of it comes out when the source has ended.
        assert!(taken.len() > 900, "{}", taken.len());
    }

    #[tokio::test]
    async fn the_one_before_ends_when_the_successor_has_proven_itself() {
        let mut made = succeeding(0).await;
        for told in [Told::TookOver, Told::Proven] {
            made.successors.told.try_send(told).expect("room");
        }
        made.feed.give(heard(0)).await.expect("taken");
        assert_eq!(made.current.await.expect("counted"), 0, "it has ended");
        assert!(made.feed.may_succeed());
    }

    #[tokio::test(start_paused = true)]
    async fn after_one_that_failed_on_air_another_is_tried_a_minute_later() {
        let mut made = succeeding(0).await;
        for told in [Told::TookOver, Told::FellBack] {
            made.successors.told.try_send(told).expect("room");
        }
        made.feed.give(heard(0)).await.expect("taken");
        assert!(!made.feed.may_succeed());
        tokio::time::advance(RETRY_AFTER).await;
        assert!(made.feed.may_succeed());
    }

    #[tokio::test]
    async fn a_successor_that_has_failed_is_waited_for_by_nobody() {
        let mut made = succeeding(1_000).await;
        drop(made.next);
        made.feed.give(heard(1_000)).await.expect("taken");
        made.feed.finish().await;
        assert_eq!(made.current.await.expect("counted"), 1);
    }
}
