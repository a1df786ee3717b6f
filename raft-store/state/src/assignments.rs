//! What a worker is to do now: derived from the state by any member, so a lost message is never
//! lost work. The full set each time; what is absent is to stop.

use crate::catalog::Volume;
use crate::domain_catalog::DomainCatalog;
use crate::domain_change::DomainChange;
use crate::garbage::Place;
use crate::state::State;
use crate::txns::Spec;
use crate::txns::Txn;
use crate::work::Attempt;
use crate::work::Owner;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::ids::WorkerId;
use sdm_proto::token::Token;

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// Of the attempt.
    pub token: Token,
    /// For which transaction.
    pub txn: TxnId,
    /// From 1.
    pub attempt: u32,
    /// It is to be stopped, and to say so.
    pub stop: bool,
    /// What.
    pub order: Order,
}

/// A domain as a worker needs to know it.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Its id and its folder's name.
    pub domain: DomainId,
    /// The folder beneath which that lies.
    pub path: String,
    /// Whether the path need not be a mount point.
    pub local: bool,
}

/// A placement that is to be built.
#[derive(Clone, Debug, PartialEq)]
pub struct NewPlacement {
    /// Where.
    pub target: Target,
    /// Folder's name while it is built.
    pub dot_name: String,
    /// Folder's final name.
    pub placement: PlacementId,
    /// Of which disk.
    pub disk: DiskId,
    /// The disk's name.
    pub description: String,
    /// What users wrote about it.
    pub disk_description: String,
    /// Whether nobody writes any of its volumes.
    pub template: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Make a domain.
    CreateDomain {
        /// Where and under which id.
        target: Target,
        /// Its name, for people.
        name: String,
        /// Folder's name while it is built.
        dot_name: String,
    },
    /// Make an empty disk.
    CreateDisk {
        /// Where.
        new: NewPlacement,
        /// Its volumes.
        volumes: Vec<Volume>,
    },
    /// Copy a placement.
    Copy {
        /// Where to.
        new: NewPlacement,
        /// Its volumes.
        volumes: Vec<Volume>,
        /// What is read.
        source_placement: PlacementId,
        /// Where it lies, when this worker reads it itself; else it pulls.
        source: CopySource,
    },
    /// Take a volume's bytes from a command.
    Receive {
        /// Where to.
        new: NewPlacement,
        /// The volume, with the file's length.
        volume: Volume,
        /// Secret of the stream.
        ticket: Vec<u8>,
    },
    /// Send a volume's bytes to a command.
    Send {
        /// Where it lies.
        source: Target,
        /// In which placement.
        placement: PlacementId,
        /// The volume.
        volume: Volume,
        /// What a guest sees through these, root first and the volume last, as a raw image; empty: the volume's file.
        chain: Vec<Volume>,
        /// Secret of the stream.
        ticket: Vec<u8>,
    },
    /// Serve a placement to the worker that pulls it.
    ServeSource {
        /// Where it lies.
        source: Target,
        /// Which.
        placement: PlacementId,
        /// Its volumes.
        volumes: Vec<Volume>,
        /// Secret of the stream.
        ticket: Vec<u8>,
    },
    /// Delete garbage.
    Delete {
        /// Where.
        target: Target,
        /// Name while it was built; looked for first.
        dot_name: String,
        /// Published name; looked for second.
        placement: Option<PlacementId>,
        /// What the published folder must carry.
        made_by: Token,
        /// Name it gets before its files are unlinked.
        deletion_dot_name: String,
        /// The names are of a domain's own folder.
        whole_domain: bool,
    },
    /// Build a placement whose layers each come from somewhere else.
    Build {
        /// Where to.
        new: NewPlacement,
        /// What it is built from; None when every layer is new.
        source: Option<BuildSource>,
        /// The chain as it shall be, root first.
        layers: Vec<Layer>,
        /// Volumes of it that other disks use in this domain.
        shared: Vec<VolumeId>,
        /// A linked volume that lies over another one than in the source: first its header is made to say so, in place.
        rebase: Option<VolumeId>,
    },
    /// Give the last of these volumes, in place, what the one before it holds.
    Merge {
        /// Where.
        target: Target,
        /// In which placement.
        placement: PlacementId,
        /// What the published folder must carry.
        made_by: Token,
        /// Whose.
        disk: DiskId,
        /// The chain, root first, up to the volume that is written.
        volumes: Vec<Volume>,
        /// Write nothing: make durable what earlier attempts wrote.
        settle_only: bool,
    },
    /// Grow the leaf in place.
    Resize {
        /// Where.
        target: Target,
        /// In which placement.
        placement: PlacementId,
        /// What the published folder must carry.
        made_by: Token,
        /// The leaf as it is recorded now.
        volume: Volume,
        /// Virtual size in bytes; it can never shrink.
        new_size: u64,
    },
    /// Write the `.meta` files of a published placement anew.
    Project {
        /// Where.
        target: Target,
        /// Which.
        placement: PlacementId,
        /// What the published folder must carry.
        made_by: Token,
        /// Whose.
        disk: DiskId,
        /// The disk's name.
        description: String,
        /// What users wrote about it.
        disk_description: String,
        /// Whether nobody writes any of its volumes.
        template: bool,
        /// The chain, root first.
        volumes: Vec<Volume>,
        /// Volumes of it that other disks use in this domain.
        shared: Vec<VolumeId>,
    },
    /// Write a domain's name into its metadata.
    RenameDomain {
        /// Which.
        target: Target,
        /// The name.
        name: String,
    },
    /// Give a domain up, with the catalog of what lies in it.
    DetachDomain {
        /// Which.
        target: Target,
        /// What a later attach is to find there.
        catalog: Box<DomainCatalog>,
    },
    /// Write a piece of the catalog of a domain that is to be given up.
    WriteCatalog {
        /// Which.
        target: Target,
        /// The piece.
        catalog: Box<DomainCatalog>,
    },
    /// Read a piece of the catalog of a domain that was taken over.
    ReadCatalog {
        /// Which.
        target: Target,
        /// Which piece.
        piece: u32,
    },
    /// Take over a domain that no cluster has.
    AttachDomain {
        /// Which.
        target: Target,
        /// Its name here.
        name: String,
        /// BLAKE3 of the catalog that its mark must name, in hexadecimal digits.
        catalog: String,
    },
    /// Delete the folder of a domain in which nothing lies any more.
    FormatDomain {
        /// Which.
        target: Target,
        /// Name it gets before its files are unlinked.
        dot_name: String,
        /// An attempt before emptied it: the empty folder of that name goes.
        emptied: bool,
    },
    /// Report that there was nothing to do.
    Noop,
}

