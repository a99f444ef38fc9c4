//! Renders a stretch in DASH.
//!
//! Enters: a [`Stretch`]
//! Leaves: an MPD: dynamic while it grows, static once nothing is added; a Period wherever renditions begin or cease to
//! be stored, since a template has no word for a hole, and players stop for good at a segment that is not there
//! Never:  a list of segments that the grid gives
//! Time:   milliseconds of presentation; `@presentationTimeOffset` puts media time onto it
//! Spec:   [DASH] §5.3

use std::fmt::{self, Write};

use super::stretch::{Section, Stretch};
use super::{Picture, Track};
use crate::media::MediaKind;
use crate::package::dash::laid::playable;
use crate::package::dash::text::{Escaped, Period, Rate, WholeSecond, gcd};
use crate::time::{Timescale, WallTime};

/// The most Periods that an MPD is taken apart into. What has holes enough for more says nothing of those that only some
/// renditions have.
const MAX_PERIODS: usize = 500;

/// The scheme by which players set their clock, and the address of the clock.
const UTC_TIMING: &str =
    "  <UTCTiming schemeIdUri=\"urn:mpeg:dash:utc:http-iso:2014\" value=\"/time\"/>\n";

impl Stretch<'_> {
    /// The MPD; `None` if there is nothing to play.
    #[must_use]
    pub fn mpd(&self) -> Option<String> {
        let mut out = String::with_capacity(4_096);
        self.write_mpd(&mut out).ok()?;
        Some(out)
    }

    fn write_mpd(&self, out: &mut String) -> fmt::Result {
        let sections = self.periods();
        let (Some(first), Some(last)) = (sections.first(), sections.last()) else {
            return Err(fmt::Error);
        };
        let step = u64::from(last.show.segment_ms.get());
        let targets = sections.iter().map(|s| s.show.target_duration_s);
        let target = targets.max().unwrap_or(1);
        // Of what grows, the line begins where that of the live MPD does: with the earliest segment, but
        // number zero, that begins on a whole second. ffmpeg takes the epoch itself for no time at all.
        let zero = 1_000 / gcd(step, 1_000);
        let zero_ms = zero * step;
        let kind = if self.closed { "static" } else { "dynamic" };
        write!(
            out,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" \
             profiles=\"urn:mpeg:dash:profile:isoff-live:2011,urn:mpeg:dash:profile:cmaf:2019\" \
             type=\"{kind}\""
        )?;
        let total = lengths(&sections).fold(0, u64::saturating_add);
        if self.closed {
            write!(out, " mediaPresentationDuration=\"{}\"", Period(total))?;
        } else {
            let begins = first.begins_ms();
            let depth = last.ends_ms().saturating_sub(begins);
            write!(out, " availabilityStartTime=\"{}\"", instant(zero_ms))?;
            write!(out, " publishTime=\"{}\"", last.show.ends())?;
            write!(out, " minimumUpdatePeriod=\"{}\"", Period(step))?;
            write!(out, " timeShiftBufferDepth=\"{}\"", Period(depth))?;
            // Who starts over wants to see the beginning: that far behind the present.
            write!(out, " suggestedPresentationDelay=\"{}\"", Period(depth))?;
        }
        writeln!(
            out,
            " minBufferTime=\"{}\" maxSegmentDuration=\"PT{target}S\">",
            Period(step)
        )?;
        let mut at = 0;
        let alone = sections.len() == 1 && first.is_on_grid();
        for (section, length) in sections.iter().zip(lengths(&sections)) {
            let growing = !self.closed && std::ptr::eq(section, last);
            // As the live MPD has it: ffmpeg's live window knows no Period@start.
            let from = if alone && !self.closed {
                zero
            } else {
                section.numbers.start
            };
            let start = match (self.closed, alone) {
                (true, _) => at,
                (false, true) => 0,
                (false, false) => section.begins_ms().saturating_sub(zero_ms),
            };
            at = at.saturating_add(length);
            write!(
                out,
                "  <Period id=\"{}\" start=\"{}\"",
                section.numbers.start,
                Period(start)
            )?;
            if !growing {
                write!(out, " duration=\"{}\"", Period(length))?;
            }
            out.write_str(">\n")?;
            self.write_sets(out, section, from)?;
            out.write_str("  </Period>\n")?;
        }
        if !self.closed {
            out.write_str(UTC_TIMING)?;
        }
        out.write_str("</MPD>\n")
    }

    /// What is to be a Period each.
    fn periods(&self) -> Vec<Section<'_>> {
        let mut found = Vec::new();
        for (index, section) in self.sections.iter().enumerate() {
            let pieces = section.pieces();
            let kinds: Vec<_> = pieces
                .iter()
                .map(|piece| (piece.numbers.clone(), piece.kinds()))
                .collect();
            let kept = playable(&kinds, index + 1 == self.sections.len());
            let kept = pieces.into_iter().zip(kept).filter(|(_, kept)| *kept);
            found.extend(kept.map(|(piece, _)| piece));
            if found.len() > MAX_PERIODS {
                return self.sections.clone();
            }
        }
        found
    }

    fn write_sets(&self, out: &mut String, section: &Section<'_>, from: u64) -> fmt::Result {
        let mut families: Vec<(&str, Vec<&Track>)> = Vec::new();
        for &track in &section.tracks {
            match families
                .iter_mut()
                .find(|(found, _)| *found == track.family())
            {
                Some((_, tracks)) => tracks.push(track),
                None => families.push((track.family(), vec![track])),
            }
        }
        for (index, (_, tracks)) in families.iter().enumerate() {
            self.write_set(out, (index + 1, tracks), section, from)?;
        }
        Ok(())
    }

    fn write_set(
        &self,
        out: &mut String,
        (id, tracks): (usize, &[&Track]),
        section: &Section<'_>,
        from: u64,
    ) -> fmt::Result {
        let Some(first) = tracks.first() else {
            return Ok(());
        };
        let kind = match first.kind {
            MediaKind::Video => "video",
            MediaKind::Audio => "audio",
        };
        write!(
            out,
            "    <AdaptationSet id=\"{id}\" contentType=\"{kind}\" mimeType=\"{kind}/mp4\" \
             segmentAlignment=\"true\""
        )?;
        if section.show.independent {
            out.write_str(" startWithSAP=\"1\"")?;
        }
        write_maxima(out, tracks)?;
        out.write_str(">\n")?;
        if let Some((_, channels)) = first.sound {
            writeln!(
                out,
                "      <AudioChannelConfiguration \
                 schemeIdUri=\"urn:mpeg:dash:23003:3:audio_channel_configuration:2011\" \
                 value=\"{channels}\"/>"
            )?;
        }
        out.write_str("      <Role schemeIdUri=\"urn:mpeg:dash:role:2011\" value=\"main\"/>\n")?;
        let on_grid = section.is_on_grid();
        if on_grid {
            let step = u64::from(section.show.segment_ms.get());
            writeln!(
                out,
                "      <SegmentTemplate timescale=\"1000\" duration=\"{step}\" \
                 startNumber=\"{from}\" presentationTimeOffset=\"{}\" \
                 initialization=\"$RepresentationID$/init-{}.mp4\" \
                 media=\"$RepresentationID$/$Number$.m4s\"/>",
                from * step,
                section.chapter.period,
            )?;
        }
        for track in tracks {
            self.write_representation(out, track)?;
            if on_grid {
                out.write_str("/>\n")?;
            } else {
                out.write_str(">\n")?;
                write_timeline(out, track, section)?;
                out.write_str("      </Representation>\n")?;
            }
        }
        out.write_str("    </AdaptationSet>\n")
    }

    fn write_representation(&self, out: &mut String, track: &Track) -> fmt::Result {
        let (peak, _) = self.rates(&track.name);
        write!(
            out,
            "      <Representation id=\"{}\" bandwidth=\"{peak}\" codecs=\"{}\"",
            track.name,
            Escaped(&track.codecs),
        )?;
        if let Some(Picture { width, height, sar }) = track.picture {
            write!(out, " width=\"{width}\" height=\"{height}\"")?;
            write!(out, " sar=\"{}:{}\"", sar.0, sar.1)?;
        }
        if let Some(rate) = track.frame_rate {
            write!(out, " frameRate=\"{}\"", Rate(rate))?;
        }
        if let Some((sample_rate, _)) = track.sound {
            write!(out, " audioSamplingRate=\"{sample_rate}\"")?;
        }
        Ok(())
    }
}

