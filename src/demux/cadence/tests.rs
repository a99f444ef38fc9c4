use proptest::prelude::*;

use super::*;

const BASE: i64 = 161_550_000_000_000;

fn rate(num: u32, den: u32) -> FrameRate {
    FrameRate::new(num, den).expect("not zero")
}

/// A stamp as a publisher makes it: the exact time cut to milliseconds, off by `noise_ms`.
fn stamp(rate: FrameRate, n: i64, noise_ms: i64) -> i64 {
    let exact_us = i128::from(n) * i128::from(rate.den()) * 1_000_000 / i128::from(rate.num());
    BASE + (i64::try_from(exact_us / 1_000).expect("small") + noise_ms) * MS
}

/// Noise of −1, 0 or 1 that looks random and is the same every time.
fn noise(n: i64) -> i64 {
    let mixed = n.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
    i64::try_from(mixed % 3).expect("small") - 1
}

#[test]
fn an_hour_of_jitter_becomes_a_perfectly_even_cadence() {
    for (num, den) in STANDARD {
        let rate = rate(num, den);
        let mut cadence = Cadence::new();
        cadence.declare(rate);
        let mut decided = Vec::new();
        let first = stamp(rate, 0, noise(0));
        for n in 0..3_600 * i64::from(num / den) {
            let paced = cadence.push(stamp(rate, n, noise(n)), false);
            assert_eq!(paced.at - first, slot_offset(rate, n), "{rate} at {n}");
            assert_eq!(paced.missing, 0);
            decided.extend(paced.decided);
        }
        assert_eq!(decided, [rate]);
    }
}

#[test]
fn an_undeclared_rate_is_found_and_ends_on_an_even_cadence() {
    for (num, den) in STANDARD.into_iter().chain([(15, 1), (20, 1), (90, 1)]) {
        let rate = rate(num, den);
        let mut cadence = Cadence::new();
        let mut decided = Vec::new();
        let mut settled = None;
        for n in 0..2_000_i64 {
            let paced = cadence.push(stamp(rate, n, noise(n)), false);
            if let Some(rate) = paced.decided {
                decided.push((rate, n));
            }
            let ideal = BASE + slot_offset(rate, n);
            assert!(
                (paced.at - ideal).abs() <= 4 * MS,
                "{rate} at {n}: {}",
                paced.at - ideal
            );
            if n > 400 {
                let off = paced.at - ideal;
                assert!(
                    (off - *settled.get_or_insert(off)).abs() <= 1,
                    "{rate} wobbles at {n}"
                );
            }
        }
        assert_eq!(decided.last().map(|(rate, _)| *rate), Some(rate));
        assert!(
            decided[0].1 <= DECIDE_FRAMES && decided.len() <= 2,
            "{rate}: {decided:?}"
        );
    }
}

#[test]
fn a_declared_rate_that_lies_is_overruled() {
    for (claimed, true_rate) in [(25, 30), (30, 60), (60, 30), (30, 24)] {
        let mut cadence = Cadence::new();
        cadence.declare(rate(claimed, 1));
        let mut decided = Vec::new();
        for n in 0..60 {
            decided.extend(cadence.push(stamp(rate(true_rate, 1), n, 0), false).decided);
        }
        assert_eq!(decided, [rate(true_rate, 1)], "{claimed} for {true_rate}");
    }
}

#[test]
fn a_rate_that_changes_to_a_part_of_it_is_found() {
    for (before, after) in [(60, 30), (50, 25), (48, 24), (60, 20), (60, 15)] {
        for is_declared in [true, false] {
            let mut cadence = Cadence::new();
            cadence.declare(rate(before, 1));
            let count = 10 * i64::from(before);
            for n in 0..count {
                cadence.push(stamp(rate(before, 1), n, noise(n)), false);
            }
            if is_declared {
                cadence.declare(rate(after, 1));
            }
            let first = 10 * i64::from(after);
            let (mut missing, mut decided) = (0, Vec::new());
            for n in first..7 * first {
                let paced = cadence.push(stamp(rate(after, 1), n, noise(n)), false);
                missing += paced.missing;
                decided.extend(paced.decided);
            }
            assert_eq!(decided, [rate(after, 1)], "{before}, {is_declared}");
            let most = CHANGE_FRAMES.unsigned_abs() * u64::from(before / after);
            assert!(missing <= if is_declared { 0 } else { most }, "{missing}");
        }
    }
}

#[test]
fn every_other_picture_missing_for_a_while_is_not_another_rate() {
    let rate = rate(60, 1);
    let mut cadence = Cadence::new();
    cadence.declare(rate);
    let mut missing = 0;
    for n in (0..6_000).filter(|n| n % 100 < 40 || n % 2 == 0) {
        let paced = cadence.push(stamp(rate, n, noise(n)), false);
        missing += paced.missing;
        assert_eq!(paced.at - stamp(rate, 0, noise(0)), slot_offset(rate, n));
    }
    // After the last one nothing comes.
    assert_eq!(missing, 60 * 30 - 1);
}

