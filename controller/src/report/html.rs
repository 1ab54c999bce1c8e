//! The report as one page: no script, no other file, no address outside, so that it opens from a mail in ten years and
//! prints well. What came from a model or a program is escaped by the template engine.

use minijinja::{AutoEscape, Environment, Value, context, value::Serde};
use similar::{ChangeTag, TextDiff};

use super::{
    document::{Experiment, Report, Revision},
    markdown::source,
    plot, shown,
};

/// The page could not be made: a fault in the template.
#[derive(Debug, thiserror::Error)]
#[error("the page could not be made: {0}")]
pub struct HtmlError(#[from] minijinja::Error);

const TEMPLATE: &str = include_str!("page.html.j2");
/// Unchanged lines that are shown around a change.
const DIFF_CONTEXT: usize = 3;

/// The whole page.
///
/// # Errors
/// A fault in the template.
pub fn html(report: &Report) -> Result<String, HtmlError> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_filter("percent", |share: Option<f64>| shown::percent(share));
    environment.add_filter("seconds", |value: Option<f64>| shown::seconds(value));
    environment.add_filter("number", |value: Option<f64>, unit: &str| shown::scale(unit).number(value));
    environment.add_filter("with_unit", |value: Option<f64>, unit: &str| shown::scale(unit).with_unit(value));
    environment.add_filter("about_percent", |share: f64| shown::about_percent(share));
    environment.add_filter("moment", |time: &str| shown::moment(time));
    environment.add_filter("short", |id: &str| shown::short_id(id).to_owned());
    environment.add_filter("source", |name: &str| source(name).to_owned());
    environment.add_filter("printable", |text: &str| kit::text::printable(text));
    environment.add_template("page", TEMPLATE)?;
    let plots: Vec<Value> = report.experiments.iter().map(plots_of).collect();
    let error: f64 = report.ledger.iter().map(|line| line.error).sum();
    let page = environment.get_template("page")?.render(context! {
        report => Value::from(Serde(report)),
        plots => plots,
        any_error => error,
        units => Value::from(Serde(units(report))),
        revisions => report.revisions.iter().enumerate().map(|(i, r)| revision(report, i, r)).collect::<Vec<_>>(),
    })?;
    Ok(page)
}

fn units(report: &Report) -> std::collections::BTreeMap<String, String> {
    report.experiments.iter().map(|e| (e.id.clone(), e.metric.unit.clone())).collect()
}

/// The SVGs of one experiment; one that cannot be drawn is a sentence in its place.
fn plots_of(experiment: &Experiment) -> Value {
    let or_sentence = |drawn: Result<Option<String>, plot::PlotError>| match drawn {
        Ok(svg) => svg.map(Value::from_safe_string),
        Err(error) => Some(Value::from(error.to_string())),
    };
    let mut metrics: Vec<&str> = Vec::new();
    for curve in &experiment.curves {
        if !metrics.contains(&curve.metric.as_str()) {
            metrics.push(&curve.metric);
        }
    }
    let unit = |metric: &str| {
        // Losses and the like have the unit of the plan's metric only where they are that metric's kin.
        if metric.contains("acc") {
            "fraction"
        } else if metric.contains("loss") {
            "nats"
        } else {
            ""
        }
    };
    let unit_of = |metric: &str| {
        if metric == experiment.metric.name {
            experiment.metric.unit.clone()
        } else {
            unit(metric).to_owned()
        }
    };
    let curves: Vec<Value> = metrics
        .iter()
        .filter_map(|metric| or_sentence(plot::curves(metric, &unit_of(metric), &experiment.curves)))
        .collect();
    context! { intervals => or_sentence(plot::intervals(experiment)), curves => curves }
}

/// A program, and what it changed of the one before it in the same experiment.
fn revision(report: &Report, index: usize, revision: &Revision) -> Value {
    let before = report.revisions[..index].iter().rev().find(|r| r.experiment == revision.experiment);
    let diff = before.map(|before| diff(&before.source, &revision.source));
    context! {
        experiment => revision.experiment.clone(), number => revision.number, digest => revision.digest.clone(),
        reason => revision.reason.clone(), source => revision.source.clone(), diff => diff,
    }
}

fn diff(before: &str, after: &str) -> Vec<Value> {
    let diff = TextDiff::from_lines(before, after);
    let mut lines = Vec::new();
    for group in diff.grouped_ops(DIFF_CONTEXT) {
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let (sign, class) = match change.tag() {
                ChangeTag::Delete => ("-", "removed"),
                ChangeTag::Insert => ("+", "added"),
                ChangeTag::Equal => (" ", ""),
            };
            let text = change.value().trim_end_matches('\n');
            lines.push(context! { class => class, text => format!("{sign} {text}") });
        }
    }
    lines
}
