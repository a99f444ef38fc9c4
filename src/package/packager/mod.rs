//! The façade: samples of all renditions in, everything that is published out.
//!
//! Enters: samples, each rendition's in decode order, `dts + duration` the next `dts` exactly; pictures
//! with a key frame at each start of the grid's segments, or word of where the source is to be cut
//! Leaves: [`Output`]s in the order in which they may be stored: what a manifest names precedes it
//! Never:  I/O, clocks; joins or copies media
//! Time:   `Ticks` in each rendition's timescale, from the Unix epoch
//! Spec:   [CMAF] §7.3, [HLS] §6.2.1

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use self::hole::add_missing_parts;
pub use self::output::Output;
pub use self::source::MAX_GAPS;
use self::track::Track;
use super::cmaf::{self, Fragment};
use super::config::{Config, LowLatency};
use super::cut::Cuts;
use super::error::Error;
use super::past::{Past, absent};
use super::period::Period;
use super::snapshot::{Part, Presentation, Snapshot};
use super::window::Window;
use crate::id::{PartIndex, PeriodId, SegmentNumber};
use crate::media::{FrameLength, MediaKind, PartTarget, Payload, Rendition, Sample};
use crate::time::{Span, Ticks};

/// The most renditions of one broadcast: a ladder has ten rungs at most, in three codecs.
pub const MAX_RENDITIONS: usize = 32;
/// How many segments one rendition may be ahead of the slowest before it is refused: what is ahead is
/// held in memory and listed nowhere.
pub const MAX_LEAD_SEGMENTS: u64 = 8;
/// The most bytes in one part: a second of 500 Mbit/s.
pub const MAX_PART_BYTES: u64 = 64 << 20;

/// Packages one broadcast, all renditions.
///
/// Cut by the grid, it is one period, and samples alone say where they belong. Cut by its source
/// ([`Cuts::Source`]), [`Self::cut`] precedes the first sample of every segment, and [`Self::change`] begins
/// another period.
///
/// A rendition may leave out a stretch, which nobody can fill any more: of an encoder that died. Segments that
/// are missing as a whole are listed as gaps.
///
/// Drain [`Self::poll_output`] to `None` after every [`Self::push`]. A refused sample leaves everything
/// as it was.
///
/// ```
/// use headwater::codec::aac;
/// use headwater::id::PeriodId;
/// use headwater::media::{CodecConfig, Rendition, Sample};
/// use headwater::package::{Config, Output, Packager, hls};
/// use headwater::time::{Span, Ticks, Timescale};
///
/// let rendition = Rendition {
///     name: "a128".parse()?,
///     timescale: Timescale::new(48_000).ok_or("scale")?,
///     codec: CodecConfig::Aac(aac::Config {
///         asc: vec![0x11, 0x90].into(),
///         object_type: 2,
///         sample_rate: 48_000,
///         channels: 2,
///         frame_samples: 1_024,
///     }),
///     frame_rate: None,
///     target_bps: 128_000,
/// };
/// let mut packager = Packager::new(&Config::default(), PeriodId::new(32), vec![rendition])?;
/// for frame in 3_000..3_100 {
///     let at = Ticks::new(frame * 1_024);
///     packager.push(
///         0,
///         Sample {
///             dts: at,
///             pts: at,
///             duration: Span::new(1_024),
///             keyframe: true,
///             data: vec![0; 300].into(),
///         },
///     )?;
/// }
/// let mut playlist = None;
/// while let Some(output) = packager.poll_output() {
///     if let Output::WindowChanged(snapshot) = output {
///         playlist = hls::media::render(&snapshot, 0);
///     }
/// }
/// assert!(playlist.is_some_and(|text| text.contains("32.m4s")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Packager {
    tracks: Vec<Track>,
    window: Window,
    outputs: VecDeque<Output>,
    parts_per_segment: u64,
}

