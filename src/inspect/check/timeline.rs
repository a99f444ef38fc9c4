//! Rules of periods and of segments that the MPD lists by their times.
//!
//! Enters: MPDs; segments that a SegmentTimeline lists
//! Leaves: findings
//! Never:  applies to segments that follow from a duration
//! Time:   microseconds; ticks where an MPD is compared with another
//! Spec:   [DASH] §5.3.2, §5.3.9.6, §5.4

use std::collections::BTreeMap;

use super::boxes::{Init, Media};
use super::findings::{Findings, Place};
use super::inspector::Book;
use super::mpd::{Mpd, Representation};
use super::rules;
use super::text::{micros, seconds};

/// What is rounded to a tick, or to a millisecond in a text, may be off by this much.
const ROUNDING_US: i64 = 2_000;
/// How far media may reach over the ends of its period: an access unit at each end of it.
const EDGE_US: i64 = 100_000;

/// What was listed so far.
#[derive(Debug, Default)]
pub(super) struct Listings {
    /// `Period@start` by `Period@id`.
    starts: BTreeMap<String, i64>,
    /// Time and length in ticks, by period, representation and number.
    segments: BTreeMap<(String, String, u64), (i64, i64)>,
}

/// Another MPD, by itself and after those before it.
pub(super) fn observe(findings: &mut Findings, listings: &mut Listings, new: &Mpd) {
    periods(findings, listings, new);
    for representation in &new.representations {
        let Some(all) = representation.timeline() else {
            continue;
        };
        let place = Place::new(
            &representation.id,
            format!("Period {}", representation.period),
        );
        for two in all.windows(2) {
            let [one, next] = two else {
                continue;
            };
            let off = next.time - one.time.saturating_add(one.length);
            let words = |expected: &str| {
                let found = format!("segment {} begins {off} ticks after the end", next.number);
                (found, expected.to_owned())
            };
            findings.check(&rules::DASH_TIMELINE, off >= 0, &place, || {
                words("none less")
            });
            findings.check(&rules::DASH_TIMELINE_WHOLE, off <= 0, &place, || {
                words("none more")
            });
        }
        for segment in &all {
            let key = (
                representation.period.clone(),
                representation.id.clone(),
                segment.number,
            );
            let now = (segment.time, segment.length);
            let known = *listings.segments.entry(key).or_insert(now);
            findings.check(&rules::DASH_TIMELINE_STABLE, known == now, &place, || {
                (
                    format!("segment {} at {} for {}", segment.number, now.0, now.1),
                    format!("at {} for {} as before", known.0, known.1),
                )
            });
        }
        within(findings, &place, representation);
    }
}

fn periods(findings: &mut Findings, listings: &mut Listings, new: &Mpd) {
    let place = Place::new("", "MPD");
    for (index, period) in new.periods.iter().enumerate() {
        let mut before = new.periods.iter().take(index);
        let is_new = before.all(|other| other.id != period.id);
        let last = index
            .checked_sub(1)
            .and_then(|index| new.periods.get(index));
        let in_order = last.is_none_or(|last| {
            let end = last.start_us.saturating_add(last.length_us.unwrap_or(0));
            end <= period.start_us.saturating_add(ROUNDING_US)
        });
        // Of a recording the line begins with whatever is the first of it.
        let known = if new.is_dynamic {
            *listings
                .starts
                .entry(period.id.clone())
                .or_insert(period.start_us)
        } else {
            period.start_us
        };
        let holds = is_new && in_order && known == period.start_us;
        findings.check(&rules::DASH_PERIODS, holds, &place, || {
            let found = format!("Period {} at {}", period.id, seconds(period.start_us));
            let expected = match (is_new, in_order) {
                (false, _) => "a name of its own".to_owned(),
                (_, false) => "after the end of the one before".to_owned(),
                _ => format!("at {} as before", seconds(known)),
            };
            (found, expected)
        });
    }
}

/// Whether what is listed of a period lies in it.
fn within(findings: &mut Findings, place: &Place, representation: &Representation) {
    let Some(all) = representation.timeline() else {
        return;
    };
    let length = representation.period_length_us.unwrap_or(i64::MAX);
    for segment in all.first().into_iter().chain(all.last()) {
        let Some((begin, lasts)) = representation
            .presentation_us(segment.time)
            .zip(representation.scaled(segment.length))
        else {
            continue;
        };
        let end = begin.saturating_add(lasts);
        let holds = begin >= -EDGE_US && end <= length.saturating_add(EDGE_US);
        findings.check(&rules::DASH_PERIOD_MEDIA, holds, place, || {
            (
                format!(
                    "segment {} from {} to {}",
                    segment.number,
                    seconds(begin),
                    seconds(end)
                ),
                format!(
                    "within {}",
                    representation
                        .period_length_us
                        .map_or_else(|| "the period".to_owned(), seconds)
                ),
            )
        });
    }
}

/// A segment against what its timeline says.
pub(super) fn segment(
    findings: &mut Findings,
    place: &Place,
    representation: &Representation,
    number: u64,
    (media, init): (&Media, &Init),
) {
    let listed = representation.listed(number);
    let Some((listed, start)) = listed.zip(media.start()) else {
        return;
    };
    let times = representation
        .scaled(listed.time)
        .zip(representation.scaled(listed.length));
    let Some((time_us, length_us)) = times else {
        return;
    };
    let start_us = micros(start.into(), init.timescale);
    let lasts_us = micros(media.duration().into(), init.timescale);
    let sample_us = micros(media.longest().into(), init.timescale);
    // Reordered pictures are seen later than they are decoded.
    let offset = media
        .fragments
        .first()
        .map_or(0, |first| first.first_offset);
    let offset_us = micros(i128::from(offset), init.timescale).max(0);
    let late = start_us - time_us;
    let holds = late <= sample_us + ROUNDING_US
        && late >= -(sample_us + offset_us + ROUNDING_US)
        && (lasts_us - length_us).abs() <= sample_us + ROUNDING_US;
    findings.check(&rules::DASH_TIMELINE_MEDIA, holds, place, || {
        (
            format!("begins {} late, lasts {}", seconds(late), seconds(lasts_us)),
            format!("{}, within one sample", seconds(length_us)),
        )
    });
}

/// The wall clock that HLS gives to a segment against that of the MPD: as far from each other in one period as
/// in the next.
pub(super) fn finish(findings: &mut Findings, book: &Book) {
    let mut expected = None;
    for segment in &book.dash {
        let Some((rendition, wall_us)) = book
            .renditions
            .get(&segment.representation)
            .zip(segment.wall_us)
        else {
            continue;
        };
        let same = rendition.segments.iter().find(|(_, fetched)| {
            fetched.start_us == segment.start_us && segment.start_us.is_some()
        });
        let listed = same.and_then(|(msn, _)| rendition.listed.get(msn));
        let Some(date_us) = listed.and_then(|listed| listed.date_us) else {
            continue;
        };
        let distance = date_us - wall_us;
        let expected = *expected.get_or_insert(distance);
        let holds = (distance - expected).abs() <= EDGE_US;
        let place = Place::new(
            &segment.representation,
            format!("number {}", segment.number),
        );
        findings.check(&rules::DASH_PERIOD_TIME, holds, &place, || {
            (
                format!("{} from its date in HLS", seconds(distance)),
                format!("{} as elsewhere", seconds(expected)),
            )
        });
    }
}
