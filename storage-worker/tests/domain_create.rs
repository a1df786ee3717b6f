//! A new domain: where it may be made, what it looks like, and what a power cut leaves of it.

mod fixture;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fixture::create_domain;
use fixture::done;
use fixture::refusal;
use fixture::root;
use sdm_storage_worker::domain::DomainMetadata;
use sdm_storage_worker::driver::SimulatedStorage;
use sdm_storage_worker::work::CreateDomain;
use sdm_storage_worker::work::DeleteDomain;
use sdm_storage_worker::work::DomainRoot;
use sdm_storage_worker::work::Done;
use sdm_storage_worker::work::Mounting;
use sdm_storage_worker::work::Order;
use sdm_storage_worker::work::Outcome;
use sdm_storage_worker::work::Ports;
use sdm_storage_worker::work::RefusalCode;
use sdm_storage_worker::work::run;
use sdm_storage_worker::work::run_on;
use uuid::Uuid;

async fn create(order: &CreateDomain) -> Outcome {
    run(Order::CreateDomain(order.clone()), Ports::silent()).await
}

async fn probe(domain: &DomainRoot) -> Outcome {
    run(Order::ProbeDomain(domain.clone()), Ports::silent()).await
}

#[tokio::test]
async fn a_new_domain_has_ovirts_layout_and_answers_a_probe() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = root(folder.path(), 1);
    assert!(matches!(done(create(&create_domain(domain.clone())).await), Done::DomainCreated(_)));
    let top = folder.path().join(domain.domain.to_string());
    for (file, bytes) in [("ids", 0), ("leases", 0), ("inbox", 16 << 20), ("outbox", 16 << 20)] {
        let found = std::fs::metadata(top.join("dom_md").join(file)).expect("the file is there");
        assert_eq!((found.len(), found.mode() & 0o777), (bytes, 0o660), "{file}");
        assert!(found.blocks() < 16, "{file} is not sparse");
    }
    assert_eq!(std::fs::metadata(top.join("images")).expect("a folder").mode() & 0o777, 0o755);
    let metadata = std::fs::read_to_string(top.join("dom_md/metadata")).expect("the metadata");
    let metadata = DomainMetadata::decode(&metadata).expect("its checksum is right");
    assert_eq!((metadata.domain, metadata.pool), (domain.domain, Some(fixture::POOL)));
    assert!(matches!(metadata.block_bytes, 512 | 4096));
    let names: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").collect();
    assert_eq!(names.len(), 1, "something is left besides the domain: {names:?}");
    match done(probe(&domain).await) {
        Done::DomainProbed(report) => assert!(report.total_bytes > report.free_bytes && report.block_bytes >= 512),
        other => panic!("no probe: {other:?}"),
    }
}

#[tokio::test]
async fn a_repeated_creation_finds_its_domain_made() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let order = create_domain(root(folder.path(), 1));
    done(create(&order).await);
    done(create(&order).await);
    let other_step = CreateDomain { token: "1-8-0".to_owned(), dot_name: ".sdm-1-8-0".to_owned(), ..order };
    assert_eq!(refusal(create(&other_step).await).code, RefusalCode::DomainPathInUse);
}

#[tokio::test]
async fn a_path_that_cannot_hold_a_domain_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "x").expect("a file");
    for (path, code) in [
        (folder.path().join("missing"), RefusalCode::PathMissing),
        (file, RefusalCode::NotADirectory),
        ("/sys/kernel".into(), RefusalCode::NotWritable),
        ("a\nb".into(), RefusalCode::InvalidOrder),
    ] {
        let refused = refusal(create(&create_domain(root(&path, 1))).await);
        assert_eq!(refused.code, code, "{}", path.display());
    }
    let order = CreateDomain { mounting: Mounting::Required, ..create_domain(root(folder.path(), 1)) };
    let refused = refusal(create(&order).await);
    assert_eq!(refused.code, RefusalCode::NotAMountPoint);
    assert!(refused.hint.contains("--local"), "{}", refused.hint);
    for dot_name in ["", "x", ".sdm-../x", "../.sdm-1"] {
        let order = CreateDomain { dot_name: dot_name.to_owned(), ..create_domain(root(folder.path(), 1)) };
        assert_eq!(refusal(create(&order).await).code, RefusalCode::InvalidOrder, "{dot_name}");
    }
}

#[tokio::test]
async fn a_path_with_anothers_domain_is_refused_and_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = root(folder.path(), 1);
    done(create(&create_domain(first.clone())).await);
    let mut second = create_domain(root(folder.path(), 2));
    let refused = refusal(create(&second).await);
    assert_eq!(refused.code, RefusalCode::DomainPathInUse);
    assert!(refused.message.contains(&first.domain.to_string()), "{}", refused.message);
    second.domain.pool = Uuid::from_u128(77);
    let refused = refusal(create(&second).await);
    assert_eq!(refused.code, RefusalCode::OtherPoolsDomain);
    assert!(refused.message.contains(&fixture::POOL.to_string()), "{}", refused.message);
    std::fs::remove_file(folder.path().join(first.domain.to_string()).join("dom_md/.sdm")).expect("the mark goes");
    assert_eq!(refusal(create(&second).await).code, RefusalCode::ForeignDomain);
}

