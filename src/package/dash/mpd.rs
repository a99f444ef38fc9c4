//! Renders the MPD.
//!
//! Enters: a [`Snapshot`]
//! Leaves: the MPD as text. Where segments follow from the grid alone, it changes only with the announced
//! rates, after a hole and at the end; where the source cuts, with every segment
//! Never:  a list of segments that the grid gives
//! Time:   milliseconds; `@presentationTimeOffset` puts media time, which counts from the Unix epoch,
//! onto the time line that begins at `@availabilityStartTime`
//! Spec:   [DASH] §5.3

use std::fmt::{self, Write};
use std::mem::{Discriminant, discriminant};

use super::laid::{self, Laid};
use super::text::{Escaped, Micros, Period, Rate, Seconds, WholeSecond};
use super::timeline::{Layout, Stretch};
use crate::media::{CodecConfig, CodecString, MediaKind, Rendition};
use crate::package::period;
use crate::package::snapshot::Snapshot;
use crate::time::WallTime;

/// `@suggestedPresentationDelay` in segments, and how many have to be there before an MPD is: a player
/// begins this far behind the present and must not ask for what came before the broadcast.
const DELAY_SEGMENTS: u64 = 3;
/// What `@profiles` says more of an MPD with low latency.
const LOW_LATENCY_PROFILE: &str = ",http://www.dashif.org/guidelines/low-latency-live-v5";
/// How many parts a player keeps in hand against the network's moods, as [HLS] PART-HOLD-BACK asks.
const LATENCY_PARTS: u64 = 3;
/// How far behind its target a player may fall before it leaves media out, in milliseconds. dash.js 5.2.1 goes on
/// doing so where a broadcast has ended, as the clock runs on, and never says that it is over.
const CATCH_UP_MS: u64 = 10_000;
/// By how much a player may slow down and speed up without being heard.
const CATCH_UP_RATES: (&str, &str) = ("0.96", "1.04");
/// The scheme by which players set their clock: an ISO 8601 date as the body of an answer.
const UTC_SCHEME: &str = "urn:mpeg:dash:utc:http-iso:2014";
/// The address of the clock, on the host that served the MPD.
const UTC_ADDRESS: &str = "/time";

/// The MPD: dynamic while the broadcast lives, static with the listed segments after its end.
///
/// `None` until enough is listed for a player to begin [`DELAY_SEGMENTS`] behind the present; a
/// broadcast that ended earlier is described whatever its length, and one that goes on with another period after
/// a crash from the first segment of that.
#[must_use]
pub fn render(snapshot: &Snapshot) -> Option<String> {
    render_with(snapshot, snapshot.presentation().config.low_latency.is_on())
}

/// [`render`] without low latency whatever the configuration: for where a segment in the making cannot be
/// had, such as a folder that any server may serve.
#[must_use]
pub fn render_plain(snapshot: &Snapshot) -> Option<String> {
    render_with(snapshot, false)
}

fn render_with(snapshot: &Snapshot, low_latency: bool) -> Option<String> {
    let line = if snapshot.is_ended() {
        Line::recorded(snapshot)
    } else {
        Line::live(snapshot)
    };
    let low_latency = low_latency && line.dynamic;
    let mpd = Mpd::new(snapshot, line, low_latency);
    (mpd.count() >= mpd.least())
        .then(|| mpd.to_text())
        .flatten()
}

/// The dynamic MPD as it is while the broadcast lives, but with its end in it and no more updates: what
/// players that were watching need to play to the end, on the time line that they are on. Publish it for
/// `@timeShiftBufferDepth` before [`render`]'s: dash.js 5.2 jumps to the end at once when the static MPD,
/// whose line begins elsewhere, takes the place of the dynamic one.
///
/// `None` while the broadcast lives.
#[must_use]
pub fn render_ending(snapshot: &Snapshot) -> Option<String> {
    if !snapshot.is_ended() || snapshot.listed().is_empty() {
        return None;
    }
    let low_latency = snapshot.presentation().config.low_latency.is_on();
    let mpd = Mpd::new(snapshot, Line::live(snapshot), low_latency);
    (mpd.count() > 0).then(|| mpd.to_text()).flatten()
}

