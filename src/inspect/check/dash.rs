//! Rules of the MPD and of what it addresses.
//!
//! Enters: MPDs, answers of the clock, segments that the MPD addresses
//! Leaves: findings
//! Never:  what a SegmentTimeline lists: that is `timeline`'s
//! Time:   microseconds since the Unix epoch
//! Spec:   [DASH] §5.3, [DASHIOP]

use xxhash_rust::xxh3::xxh3_64;

use super::boxes;
use super::findings::{Findings, Place};
use super::inspector::{Book, DashSegment, Published};
use super::observation::Observation;
use super::text::{SECOND_US, micros, parse_date, seconds};
use super::{live_edge, media, mpd, multivariant, rules, timeline};

/// A day: a clock that is further off tells no time.
const CLOCK_TOLERANCE_US: i64 = 86_400 * SECOND_US;

/// An MPD.
pub(super) fn observe(findings: &mut Findings, book: &mut Book, seen: &Observation) {
    let new = mpd::parse(&seen.answer.body, &seen.url);
    let place = Place::new("", "MPD");
    findings.check(&rules::DASH_XML, new.not_xml.is_none(), &place, || {
        (new.not_xml.clone().unwrap_or_default(), "an MPD".to_owned())
    });
    if new.not_xml.is_some() {
        return;
    }
    findings.check(
        &rules::DASH_ATTRIBUTES,
        new.missing.is_empty(),
        &place,
        || {
            (
                new.missing.join("; "),
                "every required attribute".to_owned(),
            )
        },
    );
    if new.is_dynamic {
        findings.check(
            &rules::DASH_UTC_TIMING,
            !new.clocks.is_empty(),
            &place,
            || ("no UTCTiming".to_owned(), "one".to_owned()),
        );
    }
    live_edge::announced(findings, &new);
    timeline::observe(findings, &mut book.timelines, &new);
    let hash = xxh3_64(&seen.answer.body);
    let mut start_us = new.start_us;
    if let Some(old) = &book.mpd {
        start_us = old.start_us.or(start_us);
        let same = !new.is_dynamic || old.start_us == new.start_us;
        findings.check(&rules::DASH_START_FIXED, same, &place, || {
            (
                format!("{:?} µs", new.start_us),
                format!("{:?} µs as before", old.start_us),
            )
        });
        let (before, now) = (old.mpd.published_us, new.published_us);
        let moved = now > before || !new.is_dynamic;
        findings.check(
            &rules::DASH_PUBLISH_TIME,
            hash == old.hash || moved,
            &place,
            || {
                (
                    "a change without a later publishTime".to_owned(),
                    format!("after {before:?} µs"),
                )
            },
        );
    }
    book.mpd = Some(Published {
        mpd: new,
        hash,
        start_us,
    });
}

/// What the clock says.
pub(super) fn clock(findings: &mut Findings, book: &mut Book, seen: &Observation) {
    let text = String::from_utf8_lossy(&seen.answer.body).into_owned();
    let date = seen.answer.header("date").map(str::to_owned);
    let told = parse_date(text.trim());
    if let Some(told) = told {
        book.clock_offset_us = told - (seen.asked_us + seen.answered_us) / 2;
    }
    // A clock that is read by HEAD tells the time in the header alone.
    let holds = match told {
        Some(told) => (told - seen.answered_us).abs() < CLOCK_TOLERANCE_US,
        None => text.is_empty() && date.is_some(),
    };
    findings.check(
        &rules::DASH_UTC_TIMING,
        holds,
        &Place::new("", media::file(&seen.url)),
        || (text, "the time as xs:dateTime".to_owned()),
    );
}

/// A segment that the MPD addresses.
pub(super) fn segment(findings: &mut Findings, book: &mut Book, seen: &Observation, number: u64) {
    media::again(findings, book, seen);
    let place = Place::new(&seen.rendition, media::file(&seen.url));
    let mpd = book.mpd.as_ref();
    let found = mpd.and_then(|p| p.mpd.representation(&seen.rendition, number, &seen.url));
    let init = found.and_then(|found| book.dash_inits.get(&found.init()?));
    let read = boxes::parse_media(&seen.answer.body, init);
    findings.check(&rules::CMAF_FRAGMENT, read.is_ok(), &place, || {
        (
            read.clone().err().unwrap_or_default(),
            "moof and mdat in turn".to_owned(),
        )
    });
    let representation = found;
    let Ok(found) = read else {
        return;
    };
    let start = found.start().zip(init);
    let start_us = start.map(|(start, init)| micros(start.into(), init.timescale));
    if let Some((representation, init)) = representation.zip(init) {
        timeline::segment(findings, &place, representation, number, (&found, init));
    }
    let wall_us = representation
        .zip(mpd)
        .and_then(|(representation, published)| {
            let listed = representation.listed(number)?;
            let start = published.start_us.filter(|_| published.mpd.is_dynamic)?;
            let begin = start.checked_add(representation.period_start_us)?;
            begin.checked_add(representation.presentation_us(listed.time)?)
        });
    if let Some((representation, start)) = representation.zip(start_us) {
        let nominal = representation.media_start_us(number);
        if let Some((nominal, step)) = nominal.zip(representation.step_us()) {
            let off = start - nominal;
            findings.check(
                &rules::DASH_SEGMENT_TIME,
                off.abs() <= step / 2,
                &place,
                || {
                    (
                        format!("begins {} off", seconds(off)),
                        format!("at most {}", seconds(step / 2)),
                    )
                },
            );
        }
    }
    live_edge::segment(findings, book, seen, number, &found);
    book.dash.push(DashSegment {
        representation: seen.rendition.clone(),
        number,
        hash: (xxh3_64(&seen.answer.body), seen.answer.body.len()),
        start_us,
        wall_us,
    });
}

