//! Reads an assignment: what the cluster says becomes an order that an I/O process understands, and
//! the way it is to be run. Whatever does not read is an answer of its own.

use crate::gateway::SessionFacts;
use crate::work;
use crate::work::AttachDomain;
use crate::work::BuildChain;
use crate::work::BuildPlacement;
use crate::work::CreateDisk;
use crate::work::CreateDomain;
use crate::work::DeleteDomain;
use crate::work::DeletePlacement;
use crate::work::DetachDomain;
use crate::work::DomainRoot;
use crate::work::ExpectedPlacement;
use crate::work::FileHash;
use crate::work::FormatDomain;
use crate::work::LayerSource;
use crate::work::LocalPlacement;
use crate::work::Mounting;
use crate::work::NewPlacement;
use crate::work::Order;
use crate::work::ProjectPlacement;
use crate::work::RenameDomain;
use crate::work::ResizeVolume;
use crate::work::SendPlacement;
use crate::work::SentVolume;
use crate::work::Source;
use crate::work::SourceChain;
use crate::work::SourceVolume;
use crate::work::VolumeFormat;
use crate::work::VolumeRole;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::assignment::Order as WireOrder;
use std::path::PathBuf;
use uuid::Uuid;

/// A raw file is as long as a multiple of this; its volume remembers the size before rounding.
const RAW_ROUNDING_BYTES: u64 = 4096;

/// How an assignment is run.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Way {
    /// A short step, in the domain's process.
    Step(Order),
    /// In a process of its own.
    Build(Order),
    /// In a process of its own, fed from another worker.
    Pull { order: Order, address: String, ticket: Vec<u8>, volumes: Vec<String> },
    /// In a process of its own, fed by a command.
    Receive { order: Order, ticket: Vec<u8> },
    /// A process reads for a command.
    Send { order: Order, ticket: Vec<u8> },
    /// A process reads for another worker.
    Serve { order: Order, ticket: Vec<u8>, volumes: Vec<String> },
}

/// An assignment, read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Task {
    pub(super) token: String,
    pub(super) attempt: u32,
    /// Bytes of all volumes, as far as the cluster knows.
    pub(super) total_bytes: u64,
    pub(super) way: Way,
}

impl Way {
    fn order(&self) -> &Order {
        match self {
            Self::Step(order)
            | Self::Build(order)
            | Self::Pull { order, .. }
            | Self::Receive { order, .. }
            | Self::Send { order, .. }
            | Self::Serve { order, .. } => order,
        }
    }
}

impl Task {
    /// The domain whose process runs the steps.
    pub(super) fn domain(&self) -> &DomainRoot {
        self.way.order().domain()
    }

    /// Every path that the order touches.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let order = self.way.order();
        let mut paths = vec![order.domain().path.clone()];
        match order {
            Order::BuildPlacement(BuildPlacement { source: Source::Local(source), .. }) => {
                paths.push(source.domain.path.clone());
            }
            Order::BuildChain(BuildChain { source: Some(source), .. }) => paths.push(source.at.domain.path.clone()),
            _ => {}
        }
        paths
    }

    /// Whether the same attempt may simply begin again after its process was reaped: it reads only,
    /// or its sender begins from zero anyway.
    pub(super) fn may_begin_again(&self) -> bool {
        matches!(self.way, Way::Receive { .. } | Way::Send { .. } | Way::Serve { .. })
    }
}

/// The assignment cannot be read: a defect, or a member of another version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the assignment cannot be read: {0}")]
pub(crate) struct Unreadable(String);

fn missing(what: &str) -> Unreadable {
    Unreadable(format!("{what} is missing"))
}

fn id(text: &str, what: &str) -> Result<Uuid, Unreadable> {
    Uuid::try_parse(text).map_err(|_| Unreadable(format!("{what} {text:?} is not a UUID")))
}

/// What reading needs besides the assignment.
pub(super) struct Reading<'a> {
    pub(super) facts: &'a SessionFacts,
    /// Seconds since 1970, for display in what is made.
    pub(super) now_s: u64,
}

