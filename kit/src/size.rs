//! Byte counts as people write them: a number and a unit, binary (`KiB`, `MiB`, `GiB`, `TiB`) or decimal
//! (`kB`, `MB`, `GB`, `TB`); a bare `K`, `M`, `G`, `T` is binary, as `docker run` has it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A positive number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(pub u64);

/// Why a text is no size.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseBytesError {
    /// Not a number followed by a unit.
    #[error("`{0}` is not a size: write a number and a unit, like `256MiB`, `4GiB` or `500MB`")]
    Form(String),
    /// Zero, or over 8 EiB.
    #[error("`{0}` is out of range: a size is at least 1 byte and less than 8 EiB")]
    Range(String),
}

impl FromStr for Bytes {
    type Err = ParseBytesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown: String = text.chars().take(40).collect();
        let form = || ParseBytesError::Form(shown.clone());
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let number: f64 = text[..digits].parse().map_err(|_| form())?;
        let unit: f64 = match text[digits..].trim() {
            "B" | "b" => 1.0,
            "K" | "k" | "KiB" => 1024.0,
            "M" | "m" | "MiB" => 1024f64.powi(2),
            "G" | "g" | "GiB" => 1024f64.powi(3),
            "T" | "t" | "TiB" => 1024f64.powi(4),
            "kB" | "KB" => 1e3,
            "MB" => 1e6,
            "GB" => 1e9,
            "TB" => 1e12,
            _ => return Err(form()),
        };
        let bytes = (number * unit).round();
        if !(1.0..9.2e18).contains(&bytes) {
            return Err(ParseBytesError::Range(shown));
        }
        Ok(Self(bytes as u64))
    }
}

impl fmt::Display for Bytes {
    /// The largest unit that leaves at most one decimal without loss, else the nearest tenth.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        for (unit, shift) in units {
            if self.0 >= 1 << shift {
                return if self.0.is_multiple_of(1 << shift) {
                    write!(f, "{}{unit}", self.0 >> shift)
                } else {
                    write!(f, "{:.1}{unit}", self.0 as f64 / (1u64 << shift) as f64)
                };
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl TryFrom<String> for Bytes {
    type Error = ParseBytesError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> Self {
        bytes.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let bytes = |text: &str| text.parse::<Bytes>().map(|b| b.0);
        assert_eq!(bytes("256MiB"), Ok(256 << 20));
        assert_eq!(bytes("4g"), Ok(4 << 30));
        assert_eq!(bytes("1.5 GiB"), Ok(3 << 29));
        assert_eq!(bytes("500MB"), Ok(500_000_000));
        for wrong in ["", "8x", "12", "-1", "-1MiB", "NaN", "infGiB", "MiB"] {
            assert!(matches!(bytes(wrong), Err(ParseBytesError::Form(_))), "{wrong}");
        }
        for wrong in ["0B", "0.1B", "99999999TiB"] {
            assert!(matches!(bytes(wrong), Err(ParseBytesError::Range(_))), "{wrong}");
        }
        assert_eq!(Bytes(256 << 20).to_string(), "256MiB");
        assert_eq!(Bytes(1).to_string(), "1B");
    }
}
