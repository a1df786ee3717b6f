//! What a worker refuses, it refuses without the catalog's names. Here a refusal gets the next command that leads on.

use crate::domain_change::DomainChange;
use crate::state::State;
use crate::txns::Spec;
use crate::txns::Txn;
use crate::work::Owner;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::WorkerId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

/// What a worker says when a volume's file is not where the catalog has it.
const VOLUME_MISSING: &str = "VOLUME_MISSING";

/// What a worker says of a path at which a domain of this pool lies.
const PATH_IN_USE: &str = "DOMAIN_PATH_IN_USE";

/// What a worker says of a domain that is not at its path.
const DOMAIN_MISSING: &str = "DOMAIN_MISSING";

/// The disk whose files it reads or changes.
fn disk_of(txn: &Txn) -> Option<DiskId> {
    match &txn.spec {
        Spec::MoveDisk { disk, .. }
        | Spec::ResizeDisk { disk, .. }
        | Spec::ExportDisk { disk }
        | Spec::ExportChain { disk, .. }
        | Spec::ConvertDisk { disk, .. }
        | Spec::FlattenDisk { disk }
        | Spec::CopyDisk { disk, .. }
        | Spec::CloneLinked { disk, .. }
        | Spec::CreateSnapshot { disk, .. }
        | Spec::DeleteSnapshot { disk, .. }
        | Spec::RevertSnapshot { disk, .. } => Some(*disk),
        _ => None,
    }
}

impl State {
    /// A worker's refusal with the way out that only the catalog knows.
    pub(super) fn leading_on(&self, txn: TxnId, refusal: Refusal) -> Refusal {
        let Some(txn) = self.txns.get(&txn).filter(|_| self.meta.feature_level >= 2) else { return refusal };
        match refusal.reason.as_str() {
            VOLUME_MISSING => match self.way_of_the_lost(txn) {
                Some(hint) => refusal.hint(hint),
                None => refusal,
            },
            PATH_IN_USE => self.name_forgotten(txn, refusal),
            _ => refusal,
        }
    }

    /// For a disk of which a file is gone.
    fn way_of_the_lost(&self, txn: &Txn) -> Option<String> {
        let disk = self.disks.get(&disk_of(txn)?)?;
        let domain = self.domain_of(disk)?;
        Some(format!(
            "see what lies there, perhaps under another name: sdm domain check {}; put the file back, or bring it from a \
             backup of the storage, and repeat under a new request id; or give the disk up: sdm disk delete {}",
            domain.name, disk.name
        ))
    }

    /// The domain that lies at the path was given up for good: nobody detaches or deletes it any more.
    fn name_forgotten(&self, txn: &Txn, refusal: Refusal) -> Refusal {
        let Spec::CreateDomain { path, .. } = &txn.spec else { return refusal };
        let told = |id: DomainId| refusal.message.contains(&id.to_string());
        let Some(row) = self.forgotten.values().find(|row| row.path == *path && told(row.domain)) else {
            return refusal;
        };
        let seconds = self.meta.clock_ms.saturating_sub(row.at_ms) / 1000;
        let hint = format!(
            "that one ({}) was forgotten {seconds} s ago ({}), and nothing of it is taken for this cluster's again: save \
             what is still needed (sdm disk import FILE --name NAME --domain ANOTHER --format FORMAT), remove its folder {} \
             by hand, then repeat; or choose another path",
            row.name, row.reason, row.domain
        );
        refusal.hint(hint).blocker("transaction", row.txn.to_string(), "forgot it")
    }

    /// A detach whose domain is not there any more, and that nobody else could do: it ends at once, since time alone
    /// brings no storage back.
    pub(super) fn lost_before_detach(
        &self,
        owner: Owner,
        worker: WorkerId,
        reason: &str,
        said: &str,
    ) -> Option<Refusal> {
        // An attempt before this one may have written that the domain is released: only time brings its storage back then.
        let is_first = self.work_of(owner).is_some_and(|work| work.pinned.is_none() && work.attempts <= 1);
        if reason != DOMAIN_MISSING || !is_first {
            return None;
        }
        let txn = self.txns.get(&self.txn_of(owner)?)?;
        let Spec::Domain(DomainChange::Detach { domain }) = &txn.spec else { return None };
        let name = &self.domains.get(domain)?.name;
        if self.workers.values().any(|row| row.identity.id != worker && row.reaches(*domain)) {
            return None;
        }
        Some(Refusal::new(Class::Precondition, DOMAIN_MISSING, said).hint(format!(
            "mount its storage there again, then repeat under a new request id; where it is lost for good: sdm domain forget \
             {name} --confirm {name} --reason TEXT"
        )))
    }
}
