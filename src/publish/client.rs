//! One publisher: the conversation with the server, and the film at the pace of the clock.
//!
//! Enters: a film, a target
//! Leaves: RTMP to the server; what was sent, counted
//! Never:  skips a sample: a slow server makes it late, not lossy
//! Time:   the monotonic clock paces; sample times go on over the loops, one length for all tracks
//! Spec:   [RTMP] §7.2, [ERTMP] v2 connect, onMetaData

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use rml_amf0::Amf0Value;
use rml_rtmp::chunk_io::ChunkSerializer;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::messages::{MessagePayload, RtmpMessage};
use rml_rtmp::time::RtmpTimestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::Instant;

use super::movie::{Movie, MovieReader, Sample, millis};
use super::reply::{Reader, Reply};
use super::{Counter, Error, Target};
use crate::media::MediaKind;

/// How long a server may take for each answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the goodbye may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);
/// Payload per chunk that we send.
const CHUNK_BYTES: u32 = 4_096;
const READ_BYTES: usize = 4_096;
const AUDIO: u8 = 8;
const VIDEO: u8 = 9;
const DATA: u8 = 18;

/// One publisher before it begins.
pub(super) struct Player {
    pub(super) movie: Arc<Movie>,
    pub(super) target: Target,
    pub(super) repeat: bool,
    pub(super) counter: Arc<Counter>,
}

impl Player {
    /// Plays until the end, or until `shutdown`.
    pub(super) async fn play(self, mut shutdown: watch::Receiver<bool>) -> Result<(), Error> {
        let mut link = tokio::select! {
            link = Link::open(&self.target, &self.movie) => link?,
            () = stopped(&mut shutdown) => return Ok(()),
        };
        link.metadata(&self.movie).await?;
        for (kind, body) in self.movie.headers() {
            link.media(kind, 0, body).await?;
        }
        let mut reader = self.movie.reader()?;
        let begin = Instant::now();
        let mut offset = Duration::ZERO;
        loop {
            for sample in self.movie.samples() {
                let time = offset + Duration::from_nanos(sample.dts_ns.unsigned_abs());
                let told = tokio::select! {
                    biased;
                    () = stopped(&mut shutdown) => return link.goodbye(&self.target).await,
                    told = link.listen() => told,
                    () = tokio::time::sleep_until(begin + time) => Ok(()),
                };
                told?;
                self.send(&mut link, &mut reader, sample, time).await?;
            }
            offset += self.movie.length();
            self.counter.loops.fetch_add(1, Ordering::Relaxed);
            if !self.repeat {
                return link.goodbye(&self.target).await;
            }
        }
    }

    async fn send(
        &self,
        link: &mut Link,
        reader: &mut MovieReader,
        sample: &Sample,
        time: Duration,
    ) -> Result<(), Error> {
        // A few kilobytes that the page cache holds: handing them to another thread would cost more.
        let data = reader.read(sample)?;
        let offset_ns = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX) - sample.dts_ns;
        let placed = Sample {
            dts_ns: sample.dts_ns + offset_ns,
            pts_ns: sample.pts_ns + offset_ns,
            ..*sample
        };
        let body = self.movie.body(&placed, &data);
        let sent = link.media(placed.kind, millis(placed.dts_ns), body).await?;
        self.counter.bytes.fetch_add(sent, Ordering::Relaxed);
        let media_ns = placed.dts_ns.unsigned_abs();
        self.counter.media_ns.store(media_ns, Ordering::Relaxed);
        Ok(())
    }
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    if shutdown.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}

/// A connection on which a publication has been accepted.
struct Link {
    input: OwnedReadHalf,
    output: OwnedWriteHalf,
    serializer: ChunkSerializer,
    replies: Reader,
    stream_id: u32,
    transaction: f64,
}

impl Link {
    /// Connects, shakes hands, and talks until the server lets us publish.
    async fn open(target: &Target, movie: &Movie) -> Result<Self, Error> {
        let place = (&*target.host, target.port);
        let connect = tokio::time::timeout(ANSWER_TIMEOUT, TcpStream::connect(place)).await;
        let connect = connect.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let mut socket = connect.map_err(|source| Error::Connect {
            address: format!("{}:{}", target.host, target.port),
            source,
        })?;
        socket.set_nodelay(true)?;
        let mut replies = Reader::new();
        let rest = answer("the handshake", shake_hands(&mut socket)).await?;
        replies.push(&rest);
        let (input, output) = socket.into_split();
        let mut link = Self {
            input,
            output,
            serializer: ChunkSerializer::new(),
            replies,
            stream_id: 0,
            transaction: 0.0,
        };
        link.negotiate(target, movie).await?;
        Ok(link)
    }

