//! Tickets: which attempt a stream belongs to. An attempt registers its ticket and waits at its door
//! for visits; the services find the door by the ticket. Tickets are secrets: they are compared in
//! constant time and never logged.

use crate::work::FileHash;
use crate::work::Piece;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use subtle::ConstantTimeEq;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

/// Shortest ticket, in bytes. An empty one must never open anything.
const TICKET_BYTES_MIN: usize = 16;

/// Visits that wait at one door: the sender that came back before its broken stream was noticed.
const WAITING_MAX: usize = 1;

/// What a ticket is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A command sends a file.
    Upload,
    /// A command reads a volume.
    Download,
    /// Another worker reads a placement.
    Pull,
}

/// A command that sends.
#[derive(Debug)]
pub(crate) struct Sender {
    /// What it sends; closed before `End`: it is gone.
    pub pieces: mpsc::Receiver<Piece>,
    /// What it is told at the end.
    pub answer: oneshot::Sender<Result<FileHash, Refusal>>,
}

/// A command or a worker that reads.
#[derive(Debug)]
pub(crate) struct Reader {
    /// What it gets; closed: it is gone.
    pub pieces: mpsc::Sender<Result<Piece, Refusal>>,
    /// Completes when it took everything to the end; fails when it went away before.
    pub finished: oneshot::Receiver<()>,
}

/// One stream at the door of an attempt.
#[derive(Debug)]
pub(crate) enum Visit {
    Sender(Sender),
    Reader(Reader),
}

struct Door {
    ticket: Vec<u8>,
    purpose: Purpose,
    volumes: Arc<[String]>,
    visits: mpsc::Sender<Visit>,
}

/// An attempt's place in the table; taken out when dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    tickets: Tickets,
    token: String,
    /// Visits, one after the other.
    pub visits: mpsc::Receiver<Visit>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.tickets.doors().remove(&self.token);
    }
}

/// All tickets of this worker.
#[derive(Clone, Default)]
pub(crate) struct Tickets(Arc<Mutex<BTreeMap<String, Door>>>);

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.doors().keys()).finish()
    }
}

fn unknown() -> Refusal {
    Refusal::new(Class::Unavailable, "TICKET_UNKNOWN", "this worker runs no attempt with that ticket")
        .hint("the attempt is about to begin, or has moved to another worker: ask the transaction again")
}

impl Tickets {
    fn doors(&self) -> MutexGuard<'_, BTreeMap<String, Door>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a door for an attempt. `volumes` are the ids of what is read there, in order.
    pub(crate) fn register(&self, token: &str, ticket: &[u8], purpose: Purpose, volumes: Vec<String>) -> Registration {
        let (visits, waiting) = mpsc::channel(WAITING_MAX);
        let door = Door { ticket: ticket.to_vec(), purpose, volumes: volumes.into(), visits };
        self.doors().insert(token.to_owned(), door);
        Registration { tickets: self.clone(), token: token.to_owned(), visits: waiting }
    }

    /// Brings a visit to the door that the ticket opens; answers with the door's volumes.
    ///
    /// # Errors
    /// No door has this ticket (and, for a pull, this token), or others wait there already. Both may change.
    pub(crate) fn visit(
        &self,
        purpose: Purpose,
        ticket: &[u8],
        token: &str,
        visit: Visit,
    ) -> Result<Arc<[String]>, Refusal> {
        let doors = self.doors();
        // Every door is looked at, so that the time tells nothing about where it was found.
        let mut found = None;
        for (of, door) in doors.iter() {
            let opens = bool::from(door.ticket.ct_eq(ticket)) && ticket.len() >= TICKET_BYTES_MIN;
            let named = bool::from(of.as_bytes().ct_eq(token.as_bytes()));
            // A command may know its ticket alone; a worker knows its assignment.
            let unnamed = token.is_empty() && purpose != Purpose::Pull;
            if opens & (named | unnamed) && door.purpose == purpose {
                found = Some(door);
            }
        }
        let door = found.ok_or_else(unknown)?;
        door.visits.try_send(visit).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Refusal::new(Class::Unavailable, "TRANSFER_BUSY", "another stream with this ticket is being served")
                    .hint("try again when it has ended")
            }
            mpsc::error::TrySendError::Closed(_) => unknown(),
        })?;
        Ok(Arc::clone(&door.volumes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICKET: &[u8; 16] = b"sixteen secrets.";

    fn visit() -> Visit {
        let (answer, _) = oneshot::channel();
        Visit::Sender(Sender { pieces: mpsc::channel(1).1, answer })
    }

    fn outcome(tickets: &Tickets, purpose: Purpose, ticket: &[u8], token: &str) -> Result<(), String> {
        tickets.visit(purpose, ticket, token, visit()).map(|_| ()).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn only_the_right_ticket_for_the_right_purpose_opens_a_door() {
        let tickets = Tickets::default();
        let unknown = || Err("TICKET_UNKNOWN".to_owned());
        let registration = tickets.register("1-2-3", TICKET, Purpose::Upload, vec![]);
        assert_eq!(outcome(&tickets, Purpose::Upload, b"sixteen secrets!", ""), unknown());
        assert_eq!(outcome(&tickets, Purpose::Upload, b"", ""), unknown());
        assert_eq!(outcome(&tickets, Purpose::Download, TICKET, "1-2-3"), unknown());
        assert_eq!(outcome(&tickets, Purpose::Upload, TICKET, "1-2-4"), unknown());
        assert_eq!(outcome(&tickets, Purpose::Upload, TICKET, "1-2-3"), Ok(()));
        assert_eq!(outcome(&tickets, Purpose::Upload, TICKET, "1-2-3"), Err("TRANSFER_BUSY".into()));
        drop(registration);
        assert_eq!(outcome(&tickets, Purpose::Upload, TICKET, "1-2-3"), unknown());
    }

    #[test]
    fn a_pull_needs_the_token_and_the_ticket_of_one_assignment() {
        let tickets = Tickets::default();
        let unknown = || Err("TICKET_UNKNOWN".to_owned());
        let _one = tickets.register("1-2-3", TICKET, Purpose::Pull, vec![]);
        let _other = tickets.register("1-2-4", b"another 16 bytes", Purpose::Pull, vec![]);
        assert_eq!(outcome(&tickets, Purpose::Pull, TICKET, ""), unknown());
        assert_eq!(outcome(&tickets, Purpose::Pull, TICKET, "1-2-4"), unknown());
        assert_eq!(outcome(&tickets, Purpose::Pull, TICKET, "1-2-3"), Ok(()));
    }

    #[test]
    fn an_empty_ticket_never_opens_anything() {
        let tickets = Tickets::default();
        let _registration = tickets.register("1-2-3", b"", Purpose::Upload, vec![]);
        assert_eq!(outcome(&tickets, Purpose::Upload, b"", "1-2-3"), Err("TICKET_UNKNOWN".into()));
    }
}
