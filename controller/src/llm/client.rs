//! The one loop of a call: attempt, judge, wait, attempt again. It owns what the wires must not know: time,
//! sockets, the number of attempts, and the account of tokens that were lost on the way.
//!
//! Design notes. A retry is always a whole new request: text of a broken attempt is never kept. Providers offer no
//! idempotency, so an attempt that got past the connection may be billed even if its reply was lost; each such
//! attempt stands in `lost`, with unknown counts where the server did not come to say them, and there are at most
//! [`BILLED_ATTEMPTS`] of them, because a budget reserves for that many and no more. A change of the body
//! after a 400 (`Wire::adapt`) is no retry and uses none of the attempts, but each change is made once.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use kit::{clock::Clock, task::CancellationToken};
use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    BILLED_ATTEMPTS, Model, Reply, Request, Role,
    accept::accept,
    error::{CallError, Fault},
    frames::{FrameFault, Pieces, bounded, frames},
    retry::{CallPolicy, Gate, Timer, Wait, delay, retry_after, retry_after_hint},
    spec::ModelSpec,
    transport::{Kind, Response, Transport},
    usage::Usage,
    wire::{Answer, Decoder, Step, Wire, short},
};

/// How long a last frame that adds nothing is waited for.
const GRACE: std::time::Duration = std::time::Duration::from_secs(2);

pub(super) struct Client {
    pub spec: ModelSpec,
    pub wire: Box<dyn Wire>,
    pub transport: Transport,
    pub clock: Arc<dyn Clock>,
    pub timer: Arc<dyn Timer>,
    pub policy: CallPolicy,
    pub gate: Gate,
}

/// What one call has left behind so far; outlives the attempt that a cancellation cuts off.
#[derive(Default)]
struct Trail {
    attempts: u32,
    lost: Vec<Usage>,
    request_id: Option<String>,
    /// A request is out, and its tokens may be billed; as far as they are known.
    open: Option<Usage>,
}

impl Trail {
    fn close_as_lost(&mut self) {
        self.lost.extend(self.open.take());
    }
}

#[async_trait]
impl Model for Client {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    async fn call(
        &self,
        request: &Request,
        cancel: &CancellationToken,
        progress: Option<&mpsc::Sender<usize>>,
    ) -> Result<Reply, CallError> {
        let mut trail = Trail::default();
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Fault::Cancelled),
            outcome = self.attempts(request, progress, &mut trail) => outcome,
            () = self.timer.sleep(Wait::Deadline, self.policy.deadline) => {
                Err(Fault::Deadline(self.policy.deadline))
            }
        };
        trail.close_as_lost();
        match outcome {
            Ok((text, json, answer)) => Ok(Reply {
                text,
                json,
                usage: answer.usage,
                model: answer.model.unwrap_or_else(|| self.spec.model.clone()),
                request_id: trail.request_id,
                attempts: trail.attempts,
                lost: trail.lost,
            }),
            Err(fault) => Err(CallError {
                spec: self.spec.clone(),
                fault,
                attempts: trail.attempts,
                lost: trail.lost,
                request_id: trail.request_id,
            }),
        }
    }
}

type Accepted = (String, Option<Value>, Answer);

impl Client {
    async fn attempts(
        &self,
        request: &Request,
        progress: Option<&mpsc::Sender<usize>>,
        trail: &mut Trail,
    ) -> Result<Accepted, Fault> {
        if request.messages.last().is_none_or(|message| message.role != Role::User) {
            return Err(Fault::Unsendable("the last message must be the user's".into()));
        }
        let mut limit = request.max_output_tokens.max(1);
        let mut failures = 0;
        loop {
            self.pass_gate().await;
            trail.attempts += 1;
            let fault = match self.attempt(request, limit, progress, trail).await {
                Ok(accepted) => return Ok(accepted),
                Err(fault) => fault.map_words(|words| self.transport.redact_words(words)),
            };
            trail.close_as_lost();
            let attempt = trail.attempts;
            if trail.lost.len() >= BILLED_ATTEMPTS as usize {
                return Err(fault);
            }
            if let Some(change) = self.wire.adapt(&fault) {
                tracing::info!(model = %self.spec, purpose = request.purpose, %fault, change, "another form of request");
                continue;
            }
            if matches!(fault, Fault::Truncated { .. }) && limit == request.max_output_tokens.max(1) {
                let larger = limit.saturating_mul(2);
                if self.wire.body(request, larger)? == self.wire.body(request, limit)? {
                    return Err(fault);
                }
                limit = larger;
                tracing::info!(model = %self.spec, purpose = request.purpose, limit, "cut off, asked again");
                continue;
            }
            failures += 1;
            let Some(wait) = delay(&self.policy, &fault, failures, rand::random()) else { return Err(fault) };
            let now = self.clock.monotonic();
            if fault.retry_after().is_some() {
                self.gate.close(now.saturating_add(wait));
            }
            tracing::warn!(model = %self.spec, purpose = request.purpose, attempt, ?wait, %fault, "attempt failed");
            self.timer.sleep(Wait::Retry, wait).await;
        }
    }

    /// Waits until the model may be asked; another call may close the gate again meanwhile.
    async fn pass_gate(&self) {
        loop {
            let remaining = self.gate.remaining(self.clock.monotonic());
            if remaining.is_zero() {
                return;
            }
            self.timer.sleep(Wait::Retry, remaining).await;
        }
    }

