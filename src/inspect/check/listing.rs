//! Rules of media playlists, one by one and from one to the next.
//!
//! Enters: media playlists in the order in which they came
//! Leaves: findings; what is listed goes into the book
//! Never:  media
//! Time:   microseconds
//! Spec:   [HLS] §4.4.3, §4.4.4, §6.2

use super::findings::{Findings, Place};
use super::inspector::{Book, Rendition};
use super::observation::Observation;
use super::playlist::{self, Media, Segment};
use super::text::{SECOND_US, seconds};
use super::{low_latency, rules};

/// How far dates may be off: they are written in milliseconds.
pub(super) const DATE_TOLERANCE_US: i64 = 2_000;

/// How far they may be off where a segment is missing: nobody knows to the sample how long it would be.
const GAP_TOLERANCE_US: i64 = 100_000;

/// Takes a playlist that answers a request without skipping.
pub(super) fn observe(findings: &mut Findings, book: &mut Book, seen: &Observation) {
    let media = playlist::parse_media(&seen.answer.body);
    let place = Place::new(&seen.rendition, "playlist");
    syntax(findings, &place, &media.problems);
    alone(findings, &place, &media);
    let others = book
        .renditions
        .iter()
        .filter(|(name, _)| **name != seen.rendition);
    let other = others
        .filter_map(|(_, rendition)| rendition.last.as_ref())
        .next();
    if let Some(other) = other {
        findings.check(
            &rules::HLS_TARGETDURATION_FIXED,
            other.target_s == media.target_s,
            &place,
            || {
                (
                    format!("{:?} s", media.target_s),
                    format!("{:?} s as elsewhere", other.target_s),
                )
            },
        );
    }
    low_latency::listed(findings, book, seen, &media);
    let rendition = book.renditions.entry(seen.rendition.clone()).or_default();
    rendition.url.clone_from(&seen.url);
    if let Some(last) = rendition.last.take() {
        against(findings, &place, &last, &media);
        rendition.has_slid |= media.media_sequence > last.media_sequence;
        slid(findings, &place, rendition, &media);
    }
    refresh(findings, &place, rendition, seen, &media);
    for segment in &media.segments {
        segment_is_stable(findings, &seen.rendition, rendition, segment);
    }
    let mut breaks = media.discontinuity_sequence.unwrap_or(0);
    for segment in &media.segments {
        breaks += u64::from(segment.discontinuity);
        rendition.breaks.entry(segment.msn).or_insert(breaks);
    }
    rendition.last = Some(media);
    rendition.last_us = seen.answered_us;
}

/// Names every line that cannot be read.
pub(super) fn syntax(findings: &mut Findings, place: &Place, problems: &[String]) {
    findings.check(&rules::HLS_SYNTAX, problems.is_empty(), place, || {
        (problems.join("; "), "text that can be read".to_owned())
    });
}

/// What one playlist says, by itself.
fn alone(findings: &mut Findings, place: &Place, media: &Media) {
    let needed = needed_version(media);
    findings.check(&rules::HLS_VERSION, media.version >= needed, place, || {
        (media.version.to_string(), format!("at least {needed}"))
    });
    let target_us = media.target_s.unwrap_or(i64::MAX / SECOND_US) * SECOND_US;
    let mut previous: Option<&Segment> = None;
    for segment in &media.segments {
        let at = Place::new(&place.rendition, segment.uri.clone());
        let longest = target_us + SECOND_US / 2;
        findings.check(
            &rules::HLS_TARGETDURATION,
            segment.duration_us < longest,
            &at,
            || {
                (
                    seconds(segment.duration_us),
                    format!("less than {}", seconds(longest)),
                )
            },
        );
        if segment.uri.contains(".m4s") || segment.uri.contains(".mp4") {
            findings.check(&rules::HLS_MAP, segment.map.is_some(), &at, || {
                (
                    "no EXT-X-MAP".to_owned(),
                    "one before the segment".to_owned(),
                )
            });
        }
        findings.check(&rules::HLS_GAP, !segment.gap, &at, || {
            ("EXT-X-GAP".to_owned(), "media".to_owned())
        });
        date(findings, &at, previous, segment);
        let changed = previous.is_some_and(|before| before.map != segment.map);
        findings.check(
            &rules::HLS_DISCONTINUITY,
            !changed || segment.discontinuity,
            &at,
            || {
                (
                    format!("{:?} without", segment.map),
                    "EXT-X-DISCONTINUITY before another EXT-X-MAP".to_owned(),
                )
            },
        );
        previous = Some(segment);
    }
    if media.playlist_type.as_deref() != Some("VOD") && !media.segments.is_empty() {
        let first = media.segments.iter().find_map(|segment| segment.date_us);
        findings.check(&rules::HLS_DATE, first.is_some(), place, || {
            ("no date".to_owned(), "EXT-X-PROGRAM-DATE-TIME".to_owned())
        });
    }
    let has_break = media.segments.iter().any(|segment| segment.discontinuity);
    if has_break {
        let there = media.discontinuity_sequence.is_some();
        findings.check(&rules::HLS_DISCONTINUITY_SEQUENCE, there, place, || {
            (
                "nothing".to_owned(),
                "EXT-X-DISCONTINUITY-SEQUENCE".to_owned(),
            )
        });
    }
}

