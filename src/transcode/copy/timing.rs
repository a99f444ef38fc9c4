//! Gives each sample of a track the exact distance to the next.
//!
//! Enters: samples of one track in decode order
//! Leaves: the same, one behind, with their durations made exact; where a hole lies between two
//! Never:  moves a sample
//! Time:   the track's ticks; nanoseconds for what is compared across tracks
//! Spec:   [ISOBMFF] §8.8.12

use super::nanos;
use crate::media::Sample;
use crate::time::{Span, Ticks, Timescale};

/// A sample whose duration is exact, unless a hole follows.
#[derive(Clone, Debug)]
pub(super) struct Timed {
    pub(super) sample: Sample,
    /// When it is decoded and when it ends, in nanoseconds.
    pub(super) at: i64,
    pub(super) end: i64,
    /// Which continuous run of one configuration it belongs to.
    pub(super) run: u64,
    /// Whether time jumped before it.
    pub(super) after_hole: bool,
}

/// The timing of one track.
#[derive(Debug)]
pub(super) struct Timing {
    scale: Timescale,
    /// The longest that a sample may be made to reach the next, in nanoseconds.
    stretch: i64,
    held: Option<(Sample, u64, bool)>,
}

impl Timing {
    pub(super) const fn new(scale: Timescale, stretch: i64) -> Self {
        Self {
            scale,
            stretch,
            held: None,
        }
    }

    /// Takes the next sample; gives the one before it.
    pub(super) fn push(&mut self, sample: Sample, run: u64) -> Option<Timed> {
        let Some((mut before, before_run, was_after_hole)) = self.held.take() else {
            self.held = Some((sample, run, false));
            return None;
        };
        let distance = sample.dts.since(before.dts).filter(|span| span.get() > 0);
        let exact = distance.filter(|span| reaches(self.stretch, *span, self.scale));
        if let Some(exact) = exact {
            before.duration = exact;
        }
        self.held = Some((sample, run, exact.is_none()));
        Some(self.timed(before, before_run, was_after_hole))
    }

    /// Gives the last sample, lasting as long as was expected of it.
    pub(super) fn flush(&mut self) -> Option<Timed> {
        let (sample, run, after_hole) = self.held.take()?;
        Some(self.timed(sample, run, after_hole))
    }

    /// Gives the last sample, which nothing follows before `end`: it lasts until there, unless that is too long;
    /// and never beyond it.
    pub(super) fn flush_until(&mut self, end: i64) -> Option<Timed> {
        let scale = self.scale;
        if let Some((sample, ..)) = &mut self.held {
            let end = Ticks::new(end).at(Timescale::NANOS).rescale_nearest(scale);
            let distance = end.since(sample.dts).filter(|span| span.get() > 0);
            let fits = |span: &Span| reaches(self.stretch, *span, scale) || *span < sample.duration;
            sample.duration = distance.filter(fits).unwrap_or(sample.duration);
        }
        self.flush()
    }

    /// Where the sample that is held begins, and where it is expected to end.
    pub(super) fn held(&self) -> Option<(i64, i64)> {
        let (sample, ..) = self.held.as_ref()?;
        let end = sample.dts.checked_add(sample.duration);
        let in_nanos = |at: Ticks| nanos(at.at(self.scale));
        Some((in_nanos(sample.dts), in_nanos(end.unwrap_or(sample.dts))))
    }

    /// Whether the sample that is held begins before `at`.
    pub(super) fn holds_before(&self, at: i64) -> bool {
        self.held().is_some_and(|(held, _)| held < at)
    }

    /// Goes on in another timescale. What was held is to be flushed before.
    pub(super) const fn set_scale(&mut self, scale: Timescale) {
        self.scale = scale;
    }

    pub(super) const fn scale(&self) -> Timescale {
        self.scale
    }

    fn timed(&self, sample: Sample, run: u64, after_hole: bool) -> Timed {
        let end = sample.dts.checked_add(sample.duration);
        Timed {
            at: nanos(sample.dts.at(self.scale)),
            end: nanos(end.unwrap_or(sample.dts).at(self.scale)),
            sample,
            run,
            after_hole,
        }
    }
}

/// Whether a sample may be made to last for `distance`.
fn reaches(stretch: i64, distance: Span, scale: Timescale) -> bool {
    let limit = i128::from(stretch) * i128::from(scale.get());
    i128::from(distance.get()) * 1_000_000_000 <= limit
}
