use proptest::prelude::*;

use super::*;

/// x265 Main, 322x182, 29.97 fps, BT.709, pixels of 4:3.
const MAIN: &str = "0101600000009000000000003cf000fcfdf8f800000f03a00001001840010c01ffff01600000030090000003000003003c959809a10001002c42010101600000030090000003000003003ca00a480b9c9596566924caf0e6a020203c2000007d20000ea601a2000100074401c172b46240";
/// x265 Main 10, high tier, 640x360, 30 fps, BT.2020 with PQ in full range.
const MAIN_10: &str = "01222000000090000000000096f000fcfdfafa00000f03a00001001840010c01ffff222000000300900000030000030096959809a10001002d420101222000000300900000030000030096a005020169365959a4932bc05b848804f080000003008000000f04a2000100074401c172b46240";
/// x265 range extensions 4:4:4, 320x180, fields.
const MAIN_444: &str = "0104080000004e08000000003cf000fcfff8f800000f03a00001001740010c01ffff0408000003004e0800000300003c959409a10001002b4201010408000003004e0800000300003c9001410183e372caca949c2f016868000003000800000300c840a2000100084401c07318301890";
/// x265 Main with a temporal layer more, 1280x720.
const LAYERS: &str = "0101600000009000000000005df000fcfdf8f800001303a00001001c40010c02ffff01600000030090000003000003005d00009594aca048a10001002f42010201600000030090000003000003005d0000a00280802d1659594aca94985e02d3840000030004000003007820a2000100064401c073c189";

fn bytes(hex: &str) -> Bytes {
    (0..hex.len() / 2)
        .map(|i| hex.get(2 * i..2 * i + 2).expect("even"))
        .map(|pair| u8::from_str_radix(pair, 16).expect("hex"))
        .collect()
}

fn parsed(hex: &str) -> Config {
    Config::parse_hvcc(bytes(hex)).expect("valid")
}

#[test]
fn real_records_say_what_their_encoders_were_told() {
    for (hex, profile, tier_level, depth, size, rate) in [
        (MAIN, 1, (false, 60), 8, (322, 182), (30_000, 1_001)),
        (MAIN_10, 2, (true, 150), 10, (640, 360), (30, 1)),
        (MAIN_444, 4, (false, 60), 8, (320, 180), (25, 1)),
        (LAYERS, 1, (false, 93), 8, (1_280, 720), (30, 1)),
    ] {
        let config = parsed(hex);
        assert_eq!(
            (config.profile_space, config.profile),
            (0, profile),
            "{hex}"
        );
        assert_eq!((config.high_tier, config.level), tier_level, "{hex}");
        assert_eq!(config.bit_depth, depth, "{hex}");
        let found = (config.dimensions.width, config.dimensions.height);
        assert_eq!(found, size, "{hex}");
        assert_eq!(
            config.declared_rate,
            FrameRate::new(rate.0, rate.1),
            "{hex}"
        );
        assert_eq!(config.hvcc, bytes(hex), "nothing to be completed");
    }
    let config = parsed(MAIN);
    let colour = |primaries, transfer, matrix, full_range| Colour {
        primaries,
        transfer,
        matrix,
        full_range,
    };
    assert_eq!(config.colour, colour(1, 1, 1, false));
    assert_eq!(
        config.pixel_aspect.width.get() * 3,
        config.pixel_aspect.height.get() * 4
    );
    assert_eq!(parsed(MAIN_10).colour, colour(9, 16, 9, true));
    assert_eq!(parsed(LAYERS).pixel_aspect, PixelAspect::SQUARE);
}

#[test]
fn a_record_is_made_to_say_what_hvc1_wants() {
    let mut loose = bytes(MAIN).to_vec();
    let whole = loose.clone();
    loose[21] &= !0b11;
    for (at, byte) in whole.iter().enumerate() {
        if matches!(byte, 0xA0..=0xA2) && loose[at + 1..].starts_with(&[0, 1, 0]) {
            loose[at] &= !ARRAY_COMPLETENESS;
        }
    }
    assert_eq!(length_size(&loose), Ok(LengthSize::One));
    assert_ne!(loose, whole);
    let config = Config::parse_hvcc(loose.into()).expect("valid");
    assert_eq!(config, parsed(MAIN));
}

