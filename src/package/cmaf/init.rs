//! Writes the init segment (CMAF header) of one rendition.
//!
//! Enters: a rendition that [`check`] found writable
//! Leaves: `ftyp` and `moov` of one track without samples
//! Never:  an edit list: positions are final when samples arrive
//! Time:   durations are zero, as the track is open-ended
//! Spec:   [CMAF] §7.3.1, [ISOBMFF] §8.5.2, [NALFF] §5.4.2, §8.4.1, [AV1ISOBMFF] §2.2, [VP9MP4], [OPUSMP4] §4.3

use bytes::Bytes;
use mp4_atom::{
    Audio, Colr, Dinf, Dops, Dref, DrefEntry, Encode, FourCC, Ftyp, Hdlr, Mdhd, Mvex, Mvhd, Pasp,
    Smhd, Stco, Stsc, Stsz, StszSamples, Stts, Tkhd, Trex, Url, Visual, Vmhd, VpcC,
};

use crate::codec::video::Colour;
use crate::codec::{aac, opus, vp9};
use crate::id::TrackId;
use crate::media::{CodecConfig, MediaKind, Rendition};

/// The longest configuration record or `AudioSpecificConfig` written; a descriptor's length is one byte.
const MAX_ASC_BYTES: usize = 64;
/// The longest `avcC`, `hvcC` or `av1C`: parameter sets are tens of bytes, and every player loads this first.
const MAX_RECORD_BYTES: usize = 16 * 1024;

/// Which property of `rendition` no box can hold, if any.
pub(in crate::package) fn check(rendition: &Rendition) -> Result<(), &'static str> {
    if let Some(size) = rendition.codec.dimensions() {
        let fits = |side: u32| side > 0 && u16::try_from(side).is_ok();
        if !(fits(size.width) && fits(size.height)) {
            return Err("size of the picture");
        }
    }
    match &rendition.codec {
        CodecConfig::H264(c) if c.avcc.is_empty() || c.avcc.len() > MAX_RECORD_BYTES => Err("avcC"),
        CodecConfig::Hevc(c) if c.hvcc.is_empty() || c.hvcc.len() > MAX_RECORD_BYTES => Err("hvcC"),
        CodecConfig::Av1(c) if c.av1c.is_empty() || c.av1c.len() > MAX_RECORD_BYTES => Err("av1C"),
        CodecConfig::Aac(c) if c.asc.is_empty() || c.asc.len() > MAX_ASC_BYTES => {
            Err("AudioSpecificConfig")
        }
        CodecConfig::Opus(c) if !matches!(c.channels, 1 | 2) => Err("number of channels"),
        _ => Ok(()),
    }
}

/// The init segment of `rendition`.
pub(in crate::package) fn write_init(rendition: &Rendition) -> Result<Bytes, mp4_atom::Error> {
    let mut out = Vec::with_capacity(1_024);
    Ftyp {
        major_brand: FourCC::new(b"cmf2"),
        minor_version: 0,
        compatible_brands: [b"iso6", b"cmfc", b"cmf2"].map(FourCC::new).to_vec(),
    }
    .encode(&mut out)?;
    nest(&mut out, b"moov", |out| {
        movie_header(rendition).encode(out)?;
        nest(out, b"trak", |out| track(out, rendition))?;
        Mvex {
            mehd: None,
            trex: vec![Trex {
                track_id: track_id(),
                default_sample_description_index: 1,
                default_sample_duration: 0,
                default_sample_size: 0,
                default_sample_flags: 0,
            }],
        }
        .encode(out)
    })?;
    Ok(out.into())
}

const fn track_id() -> u32 {
    TrackId::ONLY.get().get()
}

fn movie_header(rendition: &Rendition) -> Mvhd {
    Mvhd {
        creation_time: 0,
        modification_time: 0,
        timescale: rendition.timescale.get(),
        duration: 0,
        rate: 1.into(),
        volume: 1.into(),
        matrix: mp4_atom::Matrix::default(),
        next_track_id: track_id() + 1,
    }
}

fn track(out: &mut Vec<u8>, rendition: &Rendition) -> Result<(), mp4_atom::Error> {
    let side = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    let video = rendition.codec.kind() == MediaKind::Video;
    let (width, height) = shown_size(rendition);
    Tkhd {
        track_id: track_id(),
        enabled: true,
        in_movie: true,
        volume: u8::from(!video).into(),
        width: side(width).into(),
        height: side(height).into(),
        ..Tkhd::default()
    }
    .encode(out)?;
    nest(out, b"mdia", |out| {
        Mdhd {
            timescale: rendition.timescale.get(),
            language: "und".to_owned(),
            ..Mdhd::default()
        }
        .encode(out)?;
        Hdlr {
            handler: FourCC::new(if video { b"vide" } else { b"soun" }),
            name: if video { "video" } else { "audio" }.to_owned(),
        }
        .encode(out)?;
        nest(out, b"minf", |out| {
            if video {
                Vmhd::default().encode(out)?;
            } else {
                Smhd::default().encode(out)?;
            }
            Dinf {
                dref: Dref {
                    entries: vec![DrefEntry::Url(Url::default())],
                },
            }
            .encode(out)?;
            nest(out, b"stbl", |out| sample_table(out, rendition))
        })
    })
}

