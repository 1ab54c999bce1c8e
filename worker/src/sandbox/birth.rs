//! What every backend owes a sandbox that is being made: a caller that goes away stops nothing, PID 1 says that it is
//! ready, and on an error nothing of it is left.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::{oneshot, watch};

use super::{
    Reports, SandboxError, SandboxId, blocking,
    live::{Live, Walls},
    volume::Volume,
};

/// PID 1 needs milliseconds; a cold page cache or a busy host may need seconds.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// Makes a sandbox in a task of its own: a half-made one cannot be let go of, so where the caller goes away it is made
/// and then removed.
///
/// # Errors
/// Those of `make`; then nothing of it is left.
pub(crate) async fn guarded(
    id: SandboxId,
    volume: Arc<Volume>,
    walls: Arc<dyn Walls>,
    make: impl Future<Output = Result<Live, SandboxError>> + Send + 'static,
) -> Result<Live, SandboxError> {
    let (answer, wait) = oneshot::channel();
    let making = async move {
        let made = make.await;
        if made.is_err() {
            remove_logged(&*walls, id, Arc::clone(&volume)).await;
        }
        if let Err(Ok(unwanted)) = answer.send(made) {
            drop(unwanted);
            remove_logged(&*walls, id, volume).await;
        }
    };
    drop(kit::task::spawn("sandbox-prepare", making)); // it ends by itself
    let died = || SandboxError::Engine {
        detail: "making the sandbox failed; see the log".to_owned(),
        permission: false,
    };
    wait.await.unwrap_or_else(|_| Err(died()))
}

/// Waits for PID 1's first report.
///
/// # Errors
/// [`SandboxError::Gone`] where it does not come.
pub(crate) async fn until_ready(id: SandboxId, reports: &watch::Sender<Reports>) -> Result<(), SandboxError> {
    let gone = |detail: String| SandboxError::Gone { id, detail };
    let mut seen = reports.subscribe();
    match tokio::time::timeout(READY_LIMIT, seen.wait_for(|r| r.ready || r.gone.is_some())).await {
        Ok(Ok(now)) if now.ready => Ok(()),
        Ok(Ok(now)) => Err(gone(now.gone.as_ref().map(|g| g.detail.clone()).unwrap_or_default())),
        _ => Err(gone(format!("PID 1 was not ready after {READY_LIMIT:?}"))),
    }
}

async fn remove_logged(walls: &dyn Walls, id: SandboxId, volume: Arc<Volume>) {
    let removed = async {
        walls.remove(id).await?;
        blocking(id, move || volume.remove()).await
    };
    if let Err(left) = removed.await {
        tracing::error!(sandbox = %id, %left, "it could not be removed; the next sweep tries again");
    }
}