/// The placement that another one is built from.
#[derive(Clone, Debug, PartialEq)]
pub struct BuildSource {
    /// Which.
    pub placement: PlacementId,
    /// Its chain as it lies there, root first.
    pub volumes: Vec<Volume>,
    /// How the worker gets at it.
    pub source: CopySource,
}

/// A volume of a placement that is to be built.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Its row as it shall be; sizes that are not known yet are 0.
    pub volume: Volume,
    /// Where its bytes come from.
    pub from: From,
}

/// Where a layer's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// A hard link of the same volume in the source placement.
    Link,
    /// New and empty, over the layer beneath.
    Fresh,
    /// The bytes of this volume's file in the source placement.
    Bytes(VolumeId),
    /// What a guest sees through these volumes of the source placement, base first, over the layer beneath.
    Flatten(Vec<VolumeId>),
}

/// Where a copy reads from.
#[derive(Clone, Debug, PartialEq)]
pub enum CopySource {
    /// A domain that the worker reaches itself.
    Local(Target),
    /// Another worker.
    Pull {
        /// Its address.
        address: String,
        /// Secret of the stream.
        ticket: Vec<u8>,
    },
}

impl State {
    /// What the worker is to do, by rising token, at most this many.
    #[must_use]
    pub fn assignments(&self, worker: WorkerId, most: usize) -> Vec<Assignment> {
        self.attempts_of(worker).filter_map(|(_, owner)| self.assignment(worker, owner)).take(most).collect()
    }