/// The size at which pictures are shown with square pixels.
fn shown_size(rendition: &Rendition) -> (u32, u32) {
    let Some(size) = rendition.codec.dimensions() else {
        return (0, 0);
    };
    let aspect = rendition.codec.pixel_aspect();
    let width =
        u64::from(size.width) * u64::from(aspect.width.get()) / u64::from(aspect.height.get());
    (u32::try_from(width).unwrap_or(u32::MAX), size.height)
}

/// `stbl`: what one sample is like, and that there are none here.
fn sample_table(out: &mut Vec<u8>, rendition: &Rendition) -> Result<(), mp4_atom::Error> {
    nest(out, b"stsd", |out| {
        out.extend_from_slice(&0_u32.to_be_bytes()); // version, flags
        out.extend_from_slice(&1_u32.to_be_bytes()); // entry_count
        sample_entry(out, rendition)
    })?;
    Stts::default().encode(out)?;
    Stsc::default().encode(out)?;
    Stsz {
        samples: StszSamples::Identical { count: 0, size: 0 },
    }
    .encode(out)?;
    Stco::default().encode(out)
}

fn sample_entry(out: &mut Vec<u8>, rendition: &Rendition) -> Result<(), mp4_atom::Error> {
    match &rendition.codec {
        CodecConfig::H264(c) => {
            visual_entry(out, b"avc1", rendition, |out| record(out, b"avcC", &c.avcc))
        }
        CodecConfig::Hevc(c) => {
            visual_entry(out, b"hvc1", rendition, |out| record(out, b"hvcC", &c.hvcc))
        }
        CodecConfig::Av1(c) => {
            visual_entry(out, b"av01", rendition, |out| record(out, b"av1C", &c.av1c))
        }
        CodecConfig::Vp9(c) => {
            visual_entry(out, b"vp09", rendition, |out| vp9_record(c).encode(out))
        }
        CodecConfig::Aac(c) => audio_entry(out, b"mp4a", (c.channels, c.sample_rate), |out| {
            elementary_stream(out, c, rendition.target_bps)
        }),
        CodecConfig::Opus(c) => audio_entry(out, b"Opus", (c.channels, 48_000), |out| {
            opus_record(c).encode(out)
        }),
    }
}

/// `VisualSampleEntry` ([ISOBMFF] §12.1.3): the codec's record, then the shape and colour of pixels.
fn visual_entry(
    out: &mut Vec<u8>,
    kind: &[u8; 4],
    rendition: &Rendition,
    write_record: impl FnOnce(&mut Vec<u8>) -> Result<(), mp4_atom::Error>,
) -> Result<(), mp4_atom::Error> {
    let side = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    let size = rendition.codec.dimensions();
    nest(out, kind, |out| {
        Visual {
            data_reference_index: 1,
            width: size.map_or(0, |s| side(s.width)),
            height: size.map_or(0, |s| side(s.height)),
            ..Visual::default()
        }
        .encode(out)?;
        write_record(out)?;
        let colour = rendition.codec.colour().unwrap_or(Colour::UNSPECIFIED);
        if colour != Colour::UNSPECIFIED {
            Colr::Nclx {
                colour_primaries: colour.primaries.into(),
                transfer_characteristics: colour.transfer.into(),
                matrix_coefficients: colour.matrix.into(),
                full_range_flag: colour.full_range,
            }
            .encode(out)?;
        }
        let aspect = rendition.codec.pixel_aspect();
        Pasp {
            h_spacing: aspect.width.get(),
            v_spacing: aspect.height.get(),
        }
        .encode(out)
    })
}

/// `AudioSampleEntry` ([ISOBMFF] §12.2.3). A rate that does not fit its 16 bits is written as zero; the
/// codec's record has it.
fn audio_entry(
    out: &mut Vec<u8>,
    kind: &[u8; 4],
    (channels, sample_rate): (u8, u32),
    write_record: impl FnOnce(&mut Vec<u8>) -> Result<(), mp4_atom::Error>,
) -> Result<(), mp4_atom::Error> {
    nest(out, kind, |out| {
        Audio {
            data_reference_index: 1,
            channel_count: channels.into(),
            sample_size: 16,
            sample_rate: u16::try_from(sample_rate).unwrap_or(0).into(),
        }
        .encode(out)?;
        write_record(out)
    })
}

const fn vp9_record(config: &vp9::Config) -> VpcC {
    VpcC {
        profile: config.profile,
        level: config.level,
        bit_depth: config.bit_depth,
        chroma_subsampling: config.chroma_subsampling,
        video_full_range_flag: config.colour.full_range,
        color_primaries: config.colour.primaries,
        transfer_characteristics: config.colour.transfer,
        matrix_coefficients: config.colour.matrix,
        codec_initialization_data: Vec::new(),
    }
}