/// Where segment numbers lie on the MPD's time line.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// The segment at the time line's zero: `@startNumber`.
    first: u64,
    /// Whether `@availabilityStartTime` ties the line to the wall clock.
    dynamic: bool,
}

impl Line {
    /// The line of a live broadcast begins with [`laid::line_first`].
    ///
    /// This is the time line of an `@availabilityStartTime` at the epoch with `@startNumber` 0, to the
    /// letter. But ffmpeg's demuxer takes an `@availabilityStartTime` of zero for an absent one and reads
    /// only whole seconds of it, and its live window knows no Period@start.
    fn live(snapshot: &Snapshot) -> Self {
        let step = u64::from(snapshot.presentation().config.segment_ms.get());
        Self {
            first: laid::line_first(step),
            dynamic: true,
        }
    }

    /// The line of a broadcast that is over begins with its first listed segment, or with the last period: of
    /// those before, the init segments are not described.
    fn recorded(snapshot: &Snapshot) -> Self {
        let laid = laid::recorded(snapshot);
        let first = laid.first().map(|laid| laid.first);
        Self {
            first: first.unwrap_or_else(|| snapshot.listed().start),
            dynamic: false,
        }
    }
}

/// Where the segments of a Period lie.
enum Place<'a> {
    Grid(&'a Laid<'a>),
    /// Where the source cuts.
    Cut(&'a Stretch<'a>),
}

impl Place<'_> {
    /// Whether `rendition` is named there.
    fn has(&self, rendition: usize) -> bool {
        match self {
            Self::Grid(laid) => !laid.lacking.contains(&rendition),
            Self::Cut(stretch) => stretch.has(rendition),
        }
    }

    const fn cut(&self) -> Option<&Stretch<'_>> {
        match self {
            Self::Grid(_) => None,
            Self::Cut(stretch) => Some(stretch),
        }
    }
}

struct Mpd<'a> {
    snapshot: &'a Snapshot,
    line: Line,
    low_latency: bool,
    /// Where the source cuts: the periods.
    stretches: Vec<Stretch<'a>>,
}

impl<'a> Mpd<'a> {
    fn new(snapshot: &'a Snapshot, line: Line, low_latency: bool) -> Self {
        let on_grid = snapshot.presentation().cuts.are_on_grid();
        let mut mpd = Self {
            snapshot,
            line,
            // A segment in the making is not listed yet, so nobody can ask for it.
            low_latency: low_latency && on_grid,
            stretches: Vec::new(),
        };
        if !on_grid {
            let zero_us = mpd.first_ms().saturating_mul(1_000);
            let layout = if line.dynamic {
                Layout::Live { zero_us }
            } else {
                Layout::Recorded
            };
            mpd.stretches = Stretch::all(snapshot, layout);
        }
        mpd
    }

    /// How many of the listed segments it describes.
    fn count(&self) -> u64 {
        if self.snapshot.presentation().cuts.are_on_grid() {
            let listed = self.snapshot.listed();
            let described = |begins: u64| listed.end.saturating_sub(begins.max(listed.start));
            return self.first().map_or(0, described);
        }
        self.stretches.iter().map(Stretch::count).sum()
    }

    /// How many there have to be: a player begins [`DELAY_SEGMENTS`] behind the present, but not before the first
    /// period, where that says where it begins.
    fn least(&self) -> u64 {
        let says_begin = |first| first != self.line.first;
        let on_grid = self.snapshot.presentation().cuts.are_on_grid();
        if self.snapshot.is_ended() || (on_grid && self.first().is_some_and(says_begin)) {
            1
        } else {
            DELAY_SEGMENTS
        }
    }

    /// The length of a segment, or the most of it, in milliseconds.
    fn step_ms(&self) -> u64 {
        let presentation = self.snapshot.presentation();
        let step = presentation.config.segment_ms.get();
        presentation.cuts.longest_ms(step).into()
    }

    /// The segment that the first Period of the grid counts from.
    fn first(&self) -> Option<u64> {
        self.laid().first().map(|laid| laid.first)
    }

