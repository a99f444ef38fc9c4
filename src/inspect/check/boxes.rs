//! Reads boxes of fragmented MP4: the structure by a walk of its own, sample entries and runs by the `mp4`
//! crate, which shares no code with the writer.
//!
//! Enters: init segments, segments and parts from anyone
//! Leaves: [`Init`] and [`Fragment`]s: numbers to be held against rules
//! Never:  panics, an allocation that a length field asks for
//! Time:   ticks of the track
//! Spec:   [ISOBMFF] §4.2, §8.8; [CMAF] §7

use std::io::Cursor;

use bytes::Bytes;
use mp4::{BoxHeader, MoofBox, Mp4Reader, ReadBox as _};
use xxhash_rust::xxh3::xxh3_64;

use crate::codec::{h264, hevc};
use crate::media::{CodecConfig, CodecString};

/// Seconds from 1900, where NTP counts from, to 1970.
const NTP_TO_UNIX_S: i64 = 2_208_988_800;
/// `sample_is_non_sync_sample` in sample flags.
const NON_SYNC: u32 = 0x0001_0000;
/// The most samples in one run: an hour of sound.
const MAX_RUN_SAMPLES: u32 = 200_000;

/// A box: its type, its whole bytes, its body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bx<'a> {
    pub(super) kind: [u8; 4],
    pub(super) whole: &'a [u8],
    pub(super) body: &'a [u8],
}

/// The boxes that follow each other in `bytes`; `None` if one reaches beyond the end.
pub(super) fn boxes(bytes: &[u8]) -> Option<Vec<Bx<'_>>> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let size = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?);
        let kind = rest.get(4..8)?.try_into().ok()?;
        let (head, size) = match size {
            0 => (8, rest.len()),
            1 => {
                let long = u64::from_be_bytes(rest.get(8..16)?.try_into().ok()?);
                (16, usize::try_from(long).ok()?)
            }
            size => (8, usize::try_from(size).ok()?),
        };
        let whole = rest.get(..size)?;
        found.push(Bx {
            kind,
            whole,
            body: whole.get(head..)?,
        });
        rest = rest.get(size..)?;
    }
    Some(found)
}

/// The first box that `path` leads to.
fn find<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    let (kind, deeper) = path.split_first()?;
    let found = boxes(bytes)?.into_iter().find(|b| b.kind == **kind)?;
    if deeper.is_empty() {
        Some(found.body)
    } else {
        find(found.body, deeper)
    }
}

