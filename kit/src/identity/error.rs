//! Why the other side is not trusted: told by the side that refuses, with both times where it is a matter of time.

use jiff::Timestamp;

use super::Fingerprint;

/// Why a certificate of the other side is refused.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum TrustError {
    /// Somebody else answers at this address, or the other side has new keys.
    #[error(
        "wrong fingerprint: the key there is {found}, expected {expected}: another machine answers at this address, or its keys were made anew; if that is so, join it again"
    )]
    WrongKey {
        /// What was pinned.
        expected: Fingerprint,
        /// What came.
        found: Fingerprint,
    },
    /// By our clock. Its owner renews it whenever it runs.
    #[error(
        "the certificate of the other side ended at {ended}, and the clock here says {now}: set the clock that is wrong; if both are right, start the program there, which renews its certificate"
    )]
    Expired {
        /// The end of the certificate.
        ended: Timestamp,
        /// Our clock.
        now: Timestamp,
    },
    /// It is dated back a day, so the clocks are further apart than that.
    #[error(
        "the certificate of the other side begins at {begins}, and the clock here says {now}: the clocks are more than a day apart; set the one that is wrong"
    )]
    NotYet {
        /// The begin of the certificate.
        begins: Timestamp,
        /// Our clock.
        now: Timestamp,
    },
    /// No certificate of the kind that our programs make.
    #[error("the certificate of the other side cannot be used: {0}")]
    Unreadable(&'static str),
}