    async fn attempt(
        &self,
        request: &Request,
        limit: u32,
        progress: Option<&mpsc::Sender<usize>>,
        trail: &mut Trail,
    ) -> Result<Accepted, Fault> {
        let body = self.wire.body(request, limit)?;
        report(progress, 0);
        trail.open = Some(Usage::UNKNOWN);
        let response = tokio::select! {
            response = self.transport.post(&body) => response,
            () = self.timer.sleep(Wait::Silence, self.policy.silence) => {
                Err(Fault::Transport(format!("no response within {} s", self.policy.silence.as_secs())))
            }
        };
        let response = response.inspect_err(|fault| {
            if matches!(fault, Fault::Connect(_)) {
                trail.open = None;
            }
        })?;
        trail.request_id = response.request_id();
        let mut decoder = self.wire.decoder(request, limit);
        let mut answer = match self.receive(response, decoder.as_mut(), progress, trail).await {
            Ok(answer) => answer,
            Err(fault) => {
                if trail.open.is_some() {
                    trail.open = Some(decoder.usage());
                }
                return Err(fault);
            }
        };
        trail.open = Some(answer.usage);
        let (text, json) = accept(&mut answer, request.schema.as_ref(), self.wire.untidy())?;
        trail.open = None;
        Ok((text, json, answer))
    }

    async fn receive(
        &self,
        response: Response,
        decoder: &mut dyn Decoder,
        progress: Option<&mpsc::Sender<usize>>,
        trail: &mut Trail,
    ) -> Result<Answer, Fault> {
        let (status, kind) = (response.status(), response.kind());
        if status != 200 || kind == Kind::Page {
            // Refused before any token was read or written.
            trail.open = None;
            return Err(self.refusal(response, trail).await);
        }
        let pieces = bounded(response.pieces(), self.timer.clone(), self.policy.silence);
        if kind == Kind::Whole {
            return self.receive_whole(pieces, decoder, trail).await;
        }
        let mut frames = frames(pieces, self.wire.framing());
        let (mut almost, mut begun) = (false, false);
        loop {
            let frame = tokio::select! {
                frame = frames.next() => frame,
                () = self.timer.sleep(Wait::Grace, GRACE), if almost => None,
            };
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|fault| Fault::MidStream(fault.to_string()))?;
            let step = decoder.take(&self.transport.redact(frame)).inspect_err(|fault| {
                // An error in the place of an answer: nothing was written, nothing is billed.
                if !begun && !matches!(fault, Fault::MidStream(_)) {
                    trail.open = None;
                }
            })?;
            begun = true;
            match step {
                Step::More => {}
                Step::Almost => almost = true,
                Step::Done => break,
            }
            trail.open = Some(decoder.usage());
            report(progress, decoder.written());
        }
        decoder.finish()
    }

    async fn receive_whole(
        &self,
        pieces: Pieces,
        decoder: &mut dyn Decoder,
        trail: &mut Trail,
    ) -> Result<Answer, Fault> {
        let broken = |fault: FrameFault| Fault::MidStream(fault.to_string());
        let bytes = collect(pieces, Response::whole_limit()).await.map_err(broken)?;
        let text = String::from_utf8(bytes).map_err(|_| broken(FrameFault::NotText))?;
        let text = self.transport.redact(text);
        let reply: Value = serde_json::from_str(text.trim()).map_err(|error| Fault::Server {
            status: 200,
            detail: format!("the reply is not JSON ({error}): {}", short(&text)),
            retry_after: None,
        })?;
        decoder.whole(&reply).inspect_err(|_| trail.open = None)?;
        decoder.finish()
    }

    /// The class of a response that is no answer.
    async fn refusal(&self, response: Response, trail: &mut Trail) -> Fault {
        let status = response.status();
        let asked = retry_after(|name| response.header(name), self.clock.wall());
        let final_word = response.header("x-should-retry").as_deref() == Some("false");
        let pieces = bounded(response.pieces(), self.timer.clone(), self.policy.silence);
        // A body that breaks off still has its status.
        let body = collect(pieces, Response::error_limit()).await.unwrap_or_default();
        let body = self.transport.redact(String::from_utf8_lossy(&body).into_owned());
        if trail.request_id.is_none() {
            let value: Option<Value> = serde_json::from_str(&body).ok();
            trail.request_id = value.and_then(|value| value["request_id"].as_str().map(short));
        }
        let fault = self.wire.http_fault(status, &body);
        if final_word && fault.is_retryable() {
            return Fault::BadRequest { status, detail: format!("{fault} (the server says not to retry)") };
        }
        let asked = asked.or_else(|| match &fault {
            Fault::RateLimit { detail, .. } => retry_after_hint(detail),
            _ => None,
        });
        fault.with_retry_after(asked)
    }
}

/// Where the receiver is slow a number is left out: the next one says more.
fn report(progress: Option<&mpsc::Sender<usize>>, written: usize) {
    if let Some(progress) = progress {
        progress.try_send(written).unwrap_or_default();
    }
}

/// A body, up to a limit.
async fn collect(mut pieces: Pieces, limit: usize) -> Result<Vec<u8>, FrameFault> {
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await {
        all.extend_from_slice(&piece?);
        if all.len() > limit {
            all.truncate(limit);
            break;
        }
    }
    Ok(all)
}
