//! Films of every codec that Enhanced RTMP adds, published to the real server: each becomes a ladder.
//!
//! Enters: the film clip, encoded by ffmpeg in each codec, published by `headwater publish`
//! Leaves: a failure for each that is not understood, decoded or shown
//! Never:  players
//! Time:   wall clock
//! Spec:   [ERTMP] v2

#![cfg(feature = "gst")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{
    Process, Server, check_all, eventually, film, headwater, run, run_ok, small_ladder, tool,
};

/// What a stream needs to start, and a child to end, on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

/// A film, the source that the API tells of it, and how it is encoded.
struct Film {
    stream: &'static str,
    codecs: [&'static str; 2],
    channels: u64,
    arguments: &'static str,
}

const FILMS: [Film; 3] = [
    Film {
        stream: "hevc",
        codecs: ["hvc1.1.6.L60.90", "opus"],
        channels: 2,
        arguments: "-c:v libx265 -preset ultrafast -bf 2 -tag:v hvc1 -x265-params log-level=none -c:a libopus -ac 2",
    },
    Film {
        stream: "av1",
        codecs: ["av01.0.00M.08", "mp4a.40.2"],
        channels: 2,
        arguments: "-c:v libaom-av1 -usage realtime -cpu-used 8 -c:a aac -ac 2",
    },
    Film {
        stream: "vp9",
        codecs: ["vp09.00.11.08", "opus"],
        channels: 1,
        arguments: "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a libopus -ac 1",
    },
];

fn encode(folder: &Path, film_of: &Film) -> PathBuf {
    let path = folder.join(format!("{}.mp4", film_of.stream));
    let mut command = tool("ffmpeg", &["-v", "error", "-i"]);
    command
        .arg(film())
        .args(["-t", "6", "-vf", "scale=320:-2", "-g", "60"]);
    command.args(["-b:v", "200k", "-b:a", "48k"]);
    command
        .args(film_of.arguments.split_whitespace())
        .arg(&path);
    run_ok(command, LIMIT);
    path
}

fn publish(server: &Server, film: &Path, stream: &str) -> Process {
    let mut command = headwater(&["publish", "--loop"]);
    command.arg(film).arg(server.publish_url(stream));
    Process::start(command)
}

/// What the API says of `stream` once it shows pictures of `codec`.
fn on_air(server: &Server, stream: &str, codec: &str) -> serde_json::Value {
    eventually("the source on air", LIMIT, || {
        let answer = server.get(&format!("/api/v1/streams/{stream}"));
        let status = (answer.status == 200).then(|| answer.json())?;
        let is_shown = status["source"]["video"]["codec"] == codec;
        (is_shown && status["state"] == "live").then_some(status)
    })
}

fn check(server: &Server, folder: &Path, film: &Film) {
    let mut publisher = publish(server, &encode(folder, film), film.stream);
    let status = on_air(server, film.stream, film.codecs[0]);
    let source = &status["source"];
    assert_eq!(source["video"]["height"], 180, "{status}");
    assert_eq!(source["audio"]["codec"], film.codecs[1], "{status}");
    assert_eq!(source["audio"]["channels"], film.channels, "{status}");
    let playlist = format!("/live/{}/v180/index.m3u8", film.stream);
    eventually("two segments", LIMIT, || {
        let text = server.get(&playlist).text();
        (text.matches("#EXTINF").count() >= 2).then_some(())
    });
    assert!(publisher.is_running());
    publisher.interrupt();
    assert_eq!(publisher.wait(LIMIT), 0);
    let index = server
        .store
        .path()
        .join(format!("live/{}/index.m3u8", film.stream));
    eventually("the stored end", LIMIT, || {
        let text = std::fs::read_to_string(index.with_file_name("v180/index.m3u8"));
        text.is_ok_and(|text| text.contains("#EXT-X-ENDLIST"))
            .then_some(())
    });
    // Of a film many pictures remain when those that hardly differ from the one before are left out; of a
    // held picture or the slate one.
    let mut command = tool("ffmpeg", &["-v", "warning", "-xerror", "-i"]);
    command.arg(index.with_file_name("v180/index.m3u8"));
    command.args(["-vf", "mpdecimate", "-f", "framemd5", "-"]);
    let (code, out, complaints) = run(command, LIMIT);
    assert_eq!((code, &*complaints), (0, ""), "{}", film.stream);
    let moving = out.lines().filter(|line| !line.starts_with('#')).count();
    assert!(moving >= 15, "{}: {moving} pictures", film.stream);
}

/// A publisher that loses its connection and comes back with other codecs continues the same renditions.
fn check_change(server: &Server, folder: &Path) {
    let folder = folder.join("change");
    std::fs::create_dir(&folder).unwrap();
    let stream = "change";
    for film in &FILMS[..2] {
        let path = encode(&folder, film);
        let _killed_at_the_end = publish(server, &path, stream);
        on_air(server, stream, film.codecs[0]);
    }
    let text = server.get("/live/change/v180/index.m3u8").text();
    assert!(!text.contains("DISCONTINUITY\n"), "{text}");
}

/// The server on a machine whose GStreamer has no decoder of AV1.
fn server_without_av1(plugins: &Path) -> Server {
    let folder = run_ok(
        tool("pkg-config", &["--variable=pluginsdir", "gstreamer-1.0"]),
        LIMIT,
    );
    for file in std::fs::read_dir(folder.trim()).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap();
        if !["aom", "dav1d"]
            .iter()
            .any(|decoder| name.contains(decoder))
        {
            std::os::unix::fs::symlink(&file, plugins.join(name)).unwrap();
        }
    }
    let store = tempfile::tempdir().unwrap();
    let mut command = headwater(&["serve", "--rtmp", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command.arg("--store").arg(store.path());
    command.args(["--ladder", &small_ladder()]);
    command.env("GST_PLUGIN_SYSTEM_PATH_1_0", plugins);
    command.env("GST_REGISTRY_1_0", plugins.join("registry.bin"));
    Server::start_command(command, store)
}

#[test]
fn a_codec_without_a_decoder_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let plugins = folder.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let server = server_without_av1(&plugins);
    let mut command = headwater(&["publish", "--loop"]);
    command.arg(encode(folder.path(), &FILMS[1]));
    command.arg(server.publish_url("av1"));
    let (code, _, said) = run(command, LIMIT);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("no decoder of AV1 here: install"), "{said}");
}

#[test]
fn every_codec_of_enhanced_rtmp_becomes_a_ladder() {
    let server = Server::start(&["--ladder", &small_ladder()]);
    let folder = tempfile::tempdir().unwrap();
    let (server, folder) = (&server, folder.path());
    check_all(&[
        ("hevc", &|| check(server, folder, &FILMS[0])),
        ("av1", &|| check(server, folder, &FILMS[1])),
        ("vp9", &|| check(server, folder, &FILMS[2])),
        ("a change of codec", &|| check_change(server, folder)),
    ]);
    let log = server.log();
    assert!(!log.contains("panicked") && !log.contains("died"), "{log}");
}
