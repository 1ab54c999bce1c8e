//! Durations as people write them: a number and a unit (`ms`, `s`, `m`, `h`, `d`), several in a row (`1h30m`).

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// A positive, finite span of time, parsed from and shown in units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

/// Why a text is no span.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseSpanError {
    /// Not a number followed by a unit.
    #[error(
        "`{0}` is not a duration: write a number and a unit (ms, s, m, h, d), like `90s`, `8h` or `1h30m`"
    )]
    Form(String),
    /// Zero, or over 3,650 days.
    #[error("`{0}` is out of range: a duration is over 0 and at most 3650d")]
    Range(String),
}

const LONGEST: f64 = 3650.0 * 86400.0;

impl FromStr for Span {
    type Err = ParseSpanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown: String = text.chars().take(40).collect();
        let form = || ParseSpanError::Form(shown.clone());
        let mut rest = text.trim();
        let mut seconds = 0.0;
        if rest.is_empty() {
            return Err(form());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let number: f64 = rest[..digits].parse().map_err(|_| form())?;
            rest = &rest[digits..];
            let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            seconds += number
                * match &rest[..letters] {
                    "ms" => 0.001,
                    "s" => 1.0,
                    "m" | "min" => 60.0,
                    "h" => 3600.0,
                    "d" => 86400.0,
                    _ => return Err(form()),
                };
            rest = &rest[letters..];
        }
        if !(0.001..=LONGEST).contains(&seconds) {
            return Err(ParseSpanError::Range(shown));
        }
        Ok(Self(Duration::from_millis((seconds * 1000.0).round() as u64)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.as_millis();
        if total < 1000 {
            return write!(f, "{total}ms");
        }
        let (mut rest, mut any) = (total, false);
        for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
            if rest >= size {
                write!(f, "{}{unit}", rest / size)?;
                rest %= size;
                any = true;
            }
        }
        if any { Ok(()) } else { f.write_str("0s") }
    }
}

impl TryFrom<String> for Span {
    type Error = ParseSpanError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let seconds = |text: &str| text.parse::<Span>().map(|s| s.0.as_secs_f64());
        assert_eq!(seconds("90s"), Ok(90.0));
        assert_eq!(seconds("1h30m"), Ok(5400.0));
        assert_eq!(seconds("0.5h"), Ok(1800.0));
        assert_eq!(seconds("250ms"), Ok(0.25));
        for wrong in ["", "8x", "8", "-1", "-1h", "NaN", "inf", "h", "1h-3m", "1..2s", "8 h x"] {
            assert!(matches!(wrong.parse::<Span>(), Err(ParseSpanError::Form(_))), "{wrong}");
        }
        for wrong in ["0s", "0h", "4000d", "0.0001s"] {
            assert!(matches!(wrong.parse::<Span>(), Err(ParseSpanError::Range(_))), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn shows_what_it_reads(ms in 1u64..400_000_000) {
            let span = Span(Duration::from_millis(ms));
            proptest::prop_assert_eq!(span.to_string().parse(), Ok(span));
        }
    }
}
