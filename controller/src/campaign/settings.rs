//! What a campaign was asked for, with the defaults of DESIGN §8. The command line and the library's builder fill
//! this in; whether it makes sense is checked here, before anything is built or started.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::wish::EffectWish;

/// Iterations where the user says nothing.
pub const ITERATIONS: u32 = 3;
/// Wall-clock budget where the user says nothing: a night.
pub const TIME_BUDGET: Duration = Duration::from_secs(8 * 3600);
/// Failures in a row that stop a campaign where the user says nothing.
pub const FAILURES_IN_A_ROW: u32 = 5;
/// Repairs of one experiment's program.
pub const REPAIRS: u32 = 3;
/// Replies that may be sent back for one plan, program or interpretation.
pub const REPLIES: u32 = 3;
/// Confirmatory experiments that share the campaign's error (METHOD §4).
pub const CONFIRMATORY: u32 = 3;
/// The whole campaign's two-sided error (METHOD §4).
pub const CAMPAIGN_ERROR: f64 = 0.05;
/// The longest question, in bytes.
pub const QUESTION_BYTES: usize = 16 << 10;
/// The image that runs use where the user names none.
pub const IMAGE: &str = "torch";
/// Runs of one variant that one experiment can pay for.
const SEEDS_MAX: u32 = 100;

/// One campaign's settings. Budgets that are `None` have no limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CampaignSettings {
    /// As the user wrote it.
    pub question: String,
    /// "offline", "anthropic:MODEL", …: for the report and the command that makes it again.
    pub llm: String,
    /// `--llm-url`: another base address of the provider. (A key never stands in it.)
    #[serde(default)]
    pub llm_url: Option<String>,
    /// `--dataset`.
    pub data_set: Option<String>,
    /// From the workers' allow-list.
    pub image: String,
    /// `--seeds`: a single look at so many.
    pub seeds: Option<u32>,
    /// At most so many experiments.
    pub max_iterations: u32,
    /// Awake and not paused.
    pub time_budget: Duration,
    /// Of devices: GPU-hours, or the hours of slots on a CPU worker.
    pub gpu_budget: Option<Duration>,
    /// US dollars for model calls.
    pub cost_budget: Option<f64>,
    /// `--smallest-effect`, as written.
    pub smallest_effect: Option<String>,
    /// Failures in a row that stop the campaign.
    pub max_failures: u32,
    /// "docker", "native", or `None`: the worker's choice.
    pub backend: Option<String>,
    /// Repairs of one experiment's program.
    pub repairs: u32,
}

/// A setting that cannot be used; it names the option.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// Nothing to research.
    #[error("the question is empty")]
    EmptyQuestion,
    /// Longer than [`QUESTION_BYTES`].
    #[error("the question is {0} bytes long; at most {QUESTION_BYTES} are taken")]
    LongQuestion(usize),
    /// Any other option.
    #[error("{option}: {problem}")]
    Option {
        /// Like "--seeds".
        option: &'static str,
        /// What is wanted.
        problem: String,
    },
}

impl CampaignSettings {
    /// The defaults of DESIGN §8 for a question and a model.
    #[must_use]
    pub fn new(question: impl Into<String>, llm: impl Into<String>) -> Self {
        Self {
            question: question.into(),
            llm: llm.into(),
            llm_url: None,
            data_set: None,
            image: IMAGE.to_owned(),
            seeds: None,
            max_iterations: ITERATIONS,
            time_budget: TIME_BUDGET,
            gpu_budget: None,
            cost_budget: None,
            smallest_effect: None,
            max_failures: FAILURES_IN_A_ROW,
            backend: None,
            repairs: REPAIRS,
        }
    }

    /// Whether it can be used at all.
    ///
    /// # Errors
    /// Names the option and what is wanted.
    pub fn check(&self) -> Result<(), SettingsError> {
        let wrong =
            |option, problem: &str| Err(SettingsError::Option { option, problem: problem.to_owned() });
        if self.question.trim().is_empty() {
            return Err(SettingsError::EmptyQuestion);
        }
        if self.question.len() > QUESTION_BYTES {
            return Err(SettingsError::LongQuestion(self.question.len()));
        }
        if self.seeds.is_some_and(|n| !(3..=SEEDS_MAX).contains(&n)) {
            return wrong("--seeds", "from 3 (fewer give no interval) to 100");
        }
        if !(1..=1000).contains(&self.max_iterations) {
            return wrong("--max-iterations", "from 1 to 1000");
        }
        if self.time_budget.is_zero() {
            return wrong("--time-budget", "over 0, like 8h");
        }
        if self.gpu_budget.is_some_and(|d| d.is_zero()) {
            return wrong("--gpu-budget", "over 0, like 4h");
        }
        if self.cost_budget.is_some_and(|d| !d.is_finite() || d <= 0.0) {
            return wrong("--cost-budget", "a finite number of US dollars over 0");
        }
        if !(1..=1000).contains(&self.max_failures) {
            return wrong("--max-failures", "from 1 to 1000");
        }
        if self.repairs > 20 {
            return wrong("repairs", "at most 20");
        }
        for (option, name) in [("--image", Some(&self.image)), ("--dataset", self.data_set.as_ref())] {
            if let Some(Err(error)) = name.map(|name| kit::name::check_name(name)) {
                return Err(SettingsError::Option { option, problem: error.to_string() });
            }
        }
        if self.backend.as_ref().is_some_and(|b| !matches!(b.as_str(), "docker" | "native")) {
            return wrong("--backend", "docker or native");
        }
        if let Some(wish) = &self.smallest_effect {
            let parsed = wish.parse::<EffectWish>();
            parsed
                .map_err(|e| SettingsError::Option { option: "--smallest-effect", problem: e.to_string() })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_checked_by_name() {
        let good = CampaignSettings::new("Does it help?", "offline");
        assert_eq!(good.check(), Ok(()));
        let wrong = |change: fn(&mut CampaignSettings)| {
            let mut settings = good.clone();
            change(&mut settings);
            settings.check().unwrap_err().to_string()
        };
        assert!(wrong(|s| s.question = "  ".into()).contains("empty"));
        assert!(wrong(|s| s.question = "x".repeat(QUESTION_BYTES + 1)).contains("16385"));
        assert!(wrong(|s| s.seeds = Some(2)).starts_with("--seeds"));
        assert!(wrong(|s| s.max_iterations = 0).starts_with("--max-iterations"));
        assert!(wrong(|s| s.time_budget = Duration::ZERO).starts_with("--time-budget"));
        assert!(wrong(|s| s.gpu_budget = Some(Duration::ZERO)).starts_with("--gpu-budget"));
        assert!(wrong(|s| s.cost_budget = Some(f64::NAN)).starts_with("--cost-budget"));
        assert!(wrong(|s| s.max_failures = 0).starts_with("--max-failures"));
        assert!(wrong(|s| s.repairs = 21).starts_with("repairs"));
        assert!(wrong(|s| s.image = "../etc".into()).starts_with("--image"));
        assert!(wrong(|s| s.data_set = Some("A B".into())).starts_with("--dataset"));
        assert!(wrong(|s| s.backend = Some("qemu".into())).starts_with("--backend"));
        assert!(wrong(|s| s.smallest_effect = Some("lots".into())).starts_with("--smallest-effect"));
    }
}
