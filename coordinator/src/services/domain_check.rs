//! A check of a domain: a worker compares every placement that the catalog has there with what lies on
//! the storage, and nothing is changed. Names that the catalog does not know are an audit's affair.

use crate::core::Core;
use crate::gateway::placed_chain;
use crate::services::call::Call;
use crate::services::resolve;
use crate::services::worker_call;
use crate::services::worker_call::WorkerAddress;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::PlacementId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::check_domain_response::Message;
use sdm_raft_store::StateView;
use sdm_state::State;
use sdm_state::attachments::Access;
use sdm_state::catalog::Disk;
use sdm_state::catalog::Domain;
use sdm_state::catalog::Volume;
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::Status;

/// Placements that a worker compares in one call.
const BATCH: usize = 64;

/// The same when it reads all bytes: one answer must come before its caller gives up.
const BATCH_HASHED: usize = 1;

/// Findings that are told one by one.
const FINDINGS_MAX: u64 = 10_000;

type Outgoing = mpsc::Sender<Result<v1::CheckDomainResponse, Status>>;

/// One check.
pub(super) struct DomainCheck {
    core: Core,
    view: Arc<StateView>,
    domain: Domain,
    hash: bool,
}

impl DomainCheck {
    /// After a linearizable read.
    ///
    /// # Errors
    /// There is no such domain.
    pub(super) async fn begin(core: Core, request: v1::CheckDomainRequest) -> Result<Self, Refusal> {
        let view = Call::begin(&core).read().await?;
        let domain = resolve::domain(&view.state, &request.domain)?.clone();
        view.state.refuse_suspended()?;
        Ok(Self { core, view, domain, hash: request.hash })
    }

    /// Does it all, telling what is found.
    pub(super) async fn run(self, to: Outgoing) {
        let last = match self.all(&to).await {
            Ok(summary) => Ok(v1::CheckDomainResponse { message: Some(Message::Summary(summary)) }),
            Err(refusal) => Err(to_status(&refusal)),
        };
        // Whoever asked may be gone: it begins again.
        let _ = to.send(last).await;
    }

    async fn all(&self, to: &Outgoing) -> Result<v1::DomainCheckSummary, Refusal> {
        let mut summary = v1::DomainCheckSummary {
            domain_id: self.domain.id.to_string(),
            domain: self.domain.name.to_string(),
            ..Default::default()
        };
        let disks: Vec<DiskId> =
            self.view.state.disks_in_from(self.domain.id, DiskId::default()).map(|disk| disk.id).collect();
        for batch in disks.chunks(if self.hash { BATCH_HASHED } else { BATCH }) {
            // Each batch as the catalog has it now: a long check must not hold old things against the storage.
            let before = self.core.view();
            let expected: Vec<wire::ExpectedPlacement> =
                batch.iter().filter_map(|id| expected(&before.state, &self.domain, *id)).collect();
            summary.placements += expected.len() as u64;
            let (findings, worker) = self.compare(&before.state, expected).await?;
            summary.worker = before.state.worker_word(worker);
            // What changed while a worker looked was looked at too early.
            let after = Call::begin(&self.core).read().await?;
            for finding in findings.into_iter().filter_map(|finding| judged(&before.state, &after.state, finding)) {
                summary.findings += 1;
                if summary.findings > FINDINGS_MAX {
                    summary.left_out += 1;
                    continue;
                }
                let message = v1::CheckDomainResponse { message: Some(Message::Finding(finding)) };
                if to.send(Ok(message)).await.is_err() {
                    return Err(Refusal::new(Class::Aborted, "NOBODY_LISTENS", "whoever asked is gone"));
                }
            }
            summary.revision = after.state.applied_index();
        }
        Ok(summary)
    }

    /// Has them compared by the first worker that can.
    async fn compare(
        &self,
        state: &State,
        expected: Vec<wire::ExpectedPlacement>,
    ) -> Result<(Vec<wire::PlacementFinding>, sdm_proto::ids::WorkerId), Refusal> {
        let request = wire::CheckPlacementsRequest {
            domain: Some(worker_call::target(&self.domain)),
            pool_id: state.meta.pool_id.to_string(),
            cluster_id: state.cluster_id().to_string(),
            epoch: self.domain.adopted_epoch.unwrap_or(state.meta.epoch),
            placements: expected,
            hashes: self.hash,
        };
        let mut last = None;
        for (worker, address) in worker_call::addresses(state.workers_reaching(self.domain.id)) {
            match self.ask(&(worker, address), request.clone()).await {
                Ok(answer) => return Ok((answer.findings, worker)),
                Err(refusal) => {
                    tracing::warn!(%worker, domain = %self.domain.name, %refusal, "a worker could not check it");
                    last = Some(refusal);
                }
            }
        }
        Err(last.unwrap_or_else(|| {
            Refusal::new(Class::Precondition, "DOMAIN_UNREACHABLE", "no live worker reaches the domain")
                .hint(format!("sdm domain show {}", self.domain.name))
        }))
    }

