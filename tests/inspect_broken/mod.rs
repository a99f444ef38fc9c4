//! A broadcast of the real packager as a player sees it, and ways to break it.
//!
//! Enters: the film
//! Leaves: observations of a low-latency broadcast of fourteen segments while it slides, and tools to damage
//! texts, boxes and header lines in them
//! Never:  network
//! Time:   the epoch timeline; a snapshot every 100 ms

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use headwater::inspect::check::mpd::parse as parse_mpd;
use headwater::inspect::check::playlist::parse_media;
use headwater::inspect::check::{Answer, Inspector, Observation, Probe, Report, Role, join};
use headwater::package::{Config, Output, Snapshot, dash, hls};

use crate::package_film::Film;

/// The number of the first segment.
pub(crate) const FIRST: u64 = 897_600_000;
/// Where the broadcast is.
pub(crate) const BASE: &str = "http://origin/live/film/";

/// Everything that was asked and answered.
#[derive(Clone)]
pub(crate) struct Shown(pub(crate) Vec<Observation>);

struct Camera {
    objects: BTreeMap<String, Bytes>,
    names: Vec<String>,
    seen: Vec<Observation>,
    fetched: Vec<String>,
    now_us: i64,
}

/// The headers of an answer as the server gives them.
pub(crate) fn headers(content_type: &str, cache: &str) -> Option<Vec<(String, String)>> {
    let lines = [
        ("content-type", content_type),
        ("cache-control", cache),
        ("etag", "\"tag\""),
        ("access-control-allow-origin", "*"),
        ("vary", "Accept-Encoding"),
    ];
    Some(
        lines
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
    )
}

const HLS: &str = "application/vnd.apple.mpegurl";
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

impl Camera {
    fn new(film: &Film, objects: BTreeMap<String, Bytes>, now_us: i64) -> Self {
        Self {
            objects,
            names: film.renditions.iter().map(|r| r.name.to_string()).collect(),
            seen: Vec::new(),
            fetched: Vec::new(),
            now_us,
        }
    }

    /// An MPD, and the ends of every timeline in it.
    fn timelines(&mut self, text: &str) {
        self.text(Role::Mpd, "", "manifest.mpd", text.to_owned());
        let mpd = parse_mpd(text.as_bytes(), &join(BASE, "manifest.mpd"));
        for representation in &mpd.representations {
            let all = representation.timeline().expect("listed");
            let path = |url: Option<String>| {
                let url = url.expect("an address");
                url.strip_prefix(BASE).expect("below").to_owned()
            };
            let init = path(representation.init());
            self.object(Role::DashInit, &representation.id, &init);
            for (listed, edge) in [(all.last(), true), (all.first(), false)] {
                let number = listed.expect("some").number;
                let path = path(representation.media(number));
                let role = Role::DashSegment { number, edge };
                self.object(role, &representation.id, &path);
            }
        }
    }

    fn see(&mut self, role: Role, rendition: &str, url: &str, answer: Answer) {
        self.seen.push(Observation {
            role,
            rendition: rendition.to_owned(),
            url: join(BASE, url),
            asked_us: self.now_us,
            begun_us: self.now_us + 500,
            answered_us: self.now_us + 1_000,
            answer,
        });
    }

    fn text(&mut self, role: Role, rendition: &str, url: &str, text: String) {
        let kind = if role == Role::Mpd {
            "application/dash+xml"
        } else {
            HLS
        };
        let headers = headers(kind, "public, max-age=1");
        self.see(
            role,
            rendition,
            url,
            Answer {
                status: 200,
                headers,
                body: text.into(),
            },
        );
    }

    fn object(&mut self, role: Role, rendition: &str, path: &str) {
        let body = self
            .objects
            .get(path)
            .unwrap_or_else(|| panic!("{path}"))
            .clone();
        let answer = Answer {
            status: 200,
            headers: headers("video/mp4", IMMUTABLE),
            body,
        };
        self.see(role, rendition, path, answer);
    }

