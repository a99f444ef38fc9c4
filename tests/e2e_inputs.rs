//! A primary and a backup publisher, end to end: which of them viewers see, and that nothing but the picture
//! says so.
//!
//! Enters: one colour and one tone for each input, published by ffmpeg, which is stopped, killed and started
//! Leaves: a failure for each switch that did not come, or that a player would have noticed
//! Never:  a publisher or a reader of our own
//! Time:   wall clock
//! Spec:   docs/resilience.md

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

use common::{Process, Server, eventually, headwater, run, run_ok, small_ladder, tool};

/// What a switch takes on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// Longer than any reader takes over what a test makes.
const READ_LIMIT: Duration = Duration::from_secs(60);
/// How long a switch is looked at before the next one.
const LOOK: Duration = Duration::from_secs(1);

const RENDITIONS: [&str; 3] = ["v360", "v180", "a96"];

/// A server that returns to its primary soon, and never shows its slate.
fn server() -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let text = "[broadcast]\nreturn_after = \"2s\"\nhold = \"50s\"\n";
    std::fs::write(&file, text).unwrap();
    let args = [
        "--config",
        file.to_str().unwrap(),
        "--ladder",
        &small_ladder(),
    ];
    (Server::start(&args), folder)
}

/// Publishes `colour` and a tone under `key`.
fn publish(server: &Server, key: &str, colour: &str) -> Process {
    let picture = format!("color={colour}:size=640x360:rate=30");
    let mut command = tool("ffmpeg", &["-v", "error", "-re", "-f", "lavfi", "-i"]);
    command.args([&picture, "-f", "lavfi", "-i", "sine=sample_rate=48000"]);
    command.args(["-t", "400", "-c:v", "libx264", "-preset", "ultrafast"]);
    command.args(["-g", "45", "-pix_fmt", "yuv420p", "-c:a", "aac", "-f"]);
    command.args(["flv", &server.publish_url(key)]);
    Process::start(command)
}

fn signal(name: &str, publisher: &Process) {
    let pid = publisher.pid().to_string();
    run_ok(tool("kill", &[name, &pid]), Duration::from_secs(5));
}

fn status(server: &Server) -> serde_json::Value {
    server.get("/api/v1/streams/show").json()
}

/// Waits until `input` is live, of late because of one of `why`, and lets viewers see it.
fn wait_for_live(server: &Server, input: &str, why: &[&str]) {
    eventually(input, SOON, || {
        let live = &status(server)["live"];
        let is_why = why.iter().any(|why| live["why"] == *why);
        (live["input"] == input && is_why).then_some(())
    });
    std::thread::sleep(LOOK);
}

/// All of a stored rendition in one file; how many segments that is.
fn joined(store: &Path, rendition: &str, into: &Path) -> (PathBuf, usize) {
    let folder = store.join("live/show").join(rendition);
    let playlist = std::fs::read_to_string(folder.join("index.m3u8")).unwrap();
    assert!(playlist.ends_with("#EXT-X-ENDLIST\n"), "{playlist}");
    for tag in ["DISCONTINUITY", "GAP"] {
        assert!(!playlist.contains(tag), "{playlist}");
    }
    let names = std::fs::read_dir(&folder).unwrap();
    let paths: Vec<PathBuf> = names.map(|entry| entry.unwrap().path()).collect();
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
    let mut numbers: Vec<u64> = paths.iter().filter_map(number).collect();
    numbers.sort_unstable();
    let is_whole = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
    assert!(is_whole, "{rendition}: {numbers:?}");
    let inits: Vec<_> = paths
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "mp4"))
        .collect();
    assert_eq!(inits.len(), 1, "{rendition}: {inits:?}");
    let mut bytes = std::fs::read(inits[0]).unwrap();
    for number in &numbers {
        let path = folder.join(format!("{number}.m4s"));
        bytes.extend(std::fs::read(path).unwrap());
    }
    let file = into.join(format!("{rendition}.mp4"));
    std::fs::write(&file, bytes).unwrap();
    (file, numbers.len())
}

/// What ffmpeg makes of `file` with `args`; it has nothing to complain of.
fn decoded(file: &Path, args: &[&str]) -> Vec<u8> {
    let out = file.with_extension("raw");
    let mut command = tool("ffmpeg", &["-v", "error", "-y", "-nostdin", "-i"]);
    command.arg(file).args(args).arg(&out);
    let (code, _, said) = run(command, READ_LIMIT);
    assert!(code == 0 && said.is_empty(), "{}: {said}", file.display());
    std::fs::read(out).unwrap()
}

