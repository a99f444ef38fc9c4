//! Writes one fragment: `moof` and `mdat` around samples.
//!
//! Enters: samples of one rendition in decode order, contiguous, fewer than 2 GiB
//! Leaves: a payload whose first piece is all the boxes and whose others are the samples themselves
//! Never:  copies a sample
//! Time:   `tfdt` version 1 from the Unix epoch; signed composition offsets (`trun` version 1)
//! Spec:   [CMAF] §7.3.2, [ISOBMFF] §8.8

use bytes::Bytes;
use mp4_atom::{Encode, FourCC, Mfhd, Moof, Styp, Tfdt, Tfhd, Traf, Trun, TrunEntry, TrunSamples};

use crate::id::TrackId;
use crate::media::{Payload, Sample};
use crate::time::WallTime;

/// `sample_flags` of a sync sample: it depends on no other.
const FLAGS_SYNC: u32 = 0x0200_0000;
/// `sample_flags` of any other sample: it depends on others and is no sync sample.
const FLAGS_NON_SYNC: u32 = 0x0101_0000;
/// Bytes of a `prft` box of version 1.
const PRFT_BYTES: u32 = 32;
/// From NTP's epoch, 1900, to Unix's.
const NTP_EPOCH_SECONDS: u64 = 2_208_988_800;
/// Bytes of the `mdat` box before its body.
const MDAT_HEADER_BYTES: usize = 8;

/// What a fragment is made of.
#[derive(Clone, Copy, Debug)]
pub(in crate::package) struct Fragment<'a> {
    /// `sequence_number` of `mfhd`.
    pub(in crate::package) sequence_number: u32,
    /// Whether a segment begins with it, which the segment's `styp` then says.
    pub(in crate::package) starts_segment: bool,
    /// The wall clock at its first sample, told in `prft`; `None` tells nothing.
    pub(in crate::package) produced: Option<WallTime>,
    /// At least one.
    pub(in crate::package) samples: &'a [Sample],
}

/// The bytes of `fragment`.
pub(in crate::package) fn write_fragment(
    fragment: Fragment<'_>,
) -> Result<Payload, mp4_atom::Error> {
    let mut head = Vec::with_capacity(224 + 16 * fragment.samples.len());
    if fragment.starts_segment {
        segment_type().encode(&mut head)?;
    }
    if let Some(wall) = fragment.produced {
        write_producer_time(&mut head, wall, base_time(fragment.samples));
    }
    let start = head.len();
    let mut moof = movie_fragment(fragment);
    moof.encode(&mut head)?;
    let data_offset = head.len() - start + MDAT_HEADER_BYTES;
    head.truncate(start);
    if let Some(run) = moof.traf.first_mut().and_then(|traf| traf.trun.first_mut()) {
        run.data_offset = i32::try_from(data_offset).ok();
    }
    moof.encode(&mut head)?;

    let body: usize = fragment.samples.iter().map(|s| s.data.len()).sum();
    let mdat = u32::try_from(body + MDAT_HEADER_BYTES)
        .map_err(|_| mp4_atom::Error::TooLarge(FourCC::new(b"mdat")))?;
    head.extend_from_slice(&mdat.to_be_bytes());
    head.extend_from_slice(b"mdat");
    let samples = fragment.samples.iter().map(|sample| sample.data.clone());
    Ok(Payload::new(
        std::iter::once(Bytes::from(head)).chain(samples),
    ))
}

/// `prft` version 1, flags 0: when the first sample entered the encoder ([ISOBMFF] §8.16.5).
fn write_producer_time(out: &mut Vec<u8>, wall: WallTime, media_time: u64) {
    let micros = u64::try_from(wall.as_micros()).unwrap_or(0);
    let seconds = (micros / 1_000_000).wrapping_add(NTP_EPOCH_SECONDS) & u64::from(u32::MAX);
    // Rounded up: cutting the fraction off again to microseconds gives what went in.
    let fraction = ((micros % 1_000_000) << 32).div_ceil(1_000_000);
    out.extend_from_slice(&PRFT_BYTES.to_be_bytes());
    out.extend_from_slice(b"prft\x01\0\0\0");
    out.extend_from_slice(&TrackId::ONLY.get().get().to_be_bytes());
    out.extend_from_slice(&((seconds << 32) | fraction).to_be_bytes());
    out.extend_from_slice(&media_time.to_be_bytes());
}

fn base_time(samples: &[Sample]) -> u64 {
    let base = samples.first().map_or(0, |sample| sample.dts.get());
    u64::try_from(base).unwrap_or(0)
}

fn segment_type() -> Styp {
    Styp {
        major_brand: FourCC::new(b"msdh"),
        minor_version: 0,
        compatible_brands: [b"msdh", b"cmfs", b"cmff", b"cmfl"]
            .map(FourCC::new)
            .to_vec(),
    }
}

