//! The docker backend of a worker that found no engine at its start. It is looked for again whenever somebody asks for what only an
//! engine has (who the worker is, an image, a sandbox), at most every ten seconds; from the first answer on this is the real
//! backend. What an earlier process left with that engine is swept then, before anything is made.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use kit::{clock::Clock, task::CancellationToken};
use proto::v1::{Image, ImageStep};
use tokio::sync::mpsc;

use super::images::NoImages;
use crate::{
    packages::{PackageTool, ToolEnd, ToolError, ToolJob},
    run::seams::{BackendParts, ImageError, ImageSource},
    sandbox::{
        Backend, BackendInfo, Sandbox, SandboxClass, SandboxError, SandboxId,
        docker::{DockerBackend, DockerOptions, MissingDocker},
    },
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Makes the rest of the backend over an engine that answers.
type Build = Box<dyn Fn(DockerBackend) -> BackendParts + Send + Sync>;

/// Stands in for backend, images and package tool alike.
pub(super) struct LateDocker {
    options: DockerOptions,
    clock: Arc<dyn Clock>,
    build: Build,
    state: tokio::sync::Mutex<State>,
    /// The sandboxes that the start wanted to keep: not this one's to sweep when the engine comes.
    keep: Mutex<Option<BTreeSet<SandboxId>>>,
}

struct State {
    found: Option<BackendParts>,
    looked: Duration,
    missing: Arc<MissingDocker>,
    words: String,
}

impl std::fmt::Debug for LateDocker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LateDocker").field("options", &self.options).finish_non_exhaustive()
    }
}

impl LateDocker {
    /// After the first look ended with `error`.
    pub(super) fn new(options: DockerOptions, error: SandboxError, build: Build) -> Self {
        let clock = Arc::clone(&options.clock);
        let words = error.to_string();
        let state = State {
            found: None,
            looked: clock.monotonic(),
            missing: Arc::new(MissingDocker::new(error)),
            words,
        };
        Self { options, clock, build, state: tokio::sync::Mutex::new(state), keep: Mutex::default() }
    }

    /// The real one, or what is missing and in which words.
    async fn parts(&self) -> Result<BackendParts, (Arc<MissingDocker>, String)> {
        // One at a time: whoever waits finds what the first one found.
        let mut state = self.state.lock().await;
        if let Some(found) = &state.found {
            return Ok(found.clone());
        }
        let now = self.clock.monotonic();
        if now.saturating_sub(state.looked) >= LOOK_EVERY {
            match DockerBackend::connect(self.options.clone()).await {
                Ok(backend) => {
                    let found = (self.build)(backend);
                    self.sweep_late(&*found.backend).await;
                    tracing::info!("an engine answers now");
                    state.found = Some(found.clone());
                    return Ok(found);
                }
                Err(error) => {
                    state.words = error.to_string();
                    state.missing = Arc::new(MissingDocker::new(error));
                }
            }
            state.looked = self.clock.monotonic();
        }
        Err((Arc::clone(&state.missing), state.words.clone()))
    }

    async fn backend(&self) -> Result<Arc<dyn Backend>, Arc<MissingDocker>> {
        self.parts().await.map(|parts| parts.backend).map_err(|(missing, _)| missing)
    }

    /// The sweep that the start asked for in vain.
    async fn sweep_late(&self, backend: &dyn Backend) {
        let keep = self.keep.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(keep) = keep else { return };
        match backend.sweep(&keep).await {
            Ok(removed) => {
                for what in removed {
                    tracing::info!(what, "removed what an earlier process left");
                }
            }
            Err(error) => tracing::error!(%error, "what an earlier process left could not be removed"),
        }
    }
}

#[async_trait]
impl Backend for LateDocker {
    fn name(&self) -> &'static str {
        "docker"
    }

    async fn describe(&self) -> BackendInfo {
        match self.backend().await {
            Ok(found) => found.describe().await,
            Err(missing) => missing.describe().await,
        }
    }

    async fn prepare(&self, class: SandboxClass) -> Result<Arc<dyn Sandbox>, SandboxError> {
        match self.backend().await {
            Ok(found) => found.prepare(class).await,
            Err(missing) => missing.prepare(class).await,
        }
    }

    async fn adopt(&self, class: SandboxClass) -> Result<Option<Arc<dyn Sandbox>>, SandboxError> {
        match self.backend().await {
            Ok(found) => found.adopt(class).await,
            Err(missing) => missing.adopt(class).await,
        }
    }

    async fn sweep(&self, keep: &BTreeSet<SandboxId>) -> Result<Vec<String>, SandboxError> {
        match self.backend().await {
            Ok(found) => found.sweep(keep).await,
            Err(missing) => {
                *self.keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(keep.clone());
                missing.sweep(keep).await
            }
        }
    }

    async fn left(&self) -> BTreeSet<SandboxId> {
        match self.backend().await {
            Ok(found) => found.left().await,
            Err(missing) => missing.left().await,
        }
    }
}

#[async_trait]
impl ImageSource for LateDocker {
    async fn list(&self) -> Vec<Image> {
        match self.parts().await {
            Ok(parts) => parts.images.list().await,
            Err((_, words)) => NoImages(words).list().await,
        }
    }

    async fn find(&self, name: &str) -> Result<Image, ImageError> {
        match self.parts().await {
            Ok(parts) => parts.images.find(name).await,
            Err((_, words)) => NoImages(words).find(name).await,
        }
    }

    async fn prepare(&self, name: &str, steps: mpsc::Sender<ImageStep>) -> Result<Image, ImageError> {
        match self.parts().await {
            Ok(parts) => parts.images.prepare(name, steps).await,
            Err((_, words)) => NoImages(words).prepare(name, steps).await,
        }
    }
}

#[async_trait]
impl PackageTool for LateDocker {
    async fn run(&self, job: &ToolJob, stop: &CancellationToken) -> Result<ToolEnd, ToolError> {
        match self.parts().await {
            Ok(parts) => parts.packages.run(job, stop).await,
            Err((_, words)) => Err(ToolError::Engine(words)),
        }
    }
}

#[cfg(test)]
mod tests {
    use kit::clock::{ManualClock, SystemClock};

    use super::*;

    #[tokio::test]
    async fn it_is_looked_for_again_and_not_more_often_than_it_may() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(SystemClock.wall());
        let options = DockerOptions {
            worker_id: "scratch".into(),
            sandboxes_dir: folder.path().join("sandboxes"),
            docker_host: Some(format!("unix://{}", folder.path().join("docker.sock").display())),
            runtime: None,
            clock: clock.clone(),
        };
        let error = DockerBackend::connect(options.clone()).await.unwrap_err();
        let late = LateDocker::new(options, error, Box::new(|_| panic!("no engine answers here")));
        let words = |info: BackendInfo| info.unavailable.unwrap();
        assert!(words(late.describe().await).contains("install Docker"));
        // Somebody has put a socket there, and nobody listens: told only when it may be looked at again.
        drop(std::os::unix::net::UnixListener::bind(folder.path().join("docker.sock")).unwrap());
        assert!(words(late.describe().await).contains("install Docker"));
        clock.advance(LOOK_EVERY);
        assert!(words(late.describe().await).contains("start Docker"));
        let refused = late.find("lite").await.unwrap_err();
        assert!(refused.to_string().contains("start Docker"), "{refused}");
        assert!(late.sweep(&BTreeSet::new()).await.is_err());
        assert_eq!(*late.keep.lock().unwrap(), Some(BTreeSet::new()), "it is made up for later");
    }
}
