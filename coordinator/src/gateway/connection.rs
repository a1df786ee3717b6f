//! One worker's connection after its welcome: sets out whenever they change, pings answered when the
//! leader acknowledged, reports into the log. It ends with the stream, with the session, or with the
//! member; nothing else happens then.

use super::admission::Admitted;
use super::admission::owns;
use super::delivery::deliver;
use super::orders;
use super::report_queue::ReportQueue;
use super::report_queue::Taken;
use super::reports;
use super::reports::shows;
use crate::core::Core;
use crate::core::Proposed;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::stream::StreamExt;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::WorkerId;
use sdm_proto::limits;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::token::Token;
use sdm_proto::wire::internal::v1::Assignments;
use sdm_proto::wire::internal::v1::GatewayMessage;
use sdm_proto::wire::internal::v1::KeepAlivePong;
use sdm_proto::wire::internal::v1::SessionEnded;
use sdm_proto::wire::internal::v1::WorkerMessage;
use sdm_proto::wire::internal::v1::gateway_message::Message as Out;
use sdm_proto::wire::internal::v1::worker_message::Message as In;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::assignments::Assignment;
use sdm_state::command::SessionRef;
use sdm_state::workers::DomainReport;
use sdm_state::workers::DomainSight;
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::Streaming;

/// Pings of one worker that wait for the leader: it sends six within its lease, and later ones say
/// more than earlier ones.
const PINGS_MAX: usize = 8;

/// Messages to the worker that wait for it to read: sets are made when there is room, so that it
/// always gets the newest.
const OUTGOING_MAX: usize = 4;

/// Domains whose state waits to be proposed: far more than one pool has.
const DOMAINS_MAX: usize = 4096;

/// Domains in one entry: with the longest reasons why not, it stays far below the largest command.
const DOMAINS_PER_ENTRY: usize = 128;

/// How long a worker may read nothing before it is left to another connection.
const SEND_WITHIN: Duration = limits::SESSION_TTL;

/// How long the last reports of a worker that said goodbye, and the end of its session, are tried:
/// then its lease runs out by itself.
const GOODBYE_WITHIN: Duration = limits::SESSION_TTL;

type Outgoing = Result<GatewayMessage, Status>;

/// What a worker reads.
pub(super) type Stream = ReceiverStream<Outgoing>;

/// Everything a worker is to do and to look at.
#[derive(Clone, Debug, PartialEq)]
struct FullSet {
    assignments: Vec<Assignment>,
    /// Sum of the table that the domains come from: they are looked at only when that has changed, not
    /// after every entry.
    domains: [u64; 4],
}

/// Something that was waited for.
enum Finished {
    Ping { sequence: u64, acknowledged: bool },
    Report { token: Token, answer: Result<Proposed, Refusal> },
    Domains(Result<Proposed, Refusal>),
    Closed(Result<Proposed, Refusal>),
}

