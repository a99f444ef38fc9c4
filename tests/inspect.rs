//! Breaks what the product publishes in every way that a rule forbids, and lets `inspect` name each; and lets
//! it find nothing in what is whole.
//!
//! Enters: the film through the real packager, and through the real server
//! Leaves: the names of the rules that are broken
//! Never:  the writer's own parsers
//! Spec:   docs/inspect.md

#![cfg(test)]
#![allow(dead_code, reason = "what tests share is more than this one uses")]
#![allow(clippy::string_slice, reason = "the texts are ASCII")]

mod common;
mod inspect_broken;
mod package_film;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use headwater::inspect::check::{Observation, Probe, RULES, Role};
use inspect_broken::{
    Shown, after, bump, double_track, edit, first_offset, keep, patch, rename, set, shift, without,
};
use package_film::Film;

static ENCODED: LazyLock<Film> = LazyLock::new(Film::encode);
static FILM: LazyLock<Shown> = LazyLock::new(|| Shown::film(&ENCODED));
static CUT: LazyLock<Shown> = LazyLock::new(|| Shown::cut(&ENCODED, true));

type Break = (&'static str, fn(&mut Shown));

/// Edits every media playlist of pictures.
fn lists(shown: &mut Shown, change: impl Fn(&str) -> String) {
    for rendition in ["v360", "v180", "a96"] {
        for seen in shown.lists(rendition) {
            edit(seen, &change);
        }
    }
}

/// Edits the newest playlist of the first rendition.
fn newest(shown: &mut Shown, change: impl Fn(&str) -> String) {
    edit(shown.lists("v360").pop().expect("some"), change);
}

fn multivariant(shown: &mut Shown, change: impl Fn(&str) -> String) {
    edit(
        shown.all(|seen| seen.role == Role::Multivariant).remove(0),
        change,
    );
}

fn mpds(shown: &mut Shown, change: impl Fn(&str) -> String) {
    for seen in shown.all(|seen| seen.role == Role::Mpd) {
        edit(seen, &change);
    }
}

fn second_mpd(shown: &mut Shown, change: impl Fn(&str) -> String) {
    edit(shown.all(|seen| seen.role == Role::Mpd).remove(1), change);
}

fn is_init(seen: &Observation) -> bool {
    matches!(seen.role, Role::Init | Role::DashInit)
}

fn is_segment(seen: &Observation) -> bool {
    matches!(seen.role, Role::Segment { .. } | Role::DashSegment { .. })
}

/// Patches what `which` holds for in one rendition of pictures.
fn media(shown: &mut Shown, which: fn(&Observation) -> bool, change: impl Fn(&mut Vec<u8>)) {
    for seen in shown.all(|seen| seen.rendition == "v180" && which(seen)) {
        patch(seen, &change);
    }
}

fn inits(shown: &mut Shown, change: impl Fn(&mut Vec<u8>)) {
    media(shown, is_init, change);
}

fn segments(shown: &mut Shown, change: impl Fn(&mut Vec<u8>)) {
    media(shown, is_segment, change);
}

fn fail(shown: &mut Shown, which: impl Fn(&Observation) -> bool, status: u16) {
    for seen in shown.all(which) {
        seen.answer.status = status;
    }
}

fn header(
    shown: &mut Shown,
    which: impl Fn(&Observation) -> bool,
    name: &str,
    value: Option<&str>,
) {
    for seen in shown.all(which) {
        let lines = seen.answer.headers.as_mut().expect("served");
        lines.retain(|(found, _)| found != name);
        lines.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }
}

fn is_probe(probe: &Probe) -> impl Fn(&Observation) -> bool + '_ {
    let kind = std::mem::discriminant(probe);
    move |seen| matches!(&seen.role, Role::Probe(found) if std::mem::discriminant(found) == kind)
}

