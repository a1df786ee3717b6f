//! Reads an assignment: what the cluster says becomes a task. Whatever does not read is an answer of its own.

use super::task::Task;
use super::task::Way;
use super::volume_spec::chain;
use super::volume_spec::format;
use super::volume_spec::layer_spec;
use super::volume_spec::parent;
use super::volume_spec::sent_volume;
use super::volume_spec::source_volume;
use super::volume_spec::true_bytes;
use crate::gateway::SessionFacts;
use crate::work;
use crate::work::AttachDomain;
use crate::work::BuildPlacement;
use crate::work::CreateDisk;
use crate::work::CreateDomain;
use crate::work::DeleteDomain;
use crate::work::DeletePlacement;
use crate::work::DetachDomain;
use crate::work::DomainRoot;
use crate::work::FormatDomain;
use crate::work::Mounting;
use crate::work::NewPlacement;
use crate::work::Order;
use crate::work::ProjectPlacement;
use crate::work::ReadCatalog;
use crate::work::RenameDomain;
use crate::work::ResizeVolume;
use crate::work::SendPlacement;
use crate::work::SentVolume;
use crate::work::Source;
use crate::work::SourceVolume;
use crate::work::WriteCatalog;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::assignment::Order as WireOrder;
use std::path::PathBuf;
use uuid::Uuid;

/// The assignment cannot be read: a defect, or a member of another version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the assignment cannot be read: {0}")]
pub(crate) struct Unreadable(pub(super) String);

/// That a field is not there.
pub(super) fn missing(what: &str) -> Unreadable {
    Unreadable(format!("{what} is missing"))
}

