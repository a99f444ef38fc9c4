//! Keeps the record of a broadcast in the store, behind what is stored of it.
//!
//! Enters: snapshots, and what the store's writer has stored
//! Leaves: the record, now and then; at the end, manifests that play all of it
//! Never:  waits for the store; a segment in a record that is not stored
//! Time:   the wall clock, for what has been kept long enough
//! Spec:   docs/recordings.md

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{manifests, sweep};
use crate::app::clock::wall_now;
use crate::id::{SegmentNumber, StreamName};
use crate::media::{Item, ObjectKey};
use crate::package::Snapshot;
use crate::package::show::{Recorder, Show};
use crate::store::{BroadcastWriter, Keep, Store};
use crate::time::WallTime;

/// A record is written with every segment while it is small, and less often as it grows, so that it stays a
/// small part of what is written.
const BYTES_PER_SEGMENT: usize = 16 * 1024;

/// How many numbers behind the record removal may be after a crash: that many are deleted again.
const SWEEP_MARGIN: u64 = 60;

/// How much longer segments stay than viewers can go back to them.
const REACH_GRACE: Duration = Duration::from_secs(60);

/// How many numbers leave at once, at most: a change of `archive.keep` spreads over some time.
const MAX_LEAVING: u64 = 16;

/// How many such steps of an earlier run's wait at most for the record that lets them go to be stored.
const MAX_STEPS: usize = 4;

/// How many versions of the next record are stored before one that was full says that it has ended: a segment lies
/// between two, and a list of shows that lacks the next one is not believed for as long. Who has neither the next one nor
/// a show that goes on is told that all is over.
const FOLLOWED: usize = 2;

/// What the earlier run left, once it is known.
type Left = oneshot::Receiver<Option<Show>>;

/// The record of one broadcast.
pub(in crate::app) struct Recording {
    stream: StreamName,
    keep: Keep,
    /// Whether the broadcast goes on with what an earlier run listed.
    goes_on: bool,
    left: Option<Left>,
    /// Whether the record goes on with that of an earlier run, and nobody has been told.
    has_resumed: bool,
    recorder: Recorder,
    /// Whether a version of it is on its way, and where what it offers begins.
    writing: Option<u64>,
    /// Where what the last version offers ends, and how long it was.
    written: u64,
    bytes: usize,
    /// Where what the stored record offers begins.
    confirmed: u64,
    /// What is not offered any more, and goes once no stored record offers it: those below which number.
    leaving: VecDeque<(u64, Vec<Item>)>,
    /// What an earlier run offered no more, and may not have removed.
    undone: Range<u64>,
    /// The record that was full, until it is closed, and how many versions of the next one are stored.
    full: Option<(Show, usize)>,
}

impl Recording {
    /// Begins to record what is published from segment `first` on. An earlier broadcast that broke off is
    /// closed, or gone on with if `snapshot` lists what it left.
    pub(in crate::app) fn begin(
        store: &Store,
        stream: &StreamName,
        keep: Keep,
        snapshot: &Snapshot,
        first: SegmentNumber,
    ) -> Self {
        let goes_on = snapshot.listed().start < first.get();
        let (tell, left) = oneshot::channel();
        let (store, name) = (store.clone(), stream.clone());
        tokio::spawn(async move {
            // The tail of the show before may not be stored yet.
            store.drained(&name).await;
            let found = sweep::last_open(&store, &name, first, goes_on).await;
            let _ = tell.send(found);
        });
        Self {
            stream: stream.clone(),
            keep,
            goes_on,
            left: Some(left),
            has_resumed: false,
            recorder: Recorder::begin(snapshot, first),
            writing: None,
            written: 0,
            bytes: 0,
            confirmed: 0,
            leaving: VecDeque::new(),
            undone: 0..0,
            full: None,
        }
    }

    /// Takes note of what has been stored, writes the record if it is time, and has removed what has been
    /// kept for long enough.
    pub(in crate::app) fn note(&mut self, writer: &BroadcastWriter, snapshot: &Snapshot) {
        self.note_at(writer, snapshot, wall_now());
    }