/// Every rule, and how to break it.
const BREAKS: &[Break] = &[
    ("HLS-AVAILABLE", |s| {
        fail(s, |o| matches!(o.role, Role::Segment { .. }), 404)
    }),
    ("HLS-SYNTAX", |s| {
        newest(s, |t| t.replace("#EXTM3U", "#EXTM3"))
    }),
    ("HLS-VERSION", |s| {
        lists(s, |t| set(t, "#EXT-X-VERSION:", "3"))
    }),
    ("HLS-TARGETDURATION", |s| {
        lists(s, |t| set(t, "TARGETDURATION:", "1"))
    }),
    ("HLS-TARGETDURATION-FIXED", |s| {
        newest(s, |t| set(t, "TARGETDURATION:", "3"))
    }),
    ("HLS-EXTINF-MEDIA", |s| {
        lists(s, |t| t.replace("EXTINF:2.000000", "EXTINF:2.010000"))
    }),
    ("HLS-MEDIA-SEQUENCE", |s| {
        newest(s, |t| bump(t, "MEDIA-SEQUENCE:", -2))
    }),
    ("HLS-SEGMENT-STABLE", |s| {
        newest(s, |t| t.replace("EXTINF:2.000000", "EXTINF:2.001000"))
    }),
    ("HLS-SEGMENT-BYTES", |s| {
        let again = s.all(|o| matches!(o.role, Role::Again { .. }));
        patch(again.into_iter().next().expect("one"), |b| {
            *b.last_mut().expect("some") ^= 1
        });
    }),
    ("HLS-APPEND-ONLY", |s| {
        let mut lists = s.lists("v360");
        let before = lists[0].answer.body.clone();
        lists.pop().expect("some").answer.body = before;
    }),
    ("HLS-REFRESH", |s| {
        let late = s.0.len() / 2;
        for seen in &mut s.0[late..] {
            seen.asked_us += 20_000_000;
            seen.answered_us += 20_000_000;
        }
    }),
    ("HLS-WINDOW", |s| newest(s, |t| keep(t, 2))),
    ("HLS-WINDOW-SIX", |s| newest(s, |t| keep(t, 5))),
    ("HLS-REMOVED-AVAILABLE", |s| {
        fail(s, |o| matches!(o.role, Role::Again { .. }), 404)
    }),
    ("HLS-ENDLIST", |s| {
        edit(s.lists("v360").remove(0), |t| {
            format!("{t}#EXT-X-ENDLIST\n")
        })
    }),
    ("HLS-PLAYLIST-TYPE", |s| {
        lists(s, |t| {
            t.replace("#EXT-X-MAP", "#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-MAP")
        })
    }),
    ("HLS-DISCONTINUITY-SEQUENCE", |s| {
        newest(s, |t| {
            t.replacen("#EXTINF", "#EXT-X-DISCONTINUITY\n#EXTINF", 1)
        })
    }),
    ("HLS-MAP", |s| newest(s, |t| without(t, "#EXT-X-MAP"))),
    ("HLS-INDEPENDENT-SEGMENTS", |s| {
        newest(s, |t| without(t, "#EXT-X-INDEPENDENT"))
    }),
    ("HLS-DATE", |s| newest(s, |t| without(t, "#EXT-X-PROGRAM"))),
    ("HLS-DATE-CONTINUOUS", |s| {
        newest(s, |t| t.replacen(".000Z", ".100Z", 1))
    }),
    ("HLS-DATE-MAPPING", |s| {
        for seen in s.lists("v180") {
            edit(seen, |t| t.replace(".000Z", ".100Z"));
        }
    }),
    ("HLS-ALIGNMENT", |s| segments(s, |b| shift(b, 3_000))),
    ("HLS-GAP", |s| {
        newest(s, |t| t.replacen("#EXTINF", "#EXT-X-GAP\n#EXTINF", 1))
    }),
    ("HLS-BANDWIDTH", |s| {
        multivariant(s, |t| set(t, "INF:BANDWIDTH=", "1000"))
    }),
    ("HLS-AVERAGE-BANDWIDTH", |s| {
        multivariant(s, |t| t.replace("AVERAGE-BANDWIDTH", "X-BANDWIDTH"))
    }),
    ("HLS-CODECS", |s| {
        multivariant(s, |t| t.replace("mp4a.40.2", "mp4a.40.5"))
    }),
    ("HLS-RESOLUTION", |s| {
        multivariant(s, |t| t.replace("x360", "x368"))
    }),
    ("HLS-FRAME-RATE", |s| {
        multivariant(s, |t| set(t, "FRAME-RATE=", "29.97"))
    }),
    ("HLS-GROUPS", |s| {
        multivariant(s, |t| t.replace("AUDIO=\"a96\"", "AUDIO=\"a97\""))
    }),
    ("HLS-MEDIA", |s| {
        multivariant(s, |t| t.replace("AUTOSELECT=YES", "AUTOSELECT=NO"))
    }),
    ("HLS-CHANNELS", |s| {
        multivariant(s, |t| t.replace("CHANNELS=\"2\"", "CHANNELS=\"6\""))
    }),
    ("HLS-CLOSED-CAPTIONS", |s| {
        multivariant(s, |t| t.replacen(",CLOSED-CAPTIONS=NONE", "", 1))
    }),
    ("LL-PART-TARGET", |s| {
        newest(s, |t| set(t, "PART-TARGET=", "0.4"))
    }),
    ("LL-PART-MAX", |s| {
        lists(s, |t| set(t, "PART-TARGET=", "0.3"))
    }),
    ("LL-PART-MIN", |s| {
        lists(s, |t| set(t, "PART-TARGET=", "0.5"))
    }),
    ("LL-PART-EVEN", |s| {
        lists(s, |t| set(t, "PART-TARGET=", "0.5"))
    }),
    ("LL-PART-MEDIA", |s| {
        lists(s, |t| t.replace(":DURATION=0.3", ":DURATION=0.2"))
    }),
    ("LL-PART-SUM", |s| {
        lists(s, |t| t.replacen(":DURATION=0.3", ":DURATION=0.2", 1))
    }),
    ("LL-PART-BYTES", |s| {
        media(
            s,
            |o| matches!(o.role, Role::Part { part: 1, .. }),
            |b| *b.last_mut().expect("some") ^= 1,
        );
    }),
    ("LL-PART-INDEPENDENT", |s| {
        lists(s, |t| t.replace(".1.m4s\"\n", ".1.m4s\",INDEPENDENT=YES\n"))
    }),
    ("LL-PART-UNMARKED", |s| {
        lists(s, |t| t.replace(",INDEPENDENT=YES", ""))
    }),
    ("LL-SERVER-CONTROL", |s| {
        newest(s, |t| t.replace("CAN-BLOCK-RELOAD=YES,", ""))
    }),
    ("LL-PART-HOLD-BACK", |s| {
        lists(s, |t| set(t, "PART-HOLD-BACK=", "0.5"))
    }),
    ("LL-HOLD-BACK", |s| {
        lists(s, |t| set(t, ",HOLD-BACK=", "4.0"))
    }),
    ("LL-SKIP-UNTIL", |s| {
        lists(s, |t| set(t, "CAN-SKIP-UNTIL=", "10.0"))
    }),
    ("LL-BLOCKING", |s| {
        let mut lists = s.lists("v360");
        let before = lists[0].answer.body.clone();
        lists.pop().expect("some").answer.body = before;
    }),
    ("LL-BLOCKING-TIME", |s| {
        s.lists("v360").pop().expect("some").answered_us += 20_000_000
    }),
    ("LL-PART-ALONE", |s| {
        fail(s, is_probe(&Probe::PartAlone), 200)
    }),
    ("LL-TOO-FAR", |s| fail(s, is_probe(&Probe::TooFar), 200)),
    ("LL-DELTA", |s| {
        for seen in s.all(|o| o.role == Role::Delta) {
            edit(seen, |t| bump(t, "MEDIA-SEQUENCE:", 1));
        }
    }),
    ("LL-DELTA-SKIPS", |s| {
        let whole = s.lists("a96").pop().expect("some").answer.body.clone();
        for seen in s.all(|o| o.role == Role::Delta) {
            seen.answer.body = whole.clone();
        }
    }),
    ("LL-SKIP-V2", |s| fail(s, is_probe(&Probe::SkipV2), 400)),
    ("LL-HINT", |s| {
        lists(s, |t| t.replace("TYPE=PART,URI=\"", "TYPE=PART,URI=\"9"))
    }),
    ("LL-HINT-ANSWER", |s| fail(s, |o| o.role == Role::Hint, 404)),
    ("LL-RENDITION-REPORT", |s| {
        lists(s, |t| set(t, "LAST-MSN=", "1"))
    }),
    ("CMAF-INIT", |s| inits(s, |b| rename(b, b"ftyp", b"free"))),
    ("CMAF-INIT-BRANDS", |s| {
        inits(s, |b| {
            rename(b, b"cmf2", b"none");
            rename(b, b"cmfc", b"none");
        })
    }),
    ("CMAF-ONE-TRACK", |s| inits(s, double_track)),
    ("CMAF-NO-SAMPLES", |s| {
        inits(s, |b| {
            let at = after(b, b"stsz");
            b[at + 4..at + 12].copy_from_slice(&[0, 0, 0, 9, 0, 0, 0, 1]);
        })
    }),
    ("CMAF-MVEX", |s| inits(s, |b| rename(b, b"mvex", b"free"))),
    ("CMAF-SEGMENT-BRANDS", |s| {
        segments(s, |b| rename(b, b"cmfs", b"none"))
    }),
    ("CMAF-FRAGMENT", |s| {
        segments(s, |b| b.truncate(b.len() - 1))
    }),
    ("CMAF-ONE-TRUN", |s| {
        segments(s, |b| {
            let at = after(b, b"tfhd");
            b[at + 7] = 7;
        })
    }),
    ("CMAF-BASE-IS-MOOF", |s| {
        segments(s, |b| {
            let at = after(b, b"tfhd");
            b[at + 1] = 0;
        })
    }),
    ("CMAF-DATA", |s| {
        segments(s, |b| {
            let at = after(b, b"trun");
            b[at + 11] ^= 1;
        })
    }),
    ("CMAF-TFDT", |s| {
        segments(s, |b| rename(b, b"tfdt", b"free"))
    }),
    ("CMAF-TFDT-WIDE", |s| {
        segments(s, |b| {
            let at = after(b, b"tfdt");
            b[at] = 0;
        })
    }),
    ("CMAF-CONTINUITY", |s| {
        let mut one = s.all(|o| o.rendition == "v180" && matches!(o.role, Role::Segment { .. }));
        patch(one.remove(3), |b| shift(b, 1));
    }),
    ("CMAF-SYNC", |s| {
        segments(s, |b| {
            let at = after(b, b"trun");
            let flags = at + after(&b[at..], &[2, 0, 0, 0]) - 4;
            b[flags..flags + 4].copy_from_slice(&[1, 1, 0, 0]);
        })
    }),
    ("CMAF-FIRST-TIME", |s| {
        segments(s, |b| {
            let at = first_offset(b);
            b[at + 3] = 9;
        })
    }),
    ("CMAF-SWITCHING", |s| {
        inits(s, |b| {
            let at = after(b, b"mdhd");
            let scale = at + after(&b[at..], &90_000_u32.to_be_bytes()) - 4;
            b[scale..scale + 4].copy_from_slice(&45_000_u32.to_be_bytes());
        })
    }),
    ("GRID-NUMBER", |s| {
        lists(s, |t| bump(t, "MEDIA-SEQUENCE:", 1));
        for seen in s.all(|o| matches!(o.role, Role::Segment { .. })) {
            if let Role::Segment { msn } = &mut seen.role {
                *msn += 1;
            }
        }
    }),
    ("GRID-START", |s| segments(s, |b| shift(b, 12_000))),
    ("DASH-AVAILABLE", |s| fail(s, |o| o.role == Role::Mpd, 404)),
    ("DASH-XML", |s| mpds(s, |t| t.replace("</MPD>", ""))),
    ("DASH-ATTRIBUTES", |s| {
        mpds(s, |t| t.replace(" bandwidth=", " width2="))
    }),
    ("DASH-START-FIXED", |s| {
        second_mpd(s, |t| {
            t.replace("1970-01-01T00:00:02Z", "1970-01-01T00:00:04Z")
        })
    }),
    ("DASH-PUBLISH-TIME", |s| {
        let first = s.all(|o| o.role == Role::Mpd).remove(0).answer.body.clone();
        let second = s.all(|o| o.role == Role::Mpd).remove(1);
        second.answer.body = first;
        edit(second, |t| {
            t.replace("minBufferTime=\"PT2S\"", "minBufferTime=\"PT3S\"")
        });
    }),
    ("DASH-UTC-TIMING", |s| {
        mpds(s, |t| t.replace("UTCTiming", "Metrics"))
    }),
    ("DASH-EDGE", |s| {
        fail(
            s,
            |o| matches!(o.role, Role::DashSegment { edge: true, .. }),
            404,
        )
    }),
    ("DASH-WINDOW", |s| {
        fail(
            s,
            |o| matches!(o.role, Role::DashSegment { edge: false, .. }),
            404,
        )
    }),
    ("DASH-SEGMENT-TIME", |s| {
        mpds(s, |t| set(t, "presentationTimeOffset=\"", "4000"))
    }),
    ("DASH-BANDWIDTH", |s| {
        mpds(s, |t| set(t, " bandwidth=\"", "1000"))
    }),
    ("DASH-CODECS", |s| {
        mpds(s, |t| set(t, " codecs=\"", "avc1.42E01E"))
    }),
    ("DASH-LATENCY", |s| {
        mpds(s, |t| set(t, " target=\"", "200"));
    }),
    ("DASH-CHUNK-OFFSET", |s| {
        mpds(s, |t| set(t, "availabilityTimeOffset=\"", "1.9"));
    }),
    ("DASH-REFERENCE-TIME", |s| {
        mpds(s, |t| set(t, "wallClockTime=\"", "1970-01-01T01:00:02Z"));
    }),
    ("DASH-PRFT", |s| {
        segments(s, |b| rename(b, b"prft", b"free"))
    }),
    ("DASH-RESYNC", |s| mpds(s, |t| set(t, " dT=\"", "100"))),
    ("DASH-GROWING", |s| {
        for seen in s.all(|o| matches!(o.role, Role::DashSegment { edge: true, .. })) {
            seen.begun_us += 2_000_000;
        }
    }),
    ("DASH-SAME-BYTES", |s| {
        for seen in s.all(|o| matches!(o.role, Role::DashSegment { .. })) {
            seen.url.push_str("?copy");
            patch(seen, |b| *b.last_mut().expect("some") ^= 1);
        }
    }),
    ("DASH-END", |s| {
        for rendition in ["v360", "v180", "a96"] {
            edit(s.lists(rendition).pop().expect("some"), |t| {
                format!("{t}#EXT-X-ENDLIST\n")
            });
        }
    }),
    ("HTTP-CONTENT-TYPE", |s| {
        header(s, is_segment, "content-type", Some("text/html"))
    }),
    ("HTTP-CACHE-MEDIA", |s| {
        header(s, is_segment, "cache-control", Some("max-age=1"))
    }),
    ("HTTP-CACHE-MANIFEST", |s| {
        header(
            s,
            |o| o.role == Role::Mpd,
            "cache-control",
            Some("max-age=60"),
        )
    }),
    ("HTTP-CACHE-ERROR", |s| {
        header(s, is_probe(&Probe::FarFuture), "cache-control", None)
    }),
    ("HTTP-ETAG", |s| header(s, is_segment, "etag", None)),
    ("HTTP-NOT-MODIFIED", |s| {
        fail(s, is_probe(&Probe::NotModified { tag: String::new() }), 200)
    }),
    ("HTTP-RANGE", |s| {
        fail(
            s,
            |o| matches!(o.role, Role::Probe(Probe::Range { .. })),
            200,
        )
    }),
    ("HTTP-CORS", |s| {
        header(
            s,
            is_probe(&Probe::FarFuture),
            "access-control-allow-origin",
            None,
        )
    }),
    ("HTTP-GZIP", |s| {
        header(s, is_probe(&Probe::Gzip), "content-encoding", None)
    }),
    ("HTTP-MEDIA-PLAIN", |s| {
        header(s, is_segment, "content-encoding", Some("gzip"))
    }),
    ("HTTP-HEAD", |s| {
        header(
            s,
            |o| matches!(o.role, Role::Probe(Probe::Head { .. })),
            "content-length",
            None,
        )
    }),
    ("HTTP-OPTIONS", |s| fail(s, is_probe(&Probe::Options), 405)),
    ("HTTP-NOT-FOUND", |s| {
        fail(s, is_probe(&Probe::FarFuture), 200)
    }),
];

