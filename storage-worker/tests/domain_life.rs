//! A domain's life after its making: renamed, detached, attached again or elsewhere, looked through, compared, formatted.

mod fixture;

use std::path::Path;

use fixture::CLUSTER;
use fixture::POOL;
use fixture::VOLUME;
use fixture::create_domain;
use fixture::done;
use fixture::images;
use fixture::placed;
use fixture::placement;
use fixture::refusal;
use fixture::root;
use sdm_proto::ids::ClusterId;
use sdm_proto::token::Token;
use sdm_storage_worker::domain::DomainMetadata;
use sdm_storage_worker::work::AttachDomain;
use sdm_storage_worker::work::CheckPlacements;
use sdm_storage_worker::work::CreateDisk;
use sdm_storage_worker::work::DeletePlacement;
use sdm_storage_worker::work::DetachDomain;
use sdm_storage_worker::work::DomainRoot;
use sdm_storage_worker::work::DomainState;
use sdm_storage_worker::work::Done;
use sdm_storage_worker::work::ExpectedPlacement;
use sdm_storage_worker::work::Finding;
use sdm_storage_worker::work::FindingReason;
use sdm_storage_worker::work::FormatDomain;
use sdm_storage_worker::work::FoundKind;
use sdm_storage_worker::work::InspectDomain;
use sdm_storage_worker::work::InspectionPage;
use sdm_storage_worker::work::Mounting;
use sdm_storage_worker::work::NewPlacement;
use sdm_storage_worker::work::Order;
use sdm_storage_worker::work::Outcome;
use sdm_storage_worker::work::Ports;
use sdm_storage_worker::work::RefusalCode;
use sdm_storage_worker::work::RenameDomain;
use sdm_storage_worker::work::VolumeFormat;
use sdm_storage_worker::work::run;
use uuid::Uuid;

const MIB: u64 = 1 << 20;

/// What a detach writes beside.
const CATALOG: &str = "{\"disks\":1}";

async fn execute(order: Order) -> Outcome {
    run(order, Ports::silent()).await
}

/// A disk whose placement derives its name, as the cluster's do.
fn derived(domain: &DomainRoot, index: u64) -> NewPlacement {
    let token = Token { epoch: 1, index, ordinal: 0 };
    let mut order = placement(domain, 1, VolumeFormat::Qcow2, Some(MIB));
    order.placement = token.placement(ClusterId::from_uuid(CLUSTER)).uuid();
    order.token = token.to_string();
    order.dot_name = format!(".sdm-1-{index}-0");
    order.disk = Some(Uuid::from_u128(0xD15C));
    order.disk_description = "of the shop".to_owned();
    order
}

async fn domain_with_disk(path: &Path) -> (DomainRoot, NewPlacement) {
    let domain = root(path, 1);
    done(execute(Order::CreateDomain(create_domain(domain.clone()))).await);
    let disk = derived(&domain, 50);
    placed(execute(Order::CreateDisk(CreateDisk { placement: disk.clone() })).await);
    (domain, disk)
}

fn metadata(domain: &DomainRoot) -> DomainMetadata {
    let path = domain.path.join(domain.domain.to_string()).join("dom_md/metadata");
    DomainMetadata::decode(&std::fs::read_to_string(path).expect("metadata")).expect("its checksum is right")
}

fn rename(domain: &DomainRoot) -> Order {
    Order::RenameDomain(RenameDomain {
        domain: domain.clone(),
        description: "slow".to_owned(),
        attempt: "1-9-0".to_owned(),
    })
}

fn detach(domain: &DomainRoot) -> Order {
    Order::DetachDomain(DetachDomain {
        domain: domain.clone(),
        catalog: CATALOG.to_owned(),
        attempt: "1-9-0".to_owned(),
    })
}

fn attach(domain: &DomainRoot, token: &str) -> Order {
    Order::AttachDomain(AttachDomain {
        domain: domain.clone(),
        token: token.to_owned(),
        description: "again".to_owned(),
        foreign: false,
        catalog_blake3: blake3::hash(CATALOG.as_bytes()).to_hex().to_string(),
    })
}

async fn inspect(domain: &DomainRoot) -> InspectionPage {
    let order = InspectDomain { domain: domain.clone(), after: String::new(), free_too: true, volumes: true };
    match done(execute(Order::InspectDomain(order)).await) {
        Done::Inspected(page) => page,
        other => panic!("not inspected: {other:?}"),
    }
}

