//! Waits for what is yet to be made: a place of a playlist, a hinted part, a segment in the making.
//!
//! Enters: the feed of the media playlist that will say so
//! Leaves: what was waited for, or why it is not to be had
//! Never:  more than [`MAX_WAITING`] at once, longer than three target durations between two parts
//! Time:   tokio's clock
//! Spec:   [HLS] §6.2.5.2, §6.2.6; [DASH] §5.3.9.5.3

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::blocking::{Edge, Verdict, Wanted};
use super::body::Aborted;
use super::live::{Chosen, Feed, Live};
use super::metrics::{Gauge, Metrics};
use super::origin::{Object, Origin};
use crate::id::{PartIndex, RenditionName, SegmentNumber};
use crate::media::{Item, ObjectKey, Payload};

/// The most requests that wait at once: some kilobytes each, beside their connections. How many of them
/// one connection has is bounded by its streams.
pub(crate) const MAX_WAITING: usize = 65_536;

/// How many segments after the one in the making are waited for: players in DASH ask by the clock, and
/// what they ask for is still on its way through the encoder.
const EARLY_SEGMENTS: u64 = 1;

/// How long a segment without parts is waited for when it is the next: a player in DASH asks the moment
/// that the clock says it is whole, which is before it has come through the encoder.
const WHOLE_LIMIT: Duration = Duration::from_secs(1);

/// Why waiting came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unmet {
    /// [`MAX_WAITING`] requests wait already.
    TooMany,
    /// It did not come in time.
    TooLong,
    /// It will not come.
    Never,
}

/// Lets a bounded number wait.
#[derive(Debug)]
pub(crate) struct Room {
    permits: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// A place in the [`Room`], given back on drop.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    _gauge: Gauge,
}

impl Room {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(MAX_WAITING)),
            metrics,
        }
    }

    fn enter(&self) -> Result<Place, Unmet> {
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        Ok(Place {
            _permit: permit.map_err(|_| Unmet::TooMany)?,
            _gauge: self.metrics.begin_wait(),
        })
    }

    /// The version of a playlist that has `wanted`.
    pub(crate) async fn version(&self, feed: &mut Feed, wanted: Wanted) -> Result<Chosen, Unmet> {
        if let Some(chosen) = feed.borrow_and_update().version_with(wanted) {
            return Ok(chosen);
        }
        let _place = self.enter()?;
        let deadline = deadline(feed);
        loop {
            changed(feed, deadline).await?;
            if let Some(chosen) = feed.borrow_and_update().version_with(wanted) {
                return Ok(chosen);
            }
        }
    }

    /// A part that is not there, if the playlist hints it, once it is.
    pub(crate) async fn part<O: Origin>(
        &self,
        origin: &O,
        key: &ObjectKey,
        feed: &mut Feed,
        at: (SegmentNumber, PartIndex),
    ) -> Result<Arc<Object>, Unmet> {
        let mut waiting = None;
        loop {
            // The edge first: what it says is there is there.
            let edge = edge(feed);
            if let Some(object) = origin.object(key) {
                return Ok(object);
            }
            if edge.is_none_or(|edge| (edge.segment, edge.part) != at) {
                return Err(Unmet::Never);
            }
            let (_, deadline) = match &waiting {
                Some(waiting) => waiting,
                None => waiting.insert((self.enter()?, deadline(feed))),
            };
            changed(feed, *deadline).await?;
        }
    }

    /// A segment that is not whole, as soon as its first part is there.
    pub(crate) async fn segment<O: Origin>(
        &self,
        origin: &Arc<O>,
        key: &ObjectKey,
        mut feed: Feed,
        number: SegmentNumber,
    ) -> Result<Begun, Unmet> {
        let rendition = key.item.rendition().ok_or(Unmet::Never)?.clone();
        let mut waiting = None;
        loop {
            let edge = edge(&mut feed);
            if let Some(object) = origin.object(key) {
                return Ok(Begun::Whole(object));
            }
            let Some(edge) = edge else {
                return self.next_whole(&**origin, key, feed, number).await;
            };
            if !is_near(&edge, number) {
                return Err(Unmet::Never);
            }
            let (place, deadline) = match waiting.take() {
                Some(waiting) => waiting,
                None => (self.enter()?, deadline(&feed)),
            };
            if edge.segment == number && edge.part.get() > 0 {
                return Ok(Begun::Growing(
                    Growing {
                        origin: Arc::clone(origin),
                        key: key.clone(),
                        rendition,
                        number,
                        feed,
                        limit: edge.blocked_limit(),
                        next: 0,
                        sent: 0,
                        _place: place,
                    }
                    .parts(),
                ));
            }
            changed(&mut feed, deadline).await?;
            waiting = Some((place, deadline));
        }
    }
}