fn count(bytes: &[u8], kind: [u8; 4]) -> usize {
    boxes(bytes).map_or(0, |found| found.iter().filter(|b| b.kind == kind).count())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let end = at.checked_add(4)?;
    Some(u32::from_be_bytes(bytes.get(at..end)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let end = at.checked_add(2)?;
    Some(u16::from_be_bytes(bytes.get(at..end)?.try_into().ok()?))
}

/// What an init segment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Init {
    pub(super) brands: Vec<[u8; 4]>,
    pub(super) tracks: usize,
    /// Entries in any of the sample tables.
    pub(super) samples: u32,
    /// mvex stands after the track and has a trex for it.
    pub(super) has_mvex: bool,
    pub(super) track_id: u32,
    pub(super) timescale: u32,
    pub(super) is_video: bool,
    pub(super) codec: Option<String>,
    /// Width and height that the parameter sets say.
    pub(super) size: Option<(u32, u32)>,
    pub(super) sample_rate: Option<u32>,
    pub(super) channels: Option<u8>,
    /// Bytes of a NAL unit's length, where the samples consist of NAL units of H.264.
    pub(super) nal_length: Option<usize>,
    trex: (u32, u32, u32),
}

/// Reads an init segment.
pub(super) fn parse_init(bytes: &[u8]) -> Result<Init, String> {
    let top = boxes(bytes).ok_or("its boxes do not fill it")?;
    let ftyp = match top.first() {
        Some(first) if first.kind == *b"ftyp" => first.body,
        _ => return Err("it does not begin with ftyp".to_owned()),
    };
    let moov = find(bytes, &[b"moov"]).ok_or("it has no moov")?;
    let children = boxes(moov).ok_or("the boxes of moov do not fill it")?;
    let tracks = count(moov, *b"trak");
    let trak = find(moov, &[b"trak"]).ok_or("it has no track")?;
    let mdia = find(trak, &[b"mdia"]).ok_or("it has no mdia")?;
    let track_id = versioned(find(trak, &[b"tkhd"]), 12, 20).ok_or("it has no tkhd")?;
    let timescale = versioned(find(mdia, &[b"mdhd"]), 12, 20).ok_or("it has no mdhd")?;
    if timescale == 0 {
        return Err("its timescale is zero".to_owned());
    }
    let handler = find(mdia, &[b"hdlr"]).and_then(|b| b.get(8..12));
    let stbl = find(mdia, &[b"minf", b"stbl"]).ok_or("it has no stbl")?;
    let entries = |kind: &[u8; 4], at| find(stbl, &[kind]).and_then(|b| u32_at(b, at)).unwrap_or(0);
    let at = |kind: [u8; 4]| children.iter().position(|b| b.kind == kind);
    let trex = find(moov, &[b"mvex", b"trex"]);
    let mut init = Init {
        brands: brands(ftyp),
        tracks,
        samples: entries(b"stts", 4)
            | entries(b"stsc", 4)
            | entries(b"stco", 4)
            | entries(b"stsz", 8),
        has_mvex: trex.and_then(|b| u32_at(b, 4)) == Some(track_id) && at(*b"mvex") > at(*b"trak"),
        track_id,
        timescale,
        is_video: handler == Some(b"vide"),
        trex: trex.map_or((0, 0, 0), |b| {
            let field = |at| u32_at(b, at).unwrap_or(0);
            (field(12), field(16), field(20))
        }),
        ..Init::default()
    };
    let stsd = find(stbl, &[b"stsd"])
        .and_then(|b| b.get(8..))
        .ok_or("it has no stsd")?;
    let entry = boxes(stsd).and_then(|found| found.first().copied());
    let entry = entry.ok_or("it has no sample entry")?;
    read_entry(&mut init, bytes, &entry)?;
    Ok(init)
}

/// A field behind times of 32 or 64 bits.
fn versioned(body: Option<&[u8]>, narrow: usize, wide: usize) -> Option<u32> {
    let body = body?;
    u32_at(body, if *body.first()? == 1 { wide } else { narrow })
}

fn brands(ftyp: &[u8]) -> Vec<[u8; 4]> {
    let compatible = ftyp.get(8..).unwrap_or_default().chunks_exact(4);
    compatible
        .filter_map(|brand| brand.try_into().ok())
        .collect()
}

/// Codec, size and rate out of the sample entry.
fn read_entry(init: &mut Init, bytes: &[u8], entry: &Bx<'_>) -> Result<(), String> {
    match &entry.kind {
        b"avc1" | b"avc3" => {
            // The crate reads the record; what the parameter sets mean is read from the record itself.
            let reader = read_by_crate(bytes)?;
            let track = reader
                .moov
                .traks
                .first()
                .ok_or("the reader found no track")?;
            let avc1 = track.mdia.minf.stbl.stsd.avc1.as_ref();
            let avcc = &avc1.ok_or("the reader found no avc1")?.avcc;
            init.codec = Some(format!(
                "avc1.{:02X}{:02X}{:02X}",
                avcc.avc_profile_indication, avcc.profile_compatibility, avcc.avc_level_indication
            ));
            init.nal_length = Some(usize::from(avcc.length_size_minus_one & 3) + 1);
            let record = entry.body.get(78..).and_then(|b| find(b, &[b"avcC"]));
            let record = Bytes::copy_from_slice(record.ok_or("it has no avcC")?);
            // The parameter sets say the size; a sample entry may say anything.
            let config = h264::Config::parse_avcc(record).map_err(|error| error.to_string())?;
            let size = config.dimensions;
            init.size = Some((size.width, size.height));
        }
        b"mp4a" => {
            let reader = read_by_crate(bytes)?;
            let track = reader
                .moov
                .traks
                .first()
                .ok_or("the reader found no track")?;
            let mp4a = track.mdia.minf.stbl.stsd.mp4a.as_ref();
            let esds = mp4a.and_then(|mp4a| mp4a.esds.as_ref());
            let config = &esds.ok_or("the reader found no esds")?.es_desc.dec_config;
            let kind = config.object_type_indication;
            init.codec = Some(match kind {
                0x40 => format!("mp4a.40.{}", config.dec_specific.profile),
                kind => format!("mp4a.{kind:02X}"),
            });
            init.channels = match config.dec_specific.chan_conf {
                0 => None,
                7 => Some(8),
                channels => Some(channels),
            };
            init.sample_rate = mp4a.map(|mp4a| u32::from(mp4a.samplerate.value()));
        }
        b"Opus" => {
            init.codec = Some("opus".to_owned());
            init.channels = u16_at(entry.body, 16).and_then(|count| u8::try_from(count).ok());
            init.sample_rate = Some(48_000);
        }
        b"hvc1" | b"hev1" => read_hevc(init, entry)?,
        kind => init.size = visual_size(kind, entry.body),
    }
    Ok(())
}

/// Codec and size of HEVC.
fn read_hevc(init: &mut Init, entry: &Bx<'_>) -> Result<(), String> {
    let record = entry.body.get(78..).and_then(|b| find(b, &[b"hvcC"]));
    let record = Bytes::copy_from_slice(record.ok_or("it has no hvcC")?);
    let config = match hevc::Config::parse_hvcc(record) {
        Ok(config) => config,
        // Then its samples have them.
        Err(hevc::Error::NoSps) if entry.kind == *b"hev1" => {
            init.size = visual_size(&entry.kind, entry.body);
            return Ok(());
        }
        Err(error) => return Err(error.to_string()),
    };
    init.size = Some((config.dimensions.width, config.dimensions.height));
    let text = CodecString::of(&CodecConfig::Hevc(config)).to_string();
    init.codec = Some(match &entry.kind {
        b"hev1" => text.replacen("hvc1", "hev1", 1),
        _ => text,
    });
    Ok(())
}

/// The size that the sample entry of a picture says.
fn visual_size(kind: &[u8; 4], body: &[u8]) -> Option<(u32, u32)> {
    if ![b"av01", b"vp09", b"hvc1", b"hev1"].contains(&kind) {
        return None;
    }
    Some((u16_at(body, 24)?.into(), u16_at(body, 26)?.into()))
}

fn read_by_crate(bytes: &[u8]) -> Result<Mp4Reader<Cursor<&[u8]>>, String> {
    let size = u64::try_from(bytes.len()).map_err(|error| error.to_string())?;
    Mp4Reader::read_header(Cursor::new(bytes), size).map_err(|error| error.to_string())
}

/// What one `moof` with its `mdat` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fragment {
    /// Hash and length of everything from the end of the fragment before to the end of its `mdat`.
    pub(super) bytes: (u64, usize),
    pub(super) sequence: u32,
    pub(super) trafs: usize,
    pub(super) truns: usize,
    pub(super) track_id: u32,
    pub(super) base_is_moof: bool,
    pub(super) tfdt: Option<u64>,
    pub(super) tfdt_version: u8,
    /// The sum of the durations of its samples.
    pub(super) duration: u64,
    /// The longest sample.
    pub(super) longest: u64,
    pub(super) samples: u32,
    pub(super) first_is_sync: bool,
    /// The composition offset of the first sample.
    pub(super) first_offset: i64,
    /// Whether the sizes of the samples fill the `mdat`, from where the run says it begins.
    pub(super) data_fits: bool,
    /// Whether the first sample holds an IDR picture; `None` where that is not known.
    pub(super) first_is_idr: Option<bool>,
    /// The `prft` before its `moof`.
    pub(super) produced: Option<Produced>,
}

