//! Volumes as streams of pieces: import, export and pull, and streams that lie.

mod fixture;

use std::path::Path;
use std::path::PathBuf;

use bytes::Bytes;
use fixture::create_domain;
use fixture::done;
use fixture::images;
use fixture::noise;
use fixture::placed;
use fixture::placement;
use fixture::placement_path;
use fixture::refusal;
use fixture::root;
use sdm_storage_worker::work::BuildPlacement;
use sdm_storage_worker::work::DomainRoot;
use sdm_storage_worker::work::FileHash;
use sdm_storage_worker::work::Order;
use sdm_storage_worker::work::Outcome;
use sdm_storage_worker::work::PIECES_IN_FLIGHT;
use sdm_storage_worker::work::Piece;
use sdm_storage_worker::work::PlacementReport;
use sdm_storage_worker::work::Ports;
use sdm_storage_worker::work::RefusalCode;
use sdm_storage_worker::work::SendPlacement;
use sdm_storage_worker::work::SentVolume;
use sdm_storage_worker::work::Source;
use sdm_storage_worker::work::VolumeFormat;
use sdm_storage_worker::work::run;
use tokio::sync::mpsc;
use uuid::Uuid;

async fn new_domain(path: &Path, number: u128) -> DomainRoot {
    let domain = root(path, number);
    done(run(Order::CreateDomain(create_domain(domain.clone())), Ports::silent()).await);
    domain
}

fn volume(domain: &DomainRoot, number: u128) -> PathBuf {
    placement_path(domain, number).join(fixture::VOLUME.to_string())
}

fn build(domain: &DomainRoot, number: u128, format: VolumeFormat, source: Source) -> Order {
    Order::BuildPlacement(BuildPlacement { placement: placement(domain, number, format, None), source })
}

/// Runs an import of the pieces.
async fn import(domain: &DomainRoot, format: VolumeFormat, pieces: Vec<Piece>) -> Outcome {
    import_order(build(domain, 1, format, Source::Import), pieces).await
}

