//! Keys of providers. They come from the environment and go into one header; nothing prints, stores or
//! serialises them. `compatible` has a name of its own: a key of OpenAI that happens to be set must not travel to
//! whatever server `--llm-url` names.

use secrecy::SecretString;

use super::spec::Provider;

/// The variables that are read, in the order in which the first one set wins.
const VARIABLES: [(Provider, &str); 5] = [
    (Provider::Anthropic, "ANTHROPIC_API_KEY"),
    (Provider::Anthropic, "ANTHROPIC_AUTH_TOKEN"),
    (Provider::OpenAi, "OPENAI_API_KEY"),
    (Provider::Ollama, "OLLAMA_API_KEY"),
    (Provider::Compatible, "COMPATIBLE_API_KEY"),
];

/// The keys that were found. It has no `Debug` on purpose.
#[derive(Clone, Default)]
pub struct Keys(Vec<(Provider, &'static str, SecretString)>);

impl Keys {
    /// From this process's environment. An empty variable counts as not set.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// From anything that answers to a variable's name: for tests.
    #[must_use]
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let found = VARIABLES.into_iter().filter_map(|(provider, name)| {
            let value = lookup(name)?;
            let value = value.trim();
            (!value.is_empty()).then(|| (provider, name, SecretString::from(value)))
        });
        Self(found.collect())
    }

    /// The names of the variables that were set.
    #[must_use]
    pub fn seen(&self) -> Vec<&'static str> {
        self.0.iter().map(|(_, name, _)| *name).collect()
    }

    /// The variable a person should set for this provider.
    #[must_use]
    pub fn variable(provider: Provider) -> &'static str {
        VARIABLES.iter().find(|(of, _)| *of == provider).map_or("", |(_, name)| *name)
    }

    /// The key of a provider and the variable it came from.
    pub(super) fn of(&self, provider: Provider) -> Option<(&'static str, &SecretString)> {
        self.0.iter().find(|(of, ..)| *of == provider).map(|(_, name, key)| (*name, key))
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn lists_names_and_never_values() {
        let keys = Keys::from_lookup(|name| match name {
            "OPENAI_API_KEY" => Some(" canary \n".to_owned()),
            "ANTHROPIC_API_KEY" => Some("  ".to_owned()),
            _ => None,
        });
        assert_eq!(keys.seen(), ["OPENAI_API_KEY"]);
        assert!(keys.of(Provider::Anthropic).is_none());
        let (name, key) = keys.of(Provider::OpenAi).expect("set");
        assert_eq!((name, key.expose_secret()), ("OPENAI_API_KEY", "canary"));
        assert!(!format!("{key:?}").contains("canary"));
        assert_eq!(Keys::variable(Provider::Anthropic), "ANTHROPIC_API_KEY");
    }
}
