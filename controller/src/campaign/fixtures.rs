//! Sound plans that tests bend.

use super::plan::{
    Better, Claim, Contrast, DivergedWhen, Factor, FactorScale, Kind, Limits, Metric, MetricScale, Pairing,
    Param, Plan, Predicts, Reduce, Role, Scalar, SetBy, SmallestEffect, Source, Split, SplitSizes, Stream,
    Weight,
};

/// `(−1, +1)` over c1 and c2.
pub(crate) fn effect(primary: bool) -> Contrast {
    Contrast {
        id: "effect".into(),
        label: "with − without batch norm".into(),
        weights: vec![Weight { cell: "c1".into(), weight: -1.0 }, Weight { cell: "c2".into(), weight: 1.0 }],
        primary,
    }
}

pub(crate) fn param(name: &str, value: Scalar) -> Param {
    Param { name: name.into(), value }
}

/// Batch norm on or off, confirmatory, split drawn by the seed.
pub(crate) fn ablation() -> Plan {
    Plan {
        title: "Batch norm in a small MLP".into(),
        kind: Kind::Ablation,
        role: Role::Confirmatory,
        motivated_by: vec![],
        rationale: "The control differs by the layer alone.".into(),
        conditions: "digits, 2×64".into(),
        claims: vec![Claim {
            contrast: "effect".into(),
            text: "batch norm raises test accuracy".into(),
            predicts: Predicts::Increase,
            refuted_by: "an interval below the smallest effect".into(),
        }],
        factors: vec![Factor {
            param: "batch_norm".into(),
            scale: FactorScale::Categorical,
            levels: vec![Scalar::Bool(false), Scalar::Bool(true)],
        }],
        fixed_params: vec![param("width", Scalar::Integer(64))],
        adjusted_params: vec![],
        control: Some("c1".into()),
        metric: Metric {
            name: "test_accuracy".into(),
            unit: "fraction".into(),
            better: Better::Higher,
            scale: MetricScale::Raw,
            lowest: Some(0.0),
            highest: Some(1.0),
            trivial: 0.1,
            source: Source::Logged,
            split: Split::Test,
        },
        reduce: Reduce::Final,
        secondary: vec![],
        contrasts: vec![effect(true)],
        smallest_effect: SmallestEffect { value: 0.005, set_by: SetBy::Model, why: "half a point".into() },
        replicate: vec![Stream::Init, Stream::Order, Stream::Split],
        pairing: Pairing::Seed,
        looks: vec![5, 10],
        held_equal: vec![],
        failed_runs_count_as: 0.1,
        diverged_when: DivergedWhen {
            metrics: vec!["train_loss".into()],
            non_finite: true,
            worse_than_trivial: None,
        },
        limits: Limits { steps: 100, time_seconds: 60, memory_mib: None },
        expects_failure: vec![],
        data_set: "digits".into(),
        split_sizes: Some(SplitSizes { train: 1437, test: 360 }),
        packages: vec![],
    }
}

/// The same on validation, with nothing claimed.
pub(crate) fn exploratory() -> Plan {
    let mut plan = ablation();
    plan.role = Role::Exploratory;
    plan.claims.clear();
    plan.contrasts = vec![effect(false)];
    plan.metric.name = "val_accuracy".into();
    plan.metric.split = Split::Validation;
    plan.looks = vec![3];
    plan
}

/// Placement × three learning rates, gap to the best of a seed.
pub(crate) fn stability() -> Plan {
    let mut plan = ablation();
    plan.kind = Kind::Stability;
    plan.factors = vec![
        Factor {
            param: "placement".into(),
            scale: FactorScale::Categorical,
            levels: vec![Scalar::Text("pre".into()), Scalar::Text("post".into())],
        },
        Factor {
            param: "lr".into(),
            scale: FactorScale::Log,
            levels: vec![Scalar::Number(0.001), Scalar::Number(0.01), Scalar::Number(0.1)],
        },
    ];
    plan.metric = Metric {
        name: "test_loss".into(),
        unit: "nats".into(),
        better: Better::Lower,
        scale: MetricScale::Raw,
        lowest: Some(0.0),
        highest: None,
        trivial: 3.0,
        source: Source::Logged,
        split: Split::Test,
    };
    plan.reduce = Reduce::GapToBestOver { factor: "lr".into() };
    plan.failed_runs_count_as = 3.0;
    plan.smallest_effect.value = 0.02;
    plan
}
