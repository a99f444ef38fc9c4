//! How samples arrive: stalls, missing tracks, sound that lags.
//!
//! Enters: for each sample, when it arrived and where it lies
//! Leaves: what is wrong with that, in words
//! Never:  bytes
//! Time:   microseconds of the broadcast's clock
//! Spec:   none

use std::collections::VecDeque;

use super::{SECOND_US, seconds};
use crate::media::MediaKind;

/// What is remembered of stalls and repairs.
const MEMORY_US: i64 = 60 * SECOND_US;
/// Most events that are remembered: more in a minute are as bad as this many.
const MAX_EVENTS: usize = 64;
/// Without a sample for this long, the connection stalls.
const STALL_US: i64 = SECOND_US;
/// One stall of this length is told, shorter ones when they come again.
const LONG_STALL_US: i64 = 3 * SECOND_US;
/// The stretch whose least lateness stands for a track.
const WINDOW_US: i64 = 10 * SECOND_US;
/// Sound may lag its pictures, or they it, by this.
const LAG_US: i64 = SECOND_US;

/// Events with their time and size, the oldest forgotten.
#[derive(Clone, Debug, Default)]
struct Events(VecDeque<(i64, i64)>);

impl Events {
    fn push(&mut self, now_us: i64, size: i64) {
        if self.0.len() >= MAX_EVENTS {
            self.0.pop_front();
        }
        self.0.push_back((now_us, size));
    }

    /// How many there were of late, and the largest.
    fn of_late(&self, now_us: i64) -> (usize, i64) {
        let recent = self
            .0
            .iter()
            .filter(|(at, _)| now_us.saturating_sub(*at) <= MEMORY_US);
        recent.fold((0, 0), |(count, most), (_, size)| {
            (count + 1, most.max(*size))
        })
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Way {
    has_come: bool,
    /// For how long only the other track has come since.
    missing_us: i64,
    least_us: Option<i64>,
    usual_us: Option<i64>,
}

/// The arrivals of one publisher.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals {
    last_us: Option<i64>,
    window_us: Option<i64>,
    video: Way,
    audio: Way,
    stalls: Events,
    jumps: Events,
    behind: Events,
}

impl Arrivals {
    /// A sample that lies at `at_us` arrived at `now_us`.
    pub(super) fn push(&mut self, kind: MediaKind, now_us: i64, at_us: i64) {
        let waited = self.last_us.replace(now_us);
        let waited = waited.map_or(0, |last| now_us.saturating_sub(last));
        // Where nothing comes for longer, it is not this track that is missing.
        let missing = waited.min(STALL_US);
        if waited >= STALL_US {
            self.stalls.push(now_us, waited);
        }
        if now_us.saturating_sub(*self.window_us.get_or_insert(now_us)) >= WINDOW_US {
            self.window_us = Some(now_us);
            for way in [&mut self.video, &mut self.audio] {
                way.usual_us = way.least_us.take();
            }
        }
        let (way, other) = match kind {
            MediaKind::Video => (&mut self.video, &mut self.audio),
            MediaKind::Audio => (&mut self.audio, &mut self.video),
        };
        let late = now_us.saturating_sub(at_us);
        (way.has_come, way.missing_us) = (true, 0);
        other.missing_us = other.missing_us.saturating_add(missing);
        way.least_us = Some(way.least_us.map_or(late, |least| least.min(late)));
    }

    pub(super) fn jumped(&mut self, now_us: i64) {
        self.jumps.push(now_us, 0);
    }

    pub(super) fn fell_behind(&mut self, now_us: i64) {
        self.behind.push(now_us, 0);
    }

    /// Whether any sample of that kind ever came.
    pub(super) const fn has(&self, kind: MediaKind) -> bool {
        self.way(kind).has_come
    }

    /// For how long samples of the other kind alone have come.
    pub(super) const fn missing_us(&self, kind: MediaKind) -> i64 {
        self.way(kind).missing_us
    }

    const fn way(&self, kind: MediaKind) -> &Way {
        match kind {
            MediaKind::Video => &self.video,
            MediaKind::Audio => &self.audio,
        }
    }

    /// How much later sound arrives than the pictures of its instant.
    pub(super) fn sound_lag_us(&self) -> Option<i64> {
        Some(self.audio.usual_us?.saturating_sub(self.video.usual_us?))
    }

    /// The lag of sound (`sign` 1) or of pictures (−1), if it is too long.
    pub(super) fn lag(&self, sign: i64) -> Option<(String, String)> {
        let lag = self.sound_lag_us()?.saturating_mul(sign);
        (lag >= LAG_US).then(|| {
            (
                format!("{} later", seconds(lag)),
                "less than 0.5 s".to_owned(),
            )
        })
    }

    pub(super) fn stalls(&self, now_us: i64) -> Option<(String, String)> {
        let (count, longest) = self.stalls.of_late(now_us);
        (count >= 2 || longest >= LONG_STALL_US).then(|| {
            let times = if count == 1 {
                "one stall".to_owned()
            } else {
                format!("{count} stalls")
            };
            let found = format!(
                "{times} in the last minute, the longest {}",
                seconds(longest)
            );
            (found, "none".to_owned())
        })
    }

    pub(super) fn behind(&self, now_us: i64) -> Option<(String, String)> {
        often("fell behind", self.behind.of_late(now_us).0)
    }

    pub(super) fn jumps(&self, now_us: i64) -> Option<(String, String)> {
        often("jumped", self.jumps.of_late(now_us).0)
    }
}

fn often(what: &str, count: usize) -> Option<(String, String)> {
    let times = match count {
        0 => return None,
        1 => "once".to_owned(),
        count => format!("{count} times"),
    };
    Some((
        format!("{what} {times} in the last minute"),
        "never".to_owned(),
    ))
}
