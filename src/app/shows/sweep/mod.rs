//! Closes shows that broke off, and removes what has been kept for long enough.
//!
//! Enters: the store, how long things are kept, the time
//! Leaves: records that say the truth; room
//! Never:  touches a show that goes on, a segment that a live playlist names, a record that it cannot read; goes by what
//!         it saw before a store kept it waiting
//! Time:   the wall clock, against that of the media
//! Spec:   docs/recordings.md
//!
//! Everything follows from the records: segments are removed by number, some hundred at a time, and after each
//! step the record says how far it is. What is interrupted goes on where it was, and what was removed twice
//! harms nobody, so that several nodes may do this at once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;

use super::{manifests, tail};
use crate::app::clock::wall_now;
use crate::id::{PeriodId, RenditionName, SegmentNumber, StreamName};
use crate::media::{Item, ObjectKey};
use crate::package::show::Show;
use crate::store::{Keep, ReadFailed, Store, WriteFailed};
use crate::time::WallTime;

/// For how long nothing may have been stored of a show before it counts as broken off.
const QUIET: Duration = Duration::from_secs(60);

/// How many numbers are removed between two versions of the record, and how often that at one look: so that one
/// show that says that it is very long does not keep the others waiting.
const STEP: u64 = 200;
const MAX_STEPS: usize = 50;

/// How long what a live playlist names is left alone: a list of a stream that is over stays as it is.
const LISTED_PAUSE: Duration = Duration::from_secs(600);

/// For how long it counts what was seen of a stream: a store that hangs may answer after hours, when it is all different.
const FRESH: Duration = Duration::from_secs(10);

/// What a store is asked for at once: how many segments are removed before it is seen to that the next still may be, and
/// how many playlists are read.
const BATCH: usize = 16;

/// A hole that is longer than any of ours is not looked through for what the record does not know.
const MAX_HOLE: u64 = 10_000;

/// How far behind a broadcast that begins an earlier one may lie for it to be the same show: the longest that
/// publishers stay away without ending it.
const MAX_RESUMED_SEGMENTS: u64 = 10_000;

#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error(transparent)]
    Read(#[from] ReadFailed),
    #[error(transparent)]
    Write(#[from] WriteFailed),
}

/// When each show of a stream is to be looked at again.
pub(super) type Due = BTreeMap<SegmentNumber, WallTime>;

/// How a stream goes on here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Busy {
    /// A broadcast adds to its newest show.
    pub(super) live: bool,
    /// What was made of it waits for the store, of whichever show.
    pub(super) draining: bool,
}

/// How a stream goes on here, each time that it is asked.
pub(super) type IsBusy<'a> = &'a (dyn Fn() -> Busy + Send + Sync);

