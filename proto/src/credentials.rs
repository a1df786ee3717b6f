//! What every call carries and what every server checks first: the cluster's secret, and between
//! members and workers the cluster's id, its epoch and who speaks to whom. A shared secret comes
//! first; mTLS can stand behind the same interceptors later.

use crate::refusal::Class;
use crate::refusal::Refusal;
use crate::status::to_status;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use subtle::ConstantTimeEq;
use tonic::Request;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;

const SECRET: &str = "authorization";
const CLUSTER: &str = "sdm-cluster";
const EPOCH: &str = "sdm-epoch";
const FROM: &str = "sdm-from";
const TO: &str = "sdm-to";

/// Shortest secret, in bytes: 128 bits when it is random hex or better.
pub const SECRET_BYTES_MIN: usize = 16;

/// The shared secret of a cluster, or none (then nothing listens beyond loopback).
#[derive(Clone, Default)]
pub struct ClusterSecret {
    bearer: Option<Arc<str>>,
}

impl std::fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.bearer.is_some() { "ClusterSecret(set)" } else { "ClusterSecret(none)" })
    }
}

impl ClusterSecret {
    /// From the secret's bytes; white space at the ends does not count.
    ///
    /// # Errors
    /// It is shorter than `SECRET_BYTES_MIN`.
    pub fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        let secret = bytes.trim_ascii();
        if secret.len() < SECRET_BYTES_MIN {
            let message = format!("the secret has {} bytes, at least {SECRET_BYTES_MIN} are needed", secret.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        // What travels is derived, so the file's own bytes never do.
        let derived = blake3::derive_key("sdm 2026 call credential", secret);
        Ok(Self { bearer: Some(format!("Bearer {}", blake3::Hash::from_bytes(derived).to_hex()).into()) })
    }

    /// From a file.
    ///
    /// # Errors
    /// It cannot be read, or holds too little.
    pub fn from_file(path: &Path) -> io::Result<Self> {
        let in_file =
            |error: io::Error| io::Error::new(error.kind(), format!("secret file {}: {error}", path.display()));
        Self::from_bytes(&std::fs::read(path).map_err(in_file)?).map_err(in_file)
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.bearer.is_some()
    }

    fn admits(&self, metadata: &MetadataMap) -> bool {
        let Some(expected) = &self.bearer else { return true };
        let given = metadata.get(SECRET).map(MetadataValue::as_bytes).unwrap_or_default();
        bool::from(given.ct_eq(expected.as_bytes()))
    }

    fn put(&self, metadata: &mut MetadataMap) {
        if let Some(value) = self.bearer.as_deref().and_then(|bearer| bearer.parse().ok()) {
            metadata.insert(SECRET, value);
        }
    }
}

/// Who this process is within its cluster: what internal calls carry and check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Id of the cluster.
    pub cluster_id: String,
    /// Its epoch.
    pub epoch: u64,
    /// "member/3" or "worker/UUID".
    pub name: String,
}

/// The identity of this process once it has one, shared by all that check it.
#[derive(Clone, Debug, Default)]
pub struct OwnIdentity(Arc<RwLock<Option<PeerIdentity>>>);

impl OwnIdentity {
    /// What it is now.
    #[must_use]
    pub fn get(&self) -> Option<PeerIdentity> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets it.
    pub fn set(&self, identity: PeerIdentity) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(identity);
    }
}

/// Client side: puts the secret on every call, and the identity on internal ones.
#[derive(Clone, Debug)]
pub struct CallCredentials {
    secret: ClusterSecret,
    identity: Option<(OwnIdentity, String)>,
}

impl CallCredentials {
    /// For public services: the secret alone.
    #[must_use]
    pub fn public(secret: ClusterSecret) -> Self {
        Self { secret, identity: None }
    }

    /// For internal services of this peer ("member/3"; empty when its name is not known yet).
    #[must_use]
    pub fn internal(secret: ClusterSecret, identity: OwnIdentity, to: impl Into<String>) -> Self {
        Self { secret, identity: Some((identity, to.into())) }
    }
}

fn text(value: &str) -> Result<MetadataValue<tonic::metadata::Ascii>, Status> {
    value.parse().map_err(|_| Status::internal(format!("{value:?} cannot stand in a header")))
}

impl Interceptor for CallCredentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        self.secret.put(metadata);
        if let Some((own, to)) = &self.identity {
            if let Some(identity) = own.get() {
                metadata.insert(CLUSTER, text(&identity.cluster_id)?);
                metadata.insert(EPOCH, text(&identity.epoch.to_string())?);
                metadata.insert(FROM, text(&identity.name)?);
            }
            metadata.insert(TO, text(to)?);
        }
        Ok(request)
    }
}

/// Who calls, as an internal call says; in the request's extensions once the guard passed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(pub String);

/// Server side: refuses a call without the secret, and an internal call of another cluster, of
/// another epoch, or meant for somebody else, before anything of it is read.
#[derive(Clone, Debug)]
pub struct Guard {
    secret: ClusterSecret,
    identity: Option<OwnIdentity>,
    newcomers: bool,
}

impl Guard {
    /// For public services: the secret alone.
    #[must_use]
    pub fn public(secret: ClusterSecret) -> Self {
        Self { secret, identity: None, newcomers: false }
    }