enum Event {
    Heard(Option<WorkerMessage>),
    Broken(Status),
    Applied,
    Finished(Finished),
    Room(OwnedPermit<Outgoing>),
    Over(&'static str),
}

/// The connection.
pub(super) struct Connection {
    core: Core,
    worker: WorkerId,
    session: SessionRef,
    inbound: Streaming<WorkerMessage>,
    outgoing: mpsc::Sender<Outgoing>,
    applied: watch::Receiver<Option<u64>>,
    underway: FuturesUnordered<BoxFuture<'static, Finished>>,
    reports: ReportQueue,
    pings: usize,
    /// Domains whose newest sight is still to be proposed, and whether one proposal is on its way.
    domains: BTreeMap<DomainId, DomainSight>,
    reporting_domains: bool,
    /// To be sent, in this order: what is answered, then the set if it changed.
    answers: VecDeque<Out>,
    look_at_set: bool,
    sent: Option<FullSet>,
    /// Entry from which on the set is sent again although nothing in it changed: a worker that
    /// repeats a report learns from it that nobody asks any more.
    repeat_from: Option<u64>,
    /// When the worker has read nothing for too long; set while something waits to be sent.
    unread_until: Option<Instant>,
    /// Set when the worker said goodbye: until when its session's end is tried.
    goodbye: Option<Goodbye>,
}

/// A worker's orderly end.
#[derive(Clone, Copy)]
struct Goodbye {
    until: Instant,
    /// Its session's end is on its way.
    closing: bool,
}

/// That the connection is over, with what the worker is told if it still listens.
struct Over(Option<Box<Outgoing>>);

impl Connection {
    /// Runs a connection until it ends; answers with what the worker reads.
    pub(super) fn start(core: Core, admitted: Admitted, inbound: Streaming<WorkerMessage>) -> Stream {
        let (outgoing, stream) = mpsc::channel(OUTGOING_MAX);
        let mut applied = core.watch();
        // What was applied since the admission looked counts as new.
        applied.mark_changed();
        let connection = Self {
            applied,
            core,
            worker: admitted.worker,
            session: admitted.session,
            inbound,
            outgoing,
            underway: FuturesUnordered::new(),
            reports: ReportQueue::default(),
            pings: 0,
            domains: BTreeMap::new(),
            reporting_domains: false,
            answers: VecDeque::from([Out::Welcome(admitted.welcome)]),
            look_at_set: true,
            sent: None,
            repeat_from: None,
            unread_until: None,
            goodbye: None,
        };
        tokio::spawn(connection.run());
        ReceiverStream::new(stream)
    }

