//! Rules of the multivariant playlist, by itself and against the media.
//!
//! Enters: the playlist; at the end, everything else
//! Leaves: findings
//! Never:  floats: rates are compared in thousandths
//! Time:   none
//! Spec:   [HLS] §4.4.6, [HLS-AUTHORING] §9

use super::findings::{Findings, Place};
use super::inspector::{Book, Rendition};
use super::listing::syntax;
use super::observation::Observation;
use super::playlist::{self, Attributes, Variant};
use super::rules;
use super::text::{join, listing_name, parse_seconds};

/// Per cent of the announced peak that a live stream may reach.
pub(super) const LIVE_PEAK_PERCENT: u64 = 125;
/// What part of a rate it may be off by: half of what lies between those in use, such as 30 and 30000/1001. Stamps in
/// milliseconds make as much of a segment or two, and so does a clock that is led to another one, in media whose rate
/// is what is said all the same.
const RATE_TOLERANCE: u64 = 2_000;
/// And thousandths of a frame per second, for the three decimals.
const RATE_TOLERANCE_MILLI: u64 = 2;

/// The playlist by itself.
pub(super) fn observe(findings: &mut Findings, book: &mut Book, seen: &Observation) {
    let mut found = playlist::parse_multivariant(&seen.answer.body);
    let place = Place::new("", "multivariant playlist");
    syntax(findings, &place, &found.problems);
    let none = |variant: &&Variant| variant.attributes.get("CLOSED-CAPTIONS") == Some("NONE");
    let without = found.variants.iter().filter(none).count();
    let pictures = |variant: &&Variant| variant.attributes.get("RESOLUTION").is_some();
    let all = found.variants.iter().filter(pictures).count();
    findings.check(
        &rules::MV_CLOSED_CAPTIONS,
        without == 0 || without >= all,
        &place,
        || {
            (
                format!("NONE on {without} of {all}"),
                "on all or none".to_owned(),
            )
        },
    );
    media_tags(findings, &found.media);
    for variant in &found.variants {
        check_variant(findings, variant, &found.media);
    }
    for variant in &mut found.variants {
        variant.uri = join(&seen.url, &variant.uri);
    }
    found.media = found
        .media
        .iter()
        .map(|media| media.with_whole_uri(&seen.url))
        .collect();
    book.multivariant = Some(found);
}

fn media_tags(findings: &mut Findings, all: &[Attributes]) {
    for (index, media) in all.iter().enumerate() {
        let place = Place::new(
            "",
            format!("EXT-X-MEDIA {}", media.get("NAME").unwrap_or_default()),
        );
        let group = |m: &Attributes| {
            (
                m.get("TYPE").map(str::to_owned),
                m.get("GROUP-ID").map(str::to_owned),
            )
        };
        let named = ["TYPE", "GROUP-ID", "NAME"]
            .iter()
            .all(|name| media.get(name).is_some());
        let is_default = |m: &Attributes| m.get("DEFAULT") == Some("YES");
        let before = || {
            all.iter()
                .take(index)
                .filter(|other| group(other) == group(media))
        };
        let unique = before().all(|other| other.get("NAME") != media.get("NAME"));
        let one_default = !is_default(media) || !before().any(is_default);
        let selected = !is_default(media) || media.get("AUTOSELECT") == Some("YES");
        findings.check(
            &rules::MV_MEDIA,
            named && unique && one_default && selected,
            &place,
            || {
                let problem = match (named, unique, one_default) {
                    (false, _, _) => "TYPE, GROUP-ID or NAME is missing",
                    (_, false, _) => "the name is there twice in its group",
                    (_, _, false) => "a second default in its group",
                    _ => "a default that is not AUTOSELECT",
                };
                (problem.to_owned(), "a complete rendition".to_owned())
            },
        );
    }
}

fn check_variant(findings: &mut Findings, variant: &Variant, media: &[Attributes]) {
    let place = Place::new("", format!("EXT-X-STREAM-INF {}", variant.uri));
    let attributes = &variant.attributes;
    let (peak, average) = (
        attributes.number("BANDWIDTH"),
        attributes.number("AVERAGE-BANDWIDTH"),
    );
    findings.check(
        &rules::MV_BANDWIDTH,
        peak.is_some_and(|bps| bps > 0),
        &place,
        || (format!("{peak:?}"), "BANDWIDTH".to_owned()),
    );
    let good = average.is_some_and(|bps| bps > 0) && average <= peak;
    findings.check(&rules::MV_AVERAGE_BANDWIDTH, good, &place, || {
        (
            format!("{average:?}"),
            format!("AVERAGE-BANDWIDTH up to {peak:?}"),
        )
    });
    for kind in ["AUDIO", "VIDEO", "SUBTITLES"] {
        let Some(group) = attributes.get(kind) else {
            continue;
        };
        let exists =
            |m: &Attributes| m.get("TYPE") == Some(kind) && m.get("GROUP-ID") == Some(group);
        findings.check(&rules::MV_GROUPS, media.iter().any(exists), &place, || {
            (
                format!("{kind}=\"{group}\""),
                "a group that exists".to_owned(),
            )
        });
    }
}

