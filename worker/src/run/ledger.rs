//! The disk that admitted runs may still fill. Each run reserves what its limits allow until it has finished, so that
//! nothing fills up under a running program. What a finished run keeps is on the disk and so no longer free: the
//! free space that is measured has it counted already.

use std::sync::{Arc, Mutex, PoisonError};

/// Left free on the disk whatever is reserved, for the worker's own files.
pub const HEADROOM_BYTES: u64 = 256 << 20;

/// Sum of the reservations.
#[derive(Debug, Default)]
pub struct Ledger {
    reserved: Mutex<u64>,
}

/// Room that is given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    ledger: Arc<Ledger>,
    bytes: u64,
}

impl Ledger {
    /// Reserves, where `free` bytes of the disk allow it. What running runs have written already counts twice,
    /// which errs on the side of refusing.
    pub fn reserve(self: &Arc<Self>, bytes: u64, free: u64) -> Option<Reservation> {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = reserved.checked_add(bytes)?;
        if wanted.checked_add(HEADROOM_BYTES)? > free {
            return None;
        }
        *reserved = wanted;
        Some(Reservation { ledger: Arc::clone(self), bytes })
    }

    /// Reserves whatever is free: for a run that was admitted before this process started.
    pub fn hold(self: &Arc<Self>, bytes: u64) -> Reservation {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *reserved;
        *reserved = before.saturating_add(bytes);
        Reservation { ledger: Arc::clone(self), bytes: *reserved - before }
    }

    /// Reserved now.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        *self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut reserved = self.ledger.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        *reserved = reserved.saturating_sub(self.bytes);
    }
}

/// Free bytes of the disk that holds a folder, for this user.
///
/// # Errors
/// Names the folder.
pub fn disk_free(folder: &std::path::Path) -> Result<u64, kit::folder::FolderError> {
    let stat = rustix::fs::statvfs(folder)
        .map_err(|e| kit::folder::FolderError::io("read the free space of", folder, e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserves_until_dropped() {
        let ledger = Arc::new(Ledger::default());
        let free = HEADROOM_BYTES + 100;
        let first = ledger.reserve(60, free).unwrap();
        assert!(ledger.reserve(41, free).is_none());
        let second = ledger.reserve(40, free).unwrap();
        assert_eq!(ledger.reserved(), 100);
        drop(first);
        assert!(ledger.reserve(60, free).is_some());
        drop(second);
        assert_eq!(ledger.reserved(), 0);
        assert!(ledger.reserve(u64::MAX, free).is_none());
        let held = ledger.hold(u64::MAX);
        assert!(ledger.reserve(1, free).is_none());
        drop(held);
        assert_eq!(ledger.reserved(), 0);
    }
}
