//! Rules of the media itself: init segments, segments, and renditions beside each other.
//!
//! Enters: bytes of init segments and segments
//! Leaves: findings; a few numbers of each go into the book
//! Never:  keeps bytes
//! Time:   ticks of the track; microseconds where tracks are compared
//! Spec:   [CMAF] §7, [ISOBMFF] §8.8, [HLS] §6.2.4, docs/time.md

use xxhash_rust::xxh3::xxh3_64;

use super::boxes::{self, Fragment, Init, Media};
use super::findings::{Findings, Place};
use super::inspector::{Book, Fetched, Rendition};
use super::listing::DATE_TOLERANCE_US;
use super::observation::Observation;
use super::rules;
use super::text::{join, micros, seconds};

/// How many places a number may be off and still be taken for one that counts from the epoch.
const GRID_NEIGHBOURS: u64 = 10;
/// A tick more or less, from rounding to microseconds.
const ROUNDING_US: i64 = 2;

/// The file's name at the end of an address.
pub(super) fn file(url: &str) -> &str {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    url.rsplit('/').next().unwrap_or_default()
}

fn fourcc(brand: [u8; 4]) -> String {
    String::from_utf8_lossy(&brand).into_owned()
}

/// Notes the hash of what is at an address; says if it is not what was there.
pub(super) fn again(findings: &mut Findings, book: &mut Book, seen: &Observation) {
    let bytes = (xxh3_64(&seen.answer.body), seen.answer.body.len());
    let known = *book.bytes.entry(seen.url.clone()).or_insert(bytes);
    let place = Place::new(&seen.rendition, file(&seen.url));
    findings.check(&rules::HLS_SEGMENT_BYTES, known == bytes, &place, || {
        (
            format!("{} bytes, other than before", bytes.1),
            format!("the {} bytes of before", known.1),
        )
    });
}

/// An init segment of HLS.
pub(super) fn init(findings: &mut Findings, book: &mut Book, seen: &Observation) {
    again(findings, book, seen);
    let place = Place::new(&seen.rendition, file(&seen.url));
    let read = boxes::parse_init(&seen.answer.body);
    findings.check(&rules::CMAF_INIT, read.is_ok(), &place, || {
        (
            read.clone().err().unwrap_or_default(),
            "ftyp and moov".to_owned(),
        )
    });
    let Ok(init) = read else {
        return;
    };
    let has = |names: &[&[u8; 4]]| init.brands.iter().any(|brand| names.contains(&brand));
    let good = has(&[b"cmfc", b"cmf2"]) && has(&[b"iso6", b"iso7", b"iso8", b"iso9", b"isoa"]);
    findings.check(&rules::CMAF_INIT_BRANDS, good, &place, || {
        let brands: Vec<_> = init.brands.iter().copied().map(fourcc).collect();
        (
            brands.join(" "),
            "cmfc or cmf2, and iso6 or later".to_owned(),
        )
    });
    findings.check(&rules::CMAF_ONE_TRACK, init.tracks == 1, &place, || {
        (format!("{} tracks", init.tracks), "one".to_owned())
    });
    findings.check(&rules::CMAF_NO_SAMPLES, init.samples == 0, &place, || {
        (
            "entries in sample tables".to_owned(),
            "empty tables".to_owned(),
        )
    });
    findings.check(&rules::CMAF_MVEX, init.has_mvex, &place, || {
        (
            "no mvex and trex for the track after it".to_owned(),
            "one".to_owned(),
        )
    });
    let rendition = book.renditions.entry(seen.rendition.clone()).or_default();
    rendition.inits.insert(seen.url.clone(), init);
}

