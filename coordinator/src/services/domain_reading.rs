//! What a worker read in a domain, held against the catalog: which placements are there, which are
//! not, and what nobody here knows. Only counts and the first few names stay; a domain may hold a
//! hundred thousand.

use sdm_proto::ids::ClusterId;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::TxnId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::found_image::Kind;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::catalog::Domain;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// Names that are told one by one.
const ITEMS_MAX: usize = 64;

/// Longest text about one name.
const WORDS_MAX: usize = 256;

/// A domain, read.
#[derive(Debug, Default)]
pub(super) struct DomainReading {
    /// Whose it is.
    pub(super) cluster: ClusterId,
    /// In which epoch that took it.
    pub(super) epoch: u64,
    worker: String,
    /// Placements of the catalog that were not seen yet, with their disks.
    expected: BTreeMap<PlacementId, DiskId>,
    found: Vec<DiskId>,
    missing: Vec<DiskId>,
    garbage_names: BTreeSet<String>,
    counts: Counts,
    items: Vec<v1::ReadingItem>,
    items_left_out: u64,
}

#[derive(Debug, Default)]
struct Counts {
    unknown: u64,
    garbage: u64,
    dot_names: u64,
    others: u64,
}

impl DomainReading {
    /// Before its first page.
    pub(super) fn begin(state: &State, domain: DomainId, worker: String) -> Self {
        let placements = state.placements.values().filter(|placement| placement.domain == domain);
        let garbage = state.garbage.values().filter(|garbage| garbage.place.domain == domain);
        let names = garbage.flat_map(|garbage| {
            let cluster = garbage.cluster.unwrap_or_else(|| state.cluster_id());
            let dots = [garbage.made_by.dot_name(cluster), garbage.id.dot_name(cluster)];
            dots.into_iter().chain(garbage.placement.map(|placement| placement.to_string()))
        });
        Self {
            worker,
            expected: placements.map(|placement| (placement.id, placement.disk)).collect(),
            garbage_names: names.collect(),
            ..Self::default()
        }
    }

    /// Takes a page in.
    ///
    /// # Errors
    /// It makes no sense.
    pub(super) fn take(&mut self, state: &State, page: wire::InspectDomainResponse) -> Result<(), Refusal> {
        self.cluster = page.cluster_id.parse().map_err(|_| {
            let message = format!("worker {} answered with no cluster", self.worker);
            Refusal::new(Class::Internal, "BAD_MESSAGE", message).hint("use the same version of sdm everywhere")
        })?;
        self.epoch = page.epoch;
        for image in page.images {
            self.see(state, &image);
        }
        Ok(())
    }

    fn see(&mut self, state: &State, image: &wire::FoundImage) {
        let name = image.name.as_str();
        let expected = name.parse::<PlacementId>().ok().and_then(|id| self.expected.remove(&id));
        if let Some(disk) = expected {
            return self.see_expected(state, image, disk);
        }
        if self.garbage_names.contains(name) {
            self.counts.garbage += 1;
            return;
        }
        match image.kind() {
            Kind::Placement => {
                self.counts.unknown += 1;
                self.tell("unknown", name, format!("made after the backup, by {}", whose(state, image)));
            }
            Kind::DotName => {
                self.counts.dot_names += 1;
                self.tell("dot-name", name, "being built or deleted when it was left".to_owned());
            }
            Kind::Other => {
                self.counts.others += 1;
                self.tell("other", name, image.words.clone());
            }
        }
    }

    fn see_expected(&mut self, state: &State, image: &wire::FoundImage, disk: DiskId) {
        let row = state.disks.get(&disk);
        let there: BTreeSet<&str> = image.volume_ids.iter().map(String::as_str).collect();
        let lacks = row.and_then(|row| row.volumes.iter().find(|id| !there.contains(id.to_string().as_str())));
        let what = match (image.kind(), lacks) {
            (Kind::Placement, None) => return self.found.push(disk),
            (Kind::Placement, Some(volume)) => format!("volume {volume} is not there"),
            _ => image.words.clone(),
        };
        self.missing.push(disk);
        self.tell("missing", &image.name, format!("disk {}: {what}", disk_word(state, disk)));
    }

    /// After the last page: what was not seen is missing.
    pub(super) fn finish(mut self, state: &State) -> Self {
        for (placement, disk) in std::mem::take(&mut self.expected) {
            self.missing.push(disk);
            self.tell("missing", &placement.to_string(), format!("disk {}: nothing is there", disk_word(state, disk)));
        }
        self
    }