    async fn ask(
        &self,
        (worker, address): &WorkerAddress,
        request: wire::CheckPlacementsRequest,
    ) -> Result<wire::CheckPlacementsResponse, Refusal> {
        worker_call::ask(&self.core, *worker, address, async |mut client| client.check_placements(request).await).await
    }
}

/// A disk's placement as a worker is to find it.
pub(super) fn expected(state: &State, domain: &Domain, disk: DiskId) -> Option<wire::ExpectedPlacement> {
    let disk = state.disks.get(&disk)?;
    let placement = state.placements.get(&disk.placement).filter(|at| at.domain == domain.id)?;
    let volumes: Vec<Volume> = disk.volumes.iter().filter_map(|id| state.volumes.get(id)).cloned().collect();
    let shared = state.shared_in(domain.id, disk.id, disk.volumes.iter().copied());
    Some(wire::ExpectedPlacement {
        placement_id: placement.id.to_string(),
        made_by_token: placement.token.to_string(),
        layers: placed_chain(disk.template, &volumes, &shared),
        description: disk.name.to_string(),
    })
}

/// The finding with its disk in words; None where the catalog itself says why it is so, or has changed meanwhile.
pub(super) fn judged(before: &State, after: &State, finding: wire::PlacementFinding) -> Option<v1::DomainFinding> {
    let placement: PlacementId = finding.placement_id.parse().ok()?;
    let disk_at = |state: &State| -> Option<Disk> {
        let disk = state.disks.get(&state.placements.get(&placement)?.disk)?;
        (disk.placement == placement).then(|| disk.clone())
    };
    let disk = disk_at(after).filter(|disk| disk_at(before).as_ref() == Some(disk))?;
    // What only a late writer could still change is confirmed as far as anybody can tell.
    let follows = |state: &State| state.projections.get(&placement).is_some_and(|row| !state.rests(&row.work));
    if finding.projection_mends && (follows(before) || follows(after)) {
        return None;
    }
    let written = |state: &State| state.attachments_of(disk.id).any(|at| at.access == Access::Write);
    if matches!(finding.reason.as_str(), "HASH_WRONG" | "SIZE_WRONG") && (written(before) || written(after)) {
        return None;
    }
    let name = disk.name.as_str();
    let hint = match finding.reason.as_str() {
        _ if finding.projection_mends => format!("sdm volume repair {name}"),
        "PLACEMENT_MISSING" | "VOLUME_MISSING" => {
            format!("bring the files back from a backup of the storage, or give the disk up: sdm disk delete {name}")
        }
        "HASH_WRONG" | "FORMAT_WRONG" | "SIZE_WRONG" => {
            "its bytes are not what was written: look at the storage before anything is copied from it".to_owned()
        }
        "NOT_CLOSED" => {
            "whoever wrote it last was cut off: QEMU repairs it when a guest starts on it, else: qemu-img check -r leaks".to_owned()
        }
        _ => format!("sdm disk show {name}"),
    };
    Some(v1::DomainFinding {
        disk: disk.name.to_string(),
        placement_id: finding.placement_id,
        volume_id: finding.volume_id,
        message: finding.words,
        reason: finding.reason,
        hint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    fn finding(sample: &Sample, reason: &str) -> wire::PlacementFinding {
        wire::PlacementFinding {
            placement_id: sample.disk("web-01").placement.to_string(),
            reason: reason.to_owned(),
            words: "not there".to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn a_difference_is_told_with_its_disk_and_what_to_do() {
        let sample = Sample::with_disk();
        let told = judged(&sample.state, &sample.state, finding(&sample, "PLACEMENT_MISSING")).unwrap();
        assert_eq!((told.disk.as_str(), told.reason.as_str()), ("web-01", "PLACEMENT_MISSING"));
        assert!(told.hint.contains("sdm disk delete web-01"), "{}", told.hint);
    }

    #[test]
    fn what_changed_while_a_worker_looked_is_no_difference() {
        let mut sample = Sample::with_disk();
        let (before, finding) = (sample.state.clone(), finding(&sample, "PLACEMENT_MISSING"));
        sample.delete("web-01");
        assert_eq!(judged(&before, &sample.state, finding), None);
    }
}
