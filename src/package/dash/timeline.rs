//! Puts what its source cuts on the MPD's time line: periods, and in each the segments by their true times.
//!
//! Enters: a [`Snapshot`] of a broadcast that its source cuts
//! Leaves: [`Stretch`]es, and the SegmentTimeline of each rendition in them
//! Never:  what an earlier run listed: of its renditions no more is known than their names
//! Time:   microseconds on the MPD's time line; segments in the rendition's timescale
//! Spec:   [DASH] §5.3.2, §5.3.9.6

use std::fmt::{self, Write};

use crate::package::period::Period;
use crate::package::snapshot::{Segment, Snapshot};
use crate::time::{MediaTime, Span};

/// A period as far as it is listed.
pub(super) struct Stretch<'a> {
    pub(super) period: &'a Period,
    /// Where its segments count from: `@presentationTimeOffset`.
    start: MediaTime,
    /// `Period@start`, in microseconds.
    pub(super) at_us: i64,
    /// `Period@duration`, in microseconds, once nothing is added to it.
    pub(super) length_us: Option<i64>,
    /// The listed segments of each rendition, from the first to the last that is there.
    segments: Vec<Vec<&'a Segment>>,
}

/// How stretches lie on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// By their own time, the line beginning at this media time, in microseconds.
    Live {
        /// The media time of the line's zero.
        zero_us: i64,
    },
    /// One after the other, without the time between them.
    Recorded,
}

impl<'a> Stretch<'a> {
    /// The listed periods of `snapshot` of which anything is there.
    pub(super) fn all(snapshot: &'a Snapshot, layout: Layout) -> Vec<Self> {
        let periods: Vec<_> = snapshot.periods().collect();
        let nexts = periods.iter().skip(1).map(|next| next.first.get());
        let ends = nexts.chain([u64::MAX]);
        let mut found: Vec<Self> = Vec::new();
        for (period, end) in periods.iter().copied().zip(ends) {
            let numbers = period.first.get()..end;
            let renditions = 0..period.renditions.len();
            let segments: Vec<_> = renditions
                .map(|index| {
                    let listed = snapshot.listed_segments(index).map(AsRef::as_ref);
                    there(listed.filter(|s| numbers.contains(&s.number.get())))
                })
                .collect();
            let starts = segments.iter().flatten().map(|segment| segment.begins());
            let Some(earliest) = starts.min_by(|a, b| a.cmp_instant(*b)) else {
                continue;
            };
            // Of a live broadcast it stays where it is though its first segments leave the list.
            let known = period.start.filter(|_| layout != Layout::Recorded);
            found.push(Self {
                period,
                start: known.unwrap_or(earliest),
                at_us: 0,
                length_us: None,
                segments,
            });
        }
        lay(&mut found, layout, snapshot.is_ended());
        found
    }

    /// Where on the line the last of its segments ends, in microseconds.
    pub(super) fn end_us(&self) -> i64 {
        let lasts = self.segments.iter().filter_map(|all| all.last());
        let end = lasts.map(|last| last.ends().to_wall().as_micros()).max();
        let start = self.start.to_wall().as_micros();
        self.at_us.saturating_add(end.unwrap_or(start) - start)
    }

    /// How many segments the longest of its renditions has.
    pub(super) fn count(&self) -> u64 {
        self.segments.iter().map(Vec::len).max().unwrap_or(0) as u64
    }

    /// Whether anything of a rendition is there.
    pub(super) fn has(&self, rendition: usize) -> bool {
        self.segments
            .get(rendition)
            .is_some_and(|all| !all.is_empty())
    }

    /// Whether decoding can begin with each segment of `set`.
    pub(super) fn is_independent(&self, set: &[usize]) -> bool {
        self.of(set).flatten().all(|segment| segment.independent)
    }

