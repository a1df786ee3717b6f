//! The power is cut at each call in turn, on simulated storage that forgets what was not synced, and keeps a random part
//! of it: what is left is the old or the new, never half of either, and the same order goes on from it.

mod fixture;

use std::path::Path;

use fixture::VOLUME;
use fixture::create_disk;
use fixture::create_domain;
use fixture::done;
use fixture::placed;
use fixture::placement;
use fixture::root;
use sdm_storage_worker::domain::Domain;
use sdm_storage_worker::driver::DomainDriver;
use sdm_storage_worker::driver::DomainFile;
use sdm_storage_worker::driver::EntryPath;
use sdm_storage_worker::driver::OpenHow;
use sdm_storage_worker::driver::SimulatedStorage;
use sdm_storage_worker::volume::qcow2::Backing;
use sdm_storage_worker::volume::qcow2::check_layer;
use sdm_storage_worker::work::BuildChain;
use sdm_storage_worker::work::CancelFlag;
use sdm_storage_worker::work::DomainRoot;
use sdm_storage_worker::work::LayerSource;
use sdm_storage_worker::work::LocalPlacement;
use sdm_storage_worker::work::Order;
use sdm_storage_worker::work::Outcome;
use sdm_storage_worker::work::Ports;
use sdm_storage_worker::work::ResizeVolume;
use sdm_storage_worker::work::SourceChain;
use sdm_storage_worker::work::SourceVolume;
use sdm_storage_worker::work::VolumeFormat;
use sdm_storage_worker::work::VolumeRole;
use sdm_storage_worker::work::run_on;
use uuid::Uuid;

const MIB: u64 = 1 << 20;
const LEAF: Uuid = Uuid::from_u128(0x5002);

async fn execute(storage: &SimulatedStorage, order: Order) -> Outcome {
    run_on(storage, order, Ports::silent()).await
}

/// A storage with a domain and a qcow2 disk of two layers in placement 1.
async fn stage() -> (SimulatedStorage, DomainRoot) {
    let storage = SimulatedStorage::new();
    let domain = root(Path::new("/srv"), 1);
    storage.mount(&domain.path).expect("a mount");
    done(execute(&storage, Order::CreateDomain(create_domain(domain.clone()))).await);
    placed(execute(&storage, build(&domain, 1, [LayerSource::Fresh, LayerSource::Fresh], None)).await);
    let opened = Domain::open(&storage, &domain).await.expect("it opens");
    for volume in [VOLUME, LEAF] {
        let file = opened.change_volume(Uuid::from_u128(0xF000_0001), volume).await.expect("a volume");
        let layer = write_clusters(&file, u8::try_from(volume.as_u128() & 0xF).unwrap_or(1));
        layer.expect("written");
    }
    (storage, domain)
}

/// Gives an empty image of ours two clusters of data, as QEMU would: an L2 table and the clusters behind the end.
fn write_clusters<F: DomainFile>(file: &F, value: u8) -> Result<(), sdm_storage_worker::driver::StorageError> {
    let cluster = 65536;
    let end = file.stat()?.bytes;
    let (l2, first, second) = (end, end + cluster, end + 2 * cluster);
    file.extend_to(end + 3 * cluster)?;
    let copied = 1_u64 << 63;
    let at = u64::from(value) * cluster;
    file.write_at(&(first | copied).to_be_bytes(), l2 + u64::from(value) * 8)?;
    file.write_at(&(second | copied).to_be_bytes(), l2 + (u64::from(value) + 1) * 8)?;
    file.write_at(&vec![value; 65536], first)?;
    file.write_at(&vec![value + 1; 65536], second)?;
    for number in end / cluster..end / cluster + 3 {
        file.write_at(&1_u16.to_be_bytes(), 2 * cluster + number * 2)?;
    }
    file.write_at(&(l2 | copied).to_be_bytes(), 3 * cluster)?;
    let _ = at;
    file.sync()
}

fn build(domain: &DomainRoot, to: u128, from: [LayerSource; 2], source: Option<u128>) -> Order {
    let mut order = placement(domain, to, VolumeFormat::Qcow2, Some(2 * MIB));
    order.volumes[0].role = VolumeRole::Internal;
    let mut leaf = order.volumes[0].clone();
    (leaf.volume, leaf.parent, leaf.sequence, leaf.role) = (LEAF, Some(VOLUME), 2, VolumeRole::Leaf);
    order.volumes.push(leaf);
    Order::BuildChain(BuildChain {
        placement: order,
        source: source.map(|from| source_chain(domain, from)),
        layers: from.to_vec(),
        rebase: None,
    })
}

