//! What is wrong with a worker that has answered: clocks that are apart, nothing that makes a sandbox. Each finding is one
//! line with what to do.

use jiff::Timestamp;

use crate::fleet::{address::AddressKind, dial::Met};

/// Clocks may be so far apart.
const CLOCKS_MAX_NS: i64 = 5 * 60 * 1_000_000_000;

/// A worker that may be used, and what its user should know.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// One line each.
    pub warnings: Vec<String>,
}

/// Checks.
///
/// # Errors
/// The first thing that makes it useless, in one line.
pub fn check(met: &Met, kind: AddressKind) -> Result<Checked, String> {
    let mut warnings = Vec::new();
    if let Some(apart) = clocks(met) {
        match kind {
            // Certificates are dated: what works today with clocks that are apart ends at a wrong moment.
            AddressKind::Tls | AddressKind::Dialled => return Err(apart),
            AddressKind::Unix | AddressKind::Ssh => warnings.push(apart),
        }
    }
    let backends = &met.info.backends;
    let Some(first) = backends.iter().find(|backend| backend.available) else {
        let reasons: Vec<String> = backends.iter().map(|b| format!("{}: {}", b.name, b.reason)).collect();
        let reasons = if reasons.is_empty() { "it has no backend".to_owned() } else { reasons.join("; ") };
        return Err(format!(
            "no sandbox can be made there: {reasons} (`autoresearch-worker doctor` over there tells more)"
        ));
    };
    if let Some(docker) = backends.iter().find(|b| b.name == "docker" && !b.available) {
        warnings.push(format!("sandboxes are made there without Docker ({}): {}", first.name, docker.reason));
    }
    warnings.extend(first.warnings.iter().map(|warning| format!("{}: {warning}", first.name)));
    if met.info.draining {
        warnings.push("it drains: it takes no new runs until it is started again".to_owned());
    }
    Ok(Checked { warnings })
}

fn clocks(met: &Met) -> Option<String> {
    let ahead = met.clock_ahead_ns();
    if ahead.abs() <= CLOCKS_MAX_NS {
        return None;
    }
    let shown =
        |ns: i64| Timestamp::from_second(ns / 1_000_000_000).map(|t| t.to_string()).unwrap_or_default();
    let direction = if ahead > 0 { "ahead" } else { "behind" };
    Some(format!(
        "the clocks are apart: its clock says {}, the one here {} ({} s {direction}; 300 s at most): set the one that is wrong",
        shown(met.info.wall_time_ns),
        shown(met.asked_between.1),
        ahead.abs() / 1_000_000_000,
    ))
}
