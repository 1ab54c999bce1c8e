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

#[cfg(test)]
mod tests {
    use proto::v1::{self, worker_service_client::WorkerServiceClient};
    use tonic::transport::Channel;

    use super::*;

    /// One that answered at the second 1,000 and says that it is `theirs`.
    fn met(theirs: i64, backends: Vec<v1::Backend>) -> Met {
        const SECOND: i64 = 1_000_000_000;
        let client = WorkerServiceClient::new(Channel::from_static("http://127.0.0.1:1").connect_lazy());
        let info = v1::GetWorkerResponse { wall_time_ns: theirs * SECOND, backends, ..Default::default() };
        Met { client, info, asked_between: (1_000 * SECOND, 1_001 * SECOND) }
    }

    fn backend(name: &str, reason: &str) -> v1::Backend {
        let (name, reason) = (name.to_owned(), reason.to_owned());
        v1::Backend { available: reason.is_empty(), name, reason, ..Default::default() }
    }

    #[tokio::test]
    async fn clocks_that_are_apart_are_both_shown_and_stop_what_is_dated() {
        let good = || vec![backend("docker", "")];
        for (theirs, words) in [(1_401, "400 s ahead"), (600, "400 s behind")] {
            let apart = met(theirs, good());
            let said = check(&apart, AddressKind::Tls).unwrap_err();
            let clocks = ["1970-01-01T00:16:41Z", &Timestamp::from_second(theirs).unwrap().to_string()];
            assert!(said.contains(words) && clocks.iter().all(|clock| said.contains(clock)), "{said}");
            assert_eq!(said.lines().count(), 1);
            assert_eq!(check(&apart, AddressKind::Dialled).unwrap_err(), said);
            assert_eq!(check(&apart, AddressKind::Ssh).unwrap().warnings, [said], "ssh dates nothing");
        }
        assert_eq!(check(&met(1_200, good()), AddressKind::Tls).unwrap(), Checked::default());
    }

    #[tokio::test]
    async fn a_worker_without_a_sandbox_is_refused_with_each_reason_in_one_line() {
        let none = vec![backend("docker", "no engine answers"), backend("native", "not root")];
        let said = check(&met(1_000, none), AddressKind::Unix).unwrap_err();
        assert!(said.contains("docker: no engine answers; native: not root"), "{said}");
        assert!(said.contains("autoresearch-worker doctor") && said.lines().count() == 1, "{said}");
        let one = vec![backend("docker", "no engine answers"), backend("native", "")];
        let checked = check(&met(1_000, one), AddressKind::Unix).unwrap();
        assert!(checked.warnings[0].contains("without Docker (native): no engine answers"), "{checked:?}");
        assert!(check(&met(1_000, Vec::new()), AddressKind::Unix).unwrap_err().contains("no backend"));
    }
}