fn source_chain(domain: &DomainRoot, from: u128) -> SourceChain {
    let volume = |volume| SourceVolume { volume, format: VolumeFormat::Qcow2, expected_hash: None };
    SourceChain {
        at: LocalPlacement {
            domain: domain.clone(),
            placement: Uuid::from_u128(0xF000_0000 + from),
            token: format!("1-{from}-0"),
        },
        volumes: vec![volume(VOLUME), volume(LEAF)],
    }
}

fn merge(domain: &DomainRoot, to: u128) -> Order {
    let mut order = placement(domain, to, VolumeFormat::Qcow2, Some(2 * MIB));
    order.volumes[0].volume = LEAF;
    Order::BuildChain(BuildChain {
        placement: order,
        source: Some(source_chain(domain, 1)),
        layers: vec![LayerSource::Flatten { volumes: vec![VOLUME, LEAF] }],
        rebase: None,
    })
}

fn snapshot(domain: &DomainRoot, to: u128) -> Order {
    let new = Uuid::from_u128(0x5003);
    let Order::BuildChain(mut order) = build(domain, to, [LayerSource::Link, LayerSource::Link], Some(1)) else {
        unreachable!()
    };
    let mut leaf = order.placement.volumes[1].clone();
    (leaf.volume, leaf.parent, leaf.sequence) = (new, Some(LEAF), 3);
    order.placement.volumes.push(leaf);
    order.layers.push(LayerSource::Fresh);
    Order::BuildChain(order)
}

/// What a published placement holds: each file's name and bytes, without the mark. `None`: it is not published.
async fn content(storage: &SimulatedStorage, domain: &DomainRoot, number: u128) -> Option<Vec<(String, Vec<u8>)>> {
    let driver = Domain::open(storage, domain).await.expect("the domain").driver().clone();
    let folder = EntryPath::parse(&format!("images/{}", Uuid::from_u128(0xF000_0000 + number))).expect("a path");
    driver.stat(&folder).await.expect("a look")?;
    let mut files = Vec::new();
    for entry in driver.list(&folder).await.expect("a list") {
        let file = driver.open(&folder.join(&entry.name).expect("a name"), OpenHow::READ).await.expect("a file");
        let mut bytes = vec![0; usize::try_from(file.stat().expect("a size").bytes).expect("small")];
        let length = bytes.len();
        assert_eq!(file.read_at(&mut bytes, 0).expect("read"), length);
        files.push((entry.name, bytes));
    }
    Some(files)
}

#[tokio::test]
async fn a_power_cut_at_any_call_of_a_build_leaves_it_unpublished_or_whole() {
    for make in [snapshot, merge, |domain: &DomainRoot, to| create_disk(domain, to, VolumeFormat::Qcow2, MIB)] {
        let (storage, domain) = stage().await;
        let source = content(&storage, &domain, 1).await.expect("the source");
        let before = storage.calls();
        placed(execute(&storage, make(&domain, 2)).await);
        let calls = storage.calls() - before;
        let whole = content(&storage, &domain, 2).await.expect("published");
        assert!(calls > 20, "{calls}");
        let mut published = 0;
        for call in 1..=calls + 1 {
            for torn in [None, Some(call * 7919)] {
                let (storage, domain) = stage().await;
                storage.cut_power_at(call, torn);
                let outcome = execute(&storage, make(&domain, 2)).await;
                assert_eq!(storage.boots() == 0, call > calls, "call {call} of {calls}: {outcome:?}");
                storage.crash();
                if let Some(found) = content(&storage, &domain, 2).await {
                    assert_eq!(found, whole, "half a placement after the cut at call {call}");
                    published += 1;
                } else {
                    assert!(!matches!(outcome, Outcome::Done(_)), "call {call}: done, and gone after the cut");
                }
                assert_eq!(content(&storage, &domain, 1).await.as_ref(), Some(&source), "the source after call {call}");
                // The same attempt, begun again.
                placed(execute(&storage, make(&domain, 2)).await);
                assert_eq!(content(&storage, &domain, 2).await.expect("published"), whole, "call {call}");
            }
        }
        assert!(published >= 2, "no cut came after the rename was durable");
    }
}