    /// The Periods of the grid.
    fn laid(&self) -> Vec<Laid<'_>> {
        if self.line.dynamic {
            return laid::live(self.snapshot, self.line.first);
        }
        laid::recorded(self.snapshot)
    }

    /// How far back players may go, in milliseconds: not over what nobody has. dash.js 5.2 that was refused a segment
    /// for a second and a half asks for no other, until its place is farther back than that; then it goes to live.
    fn depth_ms(&self) -> u64 {
        let config = &self.snapshot.presentation().config;
        let window = self.step_ms() * u64::from(config.window_segments);
        let least = if self.low_latency { 1 } else { DELAY_SEGMENTS };
        let behind = self.snapshot.behind_hole();
        let behind = behind.filter(|(segments, _)| *segments >= least);
        behind.map_or(window, |(_, ms)| ms.min(window))
    }

    fn in_ms(&self, segment: u64) -> u64 {
        let step = u64::from(self.snapshot.presentation().config.segment_ms.get());
        segment.saturating_mul(step)
    }

    fn to_text(&self) -> Option<String> {
        let mut out = String::with_capacity(2_048);
        self.write(&mut out).ok()?;
        Some(out)
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        out.write_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n")?;
        self.write_head(out)?;
        if self.low_latency {
            self.write_service(out)?;
        }
        if self.snapshot.presentation().cuts.are_on_grid() {
            for laid in self.laid() {
                let (id, start) = (laid.id, Period(laid.at_ms));
                write!(out, "  <Period id=\"{id}\" start=\"{start}\"")?;
                if let Some(length) = laid.length_ms {
                    write!(out, " duration=\"{}\"", Period(length))?;
                }
                out.write_str(">\n")?;
                self.write_sets(out, laid.period, &Place::Grid(&laid))?;
            }
        }
        for stretch in &self.stretches {
            let (id, start) = (stretch.period.id, Micros(stretch.at_us));
            write!(out, "  <Period id=\"{id}\" start=\"{start}\"")?;
            if let Some(length) = stretch.length_us {
                write!(out, " duration=\"{}\"", Micros(length))?;
            }
            out.write_str(">\n")?;
            self.write_sets(out, stretch.period, &Place::Cut(stretch))?;
        }
        if self.line.dynamic {
            writeln!(
                out,
                "  <UTCTiming schemeIdUri=\"{UTC_SCHEME}\" value=\"{UTC_ADDRESS}\"/>"
            )?;
        }
        out.write_str("</MPD>\n")
    }

    fn write_head(&self, out: &mut String) -> fmt::Result {
        let config = &self.snapshot.presentation().config;
        let step = self.step_ms();
        let step_text = Period(step);
        let kind = if self.line.dynamic {
            "dynamic"
        } else {
            "static"
        };
        let profile = if self.low_latency {
            LOW_LATENCY_PROFILE
        } else {
            ""
        };
        write!(
            out,
            "<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" \
             profiles=\"urn:mpeg:dash:profile:isoff-live:2011,\
             urn:mpeg:dash:profile:cmaf:2019{profile}\" type=\"{kind}\""
        )?;
        if self.line.dynamic {
            let start = WallTime::from_micros(self.first_ms().saturating_mul(1_000));
            let depth = Period(self.depth_ms());
            write!(out, " availabilityStartTime=\"{}\"", WholeSecond(start))?;
            write!(out, " publishTime=\"{}\"", self.snapshot.mpd_changed_at())?;
            if !self.snapshot.is_ended() {
                let update = Period(config.segment_ms.get().into());
                write!(out, " minimumUpdatePeriod=\"{update}\"")?;
            }
            write!(out, " timeShiftBufferDepth=\"{depth}\"")?;
            let delay = Period(step * DELAY_SEGMENTS);
            write!(out, " suggestedPresentationDelay=\"{delay}\"")?;
        }
        if self.snapshot.is_ended() {
            write!(out, " mediaPresentationDuration=\"{}\"", self.length())?;
        }
        writeln!(
            out,
            " minBufferTime=\"{step_text}\" maxSegmentDuration=\"PT{}S\">",
            self.snapshot.presentation().target_duration_s
        )
    }

    /// How far behind live a player is to be, and how it gets there.
    fn write_service(&self, out: &mut String) -> fmt::Result {
        let floor = self.snapshot.presentation().config.low_latency.floor_ms();
        let target = floor + LATENCY_PARTS * self.part_ms();
        writeln!(
            out,
            "  <ServiceDescription id=\"0\">\n    \
             <Latency referenceId=\"1\" min=\"{}\" target=\"{target}\" max=\"{}\"/>\n    \
             <PlaybackRate min=\"{}\" max=\"{}\"/>\n  </ServiceDescription>",
            target / 2,
            target + CATCH_UP_MS,
            CATCH_UP_RATES.0,
            CATCH_UP_RATES.1,
        )
    }

    /// The longest part, in milliseconds.
    fn part_ms(&self) -> u64 {
        let target = self.snapshot.presentation().part_target;
        target.as_micros().div_ceil(1_000)
    }

    /// Where in a set the wall clock is tied to its media, and how far apart its parts are.
    fn write_references(&self, out: &mut String, id: usize, laid: &Laid<'_>) -> fmt::Result {
        let zero_ms = i64::try_from(self.in_ms(laid.first)).unwrap_or(i64::MAX);
        let at = WallTime::from_micros(zero_ms.saturating_mul(1_000));
        writeln!(
            out,
            "      <ProducerReferenceTime id=\"{id}\" inband=\"true\" type=\"encoder\" \
             wallClockTime=\"{}\" presentationTime=\"{}\">\n        \
             <UTCTiming schemeIdUri=\"{UTC_SCHEME}\" value=\"{UTC_ADDRESS}\"/>\n      \
             </ProducerReferenceTime>\n      \
             <Resync type=\"0\" dT=\"{}\"/>",
            WholeSecond(at),
            zero_ms,
            self.part_ms(),
        )
    }

    /// The media time of the line's zero: `@presentationTimeOffset`.
    fn first_ms(&self) -> i64 {
        let step = u64::from(self.snapshot.presentation().config.segment_ms.get());
        i64::try_from(self.line.first.saturating_mul(step)).unwrap_or(i64::MAX)
    }

    /// From the line's zero to the end of the media, no further than the grid's last segment reaches: a
    /// frame beyond it would be taken for one segment more.
    fn length(&self) -> Period {
        if let Some(last) = self.stretches.last() {
            let end_us = u64::try_from(last.end_us()).unwrap_or(0);
            return Period(end_us.div_ceil(1_000));
        }
        if !self.line.dynamic
            && let Some(length) = laid::recorded_ms(&self.laid())
        {
            return Period(length);
        }
        let start = self.in_ms(self.line.first);
        Period(laid::end_ms(self.snapshot).saturating_sub(start))
    }

    /// Writes what a period consists of, and its end.
    fn write_sets(
        &self,
        out: &mut String,
        period: &period::Period,
        place: &Place<'_>,
    ) -> fmt::Result {
        for (index, set) in switching_sets(period).iter().enumerate() {
            // There is no way to name a gap.
            let rests = |index: usize| self.line.dynamic && self.snapshot.is_resting(index);
            let there = |index: &usize| !rests(*index) && place.has(*index);
            let set: Vec<_> = set.iter().copied().filter(there).collect();
            if !set.is_empty() {
                self.write_set(out, (index + 1, &set), period, place)?;
            }
        }
        out.write_str("  </Period>\n")
    }

    fn write_set(
        &self,
        out: &mut String,
        (id, set): (usize, &[usize]),
        period: &period::Period,
        place: &Place<'_>,
    ) -> fmt::Result {
        let stretch = place.cut();
        let renditions = &period.renditions;
        let members: Vec<_> = set.iter().filter_map(|i| renditions.get(*i)).collect();
        let Some(first) = members.first() else {
            return Ok(());
        };
        let kind = match first.codec.kind() {
            MediaKind::Video => "video",
            MediaKind::Audio => "audio",
        };
        write!(
            out,
            "    <AdaptationSet id=\"{id}\" contentType=\"{kind}\" mimeType=\"{kind}/mp4\""
        )?;
        if stretch.is_none_or(|stretch| stretch.is_aligned(set)) {
            out.write_str(" segmentAlignment=\"true\"")?;
        }
        if stretch.is_none_or(|stretch| stretch.is_independent(set)) {
            out.write_str(" startWithSAP=\"1\"")?;
        }
        write_maxima(out, &members)?;
        out.write_str(">\n")?;
        if let Some((_, channels)) = first.codec.audio() {
            writeln!(
                out,
                "      <AudioChannelConfiguration \
                 schemeIdUri=\"urn:mpeg:dash:23003:3:audio_channel_configuration:2011\" \
                 value=\"{channels}\"/>"
            )?;
        }
        if self.low_latency
            && let Place::Grid(laid) = place
        {
            self.write_references(out, id, laid)?;
        }
        out.write_str("      <Role schemeIdUri=\"urn:mpeg:dash:role:2011\" value=\"main\"/>\n")?;
        if let Place::Grid(laid) = place {
            self.write_template(out, laid)?;
        }
        for (index, rendition) in set.iter().zip(&members) {
            self.write_representation(out, (*index, rendition), stretch)?;
        }
        out.write_str("    </AdaptationSet>\n")
    }

    fn write_template(&self, out: &mut String, laid: &Laid<'_>) -> fmt::Result {
        let presentation = self.snapshot.presentation();
        out.write_str("      <SegmentTemplate timescale=\"1000\"")?;
        if self.low_latency {
            // A segment can be asked for once its first part is due; the answer ends with the segment.
            let step = u64::from(presentation.config.segment_ms.get());
            let early = Seconds(step.saturating_sub(self.part_ms()));
            write!(
                out,
                " availabilityTimeOffset=\"{early}\" availabilityTimeComplete=\"false\""
            )?;
        }
        writeln!(
            out,
            " duration=\"{}\" startNumber=\"{}\" presentationTimeOffset=\"{}\" initialization=\"$RepresentationID$/init-{}.mp4\" \
             media=\"$RepresentationID$/$Number$.m4s\"/>",
            presentation.config.segment_ms,
            laid.first,
            self.in_ms(laid.first),
            laid.period.id,
        )
    }

    fn write_representation(
        &self,
        out: &mut String,
        (index, rendition): (usize, &Rendition),
        stretch: Option<&Stretch<'_>>,
    ) -> fmt::Result {
        let Some(rates) = self.snapshot.rates(index) else {
            return Ok(());
        };
        write!(
            out,
            "      <Representation id=\"{}\" bandwidth=\"{}\" codecs=\"{}\"",
            Escaped(rendition.name.as_str()),
            rates.peak_bps,
            Escaped(CodecString::of(&rendition.codec).as_str()),
        )?;
        if let Some(size) = rendition.codec.dimensions() {
            write!(out, " width=\"{}\" height=\"{}\"", size.width, size.height)?;
            let sar = rendition.codec.pixel_aspect();
            write!(out, " sar=\"{}:{}\"", sar.width, sar.height)?;
        }
        if let Some(rate) = rendition.frame_rate {
            write!(out, " frameRate=\"{}\"", Rate(rate))?;
        }
        if let Some((sample_rate, _)) = rendition.codec.audio() {
            write!(out, " audioSamplingRate=\"{sample_rate}\"")?;
        }
        let Some(stretch) = stretch else {
            return out.write_str("/>\n");
        };
        out.write_str(">\n")?;
        stretch.write_template(out, index)?;
        out.write_str("      </Representation>\n")
    }
}

