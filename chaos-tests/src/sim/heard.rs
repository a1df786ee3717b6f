//! What the product says in its log that shows what a run was worth: counted for the coverage, and for a nemesis that
//! wants to strike at that very moment. A phrase that the product changes shows as something not covered.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;
use tracing::Event;
use tracing::Level;
use tracing::Metadata;
use tracing::Subscriber;
use tracing::field::Field;
use tracing::field::Visit;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// What the product says, and what that counts as.
const PHRASES: [(&str, &str); 7] = [
    ("snapshot taken", "snapshots-taken"),
    (SENDING, "snapshots-sent"),
    ("snapshot installed", "snapshots-installed"),
    ("a snapshot was not received", "snapshots-interrupted"),
    ("a report came too late", "late-reports-refused"),
    ("its removal is finished", "removals-finished-by-another"),
    ("a snapshot could not be written", "snapshots-not-written"),
];

const SENDING: &str = "sending a snapshot";

/// Who says one of these on the level of debugging.
const GATEWAY: &str = "sdm_coordinator::gateway::connection";

static HEARD: Mutex<Heard> = Mutex::new(Heard { counts: BTreeMap::new(), receiver: None });

#[derive(Debug)]
struct Heard {
    counts: BTreeMap<&'static str, u64>,
    receiver: Option<String>,
}

/// How often each was heard.
pub fn counts() -> BTreeMap<&'static str, u64> {
    HEARD.lock().unwrap_or_else(PoisonError::into_inner).counts.clone()
}

/// To whom a snapshot began to be sent since this was asked last.
pub fn take_receiver() -> Option<String> {
    HEARD.lock().unwrap_or_else(PoisonError::into_inner).receiver.take()
}

/// Whether this may be one of the phrases.
pub fn listens_to(metadata: &Metadata<'_>) -> bool {
    let level = metadata.level();
    metadata.target().starts_with("sdm_") && (*level <= Level::INFO || metadata.target() == GATEWAY)
}

/// The layer that listens.
pub struct Listening;

#[derive(Default)]
struct Said {
    message: String,
    peer: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "peer" => self.peer = format!("{value:?}"),
            _ => {}
        }
    }
}

impl<S: Subscriber> Layer<S> for Listening {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let Some((phrase, counts_as)) = PHRASES.iter().find(|(phrase, _)| said.message.starts_with(phrase)) else {
            return;
        };
        let mut heard = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
        *heard.counts.entry(counts_as).or_default() += 1;
        if *phrase == SENDING {
            heard.receiver = Some(said.peer);
        }
    }
}
