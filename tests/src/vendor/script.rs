//! A researcher's answers that are sound: one small ablation whose programs need nothing but Python, so that a run takes a
//! second. Tests take these and spoil what they are about.

use serde_json::{Value, json};

use super::{Asked, Wanted};

/// The question that the plans answer.
pub const QUESTION: &str = "Does a shift raise accuracy on digits?";

/// A confirmatory ablation of a parameter `shift` with two levels.
#[must_use]
pub fn plan(seeds: u32) -> Value {
    json!({
        "title": "A shift on digits",
        "kind": "ablation",
        "role": "confirmatory",
        "motivated_by": [],
        "rationale": "The control differs by the shift alone.",
        "conditions": "digits; a tiny program.",
        "claims": [{
            "contrast": "effect", "text": "the shift raises test accuracy", "predicts": "increase",
            "refuted_by": "an interval below the smallest effect",
        }],
        "factors": [{ "param": "shift", "scale": "categorical", "levels": [false, true] }],
        "fixed_params": [{ "name": "width", "value": 8 }],
        "adjusted_params": [],
        "control": "c1",
        "metric": {
            "name": "test_accuracy", "unit": "fraction", "better": "higher", "scale": "raw", "lowest": 0.0,
            "highest": 1.0, "trivial": 0.1, "source": "logged", "split": "test",
        },
        "reduce": { "rule": "final" },
        "secondary": [],
        "contrasts": [{
            "id": "effect", "label": "with − without the shift", "primary": true,
            "weights": [{ "cell": "c1", "weight": -1.0 }, { "cell": "c2", "weight": 1.0 }],
        }],
        "smallest_effect": { "value": 0.005, "set_by": "model", "why": "half a point" },
        "replicate": ["init", "order"],
        "pairing": "none",
        "looks": [seeds],
        "held_equal": [],
        "failed_runs_count_as": 0.1,
        "diverged_when": { "metrics": ["test_accuracy"], "non_finite": true, "worse_than_trivial": null },
        "limits": { "steps": 10, "time_seconds": 20, "memory_mib": 256 },
        "expects_failure": [],
        "data_set": "digits",
        "split_sizes": null,
    })
}

/// The plan in the shape of a reply.
#[must_use]
pub fn planned(plan: Value) -> Value {
    json!({ "reply": "experiment", "plan": plan, "reason": "it answers the question" })
}

/// A program that logs a number which depends on its parameter and, through its stream, on its seed.
pub const PROGRAM: &str = r#"
import autoresearch as ar
shift = ar.params["shift"]
noise = float(ar.generator("order").normal()) * 0.004
for step in range(1, 1 + (2 if ar.smoke else int(ar.params["steps"]))):
    ar.log(step=step, test_accuracy=0.6 + (0.1 if shift else 0.0) + noise)
"#;

/// A program in the shape of a reply.
#[must_use]
pub fn program(source: &str) -> Value {
    json!({ "program": source })
}

/// The good path: plan, program, reading, stop.
#[must_use]
pub fn good(asked: &Asked, seeds: u32) -> Value {
    match asked.wanted {
        Wanted::Plan => planned(plan(seeds)),
        Wanted::Code | Wanted::Repair => program(PROGRAM),
        Wanted::Interpretation => json!({
            "text": "In e1 the shift went with a higher accuracy, as was claimed before the runs.",
            "threats": ["The program is tiny."],
        }),
        Wanted::Decision => json!({ "decision": "stop", "reason": "the question is answered" }),
    }
}
