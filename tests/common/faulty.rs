//! A bad way from an encoder to the server: what goes through it is real, its stamps and its timing are not.
//!
//! Enters: connections of a real publisher
//! Leaves: the same messages to the server, their stamps rewritten, late, in a lump, or not at all
//! Never:  a byte of media changed, but for the composition offset of a picture when that is asked for
//! Time:   RTMP milliseconds modulo 2^32; the machine's clock for delays
//! Spec:   [RTMP] §5.2, §5.3

#![allow(dead_code, reason = "every test binary uses its own part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rml_rtmp::chunk_io::ChunkDeserializer;
use rml_rtmp::messages::MessagePayload;

/// C0, C1 and C2, which have no chunks yet.
const HANDSHAKE_BYTES: usize = 1 + 1_536 + 1_536;
const SET_CHUNK_SIZE: u8 = 1;
const AUDIO: u8 = 8;
const VIDEO: u8 = 9;

/// What is done to one track.
#[derive(Clone, Debug, Default)]
pub(crate) struct Track {
    /// Added to its stamps.
    pub(crate) add_ms: i64,
    /// Its stamps are rounded down to multiples of this, if it is not zero.
    pub(crate) coarse_ms: i64,
    /// How much later it is delivered.
    pub(crate) delay: Duration,
    /// Every so many messages a stamp is that of the one before, and as many later one lies 20 ms before it.
    pub(crate) disorder_every: u64,
    /// Added to the composition offset of its pictures.
    pub(crate) composition_ms: i32,
    /// Nothing of it is delivered. What decoders have to know first comes when it is delivered again.
    pub(crate) withheld: bool,
    /// The sequence header that was withheld.
    header: Option<Bytes>,
    /// What the publisher itself stamped last, at the rate that its clock is given.
    clock_ms: i64,
    last_ms: i64,
    count: u64,
    release: Option<Instant>,
}

impl Track {
    /// Its stamps begin at zero again, and only its.
    pub(crate) fn reset(&mut self) {
        self.add_ms = -self.clock_ms;
    }
}

/// What is done to what goes through.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) video: Track,
    pub(crate) audio: Track,
    /// How many bits of a stamp are sent: 32, or 24 as by some encoders.
    pub(crate) bits: u32,
    /// How fast the publisher's clock runs beside the true one, in parts per million.
    pub(crate) ppm: i64,
    /// Nothing is delivered before this, then all of it.
    stalled_until: Instant,
}

impl Rules {
    /// Nothing is done.
    fn none() -> Self {
        Self {
            video: Track::default(),
            audio: Track::default(),
            bits: 32,
            ppm: 0,
            stalled_until: Instant::now(),
        }
    }

    /// Does nothing any more.
    pub(crate) fn clear(&mut self) {
        *self = Self::none();
    }

    /// Has the stamps of both tracks go on at `ms`, of one clock again.
    pub(crate) fn jump_to(&mut self, ms: i64) {
        let add_ms = ms - self.video.clock_ms.max(self.audio.clock_ms);
        self.video.add_ms = add_ms;
        self.audio.add_ms = add_ms;
    }

    /// Adds to the stamps of both tracks.
    pub(crate) fn jump(&mut self, ms: i64) {
        self.video.add_ms += ms;
        self.audio.add_ms += ms;
    }

    /// The stamp to send instead of `ms`, and when.
    fn rewrite(&mut self, kind: u8, ms: u32) -> (u32, Instant) {
        let clock = i64::from(ms) + i64::from(ms) * self.ppm / 1_000_000;
        let track = self.track(kind);
        track.count += 1;
        track.clock_ms = clock;
        let mut stamp = clock + track.add_ms;
        if track.coarse_ms > 0 {
            stamp = stamp.div_euclid(track.coarse_ms) * track.coarse_ms;
        }
        let every = track.disorder_every;
        if every > 0 && track.count.is_multiple_of(every) {
            let is_back = (track.count / every).is_multiple_of(2);
            stamp = track.last_ms - if is_back { 20 } else { 0 };
        } else {
            track.last_ms = stamp;
        }
        let release = Instant::now() + track.delay;
        let release = track.release.map_or(release, |last| last.max(release));
        track.release = Some(release);
        let wrapped = stamp.rem_euclid(1 << self.bits);
        (u32::try_from(wrapped).expect("so many bits"), release)
    }

    fn track(&mut self, kind: u8) -> &mut Track {
        if kind == VIDEO {
            &mut self.video
        } else {
            &mut self.audio
        }
    }
}