/// The `moof`, with a `data_offset` that has yet to be put right.
fn movie_fragment(fragment: Fragment<'_>) -> Moof {
    let samples = fragment.samples;
    let length = |sample: &Sample| u32::try_from(sample.duration.get()).ok();
    let shared_length = samples.first().and_then(length);
    let shared_length = shared_length.filter(|l| samples.iter().all(|s| length(s) == Some(*l)));
    let default_flags = match samples.last() {
        Some(last) if !last.keyframe => FLAGS_NON_SYNC,
        _ => FLAGS_SYNC,
    };
    let flags = |sample: &Sample| {
        if sample.keyframe {
            FLAGS_SYNC
        } else {
            FLAGS_NON_SYNC
        }
    };
    // The first sample may differ from the default by itself; any other that does makes all explicit.
    let explicit_flags = samples.iter().skip(1).any(|s| flags(s) != default_flags);
    let reordered = samples.iter().any(|s| s.composition_offset().get() != 0);
    let entry = |(index, sample): (usize, &Sample)| TrunEntry {
        duration: shared_length.is_none().then(|| length(sample)).flatten(),
        size: u32::try_from(sample.data.len()).ok(),
        flags: (explicit_flags || (index == 0 && flags(sample) != default_flags))
            .then(|| flags(sample)),
        cts: reordered.then(|| sample.composition_offset().get()),
    };
    Moof {
        mfhd: Mfhd {
            sequence_number: fragment.sequence_number,
        },
        traf: vec![Traf {
            tfhd: Tfhd {
                track_id: TrackId::ONLY.get().get(),
                default_sample_duration: shared_length,
                default_sample_flags: Some(default_flags),
                default_base_is_moof: true,
                ..Tfhd::default()
            },
            tfdt: Some(Tfdt {
                base_media_decode_time: base_time(samples),
            }),
            trun: vec![Trun {
                data_offset: Some(0),
                samples: TrunSamples::Explicit(samples.iter().enumerate().map(entry).collect()),
            }],
            ..Traf::default()
        }],
    }
}

#[cfg(test)]
mod tests {
    use mp4_atom::{Decode, DecodeMaybe, Header};
    use proptest::prelude::*;

    use super::*;
    use crate::time::{Span, Ticks};

    prop_compose! {
        fn samples()(
            start in 0_i64..1 << 50,
            rows in proptest::collection::vec(
                (1_u64..9_000, -9_000_i64..9_000, any::<bool>(), 0_usize..40), 1..40),
        ) -> Vec<Sample> {
            let mut at = start;
            rows.into_iter().map(|(duration, offset, keyframe, bytes)| {
                let dts = at;
                at += i64::try_from(duration).expect("small");
                Sample {
                    dts: Ticks::new(dts),
                    pts: Ticks::new(dts + offset),
                    duration: Span::new(duration),
                    keyframe,
                    data: vec![0x5a; bytes].into(),
                }
            }).collect()
        }
    }

    proptest! {
        #[test]
        fn what_is_written_parses_to_the_same_samples(
            samples in samples(), first in any::<bool>(),
            produced in proptest::option::of(0_i64..1 << 52),
        ) {
            let payload = write_fragment(Fragment {
                sequence_number: 7, starts_segment: first, samples: &samples,
                produced: produced.map(WallTime::from_micros),
            }).expect("writable");
            let bytes = payload.to_bytes();
            let mut rest = &bytes[..];
            if first {
                Styp::decode(&mut rest).expect("styp");
            }
            if let Some(micros) = produced {
                let (prft, after) = rest.split_at(32);
                rest = after;
                prop_assert_eq!(&prft[..16], b"\0\0\0\x20prft\x01\0\0\0\0\0\0\x01");
                let read = |at: usize| u64::from_be_bytes(prft[at..at + 8].try_into().expect("8"));
                // Seconds wrap every 136 years; the fraction reads back to the microsecond.
                let seconds = (u64::try_from(micros).expect("positive") / 1_000_000 + NTP_EPOCH_SECONDS)
                    % (1 << 32);
                prop_assert_eq!(read(16) >> 32, seconds);
                let fraction = read(16) & u64::from(u32::MAX);
                prop_assert_eq!((fraction * 1_000_000) >> 32, u64::try_from(micros % 1_000_000).expect("positive"));
                prop_assert_eq!(i64::try_from(read(24)).ok(), Some(samples[0].dts.get()));
            }
            let from_moof = rest.len();
            let moof = Moof::decode(&mut rest).expect("moof");
            let moof_bytes = from_moof - rest.len();
            let mdat = Header::decode_maybe(&mut rest).expect("header").expect("whole");
            prop_assert_eq!(mdat.size, Some(rest.len()));
            let traf = &moof.traf[0];
            let base = traf.tfdt.as_ref().expect("tfdt").base_media_decode_time;
            prop_assert_eq!(i64::try_from(base).ok(), Some(samples[0].dts.get()));
            let run = &traf.trun[0];
            prop_assert_eq!(run.data_offset, i32::try_from(moof_bytes + 8).ok());
            for (entry, sample) in run.samples.iter().zip(&samples) {
                let duration = entry.duration.or(traf.tfhd.default_sample_duration);
                prop_assert_eq!(duration.map(u64::from), Some(sample.duration.get()));
                let flags = entry.flags.or(traf.tfhd.default_sample_flags).expect("flags");
                prop_assert_eq!(flags == FLAGS_SYNC, sample.keyframe);
                prop_assert_eq!(entry.cts.unwrap_or(0), sample.composition_offset().get());
                prop_assert_eq!(entry.size, u32::try_from(sample.data.len()).ok());
            }
            prop_assert_eq!(run.samples.len(), samples.len());
        }
    }
}
