//! Rules of low latency: parts, hints, blocking, delta updates, rendition reports.
//!
//! Enters: playlists with EXT-X-PART-INF, parts, answers to requests with directives
//! Leaves: findings
//! Never:  applies to a playlist without EXT-X-PART-INF
//! Time:   microseconds
//! Spec:   [HLS] §4.4.3.7, §4.4.3.8, §4.4.4.9, §4.4.5, §6.2.5, §6.2.6

use super::boxes;
use super::findings::{Findings, Place};
use super::inspector::{Book, Rendition};
use super::media;
use super::observation::{Answer, Observation};
use super::playlist::{self, Control, Media, Part};
use super::rules;
use super::text::{SECOND_US, join, listing_name, micros, seconds};

/// How far written durations may be off the media: a millisecond.
const DURATION_TOLERANCE_US: i64 = 1_000;
/// Parts by which a rendition report may be behind: one that came between rendering and answer, and one
/// that a cache kept.
const REPORT_TOLERANCE_PARTS: u64 = 2;
/// How long an answer may take beyond the limit: the way there and back.
const TRAVEL_US: i64 = 500_000;

/// A playlist with parts.
pub(super) fn listed(findings: &mut Findings, book: &mut Book, seen: &Observation, new: &Media) {
    let Some(target) = new.part_target_us else {
        return;
    };
    let place = Place::new(&seen.rendition, "playlist");
    for other in book
        .renditions
        .values()
        .filter_map(|rendition| rendition.last.as_ref())
    {
        findings.check(
            &rules::LL_PART_TARGET,
            other.part_target_us == Some(target),
            &place,
            || {
                (
                    seconds(target),
                    other.part_target_us.map(seconds).unwrap_or_default(),
                )
            },
        );
        findings.check(
            &rules::LL_SERVER_CONTROL,
            other.control == new.control,
            &place,
            || {
                (
                    format!("{:?}", new.control),
                    format!("{:?}, as elsewhere", other.control),
                )
            },
        );
    }
    control(findings, &place, new, target);
    parts(findings, &seen.rendition, new, target);
    if !new.ended {
        reports(findings, &place, book, seen, new);
    }
    let rendition = book.renditions.entry(seen.rendition.clone()).or_default();
    if let Some(last) = &rendition.last {
        hint_came_true(findings, &place, last, new);
    }
    hints_were_answered(findings, &seen.rendition, &seen.url, rendition, new);
    for segment in new
        .segments
        .iter()
        .filter(|segment| !segment.parts.is_empty())
    {
        rendition
            .part_counts
            .insert(segment.msn, segment.parts.len());
    }
}

fn control(findings: &mut Findings, place: &Place, new: &Media, part_target: i64) {
    let target = new.target_s.unwrap_or(0) * SECOND_US;
    let said = new.control.clone().unwrap_or_default();
    findings.check(&rules::LL_SERVER_CONTROL, said.can_block, place, || {
        (
            format!("{:?}", new.control),
            "CAN-BLOCK-RELOAD=YES".to_owned(),
        )
    });
    let Control {
        part_hold_back_us,
        hold_back_us,
        can_skip_until_us,
        ..
    } = said;
    let words = |found: Option<i64>, least| {
        (
            found.map(seconds).unwrap_or_default(),
            format!("at least {}", seconds(least)),
        )
    };
    let least = 3 * part_target;
    let good = part_hold_back_us.is_some_and(|us| us >= least);
    findings.check(&rules::LL_PART_HOLD_BACK, good, place, || {
        words(part_hold_back_us, least)
    });
    let least = 3 * target;
    let good = hold_back_us.is_none_or(|us| us >= least);
    findings.check(&rules::LL_HOLD_BACK, good, place, || {
        words(hold_back_us, least)
    });
    let least = 6 * target;
    let good = can_skip_until_us.is_none_or(|us| us >= least);
    findings.check(&rules::LL_SKIP_UNTIL, good, place, || {
        words(can_skip_until_us, least)
    });
}

fn parts(findings: &mut Findings, name: &str, new: &Media, target: i64) {
    for segment in new
        .segments
        .iter()
        .filter(|segment| !segment.parts.is_empty())
    {
        lengths(findings, name, &segment.parts, target);
        let sum: i64 = segment.parts.iter().map(|part| part.duration_us).sum();
        let holds = (sum - segment.duration_us).abs() <= DURATION_TOLERANCE_US;
        let place = Place::new(name, segment.uri.clone());
        findings.check(&rules::LL_PART_SUM, holds, &place, || {
            (seconds(sum), seconds(segment.duration_us))
        });
    }
    lengths(findings, name, &new.open_parts, target);
}