/// The last MPD of a live broadcast that its source cuts.
fn last_mpd(shown: &mut Shown, change: impl Fn(&str) -> String) {
    let mut live = shown.all(|seen| seen.role == Role::Mpd && text(seen).contains("dynamic"));
    edit(live.pop().expect("some"), change);
}

fn text(seen: &Observation) -> String {
    String::from_utf8_lossy(&seen.answer.body).into_owned()
}

/// `text` with `start` as the start of its second period.
fn move_period(text: &str, start: &str) -> String {
    let Some((before, after)) = text.split_once("  </Period>") else {
        return text.to_owned();
    };
    let after = set(after, " start=\"", start);
    format!("{before}  </Period>{after}")
}

/// Rules that apply where the source cuts, and how to break them there; and others that could be missed there.
const CUT_BREAKS: &[Break] = &[
    ("HLS-DISCONTINUITY-MATCH", |s| {
        for seen in s.lists("v180") {
            edit(seen, |t| without(t, "#EXT-X-DISCONTINUITY"));
        }
    }),
    ("HLS-DISCONTINUITY", |s| {
        lists(s, |t| t.replace("#EXT-X-DISCONTINUITY\n", ""))
    }),
    ("HLS-DISCONTINUITY-SEQUENCE", |s| {
        lists(s, |t| set(t, "DISCONTINUITY-SEQUENCE:", "0"))
    }),
    ("HLS-TARGETDURATION", |s| {
        lists(s, |t| t.replace("EXTINF:4.000000", "EXTINF:4.600000"))
    }),
    ("HLS-TARGETDURATION-FIXED", |s| {
        newest(s, |t| set(t, "TARGETDURATION:", "5"))
    }),
    ("HLS-DATE-CONTINUOUS", |s| {
        lists(s, |t| t.replace("EXTINF:4.000000", "EXTINF:3.900000"))
    }),
    ("HLS-MEDIA-SEQUENCE", |s| {
        newest(s, |t| bump(t, "MEDIA-SEQUENCE:", 1))
    }),
    ("CMAF-CONTINUITY", |s| {
        let mut one = s.all(|o| o.rendition == "v180" && matches!(o.role, Role::Segment { .. }));
        patch(one.remove(3), |b| shift(b, 1));
    }),
    ("CMAF-SYNC-ALL", |s| {
        segments(s, |b| {
            let at = after(b, b"trun");
            let flags = at + after(&b[at..], &[2, 0, 0, 0]) - 4;
            b[flags..flags + 4].copy_from_slice(&[1, 1, 0, 0]);
        })
    }),
    ("DASH-EDGE", |s| {
        fail(
            s,
            |o| matches!(o.role, Role::DashSegment { edge: true, .. }),
            404,
        )
    }),
    ("DASH-TIMELINE", |s| {
        mpds(s, |t| t.replace(" d=\"180000\"", " d=\"190000\""))
    }),
    ("DASH-TIMELINE-WHOLE", |s| {
        mpds(s, |t| t.replace(" d=\"180000\"", " d=\"170000\""))
    }),
    ("DASH-TIMELINE-STABLE", |s| {
        last_mpd(s, |t| t.replace(" d=\"180000\"", " d=\"179999\""))
    }),
    ("DASH-TIMELINE-MEDIA", |s| {
        for seen in s.all(|o| matches!(o.role, Role::DashSegment { .. })) {
            seen.url.push_str("?copy");
            patch(seen, |b| shift(b, 12_000));
        }
    }),
    ("DASH-PERIODS", |s| {
        last_mpd(s, |t| set(t, " start=\"", "PT9S"))
    }),
    ("DASH-PERIOD-MEDIA", |s| {
        mpds(s, |t| set(t, "S\" duration=\"", "PT1S"))
    }),
    ("DASH-PERIOD-TIME", |s| {
        mpds(s, |t| move_period(t, "PT1795200010S"))
    }),
];

