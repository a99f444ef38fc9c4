//! The bodies of FLV audio and video messages, legacy and enhanced.
//!
//! Enters: one message body, from anyone
//! Leaves: [`Body`]: what it carries of the first track of its kind, sharing the bytes
//! Never:  state, codecs' own bytes
//! Spec:   [FLV] annex E.4.2, E.4.3; [ERTMP] v2 "ExVideoTagHeader", "ExAudioTagHeader"

use bytes::{Buf, Bytes};

use super::{Error, FoundCodec};
use crate::media::MediaKind;

/// Modifiers of one enhanced message: two are defined; more are damage.
const MAX_MODIFIERS: usize = 16;

/// The track that is taken of several: the default one.
const DEFAULT_TRACK: u8 = 0;

/// Packet types of pictures and sound that both number alike.
const SEQUENCE_START: u8 = 0;
const CODED_FRAMES: u8 = 1;
const SEQUENCE_END: u8 = 2;
const MOD_EX: u8 = 7;
/// Packet types of pictures.
const CODED_FRAMES_X: u8 = 3;
const METADATA: u8 = 4;
const TRANSPORT_STREAM_START: u8 = 5;
const VIDEO_MULTITRACK: u8 = 6;
/// Packet types of sound.
const MULTICHANNEL_CONFIG: u8 = 4;
const AUDIO_MULTITRACK: u8 = 5;
/// The frame type of a command, which carries no picture.
const COMMAND_FRAME: u8 = 5;

/// What a message carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Body<C> {
    /// Of the first track.
    pub(super) payload: Payload<C>,
    /// Whether it carries another track beside or instead.
    pub(super) has_others: bool,
}

/// What a message carries of one track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Payload<C> {
    /// What a decoder has to know first.
    SequenceHeader {
        /// Of which codec.
        codec: C,
        /// The record; may be empty.
        record: Bytes,
    },
    /// One access unit.
    Unit {
        /// Of which codec.
        codec: C,
        /// From decoding to presentation.
        composition_ms: i32,
        /// Its bytes.
        data: Bytes,
    },
    /// End of sequence, command frames, colour metadata, channel maps, empty messages.
    Nothing,
}

impl<C> From<Payload<C>> for Body<C> {
    fn from(payload: Payload<C>) -> Self {
        Self {
            payload,
            has_others: false,
        }
    }
}

/// A codec of pictures that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VideoCodec {
    H264,
    Hevc,
    Av1,
    Vp9,
}

impl VideoCodec {
    fn of(fourcc: [u8; 4]) -> Result<Self, Error> {
        match &fourcc {
            b"avc1" => Ok(Self::H264),
            b"hvc1" => Ok(Self::Hevc),
            b"av01" => Ok(Self::Av1),
            b"vp09" => Ok(Self::Vp9),
            _ => Err(Error::UnsupportedCodec {
                kind: VIDEO,
                found: FoundCodec::FourCc(fourcc),
            }),
        }
    }

    /// Whether coded frames say how far presentation is from decoding.
    const fn has_composition_time(self) -> bool {
        matches!(self, Self::H264 | Self::Hevc)
    }
}

/// A codec of sound that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AudioCodec {
    Aac,
    Opus,
}

impl AudioCodec {
    fn of(fourcc: [u8; 4]) -> Result<Self, Error> {
        match &fourcc {
            b"mp4a" => Ok(Self::Aac),
            b"Opus" => Ok(Self::Opus),
            _ => Err(Error::UnsupportedCodec {
                kind: AUDIO,
                found: FoundCodec::FourCc(fourcc),
            }),
        }
    }
}

const VIDEO: MediaKind = MediaKind::Video;
const AUDIO: MediaKind = MediaKind::Audio;

/// Takes `N` bytes off the front.
fn take<const N: usize>(kind: MediaKind, data: &mut Bytes) -> Result<[u8; N], Error> {
    let Some(taken) = data.first_chunk::<N>().copied() else {
        return Err(cut(kind, data, N));
    };
    data.advance(N);
    Ok(taken)
}

