//! What the current stage of a transaction is to whoever places it, assigns it, watches over it or
//! closes it. Said here once for each operation; everybody else asks.

use crate::assignments::From;
use crate::blueprint::Blueprint;
use crate::domain_change::DomainChange;
use crate::state::State;
use crate::txns::Spec;
use crate::txns::Txn;
use sdm_proto::ids::DomainId;

/// The kind of work that one stage is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// None: done in the entry that begins it.
    Instant,
    /// A step that any live worker may do.
    Anywhere,
    /// A step on a domain's own folder, by a worker that owns the path.
    AtPath {
        /// The path.
        path: String,
        /// Whether it need not be a mount point.
        local: bool,
        /// Whether the folder is new: then it is garbage where the attempt does not win.
        makes: bool,
    },
    /// A step in a domain.
    Step {
        /// Which.
        domain: DomainId,
        /// Whether it makes a placement: then its names are garbage where it does not win.
        builds: bool,
    },
    /// A step that writes into published files of a domain.
    InPlace {
        /// Which.
        domain: DomainId,
        /// Bytes that it takes there.
        more_bytes: u64,
        /// Whether it makes a placement, too: then its names are garbage where it does not win.
        builds: bool,
    },
    /// A job.
    Job(JobShape),
}

/// What a job moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JobShape {
    /// The domain that is read.
    pub source: Option<DomainId>,
    /// The domain in which a placement is made.
    pub target: Option<DomainId>,
    /// Whether a command sends or reads the bytes.
    pub peer: bool,
    /// Whether one worker may read what another one writes.
    pub pull: bool,
    /// What it is to move, as far as known.
    pub total_bytes: u64,
    /// What it takes of the target's file system.
    pub reserved_bytes: u64,
}

fn total(bytes: impl Iterator<Item = u64>) -> u64 {
    bytes.fold(0, u64::saturating_add)
}

impl Blueprint {
    /// Links and empty files are made in a moment; bytes, and blocks for all of a file, take as long as they take.
    pub(crate) fn is_job(&self) -> bool {
        self.layers.iter().any(|layer| match layer.from {
            From::Link => false,
            From::Fresh => layer.volume.preallocated,
            From::Bytes(_) | From::Flatten(_) => true,
        })
    }

    pub(crate) fn shape(&self) -> Shape {
        if !self.is_job() {
            return Shape::Step { domain: self.target, builds: true };
        }
        let reserved_bytes = self.reserved_bytes();
        Shape::Job(JobShape {
            source: self.source.as_ref().map(|source| source.domain),
            target: Some(self.target),
            peer: false,
            pull: self.layers.iter().all(|layer| matches!(layer.from, From::Bytes(_))),
            total_bytes: self.total_bytes(),
            reserved_bytes,
        })
    }
}

impl State {
    /// The kind of work that the transaction's current stage is.
    pub(crate) fn shape(&self, txn: &Txn) -> Shape {
        match &txn.spec {
            Spec::CreateDomain { path, local, .. } => Shape::AtPath { path: path.clone(), local: *local, makes: true },
            Spec::CreateDisk { domain, preallocated: false, .. } => Shape::Step { domain: *domain, builds: true },
            Spec::ImportDisk { domain, file_size, allocated_bytes, .. } => Shape::Job(JobShape {
                target: Some(*domain),
                peer: true,
                total_bytes: *file_size,
                reserved_bytes: *allocated_bytes,
                ..JobShape::default()
            }),
            Spec::ExportDisk { disk } => Shape::Job(JobShape {
                source: self.disks.get(disk).and_then(|disk| self.domain_of(disk)).map(|domain| domain.id),
                peer: true,
                total_bytes: total(self.chain(*disk).map(|volume| volume.file_size)),
                ..JobShape::default()
            }),
            Spec::ExportChain { disk, snapshot, .. } => Shape::Job(JobShape {
                source: self.disks.get(disk).and_then(|disk| self.domain_of(disk)).map(|domain| domain.id),
                peer: true,
                total_bytes: self.exported_bytes(*disk, *snapshot),
                ..JobShape::default()
            }),
            Spec::MoveDisk { disk, to } => Shape::Job(JobShape {
                source: self.disks.get(disk).and_then(|disk| self.domain_of(disk)).map(|domain| domain.id),
                target: Some(*to),
                pull: true,
                total_bytes: total(self.chain(*disk).map(|volume| volume.file_size)),
                reserved_bytes: total(self.chain(*disk).map(|volume| volume.allocated_bytes)),
                ..JobShape::default()
            }),
            Spec::ResizeDisk { disk, size } => self.shape_of_resize(*disk, *size),
            Spec::DeleteSnapshot { disk, volume, in_place: true } => self.shape_of_merge(txn, *disk, *volume),
            Spec::Noop { .. } => Shape::Anywhere,
            Spec::Domain(DomainChange::Attach(attach)) => {
                Shape::AtPath { path: attach.path.clone(), local: attach.local, makes: false }
            }
            // By whoever owns the path: where an earlier detach ended half done, probes find the domain given up, and
            // nobody reaches it any more, until this one finishes that.
            Spec::Domain(DomainChange::Detach { domain }) => {
                self.domains.get(domain).map_or(Shape::Instant, |domain| Shape::AtPath {
                    path: domain.path.clone(),
                    local: domain.local,
                    makes: false,
                })
            }
            Spec::Domain(_)
            | Spec::Attachment(_)
            | Spec::Worker(_)
            | Spec::Garbage(_)
            | Spec::DeleteDisk { .. }
            | Spec::RenameDisk { .. }
            | Spec::DescribeDisk { .. }
            | Spec::SetVolumeLegality { .. }
            | Spec::RepairProjection { .. } => Shape::Instant,
            Spec::CreateDisk { .. }
            | Spec::CopyDisk { .. }
            | Spec::CloneLinked { .. }
            | Spec::ConvertDisk { .. }
            | Spec::FlattenDisk { .. }
            | Spec::CreateSnapshot { .. }
            | Spec::DeleteSnapshot { .. }
            | Spec::RevertSnapshot { .. } => self.blueprint(txn).map_or(Shape::Instant, |blueprint| blueprint.shape()),
        }
    }
}
