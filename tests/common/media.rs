//! Reads segments as somebody else would: the `mp4` crate for boxes, NAL units by hand.
//!
//! Enters: the bytes of an init segment and of media segments
//! Leaves: every sample with its times and whether it is a key frame
//! Never:  a parser of Headwater's own
//! Time:   in the track's timescale
//! Spec:   [CMAF]

#![allow(dead_code, reason = "every test binary uses its own part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly"
)]

use std::io::Cursor;

/// One sample of a segment.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// When it is decoded.
    pub(crate) dts: i64,
    /// When it is shown.
    pub(crate) pts: i64,
    /// Until the next one is decoded.
    pub(crate) duration: i64,
    /// What its flags say.
    pub(crate) is_sync: bool,
    /// Its bytes.
    pub(crate) data: Vec<u8>,
}

/// One segment as it lies in its file.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Its samples in decode order.
    pub(crate) samples: Vec<Sample>,
    /// How many `moof` boxes it has.
    pub(crate) fragments: usize,
    /// Ticks per second.
    pub(crate) timescale: u32,
}

impl Segment {
    /// Reads `media` with its `init`.
    pub(crate) fn read(init: &[u8], media: &[u8]) -> Self {
        let whole = [init, media].concat();
        let size = whole.len() as u64;
        let reader = mp4::Mp4Reader::read_header(Cursor::new(&whole), size).expect("mp4 reads it");
        let timescale = reader.moov.traks[0].mdia.mdhd.timescale;
        let default = reader.moov.mvex.as_ref().map(|mvex| &mvex.trex);
        let at = boxes(&whole, *b"moof");
        assert_eq!(at.len(), reader.moofs.len());
        let mut samples = Vec::new();
        for (moof, at) in reader.moofs.iter().zip(&at) {
            let traf = &moof.trafs[0];
            let run = traf.trun.as_ref().expect("trun");
            let mut dts =
                i64::try_from(traf.tfdt.as_ref().expect("tfdt").base_media_decode_time).unwrap();
            let mut from = at + usize::try_from(run.data_offset.expect("data offset")).unwrap();
            for index in 0..run.sample_count as usize {
                let or = |list: &[u32], plain: Option<u32>| {
                    list.get(index).copied().or(plain).unwrap_or(0)
                };
                let duration = i64::from(or(
                    &run.sample_durations,
                    traf.tfhd
                        .default_sample_duration
                        .or_else(|| default.map(|trex| trex.default_sample_duration)),
                ));
                let length = or(
                    &run.sample_sizes,
                    traf.tfhd
                        .default_sample_size
                        .or_else(|| default.map(|trex| trex.default_sample_size)),
                ) as usize;
                let plain = traf
                    .tfhd
                    .default_sample_flags
                    .or_else(|| default.map(|trex| trex.default_sample_flags));
                let flags = match run.first_sample_flags {
                    Some(first) if index == 0 => first,
                    _ => or(&run.sample_flags, plain),
                };
                let shift = run.sample_cts.get(index).map_or(0, |cts| cts.cast_signed());
                samples.push(Sample {
                    dts,
                    pts: dts + i64::from(shift),
                    duration,
                    is_sync: flags & 0x0001_0000 == 0,
                    data: whole[from..from + length].to_vec(),
                });
                dts += duration;
                from += length;
            }
        }
        Self {
            samples,
            fragments: at.len(),
            timescale,
        }
    }

    /// When its first sample is decoded.
    pub(crate) fn start(&self) -> i64 {
        self.samples[0].dts
    }

    /// When its last sample ends.
    pub(crate) fn end(&self) -> i64 {
        let last = self.samples.last().expect("a sample");
        last.dts + last.duration
    }

    /// When each picture is shown that is an IDR picture by its NAL units.
    pub(crate) fn idr_times(&self) -> Vec<i64> {
        let idr = self
            .samples
            .iter()
            .filter(|sample| nal_types(&sample.data).contains(&5));
        idr.map(|sample| sample.pts).collect()
    }
}

/// Where each top-level box of that type begins.
fn boxes(file: &[u8], wanted: [u8; 4]) -> Vec<usize> {
    let (mut at, mut found) = (0, Vec::new());
    while at + 8 <= file.len() {
        let size = u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        assert!(size >= 8, "a box of {size} bytes at {at}");
        if file[at + 4..at + 8] == wanted {
            found.push(at);
        }
        at += size;
    }
    assert_eq!(at, file.len(), "the last box is not whole");
    found
}

/// The types of the NAL units of an access unit with lengths of four bytes.
pub(crate) fn nal_types(unit: &[u8]) -> Vec<u8> {
    let (mut at, mut types) = (0, Vec::new());
    while at < unit.len() {
        let size = u32::from_be_bytes(unit[at..at + 4].try_into().unwrap()) as usize;
        assert!(size > 0, "an empty NAL unit");
        types.push(unit[at + 4] & 0x1f);
        at += 4 + size;
    }
    assert_eq!(at, unit.len(), "the last NAL unit is not whole");
    types
}
