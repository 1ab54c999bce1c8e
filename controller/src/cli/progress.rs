//! Progress on a terminal: the step, runs done, the last metric, time and budget left, redrawn in place; what is worth
//! keeping (a plan, a verdict, a repair) stays as a line. In a pipe nothing is drawn.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc;

use super::out::{Printer, stderr_is_terminal};
use crate::campaign::{progress::Progress, researcher::BudgetLeft};

/// Redraws so often, so that a person sees that it lives.
const TICK: Duration = Duration::from_millis(250);

/// Draws until the channel closes.
pub async fn draw(mut events: mpsc::Receiver<Progress>, printer: Printer) {
    if !stderr_is_terminal() {
        // The channel is drained so that it is never full; the first line is said also in a pipe.
        while let Some(event) = events.recv().await {
            if let Progress::FirstLine(line) = event {
                printer.say(&line);
            }
        }
        return;
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {wide_msg} {elapsed_precise}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    let mut state = Shown::default();
    while let Some(event) = events.recv().await {
        match event {
            Progress::FirstLine(line) | Progress::Said(line) => bar.println(kit::text::printable(&line)),
            Progress::Started { id } => bar.println(format!("campaign {id}")),
            Progress::Step { iteration, iterations, step, detail } => {
                state = Shown { budget: state.budget, ..Shown::default() };
                let place =
                    if iteration == 0 { String::new() } else { format!("[{iteration}/{iterations}] ") };
                bar.set_prefix(format!("{place}{step}"));
                if !detail.is_empty() {
                    bar.println(format!("{place}{step}: {}", kit::text::one_line(&detail, 160)));
                }
            }
            Progress::Image { name, done, total, line } => {
                let share = if total > 0 { format!(" {}%", done * 100 / total) } else { String::new() };
                state.image = format!("image: {name}{share} {}", kit::text::one_line(&line, 80));
            }
            Progress::Runs { done, total, running } => {
                state.runs = format!("runs {done}/{total}, {running} running");
            }
            Progress::RunEnded { run, variant, seed, outcome, message } => {
                if outcome != "succeeded" {
                    let message = kit::text::one_line(&message, 120);
                    bar.println(format!("  run {run} ({variant}, seed {seed}): {outcome} {message}"));
                }
            }
            Progress::Metric { variant, name, step, value, .. } => {
                let step = step.map_or_else(String::new, |step| format!(" at step {step}"));
                state.metric = format!("{variant} {name} {value:.4}{step}");
            }
            Progress::Budget(left) => state.budget = budget(&left),
        }
        bar.set_message(state.line());
    }
    bar.finish_and_clear();
}

/// What the moving line says.
#[derive(Default)]
struct Shown {
    image: String,
    runs: String,
    metric: String,
    budget: String,
}

impl Shown {
    fn line(&self) -> String {
        let parts = [&self.image, &self.runs, &self.metric, &self.budget];
        parts.into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(" · ")
    }
}

fn budget(left: &BudgetLeft) -> String {
    let hours = |seconds: f64| crate::report::shown::seconds(Some(seconds.max(0.0)));
    let parts = [
        left.seconds.map(|s| format!("{} left", hours(s))),
        left.device_seconds.map(|s| format!("{} of devices left", hours(s))),
        left.dollars.map(|d| format!("${d:.2} left")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
