//! What the real server makes of a real publisher, read by programs that share no code with it.
//!
//! Enters: the film, published by ffmpeg in real time, over and over
//! Leaves: agreement of ffmpeg, GStreamer, the `mp4` crate, ffprobe, m3u8-rs, quick-m3u8 and xmllint
//! Never:  a parser of Headwater's own
//! Time:   wall clock; media on the epoch timeline
//! Spec:   [CMAF], [HLS], [DASH]

#![cfg(feature = "gst")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod common;
#[path = "common/media.rs"]
mod media;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::{Server, check_all, eventually, ffmpeg_publish, run, run_ok, small_ladder, tool};
use media::Segment;

/// Seconds of a segment.
const SEGMENT_S: i64 = 2;
/// Renditions of the small ladder: name, width, height; no size for sound.
const SMALL: [(&str, u32, u32); 3] = [("v360", 640, 360), ("v180", 320, 180), ("a96", 0, 0)];
/// What no program here needs on an idle machine, four times over.
const LIMIT: Duration = Duration::from_secs(100);

/// An encoder and what decodes all of a ladder as fast as it can are as much as a small machine can do: of two
/// ladders at once the server would leave out the best rung, as it should, and ffmpeg 5.1 knows no EXT-X-GAP.
static MACHINE: Mutex<()> = Mutex::new(());

#[test]
fn small_ladder_is_what_others_understand() {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    std::fs::write(
        &config,
        "[package]\nwindow_segments = 7\nkept_segments = 8\n",
    )
    .unwrap();
    let config = config.display().to_string();
    let server = Server::start(&["--ladder", &small_ladder(), "--config", &config]);
    let publisher = ffmpeg_publish(&server.publish_url("film"), 300);
    let watch = StoreWatch::default();
    std::thread::scope(|scope| {
        scope.spawn(|| watch.run(server.store.path()));
        // Whatever happens, the watch ends with this scope.
        let _end = watch.ends();
        server.wait_for("/live/film/v180/index.m3u8", Duration::from_secs(20));
        let first = listed(&server, "v180")[0];
        eventually("a full window", Duration::from_secs(30), || {
            (listed(&server, "v180").len() >= 7).then_some(())
        });
        check_all(&[
            ("ffmpeg decodes HLS", &|| {
                ffmpeg_decodes_hls(&server, &SMALL.map(|(name, ..)| name))
            }),
            ("ffmpeg decodes DASH", &|| ffmpeg_decodes_dash(&server, 2)),
            ("GStreamer plays HLS", &|| {
                gstreamer_plays(&server, "index.m3u8")
            }),
            ("GStreamer plays DASH", &|| {
                gstreamer_plays(&server, "manifest.mpd")
            }),
            ("segments are cut as meant", &|| {
                segments_are_cut_as_meant(&server)
            }),
            ("ffprobe sees what was meant", &|| {
                ffprobe_sees_what_was_meant(&server)
            }),
            ("playlists parse", &|| playlists_parse(&server)),
            ("MPD is valid", &|| {
                mpd_is_valid(&server.get("/live/film/manifest.mpd").text())
            }),
            ("store holds the bytes of HTTP", &|| {
                store_holds_the_bytes_of_http(&server)
            }),
            ("what is old is removed", &|| {
                old_segments_go(&server, first)
            }),
        ]);
    });
    drop(publisher);
    assert!(
        watch.looks() > 20,
        "the store was looked at only {} times",
        watch.looks()
    );
}

