//! A lab without machines: a program is a few words that say how its runs end.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use kit::{digest::Digest, task::CancellationToken};
use prost::Message as _;
use proto::v1;
use tokio::sync::mpsc;

use crate::{
    campaign::lab::Lab,
    fleet::{FleetError, ImageChoice, ImageProgress, PreparedImage, RunEnd, RunSink, WorkerView},
};

/// Runs programs by the marker in their text.
#[derive(Default)]
pub(super) struct FakeLab {
    pub blobs: Mutex<Vec<(Digest, String)>>,
    pub started: AtomicUsize,
    /// Runs in the order of starting: variant, seed, smoke.
    pub order: Mutex<Vec<(String, u64, bool)>>,
    /// What the worker keeps.
    pub data_sets: Vec<v1::DataSet>,
    /// Each run's data sets of the worker, and how many files came with it.
    pub data: Mutex<Vec<(Vec<String>, usize)>>,
    /// Runs that are cut off by the token rather than by themselves.
    pub cancelled: AtomicUsize,
}

pub(super) fn event(sequence: u64, kind: v1::event::Kind) -> v1::Event {
    v1::Event { sequence, wall_time_ns: 1, elapsed_ns: sequence, kind: Some(kind) }
}

pub(super) fn label(spec: &v1::RunSpec, key: &str) -> String {
    spec.labels.iter().find(|l| l.key == key).map(|l| l.value.clone()).unwrap_or_default()
}

/// A number in [0, 1) that only its name decides.
fn noise(name: &str) -> f64 {
    u32::from_str_radix(&Digest::of(name.as_bytes()).hex()[..6], 16).unwrap() as f64 / f64::from(1 << 24)
}

impl FakeLab {
    fn source(&self, spec: &v1::RunSpec) -> String {
        let program = spec.files.iter().find(|f| f.role() == v1::InputRole::Program).unwrap();
        let digest: Digest = program.digest.parse().unwrap();
        self.blobs
            .lock()
            .unwrap()
            .iter()
            .find(|(d, _)| *d == digest)
            .expect("the program is on the worker")
            .1
            .clone()
    }

    /// How the run ends: outcome, and the metrics that it logs.
    pub(super) fn outcome(&self, spec: &v1::RunSpec) -> (v1::Outcome, Vec<(String, f64)>) {
        use v1::OutcomeKind as K;
        let source = self.source(spec);
        let variant = label(spec, "variant");
        let has = |mark: &str| source.contains(mark);
        let told = |kind: K, message: &str, traceback: &str| v1::Outcome {
            kind: kind.into(),
            message: message.into(),
            traceback: traceback.into(),
            ..v1::Outcome::default()
        };
        let broken = if has("shape_error") {
            Some(told(K::Failed, "RuntimeError: shapes cannot be multiplied", "RuntimeError: mat1 and mat2"))
        } else if has("missing_import") {
            Some(told(K::Failed, "ModuleNotFoundError: No module named 'flax'", "ModuleNotFoundError: flax"))
        } else if has("nan_in_smoke") && spec.smoke {
            Some(told(K::Diverged, "train_loss is NaN", ""))
        } else if has("endless_loop") {
            Some(told(K::TimedOut, "limit of 120 s", ""))
        } else if has("needs_longer") && !spec.smoke && spec.limits.is_some_and(|l| l.time_ms < 100_000) {
            Some(told(K::TimedOut, "limit of 60 s", ""))
        } else if has("out_of_memory") {
            Some(told(K::OutOfMemory, "limit of 1 GiB", ""))
        } else if has("control_diverges") && variant == "v1" && !spec.smoke && spec.seed.is_multiple_of(2) {
            Some(told(K::Diverged, "train_loss is NaN", ""))
        } else if has("rejects") {
            Some(told(K::Rejected, "", ""))
        } else {
            None
        };
        match broken {
            Some(outcome) => (outcome, Vec::new()),
            None => {
                let gain = if variant == "v2" { 0.05 } else { 0.0 };
                let seed = noise(&format!("{}", spec.seed));
                let own = noise(&format!("{variant}/{}", spec.seed));
                let value = 0.90 + gain + 0.01 * seed + 0.002 * own;
                let metrics = spec.required_metrics.iter().map(|name| (name.clone(), value)).collect();
                (told(K::Succeeded, "", ""), metrics)
            }
        }
    }
}