impl Reading<'_> {
    /// The root of a domain.
    pub(super) fn root(&self, target: &wire::DomainTarget) -> Result<DomainRoot, Unreadable> {
        Ok(DomainRoot {
            path: PathBuf::from(&target.path),
            domain: id(&target.domain_id, "domain")?,
            pool: self.facts.pool.uuid(),
            cluster: self.facts.cluster.uuid(),
            epoch: self.facts.epoch,
        })
    }

    fn required_root(&self, target: Option<&wire::DomainTarget>) -> Result<DomainRoot, Unreadable> {
        self.root(target.ok_or_else(|| missing("the domain"))?)
    }

    /// Reads an assignment.
    pub(super) fn task(&self, assignment: &wire::Assignment) -> Result<Task, Unreadable> {
        let order = assignment.order.as_ref().ok_or_else(|| missing("a kind of order that this version knows"))?;
        Ok(Task {
            token: assignment.token.clone(),
            attempt: assignment.attempt,
            total_bytes: total_bytes(order),
            way: self.way(assignment, order)?,
        })
    }

    fn way(&self, assignment: &wire::Assignment, order: &WireOrder) -> Result<Way, Unreadable> {
        Ok(match order {
            WireOrder::CreateDomain(order) => Way::Step(self.create_domain(assignment, order)?),
            WireOrder::CreateDisk(order) => {
                let placement = self.placement(assignment, order.target.as_ref(), &order.volumes)?;
                let is_short = placement.volumes.iter().all(|spec| !spec.preallocated);
                let order = Order::CreateDisk(CreateDisk { placement });
                // Reserving blocks may mean writing all of them.
                if is_short { Way::Step(order) } else { Way::Build(order) }
            }
            WireOrder::Copy(order) => self.copy(assignment, order)?,
            WireOrder::Receive(order) => {
                let volume = order.volume.as_ref().ok_or_else(|| missing("the volume"))?;
                let mut placement = self.placement(assignment, order.target.as_ref(), std::slice::from_ref(volume))?;
                for spec in &mut placement.volumes {
                    spec.announced_bytes = Some(volume.file_size).filter(|bytes| *bytes > 0);
                }
                let order_read = Order::BuildPlacement(BuildPlacement { placement, source: Source::Import });
                Way::Receive { order: order_read, ticket: order.ticket.to_vec() }
            }
            WireOrder::Send(order) => {
                let volume = order.volume.as_ref().ok_or_else(|| missing("the volume"))?;
                // A command gets a raw volume back as long as it was before rounding.
                let sent = SentVolume { true_bytes: true_bytes(volume)?, ..sent_volume(volume)? };
                let order_read = self.send(order.domain.as_ref(), &order.placement_id, vec![sent])?;
                Way::Send { order: order_read, ticket: order.ticket.to_vec() }
            }
            WireOrder::ServeSource(order) => {
                let sent = order.volumes.iter().map(sent_volume).collect::<Result<_, _>>()?;
                Way::Serve {
                    order: self.send(order.domain.as_ref(), &order.placement_id, sent)?,
                    ticket: order.ticket.to_vec(),
                    volumes: order.volumes.iter().map(|volume| volume.volume_id.clone()).collect(),
                }
            }
            WireOrder::Delete(order) => Way::Step(self.delete(order)?),
            WireOrder::Build(order) => self.build(assignment, order)?,
            WireOrder::Resize(order) => Way::Step(Order::ResizeVolume(self.resize(order)?)),
            WireOrder::Project(order) => Way::Step(Order::ProjectPlacement(self.project(order)?)),
            WireOrder::RenameDomain(order) => Way::Step(Order::RenameDomain(RenameDomain {
                domain: self.required_root(order.domain.as_ref())?,
                description: order.name.clone(),
            })),
            WireOrder::DetachDomain(order) => Way::Step(Order::DetachDomain(DetachDomain {
                domain: self.required_root(order.domain.as_ref())?,
                catalog: order.catalog.clone(),
            })),
            WireOrder::AttachDomain(order) => Way::Step(Order::AttachDomain(AttachDomain {
                domain: self.required_root(order.domain.as_ref())?,
                token: assignment.token.clone(),
                description: order.name.clone(),
                foreign: order.foreign,
                catalog_blake3: order.catalog_blake3.clone(),
            })),
            WireOrder::FormatDomain(order) => Way::Step(Order::FormatDomain(FormatDomain {
                domain: self.required_root(order.domain.as_ref())?,
                dot_name: order.dot_name.clone(),
                unknown_names_too: order.unknown_names_too,
            })),
            // The supervisor answers it itself.
            WireOrder::Noop(_) => return Err(Unreadable("a noop has nothing to run".to_owned())),
        })
    }

    fn create_domain(
        &self,
        assignment: &wire::Assignment,
        order: &wire::CreateDomainOrder,
    ) -> Result<Order, Unreadable> {
        let local = order.domain.as_ref().is_some_and(|domain| domain.local);
        Ok(Order::CreateDomain(CreateDomain {
            domain: self.required_root(order.domain.as_ref())?,
            token: assignment.token.clone(),
            dot_name: order.dot_name.clone(),
            mounting: if local { Mounting::Local } else { Mounting::Required },
            description: order.name.clone(),
        }))
    }

    fn copy(&self, assignment: &wire::Assignment, order: &wire::CopyOrder) -> Result<Way, Unreadable> {
        let placement = self.placement(assignment, order.target.as_ref(), &order.volumes)?;
        if let Some(domain) = &order.source_domain {
            let source = Source::Local(LocalPlacement {
                domain: self.root(domain)?,
                placement: id(&order.source_placement_id, "source placement")?,
                token: String::new(),
            });
            return Ok(Way::Build(Order::BuildPlacement(BuildPlacement { placement, source })));
        }
        let pull = order.pull.as_ref().ok_or_else(|| missing("the source"))?;
        Ok(Way::Pull {
            order: Order::BuildPlacement(BuildPlacement { placement, source: Source::Pull }),
            address: pull.address.clone(),
            ticket: pull.ticket.to_vec(),
            volumes: order.volumes.iter().map(|volume| volume.volume_id.clone()).collect(),
        })
    }

    fn send(
        &self,
        domain: Option<&wire::DomainTarget>,
        placement: &str,
        volumes: Vec<SentVolume>,
    ) -> Result<Order, Unreadable> {
        Ok(Order::SendPlacement(SendPlacement {
            domain: self.required_root(domain)?,
            placement: id(placement, "placement")?,
            token: String::new(),
            volumes,
        }))
    }

    fn delete(&self, order: &wire::DeleteOrder) -> Result<Order, Unreadable> {
        let domain = self.required_root(order.domain.as_ref())?;
        if order.whole_domain {
            return Ok(Order::DeleteDomain(DeleteDomain {
                domain,
                dot_name: order.dot_name.clone(),
                token: order.made_by_token.clone(),
                deletion_dot_name: order.deletion_dot_name.clone(),
            }));
        }
        let placement = match order.placement_id.as_str() {
            "" => None,
            published => Some(id(published, "placement")?),
        };
        Ok(Order::DeletePlacement(DeletePlacement {
            placement,
            domain,
            dot_name: order.dot_name.clone(),
            token: order.made_by_token.clone(),
            deletion_dot_name: order.deletion_dot_name.clone(),
        }))
    }

    fn placement(
        &self,
        assignment: &wire::Assignment,
        target: Option<&wire::PlacementTarget>,
        volumes: &[wire::VolumeSpec],
    ) -> Result<NewPlacement, Unreadable> {
        let target = target.ok_or_else(|| missing("the target"))?;
        self.new_placement(assignment, target, chain(volumes, target.template)?)
    }

    fn new_placement(
        &self,
        assignment: &wire::Assignment,
        target: &wire::PlacementTarget,
        volumes: Vec<work::VolumeSpec>,
    ) -> Result<NewPlacement, Unreadable> {
        Ok(NewPlacement {
            domain: self.required_root(target.domain.as_ref())?,
            placement: id(&target.placement_id, "placement")?,
            dot_name: target.dot_name.clone(),
            token: assignment.token.clone(),
            transaction: assignment.transaction_id.clone(),
            disk: (!target.disk_id.is_empty()).then(|| id(&target.disk_id, "disk")).transpose()?,
            disk_name: target.description.clone(),
            disk_description: target.disk_description.clone(),
            created_at_s: self.now_s,
            volumes,
        })
    }

    fn build(&self, assignment: &wire::Assignment, order: &wire::BuildOrder) -> Result<Way, Unreadable> {
        let target = order.target.as_ref().ok_or_else(|| missing("the target"))?;
        let specs = order.layers.iter().map(layer_spec).collect::<Result<Vec<_>, _>>()?;
        let placement = self.new_placement(assignment, target, specs)?;
        let layers = order.layers.iter().map(layer_source).collect::<Result<Vec<_>, _>>()?;
        if let Some(source) = &order.source
            && let Some(pull) = &source.pull
        {
            return pulled(placement, &layers, source, pull);
        }
        let source = order.source.as_ref().map(|source| self.source_chain(source)).transpose()?;
        let is_short = layers.iter().zip(&placement.volumes).all(|(layer, spec)| match layer {
            LayerSource::Link => true,
            LayerSource::Fresh => !spec.preallocated,
            LayerSource::Bytes { .. } | LayerSource::Flatten { .. } => false,
        });
        let order = Order::BuildChain(BuildChain { placement, source, layers });
        Ok(if is_short { Way::Step(order) } else { Way::Build(order) })
    }

    fn source_chain(&self, source: &wire::BuildSource) -> Result<SourceChain, Unreadable> {
        let volume = |spec: &wire::VolumeSpec| {
            Ok(SourceVolume {
                volume: id(&spec.volume_id, "volume")?,
                format: format(spec)?,
                expected_hash: hash(spec)?,
            })
        };
        Ok(SourceChain {
            at: LocalPlacement {
                domain: self.required_root(source.domain.as_ref())?,
                placement: id(&source.placement_id, "source placement")?,
                token: String::new(),
            },
            volumes: source.volumes.iter().map(volume).collect::<Result<_, Unreadable>>()?,
        })
    }

    fn resize(&self, order: &wire::ResizeOrder) -> Result<ResizeVolume, Unreadable> {
        let spec = order.volume.as_ref().ok_or_else(|| missing("the volume"))?;
        Ok(ResizeVolume {
            domain: self.required_root(order.domain.as_ref())?,
            placement: id(&order.placement_id, "placement")?,
            token: order.made_by_token.clone(),
            volume: id(&spec.volume_id, "volume")?,
            format: format(spec)?,
            parent: parent(spec)?,
            preallocated: spec.preallocated,
            virtual_bytes: order.new_size,
        })
    }

    fn project(&self, order: &wire::ProjectOrder) -> Result<ProjectPlacement, Unreadable> {
        Ok(ProjectPlacement {
            domain: self.required_root(order.domain.as_ref())?,
            placement: id(&order.placement_id, "placement")?,
            token: order.made_by_token.clone(),
            disk_name: order.description.clone(),
            disk_description: order.disk_description.clone(),
            volumes: order.layers.iter().map(layer_spec).collect::<Result<_, _>>()?,
        })
    }
}

