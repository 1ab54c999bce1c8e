//! What all plans have in common, and the small pieces that they are put together from.

use super::super::super::plan::{
    Claim, Contrast, DivergedWhen, Factor, FactorScale, HeldEqual, Kind, Limits, Metric, MetricScale,
    Pairing, Plan, Predicts, Reduce, Resource, Role, Scalar, Secondary, SmallestEffect, Source, Split,
    Stream, Weight,
};
use super::super::catalogue::{Expected, Level, Sort};
use super::super::program::{ProgramName, Setting, better, learning_rate};
use super::{Case, effect};
use crate::campaign::plan::Better;

/// Relative tolerance of what is held equal: METHOD §1's default.
const TOLERANCE: f64 = 0.02;

impl Case<'_> {
    /// A plan without factors, contrasts, claims and looks.
    pub fn draft(&self, role: Role, smallest_effect: SmallestEffect, changes: &[Setting]) -> Plan {
        let (split, evaluate) = match role {
            Role::Exploratory => (Split::Validation, "validation"),
            Role::Confirmatory => (Split::Test, "test"),
        };
        let mut changed = self.topic.design.fixed.to_vec();
        changed.extend(changes);
        let metric = self.metric(split);
        // Which experiment's learning rates are factors or adjusted is the caller's business: it takes `lr` out.
        let fixed_params = self.program.fixed_params(&changed, &[self.topic.design.param], evaluate);
        let steps = fixed_params.iter().find(|param| param.name == "steps");
        let steps = steps.and_then(|param| param.value.number()).unwrap_or(f64::from(self.program.steps));
        let mut replicate = vec![Stream::Init, Stream::Order, Stream::Split];
        if self.draws_dropout(&fixed_params) {
            replicate.push(Stream::Dropout);
        }
        Plan {
            title: String::new(),
            kind: self.topic.kind,
            role,
            motivated_by: self.motives(),
            rationale: String::new(),
            conditions: String::new(),
            claims: Vec::new(),
            factors: Vec::new(),
            fixed_params,
            adjusted_params: Vec::new(),
            control: None,
            reduce: Reduce::Final,
            secondary: self.secondary(role),
            contrasts: Vec::new(),
            smallest_effect,
            replicate,
            // The seed draws the split, which runs of one seed share whatever their shapes (METHOD §2.3).
            pairing: Pairing::Seed,
            looks: Vec::new(),
            held_equal: vec![HeldEqual { what: Resource::Steps, tolerance: TOLERANCE }],
            failed_runs_count_as: metric.trivial,
            diverged_when: DivergedWhen {
                metrics: vec!["train_loss".to_owned(), metric.name.clone()],
                non_finite: true,
                worse_than_trivial: None,
            },
            limits: Limits { steps: steps as u32, time_seconds: self.time_limit_seconds(), memory_mib: None },
            expects_failure: Vec::new(),
            data_set: self.program.data_set.to_owned(),
            split_sizes: Some(self.program.split_sizes()),
            packages: Vec::new(),
            metric,
        }
    }

    fn metric(&self, split: Split) -> Metric {
        let facts = self.program.facts(effect::metric_of(self.topic));
        let prefix = if split == Split::Test { "test" } else { "val" };
        let fraction = facts.unit == "fraction";
        Metric {
            name: format!("{prefix}_{}", facts.name),
            unit: facts.unit.to_owned(),
            better: better(facts.name),
            scale: MetricScale::Raw,
            lowest: Some(0.0),
            highest: fraction.then_some(1.0),
            trivial: facts.trivial,
            // The programs compute their own metrics; the verdict is marked as self-reported.
            source: Source::Logged,
            split,
        }
    }

    /// The mean of the validation loss over the steps says how fast a network learns; the loss on the test examples
    /// moves before an accuracy does.
    fn secondary(&self, role: Role) -> Vec<Secondary> {
        let area = Secondary {
            metric: "val_loss".to_owned(),
            unit: "nats".to_owned(),
            better: Better::Lower,
            reduce: Reduce::Area,
        };
        let loss = Secondary { metric: "test_loss".to_owned(), reduce: Reduce::Final, ..area.clone() };
        match (role, self.topic.kind) {
            (Role::Exploratory, _) | (_, Kind::Stability) => Vec::new(),
            _ if self.program.metric == "accuracy" => vec![loss, area],
            _ => vec![area],
        }
    }

    fn draws_dropout(&self, fixed: &[crate::campaign::plan::Param]) -> bool {
        let used =
            fixed.iter().any(|p| p.name == "dropout" && p.value.number().is_some_and(|rate| rate > 0.0));
        used || self.topic.design.param == "dropout"
    }

    /// The factor that the question is about.
    pub fn factor(&self) -> Factor {
        let scale = match self.topic.entry.sort {
            Sort::Size => FactorScale::Log,
            Sort::Part | Sort::Choice | Sort::LearningRate => FactorScale::Categorical,
        };
        Factor {
            param: self.topic.design.param.to_owned(),
            scale,
            levels: self.topic.levels.iter().map(|level| level.value.scalar()).collect(),
        }
    }

    /// Two other levels against the first, or one.
    pub fn against_control(&self) -> (Vec<Contrast>, Vec<Claim>) {
        let levels = &self.topic.levels;
        let others = levels.iter().enumerate().skip(1);
        others
            .map(|(index, level)| {
                let id = if levels.len() == 2 { "effect".to_owned() } else { format!("effect_{index}") };
                let contrast = Contrast {
                    label: format!("{} − {}", level.label, levels[0].label),
                    weights: vec![weight(0, -1.0), weight(index, 1.0)],
                    primary: true,
                    id: id.clone(),
                };
                (contrast, self.claim(id, level))
            })
            .unzip()
    }

    fn claim(&self, contrast: String, level: &Level) -> Claim {
        let control = &self.topic.levels[0];
        let facts = self.program.facts(effect::metric_of(self.topic));
        let predicts = if self.topic.kind == Kind::Equivalence {
            Predicts::NoRelevantChange
        } else {
            predicts(self.topic.expected, better(facts.name))
        };
        let (model, data) = (self.program.model, self.program.data_set);
        let test = format!("test {}", facts.name);
        let text = match predicts {
            Predicts::Increase => format!(
                "{}, the {test} of the {model} on {data} is higher than {}",
                level.label, control.label
            ),
            Predicts::Decrease => format!(
                "{}, the {test} of the {model} on {data} is lower than {}",
                level.label, control.label
            ),
            Predicts::AnyChange => format!(
                "{}, the {test} of the {model} on {data} is not what it is {}",
                level.label, control.label
            ),
            Predicts::NoRelevantChange => {
                format!(
                    "{}, the {test} of the {model} on {data} is, but for less than matters, what it is {}",
                    level.label, control.label
                )
            }
        };
        let refuted_by = match predicts {
            Predicts::NoRelevantChange => "an interval wholly beyond the smallest effect of interest",
            Predicts::AnyChange => "an interval wholly inside the smallest effect of interest",
            Predicts::Increase | Predicts::Decrease => {
                "an interval on the other side of zero, or one that rules out the smallest effect of interest"
            }
        };
        Claim { contrast, text, predicts, refuted_by: refuted_by.to_owned() }
    }

    /// "MLP on digits (64 wide, …, 150 steps)".
    pub fn setting(&self, plan: &Plan) -> String {
        let names: &[&str] = match self.program.name {
            ProgramName::Mlp => {
                &["depth", "width", "activation", "optimizer", "schedule", "batch_size", "steps"]
            }
            ProgramName::CharTransformer => {
                &["depth", "width", "context", "optimizer", "schedule", "warmup", "batch_size", "steps"]
            }
        };
        let parts: Vec<String> = names
            .iter()
            .filter_map(|name| plan.fixed_params.iter().find(|param| param.name == *name))
            .map(|param| format!("{} {}", param.name, param.value))
            .collect();
        format!("{} on {} ({})", self.program.model, self.program.data_set, parts.join(", "))
    }

    /// The user's wish, else the usual looks; `None` where what is left does not cover the smallest.
    pub fn looks(&self, variants: u32, usual: &[u32]) -> Option<Vec<u32>> {
        if let Some(wish) = self.context.wishes.seeds {
            return (self.nothing_measured() || self.fits(variants, wish)).then(|| vec![wish]);
        }
        let fitting = (1..=usual.len()).rev().find(|count| self.fits(variants, usual[count - 1]));
        match fitting {
            Some(count) => Some(usual[..count].to_vec()),
            None => self.nothing_measured().then(|| usual[..1].to_vec()),
        }
    }
}

/// The factor of learning rates.
pub fn learning_rates(rungs: impl Iterator<Item = i32>) -> Factor {
    let levels = rungs.map(|rung| Scalar::Number(learning_rate(rung))).collect();
    Factor { param: "lr".to_owned(), scale: FactorScale::Log, levels }
}

/// A cell's weight, by the cell's place from 0.
pub fn weight(cell: usize, weight: f64) -> Weight {
    Weight { cell: format!("c{}", cell + 1), weight }
}

/// What is predicted, in the metric's own direction.
pub fn predicts(expected: Expected, better: Better) -> Predicts {
    match (expected, better) {
        (Expected::Changed, _) => Predicts::AnyChange,
        (Expected::Better, Better::Higher) | (Expected::Worse, Better::Lower) => Predicts::Increase,
        (Expected::Better, Better::Lower) | (Expected::Worse, Better::Higher) => Predicts::Decrease,
    }
}

/// A sentence that begins with a capital letter.
pub fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
