//! What is left, in runs. Before any run was measured its time is the program's guess, and a guess refuses nothing:
//! the first experiment is planned in its smallest form, and the hard stops are the loop's. After that an experiment
//! that would not be finished is not begun.

use super::Case;

/// Of what is left, the share that a plan may fill: the rest is for what does not go as planned.
const USABLE: f64 = 0.9;
/// A run is stopped at so many times what the slowest was seen to take (METHOD §1 asks for 3 at least; a busy machine
/// needs more).
const TIME_LIMIT_FACTOR: f64 = 6.0;
/// No time limit is shorter: the limit is a safety net, and a cold import of PyTorch alone was seen to take 40 s on a
/// machine with four times as much to do as it has cores.
const SHORTEST_TIME_LIMIT_SECONDS: f64 = 240.0;
/// Nor this, where the budget is small: a limit is reserved in full before a run starts.
const SHORTEST_UNDER_A_SMALL_BUDGET_SECONDS: f64 = 45.0;
/// A budget of less than so many seconds is small.
const SMALL_BUDGET_SECONDS: f64 = 7200.0;

impl Case<'_> {
    /// Seconds of one run on the worker: the slowest variant seen, else the guess.
    pub fn seconds_per_run(&self) -> f64 {
        let variants = self.context.experiments.iter().flat_map(|experiment| &experiment.variants);
        let slowest = variants.filter_map(|variant| variant.seconds).fold(0.0, f64::max);
        if slowest > 0.0 { slowest } else { self.program.seconds }
    }

    /// How many runs are left; `None`: no limit.
    pub fn runs_left(&self) -> Option<u32> {
        let budget = &self.context.budget;
        let slots = f64::from(self.context.workers.slots.max(1));
        let by_clock = budget.seconds.map(|seconds| seconds * slots);
        let seconds = [by_clock, budget.device_seconds].into_iter().flatten().reduce(f64::min)?;
        // The cast saturates: an endless budget is the greatest number.
        Some((seconds.max(0.0) * USABLE / self.seconds_per_run()).floor() as u32)
    }

    /// Whether so many variants, each with its smoke run and `seeds` full ones, fit what is left.
    pub fn fits(&self, variants: u32, seeds: u32) -> bool {
        self.runs_left().is_none_or(|left| runs(variants, seeds) <= left)
    }

    /// Nothing has run yet, so there is only the guess.
    pub fn nothing_measured(&self) -> bool {
        self.context.experiments.is_empty()
    }

    /// The time limit of a run.
    pub fn time_limit_seconds(&self) -> u32 {
        let budget = &self.context.budget;
        let small =
            [budget.seconds, budget.device_seconds].into_iter().flatten().any(|s| s < SMALL_BUDGET_SECONDS);
        let shortest =
            if small { SHORTEST_UNDER_A_SMALL_BUDGET_SECONDS } else { SHORTEST_TIME_LIMIT_SECONDS };
        (self.seconds_per_run() * TIME_LIMIT_FACTOR).max(shortest).ceil() as u32
    }
}

/// Runs of an experiment, smoke runs counted.
pub fn runs(variants: u32, seeds: u32) -> u32 {
    variants.saturating_mul(seeds.saturating_add(1))
}
