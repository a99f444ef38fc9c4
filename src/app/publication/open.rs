//! A broadcast whose renditions are known: the packager, and where it puts things.
//!
//! Enters: samples, cuts and rests, by the index of the transcoder that says so
//! Leaves: what follows from them, in [`Out`]
//! Never:  waits
//! Time:   the samples'
//! Spec:   docs/architecture.md

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::out::Out;
use crate::app::latency::Passage;
use crate::id::SegmentNumber;
use crate::media::{MediaKind, Rendition, Sample};
use crate::package::{self, Output, Packager};
use crate::time::Ticks;

/// How long the end of a broadcast may take to be stored before the rest is left to the background.
const STORE_LIMIT: Duration = Duration::from_secs(10);

/// A broadcast whose renditions are known.
pub(super) struct Open {
    pub(super) packager: Packager,
    pub(super) out: Out,
    /// The rendition whose next sample begins a segment, of a copied broadcast.
    pub(super) begins: Option<usize>,
    /// What lies beyond where another transcoder is to take over, until it has: sound, for as long as that one is
    /// waited for at most.
    pub(super) beyond: Vec<(usize, Sample)>,
    /// How far another transcoder has made each rendition, after which this one goes on.
    pub(super) made: Vec<Option<Ticks>>,
    /// The segment with which another transcoder took over.
    pub(super) widened: Option<SegmentNumber>,
    /// The renditions that nothing is made for any more, and the segment before which that was said.
    pub(super) silent: Range<usize>,
    pub(super) rested: Option<SegmentNumber>,
}

impl Open {
    /// [`Self::push`] of what lies before segment `until`, from where on another transcoder is to make it.
    pub(super) fn push_until(
        &mut self,
        rendition: usize,
        sample: Sample,
        until: Option<SegmentNumber>,
    ) -> Result<(), package::Error> {
        let number = self.segment_of(rendition, sample.dts);
        if until.is_some_and(|until| number >= Some(until)) {
            self.beyond.push((rendition, sample));
            return Ok(());
        }
        self.push(rendition, sample)
    }

    /// The other transcoder does not take over, or not before segment `until`.
    pub(super) fn go_on(&mut self, until: Option<SegmentNumber>) -> Result<(), package::Error> {
        for (rendition, sample) in std::mem::take(&mut self.beyond) {
            self.push_until(rendition, sample, until)?;
        }
        Ok(())
    }

