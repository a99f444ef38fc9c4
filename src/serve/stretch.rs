//! Reads which stretch of a stream an address asks for.
//!
//! Enters: the query of a manifest's address, from anyone
//! Leaves: [`Asked`]: an instant to begin with, and one to end with
//! Never:  whether anything of it is kept
//! Time:   UTC, to the microsecond
//! Spec:   [RFC3339] §5.6; docs/recordings.md

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::fmt;

use crate::time::WallTime;

/// The longest value that is looked at: RFC 3339 to the nanosecond with every character escaped has less.
const MAX_VALUE_BYTES: usize = 128;

/// The largest Unix time that is read, in seconds: the year 9999.
const MAX_UNIX_S: i64 = 253_402_300_799;

/// A stretch of a stream that somebody wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    /// Where it begins.
    pub start: WallTime,
    /// Where it ends; `None` for whatever is there, and will be.
    pub end: Option<WallTime>,
}

/// Why a query asks for no stretch; sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskedError {
    /// One is there twice.
    #[error("{name} is there more than once")]
    Repeated {
        /// Which.
        name: &'static str,
    },
    /// A value is no instant.
    #[error("{name} must be an instant such as 2026-11-20T20:15:00Z, or seconds since 1970")]
    Instant {
        /// Of which.
        name: &'static str,
    },
    /// An end without a start.
    #[error("end needs a start")]
    NoStart,
    /// The end is not later than the start.
    #[error("end must be later than start")]
    Reversed,
}

impl Asked {
    /// What `query` asks for; `None` if it says neither `start` nor `end`.
    ///
    /// # Errors
    ///
    /// [`AskedError`]
    pub fn parse(query: Option<&str>) -> Result<Option<Self>, AskedError> {
        let (mut start, mut end) = (None, None);
        for pair in query.unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, place) = match name {
                "start" => ("start", &mut start),
                "end" => ("end", &mut end),
                _ => continue,
            };
            if place.is_some() {
                return Err(AskedError::Repeated { name });
            }
            let read = unescape(value).and_then(|value| instant(&value));
            *place = Some(read.ok_or(AskedError::Instant { name })?);
        }
        match (start, end) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(AskedError::NoStart),
            (Some(start), Some(end)) if end <= start => Err(AskedError::Reversed),
            (Some(start), end) => Ok(Some(Self { start, end })),
        }
    }
}

impl fmt::Display for Asked {
    /// As a query that asks for the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "start={}", Exact(self.start))?;
        match self.end {
            Some(end) => write!(f, "&end={}", Exact(end)),
            None => Ok(()),
        }
    }
}

/// Prints an instant to the microsecond, as seconds since the epoch where milliseconds do not say it.
struct Exact(WallTime);

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        if micros % 1_000 == 0 {
            return self.0.fmt(f);
        }
        write!(f, "{}.{:06}", micros / 1_000_000, micros % 1_000_000)
    }
}

/// The instant that `text` says: RFC 3339, or seconds since the epoch, both with a fraction or without.
#[must_use]
pub fn instant(text: &str) -> Option<WallTime> {
    if text.len() > MAX_VALUE_BYTES {
        return None;
    }
    if text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let seconds: i64 = seconds.parse().ok().filter(|s| *s <= MAX_UNIX_S)?;
        return Some(WallTime::from_micros(
            seconds * 1_000_000 + micros(fraction)?,
        ));
    }
    let text = text.to_ascii_uppercase().replacen(' ', "T", 1);
    let (date, rest) = text.split_once('T')?;
    let (clock, offset_s) = match rest.strip_suffix('Z') {
        Some(clock) => (clock, 0),
        None => {
            let at = rest.rfind(['+', '-'])?;
            let (clock, offset) = rest.split_at_checked(at)?;
            (clock, offset_of(offset)?)
        }
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    if date.len() != 10 || clock.len() != 8 {
        return None;
    }
    let whole: WallTime = format!("{date}T{clock}.000Z").parse().ok()?;
    let at = whole.as_micros() + micros(fraction)? - offset_s * 1_000_000;
    Some(WallTime::from_micros(at))
}