    /// One playlist, and all that it lists and was not fetched yet.
    fn playlist(&mut self, role: Role, rendition: &str, text: String) {
        let media = parse_media(text.as_bytes());
        self.text(role, rendition, &format!("{rendition}/index.m3u8"), text);
        let mut wanted = Vec::new();
        for segment in &media.segments {
            wanted.push((Role::Init, segment.map.clone().expect("a map")));
            wanted.extend(parts(segment.msn, &segment.parts));
            wanted.push((Role::Segment { msn: segment.msn }, segment.uri.clone()));
        }
        let open_map = media
            .open_map
            .clone()
            .filter(|_| !media.open_parts.is_empty());
        wanted.extend(open_map.map(|map| (Role::Init, map)));
        wanted.extend(parts(media.next_msn(), &media.open_parts));
        for (role, uri) in wanted {
            let path = format!("{rendition}/{uri}");
            if !self.fetched.contains(&path) {
                self.object(role, rendition, &path);
                self.fetched.push(path);
            }
        }
    }

    fn probes(&mut self, rendition: &str, path: &str) {
        let refusal = |status| {
            let headers = headers("text/plain", "public, max-age=1");
            Answer {
                status,
                headers,
                body: Bytes::new(),
            }
        };
        let url = format!("{rendition}/index.m3u8");
        let tag = "\"tag\"".to_owned();
        for (probe, status) in [
            (Probe::NotModified { tag }, 304),
            (Probe::FarFuture, 404),
            (Probe::PartAlone, 400),
            (Probe::TooFar, 400),
        ] {
            self.see(Role::Probe(probe), rendition, &url, refusal(status));
        }
        let whole = self.objects[path].clone();
        self.methods(rendition, path, whole.len());
        let expected = whole.slice(..100);
        let mut answer = Answer {
            body: expected.clone(),
            ..refusal(206)
        };
        let lines = answer.headers.as_mut().expect("lines");
        lines.push((
            "content-range".to_owned(),
            format!("bytes 0-99/{}", whole.len()),
        ));
        self.see(
            Role::Probe(Probe::Range { expected }),
            rendition,
            path,
            answer,
        );
        let mut answer = Answer {
            body: vec![0; 2_000].into(),
            ..refusal(200)
        };
        let lines = answer.headers.as_mut().expect("lines");
        lines.push(("content-encoding".to_owned(), "gzip".to_owned()));
        self.see(Role::Probe(Probe::Gzip), rendition, &url, answer);
    }

    fn methods(&mut self, rendition: &str, path: &str, length: usize) {
        let with = |status, lines: &[(&str, &str)]| {
            let mut headers = headers("video/mp4", IMMUTABLE);
            let own = lines
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
            headers.as_mut().expect("lines").extend(own);
            Answer {
                status,
                headers,
                body: Bytes::new(),
            }
        };
        let length = length.to_string();
        let head = Probe::Head {
            content_type: Some("video/mp4".to_owned()),
            length: Some(length.clone()),
        };
        let answer = with(200, &[("content-length", &length)]);
        self.see(Role::Probe(head), rendition, path, answer);
        let allow = [
            ("access-control-allow-methods", "GET, HEAD, OPTIONS"),
            ("access-control-allow-headers", "Range"),
        ];
        self.see(
            Role::Probe(Probe::Options),
            rendition,
            path,
            with(204, &allow),
        );
    }

    fn mpd(&mut self, snapshot: &Snapshot) {
        self.text(
            Role::Mpd,
            "",
            "manifest.mpd",
            dash::mpd::render(snapshot).expect("listed"),
        );
    }
}

fn parts(
    msn: u64,
    parts: &[headwater::inspect::check::playlist::Part],
) -> impl Iterator<Item = (Role, String)> + '_ {
    let numbered = parts.iter().zip(0..);
    numbered.map(move |(part, index)| (Role::Part { msn, part: index }, part.uri.clone()))
}

