//! The list of locks against what the clients were told: every lock that was granted and not given
//! back is there with its token; nothing else is, except what a client was not told about.

use super::LIST_PATIENCE;
use crate::client::Answer;
use crate::client::Endpoints;
use crate::client::locks;
use crate::history::Asked;
use crate::history::Book;
use crate::history::Grant;
use crate::history::History;
use crate::history::Promise;
use crate::history::Question;
use crate::history::Record;
use sdm_proto::limits::PAGE_SIZE_MAX;
use sdm_proto::token::Token;
use sdm_proto::wire::v1;
use std::collections::BTreeSet;

/// A lock as a member lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    session: u64,
    grant: Grant,
}

/// All locks of sessions that a member knows.
///
/// # Errors
/// It does not answer, or what it says makes no sense.
pub async fn list(member: &mut Endpoints) -> Result<Vec<Listed>, String> {
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = v1::PageRequest { page_size: u32::try_from(PAGE_SIZE_MAX).unwrap_or(1), page_token };
        let call = |channel| {
            let request = v1::ListLocksRequest { page: Some(page.clone()) };
            async move { locks(channel).list_locks(request).await }
        };
        let answer = match member.insist(LIST_PATIENCE, call).await.0 {
            Answer::Done(answer) => answer,
            other => return Err(format!("{other:?}")),
        };
        for lock in answer.items {
            if lock.owner_kind == "session" {
                found.push(listed(&lock).ok_or_else(|| format!("a lock that makes no sense: {lock:?}"))?);
            }
        }
        page_token = answer.page.unwrap_or_default().next_page_token;
        if page_token.is_empty() {
            return Ok(found);
        }
    }
}

fn listed(lock: &v1::Lock) -> Option<Listed> {
    let token: Token = lock.token.parse().ok()?;
    let [resource] = lock.resources.as_slice() else { return None };
    let grant = Grant { lock: lock.id.clone(), token, resource: resource.resource.clone() };
    Some(Listed { session: lock.owner_id.parse().ok()?, grant })
}

/// Compares. What a client was not told about, and what cannot change any more, becomes what it knows.
pub fn compare(history: &History, listed: &[Listed]) {
    let mut record = history.record();
    let mut seen = BTreeSet::new();
    for lock in listed {
        seen.insert(lock.grant.lock.clone());
        let owner = record.books.iter().position(|book| book.session.is_some_and(|key| key.id == lock.session));
        match owner {
            Some(client) => look_at(&mut record, client, &lock.grant),
            None => {
                let closed = record.closed.contains(&lock.session);
                let why = if closed { "a session that was closed" } else { "a session that nobody opened" };
                record.violated(Promise::NoPhantom, format!("{:?} is held by {why}, {}", lock.grant, lock.session));
            }
        }
        record.counts.compared += 1;
    }
    for client in 0..record.books.len() {
        look_for_lost(&mut record, client, &seen);
    }
}

/// A lock of this client that is there.
fn look_at(record: &mut Record, client: usize, grant: &Grant) {
    let Some(book) = record.books.get_mut(client) else { return };
    if let Some(known) = book.held.get(&grant.lock) {
        if known != grant {
            let what = format!("client {client} was granted {known:?}, and now it is {grant:?}");
            record.violated(Promise::Tokens, what);
        }
        return;
    }
    // A client may ask once more for what it holds: that request is refused, and the lock is the one
    // that it tried to give back.
    let given_back =
        book.open.iter().position(|question| matches!(&question.asked, Asked::Release(held) if held == grant));
    let asked_for =
        |question: &Question| matches!(&question.asked, Asked::Acquire { resource, .. } if *resource == grant.resource);
    let asked = given_back.or_else(|| book.open.iter().position(asked_for));
    let Some(at) = asked else {
        let what = format!("client {client} holds {grant:?}, which it gave back or never asked for");
        record.violated(Promise::NoPhantom, what);
        return;
    };
    if !is_settled(book, at) {
        return;
    }
    let question = book.open.swap_remove(at);
    book.held.insert(grant.lock.clone(), grant.clone());
    match question.asked {
        Asked::Acquire { floor, .. } => record.granted(client, grant, floor),
        Asked::Release(_) if crate::history::is_shared(&grant.resource) => {
            record.shared.insert(grant.resource.clone(), client);
        }
        Asked::Release(_) => {}
    }
}

