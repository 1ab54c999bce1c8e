//! The self-test: before the first run every wall is tried on this host in a real sandbox that is thrown away, because
//! what a kernel, a distribution or a container around the worker takes away shows late and in strange places.
//! Its program is `worker/sandbox-init/probe.rs`. The result holds for this process.

use std::{
    collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration,
};

use super::{Shared, describe, make};
use crate::sandbox::{
    Assignment, Evidence, Order, Sandbox, SandboxClass, SandboxError, SandboxId, SandboxLimits, SlotGrant,
    init,
};

const MIB: u64 = 1 << 20;
/// Nobody's: slots begin at 50000.
const UID: u32 = 49_999;
/// Of the whole probe; it takes a fraction of a second, on a busy host some.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);
/// Before the name of the folder that stands for an image; a sweep knows it by this.
pub(super) const PROBE_FOLDER: &str = "probe-";
/// Without these no code that is not trusted is run.
const VITAL: [&str; 3] = ["memory", "time", "processes"];

/// What was found.
#[derive(Debug, Clone, Default)]
pub(super) struct Proof {
    /// Why there could be no sandbox at all.
    pub failure: Option<String>,
    /// By the name of the rule: what the test saw where the wall did not hold.
    pub open: BTreeMap<&'static str, String>,
}

impl Proof {
    /// Whether a run may be made.
    pub(super) fn allow(&self, id: SandboxId) -> Result<(), SandboxError> {
        if let Some(detail) = &self.failure {
            return Err(SandboxError::Engine { detail: detail.clone(), permission: false });
        }
        match VITAL.into_iter().find_map(|rule| Some((rule, self.open.get(rule)?))) {
            Some((rule, detail)) => Err(SandboxError::NotInForce { id, rule, detail: detail.clone() }),
            None => Ok(()),
        }
    }
}

/// Tries everything, the first time that it is called.
pub(super) async fn once(shared: &Arc<Shared>) -> &Proof {
    shared
        .proof
        .get_or_init(|| async {
            let proof = match &shared.groups {
                Err(reason) => Proof { failure: Some(reason.clone()), ..Proof::default() },
                Ok(_) => prove(shared).await,
            };
            match (&proof.failure, proof.open.is_empty()) {
                (Some(reason), _) => tracing::warn!(reason, "the native backend cannot be used here"),
                (None, true) => tracing::debug!("the native backend's walls hold on this host"),
                (None, false) => {
                    tracing::warn!(open = ?proof.open, "walls of the native backend do not hold")
                }
            }
            proof
        })
        .await
}

async fn prove(shared: &Arc<Shared>) -> Proof {
    let folder = match image(&shared.sandboxes_dir) {
        Ok(folder) => folder,
        Err(error) => {
            let failure = Some(format!("the self-test cannot write to its folder: {error}"));
            return Proof { failure, ..Proof::default() };
        }
    };
    let class = class();
    let recipe = make::Recipe { program: vec!["/probe".to_owned(), "probe".to_owned()], fault: 0 };
    match make::prepare(Arc::clone(shared), class, folder.path().to_owned(), recipe).await {
        Ok(sandbox) => {
            let tried = attempt(&sandbox).await;
            let removed = sandbox.remove().await;
            judge(tried, removed.err())
        }
        Err(error) => judge(Err(error), None),
    }
}

/// The test's program alone: everything else that a sandbox needs comes from outside its image.
fn image(sandboxes_dir: &Path) -> std::io::Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix(PROBE_FOLDER).tempdir_in(sandboxes_dir)?;
    let program = folder.path().join("probe");
    fs::write(&program, init::PROGRAM)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

fn class() -> SandboxClass {
    let limits = SandboxLimits {
        memory_bytes: 32 * MIB,
        cpu_millis: 1000,
        pids: 24,
        disk_bytes: 4 * MIB,
        shm_bytes: 4 * MIB,
        log_bytes: [64 << 10; 3],
    };
    let slot = SlotGrant { index: 0, uid: UID, cpuset: None, gpu_uuids: Vec::new() };
    SandboxClass { id: SandboxId::new(), image_id: String::new(), slot, limits, layers: Vec::new() }
}

/// What the program said, what the kernel said, and whether a kill leaves anything.
struct Tried {
    told: String,
    evidence: Evidence,
    killed: Result<(), SandboxError>,
}

