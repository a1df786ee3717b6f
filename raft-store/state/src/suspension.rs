//! What a restore from a backup leaves behind in the state: the backup does not know what was done
//! after it, so until every domain was read and taken over nothing is begun, assigned or deleted.
//!
//! ```text
//!            restored()             epoch above all that was found,
//!  backup ─────────────▶ suspended ──── each domain adopted ────▶ released
//! ```

use crate::catalog::Disk;
use crate::catalog::Placement;
use crate::state::State;
use sdm_proto::ids::ClusterId;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::VolumeId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use serde::Deserialize;
use serde::Serialize;

/// Disks that one command marks at most: it stays far below the largest command.
pub const MARKED_DISKS_MAX: usize = 2048;

/// Domains that a refused release names at most.
const NAMED_MAX: usize = 16;

/// Where a restored cluster comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restored {
    /// The clusters before this one, oldest first; the last one made the backup. Their domains may be
    /// adopted without a further word, and names on storage may derive from any of them.
    pub ancestors: Vec<ClusterId>,
    /// The epoch of the backup.
    pub epoch: u64,
    /// Up to which entry the backup goes.
    pub index: u64,
    /// Until the operator releases it nothing touches storage but reading and adopting domains.
    pub suspended: bool,
}

/// A step of the reconciliation of a restored cluster with its storage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reconcile {
    /// Raises the epoch above what was found on a domain. Workers have to say hello anew.
    RaiseEpoch {
        /// The new epoch.
        epoch: u64,
    },
    /// A domain carries this cluster's id and epoch now, durably.
    Adopted {
        /// Which.
        domain: DomainId,
        /// The epoch that was written.
        epoch: u64,
    },
    /// What the reading of a domain says about disks in it, at most `MARKED_DISKS_MAX` together.
    MarkDisks {
        /// Their placement, or a volume in it, is not there: they become illegal.
        missing: Vec<DiskId>,
        /// It is there after all: they become legal again.
        found: Vec<DiskId>,
    },
    /// Ends the suspension.
    Release {
        /// Domains that are given up for now: they stay unreachable until they are adopted.
        without: Vec<DomainId>,
    },
}

impl State {
    /// Whether nothing may touch storage, because the cluster was restored and not released yet.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.meta.restored.as_ref().is_some_and(|restored| restored.suspended)
    }

    /// Refuses while the cluster is suspended.
    ///
    /// # Errors
    /// `SUSPENDED`.
    pub fn refuse_suspended(&self) -> Result<(), Refusal> {
        let Some(restored) = self.meta.restored.as_ref().filter(|restored| restored.suspended) else { return Ok(()) };
        let message = format!(
            "the cluster was restored from a backup of cluster {} (entry {}) and is suspended: the backup does not know \
             what was made after it",
            restored.ancestors.last().copied().unwrap_or_default(),
            restored.index
        );
        Err(Refusal::new(Class::Precondition, "SUSPENDED", message)
            .hint("`sdm backup reconcile` reads and adopts the domains, `sdm backup reconcile --release` ends it"))
    }

    /// Whether the domain is known to carry this cluster's id and epoch.
    #[must_use]
    pub fn is_adopted(&self, domain: DomainId) -> bool {
        self.domains.get(&domain).is_some_and(|domain| domain.adopted_epoch == Some(self.meta.epoch))
    }

    /// The earlier cluster whose log made a placement; None where this one did.
    pub(crate) fn maker_of(&self, placement: &Placement) -> Option<ClusterId> {
        if let Some(cluster) = placement.cluster {
            return (cluster != self.cluster_id()).then_some(cluster);
        }
        let made_by = |cluster: &ClusterId| placement.token.placement(*cluster) == placement.id;
        let restored = self.meta.restored.as_ref().filter(|_| !made_by(&self.cluster_id()))?;
        restored.ancestors.iter().copied().find(made_by)
    }

    /// Whether all volumes of the disk may be used.
    #[must_use]
    pub fn is_legal(&self, disk: &Disk) -> bool {
        disk.volumes.iter().all(|id| self.volumes.get(id).is_some_and(|volume| volume.legal))
    }

    /// Refuses to read the bytes of a disk that are known to be gone.
    pub(crate) fn refuse_illegal(&self, disk: &Disk) -> Result<(), Refusal> {
        if self.is_legal(disk) {
            return Ok(());
        }
        let bad = self.chain(disk.id).find(|row| !row.legal).map_or_else(VolumeId::default, |row| row.id);
        let message = format!(
            "disk {} is illegal: its volume {bad} must not be used (an operator said so, or it was not on the storage when \
             that was read)",
            disk.name
        );
        Err(Refusal::new(Class::Precondition, "DISK_ILLEGAL", message).hint(format!(
            "sdm volume show {bad}; bring it back and run `sdm backup reconcile` again, say that it is legal (sdm volume \
             set-legal {bad}), or delete the disk"
        )))
    }

    pub(crate) fn not_adopted(&self, without: &[DomainId]) -> Option<Refusal> {
        // Those that leave are not taken over: they go with the first Tick after the release.
        let known = || self.domains.values().filter(|row| !row.state.is_hidden());
        let mut open: Vec<_> = known().filter(|row| !without.contains(&row.id) && !self.is_adopted(row.id)).collect();
        if open.is_empty() {
            return None;
        }
        let message = format!("{} of {} domains are not read and adopted yet", open.len(), known().count());
        let mut refusal = Refusal::new(Class::Precondition, "NOT_RECONCILED", message).hint(
            "make them reachable for a worker and run `sdm backup reconcile`, or leave one out: --release --without DOMAIN",
        );
        open.truncate(NAMED_MAX);
        for domain in open {
            refusal = refusal.blocker("domain", domain.name.as_str(), format!("at {}", domain.path));
        }
        Some(refusal)
    }
}
