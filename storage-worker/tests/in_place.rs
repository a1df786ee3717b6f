//! Volumes grown in place, `.meta` files written anew: what is changed is what was meant, nothing shrinks, nobody else's
//! file is touched.

mod fixture;

use std::path::Path;
use std::path::PathBuf;

use fixture::VOLUME;
use fixture::create_disk;
use fixture::create_domain;
use fixture::done;
use fixture::has_qemu_img;
use fixture::placed;
use fixture::placement_path;
use fixture::qemu_img;
use fixture::refusal;
use fixture::root;
use fixture::text;
use fixture::tool;
use sdm_storage_worker::domain::Legality;
use sdm_storage_worker::domain::VolumeMetadata;
use sdm_storage_worker::volume::qcow2::check;
use sdm_storage_worker::work::CancelFlag;
use sdm_storage_worker::work::DomainRoot;
use sdm_storage_worker::work::Done;
use sdm_storage_worker::work::Order;
use sdm_storage_worker::work::Outcome;
use sdm_storage_worker::work::PlacementReport;
use sdm_storage_worker::work::Ports;
use sdm_storage_worker::work::ProjectPlacement;
use sdm_storage_worker::work::RefusalCode;
use sdm_storage_worker::work::ResizeVolume;
use sdm_storage_worker::work::VolumeFormat;
use sdm_storage_worker::work::run;
use uuid::Uuid;

const MIB: u64 = 1 << 20;

/// Held by each test: a tool that another one starts has, from its fork to its exec, every file that is open here, and
/// with it the lock on an image that was just closed.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn execute(order: Order) -> Outcome {
    run(order, Ports::silent()).await
}

async fn disk(path: &Path, format: VolumeFormat, bytes: u64) -> DomainRoot {
    let domain = root(path, 1);
    done(execute(Order::CreateDomain(create_domain(domain.clone()))).await);
    placed(execute(create_disk(&domain, 1, format, bytes)).await);
    domain
}

fn resize(domain: &DomainRoot, format: VolumeFormat, bytes: u64) -> ResizeVolume {
    ResizeVolume {
        domain: domain.clone(),
        placement: Uuid::from_u128(0xF000_0001),
        token: "1-1-0".to_owned(),
        volume: VOLUME,
        format,
        parent: None,
        preallocated: false,
        virtual_bytes: bytes,
        attempt: "1-9-0".to_owned(),
    }
}

fn resized(outcome: Outcome) -> PlacementReport {
    match done(outcome) {
        Done::Resized(report) => report,
        other => panic!("not resized: {other:?}"),
    }
}

fn file(domain: &DomainRoot) -> PathBuf {
    placement_path(domain, 1).join(VOLUME.to_string())
}

fn metadata(domain: &DomainRoot) -> VolumeMetadata {
    let path = placement_path(domain, 1).join(format!("{VOLUME}.meta"));
    VolumeMetadata::decode(&std::fs::read_to_string(path).expect("a .meta")).expect("it reads")
}

#[tokio::test]
async fn a_raw_volume_grows_and_never_shrinks_however_late_the_smaller_size_comes() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = disk(folder.path(), VolumeFormat::Raw, MIB).await;
    std::fs::write(file(&domain), vec![7; 1 << 20]).expect("written");
    let report = resized(execute(Order::ResizeVolume(resize(&domain, VolumeFormat::Raw, 40 * MIB + 1))).await);
    assert_eq!((report.volumes[0].file_bytes, report.volumes[0].true_bytes), (40 * MIB + 4096, Some(40 * MIB + 1)));
    assert_eq!(metadata(&domain).virtual_bytes, 40 * MIB + 4096);
    assert_eq!(metadata(&domain).generation, 1);
    // What hung since before the larger one.
    let late = resized(execute(Order::ResizeVolume(resize(&domain, VolumeFormat::Raw, 20 * MIB))).await);
    assert_eq!((late.volumes[0].virtual_bytes, late.volumes[0].true_bytes), (40 * MIB + 4096, None));
    let bytes = std::fs::read(file(&domain)).expect("read");
    assert_eq!(bytes.len() as u64, 40 * MIB + 4096);
    assert!(bytes[..1 << 20].iter().all(|byte| *byte == 7) && bytes[1 << 20..].iter().all(|byte| *byte == 0));
    assert_eq!(metadata(&domain).generation, 1, "nothing was done, so nothing is counted");
    assert!(report.volumes[0].allocated_bytes < 2 * MIB, "it stays sparse: {report:?}");
}

