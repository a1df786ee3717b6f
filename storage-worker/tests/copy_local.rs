//! Copies on one host: every byte, every hole that matters, the right hash, and a good end for every bad one.

mod fixture;

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;

use fixture::copy_order;
use fixture::create_disk;
use fixture::create_domain;
use fixture::done;
use fixture::images;
use fixture::noise;
use fixture::placed;
use fixture::placement_path;
use fixture::refusal;
use fixture::root;
use sdm_storage_worker::driver::DomainDriver;
use sdm_storage_worker::driver::DomainFile;
use sdm_storage_worker::driver::EntryPath;
use sdm_storage_worker::driver::OpenHow;
use sdm_storage_worker::driver::SimulatedStorage;
use sdm_storage_worker::driver::Storage;
use sdm_storage_worker::work::DomainRoot;
use sdm_storage_worker::work::FileHash;
use sdm_storage_worker::work::Order;
use sdm_storage_worker::work::Outcome;
use sdm_storage_worker::work::Ports;
use sdm_storage_worker::work::RefusalCode;
use sdm_storage_worker::work::VolumeFormat;
use sdm_storage_worker::work::run;
use sdm_storage_worker::work::run_on;

const MIB: u64 = 1 << 20;

/// Two domains on the host, a disk of some size in the first.
async fn two_domains(folder: &Path, bytes: u64) -> (DomainRoot, DomainRoot) {
    let mut domains = Vec::new();
    for number in [1, 2] {
        let path = folder.join(format!("domain-{number}"));
        std::fs::create_dir(&path).expect("a folder");
        let domain = root(&path, number);
        done(run(Order::CreateDomain(create_domain(domain.clone())), Ports::silent()).await);
        domains.push(domain);
    }
    placed(run(create_disk(&domains[0], 1, VolumeFormat::Raw, bytes), Ports::silent()).await);
    (domains[0].clone(), domains[1].clone())
}

fn volume(domain: &DomainRoot, number: u128) -> PathBuf {
    placement_path(domain, number).join(fixture::VOLUME.to_string())
}

fn write(path: &Path, parts: &[(u64, usize)]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("the volume opens");
    for (offset, length) in parts {
        file.write_all_at(&noise(*length, *offset), *offset).expect("it is written");
    }
}

fn hash_of(path: &Path) -> FileHash {
    FileHash::from(blake3::hash(&std::fs::read(path).expect("the volume is read")))
}

async fn copy(source: &DomainRoot, target: &DomainRoot) -> Outcome {
    run(Order::BuildPlacement(copy_order(source, 1, target, 2)), Ports::silent()).await
}

#[tokio::test]
async fn a_copy_has_the_same_bytes_hash_and_holes() {
    for (bytes, parts) in [
        (4096, vec![(0, 4096)]),
        (9 * MIB + 8192, vec![(0, 5), (MIB - 3, 7), (3 * MIB + 12_288, 40_000), (9 * MIB + 8000, 100)]),
        (8 * MIB, vec![(0, 8 << 20)]),
        (5 * MIB, vec![]),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (source, target) = two_domains(folder.path(), bytes).await;
        write(&volume(&source, 1), &parts);
        let before = hash_of(&volume(&source, 1));
        let report = placed(copy(&source, &target).await);
        let copied = volume(&target, 2);
        assert_eq!(hash_of(&copied), before, "{bytes} bytes");
        assert_eq!(report.volumes[0].hash, Some(before), "{bytes} bytes");
        assert_eq!(report.volumes[0].file_bytes, bytes);
        let written: u64 = parts.iter().map(|(_, length)| *length as u64 + 8192).sum();
        let taken = std::fs::metadata(&copied).expect("the copy").blocks() * 512;
        assert!(taken <= written, "{taken} bytes are taken for {written} bytes of data");
        assert_eq!(hash_of(&volume(&source, 1)), before, "the source changed");
    }
}

#[tokio::test]
async fn a_size_that_is_no_multiple_of_anything_is_kept() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (source, target) = two_domains(folder.path(), MIB).await;
    std::fs::write(volume(&source, 1), noise(3 * 1024 * 1024 + 4097, 1)).expect("a volume of odd size");
    let report = placed(copy(&source, &target).await);
    assert_eq!(report.volumes[0].file_bytes, 3 * MIB + 4097);
    assert_eq!(hash_of(&volume(&target, 2)), hash_of(&volume(&source, 1)));
}

#[tokio::test]
async fn zeros_that_take_room_take_none_or_the_same_in_the_copy() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (source, target) = two_domains(folder.path(), 4 * MIB).await;
    let path = volume(&source, 1);
    std::fs::write(&path, vec![0; 4 << 20]).expect("zeros");
    placed(copy(&source, &target).await);
    let copied = std::fs::metadata(volume(&target, 2)).expect("the copy");
    assert_eq!(copied.len(), 4 * MIB);
    assert!(copied.blocks() <= std::fs::metadata(&path).expect("the source").blocks());
}

