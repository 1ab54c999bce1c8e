//! A certificate of the other side: which key, from when to when. Its names and its own signature say nothing here.

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_cert::der::{Decode as _, Encode as _};

use super::{Fingerprint, TrustError};

/// Ours have about 400 bytes.
const LONGEST: usize = 4096;

/// What of a certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certificate {
    /// Of its key.
    pub fingerprint: Fingerprint,
    /// From when.
    pub begins: Timestamp,
    /// Until when.
    pub ends: Timestamp,
}

impl Certificate {
    /// Reads one.
    ///
    /// # Errors
    /// [`TrustError::Unreadable`].
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, TrustError> {
        if der.len() > LONGEST {
            return Err(TrustError::Unreadable("it is too long"));
        }
        let parsed = x509_cert::Certificate::from_der(der)
            .map_err(|_| TrustError::Unreadable("it is no X.509 certificate"))?;
        let signed = &parsed.tbs_certificate;
        let key = signed
            .subject_public_key_info
            .to_der()
            .map_err(|_| TrustError::Unreadable("its key cannot be read"))?;
        let time = |time: x509_cert::time::Time| {
            let seconds = i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
            Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
        };
        Ok(Self {
            fingerprint: Fingerprint::of_key(&key),
            begins: time(signed.validity.not_before),
            ends: time(signed.validity.not_after),
        })
    }

    /// Holds it against our clock.
    ///
    /// # Errors
    /// [`TrustError::NotYet`], [`TrustError::Expired`].
    pub fn check_time(&self, now: Timestamp) -> Result<(), TrustError> {
        if now < self.begins {
            Err(TrustError::NotYet { begins: self.begins, now })
        } else if now >= self.ends {
            Err(TrustError::Expired { ended: self.ends, now })
        } else {
            Ok(())
        }
    }
}
