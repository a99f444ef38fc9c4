//! GStreamer's nanoseconds and our positions, in both directions.
//!
//! Enters: positions on the epoch timeline; running times of buffers; counts of access units
//! Leaves: running times; samples' places, exactly on the grid
//! Never:  an encoder's own decode timestamps: the count is the decode order
//! Time:   on the encode side running time begins [`SHIFT_NS`] before the start of the first segment, or before the
//!         slot that an earlier worker's renditions go on from; on the decode side, where frames may lie before that
//!         start, [`LEAD_NS`] before it
//! Spec:   none

use crate::id::SegmentNumber;
use crate::time::{FrameRate, Grid, MediaTime, Span, Ticks, Timescale};
use crate::transcode::ladder::{AudioPlan, Plan, VideoPlan};
use crate::transcode::template::KeyframePolicy;

/// How long before the first segment a source's sample may lie and still be decoded: an hour.
const LEAD_NS: i64 = 3_600_000_000_000;

/// What pictures are stamped later by than they lie after the first slot: a thousand hours, by which GStreamer's encoders
/// that reorder pictures would shift them. Those that do so themselves take the time for a later one until the first
/// picture has come out, and heed no request for a key frame any more if one has come until then.
const SHIFT_NS: i128 = 3_600_000_000_000_000;

/// How many access units of sound are encoded before the first that is wanted when another worker's go on:
/// an encoder's first ones know nothing of what came before them.
const SOUND_LEAD_UNITS: i64 = 4;

/// Where running time begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// The start of what this worker makes, in nanoseconds since the epoch.
    start_ns: i64,
    /// The same in 90 kHz ticks.
    start_90k: Ticks,
}

impl Origin {
    pub(super) fn new(plan: &Plan, first: SegmentNumber) -> Self {
        Self {
            start_ns: plan.grid.start_of(first, Timescale::NANOS).get(),
            start_90k: plan.grid.start_of(first, Timescale::VIDEO_90K),
        }
    }

    /// The origin of a worker whose renditions go on at `resume`, in the plan's order: a slot of every rung
    /// at or before all of them. `None` if there is nothing to go on from.
    pub(super) fn resuming(plan: &Plan, resume: &[Ticks]) -> Option<Self> {
        let pictures = plan.video.as_ref().map_or(0, |video| video.rungs.len());
        let (rate, frame) = plan
            .audio
            .as_ref()
            .map_or((1, 0), |audio| (audio.sample_rate, audio.frame_samples));
        let scale = Timescale::new(rate)?;
        let lead = SOUND_LEAD_UNITS * i64::from(frame);
        let sound = |at: &Ticks| Ticks::new(at.get().saturating_sub(lead)).at(scale);
        let (pictures, sounds) = resume.split_at_checked(pictures)?;
        let pictures = pictures.iter().map(|at| at.at(Timescale::VIDEO_90K));
        let earliest = pictures
            .chain(sounds.iter().map(sound))
            .map(|at| at.rescale_floor(Timescale::VIDEO_90K))
            .min()?;
        let start_90k = plan
            .video
            .as_ref()
            .map_or(earliest, |video| common_slot(video, earliest));
        Some(Self::at(start_90k))
    }

    /// The origin of a worker whose pictures follow the source's, which begins at `first` or later: a slot of
    /// every rung.
    pub(super) fn following(video: &VideoPlan, (grid, first): (Grid, SegmentNumber)) -> Self {
        Self::at(common_slot(
            video,
            grid.start_of(first, Timescale::VIDEO_90K),
        ))
    }

    fn at(start_90k: Ticks) -> Self {
        let start_ns = start_90k.at(Timescale::VIDEO_90K);
        Self {
            start_ns: start_ns.rescale_floor(Timescale::NANOS).get(),
            start_90k,
        }
    }

    /// The running time on the decode side; `None` more than [`LEAD_NS`] before the first segment.
    pub(super) fn to_running(self, time: MediaTime) -> Option<gst::ClockTime> {
        let ns = time.rescale_nearest(Timescale::NANOS).get();
        let ns = ns.checked_sub(self.start_ns)?.checked_add(LEAD_NS)?;
        u64::try_from(ns).ok().map(gst::ClockTime::from_nseconds)
    }

    /// The position of a running time of the decode side.
    pub(super) fn of_running(self, time: gst::ClockTime, scale: Timescale) -> Ticks {
        let ns = i64::try_from(time.nseconds()).unwrap_or(i64::MAX);
        let ns = ns.saturating_sub(LEAD_NS).saturating_add(self.start_ns);
        Ticks::new(ns).at(Timescale::NANOS).rescale_nearest(scale)
    }

    /// The first slot at or after the start.
    pub(super) fn first_slot(self, rate: FrameRate) -> i64 {
        rate.slot_at_or_after(self.start_90k.at(Timescale::VIDEO_90K))
    }
}

/// How many slots lie from one that rungs of every divisor have to the next such.
pub(super) fn common_step(video: &VideoPlan) -> i64 {
    video.rungs.iter().fold(1_i64, |step, rung| {
        let divisor = i64::from(rung.divisor.max(1));
        if step % divisor == 0 {
            step
        } else {
            step.saturating_mul(divisor)
        }
    })
}

/// The last slot at or before `at` that rungs of every divisor have.
fn common_slot(video: &VideoPlan, at: Ticks) -> Ticks {
    let step = common_step(video);
    let slot = video.rate.slot_at_or_after(at.at(Timescale::VIDEO_90K)) - 1;
    let slot = slot.div_euclid(step).saturating_mul(step);
    video.rate.slot_start(slot, Timescale::VIDEO_90K)
}

