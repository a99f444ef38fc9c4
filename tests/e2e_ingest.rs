//! Publishers of all kinds and manners against the real server: who is taken, who is refused with
//! which words, and what remains when one goes.
//!
//! Enters: the film, published by ffmpeg and by both of GStreamer's RTMP sinks; what ffmpeg sent of other
//! codecs, byte for byte; garbage
//! Leaves: a failure for each promise of the ingest side that did not hold
//! Never:  a publisher of our own
//! Time:   wall clock
//! Spec:   [RTMP]

#![cfg(feature = "gst")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::Duration;

use common::{Process, Server, eventually, ffmpeg_publish, film, run, run_ok, small_ladder, tool};

/// What a stream needs to start on a busy machine.
const START: Duration = Duration::from_secs(30);

/// The numbers of the segments that a playlist lists.
fn numbers(playlist: &str) -> Vec<u64> {
    let uris = playlist
        .lines()
        .filter_map(|line| line.strip_suffix(".m4s"));
    uris.map(|number| number.parse().unwrap()).collect()
}

fn playlist(server: &Server, stream: &str) -> String {
    server
        .get(&format!("/live/{stream}/v180/index.m3u8"))
        .text()
}

/// Waits until `stream` has made `more` segments from now on.
fn wait_for_progress(server: &Server, stream: &str, more: u64) {
    let last = || numbers(&playlist(server, stream)).last().copied();
    let from = eventually("a segment", START, last);
    eventually("more segments", START, || {
        last().filter(|now| *now >= from + more)
    });
}

/// Waits until what is stored of `stream` says that it has ended; gives its stored playlist.
fn stored_end(store: &Path, stream: &str) -> String {
    let folder = store.join("live").join(stream);
    let text = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap_or_default();
    eventually("the stored end", Duration::from_secs(20), || {
        let ended = |file: &&str| text(file).ends_with("#EXT-X-ENDLIST\n");
        let playlists = ["v360/index.m3u8", "v180/index.m3u8", "a96/index.m3u8"];
        let all = playlists.iter().all(ended) && text("manifest.mpd").contains("type=\"static\"");
        all.then(|| text("v180/index.m3u8"))
    })
}

/// Publishes the film once, at its pace, through `sink`.
fn gstreamer_publish(sink: &str, url: &str) -> Process {
    let source = format!("location={}", film().display());
    let target = format!("location={url}");
    let mut command = tool(
        "timeout",
        &["60", "gst-launch-1.0", "-q", "filesrc", &source, "!"],
    );
    command.args([
        "qtdemux",
        "name=d",
        "flvmux",
        "name=m",
        "streamable=true",
        "!",
        sink,
        &target,
    ]);
    command.args(["d.video_0", "!", "queue", "!", "h264parse", "!", "m."]);
    command.args(["d.audio_0", "!", "queue", "!", "aacparse", "!", "m."]);
    Process::start(command)
}

/// Publishes the film, and gives what ffmpeg had to say about being refused.
fn refused(url: &str) -> String {
    let film = film().display().to_string();
    let mut command = tool(
        "timeout",
        &["40", "ffmpeg", "-v", "verbose", "-re", "-i", &film],
    );
    command.args(["-c", "copy", "-f", "flv", url]);
    let (code, _, said) = run(command, Duration::from_secs(45));
    assert_ne!(code, 0, "{url} was taken:\n{said}");
    assert_ne!(code, 124, "{url} was neither taken nor refused:\n{said}");
    said
}

/// Sends what an encoder sent, byte for byte, and gives what it would have been told last: the level, the
/// code and the description of that status.
fn told(server: &Server, fixture: &str) -> [String; 3] {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/rtmp");
    let wire = std::fs::read(path.join(fixture)).unwrap();
    let mut socket = TcpStream::connect(&server.rtmp).unwrap();
    socket.set_read_timeout(Some(START)).unwrap();
    // The server may close before the last byte, and then with a reset; what it said comes first.
    drop(socket.write_all(&wire));
    let mut said = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = socket.read(&mut piece) {
        said.extend_from_slice(&piece[..length]);
    }
    let last = said.windows(8).rposition(|bytes| bytes == b"onStatus");
    let status = &said[last.expect("a status")..];
    ["level", "code", "description"].map(|name| property(status, name))
}

/// The text that an object in AMF0 has under `name`.
fn property(object: &[u8], name: &str) -> String {
    let length = u16::try_from(name.len()).unwrap().to_be_bytes();
    let key = [&length[..], name.as_bytes(), &[2]].concat();
    let found = object.windows(key.len()).position(|bytes| bytes == key);
    let value = &object[found.expect(name) + key.len()..];
    let length = usize::from(u16::from_be_bytes([value[0], value[1]]));
    String::from_utf8(value[2..2 + length].to_vec()).unwrap()
}