/// One publisher's connection and ours to the server.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    /// The server is not to learn that the client has gone.
    half_open: bool,
}

struct Shared {
    target: String,
    rules: Mutex<Rules>,
    /// Every connection there was: those that are closed cost nothing.
    pairs: Mutex<Vec<Pair>>,
}

/// A way to the server; publishers connect to [`Self::publish_url`].
pub(crate) struct Faulty {
    address: String,
    shared: Arc<Shared>,
}

impl Faulty {
    /// A way to the RTMP port at `target` on which nothing is wrong yet.
    pub(crate) fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            rules: Mutex::new(Rules::none()),
            pairs: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        // It waits for connections for as long as the test's process lives.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || carry(client, &shared));
            }
        });
        Self { address, shared }
    }

    /// The address to publish `key` to.
    pub(crate) fn publish_url(&self, key: &str) -> String {
        format!("rtmp://{}/live/{key}", self.address)
    }

    /// Changes what is done from now on.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.shared.rules.lock().unwrap());
    }

    /// How far the stamps of pictures are, before their high bits are taken off.
    pub(crate) fn stamp_ms(&self) -> i64 {
        self.shared.rules.lock().unwrap().video.last_ms
    }

    /// Holds everything for so long, then delivers it at once.
    pub(crate) fn stall(&self, length: Duration) {
        self.change(|rules| rules.stalled_until = Instant::now() + length);
    }

    /// Cuts the connection; both sides see it.
    pub(crate) fn cut(&self) {
        for pair in self.shared.pairs.lock().unwrap().iter() {
            let _ = pair.client.shutdown(Shutdown::Both);
            let _ = pair.server.shutdown(Shutdown::Both);
        }
    }

    /// Cuts the publisher's side alone: to the server the connection looks open.
    pub(crate) fn half_open(&self) {
        for pair in self.shared.pairs.lock().unwrap().iter_mut() {
            pair.half_open = true;
            let _ = pair.client.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.cut();
    }
}

/// Carries one connection until either side ends it.
fn carry(mut client: TcpStream, shared: &Arc<Shared>) {
    let Ok(mut server) = TcpStream::connect(&shared.target) else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let index = {
        let mut pairs = shared.pairs.lock().unwrap();
        let both = (client.try_clone().unwrap(), server.try_clone().unwrap());
        pairs.push(Pair {
            client: both.0,
            server: both.1,
            half_open: false,
        });
        pairs.len() - 1
    };
    let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let (sender, receiver) = channel();
    let (to, rules) = (server.try_clone().unwrap(), Arc::clone(shared));
    let delivering = std::thread::spawn(move || deliver(&receiver, to, &rules));
    if relay_handshake(&mut client, &mut server).is_some() {
        let _ = read(&mut client, &sender, shared);
    }
    drop(sender);
    let _ = delivering.join();
    if !shared.pairs.lock().unwrap()[index].half_open {
        let _ = server.shutdown(Shutdown::Both);
    }
}

fn relay_handshake(client: &mut TcpStream, server: &mut TcpStream) -> Option<()> {
    let mut left = HANDSHAKE_BYTES;
    let mut buffer = [0; HANDSHAKE_BYTES];
    while left > 0 {
        let count = client.read(&mut buffer[..left]).ok().filter(|n| *n > 0)?;
        server.write_all(&buffer[..count]).ok()?;
        left -= count;
    }
    Some(())
}

/// Bytes to be delivered, and when at the earliest.
struct Parcel {
    at: Instant,
    is_audio: bool,
    bytes: Vec<u8>,
}

/// Reads messages of the client until it ends, and rewrites them.
fn read(client: &mut TcpStream, out: &Sender<Parcel>, shared: &Shared) -> Option<()> {
    let mut chunks = ChunkDeserializer::new();
    let mut chunk_bytes = 128;
    let mut buffer = vec![0; 65_536];
    loop {
        let count = client.read(&mut buffer).ok().filter(|n| *n > 0)?;
        let mut fresh = &buffer[..count];
        while let Some(message) = chunks.get_next_message(fresh).ok()? {
            fresh = &[];
            let mut size_after = None;
            if message.type_id == SET_CHUNK_SIZE {
                let size = message.data.first_chunk::<4>()?;
                size_after = Some(usize::try_from(u32::from_be_bytes(*size)).ok()?);
            }
            for message in withhold(message, shared) {
                out.send(parcel(&message, chunk_bytes, shared)).ok()?;
            }
            if let Some(size) = size_after {
                chunk_bytes = size;
                chunks.set_max_chunk_size(size).ok()?;
            }
        }
    }
}