#[tokio::test]
async fn a_domain_is_renamed_detached_and_attached_by_another_pool_with_its_disks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (domain, disk) = domain_with_disk(folder.path()).await;
    for _ in 0..2 {
        assert_eq!(done(execute(rename(&domain)).await), Done::DomainChanged);
        assert_eq!((metadata(&domain).description.as_str(), metadata(&domain).pool), ("slow", Some(POOL)));
    }
    assert_eq!(refusal(execute(attach(&root(folder.path(), 2), "1-9-0")).await).code, RefusalCode::DomainMissing);
    let other = DomainRoot { pool: Uuid::from_u128(0x77), cluster: Uuid::from_u128(0x78), epoch: 4, ..domain.clone() };
    assert_eq!(refusal(execute(attach(&other, "4-9-0")).await).code, RefusalCode::DomainTaken);
    assert_eq!(refusal(execute(detach(&other)).await).code, RefusalCode::OtherPoolsDomain);
    for _ in 0..2 {
        assert_eq!(done(execute(detach(&domain)).await), Done::DomainChanged);
        assert_eq!(metadata(&domain).pool, None);
    }
    assert_eq!(refusal(execute(rename(&domain)).await).code, RefusalCode::DomainReleased);
    let page = inspect(&other).await;
    assert_eq!(
        (page.state, page.catalog.as_str(), page.description.as_str()),
        (DomainState::Released, CATALOG, "slow")
    );
    for _ in 0..2 {
        assert_eq!(done(execute(attach(&other, "4-9-0")).await), Done::DomainChanged);
        assert_eq!((metadata(&domain).pool, metadata(&domain).description.as_str()), (Some(other.pool), "again"));
    }
    // What was made under the pool before is known there.
    let page = inspect(&other).await;
    assert_eq!((page.state, page.cluster, page.epoch), (DomainState::Ours, other.cluster, 4));
    let FoundKind::Placement { disk: id, epoch: 1, details, .. } = &page.images[0].kind else { panic!("{page:?}") };
    assert_eq!(*id, disk.disk);
    let found = details[0].metadata.as_ref().expect("its .meta");
    assert_eq!((found.disk_name.as_str(), found.disk_description.as_str()), ("web-01", "of the shop"));
    assert_eq!((details[0].links, found.virtual_bytes), (1, MIB));
    // Its first pool is shut out.
    assert_eq!(refusal(execute(rename(&domain)).await).code, RefusalCode::OtherPoolsDomain);
    assert_eq!(refusal(execute(attach(&domain, "1-10-0")).await).code, RefusalCode::DomainTaken);
}

#[tokio::test]
async fn a_detach_or_attach_that_was_interrupted_is_finished_by_its_repetition() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (domain, _) = domain_with_disk(folder.path()).await;
    let text = domain.path.join(domain.domain.to_string()).join("dom_md/metadata");
    let attached = std::fs::read(&text).expect("metadata");
    done(execute(detach(&domain)).await);
    let detached = std::fs::read(&text).expect("metadata");
    // The mark was written, the metadata not yet.
    std::fs::write(&text, &attached).expect("written");
    done(execute(detach(&domain)).await);
    assert_eq!(std::fs::read(&text).expect("metadata"), detached);
    done(execute(attach(&domain, "1-60-0")).await);
    std::fs::write(&text, &detached).expect("written");
    // Another attempt of the same step, with a token of its own.
    done(execute(attach(&domain, "1-61-0")).await);
    assert_eq!(metadata(&domain).pool, Some(POOL));
    done(execute(rename(&domain)).await);
}

fn mark(domain: &DomainRoot) -> String {
    let path = domain.path.join(domain.domain.to_string()).join("dom_md/.sdm");
    std::fs::read_to_string(path).expect("its mark")
}

#[tokio::test]
async fn an_attach_that_read_the_catalog_of_an_earlier_detach_is_refused_and_writes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (domain, _) = domain_with_disk(folder.path()).await;
    done(execute(detach(&domain)).await);
    // Read here; then paused while another attach, and another detach, went by.
    let stale = attach(&domain, "1-60-0");
    done(execute(attach(&domain, "1-61-0")).await);
    let again = |text: &str| {
        Order::DetachDomain(DetachDomain {
            domain: domain.clone(),
            catalog: text.to_owned(),
            attempt: "1-9-0".to_owned(),
        })
    };
    done(execute(again("{\"disks\":2}")).await);
    let before = (mark(&domain), metadata(&domain));
    assert_eq!(refusal(execute(stale.clone()).await).code, RefusalCode::CatalogChanged);
    assert_eq!((mark(&domain), metadata(&domain)), before);
    // Half taken by another attach that read the second one.
    let Order::AttachDomain(order) = stale.clone() else { unreachable!() };
    let fresh = blake3::hash(b"{\"disks\":2}").to_hex().to_string();
    done(execute(Order::AttachDomain(AttachDomain { catalog_blake3: fresh, ..order })).await);
    let before = (mark(&domain), metadata(&domain));
    assert_eq!(refusal(execute(stale).await).code, RefusalCode::CatalogChanged);
    assert_eq!((mark(&domain), metadata(&domain)), before);
}

