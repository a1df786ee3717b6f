//! What the state orders, as messages to a worker. One to one; nothing is added or decided.

use sdm_proto::ids::VolumeId;
use sdm_proto::wire::internal::v1;
use sdm_proto::wire::internal::v1::assignment::Order as WireOrder;
use sdm_proto::wire::internal::v1::layer::From as WireFrom;
use sdm_state::assignments::Assignment;
use sdm_state::assignments::BuildSource;
use sdm_state::assignments::CopySource;
use sdm_state::assignments::From;
use sdm_state::assignments::Layer;
use sdm_state::assignments::NewPlacement;
use sdm_state::assignments::Order;
use sdm_state::assignments::Target;
use sdm_state::catalog::Volume;

/// An assignment.
pub(super) fn assignment(assignment: &Assignment) -> v1::Assignment {
    v1::Assignment {
        token: assignment.token.to_string(),
        transaction_id: assignment.txn.to_string(),
        attempt: assignment.attempt,
        stop: assignment.stop,
        order: Some(order(&assignment.order)),
    }
}

/// A domain to work in or to look at.
pub(super) fn domain(target: &Target) -> v1::DomainTarget {
    v1::DomainTarget { domain_id: target.domain.to_string(), path: target.path.clone(), local: target.local }
}

fn order(order: &Order) -> WireOrder {
    match order {
        Order::CreateDomain { target, name, dot_name } => WireOrder::CreateDomain(v1::CreateDomainOrder {
            domain: Some(domain(target)),
            name: name.clone(),
            dot_name: dot_name.clone(),
        }),
        Order::CreateDisk { new, volumes } => WireOrder::CreateDisk(v1::CreateDiskOrder {
            target: Some(placement(new)),
            volumes: volumes.iter().map(volume).collect(),
        }),
        Order::Copy { new, volumes, source_placement, source } => {
            let (source_domain, pull) = match source {
                CopySource::Local(target) => (Some(domain(target)), None),
                CopySource::Pull { address, ticket } => {
                    (None, Some(v1::PullSource { address: address.clone(), ticket: ticket.clone().into() }))
                }
            };
            WireOrder::Copy(v1::CopyOrder {
                target: Some(placement(new)),
                volumes: volumes.iter().map(volume).collect(),
                source_placement_id: source_placement.to_string(),
                source_domain,
                pull,
            })
        }
        Order::Receive { new, volume: row, ticket } => WireOrder::Receive(v1::ReceiveOrder {
            target: Some(placement(new)),
            volume: Some(volume(row)),
            ticket: ticket.clone().into(),
        }),
        Order::Send { source, placement, volume: row, chain, ticket } => WireOrder::Send(v1::SendOrder {
            domain: Some(domain(source)),
            placement_id: placement.to_string(),
            volume: Some(volume(row)),
            chain: chain.iter().map(volume).collect(),
            ticket: ticket.clone().into(),
        }),
        Order::ServeSource { source, placement, volumes, ticket } => WireOrder::ServeSource(v1::ServeSourceOrder {
            domain: Some(domain(source)),
            placement_id: placement.to_string(),
            volumes: volumes.iter().map(volume).collect(),
            ticket: ticket.clone().into(),
        }),
        Order::Delete { target, dot_name, placement, made_by, deletion_dot_name, whole_domain } => {
            WireOrder::Delete(v1::DeleteOrder {
                domain: Some(domain(target)),
                dot_name: dot_name.clone(),
                placement_id: placement.map(|placement| placement.to_string()).unwrap_or_default(),
                made_by_token: made_by.to_string(),
                deletion_dot_name: deletion_dot_name.clone(),
                whole_domain: *whole_domain,
            })
        }
        Order::Build { new, source, layers, shared, rebase } => {
            let build = v1::BuildOrder {
                target: Some(placement(new)),
                source: source.as_ref().map(build_source),
                layers: (0..).zip(layers).map(|(at, row)| layer(new.template, layers.len(), at, row, shared)).collect(),
            };
            match rebase {
                None => WireOrder::Build(build),
                Some(volume) => {
                    WireOrder::BuildRebased(v1::BuildRebasedOrder { build: Some(build), volume_id: volume.to_string() })
                }
            }
        }
        Order::Resize { target, placement, made_by, volume: row, new_size } => WireOrder::Resize(v1::ResizeOrder {
            domain: Some(domain(target)),
            placement_id: placement.to_string(),
            made_by_token: made_by.to_string(),
            disk_id: row.disk.to_string(),
            volume: Some(volume(row)),
            new_size: *new_size,
        }),
        Order::Merge { target, placement, made_by, disk, volumes, settle_only } => {
            WireOrder::MergeInPlace(v1::MergeInPlaceOrder {
                domain: Some(domain(target)),
                placement_id: placement.to_string(),
                made_by_token: made_by.to_string(),
                disk_id: disk.to_string(),
                volumes: volumes.iter().map(volume).collect(),
                settle_only: *settle_only,
            })
        }
        Order::Project {
            target,
            placement,
            made_by,
            disk,
            description,
            disk_description,
            template,
            volumes,
            shared,
        } => WireOrder::Project(v1::ProjectOrder {
            domain: Some(domain(target)),
            placement_id: placement.to_string(),
            made_by_token: made_by.to_string(),
            disk_id: disk.to_string(),
            description: description.clone(),
            disk_description: disk_description.clone(),
            template: *template,
            layers: placed_chain(*template, volumes, shared),
        }),
        Order::RenameDomain { target, name } => {
            WireOrder::RenameDomain(v1::RenameDomainOrder { domain: Some(domain(target)), name: name.clone() })
        }
        Order::DetachDomain { target, catalog } => WireOrder::DetachDomain(v1::DetachDomainOrder {
            domain: Some(domain(target)),
            // Rows of plain values: that they encode is shown by every detach in every test.
            catalog: serde_json::to_string(catalog).unwrap_or_default(),
        }),
        Order::WriteCatalog { target, catalog } => WireOrder::WriteCatalog(v1::WriteCatalogOrder {
            domain: Some(domain(target)),
            piece: catalog.piece,
            catalog: serde_json::to_string(catalog).unwrap_or_default(),
        }),
        Order::ReadCatalog { target, piece } => {
            WireOrder::ReadCatalog(v1::ReadCatalogOrder { domain: Some(domain(target)), piece: *piece })
        }
        Order::AttachDomain { target, name, catalog } => WireOrder::AttachDomain(v1::AttachDomainOrder {
            domain: Some(domain(target)),
            name: name.clone(),
            foreign: false,
            catalog_blake3: catalog.clone(),
        }),
        Order::FormatDomain { target, dot_name, emptied } => WireOrder::FormatDomain(v1::FormatDomainOrder {
            domain: Some(domain(target)),
            dot_name: dot_name.clone(),
            unknown_names_too: false,
            emptied: *emptied,
        }),
        Order::Noop => WireOrder::Noop(v1::NoopOrder {}),
    }
}

