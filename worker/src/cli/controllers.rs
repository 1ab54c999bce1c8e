//! `autoresearch-worker controllers …`: who was let in from other machines, for the owner of this one.

use std::{fmt::Write as _, process::ExitCode};

use jiff::Timestamp;
use kit::{
    clock::SystemClock,
    identity::{Peer, Revoked},
};

use super::{CommandResult, Common, EXIT_FAILED, Flags, Output, data_dir, print};
use crate::serve::listen::{Access, settings::Settings};

/// Who was let in from other machines
#[derive(Debug, clap::Subcommand)]
pub(super) enum Controllers {
    /// List them, with those that were taken back or have ended
    List {
        /// Print as; JSON has one object a line
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Take a controller's access back; its connections end within a second, its runs go on to their end
    Revoke {
        /// As `list` shows it: the name, or the fingerprint or its first 8 digits or more
        #[arg(value_name = "NAME|FINGERPRINT")]
        controller: String,
    },
}

impl Controllers {
    pub(super) fn run(&self, common: &Common) -> CommandResult {
        let config = common.configure(Flags::default())?;
        let folder = data_dir(&config)?;
        let clock = SystemClock::shared();
        let access = Access::open(&folder, config.remote.certificate_lifetime.0, clock.clone())?;
        match self {
            Self::List { output } => print(&list(&access.peers().list()?, *output, clock.wall()))?,
            Self::Revoke { controller } => match access.peers().revoke(controller)? {
                Revoked::Now(peers) => {
                    let settings = Settings::of(&folder);
                    for peer in peers {
                        // Nor is it dialled any more.
                        settings.forget_dial(&peer.fingerprint)?;
                        print(&format!("revoked {} ({})\n", shown(&peer.name), peer.fingerprint.short()))?;
                    }
                }
                Revoked::Before => tracing::info!("`{controller}` was revoked before"),
                Revoked::Unknown => {
                    tracing::error!(
                        "there is no controller `{controller}`: `autoresearch-worker controllers list` shows them"
                    );
                    return Ok(ExitCode::from(EXIT_FAILED));
                }
            },
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn shown(name: &str) -> String {
    kit::text::one_line(name, 63)
}

fn state(peer: &Peer, now: Timestamp) -> &'static str {
    match peer.revoked {
        Some(_) => "revoked",
        None if now >= peer.expires => "expired",
        None => "joined",
    }
}

fn list(peers: &[Peer], output: Output, now: Timestamp) -> String {
    let mut out = String::new();
    if output == Output::Text && !peers.is_empty() {
        writeln!(out, "{:<24} {:<8} {:<16} {:<20} UNTIL", "NAME", "STATE", "FINGERPRINT", "SINCE")
            .unwrap_or_default();
    }
    for peer in peers {
        let state = state(peer, now);
        match output {
            Output::Text => {
                let until = peer.revoked.unwrap_or(peer.expires);
                let second = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                let (name, key) = (shown(&peer.name), peer.fingerprint.short());
                writeln!(out, "{name:<24} {state:<8} {key} {:<20} {}", second(peer.since), second(until))
                    .unwrap_or_default();
            }
            Output::Json => {
                let line = serde_json::json!({
                    "name": peer.name,
                    "state": state,
                    "fingerprint": peer.fingerprint,
                    "controller_id": peer.controller_id,
                    "since": peer.since,
                    "expires": peer.expires,
                    "revoked": peer.revoked,
                });
                writeln!(out, "{line}").unwrap_or_default();
            }
        }
    }
    out
}
