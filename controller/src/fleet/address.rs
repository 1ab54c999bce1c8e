//! Where a worker is, as people write it: `unix:PATH`, `ssh://[user@]host[:port][/path/to/autoresearch-worker]`, and what a
//! join string or an invitation leaves behind. An address says where and never whom to trust: the fingerprint is the
//! registry's. What opens one is in `dial`.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use kit::identity::{Address as HostPort, AddressError as HostPortError, JoinString, TextError};
use serde::Serialize;

/// The kernel's limit on a Unix socket's path, without its last zero.
const SOCKET_PATH_MAX: usize = 107;
/// Longer than any name that resolves (253), with room for an address in brackets.
const HOST_MAX: usize = 255;
const PATH_MAX: usize = 1024;

/// Why a text is no address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AddressError {
    /// None of the forms.
    #[error(
        "`{0}` is no address: write unix:PATH, ssh://[user@]host[:port][/path/to/autoresearch-worker], or the join string that `autoresearch-worker init` prints"
    )]
    Form(String),
    /// A part of it.
    #[error("`{address}`: {problem}")]
    Part {
        /// As it was written.
        address: String,
        /// What is wrong with which part.
        problem: String,
    },
    /// A join string, or something like it.
    #[error(transparent)]
    Join(#[from] TextError),
}

/// What `worker add` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A worker that trusts whoever gets there.
    There(Address),
    /// A worker that is to be told who we are, once.
    Join(JoinString),
}

impl FromStr for Target {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        if text.starts_with("autoresearch-") {
            return Ok(Self::Join(text.parse()?));
        }
        let problem = match text.parse()? {
            address @ (Address::Unix(_) | Address::Ssh(_)) => return Ok(Self::There(address)),
            Address::Tls(_) => {
                "TLS needs the join string that `autoresearch-worker init` prints on that machine"
            }
            Address::Dialled(_) => "`autoresearch worker invite NAME` awaits a worker that dials",
        };
        Err(AddressError::Part { address: shown(text), problem: problem.to_owned() })
    }
}

/// The way to one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A socket of this machine.
    Unix(PathBuf),
    /// The system's `ssh`, with its keys and its configuration.
    Ssh(SshAddress),
    /// TCP with mutual TLS.
    Tls(HostPort),
    /// It dials this controller, which listens for it here.
    Dialled(SocketAddr),
}

/// Which of the ways, for the registry and for JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressKind {
    /// `unix:`
    Unix,
    /// `ssh://`
    Ssh,
    /// From a join string.
    Tls,
    /// From an invitation.
    Dialled,
}

impl AddressKind {
    /// The word in the registry.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Ssh => "ssh",
            Self::Tls => "tls",
            Self::Dialled => "dialled",
        }
    }
}

impl fmt::Display for AddressKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// For `ssh`. No part can be taken for an option, and none but `program` reaches a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshAddress {
    /// Else what ssh's configuration says.
    pub user: Option<String>,
    /// A name of ssh's configuration, of DNS, or an IP address without brackets.
    pub host: String,
    /// Else what ssh's configuration says.
    pub port: Option<u16>,
    /// Where the worker's program is on the other side; else its PATH is asked. `/~/bin/x` is below the user's home.
    pub program: Option<String>,
}

impl Address {
    /// Which of the ways.
    #[must_use]
    pub fn kind(&self) -> AddressKind {
        match self {
            Self::Unix(_) => AddressKind::Unix,
            Self::Ssh(_) => AddressKind::Ssh,
            Self::Tls(_) => AddressKind::Tls,
            Self::Dialled(_) => AddressKind::Dialled,
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let part = |problem: String| AddressError::Part { address: shown(text), problem };
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path).map_err(part);
        }
        if let Some(rest) = text.strip_prefix("ssh://") {
            return ssh(rest).map(Self::Ssh).map_err(part);
        }
        if let Some(rest) = text.strip_prefix("tls://") {
            return rest.parse().map(Self::Tls).map_err(|e: HostPortError| part(e.to_string()));
        }
        if let Some(rest) = text.strip_prefix("dialled:") {
            let wrong = |_| part("where to listen is IP:PORT, like 0.0.0.0:7434".to_owned());
            return rest.parse().map(Self::Dialled).map_err(wrong);
        }
        Err(AddressError::Form(shown(text)))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Ssh(ssh) => {
                f.write_str("ssh://")?;
                if let Some(user) = &ssh.user {
                    write!(f, "{user}@")?;
                }
                bracketed(&ssh.host, f)?;
                if let Some(port) = ssh.port {
                    write!(f, ":{port}")?;
                }
                f.write_str(ssh.program.as_deref().unwrap_or_default())
            }
            Self::Tls(to) => write!(f, "tls://{to}"),
            Self::Dialled(at) => write!(f, "dialled:{at}"),
        }
    }
}

fn bracketed(host: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if host.contains(':') { write!(f, "[{host}]") } else { f.write_str(host) }
}

