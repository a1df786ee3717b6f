//! Looks at a disk's files before a host is given it: what the catalog has and the storage has lost must be
//! known before a guest is started on it.

use super::domain_check::expected;
use super::domain_check::judged;
use crate::core::Core;
use crate::services::call::Call;
use crate::services::worker_call;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::WorkerId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::internal::v1 as wire;
use sdm_state::State;

/// Findings about a disk's words, which no guest reads; and an image that was not closed, which QEMU repairs.
const HARMLESS: [&str; 3] = ["METADATA_WRONG", "UNKNOWN_NAME", "NOT_CLOSED"];

/// Findings that are named.
const NAMED_MAX: usize = 8;

/// Has the host itself look whether every file of the disk is there, is ours, and is as large as the catalog says.
///
/// # Errors
/// One is not (VOLUME_MISSING), or the host's worker cannot tell.
pub(super) async fn require_volumes(core: &Core, before: &State, disk: DiskId, host: WorkerId) -> Result<(), Refusal> {
    let Some(domain) = before.disks.get(&disk).and_then(|row| before.domain_of(row)) else { return Ok(()) };
    let Some(worker) = before.workers.get(&host) else { return Ok(()) };
    let request = wire::CheckPlacementsRequest {
        domain: Some(worker_call::target(domain)),
        pool_id: before.meta.pool_id.to_string(),
        cluster_id: before.cluster_id().to_string(),
        epoch: domain.adopted_epoch.unwrap_or(before.meta.epoch),
        placements: expected(before, domain, disk).into_iter().collect(),
        hashes: false,
    };
    let check = async |mut client: worker_call::WorkerClient| client.check_placements(request).await;
    let answer = worker_call::ask(core, host, &worker.identity.address, check).await?;
    if answer.findings.is_empty() {
        return Ok(());
    }
    // What changed while the host looked was looked at too early.
    let after = Call::begin(core).read().await?;
    let told = answer.findings.into_iter().filter_map(|finding| judged(before, &after.state, finding));
    let grave: Vec<_> = told.filter(|finding| !HARMLESS.contains(&finding.reason.as_str())).collect();
    let Some(first) = grave.first() else { return Ok(()) };
    let name = &first.disk;
    let message =
        format!("disk {name} is not whole on the storage: {} [{}]; it was not attached", first.message, first.reason);
    let hint = format!(
        "bring the files back from a backup of the storage, then repeat; what else is amiss there: sdm domain check {}; or \
         give the disk up: sdm disk delete {name}",
        domain.name
    );
    let refusal = Refusal::new(Class::Precondition, "VOLUME_MISSING", message).hint(hint);
    Err(grave.iter().take(NAMED_MAX).fold(refusal, |refusal, finding| {
        let which = if finding.volume_id.is_empty() { &finding.placement_id } else { &finding.volume_id };
        refusal.blocker("volume", which.as_str(), format!("{} [{}]", finding.message, finding.reason))
    }))
}
