//! The list of transactions against what the clients were told: each that was answered has the
//! recorded outcome, at the same index for good; none is there that nobody asked for.

use super::LIST_PATIENCE;
use crate::client::Answer;
use crate::client::Endpoints;
use crate::client::transactions;
use crate::history::History;
use crate::history::Promise;
use sdm_proto::limits::PAGE_SIZE_MAX;
use sdm_proto::wire::v1;
use std::collections::BTreeMap;

/// Compares the transactions that a member lists.
pub async fn compare(member: &mut Endpoints, history: &History) {
    match list(member).await {
        Ok(listed) => compare_all(history, &listed),
        Err(why) => {
            history.violated(Promise::Serves, format!("{} does not list the transactions: {why}", member.address()));
        }
    }
}

fn compare_all(history: &History, listed: &BTreeMap<String, v1::Transaction>) {
    let mut guard = history.record();
    let record = &mut *guard;
    let mut broken = Vec::new();
    for known in record.txns.iter_mut().chain(&mut record.noops).chain(&mut record.changes) {
        let Some(txn) = listed.get(&known.id) else {
            broken.push((Promise::Kept, format!("transaction {} ({}) was answered and is gone", known.id, known.name)));
            continue;
        };
        let reason = txn.refusal.as_ref().map(|refusal| refusal.reason.as_str()).unwrap_or_default();
        let revision = *known.revision.get_or_insert(txn.revision);
        if txn.phase != known.phase || reason != known.reason || txn.revision != revision {
            let what = format!(
                "transaction {} was {} ({}) at {revision}, and now it is {} ({reason}) at {}",
                known.id, known.phase, known.reason, txn.phase, txn.revision
            );
            broken.push((Promise::Kept, what));
        }
    }
    for id in listed.keys().filter(|id| !record.request_ids.contains(*id)) {
        broken.push((Promise::NoPhantom, format!("nobody asked for transaction {id}")));
    }
    record.counts.compared += (record.txns.len() + record.noops.len() + record.changes.len()) as u64;
    for (promise, what) in broken {
        record.violated(promise, what);
    }
}

async fn list(member: &mut Endpoints) -> Result<BTreeMap<String, v1::Transaction>, String> {
    let mut found = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let page = v1::PageRequest { page_size: u32::try_from(PAGE_SIZE_MAX).unwrap_or(1), page_token };
        let call = |channel| {
            let request = v1::ListTransactionsRequest { page: Some(page.clone()), ..Default::default() };
            async move { transactions(channel).list_transactions(request).await }
        };
        let answer = match member.insist(LIST_PATIENCE, call).await.0 {
            Answer::Done(answer) => answer,
            other => return Err(format!("{other:?}")),
        };
        found.extend(answer.items.into_iter().map(|txn| (txn.id.clone(), txn)));
        page_token = answer.page.unwrap_or_default().next_page_token;
        if page_token.is_empty() {
            return Ok(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::KnownTxn;

    fn broken(listed: &[(&str, &str, u64)]) -> Vec<Promise> {
        let history = History::new(0);
        let known = KnownTxn {
            id: "a".into(),
            name: "n".into(),
            phase: "refused".into(),
            reason: "NO".into(),
            revision: Some(4),
        };
        history.record().txn_answered(known);
        history.record().request_ids.insert("a".into());
        let listed = listed.iter().map(|(id, reason, revision)| {
            let refusal = v1::Refusal { reason: (*reason).to_owned(), ..v1::Refusal::default() };
            let (phase, refusal) = ("refused".to_owned(), Some(refusal));
            let txn = v1::Transaction { phase, refusal, revision: *revision, ..v1::Transaction::default() };
            ((*id).to_owned(), txn)
        });
        compare_all(&history, &listed.collect());
        history.violations().iter().map(|violation| violation.promise).collect()
    }

    #[test]
    fn the_recorded_outcome_is_fine_and_any_other_is_not() {
        assert_eq!(broken(&[("a", "NO", 4)]), []);
        assert_eq!(broken(&[("a", "OTHER", 4)]), [Promise::Kept]);
        assert_eq!(broken(&[("a", "NO", 5)]), [Promise::Kept]);
        assert_eq!(broken(&[]), [Promise::Kept]);
    }

    #[test]
    fn a_transaction_that_nobody_asked_for_is_seen() {
        assert_eq!(broken(&[("a", "NO", 4), ("b", "NO", 4)]), [Promise::NoPhantom]);
    }
}
