//! The command line as a person meets it: what is printed, and the exit code.
//!
//! Enters: arguments, right and wrong
//! Leaves: a failure for each text or exit code that is not as documented
//! Never:  a stream that is watched
//! Time:   a limit for every process
//! Spec:   docs/configuration.md

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod common;

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "gst")]
use common::{Server, eventually};
use common::{film, headwater, run, small_ladder};

const LIMIT: Duration = Duration::from_secs(60);
/// The command line or configuration is wrong.
const WRONG: i32 = 2;

fn say(args: &[&str]) -> (i32, String, String) {
    run(headwater(args), LIMIT)
}

/// Free ports and a fresh store, so that nothing else stands in the way.
fn serve(args: &[&str]) -> (i32, String, String) {
    let store = tempfile::tempdir().unwrap();
    let mut command = headwater(&["serve"]);
    for (flag, value) in [("--rtmp", "127.0.0.1:0"), ("--http", "127.0.0.1:0")] {
        if !args.contains(&flag) {
            command.args([flag, value]);
        }
    }
    if !args.contains(&"--store") {
        command.arg("--store").arg(store.path());
    }
    command.args(args);
    run(command, LIMIT)
}

fn write(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path: PathBuf = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn every_command_has_help() {
    for (args, words) in [
        (
            &["--help"][..],
            &["serve", "publish", "doctor", "config", "serve --demo"][..],
        ),
        (
            &["serve", "--help"],
            &[
                "--rtmp",
                "--http",
                "--store",
                "--ladder",
                "--log",
                "--demo",
                "HEADWATER_RTMP",
                "0.0.0.0:1935",
            ],
        ),
        (
            &["publish", "--help"],
            &["<FILE>", "<URL>", "--loop", "--streams", "rtmp://"],
        ),
        (&["doctor", "--help"], &["--config", "--store"]),
        (&["config", "--help"], &["check", "show"]),
        (&["config", "check", "--help"], &["<FILE>"]),
        (&["config", "show", "--help"], &["--config"]),
    ] {
        let (code, out, err) = say(args);
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        for word in words {
            assert!(out.contains(word), "{args:?} does not say {word}:\n{out}");
        }
    }
    assert!(say(&["--version"]).1.starts_with("headwater "));
}

#[test]
fn wrong_command_line_is_refused_with_2() {
    for args in [
        &[][..],
        &["serv"],
        &["serve", "--nope"],
        &["publish"],
        &["publish", "a", "b", "--streams", "0"],
    ] {
        let (code, _, err) = say(args);
        assert_eq!(code, WRONG, "{args:?}: {err}");
        assert!(
            err.contains("Usage:") || err.contains("--help"),
            "{args:?}: {err}"
        );
    }
}

/// Whether `text` is one line that begins as an error does.
fn assert_one_sentence(text: &str, words: &[&str]) {
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("error: "), "{text}");
    for word in words {
        assert!(text.contains(word), "{word} is missing: {text}");
    }
}

#[test]
fn port_in_use_is_one_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--rtmp", "--http"] {
        let (code, out, err) = serve(&[flag, &address]);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert_one_sentence(&err, &[&address, "in use", flag]);
    }
}

#[test]
fn store_that_cannot_be_written_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "file", "");
    for store in [format!("{file}/below"), file, "/proc/headwater".to_owned()] {
        let (code, out, err) = serve(&["--store", &store]);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert_one_sentence(&err, &["store.url", &store]);
    }
}

#[test]
fn every_mistake_of_a_configuration_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[package]\nsegment = \"500ms\"\nwindow_segments = 2\n[serve]\nlisten = \"here\"\nlisten_too = 1\n[nope]\n";
    let file = write(&folder, "config.toml", text);
    for args in [
        &["config", "check", &file][..],
        &["serve", "--config", &file],
        &["doctor", "--config", &file],
        &["config", "show", "--config", &file],
    ] {
        let (code, out, err) = say(args);
        assert_eq!((code, out.as_str()), (WRONG, ""), "{args:?}: {err}");
        for words in [
            "package.segment: ",
            "package.window_segments: ",
            "serve.listen: ",
            "serve.listen_too",
            "nope",
            "line 2, column 1",
        ] {
            assert!(err.contains(words), "{args:?} does not say {words}:\n{err}");
        }
    }
    let (code, _, err) = say(&["config", "check", "/nowhere.toml"]);
    assert_eq!(code, WRONG);
    assert_one_sentence(&err, &["/nowhere.toml"]);
}

#[test]
fn every_mistake_of_a_pipeline_file_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(small_ladder()).unwrap();
    let text = text
        .replace("codec = \"h264\"", "codec = \"h265\"")
        .replace("closed_gop = true", "closed_gop = false")
        .replace("{threads}", "{treads}")
        .replace("max_fps = 30\nbitrate_kbps = 250", "max_fps = 300");
    let ladder = write(&folder, "mine.toml", &text);
    let config = write(
        &folder,
        "config.toml",
        &format!("[transcode]\nladder = {ladder:?}\n"),
    );
    for args in [
        &["serve", "--ladder", &ladder][..],
        &["doctor", "--ladder", &ladder],
        &["config", "check", &config],
    ] {
        let (code, out, err) = say(args);
        assert_eq!((code, out.as_str()), (WRONG, ""), "{args:?}: {err}");
        for words in [
            "mine.toml",
            "video.codec",
            "video.closed_gop",
            "{treads}",
            "video.rung[1].max_fps",
            "video.rung[1].bitrate_kbps",
        ] {
            assert!(err.contains(words), "{args:?} does not say {words}:\n{err}");
        }
    }
    let (code, _, err) = serve(&["--ladder", "nope"]);
    assert_eq!(code, WRONG);
    assert_one_sentence(
        &err,
        &["transcode.ladder", "nope", "auto", "x264-quality", "nvenc"],
    );
}

