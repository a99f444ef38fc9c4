//! Rules of HTTP: what every answer says about itself.
//!
//! Enters: answers with header lines; files have none and are passed over
//! Leaves: findings
//! Never:  what is in a body, but for whether a manifest has ended
//! Time:   whole seconds, as Cache-Control counts
//! Spec:   [RFC9110], [RFC9111], [FETCH], [HLS] §6.2

use super::findings::{Findings, Place};
use super::inspector::Book;
use super::low_latency;
use super::media::file;
use super::observation::{Answer, Observation, Probe, Role};
use super::rules::{self, Rule};

/// Seconds that media may be cached at least: a window.
const MIN_MEDIA_AGE_S: u64 = 60;
/// Seconds that an error may be cached at most.
const MAX_ERROR_AGE_S: u64 = 10;
/// Below this, compressing is not worth its headers.
const MIN_COMPRESSED_BYTES: usize = 1_000;

/// What kind of thing an answer is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Playlist,
    Mpd,
    Media,
    Other,
}

fn kind(seen: &Observation) -> Kind {
    match &seen.role {
        Role::Multivariant | Role::Media | Role::Blocking { .. } | Role::Delta => Kind::Playlist,
        Role::Mpd => Kind::Mpd,
        Role::Init
        | Role::Segment { .. }
        | Role::Part { .. }
        | Role::Hint
        | Role::DashInit
        | Role::DashSegment { .. }
        | Role::Again { .. } => Kind::Media,
        Role::Clock | Role::Probe(_) => Kind::Other,
    }
}

fn place(seen: &Observation) -> Place {
    let object = match &seen.role {
        Role::Media => "playlist".to_owned(),
        Role::Blocking { .. } => "blocking reload".to_owned(),
        Role::Delta => "delta update".to_owned(),
        Role::Probe(Probe::PartAlone) => "_HLS_part alone".to_owned(),
        Role::Probe(Probe::TooFar) => "_HLS_msn far ahead".to_owned(),
        Role::Probe(Probe::SkipV2) => "_HLS_skip=v2".to_owned(),
        _ => file(&seen.url).to_owned(),
    };
    Place::new(&seen.rendition, object)
}

/// What holds for every answer.
pub(super) fn observe(findings: &mut Findings, book: &Book, seen: &Observation) {
    let answer = &seen.answer;
    if answer.headers.is_none() {
        return;
    }
    let place = place(seen);
    let origin = answer.header("access-control-allow-origin");
    findings.check(&rules::HTTP_CORS, origin.is_some(), &place, || {
        (
            format!("status {} without", answer.status),
            "Access-Control-Allow-Origin".to_owned(),
        )
    });
    if answer.status >= 400 {
        let age = max_age(answer);
        let good = age.is_some_and(|age| age <= MAX_ERROR_AGE_S);
        findings.check(&rules::HTTP_CACHE_ERROR, good, &place, || {
            (cache_words(answer), format!("at most {MAX_ERROR_AGE_S} s"))
        });
    }
    if let Role::Probe(probe) = &seen.role {
        asked(findings, &place, probe, answer);
    }
    if answer.is_ok() {
        found(findings, &place, book, seen);
    }
}