    /// The domains that the worker is to look at: those whose path it owns.
    #[must_use]
    pub fn domains_to_probe(&self, worker: WorkerId) -> Vec<Target> {
        let Some(worker) = self.workers.get(&worker) else { return Vec::new() };
        self.domains
            .values()
            .filter(|domain| worker.owns_path(&domain.path))
            .filter_map(|d| self.target(d.id))
            .collect()
    }

    pub(crate) fn target(&self, id: DomainId) -> Option<Target> {
        let domain = self.domains.get(&id)?;
        Some(Target { domain: id, path: domain.path.clone(), local: domain.local })
    }

    fn new_placement(&self, domain: DomainId, attempt: &Attempt, disk: DiskId, name: &str) -> Option<NewPlacement> {
        let cluster = self.cluster_id();
        Some(NewPlacement {
            target: self.target(domain)?,
            dot_name: attempt.token.dot_name(cluster),
            placement: attempt.token.placement(cluster),
            disk,
            description: name.to_owned(),
            disk_description: String::new(),
            template: false,
        })
    }

    fn assignment(&self, worker: WorkerId, owner: Owner) -> Option<Assignment> {
        let attempt = self.work_of(owner)?.attempt.as_ref()?;
        let (txn, order) = match owner {
            Owner::Step(txn) => (txn, self.step_order(txn, attempt)?),
            Owner::Job(job) => (self.jobs.get(&job)?.txn, self.job_order(worker, job, attempt)?),
            Owner::Deletion(garbage) => (self.garbage.get(&garbage)?.txn, self.deletion_order(garbage)?),
            Owner::Describe(domain) => (TxnId::default(), self.describe_order(domain)?),
            Owner::Projection(placement) => self.project_order(placement)?,
        };
        let stop = self.is_to_stop(owner);
        Some(Assignment { token: attempt.token, txn, attempt: attempt.number, stop, order })
    }

    fn step_order(&self, txn: TxnId, attempt: &Attempt) -> Option<Order> {
        let cluster = self.cluster_id();
        let txn = self.txns.get(&txn)?;
        match &txn.spec {
            Spec::CreateDomain { name, path, local } => Some(Order::CreateDomain {
                target: Target { domain: attempt.token.domain(cluster), path: path.clone(), local: *local },
                name: name.to_string(),
                dot_name: attempt.token.dot_name(cluster),
            }),
            Spec::CreateDisk { domain, description, .. } => {
                let blueprint = self.blueprint(txn)?;
                let new = NewPlacement {
                    disk_description: description.clone(),
                    ..self.new_placement(*domain, attempt, blueprint.disk, blueprint.name.as_str())?
                };
                Some(Order::CreateDisk {
                    new,
                    volumes: blueprint.layers.into_iter().map(|layer| layer.volume).collect(),
                })
            }
            Spec::ResizeDisk { disk, size } => {
                let disk = self.disks.get(disk)?;
                let placement = self.placements.get(&disk.placement)?;
                Some(Order::Resize {
                    target: self.target(placement.domain)?,
                    placement: placement.id,
                    made_by: placement.token,
                    volume: self.chain(disk.id).last()?.clone(),
                    new_size: *size,
                })
            }
            Spec::DeleteSnapshot { disk, volume, in_place: true } if txn.stage == 0 => {
                self.merge_order(attempt, *disk, *volume)
            }
            Spec::Domain(DomainChange::Detach { domain }) => {
                let handover = txn.handover.as_ref();
                let target = self.target(*domain)?;
                let catalog = Box::new(self.domain_catalog(*domain, txn.began_index, handover)?);
                Some(match catalog.piece {
                    0 => Order::DetachDomain { target, catalog },
                    _ => Order::WriteCatalog { target, catalog },
                })
            }
            Spec::Domain(DomainChange::Attach(attach)) if txn.gives_back() => Some(Order::DetachDomain {
                target: self.target(attach.domain)?,
                catalog: Box::new(self.catalog_given_back(attach)?),
            }),
            Spec::Domain(DomainChange::Attach(attach)) if txn.reads_catalog() => Some(Order::ReadCatalog {
                target: Target { domain: attach.domain, path: attach.path.clone(), local: attach.local },
                piece: txn.handover.as_ref()?.piece,
            }),
            Spec::Domain(DomainChange::Attach(attach)) => Some(Order::AttachDomain {
                target: Target { domain: attach.domain, path: attach.path.clone(), local: attach.local },
                name: attach.name.to_string(),
                catalog: attach.catalog.clone(),
            }),
            Spec::Noop { .. } => Some(Order::Noop),
            _ => self.build_order(attempt.worker, txn, attempt),
        }
    }

