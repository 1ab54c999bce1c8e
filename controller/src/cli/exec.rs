//! `autoresearch exec FILE.py`: one program in one sandbox, kept as a campaign of kind `exec` with one run.

use std::{
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use kit::{
    duration::Span,
    requirement::{REQUIREMENTS_MAX, check_requirement},
    size::Bytes,
    task::CancellationToken,
};
use prost::Message as _;
use proto::v1;
use tracing::Instrument as _;

use super::{
    Global,
    config::Config,
    error::{CliError, chain},
    out::{Printer, json_number},
    progress, research,
    session::{Session, SessionOptions, journal_failed},
    signals,
    values::{Count, Cpus},
};
use crate::{
    campaign::{
        executor::{sink::JournalSink, spec::longest},
        images,
        progress::{Progress, Watchers},
        record::{lost_cause_word, outcome_word},
    },
    fleet::{FleetError, ImageChoice, RunEnd},
    journal::{
        CampaignId, CampaignKind, CampaignState, EndedHere, Journal, Limits, LogStream, NewCampaign, NewRun,
        RunId, RunPurpose,
    },
};

/// A program is at most so long.
const PROGRAM_BYTES: u64 = 4 << 20;
/// Parameters are at most so long (WORKER §1).
const PARAMS_BYTES: usize = 64 << 10;
/// The last of each stream that is printed.
const TAIL_BYTES: u64 = 16 << 10;
const PROGRAM: &str = "program.py";

/// Run one Python program in one sandbox, under hard limits and without a network.
///
/// Exits 0 only where the outcome is `succeeded`. The program may use `import autoresearch as ar`: ar.params, ar.log,
/// ar.save. It is sent as it is.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The program.
    file: PathBuf,
    /// Memory, with no swap beyond it, like 2GiB [default: the slot's share].
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    memory: Option<Bytes>,
    /// Wall-clock time, like 20s or 2h [default: 10m].
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    time_limit: Option<Span>,
    /// CPUs, like 0.5 or 2 [default: the slot's share].
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    cpus: Option<Cpus>,
    /// Disk for its files, like 4GiB [default: 4GiB].
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    disk: Option<Bytes>,
    /// Processes and threads [default: 1024].
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids: Option<Count>,
    /// Shared memory, counted in memory [default: a quarter of memory].
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    shm: Option<Bytes>,
    /// GPUs [default: 0].
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true,
        hide_default_value = true
    )]
    gpus: u32,
    /// The image, by its name on the worker [default: torch].
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// A data set of the worker, or one that ships (digits, austen); ar.dataset(NAME) is its path. May be repeated.
    #[arg(long, value_name = "NAME")]
    dataset: Vec<String>,
    /// ar.params, a JSON object [default: {}].
    #[arg(long, value_name = "JSON", allow_negative_numbers = true, value_parser = params)]
    params: Option<serde_json::Value>,
    /// The seed of the four random streams [default: 0].
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true,
        hide_default_value = true
    )]
    seed: u64,
    /// A package to install first, like einops==0.8.0; may be given again. Wheels only; the image's own are not replaced.
    #[arg(long = "package", value_name = "SPEC", allow_hyphen_values = true)]
    packages: Vec<String>,
    /// The worker's way to make a sandbox: docker [default: the worker's choice].
    #[arg(long, value_name = "NAME", value_parser = ["docker", "native"])]
    backend: Option<String>,
}

