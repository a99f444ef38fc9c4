//! Renders the media playlist of one rendition.
//!
//! Enters: a [`Snapshot`] and which rendition of it
//! Leaves: the playlist as text, ordinary or low-latency as the broadcast's configuration says
//! Never:  a target that changed, a segment that is not whole
//! Time:   PROGRAM-DATE-TIME is the media's own position, so all renditions share one mapping
//! Spec:   [HLS] §4.4.3, §4.4.4, §4.4.5, §6.2.5

use std::fmt::{self, Write};
use std::time::Duration;

use crate::id::PeriodId;
use crate::package::snapshot::{Segment, Snapshot};

/// EXT-X-VERSION: 6 for EXT-X-MAP in a playlist of media.
const VERSION: u32 = 6;
/// EXT-X-VERSION of a delta update: 9 for EXT-X-SKIP.
const VERSION_DELTA: u32 = 9;
/// HOLD-BACK in target durations ([HLS] §4.4.3.8).
const HOLD_BACK_TARGETS: u32 = 3;
/// PART-HOLD-BACK in part targets ([HLS-AUTHORING] 1.32).
const PART_HOLD_BACK_TARGETS: u64 = 3;
/// CAN-SKIP-UNTIL in target durations.
const SKIP_TARGETS: u32 = 6;
/// How far from the end parts are listed, in target durations ([HLS] §6.2.2).
pub(in crate::package) const PARTS_TARGETS: u32 = 3;

/// More than what is lost when the lengths of a playlist's segments are rounded to nanoseconds and added.
const ROUNDING: Duration = Duration::from_micros(20);

/// The playlist of `rendition`; `None` if there is no such rendition or nothing to list yet.
#[must_use]
pub fn render(snapshot: &Snapshot, rendition: usize) -> Option<String> {
    let low_latency = snapshot.presentation().config.low_latency.is_on();
    Playlist::of(snapshot, rendition, low_latency)?.render(0)
}

/// The playlist of `rendition` without parts whatever the configuration: for where parts are not kept and
/// nobody can be made to wait, such as a folder that any server may serve.
#[must_use]
pub fn render_plain(snapshot: &Snapshot, rendition: usize) -> Option<String> {
    Playlist::of(snapshot, rendition, false)?.render(0)
}

/// The delta update of `rendition` that answers `_HLS_skip=YES`; the whole playlist where skipping is
/// not offered, has nothing to skip, or the broadcast is over.
#[must_use]
pub fn render_delta(snapshot: &Snapshot, rendition: usize) -> Option<String> {
    let low_latency = snapshot.presentation().config.low_latency.is_on();
    let playlist = Playlist::of(snapshot, rendition, low_latency)?;
    let skipped = playlist.skippable();
    playlist.render(skipped)
}

/// What one rendering needs at hand.
struct Playlist<'a> {
    snapshot: &'a Snapshot,
    rendition: usize,
    segments: Vec<&'a Segment>,
    low_latency: bool,
}

impl<'a> Playlist<'a> {
    fn of(snapshot: &'a Snapshot, rendition: usize, low_latency: bool) -> Option<Self> {
        snapshot.period().renditions.get(rendition)?;
        let listed = snapshot.listed();
        if listed.is_empty() {
            return None;
        }
        // Low latency does not wait for the slower renditions: parts are listed at once, and so is the
        // segment that they make up. After the end there is nothing to wait for.
        let beyond = low_latency || snapshot.is_ended();
        let is_listed = |number: u64| number >= listed.start && (beyond || number < listed.end);
        Some(Self {
            snapshot,
            rendition,
            segments: snapshot
                .segments(rendition)
                .map(AsRef::as_ref)
                .filter(|segment| is_listed(segment.number.get()))
                .collect(),
            low_latency,
        })
    }

    fn render(&self, skipped: usize) -> Option<String> {
        let mut out = String::with_capacity(256 + 128 * self.segments.len());
        self.write(&mut out, skipped).ok()?;
        Some(out)
    }

    fn write(&self, out: &mut String, skipped: usize) -> fmt::Result {
        self.write_head(out, skipped)?;
        if skipped > 0 {
            writeln!(out, "#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}")?;
        }
        let parts_from = self.parts_from();
        let mut period = self.first_period();
        for (index, segment) in self.segments.iter().enumerate().skip(skipped) {
            write_period(out, (segment, index == 0), &mut period)?;
            write_date(out, segment)?;
            if index >= parts_from {
                write_parts(out, segment)?;
            }
            if segment.gap {
                out.write_str("#EXT-X-GAP\n")?;
            }
            let length = segment.duration.seconds(segment.scale);
            writeln!(out, "#EXTINF:{length},\n{}.m4s", segment.number)?;
        }
        if self.snapshot.is_ended() {
            return writeln!(out, "#EXT-X-ENDLIST");
        }
        if self.low_latency {
            self.write_edge(out, &mut period)?;
        }
        Ok(())
    }

