//! Prints the values of an MPD's attributes.
//!
//! Enters: numbers, rates and instants
//! Leaves: their text as XML Schema and DASH have it, shortest
//! Never:  elements; what they say
//! Time:   each type names the unit that it is given
//! Spec:   [DASH] §5.3

use std::fmt::{self, Display, Write};

use crate::time::{FrameRate, WallTime};

/// Prints a rate as DASH wants it: `30` or `30000/1001`.
pub(in crate::package) struct Rate(pub(in crate::package) FrameRate);

impl Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (num, den) = (self.0.num(), self.0.den());
        match u32::try_from(gcd(num.into(), den.into())) {
            Ok(common) if common == den => write!(f, "{}", num / den),
            Ok(common) if common > 0 => write!(f, "{}/{}", num / common, den / common),
            _ => write!(f, "{num}/{den}"),
        }
    }
}

/// Prints milliseconds as `xs:duration`: `PT2S`, `PT1.92S`.
#[derive(Clone, Copy)]
pub(in crate::package) struct Period(pub(in crate::package) u64);

impl Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PT{}S", Seconds(self.0))
    }
}

/// Prints microseconds as `xs:duration`: `PT1795180620.0213S`.
#[derive(Clone, Copy)]
pub(in crate::package) struct Micros(pub(in crate::package) i64);

impl Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.max(0);
        let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
        if micros == 0 {
            return write!(f, "PT{seconds}S");
        }
        let fraction = format!("{micros:06}");
        write!(f, "PT{seconds}.{}S", fraction.trim_end_matches('0'))
    }
}

/// Prints milliseconds as seconds: `2`, `1.92`.
#[derive(Clone, Copy)]
pub(in crate::package) struct Seconds(pub(in crate::package) u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0 / 1_000, self.0 % 1_000);
        if millis == 0 {
            return write!(f, "{seconds}");
        }
        let fraction = format!("{millis:03}");
        write!(f, "{seconds}.{}", fraction.trim_end_matches('0'))
    }
}

/// Prints an instant on a whole second as `xs:dateTime` without a fraction.
pub(in crate::package) struct WholeSecond(pub(in crate::package) WallTime);

impl Display for WholeSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match text.strip_suffix(".000Z") {
            Some(seconds) => write!(f, "{seconds}Z"),
            None => f.write_str(&text),
        }
    }
}

/// Prints text as the value of an attribute.
pub(in crate::package) struct Escaped<'a>(pub(in crate::package) &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// The greatest common divisor.
pub(in crate::package) const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_rates_print_shortest() {
        for (millis, text) in [(2_000, "PT2S"), (1_920, "PT1.92S"), (5, "PT0.005S")] {
            assert_eq!(Period(millis).to_string(), text);
        }
        for (num, den, text) in [(30, 1, "30"), (30_000, 1_001, "30000/1001"), (50, 2, "25")] {
            let rate = FrameRate::new(num, den).expect("valid");
            assert_eq!(Rate(rate).to_string(), text);
        }
    }

    #[test]
    fn attributes_are_escaped() {
        assert_eq!(Escaped("a<\"&>").to_string(), "a&lt;&quot;&amp;&gt;");
    }
}
