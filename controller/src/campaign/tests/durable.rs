//! A lab that goes on while its controller is killed, as a worker does: a run that was asked for is executed, kept with its
//! events until it is released, and asked for again by its id. And the points at which a test kills.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use kit::{digest::Digest, task::CancellationToken};
use prost::Message as _;
use proto::v1;
use tokio::sync::{Notify, mpsc};

use super::lab::{FakeLab, event, label};
use crate::{
    campaign::lab::Lab,
    fleet::{FleetError, ImageChoice, ImageProgress, PreparedImage, RunEnd, RunSink, WorkerView},
};

/// Counts awaits, and stops for good at one of them.
#[derive(Default)]
pub(super) struct Points {
    passed: AtomicUsize,
    /// 0: none.
    pub kill_at: AtomicUsize,
    pub killed: Notify,
}

impl Points {
    pub(super) async fn pass(&self) {
        let now = self.passed.fetch_add(1, Ordering::SeqCst) + 1;
        if now == self.kill_at.load(Ordering::SeqCst) {
            self.killed.notify_one();
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }
}

pub(super) struct Kept {
    spec: Bytes,
    events: Vec<v1::Event>,
    finished: v1::Finished,
    released: bool,
}

#[derive(Default)]
pub(super) struct DurableLab {
    pub inner: FakeLab,
    pub points: Arc<Points>,
    pub runs: Mutex<BTreeMap<String, Kept>>,
    /// How often each thing was executed: revision, limit, variant, seed, smoke or not.
    pub executed: Mutex<BTreeMap<String, usize>>,
    /// Runs are cut off by the token rather than by themselves, as long as it is 1.
    pub endless: AtomicUsize,
}

impl DurableLab {
    fn execute(&self, start: &v1::StartRunRequest, kind: Option<v1::OutcomeKind>) {
        let spec = v1::RunSpec::decode(start.spec.as_ref()).unwrap();
        let (mut outcome, metrics) = self.inner.outcome(&spec);
        if let Some(kind) = kind {
            outcome = v1::Outcome { kind: kind.into(), ..v1::Outcome::default() };
        }
        let points = metrics
            .into_iter()
            .map(|(name, value)| v1::MetricPoint { name, value, step: Some(1), elapsed_ns: 5 })
            .collect();
        let frame = v1::Frame { stream: v1::Stream::Metrics.into(), points, ..v1::Frame::default() };
        let finished = v1::Finished {
            outcome: Some(outcome),
            usage: Some(v1::UsageTotals { wall_ms: 2_000, complete: true, ..v1::UsageTotals::default() }),
            last_sequence: 2,
            limits: spec.limits,
            ..v1::Finished::default()
        };
        let end = event(2, v1::event::Kind::Finished(finished.clone()));
        let events = vec![event(1, v1::event::Kind::Frame(frame)), end];
        let kept = Kept { spec: start.spec.clone(), events, finished, released: false };
        self.runs.lock().unwrap().insert(start.run_id.clone(), kept);
        let limit = spec.limits.map_or(0, |limits| limits.time_ms);
        let what = format!(
            "{} {} {limit} {} {} {}",
            label(&spec, "experiment"),
            spec.files[0].digest,
            label(&spec, "variant"),
            spec.seed,
            spec.smoke
        );
        *self.executed.lock().unwrap().entry(what).or_default() += 1;
    }

    pub(super) fn all_released(&self) -> bool {
        self.runs.lock().unwrap().values().all(|run| run.released)
    }

    async fn follow(&self, id: &str, sink: &mut dyn RunSink) -> Result<RunEnd, FleetError> {
        loop {
            self.points.pass().await;
            let (next, finished) = {
                let runs = self.runs.lock().unwrap();
                let run = &runs[id];
                let next = run.events.iter().find(|event| event.sequence > sink.last_sequence()).cloned();
                (next.expect("the end is never past"), run.finished.clone())
            };
            let last = matches!(next.kind, Some(v1::event::Kind::Finished(_)));
            sink.apply(vec![next]).await?;
            if last {
                self.points.pass().await;
                sink.complete().await?;
                self.points.pass().await;
                self.runs.lock().unwrap().get_mut(id).unwrap().released = true;
                self.points.pass().await;
                sink.released().await?;
                return Ok(RunEnd::Finished(Box::new(finished)));
            }
        }
    }
}

#[async_trait]
impl Lab for DurableLab {
    fn workers(&self) -> Vec<WorkerView> {
        self.inner.workers()
    }

    fn slots(&self) -> usize {
        self.inner.slots()
    }

    async fn prepare_image(
        &self,
        image: ImageChoice<'_>,
        progress: mpsc::Sender<ImageProgress>,
        cancel: &CancellationToken,
    ) -> Result<PreparedImage, FleetError> {
        self.points.pass().await;
        self.inner.prepare_image(image, progress, cancel).await
    }

    async fn put_blob(&self, bytes: Bytes) -> Result<Digest, FleetError> {
        self.points.pass().await;
        let digest = self.inner.put_blob(bytes).await;
        self.points.pass().await;
        digest
    }

    fn keep_kind(&self, _: &str, _: &str, _: &str, _: u32) {}

    async fn run(
        &self,
        start: v1::StartRunRequest,
        sink: &mut dyn RunSink,
        cancel: &CancellationToken,
    ) -> Result<RunEnd, FleetError> {
        self.points.pass().await;
        if cancel.is_cancelled() {
            return Err(FleetError::Cancelled);
        }
        let known = self.runs.lock().unwrap().get(&start.run_id).map(|run| run.spec.clone());
        match known {
            Some(spec) => assert_eq!(spec, start.spec, "the very same bytes"),
            None if self.endless.load(Ordering::SeqCst) == 1 => {
                sink.placed("w", "b").await?;
                cancel.cancelled().await;
                self.execute(&start, Some(v1::OutcomeKind::Cancelled));
                return self.follow(&start.run_id, sink).await;
            }
            None => self.execute(&start, None),
        }
        self.points.pass().await;
        sink.placed("w", "b").await?;
        self.follow(&start.run_id, sink).await
    }

    async fn end(
        &self,
        start: v1::StartRunRequest,
        _: Option<&str>,
        sink: &mut dyn RunSink,
        _cancel: &CancellationToken,
    ) -> Result<RunEnd, FleetError> {
        self.points.pass().await;
        let known = self.runs.lock().unwrap().get(&start.run_id).map(|run| run.released);
        match known {
            Some(false) => {
                sink.placed("w", "b").await?;
                self.follow(&start.run_id, sink).await
            }
            _ => Ok(RunEnd::Lost {
                cause: v1::LostCause::Unspecified,
                detail: "no worker knows the run".into(),
            }),
        }
    }
}
