//! `HOST:PORT`, as the other side is to dial it: a name, an IPv4 address, or an IPv6 address in brackets.

use std::{fmt, str::FromStr};

/// Host and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

/// Why a text is no address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not HOST:PORT: {problem}")]
pub struct AddressError {
    text: String,
    problem: &'static str,
}

impl Address {
    /// Name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Never 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl From<std::net::SocketAddr> for Address {
    fn from(address: std::net::SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |problem| AddressError { text: crate::text::one_line(text, 80), problem };
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
        let port: u16 = port.parse().map_err(|_| wrong("the port is no number up to 65535"))?;
        if port == 0 {
            return Err(wrong("port 0 cannot be dialled"));
        }
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let good = match bare {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => is_name(host),
        };
        if !good {
            return Err(wrong("the host is no name, no IPv4 address and no IPv6 address in brackets"));
        }
        Ok(Self { host: bare.unwrap_or(host).to_owned(), port })
    }
}

fn is_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
    };
    host.len() <= 253 && host.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_can_be_dialled_and_says_what_is_wrong() {
        for good in ["gpu-box:7433", "10.0.0.7:1", "[::1]:65535", "a.example.org:80"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        for (wrong, word) in [
            ("gpu", "port is missing"),
            ("gpu:x", "no number"),
            ("gpu:70000", "no number"),
            ("gpu:0", "port 0"),
            (":1", "host"),
            ("::1:80", "host"),
            ("[gpu]:80", "host"),
            ("a b:80", "host"),
            ("-x:80", "host"),
            (&format!("{}:1", "a.".repeat(200)), "host"),
        ] {
            let error = wrong.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
