//! Compiles the protobuf packages in pure Rust (no protoc to install) and keeps the descriptor set
//! for gRPC reflection.

use prost::Message;
use std::error::Error;
use std::path::PathBuf;

const FILES: &[&str] = &[
    "sdm/v1/common.proto",
    "sdm/v1/cluster.proto",
    "sdm/v1/domain.proto",
    "sdm/v1/disk.proto",
    "sdm/v1/snapshot.proto",
    "sdm/v1/template.proto",
    "sdm/v1/volume.proto",
    "sdm/v1/lock.proto",
    "sdm/v1/transaction.proto",
    "sdm/v1/job.proto",
    "sdm/v1/attachment.proto",
    "sdm/v1/worker.proto",
    "sdm/v1/gc.proto",
    "sdm/v1/backup.proto",
    "sdm/v1/transfer.proto",
    "sdm/v1/event.proto",
    "sdm/v1/explain.proto",
    "sdm/internal/v1/raft.proto",
    "sdm/internal/v1/member.proto",
    "sdm/internal/v1/worker.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=sdm");
    if std::env::var_os("CARGO_FEATURE_GRPC").is_none() {
        return Ok(());
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("sdm_descriptor.bin");
    std::fs::write(&out, descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
