//! Learns when the media of a track usually come, and says when they are too late.
//!
//! Enters: the position of each frame or block with the time at which it came
//! Leaves: the position before which nothing need be waited for any more
//! Never:  a position that is moved: what is late keeps its place
//! Time:   microseconds of the broadcast's clock and of the timeline, which are the same clock
//! Spec:   docs/adr/0004-wait-by-the-clock.md
//!
//! Media are as late as their way is long, and that much is never waited for again: what counts is by how
//! much they are later than the least that was seen of late. On top comes an allowance. It is small,
//! because players of low latency have a second in hand; it grows to what jitter was seen, and far only for
//! a source of which much is late, which is one that sends in bursts.

/// What is waited at least, beyond the least lateness seen of late, in microseconds: a hiccup of Wi-Fi.
pub(super) const LEAST_ALLOWANCE_US: i64 = 250_000;
/// The most that jitter makes of it, in microseconds: players of low latency keep twice that in hand.
pub(super) const JITTER_ALLOWANCE_US: i64 = 500_000;
/// The most that is waited for a source that sends in bursts, in microseconds: a segment and a half.
pub(super) const BURST_ALLOWANCE_US: i64 = 3_000_000;
/// What is added to the jitter seen.
const MARGIN_US: i64 = 50_000;
/// More than one in this many comes later than jitter does, and again and again: then the source sends in
/// bursts.
const BURST_SHARE: u64 = 4;
/// How often is again and again. One long stall is not.
const BURST_RUNS: u64 = 3;
/// What comes later than jitter does for so long on end, in microseconds, does not come in bursts: whoever sends those
/// is in time at the end of each.
const BURST_US: i64 = 2_000_000;
/// For how long what was seen counts, once and twice over.
const MEMORY_US: i64 = 10_000_000;

/// What was seen in a stretch of time.
#[derive(Clone, Copy, Debug)]
struct Seen {
    least_us: i64,
    /// The most beyond the least, of what was no later than jitter is, and of all.
    jitter_us: i64,
    burst_us: i64,
    count: u64,
    /// How many were later than jitter is, and in how many runs.
    slow: u64,
    runs: u64,
}

impl Seen {
    const NOTHING: Self = Self {
        least_us: i64::MAX,
        jitter_us: 0,
        burst_us: 0,
        count: 0,
        slow: 0,
        runs: 0,
    };
}

/// How late the media of one track come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lateness {
    now: Seen,
    before: Seen,
    /// When `now` becomes `before`.
    turn_us: i64,
    /// Since when all that came was later than jitter is, and how long that was when the last of it came.
    slow_since_us: Option<i64>,
    slow_for_us: i64,
}

impl Lateness {
    /// Nothing seen yet.
    pub(super) const fn new() -> Self {
        Self {
            now: Seen::NOTHING,
            before: Seen::NOTHING,
            turn_us: i64::MIN,
            slow_since_us: None,
            slow_for_us: 0,
        }
    }

    /// Media at `position_us` came at `now_us`, in time for their place.
    pub(super) fn see(&mut self, position_us: i64, now_us: i64) {
        if now_us >= self.turn_us {
            self.before = self.now;
            self.now = Seen::NOTHING;
            self.turn_us = now_us.saturating_add(MEMORY_US);
        }
        let late_us = now_us.saturating_sub(position_us);
        self.now.least_us = self.now.least_us.min(late_us);
        self.see_late(position_us, now_us);
    }

    /// Media at `position_us` came at `now_us`, too late for their place: this says nothing of what is
    /// usual.
    pub(super) fn see_late(&mut self, position_us: i64, now_us: i64) {
        let late_us = now_us.saturating_sub(position_us);
        let beyond_us = late_us.saturating_sub(self.least_us().unwrap_or(late_us));
        let seen = &mut self.now;
        seen.count += 1;
        seen.burst_us = seen.burst_us.max(beyond_us);
        let is_slow = beyond_us > JITTER_ALLOWANCE_US;
        if is_slow {
            seen.slow += 1;
            seen.runs += u64::from(self.slow_since_us.is_none());
        } else {
            seen.jitter_us = seen.jitter_us.max(beyond_us);
        }
        self.slow_since_us = self.slow_since_us.or(Some(now_us)).filter(|_| is_slow);
        let since_us = self.slow_since_us.unwrap_or(now_us);
        self.slow_for_us = now_us.saturating_sub(since_us);
    }

