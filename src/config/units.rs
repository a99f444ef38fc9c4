//! Turns amounts as people write them ("2s", "2.5Mbps", "64MiB") into integers, and back.
//!
//! Enters: text of a configuration, up to [`MAX_AMOUNT_BYTES`] long
//! Leaves: whole milliseconds, bits per second or bytes; printing then parsing gives the same value
//! Never:  floats, rounding: what has no exact value is refused
//! Spec:   docs/configuration.md

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

use std::time::Duration;

/// The longest amount that is read, in bytes: twenty digits, a point, as many again and a unit.
pub const MAX_AMOUNT_BYTES: usize = 48;

/// Why a text is no amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// No decimal number at the start.
    #[error("a number and a unit are expected, as in {example:?}")]
    NoNumber {
        /// An amount of this kind, well written.
        example: &'static str,
    },
    /// A unit that this kind of amount does not have, or none.
    #[error("the unit is one of {expected}, as in {example:?}")]
    Unit {
        /// The units there are, smallest first.
        expected: &'static str,
        /// An amount of this kind, well written.
        example: &'static str,
    },
    /// Finer than the smallest unit can hold.
    #[error("it is not a whole number of {smallest}")]
    TooFine {
        /// The smallest unit.
        smallest: &'static str,
    },
    /// More than 64 bits hold, or written with more than [`MAX_AMOUNT_BYTES`].
    #[error("the number is too large")]
    TooLarge,
}

/// A family of units over one smallest unit.
struct Family {
    /// Name and size of each unit in the smallest; the first is the smallest itself.
    units: &'static [(&'static str, u64)],
    /// The names, for a message.
    names: &'static str,
    /// An amount, for a message.
    example: &'static str,
}

