//! From options to a model that can be called. Everything that can be wrong before the first call is said here, in
//! one line that names the variable or the flag.

use std::sync::Arc;

use kit::clock::{Clock, SystemClock};

use super::{
    Model,
    anthropic::Anthropic,
    chat::Chat,
    client::Client,
    endpoint::{address, default_base, is_loopback},
    keys::Keys,
    ollama::Ollama,
    openai::OpenAi,
    retry::{CallPolicy, Gate, SystemTimer, Timer},
    spec::{ModelSpec, Provider},
    transport::{Transport, TransportError},
    wire::Wire,
};

/// What a model is opened with.
#[derive(Clone)]
pub struct OpenOptions {
    /// Which model.
    pub spec: ModelSpec,
    /// Another base URL (`--llm-url`), with `/v1` for the OpenAI formats.
    pub url: Option<String>,
    /// Keys; see [`Keys::from_env`].
    pub keys: Keys,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Waiting.
    pub timer: Arc<dyn Timer>,
    /// Attempts, waits, deadline; `None` takes what suits the provider.
    pub policy: Option<CallPolicy>,
    /// `ollama`: the context that is asked for, in tokens. One value for the whole campaign, because a change
    /// makes the server load the model anew.
    pub context_tokens: u32,
}

impl OpenOptions {
    /// A context that holds the loop's prompts and fits beside an 8-billion model on a 24 GiB card.
    pub const CONTEXT_TOKENS: u32 = 32_768;

    /// With the system's clock and what suits the provider.
    #[must_use]
    pub fn new(spec: ModelSpec, keys: Keys) -> Self {
        Self {
            spec,
            url: None,
            keys,
            clock: SystemClock::shared(),
            timer: Arc::new(SystemTimer),
            policy: None,
            context_tokens: Self::CONTEXT_TOKENS,
        }
    }
}

/// Why a model cannot be called.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OpenError {
    /// The provider wants a key.
    #[error("{spec} needs a key: set {variable} in the environment")]
    MissingKey {
        /// The model.
        spec: ModelSpec,
        /// Where the key is read from.
        variable: &'static str,
    },
    /// The key cannot be sent.
    #[error("{0} holds characters that no key has (a line break, perhaps): set it again")]
    BadKey(&'static str),
    /// `compatible` servers are anywhere.
    #[error("{0} needs --llm-url, the server's base address with its /v1, like http://127.0.0.1:8000/v1")]
    MissingUrl(ModelSpec),
    /// The base URL cannot be used.
    #[error("--llm-url {why}")]
    BadUrl {
        /// What is wrong with it; the address itself is left out, for it may hold a password.
        why: String,
    },
    /// TLS or the system's certificates.
    #[error("{0}: check the system's certificates")]
    Client(String),
}

/// Opens a model. Nothing is sent.
///
/// # Errors
/// [`OpenError`], which names the variable or the flag at fault.
pub fn open(options: OpenOptions) -> Result<Arc<dyn Model>, OpenError> {
    let OpenOptions { spec, url, keys, clock, timer, policy, context_tokens } = options;
    let model = spec.model.clone();
    let wire: Box<dyn Wire> = match spec.provider {
        Provider::Anthropic => Box::new(Anthropic { model }),
        Provider::OpenAi => Box::new(OpenAi { model }),
        Provider::Ollama => Box::new(Ollama::new(model, context_tokens)),
        Provider::Compatible => Box::new(Chat::new(model)),
    };
    let base = url
        .or_else(|| default_base(spec.provider).map(str::to_owned))
        .ok_or_else(|| OpenError::MissingUrl(spec.clone()))?;
    let url = address(&base, wire.path()).map_err(|why| OpenError::BadUrl { why: why.to_string() })?;
    let key = keys.of(spec.provider);
    let variable = key.map_or(Keys::variable(spec.provider), |(name, _)| name);
    if key.is_none() && matches!(spec.provider, Provider::Anthropic | Provider::OpenAi) {
        return Err(OpenError::MissingKey { spec, variable });
    }
    let direct = is_loopback(&url);
    if key.is_some() && url.scheme() == "http" && !direct {
        tracing::warn!(host = url.host_str(), "the key goes over plain http: anyone on the way can read it");
    }
    if spec.provider == Provider::Compatible && url.port() == Some(11434) {
        tracing::warn!(
            "this looks like Ollama, whose /v1 cannot set the context's size: use --llm ollama:MODEL"
        );
    }
    let local = direct || spec.provider == Provider::Ollama;
    let policy = policy.unwrap_or_else(|| if local { CallPolicy::local() } else { CallPolicy::hosted() });
    let transport =
        Transport::new(url, local, wire.headers(), key.map(|(_, key)| key.clone())).map_err(|error| {
            match error {
                TransportError::Key => OpenError::BadKey(variable),
                TransportError::Client(why) => OpenError::Client(why),
            }
        })?;
    Ok(Arc::new(Client { spec, wire, transport, clock, timer, policy, gate: Gate::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(spec: &str, url: Option<&str>, key: Option<&str>) -> String {
        let keys = Keys::from_lookup(|_| key.map(str::to_owned));
        let mut options = OpenOptions::new(spec.parse().expect("a model"), keys);
        options.url = url.map(str::to_owned);
        match open(options) {
            Ok(_) => panic!("{spec} {url:?} must not open"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_missing_is_named_and_no_secret_is_shown() {
        assert!(fails("anthropic:m", None, None).contains("ANTHROPIC_API_KEY"));
        assert!(fails("openai:m", None, None).contains("OPENAI_API_KEY"));
        assert!(fails("compatible:m", None, None).contains("--llm-url"));
        let said = fails("openai:m", Some("https://me:canary@h/v1"), Some("k"));
        assert!(said.contains("--llm-url") && !said.contains("canary"), "{said}");
        let said = fails("openai:m", None, Some("canary\u{1}canary"));
        assert!(said.contains("OPENAI_API_KEY") && !said.contains("canary"), "{said}");
    }

    #[test]
    fn opens_without_a_key_where_none_is_needed() {
        for (spec, url) in [("ollama:qwen3:8b", None), ("compatible:m", Some("http://127.0.0.1:8000/v1"))] {
            let mut options = OpenOptions::new(spec.parse().expect("a model"), Keys::default());
            options.url = url.map(str::to_owned);
            assert_eq!(open(options).map(|model| model.spec().to_string()).as_deref(), Ok(spec));
        }
    }
}
