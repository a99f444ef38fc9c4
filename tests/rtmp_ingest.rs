//! The RTMP listener against real publishers and real trouble, over real sockets.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use headwater::ingest::rtmp::{
    Config, Decision, EndReason, MEDIA_CHANNEL_MESSAGES, Message, Metadata, PublishRequest,
    Refusal, RefusalCode, serve,
};
use headwater::media::MediaKind;
use headwater::publish::{self, Job, Movie};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than any publisher here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

fn film() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/media/bbb_720p30_12s.mp4")
}

/// A listener on a free port.
struct Server {
    address: SocketAddr,
    requests: mpsc::Receiver<PublishRequest>,
    shutdown: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (sender, requests) = mpsc::channel(8);
        let (shutdown, stop) = watch::channel(false);
        let serving = tokio::spawn(serve(listener, config, sender, stop));
        Self {
            address,
            requests,
            shutdown,
            serving,
        }
    }

    fn url(&self, key: &str) -> String {
        format!("rtmp://{}/live/{key}", self.address)
    }

    async fn request(&mut self) -> PublishRequest {
        let request = timeout(PATIENCE, self.requests.recv()).await;
        request.expect("in time").expect("the listener is up")
    }

    /// Accepts the next publisher and gathers what it sends.
    async fn accept(&mut self) -> (String, JoinHandle<Received>) {
        let request = self.request().await;
        let key = request.stream_key.clone();
        let (media, messages) = mpsc::channel(MEDIA_CHANNEL_MESSAGES);
        let (_never, close) = oneshot::channel();
        let decision = Decision::Accept { media, close };
        request.reply.send(decision).expect("the connection waits");
        (key, tokio::spawn(Received::gather(messages)))
    }
}

/// All that one publisher sent.
#[derive(Debug, Default)]
struct Received {
    metadata: Option<Metadata>,
    video: Vec<(u32, Vec<u8>)>,
    audio: Vec<(u32, Vec<u8>)>,
    end: Option<EndReason>,
}

impl Received {
    async fn gather(mut messages: mpsc::Receiver<Message>) -> Self {
        let mut received = Self::default();
        while let Ok(Some(message)) = timeout(PATIENCE, messages.recv()).await {
            match message {
                Message::Metadata(metadata) => received.metadata = Some(metadata),
                Message::Video {
                    timestamp_ms, data, ..
                } => {
                    received.video.push((timestamp_ms, data.to_vec()));
                }
                Message::Audio {
                    timestamp_ms, data, ..
                } => {
                    received.audio.push((timestamp_ms, data.to_vec()));
                }
                Message::End(reason) => received.end = Some(reason),
            }
        }
        received
    }

    /// The access units of pictures, without FLV headers and sequence messages.
    fn pictures(&self) -> Vec<&[u8]> {
        let units = self.video.iter().filter(|(_, d)| d.len() > 5 && d[1] == 1);
        units.map(|(_, data)| &data[5..]).collect()
    }

    /// The access units of sound.
    fn sounds(&self) -> Vec<&[u8]> {
        let units = self.audio.iter().filter(|(_, d)| d.len() > 2 && d[1] == 1);
        units.map(|(_, data)| &data[2..]).collect()
    }

    fn assert_is_the_film(&self) {
        let (pictures, sounds) = film_samples();
        same("pictures", &self.pictures(), &pictures);
        same("sounds", &self.sounds(), &sounds);
    }
}

fn same(what: &str, found: &[&[u8]], expected: &[Vec<u8>]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let differ = found.iter().zip(expected).position(|(f, e)| f != e);
    assert_eq!(differ, None, "first of {what} that differs");
}