#[test]
fn a_header_that_goes_on_lying_takes_nothing_away() {
    let (claimed, true_rate) = (rate(25, 1), rate(30, 1));
    let mut cadence = Cadence::new();
    for n in 0..900 {
        if n % 100 == 0 {
            cadence.declare(claimed);
        }
        let paced = cadence.push(stamp(true_rate, n, noise(n)), false);
        let off = paced.at - BASE - slot_offset(true_rate, n);
        assert!(off.abs() <= 4 * MS, "{n}: {off}");
        assert_eq!(paced.decided, (n == DECIDE_FRAMES).then_some(true_rate));
    }
}

#[test]
fn missing_frames_are_followed_at_once() {
    let rate = rate(30, 1);
    let mut cadence = Cadence::new();
    cadence.declare(rate);
    for n in (0..50).chain(57..100) {
        let paced = cadence.push(stamp(rate, n, noise(n)), false);
        assert_eq!(paced.missing, if n == 57 { 7 } else { 0 });
        assert_eq!(paced.at - stamp(rate, 0, noise(0)), slot_offset(rate, n));
    }
}

#[test]
fn a_slow_clock_is_followed_without_a_jump() {
    for ppm in [-150_i64, 150] {
        let rate = rate(30, 1);
        let mut cadence = Cadence::new();
        cadence.declare(rate);
        let mut last = None;
        for n in 0..108_000_i64 {
            let exact_us = n * 1_000_000 / 30;
            let stamp = BASE + (exact_us + exact_us * ppm / 1_000_000) / 1_000 * MS;
            let paced = cadence.push(stamp, false);
            assert!(
                (paced.at - stamp).abs() <= 5 * MS,
                "{n}: {}",
                paced.at - stamp
            );
            if let Some(last) = last {
                assert!((2_999..=3_001).contains(&(paced.at - last)), "{n}");
            }
            last = Some(paced.at);
        }
    }
}

#[test]
fn variable_frame_rate_keeps_its_stamps() {
    let mut cadence = Cadence::new();
    let mut at = BASE;
    let mut decided = 0;
    for n in 0..300_i64 {
        at += (20 + n * 37 % 41) * MS;
        let paced = cadence.push(at, false);
        assert_eq!(paced.at, at);
        decided += usize::from(paced.decided.is_some());
    }
    assert_eq!(decided, 1);
}

#[test]
fn composition_offsets_become_whole_frames() {
    let rate = rate(30_000, 1_001);
    let mut cadence = Cadence::new();
    cadence.declare(rate);
    let mut shown = Vec::new();
    // decode order I P B B, shown two frames later
    for n in 0..400_i64 {
        let frames = [1, 3, 0, 0][usize::try_from(n % 4).expect("small")];
        let paced = cadence.push(stamp(rate, n, noise(n)), false);
        let cts_ms = (frames * 1_001 + 15) / 30;
        shown.push(paced.at + cadence.composition_offset(cts_ms * MS));
    }
    shown.sort_unstable();
    for pair in shown.windows(2).skip(4) {
        assert!(
            pair[1] - pair[0] == 0 || pair[1] - pair[0] >= 3_002,
            "{pair:?}"
        );
    }
}

#[test]
fn numbers_of_metadata_snap_to_the_rates_they_mean() {
    for (millihertz, num, den) in [
        (29_970, 30_000, 1_001),
        (29_971, 30_000, 1_001),
        (23_976, 24_000, 1_001),
        (59_940, 60_000, 1_001),
        (30_000, 30, 1),
        (15_000, 15, 1),
        (12_500, 12_500, 1_000),
    ] {
        assert_eq!(snap_millihertz(millihertz), Some(rate(num, den)));
    }
    assert_eq!(snap_millihertz(0), None);
}

/// Rates that a publisher may change between, whose stamps do not allow two of them for seconds.
const CHANGES: [u32; 8] = [60, 50, 48, 30, 25, 24, 20, 15];

proptest! {
    /// Whatever a publisher changes between, and whether it says so or not.
    #[test]
    fn a_rate_that_changes_is_found_within_some_seconds(stretches in proptest::collection::vec((0..CHANGES.len(), any::<bool>(), 8_i64..14), 1..8)) {
        let mut cadence = Cadence::new();
        let (mut begin, mut announced) = (0, None);
        for (which, declares, seconds) in stretches {
            let rate = rate(CHANGES[which], 1);
            if declares {
                cadence.declare(rate);
            }
            let count = seconds * i64::from(rate.num());
            for n in 0..count {
                let at = begin + stamp(rate, n, noise(n));
                let paced = cadence.push(at, false);
                announced = paced.decided.or(announced);
                if n > count - 2 * i64::from(rate.num()) {
                    prop_assert_eq!(announced, Some(rate));
                    prop_assert_eq!(paced.missing, 0);
                    prop_assert!((paced.at - at).abs() <= 5 * MS);
                }
            }
            begin += seconds * 90_000;
        }
    }

    #[test]
    fn positions_always_increase(stamps in proptest::collection::vec((-1_i64 << 40..1 << 40, any::<bool>()), 1..80), declared in 0_u32..200_000) {
        let mut cadence = Cadence::new();
        if let Some(rate) = snap_millihertz(declared) {
            cadence.declare(rate);
        }
        let mut last = i64::MIN;
        for (stamp, moved) in stamps {
            let paced = cadence.push(stamp, moved);
            prop_assert!(paced.at > last && paced.duration > 0);
            let _ = cadence.composition_offset(stamp);
            last = paced.at;
        }
    }
}
