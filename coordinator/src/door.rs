//! The member's one port. What stands behind it grows while the member comes to life: first only
//! health and reflection, then what members say among themselves, then the public services. Who
//! asks too early is told so, and a client goes on to another endpoint.

use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service;

/// Who gets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The process has no id in a cluster yet.
    Outside,
    /// It has one, and waits to be admitted: other members may call.
    Inside,
    /// It is a member.
    Open,
}

const INTERNAL: &str = "/sdm.internal.";
const RAFT: &str = "/sdm.internal.v1.RaftService/";
/// Health and reflection.
const STANDARD: &str = "/grpc.";

impl Stage {
    fn admits(self, path: &str) -> bool {
        match self {
            Self::Outside => path.starts_with(STANDARD),
            Self::Inside => path.starts_with(STANDARD) || path.starts_with(INTERNAL),
            Self::Open => true,
        }
    }
}

/// The service behind the port. Clones share its state.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    inside: Arc<RwLock<(Stage, Routes)>>,
    /// Raft's calls are let in.
    raft: Arc<AtomicBool>,
}

impl Door {
    /// Closed to all but these.
    pub fn new(standard: Routes) -> Self {
        Self { inside: Arc::new(RwLock::new((Stage::Outside, standard))), raft: Arc::new(AtomicBool::new(true)) }
    }

    /// Puts these behind it.
    pub fn open(&self, stage: Stage, routes: Routes) {
        *self.inside.write().unwrap_or_else(PoisonError::into_inner) = (stage, routes.prepare());
    }

    /// Whether Raft's calls are let in: not before it is known that this process is still a member.
    pub fn let_raft(&self, may: bool) {
        self.raft.store(may, Ordering::Release);
    }

    /// Lets more in.
    pub fn admit(&self, stage: Stage) {
        self.inside.write().unwrap_or_else(PoisonError::into_inner).0 = stage;
    }
}

fn too_early() -> http::Response<Body> {
    let refusal = Refusal::new(Class::Unavailable, "NOT_A_MEMBER_YET", "this process is not a member of a cluster yet")
        .hint("it answers as soon as it has joined; try another endpoint meanwhile");
    to_status(&refusal).into_http()
}

fn not_checked() -> http::Response<Body> {
    let message = "this member has just started and asks the others whether its folder is the one used last";
    to_status(&Refusal::new(Class::Unavailable, "CHECKING_IN", message).hint("it takes part in a moment")).into_http()
}

impl Service<http::Request<Body>> for Door {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Routes are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (stage, mut routes) = self.inside.read().unwrap_or_else(PoisonError::into_inner).clone();
        if !stage.admits(request.uri().path()) {
            return Box::pin(std::future::ready(Ok(too_early())));
        }
        if !self.raft.load(Ordering::Acquire) && request.uri().path().starts_with(RAFT) {
            return Box::pin(std::future::ready(Ok(not_checked())));
        }
        Box::pin(async move { Service::call(&mut routes, request).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_lets_in_what_the_one_before_did_and_more() {
        let public = "/sdm.v1.DiskService/ListDisks";
        let internal = "/sdm.internal.v1.RaftService/Vote";
        let health = "/grpc.health.v1.Health/Check";
        let admitted = |stage: Stage| [health, internal, public].map(|path| stage.admits(path));
        assert_eq!(admitted(Stage::Outside), [true, false, false]);
        assert_eq!(admitted(Stage::Inside), [true, true, false]);
        assert_eq!(admitted(Stage::Open), [true, true, true]);
    }
}
