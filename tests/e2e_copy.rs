//! A ladder that only copies, end to end: the source's own pictures and sound come out as they went in, and
//! where it breaks a period begins.
//!
//! Enters: the film and test pictures, published by ffmpeg, which is killed in between
//! Leaves: a failure for each frame that differs, and for each rule of playlists that is broken
//! Never:  a publisher or a reader of our own
//! Time:   wall clock
//! Spec:   docs/resilience.md

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod common;
#[path = "common/players.rs"]
mod players;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Process, Server, eventually, film, headwater, run, run_ok, tool};

/// What a stream needs to start, and to change its state, on a busy machine.
const SOON: Duration = Duration::from_secs(30);
/// Longer than any reader takes over what a test makes.
const LIMIT: Duration = Duration::from_secs(60);

/// Test pictures of another size and rate, and sound of another rate, as an FLV file of `seconds`.
fn other_source(folder: &Path, seconds: u32) -> PathBuf {
    let file = folder.join("other.flv");
    let seconds = seconds.to_string();
    let (pictures, sound) = ("testsrc=size=640x360:rate=25", "sine=frequency=440");
    let inputs = [
        "-v", "error", "-f", "lavfi", "-i", pictures, "-f", "lavfi", "-i", sound,
    ];
    let mut command = tool("ffmpeg", &inputs);
    command.args([
        "-t",
        &seconds,
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-bf",
        "2",
    ]);
    command.args(["-g", "50", "-sc_threshold", "0", "-pix_fmt", "yuv420p"]);
    command.args(["-c:a", "aac", "-ar", "44100"]).arg(&file);
    run_ok(command, LIMIT);
    file
}

/// Publishes `file` as it is, at the pace of the clock, over and over if `repeat`.
fn publish(file: &Path, url: &str, repeat: bool) -> Process {
    let mut command = tool("ffmpeg", &["-v", "error", "-re"]);
    if repeat {
        command.args(["-stream_loop", "-1"]);
    }
    command.arg("-i").arg(file);
    command.args(["-c", "copy", "-f", "flv", url]);
    Process::start(command)
}

/// The hashes of what `file` holds of a kind, decoded or as it is coded, in order.
fn hashes(file: &Path, kind: &str, codec: &str) -> Vec<String> {
    let mut command = tool("ffmpeg", &["-v", "error", "-i"]);
    command.arg(file);
    command.args(["-map", kind, "-c", codec, "-fps_mode", "passthrough"]);
    command.args(["-f", "framemd5", "-"]);
    let text = run_ok(command, LIMIT);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split(',').nth(5).unwrap().trim().to_owned())
        .collect()
}

/// The segments of each period that a stored playlist lists: its init segment and their files.
fn periods(folder: &Path, rendition: &str) -> Vec<(String, Vec<String>)> {
    let text = std::fs::read_to_string(folder.join(rendition).join("index.m3u8")).unwrap();
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for line in text.lines() {
        if let Some(map) = line.strip_prefix("#EXT-X-MAP:URI=\"") {
            found.push((map.trim_end_matches('"').to_owned(), Vec::new()));
        } else if !line.starts_with('#') {
            found.last_mut().unwrap().1.push(line.to_owned());
        }
    }
    found
}

/// One period of a rendition as one file.
fn joined(folder: &Path, rendition: &str, (init, segments): &(String, Vec<String>)) -> PathBuf {
    let folder = folder.join(rendition);
    let files = std::iter::once(init).chain(segments);
    let pieces: Vec<Vec<u8>> = files
        .map(|file| std::fs::read(folder.join(file)).unwrap())
        .collect();
    let whole = folder.join(format!("whole-{init}"));
    std::fs::write(&whole, pieces.concat()).unwrap();
    whole
}

fn segments(server: &Server) -> usize {
    let text = server.get("/live/show/vcopy/index.m3u8").text();
    text.lines().filter(|line| line.ends_with(".m4s")).count()
}