    async fn run(mut self) {
        loop {
            let event = self.next_event().await;
            if let Err(Over(last_word)) = self.on_event(event) {
                if let Some(last_word) = last_word {
                    // A worker that does not read it finds out by its lease.
                    let _ = self.outgoing.send_timeout(*last_word, SEND_WITHIN).await;
                }
                return;
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        if let Some(Goodbye { until, .. }) = self.goodbye {
            return self.next_event_after_goodbye(until).await;
        }
        let to_send = self.look_at_set || !self.answers.is_empty();
        if !to_send {
            self.unread_until = None;
        }
        let unread_until = to_send.then(|| *self.unread_until.get_or_insert_with(|| Instant::now() + SEND_WITHIN));
        let unread = async {
            match unread_until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let room = self.outgoing.clone().reserve_owned();
        tokio::select! {
            () = self.core.closing().cancelled() => Event::Over("the member shuts down"),
            permit = room, if to_send => match permit {
                Ok(permit) => Event::Room(permit),
                Err(_) => Event::Over("the worker listens no more"),
            },
            () = unread => Event::Over("the worker reads nothing"),
            changed = self.applied.changed() => match changed {
                Ok(()) => Event::Applied,
                Err(_) => Event::Over("the member shuts down"),
            },
            Some(finished) = self.underway.next() => Event::Finished(finished),
            heard = self.inbound.message() => match heard {
                Ok(message) => Event::Heard(message),
                Err(status) => Event::Broken(status),
            },
        }
    }

    /// The worker says nothing more, and need not listen.
    async fn next_event_after_goodbye(&mut self, until: Instant) -> Event {
        tokio::select! {
            () = self.core.closing().cancelled() => Event::Over("the member shuts down"),
            () = tokio::time::sleep_until(until) => Event::Over("its goodbye found no leader in time"),
            Some(finished) = self.underway.next() => Event::Finished(finished),
        }
    }

    fn on_event(&mut self, event: Event) -> Result<(), Over> {
        match event {
            Event::Room(permit) => {
                self.unread_until = None;
                self.send(permit);
            }
            Event::Applied => {
                self.applied.borrow_and_update();
                if !owns(&self.core.view().state, self.worker, self.session) {
                    return Err(self.session_over("the cluster ended it"));
                }
                self.look_at_set = true;
            }
            Event::Finished(finished) => self.on_finished(finished)?,
            Event::Heard(Some(WorkerMessage { message })) => self.on_message(message)?,
            Event::Heard(None) => return Err(self.over("the worker ended the stream")),
            Event::Broken(status) => {
                tracing::debug!(worker = %self.worker, %status, "a worker's stream broke");
                return Err(Over(None));
            }
            Event::Over(why) => return Err(self.over(why)),
        }
        self.begin_reports();
        self.begin_domains();
        self.begin_closing();
        Ok(())
    }

    fn on_message(&mut self, message: Option<In>) -> Result<(), Over> {
        match message {
            Some(In::KeepAlive(ping)) => self.on_ping(ping.sequence),
            Some(In::Report(report)) => {
                let heard = reports::report(report).map_err(|error| self.nonsense(&error))?;
                if self.reports.push(heard.token, heard.sequence, heard.report) == Taken::Full {
                    tracing::warn!(worker = %self.worker, token = %heard.token, "too many reports wait; it will be repeated");
                }
            }
            Some(In::Domains(domains)) => {
                for item in domains.items {
                    let DomainReport { domain, sight } =
                        reports::domain(item).map_err(|error| self.nonsense(&error))?;
                    if self.domains.len() >= DOMAINS_MAX && !self.domains.contains_key(&domain) {
                        tracing::error!(worker = %self.worker, %domain, "too many domains; this one's state is not told on");
                        continue;
                    }
                    self.domains.insert(domain, sight);
                }
            }
            Some(In::Hello(_)) => {
                let refusal = Refusal::new(Class::Invalid, "BAD_HELLO", "a second hello in one session");
                return Err(Over(Some(Box::new(Err(to_status(&refusal))))));
            }
            Some(In::Goodbye(_)) => {
                tracing::info!(worker = %self.worker, session = self.session.id, "a worker says goodbye");
                self.goodbye = Some(Goodbye { until: Instant::now() + GOODBYE_WITHIN, closing: false });
            }
            // A newer worker may say more than this member understands.
            None => {}
        }
        Ok(())
    }

    fn on_ping(&mut self, sequence: u64) {
        if self.pings + self.answers.len() >= PINGS_MAX {
            return;
        }
        self.pings += 1;
        let (core, session) = (self.core.clone(), self.session);
        self.underway.push(Box::pin(async move {
            let deadline = Instant::now() + limits::SESSION_TTL;
            let acknowledged = match core.keep_alive(vec![session], deadline).await {
                Ok(acknowledged) => acknowledged.contains(&session),
                Err(refusal) => {
                    tracing::debug!(session = session.id, %refusal, "a keepalive was not acknowledged");
                    false
                }
            };
            Finished::Ping { sequence, acknowledged }
        }));
    }

    /// What the state shows already makes no entry: a worker repeats every few seconds how far an
    /// attempt is and whether a command is connected, until a set no longer names the attempt.
    fn begin_reports(&mut self) {
        while let Some((token, report)) = self.reports.next() {
            if shows(&self.core.view().state, self.worker, token, &report) {
                self.reports.finished(token);
                continue;
            }
            let command = Command::ReportAttempt { session: self.session, token, report };
            let delivery = deliver(self.core.clone(), command);
            self.underway.push(Box::pin(async move { Finished::Report { token, answer: delivery.await } }));
        }
    }

    /// One proposal at a time, with the newest sight of each domain; what the state shows already
    /// (a worker tells all again after each change of member) makes no entry.
    fn begin_domains(&mut self) {
        if self.reporting_domains || self.domains.is_empty() {
            return;
        }
        let view = self.core.view();
        let known = view.state.workers.get(&self.worker).map(|worker| &worker.domains);
        self.domains.retain(|domain, sight| known.and_then(|known| known.get(domain)) != Some(sight));
        let mut items = Vec::new();
        while items.len() < DOMAINS_PER_ENTRY {
            let Some((domain, sight)) = self.domains.pop_first() else { break };
            items.push(DomainReport { domain, sight });
        }
        if items.is_empty() {
            return;
        }
        self.reporting_domains = true;
        let delivery = deliver(self.core.clone(), Command::ReportDomains { session: self.session, items });
        self.underway.push(Box::pin(async move { Finished::Domains(delivery.await) }));
    }

    /// Once everything that a worker said before its goodbye is told on.
    fn begin_closing(&mut self) {
        let told = self.reports.is_empty();
        let Some(goodbye) = self.goodbye.as_mut().filter(|goodbye| told && !goodbye.closing) else { return };
        goodbye.closing = true;
        let delivery = deliver(self.core.clone(), Command::CloseSession(self.session));
        self.underway.push(Box::pin(async move { Finished::Closed(delivery.await) }));
    }

    fn on_finished(&mut self, finished: Finished) -> Result<(), Over> {
        match finished {
            Finished::Ping { sequence, acknowledged } => {
                self.pings -= 1;
                if acknowledged {
                    self.answers.push_back(Out::KeepAlive(KeepAlivePong { sequence }));
                }
                Ok(())
            }
            Finished::Report { token, answer } => {
                self.reports.finished(token);
                self.on_answer(answer, Some(token))
            }
            Finished::Domains(answer) => {
                self.reporting_domains = false;
                self.on_answer(answer, None)
            }
            Finished::Closed(Ok(_)) => Err(self.session_over("the worker said goodbye")),
            Finished::Closed(Err(refusal)) => {
                tracing::warn!(worker = %self.worker, %refusal, "a session was not closed: its lease runs out");
                Err(Over(None))
            }
        }
    }

    fn on_answer(&mut self, answer: Result<Proposed, Refusal>, token: Option<Token>) -> Result<(), Over> {
        let (index, refusal) = match answer {
            Ok(Proposed { index, reply: Reply::Refused(refusal) }) => (Some(index), refusal),
            Ok(_) => return Ok(()),
            Err(refusal) => (None, refusal),
        };
        let token = token.map(|token| token.to_string()).unwrap_or_default();
        match refusal.reason.as_str() {
            // Normal after a repetition, or when the attempt was given to somebody else.
            "ATTEMPT_CLOSED" => {
                tracing::debug!(worker = %self.worker, token, "a report came too late");
                self.repeat_from = index.max(self.repeat_from);
                self.look_at_set = true;
            }
            "SESSION_EXPIRED" | "NOT_A_WORKER" => return Err(self.session_over(&refusal.message)),
            _ => tracing::error!(worker = %self.worker, token, %refusal, "what a worker said was refused"),
        }
        Ok(())
    }

    /// Sends what is first in line. The set is made now, from the newest view.
    fn send(&mut self, permit: OwnedPermit<Outgoing>) {
        if let Some(answer) = self.answers.pop_front() {
            permit.send(Ok(GatewayMessage { message: Some(answer) }));
            return;
        }
        self.look_at_set = false;
        let view = self.core.view();
        let state = &view.state;
        let set = FullSet {
            assignments: state.assignments(self.worker, limits::ASSIGNMENTS_MAX),
            domains: state.domains.sum(),
        };
        let repeat = self.repeat_from.is_some_and(|index| state.applied_index() >= index);
        if !repeat && self.sent.as_ref() == Some(&set) {
            return;
        }
        if repeat {
            self.repeat_from = None;
        }
        let message = Assignments {
            epoch: state.meta.epoch,
            applied_index: state.applied_index(),
            items: set.assignments.iter().map(orders::assignment).collect(),
            domains: state.domains_to_probe(self.worker).iter().map(orders::domain).collect(),
        };
        tracing::debug!(worker = %self.worker, index = message.applied_index, items = message.items.len(), "sending a set");
        self.sent = Some(set);
        permit.send(Ok(GatewayMessage { message: Some(Out::Assignments(message)) }));
    }

    fn over(&self, why: &str) -> Over {
        tracing::info!(worker = %self.worker, session = self.session.id, why, "a worker's connection ends");
        Over(None)
    }

    fn session_over(&self, why: &str) -> Over {
        tracing::info!(worker = %self.worker, session = self.session.id, why, "a worker's session is over");
        let message = Out::SessionEnded(SessionEnded { message: format!("session {}: {why}", self.session.id) });
        Over(Some(Box::new(Ok(GatewayMessage { message: Some(message) }))))
    }

    fn nonsense(&self, error: &reports::BadReport) -> Over {
        tracing::error!(worker = %self.worker, %error, "a worker sent what makes no sense");
        let refusal = Refusal::new(Class::Invalid, "BAD_REPORT", error.to_string())
            .hint("run the same release of sdm on worker and members");
        Over(Some(Box::new(Err(to_status(&refusal)))))
    }
}
