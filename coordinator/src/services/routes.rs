//! Which services stand behind the port, and which guard in front of each: public ones ask for the
//! secret, internal ones also for the cluster, the epoch and the addressee.

use super::attachment::AttachmentApi;
use super::backup::BackupApi;
use super::cluster::ClusterApi;
use super::disk::DiskApi;
use super::domain::DomainApi;
use super::event::EventApi;
use super::explain::ExplainApi;
use super::gc::GcApi;
use super::insiders::Insiders;
use super::job::JobApi;
use super::lock::LockApi;
use super::member::MemberApi;
use super::snapshot::SnapshotApi;
use super::template::TemplateApi;
use super::transaction::TransactionApi;
use super::volume::VolumeApi;
use super::worker::WorkerApi;
use crate::core::Core;
use crate::gateway::WorkerGateway;
use crate::raft::RaftServer;
use sdm_proto::credentials::Guard;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::wire;
use sdm_proto::wire::internal::v1::member_service_server::MemberServiceServer;
use sdm_proto::wire::internal::v1::raft_service_server::RaftServiceServer;
use sdm_proto::wire::internal::v1::worker_gateway_service_server::WorkerGatewayServiceServer;
use sdm_proto::wire::v1::attachment_service_server::AttachmentServiceServer;
use sdm_proto::wire::v1::backup_service_server::BackupServiceServer;
use sdm_proto::wire::v1::cluster_service_server::ClusterServiceServer;
use sdm_proto::wire::v1::disk_service_server::DiskServiceServer;
use sdm_proto::wire::v1::domain_service_server::DomainServiceServer;
use sdm_proto::wire::v1::event_service_server::EventServiceServer;
use sdm_proto::wire::v1::explain_service_server::ExplainServiceServer;
use sdm_proto::wire::v1::gc_service_server::GcServiceServer;
use sdm_proto::wire::v1::job_service_server::JobServiceServer;
use sdm_proto::wire::v1::lock_service_server::LockServiceServer;
use sdm_proto::wire::v1::snapshot_service_server::SnapshotServiceServer;
use sdm_proto::wire::v1::template_service_server::TemplateServiceServer;
use sdm_proto::wire::v1::transaction_service_server::TransactionServiceServer;
use sdm_proto::wire::v1::volume_service_server::VolumeServiceServer;
use sdm_proto::wire::v1::worker_service_server::WorkerServiceServer;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic_health::server::HealthReporter;
use tonic_health::server::HealthService;

/// Puts a service behind the routes, with a guard in front and limits on its messages.
macro_rules! guarded {
    ($server:ident, $service:expr, $guard:expr) => {{
        let server = $server::new($service)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        InterceptedService::new(server, $guard.clone())
    }};
}

/// What any process answers: whether it serves, and what it could.
pub(crate) fn standard(health: &HealthReporter) -> Routes {
    let health =
        tonic_health::pb::health_server::HealthServer::new(HealthService::from_health_reporter(health.clone()));
    let routes = Routes::new(health);
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Both are compiled in: that they read is shown by every start in every test.
    match (builder().build_v1(), builder().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => routes.add_service(v1).add_service(v1alpha),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "reflection is not served");
            routes
        }
    }
}

/// Everything.
pub(crate) fn all(core: &Core, health: &HealthReporter) -> Routes {
    let public = Guard::public(core.secret().clone());
    let internal = Guard::internal(core.secret().clone(), core.identity().clone());
    let newcomers = Guard::with_newcomers(core.secret().clone(), core.identity().clone());
    let internal = Insiders::new(internal, core);
    let members = Insiders::new(newcomers.clone(), core);
    let raft = RaftServer::new(core.clone());
    standard(health)
        .add_service(guarded!(RaftServiceServer, raft, internal))
        .add_service(guarded!(MemberServiceServer, MemberApi::new(core.clone()), members))
        .add_service(guarded!(WorkerGatewayServiceServer, WorkerGateway::new(core.clone()), newcomers))
        .add_service(guarded!(ClusterServiceServer, ClusterApi::new(core.clone()), public))
        .add_service(guarded!(DomainServiceServer, DomainApi::new(core.clone()), public))
        .add_service(guarded!(DiskServiceServer, DiskApi::new(core.clone()), public))
        .add_service(guarded!(SnapshotServiceServer, SnapshotApi::new(core.clone()), public))
        .add_service(guarded!(TemplateServiceServer, TemplateApi::new(core.clone()), public))
        .add_service(guarded!(VolumeServiceServer, VolumeApi::new(core.clone()), public))
        .add_service(guarded!(LockServiceServer, LockApi::new(core.clone()), public))
        .add_service(guarded!(TransactionServiceServer, TransactionApi::new(core.clone()), public))
        .add_service(guarded!(JobServiceServer, JobApi::new(core.clone()), public))
        .add_service(guarded!(AttachmentServiceServer, AttachmentApi::new(core.clone()), public))
        .add_service(guarded!(WorkerServiceServer, WorkerApi::new(core.clone()), public))
        .add_service(guarded!(GcServiceServer, GcApi::new(core.clone()), public))
        .add_service(guarded!(EventServiceServer, EventApi::new(core.clone()), public))
        .add_service(guarded!(ExplainServiceServer, ExplainApi::new(core.clone()), public))
        .add_service(guarded!(BackupServiceServer, BackupApi::new(core.clone()), public))
}
