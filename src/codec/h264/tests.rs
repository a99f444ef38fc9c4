use proptest::prelude::*;

use super::*;

/// x264 High, 1280x720, 30 fps.
const FILM: &str =
    "0164001fffe1001a6764001facd9805005bb0110000003001000000303c0f18319a001000568e97b2c8bfdf8f800";
/// x264 Constrained Baseline, 320x180, 29.97 fps, BT.709, pixels of 3:4.
const BASELINE: &str =
    "0142c00dffe1001e6742c00dda05067e7ffc000c0011a808080a000007d20001d4c01e28554001000468ce0fc8";
/// x264 High 4:2:2 with 10 bits, interlaced, 320x180, 25 fps.
const HIGH_422: &str = "017a0015ffe1001a677a0015b6cd941433f3e022000003000200000300643e28532c01000768fba3cb3002c0fefafa00";
/// OpenH264 Constrained Baseline, 322x182.
const OPENH264: &str = "0142c00dffe100106742c00d8c8d40a8cb113403c2211a8001000468ce3c80";

fn bytes(hex: &str) -> Bytes {
    (0..hex.len() / 2)
        .map(|i| hex.get(2 * i..2 * i + 2).expect("even"))
        .map(|pair| u8::from_str_radix(pair, 16).expect("hex"))
        .collect()
}

fn parsed(hex: &str) -> Config {
    Config::parse_avcc(bytes(hex)).expect("valid")
}

#[test]
fn real_records_say_what_their_encoders_were_told() {
    for (hex, profile, level, width, height, rate) in [
        (FILM, 100, 31, 1280, 720, FrameRate::new(30, 1)),
        (BASELINE, 66, 13, 320, 180, FrameRate::new(30_000, 1_001)),
        (HIGH_422, 122, 21, 320, 180, FrameRate::new(25, 1)),
        (OPENH264, 66, 13, 322, 182, None),
    ] {
        let config = parsed(hex);
        assert_eq!((config.profile, config.level), (profile, level), "{hex}");
        assert_eq!(config.dimensions, Dimensions { width, height }, "{hex}");
        assert_eq!(config.declared_rate, rate, "{hex}");
        assert_eq!(config.may_have_fields(), hex == HIGH_422, "{hex}");
    }
    let config = parsed(BASELINE);
    assert_eq!(
        config.colour,
        Colour {
            primaries: 1,
            transfer: 1,
            matrix: 1,
            full_range: false
        }
    );
    assert_eq!(
        config.pixel_aspect.width.get() * 4,
        config.pixel_aspect.height.get() * 3
    );
}

#[test]
fn a_record_is_rebuilt_from_its_parameter_sets() {
    for hex in [FILM, BASELINE, HIGH_422, OPENH264] {
        let config = parsed(hex);
        let sets = config.parameter_sets().expect("valid");
        let again = Config::from_parameter_sets(&sets.sps, &sets.pps).expect("valid");
        assert_eq!(again, config);
    }
}

#[test]
fn every_cut_of_a_record_is_refused_or_read_but_never_panics() {
    let whole = bytes(FILM);
    for end in 0..whole.len() {
        let _ = Config::parse_avcc(whole.slice(..end));
    }
    assert_eq!(
        Config::parse_avcc(whole.slice(..20)),
        Err(Error::Cut { length: 20 })
    );
}

#[test]
fn shorter_lengths_are_told_and_the_record_is_made_to_say_four() {
    for (byte, size) in [
        (0xFC, Ok(LengthSize::One)),
        (0xFD, Ok(LengthSize::Two)),
        (0xFE, Err(Error::LengthSize)),
        (0xFF, Ok(LengthSize::Four)),
    ] {
        let mut record = bytes(FILM).to_vec();
        record[4] = byte;
        assert_eq!(length_size(&record), size);
        match Config::parse_avcc(record.into()) {
            Ok(config) => assert_eq!(config, parsed(FILM)),
            Err(error) => assert_eq!(Err(error), size),
        }
    }
}