fn needed_version(media: &Media) -> u64 {
    if media.skipped.is_some() {
        9
    } else if media.segments.iter().any(|segment| segment.map.is_some()) {
        6
    } else if media
        .segments
        .iter()
        .any(|segment| segment.duration_us % SECOND_US != 0)
    {
        3
    } else {
        1
    }
}

fn date(findings: &mut Findings, at: &Place, previous: Option<&Segment>, segment: &Segment) {
    let Some((date, before)) = segment.date_us.zip(previous) else {
        return;
    };
    let Some(expected) = before.date_us.map(|date| date + before.duration_us) else {
        return;
    };
    let off = date - expected;
    let tolerance = if before.gap || segment.gap {
        GAP_TOLERANCE_US
    } else {
        DATE_TOLERANCE_US
    };
    let holds = segment.discontinuity || off.abs() <= tolerance;
    findings.check(&rules::HLS_DATE_CONTINUOUS, holds, at, || {
        (
            format!("{} after the end of the segment before", seconds(off)),
            "no time between".to_owned(),
        )
    });
}

/// What may change from one playlist to the next.
fn against(findings: &mut Findings, place: &Place, old: &Media, new: &Media) {
    findings.check(
        &rules::HLS_TARGETDURATION_FIXED,
        old.target_s == new.target_s,
        place,
        || {
            (
                format!("{:?} s", new.target_s),
                format!("{:?} s as before", old.target_s),
            )
        },
    );
    let expected = expected_sequence(old, new);
    findings.check(
        &rules::HLS_MEDIA_SEQUENCE,
        expected == Some(new.media_sequence),
        place,
        || {
            let expected = expected.unwrap_or(old.media_sequence);
            (
                new.media_sequence.to_string(),
                format!("{expected} after {}", old.media_sequence),
            )
        },
    );
    let kept = new.next_msn() >= old.next_msn();
    findings.check(&rules::HLS_APPEND_ONLY, kept, place, || {
        (
            format!("the last is {}", new.next_msn()),
            format!("{} or later", old.next_msn()),
        )
    });
    if old.ended {
        let same = new.ended && old.segments == new.segments;
        findings.check(&rules::HLS_ENDLIST, same, place, || {
            (
                "the playlist changed after its end".to_owned(),
                "the same".to_owned(),
            )
        });
    }
    let sequence = |media: &Media| media.discontinuity_sequence.unwrap_or(0);
    let is_told = |media: &Media| media.discontinuity_sequence.is_some();
    if is_told(old) || is_told(new) {
        let (before, now) = (sequence(old), sequence(new));
        let removed = new.media_sequence.saturating_sub(old.media_sequence);
        let removed = old
            .segments
            .iter()
            .take(usize::try_from(removed).unwrap_or(usize::MAX));
        let removed = removed.filter(|segment| segment.discontinuity).count();
        let expected = before.saturating_add(u64::try_from(removed).unwrap_or(u64::MAX));
        findings.check(
            &rules::HLS_DISCONTINUITY_SEQUENCE,
            now == expected,
            place,
            || (now.to_string(), expected.to_string()),
        );
    }
}

/// The media sequence that the segments of `new` have, if it goes on from `old`.
fn expected_sequence(old: &Media, new: &Media) -> Option<u64> {
    let Some(first) = new.segments.first() else {
        return (new.media_sequence >= old.media_sequence).then_some(new.media_sequence);
    };
    if let Some(known) = old.segments.iter().find(|segment| segment.uri == first.uri) {
        return Some(known.msn);
    }
    // Everything known has gone, or the playlist went back before it.
    if new.media_sequence < old.media_sequence {
        return None;
    }
    let overlaps = new.segments.iter().find_map(|segment| {
        let known = old.segments.iter().find(|known| known.uri == segment.uri)?;
        known.msn.checked_sub(segment.msn - new.media_sequence)
    });
    Some(overlaps.unwrap_or(new.media_sequence))
}

/// What a playlist must still have after it lost segments.
fn slid(findings: &mut Findings, place: &Place, rendition: &Rendition, media: &Media) {
    if !rendition.has_slid || media.ended {
        return;
    }
    let typed = media.playlist_type.is_none();
    findings.check(&rules::HLS_PLAYLIST_TYPE, typed, place, || {
        (
            format!("{:?}", media.playlist_type),
            "no EXT-X-PLAYLIST-TYPE".to_owned(),
        )
    });
    let least = media.target_s.unwrap_or(0) * 3 * SECOND_US;
    findings.check(
        &rules::HLS_WINDOW,
        media.length_us() >= least,
        place,
        || {
            (
                seconds(media.length_us()),
                format!("at least {}", seconds(least)),
            )
        },
    );
    findings.check(
        &rules::HLS_WINDOW_SIX,
        media.segments.len() >= 6,
        place,
        || {
            (
                media.segments.len().to_string(),
                "six segments or more".to_owned(),
            )
        },
    );
}

