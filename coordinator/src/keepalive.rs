//! Keepalives of sessions: the leader's memory of who was heard from. It is not in the log: a new
//! leader gives everyone the full lease again.
//!
//! A keepalive is acknowledged only after the leader's own first entry was applied (it knows every
//! earlier expiry) and a quorum confirmed, after the keepalive came in, that it still leads (nobody
//! else expired the session meanwhile); and never between proposing an expiry and learning what
//! became of it.

use crate::core::Core;
use crate::peers::within;
use crate::reachability;
use crate::read;
use crate::route::Attempt;
use crate::route::Leader;
use crate::route::at_leader;
use crate::route::not_leader;
use crate::route::report_time;
use crate::route::stopping;
use sdm_proto::failpoint;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::internal::v1::KeepAliveRequest;
use sdm_proto::wire::internal::v1::SessionKey;
use sdm_raft_store::LeaderId;
use sdm_raft_store::StateView;
use sdm_state::State;
use sdm_state::command::SessionRef;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::time::Instant;

/// The sessions that a round renewed.
pub(crate) type Renewal = Arc<BTreeSet<SessionRef>>;

/// How long the leader tries for one request of another member: it asks again by itself.
const TRY_TIME: Duration = Duration::from_secs(3);

/// Sessions that expire in one entry; the rest follow in the next.
const EXPIRED_PER_ENTRY: usize = 64;

/// Leases of sessions that ended are kept until they run out or are as many as those that live, and so
/// many more: then all of them are looked at.
const ENDED_MAX: usize = 1_000;

#[derive(Clone, Copy, Debug)]
struct Lease {
    deadline_ms: u64,
    /// Proposed to expire, outcome not known yet.
    expiring: bool,
}

#[derive(Debug)]
struct Watched {
    leader: LeaderId,
    /// Highest id of a session that was taken in: those that open later have higher ones.
    newest: u64,
    leases: BTreeMap<SessionRef, Lease>,
    /// The same by deadline, those that expire left out.
    by_deadline: BTreeSet<(u64, SessionRef)>,
}

impl Watched {
    fn set(&mut self, session: SessionRef, lease: Lease) {
        if let Some(old) = self.leases.insert(session, lease) {
            self.by_deadline.remove(&(old.deadline_ms, session));
        }
        if !lease.expiring {
            self.by_deadline.insert((lease.deadline_ms, session));
        }
    }

    fn forget(&mut self, session: SessionRef) {
        if let Some(lease) = self.leases.remove(&session) {
            self.by_deadline.remove(&(lease.deadline_ms, session));
        }
    }

    /// Takes in what has opened since the last time. Called after every entry, so it looks at nothing
    /// else; sessions that ended are dropped when their lease runs out, or when they become many.
    fn sync(&mut self, state: &State, now_ms: u64) {
        while let Some((id, session)) = state.sessions.from_key(&self.newest.saturating_add(1)).next() {
            self.newest = *id;
            // A session that is resumed under its id would pass unseen by here: there is no such thing.
            debug_assert_eq!(session.epoch, *id, "a session keeps the epoch that it was opened with");
            self.set(
                session.reference(),
                Lease { deadline_ms: now_ms.saturating_add(session.ttl_ms), expiring: false },
            );
        }
        if self.leases.len() > 2 * state.sessions.len() + ENDED_MAX {
            let ended: Vec<SessionRef> =
                self.leases.keys().filter(|session| !lives(state, **session)).copied().collect();
            ended.into_iter().for_each(|session| self.forget(session));
        }
    }

    /// The first lease to run out whose session has not ended.
    fn first_deadline_ms(&mut self, state: &State) -> Option<u64> {
        loop {
            let (at, session) = *self.by_deadline.first()?;
            if lives(state, session) {
                return Some(at);
            }
            self.forget(session);
        }
    }
}

/// Whether this opening of the session is the current one, as far as this state reaches: who renews may
/// have seen a later one than the timekeeper.
fn lives(state: &State, session: SessionRef) -> bool {
    session.epoch > state.applied_index()
        || state.sessions.get(&session.id).is_some_and(|live| live.epoch == session.epoch)
}