impl Packager {
    /// A packager whose first segment is number `period` on every rendition.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], [`Error::RenditionCount`], [`Error::DuplicateName`], [`Error::Unwritable`],
    /// [`Error::NoPartTarget`].
    pub fn new(
        config: &Config,
        period: PeriodId,
        renditions: Vec<Rendition>,
    ) -> Result<Self, Error> {
        let first = SegmentNumber::new(period.get());
        Self::after(config, first, renditions, None)
    }

    /// [`Self::after`] of a broadcast that `cuts` cut. Where the source cuts, what is after `past` is another
    /// period, always; and low latency is off, whatever `config` says, if no part length suits every
    /// rendition, or the rate of a picture's frames is not known: [`Self::presentation`] tells.
    ///
    /// # Errors
    ///
    /// As for [`Self::new`].
    pub fn cut_by(
        cuts: Cuts,
        config: &Config,
        first: SegmentNumber,
        renditions: Vec<Rendition>,
        past: Option<&Past>,
    ) -> Result<Self, Error> {
        if let Some(problem) = config.problems().first() {
            return Err(Error::Config(*problem));
        }
        check_names(&renditions)?;
        let mut presentation = present(cuts, config, &renditions)?;
        let mut period = Period::new(first, renditions)?;
        let window = u64::from(config.window_segments);
        let numbers = past.and_then(|past| past.numbers(&period.renditions, first, window));
        let past = past.zip(numbers);
        if let Some((past, _)) = &past {
            if cuts.are_on_grid() && past.is_same(&period.renditions, &period.init_segments) {
                period.id = past.period();
                period.discontinuity = past.has_discontinuity();
            } else {
                period.discontinuity = true;
            }
            if !cuts.are_on_grid() {
                let before = past.target_duration_s().unwrap_or(0);
                presentation.target_duration_s = presentation.target_duration_s.max(before);
            }
        }
        let track = |rendition: &Rendition| Track::new(&presentation, rendition, first);
        let mut packager = Self {
            tracks: period.renditions.iter().map(track).collect(),
            outputs: VecDeque::new(),
            parts_per_segment: parts_per_segment(&presentation),
            window: Window::new(presentation, period),
        };
        packager.put_init_segments();
        if let Some((past, numbers)) = past {
            packager.list_past(past, numbers);
        }
        Ok(packager)
    }

    /// A packager whose first segment is number `first` on every rendition, and which lists before it what
    /// `past` left of the same broadcast, as far as the window reaches, and as gaps what is missing between
    /// them. The period goes on if the init segments are the same; else a new one begins.
    ///
    /// # Errors
    ///
    /// As for [`Self::new`].
    pub fn after(
        config: &Config,
        first: SegmentNumber,
        renditions: Vec<Rendition>,
        past: Option<&Past>,
    ) -> Result<Self, Error> {
        Self::cut_by(Cuts::Grid, config, first, renditions, past)
    }

    fn put_init_segments(&mut self) {
        let period = self.window.period();
        let both = period.init_segments.iter().enumerate();
        let init = |(rendition, payload): (usize, &Payload)| Output::InitSegment {
            rendition,
            period: period.id,
            payload: payload.clone(),
        };
        self.outputs.extend(both.map(init));
    }

    /// Lists the segments `numbers` of `past` and publishes that at once: who waits for this broadcast to come
    /// back learns that it has.
    fn list_past(&mut self, past: &Past, numbers: Range<u64>) {
        let presentation = self.window.presentation();
        let period = self.window.period();
        let both = period.renditions.iter().zip(&self.tracks);
        let segments = both.map(|(rendition, track)| {
            let of = (rendition, period.id);
            let mut segments = if presentation.cuts.are_on_grid() {
                past.segments(of, &track.cutter, numbers.clone())
            } else {
                past.segments_as_listed(of, &track.cutter, numbers.clone())
            };
            add_missing_parts(presentation, &mut segments);
            segments
        });
        let segments = segments.collect();
        let sequence = past.discontinuity_sequence(numbers.start);
        self.window.go_on_from(segments, sequence);
        self.publish();
    }