#[tokio::test]
async fn a_probe_believes_only_the_domain_meant() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = root(folder.path(), 1);
    done(create(&create_domain(domain.clone())).await);
    let other_pool = DomainRoot { pool: Uuid::from_u128(77), ..domain.clone() };
    assert_eq!(refusal(probe(&other_pool).await).code, RefusalCode::OtherPoolsDomain);
    let other_cluster = DomainRoot { cluster: Uuid::from_u128(77), ..domain.clone() };
    assert_eq!(refusal(probe(&other_cluster).await).code, RefusalCode::OtherClustersDomain);
    let other_epoch = DomainRoot { epoch: 2, ..domain.clone() };
    assert_eq!(refusal(probe(&other_epoch).await).code, RefusalCode::OtherClustersDomain);
    assert_eq!(refusal(probe(&root(folder.path(), 2)).await).code, RefusalCode::DomainMissing);
    let metadata = folder.path().join(domain.domain.to_string()).join("dom_md/metadata");
    let text = std::fs::read_to_string(&metadata).expect("the metadata");
    std::fs::write(&metadata, text.replace("ROLE=Regular", "ROLE=Master")).expect("it is spoilt");
    assert_eq!(refusal(probe(&domain).await).code, RefusalCode::DomainCorrupt);
    std::fs::remove_file(&metadata).expect("it goes");
    std::os::unix::fs::symlink("/etc/passwd", &metadata).expect("a planted link");
    let refused = refusal(probe(&domain).await);
    assert_eq!(refused.code, RefusalCode::UnexpectedEntry);
    assert!(refused.message.contains("dom_md/metadata"), "{}", refused.message);
}

#[tokio::test]
async fn whatever_fails_a_power_cut_later_the_step_succeeds() {
    const EIO: i32 = 5;
    let path = Path::new("/mnt/a");
    let mut interrupted = 0;
    for operation in ["open", "mkdir", "write", "fsync", "rename", "truncate", "list", "stat"] {
        for calls in 0.. {
            let storage = SimulatedStorage::new();
            storage.mount(path).expect("a mount point");
            storage.fail(operation, calls, EIO);
            let mut order = create_domain(root(path, 1));
            order.mounting = Mounting::Required;
            let first = run_on(&storage, Order::CreateDomain(order.clone()), Ports::silent()).await;
            storage.crash();
            storage.heal();
            if let Outcome::Done(_) = first {
                // Acknowledged: it must have outlived the cut.
                let probe = run_on(&storage, Order::ProbeDomain(order.domain.clone()), Ports::silent()).await;
                assert!(matches!(probe, Outcome::Done(_)), "{operation} {calls}: {probe:?}");
                break;
            }
            interrupted += 1;
            let second = run_on(&storage, Order::CreateDomain(order.clone()), Ports::silent()).await;
            assert!(matches!(second, Outcome::Done(_)), "{operation} {calls}: {second:?}");
            let probe = run_on(&storage, Order::ProbeDomain(order.domain.clone()), Ports::silent()).await;
            assert!(matches!(probe, Outcome::Done(_)), "{operation} {calls}: {probe:?}");
        }
    }
    assert!(interrupted > 30, "only {interrupted} interruptions were tried");
}

#[tokio::test]
async fn a_creation_that_did_not_win_is_taken_away_by_its_token_only() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = root(folder.path(), 1);
    done(create(&create_domain(domain.clone())).await);
    let delete = |token: &str| {
        let order = DeleteDomain {
            domain: domain.clone(),
            dot_name: ".sdm-1-7-0".to_owned(),
            token: token.to_owned(),
            deletion_dot_name: ".sdm-1-9-0".to_owned(),
            mounting: Mounting::Local,
        };
        run(Order::DeleteDomain(order), Ports::silent())
    };
    assert_eq!(refusal(delete("1-8-0").await).code, RefusalCode::EvidenceMismatch);
    let placement = folder.path().join(domain.domain.to_string()).join("images/somebodys-work");
    std::fs::create_dir(&placement).expect("a placement");
    let refused = refusal(delete("1-7-0").await);
    assert_eq!(refused.code, RefusalCode::UnexpectedEntry);
    assert!(refused.message.contains("somebodys-work"), "{}", refused.message);
    assert!(matches!(probe(&domain).await, Outcome::Done(_)), "a refused deletion touched the domain");
    std::fs::remove_dir(placement).expect("it goes");
    std::fs::create_dir_all(folder.path().join(".sdm-1-7-0/dom_md")).expect("half a domain of the same token");
    done(delete("1-7-0").await);
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    done(delete("1-7-0").await);
}

/// What was made for storage that is not mounted now is still there, whatever the folder beneath says.
#[tokio::test]
async fn a_creation_that_did_not_win_is_not_gone_because_its_storage_is_not_mounted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let order = DeleteDomain {
        domain: root(folder.path(), 1),
        dot_name: ".sdm-1-7-0".to_owned(),
        token: "1-7-0".to_owned(),
        deletion_dot_name: ".sdm-1-9-0".to_owned(),
        mounting: Mounting::Required,
    };
    let refused = refusal(run(Order::DeleteDomain(order), Ports::silent()).await);
    assert_eq!(refused.code, RefusalCode::NotAMountPoint, "{refused}");
}