fn params(text: &str) -> Result<serde_json::Value, String> {
    if text.len() > PARAMS_BYTES {
        return Err(format!("longer than {PARAMS_BYTES} bytes"));
    }
    match serde_json::from_str(text) {
        Ok(value @ serde_json::Value::Object(_)) => Ok(value),
        Ok(_) => Err("a JSON object is wanted, like {\"lr\": 0.1}".to_owned()),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}

pub(super) async fn run(args: Args, global: &Global, printer: Printer) -> Result<ExitCode, CliError> {
    let mut config = Config::load(global)?;
    let program = read_program(&args.file)?;
    if let Some(image) = &args.image {
        kit::name::check_name(image).map_err(|e| CliError::field("--image", e))?;
        config.image.clone_from(image);
    }
    check_packages(&args.packages)?;
    let backend = args.backend.clone().or(config.backend.clone());
    for (index, name) in args.dataset.iter().enumerate() {
        kit::name::check_name(name).map_err(|e| CliError::field("--dataset", e))?;
        if args.dataset[..index].contains(name) {
            return Err(CliError::field("--dataset", format!("`{name}` is named twice")));
        }
    }
    let options =
        SessionOptions { backend: backend.clone(), listen: config.listen, local_worker: config.local_worker };
    let session = Session::open_with(&config.data_dir()?, &options).await?;
    session.absences().iter().for_each(|note| printer.say(note));
    let cancel = CancellationToken::new();
    signals::listen(cancel.clone(), printer)?;
    let exec = Exec { session: &session, args: &args, image: &config.image, backend, program };
    let told = exec.run(&cancel, printer).await;
    session.end().await;
    let told = told?;
    printer.result(&told.json(), &told.text())?;
    Ok(match told.outcome().kind() {
        _ if cancel.is_cancelled() => CliError::Interrupted.exit_code(),
        v1::OutcomeKind::Succeeded => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Before a worker is started for them; it checks them again.
fn check_packages(packages: &[String]) -> Result<(), CliError> {
    if packages.len() > REQUIREMENTS_MAX {
        return Err(CliError::field("--package", format!("at most {REQUIREMENTS_MAX} packages")));
    }
    packages.iter().try_for_each(|text| check_requirement(text).map_err(|e| CliError::field("--package", e)))
}

fn read_program(path: &Path) -> Result<bytes::Bytes, CliError> {
    let wrong = |problem: String| CliError::Usage(format!("{}: {problem}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| wrong(e.to_string()))?;
    let mut bytes = Vec::new();
    file.take(PROGRAM_BYTES + 1).read_to_end(&mut bytes).map_err(|e| wrong(e.to_string()))?;
    if bytes.len() as u64 > PROGRAM_BYTES {
        return Err(wrong(format!("a program is at most {}", Bytes(PROGRAM_BYTES))));
    }
    Ok(bytes.into())
}

struct Exec<'a> {
    session: &'a Session,
    args: &'a Args,
    image: &'a str,
    backend: Option<String>,
    program: bytes::Bytes,
}

impl Exec<'_> {
    async fn run(&self, cancel: &CancellationToken, printer: Printer) -> Result<Told, CliError> {
        let (watchers, events) = Watchers::channel();
        let drawing = kit::task::spawn("progress", progress::draw(events, printer));
        let told = self.one_run(cancel, &watchers).await;
        drop(watchers);
        drawing.await.ok();
        told
    }

    async fn one_run(&self, cancel: &CancellationToken, watchers: &Watchers) -> Result<Told, CliError> {
        let Session { journal, fleet, .. } = self.session;
        for name in &self.args.dataset {
            research::there(name, self.session)?;
        }
        self.prepare_image(cancel, watchers).await?;
        let digest = fleet.put_blob(self.program.clone()).await?;
        let mut spec = self.spec(&digest);
        self.data_sets(&mut spec).await?;
        let (campaign, run) = (CampaignId::new(), RunId::new());
        journal.create_campaign(self.campaign(campaign)).await.map_err(journal_failed)?;
        let _owned = journal.lock(campaign).map_err(|e| CliError::Failed(chain(&e)))?;
        let new = self.new_run(campaign, run, &spec);
        let start = v1::StartRunRequest {
            run_id: run.to_string(),
            controller_id: journal.controller_id().to_string(),
            spec: new.spec.clone().into(),
        };
        journal.plan_run(new).await.map_err(|e| CliError::Failed(chain(&e)))?;
        let opened = JournalSink::open(journal, campaign, run, "v1", watchers).await;
        let mut sink = opened.map_err(journal_failed)?;
        watchers.tell(Progress::Step { iteration: 0, iterations: 0, step: "running", detail: String::new() });
        let span = tracing::info_span!("campaign", campaign_id = %campaign);
        let end = fleet.run(start, &mut sink, cancel).instrument(span).await;
        drop(sink);
        let finished = self.ended(run, end).await?;
        let state = match finished.outcome.as_ref().map_or(v1::OutcomeKind::Unspecified, v1::Outcome::kind) {
            _ if cancel.is_cancelled() => CampaignState::Interrupted,
            v1::OutcomeKind::Succeeded => CampaignState::Finished,
            _ => CampaignState::Failed,
        };
        journal.set_campaign_state(campaign, state, None).await.map_err(journal_failed)?;
        told(journal, campaign, run, finished).await
    }

    async fn prepare_image(&self, cancel: &CancellationToken, watchers: &Watchers) -> Result<(), CliError> {
        let image = ImageChoice { name: self.image, backend: self.backend.as_deref().unwrap_or_default() };
        images::prepare(&self.session.fleet, image, watchers, cancel).await.map_err(|error| match error {
            FleetError::Cancelled => CliError::Interrupted,
            FleetError::Call { code: tonic::Code::NotFound, message, .. } => {
                CliError::field("--image", message)
            }
            other => CliError::Failed(chain(&other)),
        })?;
        Ok(())
    }

    fn spec(&self, program: &kit::digest::Digest) -> v1::RunSpec {
        let args = self.args;
        let size = |bytes: Option<Bytes>| bytes.map_or(0, |b| b.0);
        v1::RunSpec {
            image: self.image.to_owned(),
            backend: self.backend.clone().unwrap_or_default(),
            files: vec![v1::InputFile {
                path: PROGRAM.to_owned(),
                digest: program.to_string(),
                size_bytes: self.program.len() as u64,
                role: v1::InputRole::Program.into(),
            }],
            params_json: args.params.as_ref().map_or_else(|| "{}".to_owned(), ToString::to_string),
            seed: args.seed,
            limits: Some(v1::Limits {
                time_ms: args.time_limit.map_or(0, |t| u64::try_from(t.0.as_millis()).unwrap_or(u64::MAX)),
                memory_bytes: size(args.memory),
                cpu_millis: args.cpus.map_or(0, |c| c.0),
                pids: args.pids.map_or(0, |n| n.0),
                disk_bytes: size(args.disk),
                shm_bytes: size(args.shm),
                ..v1::Limits::default()
            }),
            gpus: args.gpus,
            packages: args.packages.clone(),
            // Without a plan every metric is watched (WORKER §5).
            divergence: Some(v1::DivergenceRule { non_finite: true, ..v1::DivergenceRule::default() }),
            ..v1::RunSpec::default()
        }
    }

    /// Those that ship travel with the run; the others are the worker's.
    async fn data_sets(&self, spec: &mut v1::RunSpec) -> Result<(), CliError> {
        let shipped = research::data_sets();
        for name in &self.args.dataset {
            let Some(ours) = shipped.iter().find(|set| set.name == *name) else {
                spec.data_sets.push(name.clone());
                continue;
            };
            let digest = self.session.fleet.put_blob(ours.bytes.clone()).await?;
            spec.files.push(v1::InputFile {
                path: name.clone(),
                digest: digest.to_string(),
                size_bytes: ours.bytes.len() as u64,
                role: v1::InputRole::Data.into(),
            });
        }
        Ok(())
    }

    fn campaign(&self, id: CampaignId) -> NewCampaign {
        NewCampaign {
            id,
            kind: CampaignKind::Exec,
            question: self.args.file.display().to_string(),
            settings: serde_json::json!({
                "image": self.image,
                "seed": self.args.seed,
                "data_sets": self.args.dataset,
            }),
            researcher: "none".to_owned(),
            seed: None,
            limits: Limits::default(),
        }
    }

    fn new_run(&self, campaign: CampaignId, id: RunId, spec: &v1::RunSpec) -> NewRun {
        NewRun {
            id,
            campaign,
            experiment: None,
            revision: None,
            variant: "v1".to_owned(),
            seed: self.args.seed,
            purpose: RunPurpose::Exec,
            predecessor: None,
            image: self.image.to_owned(),
            spec: spec.encode_to_vec(),
            reserve: longest(spec).max(Duration::from_secs(1)),
            devices: self.args.gpus.max(1),
        }
    }

    /// The worker's `finished`, or the reason why there is none.
    async fn ended(&self, run: RunId, end: Result<RunEnd, FleetError>) -> Result<v1::Finished, CliError> {
        let journal = &self.session.journal;
        let (how, error) = match end {
            Ok(RunEnd::Finished(finished)) => return Ok(*finished),
            Ok(RunEnd::Rejected { field, reason }) => {
                let error = CliError::Usage(format!("{}: {reason}", flag(&field)));
                (EndedHere::Rejected { field, reason }, error)
            }
            Ok(RunEnd::Lost { cause, detail }) => {
                let error = CliError::Failed(format!("the run is lost: {detail}"));
                (EndedHere::Lost { cause, message: detail }, error)
            }
            Err(FleetError::Cancelled) => {
                (EndedHere::Cancelled { message: "before it was placed".to_owned() }, CliError::Interrupted)
            }
            Err(other) => return Err(CliError::Failed(chain(&other))),
        };
        journal.end_run(run, how).await.map_err(journal_failed)?;
        Err(error)
    }
}

/// The worker names fields of the protocol; a person gave flags.
fn flag(field: &str) -> &str {
    let last = field.rsplit('.').next().unwrap_or(field);
    match last.split('[').next().unwrap_or(last) {
        "data_sets" => "--dataset",
        "memory_bytes" => "--memory",
        "time_ms" => "--time-limit",
        "cpu_millis" => "--cpus",
        "disk_bytes" => "--disk",
        "pids" => "--pids",
        "shm_bytes" => "--shm",
        "gpus" => "--gpus",
        "image" => "--image",
        "params_json" => "--params",
        "backend" => "--backend",
        name if name.starts_with("packages") => "--package",
        _ => field,
    }
}

/// What is printed.
struct Told {
    run: RunId,
    finished: v1::Finished,
    metrics: serde_json::Map<String, serde_json::Value>,
    artifacts: Vec<serde_json::Value>,
    stdout: String,
    stderr: String,
}

async fn told(
    journal: &Journal,
    campaign: CampaignId,
    run: RunId,
    finished: v1::Finished,
) -> Result<Told, CliError> {
    let summaries = journal.metrics(run).await.map_err(journal_failed)?;
    let metrics = summaries.into_iter().map(|m| (m.name, json_number(m.last))).collect();
    let artifact = |a: &v1::Artifact| {
        let path = journal.artifact_path(campaign, run, &a.name).ok();
        serde_json::json!({ "name": a.name, "size_bytes": a.size_bytes, "digest": a.digest, "path": path })
    };
    let tail = |stream| tail(&journal.log_path(campaign, run, stream));
    Ok(Told {
        run,
        artifacts: finished.artifacts.iter().map(artifact).collect(),
        metrics,
        stdout: tail(LogStream::Stdout),
        stderr: tail(LogStream::Stderr),
        finished,
    })
}

fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    // A stream that nothing was written to has no file.
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

impl Told {
    fn outcome(&self) -> v1::Outcome {
        self.finished.outcome.clone().unwrap_or_default()
    }

    fn usage(&self) -> v1::UsageTotals {
        self.finished.usage.clone().unwrap_or_default()
    }

    fn json(&self) -> serde_json::Value {
        let (outcome, usage) = (self.outcome(), self.usage());
        let left_out = |l: &v1::LeftOut| serde_json::json!({ "name": l.name, "reason": l.reason });
        serde_json::json!({
            "run_id": self.run.to_string(),
            "outcome": outcome_word(outcome.kind()),
            "cause": lost_cause_word(outcome.lost_cause()),
            "message": outcome.message,
            "exit_code": outcome.exit_code,
            "signal": outcome.signal,
            "exception": (!outcome.exception_class.is_empty())
                .then(|| serde_json::json!({ "class": outcome.exception_class, "message": outcome.exception_message })),
            "limit": (!outcome.limit.is_empty()).then_some(&outcome.limit),
            "missing_metrics": outcome.metrics,
            "resolver": (outcome.kind() == v1::OutcomeKind::DependencyConflict).then_some(&outcome.traceback),
            "packages": self.finished.packages.iter()
                .map(|p| serde_json::json!({ "name": p.name, "version": p.version }))
                .collect::<Vec<_>>(),
            "notes": outcome.notes,
            "usage": {
                "wall_ms": usage.wall_ms,
                "prepare_ms": usage.prepare_ms,
                "cpu_ms": usage.cpu_ns / 1_000_000,
                "memory_peak_bytes": usage.memory_peak_bytes,
                "disk_peak_bytes": usage.disk_peak_bytes,
                "stdout_bytes": usage.stdout_bytes,
                "stderr_bytes": usage.stderr_bytes,
                "metric_points": usage.metric_points,
                "complete": usage.complete,
            },
            "metrics": self.metrics,
            "artifacts": self.artifacts,
            "left_out": self.finished.left_out.iter().map(left_out).collect::<Vec<_>>(),
            "stdout": self.stdout,
            "stderr": self.stderr,
        })
    }

    fn text(&self) -> String {
        let (outcome, usage) = (self.outcome(), self.usage());
        let mut lines = Vec::new();
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                lines.push(format!("--- {name} ---\n{}", kit::text::printable(text).trim_end()));
            }
        }
        if outcome.kind() == v1::OutcomeKind::DependencyConflict {
            lines.push(format!("--- resolver ---\n{}", kit::text::printable(&outcome.traceback).trim_end()));
        }
        lines.push("---".to_owned());
        let message =
            if outcome.message.is_empty() { String::new() } else { format!(": {}", outcome.message) };
        lines.push(format!("{}{}", outcome_word(outcome.kind()), kit::text::one_line(&message, 400)));
        lines.push(format!(
            "run {}  {:.1} s  {:.1} s of CPU  peak memory {}",
            self.run,
            usage.wall_ms as f64 / 1e3,
            usage.cpu_ns as f64 / 1e9,
            Bytes(usage.memory_peak_bytes.max(1)),
        ));
        lines.extend(self.finished.packages.iter().map(|p| format!("package {} {}", p.name, p.version)));
        lines.extend(self.metrics.iter().map(|(name, value)| format!("{name} = {value}")));
        lines.extend(self.artifacts.iter().filter_map(|a| Some(format!("artifact {}", a["path"].as_str()?))));
        lines.extend(self.finished.left_out.iter().map(|l| format!("left out {}: {}", l.name, l.reason)));
        lines.join("\n")
    }
}