/// A chain whose every volume is pulled: the other worker reads the source's volumes in their order.
fn pulled(
    mut placement: NewPlacement,
    layers: &[LayerSource],
    source: &wire::BuildSource,
    pull: &wire::PullSource,
) -> Result<Way, Unreadable> {
    if layers.len() != source.volumes.len() {
        return Err(Unreadable("a pull brings every volume of its source".to_owned()));
    }
    for ((spec, layer), from) in placement.volumes.iter_mut().zip(layers).zip(&source.volumes) {
        match layer {
            LayerSource::Bytes { volume } if *volume == id(&from.volume_id, "volume")? => {}
            _ => return Err(Unreadable("a pull brings bytes, volume by volume".to_owned())),
        }
        spec.expected_hash = hash(from)?;
    }
    Ok(Way::Pull {
        order: Order::BuildPlacement(BuildPlacement { placement, source: Source::Pull }),
        address: pull.address.clone(),
        ticket: pull.ticket.to_vec(),
        volumes: source.volumes.iter().map(|volume| volume.volume_id.clone()).collect(),
    })
}

fn total_bytes(order: &WireOrder) -> u64 {
    let of =
        |volumes: &[wire::VolumeSpec]| volumes.iter().fold(0, |sum: u64, volume| sum.saturating_add(volume.file_size));
    match order {
        WireOrder::Copy(order) => of(&order.volumes),
        WireOrder::ServeSource(order) => of(&order.volumes),
        WireOrder::Receive(order) => order.volume.as_ref().map_or(0, |volume| volume.file_size),
        WireOrder::Send(order) => order.volume.as_ref().map_or(0, |volume| volume.file_size),
        // Its own first progress tells.
        _ => 0,
    }
}