    async fn negotiate(&mut self, target: &Target, movie: &Movie) -> Result<(), Error> {
        let chunk_size = self
            .serializer
            .set_max_chunk_size(CHUNK_BYTES, RtmpTimestamp::new(0));
        let chunk_size = chunk_size.map_err(|_| Error::Inside)?;
        self.output.write_all(&chunk_size.bytes).await?;
        let mut object = HashMap::from([
            ("app".to_owned(), text(&target.app)),
            ("type".to_owned(), text("nonprivate")),
            ("flashVer".to_owned(), text(&encoder())),
            ("tcUrl".to_owned(), text(&target.tc_url())),
        ]);
        let fourcc = |kind| fourcc(movie, kind);
        let (video, audio) = (fourcc(MediaKind::Video), fourcc(MediaKind::Audio));
        if video.is_some() || audio.is_some() {
            object.extend(capabilities(video, audio));
        }
        let connect = self
            .command("connect", Amf0Value::Object(object), vec![])
            .await?;
        let connected = self.result_of(connect, "connect").await?;
        // Of sound not every server says anything there.
        if let (Some(codec), Some(taken)) = (video, connected.texts("fourCcList"))
            && !taken.iter().any(|name| *name == "*" || *name == codec)
        {
            return Err(Error::CodecNotTaken {
                codec,
                taken: taken.join(", "),
            });
        }
        let name = target.name();
        for early in ["releaseStream", "FCPublish"] {
            self.command(early, Amf0Value::Null, vec![text(&name)])
                .await?;
        }
        let create = self
            .command("createStream", Amf0Value::Null, vec![])
            .await?;
        let created = self.result_of(create, "createStream").await?;
        let id = created.values.iter().find_map(|value| match value {
            Amf0Value::Number(id) => Some(*id),
            _ => None,
        });
        self.stream_id = id.and_then(stream_id).ok_or(Error::Malformed {
            what: "message stream",
        })?;
        let arguments = vec![text(&name), text("live")];
        self.command("publish", Amf0Value::Null, arguments).await?;
        let code = |reply: &Reply| reply.text("code") == Some("NetStream.Publish.Start");
        answer("publish", self.wait_for(code)).await?;
        Ok(())
    }

    async fn metadata(&mut self, movie: &Movie) -> Result<(), Error> {
        let mut object = HashMap::from([("encoder".to_owned(), text(&encoder()))]);
        let mut number = |name: &str, value: f64| {
            object.insert(name.to_owned(), Amf0Value::Number(value));
        };
        if let Some(video) = movie.video() {
            number("width", video.width.into());
            number("height", video.height.into());
            number("framerate", video.frame_rate);
            number("videocodecid", video.codec.number().into());
        }
        if let Some(audio) = movie.audio() {
            number("audiocodecid", audio.codec.number().into());
            number("audiosamplerate", audio.sample_rate.into());
            number("audiochannels", audio.channels.into());
        }
        let values = vec![
            text("@setDataFrame"),
            text("onMetaData"),
            Amf0Value::Object(object),
        ];
        let body = rml_amf0::serialize(&values).map_err(|_| Error::Inside)?;
        self.message(DATA, 0, body.into()).await?;
        Ok(())
    }

    /// Sends one FLV body. Pictures and sound go on chunk streams of their own.
    async fn media(&mut self, kind: MediaKind, time_ms: i64, body: Bytes) -> Result<u64, Error> {
        let type_id = match kind {
            MediaKind::Audio => AUDIO,
            MediaKind::Video => VIDEO,
        };
        self.message(type_id, time_ms, body).await
    }

    async fn message(&mut self, type_id: u8, time_ms: i64, data: Bytes) -> Result<u64, Error> {
        // The clock of RTMP has 32 bits and wraps.
        let low = u32::try_from(time_ms.rem_euclid(1 << 32)).unwrap_or_default();
        let payload = MessagePayload {
            timestamp: RtmpTimestamp::new(low),
            type_id,
            message_stream_id: self.stream_id,
            data,
        };
        let packet = self.serializer.serialize(&payload, false, false);
        let bytes = packet.map_err(|_| Error::Inside)?.bytes;
        self.write(&bytes).await?;
        Ok(bytes.len() as u64)
    }

