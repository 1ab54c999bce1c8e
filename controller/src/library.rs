//! The controller as a library, with the command line's words:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use controller::AutoResearch;
//!
//! let research = AutoResearch::builder().llm("offline").gpu_budget_hours(8.0).max_iterations(20).build()?;
//! let end = research.run("Does batch normalisation help a small MLP on digits?", Some("digits")).await?;
//! # let _ =
//! end.summary
//! # ; Ok(()) }
//! ```
//!
//! It does what `autoresearch run` does, in the caller's process: journal, budgets and report are the same files. Nothing is
//! printed. The local worker is the `autoresearch` program, which must be installed (or named in `AUTORESEARCH_PROGRAM`).

use std::{path::PathBuf, time::Duration};

use kit::task::CancellationToken;

use crate::{
    campaign::{self, CampaignEnd, CampaignSettings, Watchers},
    cli::{
        error::CliError,
        research::{self, Thinking, research},
        session::Session,
    },
    journal::CampaignId,
    llm,
};

/// Why a campaign could not be set up or ended without a report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option, the machine, or the question: nothing was run.
    #[error("{0}")]
    Usage(String),
    /// It was tried and failed.
    #[error("{0}")]
    Failed(String),
}

impl From<CliError> for Error {
    fn from(error: CliError) -> Self {
        match error {
            CliError::Usage(text) => Self::Usage(text),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// What came out of a campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The campaign's id.
    pub id: String,
    /// The answer: a paragraph with verdict, size, interval, seeds and conditions.
    pub summary: String,
    /// What stopped it: "question answered", "iterations", "money", …
    pub stopped_by: String,
    /// The page; JSON and Markdown lie beside it.
    pub report: Option<PathBuf>,
    /// Whether any run succeeded.
    pub any_succeeded: bool,
}

/// Research with given settings; questions are given to [`AutoResearch::run`].
#[derive(Debug, Clone)]
pub struct AutoResearch {
    settings: CampaignSettings,
    llm_url: Option<String>,
    data_dir: PathBuf,
    cancel: CancellationToken,
}

/// Settings with the defaults of the command line.
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    settings: CampaignSettings,
    llm_url: Option<String>,
    data_dir: Option<PathBuf>,
    cancel: CancellationToken,
    problem: Option<String>,
}

impl AutoResearch {
    /// The defaults: the rule-based researcher, 3 iterations, 8 hours, no limit on devices.
    pub fn builder() -> Builder {
        Builder {
            settings: CampaignSettings::new(String::new(), "offline"),
            llm_url: None,
            data_dir: None,
            cancel: CancellationToken::new(),
            problem: None,
        }
    }

    /// Researches a question on a data set, or on one that the researcher chooses, to its report.
    ///
    /// # Errors
    /// [`Error::Usage`] where nothing was run, [`Error::Failed`] where there is no report.
    pub async fn run(&self, question: &str, dataset: Option<&str>) -> Result<Outcome, Error> {
        let settings = CampaignSettings {
            question: question.trim().to_owned(),
            data_set: dataset.map(str::to_owned),
            llm_url: self.llm_url.clone(),
            ..self.settings.clone()
        };
        settings.check().map_err(|e| Error::Usage(e.to_string()))?;
        let thinking = Thinking::open(&settings.llm, self.llm_url.clone(), llm::Keys::from_env())?;
        thinking.accepts(&settings)?;
        let session = Session::open(&self.data_dir, settings.backend.as_deref()).await?;
        let ended = research(
            &session,
            thinking,
            CampaignId::new(),
            settings,
            Watchers::nobody(),
            self.cancel.clone(),
        )
        .await;
        session.end().await;
        Ok(Outcome::of(ended?))
    }

    /// Goes on with a campaign that nobody runs, where a kill or an interruption left it, with the settings that it was
    /// begun with; of one that is over it gives the outcome again.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is no such campaign, [`Error::Failed`] where there is no report.
    pub async fn resume(&self, id: &str) -> Result<Outcome, Error> {
        let session = Session::open(&self.data_dir, self.settings.backend.as_deref()).await?;
        let ended = self.resumed(&session, id).await;
        session.end().await;
        Ok(Outcome::of(ended?))
    }