/// The chain's volumes; the last one is its leaf, unless all are a template's.
fn chain(volumes: &[wire::VolumeSpec], template: bool) -> Result<Vec<work::VolumeSpec>, Unreadable> {
    let count = volumes.len();
    let volume = |(n, spec): (usize, &wire::VolumeSpec)| {
        let role = match n + 1 == count {
            _ if template => VolumeRole::Shared,
            true => VolumeRole::Leaf,
            false => VolumeRole::Internal,
        };
        let sequence = u32::try_from(n + 1).map_err(|_| Unreadable("the chain is too long".to_owned()))?;
        volume_spec(spec, role, sequence)
    };
    volumes.iter().enumerate().map(volume).collect()
}

fn layer_spec(layer: &wire::Layer) -> Result<work::VolumeSpec, Unreadable> {
    let role = match layer.role() {
        wire::layer::Role::Leaf => VolumeRole::Leaf,
        wire::layer::Role::Internal => VolumeRole::Internal,
        wire::layer::Role::Shared => VolumeRole::Shared,
    };
    volume_spec(layer.volume.as_ref().ok_or_else(|| missing("a layer's volume"))?, role, layer.sequence)
}

fn layer_source(layer: &wire::Layer) -> Result<LayerSource, Unreadable> {
    Ok(match layer.from.as_ref().ok_or_else(|| missing("where a layer comes from"))? {
        wire::layer::From::Link(_) => LayerSource::Link,
        wire::layer::From::Fresh(_) => LayerSource::Fresh,
        wire::layer::From::Bytes(from) => LayerSource::Bytes { volume: id(&from.volume_id, "source volume")? },
        wire::layer::From::Flatten(from) => LayerSource::Flatten {
            volumes: from.volume_ids.iter().map(|volume| id(volume, "source volume")).collect::<Result<_, _>>()?,
        },
    })
}