const fn opus_record(config: &opus::Config) -> Dops {
    Dops {
        output_channel_count: config.channels,
        pre_skip: config.pre_skip,
        input_sample_rate: config.input_sample_rate,
        output_gain: 0,
        channel_mapping: None,
    }
}

/// `esds` ([MP4] §6.7.2): the `AudioSpecificConfig` byte for byte, whatever extensions it carries.
fn elementary_stream(
    out: &mut Vec<u8>,
    config: &aac::Config,
    target_bps: u64,
) -> Result<(), mp4_atom::Error> {
    let length = |bytes: usize| u8::try_from(bytes).unwrap_or(u8::MAX);
    let asc = config.asc.len();
    let bps = u32::try_from(target_bps).unwrap_or(u32::MAX);
    nest(out, b"esds", |out| {
        out.extend_from_slice(&0_u32.to_be_bytes()); // version, flags
        out.extend_from_slice(&[0x03, length(3 + 2 + 13 + 2 + asc + 3)]); // ES_Descriptor
        out.extend_from_slice(&[0, 0, 0]); // ES_ID, no optional fields
        out.extend_from_slice(&[0x04, length(13 + 2 + asc)]); // DecoderConfigDescriptor
        out.extend_from_slice(&[0x40, 0x15]); // objectTypeIndication MPEG-4 audio, streamType audio
        out.extend_from_slice(&[0, 0, 0]); // bufferSizeDB
        out.extend_from_slice(&bps.to_be_bytes()); // maxBitrate
        out.extend_from_slice(&bps.to_be_bytes()); // avgBitrate
        out.extend_from_slice(&[0x05, length(asc)]); // DecoderSpecificInfo
        out.extend_from_slice(&config.asc);
        out.extend_from_slice(&[0x06, 1, 0x02]); // SLConfigDescriptor, predefined for MP4
        Ok(())
    })
}

/// A box whose body is a codec's configuration record.
fn record(out: &mut Vec<u8>, kind: &[u8; 4], body: &[u8]) -> Result<(), mp4_atom::Error> {
    nest(out, kind, |out| {
        out.extend_from_slice(body);
        Ok(())
    })
}

/// A box around what `body` writes. For containers whose order of children matters ([HLS] §3.1.2 wants
/// `mvex` last) and for entries that hold bytes which must not be rewritten.
fn nest(
    out: &mut Vec<u8>,
    kind: &[u8; 4],
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), mp4_atom::Error>,
) -> Result<(), mp4_atom::Error> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(kind);
    body(out)?;
    let size = u32::try_from(out.len() - start)
        .map_err(|_| mp4_atom::Error::TooLarge(FourCC::new(kind)))?;
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&size.to_be_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mp4_atom::{Codec, Decode, Moov};

    use super::*;
    use crate::package::window::tests::{aac, h264};

    fn parsed(rendition: &Rendition) -> Moov {
        let bytes = write_init(rendition).expect("writable");
        let mut rest = &bytes[..];
        let ftyp = Ftyp::decode(&mut rest).expect("ftyp");
        assert_eq!(ftyp.major_brand, FourCC::new(b"cmf2"));
        let moov = Moov::decode(&mut rest).expect("moov");
        assert!(rest.is_empty());
        moov
    }

    #[test]
    fn video_init_says_what_the_rendition_says() {
        let moov = parsed(&h264("v720", 1_280, 720));
        let track = &moov.trak[0];
        assert!(track.edts.is_none());
        assert_eq!(track.mdia.mdhd.timescale, 90_000);
        let Codec::Avc1(entry) = &track.mdia.minf.stbl.stsd.codecs[0] else {
            panic!("not avc1");
        };
        assert_eq!((entry.visual.width, entry.visual.height), (1_280, 720));
        assert_eq!(entry.colr, Some(Colr::new(1, 1, 1, false).expect("valid")));
    }

    #[test]
    fn audio_init_says_what_the_rendition_says() {
        let moov = parsed(&aac("a128", 128_000));
        let Codec::Mp4a(entry) = &moov.trak[0].mdia.minf.stbl.stsd.codecs[0] else {
            panic!("not mp4a");
        };
        assert_eq!(entry.audio.channel_count, 2);
        let specific = entry.esds.es_desc.dec_config.dec_specific.as_ref();
        let specific = specific.expect("there");
        assert_eq!((specific.profile, specific.freq_index), (2, 3));
    }

    #[test]
    fn movie_extends_box_comes_last() {
        let bytes = write_init(&h264("v720", 1_280, 720)).expect("writable");
        let at = |kind: &[u8]| bytes.windows(4).position(|w| w == kind).expect("there");
        assert!(at(b"trak") < at(b"mvex"));
    }

    #[test]
    fn unwritable_values_are_named() {
        assert_eq!(check(&h264("v", 70_000, 720)), Err("size of the picture"));
        assert_eq!(check(&h264("v", 1_280, 720)), Ok(()));
    }
}