/// What is to be delivered instead of `message`: nothing, it, or a header and it.
fn withhold(message: MessagePayload, shared: &Shared) -> Vec<MessagePayload> {
    if !matches!(message.type_id, AUDIO | VIDEO) {
        return vec![message];
    }
    let mut rules = shared.rules.lock().unwrap();
    let track = rules.track(message.type_id);
    if track.withheld {
        // Of AVC and AAC, the second byte says whether it is a header.
        if message.data.get(1) == Some(&0) {
            track.header = Some(message.data);
        }
        return Vec::new();
    }
    let header = track.header.take().map(|data| MessagePayload {
        timestamp: message.timestamp,
        type_id: message.type_id,
        message_stream_id: message.message_stream_id,
        data,
    });
    header.into_iter().chain([message]).collect()
}

fn parcel(message: &MessagePayload, chunk_bytes: usize, shared: &Shared) -> Parcel {
    let kind = message.type_id;
    let mut data = message.data.to_vec();
    let (mut stamp, mut at) = (message.timestamp.value, Instant::now());
    if matches!(kind, AUDIO | VIDEO) {
        let mut rules = shared.rules.lock().unwrap();
        let composition_ms = rules.video.composition_ms;
        (stamp, at) = rules.rewrite(kind, stamp);
        // An AVC NAL unit: frame type and codec, packet type, composition offset.
        if kind == VIDEO && data.len() > 5 && data[1] == 1 {
            let [a, b, c] = [data[2], data[3], data[4]];
            let offset = i32::from_be_bytes([a, b, c, 0]) >> 8;
            data[2..5].copy_from_slice(&(offset + composition_ms).to_be_bytes()[1..]);
        }
    }
    Parcel {
        at,
        is_audio: kind == AUDIO,
        bytes: chunked(message, stamp, &data, chunk_bytes),
    }
}

/// One message in chunks, each header whole but those that continue it.
fn chunked(message: &MessagePayload, stamp: u32, data: &[u8], chunk_bytes: usize) -> Vec<u8> {
    const EXTENDED: u32 = 0xff_ffff;
    // Control messages have a chunk stream of their own; each kind of media as well.
    let stream = match message.type_id {
        1..=6 => 2,
        AUDIO => 4,
        VIDEO => 6,
        _ => 3,
    };
    let mut out = vec![stream];
    out.extend(&stamp.min(EXTENDED).to_be_bytes()[1..]);
    out.extend(&u32::try_from(data.len()).unwrap().to_be_bytes()[1..]);
    out.push(message.type_id);
    out.extend(message.message_stream_id.to_le_bytes());
    let extended = (stamp >= EXTENDED).then(|| stamp.to_be_bytes());
    out.extend(extended.iter().flatten());
    for (index, piece) in data.chunks(chunk_bytes).enumerate() {
        if index > 0 {
            out.push(0xc0 | stream);
            out.extend(extended.iter().flatten());
        }
        out.extend(piece);
    }
    out
}

/// Delivers parcels when they are due, each track in its order.
fn deliver(parcels: &Receiver<Parcel>, mut server: TcpStream, shared: &Shared) -> Option<()> {
    let mut waiting = [VecDeque::<Parcel>::new(), VecDeque::new()];
    let mut is_open = true;
    while is_open || waiting.iter().any(|track| !track.is_empty()) {
        match parcels.recv_timeout(Duration::from_millis(5)) {
            Ok(parcel) => waiting[usize::from(parcel.is_audio)].push_back(parcel),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                if is_open {
                    is_open = false;
                } else {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
        let now = Instant::now();
        if now < shared.rules.lock().unwrap().stalled_until {
            continue;
        }
        loop {
            let due =
                |track: &VecDeque<Parcel>| track.front().map(|p| p.at).filter(|at| *at <= now);
            let [others, sound] = &waiting;
            let track = match (due(others), due(sound)) {
                (None, None) => break,
                (Some(_), None) => 0,
                (None, Some(_)) => 1,
                (Some(other), Some(sound)) => usize::from(sound < other),
            };
            let parcel = waiting[track].pop_front()?;
            server.write_all(&parcel.bytes).ok()?;
        }
    }
    Some(())
}