const TIME: Family = Family {
    units: &[("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000)],
    names: "ms, s, min, h",
    example: "2s",
};

const RATE: Family = Family {
    units: &[
        ("bps", 1),
        ("kbps", 1_000),
        ("Mbps", 1_000_000),
        ("Gbps", 1_000_000_000),
    ],
    names: "bps, kbps, Mbps, Gbps",
    example: "2.5Mbps",
};

const SIZE: Family = Family {
    units: &[
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ],
    names: "B, KiB, MiB, GiB, TiB",
    example: "64MiB",
};

/// Reads a length of time: "333ms", "2s", "1.5min", "1h".
///
/// # Errors
/// If the text is no such amount, or not a whole number of milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    TIME.parse(text).map(Duration::from_millis)
}

/// Writes a length of time in the largest unit that holds it exactly; below a millisecond is cut off.
#[must_use]
pub fn print_duration(duration: Duration) -> String {
    TIME.print(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Reads a bit rate in bits per second: "64000bps", "800kbps", "2.5Mbps"; a kilobit is 1000 bits.
///
/// # Errors
/// If the text is no such amount, or not a whole number of bits per second.
pub fn parse_bit_rate(text: &str) -> Result<u64, UnitError> {
    RATE.parse(text)
}

/// Writes bits per second in the largest unit that holds them as a whole or with one decimal.
#[must_use]
pub fn print_bit_rate(bps: u64) -> String {
    RATE.print(bps)
}

/// Reads a size in bytes: "512B", "8MiB", "1.5GiB"; a KiB is 1024 bytes.
///
/// # Errors
/// If the text is no such amount, or not a whole number of bytes.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    SIZE.parse(text)
}

/// Writes bytes in the largest unit that holds them exactly.
#[must_use]
pub fn print_size(bytes: u64) -> String {
    SIZE.print(bytes)
}

impl Family {
    fn parse(&self, text: &str) -> Result<u64, UnitError> {
        if text.len() > MAX_AMOUNT_BYTES {
            return Err(UnitError::TooLarge);
        }
        let text = text.trim();
        let unit_at = text
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(unit_at);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let pointed = number.contains('.');
        if whole.is_empty() || fraction.contains('.') || (pointed && fraction.is_empty()) {
            return Err(UnitError::NoNumber {
                example: self.example,
            });
        }
        let unit = unit.trim_start();
        let Some(&(_, scale)) = self.units.iter().find(|(name, _)| *name == unit) else {
            return Err(UnitError::Unit {
                expected: self.names,
                example: self.example,
            });
        };
        let whole = decimal(whole).and_then(|whole| whole.checked_mul(u128::from(scale)));
        let fraction = self.fraction(fraction, scale)?;
        whole
            .and_then(|whole| whole.checked_add(fraction))
            .and_then(|value| u64::try_from(value).ok())
            .ok_or(UnitError::TooLarge)
    }

    /// The value of the digits after the point. Digits too many to compute with are finer than any
    /// smallest unit, because no unit is larger than 2^40 of them.
    fn fraction(&self, digits: &str, scale: u64) -> Result<u128, UnitError> {
        let digits = digits.trim_end_matches('0');
        if digits.is_empty() {
            return Ok(0);
        }
        let divisor = u32::try_from(digits.len())
            .ok()
            .and_then(|places| 10_u128.checked_pow(places));
        let scaled = decimal(digits).and_then(|value| value.checked_mul(u128::from(scale)));
        match (scaled, divisor) {
            (Some(scaled), Some(divisor)) if scaled % divisor == 0 => Ok(scaled / divisor),
            _ => Err(UnitError::TooFine {
                smallest: self.smallest(),
            }),
        }
    }

    fn smallest(&self) -> &'static str {
        self.units.first().map_or("", |(name, _)| name)
    }

    fn print(&self, value: u64) -> String {
        if value == 0 {
            // Zero fits every unit; the customary one is the example's neighbour, the second.
            let unit = self.units.get(1).map_or("", |(name, _)| name);
            return format!("0{unit}");
        }
        let mut printed = format!("{value}{}", self.smallest());
        for (name, scale) in self.units {
            if value.is_multiple_of(*scale) {
                printed = format!("{}{name}", value / scale);
            } else if scale % 10 == 0 && value > *scale && value.is_multiple_of(scale / 10) {
                printed = format!("{}.{}{name}", value / scale, value % scale / (scale / 10));
            }
        }
        printed
    }
}

/// The value of up to 38 decimal digits.
fn decimal(digits: &str) -> Option<u128> {
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        for (text, ms) in [
            ("2s", 2_000),
            ("333ms", 333),
            ("1.5s", 1_500),
            ("0.333s", 333),
            ("1.5min", 90_000),
            ("1h", 3_600_000),
            ("10 s", 10_000),
            ("2.000s", 2_000),
            ("0ms", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
        }
        assert_eq!(parse_bit_rate("2.5Mbps"), Ok(2_500_000));
        assert_eq!(parse_bit_rate("64000bps"), Ok(64_000));
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("1.5KiB"), Ok(1_536));
    }

    #[test]
    fn what_has_no_exact_value_is_refused_with_the_reason() {
        let no_number = UnitError::NoNumber { example: "2s" };
        let unit = UnitError::Unit {
            expected: TIME.names,
            example: "2s",
        };
        let too_fine = UnitError::TooFine { smallest: "ms" };
        for (text, why) in [
            ("", &no_number),
            ("s", &no_number),
            ("-2s", &no_number),
            (".5s", &no_number),
            ("2.s", &no_number),
            ("1.2.3s", &no_number),
            ("2", &unit),
            ("2S", &unit),
            ("2 seconds", &unit),
            ("1e3s", &unit),
            ("2ſ", &unit),
            ("0.5ms", &too_fine),
            ("0.3333s", &too_fine),
            ("0.000000000000000000000000000000000001s", &too_fine),
            ("18446744073709551616ms", &UnitError::TooLarge),
            ("18446744073709551615.5h", &UnitError::TooLarge),
            (&"9".repeat(60), &UnitError::TooLarge),
        ] {
            assert_eq!(parse_duration(text).as_ref(), Err(why), "{text}");
        }
    }

    #[test]
    fn the_largest_exact_unit_is_printed() {
        for (ms, text) in [
            (0, "0s"),
            (333, "333ms"),
            (1_000, "1s"),
            (1_500, "1.5s"),
            (1_510, "1510ms"),
            (90_000, "1.5min"),
            (7_200_000, "2h"),
        ] {
            assert_eq!(print_duration(Duration::from_millis(ms)), text);
        }
        assert_eq!(print_bit_rate(2_500_000), "2.5Mbps");
        assert_eq!(print_bit_rate(128_000), "128kbps");
        assert_eq!(print_size(8 << 20), "8MiB");
        assert_eq!(print_size(1_500), "1500B");
    }

    proptest! {
        #[test]
        fn parse_undoes_print(value: u64) {
            prop_assert_eq!(
                parse_duration(&print_duration(Duration::from_millis(value))),
                Ok(Duration::from_millis(value))
            );
            prop_assert_eq!(parse_bit_rate(&print_bit_rate(value)), Ok(value));
            prop_assert_eq!(parse_size(&print_size(value)), Ok(value));
        }

        #[test]
        fn parse_undoes_print_near_round_values(value in 0_u64..10_000, scale in 0_u32..9) {
            let value = value * 10_u64.pow(scale);
            prop_assert_eq!(parse_bit_rate(&print_bit_rate(value)), Ok(value));
            prop_assert_eq!(
                parse_duration(&print_duration(Duration::from_millis(value))),
                Ok(Duration::from_millis(value))
            );
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,50}") {
            let _ = parse_duration(&text);
            let _ = parse_bit_rate(&text);
            let _ = parse_size(&text);
        }
    }
}
