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
use crate::transcode::conductor::Conducted;
use crate::transcode::ipc::{ALIVE_PERIOD, Message};
use crate::transcode::ladder::{Outline, Plan};
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
    renditions: Vec<(Outline, Option<CodecConfig>)>,
    held: Vec<Message>,
    opened: bool,
    /// When something was last written.
    spoken: Instant,
}

/// Writes until every rendition has ended.
pub(super) fn run(plan: &Plan, items: Receiver<Item>, socket: UnixStream) -> Result<(), Error> {
    let mut writer = Writer {
        socket,
        buffer: BytesMut::new(),
        renditions: plan.outlines().into_iter().map(|o| (o, None)).collect(),
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

impl Writer {
    fn open(&mut self, rendition: usize, codec: CodecConfig) -> Result<(), Error> {
        if let Some((_, slot)) = self.renditions.get_mut(rendition) {
            *slot = Some(codec);
        }
        let known =
            |(known, codec): &(Outline, Option<CodecConfig>)| Some(known.rendition(codec.clone()?));
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
