//! Garbage as it is shown: what it is, the evidence, and who deletes it or why nobody does.

use super::domain_word;
use crate::collector::deleter_exists;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::garbage::Garbage;

/// The row.
pub(crate) fn garbage(state: &State, garbage: &Garbage) -> v1::Garbage {
    let work = &garbage.work;
    let due = garbage.due_ms <= state.meta.clock_ms;
    let word = match &work.attempt {
        Some(_) => "deleting",
        None if due => "due",
        None => "waiting",
    };
    let unreached = due && work.attempt.is_none() && !deleter_exists(state, garbage);
    let mut last_error = work.last_error.clone().unwrap_or_default();
    if unreached {
        let nobody = format!("no live worker reaches {}", place_word(state, garbage));
        last_error = if last_error.is_empty() { nobody } else { format!("{nobody}; before: {last_error}") };
    }
    v1::Garbage {
        id: garbage.id.to_string(),
        domain_id: garbage.place.domain.to_string(),
        domain: if garbage.place.whole_domain { String::new() } else { domain_word(state, garbage.place.domain) },
        kind: garbage.kind.word().to_owned(),
        names: names(state, garbage),
        transaction_id: garbage.txn.to_string(),
        evidence: garbage.evidence.clone(),
        due_ms: garbage.due_ms,
        state: word.to_owned(),
        worker: work.attempt.as_ref().map(|attempt| state.worker_word(attempt.worker)).unwrap_or_default(),
        attempts: work.attempts,
        retry_at_ms: if work.attempt.is_some() { 0 } else { work.retry_at_ms },
        last_error,
        bytes: garbage.bytes,
    }
}

fn names(state: &State, garbage: &Garbage) -> Vec<String> {
    let dot_name = garbage.made_by.dot_name(state.cluster_id());
    let published = if garbage.place.whole_domain {
        Some(garbage.place.domain.to_string())
    } else {
        garbage.placement.map(|placement| placement.to_string())
    };
    std::iter::once(dot_name).chain(published).collect()
}

fn place_word(state: &State, garbage: &Garbage) -> String {
    if garbage.place.whole_domain {
        return garbage.place.path.clone();
    }
    format!("domain {}", domain_word(state, garbage.place.domain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn garbage_shows_its_names_its_evidence_and_its_deleter() {
        let mut sample = Sample::with_disk();
        let placement = sample.disk("web-01").placement;
        sample.delete("web-01");
        let shown = garbage(&sample.state, sample.only_garbage());
        assert_eq!((shown.kind.as_str(), shown.state.as_str(), shown.worker.as_str()), ("deleted", "due", ""));
        assert_eq!((shown.domain.as_str(), shown.last_error.as_str()), ("nfs1", ""));
        assert!(shown.names[0].starts_with(".sdm-"));
        assert_eq!(shown.names[1], placement.to_string());
        sample.collect();
        let shown = garbage(&sample.state, sample.only_garbage());
        assert_eq!((shown.state.as_str(), shown.worker.as_str(), shown.attempts), ("deleting", "a", 1));
    }

    #[test]
    fn garbage_that_nobody_reaches_says_so() {
        let mut sample = Sample::with_disk();
        sample.delete("web-01");
        sample.lose("a");
        let shown = garbage(&sample.state, sample.only_garbage());
        assert_eq!(shown.last_error, "no live worker reaches domain nfs1");
    }
}