/// The film's access units as its own tables say.
fn film_samples() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let movie = Movie::open(&film()).expect("whole");
    let mut reader = movie.reader().expect("opens");
    let mut units = HashMap::from([(MediaKind::Video, vec![]), (MediaKind::Audio, vec![])]);
    for sample in movie.samples() {
        let data = reader.read(sample).expect("in the file");
        units.entry(sample.kind).or_default().push(data);
    }
    let mut take = |kind| units.remove(&kind).expect("both tracks");
    (take(MediaKind::Video), take(MediaKind::Audio))
}

/// Runs a program to its end; its error output.
async fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let output = timeout(PATIENCE, command.output()).await;
    let output = output.expect("in time").expect("the program is installed");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), text)
}

async fn ffmpeg(url: &str) -> (bool, String) {
    let film = film();
    let film = film.to_str().expect("utf-8");
    let arguments = ["-v", "error", "-i", film, "-c", "copy", "-f", "flv", url];
    run("ffmpeg", &arguments).await
}

fn job(server: &Server, key: &str, streams: u32) -> Job {
    Job {
        file: film(),
        url: server.url(key),
        repeat: false,
        streams: NonZeroU32::new(streams).expect("not zero"),
    }
}

fn refusal(text: &str) -> Refusal {
    Refusal {
        code: RefusalCode::BadName,
        description: text.to_owned(),
    }
}

#[tokio::test]
async fn ffmpeg_delivers_the_film() {
    let mut server = Server::start(Config::default()).await;
    let url = server.url("demo");
    let publisher = tokio::spawn(async move { ffmpeg(&url).await });
    let (key, received) = server.accept().await;
    assert_eq!(key, "demo");
    let received = received.await.expect("gathered");
    assert_eq!(publisher.await.expect("ran"), (true, String::new()));
    received.assert_is_the_film();
    assert_eq!(received.end, Some(EndReason::Unpublished));
    let metadata = received.metadata.expect("ffmpeg sends some");
    assert_eq!((metadata.width, metadata.height), (Some(1_280), Some(720)));
    assert_eq!(
        (metadata.video_codec, metadata.audio_codec),
        (Some(7), Some(10))
    );
    assert!(metadata.encoder.expect("named").starts_with("Lavf"));
}

/// GStreamer publishes through `sink`, with every access unit unchanged.
async fn gstreamer_delivers_the_film(sink: &str, sync: bool) {
    let mut server = Server::start(Config::default()).await;
    let location = format!("location={}", server.url("demo"));
    let pipeline = format!(
        "filesrc location={} ! qtdemux name=d flvmux name=m streamable=true ! {sink} sync={sync} {location} \
         d.video_0 ! queue ! h264parse ! video/x-h264,stream-format=avc,alignment=au ! m.video \
         d.audio_0 ! queue ! aacparse ! audio/mpeg,stream-format=raw ! m.audio",
        film().display()
    );
    let publisher = tokio::spawn(async move {
        let words: Vec<_> = std::iter::once("-q")
            .chain(pipeline.split_whitespace())
            .collect();
        run("gst-launch-1.0", &words).await
    });
    let (_, received) = server.accept().await;
    let received = received.await.expect("gathered");
    let (success, errors) = publisher.await.expect("ran");
    assert!(success, "{errors}");
    received.assert_is_the_film();
    assert!(received.end.is_some());
}

#[tokio::test]
async fn rtmp2sink_delivers_the_film() {
    gstreamer_delivers_the_film("rtmp2sink", false).await;
}

#[tokio::test]
async fn librtmp_delivers_the_film() {
    // At its pace: librtmp never reads our acknowledgements, so its system resets the connection when it
    // closes, and forgets what a publisher that is faster than its reader has not yet sent.
    gstreamer_delivers_the_film("rtmpsink", true).await;
}