#[test]
fn nothing_is_found_in_what_a_source_cuts_and_changes() {
    for low_latency in [true, false] {
        let report = Shown::cut(&ENCODED, low_latency).report();
        assert!(report.findings.is_empty(), "{report}");
        for (id, _) in CUT_BREAKS {
            assert!(report.checks.contains_key(id), "never checked: {id}");
        }
        let of_the_grid = ["GRID-NUMBER", "GRID-START", "HLS-INDEPENDENT-SEGMENTS"];
        assert!(of_the_grid.iter().all(|id| !report.checks.contains_key(id)));
    }
}

#[test]
fn nothing_is_found_in_what_is_whole_and_every_rule_is_checked() {
    let report = FILM.report();
    assert!(report.findings.is_empty(), "{report}");
    let unchecked: Vec<_> = RULES
        .iter()
        .filter(|r| !report.checks.contains_key(r.id))
        .collect();
    // These apply to what a whole broadcast of ours does not have, or only at its end.
    let rare = ["HLS-ENDLIST", "HLS-DISCONTINUITY-SEQUENCE", "DASH-END"];
    let rare = rare.into_iter().chain(CUT_BREAKS.iter().map(|(id, _)| *id));
    let rare: Vec<_> = rare.collect();
    let unchecked: Vec<_> = unchecked
        .iter()
        .filter(|r| !rare.contains(&r.id))
        .map(|r| r.id)
        .collect();
    assert!(unchecked.is_empty(), "never checked: {unchecked:?}");
}

