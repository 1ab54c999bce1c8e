//! Meeting a worker once, outside of any campaign: dialled, asked who it is, bounded in time. What `worker add`, `list` and
//! `show` do.

use std::time::Duration;

use kit::clock::{Clock, wall_ns};
use proto::v1::{self, worker_service_client::WorkerServiceClient};
use tonic::transport::Channel;

use crate::fleet::{Dialer, FleetError};

/// Asking who it is takes no longer than this.
const ANSWER: Duration = Duration::from_secs(10);

/// A worker that has answered.
#[derive(Debug)]
pub struct Met {
    /// For more calls.
    pub client: WorkerServiceClient<Channel>,
    /// What it says of itself.
    pub info: v1::GetWorkerResponse,
    /// Our wall clock when it was asked, and when the answer was there; ns since 1970.
    pub asked_between: (i64, i64),
}

impl Met {
    /// How far its clock is ahead of ours, in ns: negative where it is behind; 0 where the way explains it.
    #[must_use]
    pub fn clock_ahead_ns(&self) -> i64 {
        let (before, after) = self.asked_between;
        match self.info.wall_time_ns {
            theirs if theirs < before => theirs - before,
            theirs if theirs > after => theirs - after,
            _ => 0,
        }
    }
}

/// Opens a channel.
///
/// # Errors
/// The dialer's, or that it takes longer than `longest`.
pub async fn open(
    dialer: &dyn Dialer,
    longest: Duration,
) -> Result<WorkerServiceClient<Channel>, FleetError> {
    let dialled = tokio::time::timeout(longest, dialer.dial()).await;
    let channel = dialled.unwrap_or_else(|_| {
        let detail = format!("no connection within {} s", longest.as_secs());
        Err(FleetError::Unreachable { worker: dialer.name(), detail })
    })?;
    Ok(WorkerServiceClient::new(channel).max_decoding_message_size(proto::MESSAGE_BYTES_MAX))
}

/// Opens a channel and asks who is there.
///
/// # Errors
/// Also another version, with both numbers.
pub async fn meet(dialer: &dyn Dialer, longest: Duration, clock: &dyn Clock) -> Result<Met, FleetError> {
    let mut client = open(dialer, longest).await?;
    let before = wall_ns(clock.wall());
    let asked = tokio::time::timeout(ANSWER, client.get_worker(v1::GetWorkerRequest {})).await;
    let after = wall_ns(clock.wall());
    let silent = |_| {
        let detail = format!("connected, and no answer to GetWorker in {} s", ANSWER.as_secs());
        FleetError::Unreachable { worker: dialer.name(), detail }
    };
    let info = asked.map_err(silent)?.map_err(|status| refused(dialer, &status))?.into_inner();
    let (min, max, ours) = (info.protocol_min, info.protocol_max, proto::PROTOCOL_VERSION);
    if !(min..=max).contains(&ours) {
        return Err(FleetError::Version { worker: dialer.name(), min, max, ours });
    }
    Ok(Met { client, info, asked_between: (before, after) })
}

/// A connection that breaks before the first answer is no answer; anything else is the worker's word.
fn refused(dialer: &dyn Dialer, status: &tonic::Status) -> FleetError {
    if status.code() == tonic::Code::Unavailable || status.code() == tonic::Code::Unknown {
        let detail =
            std::error::Error::source(status).map_or_else(|| status.message().to_owned(), super::root_cause);
        return FleetError::Unreachable { worker: dialer.name(), detail };
    }
    FleetError::call("GetWorker", status)
}
