//! How long recordings are kept, as it is written.
//!
//! Enters: `archive.keep`, `archive.dvr`
//! Leaves: [`Keep`], a length of time, or what to write instead
//! Never:  a store
//! Time:   milliseconds
//! Spec:   docs/configuration.md

use std::time::Duration;

use crate::config::units::{parse_duration, print_duration};
use crate::store::Keep;

const FOREVER: &str = "forever";

/// The shortest time that a recording is kept for: below it, keeping is not worth its record.
const MIN_KEEP: Duration = Duration::from_secs(10);

/// The longest that is counted: ten years. Who wants more wants all.
const MAX_KEEP: Duration = Duration::from_secs(10 * 366 * 24 * 3_600);

/// Reads it.
///
/// # Errors
/// What to write instead.
pub(crate) fn parse_keep(text: &str) -> Result<Keep, String> {
    if text == FOREVER {
        return Ok(Keep::Forever);
    }
    let keep = parse_duration(text).map_err(|why| format!("{why}; or use \"forever\""))?;
    if keep.is_zero() {
        return Ok(Keep::Window);
    }
    if (MIN_KEEP..=MAX_KEEP).contains(&keep) {
        return Ok(Keep::For(keep));
    }
    let (least, most) = (print_duration(MIN_KEEP), print_duration(MAX_KEEP));
    Err(format!(
        "found {}; use \"0s\", {least} to {most}, or \"forever\"",
        print_duration(keep)
    ))
}

/// The shortest time that viewers can go back, beyond what is listed anyway.
const MIN_DVR: Duration = Duration::from_secs(60);

/// The longest: a playlist of it has three megabytes, and more is for recordings.
const MAX_DVR: Duration = Duration::from_secs(24 * 3_600);

/// Reads how far back viewers can go.
///
/// # Errors
/// What to write instead.
pub(crate) fn parse_dvr(text: &str) -> Result<Duration, String> {
    let dvr = parse_duration(text).map_err(|why| why.to_string())?;
    if dvr.is_zero() || (MIN_DVR..=MAX_DVR).contains(&dvr) {
        return Ok(dvr);
    }
    let (least, most) = (print_duration(MIN_DVR), print_duration(MAX_DVR));
    Err(format!(
        "found {}; use \"0s\", or {least} to {most}",
        print_duration(dvr)
    ))
}

/// Why viewers cannot go back so far if things are kept for `keep`; `None` if they can.
pub(crate) fn why_not_kept(dvr: Duration, keep: Keep) -> Option<String> {
    let kept = match keep {
        Keep::Window => Duration::ZERO,
        Keep::For(keep) => keep,
        Keep::Forever => Duration::MAX,
    };
    (dvr > kept).then(|| {
        format!(
            "{} is more than archive.keep, which is {}; nobody can go back to what is not kept",
            print_duration(dvr),
            print_keep(keep)
        )
    })
}

/// Writes it as [`parse_keep`] reads it.
pub(crate) fn print_keep(keep: Keep) -> String {
    match keep {
        Keep::Window => print_duration(Duration::ZERO),
        Keep::For(keep) => print_duration(keep),
        Keep::Forever => FOREVER.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["0s", "10s", "24h", "forever"] {
            let keep = parse_keep(text).expect("valid");
            assert_eq!(print_keep(keep), text);
        }
        for text in ["", "5s", "1d", "100000h", "Forever"] {
            assert!(parse_keep(text).is_err(), "{text}");
        }
    }

    #[test]
    fn viewers_go_back_no_further_than_things_are_kept() {
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        for (text, dvr) in [("0s", hours(0)), ("4h", hours(4)), ("24h", hours(24))] {
            assert_eq!(parse_dvr(text), Ok(dvr));
        }
        for text in ["", "59s", "25h", "forever"] {
            assert!(parse_dvr(text).is_err(), "{text}");
        }
        assert_eq!(why_not_kept(hours(0), Keep::Window), None);
        assert_eq!(why_not_kept(hours(4), Keep::For(hours(4))), None);
        assert_eq!(why_not_kept(hours(4), Keep::Forever), None);
        let why = why_not_kept(hours(4), Keep::Window).expect("a reason");
        assert!(why.contains("archive.keep, which is 0s"), "{why}");
        assert!(why_not_kept(hours(4), Keep::For(hours(3))).is_some());
    }
}