async fn attempt(sandbox: &dyn Sandbox) -> Result<Tried, SandboxError> {
    let assignment =
        Assignment { run_json: b"{}".to_vec(), files: Vec::new(), time_limit: LIMIT, grace: Duration::ZERO };
    sandbox.assign(&assignment).await?;
    sandbox.verify().await?;
    sandbox.order(Order::Start).await?;
    let path = sandbox.streams().stdout;
    let read = || fs::read_to_string(&path).unwrap_or_default();
    let waiting = async {
        while !read().contains("done\t") && sandbox.reports().borrow().ended.is_none() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    // What it did not come to say counts as open.
    if tokio::time::timeout(LIMIT, waiting).await.is_err() {
        tracing::warn!("the self-test of the native backend is not done after {LIMIT:?}");
    }
    let killed = sandbox.order(Order::Kill).await;
    Ok(Tried { told: read(), evidence: sandbox.evidence().await, killed })
}

fn judge(tried: Result<Tried, SandboxError>, left: Option<SandboxError>) -> Proof {
    let mut proof = Proof::default();
    let Tried { told, evidence, killed } = match tried {
        Ok(tried) => tried,
        Err(error) => {
            if let SandboxError::NotInForce { rule, detail, .. } = &error {
                proof.open.insert(rule, detail.clone());
            }
            proof.failure = Some(format!("the self-test's sandbox could not be made: {error}"));
            return proof;
        }
    };
    for name in describe::PROBED {
        let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
        match line {
            Some("held") => {}
            Some(other) => {
                let detail = other.strip_prefix("open\t").unwrap_or(other);
                proof.open.insert(name, kit::text::one_line(detail, 200));
            }
            None => {
                proof.open.insert(name, "the self-test did not come to it".to_owned());
            }
        }
    }
    let mut unless = |holds: bool, rule: &'static str, what: &str| {
        if !holds {
            proof.open.entry(rule).or_insert_with(|| what.to_owned());
        }
    };
    unless(evidence.complete && evidence.oom_kills > 0, "memory", "the kernel counted no kill for memory");
    unless(evidence.pids_refused > 0, "processes", "the kernel counted no fork that was refused");
    unless(killed.is_ok() && left.is_none(), "time", "a sandbox that was killed is still there");
    proof
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &str) -> Tried {
        let evidence = Evidence { complete: true, oom_kills: 1, pids_refused: 1, ..Evidence::default() };
        Tried { told: lines.to_owned(), evidence, killed: Ok(()) }
    }

    fn all_held() -> String {
        describe::PROBED.map(|name| format!("{name}\theld\n")).concat() + "done\t\n"
    }

    #[test]
    fn what_does_not_hold_is_named_and_what_was_not_tried_counts_as_open() {
        let proof = judge(Ok(told(&all_held())), None);
        assert!(proof.failure.is_none() && proof.open.is_empty(), "{proof:?}");
        assert!(proof.allow(SandboxId::new()).is_ok());

        let open = all_held().replace("network\theld", "network\topen\tan address outside answers");
        let proof = judge(Ok(told(&open)), None);
        assert!(proof.open["network"].contains("answers"));
        assert!(proof.allow(SandboxId::new()).is_ok(), "said, and not refused");

        let cut = judge(Ok(told("identity\theld\n")), None);
        assert!(cut.open.contains_key("memory") && !cut.open.contains_key("identity"));
    }

    #[test]
    fn without_memory_time_or_processes_nothing_is_run() {
        let refused = |tried: Tried, left: Option<SandboxError>, rule: &str| {
            let error = judge(Ok(tried), left).allow(SandboxId::new()).unwrap_err().to_string();
            assert!(error.contains(rule), "{error}");
        };
        let mut uncounted = told(&all_held());
        uncounted.evidence.oom_kills = 0;
        refused(uncounted, None, "memory");
        let mut uncounted = told(&all_held());
        uncounted.evidence.pids_refused = 0;
        refused(uncounted, None, "processes");
        let left = SandboxError::Gone { id: SandboxId::new(), detail: String::new() };
        refused(told(&all_held()), Some(left), "time");
    }

    #[test]
    fn a_wall_that_is_not_read_back_is_open_and_nothing_runs() {
        let error =
            SandboxError::NotInForce { id: SandboxId::new(), rule: "swap", detail: "wanted 0".to_owned() };
        let proof = judge(Err(error), None);
        assert!(proof.failure.is_some() && proof.open.contains_key("swap"));
        assert!(proof.allow(SandboxId::new()).is_err());
    }
}
