//! A language model as the researcher: prompts from templates, answers in a shape, every call in the journal before it is
//! made and every reply after it. A reply that does not have the shape goes back with the field at fault; whether a plan
//! is sound and a number true is the loop's to check, and its faults come in with the next question.

use std::sync::Arc;

use async_trait::async_trait;
use kit::task::CancellationToken;
use minijinja::Environment;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    journal::{CampaignId, Journal},
    llm::{Message, Model, Request, Schema, price},
};

use super::{
    plan::Plan,
    researcher::{
        CodeContext, DecideContext, Decision, InterpretContext, Interpretation, PlanContext, Planned,
        Program, RepairContext, ResearchError, Researcher,
    },
    settings::REPLIES,
};

/// A call with its reservation and its reply in the journal.
mod call;

/// Tokens that an answer may take, reasoning included.
const ANSWER_TOKENS: u32 = 16_384;

/// A model that cannot be used under these budgets.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ModelError {
    /// A cost budget means nothing without a price.
    #[error(
        "--cost-budget cannot be kept: the price of {0} is not known here; leave the budget out, or use a model with a \
         known price"
    )]
    UnknownPrice(String),
    /// A template of ours.
    #[error("a prompt is broken, please report it: {0}")]
    Prompt(String),
}

/// A language model that researches.
pub struct ModelResearcher {
    model: Arc<dyn Model>,
    journal: Journal,
    campaign: CampaignId,
    price: Option<price::Price>,
    prompts: Environment<'static>,
    system: String,
}

/// An answer that has its shape and may still contradict itself.
trait Answer: DeserializeOwned + JsonSchema {
    /// The field at fault and what is wrong, to be sent back.
    fn fault(&self) -> Option<&'static str> {
        None
    }
}

impl Answer for PlanReply {
    fn fault(&self) -> Option<&'static str> {
        let missing = self.reply == PlanKind::Experiment && self.plan.is_none();
        missing.then_some("at `plan`: `reply` is \"experiment\", so the plan must be there")
    }
}

impl Answer for ProgramReply {}
impl Answer for Interpretation {}
impl Answer for DecideReply {}

/// What a planner answers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PlanReply {
    /// Whether there is another experiment.
    reply: PlanKind,
    /// The experiment; null where finished.
    plan: Option<Plan>,
    /// Why this experiment, or why nothing more can be learnt.
    reason: String,
}

#[derive(Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum PlanKind {
    Experiment,
    Finished,
}

/// What a coder answers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ProgramReply {
    /// The whole Python program.
    program: String,
    /// In a repair: the packages to be installed from now on, where those of the plan cannot be had; else null.
    #[serde(default)]
    packages: Option<Vec<String>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DecideReply {
    /// Go on or not.
    decision: DecideKind,
    /// Why.
    reason: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum DecideKind {
    Continue,
    Stop,
}

const TEMPLATES: &[(&str, &str)] = &[
    ("system.j2", include_str!("../../../prompts/system.j2")),
    ("plan.j2", include_str!("../../../prompts/plan.j2")),
    ("_program.j2", include_str!("../../../prompts/_program.j2")),
    ("code.j2", include_str!("../../../prompts/code.j2")),
    ("repair.j2", include_str!("../../../prompts/repair.j2")),
    ("interpret.j2", include_str!("../../../prompts/interpret.j2")),
    ("decide.j2", include_str!("../../../prompts/decide.j2")),
];

fn prompts() -> Result<Environment<'static>, ModelError> {
    let mut prompts = Environment::new();
    prompts.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    for (name, text) in TEMPLATES {
        prompts.add_template(name, text).map_err(|e| ModelError::Prompt(format!("{e:#}")))?;
    }
    Ok(prompts)
}

impl ModelResearcher {
    /// Whether a cost budget can be kept: asked before anything is written.
    ///
    /// # Errors
    /// [`ModelError::UnknownPrice`] where there is a cost budget and no price to keep it by.
    pub fn check_budget(model: &dyn Model, cost_budget: Option<f64>) -> Result<(), ModelError> {
        match price::price(model.spec()) {
            None if cost_budget.is_some() => Err(ModelError::UnknownPrice(model.spec().to_string())),
            _ => Ok(()),
        }
    }