/// What a `prft` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Produced {
    /// The wall clock, in microseconds since the Unix epoch.
    pub(super) wall_us: i64,
    /// The media time that it belongs to, in the track's timescale.
    pub(super) media_time: u64,
}

/// Bytes of a segment or part as fragments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Media {
    /// The brands of `styp`, if it begins with one.
    pub(super) brands: Option<Vec<[u8; 4]>>,
    pub(super) fragments: Vec<Fragment>,
}

impl Media {
    pub(super) fn start(&self) -> Option<u64> {
        self.fragments.first()?.tfdt
    }

    pub(super) fn duration(&self) -> u64 {
        self.fragments.iter().map(|f| f.duration).sum()
    }

    pub(super) fn end(&self) -> Option<u64> {
        self.start()?.checked_add(self.duration())
    }

    pub(super) fn samples(&self) -> u64 {
        self.fragments.iter().map(|f| u64::from(f.samples)).sum()
    }

    pub(super) fn longest(&self) -> u64 {
        self.fragments.iter().map(|f| f.longest).max().unwrap_or(0)
    }
}

/// Reads a segment or a part.
pub(super) fn parse_media(bytes: &[u8], init: Option<&Init>) -> Result<Media, String> {
    let top = boxes(bytes).ok_or("its boxes do not fill it")?;
    let mut media = Media::default();
    let (mut from, mut at, mut moof) = (0_usize, 0_usize, None);
    let mut produced = None;
    for found in &top {
        at += found.whole.len();
        match &found.kind {
            b"styp" if media.brands.is_none() && media.fragments.is_empty() => {
                media.brands = Some(brands(found.body));
            }
            b"prft" => produced = read_produced(found.body),
            b"moof" if moof.is_none() => moof = Some(*found),
            b"moof" => return Err("a moof has no mdat".to_owned()),
            b"mdat" => {
                let head = moof.take().ok_or("an mdat has no moof")?;
                let mut fragment = read_fragment(&head, found, init)?;
                let piece = bytes.get(from..at).unwrap_or_default();
                fragment.bytes = (xxh3_64(piece), piece.len());
                fragment.produced = produced.take();
                media.fragments.push(fragment);
                from = at;
            }
            _ => {}
        }
    }
    if moof.is_some() || media.fragments.is_empty() || from != bytes.len() {
        return Err("it does not end with a whole moof and mdat".to_owned());
    }
    Ok(media)
}

