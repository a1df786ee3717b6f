//! The gateway's loop: one connection after another, one lease, one sequence of sets.
//!
//! A set counts only while the lease holds. Where the cluster says something that was overtaken (a
//! set older than the last one, or than the entry that opened the session), it is ignored.

use super::endpoints::Endpoints;
use super::lease::Lease;
use super::link::Link;
use super::link::LinkEvent;
use super::mandate::Mandate;
use super::mandate::SessionFacts;
use super::outbox::Outbox;
use crate::folder::FolderError;
use crate::folder::Membership;
use crate::folder::WorkerFolder;
use sdm_proto::credentials::CallCredentials;
use sdm_proto::credentials::ClusterSecret;
use sdm_proto::credentials::OwnIdentity;
use sdm_proto::credentials::PeerIdentity;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::seams::BlockingPool;
use sdm_proto::seams::Clock;
use sdm_proto::seams::Transport;
use sdm_proto::status::from_status;
use sdm_proto::wire::internal::v1::Assignments;
use sdm_proto::wire::internal::v1::Goodbye;
use sdm_proto::wire::internal::v1::Hello;
use sdm_proto::wire::internal::v1::KeepAlivePing;
use sdm_proto::wire::internal::v1::Welcome;
use sdm_proto::wire::internal::v1::WorkerMessage;
use sdm_proto::wire::internal::v1::gateway_message;
use sdm_proto::wire::internal::v1::worker_message::Message;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::Status;

/// TTLs that make sense; a member that says otherwise is mistaken.
const TTL_MS: std::ops::RangeInclusive<u64> = 100..=600_000;

/// How long a member may take for its welcome while there is no session to lose: it waits for a
/// leader itself.
const WELCOME_WAIT_MS: u64 = limits::LEADER_WAIT.as_millis() as u64 + 2_000;

/// How long a worker that ends waits until its member took the goodbye. Without it the lease runs out.
const FAREWELL_WAIT: Duration = Duration::from_secs(1);

/// Why the gateway gave up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GatewayError {
    /// The cluster does not want this worker.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The membership cannot be remembered.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// What a gateway needs.
pub(crate) struct GatewaySettings {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) reach: Vec<String>,
    pub(crate) coordinators: Vec<String>,
    pub(crate) secret: ClusterSecret,
    pub(crate) identity: OwnIdentity,
    pub(crate) folder: Arc<dyn WorkerFolder>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) pool: BlockingPool,
}

/// A session as it was welcomed.
struct Session {
    id: String,
    epoch: u64,
    facts: Arc<SessionFacts>,
}

/// The gateway.
pub(crate) struct Gateway {
    settings: GatewaySettings,
    endpoints: Endpoints,
    link: Option<Link>,
    /// When to connect again, while there is no link.
    connect_at_ms: u64,
    session: Option<Session>,
    lease: Lease,
    /// Whether the mandate shows the lease as running.
    mandated: bool,
    newest_set: (u64, u64),
    set: Option<Arc<Assignments>>,
    outbox: Outbox,
    mandate: watch::Sender<Mandate>,
}

enum Event {
    Link(LinkEvent),
    Timer,
    OutboxFilled,
}

/// A cluster that was restored from a backup is another one, and only the operator can say so.
fn told_how_to_be_readmitted(refusal: Refusal) -> Refusal {
    if refusal.reason != "WRONG_CLUSTER" {
        return refusal;
    }
    refusal.hint(
        "check --coordinators; if that cluster was restored from a backup of this worker's own, admit the worker anew: \
         its usual command with --readmit CLUSTER_ID (`sdm status` there shows the id)",
    )
}

/// Whether trying again, here or elsewhere, would change nothing.
fn is_definite(refusal: &Refusal) -> bool {
    let ours = refusal.reason != "RPC_FAILED" && refusal.reason != "UNREACHABLE";
    let lasting = matches!(
        refusal.class,
        Class::Denied | Class::Invalid | Class::Conflict | Class::Precondition | Class::NotFound | Class::Unsupported
    );
    ours && lasting
}