#[tokio::test]
async fn our_own_publisher_delivers_the_film_at_its_pace_and_says_how_far_it_is() {
    let mut server = Server::start(Config::default()).await;
    let (_go_on, shutdown) = watch::channel(false);
    let job = job(&server, "demo?secret=1", 2);
    let publisher = tokio::spawn(async move {
        let (begin, mut reports) = (std::time::Instant::now(), 0);
        let summary = publish::publish(job, |_| reports += 1, shutdown).await;
        (summary.expect("published"), reports, begin.elapsed())
    });
    let (first, second) = (server.accept().await, server.accept().await);
    let mut keys = [first.0, second.0];
    keys.sort();
    assert_eq!(keys, ["demo-1", "demo-2"]);
    let (summary, reports, took) = publisher.await.expect("ran");
    for received in [first.1, second.1] {
        let received = received.await.expect("gathered");
        received.assert_is_the_film();
        assert_eq!(received.end, Some(EndReason::Unpublished));
        let metadata = received.metadata.expect("sent");
        assert_eq!(metadata.frame_rate_millihertz, Some(30_000));
        let encoder = format!("headwater/{}", env!("CARGO_PKG_VERSION"));
        assert_eq!(metadata.encoder, Some(encoder));
        for track in [&received.video, &received.audio] {
            assert!(track.is_sorted_by_key(|(time, _)| *time));
        }
    }
    assert_eq!(summary.loops, 1);
    assert!(summary.media > Duration::from_secs(11) && summary.media <= summary.film);
    assert!(took > Duration::from_secs(11), "paced, took {took:?}");
    assert!(reports > 20);
}

#[tokio::test]
async fn a_loop_goes_on_in_time_at_the_seam_and_stops_when_told() {
    let mut server = Server::start(Config::default()).await;
    let (stop, shutdown) = watch::channel(false);
    let movie = Movie::open(&film()).expect("whole");
    let job = Job {
        repeat: true,
        ..job(&server, "demo", 1)
    };
    let publisher = tokio::spawn(async move {
        let stop_later = |progress: publish::Progress| {
            if progress.loops == 1 && progress.media > progress.film + Duration::from_millis(300) {
                stop.send_replace(true);
            }
        };
        publish::publish(job, stop_later, shutdown).await
    });
    let received = server.accept().await.1.await.expect("gathered");
    publisher.await.expect("ran").expect("ended properly");
    assert_eq!(received.end, Some(EndReason::Unpublished));
    let length = u32::try_from(movie.length().as_nanos() / 1_000).expect("short");
    for (kind, track, header) in [
        (MediaKind::Video, &received.video, 5),
        (MediaKind::Audio, &received.audio, 2),
    ] {
        let count = movie.samples().iter().filter(|s| s.kind == kind).count();
        // The first message is the sequence header.
        let (first, again) = (&track[1], &track[1 + count]);
        assert_eq!(
            first.1[header..],
            again.1[header..],
            "the film begins again"
        );
        let moved = (again.0 - first.0) * 1_000;
        assert!(
            moved.abs_diff(length) <= 1_000,
            "{kind:?} moved {moved} us of {length}"
        );
    }
}

#[tokio::test]
async fn a_refused_key_shows_its_reason() {
    let mut server = Server::start(Config::default()).await;
    let url = server.url("demo");
    let publisher = tokio::spawn(async move { ffmpeg(&url).await });
    let request = server.request().await;
    let decision = Decision::Refuse(refusal("that key is taken by another publisher"));
    request.reply.send(decision).expect("the connection waits");
    let (success, errors) = publisher.await.expect("ran");
    assert!(!success && errors.contains("that key is taken"), "{errors}");

    let (_go_on, shutdown) = watch::channel(false);
    let job = job(&server, "demo", 1);
    let publisher = tokio::spawn(publish::publish(job, |_| {}, shutdown));
    let request = server.request().await;
    let decision = Decision::Refuse(refusal("no such key"));
    request.reply.send(decision).expect("the connection waits");
    let error = publisher.await.expect("ran").expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the server refused: no such key (NetStream.Publish.BadName)"
    );
}

#[tokio::test]
async fn a_wrong_application_shows_its_reason() {
    let server = Server::start(Config::default()).await;
    let url = format!("rtmp://{}/vod/demo", server.address);
    let (success, errors) = ffmpeg(&url).await;
    assert!(
        !success && errors.contains("no application \"vod\""),
        "{errors}"
    );
}