#[test]
fn default_ladder_starts_in_time_and_decodes() {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut server = Server::start(&[]);
    let begun = Instant::now();
    let _publisher = ffmpeg_publish(&server.publish_url("film"), 120);
    eventually("a publisher", Duration::from_secs(20), || {
        server.log().contains("publishing begins").then_some(())
    });
    // The first key frame follows the publisher's acceptance at once.
    let accepted = Instant::now();
    let top = eventually("a playable playlist", Duration::from_secs(20), || {
        let text = server.get("/live/film/index.m3u8");
        let text = (text.status == 200).then(|| text.text())?;
        let uris: Vec<_> = text
            .lines()
            .filter(|line| line.ends_with("/index.m3u8"))
            .map(str::to_owned)
            .collect();
        let playable = uris
            .iter()
            .all(|uri| server.get(&format!("/live/film/{uri}")).status == 200);
        playable.then_some(uris)
    });
    let took = accepted.elapsed();
    println!(
        "accepted after {:?}, playable {took:?} later",
        accepted - begun
    );
    // One segment and one second, and what a debug build beside another test may take on top.
    assert!(
        took < Duration::from_secs(5),
        "playable only after {took:?}"
    );
    assert_eq!(
        top,
        ["v720", "v480", "v360", "v240"].map(|name| format!("{name}/index.m3u8"))
    );
    for _ in 0..4 {
        println!("resident: {} KiB", resident_kib(server.process().pid()));
        std::thread::sleep(Duration::from_secs(4));
    }
    let names = ["v720", "v480", "v360", "v240", "a128"];
    ffmpeg_decodes_hls(&server, &names);
    let resident = resident_kib(server.process().pid());
    println!("resident: {resident} KiB");
    assert!(resident < 100 * 1024, "{resident} KiB, in a debug build");
    let (code, store) = server.drain();
    assert_eq!(code, 0);
    for name in names {
        let text =
            std::fs::read_to_string(store.path().join(format!("live/film/{name}/index.m3u8")));
        assert!(text.unwrap().ends_with("#EXT-X-ENDLIST\n"), "{name}");
    }
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn media_playlist(server: &Server, name: &str) -> (String, m3u8_rs::MediaPlaylist) {
    let text = server.get(&format!("/live/film/{name}/index.m3u8")).text();
    let parsed = m3u8_rs::parse_media_playlist_res(text.as_bytes());
    (
        text.clone(),
        parsed.unwrap_or_else(|e| panic!("{e}:\n{text}")),
    )
}

/// The numbers of the segments that the playlist of `name` lists.
fn listed(server: &Server, name: &str) -> Vec<i64> {
    let (_, playlist) = media_playlist(server, name);
    let uris = playlist.segments.iter();
    uris.map(|s| s.uri.strip_suffix(".m4s").unwrap().parse().unwrap())
        .collect()
}

/// Errors only: ffmpeg warns of every init segment that it reads a second time. It decodes what is there as fast as
/// it can, and so only in the time that the encoders leave; and counts time as the media do, not by the frame rate that
/// it takes from where a slow machine has left pictures out.
fn ffmpeg_decodes_hls(server: &Server, names: &[&str]) {
    let folders = names
        .iter()
        .map(|name| format!("/live/film/{name}/index.m3u8"));
    for path in folders.chain(["/live/film/index.m3u8".to_owned()]) {
        let url = server.url(&path);
        let read = ["-n", "19", "ffmpeg", "-v", "error", "-xerror", "-i", &url];
        let decode = "-map 0 -t 6 -fps_mode passthrough -enc_time_base -1 -f null -";
        let args: Vec<_> = read.into_iter().chain(decode.split(' ')).collect();
        let (code, _, said) = run(tool("nice", &args), LIMIT);
        assert!(code == 0 && said.is_empty(), "{path}: {code}\n{said}");
    }
}

/// Paced, because ffmpeg otherwise asks for segments before their time.
fn ffmpeg_decodes_dash(server: &Server, rungs: usize) {
    let url = server.url("/live/film/manifest.mpd");
    let mut command = tool("ffmpeg", &["-v", "warning", "-xerror", "-re", "-i", &url]);
    for rung in 0..rungs {
        command.args(["-map", &format!("0:v:{rung}")]);
    }
    command.args(["-map", "0:a:0", "-t", "8", "-f", "null", "-"]);
    let (code, _, said) = run(command, LIMIT);
    assert!(code == 0 && said.is_empty(), "{code}\n{said}");
}

/// Five seconds of pictures and four of sound come out of the sinks, at the pace of the clock.
fn gstreamer_plays(server: &Server, manifest: &str) {
    let uri = format!("uri={}", server.url(&format!("/live/film/{manifest}")));
    let sink = |name: &str, count: u32| {
        format!("{name}-sink=fakesink name={name} sync=true silent=false num-buffers={count}")
    };
    let (video, audio) = (sink("video", 150), sink("audio", 190));
    let command = tool(
        "gst-launch-1.0",
        &["-v", "playbin3", &uri, "flags=audio+video", &video, &audio],
    );
    let (code, out, err) = run(command, LIMIT);
    let count = |name: &str| {
        let mark = format!("GstFakeSink:{name}: last-message = chain");
        out.lines().filter(|line| line.contains(&mark)).count()
    };
    // The last buffers' messages may be lost or doubled when the pipeline ends.
    let (video, audio) = (count("video"), count("audio"));
    assert!(
        code == 0 && video >= 145 && audio >= 185,
        "{code}, {video}, {audio}: {err}"
    );
    assert!(!err.contains("ERROR"), "{err}");
}

/// Every listed segment of every rendition, by rendition and number.
type Segments = BTreeMap<&'static str, BTreeMap<i64, Segment>>;

fn fetch_all(server: &Server) -> Segments {
    let fetch = |(name, ..): (&'static str, u32, u32)| {
        let (_, playlist) = media_playlist(server, name);
        let map = playlist.segments[0]
            .map
            .as_ref()
            .expect("EXT-X-MAP")
            .uri
            .clone();
        let object = |file: &str| {
            let answer = server.get(&format!("/live/film/{name}/{file}"));
            assert_eq!(answer.status, 200, "{name}/{file}");
            answer.body
        };
        let init = object(&map);
        let mut segments = BTreeMap::new();
        for entry in &playlist.segments {
            let number: i64 = entry.uri.strip_suffix(".m4s").unwrap().parse().unwrap();
            let segment = Segment::read(&init, &object(&entry.uri));
            assert_entry_tells_the_truth(entry, &segment);
            segments.insert(number, segment);
        }
        (name, segments)
    };
    SMALL.map(fetch).into()
}

fn assert_entry_tells_the_truth(entry: &m3u8_rs::MediaSegment, segment: &Segment) {
    let scale = f64::from(segment.timescale);
    let length = (segment.end() - segment.start()) as f64 / scale;
    assert!(
        (f64::from(entry.duration) - length).abs() < 1e-5,
        "{}: {length}",
        entry.uri
    );
    let date = entry
        .program_date_time
        .as_ref()
        .expect("a date")
        .timestamp_millis();
    let start = segment.start() as f64 / scale * 1_000.0;
    assert!(
        (date as f64 - start).abs() <= 1.0,
        "{}: {date} is not {start}",
        entry.uri
    );
}

fn segments_are_cut_as_meant(server: &Server) {
    let all = fetch_all(server);
    for (name, segments) in &all {
        let mut end = None;
        for (number, segment) in segments {
            let at = format!("{name}/{number}");
            let scale = i64::from(segment.timescale);
            let boundary = number * SEGMENT_S * scale;
            assert!(segment.start() >= boundary, "{at} begins before its time");
            assert!(
                segment.fragments >= 6,
                "{at} has {} parts",
                segment.fragments
            );
            for pair in segment.samples.windows(2) {
                assert_eq!(
                    pair[0].dts + pair[0].duration,
                    pair[1].dts,
                    "{at}: a gap inside"
                );
            }
            assert!(
                end.is_none_or(|end| end == segment.start()),
                "{at}: a gap before"
            );
            end = Some(segment.end());
            assert_begins_as_meant(&at, name.starts_with('v'), boundary, segment);
        }
    }
    assert_renditions_agree(&all);
}

/// With a key frame, on the grid, and shown when it is decoded.
fn assert_begins_as_meant(at: &str, is_video: bool, boundary: i64, segment: &Segment) {
    let first = &segment.samples[0];
    assert_eq!(first.pts, first.dts, "{at}");
    assert!(first.is_sync, "{at}");
    if is_video {
        assert_eq!(segment.start(), boundary, "{at}");
        assert_eq!(segment.samples.len(), 60, "{at}");
        assert_eq!(
            segment.idr_times()[0],
            boundary,
            "{at} does not begin with an IDR"
        );
        let flags: Vec<_> = segment
            .samples
            .iter()
            .filter(|s| s.is_sync)
            .map(|s| s.pts)
            .collect();
        assert_eq!(
            flags,
            segment.idr_times(),
            "{at}: flags and NAL units differ"
        );
    } else {
        assert_eq!(segment.start() % 1_024, 0, "{at}");
        assert!(
            segment.start() - boundary < 1_024,
            "{at}: not the first frame of the segment"
        );
        assert!(segment.samples.iter().all(|s| s.duration == 1_024), "{at}");
    }
}

/// Pictures are cut at the same instants on all rungs, and sound begins beside them.
fn assert_renditions_agree(all: &Segments) {
    let (high, low, sound) = (&all["v360"], &all["v180"], &all["a96"]);
    let mut compared = 0;
    for (number, segment) in high {
        let Some(other) = low.get(number) else {
            continue;
        };
        assert_eq!(
            segment.idr_times(),
            other.idr_times(),
            "{number}: key frames differ"
        );
        assert_eq!(
            (segment.start(), segment.end()),
            (other.start(), other.end()),
            "{number}"
        );
        let Some(sound) = sound.get(number) else {
            continue;
        };
        // In units of a common scale, so that no rounding decides.
        let video = i128::from(segment.start()) * i128::from(sound.timescale);
        let audio = i128::from(sound.start()) * i128::from(segment.timescale);
        let frame = 1_024 * i128::from(segment.timescale);
        assert!(
            (audio - video).abs() < frame,
            "{number}: sound and pictures start apart"
        );
        compared += 1;
    }
    assert!(
        compared >= 4,
        "only {compared} segments were there on all renditions"
    );
}

fn ffprobe_sees_what_was_meant(server: &Server) {
    let folder = tempfile::tempdir().unwrap();
    for (name, width, height) in SMALL {
        let (_, playlist) = media_playlist(server, name);
        let map = playlist.segments[0].map.as_ref().unwrap().uri.clone();
        let uris = playlist.segments.iter().take(4).map(|s| s.uri.clone());
        let mut whole = Vec::new();
        for uri in [map].into_iter().chain(uris) {
            whole.extend(server.get(&format!("/live/film/{name}/{uri}")).body);
        }
        let path = folder.path().join(format!("{name}.mp4"));
        std::fs::write(&path, whole).unwrap();
        let path = path.display().to_string();
        let args = [
            "-v",
            "error",
            "-count_packets",
            "-show_streams",
            "-of",
            "json",
            &path,
        ];
        let said: serde_json::Value =
            serde_json::from_str(&run_ok(tool("ffprobe", &args), LIMIT)).unwrap();
        assert_eq!(said["streams"].as_array().map(Vec::len), Some(1), "{name}");
        let stream = &said["streams"][0];
        let packets: u32 = stream["nb_read_packets"].as_str().unwrap().parse().unwrap();
        if width > 0 {
            assert_eq!(stream["codec_name"], "h264");
            assert_eq!(
                (stream["width"].as_u64(), stream["height"].as_u64()),
                (Some(width.into()), Some(height.into()))
            );
            assert_eq!(stream["avg_frame_rate"], "30/1");
            assert_eq!(stream["has_b_frames"], 0);
            assert_eq!(stream["time_base"], "1/90000");
            assert_eq!(packets, 240, "{name}");
        } else {
            assert_eq!(
                (&stream["codec_name"], &stream["profile"]),
                (&"aac".into(), &"LC".into())
            );
            assert_eq!(
                (&stream["sample_rate"], &stream["channels"]),
                (&"48000".into(), &2.into())
            );
            assert!(packets.abs_diff(375) <= 1, "{packets}");
        }
    }
}

fn playlists_parse(server: &Server) {
    let text = server.get("/live/film/index.m3u8").text();
    let parsed = m3u8_rs::parse_master_playlist_res(text.as_bytes()).expect("parses");
    assert_eq!((parsed.variants.len(), parsed.alternatives.len()), (2, 1));
    read_every_line(&text);
    for variant in &parsed.variants {
        let name = variant.uri.split('/').next().unwrap();
        let (_, width, height) = SMALL
            .into_iter()
            .find(|(other, ..)| *other == name)
            .expect("known");
        let size = variant.resolution.expect("RESOLUTION");
        assert_eq!((size.width, size.height), (width.into(), height.into()));
        assert_eq!(variant.frame_rate, Some(30.0));
        assert!(variant.average_bandwidth.expect("measured") <= variant.bandwidth);
        assert!(
            variant
                .codecs
                .as_deref()
                .is_some_and(|c| c.starts_with("avc1.") && c.ends_with(",mp4a.40.2"))
        );
        assert_eq!(
            variant.audio.as_deref(),
            Some(parsed.alternatives[0].group_id.as_str())
        );
    }
    for (name, ..) in SMALL {
        let (text, playlist) = media_playlist(server, name);
        assert_eq!(playlist.target_duration, 2);
        assert!(
            playlist.independent_segments && playlist.segments.len() >= 6,
            "{text}"
        );
        assert!(
            playlist
                .segments
                .iter()
                .all(|s| s.program_date_time.is_some()),
            "{text}"
        );
        assert!(!playlist.end_list);
        read_every_line(&text);
    }
}

fn read_every_line(text: &str) {
    use quick_m3u8::config::ParsingOptionsBuilder;
    use quick_m3u8::{HlsLine, Reader};
    let options = ParsingOptionsBuilder::new()
        .with_parsing_for_all_tags()
        .build();
    let mut reader = Reader::from_str(text, options);
    while let Some(line) = reader.read_line().expect("parses") {
        assert!(!matches!(line, HlsLine::UnknownTag(_)), "{line:?}");
    }
}

/// Against our own schema, and the standard's where `HEADWATER_DASH_SCHEMA` names a copy of it.
fn mpd_is_valid(text: &str) {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/schema/mpd_written.xsd");
    let iso = std::env::var_os("HEADWATER_DASH_SCHEMA").map(PathBuf::from);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manifest.mpd");
    std::fs::write(&path, text).unwrap();
    for schema in iso.into_iter().chain([ours]) {
        let (schema, path) = (schema.display().to_string(), path.display().to_string());
        run_ok(
            tool(
                "xmllint",
                &["--noout", "--nonet", "--schema", &schema, &path],
            ),
            LIMIT,
        );
    }
}

fn store_holds_the_bytes_of_http(server: &Server) {
    let folder = server.store.path().join("live/film");
    for (name, ..) in SMALL {
        let (_, playlist) = media_playlist(server, name);
        let map = playlist.segments[0].map.as_ref().unwrap().uri.clone();
        for uri in playlist.segments.iter().map(|s| s.uri.clone()).chain([map]) {
            let served = server.get(&format!("/live/film/{name}/{uri}"));
            assert_eq!(served.status, 200, "{name}/{uri}");
            // The store is written behind.
            let stored = eventually(&uri, Duration::from_secs(10), || {
                std::fs::read(folder.join(name).join(&uri)).ok()
            });
            assert!(stored == served.body, "{name}/{uri} differs");
        }
    }
}

/// The first segment leaves the disk once the window has moved far enough past it.
fn old_segments_go(server: &Server, first: i64) {
    let path = |name: &str| {
        server
            .store
            .path()
            .join(format!("live/film/{name}/{first}.m4s"))
    };
    let limit = Duration::from_secs(60);
    for (name, ..) in SMALL {
        eventually("an old segment's end", limit, || {
            (!path(name).exists()).then_some(())
        });
        let answer = server.get(&format!("/live/film/{name}/{first}.m4s"));
        assert_eq!(answer.status, 404);
    }
}

/// Looks at the store all along: no manifest in it may name what is not there.
#[derive(Default)]
struct StoreWatch {
    is_over: AtomicBool,
    looks: AtomicUsize,
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl StoreWatch {
    fn ends(&self) -> Over<'_> {
        Over(&self.is_over)
    }

    fn looks(&self) -> usize {
        self.looks.load(Ordering::Relaxed)
    }

    fn run(&self, store: &Path) {
        let folder = store.join("live/film");
        while !self.is_over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
            let mut named = manifest_names(&folder.join("index.m3u8"));
            if named.is_empty() {
                continue;
            }
            named.retain(|uri| !folder.join(uri).exists());
            assert!(
                named.is_empty(),
                "index.m3u8 names what is not stored: {named:?}"
            );
            for (name, ..) in SMALL {
                let mut named = manifest_names(&folder.join(name).join("index.m3u8"));
                named.retain(|uri| !folder.join(name).join(uri).exists());
                assert!(
                    named.is_empty(),
                    "{name} names what is not stored: {named:?}"
                );
            }
            self.looks.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The addresses in a playlist: its plain lines and its `URI="…"`s.
fn manifest_names(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let quoted = |line: &str| Some(line.split_once("URI=\"")?.1.split('"').next()?.to_owned());
    let name = |line: &str| match line.starts_with('#') {
        true => quoted(line),
        false => Some(line.to_owned()),
    };
    text.lines()
        .filter(|line| !line.is_empty())
        .filter_map(name)
        .collect()
}