#[test]
fn every_breakage_is_named() {
    let mut unnamed = Vec::new();
    let whole = BREAKS.iter().map(|damage| (&FILM, damage));
    let cut = CUT_BREAKS.iter().map(|damage| (&CUT, damage));
    for (shown, (id, damage)) in whole.chain(cut) {
        let mut shown = Shown::clone(shown);
        damage(&mut shown);
        let report = shown.report();
        if report.findings.iter().all(|finding| finding.rule != *id) {
            let found: BTreeSet<_> = report.findings.iter().map(|finding| finding.rule).collect();
            unnamed.push(format!("{id}: named were {found:?}"));
        }
    }
    assert!(unnamed.is_empty(), "{}", unnamed.join("\n"));
}

#[test]
fn every_rule_is_broken_once() {
    let all = BREAKS.iter().chain(CUT_BREAKS);
    let broken: BTreeSet<_> = all.map(|(id, _)| *id).collect();
    let rules: BTreeSet<_> = RULES.iter().map(|rule| rule.id).collect();
    assert_eq!(broken, rules);
}

#[test]
fn the_list_in_the_documentation_is_the_catalogue() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/inspect.md");
    let text = std::fs::read_to_string(&path).expect("docs/inspect.md");
    let (head, _) = text.split_once("| Rule |").expect("a table");
    let mut table = "| Rule | Level | Clause | Asks |\n|---|---|---|---|\n".to_owned();
    for rule in RULES {
        let level = rule.level.to_string();
        table += &format!(
            "| `{}` | {level} | {} | {} |\n",
            rule.id,
            rule.spec.replace('[', "`[").replace(']', "]`"),
            rule.asks
        );
    }
    if std::env::var_os("HEADWATER_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, format!("{head}{table}")).expect("written");
        return;
    }
    assert!(
        text == format!("{head}{table}"),
        "docs/inspect.md is not the catalogue; run `make golden`"
    );
}