/// Looks after the shows of one stream.
pub(super) async fn look_after(
    store: &Store,
    keep: Keep,
    (stream, is_busy): (&StreamName, IsBusy<'_>),
    due: &mut Due,
) -> Result<(), Failed> {
    let mut listed_at = Instant::now();
    let mut shows = store.shows(stream).await?;
    due.retain(|first, _| shows.binary_search(first).is_ok());
    for first in shows.clone() {
        if listed_at.elapsed() > FRESH {
            listed_at = Instant::now();
            shows = store.shows(stream).await?;
        }
        let now = wall_now();
        let next = following(&shows, first);
        let busy = is_busy();
        if due.get(&first).is_some_and(|due| *due > now) || (busy.live && next.is_none()) {
            continue;
        }
        let look = Look {
            store,
            stream,
            is_busy,
            was_live: busy.live,
        };
        let Some((mut show, _)) = super::read(store, &look.key(Item::Show(first))).await? else {
            // Said once; it is looked at again after a restart.
            due.insert(first, WallTime::from_micros(i64::MAX));
            continue;
        };
        if !show.is_ended() && (busy.draining || !look.close(&mut show, (next, now)).await?) {
            continue;
        }
        let gone_at = match keep {
            Keep::For(keep) => show.ends().after(keep),
            Keep::Window | Keep::Forever => WallTime::from_micros(i64::MAX),
        };
        if gone_at > now {
            due.insert(first, gone_at);
            continue;
        }
        match look.remove(&mut show, next).await? {
            Removed::All => {
                tracing::info!(%stream, show = %first, "removed: kept for long enough");
                due.remove(&first);
            }
            Removed::Step => {}
            Removed::AllButListed => {
                due.insert(first, now.after(LISTED_PAUSE));
            }
        }
    }
    Ok(())
}

/// The first of `shows` after `first`.
fn following(shows: &[SegmentNumber], first: SegmentNumber) -> Option<SegmentNumber> {
    shows.iter().copied().find(|show| *show > first)
}

async fn store_closed(store: &Store, stream: &StreamName, show: &mut Show) -> Result<(), Failed> {
    show.end();
    for put in manifests::all(stream, show) {
        store.put(&put).await?;
    }
    store.put(&manifests::record(stream, show)).await?;
    tracing::info!(%stream, show = %show.first(), "a show that broke off is closed");
    Ok(())
}

/// The newest show of `stream`, if it broke off and a broadcast that begins with segment `first` goes on with it.
/// One that broke off and is not gone on with is closed.
pub(super) async fn last_open(
    store: &Store,
    stream: &StreamName,
    first: SegmentNumber,
    goes_on: bool,
) -> Option<Show> {
    match find_last_open(store, stream, first, goes_on).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%stream, %error, "the show before this one is closed later");
            None
        }
    }
}

async fn find_last_open(
    store: &Store,
    stream: &StreamName,
    first: SegmentNumber,
    goes_on: bool,
) -> Result<Option<Show>, Failed> {
    let shows = store.shows(stream).await?;
    let Some(last) = shows.into_iter().rfind(|show| *show < first) else {
        return Ok(None);
    };
    let key = ObjectKey::new(stream.clone(), Item::Show(last));
    let found = super::read(store, &key).await?;
    let Some((mut show, _)) = found.filter(|(show, _)| !show.is_ended()) else {
        return Ok(None);
    };
    let has_all = tail::adopt(store, stream, &mut show, Some(first)).await?;
    let is_near = show.offered().end.saturating_add(MAX_RESUMED_SEGMENTS) >= first.get();
    if goes_on && is_near {
        return Ok(Some(show));
    }
    if has_all {
        store_closed(store, stream, &mut show).await?;
    }
    Ok(None)
}

/// How much of a show is gone.
enum Removed {
    All,
    /// What is removed at one look.
    Step,
    /// All but what a live playlist names: the last one of a stream that nobody has published since.
    AllButListed,
}

/// What has become of init segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inits {
    /// There are none any more, or they are another show's.
    Gone,
    /// A live playlist names one.
    Listed,
    /// There was no telling.
    Unsure,
}

/// Up to which number a show may go, and when that was seen.
struct Seen {
    end: u64,
    at: Instant,
}

/// A look at one show of a stream.
#[derive(Clone, Copy)]
struct Look<'a> {
    store: &'a Store,
    stream: &'a StreamName,
    is_busy: IsBusy<'a>,
    /// Whether a broadcast of the stream went on when it began.
    was_live: bool,
}