/// The lengths of the parts of one segment; of an open one, the last may yet prove to be its last.
fn lengths(findings: &mut Findings, name: &str, parts: &[Part], target: i64) {
    for (index, part) in parts.iter().enumerate() {
        let place = Place::new(name, part.uri.clone());
        findings.check(
            &rules::LL_PART_MAX,
            part.duration_us <= target,
            &place,
            || {
                (
                    seconds(part.duration_us),
                    format!("at most {}", seconds(target)),
                )
            },
        );
        let next = parts.get(index + 1);
        if part.gap || next.is_none_or(|next| next.gap) {
            continue;
        }
        // Written values are rounded.
        let least = target * 85 / 100 - 1;
        let rule = if part.independent {
            &rules::LL_PART_EVEN
        } else {
            &rules::LL_PART_MIN
        };
        findings.check(rule, part.duration_us >= least, &place, || {
            (
                seconds(part.duration_us),
                format!("at least {}", seconds(least)),
            )
        });
    }
}

/// Every other rendition is reported, and as it was when this playlist was asked for.
fn reports(findings: &mut Findings, place: &Place, book: &Book, seen: &Observation, new: &Media) {
    for (name, other) in book
        .renditions
        .iter()
        .filter(|(name, _)| **name != seen.rendition)
    {
        let Some(known) = other.last.as_ref().filter(|last| !last.ended) else {
            continue;
        };
        let of = |uri: &str| listing_name(&join(&seen.url, uri)) == *name;
        let report = new.reports.iter().find(|report| of(&report.uri));
        findings.check(&rules::LL_RENDITION_REPORT, report.is_some(), place, || {
            (
                format!("none of {name}"),
                "a report of every other rendition".to_owned(),
            )
        });
        let Some(report) = report else {
            continue;
        };
        let position = report.last_msn.zip(report.last_part);
        let per_segment = other.part_counts.values().copied().max().unwrap_or(1);
        let per_segment = u64::try_from(per_segment).unwrap_or(u64::MAX);
        let count = |(msn, part): (u64, u64)| msn.saturating_mul(per_segment).saturating_add(part);
        let fresh = match (position, known.last_part()) {
            (None, _) => false,
            (Some(said), Some(known)) if other.last_us <= seen.asked_us => {
                count(said) + REPORT_TOLERANCE_PARTS >= count(known)
            }
            _ => true,
        };
        findings.check(&rules::LL_RENDITION_REPORT, fresh, place, || {
            let (msn, part) = (report.last_msn, report.last_part);
            (
                format!("{name} at {msn:?}.{part:?}"),
                format!("{:?} or later", known.last_part()),
            )
        });
    }
}

/// The part that follows those of `last` in `new` is the one that `last` hinted at.
fn hint_came_true(findings: &mut Findings, place: &Place, last: &Media, new: &Media) {
    let Some((hint, after)) = last.hint.as_ref().zip(last.last_part()) else {
        return;
    };
    let segments = new
        .segments
        .iter()
        .map(|segment| (segment.msn, &segment.parts));
    let open = std::iter::once((new.next_msn(), &new.open_parts));
    let mut following = segments.chain(open).flat_map(|(msn, parts)| {
        let numbered = parts.iter().enumerate();
        numbered.map(move |(index, part)| ((msn, u64::try_from(index).unwrap_or(u64::MAX)), part))
    });
    // Only if the known part is still listed is it certain what follows it.
    if !following.any(|(at, _)| at == after) {
        return;
    }
    if let Some((_, part)) = following.next() {
        findings.check(&rules::LL_HINT, part.uri == *hint, place, || {
            (
                format!("{} follows", part.uri),
                format!("{hint}, as hinted"),
            )
        });
    }
}

/// A part that was asked for when it was hinted must have been given.
fn hints_were_answered(
    findings: &mut Findings,
    name: &str,
    url: &str,
    rendition: &mut Rendition,
    new: &Media,
) {
    let parts = new
        .segments
        .iter()
        .flat_map(|segment| &segment.parts)
        .chain(&new.open_parts);
    for part in parts {
        let Some(status) = rendition.hints.remove(&join(url, &part.uri)) else {
            continue;
        };
        if part.gap {
            // It never came, and that is said.
            continue;
        }
        findings.check(
            &rules::LL_HINT_ANSWER,
            status == 200,
            &Place::new(name, part.uri.clone()),
            || {
                (
                    format!("status {status}"),
                    "the part, which was listed then".to_owned(),
                )
            },
        );
    }
}

