//! Log lines on standard error. As JSON each line has the fields of the spans it was written in, so that all that
//! concerns one run or campaign is found by `run_id` or `campaign_id`.

use std::{io, str::FromStr};

use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, Layer, filter::ParseError, fmt, registry::LookupSpan};

/// How a log line is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("must be `text` or `json`".to_owned()),
        }
    }
}

/// A filter that cannot be read becomes `info`.
pub(super) fn filter(text: &str) -> (EnvFilter, Option<ParseError>) {
    match EnvFilter::try_new(text) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    }
}

pub(super) fn layer<S>(format: LogFormat, colour: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = fmt::layer().with_writer(io::stderr).with_target(false);
    match format {
        LogFormat::Text => Box::new(lines.with_ansi(colour)),
        // The list of all spans has the innermost one as its last.
        LogFormat::Json => Box::new(lines.json().with_current_span(false).flatten_event(true)),
    }
}
