//! Calls to any member, and what their answers prove.

use anyhow::Result;
use sdm_proto::limits::MESSAGE_BYTES_MAX;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::seams::TcpTransport;
use sdm_proto::seams::Transport;
use sdm_proto::seams::channel;
use sdm_proto::status::refusal_in;
use sdm_proto::wire::v1::cluster_service_client::ClusterServiceClient;
use sdm_proto::wire::v1::disk_service_client::DiskServiceClient;
use sdm_proto::wire::v1::domain_service_client::DomainServiceClient;
use sdm_proto::wire::v1::event_service_client::EventServiceClient;
use sdm_proto::wire::v1::gc_service_client::GcServiceClient;
use sdm_proto::wire::v1::lock_service_client::LockServiceClient;
use sdm_proto::wire::v1::snapshot_service_client::SnapshotServiceClient;
use sdm_proto::wire::v1::transaction_service_client::TransactionServiceClient;
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;
use tonic::Response;
use tonic::Status;
use tonic::transport::Channel;

/// How long one call may take: a member holds it for 8 s while it knows no leader.
const CALL_TIME: Duration = Duration::from_secs(12);

/// Pause before the next member is asked, so that a dead cluster is not asked a thousand times a second.
const PAUSE: Duration = Duration::from_millis(40);

/// What an answer proves.
#[derive(Clone, Debug)]
pub enum Answer<T> {
    /// It was done.
    Done(T),
    /// The state machine, or a member before it asked anybody, said no.
    Refused(Refusal),
    /// Anything.
    Unknown(String),
}

impl<T> Answer<T> {
    fn of(result: Result<Result<Response<T>, Status>, tokio::time::error::Elapsed>) -> Self {
        let status = match result {
            Ok(Ok(response)) => return Answer::Done(response.into_inner()),
            Ok(Err(status)) => status,
            Err(_) => return Answer::Unknown("no answer in time".to_owned()),
        };
        let decided = |refusal: &Refusal| {
            !matches!(refusal.class, Class::Unavailable | Class::Timeout | Class::Internal | Class::Aborted)
        };
        match refusal_in(&status).filter(decided) {
            Some(refusal) => Answer::Refused(refusal),
            None if status.code() == Code::Unimplemented => {
                Answer::Refused(Refusal::new(Class::Unsupported, "UNIMPLEMENTED", status.message()))
            }
            None => Answer::Unknown(format!("{:?}: {}", status.code(), status.message())),
        }
    }
}

/// The members, the one to ask next among them.
#[derive(Clone, Debug)]
pub struct Endpoints {
    channels: Vec<(String, Channel)>,
    at: usize,
}

impl Endpoints {
    /// Connects to none of them yet; begins with the one of this number.
    ///
    /// # Errors
    /// An address does not read as one.
    pub fn new(addresses: &[String], first: usize) -> Result<Self> {
        Self::over(&(Arc::new(TcpTransport) as Arc<dyn Transport>), addresses, first)
    }

    /// The same over this transport.
    ///
    /// # Errors
    /// As `new`.
    pub fn over(transport: &Arc<dyn Transport>, addresses: &[String], first: usize) -> Result<Self> {
        let channels: std::io::Result<Vec<_>> =
            addresses.iter().map(|address| Ok((address.clone(), channel(transport, address)?))).collect();
        Ok(Self { channels: channels?, at: first.checked_rem(addresses.len()).unwrap_or(0) })
    }

    /// One member each.
    pub fn each(&self) -> Vec<Endpoints> {
        self.channels.iter().map(|one| Endpoints { channels: vec![one.clone()], at: 0 }).collect()
    }

    /// The address of the member that is asked next.
    pub fn address(&self) -> &str {
        self.channels.get(self.at).map_or("", |(address, _)| address)
    }

    fn channel(&self) -> Option<Channel> {
        self.channels.get(self.at).map(|(_, channel)| channel.clone())
    }

    /// Asks the current member once.
    pub async fn ask<T, F: Future<Output = Result<Response<T>, Status>>>(
        &self,
        call: impl FnOnce(Channel) -> F,
    ) -> Answer<T> {
        let Some(channel) = self.channel() else { return Answer::Unknown("no member".to_owned()) };
        Answer::of(tokio::time::timeout(CALL_TIME, call(channel)).await)
    }

    /// Goes on to the next member, after a moment.
    pub async fn next(&mut self) {
        self.at = (self.at + 1).checked_rem(self.channels.len()).unwrap_or(0);
        tokio::time::sleep(PAUSE).await;
    }

    /// Asks members in turn until one answers or the time is over. The request must be one that
    /// changes nothing twice. Also says whether it was asked more than once.
    pub async fn insist<T, F: Future<Output = Result<Response<T>, Status>>>(
        &mut self,
        patience: Duration,
        call: impl Fn(Channel) -> F,
    ) -> (Answer<T>, bool) {
        let begun = tokio::time::Instant::now();
        let mut again = false;
        loop {
            let answer = self.ask(&call).await;
            if !matches!(answer, Answer::Unknown(_)) || begun.elapsed() >= patience {
                return (answer, again);
            }
            again = true;
            self.next().await;
        }
    }
}

/// The lock service at the other end.
pub fn locks(channel: Channel) -> LockServiceClient<Channel> {
    LockServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// The domain service.
pub fn domains(channel: Channel) -> DomainServiceClient<Channel> {
    DomainServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// The transaction service.
pub fn transactions(channel: Channel) -> TransactionServiceClient<Channel> {
    TransactionServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// The cluster service.
pub fn cluster(channel: Channel) -> ClusterServiceClient<Channel> {
    ClusterServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// The disk service.
pub fn disks(channel: Channel) -> DiskServiceClient<Channel> {
    DiskServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// The snapshot service.
pub fn snapshots(channel: Channel) -> SnapshotServiceClient<Channel> {
    SnapshotServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// The event service.
pub fn events(channel: Channel) -> EventServiceClient<Channel> {
    EventServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// The service of garbage.
pub fn garbage(channel: Channel) -> GcServiceClient<Channel> {
    GcServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}