fn resize(domain: &DomainRoot, bytes: u64) -> Order {
    Order::ResizeVolume(ResizeVolume {
        domain: domain.clone(),
        placement: Uuid::from_u128(0xF000_0001),
        token: "1-1-0".to_owned(),
        volume: LEAF,
        format: VolumeFormat::Qcow2,
        parent: Some(VOLUME),
        preallocated: false,
        virtual_bytes: bytes,
        attempt: "1-9-0".to_owned(),
    })
}

#[tokio::test]
async fn a_power_cut_at_any_call_of_a_resize_leaves_a_sound_image_of_the_old_or_the_new_size() {
    // A header alone; a longer L1 table.
    for bytes in [3 * MIB, 5 << 40] {
        let (storage, domain) = stage().await;
        let before = storage.calls();
        assert!(matches!(execute(&storage, resize(&domain, bytes)).await, Outcome::Done(_)));
        let calls = storage.calls() - before;
        let (mut old, mut new) = (0, 0);
        for call in 1..=calls {
            for torn in [None, Some(call), Some(call * 7919), Some(call * 104_729)] {
                let (storage, domain) = stage().await;
                storage.cut_power_at(call, torn);
                let outcome = execute(&storage, resize(&domain, bytes)).await;
                assert!(!matches!(outcome, Outcome::Done(_)), "call {call}");
                let seen = size_of(&storage, &domain).await;
                match seen {
                    seen if seen == 2 * MIB => old += 1,
                    seen if seen == bytes => new += 1,
                    other => panic!("{other} bytes after the cut at call {call}"),
                }
                assert!(matches!(execute(&storage, resize(&domain, bytes)).await, Outcome::Done(_)), "call {call}");
                assert_eq!(size_of(&storage, &domain).await, bytes);
            }
        }
        assert!(old > 0 && new > 0, "{old} old, {new} new");
    }
}

#[tokio::test]
async fn a_sync_that_failed_is_not_believed_by_the_attempt_after_it() {
    for bytes in [3 * MIB, 5 << 40] {
        let mut failed = 0;
        for number in 1.. {
            let (storage, domain) = stage().await;
            storage.lose_at_sync(number);
            let outcome = execute(&storage, resize(&domain, bytes)).await;
            if !storage.has_lost() {
                assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
                break;
            }
            // A refusal would let others go on, who see what is on the storage by now.
            assert!(matches!(outcome, Outcome::Failed(_)), "sync {number}: {outcome:?}");
            failed += 1;
            assert!(matches!(execute(&storage, resize(&domain, bytes)).await, Outcome::Done(_)), "sync {number}");
            storage.crash();
            assert_eq!(size_of(&storage, &domain).await, bytes, "what sync {number} lost was taken for done");
        }
        assert!(failed > 4, "{failed}");
    }
}

#[tokio::test]
async fn what_an_earlier_attempt_left_is_made_durable_before_a_user_of_the_image_refuses_the_next() {
    let (storage, domain) = stage().await;
    // As if its process had died before it synced.
    let opened = Domain::open(&storage, &domain).await.expect("it opens");
    let file = opened.change_volume(Uuid::from_u128(0xF000_0001), LEAF).await.expect("a volume");
    file.write_at(&(3 * MIB).to_be_bytes(), 24).expect("written");
    storage.use_image(Path::new(file.entry())).expect("it is there");
    let Outcome::Refused(refusal) = execute(&storage, resize(&domain, 4 * MIB)).await else { panic!("it is used") };
    assert_eq!(refusal.code.as_str(), "VOLUME_IN_USE");
    storage.crash();
    assert_eq!(size_of(&storage, &domain).await, 3 * MIB, "it may come to the storage after others were let in");
}

/// What a guest sees of the leaf, whose tables must be sound and whose data must be there.
async fn size_of(storage: &SimulatedStorage, domain: &DomainRoot) -> u64 {
    let files = content(storage, domain, 1).await.expect("the placement");
    let (_, bytes) = files.iter().find(|(name, _)| *name == LEAF.to_string()).expect("the leaf");
    let name = VOLUME.to_string();
    let (header, _) = check_layer(bytes.as_slice(), Backing::Named(&name), &CancelFlag::new()).expect("a sound image");
    assert!(bytes.windows(65536).step_by(65536).any(|cluster| cluster.iter().all(|byte| *byte == 2)), "its data");
    header.virtual_bytes
}
