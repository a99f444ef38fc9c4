//! Packages the film and lets programs and libraries that share no code with the writer read it.
//!
//! Enters: the film clip
//! Leaves: agreement of ffmpeg, the `mp4` crate, m3u8-rs, quick-m3u8 and xmllint with schemas of the MPD
//! Never:  the writer's own parsers
//! Time:   the epoch timeline; the live test is anchored to the machine's clock
//! Spec:   [CMAF], [HLS], [DASH]

mod package_film;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headwater::package::{Config, Output, Snapshot, dash, hls};
use package_film::{Film, run};

const FIRST: u64 = 897_600_000;

static FILM: LazyLock<Film> = LazyLock::new(Film::encode);

/// Objects by path, as a store would hold them, and the last snapshot.
fn publish(outputs: Vec<Output>) -> (BTreeMap<String, Vec<u8>>, Arc<Snapshot>) {
    let mut objects = BTreeMap::new();
    let mut last = None;
    let name = |index: usize| FILM.renditions[index].name.to_string();
    for output in outputs {
        match output {
            Output::InitSegment {
                rendition,
                period,
                payload,
            } => {
                let path = format!("{}/init-{period}.mp4", name(rendition));
                objects.insert(path, payload.to_bytes().to_vec());
            }
            Output::Segment {
                rendition,
                segment,
                payload,
                ..
            } => {
                let path = format!("{}/{segment}.m4s", name(rendition));
                objects.insert(path, payload.to_bytes().to_vec());
            }
            Output::Part {
                rendition,
                segment,
                part,
                payload,
                ..
            } => {
                let path = format!("{}/{segment}.{part}.m4s", name(rendition));
                objects.insert(path, payload.to_bytes().to_vec());
            }
            Output::WindowChanged(snapshot) => last = Some(snapshot),
            _ => {}
        }
    }
    let snapshot = last.expect("published");
    let text = hls::multivariant::render(&snapshot).expect("listed");
    objects.insert("index.m3u8".to_owned(), text.into());
    for index in 0..FILM.renditions.len() {
        let text = hls::media::render(&snapshot, index).expect("listed");
        objects.insert(format!("{}/index.m3u8", name(index)), text.into());
    }
    let mpd = dash::mpd::render(&snapshot).expect("listed");
    objects.insert("manifest.mpd".to_owned(), mpd.into());
    (objects, snapshot)
}

fn write_all(objects: &BTreeMap<String, Vec<u8>>, folder: &Path) {
    for (path, bytes) in objects {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().expect("has one")).expect("folder");
        std::fs::write(path, bytes).expect("written");
    }
}

/// Decodes all streams of `url` without a word from ffmpeg.
fn decode(url: &str) {
    let said = run(
        "ffmpeg",
        &[
            "-v", "warning", "-xerror", "-i", url, "-map", "0", "-f", "null", "-",
        ],
    );
    assert!(
        said.success && said.stderr.is_empty(),
        "{url}: {}",
        said.stderr
    );
}

fn count_packets(url: &str, stream: &str) -> usize {
    let (packets, complaints) = packets(url, stream);
    assert!(complaints.is_empty(), "{url}: {complaints}");
    packets
}

/// How many packets ffprobe finds, and what it has to complain about.
fn packets(url: &str, stream: &str) -> (usize, String) {
    let arguments = [
        "-v",
        "error",
        "-select_streams",
        stream,
        "-show_entries",
        "packet=pts",
        "-of",
        "csv",
        url,
    ];
    let said = run("ffprobe", &arguments);
    assert!(said.success, "{url}: {}", said.stderr);
    (said.stdout.lines().count(), said.stderr)
}

#[test]
fn ffmpeg_decodes_every_rendition_without_one_error() {
    let (objects, _) = publish(FILM.package(&Config::default(), FIRST, 6));
    let folder = tempfile::tempdir().expect("folder");
    write_all(&objects, folder.path());
    for (name, stream, packets) in [
        ("v360", "v:0", 360),
        ("v180", "v:0", 360),
        ("a96", "a:0", 562),
    ] {
        let playlist = folder.path().join(name).join("index.m3u8");
        let url = playlist.to_string_lossy();
        decode(&url);
        let found = count_packets(&url, stream);
        assert!(found.abs_diff(packets) <= 1, "{name}: {found}");
    }
    decode(&folder.path().join("index.m3u8").to_string_lossy());
}

#[test]
fn ffmpeg_reads_the_static_mpd_whole() {
    let (objects, _) = publish(FILM.package(&Config::default(), FIRST, 6));
    let folder = tempfile::tempdir().expect("folder");
    write_all(&objects, folder.path());
    let mpd = folder.path().join("manifest.mpd");
    // ffmpeg counts one segment too many in a static MPD and says so when it does not find it.
    let (packets, complaints) = packets(&mpd.to_string_lossy(), "v:0");
    assert_eq!(packets, 360);
    assert!(complaints.lines().count() <= 1, "{complaints}");
}

