//! A researcher who says what the test wrote down, and keeps what it was told.

use std::{collections::VecDeque, sync::Mutex};

use async_trait::async_trait;
use kit::task::CancellationToken;

use crate::campaign::{
    fixtures::{ablation, exploratory},
    plan::Plan,
    researcher::*,
};

pub(super) const GOOD: &str =
    "import autoresearch as ar\np = ar.params\nbn = p['batch_norm']\nar.log(step=1, test_accuracy=0.5)\n";

/// The good program with a word that the lab knows.
pub(super) fn program(mark: &str) -> String {
    format!("{GOOD}# {mark}\n")
}

#[derive(Default)]
pub(super) struct Scripted {
    /// Plans, in order; then nothing more.
    pub plans: Mutex<VecDeque<Plan>>,
    /// Programs, in order; then the good one.
    pub programs: Mutex<VecDeque<String>>,
    /// Texts of interpretations, in order.
    pub texts: Mutex<VecDeque<String>>,
    pub stop_after: Option<u32>,
    pub hang: bool,
    pub told_plans: Mutex<Vec<PlanContext>>,
    pub told_repairs: Mutex<Vec<RepairContext>>,
    pub told_readings: Mutex<Vec<InterpretContext>>,
}

impl Scripted {
    /// An exploratory experiment and a confirmatory one that follows from it.
    pub(super) fn two() -> Self {
        let mut second = ablation();
        second.motivated_by = vec!["f1".into()];
        Self { plans: Mutex::new([exploratory(), second].into()), stop_after: Some(2), ..Self::default() }
    }

    pub(super) fn one(programs: &[&str]) -> Self {
        Self {
            plans: Mutex::new([ablation()].into()),
            programs: Mutex::new(programs.iter().map(|mark| program(mark)).collect()),
            stop_after: Some(1),
            ..Self::default()
        }
    }

    fn next_program(&self) -> Program {
        let next = self.programs.lock().unwrap().pop_front();
        Program { source: next.unwrap_or_else(|| GOOD.to_owned()), packages: None }
    }
}

#[async_trait]
impl Researcher for Scripted {
    fn name(&self) -> String {
        "scripted".into()
    }

    fn first_line(&self) -> String {
        "scripted".into()
    }

    fn accepts(&self, question: &str) -> Result<(), ResearchError> {
        if question.contains("meaning of life") {
            return Err(ResearchError::CannotAnswer { reason: "it covers batch norm".into() });
        }
        Ok(())
    }

    async fn plan(
        &self,
        context: &PlanContext,
        cancel: &CancellationToken,
    ) -> Result<Planned, ResearchError> {
        self.told_plans.lock().unwrap().push(context.clone());
        if self.hang {
            cancel.cancelled().await;
            return Err(ResearchError::Cancelled);
        }
        let next = self.plans.lock().unwrap().pop_front();
        Ok(next.map_or(Planned::Finished { reason: "nothing more".into() }, |plan| {
            Planned::Experiment(Box::new(plan))
        }))
    }

    async fn code(&self, _: &CodeContext, _: &CancellationToken) -> Result<Program, ResearchError> {
        Ok(self.next_program())
    }

    async fn repair(&self, context: &RepairContext, _: &CancellationToken) -> Result<Program, ResearchError> {
        self.told_repairs.lock().unwrap().push(context.clone());
        Ok(self.next_program())
    }

    async fn interpret(
        &self,
        context: &InterpretContext,
        _: &CancellationToken,
    ) -> Result<Interpretation, ResearchError> {
        self.told_readings.lock().unwrap().push(context.clone());
        let text = self.texts.lock().unwrap().pop_front().unwrap_or_else(|| "It helps.".into());
        Ok(Interpretation { text, threats: vec![] })
    }

    async fn decide(
        &self,
        context: &DecideContext,
        _: &CancellationToken,
    ) -> Result<Decision, ResearchError> {
        let reason = "as scripted".to_owned();
        Ok(if self.stop_after.is_some_and(|n| context.state.iteration >= n) {
            Decision::Stop { reason }
        } else {
            Decision::Continue { reason }
        })
    }
}
