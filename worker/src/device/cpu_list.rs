//! A set of CPUs as the kernel writes it: `0-3,8`.

use std::{fmt, str::FromStr};

/// CPU numbers, in order, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuList(Vec<u32>);

/// The text is no list of CPUs.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no list of CPUs like `0-3,8`")]
pub struct ParseCpuListError(String);

/// No machine has more, and a range from outside must not fill the memory.
const CPU_MAX: u32 = 65_535;

impl CpuList {
    /// Of numbers in any order.
    #[must_use]
    pub fn new(mut numbers: Vec<u32>) -> Self {
        numbers.sort_unstable();
        numbers.dedup();
        Self(numbers)
    }

    /// In order.
    #[must_use]
    pub fn numbers(&self) -> &[u32] {
        &self.0
    }
}

impl FromStr for CpuList {
    type Err = ParseCpuListError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseCpuListError(text.chars().take(80).collect());
        let mut numbers = Vec::new();
        for part in text.trim().split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: u32 = first.parse().map_err(|_| wrong())?;
            let last: u32 = last.parse().map_err(|_| wrong())?;
            if first > last || last > CPU_MAX {
                return Err(wrong());
            }
            numbers.extend(first..=last);
        }
        Ok(Self::new(numbers))
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_slice();
        let mut comma = "";
        while let Some(&first) = rest.first() {
            let run = rest.iter().zip(first..).take_while(|(number, expected)| **number == *expected).count();
            let last = rest[run - 1];
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
            comma = ",";
            rest = &rest[run..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_what_the_kernel_does() {
        for text in ["0", "0-1", "0-3,8", "2,4,6-7"] {
            assert_eq!(text.parse::<CpuList>().unwrap().to_string(), text);
        }
        assert_eq!("3,1-2\n".parse::<CpuList>().unwrap().numbers(), [1, 2, 3]);
        for wrong in ["", "a", "3-1", "0-4000000000", "-1", "1,,2"] {
            assert!(wrong.parse::<CpuList>().is_err(), "{wrong}");
        }
    }
}