#[test]
fn scaling_lists_and_cropping_of_444_are_read() {
    // profile 244, id 0, chroma 3, planes 0, depths 8, bypass 0, matrix 1, list 0: one delta of -8 that
    // ends it, 11 absent; frame num 4, order type 2, 1 reference; 2x2 macroblocks, frames only; crop 1 right.
    let text = concat!(
        "01100111",
        "11110100",
        "00000000",
        "00011110",
        "1",
        "00100",
        "0",
        "1",
        "1",
        "0",
        "1",
        "1",
        "000010001",
        "00000000000",
        "1",
        "011",
        "010",
        "0",
        "010",
        "010",
        "1",
        "1",
        "1",
        "1",
        "010",
        "1",
        "1",
        "0",
        "1"
    );
    let mut sps = Vec::new();
    for (i, bit) in text.bytes().enumerate() {
        if i % 8 == 0 {
            sps.push(0);
        }
        if bit == b'1' {
            sps[i / 8] |= 0x80 >> (i % 8);
        }
    }
    let config = Config::from_parameter_sets(&[sps.into()], &[]).expect("valid");
    assert_eq!(
        config.dimensions,
        Dimensions {
            width: 31,
            height: 32
        }
    );
    assert_eq!(config.pixel_aspect, PixelAspect::SQUARE);
    assert_eq!(config.colour, Colour::UNSPECIFIED);
}

#[test]
fn only_an_idr_is_a_key_frame() {
    let idr = [0, 0, 0, 2, 9, 0x10, 0, 0, 0, 2, 0x65, 0x88];
    let recovery = [0, 0, 0, 5, 6, 6, 1, 0xC4, 0x80, 0, 0, 0, 2, 0x41, 0x9A];
    assert!(contains_idr(&idr) && contains_picture(&idr));
    assert!(!contains_recovery_point(&idr));
    assert!(!contains_idr(&recovery) && contains_picture(&recovery));
    assert!(contains_recovery_point(&recovery));
    assert!(!contains_picture(&[0, 0, 0, 2, 9, 0x10]));
    assert!(!contains_idr(&[0, 0, 0, 90, 0x65]));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..90)) {
        let _ = Config::parse_avcc(data.clone().into());
        let _ = Config::from_parameter_sets(&[data.clone().into()], &[]);
        let _ = contains_recovery_point(&data);
        let mut sps = vec![0x67, 100, 0, 31];
        sps.extend(data);
        let _ = Config::from_parameter_sets(&[sps.into()], &[]);
    }

    #[test]
    fn a_flipped_bit_never_panics(at in 0_usize..368, record in 0_usize..3) {
        let mut record = bytes([FILM, BASELINE, HIGH_422][record]).to_vec();
        let byte = (at / 8).min(record.len() - 1);
        record[byte] ^= 1 << (at % 8);
        let _ = Config::parse_avcc(record.into());
    }
}

#[test]
fn a_picture_is_told_by_the_head_of_its_first_slice() {
    // first_mb_in_slice 0 is the bit 1; slice_type 7 is 0001000, 5 is 00110, 6 is 00111, 0 is 1, 1 is 010
    for (data, is_idr, slice, recovers) in [
        (
            &[0, 0, 0, 3, 0x65, 0b1000_1000, 0x80][..],
            true,
            Slice::Intra,
            false,
        ),
        (
            &[0, 0, 0, 2, 0x41, 0b1001_1000],
            false,
            Slice::Predicted,
            false,
        ),
        (
            &[0, 0, 0, 2, 0x41, 0b1100_0000],
            false,
            Slice::Predicted,
            false,
        ),
        (
            &[0, 0, 0, 2, 0x01, 0b1001_1100],
            false,
            Slice::Bipredicted,
            false,
        ),
        (
            &[0, 0, 0, 2, 0x01, 0b1010_0000],
            false,
            Slice::Bipredicted,
            false,
        ),
        (
            &[
                0,
                0,
                0,
                5,
                6,
                6,
                1,
                0xC4,
                0x80,
                0,
                0,
                0,
                3,
                0x41,
                0b1000_1000,
                0x80,
            ],
            false,
            Slice::Intra,
            true,
        ),
    ] {
        let expected = Picture {
            is_idr,
            slice,
            recovers,
            skips: false,
        };
        assert_eq!(picture(data), Some(expected), "{data:02x?}");
    }
    assert_eq!(picture(&[0, 0, 0, 1, 0x65]), None, "cut");
    assert_eq!(picture(&[0, 0, 0, 2, 9, 0x10]), None, "no picture");
}
