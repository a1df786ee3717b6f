//! `EventService`: what happened in the cluster, after an index and then as it happens. All of it comes from the
//! applied state, which is the same on every member, so a watch goes on at another one where it broke off.

use crate::core::Core;
use crate::services::call::Call;
use futures_util::Stream;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::status::to_status;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::event_service_server::EventService;
use sdm_state::State;
use sdm_state::events::Event;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::watch;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// Longest silence; then a linearizable read proves that this member still belongs to the majority, and how far it has
/// told is told.
const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(5);

/// Events in one answer, unless a single entry has more: far below the largest message.
const EVENTS_PER_ANSWER: usize = 500;

/// Longest filter, in bytes.
const KIND_BYTES_MAX: usize = 64;

/// The service.
#[derive(Clone)]
pub struct EventApi {
    core: Core,
}

impl EventApi {
    /// Over this member's core.
    #[must_use]
    pub fn new(core: Core) -> Self {
        Self { core }
    }

    async fn watch(&self, asked: v1::WatchEventsRequest) -> Result<EventWatch, Refusal> {
        if asked.kind.len() > KIND_BYTES_MAX {
            let message = format!("a kind of event has at most {KIND_BYTES_MAX} bytes");
            return Err(Refusal::new(Class::Invalid, "BAD_KIND", message).hint("txn, disk, worker-lost ..."));
        }
        // Subscribed before the read: what is applied from here on wakes.
        let mut changes = self.core.watch();
        changes.mark_unchanged();
        let view = Call::begin(&self.core).read().await?;
        let state = &view.state;
        let since = match asked.since_index {
            None => state.events_floor(),
            Some(since) => complete_after(state, since)?,
        };
        if since > state.applied_index() {
            let message = format!("entry {since} is not there yet: the cluster is at {}", state.applied_index());
            return Err(Refusal::new(Class::Invalid, "INDEX_IN_FUTURE", message)
                .hint("was this index another cluster's? begin without --since"));
        }
        let until = asked.once.then(|| state.applied_index());
        let (core, kind) = (self.core.clone(), asked.kind);
        Ok(EventWatch { core, changes, since, kind, until, told: false, ended: false })
    }
}

/// The index, if every event after it is known.
fn complete_after(state: &State, since: u64) -> Result<u64, Refusal> {
    let floor = state.events_floor();
    if since >= floor {
        return Ok(since);
    }
    let message = format!("events after entry {since} are not all known any more: they are from entry {floor} on");
    Err(Refusal::new(Class::Precondition, "COMPACTED", message)
        .hint(format!("go on from there: sdm events --since {floor}; what was missed is gone"))
        .blocker("index", floor.to_string(), "the oldest from which on all events are known"))
}

struct EventWatch {
    core: Core,
    changes: watch::Receiver<Option<u64>>,
    since: u64,
    kind: String,
    /// The entry after which it ends; None goes on.
    until: Option<u64>,
    /// Whether anything was told yet.
    told: bool,
    ended: bool,
}

impl EventWatch {
    fn into_stream(self) -> impl Stream<Item = Result<v1::WatchEventsResponse, Status>> + Send {
        futures_util::stream::unfold(self, |mut watch| async move {
            let told = watch.next().await?;
            watch.ended |= told.is_err();
            Some((told.map_err(|refusal| to_status(&refusal)), watch))
        })
    }

    async fn next(&mut self) -> Option<Result<v1::WatchEventsResponse, Refusal>> {
        if self.ended || (self.told && self.until.is_some_and(|until| self.since >= until)) {
            return None;
        }
        loop {
            let answer = match self.answer() {
                Ok(answer) => answer,
                Err(refusal) => return Some(Err(refusal)),
            };
            if let Some(answer) = answer {
                return Some(Ok(answer));
            }
            let closing = self.core.closing().clone();
            tokio::select! {
                biased;
                () = closing.cancelled() => return Some(Err(stopping())),
                changed = self.changes.changed() => if changed.is_err() { return Some(Err(stopping())) },
                () = tokio::time::sleep(SIGN_OF_LIFE_EVERY) => match Call::begin(&self.core).read().await {
                    Ok(_) => self.told = false,
                    Err(refusal) => return Some(Err(refusal)),
                },
            }
        }
    }

