use super::*;
use crate::demux::Repair;

const START: i64 = 1_795_000_000_000_000;

fn wall(ms: i64) -> WallTime {
    WallTime::from_micros(START + ms * 1_000)
}

/// Places a stamp and tells how far, in milliseconds, it lies from the start.
fn place(timeline: &mut Timeline, kind: MediaKind, stamp: u32, now_ms: i64) -> (i64, bool) {
    let placed = timeline.place(kind, stamp, wall(now_ms));
    let jumped = std::iter::from_fn(|| timeline.poll_repair())
        .any(|repair| matches!(repair, Repair::ClockJump { .. }));
    ((placed.at.as_micros() - START) / 1_000, jumped)
}

use MediaKind::{Audio, Video};

#[test]
fn the_clock_runs_through_its_wrap_and_through_24_bits() {
    for edge in [u32::MAX, 0x00FF_FFFF, 0x7FFF_FFFF] {
        let mut timeline = Timeline::default();
        let first = edge - 50;
        for i in 0..10_u32 {
            let stamp = first.wrapping_add(i * 20);
            let kind = if i % 2 == 0 { Video } else { Audio };
            let ms = i64::from(i) * 20;
            assert_eq!(place(&mut timeline, kind, stamp, ms), (ms, false), "{edge}");
        }
    }
}

#[test]
fn both_tracks_share_one_anchor_whichever_comes_first() {
    let mut timeline = Timeline::default();
    assert_eq!(place(&mut timeline, Audio, 1_000, 0), (0, false));
    assert_eq!(place(&mut timeline, Video, 960, 30), (-40, false));
    assert_eq!(place(&mut timeline, Video, 1_000, 31), (0, false));
}

#[test]
fn a_jump_moves_both_tracks_by_the_same_amount_and_is_told_once() {
    for jumped in [1_000_000_u32, 5] {
        let mut timeline = Timeline::default();
        for ms in (0..1_000_u32).step_by(20) {
            place(&mut timeline, Video, 50_000 + ms, i64::from(ms));
            place(&mut timeline, Audio, 50_007 + ms, i64::from(ms));
        }
        assert!(place(&mut timeline, Video, jumped, 1_000).1);
        // a straggler of the old clock keeps its place
        assert_eq!(place(&mut timeline, Audio, 51_007, 1_000), (1_007, false));
        let (video, _) = place(&mut timeline, Video, jumped + 20, 1_020);
        let placed = timeline.place(Audio, jumped + 27, wall(1_020));
        assert!(placed.moved && timeline.poll_repair().is_none());
        assert_eq!((placed.at.as_micros() - START) / 1_000, video + 7);
        assert!((1_000..1_060).contains(&video), "{video}");
    }
}

#[test]
fn a_stall_that_the_wall_clock_saw_too_is_a_gap_and_no_jump() {
    let mut timeline = Timeline::default();
    place(&mut timeline, Video, 0, 0);
    assert_eq!(place(&mut timeline, Video, 8_000, 8_300), (8_000, false));
    assert_eq!(place(&mut timeline, Video, 20_000, 8_400), (8_020, true));
}

#[test]
fn a_track_that_paused_comes_back_at_its_distance_from_the_other() {
    for behind in [0_u32, 20, 400] {
        let mut timeline = Timeline::default();
        place(&mut timeline, Video, 0, 0);
        for ms in (0..9_000_u32).step_by(20) {
            place(&mut timeline, Audio, ms, i64::from(ms));
        }
        let back = 9_000 - behind;
        let placed = place(&mut timeline, Video, back, 9_000);
        assert_eq!(placed, (i64::from(back), false), "{behind}");
    }
}

#[test]
fn recorded_stamps_may_step_forward_as_they_like() {
    let mut timeline = Timeline::new(JumpPolicy::Follow);
    place(&mut timeline, Video, 0, 0);
    assert_eq!(place(&mut timeline, Video, 90_000, 1), (90_000, false));
    assert!(place(&mut timeline, Video, 0, 2).1);
}

#[test]
fn a_small_step_back_is_left_to_the_track() {
    let mut timeline = Timeline::default();
    place(&mut timeline, Video, 1_000, 0);
    assert_eq!(place(&mut timeline, Video, 990, 1), (-10, false));
    assert!(place(&mut timeline, Video, 700, 2).1);
}

#[test]
fn stamps_that_stand_still_are_placed_by_their_arrival_until_they_go_on() {
    // The clock of the source went on meanwhile, or it did not.
    for missed in [0_u32, 10_000] {
        let mut timeline = Timeline::default();
        let stamp = |ms: u32| match ms {
            ..5_000 => ms,
            5_000..15_000 => 5_000,
            _ => ms - 10_000 + missed,
        };
        let mut jumps = 0;
        for ms in (0..20_000_u32).step_by(20) {
            let kind = if ms % 40 == 0 { Video } else { Audio };
            let now = i64::from(ms) + [0, 7, 3][(ms / 20 % 3) as usize];
            let (at, jumped) = place(&mut timeline, kind, stamp(ms), now);
            jumps += u32::from(jumped);
            let is_believed = !(5_000..5_600).contains(&ms);
            let late = i64::from(ms) - at;
            assert!(!is_believed || late.abs() <= 45, "{ms}: {late} ms late");
        }
        assert!((2..=3).contains(&jumps), "{jumps}");
    }
}

#[test]
fn stamps_that_step_once_a_second_do_not_count_the_time_twice() {
    for step_ms in [400, 600, 1_000, 2_000] {
        let (mut timeline, mut jumps) = (Timeline::default(), 0);
        for ms in (0..120_000_u32).step_by(20) {
            let (at, jumped) = place(&mut timeline, Audio, ms - ms % step_ms, ms.into());
            jumps += u32::from(jumped);
            let late = i64::from(ms) - at;
            let most = i64::from(step_ms) + 20;
            assert!(late.abs() <= most, "{step_ms}: {late} ms late at {ms}");
        }
        assert!(jumps <= 2, "{step_ms}: {jumps}");
    }
}
