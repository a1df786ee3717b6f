//! Connections to the other members: one channel for each address and purpose, made when first
//! used and shared from then on. What is said over them is decided elsewhere.

use crate::raft::Acknowledgements;
use sdm_proto::credentials::CallCredentials;
use sdm_proto::credentials::ClusterSecret;
use sdm_proto::credentials::OwnIdentity;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::seams::Transport;
use sdm_proto::seams::channel;
use sdm_proto::wire::internal::v1::member_service_client::MemberServiceClient;
use sdm_proto::wire::internal::v1::raft_service_client::RaftServiceClient;
use sdm_raft_store::NodeId;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use tonic::Request;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

/// A channel that carries this member's credentials.
pub(crate) type PeerChannel = InterceptedService<Channel, CallCredentials>;

/// What a channel is for. HTTP/2 shares flow control within a connection: a snapshot in the same
/// one would starve heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Log entries.
    Replication,
    /// Heartbeats and votes.
    Heartbeat,
    /// Snapshots.
    Snapshot,
    /// Everything else between members.
    Member,
}

/// Calls that fail in a row before it is worth a line in the log: one may be slow.
const MISSED_MIN: u32 = 3;

type Key = (NodeId, String, Purpose);

#[derive(Debug)]
struct Shared {
    transport: Arc<dyn Transport>,
    secret: ClusterSecret,
    identity: OwnIdentity,
    channels: Mutex<BTreeMap<Key, Channel>>,
    /// Calls of Raft that failed since the last one that was answered.
    missed: Mutex<BTreeMap<NodeId, u32>>,
    /// Where members said that they are, since this process started.
    moved: Mutex<BTreeMap<NodeId, String>>,
    acknowledgements: Acknowledgements,
}

/// The other members. Clones share their channels.
#[derive(Clone, Debug)]
pub(crate) struct Peers(Arc<Shared>);

impl Peers {
    /// Nobody yet.
    pub fn new(transport: Arc<dyn Transport>, secret: ClusterSecret, identity: OwnIdentity) -> Self {
        Self(Arc::new(Shared {
            transport,
            secret,
            identity,
            channels: Mutex::default(),
            missed: Mutex::default(),
            moved: Mutex::default(),
            acknowledgements: Acknowledgements::default(),
        }))
    }

    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.0.transport
    }

    pub fn secret(&self) -> &ClusterSecret {
        &self.0.secret
    }

    pub fn identity(&self) -> &OwnIdentity {
        &self.0.identity
    }

    /// How far the others acknowledged this member's log while it led.
    pub fn acknowledgements(&self) -> &Acknowledgements {
        &self.0.acknowledgements
    }

    /// A member says that it is reached here now.
    pub fn found_at(&self, id: NodeId, address: &str) {
        let mut moved = self.0.moved.lock().unwrap_or_else(PoisonError::into_inner);
        moved.insert(id, address.to_owned());
    }

    /// Where a member said last that it is.
    pub fn moved_to(&self, id: NodeId) -> Option<String> {
        self.0.moved.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// A member answered. Said once when it had been away.
    pub fn reached(&self, id: NodeId, address: &str) {
        let mut missed = self.0.missed.lock().unwrap_or_else(PoisonError::into_inner);
        if missed.remove(&id).is_some_and(|times| times >= MISSED_MIN) {
            tracing::info!(member = id, address, "a member answers again");
        }
    }

    /// A member did not answer. Said once, until it answers again.
    pub fn missed(&self, id: NodeId, reason: &str) {
        let mut missed = self.0.missed.lock().unwrap_or_else(PoisonError::into_inner);
        let times = missed.entry(id).or_default();
        *times = times.saturating_add(1);
        if *times == MISSED_MIN {
            tracing::warn!(member = id, reason, "a member does not answer");
        }
    }

    /// Cached for each member, address and purpose. An address that a member left stays cached,
    /// unconnected: there are few.
    fn channel(&self, id: NodeId, address: &str, purpose: Purpose) -> io::Result<PeerChannel> {
        let mut channels = self.0.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (id, address.to_owned(), purpose);
        let channel = match channels.get(&key) {
            Some(channel) => channel.clone(),
            None => {
                let made = channel(&self.0.transport, address)?;
                channels.insert(key, made.clone());
                made
            }
        };
        let to = format!("member/{id}");
        let credentials = CallCredentials::internal(self.0.secret.clone(), self.0.identity.clone(), to);
        Ok(InterceptedService::new(channel, credentials))
    }

    /// Raft's calls to a member.
    pub fn raft(&self, id: NodeId, address: &str, purpose: Purpose) -> io::Result<RaftServiceClient<PeerChannel>> {
        let client = RaftServiceClient::new(self.channel(id, address, purpose)?);
        Ok(client
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::MESSAGE_BYTES_MAX))
    }

    /// The other calls to a member.
    pub fn member(&self, id: NodeId, address: &str) -> Result<MemberServiceClient<PeerChannel>, Refusal> {
        let channel = self.channel(id, address, Purpose::Member).map_err(|error| bad_address(&error))?;
        Ok(limited(MemberServiceClient::new(channel)))
    }

    /// The same at an address of which it is not known who listens there. Not cached.
    pub fn stranger(&self, address: &str) -> Result<MemberServiceClient<PeerChannel>, Refusal> {
        let channel = channel(&self.0.transport, address).map_err(|error| bad_address(&error))?;
        let credentials = CallCredentials::internal(self.0.secret.clone(), self.0.identity.clone(), "");
        Ok(limited(MemberServiceClient::new(InterceptedService::new(channel, credentials))))
    }
}

fn limited(client: MemberServiceClient<PeerChannel>) -> MemberServiceClient<PeerChannel> {
    client.max_decoding_message_size(limits::MESSAGE_BYTES_MAX).max_encoding_message_size(limits::MESSAGE_BYTES_MAX)
}

fn bad_address(error: &io::Error) -> Refusal {
    Refusal::new(Class::Invalid, "BAD_ADDRESS", error.to_string()).hint("give HOST:PORT")
}

/// A request with a deadline that the other side sees too.
pub(crate) fn within<T>(message: T, time: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(time);
    request
}
