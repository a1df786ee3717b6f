//! `BackupService`: the state as a file, streamed from an applied view that nobody is held up for;
//! and, in a cluster that was restored from such a file, the way out of its suspension.

use crate::core::Core;
use crate::services::call::Call;
use crate::services::reconcile::Reconciliation;
use crate::services::resolve;
use bytes::Bytes;
use sdm_proto::limits::PIECE_BYTES;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::backup_service_server::BackupService;
use sdm_proto::wire::v1::create_backup_response::Message;
use sdm_raft_store::StateView;
use sdm_raft_store::backup::BackupFacts;
use sdm_raft_store::backup::WrittenBackup;
use sdm_raft_store::backup::write_backup;
use sdm_raft_store::disk::FileWriter;
use sdm_state::Command;
use sdm_state::suspension::Reconcile;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// Backups that one member writes at once: each holds on to the state as it was and costs a core.
const BACKUPS_MAX: usize = 2;

/// Pieces that wait for the reader.
const PIECES_WAITING_MAX: usize = 4;

/// Domains' readings that wait for the reader.
const READINGS_WAITING_MAX: usize = 16;

/// The service.
#[derive(Clone)]
pub struct BackupApi {
    core: Core,
    slots: Arc<Semaphore>,
}

impl BackupApi {
    /// Over this member's core.
    #[must_use]
    pub fn new(core: Core) -> Self {
        Self { core, slots: Arc::new(Semaphore::new(BACKUPS_MAX)) }
    }

    async fn create(&self) -> Result<ReceiverStream<Result<v1::CreateBackupResponse, Status>>, Refusal> {
        let slot = self.slots.clone().try_acquire_owned().map_err(|_| {
            let message = format!("member {} writes {BACKUPS_MAX} backups already", self.core.member_name());
            Refusal::new(Class::Exhausted, "TOO_MANY_BACKUPS", message).hint("wait for one, or ask another member")
        })?;
        let view = Call::begin(&self.core).read().await?;
        let facts = BackupFacts {
            member: self.core.member_name().to_string(),
            sdm_version: env!("CARGO_PKG_VERSION").to_owned(),
            created_unix_ms: unix_ms(),
        };
        let (pieces, stream) = mpsc::channel(PIECES_WAITING_MAX);
        tokio::task::spawn_blocking(move || send(&view, facts, &pieces, slot));
        Ok(ReceiverStream::new(stream))
    }

    async fn release(&self, request: v1::ReleaseSuspensionRequest) -> Result<v1::ReleaseSuspensionResponse, Refusal> {
        let call = Call::begin(&self.core);
        let view = call.read().await?;
        let without = request.without.iter().map(|text| resolve::domain(&view.state, text).map(|domain| domain.id));
        let without = without.collect::<Result<Vec<_>, _>>()?;
        let answered = call.propose(Command::Reconcile(Reconcile::Release { without })).await?;
        tracing::warn!(index = answered.index, "the restored cluster is released");
        let meta = &answered.view.state.meta;
        Ok(v1::ReleaseSuspensionResponse { epoch: meta.epoch, revision: answered.index })
    }
}

/// Wall clock, for people.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

type Outgoing = Result<v1::CreateBackupResponse, Status>;

fn send(view: &StateView, facts: BackupFacts, pieces: &mpsc::Sender<Outgoing>, _slot: OwnedSemaphorePermit) {
    let member = facts.member.clone();
    let out = Pieces { to: pieces.clone(), waiting: Vec::with_capacity(PIECE_BYTES) };
    let last = match write_backup(view, facts, Box::new(out)) {
        Ok(written) => {
            tracing::info!(index = written.header.index, bytes = written.bytes, "a backup was sent");
            Ok(v1::CreateBackupResponse { message: Some(Message::End(end(written, member))) })
        }
        Err(error) => {
            tracing::warn!(%error, "a backup was not sent");
            let message = format!("the backup could not be written: {error}");
            Err(to_status(&Refusal::new(Class::Unavailable, "BACKUP_INTERRUPTED", message).hint("repeat it")))
        }
    };
    // A reader that went away knows that it has no end.
    let _ = pieces.blocking_send(last);
}

fn end(written: WrittenBackup, member: String) -> v1::BackupEnd {
    let header = written.header;
    v1::BackupEnd {
        cluster_id: header.cluster_id.to_string(),
        pool_id: header.pool_id.to_string(),
        epoch: header.epoch,
        index: header.index,
        feature_level: header.feature_level,
        state_hash: header.state_hash,
        bytes: written.bytes,
        blake3: Bytes::copy_from_slice(&written.blake3),
        member,
    }
}

/// Sends what is appended in pieces; the reader holds it up.
#[derive(Debug)]
struct Pieces {
    to: mpsc::Sender<Outgoing>,
    waiting: Vec<u8>,
}

impl FileWriter for Pieces {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PIECE_BYTES { self.flush() } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.flush()
    }
}

impl Pieces {
    fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.waiting, Vec::with_capacity(PIECE_BYTES));
        let message = v1::CreateBackupResponse { message: Some(Message::Piece(piece.into())) };
        self.to.blocking_send(Ok(message)).map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the reader is gone"))
    }
}

#[tonic::async_trait]
impl BackupService for BackupApi {
    type CreateBackupStream = ReceiverStream<Outgoing>;
    type ReconcileStream = ReceiverStream<Result<v1::ReconcileResponse, Status>>;

    async fn create_backup(
        &self,
        _request: Request<v1::CreateBackupRequest>,
    ) -> Result<Response<Self::CreateBackupStream>, Status> {
        self.create().await.map(Response::new).map_err(|refusal| to_status(&refusal))
    }

    async fn reconcile(
        &self,
        request: Request<v1::ReconcileRequest>,
    ) -> Result<Response<Self::ReconcileStream>, Status> {
        let begun = Reconciliation::begin(self.core.clone(), request.into_inner()).await;
        let reconciliation = begun.map_err(|refusal| to_status(&refusal))?;
        let (to, stream) = mpsc::channel(READINGS_WAITING_MAX);
        let closing = self.core.closing().clone();
        tokio::spawn(closing.run_until_cancelled_owned(reconciliation.run(to)));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn release_suspension(
        &self,
        request: Request<v1::ReleaseSuspensionRequest>,
    ) -> Result<Response<v1::ReleaseSuspensionResponse>, Status> {
        self.release(request.into_inner()).await.map(Response::new).map_err(|refusal| to_status(&refusal))
    }
}
