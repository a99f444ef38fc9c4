//! Has the MPD of a broadcast on the grid reach further back.
//!
//! Enters: the live MPD as it is served or stored; how far back there is anything
//! Leaves: the same with a longer `@timeShiftBufferDepth`
//! Never:  segments: the grid gives them
//! Time:   milliseconds
//! Spec:   [DASH] §5.3.1.2

use crate::time::WallTime;

/// The MPD `live` of a broadcast on the grid, to reach `depth_ms` back. `changed_at` is when that became so.
/// `None` if it is none that reaches back by time.
#[must_use]
pub fn mpd(live: &str, depth_ms: u64, changed_at: WallTime) -> Option<String> {
    if live.contains("<SegmentTimeline>") {
        return None;
    }
    with_depth(live, depth_ms, changed_at)
}

/// The MPD `live` that reaches `depth_ms` back since `changed_at`.
pub(super) fn with_depth(live: &str, depth_ms: u64, changed_at: WallTime) -> Option<String> {
    let depth = format!("PT{}.{:03}S", depth_ms / 1_000, depth_ms % 1_000);
    let text = with_value(live, "timeShiftBufferDepth", |_| depth)?;
    with_value(&text, "publishTime", |before| {
        // Both print alike, so that the later one is the larger.
        changed_at.to_string().max(before.to_owned())
    })
}

/// `text` with another value for the first attribute `name`.
fn with_value(text: &str, name: &str, value: impl FnOnce(&str) -> String) -> Option<String> {
    let marker = format!(" {name}=\"");
    let (before, rest) = text.split_once(&marker)?;
    let (old, after) = rest.split_once('"')?;
    Some(format!("{before}{marker}{}\"{after}", value(old)))
}
