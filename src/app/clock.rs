//! The only clock: everything else takes time as an argument.
//!
//! Enters: nothing
//! Leaves: the wall clock of this machine as [`WallTime`]
//! Never:  a decision
//! Time:   UTC since the Unix epoch
//! Spec:   none

use std::time::{SystemTime, UNIX_EPOCH};

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
