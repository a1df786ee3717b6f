//! Streams against a worker on a simulated network: what arrives is what was sent, and every early end
//! is told apart from the others.

use super::Download;
use super::SourceFile;
use super::TargetPath;
use super::TransferError;
use super::download;
use super::upload;
use crate::client::Cluster;
use crate::client::Link;
use futures_util::stream::BoxStream;
use sdm_proto::credentials::ClusterSecret;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::seams::SimulatedNetwork;
use sdm_proto::seams::Transport;
use sdm_proto::seams::server;
use sdm_proto::status::to_status;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::download_response::Message as Down;
use sdm_proto::wire::v1::transfer_service_server::TransferService;
use sdm_proto::wire::v1::transfer_service_server::TransferServiceServer;
use sdm_proto::wire::v1::upload_request::Message as Up;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::Streaming;

/// What the worker does with the next stream.
#[derive(Clone)]
enum Behaviour {
    Take,
    Refuse(Refusal),
    BreakOff,
    Send(Vec<Down>),
}

#[derive(Clone)]
struct Worker {
    behaviour: Behaviour,
    received: Arc<Mutex<Vec<u8>>>,
}

#[tonic::async_trait]
impl TransferService for Worker {
    async fn upload(
        &self,
        request: Request<Streaming<v1::UploadRequest>>,
    ) -> Result<Response<v1::UploadResponse>, Status> {
        let mut stream = request.into_inner();
        match &self.behaviour {
            Behaviour::Refuse(refusal) => return Err(to_status(refusal)),
            Behaviour::BreakOff => {
                stream.message().await?;
                return Err(Status::unavailable("the worker is gone"));
            }
            Behaviour::Take | Behaviour::Send(_) => {}
        }
        while let Some(message) = stream.message().await? {
            match message.message {
                Some(Up::Open(open)) => assert_eq!(open.ticket.as_ref(), b"ticket"),
                Some(Up::Piece(piece)) => {
                    let mut received = self.received.lock().unwrap();
                    assert_eq!(received.len() as u64, piece.offset);
                    received.extend_from_slice(&piece.data);
                    let length = received.len() + usize::try_from(piece.hole_bytes).unwrap();
                    received.resize(length, 0);
                }
                Some(Up::End(end)) => {
                    let received = self.received.lock().unwrap();
                    assert_eq!(end.file_size, received.len() as u64);
                    let hash = blake3::hash(&received);
                    assert_eq!(end.blake3.as_ref(), hash.as_bytes());
                    return Ok(Response::new(v1::UploadResponse { blake3: hash.as_bytes().to_vec().into() }));
                }
                None => {}
            }
        }
        Err(Status::cancelled("the stream ended before the file did"))
    }

    type DownloadStream = BoxStream<'static, Result<v1::DownloadResponse, Status>>;

    async fn download(&self, _: Request<v1::DownloadRequest>) -> Result<Response<Self::DownloadStream>, Status> {
        let messages = match &self.behaviour {
            Behaviour::Send(messages) => messages.clone(),
            Behaviour::Refuse(refusal) => return Err(to_status(refusal)),
            Behaviour::Take | Behaviour::BreakOff => Vec::new(),
        };
        let messages = messages.into_iter().map(|message| Ok(v1::DownloadResponse { message: Some(message) }));
        Ok(Response::new(Box::pin(futures_util::stream::iter(messages.collect::<Vec<_>>()))))
    }
}

async fn worker(behaviour: Behaviour) -> (Link, Arc<Mutex<Vec<u8>>>) {
    let network = SimulatedNetwork::default();
    let received = Arc::new(Mutex::new(Vec::new()));
    let (address, incoming) = network.host("w").listen("w:1".into()).await.unwrap();
    let worker = TransferServiceServer::new(Worker { behaviour, received: Arc::clone(&received) });
    tokio::spawn(server().add_service(worker).serve_with_incoming(incoming));
    let cluster = Cluster::new(&[], ClusterSecret::default(), Arc::new(network.host("client"))).unwrap();
    (cluster.worker(&address).unwrap(), received)
}

fn transfer() -> v1::Transfer {
    v1::Transfer { ticket: b"ticket".as_slice().into(), token: "1-2-0".into(), ..Default::default() }
}

/// A file with a hole at its beginning, one in its middle and one at its end.
fn sparse_file(path: &Path) -> Vec<u8> {
    let file = File::create(path).unwrap();
    file.set_len(6 << 20).unwrap();
    for offset in [1_u64 << 20, 4 << 20] {
        file.write_all_at(&vec![7; 600_000], offset).unwrap();
    }
    std::fs::read(path).unwrap()
}

