//! The internal service: another worker pulls a placement; a member asks how far attempts are, and, after a restore
//! from a backup, has domains read and taken over.

use super::pieces;
use super::pieces::OnWire;
use super::progress::ProgressBoard;
use super::reader_stream::ReaderStream;
use super::takeover::Takeover;
use super::tickets::Purpose;
use super::tickets::Reader;
use super::tickets::Tickets;
use super::tickets::Visit;
use crate::work::PIECES_IN_FLIGHT;
use crate::work::Piece;
use sdm_proto::limits;
use sdm_proto::status::to_status;
use sdm_proto::wire::internal::v1::AdoptDomainRequest;
use sdm_proto::wire::internal::v1::AdoptDomainResponse;
use sdm_proto::wire::internal::v1::CheckPlacementsRequest;
use sdm_proto::wire::internal::v1::CheckPlacementsResponse;
use sdm_proto::wire::internal::v1::GetProgressRequest;
use sdm_proto::wire::internal::v1::GetProgressResponse;
use sdm_proto::wire::internal::v1::InspectDomainRequest;
use sdm_proto::wire::internal::v1::InspectDomainResponse;
use sdm_proto::wire::internal::v1::PullRequest;
use sdm_proto::wire::internal::v1::PullResponse;
use sdm_proto::wire::internal::v1::PullVolume;
use sdm_proto::wire::internal::v1::pull_response;
use sdm_proto::wire::internal::v1::worker_data_service_server::WorkerDataService;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// Serves workers and members.
pub(super) struct WorkerData {
    pub(super) tickets: Tickets,
    pub(super) progress: ProgressBoard,
    pub(super) takeover: Takeover,
}

#[tonic::async_trait]
impl WorkerDataService for WorkerData {
    type PullStream = ReaderStream<PullResponse>;

    async fn pull(&self, request: Request<PullRequest>) -> Result<Response<Self::PullStream>, Status> {
        // Both workers have their assignments from one attempt, so they know the same token and ticket.
        let PullRequest { token, ticket } = request.into_inner();
        let (to, pieces) = mpsc::channel(PIECES_IN_FLIGHT);
        let (finish, finished) = oneshot::channel();
        let volumes = self
            .tickets
            .visit(Purpose::Pull, &ticket, &token, Visit::Reader(Reader { pieces: to, finished }))
            .map_err(|refusal| to_status(&refusal))?;
        Ok(Response::new(ReaderStream::new(pieces, finish, move |piece| message(piece, &volumes))))
    }

    async fn get_progress(
        &self,
        request: Request<GetProgressRequest>,
    ) -> Result<Response<GetProgressResponse>, Status> {
        let tokens = request.into_inner().tokens.into_iter().take(limits::ASSIGNMENTS_MAX);
        let progress = self.progress.of(tokens).into_iter().collect();
        Ok(Response::new(GetProgressResponse { progress }))
    }

    async fn inspect_domain(
        &self,
        request: Request<InspectDomainRequest>,
    ) -> Result<Response<InspectDomainResponse>, Status> {
        let answer = self.takeover.inspect(request.into_inner()).await;
        answer.map(Response::new).map_err(|refusal| to_status(&refusal))
    }

    async fn adopt_domain(
        &self,
        request: Request<AdoptDomainRequest>,
    ) -> Result<Response<AdoptDomainResponse>, Status> {
        let answer = self.takeover.adopt(request.into_inner()).await;
        answer.map(Response::new).map_err(|refusal| to_status(&refusal))
    }

    async fn check_placements(
        &self,
        request: Request<CheckPlacementsRequest>,
    ) -> Result<Response<CheckPlacementsResponse>, Status> {
        let answer = self.takeover.check(request.into_inner()).await;
        answer.map(Response::new).map_err(|refusal| to_status(&refusal))
    }
}

fn message(piece: Piece, volumes: &[String]) -> PullResponse {
    let message = match pieces::on_wire(piece) {
        OnWire::Open { ordinal, bytes } => {
            let volume_id = usize::try_from(ordinal).ok().and_then(|n| volumes.get(n)).cloned().unwrap_or_default();
            pull_response::Message::Volume(PullVolume { volume_id, file_size: bytes })
        }
        OnWire::Piece(piece) => pull_response::Message::Piece(piece),
        OnWire::End(end) => pull_response::Message::End(end),
    };
    PullResponse { message: Some(message) }
}
