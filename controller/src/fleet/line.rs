//! One connection of a link, and what is asked over it. Whatever is under way when the connection ends is given up at once;
//! a failure of the connection itself ends it for all, and a refusal by the worker does not.

use std::{error::Error as _, sync::Arc, time::Duration};

use tonic::{Code, Response, Status, Streaming};

use super::{FleetError, WorkerView, dialer::Client, is_transient, link::Core};

/// A connection.
pub(super) struct Line {
    pub(super) client: Client,
    /// Who is at the other end.
    pub(super) view: Arc<WorkerView>,
    generation: u64,
    /// Awake time at which it was opened.
    pub(super) opened: Duration,
    core: Arc<Core>,
}

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection: whether the worker heard it is not known.
    Broken { call: &'static str, detail: String },
    /// The worker's own word.
    Refused { call: &'static str, status: Box<Status> },
}

impl Fault {
    /// A status that this side made has a source; one that came from the worker has none.
    pub(super) fn of(call: &'static str, status: Status) -> Self {
        if status.source().is_some() {
            let cause = status.source().map(super::dialer::root_cause).unwrap_or_default();
            Self::Broken { call, detail: cause }
        } else {
            Self::Refused { call, status: Box::new(status) }
        }
    }

    pub(super) fn code(&self) -> Code {
        match self {
            Self::Broken { .. } => Code::Unavailable,
            Self::Refused { status, .. } => status.code(),
        }
    }

    /// Whether the same question may be answered later.
    pub(super) fn is_transient(&self) -> bool {
        is_transient(self.code())
    }

    pub(super) fn at(self, worker: &str) -> FleetError {
        match self {
            Self::Broken { call, detail } => {
                FleetError::Unreachable { worker: worker.to_owned(), detail: format!("{call}: {detail}") }
            }
            Self::Refused { call, status } => FleetError::call(call, &status),
        }
    }
}

impl Line {
    pub(super) fn new(
        client: Client,
        view: Arc<WorkerView>,
        (generation, opened): (u64, Duration),
        core: Arc<Core>,
    ) -> Self {
        Self { client, view, generation, opened, core }
    }

    /// The worker's name.
    pub(super) fn name(&self) -> String {
        self.core.name()
    }

    /// Asks the worker anew what it has; one that does not answer is found out by others.
    pub(super) async fn refresh(&self) {
        if let Err(error) = self.core.refresh(self).await {
            tracing::debug!(worker = self.name(), %error, "a worker did not say how it is");
        }
    }

    /// Resolves when this is no longer the link's open connection.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        self.core.ended(self.generation)
    }

    /// This connection is of no use any more: the link dials anew. Others may have said so before.
    pub(super) fn broken(&self) {
        self.core.broken(self.generation);
    }

    /// A fault, after the connection was given up where it is the connection's.
    pub(super) fn fault(&self, call: &'static str, status: Status) -> Fault {
        let fault = Fault::of(call, status);
        if matches!(fault, Fault::Broken { .. }) {
            self.broken();
        }
        fault
    }

    /// One question with one answer, whatever is taken for it.
    pub(super) async fn call<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Fault> {
        let broken = |detail: &str| Fault::Broken { call, detail: detail.to_owned() };
        tokio::select! {
            answer = answer => answer.map(Response::into_inner).map_err(|status| self.fault(call, status)),
            () = self.ended() => Err(broken("the connection ended")),
        }
    }

    /// As [`Line::call`], where no answer for long means that the connection is broken.
    pub(super) async fn ask<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Fault> {
        let longest = self.core.pace.answer;
        if let Ok(answer) = tokio::time::timeout(longest, self.call(call, answer)).await {
            return answer;
        }
        self.broken();
        Err(Fault::Broken { call, detail: format!("no answer in {} s", longest.as_secs()) })
    }

    /// The next message of a stream; `None` at its end. Silence means that the connection is broken.
    pub(super) async fn next<T>(
        &self,
        call: &'static str,
        stream: &mut Streaming<T>,
    ) -> Result<Option<T>, Fault> {
        let silence = self.core.pace.silence;
        let broken = |detail: String| Fault::Broken { call, detail };
        tokio::select! {
            biased;
            message = tokio::time::timeout(silence, stream.message()) => match message {
                Ok(message) => message.map_err(|status| self.fault(call, status)),
                Err(_) => {
                    self.broken();
                    Err(broken(format!("nothing for {} s", silence.as_secs())))
                }
            },
            () = self.ended() => Err(broken("the connection ended".to_owned())),
        }
    }
}