#[tokio::test]
async fn a_preallocated_volume_keeps_all_its_blocks_reserved() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = root(folder.path(), 1);
    done(execute(Order::CreateDomain(create_domain(domain.clone()))).await);
    let Order::CreateDisk(mut order) = create_disk(&domain, 1, VolumeFormat::Raw, 3 * MIB) else { unreachable!() };
    order.placement.volumes[0].preallocated = true;
    let report = placed(execute(Order::CreateDisk(order)).await);
    assert!(report.volumes[0].allocated_bytes >= 3 * MIB, "{report:?}");
    assert!(metadata(&domain).preallocated);
    let order = ResizeVolume { preallocated: true, ..resize(&domain, VolumeFormat::Raw, 9 * MIB) };
    let report = resized(execute(Order::ResizeVolume(order)).await);
    assert!(report.volumes[0].allocated_bytes >= 9 * MIB, "{report:?}");
}

#[tokio::test]
async fn a_volume_with_two_names_or_another_mark_or_a_user_is_not_changed() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = disk(folder.path(), VolumeFormat::Raw, MIB).await;
    let order = resize(&domain, VolumeFormat::Raw, 2 * MIB);
    let second = folder.path().join("second");
    std::fs::hard_link(file(&domain), &second).expect("a second name");
    assert_eq!(refusal(execute(Order::ResizeVolume(order.clone())).await).code, RefusalCode::VolumeShared);
    std::fs::remove_file(&second).expect("gone");
    let other = ResizeVolume { token: "1-2-0".to_owned(), ..order.clone() };
    assert_eq!(refusal(execute(Order::ResizeVolume(other)).await).code, RefusalCode::EvidenceMismatch);
    let missing = ResizeVolume { volume: Uuid::from_u128(9), ..order.clone() };
    assert_eq!(refusal(execute(Order::ResizeVolume(missing)).await).code, RefusalCode::VolumeMissing);
    let huge = ResizeVolume { virtual_bytes: u64::MAX, ..order };
    assert_eq!(refusal(execute(Order::ResizeVolume(huge)).await).code, RefusalCode::SizeInvalid);
    assert_eq!(std::fs::metadata(file(&domain)).expect("the file").len(), MIB);
    assert_eq!(metadata(&domain).virtual_bytes, MIB);
}

/// Replaces the disk's empty image by one that QEMU made and wrote to.
fn planted(domain: &DomainRoot, options: &str, bytes: u64) {
    std::fs::remove_file(file(domain)).expect("the empty one");
    let image = file(domain);
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", options, text(&image), &bytes.to_string()]);
    let last = format!("write -P 3 {} 512", bytes - 512);
    tool(
        "qemu-io",
        &["-f", "qcow2", "-c", "write -P 1 0 100k", "-c", "write -P 2 600k 70k", "-c", &last, text(&image)],
    );
}