impl Section<'_> {
    /// Whether it has pictures, and sound.
    fn kinds(&self) -> [bool; 2] {
        [MediaKind::Video, MediaKind::Audio]
            .map(|kind| self.tracks.iter().any(|track| track.kind == kind))
    }

    /// The media time at which it begins, in milliseconds: of the grid, or of the earliest rendition.
    pub(super) fn begins_ms(&self) -> u64 {
        let step = u64::from(self.show.segment_ms.get());
        if self.is_on_grid() {
            return self.numbers.start * step;
        }
        let tracks = self.tracks.iter();
        let begins = tracks.map(|track| {
            let (start, _) = track.place(self.show.grid(), self.numbers.start);
            let begins = start.at(track.timescale);
            begins.rescale_floor(Timescale::MILLIS).get()
        });
        begins
            .min()
            .and_then(|ms| u64::try_from(ms).ok())
            .unwrap_or(0)
    }

    /// The media time at which it ends, no further than the grid's last segment reaches: a frame beyond
    /// it would be taken for one segment more.
    fn ends_ms(&self) -> u64 {
        let step = u64::from(self.show.segment_ms.get());
        let last = self.last();
        let tracks = self.tracks.iter();
        let there = tracks.filter(|track| track.stored.contains(last));
        let ends = there.map(|track| {
            let ends = track.ends(self.show.grid(), last);
            ends.rescale_ceil(Timescale::MILLIS).get()
        });
        let end = ends.max().and_then(|ms| u64::try_from(ms).ok());
        let grid_end = self.numbers.end * step;
        match end {
            Some(end) if self.is_on_grid() => end.min(grid_end),
            Some(end) => end,
            None => grid_end,
        }
    }

    pub(super) fn length_ms(&self) -> u64 {
        self.ends_ms().saturating_sub(self.begins_ms())
    }
}

