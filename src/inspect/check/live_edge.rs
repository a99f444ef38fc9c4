//! Rules of low latency in DASH: what the MPD announces of it, and whether segments in the making keep that.
//!
//! Enters: MPDs; segments that an MPD addresses, with the moment at which their first bytes came
//! Leaves: findings
//! Never:  applies where segments may only be asked for once they are whole
//! Time:   microseconds since the Unix epoch
//! Spec:   [DASH] §5.3.9.5.3, §5.12, [DASHIOP-LL], [ISOBMFF] §8.16.5

use super::boxes::{Fragment, Init, Media};
use super::findings::{Findings, Place};
use super::inspector::Book;
use super::media::file;
use super::mpd::{Mpd, Reference, Representation};
use super::observation::{Observation, Role};
use super::rules;
use super::text::{SECOND_US, micros, seconds};

/// How far what is rounded to a tick or a millisecond may be off.
const ROUNDING_US: i64 = 2_000;
/// How far the time in a chunk may be off what the MPD makes of its media time.
const PRODUCED_TOLERANCE_US: i64 = SECOND_US / 2;
/// How far ahead of the wall clock media may be: that of a source whose clock is fast.
const AHEAD_TOLERANCE_US: i64 = SECOND_US;
/// How long before its end a segment has to be asked for to show whether it grows.
const GROWING_MARGIN_US: i64 = SECOND_US / 2;

/// What an MPD announces.
pub(super) fn announced(findings: &mut Findings, new: &Mpd) {
    let mut chunked = new
        .representations
        .iter()
        .filter(|r| r.is_chunked())
        .peekable();
    if !new.is_dynamic || chunked.peek().is_none() {
        return;
    }
    let place = Place::new("", "MPD");
    let latency = new.latency.unwrap_or_default();
    // What is asked for the moment it may be is as old as this when it comes.
    let ages = chunked
        .clone()
        .filter_map(|r| r.step_us()?.checked_sub(r.early_us()));
    let least_ms = ages.max().unwrap_or(0) / 1_000;
    let in_order = |a: Option<i64>, b: Option<i64>| a.zip(b).is_none_or(|(a, b)| a <= b);
    let holds = latency.target_ms.is_some_and(|target| target >= least_ms)
        && in_order(latency.min_ms, latency.target_ms)
        && in_order(latency.target_ms, latency.max_ms);
    findings.check(&rules::DASH_LATENCY, holds, &place, || {
        (
            format!("{:?}", new.latency),
            format!("a target of {least_ms} ms or more, between min and max"),
        )
    });
    for representation in chunked {
        let place = Place::new("", format!("Representation {}", representation.id));
        let tied = representation.reference.is_some();
        findings.check(&rules::DASH_REFERENCE_TIME, tied, &place, || {
            (
                "no ProducerReferenceTime that can be read".to_owned(),
                "one".to_owned(),
            )
        });
        let has = representation.resync.is_some();
        findings.check(&rules::DASH_RESYNC, has, &place, || {
            ("no Resync with @dT".to_owned(), "one".to_owned())
        });
    }
}

/// A segment that was asked for by the clock.
pub(super) fn segment(
    findings: &mut Findings,
    book: &Book,
    seen: &Observation,
    number: u64,
    media: &Media,
) {
    let Some(published) = &book.mpd else {
        return;
    };
    let mut all = published.mpd.representations.iter();
    let found = all.find(|r| r.id == seen.rendition && r.is_chunked());
    let init = found.and_then(|found| book.dash_inits.get(&found.init()?));
    let (Some(representation), Some(init)) = (found, init) else {
        return;
    };
    let place = Place::new(&seen.rendition, file(&seen.url));
    chunks(findings, &place, representation, init, media);
    if let Some(reference) = &representation.reference {
        let tie = Tie {
            reference,
            representation,
            init,
        };
        for fragment in &media.fragments {
            tie.produced(findings, &place, fragment);
        }
        let is_edge = matches!(seen.role, Role::DashSegment { edge: true, .. });
        if is_edge && published.mpd.length_us.is_none() {
            tie.newest(
                findings,
                &place,
                media,
                seen.answered_us + book.clock_offset_us,
            );
        }
    }
    let start_us = published.start_us.unwrap_or(0);
    if let Some(whole_us) = representation.whole_us(start_us, number) {
        let ours_us = whole_us - book.clock_offset_us;
        if seen.asked_us + GROWING_MARGIN_US < ours_us {
            let early = seen.begun_us < ours_us;
            findings.check(&rules::DASH_GROWING, early, &place, || {
                (
                    format!(
                        "the first bytes came {} after its end",
                        seconds(seen.begun_us - ours_us)
                    ),
                    "before it".to_owned(),
                )
            });
        }
    }
}

/// How long the chunks of a segment are.
fn chunks(
    findings: &mut Findings,
    place: &Place,
    representation: &Representation,
    init: &Init,
    media: &Media,
) {
    let length = |fragment: &Fragment| micros(fragment.duration.into(), init.timescale);
    let first = media.fragments.first().map_or(0, length);
    if let Some(step) = representation.step_us() {
        let (most, early) = (step - first, representation.early_us());
        let holds = early <= most + ROUNDING_US;
        findings.check(&rules::DASH_CHUNK_OFFSET, holds, place, || {
            (seconds(early), format!("at most {}", seconds(most)))
        });
    }
    let longest = media.fragments.iter().map(length).max().unwrap_or(0);
    let apart = representation
        .resync
        .and_then(|dt| representation.scaled(dt));
    if let Some(apart) = apart {
        let holds = longest <= apart + ROUNDING_US;
        findings.check(&rules::DASH_RESYNC, holds, place, || {
            (seconds(longest), format!("at most {}", seconds(apart)))
        });
    }
}

/// What ties the media of a representation to the wall clock.
struct Tie<'a> {
    reference: &'a Reference,
    representation: &'a Representation,
    init: &'a Init,
}

impl Tie<'_> {
    /// The wall clock at a media time, as the MPD says.
    fn wall_us(&self, media_time: u64) -> Option<i64> {
        let at = micros(media_time.into(), self.init.timescale);
        let from = self.representation.scaled(self.reference.presentation)?;
        self.reference.wall_us.checked_add(at.checked_sub(from)?)
    }

    fn produced(&self, findings: &mut Findings, place: &Place, fragment: &Fragment) {
        if !self.reference.in_band {
            return;
        }
        let produced = fragment.produced;
        let off = produced.and_then(|p| p.wall_us.checked_sub(self.wall_us(p.media_time)?));
        let holds = off.is_some_and(|off| off.abs() <= PRODUCED_TOLERANCE_US);
        findings.check(&rules::DASH_PRFT, holds, place, || {
            let found =
                off.map_or_else(|| "none".to_owned(), |off| format!("{} off", seconds(off)));
            (found, format!("at most {}", seconds(PRODUCED_TOLERANCE_US)))
        });
    }

    /// The newest segment, which was whole at `now_us`: it is neither from the future nor long gone.
    fn newest(&self, findings: &mut Findings, place: &Place, media: &Media, now_us: i64) {
        let step = self.representation.step_us();
        let Some((wall_us, step)) = media.end().and_then(|end| self.wall_us(end)).zip(step) else {
            return;
        };
        let age = now_us - wall_us;
        let holds = age >= -AHEAD_TOLERANCE_US && age <= 3 * step + AHEAD_TOLERANCE_US;
        findings.check(&rules::DASH_REFERENCE_TIME, holds, place, || {
            (
                format!("its end is {} old by the wall clock", seconds(age)),
                format!("at most {}", seconds(3 * step)),
            )
        });
    }
}