impl Gateway {
    /// A gateway that is not connected yet, and the mandate that it keeps.
    pub(crate) fn new(settings: GatewaySettings, outbox: Outbox) -> (Self, watch::Receiver<Mandate>) {
        let (mandate, mandate_seen) = watch::channel(Mandate::default());
        let endpoints = Endpoints::new(settings.coordinators.clone());
        let gateway = Self {
            settings,
            endpoints,
            link: None,
            connect_at_ms: 0,
            session: None,
            lease: Lease::default(),
            mandated: false,
            newest_set: (0, 0),
            set: None,
            outbox,
            mandate,
        };
        (gateway, mandate_seen)
    }

    /// Runs until the cluster definitely refuses this worker.
    /// It may be dropped and called again.
    pub(crate) async fn run(&mut self) -> Result<std::convert::Infallible, GatewayError> {
        loop {
            let event = self.next_event().await;
            if let Event::Link(LinkEvent::Message(message)) = &event
                && let Some(gateway_message::Message::Welcome(welcome)) = &message.message
            {
                // Before anything is done for a cluster, the folder knows that it is the only one.
                self.remember(welcome).await?;
            }
            self.on_event(event)?;
        }
    }

    /// Ends the session in order, so that nobody has to wait until its lease has run out. Only for a
    /// worker of whose attempts nothing runs any more. A member that does not hear it loses nothing.
    pub(crate) async fn farewell(&mut self) {
        let Some(link) = self.link.take().filter(|link| link.welcomed) else { return };
        for message in self.outbox.due(self.settings.clock.now_ms(), link.room()) {
            link.send(message);
        }
        if link.send(WorkerMessage { message: Some(Message::Goodbye(Goodbye {})) })
            && tokio::time::timeout(FAREWELL_WAIT, link.close()).await.is_err()
        {
            tracing::debug!("no member took the goodbye in time");
        }
    }

