//! Generates the types and stubs, and the descriptor set that reflection serves. protox parses, so that no
//! protoc is needed.
use std::{env, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = protox::compile(["autoresearch/worker/v1/worker.proto"], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes("autoresearch.worker.v1.Frame.data")
        .bytes("autoresearch.worker.v1.PutBlobRequest.data")
        .bytes("autoresearch.worker.v1.ReadArtifactResponse.data")
        .bytes("autoresearch.worker.v1.StartRunRequest.spec")
        .compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