/// A UUID.
pub(super) fn id(text: &str, what: &str) -> Result<Uuid, Unreadable> {
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

    pub(super) fn required_root(&self, target: Option<&wire::DomainTarget>) -> Result<DomainRoot, Unreadable> {
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
                let flattened = order.chain.iter().map(source_volume).collect::<Result<_, _>>()?;
                let order_read = self.send(order.domain.as_ref(), &order.placement_id, vec![sent], flattened)?;
                Way::Send { order: order_read, ticket: order.ticket.to_vec() }
            }
            WireOrder::ServeSource(order) => {
                let sent = order.volumes.iter().map(sent_volume).collect::<Result<_, _>>()?;
                Way::Serve {
                    order: self.send(order.domain.as_ref(), &order.placement_id, sent, Vec::new())?,
                    ticket: order.ticket.to_vec(),
                    volumes: order.volumes.iter().map(|volume| volume.volume_id.clone()).collect(),
                }
            }
            WireOrder::Delete(order) => Way::Step(self.delete(order)?),
            WireOrder::Build(order) => self.build(assignment, order)?,
            WireOrder::BuildRebased(order) => self.build_rebased(assignment, order)?,
            WireOrder::Resize(order) => Way::Step(Order::ResizeVolume(self.resize(assignment, order)?)),
            // As long as a copy.
            WireOrder::MergeInPlace(order) => Way::Build(Order::MergeInPlace(self.merge_in_place(order)?)),
            WireOrder::Project(order) => Way::Step(Order::ProjectPlacement(self.project(assignment, order)?)),
            WireOrder::RenameDomain(order) => Way::Step(Order::RenameDomain(RenameDomain {
                domain: self.required_root(order.domain.as_ref())?,
                description: order.name.clone(),
                attempt: assignment.token.clone(),
            })),
            WireOrder::DetachDomain(order) => Way::Step(Order::DetachDomain(DetachDomain {
                domain: self.required_root(order.domain.as_ref())?,
                catalog: order.catalog.clone(),
                attempt: assignment.token.clone(),
            })),
            WireOrder::WriteCatalog(order) => Way::Step(Order::WriteCatalog(WriteCatalog {
                domain: self.required_root(order.domain.as_ref())?,
                piece: order.piece,
                catalog: order.catalog.clone(),
            })),
            WireOrder::ReadCatalog(order) => Way::Step(Order::ReadCatalog(ReadCatalog {
                domain: self.required_root(order.domain.as_ref())?,
                piece: order.piece,
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
                mounting: mounting(order.domain.as_ref()),
                emptied: order.emptied,
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
        Ok(Order::CreateDomain(CreateDomain {
            domain: self.required_root(order.domain.as_ref())?,
            token: assignment.token.clone(),
            dot_name: order.dot_name.clone(),
            mounting: mounting(order.domain.as_ref()),
            description: order.name.clone(),
        }))
    }

    fn send(
        &self,
        domain: Option<&wire::DomainTarget>,
        placement: &str,
        volumes: Vec<SentVolume>,
        flattened: Vec<SourceVolume>,
    ) -> Result<Order, Unreadable> {
        Ok(Order::SendPlacement(SendPlacement {
            domain: self.required_root(domain)?,
            placement: id(placement, "placement")?,
            token: String::new(),
            volumes,
            flattened,
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
                mounting: mounting(order.domain.as_ref()),
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

    pub(super) fn placement(
        &self,
        assignment: &wire::Assignment,
        target: Option<&wire::PlacementTarget>,
        volumes: &[wire::VolumeSpec],
    ) -> Result<NewPlacement, Unreadable> {
        let target = target.ok_or_else(|| missing("the target"))?;
        self.new_placement(assignment, target, chain(volumes, target.template)?)
    }

    pub(super) fn new_placement(
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

    fn resize(&self, assignment: &wire::Assignment, order: &wire::ResizeOrder) -> Result<ResizeVolume, Unreadable> {
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
            attempt: assignment.token.clone(),
        })
    }

    fn project(
        &self,
        assignment: &wire::Assignment,
        order: &wire::ProjectOrder,
    ) -> Result<ProjectPlacement, Unreadable> {
        Ok(ProjectPlacement {
            domain: self.required_root(order.domain.as_ref())?,
            placement: id(&order.placement_id, "placement")?,
            token: order.made_by_token.clone(),
            disk_name: order.description.clone(),
            disk_description: order.disk_description.clone(),
            volumes: order.layers.iter().map(layer_spec).collect::<Result<_, _>>()?,
            attempt: assignment.token.clone(),
        })
    }
}

/// Whether the domain's path has to be a mount point.
fn mounting(domain: Option<&wire::DomainTarget>) -> Mounting {
    if domain.is_some_and(|domain| domain.local) { Mounting::Local } else { Mounting::Required }
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

#[cfg(test)]
pub(super) mod tests {
    use super::super::build_order::tests::build;
    use super::super::build_order::tests::bytes;
    use super::super::build_order::tests::copy;
    use super::super::build_order::tests::layer;
    use super::*;
    use crate::work::VolumeRole;
    use sdm_proto::ids::ClusterId;
    use sdm_proto::ids::PoolId;
    use sdm_proto::wire::internal::v1::layer::From as WireFrom;

    pub(in crate::supervisor) const ID: &str = "6f2f5b57-6b3c-4a5e-9a6e-111111111111";

    pub(in crate::supervisor) fn read(order: Option<WireOrder>) -> Result<Task, Unreadable> {
        let facts = SessionFacts { cluster: ClusterId::default(), pool: PoolId::default(), epoch: 3 };
        let assignment = wire::Assignment { token: "3-7-0".into(), attempt: 2, order, ..wire::Assignment::default() };
        Reading { facts: &facts, now_s: 1 }.task(&assignment)
    }

    pub(in crate::supervisor) fn domain(path: &str) -> Option<wire::DomainTarget> {
        Some(wire::DomainTarget { domain_id: ID.into(), path: path.into(), local: true })
    }

    pub(in crate::supervisor) fn volume(format: &str, virtual_size: u64) -> wire::VolumeSpec {
        wire::VolumeSpec { volume_id: ID.into(), format: format.into(), virtual_size, ..wire::VolumeSpec::default() }
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

    fn resize() -> wire::ResizeOrder {
        wire::ResizeOrder {
            domain: domain("/b"),
            placement_id: ID.into(),
            made_by_token: "3-2-0".into(),
            volume: Some(wire::VolumeSpec { preallocated: true, parent_id: ID.into(), ..volume("qcow2", 4096) }),
            new_size: 9000,
            ..Default::default()
        }
    }

    fn project() -> wire::ProjectOrder {
        wire::ProjectOrder {
            domain: domain("/b"),
            placement_id: ID.into(),
            made_by_token: "3-2-0".into(),
            description: "web-01".into(),
            disk_description: "the shop's".into(),
            layers: vec![layer(None, wire::layer::Role::Leaf, 1)],
            ..Default::default()
        }
    }

    #[test]
    fn what_is_changed_in_place_carries_who_made_it_and_who_changes_it() {
        let Way::Step(Order::ResizeVolume(read_resize)) = read(Some(WireOrder::Resize(resize()))).unwrap().way else {
            panic!("a step")
        };
        assert_eq!((read_resize.token.as_str(), read_resize.attempt.as_str()), ("3-2-0", "3-7-0"));
        assert_eq!((read_resize.virtual_bytes, read_resize.preallocated), (9000, true));
        assert_eq!(read_resize.parent, Uuid::try_parse(ID).ok());
        let Way::Step(Order::ProjectPlacement(words)) = read(Some(WireOrder::Project(project()))).unwrap().way else {
            panic!("a step")
        };
        assert_eq!((words.token.as_str(), words.attempt.as_str()), ("3-2-0", "3-7-0"));
        assert_eq!((words.disk_name.as_str(), words.disk_description.as_str()), ("web-01", "the shop's"));
        assert_eq!((words.volumes[0].virtual_bytes, words.volumes[0].role), (Some(8192), VolumeRole::Leaf));
    }

    #[test]
    fn values_that_this_version_does_not_know_are_refused_and_not_guessed() {
        use wire::layer::Role;
        let refused = |order: WireOrder, part: &str| {
            let error = read(Some(order)).unwrap_err().to_string();
            assert!(error.contains(part), "{error} does not name {part}");
        };
        let strange_role = wire::Layer { role: 7, ..layer(Some(bytes()), Role::Leaf, 1) };
        refused(WireOrder::Build(build(vec![strange_role.clone()])), "role 7");
        refused(WireOrder::Project(wire::ProjectOrder { layers: vec![strange_role], ..project() }), "role 7");
        refused(WireOrder::Build(build(vec![layer(None, Role::Leaf, 1)])), "where a layer comes from");
        let nameless = wire::Layer { volume: None, ..layer(Some(bytes()), Role::Leaf, 1) };
        refused(WireOrder::Build(build(vec![nameless])), "volume");
        let bad = WireFrom::Bytes(wire::BytesLayer { volume_id: "../etc".into() });
        refused(WireOrder::Build(build(vec![layer(Some(bad), Role::Leaf, 1)])), "etc");
        let format = |name: &str| wire::ResizeOrder { volume: Some(volume(name, 1)), ..resize() };
        refused(WireOrder::Resize(format("vmdk")), "vmdk");
        refused(WireOrder::Resize(wire::ResizeOrder { volume: None, ..resize() }), "volume");
        refused(WireOrder::Resize(wire::ResizeOrder { domain: None, ..resize() }), "domain");
        refused(WireOrder::Project(wire::ProjectOrder { placement_id: "x".into(), ..project() }), "placement");
        let hashed = wire::VolumeSpec { blake3: vec![1; 31].into(), ..volume("raw", 1) };
        let short_hash = wire::Layer { volume: Some(hashed), ..layer(Some(bytes()), Role::Leaf, 1) };
        refused(WireOrder::Build(build(vec![short_hash])), "32 bytes");
    }

    #[test]
    fn what_does_not_read_says_why() {
        assert!(read(None).is_err());
        let strange = wire::CopyOrder { volumes: vec![volume("vmdk", 1)], ..copy() };
        let error = read(Some(WireOrder::Copy(strange))).unwrap_err();
        assert!(error.to_string().contains("vmdk"), "{error}");
    }
}
