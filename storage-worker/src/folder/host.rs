//! What the host says of itself: machine id and boot id, and random ids where it says nothing.

use std::path::Path;
use uuid::Uuid;

const MACHINE_ID: &str = "/etc/machine-id";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A random UUID.
pub(super) fn random_uuid() -> Uuid {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid()
}

fn line(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new(path)).ok()?;
    let text = text.trim();
    (!text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
        .then(|| text.to_owned())
}

/// The machine's id, if it has one. An image that was never booted says "uninitialized".
pub(super) fn machine_id() -> Option<String> {
    line(MACHINE_ID).filter(|id| id != "uninitialized")
}

/// The id of this boot; a random one where the kernel gives none, so that no two boots are ever
/// taken for one.
pub(super) fn boot_id() -> String {
    line(BOOT_ID).unwrap_or_else(|| random_uuid().to_string())
}