    async fn next_event(&mut self) -> Event {
        let clock = Arc::clone(&self.settings.clock);
        let timer = clock.sleep_until(self.next_timer_ms());
        let link = async {
            match &mut self.link {
                Some(link) => link.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = link => Event::Link(event),
            () = self.outbox.filled() => Event::OutboxFilled,
            () = timer => Event::Timer,
        }
    }

    fn next_timer_ms(&self) -> u64 {
        let lease = if self.mandated { self.lease.until_ms() } else { u64::MAX };
        let link = match &self.link {
            None => self.connect_at_ms,
            Some(link) if !link.welcomed => link.heard_ms + self.welcome_wait_ms(),
            Some(link) => {
                let silent = link.heard_ms + self.lease.patience_ms();
                // A full link is looked at again with the next ping.
                let report = self.outbox.next_due_ms().filter(|_| link.room() > 0).unwrap_or(u64::MAX);
                silent.min(link.ping_at_ms).min(report)
            }
        };
        lease.min(link)
    }

    fn welcome_wait_ms(&self) -> u64 {
        if self.session.is_some() { self.lease.patience_ms().max(1_000) } else { WELCOME_WAIT_MS }
    }

    fn on_event(&mut self, event: Event) -> Result<(), GatewayError> {
        let now_ms = self.settings.clock.now_ms();
        match event {
            Event::Link(LinkEvent::Message(message)) => match message.message {
                Some(gateway_message::Message::Welcome(welcome)) => self.on_welcome(&welcome, now_ms),
                Some(gateway_message::Message::KeepAlive(pong)) => self.on_pong(pong.sequence, now_ms),
                Some(gateway_message::Message::Assignments(set)) => self.on_set(set),
                Some(gateway_message::Message::SessionEnded(ended)) => {
                    tracing::warn!(why = ended.message, "the session is over; everything stops");
                    self.end_session();
                    self.link = None;
                    self.connect_at_ms = now_ms + self.endpoints.failed();
                }
                // A newer member may say more than this worker understands.
                None => {}
            },
            Event::Link(LinkEvent::Broken(status)) => self.on_broken(&status, now_ms)?,
            Event::Timer | Event::OutboxFilled => {}
        }
        self.keep_up(now_ms);
        Ok(())
    }

    /// Everything that depends on time alone.
    fn keep_up(&mut self, now_ms: u64) {
        if self.mandated && !self.lease.holds(now_ms) {
            tracing::error!("no member acknowledged the lease in time; everything stops until one does");
            self.stop_everything();
        }
        let patience_ms = self.lease.patience_ms();
        let welcome_wait_ms = self.welcome_wait_ms();
        let overdue = |link: &Link| now_ms >= link.heard_ms + if link.welcomed { patience_ms } else { welcome_wait_ms };
        if self.link.as_ref().is_some_and(overdue) {
            self.give_link_up("it was silent for too long", now_ms);
        }
        if self.link.is_none() && now_ms >= self.connect_at_ms {
            self.connect(now_ms);
        }
        self.send_what_is_due(now_ms);
    }

    fn send_what_is_due(&mut self, now_ms: u64) {
        let Some(link) = self.link.as_mut().filter(|link| link.welcomed) else { return };
        let mut taken = true;
        if now_ms >= link.ping_at_ms {
            link.ping_at_ms = now_ms + self.lease.ping_interval_ms();
            let sequence = self.lease.ping(now_ms);
            taken = link.send(WorkerMessage { message: Some(Message::KeepAlive(KeepAlivePing { sequence })) });
        }
        for message in self.outbox.due(now_ms, link.room()) {
            taken &= link.send(message);
        }
        if !taken {
            self.give_link_up("it takes no messages", now_ms);
        }
    }

    fn connect(&mut self, now_ms: u64) {
        let endpoint = self.endpoints.draw();
        let identity = self.settings.folder.identity();
        let (session_id, session_epoch) =
            self.session.as_ref().map_or((String::new(), 0), |session| (session.id.clone(), session.epoch));
        let hello = Hello {
            worker_id: identity.worker.to_string(),
            name: self.settings.name.clone(),
            address: self.settings.address.clone(),
            reach: self.settings.reach.clone(),
            machine_id: identity.machine_id.clone(),
            boot_id: identity.boot_id.clone(),
            process_nonce: identity.process_nonce.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_id: self.settings.folder.membership().map(|of| of.cluster_id).unwrap_or_default(),
            session_id,
            session_epoch,
        };
        let credentials =
            CallCredentials::internal(self.settings.secret.clone(), self.settings.identity.clone(), String::new());
        let hello = WorkerMessage { message: Some(Message::Hello(hello)) };
        tracing::debug!(endpoint, "saying hello");
        self.link = Some(Link::open(&self.settings.transport, credentials, endpoint, hello, now_ms));
    }

    fn give_link_up(&mut self, why: &str, now_ms: u64) {
        if let Some(link) = self.link.take() {
            tracing::warn!(endpoint = link.endpoint, why, "leaving a member for another");
        }
        self.connect_at_ms = now_ms + self.endpoints.failed();
    }

    fn on_broken(&mut self, status: &Status, now_ms: u64) -> Result<(), GatewayError> {
        let refusal = from_status(status);
        let welcomed = self.link.as_ref().is_some_and(|link| link.welcomed);
        if !welcomed && is_definite(&refusal) {
            if self.session.is_none() {
                return Err(told_how_to_be_readmitted(refusal).into());
            }
            // Perhaps only the session is unknown there; a hello without one tells.
            tracing::warn!(%refusal, "the session cannot go on; everything stops");
            self.end_session();
        }
        self.give_link_up(&refusal.message, now_ms);
        Ok(())
    }

    /// Writes the membership down and becomes known under it.
    async fn remember(&mut self, welcome: &Welcome) -> Result<(), GatewayError> {
        let membership = Membership { cluster_id: welcome.cluster_id.clone(), epoch: welcome.epoch };
        let folder = Arc::clone(&self.settings.folder);
        if let Some(of) = folder.membership().filter(|of| of.cluster_id != membership.cluster_id) {
            let message = format!("this worker belongs to cluster {}, not to {}", of.cluster_id, membership.cluster_id);
            return Err(Refusal::new(Class::Denied, "WRONG_CLUSTER", message)
                .hint("check --coordinators; to serve a cluster that was restored from a backup: the usual command with --readmit CLUSTER_ID")
                .into());
        }
        let name = format!("worker/{}", folder.identity().worker);
        let joined = membership.clone();
        self.settings
            .pool
            .run(move || folder.join(&joined))
            .await
            .unwrap_or_else(|source| Err(FolderError::Io { action: "write", path: "worker.json".into(), source }))?;
        let Membership { cluster_id, epoch } = membership;
        self.settings.identity.set(PeerIdentity { cluster_id, epoch, name });
        Ok(())
    }

    fn on_welcome(&mut self, welcome: &Welcome, now_ms: u64) {
        let (Ok(cluster), Ok(pool)) = (welcome.cluster_id.parse(), welcome.pool_id.parse()) else {
            return self.give_link_up("its welcome names no cluster and pool", now_ms);
        };
        let Some(link) = &mut self.link else { return };
        link.welcomed = true;
        link.heard_ms = now_ms;
        link.ping_at_ms = now_ms;
        let ttl_ms = welcome.ttl_ms.clamp(*TTL_MS.start(), *TTL_MS.end());
        let known = self.session.as_ref().map(|session| (session.id.as_str(), session.epoch));
        let hello_ms = link.hello_ms;
        tracing::info!(member = welcome.member, endpoint = link.endpoint, session = welcome.session_id, "welcomed");
        if known == Some((&welcome.session_id, welcome.session_epoch)) {
            self.lease.reconnected(ttl_ms);
        } else {
            if known.is_some_and(|(id, _)| id != welcome.session_id) {
                self.end_session();
            }
            self.lease.begin(ttl_ms, hello_ms);
        }
        let facts = Arc::new(SessionFacts { cluster, pool, epoch: welcome.storage_epoch.max(welcome.epoch) });
        self.session = Some(Session { id: welcome.session_id.clone(), epoch: welcome.session_epoch, facts });
        self.endpoints.succeeded();
        self.outbox.rewind();
        self.publish(now_ms);
    }

    fn on_pong(&mut self, sequence: u64, now_ms: u64) {
        if self.lease.pong(sequence) {
            if let Some(link) = &mut self.link {
                link.heard_ms = now_ms;
            }
            self.publish(now_ms);
        }
    }

    fn on_set(&mut self, set: Assignments) {
        let Some(session) = &self.session else { return };
        let order = (set.epoch, set.applied_index);
        if order < self.newest_set || order < (session.facts.epoch, session.epoch) {
            tracing::debug!(epoch = set.epoch, index = set.applied_index, "ignoring a set that was overtaken");
            return;
        }
        self.newest_set = order;
        self.set = Some(Arc::new(set));
        self.publish(self.settings.clock.now_ms());
    }

    /// Shows the supervisor what is to run, if anything may run.
    fn publish(&mut self, now_ms: u64) {
        let Some(session) = &self.session else { return };
        if !self.lease.holds(now_ms) {
            return;
        }
        self.mandated = true;
        let (facts, set) = (Arc::clone(&session.facts), self.set.clone());
        self.mandate.send_if_modified(|mandate| {
            let same_set = match (&mandate.assignments, &set) {
                (Some(shown), Some(set)) => Arc::ptr_eq(shown, set),
                (None, None) => true,
                _ => false,
            };
            if same_set && mandate.session.as_ref() == Some(&facts) {
                return false;
            }
            mandate.session = Some(facts);
            mandate.assignments = set;
            true
        });
    }

    /// Nothing may run until the lease holds again.
    fn stop_everything(&mut self) {
        self.mandated = false;
        self.mandate.send_modify(|mandate| {
            mandate.tenure += 1;
            mandate.assignments = None;
        });
    }

    fn end_session(&mut self) {
        self.session = None;
        self.set = None;
        self.stop_everything();
        self.mandate.send_modify(|mandate| mandate.session = None);
    }
}