#[test]
fn every_cut_of_a_record_is_refused_or_read_but_never_panics() {
    let whole = bytes(LAYERS);
    for end in 0..whole.len() {
        assert!(Config::parse_hvcc(whole.slice(..end)).is_err(), "{end}");
    }
    assert_eq!(
        Config::parse_hvcc(whole.slice(..40)),
        Err(Error::Cut { length: 40 })
    );
    let mut other = whole.to_vec();
    other[0] = 0;
    assert_eq!(length_size(&other), Err(Error::Version { found: 0 }));
    other[0] = 1;
    other[22] = 1; // the VPS alone
    assert_eq!(Config::parse_hvcc(other.into()), Err(Error::NoSps));
}

/// Bits, the first of them highest.
#[derive(Default)]
struct Bits(Vec<bool>);

impl Bits {
    fn put(&mut self, value: u64, count: u32) -> &mut Self {
        self.0.extend((0..count).rev().map(|i| value >> i & 1 == 1));
        self
    }

    fn ue(&mut self, value: u64) -> &mut Self {
        let length = (value + 1).ilog2();
        self.put(0, length).put(value + 1, length + 1)
    }

    fn se(&mut self, value: i64) -> &mut Self {
        let code = if value > 0 { 2 * value - 1 } else { -2 * value };
        self.ue(code.unsigned_abs())
    }

    /// An SPS of these bits, with emulation prevention.
    fn nal(&self) -> Vec<u8> {
        let byte = |bits: &[bool]| {
            let set = bits.iter().enumerate().filter(|(_, bit)| **bit);
            set.map(|(i, _)| 0x80 >> i).sum::<u8>()
        };
        let mut out = vec![0x42, 0x01];
        let mut zeros = 0;
        for byte in self.0.chunks(8).map(byte).chain([0x80]) {
            if zeros >= 2 && byte <= 3 {
                out.push(3);
                zeros = 0;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            out.push(byte);
        }
        out
    }
}

/// A set of reference pictures as it is written: explicit, or by what it keeps of the one before it.
#[derive(Clone, Debug)]
enum Written {
    Explicit(Vec<(u64, bool)>, Vec<(u64, bool)>),
    Predicted(bool, u64, Vec<(bool, bool)>),
}

/// An SPS with everything in it that is passed over, before a VUI that declares 25 fps.
fn crowded(sets: &[Written]) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.put(0, 4).put(2, 3).put(1, 1);
    bits.put(0x0160_0000, 40)
        .put(0x9000_0000_0000, 48)
        .put(93, 8);
    bits.put(0b1101, 4).put(0, 12); // two sub-layers: profile and level, level alone
    bits.put(u64::MAX, 44).put(0, 44).put(90, 8).put(60, 8);
    bits.ue(0).ue(1).ue(1_920).ue(1_088).put(1, 1);
    bits.ue(0).ue(0).ue(0).ue(4); // four rows of chroma below
    bits.ue(0).ue(0).ue(4).put(0, 1).ue(4).ue(2).ue(0); // sub-layers share their orders
    for size in [0, 3, 0, 3, 1, 1] {
        bits.ue(size);
    }
    bits.put(0b11, 2); // scaling lists are there
    for (size, count) in [(0, 6), (1, 6), (2, 6), (3, 2)] {
        for list in 0..count {
            if list == 0 {
                bits.put(0, 1).ue(0);
                continue;
            }
            bits.put(1, 1);
            if size > 1 {
                bits.se(-7);
            }
            for n in 0..64.min(1 << (4 + 2 * size)) {
                bits.se(n % 5 - 2);
            }
        }
    }
    bits.put(0b11, 2)
        .put(1, 1)
        .put(0x77, 8)
        .ue(0)
        .ue(2)
        .put(0, 1); // PCM
    bits.ue(sets.len() as u64);
    for (index, set) in sets.iter().enumerate() {
        match set {
            Written::Explicit(before, after) => {
                if index > 0 {
                    bits.put(0, 1);
                }
                bits.ue(before.len() as u64).ue(after.len() as u64);
                for (distance, used) in before.iter().chain(after) {
                    bits.ue(*distance).put(u64::from(*used), 1);
                }
            }
            Written::Predicted(back, distance, kept) => {
                bits.put(1, 1).put(u64::from(*back), 1).ue(*distance);
                for (used, kept) in kept {
                    bits.put(u64::from(*used), 1);
                    if !used {
                        bits.put(u64::from(*kept), 1);
                    }
                }
            }
        }
    }
    bits.put(1, 1).ue(2).put(0x55, 9).put(0xAA, 9); // long-term pictures, orders of eight bits
    bits.put(0b11, 2).put(1, 1);
    bits.put(1, 1).put(255, 8).put(8, 16).put(9, 16); // pixels of 8:9
    bits.put(0b11, 2).put(1, 1).put(0b10110, 5); // overscan; full range, colour not described
    bits.put(1, 1).ue(1).ue(1).put(0b010, 3); // fields
    bits.put(1, 1).ue(0).ue(0).ue(0).ue(0);
    bits.put(1, 1).put(1, 32).put(25, 32);
    bits.nal()
}