impl Room {
    /// The segment after the last one of a playlist that tells no parts, if it comes soon.
    async fn next_whole<O: Origin>(
        &self,
        origin: &O,
        key: &ObjectKey,
        mut feed: Feed,
        number: SegmentNumber,
    ) -> Result<Begun, Unmet> {
        let rendition = key.item.rendition().ok_or(Unmet::Never)?.clone();
        let before = number.get().checked_sub(1).ok_or(Unmet::Never)?;
        let before = Item::Segment(rendition, SegmentNumber::new(before));
        let before = ObjectKey::new(key.stream.clone(), before);
        if origin.object(&before).is_none() {
            return Err(Unmet::Never);
        }
        let _place = self.enter()?;
        let deadline = Instant::now() + WHOLE_LIMIT;
        loop {
            feed.mark_unchanged();
            if let Some(object) = origin.object(key) {
                return Ok(Begun::Whole(object));
            }
            // Too early by the clock as well, and so not there.
            changed(&mut feed, deadline)
                .await
                .map_err(|_| Unmet::Never)?;
        }
    }
}

/// A segment that there is something of.
pub(crate) enum Begun {
    /// All of it.
    Whole(Arc<Object>),
    /// Its parts, as they come.
    Growing(BoxStream<'static, Result<Payload, Aborted>>),
}

/// Whether segment `number` is in the making or next.
fn is_near(edge: &Edge, number: SegmentNumber) -> bool {
    let ahead = number.get().checked_sub(edge.segment.get());
    ahead.is_some_and(|ahead| ahead <= EARLY_SEGMENTS)
}

fn edge(feed: &mut Feed) -> Option<Edge> {
    feed.borrow_and_update().newest().edge().copied()
}

fn deadline(feed: &Feed) -> Instant {
    let edge = feed.borrow().newest().edge().copied();
    let limit = edge.map_or(Duration::ZERO, |edge| edge.blocked_limit());
    Instant::now() + limit
}

async fn changed(feed: &mut Feed, deadline: Instant) -> Result<(), Unmet> {
    match timeout_at(deadline, feed.changed()).await {
        Ok(Ok(())) => Ok(()),
        // Another broadcast has begun in its place.
        Ok(Err(_)) => Err(Unmet::Never),
        Err(_) => Err(Unmet::TooLong),
    }
}

/// What is there of a segment, sent part by part until it is whole.
struct Growing<O> {
    origin: Arc<O>,
    key: ObjectKey,
    rendition: RenditionName,
    number: SegmentNumber,
    feed: Feed,
    limit: Duration,
    next: u32,
    sent: u64,
    _place: Place,
}

impl<O: Origin> Growing<O> {
    fn parts(self) -> BoxStream<'static, Result<Payload, Aborted>> {
        stream::unfold(Some(self), |growing| async {
            let mut growing = growing?;
            match growing.more().await {
                Ok(Some(payload)) => Some((Ok(payload), Some(growing))),
                Ok(None) => None,
                Err(aborted) => Some((Err(aborted), None)),
            }
        })
        .boxed()
    }

    /// The next bytes; `None` after the last.
    async fn more(&mut self) -> Result<Option<Payload>, Aborted> {
        loop {
            let edge = edge(&mut self.feed);
            let part = PartIndex::new(self.next);
            let part = Item::Part(self.rendition.clone(), self.number, part);
            let part = ObjectKey::new(self.key.stream.clone(), part);
            if let Some(part) = self.origin.object(&part) {
                self.next += 1;
                self.sent += part.body().len();
                return Ok(Some(part.body().clone()));
            }
            if let Some(whole) = self.origin.object(&self.key) {
                let rest = whole.body().slice(self.sent..whole.body().len());
                self.sent = whole.body().len();
                return Ok((!rest.is_empty()).then_some(rest));
            }
            if edge.is_none_or(|edge| edge.segment != self.number) {
                return Err(Aborted);
            }
            let deadline = Instant::now() + self.limit;
            changed(&mut self.feed, deadline)
                .await
                .map_err(|_| Aborted)?;
        }
    }
}

/// Whether `live` refuses to wait for `wanted`.
pub(crate) fn is_too_far(live: &Live, wanted: Wanted) -> bool {
    let edge = live.newest().edge();
    edge.is_some_and(|edge| edge.verdict(wanted) == Verdict::TooFar)
}
