//! The two PyTorch programs and what a plan needs to know of each: its data, its parameters when nothing is asked
//! about them, its grid of learning rates, its metrics and what a run takes.

use super::super::plan::{Better, Param, Plan, Scalar, SplitSizes};
use super::data::{self, DataSet, MetricFacts};

/// A value in a table, which cannot hold a `String`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// true or false.
    Flag(bool),
    /// A whole number.
    Count(i64),
    /// Any number.
    Number(f64),
    /// A word.
    Word(&'static str),
}

impl Value {
    /// As a plan holds it.
    #[must_use]
    pub fn scalar(self) -> Scalar {
        match self {
            Self::Flag(flag) => Scalar::Bool(flag),
            Self::Count(count) => Scalar::Integer(count),
            Self::Number(number) => Scalar::Number(number),
            Self::Word(word) => Scalar::Text(word.to_owned()),
        }
    }
}

/// A parameter and its value, in a table.
pub type Setting = (&'static str, Value);

/// Which of the two programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramName {
    /// `templates/mlp.py`.
    Mlp,
    /// `templates/char_transformer.py`.
    CharTransformer,
}

/// A PyTorch program that reads every choice from `ar.params`.
#[derive(Debug)]
pub struct TrainingProgram {
    /// Which.
    pub name: ProgramName,
    /// "an MLP", for sentences.
    pub model: &'static str,
    /// Python.
    pub source: &'static str,
    /// The name of its data set.
    pub data_set: &'static str,
    /// "accuracy" or "loss": what its questions are answered in, stability apart.
    pub metric: &'static str,
    /// Its parameters where nothing is asked about them, `lr`, `steps`, `data_set` and `evaluate` apart.
    pub defaults: &'static [Setting],
    /// Optimiser steps of a run.
    pub steps: u32,
    /// The rung of the learning rate where it is neither asked about nor tuned (see [`learning_rate`]).
    pub default_rung: i32,
    /// The lowest and the highest rung that an exploratory experiment tries.
    pub rungs: (i32, i32),
    /// The same where the question is about the learning rate, or stability over it.
    pub wide_rungs: (i32, i32),
    /// Seconds of one run on one slow core with PyTorch's import, before any was measured.
    pub seconds: f64,
}

impl TrainingProgram {
    /// What it learns from. The tables are checked against each other by a test.
    #[must_use]
    pub fn data(&self) -> &'static DataSet {
        data::data_set(self.data_set).unwrap_or(&data::data_sets()[0])
    }

    /// What is known of one of its metrics.
    #[must_use]
    pub fn facts(&self, metric: &str) -> &'static MetricFacts {
        let data = self.data();
        data.metric(metric).unwrap_or(&data.metrics[0])
    }

    /// Its sizes, as the split of a seed.
    #[must_use]
    pub fn split_sizes(&self) -> SplitSizes {
        SplitSizes { train: self.data().train_size, test: self.data().test_size }
    }

    /// Every parameter that is no factor: the defaults with `changes` laid over them.
    #[must_use]
    pub fn fixed_params(&self, changes: &[Setting], without: &[&str], evaluate: &str) -> Vec<Param> {
        let mut params: Vec<Param> = Vec::new();
        let own = [
            ("data_set", Value::Word(self.data_set)),
            ("steps", Value::Count(i64::from(self.steps))),
            ("lr", Value::Number(learning_rate(self.default_rung))),
        ];
        for (name, value) in own.iter().chain(self.defaults).chain(changes) {
            match params.iter_mut().find(|known| known.name == *name) {
                Some(known) => known.value = value.scalar(),
                None => params.push(Param { name: (*name).to_owned(), value: value.scalar() }),
            }
        }
        params.push(Param { name: "evaluate".to_owned(), value: Scalar::Text(evaluate.to_owned()) });
        params.retain(|param| !without.contains(&param.name.as_str()));
        params
    }
}

/// Which way of a metric is good, by its name.
#[must_use]
pub fn better(metric: &str) -> Better {
    if metric.ends_with("accuracy") { Better::Higher } else { Better::Lower }
}

/// The learning rate at a rung of the ladder …, 0.01, 0.03, 0.1, 0.3, 1, …: two rungs for each power of ten, rung 0
/// at 1. Steps of about 3.2 are as fine as three seeds can tell apart.
#[must_use]
pub fn learning_rate(rung: i32) -> f64 {
    let digit = if rung.rem_euclid(2) == 0 { 1 } else { 3 };
    // Through text, so that 0.03 is the number that a person's 0.03 is, and not 0.030000000000000002.
    format!("{digit}e{}", rung.div_euclid(2)).parse().unwrap_or(0.01)
}