fn check_crowded(sets: &[Written]) {
    let sps = sps::Sps::parse(&crowded(sets)).expect("valid");
    assert_eq!(
        (sps.dimensions.width, sps.dimensions.height),
        (1_920, 1_080)
    );
    let aspect = (sps.pixel_aspect.width.get(), sps.pixel_aspect.height.get());
    assert_eq!(aspect, (8, 9));
    assert_eq!((sps.colour.primaries, sps.colour.full_range), (2, true));
    assert_eq!(sps.declared_rate, FrameRate::new(25, 1), "{sets:?}");
}

/// How many pictures a set that is written so has, and where they lie: an implementation after the letter of
/// equations 7-61 and 7-62.
fn positions(set: &Written, from: &(Vec<i64>, Vec<i64>)) -> (Vec<i64>, Vec<i64>) {
    let (back, distance, kept) = match set {
        Written::Explicit(before, after) => {
            let sum = |row: &[(u64, bool)], sign: i64| {
                let mut at = 0;
                let step = |(distance, _): &(u64, bool)| {
                    at += sign * (i64::try_from(*distance).expect("small") + 1);
                    at
                };
                row.iter().map(step).collect::<Vec<_>>()
            };
            return (sum(before, -1), sum(after, 1));
        }
        Written::Predicted(back, distance, kept) => (back, distance, kept),
    };
    let sign = if *back { -1 } else { 1 };
    let delta = sign * (i64::try_from(*distance).expect("small") + 1);
    let keeps = |at: usize| kept[at].0 || kept[at].1;
    let (s0, s1) = from;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for j in (0..s1.len()).rev() {
        let moved = s1[j] + delta;
        if moved < 0 && keeps(s0.len() + j) {
            before.push(moved);
        }
    }
    if delta < 0 && keeps(s0.len() + s1.len()) {
        before.push(delta);
    }
    for (j, at) in s0.iter().enumerate() {
        if at + delta < 0 && keeps(j) {
            before.push(at + delta);
        }
    }
    for j in (0..s0.len()).rev() {
        if s0[j] + delta > 0 && keeps(j) {
            after.push(s0[j] + delta);
        }
    }
    if delta > 0 && keeps(s0.len() + s1.len()) {
        after.push(delta);
    }
    for (j, at) in s1.iter().enumerate() {
        if at + delta > 0 && keeps(s0.len() + j) {
            after.push(at + delta);
        }
    }
    (before, after)
}

#[test]
fn an_sps_with_everything_in_it_is_read_to_its_rate() {
    check_crowded(&[]);
    check_crowded(&[Written::Explicit(
        vec![(0, true), (2, false)],
        vec![(3, true)],
    )]);
    let kept = vec![(false, true), (false, false), (true, true), (false, true)];
    check_crowded(&[
        Written::Explicit(vec![(0, true), (2, false)], vec![(3, true)]),
        Written::Predicted(false, 0, kept),
        Written::Explicit(vec![], vec![]),
    ]);
}

#[test]
fn values_out_of_range_are_named() {
    let far = vec![(0, true); 17];
    assert_eq!(
        sps::Sps::parse(&crowded(&[Written::Explicit(far, vec![])])),
        Err(Error::SpsField {
            field: "num_negative_pics",
            found: 17
        })
    );
    let mut bits = Bits::default();
    bits.put(0, 4).put(0, 3).put(1, 1).put(0, 40).put(0, 56);
    bits.ue(0).ue(1).ue(20_000).ue(1_080);
    assert_eq!(
        sps::Sps::parse(&bits.nal()),
        Err(Error::SpsField {
            field: "pic_width_in_luma_samples",
            found: 20_000
        })
    );
    assert_eq!(
        sps::Sps::parse(&[0x40, 1, 0]),
        Err(Error::NotSps { found: 32 })
    );
}

