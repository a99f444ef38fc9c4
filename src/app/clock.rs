//! The only clock: everything else takes time as an argument.
//!
//! Enters: nothing
//! Leaves: the wall clock of this machine as [`WallTime`]; a [`SteadyClock`] for each broadcast
//! Never:  a decision
//! Time:   UTC since the Unix epoch
//! Spec:   none

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::time::WallTime;

/// Now, by the machine's clock. A clock set before 1970 reads as 1970.
#[must_use]
pub fn wall_now() -> WallTime {
    WallTime::from_epoch(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

/// A clock that begins with the wall clock and never steps, whatever is done to the wall clock meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct SteadyClock {
    begin: WallTime,
    since: Instant,
}

impl SteadyClock {
    /// Begins now; or at `earliest`, if that lies more than `patience` ahead. Then the wall clock was set
    /// back since `earliest` was used, and waiting for it to come round again would take as long.
    #[must_use]
    pub fn begin(earliest: WallTime, patience: Duration) -> Self {
        Self {
            begin: beginning(wall_now(), earliest, patience),
            since: Instant::now(),
        }
    }

    /// Now, by this clock.
    #[must_use]
    pub fn now(&self) -> WallTime {
        self.at(Instant::now())
    }

    /// What this clock said at `instant`; its beginning for what was before.
    #[must_use]
    pub fn at(&self, instant: Instant) -> WallTime {
        let elapsed = instant.saturating_duration_since(self.since).as_micros();
        let elapsed = i64::try_from(elapsed).unwrap_or(i64::MAX);
        WallTime::from_micros(self.begin.as_micros().saturating_add(elapsed))
    }
}

fn beginning(now: WallTime, earliest: WallTime, patience: Duration) -> WallTime {
    if ahead(earliest, now) > patience {
        earliest
    } else {
        now
    }
}

/// How far `time` lies ahead of `now`; zero if it does not.
#[must_use]
pub fn ahead(time: WallTime, now: WallTime) -> Duration {
    let micros = time.as_micros().saturating_sub(now.as_micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcast_goes_on_where_a_clock_that_was_set_back_had_been() {
        let at = |seconds: i64| WallTime::from_micros(seconds * 1_000_000);
        let begins = |earliest| beginning(at(1_000), earliest, Duration::from_secs(12));
        assert_eq!(begins(at(0)), at(1_000));
        assert_eq!(begins(at(1_012)), at(1_000), "it is waited for");
        assert_eq!(begins(at(4_600)), at(4_600));
    }
}