impl Look<'_> {
    fn key(&self, item: Item) -> ObjectKey {
        ObjectKey::new(self.stream.clone(), item)
    }

    /// Whether a broadcast has begun meanwhile: what it goes on with is not to be touched.
    fn is_outdated(&self) -> bool {
        (self.is_busy)().live && !self.was_live
    }

    /// Closes `show`, up to the `next` one, if nothing has been added to it for long; whether it is closed.
    async fn close(
        &self,
        show: &mut Show,
        (next, now): (Option<SegmentNumber>, WallTime),
    ) -> Result<bool, Failed> {
        if show.ends().after(QUIET) > now {
            return Ok(false);
        }
        let (store, stream) = (self.store, self.stream);
        let before = show.clone();
        let has_all = tail::adopt(store, stream, show, next).await?;
        // Somebody writes it after all, or has done so meanwhile.
        if show.latest().after(QUIET) > now || !self.is_still(&before, next).await? {
            return Ok(false);
        }
        if !has_all {
            // There is more than is taken in at one look.
            show.offer_all();
            store.put(&manifests::record(stream, show)).await?;
            return Ok(false);
        }
        store_closed(store, stream, show).await?;
        Ok(true)
    }

    /// Whether `show` is stored as it was, with `next` after it, though the store may have taken hours over what it was
    /// asked since.
    async fn is_still(&self, show: &Show, next: Option<SegmentNumber>) -> Result<bool, ReadFailed> {
        let shows = self.store.shows(self.stream).await?;
        let is_same = self.is_stored(show).await?;
        Ok(is_same && following(&shows, show.first()) == next && !self.is_outdated())
    }

    /// Whether the record that is stored is that of `show` as it is.
    async fn is_stored(&self, show: &Show) -> Result<bool, ReadFailed> {
        let found = super::read(self.store, &self.key(Item::Show(show.first()))).await?;
        Ok(found.is_some_and(|(found, _)| found == *show))
    }

    /// Removes `show`, whatever a live playlist does not name.
    async fn remove(
        &self,
        show: &mut Show,
        next: Option<SegmentNumber>,
    ) -> Result<Removed, Failed> {
        let (store, stream) = (self.store, self.stream);
        for manifest in manifests::keys(stream, show) {
            store.delete(vec![manifest]).await?;
        }
        let renditions = show.renditions();
        let mut seen = self.see(show, &renditions).await?;
        let mut steps = 0;
        while show.unswept().start < seen.end && steps < MAX_STEPS {
            let of = (&*renditions, next);
            if let Some(removed) = self.remove_step(show, of, &mut seen).await? {
                return Ok(removed);
            }
            steps += 1;
        }
        let mut left = Inits::Gone;
        let is_gone = show.unswept().start >= show.offered().end;
        if is_gone {
            let inits = show.init_segments();
            let inits = inits.map(|(name, period)| (name.clone(), period)).collect();
            left = self.remove_inits(inits, next).await?;
        }
        if is_gone && left == Inits::Gone {
            let record = self.key(Item::Show(show.first()));
            store.delete(vec![record]).await?;
            return Ok(Removed::All);
        }
        // The record stays, for the rest.
        store.put(&manifests::record(stream, show)).await?;
        let is_listed = left == Inits::Listed || (!is_gone && show.unswept().start >= seen.end);
        Ok(match is_listed {
            true => Removed::AllButListed,
            false => Removed::Step,
        })
    }

    /// Removes some of `show`, and takes note of it once all of that is gone: what it is broken off over is gone on
    /// with. How much is gone if that is to be at another look.
    async fn remove_step(
        &self,
        show: &mut Show,
        (renditions, next): (&[RenditionName], Option<SegmentNumber>),
        seen: &mut Seen,
    ) -> Result<Option<Removed>, Failed> {
        let (store, stream) = (self.store, self.stream);
        let step = step_of(show, seen.end);
        // A store that is too slow to say in time what may go is not written to for nothing.
        if !self.may_go((show, renditions), step.end, seen).await? {
            return Ok(Some(Removed::Step));
        }
        let before = show.clone();
        show.withdraw_below(step.end);
        show.skip_below(step.start);
        store.put(&manifests::record(stream, show)).await?;
        if !self.may_go((show, renditions), step.end, seen).await? {
            // Nothing of it is gone yet. If another node has written since, what it says counts.
            if self.is_stored(show).await? {
                store.put(&manifests::record(stream, &before)).await?;
            }
            return Ok(Some(Removed::Step));
        }
        // Where two overlap, what both may offer goes with the later one.
        let own = next.map_or(u64::MAX, SegmentNumber::get);
        let numbers = step.start..step.end.min(own);
        let segments = super::segments(numbers, renditions);
        let segments: Vec<_> = segments.map(|item| self.key(item)).collect();
        for batch in segments.chunks(BATCH) {
            if !self.may_go((show, renditions), step.end, seen).await? {
                return Ok(Some(Removed::Step));
            }
            store.delete(batch.to_vec()).await?;
        }
        let inits = show.inits_below(step.end);
        Ok(match self.remove_inits(inits, next).await? {
            Inits::Gone => {
                show.sweep_below(step.end);
                None
            }
            Inits::Listed => Some(Removed::AllButListed),
            Inits::Unsure => Some(Removed::Step),
        })
    }

    /// Whether what lies below `end` may go, as was `seen`, or is seen now if that was long ago.
    async fn may_go(
        &self,
        (show, renditions): (&Show, &[RenditionName]),
        end: u64,
        seen: &mut Seen,
    ) -> Result<bool, ReadFailed> {
        if seen.at.elapsed() > FRESH {
            *seen = self.see(show, renditions).await?;
        }
        Ok(end <= seen.end && seen.at.elapsed() <= FRESH && !self.is_outdated())
    }

    /// Up to which number `show` may go: what a live playlist of `renditions` lists stays, and what comes after it.
    async fn see(&self, show: &Show, renditions: &[RenditionName]) -> Result<Seen, ReadFailed> {
        let at = Instant::now();
        let numbers = show.unswept().start..show.offered().end;
        let mut end = numbers.end;
        let (store, stream) = (self.store, self.stream);
        let listed = renditions.iter().cloned();
        let listed = listed.map(|name| async move { store.listed(stream, &name).await });
        let mut listed = futures_util::stream::iter(listed).buffer_unordered(BATCH);
        while let Some(listed) = listed.try_next().await? {
            let Some((listed, last)) = listed.map(|(first, last)| (first.get(), last.get())) else {
                continue;
            };
            // A record that was full may end in the middle of the list, and the next one begin there.
            if listed < numbers.end && last >= numbers.start {
                end = end.min(listed.max(numbers.start));
            }
        }
        Ok(Seen { end, at })
    }

    /// Removes init segments of a show whose segments are gone, but those that the `next` show goes on with, and those
    /// that a live playlist names: the record after a full one is there later than the list.
    async fn remove_inits(
        &self,
        inits: Vec<(RenditionName, PeriodId)>,
        next: Option<SegmentNumber>,
    ) -> Result<Inits, Failed> {
        if inits.is_empty() {
            return Ok(Inits::Gone);
        }
        let next = match next {
            // One that cannot be read may name any of them.
            Some(next) => match super::read(self.store, &self.key(Item::Show(next))).await? {
                Some((next, _)) => Some(next),
                None => return Ok(Inits::Gone),
            },
            None => None,
        };
        let is_needed = |period: PeriodId| {
            let mut of_next = next.iter().flat_map(Show::init_segments);
            of_next.any(|(_, other)| other == period)
        };
        let inits = inits.into_iter().filter(|(_, period)| !is_needed(*period));
        let inits = inits.map(|(name, period)| self.key(Item::Init(name, period)));
        let mut left = Inits::Gone;
        for init in inits {
            let asked = Instant::now();
            let is_listed = self.store.is_listed(&init).await?;
            if asked.elapsed() > FRESH || self.is_outdated() {
                return Ok(Inits::Unsure);
            } else if is_listed {
                left = Inits::Listed;
            } else {
                self.store.delete(vec![init]).await?;
            }
        }
        Ok(left)
    }
}

/// The numbers that go next; none of a hole that is too long to be one of ours.
fn step_of(show: &Show, end: u64) -> Range<u64> {
    let mut start = show.unswept().start;
    if start >= show.offered().start {
        let next = show.next_stored(start).unwrap_or(end).min(end);
        if next > start.saturating_add(MAX_HOLE) {
            start = next;
        }
    }
    start..end.min(start.saturating_add(STEP))
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod broken_off_tests;
