//! Bytes to a worker, by digest: asked first, sent in chunks, taken up where the worker says it stopped.

use bytes::Bytes;
use kit::digest::Digest;
use proto::v1;

use super::{FleetError, Link, is_transient};

/// A broken upload is taken up so often.
const ATTEMPTS: u32 = 5;

pub(super) async fn put(link: &Link, digest: &Digest, bytes: &Bytes) -> Result<(), FleetError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match try_put(link, digest, bytes).await {
            Err(FleetError::Call { code, .. }) if is_transient(code) && attempt < ATTEMPTS => {
                link.broken().await
            }
            other => return other,
        }
    }
}

async fn try_put(link: &Link, digest: &Digest, bytes: &Bytes) -> Result<(), FleetError> {
    let mut client = link.client().await?;
    let ask = v1::FindMissingBlobsRequest { digests: vec![digest.to_string()] };
    let missing =
        client.find_missing_blobs(ask).await.map_err(|s| FleetError::call("FindMissingBlobs", &s))?;
    if missing.into_inner().missing.is_empty() {
        return Ok(());
    }
    // From the beginning: a blob of ours is small, and the worker refuses an offset that it does not have.
    let header = v1::BlobHeader { digest: digest.to_string(), size_bytes: bytes.len() as u64, offset: 0 };
    let mut messages = vec![v1::PutBlobRequest { header: Some(header), data: Bytes::new() }];
    messages.extend((0..bytes.len()).step_by(proto::CHUNK_BYTES).map(|from| {
        let to = (from + proto::CHUNK_BYTES).min(bytes.len());
        v1::PutBlobRequest { header: None, data: bytes.slice(from..to) }
    }));
    let reply = client.put_blob(tokio_stream::iter(messages)).await;
    let reply = reply.map_err(|s| FleetError::call("PutBlob", &s))?.into_inner();
    if reply.received_bytes == bytes.len() as u64 {
        Ok(())
    } else {
        Err(FleetError::Damaged {
            what: format!("blob {}", digest.short()),
            wanted: format!("{} bytes", bytes.len()),
            found: format!("{} bytes", reply.received_bytes),
        })
    }
}
