//! Shapes of answers. [`subset`](mod@subset) rewrites what schemars writes into what all providers take; [`check`]
//! tells whether an answer has the shape, because servers ignore it now and then and none checks a number's range.

mod check;
mod subset;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::Fault;

pub use check::{Violation, check};
pub use subset::{SubsetError, subset};

/// The shape an answer must have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    /// A name of letters, digits, `_` and `-`, at most 64.
    pub name: String,
    /// JSON Schema, as schemars writes it. The answer is checked against this; what is sent is [`subset`] of it.
    pub json: Value,
}

impl Schema {
    /// Of a Rust type. Its doc comments become descriptions, which the model reads.
    #[must_use]
    pub fn of<T: JsonSchema>(name: impl Into<String>) -> Self {
        Self { name: name.into(), json: schemars::schema_for!(T).to_value() }
    }

    /// As it is sent.
    ///
    /// # Errors
    /// [`SubsetError`]: what no provider takes, with its path.
    pub fn sent(&self) -> Result<Value, SubsetError> {
        subset(&self.json)
    }

    /// As a body holds it.
    pub(super) fn for_body(&self) -> Result<Value, Fault> {
        self.sent().map_err(|error| Fault::Unsendable(error.to_string()))
    }

    /// The name in the characters that providers allow.
    pub(super) fn safe_name(&self) -> String {
        let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' };
        let name: String = self.name.chars().take(64).map(safe).collect();
        if name.is_empty() { "answer".to_owned() } else { name }
    }

    /// As a prompt holds it, for servers that do not enforce it.
    pub(super) fn for_prompt(&self) -> Result<String, Fault> {
        let schema = self.for_body()?;
        Ok(format!(
            "\n\nAnswer with one JSON object and nothing else: no prose, no Markdown. It must match this JSON Schema:\n{schema}"
        ))
    }
}