/// Objects by path, and every snapshot.
fn outputs(film: &Film, outputs: Vec<Output>) -> (BTreeMap<String, Bytes>, Vec<Arc<Snapshot>>) {
    let (mut objects, mut snapshots) = (BTreeMap::new(), Vec::new());
    let name = |index: usize| film.renditions[index].name.to_string();
    for output in outputs {
        let (path, payload) = match output {
            Output::InitSegment {
                rendition,
                period,
                payload,
            } => (format!("{}/init-{period}.mp4", name(rendition)), payload),
            Output::Segment {
                rendition,
                segment,
                payload,
                ..
            } => (format!("{}/{segment}.m4s", name(rendition)), payload),
            Output::Part {
                rendition,
                segment,
                part,
                payload,
                ..
            } => (format!("{}/{segment}.{part}.m4s", name(rendition)), payload),
            Output::WindowChanged(snapshot) => {
                snapshots.push(snapshot);
                continue;
            }
            _ => continue,
        };
        objects.insert(path, payload.to_bytes());
    }
    (objects, snapshots)
}

impl Shown {
    /// The broadcast from the moment its playlists slide, watched for four segments.
    pub(crate) fn film(film: &Film) -> Self {
        let config = Config {
            low_latency: true.into(),
            ..Config::default()
        };
        let (objects, snapshots) = outputs(film, film.package(&config, FIRST, 14));
        let live: Vec<_> = snapshots.iter().filter(|s| !s.is_ended()).collect();
        let full = live
            .iter()
            .position(|s| s.listed().end - s.listed().start >= 10);
        let watched = &live[full.expect("a full window")..];
        let now_us = i64::try_from(watched[0].listed().end * 2_000_000).expect("fits");
        let mut camera = Camera::new(film, objects, now_us);
        let text = hls::multivariant::render(watched[0]).expect("listed");
        camera.text(Role::Multivariant, "", "index.m3u8", text);
        for (nth, snapshot) in watched.iter().enumerate() {
            camera.watch(nth, snapshot);
            camera.now_us += 100_000;
        }
        camera.end(watched[0], watched[watched.len() - 1]);
        Self(camera.seen)
    }

    /// A broadcast that its source cuts and that changes once, from its second segment until its end, and the
    /// MPD with every segment.
    pub(crate) fn cut(film: &Film, low_latency: bool) -> Self {
        let config = Config {
            low_latency: low_latency.into(),
            window_segments: 6,
            ..Config::default()
        };
        let frames: [&[u64]; 2] = [&[60, 120, 60, 60, 120], &[60, 60, 120, 60, 60, 60, 120]];
        let (objects, snapshots) = outputs(film, film.package_cut(&config, FIRST, frames));
        let mut camera = Camera::new(film, objects, 0);
        let mut mpd = String::new();
        let listed = snapshots.iter().filter(|s| !s.listed().is_empty());
        for (nth, snapshot) in listed.enumerate() {
            let newest = snapshot.listed_segments(0).last().expect("listed");
            let end = newest.ends().to_wall().as_micros();
            camera.now_us = camera.now_us.max(end) + 1_000;
            if nth == 0 || snapshot.is_ended() {
                let text = hls::multivariant::render(snapshot).expect("listed");
                camera.text(Role::Multivariant, "", "index.m3u8", text);
            }
            camera.watch(nth, snapshot);
            if let Some(text) = dash::mpd::render(snapshot).filter(|text| *text != mpd) {
                camera.timelines(&text);
                mpd = text;
            }
        }
        Self(camera.seen)
    }

    /// Every observation for which `which` holds.
    pub(crate) fn all(&mut self, which: impl Fn(&Observation) -> bool) -> Vec<&mut Observation> {
        let found: Vec<_> = self.0.iter_mut().filter(|seen| which(seen)).collect();
        assert!(!found.is_empty(), "nothing to break");
        found
    }

