//! Bytes to a worker, by digest: asked first, sent in chunks. What was sent once is kept at hand, within a limit, so that a
//! worker that comes later, or lost its disk, gets it when its first run asks for it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use kit::digest::Digest;
use proto::v1;
use tokio_stream::StreamExt as _;
use tonic_types::StatusExt as _;

use super::{
    FleetError,
    line::{Fault, Line},
};

/// A broken upload is begun again so often over one connection.
const ATTEMPTS: u32 = 3;
/// A second writer of the same bytes is done in a moment.
const BUSY: std::time::Duration = std::time::Duration::from_millis(200);
/// Programs are small; what is larger than this together are data sets, and the oldest of them is dropped first.
const PANTRY_BYTES: usize = 256 << 20;

/// Bytes that runs may ask for.
#[derive(Debug, Default)]
pub(super) struct Pantry {
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    blobs: BTreeMap<Digest, (u64, Bytes)>,
    bytes: usize,
    count: u64,
}

impl Pantry {
    pub(super) fn keep(&self, digest: Digest, bytes: Bytes) {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.count += 1;
        let (count, size) = (shelf.count, bytes.len());
        if let Some((_, before)) = shelf.blobs.insert(digest, (count, bytes)) {
            shelf.bytes -= before.len();
        }
        shelf.bytes += size;
        while shelf.bytes > PANTRY_BYTES && shelf.blobs.len() > 1 {
            let Some(oldest) = shelf.blobs.iter().min_by_key(|(_, (age, _))| *age).map(|(d, _)| *d) else {
                return;
            };
            if let Some((_, gone)) = shelf.blobs.remove(&oldest) {
                shelf.bytes -= gone.len();
            }
        }
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<Bytes> {
        let shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.blobs.get(digest).map(|(_, bytes)| bytes.clone())
    }
}

/// Puts it there, where it is not yet.
pub(super) async fn put(line: &Line, digest: &Digest, bytes: &Bytes) -> Result<(), FleetError> {
    let (mut attempt, mut offset) = (0, 0);
    loop {
        attempt += 1;
        let put = try_put(line, digest, bytes, offset).await;
        // An upload that broke off left its beginning there.
        if let Err(Fault::Refused { status, .. }) = &put
            && attempt < ATTEMPTS
            && let Some(received) = there(status, bytes)
        {
            offset = received;
            continue;
        }
        match put {
            Err(fault @ Fault::Refused { .. }) if fault.is_transient() && attempt < ATTEMPTS => {
                tokio::time::sleep(BUSY).await;
            }
            Err(fault) => return Err(fault.at(&line.name())),
            Ok(received) if received == bytes.len() as u64 => return Ok(()),
            Ok(received) => {
                return Err(FleetError::Damaged {
                    what: format!("blob {}", digest.short()),
                    wanted: format!("{} bytes", bytes.len()),
                    found: format!("{received} bytes"),
                });
            }
        }
    }
}

/// How much of it the worker says it has, where that is what it refuses an upload for.
fn there(status: &tonic::Status, bytes: &Bytes) -> Option<usize> {
    if status.code() != tonic::Code::OutOfRange {
        return None;
    }
    let received = status.get_details_error_info()?.metadata.get("received_bytes")?.parse().ok()?;
    (received <= bytes.len()).then_some(received)
}

async fn try_put(line: &Line, digest: &Digest, bytes: &Bytes, offset: usize) -> Result<u64, Fault> {
    let mut client = line.client.clone();
    let ask = v1::FindMissingBlobsRequest { digests: vec![digest.to_string()] };
    let missing = line.ask("FindMissingBlobs", client.find_missing_blobs(ask)).await?;
    if missing.missing.is_empty() {
        return Ok(bytes.len() as u64);
    }
    let header =
        v1::BlobHeader { digest: digest.to_string(), size_bytes: bytes.len() as u64, offset: offset as u64 };
    let head = v1::PutBlobRequest { header: Some(header), data: Bytes::new() };
    let whole = bytes.clone();
    let chunks = (offset..bytes.len()).step_by(proto::CHUNK_BYTES).map(move |from| {
        let to = (from + proto::CHUNK_BYTES).min(whole.len());
        v1::PutBlobRequest { header: None, data: whole.slice(from..to) }
    });
    // Asked for the next one only when the first chunk is on its way; at its end there is nothing to send.
    let after_the_first = tokio_stream::iter(std::iter::once(None)).filter_map(|nothing: Option<_>| {
        kit::halt::at("controller.upload");
        nothing
    });
    let mut chunks = chunks;
    let first = tokio_stream::iter([Some(head), chunks.next()].into_iter().flatten());
    let messages = first.chain(after_the_first).chain(tokio_stream::iter(chunks));
    Ok(line.call("PutBlob", client.put_blob(messages)).await?.received_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_goes_on_where_the_worker_says_it_stopped() {
        let bytes = Bytes::from_static(b"twelve bytes");
        let refused = |code, received: &str| {
            let mut details = tonic_types::ErrorDetails::new();
            let metadata =
                std::collections::HashMap::from([("received_bytes".to_owned(), received.to_owned())]);
            details.set_error_info("WRONG_OFFSET", "test", metadata);
            tonic::Status::with_error_details(code, "no", details)
        };
        let out = tonic::Code::OutOfRange;
        assert_eq!(there(&refused(out, "5"), &bytes), Some(5));
        assert_eq!(there(&refused(out, "13"), &bytes), None, "more than there is");
        assert_eq!(there(&refused(out, "-1"), &bytes), None);
        assert_eq!(there(&refused(tonic::Code::Internal, "5"), &bytes), None);
    }

    #[test]
    fn the_oldest_is_dropped_where_there_is_too_much() {
        let pantry = Pantry::default();
        let big = Bytes::from(vec![0; PANTRY_BYTES / 2]);
        let digests = [b"a", b"b", b"c"].map(|name| Digest::of(name));
        for digest in digests {
            pantry.keep(digest, big.clone());
        }
        assert_eq!(digests.map(|d| pantry.get(&d).is_some()), [false, true, true]);
        pantry.keep(digests[1], Bytes::new());
        pantry.keep(digests[0], big);
        assert_eq!(digests.map(|d| pantry.get(&d).is_some()), [true, true, true]);
    }
}
