//! Placements that are built, read: copies and chains, from storage that this worker reaches or from another worker.

use super::assignment::Reading;
use super::assignment::Unreadable;
use super::assignment::id;
use super::assignment::missing;
use super::task::Way;
use super::volume_spec::hash;
use super::volume_spec::layer_source;
use super::volume_spec::layer_spec;
use super::volume_spec::source_volume;
use crate::work::BuildChain;
use crate::work::BuildPlacement;
use crate::work::LayerSource;
use crate::work::LocalPlacement;
use crate::work::MergeInPlace;
use crate::work::NewPlacement;
use crate::work::Order;
use crate::work::Source;
use crate::work::SourceChain;
use sdm_proto::wire::internal::v1 as wire;
use uuid::Uuid;

impl Reading<'_> {
    /// A copy of volumes as they are.
    pub(super) fn copy(&self, assignment: &wire::Assignment, order: &wire::CopyOrder) -> Result<Way, Unreadable> {
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

    /// A chain, layer by layer.
    pub(super) fn build(&self, assignment: &wire::Assignment, order: &wire::BuildOrder) -> Result<Way, Unreadable> {
        self.build_over(assignment, order, None)
    }

    /// A chain, one of whose volumes is made to lie over another one first.
    pub(super) fn build_rebased(
        &self,
        assignment: &wire::Assignment,
        order: &wire::BuildRebasedOrder,
    ) -> Result<Way, Unreadable> {
        let build = order.build.as_ref().ok_or_else(|| missing("what is built"))?;
        if build.source.as_ref().is_none_or(|source| source.pull.is_some()) {
            return Err(Unreadable("a volume can be changed only where its source is read".to_owned()));
        }
        self.build_over(assignment, build, Some(id(&order.volume_id, "volume")?))
    }

    fn build_over(
        &self,
        assignment: &wire::Assignment,
        order: &wire::BuildOrder,
        rebase: Option<Uuid>,
    ) -> Result<Way, Unreadable> {
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
        let order = Order::BuildChain(BuildChain { placement, source, layers, rebase });
        Ok(if is_short { Way::Step(order) } else { Way::Build(order) })
    }

    /// A layer's content, into the one above it in place.
    pub(super) fn merge_in_place(&self, order: &wire::MergeInPlaceOrder) -> Result<MergeInPlace, Unreadable> {
        Ok(MergeInPlace {
            domain: self.required_root(order.domain.as_ref())?,
            placement: id(&order.placement_id, "placement")?,
            token: order.made_by_token.clone(),
            volumes: order.volumes.iter().map(source_volume).collect::<Result<_, _>>()?,
            settle_only: order.settle_only,
        })
    }

    fn source_chain(&self, source: &wire::BuildSource) -> Result<SourceChain, Unreadable> {
        Ok(SourceChain {
            at: LocalPlacement {
                domain: self.required_root(source.domain.as_ref())?,
                placement: id(&source.placement_id, "source placement")?,
                token: String::new(),
            },
            volumes: source.volumes.iter().map(source_volume).collect::<Result<_, _>>()?,
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

#[cfg(test)]
pub(super) mod tests {
    use super::super::assignment::tests::ID;
    use super::super::assignment::tests::domain;
    use super::super::assignment::tests::read;
    use super::super::assignment::tests::volume;
    use super::*;
    use crate::work::VolumeRole;
    use sdm_proto::wire::internal::v1::assignment::Order as WireOrder;
    use sdm_proto::wire::internal::v1::layer::From as WireFrom;
    use std::path::PathBuf;

    pub(in crate::supervisor) fn copy() -> wire::CopyOrder {
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

    pub(in crate::supervisor) fn layer(from: Option<WireFrom>, role: wire::layer::Role, sequence: u32) -> wire::Layer {
        let spec = wire::VolumeSpec {
            parent_id: if sequence > 1 { ID.into() } else { String::new() },
            ..volume("qcow2", 8192)
        };
        wire::Layer { volume: Some(spec), role: role.into(), sequence, from }
    }

    pub(in crate::supervisor) fn build(layers: Vec<wire::Layer>) -> wire::BuildOrder {
        let target = wire::PlacementTarget { domain: domain("/b"), placement_id: ID.into(), ..Default::default() };
        let source = wire::BuildSource {
            placement_id: ID.into(),
            volumes: vec![volume("raw", 5000)],
            domain: domain("/a"),
            pull: None,
        };
        wire::BuildOrder { target: Some(target), source: Some(source), layers }
    }

    pub(in crate::supervisor) fn bytes() -> WireFrom {
        WireFrom::Bytes(wire::BytesLayer { volume_id: ID.into() })
    }

    #[test]
    fn a_chain_is_read_layer_by_layer_and_bytes_make_it_long() {
        use wire::layer::Role;
        let link = || Some(WireFrom::Link(wire::LinkLayer {}));
        let fresh = || Some(WireFrom::Fresh(wire::FreshLayer {}));
        let flatten = || Some(WireFrom::Flatten(wire::FlattenLayer { volume_ids: vec![ID.into(), ID.into()] }));
        let order = build(vec![layer(link(), Role::Shared, 1), layer(fresh(), Role::Leaf, 2)]);
        let task = read(Some(WireOrder::Build(order))).unwrap();
        let Way::Step(Order::BuildChain(order)) = &task.way else { panic!("links and empty files are a step") };
        assert_eq!(order.layers, [LayerSource::Link, LayerSource::Fresh]);
        let own = Uuid::try_parse(ID).unwrap();
        let facts: Vec<_> = order.placement.volumes.iter().map(|v| (v.role, v.sequence, v.parent)).collect();
        assert_eq!(facts, [(VolumeRole::Shared, 1, None), (VolumeRole::Leaf, 2, Some(own))]);
        assert_eq!(order.source.as_ref().map(|source| source.volumes.len()), Some(1));
        assert_eq!((order.placement.token.as_str(), task.attempt), ("3-7-0", 2));
        assert_eq!(task.paths(), [PathBuf::from("/b"), PathBuf::from("/a")]);
        let long = build(vec![layer(Some(bytes()), Role::Internal, 1), layer(flatten(), Role::Leaf, 2)]);
        let Way::Build(Order::BuildChain(order)) = read(Some(WireOrder::Build(long))).unwrap().way else {
            panic!("bytes take as long as they take")
        };
        assert_eq!(
            order.layers,
            [LayerSource::Bytes { volume: own }, LayerSource::Flatten { volumes: vec![own, own] }]
        );
        let mut preallocated = build(vec![layer(fresh(), Role::Leaf, 1)]);
        preallocated.layers[0].volume.as_mut().unwrap().preallocated = true;
        assert!(matches!(read(Some(WireOrder::Build(preallocated))).unwrap().way, Way::Build(_)));
    }

    #[test]
    fn a_chain_over_another_layer_is_an_order_of_its_own() {
        use wire::layer::Role;
        let link = || layer(Some(WireFrom::Link(wire::LinkLayer {})), Role::Leaf, 1);
        let rebased = |build, volume: &str| {
            read(Some(WireOrder::BuildRebased(wire::BuildRebasedOrder { build, volume_id: volume.into() })))
        };
        let Way::Step(Order::BuildChain(order)) = rebased(Some(build(vec![link()])), ID).unwrap().way else {
            panic!("links are a step")
        };
        assert_eq!(order.rebase, Uuid::try_parse(ID).ok());
        let Way::Step(Order::BuildChain(order)) = read(Some(WireOrder::Build(build(vec![link()])))).unwrap().way else {
            panic!("links are a step")
        };
        assert_eq!(order.rebase, None);
        assert!(rebased(Some(build(vec![link()])), "").is_err(), "which one is not guessed");
        assert!(rebased(None, ID).is_err());
        let mut pulled = build(vec![layer(Some(bytes()), Role::Leaf, 1)]);
        pulled.source.as_mut().unwrap().pull = Some(wire::PullSource::default());
        assert!(rebased(Some(pulled), ID).is_err(), "nobody could change it");
    }

    #[test]
    fn a_chain_that_is_pulled_brings_every_volume_as_bytes() {
        use wire::layer::Role;
        let pulled = |from| {
            let mut order = build(vec![layer(Some(from), Role::Leaf, 1)]);
            order.source.as_mut().unwrap().pull =
                Some(wire::PullSource { address: "h:1".into(), ..Default::default() });
            read(Some(WireOrder::Build(order)))
        };
        assert!(matches!(pulled(bytes()).unwrap().way, Way::Pull { address, .. } if address == "h:1"));
        assert!(pulled(WireFrom::Link(wire::LinkLayer {})).is_err());
        let mut more = build(vec![layer(Some(bytes()), Role::Leaf, 1)]);
        more.source.as_mut().unwrap().pull = Some(wire::PullSource::default());
        more.source.as_mut().unwrap().volumes.clear();
        assert!(read(Some(WireOrder::Build(more))).is_err());
    }
}