#[tokio::test]
async fn an_image_grows_with_its_tables_and_qemu_finds_it_sound() {
    let _alone = ALONE.lock().await;
    if !has_qemu_img("an_image_grows_with_its_tables") {
        return;
    }
    for (options, sizes) in [
        ("cluster_size=64k", [2 * MIB, 3 * MIB + 512, 1 << 30, 3 << 40]),
        ("cluster_size=512", [MIB, 4 * MIB, 300 * MIB, 5 << 30]),
        ("cluster_size=512,refcount_bits=1", [MIB, 4 * MIB, 300 * MIB, 5 << 30]),
        ("cluster_size=512,refcount_bits=64", [MIB, 2 * MIB, 90 * MIB, 1 << 30]),
        ("cluster_size=4k,refcount_bits=8", [MIB, 9 * MIB, 5 << 30, 60 << 30]),
        ("compat=0.10,cluster_size=1k", [MIB, 9 * MIB, 2 << 30, 30 << 30]),
        ("extended_l2=on,cluster_size=16k", [MIB, 9 * MIB, 2 << 30, 30 << 30]),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let domain = disk(folder.path(), VolumeFormat::Qcow2, MIB).await;
        planted(&domain, options, sizes[0]);
        let image = file(&domain);
        let last = format!("read -P 3 {} 512", sizes[0] - 512);
        for (n, size) in sizes.into_iter().enumerate() {
            let report = resized(execute(Order::ResizeVolume(resize(&domain, VolumeFormat::Qcow2, size))).await);
            assert_eq!(report.volumes[0].virtual_bytes, size, "{options}");
            qemu_img(&["check", "-q", "-f", "qcow2", text(&image)]);
            let mut commands = vec!["-f", "qcow2", "-c", "read -P 1 0 100k", "-c", "read -P 2 600k 70k", "-c", &last];
            let end = format!("write -P 4 {} 512", size - 512);
            let read = format!("read -P 4 {} 512", size - 512);
            if n > 0 {
                commands.extend(["-c", &end, "-c", &read]);
            }
            commands.push(text(&image));
            tool("qemu-io", &commands);
            qemu_img(&["check", "-q", "-f", "qcow2", text(&image)]);
            assert_eq!(metadata(&domain).virtual_bytes, size);
            let bytes = std::fs::metadata(&image).expect("the image").len();
            if bytes < 64 * MIB {
                let facts = check(std::fs::read(&image).expect("read").as_slice(), &CancelFlag::new()).expect("sound");
                assert_eq!(facts.leaked_clusters, 0, "{options} at {size}");
            }
        }
        // Smaller: it is as large already.
        let late = resized(execute(Order::ResizeVolume(resize(&domain, VolumeFormat::Qcow2, sizes[1]))).await);
        assert_eq!(late.volumes[0].virtual_bytes, sizes[3]);
    }
}

#[tokio::test]
async fn an_image_with_bitmaps_or_too_small_clusters_does_not_grow() {
    let _alone = ALONE.lock().await;
    if !has_qemu_img("an_image_with_bitmaps_does_not_grow") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = disk(folder.path(), VolumeFormat::Qcow2, MIB).await;
    planted(&domain, "cluster_size=512", MIB);
    let before = std::fs::read(file(&domain)).expect("read");
    let order = resize(&domain, VolumeFormat::Qcow2, 1 << 40);
    let refused = refusal(execute(Order::ResizeVolume(order)).await);
    assert_eq!(refused.code, RefusalCode::Qcow2Unsupported, "{refused}");
    assert_eq!(std::fs::read(file(&domain)).expect("read"), before);
    planted(&domain, "cluster_size=64k", MIB);
    qemu_img(&["bitmap", "--add", text(&file(&domain)), "backup"]);
    let refused = refusal(execute(Order::ResizeVolume(resize(&domain, VolumeFormat::Qcow2, 2 * MIB))).await);
    assert!(refused.message.contains("1 dirty bitmaps"), "{refused}");
}

#[tokio::test]
async fn a_projection_writes_what_it_was_told_and_keeps_when_the_volume_was_made() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = disk(folder.path(), VolumeFormat::Raw, MIB).await;
    let before = metadata(&domain);
    let Order::CreateDisk(order) = create_disk(&domain, 1, VolumeFormat::Raw, MIB) else { unreachable!() };
    let mut volumes = order.placement.volumes;
    volumes[0].illegal = true;
    let project = ProjectPlacement {
        domain: domain.clone(),
        placement: Uuid::from_u128(0xF000_0001),
        token: "1-1-0".to_owned(),
        disk_name: "web-02".to_owned(),
        disk_description: "of the shop".to_owned(),
        volumes,
        attempt: "1-9-0".to_owned(),
    };
    // What an interrupted projection left.
    let next = placement_path(&domain, 1).join(format!("{VOLUME}.meta.new"));
    std::fs::write(&next, "CAP=").expect("written");
    for _ in 0..2 {
        assert_eq!(done(execute(Order::ProjectPlacement(project.clone())).await), Done::Projected);
        let after = metadata(&domain);
        assert_eq!((after.disk_name.as_str(), after.disk_description.as_str()), ("web-02", "of the shop"));
        assert_eq!((after.legality, after.created_at_s), (Legality::Illegal, before.created_at_s));
        assert!(!next.exists());
    }
    let other = ProjectPlacement { token: "1-2-0".to_owned(), ..project };
    assert_eq!(refusal(execute(Order::ProjectPlacement(other)).await).code, RefusalCode::EvidenceMismatch);
    // A deletion knows the projection's own name.
    std::fs::write(&next, "CAP=").expect("written");
    done(execute(Order::DeletePlacement(fixture::delete_order(&domain, 1))).await);
    assert!(!placement_path(&domain, 1).exists());
}