#[tokio::test]
async fn a_detach_left_half_done_is_finished_by_another_one_with_its_own_catalog() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (domain, _) = domain_with_disk(folder.path()).await;
    done(execute(detach(&domain)).await);
    let later = Order::DetachDomain(DetachDomain {
        domain: domain.clone(),
        catalog: "{\"disks\":3}".to_owned(),
        attempt: "1-9-0".to_owned(),
    });
    done(execute(later).await);
    let page = inspect(&domain).await;
    assert_eq!((page.state, page.catalog.as_str()), (DomainState::Released, "{\"disks\":3}"));
    assert_eq!(refusal(execute(attach(&domain, "1-60-0")).await).code, RefusalCode::CatalogChanged);
    // Another cluster of the pool has no say in it.
    let other = DomainRoot { cluster: Uuid::from_u128(0x99), ..domain.clone() };
    assert_eq!(refusal(execute(detach(&other)).await).code, RefusalCode::DomainReleased);
}

#[tokio::test]
async fn a_free_domain_of_others_is_taken_only_when_that_was_said() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (domain, _) = domain_with_disk(folder.path()).await;
    done(execute(detach(&domain)).await);
    std::fs::remove_file(domain.path.join(domain.domain.to_string()).join("dom_md/.sdm")).expect("no mark");
    assert_eq!(inspect(&domain).await.state, DomainState::Free);
    assert_eq!(refusal(execute(attach(&domain, "1-60-0")).await).code, RefusalCode::ForeignDomain);
    let Order::AttachDomain(order) = attach(&domain, "1-60-0") else { unreachable!() };
    done(execute(Order::AttachDomain(AttachDomain { foreign: true, catalog_blake3: String::new(), ..order })).await);
    assert_eq!(inspect(&domain).await.state, DomainState::Ours);
}

#[tokio::test]
async fn a_format_takes_the_whole_domain_but_nothing_published() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (domain, disk) = domain_with_disk(folder.path()).await;
    let format = |unknown_names_too| format(&domain, unknown_names_too, false);
    let strange = images(&domain).join(Uuid::from_u128(5).to_string());
    std::fs::create_dir(&strange).expect("somebody's folder");
    std::fs::write(strange.join("notes"), "mine").expect("somebody's file");
    let refused = refusal(execute(format(false)).await);
    assert_eq!(refused.code, RefusalCode::UnexpectedEntry);
    assert!(refused.message.contains(&Uuid::from_u128(5).to_string()), "{refused}");
    assert!(strange.join("notes").exists());
    std::fs::remove_dir_all(&strange).expect("moved away");
    // A placement that proves whose it is: the catalog, which is empty, does not know it.
    let refused = refusal(execute(format(false)).await);
    assert!(refused.message.contains(&disk.placement.to_string()), "{refused}");
    assert!(images(&domain).join(disk.placement.to_string()).exists());
    // An interrupted run's folder goes too, and a link in it is not followed.
    let outside = folder.path().join("outside");
    std::fs::write(&outside, "keep").expect("written");
    let aside = folder.path().join(".sdm-1-70-0");
    std::fs::create_dir_all(aside.join("images/x")).expect("a rest");
    std::os::unix::fs::symlink(&outside, aside.join("images/x/link")).expect("a link");
    match done(execute(format(true)).await) {
        Done::Deleted(report) => assert!(report.files > 8, "{report:?}"),
        other => panic!("{other:?}"),
    }
    assert!(!domain.path.join(domain.domain.to_string()).exists() && outside.exists());
    assert_eq!(std::fs::read_dir(&aside).expect("the proof that it was there").count(), 0);
    assert!(matches!(done(execute(format(false)).await), Done::Deleted(_)), "done already is done");
}

fn format(domain: &DomainRoot, unknown_names_too: bool, emptied: bool) -> Order {
    let (domain, dot_name, mounting) = (domain.clone(), ".sdm-1-70-0".to_owned(), Mounting::Local);
    Order::FormatDomain(FormatDomain { domain, dot_name, unknown_names_too, mounting, emptied })
}