fn found(findings: &mut Findings, place: &Place, book: &Book, seen: &Observation) {
    let (answer, kind) = (&seen.answer, kind(seen));
    if kind == Kind::Other {
        return;
    }
    content_type(findings, place, kind, answer);
    // What still grows has no tag of its bytes, nor a length.
    let grows = matches!(seen.role, Role::DashSegment { edge: true, .. })
        && answer.header("content-length").is_none();
    let tagged = grows || answer.header("etag").is_some();
    findings.check(&rules::HTTP_ETAG, tagged, place, || {
        ("no ETag".to_owned(), "one".to_owned())
    });
    let age = max_age(answer);
    if kind == Kind::Media {
        let control = answer.header("cache-control").unwrap_or_default();
        let good = age.is_some_and(|age| age >= MIN_MEDIA_AGE_S) && control.contains("immutable");
        findings.check(&rules::HTTP_CACHE_MEDIA, good, place, || {
            (
                cache_words(answer),
                format!("{MIN_MEDIA_AGE_S} s or more, immutable"),
            )
        });
        let coding = answer.header("content-encoding");
        findings.check(&rules::HTTP_MEDIA_PLAIN, coding.is_none(), place, || {
            (format!("{coding:?}"), "no Content-Encoding".to_owned())
        });
    } else if matches!(seen.role, Role::Media | Role::Mpd) && !has_ended(kind, answer) {
        let targets = book
            .renditions
            .values()
            .filter_map(super::inspector::Rendition::target_us);
        let target_s = targets
            .max()
            .and_then(|us| u64::try_from(us / 1_000_000).ok());
        let most = (target_s.unwrap_or(2) / 2).max(1);
        findings.check(
            &rules::HTTP_CACHE_MANIFEST,
            age.is_some_and(|age| age <= most),
            place,
            || (cache_words(answer), format!("at most {most} s")),
        );
    }
}

fn content_type(findings: &mut Findings, place: &Place, kind: Kind, answer: &Answer) {
    let said = answer.header("content-type").unwrap_or_default();
    let said = said.split(';').next().unwrap_or_default().trim();
    let expected: &[&str] = match kind {
        Kind::Playlist => &["application/vnd.apple.mpegurl", "audio/mpegurl"],
        Kind::Mpd => &["application/dash+xml"],
        _ => &[
            "video/mp4",
            "audio/mp4",
            "application/mp4",
            "video/iso.segment",
            "audio/iso.segment",
        ],
    };
    let good = expected
        .iter()
        .any(|known| known.eq_ignore_ascii_case(said));
    findings.check(&rules::HTTP_CONTENT_TYPE, good, place, || {
        (said.to_owned(), expected.join(" or "))
    });
}

fn has_ended(kind: Kind, answer: &Answer) -> bool {
    let text = String::from_utf8_lossy(&answer.body);
    match kind {
        Kind::Playlist => text.lines().any(|line| line == "#EXT-X-ENDLIST"),
        _ => !text.contains("minimumUpdatePeriod"),
    }
}

/// For how many seconds a shared cache may keep an answer; `None` if it does not say.
fn max_age(answer: &Answer) -> Option<u64> {
    let control = answer.header("cache-control")?.to_ascii_lowercase();
    let directives = || control.split(',').map(str::trim);
    if directives().any(|d| d == "no-store" || d == "no-cache") {
        return Some(0);
    }
    let value = |name: &str| directives().find_map(|d| d.strip_prefix(name)?.parse().ok());
    value("s-maxage=").or_else(|| value("max-age="))
}

fn cache_words(answer: &Answer) -> String {
    format!(
        "Cache-Control: {}",
        answer.header("cache-control").unwrap_or("(none)")
    )
}

