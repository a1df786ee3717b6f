//! A worker from one end to the other: assignments come in over the real gateway service, I/O runs
//! on real files, bytes go in and out over the real transfer service.

mod worker_cluster;

use bytes::Bytes;
use sdm_proto::seams::BootClock;
use sdm_proto::token::Token;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::assignment::Order;
use sdm_proto::wire::internal::v1::report::Outcome;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::download_response;
use sdm_proto::wire::v1::upload_request;
use sdm_storage_worker::process::InProcess;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use worker_cluster::Cluster;
use worker_cluster::Domain;
use worker_cluster::Setup;
use worker_cluster::Worker;
use worker_cluster::assignment;
use worker_cluster::raw;

const TICKET: &[u8] = b"a ticket of the test";
const MIB: usize = 1 << 20;

async fn setup() -> Setup {
    let cluster = Cluster::new(600_000);
    let coordinators = vec![cluster.member("m1").await];
    Setup { cluster, coordinators, clock: Arc::new(BootClock), processes: Arc::new(InProcess::default()) }
}

/// A domain that a worker made and that is reachable.
async fn domain(setup: &Setup, worker: &Worker, path: &Path) -> Domain {
    let domain = Domain::new(&setup.cluster, path);
    setup.cluster.assign(&worker.name, vec![domain.create()], vec![]);
    setup.cluster.done(&worker.name, domain.token).await;
    setup.cluster.assign(&worker.name, vec![], vec![domain.target()]);
    setup.cluster.domain(&worker.name, &domain.id(), true).await;
    domain
}

/// Three MiB and a bit, with a hole in the middle.
fn content() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..3 * MIB + 5).map(|n| (n % 251) as u8).collect();
    bytes[MIB..2 * MIB].fill(0);
    bytes
}

fn message(message: upload_request::Message) -> v1::UploadRequest {
    v1::UploadRequest { message: Some(message) }
}

fn data(bytes: &[u8], offset: usize, length: usize) -> v1::UploadRequest {
    let data = Bytes::copy_from_slice(&bytes[offset..offset + length]);
    message(upload_request::Message::Piece(v1::Piece { offset: offset as u64, data, hole_bytes: 0 }))
}

fn open(bytes: &[u8], token: Token) -> v1::UploadRequest {
    message(upload_request::Message::Open(v1::TransferOpen {
        ticket: TICKET.into(),
        token: token.to_string(),
        file_size: bytes.len() as u64,
        allocated_bytes: 0,
    }))
}

fn upload(bytes: &[u8], token: Token) -> Vec<v1::UploadRequest> {
    let hole = v1::Piece { offset: MIB as u64, data: Bytes::new(), hole_bytes: MIB as u64 };
    let end = v1::TransferEnd { file_size: bytes.len() as u64, blake3: blake3::hash(bytes).as_bytes().to_vec().into() };
    vec![
        open(bytes, token),
        data(bytes, 0, MIB / 2),
        data(bytes, MIB / 2, MIB / 2),
        message(upload_request::Message::Piece(hole)),
        data(bytes, 2 * MIB, MIB),
        data(bytes, 3 * MIB, 5),
        message(upload_request::Message::End(end)),
    ]
}

fn receive(domain: &Domain, token: Token) -> wire::Assignment {
    let order = wire::ReceiveOrder {
        target: Some(domain.placement(token)),
        volume: Some(raw(1, 0)),
        ticket: Bytes::from_static(TICKET),
    };
    assignment(token, Order::Receive(order))
}

/// A file that does not fit into what is on its way at once, without a hole.
fn large_content() -> Vec<u8> {
    (0..24 * MIB).map(|n| (n % 251) as u8 | 1).collect()
}

fn large_upload(bytes: &[u8], token: Token) -> Vec<v1::UploadRequest> {
    let end = v1::TransferEnd { file_size: bytes.len() as u64, blake3: blake3::hash(bytes).as_bytes().to_vec().into() };
    let pieces = (0..bytes.len()).step_by(MIB).map(|offset| data(bytes, offset, MIB));
    let end = message(upload_request::Message::End(end));
    std::iter::once(open(bytes, token)).chain(pieces).chain(std::iter::once(end)).collect()
}

/// Uploads the content into a domain; answers with the attempt's token and the volume as it is.
async fn import(setup: &Setup, worker: &Worker, domain: &Domain) -> (Token, wire::VolumeResult) {
    import_as(setup, worker, domain, &content(), upload).await
}