fn shown(text: &str) -> String {
    kit::text::one_line(text, 120)
}

fn unix(path: &str) -> Result<Address, String> {
    let path = PathBuf::from(path);
    if !path.is_absolute() {
        return Err("the socket's path must begin with /".to_owned());
    }
    if path.as_os_str().len() > SOCKET_PATH_MAX || path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(format!("a socket's path is at most {SOCKET_PATH_MAX} bytes"));
    }
    Ok(Address::Unix(path))
}

fn ssh(rest: &str) -> Result<SshAddress, String> {
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(checked_user(user)?), host),
        None => (None, authority),
    };
    let (host, port) = split_port(host)?;
    let program = match path {
        "" | "/" => None,
        path => Some(checked_program(path)?),
    };
    Ok(SshAddress { user, host: checked_host(host)?, port, program })
}

/// Host without brackets, and the port where one is given.
fn split_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("the bracket of the address is not closed")?;
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err("after the bracket only a port may stand".to_owned()),
        }
    } else {
        match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err("an IPv6 address stands in brackets, like [2001:db8::1]".to_owned());
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let number = |port: &str| port.parse().ok().filter(|port: &u16| *port != 0);
    match port {
        None => Ok((host, None)),
        Some(port) => match number(port) {
            Some(number) => Ok((host, Some(number))),
            None => Err(format!("`{}` is no port: 1 to 65535 is wanted", shown(port))),
        },
    }
}

fn checked_host(host: &str) -> Result<String, String> {
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if host.is_empty() {
        return Err("a host is wanted".to_owned());
    }
    if host.len() > HOST_MAX || host.starts_with('-') || !host.chars().all(ok) {
        return Err(format!("`{}` is no host's name or address", shown(host)));
    }
    Ok(host.to_owned())
}

fn checked_user(user: &str) -> Result<String, String> {
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@' | '\\' | '+' | '$');
    if user.is_empty() || user.len() > 128 || user.starts_with('-') || !user.chars().all(ok) {
        return Err(format!("`{}` is no user's name", shown(user)));
    }
    Ok(user.to_owned())
}

/// It is put between single quotes for the other side's shell, whichever that is.
fn checked_program(path: &str) -> Result<String, String> {
    let wrong = |c: char| c.is_control() || matches!(c, '\'' | '\\' | '!');
    if path.len() > PATH_MAX || path.chars().any(wrong) {
        return Err("the program's path holds what no shell takes as it is: control characters, ', \\ or !"
            .to_owned());
    }
    if path.ends_with('/') {
        return Err(
            "the path is the program's, not its folder's: like /opt/bin/autoresearch-worker".to_owned()
        );
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read_and_written_the_same() {
        for text in [
            "unix:/run/worker.sock",
            "ssh://gpu",
            "ssh://ann@gpu.example.org",
            "ssh://ann@gpu.example.org:2222",
            "ssh://[2001:db8::1]:22/opt/bin/autoresearch-worker",
            "ssh://gpu/~/bin/autoresearch-worker",
            "tls://gpu.example.org:7443",
            "tls://[::1]:7443",
            "dialled:0.0.0.0:7434",
            "dialled:[::]:7434",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let Ok(Address::Ssh(ssh)) = "ssh://ann@gpu:2222/x".parse() else { panic!("an ssh address") };
        let wanted = SshAddress {
            user: Some("ann".into()),
            host: "gpu".into(),
            port: Some(2222),
            program: Some("/x".into()),
        };
        assert_eq!(ssh, wanted);
        assert_eq!("ssh://gpu/".parse::<Address>().unwrap().to_string(), "ssh://gpu");
    }

    #[test]
    fn what_is_none_is_told_with_the_part_at_fault() {
        for (text, part) in [
            ("", "no address"),
            ("gpu", "no address"),
            ("http://gpu", "no address"),
            ("unix:worker.sock", "begin with /"),
            ("ssh://", "a host"),
            ("ssh://ann@", "a host"),
            ("ssh://-oProxyCommand=x", "no host"),
            ("ssh://gpu:0", "no port"),
            ("ssh://gpu:65536", "no port"),
            ("ssh://gpu:22x", "no port"),
            ("ssh://2001:db8::1", "brackets"),
            ("ssh://[::1", "not closed"),
            ("ssh://-l@gpu", "no user"),
            ("ssh://a b@gpu", "no user"),
            ("ssh://gpu;reboot", "no host"),
            ("ssh://gpu/it's", "no shell"),
            ("ssh://gpu/bin/", "not its folder"),
            ("tls://gpu", "the port is missing"),
            ("dialled:here", "IP:PORT"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        for (text, part) in [
            ("tls://gpu:1", "needs the join string"),
            ("dialled:0.0.0.0:1", "worker invite"),
            ("autoresearch-join.1.AAAA", "cut off"),
            ("autoresearch-joy", "must begin with"),
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let long = format!("unix:/{}", "x".repeat(107));
        assert!(long.parse::<Address>().unwrap_err().to_string().contains("107"));
    }
}
