//! The backend of a host where no engine can be reached: it makes nothing, and says which socket was tried, what came
//! back and what to do. So a worker without an engine starts, and whoever asks it learns why it takes no runs.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;

use crate::sandbox::{Backend, BackendInfo, Sandbox, SandboxClass, SandboxError, SandboxId};

/// In the place of [`super::DockerBackend`] where that one could not connect.
#[derive(Debug)]
pub struct MissingDocker {
    detail: String,
    permission: bool,
}

impl MissingDocker {
    /// From what connecting ended with.
    #[must_use]
    pub fn new(error: SandboxError) -> Self {
        match error {
            SandboxError::Engine { detail, permission } => Self { detail, permission },
            other => Self { detail: other.to_string(), permission: false },
        }
    }

    fn error(&self) -> SandboxError {
        SandboxError::Engine { detail: self.detail.clone(), permission: self.permission }
    }
}

#[async_trait]
impl Backend for MissingDocker {
    fn name(&self) -> &'static str {
        "docker"
    }

    async fn describe(&self) -> BackendInfo {
        BackendInfo {
            name: "docker".to_owned(),
            unavailable: Some(self.detail.clone()),
            ..BackendInfo::default()
        }
    }

    async fn prepare(&self, _: SandboxClass) -> Result<Arc<dyn Sandbox>, SandboxError> {
        Err(self.error())
    }

    async fn adopt(&self, _: SandboxClass) -> Result<Option<Arc<dyn Sandbox>>, SandboxError> {
        Err(self.error())
    }

    async fn sweep(&self, _: &BTreeSet<SandboxId>) -> Result<Vec<String>, SandboxError> {
        Err(self.error())
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::net::UnixListener, time::Instant};

    use kit::clock::SystemClock;

    use super::*;
    use crate::sandbox::docker::{DockerBackend, DockerOptions};

    async fn reason(socket: &std::path::Path) -> String {
        let options = DockerOptions {
            worker_id: "scratch".into(),
            sandboxes_dir: socket.with_file_name("sandboxes"),
            docker_host: Some(format!("unix://{}", socket.display())),
            runtime: None,
            clock: SystemClock::shared(),
        };
        let error = DockerBackend::connect(options).await.unwrap_err();
        let backend = MissingDocker::new(error);
        let info = backend.describe().await;
        assert_eq!(info.name, "docker");
        assert!(backend.sweep(&BTreeSet::new()).await.is_err());
        info.unavailable.unwrap()
    }

    fn is_one_line_that_names(reason: &str, socket: &std::path::Path, remedy: &str) {
        assert!(!reason.contains('\n'), "{reason}");
        assert!(reason.contains(&socket.display().to_string()) && reason.contains(remedy), "{reason}");
    }

    #[tokio::test]
    async fn whatever_the_socket_does_the_reason_names_it_and_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("absent.sock");
        is_one_line_that_names(&reason(&absent).await, &absent, "install Docker");

        let abandoned = folder.path().join("abandoned.sock");
        drop(UnixListener::bind(&abandoned).unwrap());
        is_one_line_that_names(&reason(&abandoned).await, &abandoned, "start Docker");

        let plain = folder.path().join("plain.sock");
        std::fs::write(&plain, "no socket").unwrap();
        is_one_line_that_names(&reason(&plain).await, &plain, "Docker");
    }

    #[tokio::test]
    async fn an_engine_that_hangs_up_or_never_answers_is_told_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let (hangs_up, silent) = (folder.path().join("hangs-up.sock"), folder.path().join("silent.sock"));
        let listener = UnixListener::bind(&hangs_up).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut head = [0; 16];
                (&stream).read_exact(&mut head).ok();
            }
        });
        is_one_line_that_names(&reason(&hangs_up).await, &hangs_up, "restart Docker");

        // Its backlog takes the connection, and nobody reads from it.
        let _silent = UnixListener::bind(&silent).unwrap();
        let begun = Instant::now();
        is_one_line_that_names(&reason(&silent).await, &silent, "restart Docker");
        assert!(begun.elapsed() < super::super::ANSWER_LIMIT * 2);
    }
}
