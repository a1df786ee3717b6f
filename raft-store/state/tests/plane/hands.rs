//! The hands: what a worker does to the naive storage when it is told an order, whole or in part, at once
//! or much later. Written from what the orders say, not from how workers do it.

use super::storage::BLOCK;
use super::storage::Blocks;
use super::storage::File;
use super::storage::Folder;
use super::storage::Storage;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::TxnId;
use sdm_proto::ids::VolumeId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;
use sdm_state::assignments::Assignment;
use sdm_state::assignments::BuildSource;
use sdm_state::assignments::CopySource;
use sdm_state::assignments::From;
use sdm_state::assignments::Layer;
use sdm_state::assignments::NewPlacement;
use sdm_state::assignments::Order;
use sdm_state::catalog::Volume;
use sdm_state::domain_catalog::DomainCatalog;
use sdm_state::work::Report;
use sdm_state::work::VolumeResult;
use std::collections::BTreeMap;

/// How far an attempt comes before it stops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reach {
    /// To its end.
    End,
    /// All is built, nothing has its published name.
    Unpublished,
}

/// An attempt: whose work it is goes into the mark of what it makes.
#[derive(Clone, Copy)]
struct Attempt {
    token: Token,
    txn: TxnId,
    reach: Reach,
}

/// What a catalog's mark names it by.
pub fn hash_of(catalog: &DomainCatalog) -> String {
    format!("detached at {}", catalog.detached_at)
}

/// What is to be read beside a placement's files.
pub fn words_of(disk: &str, about: &str, volumes: &[Volume]) -> String {
    let rows: Vec<String> = volumes
        .iter()
        .map(|row| format!("{} over {:?}, {} bytes, legal {}", row.id, row.parent, row.virtual_size, row.legal))
        .collect();
    format!("{disk} ({about}): {}", rows.join("; "))
}

/// Does it, and says how it ended; None for whoever only serves another one.
pub fn do_order(storage: &mut Storage, assignment: &Assignment, reach: Reach, sent: Option<&Blocks>) -> Option<Report> {
    let own = Attempt { token: assignment.token, txn: assignment.txn, reach };
    let done = match &assignment.order {
        Order::ServeSource { .. } => return None,
        Order::CreateDomain { target, name, .. } => {
            if reach == Reach::End {
                storage.domains.entry(target.domain).or_default().name.clone_from(name);
            }
            Ok(Vec::new())
        }
        Order::CreateDisk { new, volumes } => {
            let fresh: Vec<Layer> =
                volumes.iter().map(|volume| Layer { volume: volume.clone(), from: From::Fresh }).collect();
            build(storage, own, new, None, &fresh)
        }
        Order::Build { new, source, layers, .. } => build(storage, own, new, source.as_ref(), layers),
        Order::Copy { new, volumes, source_placement, source } => {
            copy(storage, own, new, volumes, (*source_placement, source))
        }
        Order::Receive { new, volume, .. } => receive(storage, own, new, volume, sent),
        Order::Send { source, placement, volume, .. } => {
            result(storage, source.domain, &placement.to_string(), volume).map(|result| vec![result])
        }
        Order::Resize { target, placement, made_by, volume, new_size } => {
            match grow(storage, target.domain, (*placement, *made_by), volume, *new_size) {
                Err("linked") => {
                    let refusal = Refusal::new(Class::Precondition, "VOLUME_SHARED", "an older folder links it");
                    return Some(Report::Refused(refusal));
                }
                grown => grown,
            }
        }
        Order::Merge { target, placement, made_by, volumes, settle_only, .. } => {
            merge(storage, target.domain, (*placement, *made_by), volumes, *settle_only)
        }
        Order::Project { target, placement, made_by, description, disk_description, volumes, .. } => {
            let words = words_of(description, disk_description, volumes);
            project(storage, target.domain, (*placement, *made_by), words)
        }
        Order::Delete { target, dot_name, placement, made_by, whole_domain, .. } => {
            let names = (dot_name.as_str(), *placement, *made_by);
            delete(storage, target.domain, names, *whole_domain)
        }
        Order::FormatDomain { target, .. } => {
            storage.domains.remove(&target.domain);
            Ok(Vec::new())
        }
        Order::RenameDomain { target, name } => {
            storage.open(target.domain).map(|place| place.name.clone_from(name)).map(|()| Vec::new())
        }
        Order::DetachDomain { target, catalog } => detach(storage, target.domain, catalog),
        Order::AttachDomain { target, name, catalog } => {
            let Some(place) = storage.domains.get_mut(&target.domain) else { return Some(failed("no such domain")) };
            if place.given_up.as_ref().is_some_and(|left| hash_of(left) != *catalog) {
                let refusal = Refusal::new(Class::Precondition, "CATALOG_CHANGED", "it was detached once more");
                return Some(Report::Refused(refusal));
            }
            place.given_up = None;
            place.name.clone_from(name);
            Ok(Vec::new())
        }
        _ => Ok(Vec::new()),
    };
    Some(match done {
        Ok(volumes) => Report::Done { volumes, bytes: BLOCK },
        Err(why) => failed(why),
    })
}

