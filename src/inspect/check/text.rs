//! Reads numbers, dates and addresses out of text.
//!
//! Enters: text from anyone
//! Leaves: integers; microseconds for time
//! Never:  floats, panics
//! Time:   microseconds since the Unix epoch
//! Spec:   [HLS] §4.2, [DASH] §5.3.1.2 (`xs:dateTime`, `xs:duration`), [RFC3986] §5.2

/// Microseconds in a second.
pub(super) const SECOND_US: i64 = 1_000_000;

/// A decimal number of seconds, in microseconds, digits beyond the sixth dropped.
pub(super) fn parse_seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    if !(whole.bytes().chain(fraction.bytes())).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole: i64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
    whole
        .checked_mul(SECOND_US)?
        .checked_add(digits.parse().ok()?)
}

/// An `xs:dateTime` with a zone, or without one taken as UTC; in microseconds since the Unix epoch.
#[must_use]
pub fn parse_date(text: &str) -> Option<i64> {
    let (date, time) = text.trim().split_once('T')?;
    let mut fields = date.splitn(3, '-');
    let mut number = || fields.next()?.parse::<i64>().ok();
    let (year, month, day) = (number()?, number()?, number()?);
    if !(1..=9_999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (clock, offset_s) = split_zone(time)?;
    let mut fields = clock.splitn(3, ':');
    let hour: i64 = fields.next()?.parse().ok()?;
    let minute: i64 = fields.next()?.parse().ok()?;
    let second_us = parse_seconds(fields.next()?)?;
    if !(0..=24).contains(&hour) || !(0..=59).contains(&minute) || second_us > 60 * SECOND_US {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 - offset_s;
    Some(seconds * SECOND_US + second_us)
}

/// The clock and its zone in seconds east of UTC.
fn split_zone(time: &str) -> Option<(&str, i64)> {
    if let Some(clock) = time.strip_suffix('Z') {
        return Some((clock, 0));
    }
    let Some(at) = time.rfind(['+', '-']) else {
        return Some((time, 0));
    };
    let (clock, zone) = time.split_at(at);
    let (sign, digits) = match zone.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, zone.strip_prefix('+')?),
    };
    let digits: String = digits.chars().filter(|c| *c != ':').collect();
    let zone: i64 = digits.parse().ok()?;
    (digits.len() == 4).then_some((clock, sign * (zone / 100 * 3_600 + zone % 100 * 60)))
}

/// Days from the Unix epoch to a date of the Gregorian calendar.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is the last of its year.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let month = (month + 9) % 12;
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// An `xs:duration` of days and less, in microseconds.
pub(super) fn parse_duration(text: &str) -> Option<i64> {
    let text = text.trim().strip_prefix('P')?;
    let (days, time) = text.split_once('T').unwrap_or((text, ""));
    let mut total = 0_i64;
    for (part, units) in [
        (days, &[('D', 86_400)][..]),
        (time, &[('H', 3_600), ('M', 60), ('S', 1)]),
    ] {
        let mut rest = part;
        for (unit, seconds) in units {
            if let Some((number, after)) = rest.split_once(*unit) {
                let value = parse_seconds(number)?.checked_mul(*seconds)?;
                total = total.checked_add(value)?;
                rest = after;
            }
        }
        if !rest.is_empty() {
            return None;
        }
    }
    Some(total)
}

/// `ticks` of `timescale` in microseconds, rounded down.
pub(super) fn micros(ticks: i128, timescale: u32) -> i64 {
    let scaled = (ticks * i128::from(SECOND_US)).div_euclid(i128::from(timescale.max(1)));
    i64::try_from(scaled).unwrap_or(if scaled < 0 { i64::MIN } else { i64::MAX })
}

/// Prints microseconds as seconds.
pub(super) fn seconds(us: i64) -> String {
    let sign = if us < 0 { "-" } else { "" };
    let us = us.unsigned_abs();
    format!("{sign}{}.{:06} s", us / 1_000_000, us % 1_000_000)
}