    /// Takes the next sample of `rendition`. One that lies before the period, where another transcoder made what
    /// there is, is of no use.
    pub(super) fn push(&mut self, rendition: usize, sample: Sample) -> Result<(), package::Error> {
        let number = self.segment_of(rendition, sample.dts);
        let made = self.made.get(rendition).copied().flatten();
        if number < self.widened || made.is_some_and(|made| sample.dts < made) {
            return Ok(());
        }
        let transcoded = Instant::now();
        let Some(rendition) = self.index(rendition) else {
            return Err(package::Error::UnknownRendition { index: rendition });
        };
        let dts = sample.dts;
        if self.out.stream.is_vacant() {
            // The publisher is gone for good, and the transcoder drains.
            self.packager.close_soon();
        }
        if self.begins.take_if(|begins| *begins == rendition).is_some() && !sample.keyframe {
            let counter = &self.out.stream.keyless_segments;
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.rest_silent(number)?;
        self.packager.push(rendition, sample)?;
        let packaged = Instant::now();
        if self.drain() {
            let passage = Passage {
                transcoded,
                packaged,
                published: Instant::now(),
            };
            self.out.measure(rendition, dts, passage);
        }
        Ok(())
    }

    /// Whether nothing is made but sound.
    pub(super) fn lacks_pictures(&self) -> bool {
        let mut kinds = self.made().iter().map(|r| r.codec.kind());
        kinds.all(|kind| kind == MediaKind::Audio)
    }

    /// The renditions that are made now.
    pub(super) fn made(&self) -> &[Rendition] {
        let all = &self.out.renditions;
        let made = (!self.silent.is_empty()).then_some(self.silent.start);
        made.and_then(|made| all.get(..made)).unwrap_or(all)
    }

    /// The first segment of which no rendition has anything.
    pub(super) fn free(&self) -> SegmentNumber {
        let snapshot = self.packager.snapshot();
        let renditions = 0..self.out.renditions.len();
        let lasts = renditions.filter_map(|index| {
            let open = self.packager.open_number(index);
            open.or_else(|| Some(snapshot.segments(index).next_back()?.number))
        });
        lasts
            .max()
            .map_or_else(|| snapshot.period().first, SegmentNumber::next)
    }

    /// Whether every rendition that is made has come to segment `at`: its last sample ended there, or a later one came.
    pub(super) fn has_come_to(&self, at: SegmentNumber) -> bool {
        (0..self.made().len()).all(|index| {
            let mut beyond = self.beyond.iter().map(|(rendition, _)| *rendition);
            self.packager.has_ended_before(index, at)
                || beyond.any(|rendition| self.index(rendition) == Some(index))
        })
    }

    /// What nothing is made for any more has nothing before segment `number`, which the others have come to.
    fn rest_silent(&mut self, number: Option<SegmentNumber>) -> Result<(), package::Error> {
        let Some(until) = number.filter(|_| number > self.rested) else {
            return Ok(());
        };
        self.rested = number;
        let mut silent = self.silent.clone();
        silent.try_for_each(|rendition| self.packager.rest(rendition, until))
    }

    /// Goes on with the first renditions alone, those of the transcoder before another one took over, which that one has
    /// `made` so far.
    pub(super) fn narrow(&mut self, made: Vec<Option<Ticks>>) {
        let all = self.out.renditions.len();
        self.out.order = (0..all).collect();
        self.silent = made.len()..all;
        self.made = made;
        self.rested = None;
    }

    /// Goes on with `renditions` of another transcoder from segment `first` on: those of before, and more, or those for
    /// which nothing was made for a while. What the one before has made of that.
    pub(super) fn widen(
        &mut self,
        renditions: Vec<Rendition>,
        first: SegmentNumber,
    ) -> Result<Vec<(usize, Sample)>, package::Error> {
        let known = &self.out.renditions;
        let is_known = |one: &Rendition| known.iter().position(|other| other.name == one.name);
        let mut all: Vec<_> = known
            .iter()
            .filter_map(|one| renditions.iter().find(|other| other.name == one.name))
            .cloned()
            .collect();
        let new = renditions.iter().filter(|one| is_known(one).is_none());
        all.extend(new.cloned());
        self.packager.widen(all.clone(), first)?;
        let place = |one: &Rendition| all.iter().position(|other| other.name == one.name);
        self.out.order = renditions.iter().filter_map(place).collect();
        let beyond = std::mem::take(&mut self.beyond);
        if let Some(dvr) = &mut self.out.dvr {
            dvr.widen(all.len());
        }
        self.out.renditions = all;
        self.widened = Some(first);
        (self.silent, self.made) = (0..0, Vec::new());
        self.drain();
        Ok(beyond)
    }

    /// The packager's index of the transcoder's `rendition`.
    pub(super) fn index(&self, rendition: usize) -> Option<usize> {
        self.out.order.get(rendition).copied()
    }

    fn segment_of(&self, rendition: usize, at: Ticks) -> Option<SegmentNumber> {
        let rendition = self.out.renditions.get(self.index(rendition)?)?;
        let grid = self.packager.presentation().grid();
        Some(grid.segment_at(at.at(rendition.timescale)))
    }

    /// The next sample of `rendition` begins segment `number`.
    pub(super) fn cut(
        &mut self,
        rendition: usize,
        number: SegmentNumber,
    ) -> Result<(), package::Error> {
        let rendition = self.index(rendition).unwrap_or(rendition);
        self.packager.cut(rendition, number)?;
        self.begins = Some(rendition);
        self.drain();
        Ok(())
    }

    /// Another period begins with segment `first`.
    pub(super) fn change(
        &mut self,
        renditions: Vec<Rendition>,
        first: SegmentNumber,
    ) -> Result<(), package::Error> {
        self.out.renditions.clone_from(&renditions);
        self.packager.change(renditions, first)?;
        self.drain();
        Ok(())
    }

    /// `rendition` has nothing until segment `until`: from now on, or soon.
    pub(super) fn rest(
        &mut self,
        rendition: usize,
        until: SegmentNumber,
        soon: bool,
    ) -> Result<(), package::Error> {
        let rendition = self.index(rendition).unwrap_or(rendition);
        if soon {
            self.packager.rest_soon(rendition, until);
        } else {
            self.packager.rest(rendition, until)?;
        }
        self.drain();
        Ok(())
    }

    /// Publishes what the packager has; whether a part is among it.
    pub(super) fn drain(&mut self) -> bool {
        let mut has_part = false;
        while let Some(output) = self.packager.poll_output() {
            has_part |= matches!(output, Output::Part { .. });
            self.out.publish(output);
        }
        has_part
    }

    /// Closes what is open; the manifests say so, and all of it is stored.
    pub(super) async fn finish(self) {
        let Self {
            packager, mut out, ..
        } = self;
        let mut last = packager.snapshot();
        match packager.finish() {
            Ok(outputs) => {
                for output in outputs {
                    if let Output::WindowChanged(snapshot) = &output {
                        last = Arc::clone(snapshot);
                    }
                    out.publish(output);
                }
            }
            Err(error) => {
                tracing::error!(stream = %out.stream.name(), %error, "the end is missing")
            }
        }
        let recordings = std::mem::take(&mut out.recordings).into_iter();
        let finishing = recordings.zip(out.writer.each());
        let finishing = finishing.map(|(one, writer)| one.finish(writer, &last, STORE_LIMIT));
        join_all(finishing).await;
        let left = out.writer.finish(STORE_LIMIT).await;
        if left.objects > 0 {
            tracing::warn!(stream = %out.stream.name(), objects = left.objects, bytes = left.bytes,
                spooled = left.spooled, "the store is behind; the rest of the broadcast is stored in the background");
        }
    }
}
