//! Values of flags and configuration keys that name what is wrong with them: counts, money, CPUs.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A whole number from 1 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Count(pub u32);

impl FromStr for Count {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim().parse::<u32>() {
            Ok(0) | Err(_) => Err(format!("`{}` is not a whole number from 1 on", shown(text))),
            Ok(count) => Ok(Self(count)),
        }
    }
}

impl TryFrom<u32> for Count {
    type Error = String;
    fn try_from(count: u32) -> Result<Self, Self::Error> {
        if count == 0 { Err("0 is not a whole number from 1 on".to_owned()) } else { Ok(Self(count)) }
    }
}

impl From<Count> for u32 {
    fn from(count: Count) -> Self {
        count.0
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// US dollars over zero, kept in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "DollarsText", into = "String")]
pub struct Dollars(pub u64);

#[derive(Deserialize)]
#[serde(untagged)]
enum DollarsText {
    Text(String),
    Number(f64),
}

impl TryFrom<DollarsText> for Dollars {
    type Error = String;
    fn try_from(text: DollarsText) -> Result<Self, Self::Error> {
        match text {
            DollarsText::Text(text) => text.parse(),
            DollarsText::Number(number) => number.to_string().parse(),
        }
    }
}

impl FromStr for Dollars {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!(
                "`{}` is not an amount of US dollars: write a number over 0, like `20` or `0.50`",
                shown(text)
            )
        };
        let number: f64 = text.trim().trim_start_matches('$').parse().map_err(|_| wrong())?;
        let micro = (number * 1e6).round();
        if (1.0..1e15).contains(&micro) { Ok(Self(micro as u64)) } else { Err(wrong()) }
    }
}

impl From<Dollars> for String {
    fn from(dollars: Dollars) -> Self {
        dollars.to_string()
    }
}

impl fmt::Display for Dollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}", self.0 as f64 / 1e6)
    }
}

/// A share of CPUs, kept in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpus(pub u32);

impl FromStr for Cpus {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            || format!("`{}` is not a number of CPUs: write a number over 0, like `2` or `0.5`", shown(text));
        let number: f64 = text.trim().parse().map_err(|_| wrong())?;
        let millis = (number * 1e3).round();
        if (1.0..=1e6).contains(&millis) { Ok(Self(millis as u32)) } else { Err(wrong()) }
    }
}

fn shown(text: &str) -> String {
    kit::text::one_line(text, 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_values_are_named() {
        for wrong in ["0", "-1", "NaN", "8x", "", "1.5", "99999999999"] {
            assert!(wrong.parse::<Count>().is_err(), "{wrong}");
        }
        for wrong in ["0", "-1", "NaN", "8x", "", "inf", "0.0000001"] {
            assert!(wrong.parse::<Dollars>().unwrap_err().contains("US dollars"), "{wrong}");
            assert!(wrong.parse::<Cpus>().unwrap_err().contains("CPUs"), "{wrong}");
        }
        assert_eq!("$20".parse(), Ok(Dollars(20_000_000)));
        assert_eq!("0.5".parse(), Ok(Cpus(500)));
        assert_eq!("3".parse(), Ok(Count(3)));
    }
}
