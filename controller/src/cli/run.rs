//! `autoresearch run QUESTION`

use std::{
    io::{IsTerminal as _, Read as _, stdin},
    path::Path,
    process::ExitCode,
};

use kit::{clock::SystemClock, duration::Span, task::CancellationToken};
use serde::Serialize;

use super::{
    Global,
    config::Config,
    detach,
    error::CliError,
    out::{Printer, stderr_is_terminal},
    progress,
    research::{Thinking, research},
    resume, session,
    session::{Session, SessionOptions},
    signals,
    values::{Count, Dollars},
};
use crate::{
    campaign::{CampaignEnd, CampaignSettings, Watchers, settings::QUESTION_BYTES},
    journal::{CampaignId, CampaignRow, CampaignState, Journal},
    llm,
};

/// Research a question: plan, code, run, analyse, report.
///
/// Standard output ends with the answer and the report's path. Without --llm a rule-based researcher takes the
/// question, which needs no key and no network.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The question; `-` reads it from standard input (16 KiB at most).
    question: String,
    /// Go on with a campaign of the same question that was begun and not ended, if there is one, without asking.
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    flags: Flags,
    /// Go on without this terminal, and print the campaign's id; `autoresearch attach ID` comes back to it.
    #[arg(long)]
    detach: bool,
    /// Who `--detach` started.
    #[arg(long, hide = true, value_name = "ID")]
    detached_as: Option<CampaignId>,
}

/// What may also stand in `autoresearch.toml` or AUTORESEARCH_*. Only what was given is merged.
#[derive(Debug, Serialize, clap::Args)]
struct Flags {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(skip)]
    data_dir: Option<std::path::PathBuf>,
    /// Who does the thinking: offline, anthropic:MODEL, openai:MODEL, ollama:MODEL or compatible:MODEL [default: offline].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "SPEC")]
    llm: Option<String>,
    /// Another base address of the provider (with /v1 for the OpenAI formats).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "URL")]
    llm_url: Option<String>,
    /// The data set that experiments use.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// The image that experiments run in [default: torch].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// A single look at so many seeds, 3 or more [default: looks at 5 and 10].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seeds: Option<Count>,
    /// At most so many experiments [default: 3].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_iterations: Option<Count>,
    /// Time awake and not paused, like 8h [default: 8h].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    time_budget: Option<Span>,
    /// Device time, like 4h; hours of slots on a worker without a GPU [default: no limit].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    gpu_budget: Option<Span>,
    /// US dollars for model calls [default: no limit].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "DOLLARS", allow_negative_numbers = true)]
    cost_budget: Option<Dollars>,
    /// The smallest effect worth knowing, like 0.5pt, 2% or 0.01.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "EFFECT", allow_hyphen_values = true)]
    smallest_effect: Option<String>,
    /// Failures in a row that stop the campaign [default: 5].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_failures: Option<Count>,
    /// The worker's way to make a sandbox: docker [default: the worker's choice].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
}

pub(super) async fn run(args: Args, global: &Global, printer: Printer) -> Result<ExitCode, CliError> {
    let flags = Flags { data_dir: global.data_dir.clone(), ..args.flags };
    if args.detached_as.is_some() {
        detach::leave_the_terminal();
    }
    let config = Config::load(&flags)?;
    let settings = settings(question(&args.question)?, &config);
    settings.check().map_err(|e| CliError::Usage(e.to_string()))?;
    let keys = llm::Keys::from_env();
    let seen = keys.seen();
    let thinking = Thinking::open(&config.llm, config.llm_url.clone(), keys)?;
    thinking.accepts(&settings)?;
    if matches!(thinking, Thinking::Rules) && !seen.is_empty() {
        // Nobody shall believe that a key alone chooses a model that costs money.
        printer.say(&format!("keys seen and not used: {} (choose a model with --llm)", seen.join(", ")));
    }
    let data_dir = config.data_dir()?;
    if args.detached_as.is_none()
        && let Some(row) = waiting(&data_dir, &settings.question).await?
        && (args.resume || wanted(row.id, printer).await)
    {
        return resume::go_on(row, global, printer).await;
    }
    let id = args.detached_as.unwrap_or_else(CampaignId::new);
    if args.detach {
        return detach::detach(id, &settings.question, global, printer).await;
    }

    let options = SessionOptions {
        backend: config.backend.clone(),
        listen: config.listen,
        local_worker: config.local_worker,
    };
    crate::telemetry::serve(config.metrics_listen).await?;
    let session = Session::open_with(&data_dir, &options).await?;
    let notes = if config.backend.is_none() { session.notes() } else { session.absences().to_vec() };
    notes.iter().for_each(|note| printer.say(note));
    let ended = watched(printer, async |watchers, cancel| {
        research(&session, thinking, id, settings, watchers, cancel).await
    })
    .await;
    session.end().await;
    finish(&ended?, printer)
}