fn build_source(source: &BuildSource) -> v1::BuildSource {
    let (domain, pull) = match &source.source {
        CopySource::Local(target) => (Some(domain(target)), None),
        CopySource::Pull { address, ticket } => {
            (None, Some(v1::PullSource { address: address.clone(), ticket: ticket.clone().into() }))
        }
    };
    let volumes = source.volumes.iter().map(volume).collect();
    v1::BuildSource { placement_id: source.placement.to_string(), volumes, domain, pull }
}

/// A volume's place in its chain.
fn place(template: bool, chain: usize, at: usize, row: &Volume, shared: &[VolumeId]) -> v1::Layer {
    let role = match at + 1 == chain {
        _ if template => v1::layer::Role::Shared,
        true => v1::layer::Role::Leaf,
        false if shared.contains(&row.id) => v1::layer::Role::Shared,
        false => v1::layer::Role::Internal,
    };
    let sequence = u32::try_from(at + 1).unwrap_or(u32::MAX);
    v1::Layer { volume: Some(volume(row)), role: role.into(), sequence, from: None }
}

/// A disk's chain, root first, as workers are told of what is there; those that are shared stand in several folders.
pub(crate) fn placed_chain(template: bool, volumes: &[Volume], shared: &[VolumeId]) -> Vec<v1::Layer> {
    volumes.iter().enumerate().map(|(at, row)| place(template, volumes.len(), at, row, shared)).collect()
}

fn layer(template: bool, chain: usize, at: usize, row: &Layer, shared: &[VolumeId]) -> v1::Layer {
    let from = match &row.from {
        From::Link => WireFrom::Link(v1::LinkLayer {}),
        From::Fresh => WireFrom::Fresh(v1::FreshLayer {}),
        From::Bytes(volume) => WireFrom::Bytes(v1::BytesLayer { volume_id: volume.to_string() }),
        From::Flatten(volumes) => {
            WireFrom::Flatten(v1::FlattenLayer { volume_ids: volumes.iter().map(ToString::to_string).collect() })
        }
    };
    v1::Layer { from: Some(from), ..place(template, chain, at, &row.volume, shared) }
}