/// That a call to the storage failed.
pub fn failed(why: &str) -> Report {
    Report::Failed { reason: "IO_FAILED".into(), message: why.into(), hint: String::new() }
}

fn result(storage: &Storage, domain: DomainId, folder: &str, row: &Volume) -> Result<VolumeResult, &'static str> {
    let file = storage.file(domain, folder, row.id).ok_or("a file is missing")?;
    Ok(VolumeResult {
        volume: row.id,
        virtual_size: file.size,
        file_size: file.size,
        allocated_bytes: file.blocks.len() as u64 * BLOCK,
        blake3: Some(storage.hash(file)),
    })
}

/// Publishes what was built; what the same attempt published before is left as it is.
fn publish(
    storage: &mut Storage,
    own: Attempt,
    new: &NewPlacement,
    rows: &[Volume],
    files: BTreeMap<VolumeId, usize>,
) -> Result<Vec<VolumeResult>, &'static str> {
    let words = words_of(&new.description, &new.disk_description, rows);
    let place = storage.open(new.target.domain)?;
    let name = if own.reach == Reach::End { new.placement.to_string() } else { new.dot_name.clone() };
    place.folders.remove(&new.dot_name);
    place.folders.entry(name.clone()).or_insert(Folder { made_by: own.token, txn: own.txn, files, words });
    rows.iter().map(|row| result(storage, new.target.domain, &name, row)).collect()
}

fn build(
    storage: &mut Storage,
    own: Attempt,
    new: &NewPlacement,
    source: Option<&BuildSource>,
    layers: &[Layer],
) -> Result<Vec<VolumeResult>, &'static str> {
    storage.open(new.target.domain)?;
    let from = source.map(|source| source_of(storage, source.placement, &source.source)).transpose()?;
    let number = |id: &VolumeId| {
        from.as_ref().and_then(|folder: &Folder| folder.files.get(id)).copied().ok_or("the source lacks a file")
    };
    let mut files = BTreeMap::new();
    for layer in layers {
        let row = &layer.volume;
        let empty = File { format: row.format, size: row.virtual_size, backing: row.parent, blocks: BTreeMap::new() };
        let file = match &layer.from {
            From::Link => {
                // After a merge in place its header names what the merged layer lay over.
                let file = number(&row.id)?;
                storage.files[file].backing = row.parent;
                file
            }
            From::Fresh => storage.add(empty),
            From::Bytes(id) => {
                let copied = storage.files[number(id)?].clone();
                storage.add(copied)
            }
            From::Flatten(ids) => {
                let numbers = ids.iter().map(number).collect::<Result<Vec<_>, _>>()?;
                let read: Vec<&File> = numbers.iter().map(|number| &storage.files[*number]).collect();
                let blocks = storage.flattened(&read);
                storage.add(File { blocks, ..empty })
            }
        };
        files.insert(row.id, file);
    }
    let rows: Vec<Volume> = layers.iter().map(|layer| layer.volume.clone()).collect();
    let mut results = publish(storage, own, new, &rows, files)?;
    for (layer, result) in layers.iter().zip(&mut results) {
        // Nobody reads what is only linked.
        if matches!(layer.from, From::Link | From::Fresh) {
            result.blake3 = None;
        }
    }
    Ok(results)
}

/// The folder that is read; who serves it to whom makes no difference to its bytes.
fn source_of(storage: &mut Storage, placement: PlacementId, source: &CopySource) -> Result<Folder, &'static str> {
    let name = placement.to_string();
    let ours = |place: &&super::storage::Place| place.given_up.is_none() && place.folders.contains_key(&name);
    let place = match source {
        CopySource::Local(target) => storage.domains.get(&target.domain).filter(ours),
        CopySource::Pull { .. } => storage.domains.values().find(ours),
    };
    place.and_then(|place| place.folders.get(&name)).cloned().ok_or("the source is not there")
}