#[tokio::test]
async fn a_publisher_is_refused_after_its_first_message() {
    let mut server = Server::start(Config::default()).await;
    let (_go_on, shutdown) = watch::channel(false);
    let job = job(&server, "demo", 1);
    let publisher = tokio::spawn(publish::publish(job, |_| {}, shutdown));
    let request = server.request().await;
    let (media, mut messages) = mpsc::channel(4);
    let (refuse, close) = oneshot::channel();
    let decision = Decision::Accept { media, close };
    request.reply.send(decision).expect("the connection waits");
    let first = timeout(PATIENCE, messages.recv()).await.expect("in time");
    assert!(first.is_some());
    refuse
        .send(refusal("the codec is not known"))
        .expect("open");
    let error = publisher.await.expect("ran").expect_err("refused");
    assert!(
        error.to_string().contains("the codec is not known"),
        "{error}"
    );
    let rest = Received::gather(messages).await;
    assert_eq!(rest.end, Some(EndReason::Refused));
}

/// Reads until the server closes.
async fn closed(mut socket: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, socket.read_to_end(&mut bytes)).await;
    // A reset closes too.
    let _read = read.expect("closed in time");
    bytes
}

fn hasty() -> Config {
    Config {
        handshake_timeout: Duration::from_millis(300),
        first_media_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(300),
        ..Config::default()
    }
}

#[tokio::test]
async fn a_slow_handshake_is_closed_however_it_trickles() {
    let server = Server::start(hasty()).await;
    let silent = TcpStream::connect(server.address).await.expect("accepted");
    let (input, mut output) = TcpStream::connect(server.address)
        .await
        .expect("accepted")
        .into_split();
    let trickle = tokio::spawn(async move {
        let _first = output.write_all(&[3]).await;
        while output.write_all(&[0]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(closed(silent).await.is_empty());
    let mut input = input;
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, input.read_to_end(&mut bytes)).await;
    let _read = read.expect("closed in time");
    drop(input);
    timeout(PATIENCE, trickle)
        .await
        .expect("ended")
        .expect("ran");
}

#[tokio::test]
async fn a_publisher_that_falls_silent_ends_its_publication() {
    let mut server = Server::start(hasty()).await;
    let stuck = StuckProxy::start(server.address).await;
    let (_go_on, shutdown) = watch::channel(false);
    let job = Job {
        file: film(),
        url: format!("rtmp://{}/live/half", stuck.address),
        repeat: false,
        streams: NonZeroU32::MIN,
    };
    let publisher = tokio::spawn(publish::publish(job, |_| {}, shutdown));
    let (_, received) = server.accept().await;
    let received = received.await.expect("gathered");
    assert_eq!(received.end, Some(EndReason::TimedOut));
    assert!(!received.video.is_empty());
    publisher.abort();
}

/// Passes bytes both ways until half a megabyte has gone up, then holds everything without closing.
struct StuckProxy {
    address: SocketAddr,
    _passing: JoinHandle<()>,
}

impl StuckProxy {
    async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let passing = tokio::spawn(async move {
            let (client, _) = listener.accept().await.expect("a client");
            let upstream = TcpStream::connect(server).await.expect("the server");
            let (client_in, mut client_out) = client.into_split();
            let (mut server_in, mut server_out) = upstream.into_split();
            let down = tokio::io::copy(&mut server_in, &mut client_out);
            let mut some = client_in.take(500_000);
            let up = tokio::io::copy(&mut some, &mut server_out);
            let _passed = tokio::join!(up, down);
            std::future::pending::<()>().await;
        });
        Self {
            address,
            _passing: passing,
        }
    }
}

#[tokio::test]
async fn sixty_four_connections_deliver_at_once() {
    let mut server = Server::start(Config::default()).await;
    let (stop, shutdown) = watch::channel(false);
    let job = Job {
        repeat: true,
        ..job(&server, "many", 64)
    };
    let publisher = tokio::spawn(publish::publish(job, |_| {}, shutdown));
    let mut all = Vec::new();
    for _ in 0..64 {
        all.push(server.accept().await);
    }
    let keys: std::collections::HashSet<_> = all.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(keys.len(), 64);
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.send_replace(true);
    publisher.await.expect("ran").expect("ended properly");
    let (pictures, _) = film_samples();
    for (_, received) in all {
        let received = received.await.expect("gathered");
        let found = received.pictures();
        assert!(found.len() > 20, "{}", found.len());
        same("pictures", &found, &pictures[..found.len()]);
        assert_eq!(received.end, Some(EndReason::Unpublished));
    }
}

#[tokio::test]
async fn garbage_leaves_a_live_stream_unharmed() {
    let mut server = Server::start(Config::default()).await;
    let url = server.url("demo");
    let publisher = tokio::spawn(async move { ffmpeg(&url).await });
    let (_, received) = server.accept().await;
    for seed in 0..40_u32 {
        let mut socket = TcpStream::connect(server.address).await.expect("accepted");
        // A proper handshake for half of them, and then noise.
        let mut noise = vec![3];
        noise.resize(if seed % 2 == 0 { 1 } else { 3_073 }, 0);
        let mut state = seed.wrapping_mul(2_654_435_769) | 1;
        noise.extend(
            std::iter::repeat_with(|| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state.to_le_bytes()[0]
            })
            .take(8_192),
        );
        if seed % 4 == 0 {
            noise[0] = b'G';
        }
        let _may_be_closed_by_now = socket.write_all(&noise).await;
        let _may_be_closed_by_now = socket.shutdown().await;
        closed(socket).await;
    }
    let received = received.await.expect("gathered");
    assert_eq!(publisher.await.expect("ran"), (true, String::new()));
    received.assert_is_the_film();
}