/// Reads a placement as the catalog has it.
pub(crate) fn expected_placement(expected: &wire::ExpectedPlacement) -> Result<ExpectedPlacement, Unreadable> {
    Ok(ExpectedPlacement {
        placement: id(&expected.placement_id, "placement")?,
        token: expected.made_by_token.clone(),
        disk_name: expected.description.clone(),
        volumes: expected.layers.iter().map(layer_spec).collect::<Result<_, _>>()?,
    })
}

fn parent(spec: &wire::VolumeSpec) -> Result<Option<Uuid>, Unreadable> {
    (!spec.parent_id.is_empty()).then(|| id(&spec.parent_id, "parent volume")).transpose()
}

fn volume_spec(spec: &wire::VolumeSpec, role: VolumeRole, sequence: u32) -> Result<work::VolumeSpec, Unreadable> {
    Ok(work::VolumeSpec {
        volume: id(&spec.volume_id, "volume")?,
        format: format(spec)?,
        parent: parent(spec)?,
        role,
        sequence,
        virtual_bytes: virtual_bytes(spec)?,
        true_bytes: true_bytes(spec)?,
        preallocated: spec.preallocated,
        illegal: spec.illegal,
        expected_hash: hash(spec)?,
        announced_bytes: None,
    })
}

fn format(spec: &wire::VolumeSpec) -> Result<VolumeFormat, Unreadable> {
    match spec.format.as_str() {
        "raw" => Ok(VolumeFormat::Raw),
        "qcow2" => Ok(VolumeFormat::Qcow2),
        other => Err(Unreadable(format!("format {other:?} is not known"))),
    }
}

fn hash(spec: &wire::VolumeSpec) -> Result<Option<FileHash>, Unreadable> {
    if spec.blake3.is_empty() {
        return Ok(None);
    }
    let bytes =
        <[u8; 32]>::try_from(spec.blake3.as_ref()).map_err(|_| Unreadable("a hash is not 32 bytes".to_owned()))?;
    Ok(Some(FileHash(bytes)))
}

/// What a guest sees. The cluster keeps a raw volume's size before rounding.
fn virtual_bytes(spec: &wire::VolumeSpec) -> Result<Option<u64>, Unreadable> {
    Ok(match (spec.virtual_size, format(spec)?) {
        (0, _) => None,
        (bytes, VolumeFormat::Raw) => Some(bytes.checked_next_multiple_of(RAW_ROUNDING_BYTES).unwrap_or(bytes)),
        (bytes, VolumeFormat::Qcow2) => Some(bytes),
    })
}