    /// The observations in which media playlists of `rendition` came, in order.
    pub(crate) fn lists(&mut self, rendition: &str) -> Vec<&mut Observation> {
        self.all(|seen| {
            seen.rendition == rendition && matches!(seen.role, Role::Media | Role::Blocking { .. })
        })
    }

    /// What the inspector says.
    pub(crate) fn report(&self) -> Report {
        let mut inspector = Inspector::new();
        for seen in &self.0 {
            inspector.observe(seen);
        }
        inspector.finish()
    }
}

impl Camera {
    fn watch(&mut self, nth: usize, snapshot: &Snapshot) {
        for (index, name) in self.names.clone().iter().enumerate() {
            let text = hls::media::render(snapshot, index).expect("listed");
            let media = parse_media(text.as_bytes());
            let (next, open) = media.next_part();
            let low_latency = snapshot.presentation().config.low_latency.is_on();
            let role = match nth {
                _ if !low_latency || snapshot.is_ended() => Role::Media,
                0 => Role::Media,
                _ if open > 0 => Role::Blocking {
                    msn: next,
                    part: Some(open - 1),
                },
                _ => Role::Blocking {
                    msn: next - 1,
                    part: None,
                },
            };
            self.playlist(role, name, text);
            if nth % 7 == 3 && low_latency && !snapshot.is_ended() {
                let text = hls::media::render_delta(snapshot, index).expect("listed");
                let url = format!("{name}/index.m3u8");
                self.text(Role::Probe(Probe::SkipV2), name, &url, text.clone());
                self.text(Role::Delta, name, &url, text);
            }
            let hint = media.hint.map(|hint| format!("{name}/{hint}"));
            if let Some(hint) =
                hint.filter(|hint| nth.is_multiple_of(5) && self.objects.contains_key(hint))
            {
                self.object(Role::Hint, name, &hint);
            }
        }
    }

    fn end(&mut self, first: &Snapshot, last: &Snapshot) {
        self.mpd(first);
        self.now_us += 2_000_000;
        self.mpd(last);
        let now = self.now_us;
        let body = format!("{}", headwater::time::WallTime::from_micros(now));
        let headers = headers("text/plain", "no-store");
        self.see(
            Role::Clock,
            "",
            "/time",
            Answer {
                status: 200,
                headers,
                body: body.into(),
            },
        );
        for name in self.names.clone() {
            self.object(Role::DashInit, &name, &format!("{name}/init-{FIRST}.mp4"));
            for (number, edge) in [
                (last.listed().end - 1, true),
                (last.listed().start + 1, false),
            ] {
                let role = Role::DashSegment { number, edge };
                // The newest is asked for before it is whole.
                if edge {
                    let end = i64::try_from((number + 1) * 2_000_000).expect("fits");
                    self.now_us = end - 700_000;
                }
                self.object(role, &name, &format!("{name}/{number}.m4s"));
                self.now_us = now;
            }
            let path = format!("{name}/{}.m4s", first.listed().start);
            self.probes(&name, &path);
            self.object(Role::Again { may_be_gone: false }, &name, &path);
        }
    }
}

/// Replaces text in the body.
pub(crate) fn edit(seen: &mut Observation, edit: impl FnOnce(&str) -> String) {
    let text = String::from_utf8(seen.answer.body.to_vec()).expect("text");
    seen.answer.body = edit(&text).into();
}

/// Changes bytes of the body.
pub(crate) fn patch(seen: &mut Observation, patch: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = seen.answer.body.to_vec();
    patch(&mut bytes);
    seen.answer.body = bytes.into();
}

/// `text` with what follows each `name`, up to a comma, quote, blank or line end, replaced by `value`.
pub(crate) fn set(text: &str, name: &str, value: &str) -> String {
    let mut pieces = text.split(name);
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece.find([',', '"', '\n', ' ']).unwrap_or(piece.len());
        out.push_str(name);
        out.push_str(value);
        out.push_str(&piece[end..]);
    }
    out
}

