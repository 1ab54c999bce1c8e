//! Seals: 8 bytes of a SHA-256 beside each body that a conclusion rests on. SQLite keeps no checksums, so a bit that
//! flips inside a body would be read as good without them. Also the limits on what a body may weigh.

use kit::digest::Digest;
use serde::de::DeserializeOwned;

use super::error::JournalError;

/// Of a question (DESIGN §8: 16 KiB on standard input).
pub(super) const QUESTION_MAX: usize = 16 << 10;
/// Of a plan, a step, a request, a reply, a result, settings.
pub(super) const BODY_MAX: usize = 8 << 20;
/// Of a program's source.
pub(super) const SOURCE_MAX: usize = 4 << 20;
/// Of a start request; the protocol's message is no larger.
pub(super) const SPEC_MAX: usize = 4 << 20;
/// Of a word, a name, an address.
pub(super) const NAME_MAX: usize = 512;
/// Of a reason or a message, which is cut and never refused.
pub(super) const MESSAGE_MAX: usize = 4 << 10;

/// The seal of a body. As an integer, because it is compared and never computed with.
pub(super) fn seal(body: &[u8]) -> i64 {
    let digest = Digest::of(body).hex();
    // 16 hexadecimal digits always fit.
    u64::from_str_radix(&digest[..16], 16).unwrap_or_default().cast_signed()
}

/// Compares a body with its seal.
pub(super) fn check(what: &str, body: &[u8], expected: i64) -> Result<(), rusqlite::Error> {
    if seal(body) == expected {
        return Ok(());
    }
    Err(rusqlite::Error::FromSqlConversionFailure(
        0,
        rusqlite::types::Type::Blob,
        format!("the {what} is not what was written").into(),
    ))
}

/// Refuses what is over its limit.
pub(super) fn bounded(what: &'static str, bytes: &[u8], longest: usize) -> Result<(), JournalError> {
    if bytes.len() > longest {
        return Err(JournalError::TooLarge { what, bytes: bytes.len(), longest });
    }
    Ok(())
}

/// Cuts a message where a character ends.
pub(super) fn cut(text: &str) -> String {
    let mut end = text.len().min(MESSAGE_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// A value as the text that is stored.
pub(super) fn to_text(what: &'static str, value: &serde_json::Value) -> Result<String, JournalError> {
    let text = value.to_string();
    bounded(what, text.as_bytes(), BODY_MAX)?;
    Ok(text)
}

/// A stored text as a value.
pub(super) fn from_text<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, JournalError> {
    serde_json::from_str(text).map_err(|source| JournalError::Json { what, source })
}