    async fn resumed(&self, session: &Session, id: &str) -> Result<CampaignEnd, Error> {
        let wrong = |error: crate::journal::JournalError| Error::Usage(error.to_string());
        let id = session.journal.find_campaign(id).await.map_err(wrong)?;
        let over = campaign::end_of(&session.journal, id).await.map_err(|e| Error::Failed(e.to_string()))?;
        if let Some(end) = over {
            return Ok(end);
        }
        let row = session.journal.campaign(id).await.map_err(wrong)?;
        let settings: CampaignSettings =
            serde_json::from_value(row.settings).map_err(|e| Error::Failed(e.to_string()))?;
        let url = settings.llm_url.clone().or_else(|| self.llm_url.clone());
        let thinking = Thinking::open(&settings.llm, url, llm::Keys::from_env())?;
        let (watchers, cancel) = (Watchers::nobody(), self.cancel.clone());
        Ok(research::resume(session, thinking, id, &settings, watchers, cancel).await?)
    }
}

impl Outcome {
    fn of(end: CampaignEnd) -> Self {
        Self {
            id: end.id.to_string(),
            summary: end.answer,
            stopped_by: end.stopped_by.words().to_owned(),
            report: end.report_path,
            any_succeeded: end.any_succeeded,
        }
    }
}

impl Builder {
    /// Who does the thinking: "offline", "anthropic:MODEL", …
    pub fn llm(mut self, spec: impl Into<String>) -> Self {
        self.settings.llm = spec.into();
        self
    }

    /// Another base address of the provider.
    pub fn llm_url(mut self, url: impl Into<String>) -> Self {
        self.llm_url = Some(url.into());
        self
    }

    /// The image that experiments run in.
    pub fn image(mut self, name: impl Into<String>) -> Self {
        self.settings.image = name.into();
        self
    }

    /// A single look at so many seeds, 3 or more.
    pub fn seeds(mut self, count: u32) -> Self {
        self.settings.seeds = Some(count);
        self
    }

    /// At most so many experiments.
    pub fn max_iterations(mut self, count: u32) -> Self {
        self.settings.max_iterations = count;
        self
    }

    /// Hours awake and not paused.
    pub fn time_budget_hours(mut self, hours: f64) -> Self {
        self.settings.time_budget = self.hours("time_budget_hours", hours);
        self
    }

    /// Hours of devices.
    pub fn gpu_budget_hours(mut self, hours: f64) -> Self {
        self.settings.gpu_budget = Some(self.hours("gpu_budget_hours", hours));
        self
    }

    /// US dollars for model calls.
    pub fn cost_budget(mut self, dollars: f64) -> Self {
        self.settings.cost_budget = Some(dollars);
        self
    }

    /// The smallest effect worth knowing, as on the command line: "0.5pt".
    pub fn smallest_effect(mut self, effect: impl Into<String>) -> Self {
        self.settings.smallest_effect = Some(effect.into());
        self
    }

    /// Failures in a row that stop the campaign.
    pub fn max_failures(mut self, count: u32) -> Self {
        self.settings.max_failures = count;
        self
    }

    /// Where journal, reports and the local worker are kept.
    pub fn data_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(folder.into());
        self
    }

    /// Cancelling it ends runs, writes the report so far and marks the campaign as interrupted.
    pub fn cancel_with(mut self, token: CancellationToken) -> Self {
        self.cancel = token;
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Usage`] with the option at fault.
    pub fn build(self) -> Result<AutoResearch, Error> {
        if let Some(problem) = self.problem {
            return Err(Error::Usage(problem));
        }
        // A question is needed for the check and comes later.
        let checked = CampaignSettings { question: "?".to_owned(), ..self.settings.clone() };
        checked.check().map_err(|e| Error::Usage(e.to_string()))?;
        let data_dir = match self.data_dir {
            Some(folder) => folder,
            None => kit::folder::data().map_err(|e| Error::Usage(e.to_string()))?,
        };
        Ok(AutoResearch { settings: self.settings, llm_url: self.llm_url, data_dir, cancel: self.cancel })
    }

    fn hours(&mut self, option: &str, hours: f64) -> Duration {
        Duration::try_from_secs_f64(hours * 3600.0).unwrap_or_else(|_| {
            self.problem.get_or_insert(format!("{option}: {hours} is not a number of hours over 0"));
            Duration::ZERO
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_options_are_named_before_anything_runs() {
        let wrong = |builder: Builder| builder.data_dir("/nowhere").build().unwrap_err().to_string();
        assert!(wrong(AutoResearch::builder().gpu_budget_hours(f64::NAN)).contains("gpu_budget_hours"));
        assert!(wrong(AutoResearch::builder().time_budget_hours(-1.0)).contains("time_budget_hours"));
        assert!(wrong(AutoResearch::builder().max_iterations(0)).contains("--max-iterations"));
        assert!(wrong(AutoResearch::builder().cost_budget(0.0)).contains("--cost-budget"));
    }

    #[tokio::test]
    async fn a_question_that_is_not_covered_is_refused_before_anything_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let research = AutoResearch::builder().data_dir(folder.path().join("data")).build().unwrap();
        let refused = research.run("What is the meaning of life?", None).await.unwrap_err();
        assert!(matches!(refused, Error::Usage(_)), "{refused:?}");
        assert!(!folder.path().join("data").exists());
    }
}