/// An init segment that the MPD names.
pub(super) fn init(findings: &mut Findings, book: &mut Book, seen: &Observation) {
    media::again(findings, book, seen);
    let read = boxes::parse_init(&seen.answer.body);
    let place = Place::new(&seen.rendition, media::file(&seen.url));
    findings.check(&rules::CMAF_INIT, read.is_ok(), &place, || {
        (
            read.clone().err().unwrap_or_default(),
            "ftyp and moov".to_owned(),
        )
    });
    if let Ok(init) = read {
        book.dash_inits.insert(seen.url.clone(), init);
    }
}

/// What needs everything.
pub(super) fn finish(findings: &mut Findings, book: &Book) {
    let Some(published) = &book.mpd else {
        return;
    };
    for representation in &published.mpd.representations {
        matches_media(findings, book, representation);
    }
    same_bytes(findings, book);
    let mut lists = book
        .renditions
        .values()
        .filter_map(|rendition| rendition.last.as_ref())
        .peekable();
    if lists.peek().is_some() && lists.all(|last| last.ended) {
        let over = !published.mpd.is_dynamic || published.mpd.update_us.is_none();
        findings.check(&rules::DASH_END, over, &Place::new("", "MPD"), || {
            (
                "minimumUpdatePeriod".to_owned(),
                "none, or type static".to_owned(),
            )
        });
    }
}

fn matches_media(findings: &mut Findings, book: &Book, representation: &mpd::Representation) {
    let place = Place::new("", format!("Representation {}", representation.id));
    let rendition = book.renditions.get(&representation.id);
    if let Some((peak, said)) = rendition
        .and_then(|r| r.peak_bps())
        .zip(representation.bandwidth)
    {
        let holds =
            peak.saturating_mul(100) <= said.saturating_mul(multivariant::LIVE_PEAK_PERCENT);
        findings.check(&rules::DASH_BANDWIDTH, holds, &place, || {
            (
                format!("bandwidth {said}, measured {peak}"),
                "at least 80 % of what is measured".to_owned(),
            )
        });
    }
    let init = representation.init();
    let Some(init) = init.and_then(|url| book.dash_inits.get(&url)) else {
        return;
    };
    let said = representation.codecs.as_deref().unwrap_or_default();
    let codec = init.codec.as_deref().unwrap_or(said);
    let same_codec = said.eq_ignore_ascii_case(codec) && !said.is_empty();
    let same_size = init.size.is_none() || representation.size.is_none_or(|s| Some(s) == init.size);
    let rate = representation.sample_rate;
    let same_rate = init.sample_rate.is_none() || rate.is_none() || rate == init.sample_rate;
    findings.check(
        &rules::DASH_CODECS,
        same_codec && same_size && same_rate,
        &place,
        || {
            let found = format!("{said} {:?} {rate:?}", representation.size);
            (
                found,
                format!("{codec} {:?} {:?}", init.size, init.sample_rate),
            )
        },
    );
}

/// Every segment that DASH addressed and HLS lists, too, has the same bytes.
fn same_bytes(findings: &mut Findings, book: &Book) {
    for segment in &book.dash {
        let Some(rendition) = book.renditions.get(&segment.representation) else {
            continue;
        };
        let same_time = rendition
            .segments
            .values()
            .find(|f| f.start_us == segment.start_us);
        let Some(fetched) = same_time.filter(|_| segment.start_us.is_some()) else {
            continue;
        };
        let place = Place::new(
            &segment.representation,
            format!("number {}", segment.number),
        );
        findings.check(
            &rules::DASH_SAME_BYTES,
            fetched.bytes == segment.hash,
            &place,
            || {
                (
                    format!("{} other bytes", segment.hash.1),
                    format!("the {} of HLS", fetched.bytes.1),
                )
            },
        );
    }
}