/// A segment of HLS.
pub(super) fn segment(findings: &mut Findings, book: &mut Book, seen: &Observation, msn: u64) {
    again(findings, book, seen);
    let rendition = book.renditions.entry(seen.rendition.clone()).or_default();
    let place = Place::new(&seen.rendition, file(&seen.url));
    let map = rendition
        .listed
        .get(&msn)
        .and_then(|segment| segment.map.as_ref());
    let init = map.and_then(|map| rendition.inits.get(&join(&rendition.url, map)));
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
    let branded = media
        .brands
        .as_ref()
        .is_some_and(|brands| brands.contains(b"cmfs"));
    findings.check(&rules::CMAF_SEGMENT_BRANDS, branded, &place, || {
        let brands = media
            .brands
            .iter()
            .flatten()
            .copied()
            .map(fourcc)
            .collect::<Vec<_>>();
        (format!("{brands:?}"), "styp with cmfs".to_owned())
    });
    for fragment in &media.fragments {
        check_fragment(findings, &place, fragment, init);
    }
    let top = book.multivariant.as_ref();
    let last = rendition.last.as_ref();
    let promised = last.is_none_or(|last| last.independent_segments)
        || top.is_some_and(|top| top.independent_segments);
    starts_well(findings, &place, &media, promised);
    if promised {
        starts_in_order(findings, &place, &media);
    }
    inner_continuity(findings, &place, &media);
    let timescale = init.map_or(0, |init| init.timescale);
    if let Some(listed) = rendition.listed.get(&msn).filter(|_| timescale > 0) {
        let length = micros(media.duration().into(), timescale);
        let sample = micros(media.longest().into(), timescale);
        let off = listed.duration_us - length;
        findings.check(
            &rules::HLS_EXTINF_MEDIA,
            off.abs() <= sample,
            &place,
            || {
                (
                    seconds(listed.duration_us),
                    format!("{} as its samples last", seconds(length)),
                )
            },
        );
    }
    let start = media.start().filter(|_| timescale > 0);
    let fetched = Fetched {
        start_us: start.map(|start| micros(start.into(), timescale)),
        bytes: (xxh3_64(&seen.answer.body), seen.answer.body.len()),
        media,
        timescale,
    };
    rendition.segments.insert(msn, fetched);
    super::low_latency::parts_are_the_segment(findings, &seen.rendition, rendition, msn);
}

/// What holds for every fragment, of a segment or a part.
pub(super) fn check_fragment(
    findings: &mut Findings,
    place: &Place,
    fragment: &Fragment,
    init: Option<&Init>,
) {
    let track = init.map_or(fragment.track_id, |init| init.track_id);
    let one = (fragment.trafs, fragment.truns, fragment.track_id) == (1, 1, track);
    findings.check(&rules::CMAF_ONE_TRUN, one, place, || {
        let Fragment {
            trafs,
            truns,
            track_id,
            ..
        } = fragment;
        (
            format!("{trafs} traf, {truns} trun, track {track_id}"),
            format!("one of each, track {track}"),
        )
    });
    findings.check(
        &rules::CMAF_BASE_IS_MOOF,
        fragment.base_is_moof,
        place,
        || {
            (
                "tfhd says otherwise".to_owned(),
                "default-base-is-moof, no base-data-offset".to_owned(),
            )
        },
    );
    findings.check(&rules::CMAF_DATA, fragment.data_fits, place, || {
        (
            "sizes or data_offset of trun do not fit".to_owned(),
            "samples that fill the mdat".to_owned(),
        )
    });
    findings.check(&rules::CMAF_TFDT, fragment.tfdt.is_some(), place, || {
        ("no tfdt".to_owned(), "one".to_owned())
    });
    if fragment.tfdt.is_some() {
        findings.check(
            &rules::CMAF_TFDT_WIDE,
            fragment.tfdt_version == 1,
            place,
            || {
                (
                    format!("version {}", fragment.tfdt_version),
                    "version 1".to_owned(),
                )
            },
        );
    }
}

fn starts_well(findings: &mut Findings, place: &Place, media: &Media, promised: bool) {
    let Some(first) = media.fragments.first() else {
        return;
    };
    let sync = first.first_is_sync && first.first_is_idr != Some(false);
    let rule = if promised {
        &rules::CMAF_SYNC
    } else {
        &rules::CMAF_SYNC_ALL
    };
    findings.check(rule, sync, place, || {
        let flag = if first.first_is_sync { "is" } else { "is not" };
        let idr = match first.first_is_idr {
            Some(false) => ", holds no IDR picture",
            _ => "",
        };
        (
            format!("the first sample {flag} marked as sync{idr}"),
            "a sync sample".to_owned(),
        )
    });
}