async fn import_as(
    setup: &Setup,
    worker: &Worker,
    domain: &Domain,
    content: &[u8],
    upload: impl Fn(&[u8], Token) -> Vec<v1::UploadRequest>,
) -> (Token, wire::VolumeResult) {
    let token = setup.cluster.token();
    setup.cluster.assign(&worker.name, vec![receive(domain, token)], vec![domain.target()]);
    let mut client = setup.cluster.transfers(&worker.address);
    let answer = loop {
        match client.upload(tokio_stream::iter(upload(content, token))).await {
            Err(status) if status.code() == tonic::Code::Unavailable => tokio::task::yield_now().await,
            answer => break answer.unwrap().into_inner(),
        }
    };
    let done = setup.cluster.done(&worker.name, token).await;
    assert_eq!(answer.blake3.as_ref(), blake3::hash(content).as_bytes());
    (token, done.volumes[0].clone())
}

fn spec(volume: &wire::VolumeResult) -> wire::VolumeSpec {
    wire::VolumeSpec {
        volume_id: volume.volume_id.clone(),
        format: "raw".into(),
        virtual_size: volume.virtual_size,
        file_size: volume.file_size,
        allocated_bytes: volume.allocated_bytes,
        blake3: volume.blake3.clone(),
        ..Default::default()
    }
}

/// Downloads what a ticket opens.
async fn download(setup: &Setup, worker: &Worker, token: Token) -> Result<Vec<u8>, Status> {
    let request = v1::DownloadRequest { ticket: Bytes::from_static(TICKET), token: token.to_string() };
    let mut stream = setup.cluster.transfers(&worker.address).download(request).await?.into_inner();
    let mut bytes = Vec::new();
    let mut end = None;
    while let Some(message) = stream.message().await? {
        match message.message.expect("every message says something") {
            download_response::Message::Open(open) => bytes.resize(open.file_size as usize, 0),
            download_response::Message::Piece(piece) => {
                let at = piece.offset as usize;
                bytes[at..at + piece.data.len()].copy_from_slice(&piece.data);
            }
            download_response::Message::End(last) => end = Some(last),
        }
    }
    let end = end.expect("a stream that ends says so");
    assert_eq!(end.blake3.as_ref(), blake3::hash(&bytes).as_bytes());
    Ok(bytes)
}

