//! The protocol between controller and worker: generated types, and nothing else. What the calls owe is said
//! in `proto/autoresearch/worker/v1/worker.proto`.

/// `autoresearch.worker.v1`, as generated.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("autoresearch.worker.v1");
}

/// The encoded `FileDescriptorSet`, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The version of the protocol that this code speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// The largest message either side accepts, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// The largest piece of bytes in one message of a stream.
pub const CHUNK_BYTES: usize = 64 << 10;
