//! Turns FLV messages into tracks and samples.
//!
//! Enters: [`Message`]s of one broadcast in order of arrival, from an untrusted publisher
//! Leaves: [`Output`]s; samples begin with a key frame, have 4-byte lengths, and increase in `dts`
//! Never:  AMF, chunks, other codecs than H.264 and AAC
//! Time:   as the stage: 90 kHz and the sample rate, from the Unix epoch
//! Spec:   [FLV] annex E.4, [ERTMP] v2

mod body;
mod error;

use std::collections::VecDeque;
use std::num::NonZeroU32;

use bytes::Bytes;

pub use error::{Error, FoundCodec};

use self::body::{Audio, Video};
use crate::codec::annexb::{self, LengthSize};
use crate::codec::{aac, h264};
use crate::demux::cadence::{self, Cadence};
use crate::demux::sample_count::SampleCount;
use crate::demux::timeline::{JumpPolicy, Placed, Timeline};
use crate::demux::{DropReason, MAX_COMPOSITION_MS, Output, Repair};
use crate::id::TrackId;
use crate::media::{CodecConfig, MediaKind, Sample, TrackInfo};
use crate::time::{Span, Ticks, Timescale, WallTime};

/// The track of pictures.
pub const VIDEO_TRACK: TrackId = TrackId::new(NonZeroU32::MIN);
/// The track of sound.
pub const AUDIO_TRACK: TrackId = TrackId::new(NonZeroU32::new(2).expect("2 is not zero"));

/// One message of a publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Body of a video message (type 9).
    Video {
        /// Milliseconds modulo 2^32.
        timestamp_ms: u32,
        /// The body.
        data: Bytes,
    },
    /// Body of an audio message (type 8).
    Audio {
        /// Milliseconds modulo 2^32.
        timestamp_ms: u32,
        /// The body.
        data: Bytes,
    },
    /// What `onMetaData` declares. Hints only.
    Metadata {
        /// `framerate` times 1000, rounded to nearest: 29970.
        frame_rate_millihertz: Option<u32>,
        /// `width` in pixels.
        width: Option<u32>,
        /// `height` in pixels.
        height: Option<u32>,
    },
}

/// The pictures' track once its sequence header came.
#[derive(Clone, Debug)]
struct VideoTrack {
    config: h264::Config,
    /// Of the samples as they arrive.
    length_size: LengthSize,
    seen_keyframe: bool,
}

/// The sound's track once its sequence header came.
#[derive(Clone, Debug)]
struct AudioTrack {
    config: aac::Config,
    timescale: Timescale,
    count: SampleCount,
    last: Option<Ticks>,
}

/// Demuxes one broadcast. Drain [`Self::poll_output`] to `None` after every [`Self::push`].
///
/// ```
/// use bytes::Bytes;
/// use headwater::demux::Output;
/// use headwater::demux::flv::{AUDIO_TRACK, Demuxer, Message};
/// use headwater::time::WallTime;
///
/// let mut demuxer = Demuxer::new();
/// let now = WallTime::from_micros(1_795_000_000_000_000);
/// // the sequence header of AAC-LC, 48 kHz, stereo, then one access unit
/// for body in [&[0xAF, 0, 0x11, 0x90], &[0xAF, 1, 0x21, 0x00]] {
///     let data = Bytes::copy_from_slice(body);
///     demuxer.push(Message::Audio { timestamp_ms: 0, data }, now)?;
/// }
/// assert!(matches!(demuxer.poll_output(), Some(Output::Track(info)) if info.id == AUDIO_TRACK));
/// let Some(Output::Sample { sample, .. }) = demuxer.poll_output() else { unreachable!() };
/// assert_eq!(sample.dts.get(), 1_795_000_000 * 48_000);
/// # Ok::<(), headwater::demux::flv::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Demuxer {
    timeline: Timeline,
    cadence: Cadence,
    video: Option<VideoTrack>,
    audio: Option<AudioTrack>,
    last_picture: Option<Ticks>,
    outputs: VecDeque<Output>,
}

impl Demuxer {
    /// A demuxer for a live publisher.
    #[must_use]
    pub fn new() -> Self {
        Self::with_jump_policy(JumpPolicy::Reanchor)
    }