    /// For internal services: the caller's cluster must be ours.
    #[must_use]
    pub fn internal(secret: ClusterSecret, identity: OwnIdentity) -> Self {
        Self { secret, identity: Some(identity), newcomers: false }
    }

    /// For internal services that also take callers which belong to no cluster yet (a joining
    /// member, a worker's first start).
    #[must_use]
    pub fn with_newcomers(secret: ClusterSecret, identity: OwnIdentity) -> Self {
        Self { secret, identity: Some(identity), newcomers: true }
    }

    fn check_identity(&self, own: &OwnIdentity, metadata: &MetadataMap) -> Result<Caller, Refusal> {
        let field = |key: &str| metadata.get(key).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (cluster, epoch, from, to) = (field(CLUSTER), field(EPOCH), field(FROM), field(TO));
        if cluster.is_empty() && self.newcomers {
            return Ok(Caller(from.to_owned()));
        }
        let Some(identity) = own.get() else {
            return Err(Refusal::new(
                Class::Unavailable,
                "NOT_A_MEMBER_YET",
                "this process has not joined a cluster yet",
            )
            .hint("it answers as soon as it has joined; try another endpoint meanwhile"));
        };
        if cluster != identity.cluster_id {
            let message = format!(
                "{from:?} belongs to cluster {cluster:?}, this is {} of cluster {}",
                identity.name, identity.cluster_id
            );
            return Err(Refusal::new(Class::Denied, "WRONG_CLUSTER", message)
                .hint("check the address: two clusters must not share one"));
        }
        if epoch != identity.epoch.to_string() {
            let message = format!("{from:?} is of epoch {epoch:?}, this cluster is at epoch {}", identity.epoch);
            return Err(Refusal::new(Class::Denied, "WRONG_EPOCH", message).hint(
                "one of the two goes on from an old copy of its data folder: start it on the folder that it used last",
            ));
        }
        if !to.is_empty() && to != identity.name {
            let message = format!("the call is for {to}, this is {}", identity.name);
            return Err(Refusal::new(Class::Denied, "WRONG_PEER", message)
                .hint("an address changed hands: compare `sdm member list` with what listens there"));
        }
        Ok(Caller(from.to_owned()))
    }
}

impl Interceptor for Guard {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if !self.secret.admits(request.metadata()) {
            let refusal = Refusal::new(Class::Denied, "BAD_SECRET", "the call does not carry this cluster's secret")
                .hint("give the cluster's secret file with --secret-file (or SDM_SECRET_FILE)");
            return Err(to_status(&refusal));
        }
        if let Some(own) = &self.identity {
            let caller = self.check_identity(own, request.metadata()).map_err(|refusal| to_status(&refusal))?;
            request.extensions_mut().insert(caller);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::from_status;

    fn identity(cluster: &str, epoch: u64, name: &str) -> OwnIdentity {
        let own = OwnIdentity::default();
        own.set(PeerIdentity { cluster_id: cluster.to_owned(), epoch, name: name.to_owned() });
        own
    }

    fn outcome(mut credentials: CallCredentials, mut guard: Guard) -> Result<(), String> {
        let request = credentials.call(Request::new(())).map_err(|status| from_status(&status).reason)?;
        guard.call(request).map(|_| ()).map_err(|status| from_status(&status).reason)
    }

    fn secret(text: &str) -> ClusterSecret {
        ClusterSecret::from_bytes(text.as_bytes()).unwrap()
    }

    #[test]
    fn only_the_clusters_secret_opens_the_door() {
        let door = || Guard::public(secret("correct horse battery"));
        assert_eq!(outcome(CallCredentials::public(secret("correct horse battery\n")), door()), Ok(()));
        assert_eq!(outcome(CallCredentials::public(secret("wrong horse battery!")), door()), Err("BAD_SECRET".into()));
        assert_eq!(outcome(CallCredentials::public(ClusterSecret::default()), door()), Err("BAD_SECRET".into()));
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert!(ClusterSecret::from_bytes(b"  fifteen bytes.  ").is_err());
    }

    #[test]
    fn another_cluster_epoch_or_addressee_is_refused() {
        let none = ClusterSecret::default();
        let guard = || Guard::internal(none.clone(), identity("c1", 1, "member/2"));
        let call = |own, to: &str| CallCredentials::internal(none.clone(), own, to);
        assert_eq!(outcome(call(identity("c1", 1, "member/1"), "member/2"), guard()), Ok(()));
        assert_eq!(outcome(call(identity("c2", 1, "member/1"), "member/2"), guard()), Err("WRONG_CLUSTER".into()));
        assert_eq!(outcome(call(identity("c1", 2, "member/1"), "member/2"), guard()), Err("WRONG_EPOCH".into()));
        assert_eq!(outcome(call(identity("c1", 1, "member/1"), "member/3"), guard()), Err("WRONG_PEER".into()));
    }

    #[test]
    fn newcomers_pass_only_where_they_are_meant_to() {
        let none = ClusterSecret::default();
        let call = || CallCredentials::internal(none.clone(), OwnIdentity::default(), "");
        let own = identity("c1", 1, "member/2");
        assert_eq!(outcome(call(), Guard::with_newcomers(none.clone(), own.clone())), Ok(()));
        assert_eq!(outcome(call(), Guard::internal(none.clone(), own)), Err("WRONG_CLUSTER".into()));
    }
}
