//! Whether a plan is sound (METHOD §1), told by field so that whoever planned can mend it. What the program may set by
//! itself (who sets Δ, the user's seeds) it sets, and says so in a note. Pure: everything it knows comes in.
//!
//! A fault sends the plan back; a note goes into the report.

use serde::{Deserialize, Serialize};

use super::{
    plan::{Kind, Pairing, Plan, Role, Stream},
    researcher::{BudgetLeft, Fault, Wishes, Workers},
};

mod contrasts;
mod effect;
mod fields;
mod params;

/// Variants that one experiment may have.
pub const VARIANTS_MAX: usize = 60;
/// The least first look of a confirmatory experiment, unless the user asks for 3 or 4 (METHOD §1).
const FIRST_LOOK_MIN: u32 = 5;
/// Seeds of one variant.
const SEEDS_MAX: u32 = 100;
/// Looks that the ledger knows shares for (METHOD §4).
const LOOKS_MAX: usize = 3;
/// A time limit is a safety net of at least 3 times what a run needs (METHOD §1), so a run needs a third of it.
const LIMIT_OVER_NEED: f64 = 3.0;

/// What earlier experiments showed about the data set and metric of a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Known {
    /// The control's (or best cell's) mean, from stored or exploratory runs: never from this experiment.
    pub control: Option<f64>,
    /// Standard deviation over seeds of one variant, and from how many seeds.
    pub deviation: Option<(f64, u32)>,
    /// Wall-clock seconds of one run.
    pub seconds: Option<f64>,
}

/// What a plan is checked against.
#[derive(Debug, Clone, Copy)]
pub struct Against<'a> {
    /// What the workers can do.
    pub workers: &'a Workers,
    /// What the user asked for.
    pub wishes: &'a Wishes,
    /// What is left.
    pub budget: &'a BudgetLeft,
    /// From 1.
    pub iteration: u32,
    /// Confirmatory experiments that may still be made.
    pub confirmatory_left: u32,
    /// Ids of the findings so far.
    pub findings: &'a [String],
    /// From earlier experiments.
    pub known: Known,
    /// The longest time limit that a worker takes, seconds; 0: unknown.
    pub longest_seconds: u32,
    /// The most memory that a slot can give, bytes; 0: unknown.
    pub largest_memory: u64,
}

/// A sound plan, as it will be registered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sound {
    /// With what the program set.
    pub plan: Plan,
    /// What it set and why; for the report.
    pub notes: Vec<String>,
}

/// Faults as they are found.
#[derive(Debug, Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.0.push(Fault { field: field.into(), problem: problem.into() });
    }

    fn unless(&mut self, good: bool, field: impl Into<String>, problem: impl Into<String>) {
        if !good {
            self.add(field, problem);
        }
    }
}

/// Checks a plan, and sets what is the program's or the user's to set.
///
/// # Errors
/// Every fault, by field.
pub fn check(plan: Plan, against: &Against<'_>) -> Result<Sound, Vec<Fault>> {
    let mut faults = Faults::default();
    let mut notes = Vec::new();
    let mut plan = plan;
    if let (Some(seeds), Role::Confirmatory) = (against.wishes.seeds, plan.role)
        && plan.looks != [seeds]
    {
        notes.push(format!("One look at {seeds} seeds, as the user asked (--seeds)."));
        plan.looks = vec![seeds];
    }
    fields::texts(&plan, &mut faults);
    params::factors(&plan, &mut faults);
    params::fixed(&plan, &mut faults);
    params::adjusted(&plan, &mut faults);
    // The product of bad factors could be huge: cells are only counted where the factors are sound.
    if faults.0.is_empty() {
        contrasts::control(&plan, &mut faults);
        contrasts::contrasts(&plan, &mut faults);
        contrasts::claims(&plan, &mut faults);
        contrasts::expected_failures(&plan, &mut faults);
        fits(&plan, against, &mut faults);
    }
    fields::metric(&plan, &mut faults);
    fields::reduce(&plan, &mut faults);
    fields::secondary(&plan, &mut faults);
    fields::held_equal(&plan, &mut faults);
    fields::failures(&plan, &mut faults);
    fields::limits(&plan, against, &mut faults);
    fields::packages(&plan, &mut faults);
    replicate(&plan, &mut faults);
    looks(&plan, against, &mut faults);
    context(&plan, against, &mut faults);
    effect::settle(&mut plan, against, &mut faults, &mut notes);
    if faults.0.is_empty() { Ok(Sound { plan, notes }) } else { Err(faults.0) }
}