    /// A demuxer that treats jumps of the clock by `policy`.
    #[must_use]
    pub fn with_jump_policy(policy: JumpPolicy) -> Self {
        Self {
            timeline: Timeline::new(policy),
            ..Self::default()
        }
    }

    /// Takes the next message, which arrived at `now`; `now` must never go backwards.
    ///
    /// # Errors
    /// [`Error`] for a body that is malformed or of a codec not taken. The demuxer is unchanged and may go on
    /// with the next message; whether to, [`Error::fault`] helps to decide.
    pub fn push(&mut self, message: Message, now: WallTime) -> Result<(), Error> {
        match message {
            Message::Video { timestamp_ms, data } => match body::parse_video(data)? {
                Video::SequenceHeader(record) => self.set_video(record),
                Video::Picture {
                    composition_ms,
                    data,
                } => self.push_picture(timestamp_ms, composition_ms, data, now),
                Video::Nothing => Ok(()),
            },
            Message::Audio { timestamp_ms, data } => match body::parse_audio(data)? {
                Audio::SequenceHeader(asc) => self.set_audio(asc),
                Audio::Sound(data) => self.push_sound(timestamp_ms, data, now),
                Audio::Nothing => Ok(()),
            },
            Message::Metadata {
                frame_rate_millihertz,
                ..
            } => {
                // The SPS, where it speaks, is nearer to the encoder.
                let spoken = self.video.as_ref().and_then(|v| v.config.declared_rate);
                let declared = frame_rate_millihertz.and_then(cadence::snap_millihertz);
                if let (Some(rate), None) = (declared, spoken) {
                    self.cadence.declare(rate);
                }
                Ok(())
            }
        }
    }

    /// How fast the publisher's clock runs, as [`Timeline::drift_ppm`] says.
    #[must_use]
    pub const fn drift_ppm(&self) -> Option<i64> {
        self.timeline.drift_ppm()
    }

    /// The next output, in order; `None` when more input is needed.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Ends the broadcast. Nothing is held back, so what is returned is only what was not polled.
    pub fn finish(self) -> impl Iterator<Item = Output> + use<> {
        self.outputs.into_iter()
    }

    fn set_video(&mut self, record: Bytes) -> Result<(), Error> {
        if record.is_empty() {
            return Ok(());
        }
        let length_size = h264::length_size(&record)?;
        let config = h264::Config::parse_avcc(record)?;
        if let Some(track) = self.video.as_mut().filter(|track| track.config == config) {
            track.length_size = length_size;
            return Ok(());
        }
        if let Some(rate) = config.declared_rate {
            self.cadence.declare(rate);
        }
        self.outputs.push_back(Output::Track(TrackInfo {
            id: VIDEO_TRACK,
            timescale: Timescale::VIDEO_90K,
            codec: CodecConfig::H264(config.clone()),
        }));
        self.video = Some(VideoTrack {
            config,
            length_size,
            seen_keyframe: false,
        });
        Ok(())
    }

    fn set_audio(&mut self, asc: Bytes) -> Result<(), Error> {
        if asc.is_empty() {
            return Ok(());
        }
        let config = aac::Config::parse_asc(asc)?;
        let old = self.audio.as_ref();
        if old.is_some_and(|track| track.config == config) {
            return Ok(());
        }
        let timescale = Timescale::new(config.sample_rate).ok_or(aac::Error::SampleRate {
            found: config.sample_rate,
        })?;
        self.outputs.push_back(Output::Track(TrackInfo {
            id: AUDIO_TRACK,
            timescale,
            codec: CodecConfig::Aac(config.clone()),
        }));
        let last = old.and_then(|track| Some(track.last?.at(track.timescale)));
        self.audio = Some(AudioTrack {
            count: SampleCount::new(config.sample_rate, config.frame_samples),
            last: last.map(|last| last.rescale_ceil(timescale)),
            config,
            timescale,
        });
        Ok(())
    }

