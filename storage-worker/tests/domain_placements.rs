//! Placements: made whole or not at all, deleted by evidence, and nothing planted is followed.

mod fixture;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fixture::copy_order;
use fixture::create_disk;
use fixture::create_domain;
use fixture::delete_order;
use fixture::done;
use fixture::images;
use fixture::placed;
use fixture::placement;
use fixture::placement_path;
use fixture::refusal;
use fixture::root;
use sdm_proto::ids::ClusterId;
use sdm_proto::token::Token;
use sdm_storage_worker::domain::VolumeMetadata;
use sdm_storage_worker::driver::SimulatedStorage;
use sdm_storage_worker::work::CreateDisk;
use sdm_storage_worker::work::DeletePlacement;
use sdm_storage_worker::work::DomainRoot;
use sdm_storage_worker::work::Done;
use sdm_storage_worker::work::LocalPlacement;
use sdm_storage_worker::work::Order;
use sdm_storage_worker::work::Outcome;
use sdm_storage_worker::work::Ports;
use sdm_storage_worker::work::RefusalCode;
use sdm_storage_worker::work::Source;
use sdm_storage_worker::work::VolumeFormat;
use sdm_storage_worker::work::run;
use sdm_storage_worker::work::run_on;
use uuid::Uuid;

const SIZE: u64 = 1 << 20;

async fn execute(order: Order) -> Outcome {
    run(order, Ports::silent()).await
}

async fn delete(order: &DeletePlacement) -> Outcome {
    execute(Order::DeletePlacement(order.clone())).await
}

async fn new_domain(path: &Path, number: u128) -> DomainRoot {
    let domain = root(path, number);
    done(execute(Order::CreateDomain(create_domain(domain.clone()))).await);
    domain
}

async fn domain_with_disk(path: &Path) -> DomainRoot {
    let domain = new_domain(path, 1).await;
    placed(execute(create_disk(&domain, 1, VolumeFormat::Raw, SIZE)).await);
    domain
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_new_disk_is_published_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path(), 1).await;
    let order = create_disk(&domain, 1, VolumeFormat::Raw, SIZE + 1);
    let report = placed(execute(order.clone()).await);
    assert_eq!(report.volumes[0].file_bytes, SIZE + 4096);
    assert_eq!(report.volumes[0].true_bytes, Some(SIZE + 1));
    let path = placement_path(&domain, 1);
    let volume = fixture::VOLUME.to_string();
    assert_eq!(names(&path), [".sdm".to_owned(), volume.clone(), format!("{volume}.meta")]);
    let file = std::fs::metadata(path.join(&volume)).expect("the volume");
    assert_eq!((file.len(), file.mode() & 0o777), (SIZE + 4096, 0o660));
    let text = std::fs::read_to_string(path.join(format!("{volume}.meta"))).expect("the metadata");
    let metadata = VolumeMetadata::decode(&text).expect("it can be read");
    assert_eq!(metadata.virtual_bytes, SIZE + 4096);
    assert_eq!(metadata.disk_name, "web-01");
    assert_eq!(metadata.image.to_string(), path.file_name().expect("a name").to_string_lossy());
    assert_eq!(names(&images(&domain)).len(), 1);
    // A repetition finds what was published, and changes nothing.
    let before = std::fs::metadata(path.join(&volume)).expect("the volume").ino();
    assert_eq!(placed(execute(order).await), report);
    assert_eq!(std::fs::metadata(path.join(&volume)).expect("the volume").ino(), before);
}

#[tokio::test]
async fn impossible_disks_are_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path(), 1).await;
    for size in [0, u64::MAX, (16 << 40) + 1] {
        let refused = refusal(execute(create_disk(&domain, 1, VolumeFormat::Raw, size)).await);
        assert_eq!(refused.code, RefusalCode::SizeInvalid, "{size}");
    }
    let mut twice = placement(&domain, 1, VolumeFormat::Raw, Some(SIZE));
    twice.volumes.push(twice.volumes[0].clone());
    let order = Order::CreateDisk(sdm_storage_worker::work::CreateDisk { placement: twice });
    assert_eq!(refusal(execute(order).await).code, RefusalCode::InvalidOrder);
    assert!(names(&images(&domain)).is_empty());
}

#[tokio::test]
async fn a_deletion_takes_both_names_and_may_be_repeated() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = domain_with_disk(folder.path()).await;
    std::fs::create_dir(images(&domain).join(".sdm-1-1-0")).expect("a second folder of the token");
    let order = delete_order(&domain, 1);
    match done(delete(&order).await) {
        Done::Deleted(report) => assert_eq!(report.files, 3),
        other => panic!("no deletion: {other:?}"),
    }
    assert!(names(&images(&domain)).is_empty());
    match done(delete(&order).await) {
        Done::Deleted(report) => assert_eq!(report.files, 0),
        other => panic!("no deletion: {other:?}"),
    }
}