/// How long each of `sections` is, in milliseconds: up to the next, where that follows.
fn lengths<'a>(sections: &'a [Section<'_>]) -> impl Iterator<Item = u64> + 'a {
    sections.iter().enumerate().map(|(index, section)| {
        let next = sections.get(index + 1);
        let follows = |next: &&Section<'_>| {
            std::ptr::eq(next.chapter, section.chapter) && next.numbers.start == section.numbers.end
        };
        match next.filter(follows) {
            Some(next) => next.begins_ms().saturating_sub(section.begins_ms()),
            None => section.length_ms(),
        }
    })
}

/// The times of every segment, where the grid does not give them.
fn write_timeline(out: &mut String, track: &Track, section: &Section<'_>) -> fmt::Result {
    let scale = track.timescale.get();
    let offset = u128::from(section.begins_ms()) * u128::from(scale) / 1_000;
    writeln!(
        out,
        "        <SegmentTemplate timescale=\"{scale}\" startNumber=\"{}\" \
         presentationTimeOffset=\"{offset}\" initialization=\"$RepresentationID$/init-{}.mp4\" \
         media=\"$RepresentationID$/$Number$.m4s\">\n          <SegmentTimeline>",
        section.numbers.start, section.chapter.period,
    )?;
    let mut next = None;
    for number in section.numbers.clone() {
        let (start, length) = track.place(section.show.grid(), number);
        out.write_str("            <S")?;
        if next != Some(start) {
            write!(out, " t=\"{}\"", start.get())?;
        }
        writeln!(out, " d=\"{}\"/>", length.get())?;
        next = start.checked_add(length);
    }
    out.write_str("          </SegmentTimeline>\n        </SegmentTemplate>\n")
}

/// The largest size and rate among pictures that are switched between.
fn write_maxima(out: &mut String, tracks: &[&Track]) -> fmt::Result {
    let pictures = || tracks.iter().filter_map(|track| track.picture);
    if let (Some(width), Some(height)) = (
        pictures().map(|picture| picture.width).max(),
        pictures().map(|picture| picture.height).max(),
    ) {
        write!(out, " maxWidth=\"{width}\" maxHeight=\"{height}\"")?;
    }
    let rates = tracks.iter().filter_map(|track| track.frame_rate);
    if let Some(rate) = rates.max_by_key(|rate| rate.millihertz()) {
        write!(out, " maxFrameRate=\"{}\"", Rate(rate))?;
    }
    Ok(())
}

/// The instant `ms` after the Unix epoch.
fn instant(ms: u64) -> WholeSecond {
    let micros = i64::try_from(ms.saturating_mul(1_000)).unwrap_or(i64::MAX);
    WholeSecond(WallTime::from_micros(micros))
}