    fn push_picture(
        &mut self,
        timestamp_ms: u32,
        composition_ms: i32,
        data: Bytes,
        now: WallTime,
    ) -> Result<(), Error> {
        const KIND: MediaKind = MediaKind::Video;
        let Some(track) = &mut self.video else {
            self.drop_sample(KIND, DropReason::NoSequenceHeader);
            return Ok(());
        };
        let (data, rewritten) = lengths_of_four(data, track.length_size)?;
        if !h264::contains_picture(&data) {
            self.drop_sample(KIND, DropReason::Empty);
            return Ok(());
        }
        // The message's own flag marks recovery points as well, from which a decoder shows damage.
        let keyframe = h264::contains_idr(&data);
        if !keyframe && !track.seen_keyframe {
            self.drop_sample(KIND, DropReason::NoKeyFrame);
            return Ok(());
        }
        track.seen_keyframe = true;
        if rewritten {
            self.repair(Repair::StartCodes);
        }
        let placed = self.place(KIND, timestamp_ms, now);
        let stamp = placed.at.to_ticks(Timescale::VIDEO_90K);
        let paced = self.cadence.push(stamp.get(), placed.moved);
        self.outputs.extend(paced.decided.map(Output::FrameRate));
        if paced.missing > 0 {
            self.repair(Repair::Gap {
                kind: KIND,
                samples: paced.missing,
            });
        }
        if paced.nudged {
            self.repair(Repair::Nudged { kind: KIND });
        }
        let clamped = composition_ms.clamp(-MAX_COMPOSITION_MS, MAX_COMPOSITION_MS);
        if clamped != composition_ms {
            self.repair(Repair::CompositionClamped {
                found_ms: composition_ms,
            });
        }
        let offset = self.cadence.composition_offset(i64::from(clamped) * 90);
        let dts = slewed(paced.at, placed, Timescale::VIDEO_90K, self.last_picture);
        self.last_picture = Some(dts);
        self.outputs.push_back(Output::Sample {
            track: VIDEO_TRACK,
            sample: Sample {
                dts,
                pts: Ticks::new(dts.get().saturating_add(offset)),
                duration: Span::new(paced.duration),
                keyframe,
                data,
            },
        });
        Ok(())
    }

    fn push_sound(&mut self, timestamp_ms: u32, data: Bytes, now: WallTime) -> Result<(), Error> {
        const KIND: MediaKind = MediaKind::Audio;
        if self.audio.is_none() {
            self.drop_sample(KIND, DropReason::NoSequenceHeader);
            return Ok(());
        }
        let placed = self.place(KIND, timestamp_ms, now);
        let Some(track) = &mut self.audio else {
            return Ok(());
        };
        let stamp = placed.at.to_ticks(track.timescale);
        let counted = track.count.push(stamp.get(), placed.moved);
        let at = slewed(counted.at, placed, track.timescale, track.last);
        track.last = Some(at);
        let duration = Span::new(u64::from(track.config.frame_samples));
        if counted.missing > 0 {
            self.repair(Repair::Gap {
                kind: KIND,
                samples: counted.missing,
            });
        }
        self.outputs.push_back(Output::Sample {
            track: AUDIO_TRACK,
            sample: Sample {
                dts: at,
                pts: at,
                duration,
                keyframe: true,
                data,
            },
        });
        Ok(())
    }

    fn place(&mut self, kind: MediaKind, timestamp_ms: u32, now: WallTime) -> Placed {
        let placed = self.timeline.place(kind, timestamp_ms, now);
        while let Some(repair) = self.timeline.poll_repair() {
            self.repair(repair);
        }
        placed
    }

    fn drop_sample(&mut self, kind: MediaKind, reason: DropReason) {
        self.repair(Repair::Dropped { kind, reason });
    }

    fn repair(&mut self, repair: Repair) {
        self.outputs.push_back(Output::Repair(repair));
    }
}

/// Where a position comes to lie once it is slewed, in ticks: always after `last`, so that what was placed back
/// is squeezed together, decoded, and shown no more.
fn slewed(at: i64, placed: Placed, scale: Timescale, last: Option<Ticks>) -> Ticks {
    let by = WallTime::from_micros(placed.slew_us).to_ticks(scale).get();
    let earliest = last.map_or(i64::MIN, |last| last.get().saturating_add(1));
    Ticks::new(at.saturating_add(by).max(earliest))
}

/// A body in 4-byte lengths, and whether it had start codes instead, as some hardware encoders send it.
fn lengths_of_four(data: Bytes, size: LengthSize) -> Result<(Bytes, bool), Error> {
    match annexb::widen_lengths(&data, size) {
        Ok(data) => Ok((data, false)),
        Err(_) if annexb::is_start_coded(&data) => Ok((annexb::to_length_prefixed(&data), true)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
