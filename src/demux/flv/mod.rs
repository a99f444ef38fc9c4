//! Turns FLV messages into tracks and samples.
//!
//! Enters: [`Message`]s of one broadcast in order of arrival, from an untrusted publisher
//! Leaves: [`Output`]s; samples begin with a key frame, have 4-byte lengths, and increase in `dts`
//! Never:  AMF, chunks, a second track of a kind, other codecs than H.264, HEVC, AV1, VP9, AAC and Opus
//! Time:   as the stage: 90 kHz and the sample rate, from the Unix epoch
//! Spec:   [FLV] annex E.4, [ERTMP] v2

mod body;
mod error;
mod track;

use std::collections::VecDeque;
use std::num::NonZeroU32;

use bytes::Bytes;

pub use error::{Error, FoundCodec};

use self::body::{AudioCodec, Body, Payload, VideoCodec};
use self::track::{Sound, Unit, VideoTrack};
use crate::demux::cadence::{self, Cadence};
use crate::demux::sample_count::SampleCount;
use crate::demux::timeline::{JumpPolicy, Placed, Timeline};
use crate::demux::{DropReason, MAX_COMPOSITION_MS, Output, Repair};
use crate::id::TrackId;
use crate::media::{CodecConfig, MediaKind, Sample, TrackInfo};
use crate::time::{FrameRate, Span, Ticks, Timescale, WallTime};

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