/// Its storage may not be mounted, or be another one: an empty folder proves nothing.
#[tokio::test]
async fn what_is_not_found_where_a_domain_should_be_is_not_deleted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (domain, disk) = domain_with_disk(folder.path()).await;
    let own = folder.path().join(domain.domain.to_string());
    let hidden = tempfile::tempdir().expect("where it is mounted in truth");
    let elsewhere = hidden.path().join("there");
    std::fs::rename(&own, &elsewhere).expect("not mounted any more");
    let delete = Order::DeletePlacement(DeletePlacement {
        domain: domain.clone(),
        dot_name: disk.dot_name.clone(),
        placement: Some(disk.placement),
        token: disk.token.clone(),
        deletion_dot_name: ".sdm-1-71-0".to_owned(),
    });
    for order in [delete.clone(), format(&domain, false, false)] {
        let refused = refusal(execute(order).await);
        assert_eq!(refused.code, RefusalCode::DomainMissing, "{refused}");
        assert!(refused.message.contains(&domain.domain.to_string()), "{refused}");
    }
    // An empty folder of its name is no domain either.
    std::fs::create_dir_all(own.join("images")).expect("a mount point");
    for order in [delete.clone(), format(&domain, false, false)] {
        assert_eq!(refusal(execute(order).await).code, RefusalCode::DomainMissing);
    }
    let mut required = format(&domain, false, false);
    if let Order::FormatDomain(order) = &mut required {
        order.mounting = Mounting::Required;
    }
    assert_eq!(refusal(execute(required).await).code, RefusalCode::NotAMountPoint);
    std::fs::remove_dir_all(&own).expect("a mount point");
    std::fs::rename(&elsewhere, &own).expect("mounted again");
    assert!(matches!(done(execute(delete.clone()).await), Done::Deleted(_)));
    assert!(matches!(done(execute(delete).await), Done::Deleted(_)), "a proven domain without it: gone already");
    for emptied in [false, false, true, true] {
        assert!(matches!(done(execute(format(&domain, false, emptied)).await), Done::Deleted(_)));
        assert_eq!(folder.path().join(".sdm-1-70-0").exists(), !emptied);
    }
    assert_eq!(refusal(execute(format(&domain, false, false)).await).code, RefusalCode::DomainMissing);
}

#[tokio::test]
async fn a_check_finds_what_is_not_as_the_catalog_says() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (domain, disk) = domain_with_disk(folder.path()).await;
    let expected = ExpectedPlacement {
        placement: disk.placement,
        token: String::new(),
        disk_name: disk.disk_name.clone(),
        volumes: disk.volumes.clone(),
    };
    let check = async |expected: &ExpectedPlacement, hashes| -> Vec<FindingReason> {
        let order = CheckPlacements { domain: domain.clone(), placements: vec![expected.clone()], hashes };
        match done(execute(Order::CheckPlacements(order)).await) {
            Done::Checked(findings) => findings.iter().map(|Finding { reason, .. }| *reason).collect(),
            other => panic!("{other:?}"),
        }
    };
    assert!(check(&expected, true).await.is_empty());
    let missing = ExpectedPlacement { placement: Uuid::from_u128(3), ..expected.clone() };
    assert_eq!(check(&missing, false).await, [FindingReason::PlacementMissing]);
    let mut larger = expected.clone();
    larger.volumes[0].virtual_bytes = Some(2 * MIB);
    assert_eq!(check(&larger, false).await, [FindingReason::SizeWrong, FindingReason::MetadataWrong]);
    let mut hashed = expected.clone();
    hashed.volumes[0].expected_hash = Some(sdm_storage_worker::work::FileHash([7; 32]));
    assert_eq!(check(&hashed, true).await, [FindingReason::HashWrong]);
    let place = images(&domain).join(disk.placement.to_string());
    std::fs::remove_file(place.join(format!("{VOLUME}.meta"))).expect("gone");
    std::fs::write(place.join("notes"), "x").expect("written");
    assert_eq!(check(&expected, false).await, [FindingReason::UnknownName, FindingReason::MetadataWrong]);
    // The dirty bit: QEMU was cut off, and repairs the image when it opens it.
    let mut image = std::fs::read(place.join(VOLUME.to_string())).expect("the image");
    image[79] |= 1;
    std::fs::write(place.join(VOLUME.to_string()), image).expect("as if not closed");
    let found = check(&expected, false).await;
    assert!(found.contains(&FindingReason::NotClosed) && !found.contains(&FindingReason::FormatWrong), "{found:?}");
    std::fs::write(place.join(VOLUME.to_string()), vec![0; 4096]).expect("spoilt");
    assert!(check(&expected, false).await.contains(&FindingReason::FormatWrong));
    std::fs::remove_file(place.join(VOLUME.to_string())).expect("gone");
    assert!(check(&expected, false).await.contains(&FindingReason::VolumeMissing));
}