    /// Takes the next sample of a rendition.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownRendition`], [`Error::FirstSegment`], [`Error::NotContiguous`],
    /// [`Error::NoKeyframe`], [`Error::Timing`], [`Error::PartTooLarge`], [`Error::Stalled`]; where the source
    /// cuts, [`Error::NotCut`] and [`Error::SegmentTooLong`], but neither the first segment's number nor key
    /// frames are asked for. The sample is then refused and the packager unchanged.
    pub fn push(&mut self, rendition: usize, sample: Sample) -> Result<(), Error> {
        if self.is_on_grid() {
            self.push_on_grid(rendition, sample)
        } else {
            self.push_as_cut(rendition, sample)
        }
    }

    fn push_on_grid(&mut self, rendition: usize, sample: Sample) -> Result<(), Error> {
        let number = self.admit(rendition, &sample)?;
        let lacks = self.pass_over(rendition, sample.dts, number)?;
        let period = self.window.period();
        let (period, begins) = (period.id, period.breaks_at(number));
        let Some(track) = self.tracks.get_mut(rendition) else {
            return Err(Error::UnknownRendition { index: rendition });
        };
        let sample = track.reach_back(sample, lacks);
        let end = sample.dts.checked_add(sample.duration);
        let end = end.ok_or_else(|| track.bad_timing(sample.dts))?;
        if track
            .cutter
            .closes_before(track.pending_length, sample.duration)
        {
            // Not full, or it would be published by now: its encoder left pictures out.
            self.end_part(rendition)?;
        }
        let Some(track) = self.tracks.get_mut(rendition) else {
            return Err(Error::UnknownRendition { index: rendition });
        };
        track.take((number, period, begins), sample, end);
        if track.cutter.segment_of(end) != number {
            self.close_part(rendition)?;
            self.close_segment(rendition, None);
        } else if track.cutter.is_full(track.pending_length) {
            self.end_part(rendition)?;
        }
        Ok(())
    }

    /// The next thing to store or publish, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Says that what is pushed from now on is what was in the making, and then comes the end: no part is hinted
    /// any more.
    pub fn close_soon(&mut self) {
        self.window.close_soon();
    }

    /// Ends the broadcast: closes what is open on every rendition and returns all that was not polled
    /// yet, the last of it a snapshot that says so. With low latency the renditions end together: less than a
    /// part of one is left out if it lies behind the end of another.
    ///
    /// # Errors
    ///
    /// [`Error::PartTooLarge`].
    pub fn finish(mut self) -> Result<Vec<Output>, Error> {
        self.end_together();
        if self.is_on_grid() {
            for rendition in 0..self.tracks.len() {
                self.close_part(rendition)?;
                self.close_segment(rendition, None);
            }
        } else {
            self.finish_as_cut()?;
        }
        self.window.end();
        self.publish();
        Ok(self.outputs.into())
    }

    /// What never changes in this packager's life.
    #[must_use]
    pub fn presentation(&self) -> &Presentation {
        self.window.presentation()
    }