fn true_bytes(spec: &wire::VolumeSpec) -> Result<Option<u64>, Unreadable> {
    let rounded = format(spec)? == VolumeFormat::Raw && !spec.virtual_size.is_multiple_of(RAW_ROUNDING_BYTES);
    Ok(rounded.then_some(spec.virtual_size))
}

fn sent_volume(spec: &wire::VolumeSpec) -> Result<SentVolume, Unreadable> {
    Ok(SentVolume { volume: id(&spec.volume_id, "volume")?, true_bytes: None, expected_hash: hash(spec)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdm_proto::ids::ClusterId;
    use sdm_proto::ids::PoolId;

    const ID: &str = "6f2f5b57-6b3c-4a5e-9a6e-111111111111";

    fn read(order: Option<WireOrder>) -> Result<Task, Unreadable> {
        let facts = SessionFacts { cluster: ClusterId::default(), pool: PoolId::default(), epoch: 3 };
        let assignment = wire::Assignment { token: "3-7-0".into(), attempt: 2, order, ..wire::Assignment::default() };
        Reading { facts: &facts, now_s: 1 }.task(&assignment)
    }

    fn domain(path: &str) -> Option<wire::DomainTarget> {
        Some(wire::DomainTarget { domain_id: ID.into(), path: path.into(), local: true })
    }

    fn volume(format: &str, virtual_size: u64) -> wire::VolumeSpec {
        wire::VolumeSpec { volume_id: ID.into(), format: format.into(), virtual_size, ..wire::VolumeSpec::default() }
    }

    fn copy() -> wire::CopyOrder {
        let target = wire::PlacementTarget { domain: domain("/b"), placement_id: ID.into(), ..Default::default() };
        wire::CopyOrder {
            target: Some(target),
            volumes: vec![volume("raw", 5000), volume("qcow2", 5000)],
            source_placement_id: ID.into(),
            ..wire::CopyOrder::default()
        }
    }

    #[test]
    fn a_copy_reads_its_source_itself_or_pulls_it() {
        let local = wire::CopyOrder { source_domain: domain("/a"), ..copy() };
        let task = read(Some(WireOrder::Copy(local))).unwrap();
        assert!(matches!(task.way, Way::Build(_)));
        assert_eq!(task.paths(), [PathBuf::from("/b"), PathBuf::from("/a")]);
        let pull = wire::CopyOrder { pull: Some(wire::PullSource::default()), ..copy() };
        assert!(matches!(read(Some(WireOrder::Copy(pull))).unwrap().way, Way::Pull { .. }));
        assert!(read(Some(WireOrder::Copy(copy()))).is_err());
    }

    #[test]
    fn the_last_volume_is_the_leaf_and_raw_sizes_are_rounded() {
        let chain = chain(&copy().volumes, false).unwrap();
        let facts: Vec<_> = chain.iter().map(|v| (v.role, v.sequence, v.virtual_bytes, v.true_bytes)).collect();
        assert_eq!(facts, [(VolumeRole::Internal, 1, Some(8192), Some(5000)), (VolumeRole::Leaf, 2, Some(5000), None)]);
    }

    #[test]
    fn an_import_takes_exactly_the_size_that_was_reserved() {
        let target = wire::PlacementTarget { domain: domain("/b"), placement_id: ID.into(), ..Default::default() };
        let spec = wire::VolumeSpec { file_size: 5000, ..volume("raw", 0) };
        let order = wire::ReceiveOrder { target: Some(target), volume: Some(spec), ticket: Default::default() };
        let task = read(Some(WireOrder::Receive(order))).unwrap();
        let Order::BuildPlacement(order) = task.way.order() else { panic!("an import builds a placement") };
        assert_eq!(order.placement.volumes[0].announced_bytes, Some(5000));
    }

    #[test]
    fn what_does_not_read_says_why() {
        assert!(read(None).is_err());
        let strange = wire::CopyOrder { volumes: vec![volume("vmdk", 1)], ..copy() };
        let error = read(Some(WireOrder::Copy(strange))).unwrap_err();
        assert!(error.to_string().contains("vmdk"), "{error}");
    }
}