/// The answer to a request that waits.
pub(super) fn blocking(findings: &mut Findings, seen: &Observation, asked: (u64, Option<u64>)) {
    let media = playlist::parse_media(&seen.answer.body);
    let place = Place::new(&seen.rendition, "blocking reload");
    let (next, open) = media.next_part();
    let has = match asked {
        (msn, None) => next > msn,
        (msn, Some(part)) => next > msn || (next == msn && open > part),
    };
    findings.check(&rules::LL_BLOCKING, has || media.ended, &place, || {
        (
            format!("the last is {:?}", media.last_part()),
            format!("{asked:?}"),
        )
    });
    let took = seen.answered_us - seen.asked_us;
    let most = media.target_s.unwrap_or(0) * 3 * SECOND_US + TRAVEL_US;
    findings.check(&rules::LL_BLOCKING_TIME, took <= most, &place, || {
        (seconds(took), format!("at most {}", seconds(most)))
    });
}

/// A delta update, against what is known.
pub(super) fn delta(findings: &mut Findings, book: &mut Book, seen: &Observation) {
    let new = playlist::parse_media(&seen.answer.body);
    let place = Place::new(&seen.rendition, "delta update");
    super::listing::syntax(findings, &place, &new.problems);
    let rendition = book.renditions.entry(seen.rendition.clone()).or_default();
    let Some(last) = &rendition.last else {
        return;
    };
    let until = last
        .control
        .as_ref()
        .and_then(|control| control.can_skip_until_us);
    let Some(until) = until.filter(|_| !new.ended) else {
        return;
    };
    skips(findings, &place, last, &new, until);
    puts_together(findings, &place, rendition, &new);
}

/// The answer to `_HLS_skip=v2`.
pub(super) fn skip_v2(findings: &mut Findings, place: &Place, answer: &Answer) {
    let new = playlist::parse_media(&answer.body);
    let holds = answer.is_ok() && new.problems.is_empty() && !new.segments.is_empty();
    findings.check(&rules::LL_SKIP_V2, holds, place, || {
        let found = format!("status {}: {}", answer.status, new.problems.join("; "));
        (found, "a playlist".to_owned())
    });
}

/// How much a delta update leaves out.
fn skips(findings: &mut Findings, place: &Place, last: &Media, new: &Media, until: i64) {
    let skipped = new.skipped.unwrap_or(0);
    if skipped > 0 {
        findings.check(&rules::HLS_VERSION, new.version >= 9, place, || {
            (
                new.version.to_string(),
                "at least 9 for EXT-X-SKIP".to_owned(),
            )
        });
        let open: i64 = new.open_parts.iter().map(|part| part.duration_us).sum();
        let kept = new.length_us() + open;
        findings.check(
            &rules::LL_DELTA,
            kept >= until - DURATION_TOLERANCE_US,
            place,
            || {
                (
                    format!("only {} are left", seconds(kept)),
                    format!("CAN-SKIP-UNTIL, {}", seconds(until)),
                )
            },
        );
    }
    let target = last.target_s.unwrap_or(0) * SECOND_US;
    let could = last.length_us() >= until + 2 * target;
    findings.check(&rules::LL_DELTA_SKIPS, skipped > 0 || !could, place, || {
        (
            "no EXT-X-SKIP".to_owned(),
            format!("one for all but {}", seconds(until)),
        )
    });
}

/// What a delta update has in common with what is known is the same, so that together they are the whole.
fn puts_together(findings: &mut Findings, place: &Place, rendition: &Rendition, new: &Media) {
    for segment in &new.segments {
        let Some(known) = rendition.listed.get(&segment.msn) else {
            continue;
        };
        let is_same = (&known.uri, known.duration_us) == (&segment.uri, segment.duration_us)
            && (segment.date_us.is_none() || known.date_us == segment.date_us);
        let whole = rendition
            .last
            .as_ref()
            .and_then(|last| last.segment(segment.msn));
        let same_parts = whole.is_none_or(|whole| {
            whole.parts.is_empty() || segment.parts.is_empty() || whole.parts == segment.parts
        });
        let is_same = is_same && same_parts;
        findings.check(&rules::LL_DELTA, is_same, place, || {
            let words = |s: &playlist::Segment| {
                format!("{} is {} {}", s.msn, s.uri, seconds(s.duration_us))
            };
            (words(segment), words(known))
        });
    }
    let goes_on = new.segments.is_empty()
        || new
            .segments
            .iter()
            .any(|s| rendition.listed.contains_key(&s.msn));
    findings.check(&rules::LL_DELTA, goes_on, place, || {
        (
            format!("it begins with {:?}", new.segments.first().map(|s| s.msn)),
            "known segments".to_owned(),
        )
    });
}