    /// Whether no segment of one rendition of `set` overlaps another number's of another.
    pub(super) fn is_aligned(&self, set: &[usize]) -> bool {
        let mut all = self.of(set);
        let Some(first) = all.next() else {
            return true;
        };
        all.all(|other| {
            let mut both = first.iter().zip(other);
            let together = |one: &Segment, other: &Segment| {
                one.number == other.number && one.begins().cmp_instant(other.begins()).is_eq()
            };
            first.len() == other.len() && both.all(|(one, other)| together(one, other))
        })
    }

    /// Writes how the segments of a rendition are addressed.
    pub(super) fn write_template(&self, out: &mut String, rendition: usize) -> fmt::Result {
        let segments = self.segments.get(rendition).map_or(&[][..], Vec::as_slice);
        let Some(first) = segments.first() else {
            return Ok(());
        };
        let scale = first.scale;
        writeln!(
            out,
            "        <SegmentTemplate timescale=\"{scale}\" startNumber=\"{first}\" \
             presentationTimeOffset=\"{offset}\" initialization=\"$RepresentationID$/init-{id}.mp4\" \
             media=\"$RepresentationID$/$Number$.m4s\">\n          <SegmentTimeline>",
            scale = scale.get(),
            first = first.number,
            offset = self.start.rescale_floor(scale).get(),
            id = self.period.id,
        )?;
        for Run { at, length, more } in runs(segments) {
            write!(out, "            <S t=\"{at}\" d=\"{length}\"")?;
            if more > 0 {
                write!(out, " r=\"{more}\"")?;
            }
            out.write_str("/>\n")?;
        }
        out.write_str("          </SegmentTimeline>\n        </SegmentTemplate>\n")
    }

    fn of(&self, set: &[usize]) -> impl Iterator<Item = &Vec<&'a Segment>> {
        set.iter().filter_map(|index| self.segments.get(*index))
    }
}

/// `segments` without the gaps at both ends: those that are between others keep the numbers right.
fn there<'a>(segments: impl Iterator<Item = &'a Segment>) -> Vec<&'a Segment> {
    let mut all: Vec<_> = segments.skip_while(|segment| segment.gap).collect();
    while all.last().is_some_and(|last| last.gap) {
        all.pop();
    }
    all
}

/// Puts the stretches on the line.
fn lay(stretches: &mut [Stretch<'_>], layout: Layout, ended: bool) {
    let starts: Vec<_> = stretches
        .iter()
        .map(|stretch| stretch.start.to_wall().as_micros())
        .collect();
    let mut at_us = 0;
    for (index, stretch) in stretches.iter_mut().enumerate() {
        let next = starts.get(index + 1);
        if let (Layout::Live { zero_us }, Some(start)) = (layout, starts.get(index)) {
            at_us = start - zero_us;
        }
        stretch.at_us = at_us;
        let length = stretch.end_us() - at_us;
        let room = starts
            .get(index)
            .zip(next)
            .map(|(start, next)| next - start);
        let bounded = room.map_or(length, |room| length.min(room));
        if next.is_some() || ended {
            stretch.length_us = Some(bounded);
        }
        at_us += bounded;
    }
}

/// Segments in a row that are equally long: an `S` element.
struct Run {
    at: i64,
    length: u64,
    more: u64,
}

fn runs(segments: &[&Segment]) -> Vec<Run> {
    let mut found: Vec<Run> = Vec::new();
    let mut end = None;
    for (index, segment) in segments.iter().enumerate() {
        let at = segment.start.get();
        let next = segments.get(index + 1);
        // What is missing lasts until what follows.
        let until = next.filter(|_| segment.gap).map(|next| next.start);
        let length = until.and_then(|until| until.since(segment.start));
        let length = length.unwrap_or(segment.duration).max(Span::new(1)).get();
        match found.last_mut() {
            Some(last) if last.length == length && end == Some(at) => last.more += 1,
            _ => found.push(Run {
                at,
                length,
                more: 0,
            }),
        }
        end = at.checked_add_unsigned(length);
    }
    found
}
