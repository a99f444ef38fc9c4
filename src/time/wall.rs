//! The wall clock as a type, and as text.
//!
//! Enters: microseconds since the Unix epoch, or RFC 3339 text
//! Leaves: [`WallTime`]: dates of the proleptic Gregorian calendar, in UTC
//! Never:  reads a clock; leap seconds, time zones
//! Time:   microseconds since the Unix epoch
//! Spec:   [RFC3339] §5.6

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{Ticks, Timescale, saturate};

/// An instant of UTC, in microseconds since the Unix epoch. Prints as RFC 3339 with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime {
    micros: i64,
}

impl WallTime {
    /// The instant `micros` microseconds after the epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self { micros }
    }

    /// The instant `since_epoch` after the epoch; saturates in the year 294247.
    #[must_use]
    pub fn from_epoch(since_epoch: Duration) -> Self {
        Self {
            micros: i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX),
        }
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.micros
    }

    /// Milliseconds since the epoch, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.micros.div_euclid(1_000)
    }

    /// The instant so long before; saturates.
    #[must_use]
    pub fn before(self, length: Duration) -> Self {
        let micros = Self::from_epoch(length).micros;
        Self::from_micros(self.micros.saturating_sub(micros))
    }

    /// The instant so long after; saturates.
    #[must_use]
    pub fn after(self, length: Duration) -> Self {
        let micros = Self::from_epoch(length).micros;
        Self::from_micros(self.micros.saturating_add(micros))
    }

    /// The nearest position on a track of `scale`.
    #[must_use]
    pub fn to_ticks(self, scale: Timescale) -> Ticks {
        let n = i128::from(self.micros) * i128::from(scale.get());
        saturate((2 * n + 1_000_000).div_euclid(2_000_000))
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.as_millis();
        let (days, in_day) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
        let (year, month, day) = civil_from_days(days);
        let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
        let (second, milli) = (in_day / 1_000 % 60, in_day % 1_000);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"
        )
    }
}

/// The text is no instant of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an instant reads 2026-11-20T13:17:02.000Z")]
pub struct WallTimeError;

impl FromStr for WallTime {
    type Err = WallTimeError;

    /// Reads what [`WallTime`] prints: RFC 3339 with milliseconds, in UTC.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (date, time) = text
            .strip_suffix('Z')
            .and_then(|text| text.split_once('T'))
            .ok_or(WallTimeError)?;
        let (time, milli) = time.split_once('.').ok_or(WallTimeError)?;
        let [year, month, day] = numbers(date, '-')?;
        let [hour, minute, second] = numbers(time, ':')?;
        let milli = number(milli)?;
        let valid = (0..=9_999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=31).contains(&day)
            && hour < 24
            && minute < 60
            && second < 61
            && milli < 1_000;
        if !valid {
            return Err(WallTimeError);
        }
        let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60;
        Ok(Self::from_micros(
            ((seconds + second) * 1_000 + milli) * 1_000,
        ))
    }
}

/// Three numbers with `separator` between them.
fn numbers(text: &str, separator: char) -> Result<[i64; 3], WallTimeError> {
    let mut pieces = text.split(separator);
    let mut next = || pieces.next().ok_or(WallTimeError).and_then(number);
    let found = [next()?, next()?, next()?];
    pieces.next().map_or(Ok(found), |_| Err(WallTimeError))
}

/// A number of at most four digits and nothing else.
fn number(text: &str) -> Result<i64, WallTimeError> {
    let digits = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits {
        text.parse().map_err(|_| WallTimeError)
    } else {
        Err(WallTimeError)
    }
}

/// The day, counted from 1970-01-01, of a proleptic Gregorian date: the inverse of [`civil_from_days`].
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year_from_march = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let era = year_from_march.div_euclid(400);
    let year_of_era = year_from_march.rem_euclid(400);
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The proleptic Gregorian date of a day counted from 1970-01-01. Counts in eras of 400 years that
/// begin on 1 March, so that the leap day is the last of its year.
const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_and_after_saturate() {
        let (at, length) = (WallTime::from_micros(5), Duration::from_micros(7));
        assert_eq!(at.before(length), WallTime::from_micros(-2));
        assert_eq!(at.after(length), WallTime::from_micros(12));
        let most = WallTime::from_micros(i64::MAX);
        assert_eq!(at.after(Duration::MAX), most);
        assert_eq!(
            at.before(Duration::MAX).before(Duration::MAX),
            WallTime::from_micros(i64::MIN)
        );
    }

    #[test]
    fn wall_time_prints_rfc_3339() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_123, "2000-02-29T00:00:00.123Z"),
            (1_795_132_799_999, "2026-11-19T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            let time = WallTime::from_micros(millis * 1_000);
            assert_eq!(time.to_string(), text);
            assert_eq!(text.parse(), Ok(time));
        }
        for text in [
            "",
            "2026-11-19",
            "2026-11-19T23:59:59Z",
            "2026-13-19T23:59:59.000Z",
            "2026-11-19T23:59:59.000+01:00",
            "2026-11-19-1T23:59:59.000Z",
            "99999-11-19T23:59:59.000Z",
        ] {
            assert_eq!(text.parse::<WallTime>(), Err(WallTimeError), "{text}");
        }
    }
}