fn starts_in_order(findings: &mut Findings, place: &Place, media: &Media) {
    let Some(first) = media.fragments.first() else {
        return;
    };
    findings.check(
        &rules::CMAF_FIRST_TIME,
        first.first_offset == 0,
        place,
        || {
            (
                format!("a composition offset of {} ticks", first.first_offset),
                "none".to_owned(),
            )
        },
    );
}

fn inner_continuity(findings: &mut Findings, place: &Place, media: &Media) {
    for (one, next) in media.fragments.iter().zip(media.fragments.iter().skip(1)) {
        let end = one.tfdt.map(|start| start.saturating_add(one.duration));
        findings.check(&rules::CMAF_CONTINUITY, end == next.tfdt, place, || {
            (
                format!("a fragment at {:?}", next.tfdt),
                format!("at {end:?}"),
            )
        });
    }
}

/// What needs all media.
pub(super) fn finish(findings: &mut Findings, book: &Book) {
    for (name, rendition) in &book.renditions {
        continuity(findings, name, rendition);
        run_lengths(findings, name, rendition);
        grid(findings, name, book, rendition);
    }
    mapping(findings, book);
    alignment(findings, book);
    switching(findings, book);
}

fn continuity(findings: &mut Findings, name: &str, rendition: &Rendition) {
    let next = rendition.segments.iter().skip(1);
    for ((msn, one), (next_msn, next)) in rendition.segments.iter().zip(next) {
        let listed = rendition.listed.get(next_msn);
        if *next_msn != msn + 1 || listed.is_none_or(|segment| segment.discontinuity || segment.gap)
        {
            continue;
        }
        let place = Place::new(name, listed.map(|s| s.uri.clone()).unwrap_or_default());
        let (end, start) = (one.media.end(), next.media.start());
        findings.check(&rules::CMAF_CONTINUITY, end == start, &place, || {
            (
                format!("tfdt {start:?}"),
                format!("{end:?}, where segment {msn} ends"),
            )
        });
    }
}

/// EXTINF over runs: the differences to the media, added up, may not wander by more than a sample.
fn run_lengths(findings: &mut Findings, name: &str, rendition: &Rendition) {
    let (mut sum, mut least, mut most, mut before) = (0_i64, 0_i64, 0_i64, None);
    for (msn, fetched) in &rendition.segments {
        let Some(listed) = rendition.listed.get(msn).filter(|_| fetched.timescale > 0) else {
            continue;
        };
        if before.is_some_and(|before: u64| before + 1 != *msn) {
            (sum, least, most) = (0, 0, 0);
        }
        before = Some(*msn);
        sum += listed.duration_us - micros(fetched.media.duration().into(), fetched.timescale);
        (least, most) = (least.min(sum), most.max(sum));
        let sample = micros(fetched.media.longest().into(), fetched.timescale);
        let place = Place::new(name, listed.uri.clone());
        findings.check(
            &rules::HLS_EXTINF_MEDIA,
            most - least <= sample,
            &place,
            || {
                (
                    format!("{} between lengths and media so far", seconds(most - least)),
                    seconds(sample),
                )
            },
        );
    }
}

/// The length that numbers count in.
fn grid_us(book: &Book, rendition: &Rendition) -> Option<i64> {
    let mpd = book.mpd.as_ref().map(|published| &published.mpd);
    let step = mpd.and_then(|mpd| mpd.representations.iter().find_map(mpd_step));
    step.or_else(|| rendition.target_us()).filter(|us| *us > 0)
}

fn mpd_step(representation: &super::mpd::Representation) -> Option<i64> {
    representation.step_us()
}