/// The leases that this member watches while it leads. Times are the boot-time clock's.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    watched: Mutex<Option<Watched>>,
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, Option<Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A leadership begins: everyone gets the full lease.
    pub fn begin(&self, leader: LeaderId, state: &State, now_ms: u64) {
        let mut watched = Watched { leader, newest: 0, leases: BTreeMap::new(), by_deadline: BTreeSet::new() };
        let given_ms = if failpoint::skips("plant.lease-not-renewed") { 0 } else { now_ms };
        watched.sync(state, given_ms);
        *self.lock() = Some(watched);
    }

    /// The leadership is over.
    pub fn end(&self) {
        *self.lock() = None;
    }

    /// Takes in sessions that opened.
    pub fn sync(&self, state: &State, now_ms: u64) {
        if let Some(watched) = self.lock().as_mut() {
            watched.sync(state, now_ms);
        }
    }

    /// Renews those of the sessions that live and do not expire. None: this is not the leadership
    /// that the caller confirmed.
    ///
    /// `view` loads the newest view. That happens in here: in one from before, a session could still
    /// live that has expired and whose lease was forgotten since.
    pub fn renew(
        &self,
        leader: LeaderId,
        sessions: &[SessionRef],
        view: impl FnOnce() -> Arc<StateView>,
        now_ms: u64,
    ) -> Option<Renewal> {
        let mut watched = self.lock();
        let watched = watched.as_mut().filter(|watched| watched.leader == leader)?;
        let view = view();
        let state = &view.state;
        watched.sync(state, now_ms);
        let mut renewed = BTreeSet::new();
        for session in sessions {
            let ttl_ms =
                state.sessions.get(&session.id).filter(|live| live.epoch == session.epoch).map(|live| live.ttl_ms);
            // One that is not known was resumed under a new epoch: whoever expired the earlier one did
            // not mean this one.
            let expiring = watched.leases.get(session).is_some_and(|lease| lease.expiring)
                && !failpoint::skips("plant.keepalive-expiring");
            if let Some(ttl_ms) = ttl_ms.filter(|_| !expiring) {
                watched.set(*session, Lease { deadline_ms: now_ms.saturating_add(ttl_ms), expiring: false });
                renewed.insert(*session);
            }
        }
        Some(Arc::new(renewed))
    }

    /// When the next lease runs out.
    pub fn next_deadline_ms(&self, state: &State) -> Option<u64> {
        self.lock().as_mut()?.first_deadline_ms(state)
    }

    /// Leases that ran out. From now on none of them is renewed.
    pub fn take_expired(&self, now_ms: u64) -> Vec<SessionRef> {
        let mut watched = self.lock();
        let Some(watched) = watched.as_mut() else { return Vec::new() };
        let due = watched.by_deadline.iter().take_while(|(at, _)| *at <= now_ms).take(EXPIRED_PER_ENTRY);
        let due: Vec<(u64, SessionRef)> = due.copied().collect();
        for (deadline_ms, session) in &due {
            watched.set(*session, Lease { deadline_ms: *deadline_ms, expiring: true });
        }
        due.into_iter().map(|(_, session)| session).collect()
    }

    /// Their expiry was certainly not appended: they may be renewed again.
    pub fn not_expired(&self, sessions: &[SessionRef]) {
        let mut watched = self.lock();
        let Some(watched) = watched.as_mut() else { return };
        for session in sessions {
            if let Some(lease) = watched.leases.get(session).copied() {
                watched.set(*session, Lease { expiring: false, ..lease });
            }
        }
    }
}

/// See `Core::keep_alive`.
pub(crate) async fn keep_alive(
    core: &Core,
    sessions: Vec<SessionRef>,
    deadline: Instant,
) -> Result<Vec<SessionRef>, Refusal> {
    let begun = Instant::now();
    let report_time = report_time(deadline);
    match core.inner.renewals.ask(sessions.clone(), deadline - report_time).await {
        Some(renewal) => {
            let renewed = renewal?;
            Ok(sessions.into_iter().filter(|session| renewed.contains(session)).collect())
        }
        None if core.closing().is_cancelled() => Err(stopping(core)),
        None => Err(reachability::no_quorum(core, begun.elapsed(), None, report_time).await),
    }
}