    fn note_at(&mut self, writer: &BroadcastWriter, snapshot: &Snapshot, now: WallTime) {
        self.take_in(writer, snapshot);
        if !self.learn(snapshot) {
            return;
        }
        if self
            .full
            .as_ref()
            .is_some_and(|(_, next)| *next >= FOLLOWED)
        {
            self.close_full(writer);
        }
        self.let_go(snapshot, now);
        self.remove(writer);
        let show = self.recorder.show();
        let news = show.offered().end.saturating_sub(self.written);
        let mut rest = (self.bytes / BYTES_PER_SEGMENT) as u64;
        if show.reach().is_some() {
            // Who serves from the store alone needs it to lead up to the live list.
            rest = rest.min(u64::from(snapshot.presentation().config.window_segments) / 2);
        }
        if self.writing.is_none() && news > rest {
            self.write(writer);
        }
        if self.recorder.is_full() {
            self.turn_over(writer, snapshot);
        }
    }

    /// The record of an earlier run, once it is known that this one goes on with it; once.
    pub(in crate::app) fn take_resumed(&mut self) -> Option<&Show> {
        let has_resumed = std::mem::take(&mut self.has_resumed);
        has_resumed.then(|| self.recorder.show())
    }

    /// Closes the record: everything is stored that will be, or the rest is closed by the next sweep.
    pub(in crate::app) async fn finish(
        mut self,
        writer: &BroadcastWriter,
        snapshot: &Snapshot,
        limit: Duration,
    ) {
        let is_flushed = writer.flush(limit).await;
        if let Some(left) = self.left.take() {
            let left = tokio::time::timeout(limit, left).await;
            let left = left.ok().and_then(Result::ok).flatten();
            self.start(left, snapshot);
        }
        self.take_in(writer, snapshot);
        if is_flushed {
            self.close(writer);
        } else {
            self.write(writer);
        }
    }

    /// Whether it is known what to go on with.
    fn learn(&mut self, snapshot: &Snapshot) -> bool {
        let Some(left) = &mut self.left else {
            return true;
        };
        let left = match left.try_recv() {
            Ok(left) => left,
            Err(oneshot::error::TryRecvError::Empty) => return false,
            Err(oneshot::error::TryRecvError::Closed) => None,
        };
        self.left = None;
        self.start(left, snapshot);
        true
    }

    fn start(&mut self, left: Option<Show>, snapshot: &Snapshot) {
        if let Some(show) = left.filter(|_| self.goes_on) {
            self.has_resumed = self.recorder.go_on_with(show, snapshot);
            self.undone = self.recorder.show().unswept();
        }
        tracing::info!(stream = %self.stream, show = %self.recorder.show().first(), "recording");
    }

    fn take_in(&mut self, writer: &BroadcastWriter, snapshot: &Snapshot) {
        self.recorder.advance(snapshot);
        for key in writer.take_stored() {
            match key.item {
                Item::Segment(rendition, number) => self.recorder.stored(&rendition, number),
                Item::Show(first) if first == self.recorder.show().first() => {
                    self.confirmed = self.writing.take().unwrap_or(self.confirmed);
                    self.full.iter_mut().for_each(|(_, next)| *next += 1);
                }
                _ => {}
            }
        }
        self.recorder.advance(snapshot);
    }

    /// Offers no more what has been kept for long enough.
    fn let_go(&mut self, snapshot: &Snapshot, now: WallTime) {
        if !self.undone.is_empty() {
            return self.let_go_again();
        }
        let Keep::For(keep) = self.keep else {
            return;
        };
        let show = self.recorder.show_mut();
        // What a viewer has just been told of is still to be had when it is asked for.
        let keep = show
            .reach()
            .map_or(keep, |reach| keep.max(reach + REACH_GRACE));
        let offered = show.offered();
        // What is in memory is in a live playlist, or has just been.
        let renditions = 0..snapshot.period().renditions.len();
        let live = renditions.filter_map(|r| snapshot.segments(r).next());
        let live = live.map(|segment| segment.number.get()).min();
        let from = show
            .number_from(now.before(keep))
            .min(live.unwrap_or(offered.start))
            .min(offered.start + MAX_LEAVING);
        if from <= offered.start {
            return;
        }
        let segments = show.segments_in(offered.start..from).into_iter();
        let segments =
            segments.map(|(name, number)| Item::Segment(name, SegmentNumber::new(number)));
        let earlier = show.inits_below(offered.start);
        let inits = show.inits_below(from).into_iter();
        let inits = inits.filter(|init| !earlier.contains(init));
        let inits = inits.map(|(name, period)| Item::Init(name, period));
        self.leaving
            .push_back((from, segments.chain(inits).collect()));
        show.withdraw_below(from);
    }