async fn import_order(order: Order, pieces: Vec<Piece>) -> Outcome {
    let (sender, receiver) = mpsc::channel(PIECES_IN_FLIGHT);
    let feeder = tokio::spawn(async move {
        for piece in pieces {
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    let mut ports = Ports::silent();
    ports.incoming = Some(receiver);
    let outcome = run(order, ports).await;
    feeder.await.expect("the feeder ends");
    outcome
}

/// The pieces of a file, in an odd size that respects no boundary.
fn pieces(bytes: &[u8]) -> Vec<Piece> {
    let mut pieces = vec![Piece::Open { ordinal: 0, bytes: bytes.len() as u64 }];
    for (index, part) in bytes.chunks(300_001).enumerate() {
        let offset = index as u64 * 300_001;
        pieces.push(if part.iter().all(|byte| *byte == 0) {
            Piece::Hole { offset, length: part.len() as u64 }
        } else {
            Piece::Data { offset, bytes: Bytes::copy_from_slice(part) }
        });
    }
    pieces.push(Piece::End { bytes: bytes.len() as u64, hash: blake3::hash(bytes).into() });
    pieces
}

fn send_order(domain: &DomainRoot, number: u128, true_bytes: Option<u64>, hash: Option<FileHash>) -> Order {
    Order::SendPlacement(SendPlacement {
        domain: domain.clone(),
        placement: Uuid::from_u128(0xF000_0000 + number),
        token: format!("1-{number}-0"),
        volumes: vec![SentVolume { volume: fixture::VOLUME, true_bytes, expected_hash: hash }],
        flattened: Vec::new(),
    })
}

/// Sends a placement and puts the pieces together again.
async fn export(order: Order) -> (PlacementReport, Vec<u8>) {
    let (sender, mut receiver) = mpsc::channel(PIECES_IN_FLIGHT);
    let mut ports = Ports::silent();
    ports.outgoing = Some(sender);
    let running = tokio::spawn(run(order, ports));
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    while let Some(piece) = receiver.recv().await {
        match piece {
            Piece::Open { bytes: total, .. } => bytes = vec![0xEE; usize::try_from(total).expect("a small file")],
            Piece::Data { offset, bytes: part } => {
                let start = usize::try_from(offset).expect("a small file");
                bytes[start..start + part.len()].copy_from_slice(&part);
            }
            Piece::Hole { offset, length } => {
                let (start, length) = (offset as usize, length as usize);
                bytes[start..start + length].fill(0);
            }
            Piece::End { hash, .. } => ends.push(hash),
        }
    }
    assert_eq!(ends, [FileHash::from(blake3::hash(&bytes))]);
    (placed(running.await.expect("it ends")), bytes)
}

/// Odd in every way: size, data and holes.
fn odd_disk() -> Vec<u8> {
    let mut disk = vec![0; 7_000_123];
    disk[..100].copy_from_slice(&noise(100, 1));
    disk[1_048_570..1_048_590].copy_from_slice(&noise(20, 2));
    disk[3_000_000..5_000_000].copy_from_slice(&noise(2_000_000, 3));
    disk[7_000_120..].copy_from_slice(&noise(3, 4));
    disk
}

#[tokio::test]
async fn an_imported_raw_disk_is_rounded_and_exported_as_it_came() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path(), 1).await;
    let disk = odd_disk();
    let report = placed(import(&domain, VolumeFormat::Raw, pieces(&disk)).await);
    let stored = std::fs::read(volume(&domain, 1)).expect("the volume");
    assert_eq!(stored.len() as u64, 7_000_123_u64.next_multiple_of(4096));
    assert_eq!(&stored[..disk.len()], disk);
    assert!(stored[disk.len()..].iter().all(|byte| *byte == 0));
    let found = &report.volumes[0];
    assert_eq!(found.hash, Some(blake3::hash(&stored).into()));
    assert_eq!((found.true_bytes, found.virtual_bytes), (Some(7_000_123), stored.len() as u64));
    assert!(found.allocated_bytes < 3_000_000, "holes were filled: {}", found.allocated_bytes);
    let (sent, bytes) = export(send_order(&domain, 1, found.true_bytes, found.hash)).await;
    assert!(bytes == disk, "the export differs from what was imported");
    assert_eq!(sent.volumes[0].hash, found.hash);
}

#[tokio::test]
async fn a_pull_makes_the_same_file_in_another_domain() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut domains = Vec::new();
    for number in [1, 2] {
        let path = folder.path().join(number.to_string());
        std::fs::create_dir(&path).expect("a folder");
        domains.push(new_domain(&path, number).await);
    }
    placed(import(&domains[0], VolumeFormat::Raw, pieces(&odd_disk())).await);
    let (sender, receiver) = mpsc::channel(PIECES_IN_FLIGHT);
    let (mut source_ports, mut target_ports) = (Ports::silent(), Ports::silent());
    source_ports.outgoing = Some(sender);
    target_ports.incoming = Some(receiver);
    let sending = tokio::spawn(run(send_order(&domains[0], 1, None, None), source_ports));
    let built = run(build(&domains[1], 2, VolumeFormat::Raw, Source::Pull), target_ports).await;
    let (sent, built) = (placed(sending.await.expect("it ends")), placed(built));
    assert_eq!(sent.volumes[0].hash, built.volumes[0].hash);
    assert!(built.volumes[0].allocated_bytes < 3_000_000, "holes were filled");
    let read = |domain, number| std::fs::read(volume(domain, number)).expect("the volume");
    assert!(read(&domains[0], 1) == read(&domains[1], 2));
}

#[tokio::test]
async fn a_changed_source_is_noticed_before_the_stream_ends() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path(), 1).await;
    placed(import(&domain, VolumeFormat::Raw, pieces(&odd_disk())).await);
    let (sender, mut receiver) = mpsc::channel(PIECES_IN_FLIGHT);
    let mut ports = Ports::silent();
    ports.outgoing = Some(sender);
    let running = tokio::spawn(run(send_order(&domain, 1, None, Some(FileHash([1; 32]))), ports));
    while let Some(piece) = receiver.recv().await {
        assert!(!matches!(piece, Piece::End { .. }), "a bad stream ended well");
    }
    assert_eq!(refusal(running.await.expect("it ends")).code, RefusalCode::HashMismatch);
}

#[tokio::test]
async fn a_receiver_that_goes_away_ends_the_sending() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path(), 1).await;
    placed(import(&domain, VolumeFormat::Raw, pieces(&odd_disk())).await);
    let (sender, receiver) = mpsc::channel(1);
    let mut ports = Ports::silent();
    ports.outgoing = Some(sender);
    drop(receiver);
    assert!(matches!(run(send_order(&domain, 1, None, None), ports).await, Outcome::Failed(_)));
}

