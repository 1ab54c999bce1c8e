//! The one thread that writes. Requests come by a bounded channel; whatever is queued when a transaction begins
//! shares it, each in a savepoint of its own, so that one request's failure takes nothing of another's along. Nobody is
//! answered before the commit, because what is answered is acted on.

use std::{sync::Arc, thread::JoinHandle};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{Journal, error::JournalError};
use crate::telemetry::METRICS;

/// How many requests may wait before a caller waits too.
const QUEUE: usize = 256;
/// How many requests share a transaction: enough to hide a disk's sync, few enough that the first one does not wait long.
const BATCH: usize = 128;

/// A request, with its type hidden.
trait Work: Send {
    /// Does the work; whether it is to be kept.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Answers, after the transaction.
    fn answer(self: Box<Self>, committed: Result<(), Arc<rusqlite::Error>>);
}

struct Request<T, F> {
    work: Option<F>,
    result: Option<Result<T, JournalError>>,
    reply: oneshot::Sender<Result<T, JournalError>>,
}

impl<T, F> Work for Request<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, JournalError> + Send,
{
    fn run(&mut self, connection: &Connection) -> bool {
        self.result = self.work.take().map(|work| work(connection));
        matches!(self.result, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, committed: Result<(), Arc<rusqlite::Error>>) {
        let result = match (self.result, committed) {
            // The request's own failure says more than the transaction's.
            (Some(Err(error)), _) => Err(error),
            (_, Err(error)) => Err(JournalError::Sql(error)),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (None, Ok(())) => Err(JournalError::Stopped("writer")),
        };
        // Whoever asked may have been dropped: then nobody wants to know.
        self.reply.send(result).ok();
    }
}

/// The way to the thread. Dropping it waits until all that is queued is done.
#[derive(Debug)]
pub(super) struct Writer {
    requests: Option<mpsc::Sender<Box<dyn Work>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> std::io::Result<Self> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || serve(&connection, queue))?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's writer panicked");
        }
    }
}

fn serve(connection: &Connection, mut queue: mpsc::Receiver<Box<dyn Work>>) {
    let mut batch = Vec::with_capacity(BATCH);
    while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
        let begun = std::time::Instant::now();
        let committed = transaction(connection, &mut batch).map_err(Arc::new);
        METRICS.committed(begun.elapsed());
        if let Err(error) = &committed {
            tracing::error!(%error, requests = batch.len(), "a transaction of the journal failed");
            // After some errors SQLite has rolled back by itself; else this does.
            if !connection.is_autocommit()
                && let Err(error) = connection.execute_batch("ROLLBACK")
            {
                tracing::error!(%error, "the journal's transaction was not rolled back");
            }
        }
        for work in batch.drain(..) {
            work.answer(committed.clone());
        }
    }
}

fn transaction(connection: &Connection, batch: &mut [Box<dyn Work>]) -> rusqlite::Result<()> {
    // Immediate: another process that writes is waited for here, and not where a read turns into a write.
    connection.execute_batch("BEGIN IMMEDIATE")?;
    for work in batch {
        connection.execute_batch("SAVEPOINT request")?;
        let end =
            if work.run(connection) { "RELEASE request" } else { "ROLLBACK TO request; RELEASE request" };
        connection.execute_batch(end)?;
    }
    connection.execute_batch("COMMIT")
}

impl Journal {
    /// Runs `work` in a transaction and answers once it is on disk.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, JournalError> + Send + 'static,
    {
        let writer = self.inner.writer.as_ref().ok_or(JournalError::ReadOnly)?;
        let requests = writer.requests.as_ref().ok_or(JournalError::Stopped("writer"))?;
        let (reply, answer) = oneshot::channel();
        let request = Box::new(Request { work: Some(work), result: None, reply });
        requests.send(request).await.map_err(|_| JournalError::Stopped("writer"))?;
        let result = answer.await.map_err(|_| JournalError::Stopped("writer"))?;
        result.map_err(|error| error.at(&self.database_path()))
    }
}
