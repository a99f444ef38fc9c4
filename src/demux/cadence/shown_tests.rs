//! Decode stamps that are wrong while presentation is right, and the other way round.
//!
//! Enters: stamps as encoders and muxers spoil them
//! Leaves: a failure for each picture that is not shown at its time
//! Never:  samples
//! Time:   milliseconds as publishers send them, 90 kHz ticks
//! Spec:   none

use super::*;

const FRAMES: i64 = 3_000;
/// When a rate has been found, or was given up.
const SETTLED: i64 = 40;

/// The decode stamp of a picture, in milliseconds.
type Stamp = fn(i64) -> i64;

fn ms(frame: i64) -> i64 {
    frame * 100 / 3
}

/// When pictures at 30 per second are shown whose decode and presentation stamps are `stamps` milliseconds.
fn shown(is_declared: bool, stamps: impl Fn(i64) -> (i64, i64)) -> Vec<i64> {
    let mut cadence = Cadence::new();
    if is_declared {
        cadence.declare(FrameRate::new(30, 1).expect("not zero"));
    }
    let show = |n| {
        let (decoded, presented) = stamps(n);
        let paced = cadence.push(decoded * MS, false);
        paced.at + cadence.composition_offset((presented - decoded) * MS)
    };
    (0..FRAMES).map(show).collect()
}

/// Asserts that each picture is shown within `within` milliseconds of `right`.
fn assert_right(shown: &[i64], within: i64, right: impl Fn(i64) -> i64, what: &str) {
    for (n, at) in (0_i64..)
        .zip(shown)
        .skip(usize::try_from(SETTLED).expect("small"))
    {
        let off = at - right(n) * MS;
        assert!(off.abs() <= within * MS, "{what}: {n} is off by {off}");
    }
}

#[test]
fn presentation_is_right_whatever_befalls_decode_stamps() {
    // Decode stamps in pairs, once the rate is known or from the start; one in ten far back; clipped at zero.
    let wrong: [(&str, Stamp); 4] = [
        ("pairs later", |n| ms(if n < 100 { n } else { n - n % 2 })),
        ("pairs", |n| ms(n - n % 2)),
        ("back", |n| ms(n) - if n % 10 == 9 { 100 } else { 0 }),
        ("clipped", |n| ms((n - 3).max(0))),
    ];
    for (what, decoded) in wrong {
        for is_declared in [true, false] {
            let all = shown(is_declared, |n| (decoded(n), ms(n) + 100));
            assert_right(&all, 5, |n| ms(n) + 100, what);
            assert!(all.is_sorted_by(|a, b| a < b), "{what}, {is_declared}");
        }
    }
}

#[test]
fn pictures_of_which_both_stamps_are_wrong_are_shown_one_after_the_other() {
    for offset in [0, 67] {
        let both = |n: i64| {
            let decoded = ms(match n % 9 {
                7 => n - 1,
                _ => n,
            }) - if n % 9 == 5 { 53 } else { 0 };
            (decoded, decoded + offset)
        };
        let all = shown(true, both);
        assert_right(&all, 5, |n| ms(n) + offset, "both");
        assert!(all.is_sorted_by(|a, b| a < b));
    }
}

#[test]
fn reordered_pictures_of_which_both_stamps_are_wrong_are_shown_in_their_order() {
    // I P B B, shown a picture later.
    let frames = [1, 3, 0, 0];
    let offset = |n: i64| ms(frames[usize::try_from(n % 4).expect("small")]);
    let all = shown(true, |n| {
        let decoded = ms(if n % 9 == 7 { n - 1 } else { n });
        (decoded, decoded + offset(n))
    });
    assert_right(&all, 5, |n| ms(n) + offset(n), "reordered");
}