/// The address that `reference` means when it stands in the document at `base`.
#[must_use]
pub fn join(base: &str, reference: &str) -> String {
    if reference.contains("://") {
        return reference.to_owned();
    }
    let (scheme, rest) = base.split_once("://").map_or(("", base), |(s, r)| (s, r));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = match (scheme.is_empty(), rest.find('/')) {
        (true, _) => ("", rest),
        (false, Some(at)) => rest.split_at(at),
        (false, None) => (rest, "/"),
    };
    let joined = if reference.starts_with('/') {
        reference.to_owned()
    } else {
        let folder = path.rfind('/').map_or("", |at| path.split_at(at + 1).0);
        format!("{folder}{reference}")
    };
    let path = without_dots(&joined);
    if scheme.is_empty() {
        path
    } else {
        format!("{scheme}://{host}{path}")
    }
}

/// What a rendition is called after the address of its playlist: the folder of an `index.m3u8`, else the
/// folder and the file.
#[must_use]
pub fn listing_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let mut pieces = path.rsplit('/');
    let file = pieces.next().unwrap_or_default();
    let folder = pieces.next().unwrap_or_default();
    if file == "index.m3u8" {
        folder.to_owned()
    } else {
        format!("{folder}/{file}")
    }
}

fn without_dots(path: &str) -> String {
    let (path, query) = path
        .split_once('?')
        .map_or((path, None), |(p, q)| (p, Some(q)));
    let mut kept: Vec<&str> = Vec::new();
    for piece in path.split('/') {
        match piece {
            "." => {}
            ".." if kept.len() > usize::from(path.starts_with('/')) => drop(kept.pop()),
            ".." if path.starts_with('/') => {}
            piece => kept.push(piece),
        }
    }
    let path = kept.join("/");
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_dates_and_durations_are_read() {
        for (text, us) in [
            ("2", Some(2_000_000)),
            ("1.92", Some(1_920_000)),
            ("0.0333339", Some(33_333)),
            ("-1", None),
            (".", None),
            ("1e3", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_seconds(text), us, "{text}");
        }
        for (text, us) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T00:00:02.5Z", Some(2_500_000)),
            ("2026-11-20T14:05:55.123Z", Some(1_795_183_555_123_000)),
            ("2026-11-20T15:05:55.123+01:00", Some(1_795_183_555_123_000)),
            ("2026-11-20T10:35:55.123-0330", Some(1_795_183_555_123_000)),
            ("2026-13-20T14:05:55Z", None),
            ("now", None),
        ] {
            assert_eq!(parse_date(text), us, "{text}");
        }
        for (text, us) in [
            ("PT2S", Some(2_000_000)),
            ("PT1M1.5S", Some(61_500_000)),
            ("P1DT1H", Some(90_000_000_000)),
            ("PT0S", Some(0)),
            ("2S", None),
            ("PTX", None),
        ] {
            assert_eq!(parse_duration(text), us, "{text}");
        }
    }

    #[test]
    fn references_are_resolved() {
        for (base, reference, whole) in [
            (
                "http://h:1/live/a/index.m3u8?x=/y",
                "v/index.m3u8",
                "http://h:1/live/a/v/index.m3u8",
            ),
            (
                "http://h/live/a/v/index.m3u8",
                "../w/index.m3u8",
                "http://h/live/a/w/index.m3u8",
            ),
            ("http://h/live/a/v/index.m3u8", "/time", "http://h/time"),
            ("http://h", "a.mpd", "http://h/a.mpd"),
            ("http://h/x", "http://g/y", "http://g/y"),
            ("data/live/a/index.m3u8", "v/1.m4s", "data/live/a/v/1.m4s"),
            ("http://h/a", "../../../b", "http://h/b"),
        ] {
            assert_eq!(join(base, reference), whole);
        }
    }
}
