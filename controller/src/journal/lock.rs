//! Whose a campaign is: `flock` on its `lock`. The kernel lets go of it when the owner dies, however it dies.

use std::{fs::File, io::Read as _, thread, time::Duration};

use kit::folder::{FolderError, Lock, create_private};
use nix::fcntl::{Flock, FlockArg};

use super::{CampaignId, Journal, error::LockError};

/// Another process that only asks whose the campaign is holds the lock for a moment, so a refusal is tried again.
const TRIES: u32 = 5;
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// The owner's hold on a campaign; let go when dropped.
#[derive(Debug)]
pub struct CampaignLock {
    campaign: CampaignId,
    _lock: Lock,
}

impl CampaignLock {
    /// Whose hold this is.
    #[must_use]
    pub fn campaign(&self) -> CampaignId {
        self.campaign
    }
}

impl Journal {
    /// Takes the campaign for this process, and makes its folder where it is not there. Blocks for at most 50 ms.
    ///
    /// # Errors
    /// [`LockError::Owned`] with the owner's process id.
    pub fn lock(&self, campaign: CampaignId) -> Result<CampaignLock, LockError> {
        let folder = self.campaign_folder(campaign);
        create_private(&folder)?;
        let path = folder.join("lock");
        let mut left = TRIES;
        loop {
            left -= 1;
            match Lock::take(&path) {
                Ok(lock) => return Ok(CampaignLock { campaign, _lock: lock }),
                Err(FolderError::Locked { .. }) if left > 0 => thread::sleep(BETWEEN_TRIES),
                Err(FolderError::Locked { pid, .. }) => return Err(LockError::Owned { campaign, pid }),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The process that owns the campaign now, if one does. `Some(0)` where it has not yet written its id.
    ///
    /// # Errors
    /// Where the lock cannot be looked at.
    pub fn is_owned(&self, campaign: CampaignId) -> Result<Option<u32>, LockError> {
        let path = self.campaign_folder(campaign).join("lock");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FolderError::io("open", &path, error).into()),
        };
        // Shared, so that two who ask do not take each other for the owner.
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => Ok(None),
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid).map_err(|e| FolderError::io("read", &path, e))?;
                Ok(Some(pid.trim().parse().unwrap_or_default()))
            }
            Err((_, errno)) => Err(FolderError::io("lock", &path, errno.into()).into()),
        }
    }
}