    /// Forgets what was late; what is usual it keeps.
    pub(super) const fn forgive(&mut self) {
        let least_us = self.now.least_us;
        self.now = Seen {
            least_us,
            ..Seen::NOTHING
        };
        let least_us = self.before.least_us;
        self.before = Seen {
            least_us,
            ..Seen::NOTHING
        };
    }

    /// The media come `by_us` later from now on, and that is usual.
    pub(super) fn shift(&mut self, by_us: i64) {
        for seen in [&mut self.now, &mut self.before] {
            if seen.least_us < i64::MAX {
                seen.least_us = seen.least_us.saturating_add(by_us);
            }
        }
    }

    /// The media did not come earlier than by `usual_us`.
    pub(super) fn raise(&mut self, usual_us: i64) {
        for seen in [&mut self.now, &mut self.before] {
            seen.least_us = seen.least_us.max(usual_us);
        }
    }

    /// Where the media would be by now if they came as late as they may; `None` before the first of them.
    pub(super) fn due_us(&self, now_us: i64) -> Option<i64> {
        let wait_us = self.least_us()?.saturating_add(self.allowance_us());
        Some(now_us.saturating_sub(wait_us))
    }

    /// How late the media usually are; `None` before the first of them.
    pub(super) fn least_us(&self) -> Option<i64> {
        let least_us = self.now.least_us.min(self.before.least_us);
        (least_us < i64::MAX).then_some(least_us)
    }

    fn allowance_us(&self) -> i64 {
        let (now, before) = (&self.now, &self.before);
        let (count, slow) = (now.count + before.count, now.slow + before.slow);
        let is_often = slow * BURST_SHARE > count && now.runs + before.runs >= BURST_RUNS;
        let is_bursty = is_often && self.slow_for_us <= BURST_US;
        let (seen_us, most_us) = if is_bursty {
            (now.burst_us.max(before.burst_us), BURST_ALLOWANCE_US)
        } else {
            (now.jitter_us.max(before.jitter_us), JITTER_ALLOWANCE_US)
        };
        (seen_us + MARGIN_US).clamp(LEAST_ALLOWANCE_US, most_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const FRAME: i64 = SECOND / 30;

    /// How far the media are waited for at the end of frames that each come as late as `late` says.
    fn waited(frames: i64, late: impl Fn(i64) -> i64) -> i64 {
        let mut lateness = Lateness::new();
        let mut now = 0;
        for n in 0..frames {
            now = now.max(n * FRAME + late(n));
            lateness.see(n * FRAME, now);
        }
        now - lateness.due_us(now).expect("seen")
    }

    #[test]
    fn what_the_way_takes_is_not_jitter() {
        for way in [-10 * SECOND, 0, 40_000, 3 * SECOND] {
            assert_eq!(waited(900, |_| way), way + LEAST_ALLOWANCE_US);
        }
    }

    #[test]
    fn jitter_is_waited_for_and_forgotten() {
        let jitter = |n: i64| if n % 100 == 0 { 400_000 } else { 0 };
        assert_eq!(waited(900, jitter), 450_000);
        let early = |n: i64| if n < 900 { jitter(n) } else { 0 };
        assert_eq!(waited(3_000, early), LEAST_ALLOWANCE_US);
    }

    #[test]
    fn one_long_stall_is_not_waited_for_again() {
        // Nine seconds of nothing, then all of it at once.
        let stall = |n: i64| if n == 450 { 9 * SECOND } else { 0 };
        assert!(waited(900, stall) <= JITTER_ALLOWANCE_US);
    }

    #[test]
    fn what_stays_late_after_some_stalls_is_no_burst() {
        // Two stalls; then the source stands still for 700 ms, and all that comes is as much later.
        let late = |n: i64| match n {
            20..40 => (40 - n) * FRAME,
            45..80 => (80 - n) * FRAME,
            90.. => 700_000,
            _ => 0,
        };
        assert!(
            waited(100, late) > JITTER_ALLOWANCE_US,
            "they may be bursts"
        );
        assert!(waited(180, late) <= JITTER_ALLOWANCE_US);
    }

    #[test]
    fn a_source_that_sends_every_two_seconds_is_waited_for() {
        let burst = |n: i64| (60 - n % 60) * FRAME;
        let waited = waited(900, burst);
        assert!((2 * SECOND..=3 * SECOND).contains(&waited), "{waited}");
    }
}