/// The colour of every frame of `file`: `red`, `blue`, or what else it is.
fn colours(file: &Path) -> Vec<String> {
    let args = [
        "-fps_mode",
        "passthrough",
        "-vf",
        "scale=1:1:flags=area,format=rgb24",
        "-f",
        "rawvideo",
    ];
    let name = |pixel: &[u8]| match pixel {
        [200..=255, 0..=60, 0..=60] => "red".to_owned(),
        [0..=60, 0..=60, 200..=255] => "blue".to_owned(),
        other => format!("{other:?}"),
    };
    decoded(file, &args).chunks_exact(3).map(name).collect()
}

/// The tenths of a second that have no sound.
fn silences(file: &Path) -> Vec<usize> {
    let args = ["-ac", "1", "-ar", "8000", "-f", "s16le"];
    let bytes = decoded(file, &args);
    let samples: Vec<u64> = bytes
        .chunks_exact(2)
        .map(|pair| u64::from(i16::from_le_bytes([pair[0], pair[1]]).unsigned_abs()))
        .collect();
    let is_silent = |tenth: &[u64]| tenth.iter().sum::<u64>() < 800 * 50;
    let tenths = samples.chunks_exact(800).enumerate();
    let silent = tenths.filter(|(_, tenth)| is_silent(tenth));
    silent.map(|(at, _)| at).collect()
}

#[test]
fn backup_takes_over_and_gives_back_and_viewers_see_only_the_picture_change() {
    let (server, folder) = server();
    let backup = publish(&server, "show_backup", "blue");
    server.wait_for("/live/show/v180/index.m3u8", SOON);
    wait_for_live(&server, "backup", &["first"]);

    let primary = publish(&server, "show", "red");
    wait_for_live(&server, "primary", &["steady"]);
    assert_eq!(status(&server)["inputs"][1]["state"], "standby");

    // A third one is told that the place is taken.
    let third = tool("ffmpeg", &["-v", "verbose", "-re", "-f", "lavfi"]);
    let mut third = third;
    third.args(["-i", "sine", "-t", "20", "-c:a", "aac", "-f", "flv"]);
    third.arg(server.publish_url("show_backup"));
    let (code, _, said) = run(third, READ_LIMIT);
    assert!(
        code != 0 && said.contains("already being published"),
        "{said}"
    );

    // Its uplink stalls, and comes back.
    signal("-STOP", &primary);
    wait_for_live(&server, "backup", &["silent", "no_pictures"]);
    signal("-CONT", &primary);
    wait_for_live(&server, "primary", &["steady"]);

    // It dies, and is started again.
    drop(primary);
    wait_for_live(&server, "backup", &["gone"]);
    let mut primary = publish(&server, "show", "red");
    wait_for_live(&server, "primary", &["steady"]);

    // The backup dies, which nobody notices; who is left says that it is done.
    drop(backup);
    eventually("absent", SOON, || {
        (status(&server)["inputs"][1]["state"] == "absent").then_some(())
    });
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("headwater_input_live{stream=\"show\",input=\"primary\"} 1"));
    signal("-INT", &primary);
    primary.wait(SOON);
    eventually("the end", SOON, || {
        (status(&server)["state"] == "reconnecting" || status(&server)["state"] == "ended")
            .then_some(())
    });
    let log = server.log();
    assert!(
        !log.contains("panicked") && log.contains("switched to another input"),
        "{log}"
    );
    let (code, store) = server.drain();
    assert_eq!(code, 0);
    assert_output(store.path(), folder.path());
}

/// The stored broadcast is whole, and shows one colour or the other in every frame, in the order asked for.
fn assert_output(store: &Path, folder: &Path) {
    let files = RENDITIONS.map(|name| joined(store, name, folder));
    for (file, segments) in &files[..2] {
        let colours = colours(file);
        assert!(
            colours.len() > (segments - 1) * 60,
            "{} frames in {segments} segments",
            colours.len()
        );
        let mut seen = colours;
        seen.dedup();
        // A busy machine may have starved a publisher and so have made one switch more.
        let mut rest = seen.iter();
        let wanted = ["blue", "red", "blue", "red", "blue", "red"];
        let is_shown = wanted.iter().all(|wanted| rest.any(|seen| seen == wanted));
        assert!(is_shown, "{seen:?}");
        assert!(
            seen.iter()
                .all(|seen| ["red", "blue"].contains(&seen.as_str())),
            "{seen:?}"
        );
    }
    let silent = silences(&files[2].0);
    assert!(
        silent.len() <= 20,
        "less than at the beginning and for a stall: {silent:?}"
    );
    let path = store.join("live/show");
    let (code, out, err) = run(headwater(&["inspect", path.to_str().unwrap()]), READ_LIMIT);
    assert_eq!(code, 0, "{out}\n{err}");
}
