//! Which Periods there are of what lies on the grid, and which segments each of them names.
//!
//! Enters: a [`Snapshot`] of a broadcast on the grid
//! Leaves: [`Laid`]: of what is over, stretches without a hole, each with the renditions that have all of it
//! Never:  of what is over, a hole that players would have to get over: a template cannot name one
//! Time:   milliseconds on the MPD's time line
//! Spec:   [DASH] §5.3.2: there may be time between Periods

use std::ops::Range;

use super::text::gcd;
use crate::id::SegmentNumber;
use crate::media::MediaKind;
use crate::package::period::Period;
use crate::package::snapshot::Snapshot;
use crate::time::Timescale;

/// A Period of the MPD.
pub(super) struct Laid<'a> {
    /// What it is of.
    pub(super) period: &'a Period,
    /// `Period@id`.
    pub(super) id: u64,
    /// The segment that it counts from.
    pub(super) first: u64,
    /// `Period@start`.
    pub(super) at_ms: u64,
    /// `Period@duration`, where it has one.
    pub(super) length_ms: Option<u64>,
    /// The renditions that it does not name, by index.
    pub(super) lacking: Vec<usize>,
}

/// The segment at the zero of a live MPD's time line, whose segments are `step_ms` long: the earliest since the epoch,
/// but number zero, that begins on a whole second.
pub(super) const fn line_first(step_ms: u64) -> u64 {
    1_000 / gcd(step_ms, 1_000)
}

/// The Periods of a broadcast that lives, all that are listed, on the line that begins with segment `zero`.
pub(super) fn live(snapshot: &Snapshot, zero: u64) -> Vec<Laid<'_>> {
    let step = step_of(snapshot);
    let periods: Vec<_> = snapshot.periods().collect();
    let ends = periods.iter().skip(1).map(|next| next.first.get());
    let gone = ends.filter(|end| *end <= snapshot.listed().start).count();
    let laid = periods.into_iter().skip(gone).map(|period| {
        // Another one was before it, of which there may be segments yet.
        let first = if period.discontinuity {
            period.id.get()
        } else {
            zero
        };
        Laid {
            period,
            id: period.id.get(),
            first,
            at_ms: first.saturating_sub(zero).saturating_mul(step),
            length_ms: None,
            lacking: Vec::new(),
        }
    });
    laid.collect()
}

/// The Periods of a broadcast that is over, one after the other: of the last period, whose init segments are described,
/// as far as it is listed.
pub(super) fn recorded(snapshot: &Snapshot) -> Vec<Laid<'_>> {
    let (step, period, listed) = (step_of(snapshot), snapshot.period(), snapshot.listed());
    let from = listed.start.max(period.id.get().min(listed.end));
    let mut stretches: Vec<(Range<u64>, Vec<usize>)> = Vec::new();
    for number in from..listed.end {
        let lacking = lacking(snapshot, number);
        match stretches.last_mut() {
            Some((numbers, found)) if *found == lacking => numbers.end = number + 1,
            _ => stretches.push((number..number + 1, lacking)),
        }
    }
    let kinds_of = |lacking: &[usize]| {
        let has = |kind| {
            let mut renditions = period.renditions.iter().enumerate();
            renditions.any(|(index, r)| r.codec.kind() == kind && !lacking.contains(&index))
        };
        [has(MediaKind::Video), has(MediaKind::Audio)]
    };
    let kinds: Vec<_> = stretches
        .iter()
        .map(|(numbers, lacking)| (numbers.clone(), kinds_of(lacking)))
        .collect();
    let mut kept = playable(&kinds, true).into_iter();
    stretches.retain(|_| kept.next().unwrap_or_default());
    let is_one = stretches.len() == 1;
    let mut at_ms = 0;
    let mut found = Vec::new();
    for (numbers, lacking) in stretches {
        let length = length_ms(snapshot, &numbers, step);
        let is_first = found.is_empty();
        found.push(Laid {
            period,
            id: if is_first {
                period.id.get()
            } else {
                numbers.start
            },
            first: numbers.start,
            at_ms,
            length_ms: Some(length).filter(|_| !is_one),
            lacking,
        });
        at_ms += length;
    }
    found
}

