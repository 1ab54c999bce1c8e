//! Our own key (Ed25519) and its certificate: `keys/identity.pem`, both in one file so that they always belong together,
//! mode 0600, made once. The certificate is self-signed, dated back a day, and made anew for the same key when a third
//! of its lifetime is left, by whoever uses it: a worker that runs for years stays who it is.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData as _};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

use super::{Certificate, Fingerprint, StoreError, shared_file};
use crate::{
    clock::Clock,
    folder::{self, FolderError},
};

/// Of a certificate, where nothing else is said.
pub const LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// Clocks may be so far apart.
const DATED_BACK: Duration = Duration::from_secs(86_400);
const FILE: &str = "identity.pem";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The folder or the file.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The lock beside it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others on this machine can read the key.
    #[error("{} can be read by others (mode {mode:03o}): `chmod 600` it, or remove it and join anew", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Not what we write.
    #[error("{} holds no key and certificate of ours ({problem}): remove it, and join anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The library.
    #[error("cannot make a key or certificate: {0}")]
    Make(String),
}

/// Where the key is and how long its certificates live.
#[derive(Debug, Clone)]
pub struct IdentityOptions {
    /// `keys/`.
    pub folder: PathBuf,
    /// Of a certificate; a lifetime counts from its making.
    pub lifetime: Duration,
    /// For dates.
    pub clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    certificate: Certificate,
}

/// Our key and certificate.
pub struct Identity {
    options: IdentityOptions,
    key: KeyPair,
    fingerprint: Fingerprint,
    current: Mutex<Current>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl Identity {
    /// Whether a folder has keys.
    #[must_use]
    pub fn exists(folder: &Path) -> bool {
        folder.join(FILE).is_file()
    }

    /// Reads the keys, or makes them where there are none. Blocks for a moment.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn open(options: IdentityOptions) -> Result<Arc<Self>, IdentityError> {
        folder::create_private(&options.folder)?;
        let path = options.folder.join(FILE);
        // Two that start at once make one key.
        let _lock = shared_file::lock(&options.folder.join("identity.lock"))?;
        let (key, certificate) = match fs::read(&path) {
            Ok(pem) => read(&path, &pem)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let made = |error: rcgen::Error| IdentityError::Make(error.to_string());
                let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(made)?;
                let certificate = issue(&key, &options, options.clock.wall())?;
                save(&path, &key, &certificate)?;
                (key, certificate)
            }
            Err(error) => return Err(FolderError::io("read", &path, error).into()),
        };
        let fingerprint = Fingerprint::of_key(&key.subject_public_key_info());
        let current = usable(&key, certificate)?;
        if current.certificate.fingerprint != fingerprint {
            let problem = "the certificate is not of this key".to_owned();
            return Err(IdentityError::Damaged { path, problem });
        }
        Ok(Arc::new(Self { options, key, fingerprint, current: Mutex::new(current) }))
    }

    /// What others pin.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The clock that dates are held against.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.options.clock
    }

    /// Until when the certificate is good that is shown now.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.with_current(|current| current.certificate.ends)
    }

    /// What is shown in a handshake; renewed first if it is time.
    pub(super) fn certified_key(&self) -> Arc<CertifiedKey> {
        self.with_current(|current| Arc::clone(&current.key))
    }

    fn with_current<R>(&self, look: impl FnOnce(&Current) -> R) -> R {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.options.clock.wall();
        let left = current.certificate.ends.duration_since(now);
        let due = left < (self.options.lifetime / 3).try_into().unwrap_or(jiff::SignedDuration::MAX);
        if due || now < current.certificate.begins {
            match self.renew(now) {
                Ok(renewed) => *current = renewed,
                Err(error) => tracing::error!(%error, "our certificate cannot be renewed"),
            }
        }
        look(&current)
    }

    fn renew(&self, now: Timestamp) -> Result<Current, IdentityError> {
        let certificate = issue(&self.key, &self.options, now)?;
        if let Err(error) = save(&self.options.folder.join(FILE), &self.key, &certificate) {
            // It can be used all the same; the next start renews it again.
            tracing::warn!(%error, "the renewed certificate cannot be saved");
        }
        tracing::info!(fingerprint = %self.fingerprint.short(), "our certificate was renewed");
        usable(&self.key, certificate)
    }
}