/// The sound's track once its sequence header came.
#[derive(Clone, Debug)]
struct AudioTrack {
    sound: Sound,
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
    /// What the metadata declares.
    declared_rate: Option<FrameRate>,
    /// Of which kinds other tracks have been told.
    other_tracks: Vec<MediaKind>,
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
            Message::Video { timestamp_ms, data } => {
                let Body {
                    payload,
                    has_others,
                } = body::parse_video(data)?;
                self.note_others(MediaKind::Video, has_others);
                match payload {
                    Payload::SequenceHeader { codec, record } => self.set_video(codec, record),
                    Payload::Unit {
                        codec,
                        composition_ms,
                        data,
                    } => self.take_picture(codec, (timestamp_ms, composition_ms), data, now),
                    Payload::Nothing => Ok(()),
                }
            }
            Message::Audio { timestamp_ms, data } => {
                let Body {
                    payload,
                    has_others,
                } = body::parse_audio(data)?;
                self.note_others(MediaKind::Audio, has_others);
                match payload {
                    Payload::SequenceHeader { codec, record } => self.set_audio(codec, record),
                    Payload::Unit { codec, data, .. } => {
                        self.push_sound(codec, timestamp_ms, data, now);
                        Ok(())
                    }
                    Payload::Nothing => Ok(()),
                }
            }
            Message::Metadata {
                frame_rate_millihertz,
                ..
            } => {
                let declared = frame_rate_millihertz.and_then(cadence::snap_millihertz);
                self.declared_rate = declared.or(self.declared_rate);
                // The pictures' own header, where it speaks, is nearer to the encoder.
                let config = self.video.as_ref().and_then(VideoTrack::config);
                let spoken = config.and_then(CodecConfig::declared_rate);
                if let (Some(rate), None) = (declared, spoken) {
                    self.cadence.declare(rate);
                }
                Ok(())
            }
        }
    }

    /// How fast the publisher's clock runs, as [`Timeline::drift_ppm`] says.
    #[must_use]
    pub fn drift_ppm(&self) -> Option<i64> {
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

    fn note_others(&mut self, kind: MediaKind, has_others: bool) {
        if has_others && !self.other_tracks.contains(&kind) {
            self.other_tracks.push(kind);
            self.drop_sample(kind, DropReason::OtherTrack);
        }
    }

    fn set_video(&mut self, codec: VideoCodec, record: Bytes) -> Result<(), Error> {
        // Of VP9 an empty header is one: key frames say all of it.
        if record.is_empty() && codec != VideoCodec::Vp9 {
            return Ok(());
        }
        let track = VideoTrack::new(codec, record)?;
        if let Some(before) = self.video.as_mut().filter(|before| before.is_same(&track)) {
            before.adopt_header(track);
            return Ok(());
        }
        if let Some(config) = track.config() {
            self.announce_video(config.clone());
        }
        self.video = Some(track);
        Ok(())
    }

    fn announce_video(&mut self, codec: CodecConfig) {
        if let Some(rate) = codec.declared_rate() {
            self.cadence.declare(rate);
        }
        self.outputs.push_back(Output::Track(TrackInfo {
            id: VIDEO_TRACK,
            timescale: Timescale::VIDEO_90K,
            codec,
        }));
    }

    fn set_audio(&mut self, codec: AudioCodec, record: Bytes) -> Result<(), Error> {
        let Some(sound) = Sound::new(codec, record)? else {
            return Ok(());
        };
        let old = self.audio.as_ref();
        if old.is_some_and(|track| track.sound.goes_on_as(&sound)) {
            return Ok(());
        }
        let timescale = sound.timescale()?;
        self.outputs.extend(
            sound
                .config()
                .map(|codec| announced_sound(codec, timescale)),
        );
        let last = old.and_then(|track| Some(track.last?.at(track.timescale)));
        self.audio = Some(AudioTrack {
            count: SampleCount::new(timescale.get()),
            last: last.map(|last| last.rescale_ceil(timescale)),
            sound,
            timescale,
        });
        Ok(())
    }

    /// Takes one access unit of pictures, if decoding can begin with it or has begun.
    fn take_picture(
        &mut self,
        codec: VideoCodec,
        stamps: (u32, i32),
        data: Bytes,
        now: WallTime,
    ) -> Result<(), Error> {
        const KIND: MediaKind = MediaKind::Video;
        let Some(track) = self.video.as_mut().filter(|track| track.codec() == codec) else {
            self.drop_sample(KIND, DropReason::NoSequenceHeader);
            return Ok(());
        };
        let unit = match track.unit(data)? {
            Ok(unit) if unit.keyframe || track.seen_keyframe => unit,
            Ok(_) => {
                self.drop_sample(KIND, DropReason::NoKeyFrame);
                return Ok(());
            }
            Err(reason) => {
                self.drop_sample(KIND, reason);
                return Ok(());
            }
        };
        if unit.keyframe {
            let learnt = track.learn(&unit.data, self.declared_rate)?.cloned();
            track.seen_keyframe = true;
            if let Some(config) = learnt {
                self.announce_video(config);
            }
        }
        if unit.rewritten {
            self.repair(Repair::StartCodes);
        }
        self.push_picture(stamps, unit, now);
        Ok(())
    }

    fn push_picture(
        &mut self,
        (timestamp_ms, composition_ms): (u32, i32),
        unit: Unit,
        now: WallTime,
    ) {
        const KIND: MediaKind = MediaKind::Video;
        let placed = self.place(KIND, timestamp_ms, now);
        let stamp = placed.at.to_ticks(Timescale::VIDEO_90K);
        let paced = self.cadence.push(stamp.get(), placed.moved);
        self.outputs.extend(paced.decided.map(Output::FrameRate));
        let missing = paced.missing + skipped(placed, paced.duration, Timescale::VIDEO_90K);
        if missing > 0 {
            self.repair(Repair::Gap {
                kind: KIND,
                samples: missing,
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
                keyframe: unit.keyframe,
                data: unit.data,
            },
        });
    }

    fn push_sound(&mut self, codec: AudioCodec, timestamp_ms: u32, data: Bytes, now: WallTime) {
        const KIND: MediaKind = MediaKind::Audio;
        let Some(track) = self
            .audio
            .as_mut()
            .filter(|track| track.sound.codec() == codec)
        else {
            self.drop_sample(KIND, DropReason::NoSequenceHeader);
            return;
        };
        let Some(samples) = track.sound.samples(&data) else {
            self.drop_sample(KIND, DropReason::Empty);
            return;
        };
        let learnt = track.sound.learn(&data);
        let timescale = track.timescale;
        self.outputs
            .extend(learnt.map(|codec| announced_sound(codec, timescale)));
        let placed = self.place(KIND, timestamp_ms, now);
        let Some(track) = &mut self.audio else {
            return;
        };
        let stamp = placed.at.to_ticks(track.timescale);
        let counted = track.count.push(stamp.get(), samples, placed.moved);
        let at = slewed(counted.at, placed, track.timescale, track.last);
        track.last = Some(at);
        let duration = Span::new(u64::from(samples));
        let missing = counted.missing + skipped(placed, u64::from(samples), timescale);
        if missing > 0 {
            self.repair(Repair::Gap {
                kind: KIND,
                samples: missing,
            });
        }
        if counted.nudged {
            self.repair(Repair::Nudged { kind: KIND });
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

/// How many samples of `duration` would have filled the gap over which a track moved.
fn skipped(placed: Placed, duration: u64, scale: Timescale) -> u64 {
    let Some(gap_us) = placed.gap_us else {
        return 0;
    };
    let ticks = WallTime::from_micros(gap_us).to_ticks(scale).get();
    let duration = duration.max(1);
    let steps = u64::try_from(ticks)
        .unwrap_or(0)
        .saturating_add(duration / 2)
        / duration;
    steps.saturating_sub(1)
}

const fn announced_sound(codec: CodecConfig, timescale: Timescale) -> Output {
    Output::Track(TrackInfo {
        id: AUDIO_TRACK,
        timescale,
        codec,
    })
}

#[cfg(test)]
mod enhanced_tests;
#[cfg(test)]
mod tests;