/// Places of the access units of one rendition of pictures.
#[derive(Clone, Copy, Debug)]
pub(super) struct VideoClock {
    rate: FrameRate,
    /// The slot at the beginning of running time.
    first: i64,
    /// The slot of the first access unit.
    begin: i64,
}

impl VideoClock {
    /// A clock of every `divisor`-th slot of `rate`, beginning at the first of `origin`. `None` if
    /// the rate cannot be divided.
    pub(super) fn new(rate: FrameRate, divisor: u32, origin: Origin) -> Option<Self> {
        let divided = rate.divided(divisor)?;
        let first = origin.first_slot(divided);
        Some(Self {
            rate: divided,
            first,
            begin: first,
        })
    }

    /// The same clock, the first access unit where a rendition goes on at `resume`. An encoder that counts
    /// its way to the next key frame can only begin with a segment.
    pub(super) fn resuming(self, resume: Ticks, keyframes: KeyframePolicy, grid: Grid) -> Self {
        let scale = Timescale::VIDEO_90K;
        let slot = self.rate.nearest_slot(resume.at(scale));
        let first_of = |n| self.first_of(grid, n);
        let number = grid.segment_at(self.position(slot).at(scale));
        let begin = match keyframes {
            KeyframePolicy::Counted if first_of(number) != slot => first_of(number.next()),
            _ => slot,
        };
        Self {
            begin: begin.max(self.first),
            ..self
        }
    }

    fn first_of(self, grid: Grid, number: SegmentNumber) -> i64 {
        let scale = Timescale::VIDEO_90K;
        let start = grid.start_of(number, scale);
        self.rate.slot_at_or_after(start.at(scale))
    }

    /// The slot with which the segment of the first access unit begins.
    pub(super) fn begin_of_segment(self, grid: Grid) -> i64 {
        let at = self.position(self.begin).at(Timescale::VIDEO_90K);
        self.first_of(grid, grid.segment_at(at))
    }

    /// The slot of the first access unit.
    pub(super) const fn begin(self) -> i64 {
        self.begin
    }

    pub(super) const fn rate(self) -> FrameRate {
        self.rate
    }

    /// Running time of this clock's slot `slot` on the encode side.
    pub(super) fn running(self, slot: i64) -> gst::ClockTime {
        let n = i128::from(slot - self.first) * i128::from(self.rate.den()) * 1_000_000_000;
        let ns = n / i128::from(self.rate.num()) + SHIFT_NS;
        gst::ClockTime::from_nseconds(u64::try_from(ns).unwrap_or(0))
    }

    /// The slot whose running time is `time`.
    pub(super) fn slot_of(self, time: gst::ClockTime) -> i64 {
        let ns = i128::from(time.nseconds()) - SHIFT_NS;
        let n = 2 * ns * i128::from(self.rate.num());
        let d = i128::from(self.rate.den()) * 1_000_000_000;
        let slots = (n + d).div_euclid(2 * d);
        self.first
            .saturating_add(i64::try_from(slots).unwrap_or(i64::MAX))
    }

    pub(super) fn position(self, slot: i64) -> Ticks {
        self.rate.slot_start(slot, Timescale::VIDEO_90K)
    }

    pub(super) fn duration(self, slot: i64) -> Span {
        let (begin, end) = (self.position(slot), self.position(slot.saturating_add(1)));
        end.since(begin).unwrap_or(Span::ZERO)
    }
}

/// Places of the access units of every rendition of sound.
#[derive(Clone, Copy, Debug)]
pub(super) struct AudioClock {
    scale: Timescale,
    frame: i64,
    /// Where the first published access unit begins: on the grid of access units since the epoch.
    begin: i64,
    /// How many samples before `begin` the encoder is fed from, so that its delay ends on that grid.
    lead: i64,
    /// How many access units come out before the first published one.
    priming: i64,
}

impl AudioClock {
    /// `None` if the plan's sample rate is zero.
    pub(super) fn new(plan: &AudioPlan, origin: Origin) -> Option<Self> {
        let scale = Timescale::new(plan.sample_rate)?;
        let start = origin.start_90k.at(Timescale::VIDEO_90K);
        let start = start.rescale_ceil(scale).get();
        let (frame, delay) = (
            i64::from(plan.frame_samples.max(1)),
            i64::from(plan.delay_samples),
        );
        let begin = start.div_euclid(frame) * frame;
        let begin = if begin < start { begin + frame } else { begin };
        let lead = (frame - delay % frame) % frame;
        Some(Self {
            scale,
            frame,
            begin,
            lead,
            priming: (lead + delay) / frame,
        })
    }

    pub(super) const fn scale(self) -> Timescale {
        self.scale
    }

    /// The position of the first sample to be fed.
    pub(super) const fn feed_from(self) -> Ticks {
        Ticks::new(self.begin - self.lead)
    }

    /// Where the `count`-th access unit lies; `None` for those that only prime the decoder.
    pub(super) const fn position(self, count: i64) -> Option<Ticks> {
        if count < self.priming {
            return None;
        }
        Some(Ticks::new(self.begin + (count - self.priming) * self.frame))
    }

    pub(super) fn duration(self) -> Span {
        Span::new(u64::try_from(self.frame).unwrap_or(0))
    }

    /// Running time of the `fed`-th sample fed.
    pub(super) fn running(self, fed: u64) -> gst::ClockTime {
        let ns = u128::from(fed) * 1_000_000_000 / u128::from(self.scale.get());
        gst::ClockTime::from_nseconds(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}