    /// What is published now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::new(self.window.snapshot())
    }

    /// The segment that `sample` goes into, if it is acceptable.
    fn admit(&self, rendition: usize, sample: &Sample) -> Result<SegmentNumber, Error> {
        let track = self.tracks.get(rendition);
        let track = track.ok_or(Error::UnknownRendition { index: rendition })?;
        track.check_timing(sample)?;
        let number = track.cutter.segment_of(sample.dts);
        let expected = self.window.period().first.get();
        if track.next_dts.is_none() && number.get() != expected {
            return Err(Error::FirstSegment {
                name: track.name.clone(),
                expected,
                found: number.get(),
            });
        }
        let open = track.segment.as_ref().map(|segment| segment.number);
        if open != Some(number) && track.kind == MediaKind::Video && !sample.keyframe {
            return Err(Error::NoKeyframe {
                name: track.name.clone(),
                segment: number.get(),
            });
        }
        if track.pending_bytes.saturating_add(sample.data.len() as u64) > MAX_PART_BYTES {
            return Err(Error::PartTooLarge {
                name: track.name.clone(),
            });
        }
        self.check_lead(track, number)?;
        Ok(number)
    }

    /// Whether `track` may go on in segment `number`, though others are behind.
    fn check_lead(&self, track: &Track, number: SegmentNumber) -> Result<(), Error> {
        let listed_end = self.window.listed_end();
        if number.get() <= listed_end.saturating_add(MAX_LEAD_SEGMENTS) {
            return Ok(());
        }
        let behind = self.window.lacking(listed_end);
        Err(Error::Stalled {
            name: track.name.clone(),
            behind: behind.map_or_else(|| track.name.clone(), |r| r.name.clone()),
        })
    }

    /// Writes the pending samples of a rendition as a part, if there are any.
    fn close_part(&mut self, rendition: usize) -> Result<(), Error> {
        let low_latency = self.is_low_latency();
        let Some(track) = self.tracks.get_mut(rendition) else {
            return Ok(());
        };
        let (Some(segment), Some(first)) = (&mut track.segment, track.pending.first()) else {
            return Ok(());
        };
        let index = segment.parts.len();
        let payload = cmaf::write_fragment(Fragment {
            sequence_number: sequence_number(segment.number, index, self.parts_per_segment),
            starts_segment: index == 0,
            produced: low_latency.then(|| first.dts.at(track.scale).to_wall()),
            samples: &track.pending,
        })
        .map_err(|_| Error::PartTooLarge {
            name: track.name.clone(),
        })?;
        let part = Part {
            start: first.dts,
            duration: track.pending_length,
            // A key frame in its middle, where another worker took over, is no place to begin at.
            independent: first.keyframe,
            payload,
        };
        self.outputs.push_back(Output::Part {
            rendition,
            segment: segment.number,
            part: PartIndex::new(u32::try_from(index).unwrap_or(u32::MAX)),
            payload: part.payload.clone(),
            duration: part.duration,
            independent: part.independent,
        });
        segment.parts.push(part);
        track.pending.clear();
        track.pending_length = Span::ZERO;
        track.pending_bytes = 0;
        Ok(())
    }

    /// Writes the pending samples of a rendition as a part, and publishes it in the segment under way.
    fn end_part(&mut self, rendition: usize) -> Result<(), Error> {
        self.close_part(rendition)?;
        self.publish_part(rendition);
        Ok(())
    }

    /// Ends the open segment of a rendition, if there is one, and publishes what follows from it. It lasts
    /// until `end`, or as long as its samples.
    fn close_segment(&mut self, rendition: usize, end: Option<Ticks>) {
        if let Some(list_moved) = self.end_segment(rendition, end)
            && (list_moved || self.is_low_latency())
        {
            self.publish();
        }
    }

    /// Ends the open segment of a rendition; whether the list moved, `None` if there is none.
    fn end_segment(&mut self, rendition: usize, end: Option<Ticks>) -> Option<bool> {
        let track = self.tracks.get_mut(rendition)?;
        let open = track.segment.take()?;
        let whole = open.up_to(end.unwrap_or_else(|| open.end()));
        self.outputs.push_back(Output::Segment {
            rendition,
            segment: whole.number,
            payload: whole.payload.clone(),
            duration: whole.duration,
            start: whole.begins(),
        });
        Some(self.window.add(rendition, whole))
    }

    /// Publishes the open segment with its newest part, where players are told of parts. While the segment
    /// before it is not listed, its place in the list is not its number's.
    fn publish_part(&mut self, rendition: usize) {
        if !self.is_low_latency() {
            return;
        }
        let next = self.window.next_number(rendition);
        let open = self.tracks.get(rendition).and_then(|t| t.segment.as_ref());
        if let Some(open) = open.filter(|open| open.number.get() == next) {
            self.window.set_open(rendition, open.snapshot());
            self.publish();
        }
    }

    fn publish(&mut self) {
        let mut evicted = Vec::new();
        while let Some((rendition, segment)) = self.window.evict() {
            evicted.push(Output::Evicted { rendition, segment });
        }
        let periods = self.window.forget_periods();
        evicted.extend(periods.map(|period| Output::PeriodEvicted { period }));
        let snapshot = Arc::new(self.window.share());
        self.outputs.push_back(Output::WindowChanged(snapshot));
        self.outputs.extend(evicted);
    }

    fn is_on_grid(&self) -> bool {
        self.window.presentation().cuts.are_on_grid()
    }

    fn is_low_latency(&self) -> bool {
        self.window.presentation().config.low_latency.is_on()
    }
}