/// One round, for `rounds::drive`: all keepalives that wait, in one request to the leader.
pub(crate) async fn round(core: Core, asked: Vec<Vec<SessionRef>>, deadline: Instant) -> Result<Renewal, Refusal> {
    let sessions: BTreeSet<SessionRef> = asked.into_iter().flatten().collect();
    let sessions: Vec<SessionRef> = sessions.into_iter().collect();
    at_leader(&core, deadline, |leader| {
        let (core, sessions) = (&core, &sessions);
        async move {
            match leader {
                Leader::Here(own) => match renew_here(core, own, sessions).await {
                    Ok(renewed) => Attempt::Done(renewed),
                    Err(refusal) => Attempt::of_refusal(refusal),
                },
                Leader::There(id, node) => match core.inner.peers.member(id, &node.address) {
                    Ok(mut client) => {
                        let request = KeepAliveRequest { sessions: sessions.iter().map(to_key).collect() };
                        let answer = tokio::time::timeout(TRY_TIME, client.keep_alive(within(request, TRY_TIME))).await;
                        let answer =
                            answer.unwrap_or_else(|_| Err(tonic::Status::unavailable("the leader did not answer")));
                        Attempt::of_call(answer)
                            .map(|answer| Arc::new(answer.acknowledged.iter().filter_map(from_key).collect()))
                    }
                    Err(refusal) => Attempt::Again(refusal),
                },
            }
        }
    })
    .await
}

/// Renews sessions as the leader of exactly this leadership.
async fn renew_here(core: &Core, leader: LeaderId, sessions: &[SessionRef]) -> Result<Renewal, Refusal> {
    core.inner.stopwatch.started(leader).await;
    if !failpoint::skips("plant.keepalive-unconfirmed") {
        let confirmed = read::confirmed(core, Instant::now() + TRY_TIME).await?;
        if confirmed.leader_id != leader {
            return Err(not_leader(core));
        }
    }
    let now_ms = core.clock().now_ms();
    core.inner.leases.renew(leader, sessions, || core.view(), now_ms).ok_or_else(|| not_leader(core))
}

/// The leader's side of a round that another member asked for.
pub(crate) async fn renew_for_peer(core: &Core, keys: &[SessionKey]) -> Result<Vec<SessionKey>, Refusal> {
    let Some(own) = core.inner.leadership.borrow().own else { return Err(not_leader(core)) };
    let sessions: Vec<SessionRef> = keys.iter().filter_map(from_key).collect();
    let mut leadership = core.inner.leadership.clone();
    let renewed = tokio::select! {
        renewed = renew_here(core, own, &sessions) => renewed?,
        _ = leadership.wait_for(|now| now.own != Some(own)) => return Err(not_leader(core)),
    };
    Ok(renewed.iter().map(to_key).collect())
}

fn to_key(session: &SessionRef) -> SessionKey {
    SessionKey { session_id: session.id.to_string(), epoch: session.epoch }
}