fn cut(kind: MediaKind, data: &Bytes, needed: usize) -> Error {
    let left = data.len();
    Error::Cut { kind, left, needed }
}

/// SI24, big-endian.
fn composition_ms(data: &mut Bytes) -> Result<i32, Error> {
    let [high, middle, low] = take(VIDEO, data)?;
    Ok(i32::from_be_bytes([high, middle, low, 0]) >> 8)
}

pub(super) fn parse_video(mut data: Bytes) -> Result<Body<VideoCodec>, Error> {
    if data.is_empty() {
        return Ok(Payload::Nothing.into());
    }
    let [first] = take(VIDEO, &mut data)?;
    if first & 0x80 != 0 {
        return parse_enhanced_video(first, data);
    }
    if first >> 4 == COMMAND_FRAME {
        return Ok(Payload::Nothing.into());
    }
    let codec = match first & 15 {
        7 => VideoCodec::H264,
        // Never standardised, and sent by encoders that are older than the enhanced header.
        12 => VideoCodec::Hevc,
        found => {
            return Err(Error::UnsupportedCodec {
                kind: VIDEO,
                found: FoundCodec::Legacy(found),
            });
        }
    };
    let [packet] = take(VIDEO, &mut data)?;
    let composition_ms = composition_ms(&mut data)?;
    let payload = match packet {
        0 => Payload::SequenceHeader {
            codec,
            record: data,
        },
        1 => Payload::Unit {
            codec,
            composition_ms,
            data,
        },
        2 => Payload::Nothing,
        found => return Err(Error::PacketType { kind: VIDEO, found }),
    };
    Ok(payload.into())
}

fn parse_enhanced_video(first: u8, mut data: Bytes) -> Result<Body<VideoCodec>, Error> {
    let packet = skip_modifiers(VIDEO, first & 15, &mut data)?;
    // Metadata counts whatever the frame type; a command has no FourCC.
    if packet == METADATA || first >> 4 & 7 == COMMAND_FRAME {
        return Ok(Payload::Nothing.into());
    }
    if packet == VIDEO_MULTITRACK {
        return parse_tracks(VIDEO, VIDEO_MULTITRACK, data, enhanced_video);
    }
    let fourcc = take(VIDEO, &mut data)?;
    Ok(enhanced_video(fourcc, packet, data)?.into())
}

fn enhanced_video(
    fourcc: [u8; 4],
    packet: u8,
    mut data: Bytes,
) -> Result<Payload<VideoCodec>, Error> {
    let codec = VideoCodec::of(fourcc)?;
    match packet {
        SEQUENCE_START => Ok(Payload::SequenceHeader {
            codec,
            record: data,
        }),
        CODED_FRAMES | CODED_FRAMES_X => Ok(Payload::Unit {
            codec,
            composition_ms: if packet == CODED_FRAMES && codec.has_composition_time() {
                composition_ms(&mut data)?
            } else {
                0
            },
            data,
        }),
        SEQUENCE_END | METADATA => Ok(Payload::Nothing),
        TRANSPORT_STREAM_START => Err(Error::TransportStreamHeader),
        found => Err(Error::PacketType { kind: VIDEO, found }),
    }
}

pub(super) fn parse_audio(mut data: Bytes) -> Result<Body<AudioCodec>, Error> {
    if data.is_empty() {
        return Ok(Payload::Nothing.into()); // a zero-length message stands for silence
    }
    let [first] = take(AUDIO, &mut data)?;
    match first >> 4 {
        9 => return parse_enhanced_audio(first, data),
        10 => {}
        found => {
            return Err(Error::UnsupportedCodec {
                kind: AUDIO,
                found: FoundCodec::Legacy(found),
            });
        }
    }
    if data.is_empty() {
        return Ok(Payload::Nothing.into());
    }
    let codec = AudioCodec::Aac;
    let payload = match take(AUDIO, &mut data)? {
        [0] => Payload::SequenceHeader {
            codec,
            record: data,
        },
        [1] => sound(codec, data),
        [found] => return Err(Error::PacketType { kind: AUDIO, found }),
    };
    Ok(payload.into())
}

