//! grpc.health.v1: SERVING while this member can answer linearizable requests. A probe asks a
//! quorum now and then, so a follower whose leader is gone notices without traffic.

use crate::core::Core;
use std::time::Duration;
use tokio::time::Instant;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Between two probes. One costs a round of heartbeats.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// How long a probe may take.
const PROBE_TIME: Duration = Duration::from_secs(3);

/// The whole member, and what each public service answers for.
const SERVICES: &[&str] = &[
    "",
    "sdm.v1.ClusterService",
    "sdm.v1.DomainService",
    "sdm.v1.DiskService",
    "sdm.v1.LockService",
    "sdm.v1.TransactionService",
    "sdm.v1.JobService",
    "sdm.v1.WorkerService",
    "sdm.v1.GcService",
];

/// Nothing serves yet.
pub(crate) async fn begin(reporter: &HealthReporter) {
    report(reporter, ServingStatus::NotServing).await;
}

async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        reporter.set_service_status(*service, status).await;
    }
}

/// Keeps the status true until the member closes.
pub(crate) async fn run(core: Core, reporter: HealthReporter) {
    let mut leadership = core.inner.leadership.clone();
    let mut served = false;
    let probing = async {
        loop {
            leadership.borrow_and_update();
            // A linearizable read: a leader is known, a quorum follows it, this member is up to date.
            let serves = core.read(Instant::now() + PROBE_TIME).await.is_ok();
            if serves != served {
                tracing::info!(serves, "health");
                let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
                report(&reporter, status).await;
                served = serves;
            }
            tokio::select! {
                () = tokio::time::sleep(PROBE_EVERY) => {}
                changed = leadership.changed() => if changed.is_err() { return },
            }
        }
    };
    tokio::select! {
        () = probing => {}
        () = core.closing().cancelled() => {}
    }
    report(&reporter, ServingStatus::NotServing).await;
}