/// [ISOBMFF] §8.16.5: version and flags, the track, the time in NTP's format, the media time.
fn read_produced(body: &[u8]) -> Option<Produced> {
    let since_1900 = i64::from(u32_at(body, 8)?);
    let fraction = (u64::from(u32_at(body, 12)?) * 1_000_000) >> 32;
    let high = u64::from(u32_at(body, 16)?);
    let media_time = match body.first()? {
        0 => high,
        _ => (high << 32) | u64::from(u32_at(body, 20)?),
    };
    let wall_us = (since_1900 - NTP_TO_UNIX_S) * 1_000_000 + i64::try_from(fraction).ok()?;
    Some(Produced {
        wall_us,
        media_time,
    })
}

fn read_fragment(moof: &Bx<'_>, mdat: &Bx<'_>, init: Option<&Init>) -> Result<Fragment, String> {
    let traf = find(moof.body, &[b"traf"]).ok_or("a moof has no traf")?;
    let run = find(traf, &[b"trun"]).ok_or("a traf has no trun")?;
    let samples = u32_at(run, 4).ok_or("a trun is cut off")?;
    if samples == 0 || samples > MAX_RUN_SAMPLES {
        return Err(format!("a trun says that it has {samples} samples"));
    }
    let length = u64::try_from(moof.whole.len()).map_err(|error| error.to_string())?;
    let mut reader = Cursor::new(moof.whole);
    let header = BoxHeader::read(&mut reader).map_err(|error| error.to_string())?;
    let read = MoofBox::read_box(&mut reader, header.size.min(length));
    let read = read.map_err(|error| error.to_string())?;
    let found = read.trafs.first().ok_or("the reader found no traf")?;
    let trun = found.trun.as_ref().ok_or("the reader found no trun")?;
    let (duration, size, flags) = init.map_or((0, 0, 0), |init| init.trex);
    let duration = found.tfhd.default_sample_duration.unwrap_or(duration);
    let size = found.tfhd.default_sample_size.unwrap_or(size);
    let flags = found.tfhd.default_sample_flags.unwrap_or(flags);
    let places = 0..usize::try_from(samples).map_err(|error| error.to_string())?;
    let durations = places
        .clone()
        .map(|i| trun.sample_durations.get(i).copied().unwrap_or(duration));
    let sizes = places.map(|i| trun.sample_sizes.get(i).copied().unwrap_or(size));
    let first_flags = trun
        .first_sample_flags
        .or_else(|| trun.sample_flags.first().copied());
    let first_offset = trun.sample_cts.first().copied().unwrap_or(0);
    let total: u64 = sizes.clone().map(u64::from).sum();
    let mdat_head = mdat.whole.len() - mdat.body.len();
    let data_at = i64::try_from(moof.whole.len() + mdat_head).ok();
    let first_size = sizes
        .clone()
        .next()
        .and_then(|size| usize::try_from(size).ok());
    let first = first_size.and_then(|size| mdat.body.get(..size));
    Ok(Fragment {
        bytes: (0, 0),
        sequence: read.mfhd.sequence_number,
        trafs: count(moof.body, *b"traf"),
        truns: count(traf, *b"trun"),
        track_id: found.tfhd.track_id,
        base_is_moof: found.tfhd.flags & 0x02_0000 != 0 && found.tfhd.base_data_offset.is_none(),
        tfdt: found.tfdt.as_ref().map(|tfdt| tfdt.base_media_decode_time),
        tfdt_version: found.tfdt.as_ref().map_or(0, |tfdt| tfdt.version),
        duration: durations.clone().map(u64::from).sum(),
        longest: durations.map(u64::from).max().unwrap_or(0),
        samples,
        produced: None,
        first_is_sync: first_flags.unwrap_or(flags) & NON_SYNC == 0,
        first_offset: if trun.version == 0 {
            i64::from(first_offset)
        } else {
            i64::from(first_offset.cast_signed())
        },
        data_fits: trun.data_offset.map(i64::from) == data_at
            && usize::try_from(total).is_ok_and(|total| total == mdat.body.len()),
        first_is_idr: init
            .and_then(|init| init.nal_length)
            .zip(first)
            .map(|(nal_length, sample)| has_idr(sample, nal_length)),
    })
}