    fn write_head(&self, out: &mut String, skipped: usize) -> fmt::Result {
        let presentation = self.snapshot.presentation();
        let target = presentation.target_duration_s;
        let version = if skipped > 0 { VERSION_DELTA } else { VERSION };
        writeln!(out, "#EXTM3U\n#EXT-X-VERSION:{version}")?;
        writeln!(out, "#EXT-X-TARGETDURATION:{target}")?;
        if self.low_latency {
            let part = Micros(presentation.part_target.as_micros());
            let hold = Micros(part.0 * PART_HOLD_BACK_TARGETS);
            writeln!(
                out,
                "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={hold},HOLD-BACK={}.0,\
                 CAN-SKIP-UNTIL={}.0",
                target * HOLD_BACK_TARGETS,
                target * SKIP_TARGETS,
            )?;
            writeln!(out, "#EXT-X-PART-INF:PART-TARGET={part}")?;
        }
        let sequence = self.snapshot.media_sequence();
        writeln!(out, "#EXT-X-MEDIA-SEQUENCE:{sequence}")?;
        let discontinuities = self.snapshot.discontinuity_sequence();
        if discontinuities > 0 || self.segments.iter().any(|s| s.discontinuity) {
            writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{discontinuities}")?;
        }
        // A source decides by itself where its key frames are.
        if presentation.cuts.are_on_grid() {
            writeln!(out, "#EXT-X-INDEPENDENT-SEGMENTS")?;
        }
        write_map(out, self.first_period())
    }

    /// The period of the first segment that is listed, or will be.
    fn first_period(&self) -> PeriodId {
        let first = self.segments.first().map(|segment| segment.period);
        first.unwrap_or_else(|| self.snapshot.period().id)
    }

    /// What follows the last whole segment at the live edge.
    fn write_edge(&self, out: &mut String, period: &mut PeriodId) -> fmt::Result {
        if let Some(open) = self.snapshot.open_segment(self.rendition) {
            write_period(out, (open, self.segments.is_empty()), period)?;
            write_date(out, open)?;
            write_parts(out, open)?;
        }
        if let Some((segment, part)) = self.snapshot.hint(self.rendition) {
            writeln!(
                out,
                "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{segment}.{part}.m4s\""
            )?;
        }
        let renditions = &self.snapshot.period().renditions;
        for (index, other) in renditions.iter().enumerate() {
            let last = self.snapshot.last_part(index);
            if let Some((segment, part)) = last.filter(|_| index != self.rendition) {
                writeln!(
                    out,
                    "#EXT-X-RENDITION-REPORT:URI=\"../{}/index.m3u8\",LAST-MSN={segment},\
                     LAST-PART={part}",
                    other.name
                )?;
            }
        }
        Ok(())
    }

    /// The index of the first segment whose parts are listed.
    fn parts_from(&self) -> usize {
        if !self.low_latency {
            return self.segments.len();
        }
        self.first_within(PARTS_TARGETS)
    }

    /// How many of the oldest segments a delta update leaves out.
    fn skippable(&self) -> usize {
        if !self.low_latency || self.snapshot.is_ended() {
            return 0;
        }
        self.first_within(SKIP_TARGETS)
    }

    /// The index of the first segment that ends less than `targets` target durations before the last one does.
    fn first_within(&self, targets: u32) -> usize {
        let seconds = self.snapshot.presentation().target_duration_s * targets;
        let limit = Duration::from_secs(seconds.into());
        let mut from_end = Duration::ZERO;
        let mut first = self.segments.len();
        for segment in self.segments.iter().rev() {
            if from_end + ROUNDING >= limit {
                break;
            }
            from_end += segment.duration.to_duration(segment.scale);
            first -= 1;
        }
        first
    }
}

fn write_date(out: &mut String, segment: &Segment) -> fmt::Result {
    let date = segment.begins().to_wall();
    writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{date}")
}

fn write_parts(out: &mut String, segment: &Segment) -> fmt::Result {
    for (index, part) in segment.parts.iter().enumerate() {
        let length = part.duration.seconds(segment.scale);
        write!(
            out,
            "#EXT-X-PART:DURATION={length},URI=\"{}.{index}.m4s\"",
            segment.number
        )?;
        out.write_str(match (segment.gap, part.independent) {
            (true, _) => ",GAP=YES\n",
            (false, true) => ",INDEPENDENT=YES\n",
            (false, false) => "\n",
        })?;
    }
    Ok(())
}

/// Begins the period of `segment` if it is another one than `period`, which is the one before. Of a rendition that
/// is new in it, what precedes it names its init segment too; after the discontinuity that is said again, unless
/// the segment is the first of the list.
fn write_period(
    out: &mut String,
    (segment, is_first): (&Segment, bool),
    period: &mut PeriodId,
) -> fmt::Result {
    if segment.discontinuity {
        out.write_str("#EXT-X-DISCONTINUITY\n")?;
    }
    if segment.period != *period || (segment.discontinuity && !is_first) {
        *period = segment.period;
        write_map(out, *period)?;
    }
    Ok(())
}

fn write_map(out: &mut String, period: PeriodId) -> fmt::Result {
    writeln!(out, "#EXT-X-MAP:URI=\"init-{period}.mp4\"")
}

/// Prints microseconds as seconds.
struct Micros(u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}
