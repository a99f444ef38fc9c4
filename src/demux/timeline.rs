//! Places the 32-bit millisecond stamps of a publisher on the timeline of the Unix epoch.
//!
//! Enters: stamps of two interleaved tracks, and the wall clock at their arrival
//! Leaves: an instant for each; both tracks on one anchor, so that sound and picture keep their distance
//! Never:  reads a clock, looks at a frame rate
//! Time:   milliseconds modulo 2^32 in, microseconds since the epoch out
//! Spec:   [RTMP] §5.3.1.1 (serial arithmetic)

use crate::media::MediaKind;
use crate::time::WallTime;

/// A step forward up to this is taken as it is: a publisher that stalls for a moment skips what it lost.
pub const MAX_STEP_MS: i32 = 3_000;

/// A step back within a track up to this is disorder, which is nudged straight; more is a new clock.
pub const MAX_STEP_BACK_MS: i32 = 200;

/// A long step forward is a real gap if the wall clock advanced as much, to within this.
pub const GAP_TOLERANCE_MS: i64 = 2_000;

/// What to do about a step that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum JumpPolicy {
    /// Place what follows as late after what came before as it arrived: right for live publishers.
    #[default]
    Reanchor,
    /// Believe long steps forward, and place anew only after steps back: right for recorded stamps.
    Follow,
}

/// Where a stamp lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The instant on the timeline.
    pub at: WallTime,
    /// The track does not continue: what counts samples or frames must begin anew here.
    pub moved: bool,
    /// Set on the one stamp whose jump moved the anchor: its distance from the latest stamp.
    pub jump_ms: Option<i64>,
}

/// A stamp that was placed. Later ones are placed by their distance from it, which is exact modulo 2^32.
#[derive(Clone, Copy, Debug)]
struct Point {
    stamp_ms: u32,
    at_us: i64,
    arrived: WallTime,
    generation: u64,
}

impl Point {
    /// Signed distance of `stamp_ms` in serial arithmetic: the nearer way round.
    const fn step_to(&self, stamp_ms: u32) -> i32 {
        stamp_ms.wrapping_sub(self.stamp_ms).cast_signed()
    }

    fn after(&self, step_ms: i32) -> i64 {
        self.at_us.saturating_add(i64::from(step_ms) * 1_000)
    }
}

/// The clock of one broadcast. `now` must never go backwards.
///
/// A track that continues its own stamps keeps its anchor. One that does not is compared with the anchor in
/// force; if it fits there (the other track jumped first, this one follows, or this one paused while the other
/// went on), it joins it. Otherwise the jump makes a new anchor, so both tracks end on the same one and their
/// distance survives.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    policy: JumpPolicy,
    latest: Option<Point>,
    video: Option<Point>,
    audio: Option<Point>,
}

impl Timeline {
    /// A timeline that places its first stamp at its arrival.
    #[must_use]
    pub fn new(policy: JumpPolicy) -> Self {
        Self {
            policy,
            ..Self::default()
        }
    }

    /// Places the stamp of the next sample of a track.
    pub fn place(&mut self, kind: MediaKind, stamp_ms: u32, now: WallTime) -> Placed {
        let own = match kind {
            MediaKind::Video => self.video,
            MediaKind::Audio => self.audio,
        };
        let (at_us, generation, jump_ms) = self.locate(own, stamp_ms, now);
        let point = Point {
            stamp_ms,
            at_us,
            arrived: now,
            generation,
        };
        let moved = own.is_some_and(|own| {
            let step = own.step_to(stamp_ms);
            own.generation != generation || !(-MAX_STEP_BACK_MS..=MAX_STEP_MS).contains(&step)
        });
        let supersedes = self.latest.is_none_or(|latest| {
            generation > latest.generation
                || generation == latest.generation && at_us >= latest.at_us
        });
        if supersedes {
            self.latest = Some(point);
        }
        match kind {
            MediaKind::Video => self.video = Some(point),
            MediaKind::Audio => self.audio = Some(point),
        }
        Placed {
            at: WallTime::from_micros(at_us),
            moved,
            jump_ms,
        }
    }

    /// The instant of a stamp, the generation of its anchor, and the jump if that anchor is new.
    fn locate(&self, own: Option<Point>, stamp_ms: u32, now: WallTime) -> (i64, u64, Option<i64>) {
        let Some(latest) = self.latest else {
            return (now.as_micros(), 0, None);
        };
        if let Some(own) = own {
            let step = own.step_to(stamp_ms);
            if (-MAX_STEP_BACK_MS..=MAX_STEP_MS).contains(&step) {
                return (own.after(step), own.generation, None);
            }
        }
        let step = latest.step_to(stamp_ms);
        // Either the other track jumped first, or this one paused while the other went on.
        let joins = own.is_none_or(|own| {
            own.generation != latest.generation || own.step_to(stamp_ms) > MAX_STEP_MS
        });
        if joins && (-MAX_STEP_MS..=MAX_STEP_MS).contains(&step) {
            return (latest.after(step), latest.generation, None);
        }
        let waited_us = now.as_micros().saturating_sub(latest.arrived.as_micros());
        let expected_us = latest.at_us.saturating_add(waited_us.max(0));
        let believed_us = latest.after(step);
        let off_us = believed_us.saturating_sub(expected_us).saturating_abs();
        let believable = match self.policy {
            JumpPolicy::Reanchor => off_us <= GAP_TOLERANCE_MS * 1_000,
            JumpPolicy::Follow => true,
        };
        if step > 0 && believable {
            return (believed_us, latest.generation, None);
        }
        (
            expected_us,
            latest.generation.saturating_add(1),
            Some(i64::from(step)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_795_000_000_000_000;

    fn wall(ms: i64) -> WallTime {
        WallTime::from_micros(START + ms * 1_000)
    }

    /// Places a stamp and tells how far, in milliseconds, it lies from the start.
    fn place(timeline: &mut Timeline, kind: MediaKind, stamp: u32, now_ms: i64) -> (i64, bool) {
        let placed = timeline.place(kind, stamp, wall(now_ms));
        (
            (placed.at.as_micros() - START) / 1_000,
            placed.jump_ms.is_some(),
        )
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
            assert!(placed.moved && placed.jump_ms.is_none());
            assert_eq!((placed.at.as_micros() - START) / 1_000, video + 7);
            assert!((1_000..1_060).contains(&video), "{video}");
        }
    }

    #[test]
    fn a_stall_that_the_wall_clock_saw_too_is_a_gap_and_no_jump() {
        let mut timeline = Timeline::default();
        place(&mut timeline, Video, 0, 0);
        assert_eq!(place(&mut timeline, Video, 8_000, 8_300), (8_000, false));
        assert_eq!(place(&mut timeline, Video, 20_000, 8_400), (8_100, true));
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
}
