//! The report as Markdown: for reading in a terminal, in a repository, in a mail. The same order as the page:
//! METHOD §8 first, then what was registered, the evidence, every run, and what it cost.

use std::fmt::Write as _;

use super::{
    document::{Contrast, Experiment, Report},
    shown,
};

/// Text that came from a model or a program, so that it cannot make markup or break a table.
fn plain(text: &str) -> String {
    kit::text::one_line(text, 2000).replace('|', "\\|").replace('<', "&lt;").replace('`', "'")
}

/// A paragraph that may have several lines.
fn paragraphs(text: &str) -> String {
    kit::text::printable(text).replace('<', "&lt;")
}

/// The whole report.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    write(&mut out, report).unwrap_or_default();
    out
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "# {}\n", plain(&report.question))?;
    writeln!(out, "> **{}.** {}\n", report.answer.verdict, paragraphs(&report.answer.text))?;
    writeln!(
        out,
        "Stopped by: **{}**. Campaign `{}`, researcher `{}`, {} to {}.\n",
        plain(&report.answer.stopped_by),
        report.id,
        plain(&report.researcher),
        shown::moment(&report.started_at),
        shown::moment(&report.ended_at)
    )?;
    if !report.amendments.is_empty() {
        writeln!(out, "## Amendments\n")?;
        bullets(out, &report.amendments)?;
    }
    if !report.answer.interpretation.is_empty() {
        writeln!(out, "## What the researcher says\n\n{}\n", paragraphs(&report.answer.interpretation))?;
    }
    if !report.answer.removed.is_empty() {
        writeln!(
            out,
            "*Sentences removed, since a number in them matches no computed one: {}.*\n",
            report.answer.removed.len()
        )?;
    }
    if !report.findings.is_empty() {
        writeln!(
            out,
            "## Findings\n\n| id | verdict | finding | experiment | runs |\n| --- | --- | --- | --- | --- |"
        )?;
        for f in &report.findings {
            writeln!(
                out,
                "| {} | {} | {} | {} | {} |",
                f.id,
                f.verdict,
                plain(&f.text),
                f.experiment,
                f.runs.len()
            )?;
        }
        writeln!(out)?;
    }
    for experiment in &report.experiments {
        experiment_section(out, experiment)?;
    }
    ledger(out, report)?;
    runs(out, report)?;
    costs(out, report)?;
    if !report.threats.is_empty() {
        writeln!(out, "## Threats to validity\n")?;
        bullets(out, &report.threats)?;
    }
    if !report.dead_ends.is_empty() {
        writeln!(out, "## Dead ends\n")?;
        bullets(out, &report.dead_ends)?;
    }
    writeln!(out, "## Code\n")?;
    for revision in &report.revisions {
        writeln!(
            out,
            "Experiment {}, revision {} (`{}`): {}\n",
            revision.experiment,
            revision.number,
            revision.digest,
            plain(&revision.reason)
        )?;
        // A fence longer than any in the program.
        writeln!(out, "````python\n{}\n````\n", revision.source.replace("````", "` ` ` `"))?;
    }
    writeln!(out, "## Where it ran\n\n| what | value |\n| --- | --- |")?;
    for fact in &report.environment {
        writeln!(out, "| {} | {} |", plain(&fact.name), plain(&fact.value))?;
    }
    writeln!(out, "\n## To make it again\n\n```\n{}\n```", report.command.replace("```", "'''"))
}

fn bullets(out: &mut String, lines: &[String]) -> std::fmt::Result {
    for line in lines {
        writeln!(out, "- {}", plain(line))?;
    }
    writeln!(out)
}