fn copy(
    storage: &mut Storage,
    own: Attempt,
    new: &NewPlacement,
    rows: &[Volume],
    (placement, source): (PlacementId, &CopySource),
) -> Result<Vec<VolumeResult>, &'static str> {
    storage.open(new.target.domain)?;
    let from = source_of(storage, placement, source)?;
    let mut files = BTreeMap::new();
    for row in rows {
        let copied = storage.files[*from.files.get(&row.id).ok_or("the source lacks a file")?].clone();
        files.insert(row.id, storage.add(copied));
    }
    publish(storage, own, new, rows, files)
}

fn receive(
    storage: &mut Storage,
    own: Attempt,
    new: &NewPlacement,
    row: &Volume,
    sent: Option<&Blocks>,
) -> Result<Vec<VolumeResult>, &'static str> {
    storage.open(new.target.domain)?;
    let blocks = sent.cloned().ok_or("nobody sends it")?;
    let file = storage.add(File { format: row.format, size: row.file_size, backing: None, blocks });
    // How much a guest sees is known only when it is there.
    let row = Volume { virtual_size: row.file_size, ..row.clone() };
    publish(storage, own, new, std::slice::from_ref(&row), BTreeMap::from([(row.id, file)]))
}

fn grow(
    storage: &mut Storage,
    domain: DomainId,
    (placement, made_by): (PlacementId, Token),
    row: &Volume,
    size: u64,
) -> Result<Vec<VolumeResult>, &'static str> {
    let name = placement.to_string();
    let place = storage.open(domain)?;
    let folder = place.folders.get(&name).filter(|folder| folder.made_by == made_by).ok_or("another folder")?;
    let number = *folder.files.get(&row.id).ok_or("the file is missing")?;
    if storage.links(number) > 1 {
        return Err("linked");
    }
    let file = &mut storage.files[number];
    file.size = file.size.max(size);
    Ok(vec![VolumeResult { blake3: None, ..result(storage, domain, &name, row)? }])
}

/// The topmost volume gets in place what it lacks of the one beneath it: what is seen through it stays the same.
fn merge(
    storage: &mut Storage,
    domain: DomainId,
    (placement, made_by): (PlacementId, Token),
    volumes: &[Volume],
    settle_only: bool,
) -> Result<Vec<VolumeResult>, &'static str> {
    let name = placement.to_string();
    let place = storage.open(domain)?;
    let folder = place.folders.get(&name).filter(|folder| folder.made_by == made_by).ok_or("another folder")?;
    let [.., base, top] = volumes else { return Err("two volumes are merged") };
    let number = |row: &Volume| folder.files.get(&row.id).copied().ok_or("the file is missing");
    let (base, child) = (number(base)?, number(top)?);
    if !settle_only {
        let blocks = storage.flattened(&[&storage.files[base], &storage.files[child]]);
        storage.files[child].blocks = blocks;
    }
    Ok(vec![VolumeResult { blake3: None, ..result(storage, domain, &name, top)? }])
}

fn project(
    storage: &mut Storage,
    domain: DomainId,
    (placement, made_by): (PlacementId, Token),
    words: String,
) -> Result<Vec<VolumeResult>, &'static str> {
    let place = storage.open(domain)?;
    let folder = place.folders.get_mut(&placement.to_string()).filter(|folder| folder.made_by == made_by);
    folder.ok_or("another folder")?.words = words;
    Ok(Vec::new())
}

fn delete(
    storage: &mut Storage,
    domain: DomainId,
    (dot_name, placement, made_by): (&str, Option<PlacementId>, Token),
    whole_domain: bool,
) -> Result<Vec<VolumeResult>, &'static str> {
    if whole_domain {
        storage.domains.remove(&domain);
        return Ok(Vec::new());
    }
    let place = storage.open(domain)?;
    place.folders.remove(dot_name);
    let name = placement.map(|id| id.to_string()).unwrap_or_default();
    if place.folders.get(&name).is_some_and(|folder| folder.made_by == made_by) {
        place.folders.remove(&name);
    }
    Ok(Vec::new())
}

fn detach(storage: &mut Storage, domain: DomainId, catalog: &DomainCatalog) -> Result<Vec<VolumeResult>, &'static str> {
    let place = storage.domains.get_mut(&domain).ok_or("no such domain")?;
    if place.given_up.as_ref().is_some_and(|left| left.detached_at != catalog.detached_at) {
        return Err("it was given up before");
    }
    place.given_up = Some(catalog.clone());
    Ok(Vec::new())
}

/// A guest writes a block of the file that its host has open.
pub fn guest_writes(storage: &mut Storage, file: usize, block: u64, write: u64) -> bool {
    let Some(file) = storage.files.get_mut(file).filter(|file| block < file.size / BLOCK) else { return false };
    _ = file.blocks.insert(block, write);
    true
}