#[tokio::test]
async fn a_disk_is_created_and_deleted() {
    let setup = setup().await;
    let folder = tempfile::tempdir().unwrap();
    let worker = setup.worker("w1", &[folder.path()]);
    let domain = domain(&setup, &worker, folder.path()).await;

    let token = setup.cluster.token();
    let order = wire::CreateDiskOrder { target: Some(domain.placement(token)), volumes: vec![raw(1, 1 << 30)] };
    setup.cluster.assign("w1", vec![assignment(token, Order::CreateDisk(order))], vec![domain.target()]);
    let done = setup.cluster.done("w1", token).await;
    assert_eq!(done.volumes[0].virtual_size, 1 << 30);
    let file = domain.file(token, &done.volumes[0].volume_id);
    assert_eq!(file.metadata().unwrap().len(), 1 << 30);

    let deletion = setup.cluster.token();
    setup.cluster.assign("w1", vec![domain.delete(deletion, token)], vec![domain.target()]);
    setup.cluster.done("w1", deletion).await;
    assert!(!file.exists());
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn an_uploaded_file_comes_back_byte_for_byte() {
    let setup = setup().await;
    let folder = tempfile::tempdir().unwrap();
    let worker = setup.worker("w1", &[]);
    let domain = domain(&setup, &worker, folder.path()).await;
    let (made_by, volume) = import(&setup, &worker, &domain).await;
    assert_eq!(volume.virtual_size, content().len() as u64, "the size before rounding");

    let token = setup.cluster.token();
    setup.cluster.assign("w1", vec![send(&setup, &domain, made_by, &volume, token)], vec![domain.target()]);
    let bytes = loop {
        match download(&setup, &worker, token).await {
            Err(status) if status.code() == tonic::Code::Unavailable => tokio::task::yield_now().await,
            answer => break answer.unwrap(),
        }
    };
    assert_eq!(bytes, content());
    setup.cluster.done("w1", token).await;
}

#[tokio::test]
async fn a_placement_is_copied_between_two_domains_of_one_worker() {
    let setup = setup().await;
    let folders = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let worker = setup.worker("w1", &[]);
    let source = domain(&setup, &worker, folders.0.path()).await;
    let target = domain(&setup, &worker, folders.1.path()).await;
    let (made_by, volume) = import(&setup, &worker, &source).await;

    let token = setup.cluster.token();
    let order = wire::CopyOrder {
        target: Some(target.placement(token)),
        volumes: vec![spec(&volume)],
        source_placement_id: made_by.placement(setup.cluster.id).to_string(),
        source_domain: Some(source.target()),
        pull: None,
    };
    setup.cluster.assign("w1", vec![assignment(token, Order::Copy(order))], vec![]);
    let done = setup.cluster.done("w1", token).await;
    assert_eq!(done.volumes[0].blake3, volume.blake3);
    assert_eq!(done.volumes[0].virtual_size, volume.virtual_size);
    assert_eq!(
        std::fs::read(target.file(token, &volume.volume_id)).unwrap(),
        std::fs::read(source.file(made_by, &volume.volume_id)).unwrap()
    );
}

#[tokio::test]
async fn a_placement_is_pulled_from_another_worker() {
    let setup = setup().await;
    let folders = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (w1, w2) = (setup.worker("w1", &[folders.0.path()]), setup.worker("w2", &[folders.1.path()]));
    let source = domain(&setup, &w1, folders.0.path()).await;
    let target = domain(&setup, &w2, folders.1.path()).await;
    let (made_by, volume) = import(&setup, &w1, &source).await;

    let token = setup.cluster.token();
    let copy = wire::CopyOrder {
        target: Some(target.placement(token)),
        volumes: vec![spec(&volume)],
        source_placement_id: made_by.placement(setup.cluster.id).to_string(),
        source_domain: None,
        pull: Some(wire::PullSource { address: w1.address.clone(), ticket: Bytes::from_static(TICKET) }),
    };
    let serve = wire::ServeSourceOrder {
        domain: Some(source.target()),
        placement_id: made_by.placement(setup.cluster.id).to_string(),
        volumes: vec![spec(&volume)],
        ticket: Bytes::from_static(TICKET),
    };
    // The puller comes first and has to wait for the source to know the ticket.
    setup.cluster.assign("w2", vec![assignment(token, Order::Copy(copy))], vec![]);
    setup.cluster.assign("w1", vec![assignment(token, Order::ServeSource(serve))], vec![]);
    let done = setup.cluster.done("w2", token).await;
    assert_eq!(done.volumes[0].blake3, volume.blake3);
    assert_eq!(
        std::fs::read(target.file(token, &volume.volume_id)).unwrap(),
        std::fs::read(source.file(made_by, &volume.volume_id)).unwrap()
    );
}

#[tokio::test]
async fn a_broken_upload_begins_again_from_zero() {
    let setup = setup().await;
    let folder = tempfile::tempdir().unwrap();
    let worker = setup.worker("w1", &[]);
    let domain = domain(&setup, &worker, folder.path()).await;
    let token = setup.cluster.token();
    setup.cluster.assign("w1", vec![receive(&domain, token)], vec![domain.target()]);

    // A sender that goes away in the middle.
    let mut garbage = upload(&vec![7; content().len()], token);
    garbage.truncate(3);
    let mut client = setup.cluster.transfers(&worker.address);
    loop {
        let (sender, messages) = mpsc::channel(8);
        for message in garbage.clone() {
            sender.send(message).await.unwrap();
        }
        let connected = |outcome: &Outcome| matches!(outcome, Outcome::Sender(sender) if sender.connected);
        tokio::select! {
            answer = client.upload(ReceiverStream::new(messages)) => {
                assert_eq!(answer.unwrap_err().code(), tonic::Code::Unavailable);
            }
            _ = setup.cluster.reported("w1", token, "a sender", connected) => break,
        }
    }
    setup.cluster.reported("w1", token, "no sender", |o| matches!(o, Outcome::Sender(s) if !s.connected)).await;

    let mut client = setup.cluster.transfers(&worker.address);
    client.upload(tokio_stream::iter(upload(&content(), token))).await.unwrap();
    let done = setup.cluster.done("w1", token).await;
    let file = std::fs::read(domain.file(token, &done.volumes[0].volume_id)).unwrap();
    assert_eq!(file[..content().len()], content());
}

#[tokio::test]
async fn an_upload_that_is_refused_tells_the_sender_and_the_cluster_alike() {
    let setup = setup().await;
    let folder = tempfile::tempdir().unwrap();
    let worker = setup.worker("w1", &[]);
    let domain = domain(&setup, &worker, folder.path()).await;
    let token = setup.cluster.token();
    let mut assignment = receive(&domain, token);
    if let Some(Order::Receive(order)) = &mut assignment.order {
        order.volume.as_mut().unwrap().format = "qcow2".into();
    }
    setup.cluster.assign("w1", vec![assignment], vec![domain.target()]);
    let mut client = setup.cluster.transfers(&worker.address);
    let status = loop {
        let status = client.upload(tokio_stream::iter(upload(&content(), token))).await.unwrap_err();
        if status.code() != tonic::Code::Unavailable {
            break status;
        }
    };
    let refusal = sdm_proto::status::from_status(&status);
    assert_eq!(refusal.reason, "QCOW2_INVALID");
    let outcome = setup.cluster.reported("w1", token, "a refusal", |o| matches!(o, Outcome::Refused(_))).await;
    let Outcome::Refused(reported) = outcome else { unreachable!() };
    assert_eq!(sdm_proto::refusal::Refusal::from(&reported), refusal);
    assert!(!domain.file(token, "").exists());
}

#[tokio::test]
async fn a_wrong_ticket_opens_nothing() {
    let setup = setup().await;
    let folder = tempfile::tempdir().unwrap();
    let worker = setup.worker("w1", &[]);
    let domain = domain(&setup, &worker, folder.path()).await;
    let token = setup.cluster.token();
    setup.cluster.assign("w1", vec![receive(&domain, token)], vec![domain.target()]);
    let mut messages = upload(&content(), token);
    if let Some(upload_request::Message::Open(open)) = &mut messages[0].message {
        open.ticket = Bytes::from_static(b"another ticket......");
    }
    let status = setup.cluster.transfers(&worker.address).upload(tokio_stream::iter(messages)).await.unwrap_err();
    assert_eq!(sdm_proto::status::from_status(&status).reason, "TICKET_UNKNOWN");
}

fn send(setup: &Setup, domain: &Domain, made_by: Token, volume: &wire::VolumeResult, token: Token) -> wire::Assignment {
    let order = wire::SendOrder {
        domain: Some(domain.target()),
        placement_id: made_by.placement(setup.cluster.id).to_string(),
        volume: Some(spec(volume)),
        chain: Vec::new(),
        ticket: Bytes::from_static(TICKET),
    };
    assignment(token, Order::Send(order))
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_end_of_an_export() {
    let setup = setup().await;
    let folder = tempfile::tempdir().unwrap();
    let worker = setup.worker("w1", &[]);
    let domain = domain(&setup, &worker, folder.path()).await;
    let (made_by, volume) = import_as(&setup, &worker, &domain, &large_content(), large_upload).await;
    let token = setup.cluster.token();
    setup.cluster.assign("w1", vec![send(&setup, &domain, made_by, &volume, token)], vec![domain.target()]);
    let request = || v1::DownloadRequest { ticket: Bytes::from_static(TICKET), token: token.to_string() };
    let mut client = setup.cluster.transfers(&worker.address);
    // A reader that takes nothing, and goes.
    let stream = loop {
        match client.download(request()).await {
            Err(status) if status.code() == tonic::Code::Unavailable => tokio::task::yield_now().await,
            answer => break answer.unwrap(),
        }
    };
    setup.cluster.reported("w1", token, "a reader", |o| matches!(o, Outcome::Sender(s) if s.connected)).await;
    drop(stream);
    let left = |outcome: &Outcome| matches!(outcome, Outcome::Sender(sender) if !sender.connected);
    setup.cluster.reported("w1", token, "that the reader left", left).await;
    assert_eq!(download(&setup, &worker, token).await.unwrap(), large_content());
    setup.cluster.done("w1", token).await;
}

#[tokio::test]
async fn a_domain_that_was_not_wanted_is_deleted_whole() {
    let setup = setup().await;
    let folder = tempfile::tempdir().unwrap();
    let worker = setup.worker("w1", &[]);
    let domain = domain(&setup, &worker, folder.path()).await;
    let token = setup.cluster.token();
    let mut deletion = domain.delete(token, domain.token);
    if let Some(Order::Delete(order)) = &mut deletion.order {
        order.whole_domain = true;
        order.placement_id.clear();
    }
    setup.cluster.assign("w1", vec![deletion], vec![]);
    setup.cluster.done("w1", token).await;
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_source_that_cannot_be_reached_fails_the_pull_for_now() {
    let cluster = Cluster::new(600_000);
    let coordinators = vec![cluster.member("m1").await];
    let processes = InProcess::default();
    let setup = Setup { cluster, coordinators, clock: Arc::new(BootClock), processes: Arc::new(processes.clone()) };
    let folders = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (w1, w2) = (setup.worker("w1", &[folders.0.path()]), setup.worker("w2", &[folders.1.path()]));
    let source = domain(&setup, &w1, folders.0.path()).await;
    let target = domain(&setup, &w2, folders.1.path()).await;
    let (made_by, volume) = import(&setup, &w1, &source).await;
    // The source's storage hangs, so the pull is open and waits when the link breaks.
    processes.hang(source.id().parse().unwrap());
    let token = setup.cluster.token();
    let placement_id = made_by.placement(setup.cluster.id).to_string();
    let copy = wire::CopyOrder {
        target: Some(target.placement(token)),
        volumes: vec![spec(&volume)],
        source_placement_id: placement_id.clone(),
        source_domain: None,
        pull: Some(wire::PullSource { address: w1.address.clone(), ticket: Bytes::from_static(TICKET) }),
    };
    let serve = wire::ServeSourceOrder {
        domain: Some(source.target()),
        placement_id,
        volumes: vec![spec(&volume)],
        ticket: Bytes::from_static(TICKET),
    };
    let mut living = processes.living();
    let before = *living.borrow_and_update();
    setup.cluster.assign("w1", vec![assignment(token, Order::ServeSource(serve))], vec![]);
    setup.cluster.assign("w2", vec![assignment(token, Order::Copy(copy))], vec![]);
    // One process at each end.
    living.wait_for(|living| *living >= before + 2).await.unwrap();
    setup.cluster.network.cut("w1", "w2");
    let lost = |o: &Outcome| matches!(o, Outcome::Failed(failed) if failed.reason == "SOURCE_UNREACHABLE");
    setup.cluster.reported("w2", token, "that the source is lost", lost).await;
}

/// An image whose header names a backing file, and of which there is no end.
fn endless_backed_image(token: Token) -> impl tokio_stream::Stream<Item = v1::UploadRequest> + Send + 'static {
    let open = upload_request::Message::Open(v1::TransferOpen {
        ticket: TICKET.into(),
        token: token.to_string(),
        file_size: 1 << 40,
        allocated_bytes: 0,
    });
    let pieces = (0..1_usize << 20).map(|n| {
        let mut data = vec![0; MIB];
        if n == 0 {
            data[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
            data[8..16].copy_from_slice(&512_u64.to_be_bytes());
            data[16..20].copy_from_slice(&4_u32.to_be_bytes());
            data[512..516].copy_from_slice(b"base");
        }
        upload_request::Message::Piece(v1::Piece { offset: (n * MIB) as u64, data: data.into(), hole_bytes: 0 })
    });
    tokio_stream::iter(std::iter::once(open).chain(pieces).map(message))
}

#[tokio::test]
async fn a_sender_of_an_image_with_a_backing_file_is_told_while_it_sends() {
    let setup = setup().await;
    let folder = tempfile::tempdir().unwrap();
    let worker = setup.worker("w1", &[]);
    let domain = domain(&setup, &worker, folder.path()).await;
    let token = setup.cluster.token();
    let volume = wire::VolumeSpec { format: "qcow2".into(), file_size: 1 << 40, ..raw(1, 0) };
    let order = wire::ReceiveOrder {
        target: Some(domain.placement(token)),
        volume: Some(volume),
        ticket: Bytes::from_static(TICKET),
    };
    setup.cluster.assign("w1", vec![assignment(token, Order::Receive(order))], vec![domain.target()]);
    let mut client = setup.cluster.transfers(&worker.address);
    let refusal = loop {
        let status = client.upload(endless_backed_image(token)).await.unwrap_err();
        let refusal = sdm_proto::status::from_status(&status);
        if refusal.reason != "TICKET_UNKNOWN" {
            break refusal;
        }
    };
    assert_eq!(refusal.reason, "QCOW2_BACKING_FILE", "{refusal}");
    let refused = |o: &Outcome| matches!(o, Outcome::Refused(refusal) if refusal.reason == "QCOW2_BACKING_FILE");
    setup.cluster.reported("w1", token, "the refusal", refused).await;
}