#[test]
fn ladder_that_is_too_slow_for_the_least_latency_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[transcode]\nladder = \"x264-quality\"\n[package]\nlow_latency = \"ultra\"\n";
    let file = write(&folder, "ultra.toml", text);
    let (code, _, complaint) = say(&["config", "check", &file]);
    assert_eq!(code, WRONG, "{complaint}");
    assert_one_sentence(&complaint, &["x264-quality", "1200 ms", "100 ms", "ultra"]);
    let quick = write(
        &folder,
        "quick.toml",
        &text.replace("x264-quality", "openh264"),
    );
    assert_eq!(say(&["config", "check", &quick]).0, 0);
}

#[test]
fn configuration_shown_is_the_one_in_force_and_can_be_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(
        &folder,
        "config.toml",
        "[package]\nsegment = \"4s\"\n[serve]\nlisten = \"127.0.0.1:1\"\n",
    );
    let mut command = headwater(&["config", "show", "--config", &file, "--http", "127.0.0.1:3"]);
    command
        .env("HEADWATER_RTMP", "127.0.0.1:2")
        .env("HEADWATER_HTTP", "127.0.0.1:4");
    let (code, shown, err) = run(command, LIMIT);
    assert_eq!((code, err.as_str()), (0, ""));
    for line in [
        "segment = \"4s\"",
        "listen = \"127.0.0.1:2\"",
        "listen = \"127.0.0.1:3\"",
    ] {
        assert!(shown.contains(line), "{line} is missing:\n{shown}");
    }
    let again = write(&folder, "shown.toml", &shown);
    assert_eq!(
        say(&["config", "show", "--config", &again]),
        (0, shown, String::new())
    );
    let (code, out, _) = say(&["config", "check", &again]);
    assert!(code == 0 && out.contains("no problem found"), "{out}");
}

#[test]
fn publishing_to_nobody_or_nothing_is_one_sentence() {
    let film = film().display().to_string();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let dead = format!("rtmp://{free}/live/x");
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    for (file, url, words) in [
        (film.as_str(), dead.as_str(), ["cannot connect", "refused"]),
        (
            &film,
            "http://127.0.0.1/x",
            ["http://127.0.0.1/x", "rtmp://"],
        ),
        ("/nowhere.mp4", &dead, ["cannot read", "/nowhere.mp4"]),
        (text, &dead, ["README.md", "MP4"]),
    ] {
        let (code, out, err) = say(&["publish", file, url]);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert_one_sentence(&err, &words);
    }
}

#[cfg(feature = "gst")]
#[test]
fn doctor_names_what_each_ladder_lacks() {
    let store = tempfile::tempdir().unwrap();
    let args = [
        "doctor",
        "--rtmp",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--store",
        &store.path().display().to_string(),
    ];
    let (code, out, err) = say(&args);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for what in [
        "GStreamer",
        "ladder auto",
        "ladder nvenc",
        "ladder vaapi",
        "ladder qsv",
        "RTMP port",
        "HTTP port",
        "store",
        "clock",
    ] {
        assert!(out.contains(what), "{what} is missing:\n{out}");
    }
    assert!(out.contains("This machine is ready"), "{out}");
    if !out.contains("ladder nvenc         every") {
        assert!(out.contains("missing: nvh264enc"), "{out}");
        let (code, out, err) = say(&[&args[..], &["--ladder", "nvenc"]].concat());
        assert_eq!(code, 1, "{out}{err}");
        assert!(out.contains("FAIL  ladder nvenc"), "{out}");
    }
}

#[cfg(feature = "gst")]
#[test]
fn ladder_for_a_device_that_is_not_there_is_refused_at_the_start() {
    let (code, out, err) = run(headwater(&["doctor"]), LIMIT);
    if !out.contains("missing: nvh264enc") {
        eprintln!("not tried: this machine has the device ({code} {err})");
        return;
    }
    let (code, out, err) = serve(&["--ladder", "nvenc"]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert_one_sentence(&err, &["nvenc", "nvh264enc", "--ladder"]);
}

#[cfg(feature = "gst")]
#[test]
fn publish_tells_what_it_sent_and_ends_the_broadcast() {
    let server = Server::start(&["--ladder", &small_ladder()]);
    let url = server.publish_url("film");
    let (code, out, err) = say(&["publish", &film().display().to_string(), &url]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("sent 12 s of media, 4"), "{out}");
    eventually("the end", LIMIT, || {
        let text = server.get("/live/film/v180/index.m3u8").text();
        text.ends_with("#EXT-X-ENDLIST\n").then_some(())
    });
}
