//! An image made ready on the workers, with its progress passed on to whoever watches.

use kit::task::CancellationToken;
use tokio::sync::mpsc;

use super::progress::{Progress, Watchers};
use crate::fleet::{Fleet, FleetError, ImageProgress, PreparedImage};

/// Steps that may wait for a slow watcher.
const CHANNEL: usize = 64;

/// Builds or finds an image on every worker.
///
/// # Errors
/// As [`Fleet::prepare_image`].
pub async fn prepare(
    fleet: &Fleet,
    name: &str,
    watchers: &Watchers,
    cancel: &CancellationToken,
) -> Result<PreparedImage, FleetError> {
    let (sender, mut steps) = mpsc::channel(CHANNEL);
    let passing = async {
        while let Some(ImageProgress { name, done, total, line }) = steps.recv().await {
            watchers.tell(Progress::Image { name, done, total, line });
        }
    };
    let (prepared, ()) = tokio::join!(fleet.prepare_image(name, sender, cancel), passing);
    prepared
}