    fn job_order(&self, worker: WorkerId, job: u64, attempt: &Attempt) -> Option<Order> {
        let txn = self.txns.get(&self.jobs.get(&job)?.txn)?;
        match &txn.spec {
            Spec::ImportDisk { name, domain, format, file_size, allocated_bytes } => {
                let marker = txn.marker.as_ref()?;
                let disk = marker.disk?;
                let volume = Volume {
                    id: *marker.volumes.first()?,
                    disk,
                    parent: None,
                    format: *format,
                    virtual_size: 0,
                    file_size: *file_size,
                    allocated_bytes: *allocated_bytes,
                    legal: true,
                    blake3: None,
                    preallocated: false,
                    snapshot: None,
                };
                let new = self.new_placement(*domain, attempt, disk, name.as_str())?;
                Some(Order::Receive { new, volume, ticket: attempt.ticket.clone() })
            }
            Spec::ExportDisk { disk } => {
                let disk = self.disks.get(disk)?;
                Some(Order::Send {
                    source: self.target(self.domain_of(disk)?.id)?,
                    placement: disk.placement,
                    volume: self.volumes.get(disk.volumes.last()?)?.clone(),
                    chain: Vec::new(),
                    ticket: attempt.ticket.clone(),
                })
            }
            Spec::ExportChain { disk: id, snapshot, .. } => {
                let disk = self.disks.get(id)?;
                let mut chain: Vec<Volume> = self.seen_chain(*id, *snapshot).into_iter().cloned().collect();
                let volume = chain.last()?.clone();
                if chain.len() == 1 {
                    chain.clear();
                }
                Some(Order::Send {
                    source: self.target(self.domain_of(disk)?.id)?,
                    placement: disk.placement,
                    volume,
                    chain,
                    ticket: attempt.ticket.clone(),
                })
            }
            Spec::MoveDisk { disk, to } => self.move_order(worker, attempt, *disk, *to),
            _ => self.build_order(worker, txn, attempt),
        }
    }

    fn move_order(&self, worker: WorkerId, attempt: &Attempt, disk: DiskId, to: DomainId) -> Option<Order> {
        let disk = self.disks.get(&disk)?;
        let source = self.target(self.domain_of(disk)?.id)?;
        let volumes = self.whole_chain(disk)?;
        let ticket = attempt.ticket.clone();
        if worker != attempt.worker {
            return Some(Order::ServeSource { source, placement: disk.placement, volumes, ticket });
        }
        let copy_source = self.copy_source(attempt, source)?;
        let new = NewPlacement {
            disk_description: disk.description.clone(),
            template: disk.template,
            ..self.new_placement(to, attempt, disk.id, disk.name.as_str())?
        };
        Some(Order::Copy { new, volumes, source_placement: disk.placement, source: copy_source })
    }

