//! The worker gateway: any member serves any worker. What a worker is to do is derived from the
//! state whenever that changes, so a lost message or a lost member is never lost work; what it
//! reports becomes commands. A broken stream means nothing: the lease decides.
//!
//! ```text
//!  worker ── Hello ──▶ admission ── linearizable read, OpenSession ──▶ Core
//!         ◀─ Welcome ─┐
//!         ◀─ full set ┤ connection ◀── every applied change
//!         ◀─ Pong ────┤            ── keep_alive ─────────────────────▶ leader
//!         ── Report ──┘            ── ReportAttempt, ReportDomains ───▶ Core
//! ```

mod admission;
mod connection;
mod delivery;
mod hello;
mod orders;
mod report_queue;
mod reports;

pub(crate) use orders::placed_chain;

use crate::core::Core;
use connection::Connection;
use connection::Stream as GatewayStream;
use sdm_proto::credentials::Caller;
use sdm_proto::status::to_status;
use sdm_proto::wire::internal::v1::WorkerMessage;
use sdm_proto::wire::internal::v1::worker_gateway_service_server::WorkerGatewayService;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::Streaming;

/// The service.
#[derive(Clone)]
pub struct WorkerGateway {
    core: Core,
}

impl WorkerGateway {
    /// Over this member's core.
    #[must_use]
    pub fn new(core: Core) -> Self {
        Self { core }
    }
}

#[tonic::async_trait]
impl WorkerGatewayService for WorkerGateway {
    type OpenSessionStream = GatewayStream;

    async fn open_session(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::OpenSessionStream>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let mut inbound = request.into_inner();
        let hello = hello::first_message(&mut inbound, caller.as_ref()).await.map_err(|refusal| to_status(&refusal))?;
        let admitted = admission::admit(&self.core, hello).await.map_err(|refusal| to_status(&refusal))?;
        Ok(Response::new(Connection::start(self.core.clone(), admitted, inbound)))
    }
}
