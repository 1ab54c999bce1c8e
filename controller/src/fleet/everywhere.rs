//! The same thing on all workers that are there. One that is away is not waited for, for it gets what it lacks with its
//! first run; where none is there, the first one to come is.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, future::BoxFuture, stream};

use super::{FleetError, Link, line::Line};

/// Workers at once.
const AT_ONCE: usize = 16;
/// States are looked at so often while no worker is there.
const LOOK: Duration = Duration::from_millis(200);

/// The first result by the order of the links.
///
/// # Errors
/// Where no worker can: the worker's own word before one about a connection. Where none was there for long: why.
pub(super) async fn everywhere<T: Send>(
    links: &[Arc<Link>],
    work: impl Fn(Line) -> BoxFuture<'static, Result<T, FleetError>> + Sync,
) -> Result<T, FleetError> {
    let Some(first) = links.first() else { return Err(FleetError::NoWorker) };
    let (awake, patience) = (first.core.awake.clone(), first.core.pace.patience);
    let begun = awake.now();
    loop {
        let open: Vec<_> = links.iter().filter_map(|link| link.open_line()).map(&work).collect();
        let mut results: Vec<Result<T, FleetError>> = stream::iter(open).buffered(AT_ONCE).collect().await;
        let done = results.iter().position(Result::is_ok);
        let own_word = results.iter().position(|r| matches!(r, Err(error) if !error.is_retryable()));
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            tracing::warn!(%error, "a worker could not be given what runs need");
        }
        if let Some(index) = done.or(own_word) {
            return results.swap_remove(index);
        }
        let late = awake.now().saturating_sub(begun) >= patience;
        // A link that will not come by itself is not waited for, where there is no other.
        if late || (links.iter().all(|link| link.stands_still()) && results.is_empty()) {
            return Err(results.into_iter().find_map(Result::err).unwrap_or_else(|| away(links)));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn away(links: &[Arc<Link>]) -> FleetError {
    let state = |link: &Arc<Link>| format!("{} {}", link.name(), link.state());
    let detail = links.iter().map(state).collect::<Vec<_>>().join("; ");
    FleetError::Unreachable { worker: "of all that are known".to_owned(), detail }
}
