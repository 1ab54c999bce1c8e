//! The one printer: stdout is data, stderr is talk. With `--output json` a result is one object on one line.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use super::error::CliError;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One object on one line.
    Json,
}

/// Prints results and talk.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    /// How results are printed.
    pub format: Format,
}

impl Printer {
    /// A result: the text for people, or the value as JSON.
    ///
    /// # Errors
    /// Where stdout is closed for another reason than a reader that has seen enough.
    pub fn result<T: Serialize>(&self, value: &T, text: &str) -> Result<(), CliError> {
        match self.format {
            Format::Text => self.line(text),
            Format::Json => {
                let json = serde_json::to_string(value).map_err(|e| CliError::Failed(e.to_string()))?;
                self.line(&json)
            }
        }
    }

    /// A line of data.
    ///
    /// # Errors
    /// See [`Printer::result`].
    pub fn line(&self, text: &str) -> Result<(), CliError> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Bytes of data, as they are.
    ///
    /// # Errors
    /// See [`Printer::result`].
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            // `| head` is no failure.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(CliError::Failed(format!("cannot write to standard output: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Talk: one line on stderr.
    pub fn say(&self, text: &str) {
        // Nobody can be told that stderr is closed.
        writeln!(io::stderr().lock(), "{text}").ok();
    }
}

/// Whether progress may be drawn.
#[must_use]
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// A number for JSON: a non-finite value is a string, since JSON has none.
#[must_use]
pub fn json_number(value: f64) -> serde_json::Value {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else {
        value.into()
    }
}

/// Columns of a table for people, two spaces between.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut head.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_lacks_are_strings() {
        assert_eq!(json_number(f64::NAN), "NaN");
        assert_eq!(json_number(f64::NEG_INFINITY), "-Infinity");
        assert_eq!(json_number(0.5), 0.5);
    }

    #[test]
    fn a_table_lines_up() {
        let rows = vec![vec!["1".to_owned(), "long one".to_owned()], vec!["22".to_owned(), "x".to_owned()]];
        assert_eq!(table(&["a", "b"], &rows), "a   b\n1   long one\n22  x");
    }
}
