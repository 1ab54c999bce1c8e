//! How far a build is. One task builds, and any number of callers look on: what they share is the last step, not a
//! queue of them, so that a caller that reads slowly holds up nothing.

use kit::text;
use tokio::sync::watch;

use super::{Image, error::ImageError};

/// How far one step is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageStep {
    /// "wait", "base" or "build".
    pub name: &'static str,
    /// Of `total`.
    pub done: u64,
    /// 0 where it is not known.
    pub total: u64,
    /// The last line that the step printed, safe for a terminal.
    pub line: String,
}

/// What [`ImageStep::name`] may be.
pub(super) const STEP_NAMES: [&str; 3] = ["wait", "base", "build"];

/// Where a build is, as its callers see it.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    Step(ImageStep),
    Ended(Result<Image, ImageError>),
}

/// The builder's end.
#[derive(Debug, Clone)]
pub(super) struct Progress(watch::Sender<Stage>);

/// Longer lines are pip's lists of packages; people see one line of a terminal.
const LINE_LENGTH_MAX: usize = 200;

impl Progress {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Stage::Step(ImageStep { name: "wait", ..ImageStep::default() })))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Stage> {
        self.0.subscribe()
    }

    pub(super) fn step(&self, name: &'static str, done: u64, total: u64, line: &str) {
        let line = text::one_line(line, LINE_LENGTH_MAX);
        self.0.send_replace(Stage::Step(ImageStep { name, done, total, line }));
    }

    pub(super) fn end(&self, result: Result<Image, ImageError>) {
        self.0.send_replace(Stage::Ended(result));
    }
}

/// The last lines that something printed, for the error.
#[derive(Debug)]
pub(super) struct Tail {
    lines: std::collections::VecDeque<String>,
}

/// pip says why it fails in its last ten; the rest is for the step before.
const TAIL_LINES: usize = 30;

impl Tail {
    pub(super) fn new() -> Self {
        Self { lines: std::collections::VecDeque::with_capacity(TAIL_LINES) }
    }

    pub(super) fn push(&mut self, line: &str) {
        if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(text::one_line(line, LINE_LENGTH_MAX));
    }

    pub(super) fn text(&self) -> String {
        self.lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

/// A "line" with no end, such as a progress bar, is cut here.
const PARTIAL_BYTES_MAX: usize = 16 << 10;

/// Makes lines of the pieces in which output comes.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: String,
}

impl Lines {
    /// The lines that this piece ends, without the empty ones.
    pub(super) fn take(&mut self, piece: &str) -> Vec<String> {
        self.partial.push_str(piece);
        let whole = self.partial.rfind('\n').map_or(0, |end| end + 1);
        if self.partial.len() - whole > PARTIAL_BYTES_MAX {
            self.partial.push('\n');
        }
        let mut lines = Vec::new();
        while let Some(end) = self.partial.find('\n') {
            let line: String = self.partial.drain(..=end).collect();
            let line = line.trim();
            if !line.is_empty() {
                lines.push(line.to_owned());
            }
        }
        lines
    }

    /// What came after the last line end.
    pub(super) fn rest(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.partial);
        let rest = rest.trim();
        (!rest.is_empty()).then(|| rest.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines_and_an_endless_one_is_cut() {
        let mut lines = Lines::default();
        assert!(lines.take("RUN a").is_empty());
        assert_eq!(lines.take("pt\n ---> Running in 1\n\nStep 3"), ["RUN apt", "---> Running in 1"]);
        assert_eq!(lines.take(&"x".repeat(PARTIAL_BYTES_MAX + 1)).len(), 1);
        assert_eq!(lines.rest(), None);
        // Many short lines in one piece are no endless one.
        assert_eq!(lines.take(&format!("{}ab", "line\n".repeat(PARTIAL_BYTES_MAX))).len(), PARTIAL_BYTES_MAX);
        assert_eq!(lines.rest().as_deref(), Some("ab"));
    }
}