    /// How the worker that writes gets at what it reads.
    fn copy_source(&self, attempt: &Attempt, source: Target) -> Option<CopySource> {
        Some(match attempt.source_worker {
            None => CopySource::Local(source),
            Some(id) => CopySource::Pull {
                address: self.workers.get(&id)?.identity.address.clone(),
                ticket: attempt.ticket.clone(),
            },
        })
    }

    /// The placement that a stage builds by layers; to the source of a pull, that it is to serve it.
    fn build_order(&self, worker: WorkerId, txn: &Txn, attempt: &Attempt) -> Option<Order> {
        let blueprint = self.blueprint(txn)?;
        let mut source = None;
        if let Some(from) = blueprint.source {
            let target = self.target(from.domain)?;
            let pulls = attempt.source_worker.is_some();
            let wanted = |row: &Volume| blueprint.layers.iter().any(|layer| layer.from == From::Bytes(row.id));
            let volumes = from.volumes.into_iter().filter(|row| !pulls || wanted(row)).collect();
            if worker != attempt.worker {
                let ticket = attempt.ticket.clone();
                return Some(Order::ServeSource { source: target, placement: from.placement, volumes, ticket });
            }
            let placement = from.placement;
            source = Some(BuildSource { placement, volumes, source: self.copy_source(attempt, target)? });
        }
        let new = NewPlacement {
            disk_description: blueprint.description,
            template: blueprint.template,
            ..self.new_placement(blueprint.target, attempt, blueprint.disk, blueprint.name.as_str())?
        };
        let linked = blueprint.layers.iter().filter(|layer| matches!(layer.from, From::Link));
        let shared = self.shared_in(blueprint.target, blueprint.disk, linked.map(|layer| layer.volume.id));
        let rebase = self.rebased(txn);
        Some(Order::Build { new, source, layers: blueprint.layers, shared, rebase })
    }

    fn project_order(&self, id: PlacementId) -> Option<(TxnId, Order)> {
        let (placement, disk, volumes) = match self.placements.get(&id) {
            Some(placement) => {
                (placement, self.disks.get(&placement.disk)?, self.chain(placement.disk).cloned().collect())
            }
            // Whoever reads the storage is not to use what is in the trash.
            None => {
                let trash = self.trash_at(id)?;
                let volumes: Vec<Volume> =
                    trash.volumes.iter().map(|row| Volume { legal: false, ..row.clone() }).collect();
                (&trash.placement, &trash.disk, volumes)
            }
        };
        let order = Order::Project {
            target: self.target(placement.domain)?,
            placement: id,
            made_by: placement.token,
            disk: disk.id,
            description: disk.name.to_string(),
            disk_description: disk.description.clone(),
            template: disk.template,
            shared: self.shared_in(placement.domain, disk.id, volumes.iter().map(|row| row.id)),
            volumes,
        };
        Some((placement.txn, order))
    }

    fn describe_order(&self, domain: DomainId) -> Option<Order> {
        let name = self.domains.get(&domain)?.name.to_string();
        Some(Order::RenameDomain { target: self.target(domain)?, name })
    }

    fn deletion_order(&self, id: Token) -> Option<Order> {
        let garbage = self.garbage.get(&id)?;
        let cluster = garbage.cluster.unwrap_or_else(|| self.cluster_id());
        let Place { domain, path, local, whole_domain } = garbage.place.clone();
        if garbage.is_deleted_domain() {
            let target = Target { domain, path, local };
            let (dot_name, emptied) = (garbage.id.dot_name(cluster), garbage.emptied);
            return Some(Order::FormatDomain { target, dot_name, emptied });
        }
        Some(Order::Delete {
            target: Target { domain, path, local },
            dot_name: garbage.made_by.dot_name(cluster),
            placement: garbage.placement,
            made_by: garbage.made_by,
            deletion_dot_name: garbage.id.dot_name(cluster),
            whole_domain,
        })
    }
}
