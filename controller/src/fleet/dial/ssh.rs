//! `ssh://`: the system's `ssh`, with the user's keys, agent and configuration, starts `autoresearch-worker connect` on the
//! other machine, which bridges its standard input and output to the worker there. Nothing is opened and nothing is signed.

use std::ffi::OsString;

use async_trait::async_trait;
use tokio::process::Command;
use tonic::transport::Channel;

use super::{
    CONNECT,
    bridge::{Bridge, BridgeError, Ended, last_line},
    over, root_cause,
};
use crate::fleet::{Dialer, FleetError, address::SshAddress};

/// Another program instead of `ssh`, with arguments, split at spaces: for odd set-ups.
pub const VARIABLE: &str = "AUTORESEARCH_SSH";
/// What is run over there.
const PROGRAM: &str = "autoresearch-worker";
/// Until the bridge has greeted: ssh itself gives up after 10 s, and a worker that is started over there takes a while.
const GREETED: std::time::Duration = std::time::Duration::from_secs(30);

/// A registered worker behind ssh.
#[derive(Debug, Clone)]
pub struct Ssh {
    name: String,
    to: SshAddress,
    program: Vec<OsString>,
}

impl Ssh {
    /// Of the worker that is called so. The program is `ssh`, or what AUTORESEARCH_SSH names.
    #[must_use]
    pub fn new(name: &str, to: SshAddress) -> Self {
        let set = std::env::var(VARIABLE).unwrap_or_default();
        let mut program: Vec<OsString> = set.split_whitespace().map(OsString::from).collect();
        if program.is_empty() {
            program.push("ssh".into());
        }
        Self { name: name.to_owned(), to, program }
    }

    /// The program and its arguments.
    fn arguments(&self) -> Vec<OsString> {
        let mut all = self.program.clone();
        let seconds = CONNECT.as_secs();
        // No terminal, no question, nothing forwarded, never the connection that others share; a silent peer is given up as
        // soon as HTTP/2's own pings would.
        all.extend(["-T", "-a", "-x"].map(OsString::from));
        for option in [
            "BatchMode=yes".to_owned(),
            "ClearAllForwardings=yes".to_owned(),
            "ControlMaster=no".to_owned(),
            format!("ConnectTimeout={seconds}"),
            format!("ServerAliveInterval={seconds}"),
            "ServerAliveCountMax=2".to_owned(),
        ] {
            all.extend(["-o".into(), OsString::from(option)]);
        }
        if let Some(port) = self.to.port {
            all.extend(["-p".into(), port.to_string().into()]);
        }
        if let Some(user) = &self.to.user {
            all.extend(["-l".into(), user.into()]);
        }
        all.extend(["--".into(), OsString::from(&self.to.host), self.remote_command().into()]);
        all
    }

    /// For the other side's shell. The address was checked: no quote in it.
    fn remote_command(&self) -> String {
        match self.to.program.as_deref() {
            None => format!("{PROGRAM} connect"),
            Some(path) => match path.strip_prefix("/~/") {
                Some(below_home) => format!("\"$HOME\"/'{below_home}' connect"),
                None => format!("'{path}' connect"),
            },
        }
    }

    fn unreachable(&self, detail: String) -> FleetError {
        FleetError::Unreachable { worker: self.name.clone(), detail }
    }

    /// Its own words, and what a person can do about the common ones.
    fn told(&self, ended: &Ended) -> String {
        let words = last_line(&ended.stderr);
        let has = |text: &str| ended.stderr.contains(text);
        let host = &self.to.host;
        let hint = if has("Host key verification failed") || has("REMOTE HOST IDENTIFICATION HAS CHANGED") {
            format!(" (ssh does not know this host's key: run `ssh {host}` once and look at it)")
        } else if has("Permission denied (") {
            format!(" (no key is let in without a question: `ssh -o BatchMode=yes {host} true` must work)")
        } else if ended.status.and_then(|status| status.code()) == Some(127) {
            " (put autoresearch-worker on the PATH of a non-interactive shell there, or its path into the address: ssh://HOST/path/to/autoresearch-worker)".to_owned()
        } else {
            String::new()
        };
        let words = match (words.is_empty(), ended.status) {
            (false, _) => words,
            (true, Some(status)) => format!("it said nothing and ended with {status}"),
            (true, None) => "it said nothing".to_owned(),
        };
        let words = words.strip_prefix("ssh: ").unwrap_or(&words);
        format!("ssh: {words}{hint}")
    }
}

#[async_trait]
impl Dialer for Ssh {
    async fn dial(&self) -> Result<Channel, FleetError> {
        let arguments = self.arguments();
        let Some((program, rest)) = arguments.split_first() else {
            return Err(self.unreachable(format!("{VARIABLE} names no program")));
        };
        let mut command = Command::new(program);
        command.args(rest);
        let opened = match tokio::time::timeout(GREETED, Bridge::open(command)).await {
            Ok(opened) => opened,
            Err(_) => {
                let problem = format!("no word of `{}` in {} s", self.remote_command(), GREETED.as_secs());
                return Err(self.unreachable(format!("ssh: {problem}")));
            }
        };
        let bridge = opened.map_err(|error| match error {
            BridgeError::Start(error) => {
                self.unreachable(format!("cannot start {}: {error}", program.to_string_lossy()))
            }
            BridgeError::Ended(ended) => self.unreachable(self.told(&ended)),
            BridgeError::Noise(last) => self.unreachable(format!(
                "the other side printed more than 64 KiB and then no `autoresearch-worker/1`; last: {last}"
            )),
        })?;
        over(bridge).await.map_err(|error| self.unreachable(root_cause(&error)))
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::address::Address;

    fn ssh(address: &str) -> Ssh {
        let Ok(Address::Ssh(to)) = address.parse() else { panic!("{address} is an ssh address") };
        Ssh { name: "gpu".to_owned(), to, program: vec!["ssh".into()] }
    }

    #[test]
    fn no_part_of_an_address_becomes_an_option() {
        let arguments = ssh("ssh://ann@gpu:2222").arguments();
        let text: Vec<&str> = arguments.iter().map(|a| a.to_str().unwrap()).collect();
        assert_eq!(text[..4], ["ssh", "-T", "-a", "-x"]);
        assert!(text.contains(&"BatchMode=yes"));
        assert_eq!(
            text[text.len() - 7..],
            ["-p", "2222", "-l", "ann", "--", "gpu", "autoresearch-worker connect"]
        );
    }

    #[test]
    fn the_other_shell_sees_a_path_as_it_is() {
        let command = |address| ssh(address).remote_command();
        assert_eq!(command("ssh://gpu/opt/a b/$x;y"), "'/opt/a b/$x;y' connect");
        assert_eq!(command("ssh://gpu/~/bin/w"), "\"$HOME\"/'bin/w' connect");
    }

    #[tokio::test]
    async fn what_ssh_says_is_the_error() {
        let mut dialer = ssh("ssh://gpu");
        dialer.program =
            ["sh", "-c", "echo 'ssh: connect to host gpu port 22: No route to host' >&2; exit 255"]
                .map(OsString::from)
                .to_vec();
        let error = dialer.dial().await.unwrap_err().to_string();
        assert!(
            error.contains("worker gpu cannot be reached") && error.contains("No route to host"),
            "{error}"
        );
        dialer.program = vec!["/nowhere/ssh".into()];
        let error = dialer.dial().await.unwrap_err().to_string();
        assert!(error.contains("cannot start /nowhere/ssh"), "{error}");
    }
}