#[tokio::test]
async fn progress_rises_to_the_end_and_checkpoints_tell_what_is_durable() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bytes = 1100 * MIB;
    let (source, target) = two_domains(folder.path(), bytes).await;
    write(&volume(&source, 1), &[(5 * MIB, 100_000)]);
    let (seen, durable) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let mut ports = Ports::silent();
    let (progress, checkpoints) = (seen.clone(), durable.clone());
    ports.progress = Arc::new(move |step| progress.lock().expect("a lock").push(step));
    ports.checkpoint = Arc::new(move |step| checkpoints.lock().expect("a lock").push(step));
    placed(run(Order::BuildPlacement(copy_order(&source, 1, &target, 2)), ports).await);
    let seen = seen.lock().expect("a lock");
    assert!(seen.windows(2).all(|pair| pair[0].done_bytes < pair[1].done_bytes));
    assert!(seen.iter().all(|step| step.total_bytes == bytes));
    assert_eq!(seen.last().map(|step| step.done_bytes), Some(bytes));
    let durable = durable.lock().expect("a lock");
    assert!(!durable.is_empty(), "a GiB passed without a checkpoint");
    assert!(durable.iter().all(|point| point.volume == fixture::VOLUME && point.durable_bytes <= bytes));
}

#[tokio::test]
async fn a_stopped_copy_is_begun_anew_by_the_same_attempt() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (source, target) = two_domains(folder.path(), 64 * MIB).await;
    write(&volume(&source, 1), &[(0, 40 << 20)]);
    let mut ports = Ports::silent();
    let cancel = ports.cancel.clone();
    ports.progress = Arc::new(move |_| cancel.set());
    let order = Order::BuildPlacement(copy_order(&source, 1, &target, 2));
    assert_eq!(run(order.clone(), ports).await, Outcome::Stopped);
    assert!(!placement_path(&target, 2).exists(), "half a copy was published");
    assert!(images(&target).join(".sdm-1-2-0").exists());
    placed(run(order, Ports::silent()).await);
    assert_eq!(hash_of(&volume(&target, 2)), hash_of(&volume(&source, 1)));
}

#[tokio::test]
async fn another_hash_than_recorded_is_refused_and_nothing_is_left() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (source, target) = two_domains(folder.path(), 2 * MIB).await;
    let mut order = copy_order(&source, 1, &target, 2);
    order.placement.volumes[0].expected_hash = Some(FileHash([7; 32]));
    let refused = refusal(run(Order::BuildPlacement(order), Ports::silent()).await);
    assert_eq!(refused.code, RefusalCode::HashMismatch);
    assert_eq!(std::fs::read_dir(images(&target)).expect("a folder").count(), 0);
}

#[tokio::test]
async fn a_missing_source_is_refused_before_the_target_is_touched() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (source, target) = two_domains(folder.path(), MIB).await;
    let missing = copy_order(&source, 9, &target, 2);
    let refused = refusal(run(Order::BuildPlacement(missing), Ports::silent()).await);
    assert_eq!(refused.code, RefusalCode::PlacementMissing);
    std::fs::remove_file(volume(&source, 1)).expect("the volume goes");
    assert_eq!(refusal(copy(&source, &target).await).code, RefusalCode::VolumeMissing);
    assert_eq!(std::fs::read_dir(images(&target)).expect("a folder").count(), 0);
}

#[tokio::test]
async fn a_volume_that_qemu_writes_is_not_copied() {
    if !fixture::has_qemu_img("a_volume_that_qemu_writes_is_not_copied") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (source, target) = two_domains(folder.path(), MIB).await;
    let mut writer = std::process::Command::new("qemu-io")
        .args(["-f", "raw", fixture::text(&volume(&source, 1))])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("qemu-io starts");
    let mut input = writer.stdin.take().expect("its input");
    let mut output = BufReader::new(writer.stdout.take().expect("its output"));
    input.write_all(b"write 0 512\n").expect("it takes a command");
    let mut line = String::new();
    while !line.contains("wrote 512/512") {
        line.clear();
        assert!(output.read_line(&mut line).expect("it answers") > 0, "qemu-io ended");
    }
    let refused = refusal(copy(&source, &target).await);
    assert_eq!(refused.code, RefusalCode::VolumeInUse, "{refused}");
    input.write_all(b"quit\n").expect("it takes a command");
    writer.wait().expect("it ends");
    placed(copy(&source, &target).await);
}

/// Two simulated domains, and a disk with `data` bytes of noise in the first.
async fn simulated(data: usize) -> (SimulatedStorage, DomainRoot, DomainRoot) {
    let storage = SimulatedStorage::new();
    let mut domains = Vec::new();
    for number in [1, 2] {
        let path = PathBuf::from(format!("/mnt/{number}"));
        storage.mount(&path).expect("a mount point");
        let domain = root(&path, number);
        done(run_on(&storage, Order::CreateDomain(create_domain(domain.clone())), Ports::silent()).await);
        domains.push(domain);
    }
    let (source, target) = (domains.remove(0), domains.remove(0));
    let mut ports = Ports::silent();
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    ports.incoming = Some(receiver);
    let bytes = noise(data, 4);
    send_pieces(&sender, &bytes).await;
    drop(sender);
    let mut order = copy_order(&source, 0, &source, 1);
    order.source = sdm_storage_worker::work::Source::Import;
    placed(run_on(&storage, Order::BuildPlacement(order), ports).await);
    (storage, source, target)
}

