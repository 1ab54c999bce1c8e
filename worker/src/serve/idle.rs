//! The local worker goes as soon as nobody needs it: no connection, and no run that has not ended.

use std::time::Duration;

use kit::task::CancellationToken;
use tokio::{sync::watch, time::Instant};

use super::connection::Connections;

/// A worker that was started and to which nobody came goes after this.
pub const FIRST_CONNECTION_WAIT: Duration = Duration::from_secs(30);

/// Cancels `shutdown` once nobody needs the worker; the first connection is waited for for `first_wait`.
pub async fn watch(
    mut connections: watch::Receiver<Connections>,
    mut unfinished: watch::Receiver<usize>,
    shutdown: CancellationToken,
    first_wait: Duration,
) {
    let patience = Instant::now() + first_wait;
    loop {
        let (now, runs) = (*connections.borrow_and_update(), *unfinished.borrow_and_update());
        let waited = now.ever || Instant::now() >= patience;
        if now.open == 0 && runs == 0 && waited {
            tracing::info!("no connection and no run: going");
            shutdown.cancel();
            return;
        }
        tokio::select! {
            changed = connections.changed() => if changed.is_err() { return },
            changed = unfinished.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(patience), if !waited => {}
            () = shutdown.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(150);

    #[tokio::test]
    async fn waits_for_the_first_and_goes_after_the_last() {
        let connections = watch::Sender::new(Connections::default());
        let runs = watch::Sender::new(0_usize);
        let start = |stop: &CancellationToken| {
            let watching = watch(connections.subscribe(), runs.subscribe(), stop.clone(), FIRST);
            kit::task::spawn("test", watching)
        };
        let stop = CancellationToken::new();
        let begun = Instant::now();
        start(&stop).await.ok();
        assert!(begun.elapsed() >= FIRST);

        let stop = CancellationToken::new();
        connections.send_replace(Connections { open: 1, ever: true });
        let task = start(&stop);
        tokio::time::sleep(2 * FIRST).await;
        assert!(!stop.is_cancelled(), "somebody is there");
        runs.send_replace(1);
        connections.send_replace(Connections { open: 0, ever: true });
        tokio::time::sleep(2 * FIRST).await;
        assert!(!stop.is_cancelled(), "a run goes on");
        runs.send_replace(0);
        task.await.ok();
        assert!(stop.is_cancelled());
    }
}