#[tokio::test]
async fn a_stream_that_breaks_its_rules_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path(), 1).await;
    let data = |offset, length| Piece::Data { offset, bytes: Bytes::from(vec![1; length]) };
    let open = |bytes| Piece::Open { ordinal: 0, bytes };
    let end = |bytes| Piece::End { bytes, hash: FileHash([0; 32]) };
    let cases = [
        ("data first", vec![data(0, 10)], RefusalCode::StreamInvalid),
        ("wrong ordinal", vec![Piece::Open { ordinal: 1, bytes: 5 }], RefusalCode::StreamInvalid),
        ("nothing", vec![open(0)], RefusalCode::ImageEmpty),
        ("too much", vec![open(u64::MAX)], RefusalCode::SizeInvalid),
        ("overlap", vec![open(100), data(0, 50), data(49, 10)], RefusalCode::StreamInvalid),
        ("backwards", vec![open(100), data(50, 50), data(0, 10)], RefusalCode::StreamInvalid),
        ("past the end", vec![open(100), data(95, 10)], RefusalCode::StreamInvalid),
        ("wrapping", vec![open(100), data(u64::MAX, 10)], RefusalCode::StreamInvalid),
        ("empty data", vec![open(100), data(0, 0)], RefusalCode::StreamInvalid),
        (
            "a hole past the end",
            vec![open(100), Piece::Hole { offset: 1, length: u64::MAX }],
            RefusalCode::StreamInvalid,
        ),
        ("too large a piece", vec![open(4 << 20), data(0, (1 << 20) + 1)], RefusalCode::StreamInvalid),
        ("another size", vec![open(100), data(0, 100), end(99)], RefusalCode::StreamInvalid),
        ("another hash", vec![open(100), data(0, 100), end(100)], RefusalCode::HashMismatch),
        ("two beginnings", vec![open(100), open(100)], RefusalCode::StreamInvalid),
    ];
    for (what, pieces, code) in cases {
        let refused = refusal(import(&domain, VolumeFormat::Raw, pieces).await);
        assert_eq!(refused.code, code, "{what}: {refused}");
        assert_eq!(std::fs::read_dir(images(&domain)).expect("a folder").count(), 0, "{what}");
    }
}

#[tokio::test]
async fn a_stream_of_another_size_than_was_agreed_is_refused_before_any_of_it_is_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path(), 1).await;
    for agreed in [1 << 20, 7_000_122, 7_000_124] {
        let mut placement = placement(&domain, 1, VolumeFormat::Raw, None);
        placement.volumes[0].announced_bytes = Some(agreed);
        let order = Order::BuildPlacement(BuildPlacement { placement, source: Source::Import });
        let refused = refusal(import_order(order, pieces(&odd_disk())).await);
        assert_eq!(refused.code, RefusalCode::SizeMismatch, "{refused}");
        assert!(refused.message.contains(&agreed.to_string()) && refused.message.contains("7000123"), "{refused}");
        assert_eq!(std::fs::read_dir(images(&domain)).expect("a folder").count(), 0);
    }
    let mut placement = placement(&domain, 1, VolumeFormat::Raw, None);
    placement.volumes[0].announced_bytes = Some(7_000_123);
    let order = Order::BuildPlacement(BuildPlacement { placement, source: Source::Import });
    placed(import_order(order, pieces(&odd_disk())).await);
}

