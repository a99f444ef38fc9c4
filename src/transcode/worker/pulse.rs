//! Tells whether this process stood still: stopped, or on a machine that was.
//!
//! Enters: nothing but the time
//! Leaves: whether a thread that does nothing else was held up since it was last asked for
//! Never:  waits for an encoder
//! Time:   microseconds of a monotonic clock
//! Spec:   docs/resilience.md
//!
//! Whoever looks after the encoders waits for them, and cannot tell that from having been stopped.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::transcode::overload::STOOD_STILL_US;

/// How often it beats: several times in what is taken for standing still.
const BEAT: Duration = Duration::from_millis(100);

struct Beats {
    begun: Instant,
    last_us: AtomicI64,
    stood_still: AtomicBool,
}

impl Beats {
    const fn since(begun: Instant) -> Self {
        Self {
            begun,
            last_us: AtomicI64::new(0),
            stood_still: AtomicBool::new(false),
        }
    }

    /// Whether the last beat is too long ago.
    fn is_overdue(&self) -> bool {
        let since_us = self.now_us() - self.last_us.load(Ordering::Relaxed);
        since_us > STOOD_STILL_US
    }

    fn now_us(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    fn beat(&self) {
        if self.is_overdue() {
            self.stood_still.store(true, Ordering::Relaxed);
        }
        self.last_us.store(self.now_us(), Ordering::Relaxed);
    }
}

/// A thread that beats as long as this lives.
pub(super) struct Pulse(Arc<Beats>);

impl Pulse {
    pub(super) fn start() -> Self {
        let beats = Arc::new(Beats::since(Instant::now()));
        let weak = Arc::downgrade(&beats);
        std::thread::spawn(move || {
            while let Some(beats) = Weak::upgrade(&weak) {
                beats.beat();
                drop(beats);
                std::thread::sleep(BEAT);
            }
        });
        Self(beats)
    }

    /// Whether everything stood still since this was last asked for.
    pub(super) fn stood_still(&self) -> bool {
        // After a stop, who asks may be awake before the thread is.
        self.0.stood_still.swap(false, Ordering::Relaxed) || self.0.is_overdue()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standing_still_is_told_once_whoever_wakes_first() {
        let begun = Instant::now().checked_sub(Duration::from_secs(2));
        let pulse = Pulse(Arc::new(Beats::since(begun.expect("the clock is older"))));
        assert!(pulse.stood_still(), "the thread is not awake yet");
        pulse.0.beat();
        assert!(pulse.stood_still(), "it was held up");
        assert!(!pulse.stood_still(), "it beats again");
    }
}
