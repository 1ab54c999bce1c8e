//! Where a provider listens: the vendor's own address, or the one that `--llm-url` names.

use reqwest::Url;

use super::spec::Provider;

/// The base URL of a provider, or `None` where there is none by nature.
pub(super) fn default_base(provider: Provider) -> Option<&'static str> {
    match provider {
        Provider::Anthropic => Some("https://api.anthropic.com"),
        Provider::OpenAi => Some("https://api.openai.com/v1"),
        Provider::Ollama => Some("http://127.0.0.1:11434"),
        Provider::Compatible => None,
    }
}

/// The base URL that the vendor's own variable names, read through `lookup`: what the cli takes where `--llm-url`
/// is not given. `OLLAMA_HOST` may lack scheme and port, and `0.0.0.0` in it means this machine.
#[must_use]
pub fn url_from(provider: Provider, lookup: impl Fn(&str) -> Option<String>) -> Option<String> {
    let set =
        |name: &str| lookup(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    match provider {
        Provider::Anthropic => set("ANTHROPIC_BASE_URL"),
        Provider::OpenAi => set("OPENAI_BASE_URL"),
        Provider::Compatible => None,
        Provider::Ollama => set("OLLAMA_HOST").map(|host| {
            let (scheme, rest) = host.split_once("://").unwrap_or(("http", &host));
            let (address, path) = rest.split_once('/').map_or((rest, ""), |(address, path)| (address, path));
            let port = if address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
                ""
            } else {
                ":11434"
            };
            let address = address.replacen("0.0.0.0", "127.0.0.1", 1);
            format!("{scheme}://{address}{port}/{path}").trim_end_matches('/').to_owned()
        }),
    }
}

/// Why an address cannot be used; the text goes behind `--llm-url`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum AddressError {
    #[error("is not a URL: write http://HOST:PORT/PATH or https://…")]
    Form,
    #[error("must begin with http:// or https://")]
    Scheme,
    #[error("must hold no user, password, query or fragment; keys come from the environment")]
    Extra,
}

/// Base and path together, with the base checked.
pub(super) fn address(base: &str, path: &str) -> Result<Url, AddressError> {
    let base = base.trim();
    let url = Url::parse(base).map_err(|_| AddressError::Form)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(AddressError::Scheme);
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(AddressError::Form);
    }
    let extra = !url.username().is_empty() || url.password().is_some();
    if extra || url.query().is_some() || url.fragment().is_some() {
        return Err(AddressError::Extra);
    }
    // People paste the whole address; the path is not appended twice.
    let base = url.as_str().trim_end_matches('/');
    let base = base.strip_suffix(path).unwrap_or(base);
    Url::parse(&format!("{base}{path}")).map_err(|_| AddressError::Form)
}

/// Whether an address is this machine's: a proxy of the environment must not capture it.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_bases_as_people_write_them() {
        let join = |base| address(base, "/chat/completions").map(|url| url.to_string());
        let wanted = Ok("http://h:8000/v1/chat/completions".to_owned());
        for base in ["http://h:8000/v1", "http://h:8000/v1/", " http://h:8000/v1/chat/completions "] {
            assert_eq!(join(base), wanted);
        }
        assert_eq!(join("h:8000"), Err(AddressError::Scheme));
        assert_eq!(join("nonsense"), Err(AddressError::Form));
        assert_eq!(join("ftp://h/"), Err(AddressError::Scheme));
        assert_eq!(join("https://user:secret@h/v1"), Err(AddressError::Extra));
        assert_eq!(join("https://h/v1?key=secret"), Err(AddressError::Extra));
    }

    #[test]
    fn reads_ollamas_variable() {
        let read = |value: &str| url_from(Provider::Ollama, |_| Some(value.to_owned()));
        assert_eq!(read("0.0.0.0").as_deref(), Some("http://127.0.0.1:11434"));
        assert_eq!(read("box:8080").as_deref(), Some("http://box:8080"));
        assert_eq!(read("https://box/ollama").as_deref(), Some("https://box:11434/ollama"));
        assert_eq!(read(" "), None);
    }

    #[test]
    fn knows_this_machine() {
        for (url, wanted) in
            [("http://127.0.0.1:1/", true), ("http://[::1]/", true), ("http://localhost/", true)]
                .into_iter()
                .chain([("https://api.openai.com/", false), ("http://10.0.0.1/", false)])
        {
            assert_eq!(is_loopback(&Url::parse(url).expect("a URL")), wanted, "{url}");
        }
    }
}
