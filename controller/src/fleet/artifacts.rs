//! A finished run's artifacts, onto this machine's disk: beside their place first, to the size that was announced and no
//! further, then checked by digest, then renamed into place. What a break leaves is gone on with at its offset; the digest
//! decides.

use std::path::{Path, PathBuf};

use kit::digest::Hasher;
use proto::v1;
use tokio::{fs::File, io::AsyncWriteExt as _};

use super::{
    FleetError,
    line::{Fault, Line},
};

/// One artifact on its way.
pub(super) struct Download<'a> {
    artifact: &'a v1::Artifact,
    path: &'a Path,
    beside: PathBuf,
    file: File,
    hasher: Hasher,
    received: u64,
    /// Of it when it was last asked.
    told: u64,
}

/// Why it is not there yet.
#[derive(Debug)]
pub(super) enum Failed {
    /// The connection or the worker.
    Fault(Fault),
    /// The bytes are not what was promised.
    Damaged(String),
    /// Ours.
    Own(FleetError),
}

fn file_error(path: &Path) -> impl Fn(std::io::Error) -> FleetError + '_ {
    |source| FleetError::File { path: path.display().to_string(), source }
}

impl<'a> Download<'a> {
    pub(super) async fn begin(artifact: &'a v1::Artifact, path: &'a Path) -> Result<Self, FleetError> {
        if let Some(parent) = path.parent() {
            tokio::fs::create_dir_all(parent).await.map_err(file_error(path))?;
        }
        let beside = beside(path, &artifact.name);
        let file = File::create(&beside).await.map_err(file_error(&beside))?;
        Ok(Self { artifact, path, beside, file, hasher: Hasher::new(), received: 0, told: 0 })
    }

    /// Goes on with it over this connection, to its end.
    pub(super) async fn go_on(&mut self, line: &Line, start: &v1::StartRunRequest) -> Result<(), Failed> {
        const CALL: &str = "ReadArtifact";
        if self.received < self.artifact.size_bytes || self.artifact.size_bytes == 0 {
            let request = v1::ReadArtifactRequest {
                run_id: start.run_id.clone(),
                controller_id: start.controller_id.clone(),
                name: self.artifact.name.clone(),
                offset: self.received,
            };
            let mut client = line.client.clone();
            let answer = line.ask(CALL, client.read_artifact(request)).await;
            let mut stream = answer.map_err(Failed::Fault)?;
            while let Some(chunk) = line.next(CALL, &mut stream).await.map_err(Failed::Fault)? {
                self.take(&chunk.data).await?;
            }
        }
        self.put_in_place().await
    }

    async fn take(&mut self, data: &[u8]) -> Result<(), Failed> {
        if data.is_empty() {
            return Ok(());
        }
        let after = self.received + data.len() as u64;
        if after > self.artifact.size_bytes {
            return Err(Failed::Damaged(format!("more than {} bytes", self.artifact.size_bytes)));
        }
        self.file.write_all(data).await.map_err(file_error(&self.beside)).map_err(Failed::Own)?;
        self.hasher.update(data);
        let first = self.received == 0;
        self.received = after;
        if first {
            kit::halt::at("controller.artifact");
        }
        Ok(())
    }

    async fn put_in_place(&mut self) -> Result<(), Failed> {
        if self.received < self.artifact.size_bytes {
            let wanted = self.artifact.size_bytes;
            return Err(Failed::Fault(Fault::Broken {
                call: "ReadArtifact",
                detail: format!("it ended after {} of {wanted} bytes", self.received),
            }));
        }
        let found = std::mem::take(&mut self.hasher).finish().to_string();
        if found != self.artifact.digest {
            return Err(Failed::Damaged(found));
        }
        let placed = async {
            self.file.sync_all().await?;
            tokio::fs::rename(&self.beside, self.path).await
        };
        placed.await.map_err(file_error(self.path)).map_err(Failed::Own)
    }

    /// Whether more of it came since this was last asked.
    pub(super) fn got_more(&mut self) -> bool {
        std::mem::replace(&mut self.told, self.received) < self.received
    }

    /// Takes away what is there of it.
    pub(super) async fn give_up(self) -> Result<(), FleetError> {
        tokio::fs::remove_file(&self.beside).await.map_err(file_error(&self.beside))
    }
}

/// Where an artifact is written until it is whole: above the folder of the artifacts, whose every name is the program's to
/// choose, also one of 255 bytes to which nothing can be added. Artifacts of a run are fetched one after another.
fn beside(path: &Path, name: &str) -> PathBuf {
    let artifacts = path.ancestors().nth(name.split('/').count()).unwrap_or(path);
    artifacts.with_extension("part")
}