/// Whether the request of this question cannot take effect any more.
fn is_settled(book: &Book, at: usize) -> bool {
    book.open.get(at).is_some_and(|question| question.sequence < book.answered)
}

/// Locks of this client that are not there.
fn look_for_lost(record: &mut Record, client: usize, seen: &BTreeSet<String>) {
    let Some(book) = record.books.get_mut(client) else { return };
    let answered = book.answered;
    // Whatever could still be there was seen and is held now.
    book.open.retain(|question| question.sequence >= answered);
    let lost: Vec<Grant> = book.held.values().filter(|grant| !seen.contains(&grant.lock)).cloned().collect();
    book.held.retain(|lock, _| seen.contains(lock));
    for grant in lost {
        let what = format!("client {client} was granted {grant:?}, and it is gone");
        record.violated(Promise::Kept, what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Question;

    fn grant(index: u64) -> Grant {
        let token = Token { epoch: 1, index, ordinal: 0 };
        Grant { lock: index.to_string(), token, resource: format!("user/{index}") }
    }

    fn told(held: &[u64], open: &[Question], answered: u64) -> History {
        let history = History::new(1);
        let book = Book {
            session: Some(v1::SessionKey { id: 9, epoch: 9 }),
            held: held.iter().map(|index| (index.to_string(), grant(*index))).collect(),
            open: open.to_vec(),
            answered,
            last: None,
        };
        history.record().books = vec![book];
        history
    }

    fn broken(history: &History, listed: &[u64]) -> Vec<Promise> {
        let listed: Vec<Listed> = listed.iter().map(|index| Listed { session: 9, grant: grant(*index) }).collect();
        compare(history, &listed);
        history.violations().iter().map(|violation| violation.promise).collect()
    }

    fn acquire(sequence: u64, index: u64) -> Question {
        let asked = Asked::Acquire { resource: format!("user/{index}"), floor: Token::default() };
        Question { sequence, asked }
    }

    fn release(sequence: u64, index: u64) -> Question {
        Question { sequence, asked: Asked::Release(grant(index)) }
    }

    #[test]
    fn what_was_granted_and_is_there_is_fine() {
        assert_eq!(broken(&told(&[1, 2], &[], 2), &[1, 2]), []);
    }

    #[test]
    fn a_lock_that_is_gone_was_lost() {
        assert_eq!(broken(&told(&[1, 2], &[], 2), &[1]), [Promise::Kept]);
    }

    #[test]
    fn a_lock_that_was_given_back_and_is_there_is_a_phantom() {
        assert_eq!(broken(&told(&[1], &[], 2), &[1, 2]), [Promise::NoPhantom]);
    }

    #[test]
    fn a_lock_of_a_session_that_nobody_opened_is_a_phantom() {
        let history = told(&[], &[], 0);
        compare(&history, &[Listed { session: 8, grant: grant(1) }]);
        assert_eq!(history.violations().len(), 1);
    }

    #[test]
    fn whatever_became_of_an_unknown_request_is_right() {
        for listed in [&[][..], &[5]] {
            assert_eq!(broken(&told(&[], &[acquire(3, 5)], 2), listed), []);
            assert_eq!(broken(&told(&[], &[release(3, 5)], 2), listed), []);
        }
    }

    #[test]
    fn an_unknown_request_that_a_later_answer_settled_stays_as_it_was_found() {
        let history = told(&[], &[acquire(3, 5), release(4, 6)], 7);
        assert_eq!(broken(&history, &[5, 6]), []);
        assert_eq!(broken(&history, &[]), [Promise::Kept, Promise::Kept]);
        let history = told(&[], &[acquire(3, 5)], 7);
        assert_eq!(broken(&history, &[]), []);
        assert_eq!(broken(&history, &[5]), [Promise::NoPhantom]);
    }

    #[test]
    fn a_lock_whose_token_changed_is_seen() {
        let history = told(&[1], &[], 2);
        let mut other = grant(1);
        other.token.index = 7;
        compare(&history, &[Listed { session: 9, grant: other }]);
        assert_eq!(history.violations().len(), 1);
    }
}