fn check_names(renditions: &[Rendition]) -> Result<(), Error> {
    let found = renditions.len();
    if found == 0 || found > MAX_RENDITIONS {
        return Err(Error::RenditionCount { found });
    }
    for (index, rendition) in renditions.iter().enumerate() {
        let earlier = renditions.iter().take(index);
        if earlier
            .into_iter()
            .any(|other| other.name == rendition.name)
        {
            let name = rendition.name.clone();
            return Err(Error::DuplicateName { name });
        }
    }
    Ok(())
}

/// What does not change in the life of a broadcast that begins with `renditions`.
fn present(cuts: Cuts, config: &Config, renditions: &[Rendition]) -> Result<Presentation, Error> {
    let frames: Vec<_> = renditions.iter().map(FrameLength::of).collect();
    let part_ms = config.part_ms.get();
    let suiting = PartTarget::choose(part_ms, config.segment_ms.get(), &frames);
    let mut config = config.clone();
    let part_target = match cuts {
        Cuts::Grid => suiting.ok_or(Error::NoPartTarget { part_ms })?,
        Cuts::Source { .. } => {
            let is_known =
                |r: &Rendition| r.frame_rate.is_some() || r.codec.kind() == MediaKind::Audio;
            let suiting = suiting.filter(|_| renditions.iter().all(is_known));
            suiting.unwrap_or_else(|| {
                config.low_latency = LowLatency::Off;
                PartTarget::unannounced(part_ms)
            })
        }
    };
    Ok(Presentation {
        target_duration_s: target_duration_s(cuts, &config, &frames),
        config,
        cuts,
        part_target,
    })
}

/// EXT-X-TARGETDURATION: the longest that a segment of the grid can be, rounded to the nearest second.
/// Segments begin with the first frame of the grid, so one may be a frame longer than the grid's step.
/// Where the source cuts, the longest is rounded up: what one rendition adds to the cut has room in that.
fn target_duration_s(cuts: Cuts, config: &Config, frames: &[FrameLength]) -> u32 {
    match cuts {
        Cuts::Grid => {
            let frame = frames.iter().map(|frame| frame.millis_ceil()).max();
            let longest = u64::from(config.segment_ms.get()) + frame.unwrap_or(0);
            u32::try_from(((longest + 500) / 1_000).max(1)).unwrap_or(u32::MAX)
        }
        Cuts::Source { longest_ms } => longest_ms.div_ceil(1_000).max(1),
    }
}

/// A power of two that no segment's number of parts exceeds.
fn parts_per_segment(presentation: &Presentation) -> u64 {
    let segment_ms = presentation.config.segment_ms.get();
    let micros = u64::from(presentation.cuts.longest_ms(segment_ms)) * 1_000;
    (2 * micros / presentation.part_target.as_micros() + 4).next_power_of_two()
}

/// `sequence_number` of a part's `mfhd`. It follows from the part's place alone, so that two nodes write
/// the same bytes; it wraps once in many years.
fn sequence_number(segment: SegmentNumber, part: usize, parts_per_segment: u64) -> u32 {
    let place = segment.get().wrapping_mul(parts_per_segment);
    let place = place.wrapping_add(part as u64).wrapping_add(1);
    u32::try_from(place & u64::from(u32::MAX)).unwrap_or(0)
}

mod ending;
#[cfg(test)]
mod gap_tests;
mod hole;
mod open;
mod output;
#[cfg(test)]
mod past_tests;
#[cfg(test)]
mod recording_tests;
mod source;
#[cfg(test)]
mod source_tests;
#[cfg(test)]
mod tests;
mod track;
mod widen;
#[cfg(test)]
mod widen_tests;
