//! Bytes in and out: blobs and artifacts, in chunks, checked against their digests.

use std::{fs::File, io::Read as _, os::unix::fs::FileExt as _, path::PathBuf, sync::Arc};

use kit::digest::{Digest, Hasher};
use proto::{
    CHUNK_BYTES,
    v1::{Artifact, PutBlobRequest, PutBlobResponse, ReadArtifactResponse},
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::status::CallError;
use crate::{
    blobs::{Blobs, Upload},
    run::{artifacts::copy_path, handle::RunHandle},
};

/// A blob at most.
const BLOB_BYTES_MAX: u64 = 64 << 30;

/// Takes one blob in.
///
/// # Errors
/// As `PutBlob` says.
pub async fn put_blob(
    blobs: &Arc<Blobs>,
    mut stream: Streaming<PutBlobRequest>,
) -> Result<PutBlobResponse, Status> {
    let first = stream.message().await?.unwrap_or_default();
    let header = first.header.ok_or_else(|| CallError::field("header", "the first message must carry it"))?;
    let digest: Digest = header.digest.parse().map_err(|e| CallError::field("header.digest", e))?;
    let size = header.size_bytes;
    if size > BLOB_BYTES_MAX {
        let problem = format!("is {size}; at most {BLOB_BYTES_MAX}");
        return Err(CallError::field("header.size_bytes", problem).into());
    }
    let store = Arc::clone(blobs);
    let begun = kit::task::blocking("begin blob", move || store.begin(digest, size, header.offset)).await;
    let begun = begun.ok_or(CallError::Stopping)?.map_err(CallError::from)?;
    let answer = |received_bytes| PutBlobResponse { digest: digest.to_string(), received_bytes };
    let Some(mut upload) = begun else { return Ok(answer(size)) };
    let mut data = first.data;
    loop {
        if data.len() > CHUNK_BYTES {
            let problem = format!("is {} bytes; a chunk is at most {CHUNK_BYTES}", data.len());
            return Err(CallError::field("data", problem).into());
        }
        if !data.is_empty() {
            let write = move |mut upload: Upload| {
                let result = upload.write(&data);
                (upload, result)
            };
            let written = kit::task::blocking("write blob", move || write(upload)).await;
            let (back, result) = written.ok_or(CallError::Stopping)?;
            result.map_err(CallError::from)?;
            upload = back;
        }
        match stream.message().await? {
            Some(next) if next.header.is_some() => {
                return Err(CallError::field("header", "comes in the first message only").into());
            }
            Some(next) => data = next.data,
            None => break,
        }
    }
    let finished = kit::task::blocking("verify blob", move || upload.finish()).await;
    let received = finished.ok_or(CallError::Stopping)?.map_err(CallError::from)?;
    Ok(answer(received))
}

/// Finds an artifact of a finished run.
///
/// # Errors
/// Not finished, no such artifact, or an offset past its end.
pub fn find_artifact(run: &RunHandle, name: &str, offset: u64) -> Result<(Artifact, PathBuf), CallError> {
    let published = run.published.borrow();
    let finished = published.finished.as_ref().ok_or(CallError::Unfinished)?;
    let artifact = finished
        .artifacts
        .iter()
        .find(|artifact| artifact.name == name)
        .ok_or_else(|| CallError::NoArtifact(kit::text::one_line(name, 100)))?;
    if offset > artifact.size_bytes {
        let problem = format!("is {offset}; the artifact has {} bytes", artifact.size_bytes);
        return Err(CallError::field("offset", problem));
    }
    let digest: Digest =
        artifact.digest.parse().map_err(|error| CallError::Internal(format!("a stored digest: {error}")))?;
    Ok((artifact.clone(), copy_path(&run.folder.join("artifacts"), &digest)))
}

/// Sends an artifact's bytes from an offset; off the event loop. The whole file is hashed on the way, also what lies
/// before the offset, so that damage is told at the end and never passed on as good.
pub fn send_artifact(
    artifact: &Artifact,
    path: &std::path::Path,
    offset: u64,
    out: &mpsc::Sender<Result<ReadArtifactResponse, Status>>,
) {
    let fail = |error: CallError| {
        out.blocking_send(Err(error.into())).ok();
    };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return fail(CallError::Internal(format!("cannot open {}: {error}", path.display()))),
    };
    let mut hasher = Hasher::new();
    let mut head = (&mut file).take(offset);
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match head.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) => {
                return fail(CallError::Internal(format!("cannot read {}: {error}", path.display())));
            }
        }
    }
    let (mut at, mut first) = (offset, Some(artifact.clone()));
    loop {
        match file.read_at(&mut buffer, at) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                at += count as u64;
                let data = buffer[..count].to_vec().into();
                if out.blocking_send(Ok(ReadArtifactResponse { artifact: first.take(), data })).is_err() {
                    return;
                }
            }
            Err(error) => {
                return fail(CallError::Internal(format!("cannot read {}: {error}", path.display())));
            }
        }
    }
    if hasher.finish().to_string() != artifact.digest {
        return fail(CallError::Damaged("the artifact"));
    }
    if first.is_some() {
        let empty = ReadArtifactResponse { artifact: first, data: Vec::new().into() };
        out.blocking_send(Ok(empty)).ok();
    }
}