/// A source that cuts by itself and changes once: 240 frames before, 180 after.
fn changed(low_latency: bool) -> Vec<Output> {
    let config = Config {
        low_latency: low_latency.into(),
        ..Config::default()
    };
    FILM.package_cut(&config, FIRST, [&[60, 120, 60], &[60, 120]])
}

/// Each period as one file: ffmpeg's reader of HLS takes no notice of a second EXT-X-MAP.
#[test]
fn ffmpeg_decodes_both_sides_of_a_change() {
    let (objects, snapshot) = publish(changed(false));
    let folder = tempfile::tempdir().expect("folder");
    for (rendition, stream, expected) in [(0, "v:0", [240, 180]), (2, "a:0", [375, 281])] {
        let name = &FILM.renditions[rendition].name;
        for (period, expected) in snapshot.periods().zip(expected) {
            let mut whole = objects[&format!("{name}/init-{}.mp4", period.id)].clone();
            let segments = snapshot.listed_segments(rendition);
            for segment in segments.filter(|segment| segment.period == period.id) {
                whole.extend(&objects[&format!("{name}/{}.m4s", segment.number)]);
            }
            let path = folder.path().join(format!("{name}-{}.mp4", period.id));
            std::fs::write(&path, whole).expect("written");
            let url = path.to_string_lossy();
            decode(&url);
            let found = count_packets(&url, stream);
            assert!(found.abs_diff(expected) <= 1, "{name}: {found}");
        }
    }
}

#[test]
fn mp4_crate_finds_the_same_samples() {
    let (objects, snapshot) = publish(FILM.package(&Config::default(), FIRST, 6));
    for (index, rendition) in FILM.renditions.iter().enumerate() {
        let init = &objects[&format!("{}/init-{FIRST}.mp4", rendition.name)];
        for segment in snapshot.listed_segments(index) {
            let media = &objects[&format!("{}/{}.m4s", rendition.name, segment.number)];
            let whole = [init.as_slice(), media].concat();
            let size = whole.len() as u64;
            let reader = mp4::Mp4Reader::read_header(Cursor::new(whole), size).expect("parses");
            assert_eq!(reader.moofs.len(), segment.parts.len());
            let mut at = u64::try_from(segment.start.get()).expect("positive");
            for moof in &reader.moofs {
                let traf = &moof.trafs[0];
                let tfdt = traf.tfdt.as_ref().expect("tfdt");
                assert_eq!(tfdt.base_media_decode_time, at);
                let run = traf.trun.as_ref().expect("trun");
                let default = u64::from(traf.tfhd.default_sample_duration.unwrap_or(0));
                at += if run.sample_durations.is_empty() {
                    default * u64::from(run.sample_count)
                } else {
                    run.sample_durations.iter().map(|d| u64::from(*d)).sum()
                };
            }
            let end = segment.start.checked_add(segment.duration).expect("fits");
            assert_eq!(Some(at), u64::try_from(end.get()).ok());
        }
    }
}

#[test]
fn two_parsers_read_every_playlist() {
    for low_latency in [false, true] {
        let config = Config {
            low_latency: low_latency.into(),
            ..Config::default()
        };
        let on_grid = FILM.package(&config, FIRST, 9);
        for output in on_grid.iter().chain(&changed(low_latency)) {
            let Output::WindowChanged(snapshot) = output else {
                continue;
            };
            for index in 0..FILM.renditions.len() {
                for text in [
                    hls::media::render(snapshot, index),
                    hls::media::render_delta(snapshot, index),
                ] {
                    let presentation = snapshot.presentation();
                    let promised = presentation.cuts.are_on_grid();
                    let target = presentation.target_duration_s.into();
                    read_playlist(&text.unwrap_or_default(), target, promised);
                }
            }
            if let Some(text) = hls::multivariant::render(snapshot) {
                let parsed = m3u8_rs::parse_master_playlist_res(text.as_bytes()).expect("parses");
                assert_eq!((parsed.variants.len(), parsed.alternatives.len()), (2, 1));
                read_lines(&text);
            }
        }
    }
}

fn read_playlist(text: &str, target_s: u64, promised: bool) {
    if text.is_empty() {
        return;
    }
    let parsed = m3u8_rs::parse_media_playlist_res(text.as_bytes()).expect("parses");
    assert_eq!(parsed.target_duration, target_s);
    assert_eq!(parsed.independent_segments, promised);
    let dates = parsed
        .segments
        .iter()
        .filter(|s| s.program_date_time.is_some());
    assert_eq!(dates.count(), parsed.segments.len());
    read_lines(text);
}