#[tokio::test]
async fn a_late_publish_meets_a_deletion_on_either_side() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = domain_with_disk(folder.path()).await;
    // The worker hung before its rename; the deletion runs; then the worker wakes.
    let (dot, published) = (images(&domain).join(".sdm-1-1-0"), placement_path(&domain, 1));
    std::fs::rename(&published, &dot).expect("as if not yet published");
    done(delete(&delete_order(&domain, 1)).await);
    assert!(std::fs::rename(&dot, &published).is_err(), "the late publish found its folder");
    assert!(names(&images(&domain)).is_empty());
}

#[tokio::test]
async fn a_deletion_leaves_alone_what_another_token_made() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = domain_with_disk(folder.path()).await;
    let before = names(&placement_path(&domain, 1));
    let order = DeletePlacement { token: "1-2-0".to_owned(), ..delete_order(&domain, 1) };
    let refused = refusal(delete(&order).await);
    assert_eq!(refused.code, RefusalCode::EvidenceMismatch);
    assert!(refused.message.contains("1-1-0"), "{}", refused.message);
    std::fs::remove_file(placement_path(&domain, 1).join(".sdm")).expect("the mark goes");
    assert_eq!(refusal(delete(&delete_order(&domain, 1)).await).code, RefusalCode::EvidenceMismatch);
    assert_eq!(names(&placement_path(&domain, 1)), before[1..]);
}

#[tokio::test]
async fn a_deletion_touches_nothing_beside_an_unknown_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = domain_with_disk(folder.path()).await;
    let path = placement_path(&domain, 1);
    let victim = folder.path().join("victim");
    std::fs::create_dir(&victim).expect("a folder");
    std::fs::write(victim.join("file"), "keep me").expect("a file");
    type Plant<'p> = (&'p str, &'p dyn Fn(&Path));
    let plant: [Plant<'_>; 4] = [
        ("notes.txt", &|path| std::fs::write(path, "x").expect("a file")),
        ("folder", &|path| std::fs::create_dir(path).expect("a folder")),
        ("00000000-0000-0000-0000-000000000001", &|path| {
            std::os::unix::fs::symlink(&victim, path).expect("a link");
        }),
        ("00000000-0000-0000-0000-000000000002.meta", &|path| {
            fixture::tool("mkfifo", &[fixture::text(path)]);
        }),
    ];
    for (name, plant) in plant {
        plant(&path.join(name));
        let before = names(&path);
        let refused = refusal(delete(&delete_order(&domain, 1)).await);
        assert_eq!(refused.code, RefusalCode::UnexpectedEntry, "{name}");
        assert!(refused.message.contains(name), "{}", refused.message);
        assert_eq!(names(&path), before, "{name}");
        let planted = path.join(name);
        std::fs::remove_dir(&planted).or_else(|_| std::fs::remove_file(&planted)).expect("it goes");
    }
    assert!(victim.join("file").exists());
    done(delete(&delete_order(&domain, 1)).await);
}

#[tokio::test]
async fn a_file_that_is_still_open_elsewhere_is_for_later() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = domain_with_disk(folder.path()).await;
    let left = placement_path(&domain, 1).join(".nfs000000000000abcd");
    std::fs::write(&left, "x").expect("a file");
    match delete(&delete_order(&domain, 1)).await {
        Outcome::Failed(failure) => assert!(failure.message.contains(".nfs"), "{failure}"),
        other => panic!("{other:?}"),
    }
    std::fs::remove_file(left).expect("closed at last");
    done(delete(&delete_order(&domain, 1)).await);
}

#[tokio::test]
async fn a_hard_linked_volume_keeps_its_bytes_under_its_other_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = domain_with_disk(folder.path()).await;
    let other = folder.path().join("other");
    std::fs::hard_link(placement_path(&domain, 1).join(fixture::VOLUME.to_string()), &other).expect("a link");
    done(delete(&delete_order(&domain, 1)).await);
    assert_eq!(std::fs::metadata(other).expect("the other name").len(), SIZE);
}