#[tokio::test]
async fn a_connection_too_many_is_closed_and_a_free_place_is_given_again() {
    let config = Config {
        max_connections: 1,
        ..Config::default()
    };
    let mut server = Server::start(config).await;
    let first = TcpStream::connect(server.address).await.expect("accepted");
    // The first is in its place once the server speaks to it.
    let mut first = first;
    first.write_all(&[3]).await.expect("open");
    first.read_u8().await.expect("S0");
    let second = TcpStream::connect(server.address).await.expect("connected");
    assert!(closed(second).await.is_empty());
    drop(first);
    let (_go_on, shutdown) = watch::channel(false);
    let accepted = async {
        loop {
            let job = job(&server, "demo", 1);
            let publisher = tokio::spawn(publish::publish(job, |_| {}, shutdown.clone()));
            tokio::select! {
                request = server.requests.recv() => break request,
                _ = publisher => {}
            }
        }
    };
    let request = timeout(PATIENCE, accepted).await.expect("in time");
    assert!(request.is_some());
}

#[tokio::test]
async fn shutting_down_ends_publications_and_connections() {
    let mut server = Server::start(Config::default()).await;
    let (_go_on, shutdown) = watch::channel(false);
    let job = job(&server, "demo", 1);
    let publisher = tokio::spawn(publish::publish(job, |_| {}, shutdown));
    let (_, received) = server.accept().await;
    let idle = TcpStream::connect(server.address).await.expect("accepted");
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.shutdown.send_replace(true);
    let received = received.await.expect("gathered");
    assert_eq!(received.end, Some(EndReason::ShutDown));
    let error = publisher.await.expect("ran").expect_err("ended");
    assert!(error.to_string().contains("shutting down"), "{error}");
    closed(idle).await;
    timeout(PATIENCE, server.serving)
        .await
        .expect("in time")
        .expect("no panic");
    assert!(TcpStream::connect(server.address).await.is_err());
}