/// The microseconds that the digits after a decimal point say; what is finer is cut off.
fn micros(fraction: &str) -> Option<i64> {
    let is_number = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let digits = fraction
        .get(..fraction.len().min(6))
        .filter(|_| is_number)?;
    let value: i64 = digits.parse().ok()?;
    let missing = u32::try_from(6 - digits.len()).ok()?;
    Some(value * 10_i64.pow(missing))
}

/// The seconds that `+01:00` is ahead of UTC.
fn offset_of(text: &str) -> Option<i64> {
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let part = |text: &str, most: i64| -> Option<i64> {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        let value: i64 = text.parse().ok().filter(|_| is_number)?;
        (value <= most).then_some(value)
    };
    let seconds = part(hours, 23)? * 3_600 + part(minutes, 59)? * 60;
    Some(if text.starts_with('-') {
        -seconds
    } else {
        seconds
    })
}

/// The text behind a query's value; `None` if it is none. A plus sign stays one: that of an offset is rarely escaped.
fn unescape(value: &str) -> Option<String> {
    if value.len() > MAX_VALUE_BYTES {
        return None;
    }
    let mut bytes = value.bytes();
    let mut out = Vec::with_capacity(value.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let code = digit()? * 16 + digit()?;
        out.push(u8::try_from(code).ok()?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_instant_is_read_in_every_usual_spelling() {
        let at = WallTime::from_micros(1_795_203_902_000_000);
        for text in [
            "1795203902",
            "1795203902.0",
            "2026-11-20T19:45:02Z",
            "2026-11-20t19:45:02z",
            "2026-11-20 19:45:02Z",
            "2026-11-20T19:45:02.000Z",
            "2026-11-20T20:45:02+01:00",
            "2026-11-20T14:15:02.0-05:30",
        ] {
            assert_eq!(instant(text), Some(at), "{text}");
        }
        let half = WallTime::from_micros(at.as_micros() + 500_000);
        assert_eq!(instant("1795203902.5"), Some(half));
        assert_eq!(instant("2026-11-20T19:45:02.5Z"), Some(half));
        for text in [
            "",
            "now",
            "-5",
            "1e9",
            "1.2.3",
            ".",
            "2026-11-20",
            "2026-11-20T19:45:02",
            "2026-11-20T19:45Z",
            "2026-11-20T19:45:02+1:00",
            "2026-11-20T19:45:02+01:60",
            "2026-13-20T19:45:02Z",
            "99999999999999999999",
            "é",
        ] {
            assert_eq!(instant(text), None, "{text}");
        }
    }

    #[test]
    fn a_query_says_what_it_asks_for_or_what_is_wrong_with_it() {
        let parse = |query| Asked::parse(Some(query));
        let asked = parse("start=2026-11-20T19%3A45%3A02Z&end=1795203912&x=1");
        let asked = asked.expect("valid").expect("asked");
        assert_eq!(asked.start, WallTime::from_micros(1_795_203_902_000_000));
        assert_eq!(
            asked.end,
            Some(WallTime::from_micros(1_795_203_912_000_000))
        );
        assert_eq!(Asked::parse(None), Ok(None));
        assert_eq!(parse("_HLS_msn=5"), Ok(None));
        for (query, error) in [
            ("end=5", AskedError::NoStart),
            ("start=6&end=5", AskedError::Reversed),
            ("start=5&end=5", AskedError::Reversed),
            ("start=5&start=5", AskedError::Repeated { name: "start" }),
            ("start", AskedError::Instant { name: "start" }),
            ("start=5&end=%zz", AskedError::Instant { name: "end" }),
        ] {
            assert_eq!(parse(query), Err(error), "{query}");
        }
    }

    proptest! {
        #[test]
        fn what_it_prints_asks_for_the_same(start in 0_i64..4_000_000_000_000_000, length in proptest::option::of(1_i64..1_000_000_000)) {
            let end = length.map(|length| WallTime::from_micros(start + length));
            let asked = Asked { start: WallTime::from_micros(start), end };
            prop_assert_eq!(Asked::parse(Some(&asked.to_string())), Ok(Some(asked)));
        }

        #[test]
        fn no_query_is_too_strange(query in ".{0,80}") {
            let _ = Asked::parse(Some(&format!("start={query}")));
        }
    }
}