async fn send_pieces(sender: &tokio::sync::mpsc::Sender<sdm_storage_worker::work::Piece>, bytes: &[u8]) {
    use sdm_storage_worker::work::Piece;
    let total = bytes.len() as u64;
    sender.send(Piece::Open { ordinal: 0, bytes: total }).await.expect("room");
    for (index, part) in bytes.chunks(MIB as usize).enumerate() {
        let piece = Piece::Data { offset: index as u64 * MIB, bytes: part.to_vec().into() };
        sender.send(piece).await.expect("room");
    }
    let end = Piece::End { bytes: total, hash: blake3::hash(bytes).into() };
    sender.send(end).await.expect("room");
}

async fn simulated_bytes(storage: &SimulatedStorage, domain: &DomainRoot, number: u128) -> Vec<u8> {
    let driver = storage.open_root(&placement_path(domain, number)).await.expect("the placement");
    let path = EntryPath::parse(&fixture::VOLUME.to_string()).expect("a name");
    let file = driver.open(&path, OpenHow::READ).await.expect("the volume");
    let mut bytes = vec![0; usize::try_from(file.stat().expect("its size").bytes).expect("a small file")];
    file.read_at(&mut bytes, 0).expect("it is read");
    bytes
}

#[tokio::test]
async fn a_full_target_is_refused_with_what_was_missing_and_the_source_is_whole() {
    let (storage, source, target) = simulated(8 << 20).await;
    storage.set_capacity(11 << 20);
    let order = Order::BuildPlacement(copy_order(&source, 1, &target, 2));
    let refused = refusal(run_on(&storage, order.clone(), Ports::silent()).await);
    assert_eq!(refused.code, RefusalCode::NoSpace);
    let missing = refused.missing_bytes.expect("how much was missing");
    assert!((5 * MIB..=8 * MIB).contains(&missing), "{missing}");
    assert!(refused.message.contains(&missing.to_string()), "{}", refused.message);
    assert_eq!(simulated_bytes(&storage, &source, 1).await, noise(8 << 20, 4));
    storage.set_capacity(1 << 30);
    placed(run_on(&storage, order, Ports::silent()).await);
    storage.crash();
    assert_eq!(simulated_bytes(&storage, &target, 2).await, noise(8 << 20, 4), "the copy was not durable");
}

#[tokio::test]
async fn sick_storage_fails_the_copy_and_a_later_one_succeeds() {
    for operation in ["read", "write", "fsync"] {
        for calls in [0, 1, 3, 5] {
            let (storage, source, target) = simulated(6 << 20).await;
            storage.fail(operation, calls, 5);
            let order = Order::BuildPlacement(copy_order(&source, 1, &target, 2));
            match run_on(&storage, order.clone(), Ports::silent()).await {
                Outcome::Failed(failure) => assert!(failure.message.contains("input/output"), "{failure}"),
                other => panic!("{operation} {calls}: {other:?}"),
            }
            storage.crash();
            storage.heal();
            placed(run_on(&storage, order, Ports::silent()).await);
            assert_eq!(simulated_bytes(&storage, &target, 2).await, noise(6 << 20, 4), "{operation} {calls}");
        }
    }
}

/// A tmpfs that goes away with the test.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_real_file_system_that_fills_up_refuses_the_copy_and_has_its_room_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (source, _) = two_domains(folder.path(), 16 * MIB).await;
    write(&volume(&source, 1), &[(0, 12 << 20)]);
    let path = folder.path().join("small");
    std::fs::create_dir(&path).expect("a folder");
    let mount = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "none"]).arg(&path).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: a_real_file_system_that_fills_up...: mounting a tmpfs needs root");
        return;
    }
    let _mounted = Mounted(path.clone());
    let target = root(&path, 3);
    let order = sdm_storage_worker::work::CreateDomain {
        mounting: sdm_storage_worker::work::Mounting::Required,
        ..create_domain(target.clone())
    };
    done(run(Order::CreateDomain(order), Ports::silent()).await);
    let before = hash_of(&volume(&source, 1));
    let refused = refusal(copy(&source, &target).await);
    assert_eq!(refused.code, RefusalCode::NoSpace, "{refused}");
    let missing = refused.missing_bytes.expect("how much was missing");
    assert!((4 * MIB..=12 * MIB).contains(&missing), "{missing}");
    assert_eq!(std::fs::read_dir(images(&target)).expect("a folder").count(), 0);
    assert_eq!(hash_of(&volume(&source, 1)), before);
    placed(run(create_disk(&target, 7, VolumeFormat::Qcow2, MIB), Ports::silent()).await);
}
