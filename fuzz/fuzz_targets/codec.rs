//! Feeds bytes to every parser of codec configurations; what parses must be written back the same.
//!
//! Enters: a byte that chooses the parser, and its input
//! Leaves: nothing, or a crash
//! Never:  network
//! Spec:   [NALFF] §5.3.3.1, [AAC] §1.6.2.1, [NALFF] §8.3.3.1, [AV1ISOBMFF] §2.3.3, [VP9MP4], [OPUSMP4]

#![no_main]

use bytes::Bytes;
use headwater::codec::annexb::{self, LengthPrefixed, LengthSize};
use headwater::codec::video::Dimensions;
use headwater::codec::{aac, av1, h264, hevc, opus, vp9};
use headwater::time::FrameRate;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((parser, data)) = data.split_first() else {
        return;
    };
    let bytes = Bytes::copy_from_slice(data);
    match parser % 10 {
        0 => {
            if let Ok(config) = h264::Config::parse_avcc(bytes) {
                let sets = config.parameter_sets().expect("was just parsed");
                let again =
                    h264::Config::from_parameter_sets(&sets.sps, &sets.pps).expect("same sets");
                assert_eq!(again.dimensions, config.dimensions);
                assert_eq!(again.parameter_sets(), Ok(sets));
            }
        }
        1 => {
            let _ = h264::Config::from_parameter_sets(&[bytes], &[]);
        }
        2 => {
            let _ = aac::Config::parse_asc(bytes);
        }
        3 => {
            if let Ok(config) = opus::Config::parse_dops(data) {
                assert_eq!(config.write_dops()[..], data[..11]);
            }
            if let Ok(config) = opus::Config::parse_head(data) {
                assert_eq!(opus::Config::parse_head(&config.write_head()), Ok(config));
            }
            let samples = opus::packet_samples(data);
            assert!(samples.is_none_or(|samples| (120..=5_760).contains(&samples)));
        }
        4 => {
            let size = Dimensions {
                width: 2,
                height: 2,
            };
            if let Ok(config) = vp9::Config::parse_vpcc(data, size) {
                assert_eq!(
                    vp9::Config::parse_vpcc(&config.write_vpcc(), size),
                    Ok(config)
                );
            }
            if let Some(rate) = FrameRate::new(30, 1) {
                if vp9::Config::parse_key_frame(data, rate).is_ok() {
                    assert!(vp9::is_key_frame(data));
                }
            }
        }
        5 => {
            if let Ok(config) = av1::Config::from_temporal_unit(data) {
                assert_eq!(av1::Config::parse_av1c(config.av1c.clone()), Ok(config));
            }
            let _ = av1::Config::parse_av1c(bytes);
        }
        6 => {
            if let Ok(stripped) = av1::strip_temporal_delimiters(&bytes) {
                assert_eq!(av1::contains_frame(data), av1::contains_frame(&stripped));
                assert_eq!(av1::strip_temporal_delimiters(&stripped), Ok(stripped));
            }
            assert!(!av1::begins_with_key_frame(data) || av1::contains_frame(data));
        }
        7 => {
            if let Ok(config) = hevc::Config::parse_hvcc(bytes) {
                assert_eq!(config.hvcc.len(), data.len());
                assert_eq!(hevc::length_size(&config.hvcc), Ok(LengthSize::Four));
                assert_eq!(hevc::Config::parse_hvcc(config.hvcc.clone()), Ok(config));
            }
        }
        8 => {
            if let (Some((head, rest)), Some(rate)) =
                (data.split_first_chunk::<8>(), FrameRate::new(30, 1))
            {
                let _ = vp9::Config::of_stream(head, rest, rate);
            }
        }
        _ => {
            let joined = annexb::to_length_prefixed(data);
            assert!(LengthPrefixed::new(&joined, LengthSize::Four).all(|nal| nal.is_ok()));
            let _ = h264::contains_idr(data);
            let _ = h264::contains_recovery_point(data);
            assert!(!hevc::contains_random_access(data) || hevc::contains_picture(data));
            let _ = hevc::picture(data);
            let _ = annexb::unescape(data);
        }
    }
});
