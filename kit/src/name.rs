//! Names from outside: `[a-z0-9][a-z0-9._-]{0,62}` for images, data sets and label keys, and the name of a metric.

/// Why a text is no name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// Of an image, data set or label.
    #[error("`{0}` is not a name: 1 to 63 of a-z 0-9 . _ -, beginning with a letter or digit")]
    Name(String),
    /// Of a metric.
    #[error("`{0}` is not a metric's name: 1 to 64 of A-Z a-z 0-9 _ . / @ -")]
    Metric(String),
}

fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_default).collect()
}

/// Checks a name of an image, data set or label.
///
/// # Errors
/// [`NameError::Name`] with the text, escaped and cut.
pub fn check_name(text: &str) -> Result<(), NameError> {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let good = (1..=63).contains(&bytes.len())
        && ok(bytes[0])
        && bytes.iter().all(|b| ok(*b) || matches!(b, b'.' | b'_' | b'-'));
    if good { Ok(()) } else { Err(NameError::Name(shown(text))) }
}

/// Checks the name of a metric.
///
/// # Errors
/// [`NameError::Metric`] with the text, escaped and cut.
pub fn check_metric(text: &str) -> Result<(), NameError> {
    let good = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'@' | b'-'));
    if good { Ok(()) } else { Err(NameError::Metric(shown(text))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded() {
        assert!(check_name("wikitext-103-small").is_ok() && check_name("0").is_ok());
        assert!(check_metric("val/acc@1").is_ok());
        for wrong in ["", "-a", "A", "a/b", "..", "a\n", &"a".repeat(64), "é"] {
            assert!(check_name(wrong).is_err(), "{wrong:?}");
        }
        for wrong in ["", "a b", "a\n", &"a".repeat(65), "é"] {
            assert!(check_metric(wrong).is_err(), "{wrong:?}");
        }
    }
}