/// The playlist against what the media is.
pub(super) fn finish(findings: &mut Findings, book: &Book) {
    let Some(found) = &book.multivariant else {
        return;
    };
    for variant in &found.variants {
        let Some(main) = at_address(book, &variant.uri) else {
            continue;
        };
        let group = variant.attributes.get("AUDIO");
        let in_group =
            |m: &&Attributes| m.get("TYPE") == Some("AUDIO") && m.get("GROUP-ID") == group;
        let sounds: Vec<_> = found
            .media
            .iter()
            .filter(in_group)
            .filter_map(|m| at_address(book, m.get("URI")?))
            .collect();
        let place = Place::new(
            "",
            format!("EXT-X-STREAM-INF {}", listing_name(&variant.uri)),
        );
        bandwidth(findings, &place, variant, main, &sounds);
        codecs(findings, &place, variant, main, &sounds);
        pictures(findings, &place, variant, main);
    }
    for media in &found.media {
        let rendition = media.get("URI").and_then(|uri| at_address(book, uri));
        let Some(channels) = rendition
            .and_then(Rendition::init)
            .and_then(|init| init.channels)
        else {
            continue;
        };
        let said = media.get("CHANNELS").unwrap_or_default();
        let first = said.split('/').next().unwrap_or_default();
        let place = Place::new(
            "",
            format!("EXT-X-MEDIA {}", media.get("NAME").unwrap_or_default()),
        );
        findings.check(
            &rules::MV_CHANNELS,
            first == channels.to_string(),
            &place,
            || (format!("CHANNELS=\"{said}\""), channels.to_string()),
        );
    }
}

/// The rendition whose playlist is at `url`, with or without directives.
fn at_address<'a>(book: &'a Book, url: &str) -> Option<&'a Rendition> {
    let bare = |url: &str| url.split('?').next().unwrap_or_default().to_owned();
    book.renditions
        .values()
        .find(|rendition| bare(&rendition.url) == bare(url))
}

fn bandwidth(
    findings: &mut Findings,
    place: &Place,
    variant: &Variant,
    main: &Rendition,
    sounds: &[&Rendition],
) {
    let loudest = sounds
        .iter()
        .filter_map(|sound| sound.peak_bps())
        .max()
        .unwrap_or(0);
    let said = variant.attributes.number("BANDWIDTH");
    if let Some((peak, said)) = main.peak_bps().zip(said) {
        let peak = peak.saturating_add(loudest);
        let holds = peak.saturating_mul(100) <= said.saturating_mul(LIVE_PEAK_PERCENT);
        findings.check(&rules::MV_BANDWIDTH, holds, place, || {
            (
                format!("BANDWIDTH={said}, measured {peak}"),
                "at least 80 % of what is measured".to_owned(),
            )
        });
    }
}

fn codecs(
    findings: &mut Findings,
    place: &Place,
    variant: &Variant,
    main: &Rendition,
    sounds: &[&Rendition],
) {
    let said = variant.attributes.get("CODECS").unwrap_or_default();
    let said_list: Vec<String> = said
        .split(',')
        .map(|codec| codec.trim().to_lowercase())
        .collect();
    for rendition in std::iter::once(&main).chain(sounds) {
        let Some(codec) = rendition.init().and_then(|init| init.codec.clone()) else {
            continue;
        };
        let holds = said_list.contains(&codec.to_lowercase());
        findings.check(&rules::MV_CODECS, holds, place, || {
            (
                format!("CODECS=\"{said}\""),
                format!("{codec}, as the init segment says"),
            )
        });
    }
}

fn pictures(findings: &mut Findings, place: &Place, variant: &Variant, main: &Rendition) {
    let Some(init) = main.init().filter(|init| init.is_video) else {
        return;
    };
    if let Some((width, height)) = init.size {
        let said = variant.attributes.get("RESOLUTION").unwrap_or_default();
        findings.check(
            &rules::MV_RESOLUTION,
            said == format!("{width}x{height}"),
            place,
            || (format!("RESOLUTION={said}"), format!("{width}x{height}")),
        );
    }
    let map_of = |msn: &u64| main.listed.get(msn).map(|segment| &segment.map);
    let newest = main.listed.keys().next_back().and_then(map_of);
    let segments = main.segments.iter();
    let (mut samples, mut ticks) = (0_u64, 0_u64);
    for (_, fetched) in segments.filter(|(msn, _)| map_of(msn) == newest) {
        samples += fetched.media.samples();
        ticks += fetched.media.duration();
    }
    let scale = u64::from(init.timescale);
    if let Some(milli) = (samples * 1_000 * scale).checked_div(ticks) {
        let said = variant.attributes.get("FRAME-RATE").unwrap_or_default();
        let said_milli = parse_seconds(said).and_then(|us| u64::try_from(us / 1_000).ok());
        let holds = said_milli.is_some_and(|said| is_rate(said, milli));
        findings.check(&rules::MV_FRAME_RATE, holds, place, || {
            (
                format!("FRAME-RATE={said}"),
                format!("{}.{:03}", milli / 1_000, milli % 1_000),
            )
        });
    }
}

/// Whether media that has `found` thousandths of a frame per second has the rate that is `said`.
const fn is_rate(said: u64, found: u64) -> bool {
    said.abs_diff(found) <= RATE_TOLERANCE_MILLI + found / RATE_TOLERANCE
}

#[cfg(test)]
mod tests {
    use super::is_rate;

    #[test]
    fn a_rate_may_be_off_by_what_a_clock_makes_but_not_be_another() {
        let known = [
            23_976, 24_000, 25_000, 29_970, 30_000, 50_000, 59_940, 60_000,
        ];
        for said in known {
            let off = said / 2_500;
            assert!(
                is_rate(said, said + off) && is_rate(said, said - off),
                "{said}"
            );
            let others = known.iter().filter(|other| **other != said);
            for other in others {
                assert!(!is_rate(said, *other), "{said} is not {other}");
            }
        }
        // 25 frames per second, and 25.01 as they are measured.
        assert!(is_rate(25_000, 25_010));
    }
}