    /// A researcher whose calls are journalled under `campaign`.
    ///
    /// # Errors
    /// [`ModelError::UnknownPrice`] where there is a cost budget and no price to keep it by.
    pub fn new(
        model: Arc<dyn Model>,
        journal: Journal,
        campaign: CampaignId,
        cost_budget: Option<f64>,
    ) -> Result<Self, ModelError> {
        Self::check_budget(model.as_ref(), cost_budget)?;
        let price = price::price(model.spec());
        let prompts = prompts()?;
        let system = prompts.get_template("system.j2").and_then(|t| t.render(()));
        let system = system.map_err(|e| ModelError::Prompt(format!("{e:#}")))?;
        Ok(Self { model, journal, campaign, price, prompts, system })
    }

    /// Asks until an answer has the shape, at most so often as the loop allows.
    async fn ask<T: Answer>(
        &self,
        purpose: &'static str,
        context: &(impl Serialize + Sync),
        cancel: &CancellationToken,
    ) -> Result<T, ResearchError> {
        let template = format!("{purpose}.j2");
        let text =
            self.prompts.get_template(&template).and_then(|t| t.render(minijinja::value::Serde(context)));
        let text =
            text.map_err(|e| ResearchError::Provider { purpose, detail: format!("{template}: {e:#}") })?;
        let mut request = Request {
            purpose: purpose.to_owned(),
            system: self.system.clone(),
            messages: vec![Message::user(text)],
            schema: Some(Schema::of::<T>(purpose)),
            max_output_tokens: ANSWER_TOKENS,
        };
        let mut detail = String::new();
        for _ in 0..REPLIES {
            let answer = self.call(purpose, &request, cancel).await?;
            let (text, problem) = match answer {
                call::Answer::Value { value, text } => match serde_path_to_error::deserialize::<_, T>(&value)
                {
                    Ok(parsed) => match parsed.fault() {
                        None => return Ok(parsed),
                        Some(fault) => (text, fault.to_owned()),
                    },
                    Err(error) => (text, format!("at `{}`: {}", error.path(), error.inner())),
                },
                call::Answer::Misshapen { text, problem } => (text, problem),
            };
            tracing::info!(purpose, problem, "a reply was sent back");
            request.messages.push(Message::assistant(text));
            request.messages.push(Message::user(format!(
                "That answer cannot be used: {problem}. Send the whole JSON object again with exactly this mended."
            )));
            detail = problem;
        }
        Err(ResearchError::Unusable { purpose, attempts: REPLIES, detail })
    }
}

#[async_trait]
impl Researcher for ModelResearcher {
    fn name(&self) -> String {
        self.model.spec().to_string()
    }

    fn first_line(&self) -> String {
        match &self.price {
            Some(price) => format!("Researcher: {} (price as of {}).", self.model.spec(), price.as_of),
            None => format!("Researcher: {} (its price is not known here).", self.model.spec()),
        }
    }

    fn accepts(&self, _question: &str) -> Result<(), ResearchError> {
        Ok(())
    }

    async fn plan(
        &self,
        context: &PlanContext,
        cancel: &CancellationToken,
    ) -> Result<Planned, ResearchError> {
        let reply: PlanReply = self.ask("plan", context, cancel).await?;
        match (reply.reply, reply.plan) {
            (PlanKind::Experiment, Some(plan)) => Ok(Planned::Experiment(Box::new(plan))),
            (PlanKind::Finished, _) => Ok(Planned::Finished { reason: reply.reason }),
            (PlanKind::Experiment, None) => Err(ResearchError::Unusable {
                purpose: "plan",
                attempts: 1,
                detail: "the reply says `experiment` and its plan is null".into(),
            }),
        }
    }

    async fn code(
        &self,
        context: &CodeContext,
        cancel: &CancellationToken,
    ) -> Result<Program, ResearchError> {
        let reply: ProgramReply = self.ask("code", context, cancel).await?;
        // The plan has just been checked with its packages: nothing is wrong with them yet.
        Ok(Program { source: reply.program, packages: None })
    }

    async fn repair(
        &self,
        context: &RepairContext,
        cancel: &CancellationToken,
    ) -> Result<Program, ResearchError> {
        let reply: ProgramReply = self.ask("repair", context, cancel).await?;
        Ok(Program { source: reply.program, packages: reply.packages })
    }

    async fn interpret(
        &self,
        context: &InterpretContext,
        cancel: &CancellationToken,
    ) -> Result<Interpretation, ResearchError> {
        self.ask("interpret", context, cancel).await
    }

    async fn decide(
        &self,
        context: &DecideContext,
        cancel: &CancellationToken,
    ) -> Result<Decision, ResearchError> {
        let DecideReply { decision, reason } = self.ask("decide", context, cancel).await?;
        Ok(match decision {
            DecideKind::Continue => Decision::Continue { reason },
            DecideKind::Stop => Decision::Stop { reason },
        })
    }
}

#[cfg(test)]
mod tests;