fn experiment_section(out: &mut String, e: &Experiment) -> std::fmt::Result {
    let scale = shown::scale(&e.metric.unit);
    writeln!(out, "## Experiment {}: {}\n", e.id, plain(&e.title))?;
    writeln!(out, "{} {}. {}\n", capital(&e.role), plain(&e.kind), plain(&e.rationale))?;
    writeln!(
        out,
        "- Registered {} before any run, digest `{}`",
        shown::moment(&e.registered_at),
        e.plan_digest
    )?;
    writeln!(
        out,
        "- Metric: {} on the {} split, {} is better, {}",
        plain(&e.metric.name),
        e.metric.split,
        e.metric.better,
        source(&e.metric.source)
    )?;
    writeln!(
        out,
        "- One number for each run: {}; one seed varies {}; {}",
        plain(&e.reduce),
        plain(&e.replicate.join(", ")),
        plain(&e.method)
    )?;
    writeln!(
        out,
        "- Smallest effect of interest: {} (set by: {})",
        scale.with_unit(Some(e.smallest_effect)),
        e.smallest_effect_set_by
    )?;
    if !e.motivated_by.is_empty() {
        writeln!(out, "- Follows from {}", plain(&e.motivated_by.join(", ")))?;
    }
    // An exploratory look spends nothing, so its intervals have no registered level.
    for look in e.looks.iter().filter(|look| look.error > 0.0) {
        writeln!(
            out,
            "- Look at {} seeds, intervals at {}: {}",
            look.seeds,
            shown::percent(Some(1.0 - look.error)),
            look.verdict
        )?;
    }
    for note in &e.notes {
        writeln!(out, "- {}", plain(note))?;
    }
    writeln!(
        out,
        "\n| variant | what | seeds | failed | mean | SD | 95 % interval |\n| --- | --- | --- | --- | --- | --- | --- |"
    )?;
    for v in &e.variants {
        let control = if v.control { " (control)" } else { "" };
        writeln!(
            out,
            "| {} | {}{control} | {} | {} of {} (up to {} possible) | {} | {} | {} to {} |",
            v.id,
            plain(&v.label),
            v.analysed,
            v.failed,
            v.analysed,
            shown::about_percent(v.failed_up_to),
            scale.number(v.mean),
            scale.number(v.deviation),
            scale.number(v.low),
            scale.number(v.high)
        )?;
    }
    writeln!(out)?;
    if !e.contrasts.is_empty() {
        writeln!(
            out,
            "| contrast | estimate | interval | level | verdict | why |\n| --- | --- | --- | --- | --- | --- |"
        )?;
        for c in &e.contrasts {
            contrast_row(out, c, &scale)?;
        }
        writeln!(out)?;
    }
    if !e.interpretation.is_empty() {
        writeln!(out, "{}\n", paragraphs(&e.interpretation))?;
    }
    Ok(())
}

fn contrast_row(out: &mut String, c: &Contrast, scale: &shown::Scale) -> std::fmt::Result {
    let verdict = c.verdict.as_deref().unwrap_or("no verdict: exploratory");
    let rests = if c.rests_on_failed_runs { "; rests on the failed runs" } else { "" };
    writeln!(
        out,
        "| {} | {} | {} to {} | {} | {verdict} | {}{rests} |",
        plain(&c.label),
        scale.with_unit(c.estimate),
        scale.number(c.low),
        scale.number(c.high),
        shown::percent(c.level),
        plain(&c.sentence)
    )
}

fn ledger(out: &mut String, report: &Report) -> std::fmt::Result {
    if report.ledger.is_empty() {
        return Ok(());
    }
    let total: f64 = report.ledger.iter().map(|l| l.error).sum();
    writeln!(
        out,
        "## Error ledger\n\nChance of any false verdict in this campaign: at most {}.\n",
        shown::percent(Some(total))
    )?;
    writeln!(out, "| experiment | contrast | look | error | looked |\n| --- | --- | --- | --- | --- |")?;
    for l in &report.ledger {
        let spent = if l.spent { "yes" } else { "no" };
        writeln!(
            out,
            "| {} | {} | {} | {} | {spent} |",
            l.experiment,
            plain(&l.contrast),
            l.look,
            shown::percent(Some(l.error))
        )?;
    }
    writeln!(out)
}

fn runs(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        out,
        "## Every run\n\n| run | experiment | variant | seed | purpose | outcome | time | value | message |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )?;
    for r in &report.runs {
        let unit =
            report.experiments.iter().find(|e| e.id == r.experiment).map_or("", |e| e.metric.unit.as_str());
        writeln!(
            out,
            "| `{}` | {} | {} | {} | {} | {} | {} | {} | {} |",
            r.id,
            r.experiment,
            r.variant,
            r.seed,
            r.purpose,
            r.outcome,
            shown::seconds(r.seconds),
            shown::scale(unit).number(r.value),
            plain(&r.message)
        )?;
    }
    writeln!(out)
}

fn costs(out: &mut String, report: &Report) -> std::fmt::Result {
    let c = &report.costs;
    writeln!(out, "## Costs\n")?;
    writeln!(
        out,
        "- Time: {}; {} time: {}",
        shown::seconds(Some(c.wall_seconds)),
        c.device_unit,
        shown::seconds(Some(c.device_seconds))
    )?;
    let dollars = c.dollars.map_or("price unknown".to_owned(), |d| format!("{d:.2} US dollars"));
    writeln!(
        out,
        "- Model calls: {} ({} tokens in, {} out), {dollars}",
        c.calls, c.input_tokens, c.output_tokens
    )?;
    for line in &c.unknown {
        writeln!(out, "- Unknown: {}", plain(line))?;
    }
    for b in &c.budgets {
        let stopped = if b.stopped { " — **stopped the campaign**" } else { "" };
        writeln!(out, "- {}: {} of {}{stopped}", b.name, b.used, b.limit)?;
    }
    writeln!(out)
}

pub(super) fn source(source: &str) -> &str {
    match source {
        "scored" => "scored by us from predictions",
        "measured" => "measured by the worker",
        _ => "self-reported by generated code",
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