#[tokio::test]
async fn a_planted_link_fifo_or_device_is_named_and_never_opened() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = domain_with_disk(folder.path()).await;
    let volume = placement_path(&domain, 1).join(fixture::VOLUME.to_string());
    let copy = copy_order(&domain, 1, &domain, 2);
    let plant: [(&str, &dyn Fn() -> bool); 3] = [
        ("a symbolic link", &|| std::os::unix::fs::symlink("/etc/passwd", &volume).is_ok()),
        ("a FIFO", &|| std::process::Command::new("mkfifo").arg(&volume).status().is_ok_and(|status| status.success())),
        ("a device", &|| {
            let mknod = std::process::Command::new("mknod").arg(&volume).args(["c", "1", "5"]).status();
            mknod.is_ok_and(|status| status.success())
        }),
    ];
    for (kind, plant) in plant {
        std::fs::remove_file(&volume).expect("what was there goes");
        if !plant() {
            println!("SKIPPED: a_planted_link_fifo_or_device_is_named_and_never_opened: {kind} needs root");
            std::fs::write(&volume, "").expect("something to remove");
            continue;
        }
        let refused = refusal(execute(Order::BuildPlacement(copy.clone())).await);
        assert_eq!(refused.code, RefusalCode::UnexpectedEntry, "{kind}");
        assert!(refused.message.contains(kind) && refused.message.contains(fixture::text(&volume)), "{refused}");
    }
    assert_eq!(names(&images(&domain)).len(), 1, "the refused copy left something");
    // A folder on the way is a link.
    let real = folder.path().join("elsewhere");
    std::fs::rename(images(&domain), &real).expect("it moves");
    std::os::unix::fs::symlink(&real, images(&domain)).expect("a planted link");
    for order in [Order::BuildPlacement(copy.clone()), create_disk(&domain, 3, VolumeFormat::Raw, SIZE)] {
        assert_eq!(refusal(execute(order).await).code, RefusalCode::UnexpectedEntry);
    }
    let deletion = refusal(delete(&delete_order(&domain, 1)).await);
    assert_eq!(deletion.code, RefusalCode::UnexpectedEntry);
}

#[tokio::test]
async fn whatever_fails_a_power_cut_later_the_attempt_succeeds() {
    const EIO: i32 = 5;
    let path = Path::new("/mnt/a");
    let domain = root(path, 1);
    let mut interrupted = 0;
    for operation in ["open", "mkdir", "write", "fsync", "rename", "truncate", "stat"] {
        for calls in 0.. {
            let storage = SimulatedStorage::new();
            storage.mount(path).expect("a mount point");
            let silent = Ports::silent;
            done(run_on(&storage, Order::CreateDomain(create_domain(domain.clone())), silent()).await);
            storage.fail(operation, calls, EIO);
            let order = create_disk(&domain, 1, VolumeFormat::Qcow2, SIZE);
            let first = run_on(&storage, order.clone(), silent()).await;
            storage.crash();
            storage.heal();
            interrupted += 1;
            let second = placed(run_on(&storage, order.clone(), silent()).await);
            if let Outcome::Done(Done::Placed(first)) = &first {
                assert_eq!(*first, second, "{operation} {calls}: what was acknowledged did not outlive the cut");
            }
            // And it goes away again, whole.
            let deletion = Order::DeletePlacement(delete_order(&domain, 1));
            done(run_on(&storage, deletion, silent()).await);
            let again = placed(run_on(&storage, order, silent()).await);
            assert_eq!(again, second, "{operation} {calls}");
            if matches!(first, Outcome::Done(_)) {
                break;
            }
        }
    }
    assert!(interrupted > 30, "only {interrupted} interruptions were tried");
}

#[tokio::test]
async fn a_deletion_interrupted_anywhere_is_finished_by_its_repetition() {
    const EIO: i32 = 5;
    let path = Path::new("/mnt/a");
    let domain = root(path, 1);
    for operation in ["open", "unlink", "fsync", "rename", "rmdir", "list", "stat"] {
        for calls in 0.. {
            let storage = SimulatedStorage::new();
            storage.mount(path).expect("a mount point");
            done(run_on(&storage, Order::CreateDomain(create_domain(domain.clone())), Ports::silent()).await);
            placed(run_on(&storage, create_disk(&domain, 1, VolumeFormat::Raw, SIZE), Ports::silent()).await);
            storage.fail(operation, calls, EIO);
            let order = Order::DeletePlacement(delete_order(&domain, 1));
            let first = run_on(&storage, order.clone(), Ports::silent()).await;
            storage.crash();
            storage.heal();
            done(run_on(&storage, order, Ports::silent()).await);
            let copy = Order::BuildPlacement(copy_order(&domain, 1, &domain, 2));
            let gone = refusal(run_on(&storage, copy, Ports::silent()).await);
            assert_eq!(gone.code, RefusalCode::PlacementMissing, "{operation} {calls}");
            if matches!(first, Outcome::Done(_)) {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_reader_without_the_token_believes_a_placement_that_derives_its_own_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path(), 1).await;
    let token: Token = "1-5-0".parse().expect("a token");
    let mut order = placement(&domain, 5, VolumeFormat::Raw, Some(SIZE));
    order.placement = token.placement(ClusterId::from_uuid(fixture::CLUSTER)).uuid();
    let derived = order.placement;
    placed(execute(Order::CreateDisk(CreateDisk { placement: order })).await);
    // This one was given a name of its own.
    placed(execute(create_disk(&domain, 1, VolumeFormat::Raw, SIZE)).await);
    let copy = |from, to| {
        let mut copy = copy_order(&domain, 1, &domain, to);
        copy.source = Source::Local(LocalPlacement { domain: domain.clone(), placement: from, token: String::new() });
        execute(Order::BuildPlacement(copy))
    };
    placed(copy(derived, 2).await);
    let other = Uuid::from_u128(0xF000_0001);
    assert_eq!(refusal(copy(other, 3).await).code, RefusalCode::EvidenceMismatch);
}