fn inspect(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    command.arg("inspect").args(arguments);
    common::run(command, Duration::from_secs(90))
}

/// Everything that was shown, as files.
fn store(shown: &Shown, folder: &Path) {
    for seen in &shown.0 {
        let path = seen.url.strip_prefix("http://origin/").expect("below");
        if path.contains('?') || matches!(seen.role, Role::Delta | Role::Clock | Role::Probe(_)) {
            continue;
        }
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().expect("below")).expect("folder");
        std::fs::write(path, &seen.answer.body).expect("file");
    }
}

#[test]
fn a_stored_folder_is_inspected_and_the_exit_code_tells() {
    let folder = tempfile::tempdir().expect("folder");
    store(&FILM, folder.path());
    let path = folder.path().to_str().expect("a name");
    let (code, out, err) = inspect(&[path]);
    assert_eq!(code, 0, "{out}{err}");
    let list = folder.path().join("live/film/v180/index.m3u8");
    let text = std::fs::read_to_string(&list).expect("read");
    std::fs::write(&list, set(&text, "TARGETDURATION:", "1")).expect("written");
    let (code, out, _) = inspect(&[&format!("{path}/live/film"), "--json"]);
    assert_eq!(code, 1, "{out}");
    let report: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let rules = report["findings"].as_array().expect("a list");
    assert!(
        rules.iter().any(|f| f["rule"] == "HLS-TARGETDURATION"),
        "{out}"
    );
}

