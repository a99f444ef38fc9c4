//! The thread that writes to the socket: first what the renditions are, then their access units.
//!
//! Enters: [`Item`]s of all encoders
//! Leaves: [`Message`]s: `Opened` once, `Encoded`, `Finished` last; `Alive` where there is nothing to say
//! Never:  an access unit before all renditions are known
//! Time:   carried as it is
//! Spec:   [`crate::transcode::ipc`]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Instant;

use bytes::BytesMut;

use super::Error;
use super::encode::VideoEncoder;
use super::sound::AudioEncoder;
use crate::id::SegmentNumber;
use crate::media::{CodecConfig, Rendition, Sample};
use crate::time::{FrameRate, Timescale};
use crate::transcode::conductor::Conducted;
use crate::transcode::ipc::{ALIVE_PERIOD, Message};
use crate::transcode::ladder::Plan;
use crate::transcode::overload::Load;

/// The most access units held until all renditions are known: ten seconds of a large ladder, more
/// than the deepest look-ahead.
const MAX_HELD: usize = 8_192;
/// Bytes gathered before they are written even though more is waiting.
const FLUSH_BYTES: usize = 256 * 1024;

/// What the encoders deliver.
pub(super) enum Item {
    /// The first output of a rendition said what it is.
    Opened {
        /// The rendition's index.
        rendition: usize,
        /// Its configuration.
        codec: Box<CodecConfig>,
    },
    /// One access unit.
    Sample {
        /// The rendition's index.
        rendition: usize,
        /// The access unit.
        sample: Sample,
    },
    /// A rendition has nothing more before segment `until`.
    Rest {
        /// The rendition's index.
        rendition: usize,
        /// The first segment that may come.
        until: SegmentNumber,
        /// Whether it still has what precedes `until` now, and what comes next, but not for long.
        soon: bool,
    },
    /// How conducting goes.
    Conducted(Conducted),
    /// How the encoders of pictures keep up.
    Load(Load),
    /// One rendition has delivered everything.
    Ended,
    /// Nothing more goes into the encoders; they live until they have delivered.
    Draining(Box<(Option<VideoEncoder>, Option<AudioEncoder>)>),
    /// Something broke.
    Failed(Error),
}

struct Writer {
    socket: UnixStream,
    buffer: BytesMut,
    renditions: Vec<(Expected, Option<CodecConfig>)>,
    held: Vec<Message>,
    opened: bool,
    /// When something was last written.
    spoken: Instant,
}

/// What is known of a rendition before its encoder has spoken.
struct Expected {
    name: crate::id::RenditionName,
    timescale: Timescale,
    frame_rate: Option<FrameRate>,
    target_bps: u64,
}

/// Writes until every rendition has ended.
pub(super) fn run(plan: &Plan, items: Receiver<Item>, socket: UnixStream) -> Result<(), Error> {
    let mut writer = Writer {
        socket,
        buffer: BytesMut::new(),
        renditions: expected(plan),
        held: Vec::new(),
        opened: false,
        spoken: Instant::now(),
    };
    let mut running = writer.renditions.len();
    let mut draining = None;
    while running > 0 {
        let item = match items.try_recv() {
            Ok(item) => item,
            Err(TryRecvError::Disconnected) => return Err(Error::Stopped),
            Err(TryRecvError::Empty) => {
                writer.flush()?;
                match items.recv_timeout(ALIVE_PERIOD) {
                    Ok(item) => item,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return Err(Error::Stopped),
                }
            }
        };
        match item {
            Item::Opened { rendition, codec } => writer.open(rendition, *codec)?,
            Item::Sample { rendition, sample } => {
                writer.send(Message::Encoded { rendition, sample })?;
            }
            Item::Conducted(conducted) if writer.opened => {
                writer.send(Message::Conducted(conducted))?;
            }
            Item::Rest {
                rendition,
                until,
                soon,
            } => writer.send(Message::Rest {
                rendition,
                until,
                soon,
            })?,
            Item::Load(load) if writer.opened => writer.send(Message::Load(load))?,
            Item::Conducted(_) | Item::Load(_) => {}
            Item::Ended => running -= 1,
            Item::Draining(encoders) => draining = Some(encoders),
            Item::Failed(error) => return Err(error),
        }
    }
    drop(draining);
    writer.opened = true;
    writer.send(Message::Finished)?;
    writer.flush()
}

fn expected(plan: &Plan) -> Vec<(Expected, Option<CodecConfig>)> {
    let mut all = Vec::new();
    if let Some(video) = &plan.video {
        for rung in &video.rungs {
            all.push(Expected {
                name: rung.name.clone(),
                timescale: Timescale::VIDEO_90K,
                frame_rate: video.rate.divided(rung.divisor),
                target_bps: rung.bitrate_bps,
            });
        }
    }
    if let Some(audio) = &plan.audio {
        for rung in &audio.rungs {
            all.push(Expected {
                name: rung.name.clone(),
                timescale: Timescale::new(audio.sample_rate).unwrap_or(Timescale::VIDEO_90K),
                frame_rate: None,
                target_bps: rung.bitrate_bps,
            });
        }
    }
    all.into_iter().map(|known| (known, None)).collect()
}

impl Writer {
    fn open(&mut self, rendition: usize, codec: CodecConfig) -> Result<(), Error> {
        if let Some((_, slot)) = self.renditions.get_mut(rendition) {
            *slot = Some(codec);
        }
        let known = |(known, codec): &(Expected, Option<CodecConfig>)| {
            Some(Rendition {
                name: known.name.clone(),
                timescale: known.timescale,
                codec: codec.clone()?,
                frame_rate: known.frame_rate,
                target_bps: known.target_bps,
            })
        };
        let all: Option<Vec<Rendition>> = self.renditions.iter().map(known).collect();
        if let Some(all) = all.filter(|_| !self.opened) {
            self.opened = true;
            self.send(Message::Opened(all))?;
            for message in std::mem::take(&mut self.held) {
                self.send(message)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, message: Message) -> Result<(), Error> {
        if !self.opened {
            let held = self.held.len();
            if held >= MAX_HELD {
                let silent = self
                    .renditions
                    .iter()
                    .position(|(_, codec)| codec.is_none());
                let rendition = silent.unwrap_or(0);
                return Err(Error::NotOpened { rendition, held });
            }
            self.held.push(message);
            return Ok(());
        }
        message.write(&mut self.buffer)?;
        if self.buffer.len() >= FLUSH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what was gathered; that this worker lives, if it has been silent for long.
    fn flush(&mut self) -> Result<(), Error> {
        if self.buffer.is_empty() {
            if self.spoken.elapsed() < ALIVE_PERIOD {
                return Ok(());
            }
            Message::Alive.write(&mut self.buffer)?;
        }
        self.socket.write_all(&self.buffer)?;
        self.buffer.clear();
        self.spoken = Instant::now();
        Ok(())
    }
}
