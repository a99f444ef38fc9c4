//! Has the MPD of a broadcast on the grid reach further back.
//!
//! Enters: the live MPD as it is served or stored; how far back there is anything
//! Leaves: the same with a longer `@timeShiftBufferDepth`
//! Never:  segments: the grid gives them
//! Time:   milliseconds
//! Spec:   [DASH] §5.3.1.2

use crate::package::window::PUBLISH_STEP_US;
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

/// The MPD `text`, which comes after `before`: it says that it changed later, if it did. What it reaches back to is not
/// known all at once, so that it may change while the live one and its end are what they were; a player takes two of one
/// `@publishTime` for the same.
#[must_use]
pub fn rising(text: String, before: &str) -> String {
    let published = |text: &str| value(text, "publishTime")?.parse::<WallTime>().ok();
    let Some((now, then)) = published(&text).zip(published(before)) else {
        return text;
    };
    let published_at = |at: WallTime| with_value(&text, "publishTime", |_| at.to_string());
    if now > then {
        return text;
    }
    if published_at(then).as_deref() == Some(before) {
        return before.to_owned();
    }
    let later = WallTime::from_micros(then.as_micros().saturating_add(PUBLISH_STEP_US));
    published_at(later).unwrap_or(text)
}

/// How far back the MPD `text` reaches, in milliseconds.
#[must_use]
pub fn depth_ms(text: &str) -> Option<u64> {
    millis(value(text, "timeShiftBufferDepth")?)
}

/// `PT12.5S` in milliseconds.
fn millis(text: &str) -> Option<u64> {
    let text = text.strip_prefix("PT")?.strip_suffix('S')?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: u64 = seconds.parse().ok()?;
    let fraction: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    seconds.checked_mul(1_000)?.checked_add(fraction)
}

/// The value of the attribute `name` in `text`, the first one.
pub(super) fn value<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!(" {name}=\""))?;
    Some(rest.split_once('"')?.0)
}

/// `text` with another value for the first attribute `name`.
fn with_value(text: &str, name: &str, value: impl FnOnce(&str) -> String) -> Option<String> {
    let marker = format!(" {name}=\"");
    let (before, rest) = text.split_once(&marker)?;
    let (old, after) = rest.split_once('"')?;
    Some(format!("{before}{marker}{}\"{after}", value(old)))
}

#[cfg(test)]
mod tests {
    use super::rising;

    fn mpd(published: &str, depth: u32) -> String {
        format!(
            "<MPD publishTime=\"2026-11-20T20:15:{published}Z\" timeShiftBufferDepth=\"PT{depth}.000S\">"
        )
    }

    #[test]
    fn what_changes_says_that_it_did_later_and_nothing_else_does() {
        let before = mpd("02.000", 20);
        for (text, expected) in [
            (mpd("04.000", 22), mpd("04.000", 22)),
            (mpd("02.000", 22), mpd("02.001", 22)),
            (mpd("01.000", 22), mpd("02.001", 22)),
            (mpd("02.000", 20), before.clone()),
            (mpd("01.000", 20), before.clone()),
            ("<MPD>".to_owned(), "<MPD>".to_owned()),
        ] {
            assert_eq!(rising(text.clone(), &before), expected, "{text}");
        }
        assert_eq!(rising(before.clone(), "<MPD>"), before);
    }
}
