//! Which model: a provider and the name it knows the model by, written `anthropic:MODEL`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Who serves the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// The Messages format of Anthropic.
    Anthropic,
    /// The Responses format of OpenAI.
    OpenAi,
    /// A local or cloud Ollama, by its own format.
    Ollama,
    /// Anything that speaks Chat Completions: vLLM, llama.cpp, LM Studio, OpenRouter.
    Compatible,
}

impl Provider {
    /// All of them, in the order they are listed to people.
    pub const ALL: [Self; 4] = [Self::Anthropic, Self::OpenAi, Self::Ollama, Self::Compatible];

    /// The prefix before the colon.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAi => "openai",
            Self::Ollama => "ollama",
            Self::Compatible => "compatible",
        }
    }

    /// Whether calls may cost money. A `compatible` server may be anyone's.
    #[must_use]
    pub fn may_cost(self) -> bool {
        !matches!(self, Self::Ollama)
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A model by provider and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelSpec {
    /// Who serves it.
    pub provider: Provider,
    /// What the provider calls it; may itself hold colons (`ollama:qwen3:8b`).
    pub model: String,
}

/// Why a text names no model.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseSpecError {
    /// No known provider before the colon.
    #[error(
        "--llm: `{0}` names no provider known here: write one of anthropic:MODEL, openai:MODEL, ollama:MODEL, compatible:MODEL, replay:FILE, or offline"
    )]
    Provider(String),
    /// Nothing, too much, or white space after the colon.
    #[error(
        "--llm: `{0}` names no model: write {1}:MODEL with the name the provider knows, 1 to 200 characters without spaces"
    )]
    Model(String, &'static str),
}

impl FromStr for ModelSpec {
    type Err = ParseSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || kit::text::one_line(text, 80);
        let (prefix, model) = text.split_once(':').unwrap_or((text, ""));
        let provider = Provider::ALL
            .into_iter()
            .find(|provider| provider.as_str() == prefix)
            .ok_or_else(|| ParseSpecError::Provider(shown()))?;
        let good = (1..=200).contains(&model.chars().count())
            && !model.chars().any(|c| c.is_whitespace() || c.is_control());
        if good {
            Ok(Self { provider, model: model.to_owned() })
        } else {
            Err(ParseSpecError::Model(shown(), provider.as_str()))
        }
    }
}

impl fmt::Display for ModelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.provider, self.model)
    }
}

impl TryFrom<String> for ModelSpec {
    type Error = ParseSpecError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ModelSpec> for String {
    fn from(spec: ModelSpec) -> Self {
        spec.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["anthropic:claude-sonnet-5-5", "openai:gpt-6.2-sol", "ollama:qwen3:8b", "compatible:a/b"]
        {
            assert_eq!(text.parse::<ModelSpec>().map(|spec| spec.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn says_what_is_wrong_in_one_line() {
        for wrong in ["gpt-6", "claude:x", "", "Anthropic:x", "a\nb:c"] {
            let said = wrong.parse::<ModelSpec>().unwrap_err().to_string();
            assert!(said.contains("compatible:MODEL") && !said.contains('\n'), "{said}");
        }
        for wrong in ["openai:", "ollama:a b", "openai"] {
            assert!(matches!(wrong.parse::<ModelSpec>(), Err(ParseSpecError::Model(..))), "{wrong}");
        }
    }
}