fn from_key(key: &SessionKey) -> Option<SessionRef> {
    Some(SessionRef { id: key.session_id.parse().ok()?, epoch: key.epoch })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;
    use sdm_state::Command;
    use sdm_state::Entry;

    const LEADER: LeaderId = LeaderId { term: 1, node_id: 1 };
    const TTL_MS: u64 = 10_000;

    /// A state with a worker's session of ten seconds, watched since 0 ms.
    fn watched() -> (State, SessionRef, Leases) {
        let sample = Sample::new();
        let session = sample.state.sessions.values().next().expect("the sample's worker has one");
        assert_eq!(session.ttl_ms, TTL_MS);
        let leases = Leases::default();
        leases.begin(LEADER, &sample.state, 0);
        (sample.state.clone(), session.reference(), leases)
    }

    fn view(state: &State) -> Arc<StateView> {
        Arc::new(StateView { state: state.clone(), ..StateView::default() })
    }

    fn renewed(leases: &Leases, session: SessionRef, state: &State, now_ms: u64) -> bool {
        leases.renew(LEADER, &[session], || view(state), now_ms).is_some_and(|renewed| renewed.contains(&session))
    }

    /// The same state after its sessions ended.
    fn ended(state: &State) -> State {
        let sessions = state.sessions.values().map(sdm_state::sessions::Session::reference).collect();
        let mut later = state.clone();
        let entry = Entry { stamp_ms: 0, entropy: [0; 16], command: Command::ExpireSessions { sessions } };
        later.apply(state.applied_index() + 1, &entry);
        later
    }

    #[test]
    fn a_lease_runs_out_its_time_after_the_last_renewal_and_not_before() {
        let (state, session, leases) = watched();
        assert!(renewed(&leases, session, &state, 4_000));
        assert_eq!(leases.next_deadline_ms(&state), Some(14_000));
        assert!(leases.take_expired(13_999).is_empty());
        assert_eq!(leases.take_expired(14_000), vec![session]);
        assert_eq!(leases.next_deadline_ms(&state), None);
    }

    #[test]
    fn what_expires_is_not_renewed_unless_the_expiry_was_certainly_not_written() {
        let (state, session, leases) = watched();
        assert_eq!(leases.take_expired(TTL_MS), vec![session]);
        assert!(!renewed(&leases, session, &state, TTL_MS));
        leases.sync(&state, TTL_MS);
        assert!(!renewed(&leases, session, &state, TTL_MS), "looking at the state again changes nothing");
        leases.not_expired(&[session]);
        assert!(renewed(&leases, session, &state, TTL_MS));
    }

    #[test]
    fn another_opening_an_ended_session_and_another_leadership_are_not_renewed() {
        let (state, session, leases) = watched();
        assert!(!renewed(&leases, SessionRef { epoch: session.epoch + 1, ..session }, &state, 1));
        assert!(renewed(&leases, session, &state, 1));
        assert!(!renewed(&leases, session, &State::default(), 1));
        assert_eq!(leases.next_deadline_ms(&ended(&state)), None, "an ended session is forgotten");
        let later = LeaderId { term: 2, ..LEADER };
        assert!(leases.renew(later, &[session], || view(&state), 1).is_none());
        leases.end();
        assert!(leases.renew(LEADER, &[session], || view(&state), 1).is_none());
    }

    #[test]
    fn a_session_that_a_later_state_knows_is_not_forgotten_over_an_earlier_one() {
        let (mut sample, leases) = (Sample::new(), Leases::default());
        leases.begin(LEADER, &sample.state, 0);
        let earlier = sample.state.clone();
        for session in earlier.sessions.values() {
            assert!(renewed(&leases, session.reference(), &earlier, 50_000));
        }
        let session = sample.open_client("late");
        assert!(renewed(&leases, session, &sample.state, 1));
        assert_eq!(leases.next_deadline_ms(&earlier), Some(1 + TTL_MS));
        assert_eq!(leases.take_expired(1 + TTL_MS), vec![session]);
    }

    #[test]
    fn leases_of_ended_sessions_do_not_pile_up() {
        let (mut sample, leases) = (Sample::new(), Leases::default());
        leases.begin(LEADER, &sample.state, 0);
        for n in 0..3 * ENDED_MAX {
            let session = sample.open_client(&format!("client {n}"));
            leases.sync(&sample.state, 0);
            assert!(renewed(&leases, session, &sample.state, 0));
            sample.close(session);
        }
        leases.sync(&sample.state, 0);
        let kept = leases.lock().as_ref().map_or(0, |watched| watched.leases.len());
        assert!(kept <= ENDED_MAX + 2 * sample.state.sessions.len(), "{kept} leases are kept");
        assert!(leases.take_expired(0).is_empty());
    }
}