fn read_lines(text: &str) {
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

/// Packages the film so that the middle of it is now, and serves only what would be there.
struct Origin {
    address: String,
    requests: Arc<Mutex<Vec<(String, bool)>>>,
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
}

impl Origin {
    fn start() -> Self {
        let first = now().as_secs() / 2 - 12;
        // A server that serves files: nothing is there before it is whole.
        let config = Config {
            low_latency: false.into(),
            ..Config::default()
        };
        let outputs = FILM.package(&config, first, 24);
        let mut live = outputs.iter().rev().filter_map(|output| match output {
            Output::WindowChanged(snapshot) if snapshot.listed().end == first + 12 => {
                Some(snapshot)
            }
            _ => None,
        });
        let snapshot = Arc::clone(live.next().expect("some"));
        let mpd = dash::mpd::render(&snapshot).expect("listed");
        let (mut objects, _) = publish(outputs);
        objects.insert("manifest.mpd".to_owned(), mpd.into());
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("address").to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        let objects = Arc::new(objects);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (objects, log) = (Arc::clone(&objects), Arc::clone(&log));
                std::thread::spawn(move || answer(stream, &objects, &log));
            }
        });
        Self { address, requests }
    }
}

/// Answers one request, after which the connection closes.
fn answer(
    mut stream: TcpStream,
    objects: &BTreeMap<String, Vec<u8>>,
    log: &Mutex<Vec<(String, bool)>>,
) {
    let mut head = Vec::new();
    let mut byte = [0_u8; 1];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8_192 {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let path = text
        .split(' ')
        .nth(1)
        .unwrap_or("/")
        .trim_start_matches('/')
        .to_owned();
    let number = path
        .split('/')
        .nth(1)
        .and_then(|file| file.strip_suffix(".m4s"));
    let number = number.and_then(|number| number.parse::<u64>().ok());
    let is_there = number.is_none_or(|n| u128::from(n + 1) * 2_000 <= now().as_millis());
    let body = objects.get(&path).filter(|_| is_there);
    log.lock().expect("log").push((path, body.is_some()));
    let (status, body) = body.map_or(("404 Not Found", &[][..]), |b| ("200 OK", b));
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let sent = stream.write_all(head.as_bytes());
    if sent.is_ok() {
        // A player that has enough closes first; that is no failure of this test.
        drop(stream.write_all(body));
    }
}

#[test]
fn ffmpeg_plays_the_dynamic_mpd_at_the_live_edge() {
    let origin = Origin::start();
    let url = format!("http://{}/manifest.mpd", origin.address);
    let arguments = [
        "-v", "warning", "-xerror", "-re", "-i", &url, "-map", "0:v:0", "-map", "0:a:0", "-t", "8",
        "-f", "null", "-",
    ];
    let said = run("ffmpeg", &arguments);
    let requests = origin.requests.lock().expect("log").clone();
    assert!(said.success, "{}\n{requests:?}", said.stderr);
    for rendition in ["v360", "a96"] {
        let numbers: Vec<u64> = requests
            .iter()
            .filter_map(|(path, _)| {
                path.strip_prefix(rendition)?
                    .strip_prefix('/')?
                    .strip_suffix(".m4s")?
                    .parse()
                    .ok()
            })
            .collect();
        assert!(numbers.len() >= 4, "{rendition}: {requests:?}");
        assert!(
            numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
            "{requests:?}"
        );
    }
    assert!(requests.iter().all(|(_, found)| *found), "{requests:?}");
}

/// The standard's own schema is not ours to ship. Where `HEADWATER_DASH_SCHEMA` names a copy of it, that is
/// asked as well as our stricter one.
#[test]
fn mpd_is_valid_against_the_schema() {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/schema/mpd_written.xsd");
    let iso = std::env::var_os("HEADWATER_DASH_SCHEMA").map(PathBuf::from);
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("manifest.mpd");
    let on_grid = FILM.package(&Config::default(), FIRST, 6);
    let cut = changed(false);
    let mut seen = BTreeSet::new();
    for output in on_grid.into_iter().chain(cut) {
        let Output::WindowChanged(snapshot) = output else {
            continue;
        };
        let texts = [
            dash::mpd::render(&snapshot),
            dash::mpd::render_plain(&snapshot),
            dash::mpd::render_ending(&snapshot),
        ];
        for text in texts.into_iter().flatten() {
            std::fs::write(&path, &text).expect("written");
            if !seen.insert(text) {
                continue;
            }
            for schema in iso.iter().chain([&ours]) {
                let (schema, path) = (schema.to_string_lossy(), path.to_string_lossy());
                let said = run(
                    "xmllint",
                    &["--noout", "--nonet", "--schema", &schema, &path],
                );
                assert!(said.success, "{}", said.stderr);
            }
        }
    }
}