#[test]
fn gstreamer_publishes_two_streams_whose_numbers_go_on_when_one_returns() {
    let server = Server::start(&["--ladder", &small_ladder()]);
    let mut first = gstreamer_publish("rtmp2sink", &server.publish_url("two"));
    let mut second = gstreamer_publish("rtmpsink", &server.publish_url("one"));
    for stream in ["one", "two"] {
        server.wait_for(&format!("/live/{stream}/v180/index.m3u8"), START);
    }
    let status = server.get("/api/v1/streams").json();
    let live = status["streams"].as_array().unwrap().iter();
    let live: Vec<_> = live
        .map(|s| (s["name"].as_str().unwrap(), s["state"].as_str().unwrap()))
        .collect();
    assert_eq!(live, [("one", "live"), ("two", "live")]);
    assert_eq!(first.wait(Duration::from_secs(60)), 0);
    assert_eq!(second.wait(Duration::from_secs(60)), 0);
    let mut ended = Vec::new();
    for stream in ["one", "two"] {
        let text = stored_end(server.store.path(), stream);
        // The film is six segments long, and begins anywhere within one.
        assert!((6..=8).contains(&numbers(&text).len()), "{stream}: {text}");
        // Memory lists the same segments, with the parts of the last ones.
        let listed = numbers(&playlist(&server, stream));
        assert_eq!(numbers(&text), listed, "{stream}");
        ended = numbers(&text);
    }
    // The same key gives the same address, and numbers go on.
    let last = *ended.last().unwrap();
    let _again = ffmpeg_publish(&server.publish_url("two"), 60);
    let text = eventually("the stream again", START, || {
        let text = playlist(&server, "two");
        (!text.contains("ENDLIST") && !numbers(&text).is_empty()).then_some(text)
    });
    assert!(
        numbers(&text).iter().all(|number| *number > last),
        "{last}: {text}"
    );
    // So they do in another process on the same store.
    wait_for_progress(&server, "two", 1);
    let (code, store) = server.drain();
    assert_eq!(code, 0);
    let last = *numbers(&stored_end(store.path(), "two")).last().unwrap();
    let server = Server::start_on(store, &["--ladder", &small_ladder()]);
    let silent = ffmpeg_publish(&server.publish_url("two"), 60);
    let text = eventually("the stream after a restart", START, || {
        let text = playlist(&server, "two");
        (!text.contains("ENDLIST") && !numbers(&text).is_empty()).then_some(text)
    });
    assert!(
        numbers(&text).iter().all(|number| *number > last),
        "{last}: {text}"
    );
    displace(&server, &silent);
}

/// An encoder whose network went away comes back, while its old connection still looks open.
fn displace(server: &Server, silent: &Process) {
    let stop = ["-STOP", &silent.pid().to_string()];
    run_ok(tool("kill", &stop), Duration::from_secs(5));
    let refused = "already being published";
    let _back = eventually("a place for who comes back", START, || {
        let before = server.log().matches(refused).count();
        let mut publisher = ffmpeg_publish(&server.publish_url("two"), 60);
        let told = eventually("an answer", START, || {
            let log = server.log();
            let taken = log.contains("took over this stream key");
            let again = log.matches(refused).count() > before;
            (taken || again).then_some(taken)
        });
        (told && publisher.is_running()).then_some(publisher)
    });
    let last = numbers(&playlist(server, "two")).last().copied();
    eventually("the stream of who came back", START, || {
        let text = playlist(server, "two");
        (!text.contains("ENDLIST") && numbers(&text).last().copied() > last).then_some(())
    });
}

#[test]
fn live_stream_does_not_notice_those_who_are_refused_and_is_drained_at_the_end() {
    let server = Server::start(&["--ladder", &small_ladder()]);
    let mut publisher = ffmpeg_publish(&server.publish_url("steady"), 200);
    server.wait_for("/live/steady/v180/index.m3u8", START);

    let said = refused(&server.publish_url("steady"));
    assert!(
        said.contains("already being published from 127.0.0.1"),
        "{said}"
    );
    let said = refused(&server.publish_url(".hidden"));
    assert!(said.contains("must not begin with a dot"), "{said}");
    let said = refused(&server.publish_url("x").replace("/live/", "/wrong/"));
    assert!(said.contains("no application \"wrong\""), "{said}");
    for (fixture, codec, advice) in [
        (
            "ffmpeg_5.1.9_mp3.bin",
            "MP3",
            "AAC or Opus as the audio encoder",
        ),
        (
            "ffmpeg_5.1.9_h263.bin",
            "Sorenson H.263",
            "an H.264, HEVC or AV1 encoder",
        ),
    ] {
        let words = format!("{codec} over RTMP is not taken; in OBS choose {advice}");
        let refusal = ["error", "NetStream.Publish.Rejected", &words];
        assert_eq!(told(&server, fixture), refusal, "{fixture}");
        eventually("a line in the log", START, || {
            server.log().contains(&words).then_some(())
        });
    }
    throw_garbage(&server.rtmp);

    // It is the same broadcast still, without a hole.
    wait_for_progress(&server, "steady", 2);
    assert!(publisher.is_running());
    let now = numbers(&playlist(&server, "steady"));
    assert!(now.windows(2).all(|pair| pair[1] == pair[0] + 1), "{now:?}");
    assert_eq!(
        server.log().matches("publishing begins").count(),
        3,
        "{}",
        server.log()
    );
    assert!(
        !server.log().contains("panicked") && !server.log().contains("this is a bug"),
        "{}",
        server.log()
    );

    let (code, store) = server.drain();
    assert_eq!(code, 0);
    let text = stored_end(store.path(), "steady");
    assert!(numbers(&text).last() >= now.last(), "{text}");
}

/// Bytes that no encoder sends, and connections that say nothing or go halfway.
fn throw_garbage(rtmp: &str) {
    let handshake = [&[3_u8][..], &[0; 1536], &[0; 1536]].concat();
    let chunk = [&handshake[..], &[0xff; 4096]].concat();
    let mut silent = Vec::new();
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 5000],
        &handshake,
        &chunk,
        b"\x03",
        b"",
    ] {
        for _ in 0..5 {
            let mut socket = TcpStream::connect(rtmp).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_millis(50)))
                .unwrap();
            // The server may close at any byte; what it answers matters to nobody.
            drop(socket.write_all(bytes));
            drop(socket.read(&mut [0; 4096]));
            drop(socket.shutdown(Shutdown::Write));
            silent.push(socket);
        }
    }
}
