//! The plan's rule for stopping a program that has diverged, met point by point.

use std::collections::BTreeMap;

use proto::v1::{DivergenceRule, MetricPoint};

/// Names that are followed where the rule names none: a hostile program can make up a million of them.
const NAMES_MAX: usize = 1024;

/// A rule and how far it is met.
#[derive(Debug, Clone)]
pub struct DivergenceWatch {
    rule: DivergenceRule,
    /// Values in a row that were worse than the trivial one.
    streaks: BTreeMap<String, u32>,
}

impl DivergenceWatch {
    /// For a rule that was checked; one that says nothing is never met.
    #[must_use]
    pub fn new(rule: DivergenceRule) -> Self {
        Self { rule, streaks: BTreeMap::new() }
    }

    /// Takes one point in; says how the rule is met, where it is.
    pub fn take(&mut self, point: &MetricPoint) -> Option<String> {
        let rule = &self.rule;
        if !rule.metrics.is_empty() && !rule.metrics.contains(&point.name) {
            return None;
        }
        let at = point.step.map(|step| format!(" at step {step}")).unwrap_or_default();
        if rule.non_finite && !point.value.is_finite() {
            return Some(format!("metric {} is {}{at}", point.name, point.value));
        }
        if rule.worse_than_trivial_values == 0 {
            return None;
        }
        if !self.streaks.contains_key(&point.name) && self.streaks.len() >= NAMES_MAX {
            return None;
        }
        let streak = self.streaks.entry(point.name.clone()).or_default();
        let worse = if rule.higher_is_better {
            point.value.is_nan() || point.value < rule.trivial / rule.worse_than_trivial_factor
        } else {
            point.value.is_nan() || point.value > rule.trivial * rule.worse_than_trivial_factor
        };
        *streak = if worse { streak.saturating_add(1) } else { 0 };
        (*streak >= rule.worse_than_trivial_values).then(|| {
            format!(
                "metric {} was worse than {} times the trivial {} in {} values in a row{at}",
                point.name, rule.worse_than_trivial_factor, rule.trivial, streak
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(name: &str, value: f64) -> MetricPoint {
        MetricPoint { name: name.to_owned(), value, step: Some(3), elapsed_ns: 0 }
    }

    #[test]
    fn not_finite_on_every_metric_or_the_named_ones() {
        let mut all = DivergenceWatch::new(DivergenceRule { non_finite: true, ..Default::default() });
        assert_eq!(all.take(&point("a", 1.0)), None);
        assert_eq!(all.take(&point("a", f64::NAN)).unwrap(), "metric a is NaN at step 3");
        let rule = DivergenceRule { non_finite: true, metrics: vec!["b".into()], ..Default::default() };
        let mut named = DivergenceWatch::new(rule);
        assert_eq!(named.take(&point("a", f64::NAN)), None);
        assert!(named.take(&point("b", f64::INFINITY)).is_some());
    }

    #[test]
    fn worse_than_trivial_in_a_row() {
        let rule = DivergenceRule {
            worse_than_trivial_factor: 2.0,
            worse_than_trivial_values: 3,
            trivial: 1.0,
            ..Default::default()
        };
        let mut watch = DivergenceWatch::new(rule.clone());
        for value in [3.0, 3.0, 2.0, 3.0, f64::NAN] {
            assert_eq!(watch.take(&point("loss", value)), None);
        }
        assert!(watch.take(&point("loss", 3.0)).unwrap().contains("3 values in a row"));
        let mut accuracy = DivergenceWatch::new(DivergenceRule {
            higher_is_better: true,
            worse_than_trivial_values: 1,
            ..rule
        });
        assert_eq!(accuracy.take(&point("acc", 0.6)), None);
        assert!(accuracy.take(&point("acc", 0.4)).is_some());
    }

    #[test]
    fn made_up_names_cost_no_memory() {
        let rule = DivergenceRule { worse_than_trivial_values: 2, trivial: 1.0, ..Default::default() };
        let mut watch = DivergenceWatch::new(rule);
        for index in 0..10_000 {
            watch.take(&point(&format!("m{index}"), 5.0));
        }
        assert_eq!(watch.streaks.len(), NAMES_MAX);
    }
}
