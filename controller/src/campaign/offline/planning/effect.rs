//! Who says what matters (METHOD §3.3): the user's `--smallest-effect`, else the data set's table. Rules have no
//! opinion of their own here.

use super::super::super::plan::{SetBy, SmallestEffect};
use super::super::super::researcher::ResearchError;
use super::super::matching::Topic;
use super::super::program::program;
use super::Case;

/// The smallest effect of interest for a case.
pub fn of(case: &Case<'_>) -> Result<SmallestEffect, ResearchError> {
    let facts = case.program.facts(metric_of(case.topic));
    match &case.context.wishes.smallest_effect {
        Some(wish) => Ok(SmallestEffect {
            value: parse(wish, facts.unit)?,
            set_by: SetBy::User,
            why: format!("--smallest-effect {wish}"),
        }),
        None => Ok(SmallestEffect {
            value: facts.smallest_effect,
            set_by: SetBy::Table,
            why: facts.why.to_owned(),
        }),
    }
}

/// Whether a wish can be followed, before anything starts.
///
/// # Errors
/// [`ResearchError::CannotAnswer`] that names `--smallest-effect` and what would do.
pub fn check(topic: &Topic, wish: &str) -> Result<(), ResearchError> {
    parse(wish, program(topic.design.program).facts(metric_of(topic)).unit).map(|_| ())
}

/// "accuracy" or "loss": what the topic is answered in. Stability needs a number that a failed run has a bad value
/// of, and that falls smoothly: the loss.
pub fn metric_of(topic: &Topic) -> &'static str {
    if topic.kind == super::Kind::Stability { "loss" } else { program(topic.design.program).metric }
}

/// "0.5pt" and "0.005" are the same for a fraction; a bare number is in the metric's unit; a percentage would be a
/// ratio, which these plans do not estimate.
fn parse(wish: &str, unit: &str) -> Result<f64, ResearchError> {
    let refused = |problem: String| {
        Err(ResearchError::CannotAnswer { reason: format!("--smallest-effect {wish}: {problem}") })
    };
    let wish = wish.trim();
    let (number, suffix) = match wish.find(|c: char| c.is_alphabetic() || c == '%') {
        // "1e-3" has a letter that belongs to the number.
        Some(at) if wish.parse::<f64>().is_err() => (wish[..at].trim(), wish[at..].trim()),
        _ => (wish, ""),
    };
    let points = matches!(suffix, "pt" | "pts" | "pp" | "point" | "points");
    let scale = match suffix {
        "" => 1.0,
        suffix if suffix == unit => 1.0,
        _ if points && unit == "fraction" => 0.01,
        _ if points => {
            return refused(format!("points are for accuracy; the metric here is in {unit}, like \"0.02\""));
        }
        "%" => {
            return refused(format!(
                "a percentage is a ratio, and offline's experiments measure differences; give {}",
                if unit == "fraction" { "points, like \"0.5pt\"" } else { "a number of nats, like \"0.02\"" }
            ));
        }
        _ => {
            return refused(format!(
                "the unit \"{suffix}\" is not known; give \"0.5pt\" or a number of {unit}"
            ));
        }
    };
    match number.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 && (unit != "fraction" || value * scale < 1.0) => {
            Ok(round(value * scale))
        }
        Ok(_) if unit == "fraction" => {
            refused("it must be over 0 and under 100 points (a fraction under 1), like \"0.5pt\"".to_owned())
        }
        Ok(_) => refused(format!("it must be a finite number over 0, in {unit}")),
        Err(_) => refused(format!("\"{number}\" is no number; give \"0.5pt\" or a number of {unit}")),
    }
}

/// 0.7 × 0.01 is 0.006999999999999999 in binary: what is registered is what was written.
fn round(value: f64) -> f64 {
    (value * 1e12).round() / 1e12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_fractions_and_bare_numbers_compare_equal() {
        for (wish, unit, value) in [
            ("0.5pt", "fraction", 0.005),
            ("0.005", "fraction", 0.005),
            ("0.7 points", "fraction", 0.007),
            ("1e-3", "nats", 0.001),
            ("0.02nats", "nats", 0.02),
            (" 0.02 nats ", "nats", 0.02),
        ] {
            assert_eq!(parse(wish, unit).unwrap(), value, "{wish}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_name() {
        for (wish, unit, part) in [
            ("2%", "fraction", "ratio"),
            ("2%", "nats", "0.02"),
            ("0.5pt", "nats", "accuracy"),
            ("0", "fraction", "over 0"),
            ("-1", "nats", "over 0"),
            ("NaN", "nats", "over 0"),
            ("inf", "nats", "over 0"),
            ("150pt", "fraction", "under 100"),
            ("lots", "fraction", "not known"),
            ("", "nats", "no number"),
            ("8x", "nats", "not known"),
        ] {
            let error = parse(wish, unit).unwrap_err().to_string();
            assert!(error.starts_with("--smallest-effect") && error.contains(part), "{wish}: {error}");
        }
    }
}