/// Whether an access unit of H.264 holds a slice of an IDR picture.
fn has_idr(sample: &[u8], nal_length: usize) -> bool {
    let mut rest = sample;
    while let Some((length, after)) = rest.split_at_checked(nal_length) {
        let length = length
            .iter()
            .fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
        let Some((nal, after)) = after.split_at_checked(length) else {
            return false;
        };
        if nal.first().is_some_and(|head| head & 0x1f == 5) {
            return true;
        }
        rest = after;
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn idr_is_found_among_other_units() {
        assert!(has_idr(&[0, 0, 0, 2, 9, 16, 0, 0, 0, 1, 0x65], 4));
        assert!(!has_idr(&[0, 0, 0, 2, 9, 16, 0, 0, 0, 1, 0x41], 4));
        assert!(!has_idr(&[0, 0, 0, 9, 0x65], 4));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_init(&bytes);
            let _ = parse_media(&bytes, None);
        }

        #[test]
        fn no_body_of_a_known_box_panics(
            kind in prop_oneof![Just(*b"moof"), Just(*b"moov"), Just(*b"traf"), Just(*b"trun")],
            body in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let size = u32::try_from(body.len() + 8).expect("small");
            let mut bytes = size.to_be_bytes().to_vec();
            bytes.extend_from_slice(&kind);
            bytes.extend_from_slice(&body);
            bytes.extend_from_slice(&[0, 0, 0, 8, b'm', b'd', b'a', b't']);
            let _ = parse_init(&bytes);
            let _ = parse_media(&bytes, None);
        }
    }
}
