//! One-time secrets: 160 random bits, shown once inside a text that is copied, kept only as a hash.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The bytes of a secret.
pub(super) const BYTES: usize = 20;

/// A one-time secret. Debug does not show it.
#[derive(Clone)]
pub struct Secret([u8; BYTES]);

impl Secret {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        Self(rand::random())
    }

    /// From what came over a connection.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// To be sent, over a connection whose other end is known.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// In hexadecimal digits, for a line of text.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// From hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 2 * BYTES || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let bytes: Option<Vec<u8>> =
            (0..BYTES).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()).collect();
        Self::from_bytes(&bytes?)
    }

    /// What is kept of it. With 160 random bits behind it nothing slower is needed.
    pub(super) fn hash(&self) -> Hash {
        Hash(Sha256::digest(self.0).into())
    }
}

impl Default for Secret {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The hash of a secret.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hash([u8; 32]);

impl Hash {
    pub(super) fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// In constant time.
    pub(super) fn is(&self, hex: &str) -> bool {
        self.hex().as_bytes().ct_eq(hex.as_bytes()).into()
    }
}