#[test]
fn wrong_arguments_are_told_from_broken_rules() {
    for arguments in [
        &["https://example.invalid/live/x"][..],
        &["/nowhere/at/all"],
        &["http://127.0.0.1:1/live/x", "--for", "soon"],
        &[],
    ] {
        assert_eq!(inspect(arguments).0, 2, "{arguments:?}");
    }
}

/// Whether something is found, and all of it only says that something came late.
fn only_of_time(report: &str) -> bool {
    let report: serde_json::Value = serde_json::from_str(report).expect("JSON");
    let late = [
        "DASH-EDGE",
        "DASH-GROWING",
        "HLS-REFRESH",
        "LL-BLOCKING-TIME",
    ]
    .map(serde_json::Value::from);
    let findings = report["findings"].as_array().expect("a list");
    !findings.is_empty()
        && findings
            .iter()
            .all(|finding| late.contains(&finding["rule"]))
}

#[test]
fn the_real_server_breaks_no_rule_while_live_and_in_its_store() {
    breaks_no_rule("true");
}

#[test]
fn the_real_server_breaks_no_rule_with_the_least_latency() {
    breaks_no_rule("\"ultra\"");
}

fn breaks_no_rule(low_latency: &str) {
    let folder = tempfile::tempdir().expect("folder");
    let config = folder.path().join("config.toml");
    let text = format!("[package]\nlow_latency = {low_latency}\n");
    std::fs::write(&config, text).expect("written");
    let config = config.to_string_lossy();
    let ladder = common::small_ladder();
    let server = common::Server::start(&["--demo", "--config", &config, "--ladder", &ladder]);
    server.wait_for("/live/demo/manifest.mpd", Duration::from_secs(60));
    let live = || inspect(&[&server.url("/live/demo"), "--for", "8s", "--json"]);
    let (mut code, mut out, mut err) = live();
    if only_of_time(&out) {
        // The machine was busy for a moment; that it stays so would be a finding.
        (code, out, err) = live();
    }
    let report: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert!(
        code == 0 && report["findings"] == serde_json::json!([]),
        "{out}{err}"
    );
    let (code, stored, _) = inspect(&[server.store.path().to_str().expect("a name")]);
    assert_eq!(code, 0, "{stored}");
}
