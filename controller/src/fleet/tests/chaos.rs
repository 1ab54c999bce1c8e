//! What goes wrong in a night, made to happen in a minute: connections cut, workers away and back, disks wiped.

use std::time::Duration;

use kit::task::CancellationToken;

use super::fake_worker::FakeWorker;

/// How often something happens, and what.
#[derive(Debug, Clone, Copy)]
pub struct Chaos {
    /// Between two events.
    pub pause: Duration,
    /// Of a worker that goes away.
    pub away: Duration,
    /// Every n-th event is a wiped disk.
    pub wipe_every: u32,
}

/// What was done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    pub cuts: u32,
    pub absences: u32,
    pub wipes: u32,
}

/// Until it is stopped; then every worker is there.
pub async fn night(workers: &[FakeWorker], chaos: Chaos, stop: CancellationToken) -> Done {
    let (mut done, mut turn) = (Done::default(), 0u32);
    while stop.run_until_cancelled(tokio::time::sleep(chaos.pause)).await.is_some() {
        turn += 1;
        let worker = &workers[rand::random_range(0..workers.len())];
        if turn.is_multiple_of(chaos.wipe_every) {
            worker.wipe();
            done.wipes += 1;
        } else if turn.is_multiple_of(5) {
            worker.go_away();
            stop.run_until_cancelled(tokio::time::sleep(chaos.away)).await;
            worker.come_back();
            done.absences += 1;
        } else {
            worker.cut();
            done.cuts += 1;
        }
    }
    done
}