/// How long it takes until there is a new segment. What is counted is the time for which it is certain that
/// there was none, so that polling seldom is no fault of the origin's.
fn refresh(
    findings: &mut Findings,
    place: &Place,
    rendition: &mut Rendition,
    seen: &Observation,
    media: &Media,
) {
    let newest = rendition.listed.last_key_value().map(|(msn, _)| *msn);
    let is_new = newest.is_none_or(|newest| media.next_msn() > newest.saturating_add(1));
    if is_new {
        if newest.is_some() {
            waited(findings, place, rendition, media);
        }
        rendition.newest_us = seen.answered_us;
        rendition.waited_until_us = seen.answered_us;
    } else if !media.ended {
        // What a cache gave was true that long ago.
        let age: i64 = seen
            .answer
            .header("age")
            .and_then(|age| age.parse().ok())
            .unwrap_or(0);
        let asked = seen.asked_us - age.clamp(0, 86_400) * SECOND_US;
        rendition.waited_until_us = rendition.waited_until_us.max(asked);
    }
}

fn waited(findings: &mut Findings, place: &Place, rendition: &Rendition, media: &Media) {
    let waited = rendition.waited_until_us - rendition.newest_us;
    let most = media.target_s.unwrap_or(i64::MAX / SECOND_US / 3) * SECOND_US * 3 / 2;
    findings.check(&rules::HLS_REFRESH, waited <= most, place, || {
        (
            format!("nothing new for {}", seconds(waited)),
            format!("at most {}", seconds(most)),
        )
    });
}

fn segment_is_stable(
    findings: &mut Findings,
    name: &str,
    rendition: &mut Rendition,
    segment: &Segment,
) {
    let Some(known) = rendition.listed.get(&segment.msn) else {
        rendition.listed.insert(
            segment.msn,
            Segment {
                parts: Vec::new(),
                ..segment.clone()
            },
        );
        return;
    };
    let is_same = (
        &known.uri,
        known.duration_us,
        &known.map,
        known.discontinuity,
    ) == (
        &segment.uri,
        segment.duration_us,
        &segment.map,
        segment.discontinuity,
    ) && (known.date_us.is_none()
        || segment.date_us.is_none()
        || known.date_us == segment.date_us);
    let at = Place::new(name, segment.uri.clone());
    findings.check(&rules::HLS_SEGMENT_STABLE, is_same, &at, || {
        let words = |s: &Segment| {
            let date = s.date_us.map(seconds).unwrap_or_default();
            format!("{} {} {date} {:?}", s.uri, seconds(s.duration_us), s.map)
        };
        (words(segment), words(known))
    });
}

/// What needs all playlists.
pub(super) fn finish(findings: &mut Findings, book: &Book) {
    independent(findings, book);
    breaks(findings, book);
    for (name, rendition) in &book.renditions {
        let Some(last) = rendition
            .last
            .as_ref()
            .filter(|last| !last.ended && book.is_served)
        else {
            continue;
        };
        waited(findings, &Place::new(name, "playlist"), rendition, last);
    }
}

/// Whether playlists say that segments can be decoded on their own, where the encoder decides that.
fn independent(findings: &mut Findings, book: &Book) {
    if book.is_cut_by_source() {
        return;
    }
    let top = book.multivariant.as_ref();
    let top = top.map(|found| ("", "multivariant playlist", found.independent_segments));
    let lists = book.renditions.iter().filter_map(|(name, rendition)| {
        let last = rendition.last.as_ref()?;
        Some((name.as_str(), "playlist", last.independent_segments))
    });
    for (name, object, says) in top.into_iter().chain(lists) {
        let place = Place::new(name, object);
        findings.check(&rules::HLS_INDEPENDENT_SEGMENTS, says, &place, || {
            (
                "nothing".to_owned(),
                "EXT-X-INDEPENDENT-SEGMENTS".to_owned(),
            )
        });
    }
}

/// Discontinuities of every rendition against those of the first.
fn breaks(findings: &mut Findings, book: &Book) {
    let mut all = book.renditions.iter();
    let Some((first_name, first)) = all.next() else {
        return;
    };
    for (name, rendition) in all {
        for (msn, breaks) in &rendition.breaks {
            let Some(expected) = first.breaks.get(msn) else {
                continue;
            };
            let place = Place::new(name, format!("segment {msn}"));
            findings.check(
                &rules::HLS_DISCONTINUITY_MATCH,
                breaks == expected,
                &place,
                || {
                    (
                        format!("{breaks} discontinuities up to it"),
                        format!("{expected} as in {first_name}"),
                    )
                },
            );
        }
    }
}
