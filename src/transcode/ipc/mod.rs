//! The language between the server and its transcode worker.
//!
//! Enters: [`Message`]s to be written; bytes as a socket delivers them
//! Leaves: length-prefixed frames; [`Message`]s
//! Never:  sockets, versions (both ends are the same binary)
//! Time:   carried as it is
//! Spec:   this file: a frame is a kind (1 byte), a length (4 bytes, big endian) and a body

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

mod codec;
mod plan;
mod wire;

use std::time::Duration;

use bytes::{Buf, BytesMut};

use self::wire::{Input, Output};
use crate::id::{SegmentNumber, TrackId};
use crate::media::{Rendition, Sample, TrackInfo};
use crate::time::{Ticks, WallTime};
use crate::transcode::Absence;
use crate::transcode::conductor::Conducted;
use crate::transcode::ladder::Plan;
use crate::transcode::overload::Load;

/// The longest body of a frame: the largest access unit that ingest accepts is 8 MiB, and an
/// encoder's key frame is far below that.
pub const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
/// The most renditions of a ladder: both kinds' rungs of a pipeline file.
pub const MAX_RENDITIONS: usize = 32;

/// How long a worker is silent at most while it lives.
pub const ALIVE_PERIOD: Duration = Duration::from_secs(1);

const HEADER_BYTES: usize = 5;

/// One message of either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// To the worker, first and once: what to build, and the segment to begin with.
    Plan {
        /// The ladder.
        plan: Box<Plan>,
        /// The first segment of the broadcast.
        first: SegmentNumber,
        /// What to show while the source sends nothing.
        absence: Absence,
        /// Where each rendition goes on after an earlier worker, in the plan's order and each in its own
        /// timescale; empty for the first worker.
        resume: Vec<Ticks>,
    },
    /// To the worker: a track of the source begins or changes.
    Track(TrackInfo),
    /// To the worker: one access unit of the source.
    Source {
        /// Its track, announced before.
        track: TrackId,
        /// The access unit.
        sample: Sample,
    },
    /// To the worker: the time of the broadcast's clock, now and again. Without any, nothing is held
    /// because of time, and a source may be read as fast as it goes.
    Clock(WallTime),
    /// To the worker: the source has gone; what comes next is another one's.
    Detach,
    /// From the worker, first and once: the renditions, in the plan's order, pictures first.
    Opened(Vec<Rendition>),
    /// From the worker: one access unit of a rendition.
    Encoded {
        /// Index into the renditions of [`Message::Opened`].
        rendition: usize,
        /// The access unit.
        sample: Sample,
    },
    /// From the worker, last: everything that was sent to it has come out.
    Finished,
    /// From the worker: what it shows, when that changes and now and again.
    Conducted(Conducted),
    /// From the worker: a rendition has nothing before segment `until` that was not sent.
    Rest {
        /// Index into the renditions of [`Message::Opened`].
        rendition: usize,
        /// The first segment that may come.
        until: SegmentNumber,
        /// Whether it still has what precedes `until` now, and what comes next, but not for long.
        soon: bool,
    },
    /// From the worker: how encoding keeps up, when that changes and now and again.
    Load(Load),
    /// From the worker, at least every [`ALIVE_PERIOD`] when there is nothing else to be said.
    Alive,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The body is longer than [`MAX_BODY_BYTES`].
    #[error("a body of {bytes} bytes, at most {MAX_BODY_BYTES} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// No such kind of message.
    #[error("unknown kind {kind}")]
    Kind {
        /// The kind found.
        kind: u8,
    },
    /// The body ends too early, goes on too long, or holds a value out of range.
    #[error("malformed body of kind {kind}")]
    Body {
        /// The kind of message.
        kind: u8,
    },
}

impl Message {
    const fn kind(&self) -> u8 {
        match self {
            Self::Plan { .. } => 1,
            Self::Track(_) => 2,
            Self::Source { .. } => 3,
            Self::Opened(_) => 4,
            Self::Encoded { .. } => 5,
            Self::Finished => 6,
            Self::Alive => 7,
            Self::Clock(_) => 8,
            Self::Detach => 9,
            Self::Conducted(_) => 10,
            Self::Rest { .. } => 11,
            Self::Load(_) => 12,
        }
    }