/// What one seed changes (METHOD §1) and whether seeds are paired (METHOD §2.3).
fn replicate(plan: &Plan, faults: &mut Faults) {
    let varies = |stream| plan.replicate.contains(&stream);
    faults.unless(
        varies(Stream::Init) && varies(Stream::Order),
        "replicate",
        "init and order are the least that a seed must change",
    );
    let mut seen = plan.replicate.clone();
    seen.sort();
    seen.dedup();
    faults.unless(seen.len() == plan.replicate.len(), "replicate", "a stream is named twice");
    if varies(Stream::Split) {
        faults.unless(
            plan.pairing == Pairing::Seed,
            "pairing",
            "must be seed: where the seed draws the split, both variants of a seed share it",
        );
        match plan.split_sizes {
            Some(sizes) => {
                faults.unless(sizes.train > 0 && sizes.test > 0, "split_sizes", "both sizes must be over 0");
            }
            None => faults.add(
                "split_sizes",
                "needed where the seed draws the split: splits overlap, and the interval is corrected by their sizes",
            ),
        }
    } else {
        faults.unless(
            plan.split_sizes.is_none(),
            "split_sizes",
            "must be null where the seed does not draw the split",
        );
    }
}

fn looks(plan: &Plan, against: &Against<'_>, faults: &mut Faults) {
    let rising = plan.looks.windows(2).all(|pair| pair[0] < pair[1]);
    faults.unless(
        !plan.looks.is_empty() && plan.looks.len() <= LOOKS_MAX && rising,
        "looks",
        "1 to 3 numbers of seeds, rising, like [5, 10]",
    );
    faults.unless(plan.looks.iter().all(|n| *n <= SEEDS_MAX), "looks", format!("at most {SEEDS_MAX} seeds"));
    let Some(first) = plan.looks.first() else { return };
    match plan.role {
        Role::Exploratory => {
            faults.unless(plan.looks.len() == 1, "looks", "an exploratory experiment has one look");
            faults.unless(*first >= 2, "looks[0]", "at least 2 seeds, so that there is a spread");
        }
        Role::Confirmatory => {
            let least = if against.wishes.seeds.is_some() { 3 } else { FIRST_LOOK_MIN };
            faults.unless(
                *first >= least,
                "looks[0]",
                format!("at least {least} seeds; 3 or 4 only where the user asks for them"),
            );
        }
    }
}

fn context(plan: &Plan, against: &Against<'_>, faults: &mut Faults) {
    let data_sets: Vec<&str> = against.workers.data_sets.iter().map(|d| d.name.as_str()).collect();
    faults.unless(
        data_sets.contains(&plan.data_set.as_str()),
        "data_set",
        format!("`{}` is not there; the workers have: {}", plan.data_set, data_sets.join(", ")),
    );
    if let Some(wanted) = &against.wishes.data_set {
        faults.unless(plan.data_set == *wanted, "data_set", format!("the user asked for `{wanted}`"));
    }
    if plan.role == Role::Confirmatory {
        faults.unless(
            against.confirmatory_left > 0,
            "role",
            "no confirmatory experiment is left in this campaign's error ledger: only exploratory ones",
        );
    }
    for (index, id) in plan.motivated_by.iter().enumerate() {
        faults.unless(
            against.findings.contains(id),
            format!("motivated_by[{index}]"),
            format!("`{id}` is not a finding of this campaign; there are: {}", against.findings.join(", ")),
        );
    }
    if against.iteration > 1 && !against.findings.is_empty() {
        faults.unless(
            !plan.motivated_by.is_empty(),
            "motivated_by",
            "a follow-up names the findings that it follows from",
        );
    }
    if plan.kind == Kind::Equivalence && plan.role == Role::Confirmatory {
        let all = plan.claims.iter().all(|c| c.predicts == super::plan::Predicts::NoRelevantChange);
        faults.unless(all, "claims", "an equivalence experiment claims no_relevant_change");
    }
}

/// Whether the runs up to the first look can be paid for: a later look that is cut off keeps the verdict of the look
/// before it, so only the first one is owed.
fn fits(plan: &Plan, against: &Against<'_>, faults: &mut Faults) {
    let variants = plan.variants().len();
    let seeds = plan.looks.first().copied().unwrap_or(0);
    let runs = variants as f64 * f64::from(seeds);
    let each = against.known.seconds.unwrap_or(f64::from(plan.limits.time_seconds) / LIMIT_OVER_NEED);
    let device = runs * each;
    let wall = device / f64::from(against.workers.slots.max(1));
    let problem = |what: &str, needs: f64, left: f64| {
        format!(
            "{variants} variants × {seeds} seeds at about {each:.0} s a run need {needs:.0} s of {what}, and {left:.0} s \
             are left: fewer levels, or fewer steps and a shorter time limit"
        )
    };
    if let Some(left) = against.budget.seconds.filter(|left| wall > *left) {
        faults.add("factors", problem("wall-clock time", wall, left));
    }
    if let Some(left) = against.budget.device_seconds.filter(|left| device > *left) {
        faults.add("factors", problem("device time", device, left));
    }
}

#[cfg(test)]
mod tests;