    /// Writes, and prefers the server's reason to the broken pipe that follows it.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Err(broken) = self.output.write_all(bytes).await else {
            return Ok(());
        };
        match tokio::time::timeout(GOODBYE_TIMEOUT, self.listen()).await {
            Ok(Err(refused @ Error::Refused { .. })) => Err(refused),
            _ => Err(broken.into()),
        }
    }

    async fn command(
        &mut self,
        name: &str,
        object: Amf0Value,
        arguments: Vec<Amf0Value>,
    ) -> Result<f64, Error> {
        self.transaction += 1.0;
        let message = RtmpMessage::Amf0Command {
            command_name: name.to_owned(),
            transaction_id: self.transaction,
            command_object: object,
            additional_arguments: arguments,
        };
        let time = RtmpTimestamp::new(0);
        let payload = MessagePayload::from_rtmp_message(message, time, self.stream_id);
        let payload = payload.map_err(|_| Error::Inside)?;
        let packet = self.serializer.serialize(&payload, false, false);
        let packet = packet.map_err(|_| Error::Inside)?;
        self.output.write_all(&packet.bytes).await?;
        Ok(self.transaction)
    }

    async fn result_of(&mut self, transaction: f64, what: &'static str) -> Result<Reply, Error> {
        let asked = |reply: &Reply| {
            reply.name == "_result" && (reply.transaction - transaction).abs() < 0.5
        };
        answer(what, self.wait_for(asked)).await
    }

    /// Reads replies until one is the `wanted`; a refusal is an error.
    async fn wait_for(&mut self, wanted: impl Fn(&Reply) -> bool) -> Result<Reply, Error> {
        loop {
            while let Some(reply) = self.replies.next()? {
                if let Some(refusal) = reply.refusal() {
                    return Err(refusal);
                }
                if wanted(&reply) {
                    return Ok(reply);
                }
            }
            let mut bytes = [0; READ_BYTES];
            match self.input.read(&mut bytes).await? {
                0 => {
                    return Err(Error::Closed {
                        during: "it was asked to take the stream",
                    });
                }
                count => self.replies.push(&bytes[..count]),
            }
        }
    }

    /// Listens while publishing: returns only when there is nothing more to hope for. May be
    /// cancelled at any time without loss.
    async fn listen(&mut self) -> Result<(), Error> {
        match self.wait_for(|_| false).await {
            Ok(_) => Ok(()),
            Err(Error::Closed { .. }) => Err(Error::Closed {
                during: "publishing",
            }),
            Err(error) => Err(error),
        }
    }

    async fn goodbye(mut self, target: &Target) -> Result<(), Error> {
        let words = async {
            let name = vec![text(&target.name())];
            self.command("FCUnpublish", Amf0Value::Null, name).await?;
            let id = vec![Amf0Value::Number(self.stream_id.into())];
            self.command("deleteStream", Amf0Value::Null, id).await?;
            self.output.shutdown().await?;
            let mut sink = [0; READ_BYTES];
            while self.input.read(&mut sink).await? > 0 {}
            Ok::<(), Error>(())
        };
        // The film is sent; a server that is gone by now or slow to go has missed nothing.
        let _goodbye = tokio::time::timeout(GOODBYE_TIMEOUT, words).await;
        Ok(())
    }
}

/// The codec of a track that only Enhanced RTMP has a name for.
fn fourcc(movie: &Movie, kind: MediaKind) -> Option<&'static str> {
    let fourcc = movie.codec(kind)?.fourcc()?;
    std::str::from_utf8(fourcc).ok()
}

/// What an encoder says of its codecs when it connects: that it sends them on as they are.
fn capabilities(
    video: Option<&'static str>,
    audio: Option<&'static str>,
) -> [(String, Amf0Value); 3] {
    const CAN_FORWARD: f64 = 4.0;
    let map = |fourcc: Option<&str>| {
        let entry = fourcc.map(|fourcc| (fourcc.to_owned(), Amf0Value::Number(CAN_FORWARD)));
        Amf0Value::Object(entry.into_iter().collect())
    };
    let all = video.into_iter().chain(audio).map(text).collect();
    [
        ("fourCcList".to_owned(), Amf0Value::StrictArray(all)),
        ("videoFourCcInfoMap".to_owned(), map(video)),
        ("audioFourCcInfoMap".to_owned(), map(audio)),
    ]
}

/// What comes after the server's part of the handshake.
async fn shake_hands(socket: &mut TcpStream) -> Result<Vec<u8>, Error> {
    let mut handshake = Handshake::new(PeerType::Client);
    let first = handshake.generate_outbound_p0_and_p1();
    let first = first.map_err(|_| Error::Inside)?;
    socket.write_all(&first).await?;
    let mut bytes = [0; READ_BYTES];
    loop {
        let count = socket.read(&mut bytes).await?;
        if count == 0 {
            return Err(Error::Closed {
                during: "shaking hands",
            });
        }
        let result = handshake.process_bytes(&bytes[..count]);
        match result.map_err(|_| Error::Malformed { what: "handshake" })? {
            HandshakeProcessResult::InProgress { response_bytes } => {
                socket.write_all(&response_bytes).await?;
            }
            HandshakeProcessResult::Completed {
                response_bytes,
                remaining_bytes,
            } => {
                socket.write_all(&response_bytes).await?;
                return Ok(remaining_bytes);
            }
        }
    }
}

async fn answer<T>(
    awaited: &'static str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let after = ANSWER_TIMEOUT;
    let result = tokio::time::timeout(after, work).await;
    result.unwrap_or(Err(Error::NoAnswer { awaited, after }))
}

fn encoder() -> String {
    format!("headwater/{}", env!("CARGO_PKG_VERSION"))
}

fn text(text: &str) -> Amf0Value {
    Amf0Value::Utf8String(text.to_owned())
}

/// A message stream as a whole number from 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "AMF0 has no integers; the range is checked first"
)]
fn stream_id(number: f64) -> Option<u32> {
    (1.0..=f64::from(u32::MAX))
        .contains(&number)
        .then_some(number as u32)
}