/// A campaign with the same question that waits for somebody to go on with it.
async fn waiting(data_dir: &Path, question: &str) -> Result<Option<CampaignRow>, CliError> {
    let journal = match Journal::open_read_only(data_dir, SystemClock::shared()) {
        Ok(journal) => journal,
        Err(error) if error.is_not_there() => return Ok(None),
        Err(error) => return Err(session::open_failed(&error)),
    };
    resume::waiting(&journal, question).await
}

/// Whether it is to be gone on with: a person is asked, a script is told.
async fn wanted(id: CampaignId, printer: Printer) -> bool {
    if !(stdin().is_terminal() && stderr_is_terminal()) {
        printer.say(&format!(
            "the same question was begun before and not ended: `autoresearch resume {id}` or `run --resume` goes on with it; this is a new one"
        ));
        return false;
    }
    printer.say(&format!("campaign {id} has the same question and was not ended. Go on with it? [Y/n]"));
    let answer = kit::task::blocking("ask", || {
        let mut line = String::new();
        stdin().read_line(&mut line).map(|_| line)
    });
    let answer = answer.await.and_then(Result::ok).unwrap_or_default();
    !answer.trim().to_lowercase().starts_with('n')
}

/// Does `work` with the progress drawn and Ctrl-C heard.
pub(super) async fn watched<T>(
    printer: Printer,
    work: impl AsyncFnOnce(Watchers, CancellationToken) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let cancel = CancellationToken::new();
    signals::listen(cancel.clone(), printer)?;
    let (watchers, events) = Watchers::channel();
    let drawing = kit::task::spawn("progress", progress::draw(events, printer));
    let ended = work(watchers, cancel).await;
    // The last sender went with the campaign.
    drawing.await.ok();
    ended
}

pub(super) fn finish(end: &CampaignEnd, printer: Printer) -> Result<ExitCode, CliError> {
    let path = end.report_path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let json = serde_json::json!({
        "id": end.id.to_string(),
        "state": end.state,
        "answer": end.answer,
        "stopped_by": end.stopped_by.words(),
        "report": path,
    });
    if end.state == CampaignState::Interrupted {
        printer.say(&format!("go on with `autoresearch resume {}`", end.id));
    }
    printer.result(&json, &format!("{}\n{path}", end.answer))?;
    Ok(match end.state {
        CampaignState::Interrupted => CliError::Interrupted.exit_code(),
        _ if end.any_succeeded => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// From the argument, or from standard input where it is `-`.
fn question(argument: &str) -> Result<String, CliError> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut bytes = Vec::new();
    let limit = QUESTION_BYTES as u64 + 1;
    std::io::stdin()
        .lock()
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|e| CliError::field("question", format!("cannot read standard input: {e}")))?;
    if bytes.len() as u64 == limit {
        return Err(CliError::field(
            "question",
            format!("standard input holds more than {QUESTION_BYTES} bytes (16 KiB), the most that is taken"),
        ));
    }
    String::from_utf8(bytes).map_err(|_| CliError::field("question", "standard input is not UTF-8 text"))
}

fn settings(question: String, config: &Config) -> CampaignSettings {
    CampaignSettings {
        llm_url: config.llm_url.clone(),
        data_set: config.dataset.clone(),
        image: config.image.clone(),
        seeds: config.seeds.map(|n| n.0),
        max_iterations: config.max_iterations.0,
        time_budget: config.time_budget.0,
        gpu_budget: config.gpu_budget.map(|t| t.0),
        cost_budget: config.cost_budget.map(|d| d.0 as f64 / 1e6),
        smallest_effect: config.smallest_effect.clone(),
        max_failures: config.max_failures.0,
        backend: config.backend.clone(),
        repairs: config.max_repairs,
        ..CampaignSettings::new(question.trim(), &config.llm)
    }
}