fn parse_enhanced_audio(first: u8, mut data: Bytes) -> Result<Body<AudioCodec>, Error> {
    let packet = skip_modifiers(AUDIO, first & 15, &mut data)?;
    if packet == AUDIO_MULTITRACK {
        return parse_tracks(AUDIO, AUDIO_MULTITRACK, data, enhanced_audio);
    }
    let fourcc = take(AUDIO, &mut data)?;
    Ok(enhanced_audio(fourcc, packet, data)?.into())
}

fn enhanced_audio(fourcc: [u8; 4], packet: u8, data: Bytes) -> Result<Payload<AudioCodec>, Error> {
    let codec = AudioCodec::of(fourcc)?;
    match packet {
        SEQUENCE_START => Ok(Payload::SequenceHeader {
            codec,
            record: data,
        }),
        CODED_FRAMES => Ok(sound(codec, data)),
        SEQUENCE_END | MULTICHANNEL_CONFIG => Ok(Payload::Nothing),
        found => Err(Error::PacketType { kind: AUDIO, found }),
    }
}

fn sound(codec: AudioCodec, data: Bytes) -> Payload<AudioCodec> {
    if data.is_empty() {
        return Payload::Nothing;
    }
    Payload::Unit {
        codec,
        composition_ms: 0,
        data,
    }
}

/// What reads an enhanced body behind its FourCC: codec, packet type, the rest.
type Parse<C> = fn([u8; 4], u8, Bytes) -> Result<Payload<C>, Error>;

/// Reads a message of several tracks, from the byte behind its packet type on: what `parse` makes of the
/// default track, if it is there. The codecs of other tracks matter to nobody.
fn parse_tracks<C>(
    kind: MediaKind,
    multitrack: u8,
    mut data: Bytes,
    parse: Parse<C>,
) -> Result<Body<C>, Error> {
    let whole = data.len();
    let [types] = take(kind, &mut data)?;
    let (layout, packet) = (types >> 4, types & 15);
    if layout > 2 || packet == multitrack || packet == MOD_EX {
        return Err(Error::Multitrack { kind, found: types });
    }
    let (is_single, has_own_codecs) = (layout == 0, layout == 2);
    let mut fourcc = [0; 4];
    if !has_own_codecs {
        fourcc = take(kind, &mut data)?;
    }
    let mut body = Body::from(Payload::Nothing);
    let mut has_default = false;
    loop {
        if has_own_codecs {
            fourcc = take(kind, &mut data)?;
        }
        let [track] = take(kind, &mut data)?;
        let size = if is_single {
            data.len()
        } else {
            let [high, middle, low] = take(kind, &mut data)?;
            u32::from_be_bytes([0, high, middle, low]) as usize
        };
        if data.len() < size {
            return Err(cut(kind, &data, size));
        }
        let piece = data.split_to(size);
        if track == DEFAULT_TRACK && !has_default {
            has_default = true;
            // A small piece must not keep a large message in memory for as long as it is itself needed.
            let is_small = piece.len() < whole / 2;
            let piece = if is_small {
                Bytes::copy_from_slice(&piece)
            } else {
                piece
            };
            body.payload = parse(fourcc, packet, piece)?;
        } else {
            body.has_others = true;
        }
        if data.is_empty() {
            return Ok(body);
        }
    }
}

/// Passes over the modifiers in front of an enhanced message (nanosecond offsets, of no use to positions that
/// are regenerated); gives the packet type behind them.
fn skip_modifiers(kind: MediaKind, mut packet: u8, data: &mut Bytes) -> Result<u8, Error> {
    for _ in 0..MAX_MODIFIERS {
        if packet != MOD_EX {
            return Ok(packet);
        }
        let [short] = take(kind, data)?;
        let mut size = usize::from(short) + 1;
        if size == 256 {
            size = usize::from(u16::from_be_bytes(take(kind, data)?)) + 1;
        }
        if data.len() < size {
            return Err(cut(kind, data, size));
        }
        data.advance(size);
        let [types] = take(kind, data)?;
        packet = types & 15;
    }
    Err(Error::PacketType {
        kind,
        found: MOD_EX,
    })
}