/// The first 2 MiB of an image of a terabyte; a sender that has sent it waits, and the answer must be there.
#[tokio::test]
async fn a_qcow2_header_is_judged_when_it_is_here_and_not_when_all_is() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path(), 1).await;
    let header = |fields: &[(usize, &[u8])]| {
        let mut head = vec![0; 2 << 20];
        let usual: [(usize, &[u8]); 7] = [
            (0, b"QFI\xfb\0\0\0\x03"),
            (20, &16_u32.to_be_bytes()),
            (24, &(1_u64 << 30).to_be_bytes()),
            (36, &2_u32.to_be_bytes()),
            (40, &(3_u64 << 16).to_be_bytes()),
            (48, &(1_u64 << 16).to_be_bytes()),
            (56, &1_u32.to_be_bytes()),
        ];
        let last: [(usize, &[u8]); 2] = [(96, &4_u32.to_be_bytes()), (100, &104_u32.to_be_bytes())];
        for (at, bytes) in usual.iter().chain(&last).chain(fields) {
            head[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        head
    };
    let backed: &[(usize, &[u8])] = &[(8, &512_u64.to_be_bytes()), (16, &4_u32.to_be_bytes()), (512, b"base")];
    let (huge_bytes, huge_l1) = ((17_u64 << 40).to_be_bytes(), (1_u32 << 20).to_be_bytes());
    let huge: &[(usize, &[u8])] = &[(24, &huge_bytes), (36, &huge_l1)];
    let cases = [
        (header(backed), RefusalCode::Qcow2BackingFile, "base"),
        (header(huge), RefusalCode::SizeInvalid, "18691697672192"),
        (noise(2 << 20, 9), RefusalCode::Qcow2Invalid, "qcow2"),
    ];
    for (head, code, said) in cases {
        let (sender, receiver) = mpsc::channel(PIECES_IN_FLIGHT);
        let mut ports = Ports::silent();
        ports.incoming = Some(receiver);
        let running = tokio::spawn(run(build(&domain, 1, VolumeFormat::Qcow2, Source::Import), ports));
        sender.send(Piece::Open { ordinal: 0, bytes: 1 << 40 }).await.expect("it is taken");
        for (index, part) in head.chunks(1 << 19).enumerate() {
            let offset = (index as u64) << 19;
            sender.send(Piece::Data { offset, bytes: Bytes::copy_from_slice(part) }).await.expect("it is taken");
        }
        let refused = refusal(running.await.expect("it ends"));
        assert_eq!(refused.code, code, "{refused}");
        assert!(refused.message.contains(said), "{refused}");
        drop(sender);
    }
    // One that is well goes on after its head.
    let (sender, receiver) = mpsc::channel(PIECES_IN_FLIGHT);
    let mut ports = Ports::silent();
    ports.incoming = Some(receiver);
    let running = tokio::spawn(run(build(&domain, 1, VolumeFormat::Qcow2, Source::Import), ports));
    sender.send(Piece::Open { ordinal: 0, bytes: 1 << 40 }).await.expect("it is taken");
    for (index, part) in header(&[]).chunks(1 << 19).enumerate() {
        let offset = (index as u64) << 19;
        sender.send(Piece::Data { offset, bytes: Bytes::copy_from_slice(part) }).await.expect("it is taken");
    }
    for offset in 4..4 + 2 * PIECES_IN_FLIGHT as u64 {
        let piece = Piece::Data { offset: offset << 19, bytes: Bytes::from_static(b"data") };
        sender.send(piece).await.expect("it is taken");
    }
    drop(sender);
    assert!(matches!(running.await.expect("it ends"), Outcome::Failed(_)));
}

#[tokio::test]
async fn a_sender_that_goes_away_fails_the_attempt_and_the_next_one_succeeds() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path(), 1).await;
    let disk = odd_disk();
    for kept in [0, 1, 5] {
        let mut cut = pieces(&disk);
        cut.truncate(kept);
        let outcome = import(&domain, VolumeFormat::Raw, cut).await;
        assert!(matches!(outcome, Outcome::Failed(_)), "{kept}: {outcome:?}");
        assert!(!placement_path(&domain, 1).exists());
    }
    placed(import(&domain, VolumeFormat::Raw, pieces(&disk)).await);
}

#[tokio::test]
async fn an_imported_qcow2_is_judged_before_it_is_published() {
    if !fixture::has_qemu_img("an_imported_qcow2_is_judged_before_it_is_published") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = new_domain(folder.path(), 1).await;
    let (raw, image) = (folder.path().join("raw"), folder.path().join("image"));
    std::fs::write(&raw, odd_disk()).expect("a raw disk");
    let (raw, path) = (fixture::text(&raw), fixture::text(&image));
    fixture::qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd", raw, path]);
    let good = std::fs::read(&image).expect("the image");
    let mut backed = good.clone();
    backed[8..20].copy_from_slice(&[0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 4]);
    let cases = [
        (good[..good.len() - 100_000].to_vec(), RefusalCode::Qcow2Truncated),
        (noise(100_000, 5), RefusalCode::Qcow2Invalid),
        (backed, RefusalCode::Qcow2BackingFile),
    ];
    for (bytes, code) in cases {
        let refused = refusal(import(&domain, VolumeFormat::Qcow2, pieces(&bytes)).await);
        assert_eq!(refused.code, code, "{refused}");
        assert!(!refused.hint.is_empty());
        assert_eq!(std::fs::read_dir(images(&domain)).expect("a folder").count(), 0);
    }
    let report = placed(import(&domain, VolumeFormat::Qcow2, pieces(&good)).await);
    assert!(std::fs::read(volume(&domain, 1)).expect("the volume") == good, "the file's bytes changed");
    let facts = report.volumes[0].qcow2.as_ref().expect("facts");
    assert_eq!((facts.compression.as_str(), facts.leaked_clusters), ("zstd", 0));
    assert_eq!(report.volumes[0].virtual_bytes, facts.virtual_bytes);
}
