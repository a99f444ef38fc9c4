//! How long recordings are kept, as it is written.
//!
//! Enters: `archive.keep`
//! Leaves: [`Keep`], or what to write instead
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
}