/// The rung of a learning rate that [`learning_rate`] made.
#[must_use]
pub fn rung_of(learning_rate: f64) -> i32 {
    (2.0 * learning_rate.log10()).round() as i32
}

/// One of the two.
#[must_use]
pub fn program(name: ProgramName) -> &'static TrainingProgram {
    match name {
        ProgramName::Mlp => &MLP,
        ProgramName::CharTransformer => &CHAR_TRANSFORMER,
    }
}

/// The one whose data set a plan names.
#[must_use]
pub fn of_plan(plan: &Plan) -> Option<&'static TrainingProgram> {
    [&MLP, &CHAR_TRANSFORMER].into_iter().find(|program| program.data_set == plan.data_set)
}

static MLP: TrainingProgram = TrainingProgram {
    name: ProgramName::Mlp,
    model: "MLP",
    source: include_str!("templates/mlp.py"),
    data_set: "digits",
    metric: "accuracy",
    defaults: &[
        ("train_size", Value::Count(1257)),
        ("validation_size", Value::Count(180)),
        ("test_size", Value::Count(360)),
        ("batch_size", Value::Count(32)),
        ("width", Value::Count(32)),
        ("depth", Value::Count(2)),
        ("batch_norm", Value::Flag(false)),
        ("layer_norm", Value::Flag(false)),
        ("residual", Value::Word("none")),
        ("activation", Value::Word("relu")),
        ("dropout", Value::Number(0.0)),
        ("weight_decay", Value::Number(0.0)),
        ("optimizer", Value::Word("momentum")),
        ("schedule", Value::Word("constant")),
        ("warmup", Value::Count(0)),
    ],
    steps: 100,
    default_rung: -3,
    rungs: (-5, -1),
    wide_rungs: (-6, 0),
    seconds: 6.0,
};

static CHAR_TRANSFORMER: TrainingProgram = TrainingProgram {
    name: ProgramName::CharTransformer,
    model: "character-level transformer",
    source: include_str!("templates/char_transformer.py"),
    data_set: "austen",
    metric: "loss",
    defaults: &[
        ("batch_size", Value::Count(16)),
        ("context", Value::Count(32)),
        ("width", Value::Count(32)),
        ("depth", Value::Count(4)),
        ("heads", Value::Count(4)),
        ("placement", Value::Word("pre")),
        ("layer_norm", Value::Flag(true)),
        ("activation", Value::Word("gelu")),
        ("dropout", Value::Number(0.0)),
        ("weight_decay", Value::Number(0.0)),
        ("optimizer", Value::Word("adam")),
        ("schedule", Value::Word("constant")),
        ("warmup", Value::Count(0)),
    ],
    steps: 150,
    default_rung: -5,
    rungs: (-7, -3),
    wide_rungs: (-7, -1),
    seconds: 9.0,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_is_made_of_round_numbers_and_can_be_climbed_down() {
        let rates: Vec<f64> = (-5..=1).map(learning_rate).collect();
        assert_eq!(rates, [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0]);
        for rung in -12..6 {
            assert_eq!(rung_of(learning_rate(rung)), rung);
        }
    }

    #[test]
    fn every_default_is_read_by_its_program_and_every_program_finds_its_data() {
        for name in [ProgramName::Mlp, ProgramName::CharTransformer] {
            let program = program(name);
            assert_eq!(program.data().name, program.data_set);
            assert!(program.data().metric(program.metric).is_some());
            for param in program.fixed_params(&[], &[], "validation") {
                let read = format!("\"{}\"", param.name);
                assert!(program.source.contains(&read), "{name:?} never reads {read}");
            }
            assert!(program.source.contains("import autoresearch as ar"));
            for forbidden in ["manual_seed", "np.random.seed", "random.seed", "ar.seed"] {
                assert!(!program.source.contains(forbidden), "{name:?} seeds by itself: {forbidden}");
            }
        }
    }

    #[test]
    fn changes_are_laid_over_the_defaults() {
        let params = program(ProgramName::Mlp).fixed_params(&[("width", Value::Count(16))], &["lr"], "test");
        assert!(params.contains(&Param { name: "width".into(), value: Scalar::Integer(16) }));
        assert!(params.contains(&Param { name: "evaluate".into(), value: Scalar::Text("test".into()) }));
        assert!(!params.iter().any(|param| param.name == "lr"));
        assert_eq!(params.iter().filter(|param| param.name == "width").count(), 1);
    }
}
