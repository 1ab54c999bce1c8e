//! The one way to start a task and to stop it: a name, a span, a cancellation token down and a join up. A panic in a
//! task is logged under its name, because a task that dies in silence loses runs.

use std::future::Future;

pub use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

/// A task that was started. Dropping it does not stop the task; its token does.
pub type Handle<T> = tokio::task::JoinHandle<Option<T>>;

/// Starts a task under a name. The result is `None` where it panicked.
#[allow(clippy::disallowed_methods, reason = "this is the one place that spawns")]
pub fn spawn<F>(name: &'static str, future: F) -> Handle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let span = tracing::info_span!("task", name);
    tokio::spawn(async move { watch(name, tokio::spawn(future.instrument(span))).await })
}

/// Starts a task that the tracker waits for.
#[allow(clippy::disallowed_methods, reason = "this is the one place that spawns")]
pub fn spawn_tracked<F>(tracker: &TaskTracker, name: &'static str, future: F) -> Handle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let span = tracing::info_span!("task", name);
    let inner = tokio::spawn(tracker.track_future(future.instrument(span)));
    tokio::spawn(watch(name, inner))
}

/// Runs blocking work off the event loop. The result is `None` where it panicked. Where the program is going down and takes no
/// more work this never returns: whoever waits goes down too, and must not take it for a failure that is to be acted on.
pub async fn blocking<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let working = tokio::task::spawn_blocking(work);
    let ended = async {
        match working.await {
            // Nobody here cancels such work: only a runtime that shuts down does.
            Err(error) if error.is_cancelled() => std::future::pending().await,
            ended => ended,
        }
    };
    told(name, ended.await)
}

async fn watch<T>(name: &'static str, inner: tokio::task::JoinHandle<T>) -> Option<T> {
    told(name, inner.await)
}

fn told<T>(name: &'static str, ended: Result<T, tokio::task::JoinError>) -> Option<T> {
    match ended {
        Ok(value) => Some(value),
        Err(error) => {
            if error.is_panic() {
                tracing::error!(task = name, %error, "a task panicked");
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn a_panic_is_told_and_not_passed_on() {
        let gone = super::spawn("test", async { panic!("on purpose") });
        assert_eq!(gone.await.ok().flatten(), None::<()>);
        assert_eq!(super::spawn("test", async { 7 }).await.ok().flatten(), Some(7));
    }
}