fn placement(new: &NewPlacement) -> v1::PlacementTarget {
    v1::PlacementTarget {
        domain: Some(domain(&new.target)),
        dot_name: new.dot_name.clone(),
        placement_id: new.placement.to_string(),
        disk_id: new.disk.to_string(),
        description: new.description.clone(),
        disk_description: new.disk_description.clone(),
        template: new.template,
    }
}

fn volume(volume: &Volume) -> v1::VolumeSpec {
    v1::VolumeSpec {
        volume_id: volume.id.to_string(),
        format: volume.format.word().to_owned(),
        virtual_size: volume.virtual_size,
        file_size: volume.file_size,
        allocated_bytes: volume.allocated_bytes,
        parent_id: volume.parent.map(|parent| parent.to_string()).unwrap_or_default(),
        blake3: volume.blake3.map(|hash| hash.to_vec()).unwrap_or_default().into(),
        preallocated: volume.preallocated,
        illegal: !volume.legal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;
    use sdm_proto::ids::WorkerId;
    use sdm_state::Command;
    use sdm_state::txns::Spec;

    fn orders(sample: &Sample, worker: WorkerId) -> Vec<v1::Assignment> {
        sample.state.assignments(worker, 10).iter().map(assignment).collect()
    }

    fn only(sample: &Sample, label: &str) -> (v1::Assignment, WireOrder) {
        let mut all = orders(sample, sample.worker(label).identity.id);
        assert_eq!(all.len(), 1, "{all:?}");
        let order = all[0].order.take().unwrap();
        (all.remove(0), order)
    }

    #[test]
    fn a_move_within_one_worker_names_source_target_and_hash() {
        let mut sample = Sample::with_disk();
        let txn = sample.begin_move("web-01", "nfs2");
        let (assignment, WireOrder::Copy(copy)) = only(&sample, "a") else { panic!("a copy") };
        assert_eq!((assignment.transaction_id, assignment.attempt), (txn.to_string(), 1));
        let target = copy.target.unwrap();
        let token: sdm_proto::token::Token = assignment.token.parse().unwrap();
        let cluster = sample.state.cluster_id();
        assert_eq!(target.dot_name, token.dot_name(cluster));
        assert_eq!(target.placement_id, token.placement(cluster).to_string());
        assert_eq!(target.domain.unwrap().domain_id, sample.domain("nfs2").id.to_string());
        assert_eq!(copy.source_domain.unwrap().path, "/srv/nfs1");
        assert_eq!(copy.source_placement_id, sample.disk("web-01").placement.to_string());
        assert!(copy.pull.is_none());
        assert_eq!(copy.volumes[0].blake3.as_ref(), [7; 32]);
    }

    #[test]
    fn a_pull_is_two_orders_with_one_ticket() {
        let mut sample = Sample::with_disk();
        sample.arrive("b");
        sample.see("b", "nfs2", None);
        sample.see("a", "nfs2", Some("not mounted"));
        sample.begin_move("web-01", "nfs2");
        let (pulling, WireOrder::Copy(copy)) = only(&sample, "b") else { panic!("a copy") };
        let (serving, WireOrder::ServeSource(serve)) = only(&sample, "a") else { panic!("a source") };
        assert_eq!(pulling.token, serving.token);
        let pull = copy.pull.unwrap();
        assert_eq!((pull.address.as_str(), &pull.ticket), ("a.example:7401", &serve.ticket));
        assert!(copy.source_domain.is_none() && !serve.ticket.is_empty());
        assert_eq!(serve.placement_id, copy.source_placement_id);
    }

    #[test]
    fn an_import_is_to_be_received_and_an_export_to_be_sent() {
        let mut sample = Sample::with_disk();
        sample.begin_import("db-01", "nfs1");
        let (_, WireOrder::Receive(receive)) = only(&sample, "a") else { panic!("to be received") };
        assert_eq!((receive.volume.unwrap().file_size, receive.ticket.len()), (1 << 20, 16));
        assert_eq!(receive.target.unwrap().description, "db-01");
        let mut sample = Sample::with_disk();
        sample.begin_export("web-01");
        let (_, WireOrder::Send(send)) = only(&sample, "a") else { panic!("to be sent") };
        assert_eq!(send.placement_id, sample.disk("web-01").placement.to_string());
    }

    #[test]
    fn a_deletion_names_what_was_made_and_what_it_must_carry() {
        let mut sample = Sample::with_disk();
        let placement = sample.disk("web-01").placement;
        let made_by = sample.state.placements.get(&placement).unwrap().token;
        sample.delete("web-01");
        sample.collect();
        let (_, WireOrder::Delete(delete)) = only(&sample, "a") else { panic!("a deletion") };
        assert_eq!((delete.placement_id, delete.made_by_token), (placement.to_string(), made_by.to_string()));
        assert_eq!(delete.dot_name, made_by.dot_name(sample.state.cluster_id()));
        assert!(delete.deletion_dot_name.starts_with(".sdm-") && delete.deletion_dot_name != delete.dot_name);
        assert!(!delete.whole_domain);
    }

    #[test]
    fn a_snapshot_is_built_of_links_and_a_new_leaf_and_a_growing_leaf_says_how_far() {
        let mut sample = with_chains();
        let row = sample.disk("web-01").clone();
        let (name, description) = ("s1".parse().unwrap(), "words".to_owned());
        sample.begin(Spec::CreateSnapshot { disk: row.id, name, description });
        let (_, WireOrder::Build(build)) = only(&sample, "a") else { panic!("a placement of layers") };
        let source = build.source.unwrap();
        assert_eq!(source.placement_id, row.placement.to_string());
        assert_eq!((source.domain.unwrap().path.as_str(), source.pull), ("/srv/nfs1", None));
        let [base, leaf] = &build.layers[..] else { panic!("{:?}", build.layers) };
        assert_eq!((base.from.clone(), base.role(), base.sequence), layer_of(WireFrom::Link(v1::LinkLayer {}), 0, 1));
        assert_eq!((leaf.from.clone(), leaf.role(), leaf.sequence), layer_of(WireFrom::Fresh(v1::FreshLayer {}), 1, 2));
        let (base, leaf) = (base.volume.clone().unwrap(), leaf.volume.clone().unwrap());
        assert_eq!((leaf.parent_id, leaf.format.as_str()), (base.volume_id, "qcow2"));

        let mut sample = with_chains();
        sample.begin(Spec::ResizeDisk { disk: row.id, size: 1 << 30 });
        let (_, WireOrder::Resize(resize)) = only(&sample, "a") else { panic!("a leaf that grows") };
        assert_eq!((resize.placement_id, resize.new_size), (row.placement.to_string(), 1 << 30));
        assert_eq!(resize.volume.unwrap().volume_id, row.volumes[0].to_string());
    }

    /// With a disk, in a cluster that knows chains.
    fn with_chains() -> Sample {
        let mut sample = Sample::with_disk();
        let (version, feature_level_max) = ("0.1.0".to_owned(), 2);
        sample.apply(Command::ReportMember { id: 1, version, feature_level_max });
        sample.apply(Command::RaiseFeatureLevel { level: 2 });
        sample
    }

    fn layer_of(from: WireFrom, role: i32, sequence: u32) -> (Option<WireFrom>, v1::layer::Role, u32) {
        (Some(from), v1::layer::Role::try_from(role).unwrap(), sequence)
    }

    #[test]
    fn what_a_placement_is_to_say_carries_name_words_and_legality() {
        let mut sample = with_chains();
        let row = sample.disk("web-01").clone();
        sample.begin(Spec::SetVolumeLegality { disk: row.id, volume: row.volumes[0], legal: false });
        let (_, WireOrder::Project(project)) = only(&sample, "a") else { panic!("words") };
        assert_eq!((project.placement_id, project.description.as_str()), (row.placement.to_string(), "web-01"));
        let [leaf] = &project.layers[..] else { panic!("{:?}", project.layers) };
        assert_eq!((leaf.role(), &leaf.from), (v1::layer::Role::Leaf, &None));
        assert!(leaf.volume.clone().unwrap().illegal);
    }

    #[test]
    fn a_new_domain_and_a_new_disk_say_where() {
        let mut sample = Sample::new();
        sample.begin_domain("nfs3");
        let (_, WireOrder::CreateDomain(create)) = only(&sample, "a") else { panic!("a domain") };
        assert_eq!((create.name.as_str(), create.domain.unwrap().path.as_str()), ("nfs3", "/srv/nfs3"));
        let mut sample = Sample::new();
        sample.begin_disk("web-02");
        let (_, WireOrder::CreateDisk(create)) = only(&sample, "a") else { panic!("a disk") };
        assert_eq!((create.volumes.len(), create.volumes[0].format.as_str()), (1, "raw"));
    }
}