    /// Has some of what an earlier run was about to remove go: what of it is gone nobody knows.
    fn let_go_again(&mut self) {
        // A store that takes no record has none of it go.
        if self.leaving.len() >= MAX_STEPS {
            return;
        }
        let end = self.undone.end.min(self.undone.start + MAX_LEAVING);
        let show = self.recorder.show();
        let names = show.renditions();
        let segments = super::segments(self.undone.start..end, &names);
        let inits = show.inits_below(end).into_iter();
        let inits = inits.map(|(name, period)| Item::Init(name, period));
        self.leaving
            .push_back((end, segments.chain(inits).collect()));
        self.undone.start = end;
    }

    /// Removes what the stored record does not offer any more.
    fn remove(&mut self, writer: &BroadcastWriter) {
        let confirmed = self.confirmed;
        while self
            .leaving
            .front()
            .is_some_and(|(below, _)| *below <= confirmed)
        {
            let Some((below, items)) = self.leaving.pop_front() else {
                return;
            };
            for item in items {
                let key = ObjectKey::new(self.stream.clone(), item);
                writer.delete_after(key, Duration::ZERO);
            }
            let sure = below.saturating_sub(SWEEP_MARGIN);
            self.recorder.show_mut().sweep_below(sure);
        }
    }

    fn write(&mut self, writer: &BroadcastWriter) {
        let show = self.recorder.show();
        if show.offered().is_empty() {
            return;
        }
        let put = manifests::record(&self.stream, show);
        self.bytes = usize::try_from(put.body.len()).unwrap_or(usize::MAX);
        self.written = show.offered().end;
        self.writing = Some(show.offered().start);
        writer.put(put);
    }

    /// Says that nothing more comes, and how to play all of it.
    fn close(&mut self, writer: &BroadcastWriter) {
        self.close_full(writer);
        self.recorder.show_mut().end();
        put_closed(writer, &self.stream, self.recorder.show());
    }

    /// Says that nothing more comes to the record that was full: another one goes on, which can be found.
    fn close_full(&mut self, writer: &BroadcastWriter) {
        if let Some((ended, _)) = self.full.take() {
            put_closed(writer, &self.stream, &ended);
        }
    }

    /// Begins the next record where this one, which is full, ends.
    fn turn_over(&mut self, writer: &BroadcastWriter, snapshot: &Snapshot) {
        if self.recorder.show().offered().is_empty() {
            return;
        }
        self.close_full(writer);
        // All of it, for whoever meets both before it is closed: a hole between them would be filled only then.
        self.write(writer);
        self.full = Some((self.recorder.turn_over(snapshot), 0));
        let next = self.recorder.show().first();
        tracing::info!(stream = %self.stream, show = %next, "the record is full; another one goes on");
        (self.writing, self.bytes) = (None, 0);
        self.confirmed = next.get();
        // What was about to go goes with the rest of its show.
        self.leaving.clear();
        self.undone = 0..0;
    }
}

fn put_closed(writer: &BroadcastWriter, stream: &StreamName, show: &Show) {
    if show.offered().is_empty() {
        return;
    }
    let record = manifests::record(stream, show);
    for put in manifests::all(stream, show).into_iter().chain([record]) {
        writer.put(put);
    }
}

#[cfg(test)]
#[path = "recording_tests.rs"]
mod tests;
