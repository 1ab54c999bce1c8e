//! An image made ready on the workers, with its progress passed on to whoever watches.

use kit::task::CancellationToken;
use tokio::sync::mpsc;

use super::{
    lab::Lab,
    progress::{Progress, Watchers},
};
use crate::fleet::{FleetError, ImageChoice, ImageProgress, PreparedImage};

/// Steps that may wait for a slow watcher.
const CHANNEL: usize = 64;

/// Builds or finds an image on every worker.
///
/// # Errors
/// As [`Lab::prepare_image`].
pub async fn prepare(
    lab: &dyn Lab,
    image: ImageChoice<'_>,
    watchers: &Watchers,
    cancel: &CancellationToken,
) -> Result<PreparedImage, FleetError> {
    let (sender, mut steps) = mpsc::channel(CHANNEL);
    let passing = async {
        while let Some(ImageProgress { name, done, total, line }) = steps.recv().await {
            watchers.tell(Progress::Image { name, done, total, line });
        }
    };
    let (prepared, ()) = tokio::join!(lab.prepare_image(image, sender, cancel), passing);
    prepared
}
