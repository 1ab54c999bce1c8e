//! What works on this host, and what to do about the rest. It looks and changes nothing.

use std::{fmt::Write as _, path::Path};

use kit::task::CancellationToken;
use serde::Serialize;

use crate::{
    config::WorkerConfig,
    run::ledger::{HEADROOM_BYTES, disk_free},
    sandbox::{BackendInfo, Enforcement},
    serve::rooms,
};

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Examination {
    /// Whether runs can be made here.
    pub ok: bool,
    /// In the order of importance.
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Like "engine" or "rule memory".
    pub name: String,
    /// How it stands.
    pub state: CheckState,
    /// What was found.
    pub detail: String,
    /// The one command that would mend it; empty where nothing is to be mended.
    pub remedy: String,
}

/// How a thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// As it should be.
    Ok,
    /// Works, but weaker or slower than it could.
    Warning,
    /// No run can be made.
    Failed,
}

fn check(name: impl Into<String>, state: CheckState, detail: impl Into<String>) -> Check {
    Check { name: name.into(), state, detail: detail.into(), remedy: String::new() }
}

/// Looks at everything that a run needs.
pub async fn examine(config: &WorkerConfig, data_dir: &Path, worker_id: &str) -> Examination {
    let mut checks = Vec::new();
    let root = rustix::process::geteuid().is_root();
    let how = match root {
        true => "root: volumes can be made",
        false => "plain user: volumes are made by a helper container, or held in a user namespace",
    };
    checks.push(check("user", CheckState::Ok, how));
    let rooms = rooms::connect(config, data_dir, worker_id, CancellationToken::new()).await;
    let mut backends = Vec::new();
    for each in &rooms.backends {
        each.backend.prove().await;
        backends.push(each.backend.describe().await);
    }
    // One is enough.
    let works = backends.iter().any(|info| info.unavailable.is_none());
    let without = if works { CheckState::Warning } else { CheckState::Failed };
    checks.extend(backends.iter().flat_map(|info| backend_checks(info, without)));
    for image in rooms.default_images().list().await {
        let name = format!("image {}", image.name);
        checks.push(if image.prepared {
            let size = kit::size::Bytes(image.size_bytes.max(1));
            check(name, CheckState::Ok, format!("prepared, {size}"))
        } else {
            Check {
                remedy: format!("autoresearch-worker image build {}", image.name),
                ..check(name, CheckState::Warning, "not built yet: the first run that names it builds it")
            }
        });
    }
    let slots = rooms.slots.view();
    for slot in &slots {
        let gpus = if slot.gpu_uuids.is_empty() { "no GPU".to_owned() } else { slot.gpu_uuids.join(", ") };
        let memory = kit::size::Bytes(slot.memory_bytes.max(1));
        let detail = format!("{} mCPU, {memory}, {gpus}", slot.cpu_millis);
        checks.push(check(format!("slot {}", slot.index), CheckState::Ok, detail));
    }
    if slots.is_empty() {
        checks.push(check("slots", CheckState::Failed, rooms.no_slots.clone().unwrap_or_default()));
    }
    checks.push(disk(config, data_dir));
    let ok = checks.iter().all(|check| check.state != CheckState::Failed);
    Examination { ok, checks }
}

fn backend_checks(info: &BackendInfo, without: CheckState) -> Vec<Check> {
    let mut checks = Vec::new();
    let name = format!("engine {}", info.name);
    checks.push(match &info.unavailable {
        Some(reason) => check(name, without, reason.clone()),
        None => check(name, CheckState::Ok, info.version.clone()),
    });
    for warning in &info.warnings {
        checks.push(check(format!("engine {}", info.name), CheckState::Warning, warning.clone()));
    }
    for rule in &info.rules {
        let state = match rule.enforcement {
            Enforcement::Enforced => CheckState::Ok,
            Enforcement::Weaker | Enforcement::NotEnforced => CheckState::Warning,
        };
        let how = match rule.enforcement {
            Enforcement::Enforced => "enforced",
            Enforcement::Weaker => "weaker",
            Enforcement::NotEnforced => "NOT enforced",
        };
        let detail = if rule.detail.is_empty() { how.to_owned() } else { format!("{how}: {}", rule.detail) };
        checks.push(Check {
            remedy: rule.remedy.clone(),
            ..check(format!("rule {}", rule.name), state, detail)
        });
    }
    checks
}

/// Whether the disk takes one run of the default size.
fn disk(config: &WorkerConfig, data_dir: &Path) -> Check {
    // The folder may not be there yet: the disk is that of the nearest one above.
    let there = data_dir.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    let wanted = config.limit_rules(1 << 30, 1000).default.disk_reservation() + HEADROOM_BYTES;
    match disk_free(there) {
        Ok(free) => {
            let (shown, need) = (kit::size::Bytes(free.max(1)), kit::size::Bytes(wanted));
            let detail =
                format!("{shown} free at {}; one run of the default size reserves {need}", there.display());
            if free >= wanted {
                check("disk", CheckState::Ok, detail)
            } else {
                Check {
                    remedy: "make room, or lower limits.default.disk in autoresearch-worker.toml".to_owned(),
                    ..check("disk", CheckState::Failed, detail)
                }
            }
        }
        Err(error) => check("disk", CheckState::Failed, error.to_string()),
    }
}

impl Examination {
    /// For people: one line each, and what to do below it.
    #[must_use]
    pub fn text(&self) -> String {
        let width = self.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for each in &self.checks {
            let mark = match each.state {
                CheckState::Ok => "ok",
                CheckState::Warning => "warning",
                CheckState::Failed => "FAILED",
            };
            writeln!(text, "{mark:<8} {:<width$}  {}", each.name, each.detail).unwrap_or_default();
            if !each.remedy.is_empty() {
                writeln!(text, "{:<8} {:<width$}  → {}", "", "", each.remedy).unwrap_or_default();
            }
        }
        let verdict = if self.ok { "runs can be made here" } else { "no run can be made here" };
        writeln!(text, "{verdict}").unwrap_or_default();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_the_remedy_below_its_check() {
        let examination = Examination {
            ok: false,
            checks: vec![
                check("user", CheckState::Ok, "root"),
                Check { remedy: "do this".into(), ..check("disk", CheckState::Failed, "full") },
            ],
        };
        let text = examination.text();
        assert_eq!(
            text,
            "ok       user  root\nFAILED   disk  full\n               → do this\nno run can be made here\n"
        );
    }
}