/// An access unit of one NAL unit of `kind`, whose slice header begins with `head`.
fn unit(kind: u8, head: u8) -> Vec<u8> {
    vec![0, 0, 0, 4, kind << 1, 1, head, 0x80]
}

#[test]
fn decoding_begins_with_a_picture_of_random_access_alone() {
    for (kind, expected) in [
        (0, false),
        (1, false),
        (6, false),
        (9, false),
        (16, true),
        (18, true),
        (19, true),
        (20, true),
        (21, true),
    ] {
        let data = unit(kind, 0x80);
        assert!(contains_picture(&data), "{kind}");
        assert_eq!(contains_random_access(&data), expected, "{kind}");
    }
    for kind in [22, 32, 33, 34, 35, 39, 40] {
        assert!(!contains_picture(&unit(kind, 0x80)), "{kind}");
    }
    let second_view = [0, 0, 0, 4, 19 << 1, 9, 0x80, 0x80];
    assert!(!contains_picture(&second_view));
    assert!(!contains_picture(&[0, 0, 0, 1, 0x26]));
    assert!(!contains_picture(&[0, 0, 0, 90, 0x26, 1]));
}

#[test]
fn a_picture_is_told_by_the_head_of_its_first_slice() {
    // first_slice_segment_in_pic_flag, slice_pic_parameter_set_id 0, slice_type 0: 1, 1: 010, 2: 011
    for (kind, head, is_idr, slice, skips) in [
        (19, 0b1000_0000, true, Slice::Intra, false),
        (21, 0b1000_0000, false, Slice::Intra, false),
        (1, 0b1110_0000, false, Slice::Bipredicted, false),
        (1, 0b1101_0000, false, Slice::Predicted, false),
        (1, 0b1101_1000, false, Slice::Intra, false),
        (8, 0b1110_0000, false, Slice::Bipredicted, true),
        (6, 0b1110_0000, false, Slice::Bipredicted, false),
    ] {
        let expected = Picture {
            is_idr,
            slice,
            recovers: false,
            skips,
        };
        assert_eq!(picture(&unit(kind, head)), Some(expected), "{kind}");
    }
    assert_eq!(picture(&unit(1, 0)), None, "a later slice of a picture");
    assert_eq!(picture(&unit(39, 0x80)), None, "no picture");
}

fn row() -> impl Strategy<Value = Vec<(u64, bool)>> {
    prop::collection::vec((0_u64..9, any::<bool>()), 0..5)
}

fn sets() -> impl Strategy<Value = Vec<Written>> {
    let predicted = (any::<bool>(), 0_u64..9, any::<[(bool, bool); 32]>());
    let one = (row(), row(), prop::option::of(predicted));
    prop::collection::vec(one, 1..6).prop_map(|written| {
        let mut last = (Vec::new(), Vec::new());
        let mut sets = Vec::new();
        for (before, after, predicted) in written {
            let set = match predicted {
                Some((back, distance, kept)) if !sets.is_empty() => {
                    let pictures = last.0.len() + last.1.len();
                    Written::Predicted(back, distance, kept[..=pictures].to_vec())
                }
                _ => Written::Explicit(before, after),
            };
            last = positions(&set, &last);
            sets.push(set);
        }
        sets
    })
}

proptest! {
    #[test]
    fn any_row_of_reference_sets_is_passed_over_to_the_bit(sets in sets()) {
        check_crowded(&sets);
    }

    #[test]
    fn random_bytes_never_panic(data in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = Config::parse_hvcc(data.clone().into());
        let _ = picture(&data);
        let _ = contains_random_access(&data);
        let mut nal = vec![0x42, 1];
        nal.extend(data);
        let _ = sps::Sps::parse(&nal);
    }

    #[test]
    fn a_flipped_bit_never_panics(at in 0_usize..920, record in 0_usize..4) {
        let mut record = bytes([MAIN, MAIN_10, MAIN_444, LAYERS][record]).to_vec();
        let byte = (at / 8).min(record.len() - 1);
        record[byte] ^= 1 << (at % 8);
        let _ = Config::parse_hvcc(record.into());
    }
}