/// Which of the stretches that follow each other are to be named: those that have each kind of media, pictures and
/// sound, that any of them has. Where there is sound and no pictures, or the other way round, dash.js 5.2 waits for ever
/// for what is missing, and Shaka Player shows no pictures from the start. Where `ends`, the last segment need not have
/// both: one kind may have a segment more.
pub(in crate::package) fn playable(stretches: &[(Range<u64>, [bool; 2])], ends: bool) -> Vec<bool> {
    let mut kept: Vec<bool> = stretches
        .iter()
        .map(|(_, kinds)| kinds.contains(&true))
        .collect();
    for kind in 0..2 {
        let has = |index: usize| stretches.get(index).is_some_and(|(_, kinds)| kinds[kind]);
        if kept
            .iter()
            .enumerate()
            .any(|(index, kept)| *kept && has(index))
        {
            for (index, kept) in kept.iter_mut().enumerate() {
                *kept &= has(index);
            }
        }
    }
    if ends
        && let [.., (before, _), (last, kinds)] = stretches
        && let [.., before_kept, last_kept] = &mut *kept
    {
        let follows = before.end == last.start && last.end - last.start == 1;
        *last_kept |= *before_kept && follows && kinds.contains(&true);
    }
    kept
}

/// How long `laid`, the Periods of what is over, are together, where each says how long it is.
pub(super) fn recorded_ms(laid: &[Laid<'_>]) -> Option<u64> {
    let last = laid.last()?;
    Some(last.at_ms.saturating_add(last.length_ms?))
}

/// The media time at which all that is listed ends, as far as the grid's last segment reaches: a frame beyond it would be
/// taken for one segment more.
pub(super) fn end_ms(snapshot: &Snapshot) -> u64 {
    let grid_end = snapshot.listed().end.saturating_mul(step_of(snapshot));
    let renditions = 0..snapshot.period().renditions.len();
    let ends = renditions.filter_map(|index| snapshot.listed_end(index));
    let ends = ends.map(|end| end.rescale_ceil(Timescale::MILLIS).get());
    let end = ends.max().and_then(|end| u64::try_from(end).ok());
    end.map_or(grid_end, |end| end.min(grid_end))
}

/// The renditions that have no segment `number`.
fn lacking(snapshot: &Snapshot, number: u64) -> Vec<usize> {
    let has = |rendition: usize| {
        let segment = snapshot.segment(rendition, SegmentNumber::new(number));
        segment.is_some_and(|segment| !segment.gap)
    };
    let renditions = 0..snapshot.period().renditions.len();
    renditions.filter(|rendition| !has(*rendition)).collect()
}

/// How long the segments `numbers` are, no further than the grid's last one of them reaches.
fn length_ms(snapshot: &Snapshot, numbers: &Range<u64>, step: u64) -> u64 {
    let grid_end = numbers.end.saturating_mul(step);
    let renditions = 0..snapshot.period().renditions.len();
    let last = SegmentNumber::new(numbers.end.saturating_sub(1));
    let ends = renditions.filter_map(|rendition| {
        let segment = snapshot.segment(rendition, last)?;
        let end = segment.ends().rescale_ceil(Timescale::MILLIS).get();
        u64::try_from(end).ok().filter(|_| !segment.gap)
    });
    let end = ends.max().map_or(grid_end, |end| end.min(grid_end));
    end.saturating_sub(numbers.start.saturating_mul(step))
}

fn step_of(snapshot: &Snapshot) -> u64 {
    snapshot.presentation().config.segment_ms.get().into()
}

#[cfg(test)]
mod tests {
    use super::playable;

    #[test]
    fn what_lacks_a_kind_that_others_have_is_left_out_but_for_a_last_segment() {
        let (both, sound, nothing) = ([true, true], [false, true], [false, false]);
        for (stretches, ends, expected) in [
            (vec![(1..5, both), (5..6, sound)], true, vec![true, true]),
            (vec![(1..5, both), (5..6, sound)], false, vec![true, false]),
            (vec![(1..5, both), (5..7, sound)], true, vec![true, false]),
            (vec![(1..5, both), (6..7, sound)], true, vec![true, false]),
            (
                vec![(1..2, sound), (2..4, both), (4..5, nothing), (5..6, sound)],
                true,
                vec![false, true, false, false],
            ),
            (
                vec![(1..2, sound), (2..3, nothing)],
                true,
                vec![true, false],
            ),
            (vec![], true, vec![]),
        ] {
            assert_eq!(playable(&stretches, ends), expected, "{stretches:?}");
        }
    }
}
