//! The worker's one port: transfers for commands, data for workers and members, health, reflection.

use super::data_service::WorkerData;
use super::progress::ProgressBoard;
use super::takeover::Takeover;
use super::tickets::Tickets;
use super::transfer_service::Transfers;
use sdm_proto::credentials::ClusterSecret;
use sdm_proto::credentials::Guard;
use sdm_proto::credentials::OwnIdentity;
use sdm_proto::limits;
use sdm_proto::seams;
use sdm_proto::seams::Incoming;
use sdm_proto::wire;
use sdm_proto::wire::internal::v1::worker_data_service_server::WorkerDataServiceServer;
use sdm_proto::wire::v1::transfer_service_server::TransferServiceServer;
use std::future::Future;
use tonic::service::interceptor::InterceptedService;

/// What the server needs.
pub(crate) struct TransferServer {
    pub(crate) secret: ClusterSecret,
    pub(crate) identity: OwnIdentity,
    pub(crate) tickets: Tickets,
    pub(crate) progress: ProgressBoard,
    pub(crate) takeover: Takeover,
}

impl TransferServer {
    /// Serves these connections until told to stop; streams that still run then are waited for.
    ///
    /// # Errors
    /// The listener failed for good.
    pub(crate) async fn serve(
        self,
        incoming: Incoming,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let transfers = TransferServiceServer::new(Transfers { tickets: self.tickets.clone() })
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
        let data = WorkerData { tickets: self.tickets, progress: self.progress, takeover: self.takeover };
        let data = WorkerDataServiceServer::new(data)
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<TransferServiceServer<Transfers>>().await;
        health.set_serving::<WorkerDataServiceServer<WorkerData>>().await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        seams::server()
            .add_service(InterceptedService::new(transfers, Guard::public(self.secret.clone())))
            .add_service(InterceptedService::new(data, Guard::internal(self.secret, self.identity)))
            .add_service(health_service)
            .add_service(reflection)
            .serve_with_incoming_shutdown(incoming, stop)
            .await?;
        Ok(())
    }
}