    fn tell(&mut self, kind: &str, name: &str, words: String) {
        if self.items.len() >= ITEMS_MAX {
            self.items_left_out += 1;
            return;
        }
        let description = words.chars().take(WORDS_MAX).collect();
        self.items.push(v1::ReadingItem { kind: kind.to_owned(), name: name.to_owned(), description });
    }

    /// Disks that become illegal, and those that become legal again.
    pub(super) fn changed_disks(&self, state: &State) -> (Vec<DiskId>, Vec<DiskId>) {
        let changed = |disks: &[DiskId], legal: bool| {
            let differs = |id: &&DiskId| state.disks.get(id).is_some_and(|disk| state.is_legal(disk) != legal);
            disks.iter().filter(differs).copied().collect()
        };
        (changed(&self.missing, false), changed(&self.found, true))
    }

    /// For the operator.
    pub(super) fn told(&self, domain: &Domain, state: &str) -> v1::DomainReading {
        v1::DomainReading {
            domain_id: domain.id.to_string(),
            name: domain.name.to_string(),
            path: domain.path.clone(),
            state: state.to_owned(),
            worker: self.worker.clone(),
            found_cluster_id: self.cluster.to_string(),
            found_epoch: self.epoch,
            known: self.found.len() as u64,
            missing: self.missing.len() as u64,
            unknown: self.counts.unknown,
            garbage: self.counts.garbage,
            dot_names: self.counts.dot_names,
            others: self.counts.others,
            items: self.items.clone(),
            items_left_out: self.items_left_out,
            ..Default::default()
        }
    }
}

fn disk_word(state: &State, disk: DiskId) -> String {
    state.disks.get(&disk).map_or_else(|| disk.to_string(), |row| row.name.to_string())
}

fn whose(state: &State, image: &wire::FoundImage) -> String {
    let txn = image.transaction_id.parse::<TxnId>().ok().and_then(|id| state.txns.get(&id));
    match txn {
        Some(txn) => format!("transaction {} ({})", txn.id, txn.summary),
        None => format!("transaction {} of cluster {}", image.transaction_id, image.cluster_id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    fn placement(sample: &Sample, volumes: bool) -> wire::FoundImage {
        let disk = sample.disk("web-01");
        wire::FoundImage {
            name: disk.placement.to_string(),
            kind: Kind::Placement.into(),
            volume_ids: disk.volumes.iter().filter(|_| volumes).map(ToString::to_string).collect(),
            ..Default::default()
        }
    }

    fn read(sample: &Sample, images: Vec<wire::FoundImage>) -> v1::DomainReading {
        let domain = sample.domain("nfs1").clone();
        let mut reading = DomainReading::begin(&sample.state, domain.id, "a".to_owned());
        let cluster_id = sample.state.cluster_id().to_string();
        let page = wire::InspectDomainResponse { cluster_id, epoch: 1, images, ..Default::default() };
        reading.take(&sample.state, page).unwrap();
        reading.finish(&sample.state).told(&domain, "read")
    }

    #[test]
    fn a_placement_is_known_when_its_volumes_are_there_and_missing_otherwise() {
        let sample = Sample::with_disk();
        let told = read(&sample, vec![placement(&sample, true)]);
        assert_eq!((told.known, told.missing, told.items.len()), (1, 0, 0));
        let told = read(&sample, vec![placement(&sample, false)]);
        assert_eq!((told.known, told.missing), (0, 1));
        assert!(told.items[0].description.contains("web-01"), "{:?}", told.items);
        let told = read(&sample, Vec::new());
        assert_eq!((told.known, told.missing), (0, 1));
    }

    #[test]
    fn what_the_catalog_does_not_know_is_told_apart_and_bounded() {
        let mut sample = Sample::with_disk();
        let known = placement(&sample, true);
        sample.delete("web-01");
        let strange = |kind: Kind, name: String| wire::FoundImage { name, kind: kind.into(), ..Default::default() };
        let mut images = vec![known, strange(Kind::DotName, ".sdm-9-9-9-0".to_owned())];
        images.push(strange(Kind::Other, "notes.txt".to_owned()));
        images.extend((0..100).map(|n| strange(Kind::Placement, format!("{n}"))));
        let told = read(&sample, images);
        assert_eq!((told.garbage, told.dot_names, told.others, told.unknown), (1, 1, 1, 100));
        assert_eq!((told.items.len(), told.items_left_out), (ITEMS_MAX, 102 - ITEMS_MAX as u64));
    }
}