#[async_trait]
impl Lab for FakeLab {
    fn workers(&self) -> Vec<WorkerView> {
        let slot = |index| v1::Slot { index, cpu_millis: 1000, memory_bytes: 1 << 30, ..v1::Slot::default() };
        let info = v1::GetWorkerResponse {
            slots: vec![slot(0), slot(1)],
            data_sets: self.data_sets.clone(),
            largest_limits: Some(v1::Limits { time_ms: 600_000, ..v1::Limits::default() }),
            ..v1::GetWorkerResponse::default()
        };
        vec![WorkerView { worker_id: "w".into(), boot_id: "b".into(), info }]
    }

    fn slots(&self) -> usize {
        2
    }

    async fn prepare_image(
        &self,
        image: ImageChoice<'_>,
        progress: mpsc::Sender<ImageProgress>,
        _cancel: &CancellationToken,
    ) -> Result<PreparedImage, FleetError> {
        if image.name == "broken" {
            return Err(FleetError::NoWorker);
        }
        progress.send(ImageProgress { name: "base".into(), ..ImageProgress::default() }).await.unwrap();
        Ok(PreparedImage { image_id: "sha256:1".into(), packages: vec!["torch 2".into()] })
    }

    async fn put_blob(&self, bytes: Bytes) -> Result<Digest, FleetError> {
        let digest = Digest::of(&bytes);
        self.blobs.lock().unwrap().push((digest, String::from_utf8_lossy(&bytes).into_owned()));
        Ok(digest)
    }

    fn keep_kind(&self, _: &str, _: &str, _: &str, _: u32) {}

    async fn run(
        &self,
        start: v1::StartRunRequest,
        sink: &mut dyn RunSink,
        cancel: &CancellationToken,
    ) -> Result<RunEnd, FleetError> {
        if cancel.is_cancelled() {
            return Err(FleetError::Cancelled);
        }
        let spec = v1::RunSpec::decode(start.spec.as_ref()).unwrap();
        let started = self.started.fetch_add(1, Ordering::SeqCst);
        self.order.lock().unwrap().push((label(&spec, "variant"), spec.seed, spec.smoke));
        self.data.lock().unwrap().push((spec.data_sets.clone(), spec.files.len()));
        sink.placed("w", "b").await?;
        let source = self.source(&spec);
        if source.contains("loses_its_first") && started == 0 {
            return Ok(RunEnd::Lost { cause: v1::LostCause::WorkerCrash, detail: "killed".into() });
        }
        if source.contains("takes_a_while") {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        let (mut outcome, metrics) = self.outcome(&spec);
        if outcome.kind() == v1::OutcomeKind::Rejected {
            return Ok(RunEnd::Rejected { field: "image".into(), reason: "no such image".into() });
        }
        if source.contains("runs_until_cancelled") && !spec.smoke {
            cancel.cancelled().await;
            self.cancelled.fetch_add(1, Ordering::SeqCst);
            outcome = v1::Outcome { kind: v1::OutcomeKind::Cancelled.into(), ..v1::Outcome::default() };
        }
        let points = metrics
            .into_iter()
            .map(|(name, value)| v1::MetricPoint { name, value, step: Some(1), elapsed_ns: 5 })
            .collect();
        let frame = v1::Frame { stream: v1::Stream::Metrics.into(), points, ..v1::Frame::default() };
        let wall_ms = if source.contains("is_slow") { 50_000 } else { 2_000 };
        let finished = v1::Finished {
            outcome: Some(outcome),
            usage: Some(v1::UsageTotals { wall_ms, complete: true, ..v1::UsageTotals::default() }),
            last_sequence: 2,
            limits: spec.limits,
            ..v1::Finished::default()
        };
        let end = event(2, v1::event::Kind::Finished(finished.clone()));
        sink.apply(vec![event(1, v1::event::Kind::Frame(frame)), end]).await?;
        sink.complete().await?;
        sink.released().await?;
        Ok(RunEnd::Finished(Box::new(finished)))
    }

    async fn end(
        &self,
        _: v1::StartRunRequest,
        _: Option<&str>,
        _: &mut dyn RunSink,
        _: &CancellationToken,
    ) -> Result<RunEnd, FleetError> {
        let detail = "no worker knows the run".to_owned();
        Ok(RunEnd::Lost { cause: v1::LostCause::Unspecified, detail })
    }
}