    /// Appends this message to `out`.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`] if its body is; `out` is then unchanged.
    pub fn write(&self, out: &mut BytesMut) -> Result<(), Error> {
        let start = out.len();
        out.extend_from_slice(&[self.kind(), 0, 0, 0, 0]);
        self.write_body(&mut Output::new(out));
        let bytes = out.len() - start - HEADER_BYTES;
        if bytes > MAX_BODY_BYTES {
            out.truncate(start);
            return Err(Error::TooLong { bytes });
        }
        let length = u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
        out[start + 1..start + HEADER_BYTES].copy_from_slice(&length);
        Ok(())
    }

    fn write_body(&self, out: &mut Output<'_>) {
        match self {
            Self::Plan {
                plan,
                first,
                absence,
                resume,
            } => {
                out.u64(first.get());
                out.count(resume.len());
                for at in resume {
                    out.i64(at.get());
                }
                plan::write(plan, out);
                codec::write_absence(absence, out);
            }
            Self::Track(info) => codec::write_track(info, out),
            Self::Source { track, sample } => {
                out.u32(track.get().get());
                codec::write_sample(sample, out);
            }
            Self::Opened(renditions) => {
                out.count(renditions.len());
                for rendition in renditions {
                    codec::write_rendition(rendition, out);
                }
            }
            Self::Encoded { rendition, sample } => {
                out.count(*rendition);
                codec::write_sample(sample, out);
            }
            Self::Finished | Self::Detach | Self::Alive => {}
            Self::Clock(now) => out.i64(now.as_micros()),
            Self::Conducted(conducted) => codec::write_conducted(conducted, out),
            Self::Rest {
                rendition,
                until,
                soon,
            } => {
                out.count(*rendition);
                out.u64(until.get());
                out.flag(*soon);
            }
            Self::Load(load) => codec::write_load(load, out),
        }
    }

    /// Takes one whole message from the front of `bytes`, or nothing if it is not all there yet.
    ///
    /// # Errors
    ///
    /// [`Error`] if what is there can never become a message; the connection is then useless.
    pub fn parse(bytes: &mut BytesMut) -> Result<Option<Self>, Error> {
        let Some((kind, length)) = header(bytes) else {
            return Ok(None);
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_BODY_BYTES {
            return Err(Error::TooLong { bytes: length });
        }
        if !(1..=12).contains(&kind) {
            return Err(Error::Kind { kind });
        }
        if bytes.len() < HEADER_BYTES + length {
            bytes.reserve(HEADER_BYTES + length - bytes.len());
            return Ok(None);
        }
        bytes.advance(HEADER_BYTES);
        let mut body = Input::new(bytes.split_to(length).freeze());
        let message = Self::parse_body(kind, &mut body);
        let message = message.filter(|_| body.is_empty());
        message.map(Some).ok_or(Error::Body { kind })
    }

    fn parse_body(kind: u8, body: &mut Input) -> Option<Self> {
        Some(match kind {
            1 => Self::Plan {
                first: SegmentNumber::new(body.u64()?),
                resume: plan::parse_list(body, |body| body.i64().map(Ticks::new))?,
                plan: Box::new(plan::parse(body)?),
                absence: codec::parse_absence(body)?,
            },
            2 => Self::Track(codec::parse_track(body)?),
            3 => Self::Source {
                track: codec::parse_track_id(body)?,
                sample: codec::parse_sample(body)?,
            },
            4 => {
                let count = body.count(MAX_RENDITIONS)?;
                let all = (0..count).map(|_| codec::parse_rendition(body));
                Self::Opened(all.collect::<Option<_>>()?)
            }
            5 => Self::Encoded {
                rendition: body.count(MAX_RENDITIONS)?,
                sample: codec::parse_sample(body)?,
            },
            6 => Self::Finished,
            7 => Self::Alive,
            8 => Self::Clock(WallTime::from_micros(body.i64()?)),
            9 => Self::Detach,
            10 => Self::Conducted(codec::parse_conducted(body)?),
            11 => Self::Rest {
                rendition: body.count(MAX_RENDITIONS)?,
                until: SegmentNumber::new(body.u64()?),
                soon: body.flag()?,
            },
            12 => Self::Load(codec::parse_load(body)?),
            _ => return None,
        })
    }
}

fn header(bytes: &[u8]) -> Option<(u8, u32)> {
    match bytes {
        [kind, a, b, c, d, ..] => Some((*kind, u32::from_be_bytes([*a, *b, *c, *d]))),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
