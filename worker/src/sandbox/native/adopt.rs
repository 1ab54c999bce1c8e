//! A sandbox that an earlier process of this worker made, taken up as it is. Its launcher and its PID 1 are in their cgroups, the
//! reports in their file, and neither needs the worker that started them: the launcher is a session of its own, its pipes
//! are closed once it has answered, and nothing here or there asks the kernel to end one with the other.

use std::{os::fd::OwnedFd, sync::Arc};

use kit::task::CancellationToken;
use tokio::sync::watch;

use super::{Shared, follow, make, spec};
use crate::sandbox::{
    Reports, SandboxClass, SandboxError, blocking,
    cgroup::Cgroup,
    leftovers,
    live::{Live, Memory, Walls},
};

/// What is still there of PID 1.
type Found = (i32, OwnedFd, Option<Cgroup>);

/// `None` where there is no process, no cgroup and nothing of a volume.
pub(super) async fn adopt(
    shared: Arc<Shared>,
    class: SandboxClass,
    program: Vec<String>,
) -> Result<Option<Live>, SandboxError> {
    let id = class.id;
    let own = Arc::clone(&shared);
    let look = move || -> Result<Option<Option<Found>>, SandboxError> {
        let groups = own.groups(id)?;
        if !groups.list().contains(&id) && !leftovers::find(&own.sandboxes_dir).contains(&id) {
            return Ok(None);
        }
        // One that ends at this moment is gone, and its last report says how.
        let found = groups.init_of(id).and_then(|pid| {
            let process = make::open_process(groups, id, pid).ok()?;
            Some((pid, process, Cgroup::of_process(pid).ok()))
        });
        Ok(Some(found))
    };
    let Some(found) = blocking(id, look).await? else { return Ok(None) };

    let (reports, stop) = (watch::Sender::new(Reports::default()), CancellationToken::new());
    let file = spec::reports(&shared.folder(id));
    let followed = match &found {
        Some((_, process, _)) => Some(process.try_clone().map_err(|e| SandboxError::Call {
            verb: "follow",
            id,
            detail: e.to_string(),
        })?),
        None => None,
    };
    match followed {
        Some(process) => {
            follow::look(&file, &reports);
            let follower = follow::follow(file, process, reports.clone(), stop.clone());
            drop(kit::task::spawn("sandbox-reports", follower)); // it ends with its token
        }
        None => follow::end(&file, &reports).await,
    }
    let volume = Arc::new(shared.volume(id));
    volume.recall(class.limits.disk_bytes);
    let (pid, process, cgroup) = match found {
        Some((pid, process, cgroup)) => (pid, Some(process), cgroup),
        None => (0, None, None),
    };
    Ok(Some(Live {
        clock: Arc::clone(&shared.clock),
        program,
        walls: Arc::clone(&shared) as Arc<dyn Walls>,
        class,
        volume,
        pid,
        process,
        cgroup,
        reports,
        stop,
        memory: Memory::default(),
    }))
}