/// A part that is listed.
pub(super) fn part(findings: &mut Findings, book: &mut Book, seen: &Observation, at: (u64, u64)) {
    media::again(findings, book, seen);
    let rendition = book.renditions.entry(seen.rendition.clone()).or_default();
    let place = Place::new(&seen.rendition, media::file(&seen.url));
    let init = rendition.init_of(at.0).or_else(|| rendition.init());
    let read = boxes::parse_media(&seen.answer.body, init);
    findings.check(&rules::CMAF_FRAGMENT, read.is_ok(), &place, || {
        (
            read.clone().err().unwrap_or_default(),
            "moof and mdat in turn".to_owned(),
        )
    });
    let Ok(media) = read else {
        return;
    };
    for fragment in &media.fragments {
        media::check_fragment(findings, &place, fragment, init);
    }
    let listed = rendition
        .last
        .as_ref()
        .and_then(|last| last.part(at.0, at.1));
    if let Some((listed, init)) = listed.zip(init) {
        let length = micros(media.duration().into(), init.timescale);
        let off = listed.duration_us - length;
        findings.check(
            &rules::LL_PART_MEDIA,
            off.abs() <= DURATION_TOLERANCE_US,
            &place,
            || {
                (
                    seconds(listed.duration_us),
                    format!("{} as its samples last", seconds(length)),
                )
            },
        );
        let sync = media
            .fragments
            .first()
            .is_some_and(|first| first.first_is_sync);
        let words = |is: bool| {
            if is {
                "a key frame first"
            } else {
                "no key frame first"
            }
        };
        if listed.independent {
            findings.check(&rules::LL_PART_INDEPENDENT, sync, &place, || {
                (words(sync).to_owned(), words(true).to_owned())
            });
        } else {
            findings.check(&rules::LL_PART_UNMARKED, !sync, &place, || {
                ("no INDEPENDENT".to_owned(), "INDEPENDENT=YES".to_owned())
            });
        }
    }
    let pieces = media
        .fragments
        .iter()
        .map(|fragment| fragment.bytes)
        .collect();
    rendition.parts.insert(at, pieces);
}

/// What was hinted, asked for before it was listed.
pub(super) fn hint(findings: &mut Findings, book: &mut Book, seen: &Observation) {
    let rendition = book.renditions.entry(seen.rendition.clone()).or_default();
    rendition.hints.insert(seen.url.clone(), seen.answer.status);
    if seen.answer.is_ok() {
        let whole = boxes::parse_media(&seen.answer.body, rendition.init()).is_ok();
        let place = Place::new(&seen.rendition, media::file(&seen.url));
        findings.check(&rules::LL_HINT_ANSWER, whole, &place, || {
            ("torn boxes".to_owned(), "the whole part".to_owned())
        });
        media::again(findings, book, seen);
    }
}

/// The parts of a segment end to end, once all of them and the segment are there.
pub(super) fn parts_are_the_segment(
    findings: &mut Findings,
    name: &str,
    rendition: &Rendition,
    msn: u64,
) {
    let Some((segment, count)) = rendition
        .segments
        .get(&msn)
        .zip(rendition.part_counts.get(&msn))
    else {
        return;
    };
    let count = u64::try_from(*count).unwrap_or(u64::MAX);
    let pieces: Option<Vec<_>> = (0..count)
        .map(|part| rendition.parts.get(&(msn, part)))
        .collect();
    let Some(pieces) = pieces else {
        return;
    };
    let joined = pieces.into_iter().flatten();
    let holds = joined.eq(segment
        .media
        .fragments
        .iter()
        .map(|fragment| &fragment.bytes));
    findings.check(
        &rules::LL_PART_BYTES,
        holds,
        &Place::new(name, format!("segment {msn}")),
        || {
            (
                "other bytes".to_owned(),
                format!("those of its {count} parts"),
            )
        },
    );
}
