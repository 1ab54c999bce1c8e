//! The rule-based researcher: it answers a catalogue of questions with two PyTorch programs on data that ships, so
//! that a first run needs no key and no network, and so that tests have a researcher that is real. What belongs here
//! is what takes a model's place; budgets, statistics and verdicts are the loop's, as for any researcher.
//!
//! ```text
//! question ──matching──► Topic (a row of the catalogue) ──planning──► Plan ──► templates/*.py ──► wording
//! ```
//!
//! It cannot write code, so it cannot repair it: a program that fails is a fault of ours, and is said to be.

use async_trait::async_trait;
use kit::task::CancellationToken;

use super::researcher::{
    CodeContext, DecideContext, Decision, InterpretContext, Interpretation, PlanContext, Planned, Program,
    RepairContext, ResearchError, Researcher, Wishes,
};
use matching::Topic;

/// What the rules can answer, as a table.
pub mod catalogue;
/// The data sets that ship.
pub mod data;
/// From a question to a row of the table.
pub mod matching;
/// From a row and what is known to the next experiment.
pub mod planning;
/// The two PyTorch programs, with their parameters.
pub mod program;
/// Sentences about results, from rulings only.
mod wording;

pub use data::{DataSet, data_set, data_sets};

/// The rule-based researcher.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offline;

impl Offline {
    /// Like [`Researcher::accepts`], with the user's wishes: a data set that it does not have or an effect that it
    /// cannot measure is refused before anything starts.
    ///
    /// # Errors
    /// [`ResearchError::CannotAnswer`] that names the option at fault, or what it covers.
    pub fn accepts_with(&self, question: &str, wishes: &Wishes) -> Result<(), ResearchError> {
        let topic = topic(question, wishes)?;
        if let Some(effect) = &wishes.smallest_effect {
            planning::check_smallest_effect(&topic, effect)?;
        }
        match wishes.seeds {
            Some(seeds @ 0..FEWEST_SEEDS) => Err(ResearchError::CannotAnswer {
                reason: format!("--seeds {seeds}: an interval needs {FEWEST_SEEDS} seeds at least"),
            }),
            _ => Ok(()),
        }
    }
}

/// METHOD §3.1: under three seeds there is no verdict.
const FEWEST_SEEDS: u32 = 3;

fn topic(question: &str, wishes: &Wishes) -> Result<Topic, ResearchError> {
    Topic::of(question, wishes.data_set.as_deref())
        .map_err(|not_covered| ResearchError::CannotAnswer { reason: not_covered.to_string() })
}

#[async_trait]
impl Researcher for Offline {
    fn name(&self) -> String {
        "offline".to_owned()
    }

    fn first_line(&self) -> String {
        "offline: the researcher is rule-based, no language model takes part; name one with --llm anthropic:MODEL \
         (or openai:, ollama:, compatible:)"
            .to_owned()
    }

    fn accepts(&self, question: &str) -> Result<(), ResearchError> {
        self.accepts_with(question, &Wishes::default())
    }

    async fn plan(&self, context: &PlanContext, _: &CancellationToken) -> Result<Planned, ResearchError> {
        self.accepts_with(&context.question, &context.wishes)?;
        if let Some(fault) = context.faults.first() {
            // The same context gives the same plan: asking again would go round in a circle.
            return Err(ResearchError::Unusable {
                purpose: "plan",
                attempts: 1,
                detail: format!(
                    "the rules made a plan that was sent back for {}: {}",
                    fault.field, fault.problem
                ),
            });
        }
        planning::next(&topic(&context.question, &context.wishes)?, context)
    }

    async fn code(&self, context: &CodeContext, _: &CancellationToken) -> Result<Program, ResearchError> {
        program::of_plan(&context.plan)
            .map(|program| Program { source: program.source.to_owned(), packages: None })
            .ok_or_else(|| ResearchError::Unusable {
                purpose: "code",
                attempts: 1,
                detail: format!(
                    "no program of the rules trains on the data set \"{}\"",
                    context.plan.data_set
                ),
            })
    }

    async fn repair(&self, context: &RepairContext, _: &CancellationToken) -> Result<Program, ResearchError> {
        let detail = match context.failures.first() {
            Some(failure) => format!(
                "{} ended as {}: {}. The rules' programs are fixed, so there is nothing to repair with; a language model \
                 (--llm) could write another",
                failure.variant, failure.outcome, failure.message
            ),
            None => "the rules' programs are fixed, so there is nothing to repair with".to_owned(),
        };
        Err(ResearchError::Unusable { purpose: "repair", attempts: context.attempt, detail })
    }

    async fn interpret(
        &self,
        context: &InterpretContext,
        _: &CancellationToken,
    ) -> Result<Interpretation, ResearchError> {
        Ok(wording::interpretation(context))
    }

    async fn decide(
        &self,
        context: &DecideContext,
        _: &CancellationToken,
    ) -> Result<Decision, ResearchError> {
        let state = &context.state;
        Ok(wording::decision(&planning::next(&topic(&state.question, &state.wishes)?, state)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_says_what_it_is_and_how_to_name_a_model() {
        let line = Offline.first_line();
        assert!(
            line.contains("rule-based") && line.contains("--llm anthropic:MODEL") && !line.contains('\n')
        );
    }

    #[test]
    fn a_question_that_is_not_covered_is_refused_with_what_is() {
        let error = Offline.accepts("What is the meaning of life?").unwrap_err().to_string();
        for covered in ["batch normalisation", "weight decay", "residual connections", "--llm", "digits"] {
            assert!(error.contains(covered), "{error}");
        }
    }

    #[test]
    fn wishes_that_cannot_be_followed_are_refused_before_anything_starts() {
        let question = "Does batch normalisation help a small MLP on digits?";
        let wish = |seeds, effect: Option<&str>, data: Option<&str>| {
            let wishes = Wishes {
                seeds,
                smallest_effect: effect.map(str::to_owned),
                data_set: data.map(str::to_owned),
            };
            Offline.accepts_with(question, &wishes).map_err(|error| error.to_string())
        };
        assert_eq!(wish(Some(3), Some("0.5pt"), Some("digits")), Ok(()));
        assert!(wish(Some(2), None, None).unwrap_err().contains("--seeds 2"));
        assert!(wish(None, Some("2%"), None).unwrap_err().contains("--smallest-effect 2%"));
        assert!(wish(None, None, Some("cifar")).unwrap_err().contains("digits or austen"));
        assert!(wish(None, None, Some("austen")).unwrap_err().contains("MLP on digits"));
    }
}