fn read(path: &Path, pem: &[u8]) -> Result<(KeyPair, CertificateDer<'static>), IdentityError> {
    let damaged = |problem: String| IdentityError::Damaged { path: path.to_owned(), problem };
    let found = fs::metadata(path).map_err(|error| FolderError::io("look at", path, error))?;
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Open { path: path.to_owned(), mode });
    }
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|e| damaged(e.to_string()))?;
    let key = KeyPair::try_from(&key).map_err(|e| damaged(e.to_string()))?;
    let certificate = CertificateDer::from_pem_slice(pem).map_err(|e| damaged(e.to_string()))?;
    Ok((key, certificate))
}

fn issue(
    key: &KeyPair,
    options: &IdentityOptions,
    now: Timestamp,
) -> Result<CertificateDer<'static>, IdentityError> {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |time: Timestamp| epoch + Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0));
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "autoresearch");
    params.not_before = at(now.checked_sub(DATED_BACK).unwrap_or(Timestamp::UNIX_EPOCH));
    params.not_after = at(now.checked_add(options.lifetime).unwrap_or(now));
    let certificate = params.self_signed(key).map_err(|error| IdentityError::Make(error.to_string()))?;
    Ok(certificate.der().clone())
}

fn save(path: &Path, key: &KeyPair, certificate: &CertificateDer<'_>) -> Result<(), FolderError> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(certificate);
    let lines: Vec<&str> =
        (0..text.len()).step_by(64).map(|at| &text[at..(at + 64).min(text.len())]).collect();
    let pem = format!(
        "{}-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        key.serialize_pem(),
        lines.join("\n")
    );
    folder::replace(path, pem.as_bytes())
}

fn usable(key: &KeyPair, certificate: CertificateDer<'static>) -> Result<Current, IdentityError> {
    let made = |error: &dyn std::error::Error| IdentityError::Make(error.to_string());
    let read = Certificate::read(&certificate).map_err(|e| made(&e))?;
    let secret = PrivateKeyDer::try_from(key.serialize_der())
        .map_err(|problem| IdentityError::Make(problem.to_owned()))?;
    let signing = rustls::crypto::ring::sign::any_supported_type(&secret).map_err(|e| made(&e))?;
    Ok(Current { key: Arc::new(CertifiedKey::new(vec![certificate], signing)), certificate: read })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const DAY: Duration = Duration::from_secs(86_400);

    fn options(folder: &Path, clock: &Arc<ManualClock>) -> IdentityOptions {
        IdentityOptions { folder: folder.to_owned(), lifetime: 30 * DAY, clock: clock.clone() }
    }

    #[test]
    fn is_made_once_and_read_again_and_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        let clock = ManualClock::new(Timestamp::from_second(1_800_000_000).unwrap());
        assert!(!Identity::exists(&keys));
        let first = Identity::open(options(&keys, &clock)).unwrap();
        assert!(Identity::exists(&keys));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&keys), mode(&keys.join(FILE))), (0o700, 0o600));
        let again = Identity::open(options(&keys, &clock)).unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        let current = again.current.lock().unwrap().certificate;
        assert_eq!(current.begins, clock.wall() - DAY);
        assert_eq!(current.ends, clock.wall() + 30 * DAY);

        fs::set_permissions(keys.join(FILE), fs::Permissions::from_mode(0o644)).unwrap();
        let error = Identity::open(options(&keys, &clock)).unwrap_err().to_string();
        assert!(error.contains("644") && error.contains("chmod 600"), "{error}");
        fs::set_permissions(keys.join(FILE), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(keys.join(FILE), "nonsense").unwrap();
        assert!(matches!(Identity::open(options(&keys, &clock)), Err(IdentityError::Damaged { .. })));
    }

    #[test]
    fn is_renewed_for_the_same_key_by_being_used() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(Timestamp::from_second(1_800_000_000).unwrap());
        let identity = Identity::open(options(folder.path(), &clock)).unwrap();
        let first = identity.expires();
        clock.advance(19 * DAY);
        assert_eq!(identity.expires(), first);
        clock.advance(2 * DAY);
        assert_eq!(identity.expires(), clock.wall() + 30 * DAY);
        // Also after it has ended, and after the clock was set back.
        clock.advance(300 * DAY);
        assert_eq!(identity.expires(), clock.wall() + 30 * DAY);
        let back = ManualClock::new(Timestamp::from_second(1_700_000_000).unwrap());
        let again = Identity::open(options(folder.path(), &back)).unwrap();
        assert_eq!(again.fingerprint(), identity.fingerprint());
        assert_eq!(again.expires(), back.wall() + 30 * DAY);
    }
}