/// Renditions that a player may switch between: those of one codec, by index.
fn switching_sets(period: &period::Period) -> Vec<Vec<usize>> {
    let mut sets: Vec<(Discriminant<CodecConfig>, Vec<usize>)> = Vec::new();
    for (index, rendition) in period.renditions.iter().enumerate() {
        let codec = discriminant(&rendition.codec);
        match sets.iter_mut().find(|(found, _)| *found == codec) {
            Some((_, set)) => set.push(index),
            None => sets.push((codec, vec![index])),
        }
    }
    sets.into_iter().map(|(_, set)| set).collect()
}

/// The largest size and rate among pictures that are switched between.
fn write_maxima(out: &mut String, members: &[&Rendition]) -> fmt::Result {
    let sizes = || members.iter().filter_map(|m| m.codec.dimensions());
    if let (Some(width), Some(height)) = (
        sizes().map(|size| size.width).max(),
        sizes().map(|size| size.height).max(),
    ) {
        write!(out, " maxWidth=\"{width}\" maxHeight=\"{height}\"")?;
    }
    let rates = members.iter().filter_map(|member| member.frame_rate);
    if let Some(rate) = rates.max_by_key(|rate| rate.millihertz()) {
        write!(out, " maxFrameRate=\"{}\"", Rate(rate))?;
    }
    Ok(())
}