    /// What is to be told now; None when there is nothing new.
    fn answer(&mut self) -> Result<Option<v1::WatchEventsResponse>, Refusal> {
        let view = self.core.view();
        let state = &view.state;
        loop {
            let since = complete_after(state, self.since)?;
            let (events, index) = whole_entries(state, since);
            let events: Vec<v1::ClusterEvent> =
                events.into_iter().filter(|event| event.kind.word().starts_with(&self.kind)).map(shown).collect();
            self.since = index;
            let at_end = index >= state.applied_index();
            // Entries without a word for this watch are worth no message of their own: the next sign of life has them.
            if events.is_empty() && self.told && !(at_end && self.until.is_some()) {
                if at_end {
                    return Ok(None);
                }
                continue;
            }
            self.told = true;
            return Ok(Some(v1::WatchEventsResponse { events, index, clock_ms: self.core.shown_clock_ms(state) }));
        }
    }
}

/// Events after an entry, of whole entries only, and up to which entry they are all.
fn whole_entries(state: &State, since: u64) -> (Vec<&Event>, u64) {
    let mut events: Vec<&Event> = Vec::new();
    for event in state.events_after(since) {
        let last = events.last().map(|last| last.index);
        if events.len() >= EVENTS_PER_ANSWER && last != Some(event.index) {
            return (events, last.unwrap_or(since));
        }
        events.push(event);
    }
    (events, state.applied_index().max(since))
}

/// An event as it is shown.
pub(crate) fn shown(event: &Event) -> v1::ClusterEvent {
    v1::ClusterEvent {
        index: event.index,
        ordinal: event.ordinal,
        at_ms: event.at_ms,
        kind: event.kind.word().to_owned(),
        object: event.object.clone(),
        transaction_id: event.txn.map(|txn| txn.to_string()).unwrap_or_default(),
        text: event.text.clone(),
    }
}

fn stopping() -> Refusal {
    Refusal::new(Class::Unavailable, "MEMBER_STOPS", "this member is shutting down; events go on")
        .hint("ask another member, with the index of the last answer")
}

#[tonic::async_trait]
impl EventService for EventApi {
    type WatchEventsStream = Pin<Box<dyn Stream<Item = Result<v1::WatchEventsResponse, Status>> + Send>>;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let watch = self.watch(request.into_inner()).await.map_err(|refusal| to_status(&refusal))?;
        Ok(Response::new(Box::pin(watch.into_stream())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn an_index_that_is_too_old_is_refused_with_the_oldest_that_is_not() {
        let mut sample = Sample::new();
        assert_eq!(complete_after(&sample.state, 0), Ok(0));
        sample.state.meta.events_floor = 7;
        let refusal = complete_after(&sample.state, 6).unwrap_err();
        assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Precondition, "COMPACTED"));
        assert_eq!(refusal.blockers[0].id, "7");
        assert!(refusal.hint.contains("--since 7"), "{refusal}");
        assert_eq!(complete_after(&sample.state, 7), Ok(7));
    }

    #[test]
    fn answers_hold_whole_entries_and_say_how_far_they_go() {
        let sample = Sample::with_disk();
        let (events, index) = whole_entries(&sample.state, 0);
        assert_eq!(index, sample.state.applied_index());
        assert_eq!(events.len(), sample.state.events.len());
        let middle = events.get(events.len() / 2).map_or(0, |event| event.index);
        let (later, _) = whole_entries(&sample.state, middle);
        assert!(later.iter().all(|event| event.index > middle));
    }
}