/// `text` without the lines that begin with `start`.
pub(crate) fn without(text: &str, start: &str) -> String {
    let kept = text.lines().filter(|line| !line.starts_with(start));
    kept.map(|line| format!("{line}\n")).collect()
}

/// The number after `name`, moved by `by`.
pub(crate) fn bump(text: &str, name: &str, by: i64) -> String {
    let at = text.find(name).expect("there") + name.len();
    let end = text[at..].find('\n').expect("a line") + at;
    let number: i64 = text[at..end].parse().expect("a number");
    format!("{}{}{}", &text[..at], number + by, &text[end..])
}

/// The playlist with only its last `count` whole segments, numbered as they were.
pub(crate) fn keep(text: &str, count: usize) -> String {
    let starts: Vec<_> = text
        .match_indices("#EXT-X-PROGRAM-DATE-TIME")
        .map(|(at, _)| at)
        .collect();
    let whole = text.matches("#EXTINF").count();
    let gone = whole - count;
    let kept = format!("{}{}", &text[..starts[0]], &text[starts[gone]..]);
    bump(
        &kept,
        "#EXT-X-MEDIA-SEQUENCE:",
        i64::try_from(gone).expect("few"),
    )
}

/// Where `kind` first stands in `bytes`, behind it.
pub(crate) fn after(bytes: &[u8], kind: &[u8]) -> usize {
    bytes
        .windows(kind.len())
        .position(|window| window == kind)
        .expect("there")
        + kind.len()
}

/// Every place behind `kind`.
pub(crate) fn after_all(bytes: &[u8], kind: &[u8]) -> Vec<usize> {
    let places = bytes.windows(kind.len()).enumerate();
    places
        .filter(|(_, window)| *window == kind)
        .map(|(at, _)| at + kind.len())
        .collect()
}

/// Renames a box or brand wherever it stands.
pub(crate) fn rename(bytes: &mut [u8], from: &[u8; 4], to: &[u8; 4]) {
    for end in after_all(bytes, from) {
        bytes[end - 4..end].copy_from_slice(to);
    }
}

/// Moves every tfdt.
pub(crate) fn shift(bytes: &mut [u8], ticks: u64) {
    for at in after_all(bytes, b"tfdt") {
        let place = &mut bytes[at + 4..at + 12];
        let time = u64::from_be_bytes(place.try_into().expect("eight"));
        place.copy_from_slice(&(time + ticks).to_be_bytes());
    }
}

/// The place of the composition offset of the first sample in the first trun.
pub(crate) fn first_offset(bytes: &[u8]) -> usize {
    let trun = after(bytes, b"trun");
    let flags = u32::from_be_bytes(bytes[trun..trun + 4].try_into().expect("four"));
    assert!(flags & 0x800 != 0, "pictures are reordered");
    let header = 8 + [0x1, 0x4].iter().filter(|bit| flags & **bit != 0).count() * 4;
    let before = [0x100, 0x200, 0x400]
        .iter()
        .filter(|bit| flags & **bit != 0)
        .count()
        * 4;
    trun + header + before
}

/// Two tracks where there was one.
pub(crate) fn double_track(bytes: &mut Vec<u8>) {
    let start = after(bytes, b"trak") - 8;
    let size = u32::from_be_bytes(bytes[start..start + 4].try_into().expect("four"));
    let track = bytes[start..start + usize::try_from(size).expect("small")].to_vec();
    let moov = after(bytes, b"moov") - 8;
    let whole = u32::from_be_bytes(bytes[moov..moov + 4].try_into().expect("four"));
    bytes[moov..moov + 4].copy_from_slice(&(whole + size).to_be_bytes());
    bytes.splice(start..start, track);
}