fn is_there_no_worker(server: &mut Server) -> bool {
    let pid = server.process().pid();
    let children = format!("/proc/{pid}/task/{pid}/children");
    std::fs::read_to_string(children).is_ok_and(|children| children.trim().is_empty())
}

#[test]
fn source_comes_out_as_it_went_in_and_a_reconnect_begins_a_period() {
    let folder = tempfile::tempdir().unwrap();
    let other = other_source(folder.path(), 5);
    let mut server = Server::start(&["--ladder", "copy"]);
    let url = server.publish_url("show");

    let first = publish(&film(), &url, false);
    eventually("three segments", SOON, || {
        (segments(&server) >= 3).then_some(())
    });
    assert!(is_there_no_worker(&mut server));
    drop(first);
    // It ends by itself, and properly.
    let mut second = publish(&other, &url, false);
    assert_eq!(second.wait(LIMIT), 0);
    eventually("the end", SOON, || {
        let text = server.get("/live/show/vcopy/index.m3u8").text();
        text.contains("EXT-X-ENDLIST").then_some(())
    });
    let log = server.log();
    let (code, store) = server.drain();
    assert_eq!(code, 0, "{log}");

    let stream = store.path().join("live/show");
    let (pictures, sound) = (periods(&stream, "vcopy"), periods(&stream, "acopy"));
    assert_eq!(pictures.len(), 2, "{pictures:?}\n{log}");
    assert_eq!(sound.len(), 2, "{sound:?}\n{log}");
    for (at, source) in [film(), other].iter().enumerate() {
        let pictures = joined(&stream, "vcopy", &pictures[at]);
        assert_same("0:v", "rawvideo", &pictures, source);
        let sound = joined(&stream, "acopy", &sound[at]);
        assert_same("0:a", "copy", &sound, source);
    }
    let (code, out, err) = run(headwater(&["inspect", stream.to_str().unwrap()]), LIMIT);
    assert_eq!(code, 0, "{out}{err}");
}

/// What came out is a row of what went in, without a frame missing or changed. Of a source that was killed, the
/// last pictures may lack those that are decoded after them and shown before.
fn assert_same(kind: &str, codec: &str, published: &Path, source: &Path) {
    let (made, sent) = (hashes(published, kind, codec), hashes(source, kind, codec));
    let whole = made.len() - 4;
    assert!(whole > 60, "{kind}: {whole} of {}", sent.len());
    let from = sent.iter().position(|hash| *hash == made[0]);
    let from = from.expect("the first is of the source");
    assert!(from <= 4, "{kind} begins with {from}");
    let differs = (0..whole).find(|at| sent.get(from + at) != made.get(*at));
    assert_eq!(differs, None, "{kind}: the first that differs, of {whole}");
}

#[test]
fn browser_plays_across_the_change_of_a_source() {
    let folder = tempfile::tempdir().unwrap();
    let other = other_source(folder.path(), 20);
    let server = Server::start(&["--ladder", "copy"]);
    let url = server.publish_url("show");
    let first = publish(&film(), &url, true);
    eventually("two segments", SOON, || {
        (segments(&server) >= 2).then_some(())
    });
    let base = server.url("/");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let verdict = runtime.block_on(async {
        let options = ["--seconds", "14", "--no-switch", "--max-stalls", "4"];
        let play = players::play(&base, "show", players::Engine::Hls, &options);
        let exchange = async {
            // Until the player has started; it is watched for long enough after that.
            tokio::time::sleep(Duration::from_secs(9)).await;
            drop(first);
            let second = publish(&other, &url, true);
            std::future::pending::<()>().await;
            drop(second);
        };
        tokio::select! {
            verdict = play => verdict,
            () = exchange => unreachable!("it never ends"),
        }
    });
    verdict.assert_held();
    let text = server.get("/live/show/vcopy/index.m3u8").text();
    assert!(text.contains("EXT-X-DISCONTINUITY"), "{text}");
    let sizes = verdict.json["sizes"].to_string();
    assert!(
        sizes.contains("720") && sizes.contains("360"),
        "{:#}",
        verdict.json
    );
}