/// Answers to questions that no player asks in this form.
fn asked(findings: &mut Findings, place: &Place, probe: &Probe, answer: &Answer) {
    let status = answer.status;
    let words = |expected: &str| (format!("status {status}"), expected.to_owned());
    match probe {
        Probe::NotModified { tag } => {
            let changed = status == 200 && answer.header("etag").is_some_and(|now| now != tag);
            findings.check(
                &rules::HTTP_NOT_MODIFIED,
                status == 304 || changed,
                place,
                || words("304"),
            );
        }
        Probe::Range { expected } => {
            let span = answer.header("content-range").unwrap_or_default();
            let good = status == 206 && answer.body == *expected && span.starts_with("bytes 0-");
            findings.check(&rules::HTTP_RANGE, good, place, || {
                let length = answer.body.len();
                let found = format!("status {status}, {length} bytes, Content-Range {span:?}");
                (
                    found,
                    format!("206 with the first {} bytes", expected.len()),
                )
            });
        }
        Probe::Gzip if answer.is_ok() => {
            let coding = answer.header("content-encoding").unwrap_or_default();
            if coding.is_empty() && answer.body.len() < MIN_COMPRESSED_BYTES {
                return;
            }
            let vary = answer
                .header("vary")
                .unwrap_or_default()
                .to_ascii_lowercase();
            let good = coding == "gzip" && (vary.contains("accept-encoding") || vary == "*");
            findings.check(&rules::HTTP_GZIP, good, place, || {
                (
                    format!("Content-Encoding {coding:?}, Vary {vary:?}"),
                    "gzip, Accept-Encoding".to_owned(),
                )
            });
        }
        Probe::Gzip => {}
        Probe::FarFuture => {
            findings.check(&rules::HTTP_NOT_FOUND, status == 404, place, || {
                words("404")
            });
        }
        Probe::PartAlone => {
            findings.check(&rules::LL_PART_ALONE, status == 400, place, || words("400"));
        }
        Probe::TooFar => {
            findings.check(&rules::LL_TOO_FAR, status == 400, place, || words("400"));
        }
        Probe::SkipV2 => low_latency::skip_v2(findings, place, answer),
        Probe::Head {
            content_type,
            length,
        } => head(findings, place, (content_type, length), answer),
        Probe::Options => preflight(findings, place, answer),
    }
}

/// HEAD of what GET was answered with this content type and this length.
fn head(
    findings: &mut Findings,
    place: &Place,
    (content_type, length): (&Option<String>, &Option<String>),
    answer: &Answer,
) {
    let status = answer.status;
    let (kind, long) = (
        answer.header("content-type"),
        answer.header("content-length"),
    );
    let same = kind == content_type.as_deref() && (length.is_none() || long == length.as_deref());
    let good = status == 200 && answer.body.is_empty() && same;
    findings.check(&rules::HTTP_HEAD, good, place, || {
        (
            format!("status {status}, type {kind:?}, length {long:?}"),
            format!("200, type {content_type:?}, length {length:?}"),
        )
    });
}

/// What a browser asks before a page from elsewhere may ask for a range.
fn preflight(findings: &mut Findings, place: &Place, answer: &Answer) {
    let status = answer.status;
    let list = |name| answer.header(name).unwrap_or_default().to_ascii_lowercase();
    let (methods, headers) = (
        list("access-control-allow-methods"),
        list("access-control-allow-headers"),
    );
    // GET is allowed without being named.
    let may_get = methods.is_empty() || methods.contains("get") || methods.contains('*');
    let may_range = headers.contains("range") || headers.contains('*');
    let good = (200..300).contains(&status) && may_get && may_range;
    findings.check(&rules::HTTP_OPTIONS, good, place, || {
        (
            format!("status {status}, methods {methods:?}, headers {headers:?}"),
            "2xx, GET, Range".to_owned(),
        )
    });
}

/// Whether there is something to look into; what must be there and is not is named.
pub(super) fn is_available(findings: &mut Findings, book: &Book, seen: &Observation) -> bool {
    let ok = seen.answer.is_ok();
    let rule: &'static Rule = match &seen.role {
        // Whether a hint had to be answered shows later.
        Role::Hint => return true,
        Role::Probe(_) => return false,
        Role::Again { may_be_gone: true } => return ok,
        Role::Again { .. } => &rules::HLS_REMOVED_AVAILABLE,
        Role::Clock => &rules::DASH_UTC_TIMING,
        Role::DashSegment { edge: true, .. } => &rules::DASH_EDGE,
        // A young broadcast has less than the window announces; what HLS lists must be there.
        Role::DashSegment { .. } if !book.lists(&seen.url) => return ok,
        Role::DashSegment { .. } => &rules::DASH_WINDOW,
        Role::Mpd | Role::DashInit => &rules::DASH_AVAILABLE,
        _ => &rules::HLS_AVAILABLE,
    };
    findings.check(rule, ok, &place(seen), || {
        (format!("status {}", seen.answer.status), "200".to_owned())
    });
    ok
}