#[tokio::test]
async fn what_arrives_is_the_file_with_its_holes() {
    let folder = tempfile::tempdir().unwrap();
    let content = sparse_file(&folder.path().join("disk"));
    let source = Arc::new(SourceFile::open(&folder.path().join("disk")).unwrap());
    let (link, received) = worker(Behaviour::Take).await;
    let done = Arc::default();
    let hash = upload(link, transfer(), source, Arc::clone(&done)).await.unwrap();
    assert_eq!(hash.file, blake3::hash(&content));
    assert_eq!(*received.lock().unwrap(), content);
    assert_eq!(done.load(std::sync::atomic::Ordering::Relaxed), 6 << 20);
}

#[tokio::test]
async fn a_worker_that_refuses_or_breaks_off_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    sparse_file(&folder.path().join("disk"));
    let source = Arc::new(SourceFile::open(&folder.path().join("disk")).unwrap());
    let refusal = Refusal::new(Class::Invalid, "ENCRYPTED", "the image is encrypted");
    let (link, _) = worker(Behaviour::Refuse(refusal)).await;
    let error = upload(link, transfer(), Arc::clone(&source), Arc::default()).await.unwrap_err();
    assert!(matches!(error, TransferError::Refused(refusal) if refusal.reason == "ENCRYPTED"));
    let (link, _) = worker(Behaviour::BreakOff).await;
    let error = upload(link, transfer(), source, Arc::default()).await.unwrap_err();
    assert!(matches!(error, TransferError::Broken(_)), "{error:?}");
}

#[tokio::test]
async fn a_file_that_changes_ends_the_upload_without_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    sparse_file(&path);
    let source = Arc::new(SourceFile::open(&path).unwrap());
    File::options().write(true).open(&path).unwrap().set_len(2 << 20).unwrap();
    let (link, _) = worker(Behaviour::Take).await;
    let error = upload(link, transfer(), source, Arc::default()).await.unwrap_err();
    assert!(matches!(error, TransferError::Local(failure) if failure.refusal.reason == "FILE_CHANGED"));
}

fn stream_of(content: &[u8], hash: blake3::Hash) -> Vec<Down> {
    let half = content.len() / 2;
    let size = content.len() as u64;
    vec![
        Down::Open(v1::TransferOpen { file_size: size, ..Default::default() }),
        Down::Piece(v1::Piece { offset: 0, data: content[..half].to_vec().into(), hole_bytes: 0 }),
        Down::Piece(v1::Piece { offset: half as u64, hole_bytes: size - half as u64, ..Default::default() }),
        Down::End(v1::TransferEnd { file_size: size, blake3: hash.as_bytes().to_vec().into() }),
    ]
}

async fn downloaded(messages: Vec<Down>, folder: &Path) -> Result<(), TransferError> {
    let (link, _) = worker(Behaviour::Send(messages)).await;
    let target = TargetPath::new(&folder.join("out"), false, "6b1e", &Arc::default()).unwrap();
    let to = Download { target, done: Arc::default(), total: Arc::default() };
    let (part, _) = download(link, transfer(), to).await?;
    part.publish().map_err(TransferError::Local)
}

#[tokio::test]
async fn a_whole_stream_becomes_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut content = vec![9; 2_000_000];
    content[1_000_000..].fill(0);
    downloaded(stream_of(&content, blake3::hash(&content)), folder.path()).await.unwrap();
    assert_eq!(std::fs::read(folder.path().join("out")).unwrap(), content);
}

#[tokio::test]
async fn a_stream_that_ends_early_or_lies_leaves_no_file() {
    let content = vec![9; 2_000_000];
    let whole = stream_of(&content, blake3::hash(b"something else"));
    let cases: [(&[Down], &str); 4] =
        [(&whole[..0], "broken"), (&whole[..1], "broken"), (&whole[..3], "broken"), (&whole, "TRANSFER_DAMAGED")];
    for (messages, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let error = downloaded(messages.to_vec(), folder.path()).await.unwrap_err();
        let found = match &error {
            TransferError::Broken(_) => "broken",
            TransferError::Local(failure) => &failure.refusal.reason,
            TransferError::Refused(refusal) => &refusal.reason,
            TransferError::NotYet => "not yet",
        };
        assert_eq!(found, expected, "{} messages", messages.len());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{} messages", messages.len());
    }
}