fn grid(findings: &mut Findings, name: &str, book: &Book, rendition: &Rendition) {
    let Some(step) = grid_us(book, rendition).filter(|_| !book.is_cut_by_source()) else {
        return;
    };
    for (msn, fetched) in &rendition.segments {
        let Some((listed, start)) = rendition.listed.get(msn).zip(fetched.start_us) else {
            continue;
        };
        let number: Option<u64> = file(&listed.uri)
            .split_once('.')
            .and_then(|(stem, _)| stem.parse().ok());
        let place_of = u64::try_from(start.div_euclid(step)).ok();
        let Some((number, expected)) = number.zip(place_of) else {
            continue;
        };
        if number.abs_diff(expected) > GRID_NEIGHBOURS {
            continue;
        }
        let at = Place::new(name, listed.uri.clone());
        let holds = number == expected && *msn == expected;
        findings.check(&rules::GRID_NUMBER, holds, &at, || {
            (
                format!("number {number}, media sequence {msn}"),
                expected.to_string(),
            )
        });
        let late = start - start.div_euclid(step) * step;
        let sample = micros(fetched.media.longest().into(), fetched.timescale);
        findings.check(&rules::GRID_START, late < sample + ROUNDING_US, &at, || {
            (
                format!("{} into its place", seconds(late)),
                format!("less than {}", seconds(sample)),
            )
        });
    }
}

/// Dates against media time: one offset for all.
fn mapping(findings: &mut Findings, book: &Book) {
    let mut expected = None;
    for (name, rendition) in &book.renditions {
        for (msn, fetched) in &rendition.segments {
            let listed = rendition.listed.get(msn);
            let date = listed.and_then(|segment| segment.date_us);
            let Some((date, start)) = date.zip(fetched.start_us) else {
                continue;
            };
            let offset = date - start;
            let expected = *expected.get_or_insert(offset);
            let holds = (offset - expected).abs() <= DATE_TOLERANCE_US;
            let place = Place::new(name, listed.map(|s| s.uri.clone()).unwrap_or_default());
            findings.check(&rules::HLS_DATE_MAPPING, holds, &place, || {
                let off = seconds(offset - expected);
                (
                    format!("the date is {off} off"),
                    "media time as everywhere".to_owned(),
                )
            });
        }
    }
}

/// Segments of one number begin together: pictures exactly, sound within one of its samples.
fn alignment(findings: &mut Findings, book: &Book) {
    let mut videos = book
        .renditions
        .iter()
        .filter(|(_, rendition)| rendition.is_video());
    let first = videos.next().or_else(|| book.renditions.iter().next());
    let Some((first_name, first)) = first else {
        return;
    };
    for (name, rendition) in book
        .renditions
        .iter()
        .filter(|(name, _)| *name != first_name)
    {
        for (msn, fetched) in &rendition.segments {
            let other = first.segments.get(msn).and_then(|other| other.start_us);
            let Some((start, other)) = fetched.start_us.zip(other) else {
                continue;
            };
            let sample = if rendition.is_video() && !book.is_cut_by_source() {
                0
            } else {
                micros(fetched.media.longest().into(), fetched.timescale)
            };
            let off = start - other;
            // What is not encoded anew begins when the source begins: its sound may do so after its pictures.
            let may_follow = book.is_cut_by_source() && rendition.begins_period(*msn);
            let holds = off.abs() <= sample + ROUNDING_US || may_follow && off > 0;
            let place = Place::new(name, format!("segment {msn}"));
            findings.check(&rules::HLS_ALIGNMENT, holds, &place, || {
                let off = seconds(off);
                (
                    format!("begins {off} after that of {first_name}"),
                    "the same instant".to_owned(),
                )
            });
        }
    }
}

fn switching(findings: &mut Findings, book: &Book) {
    let videos = book
        .renditions
        .iter()
        .filter(|(_, rendition)| rendition.is_video());
    let scales: Vec<_> = videos
        .filter_map(|(name, r)| Some((name, r.init()?.timescale)))
        .collect();
    let Some((_, expected)) = scales.first() else {
        return;
    };
    for (name, scale) in scales.iter().skip(1) {
        findings.check(
            &rules::CMAF_SWITCHING,
            scale == expected,
            &Place::new(name, "init"),
            || (format!("timescale {scale}"), expected.to_string()),
        );
    }
}
