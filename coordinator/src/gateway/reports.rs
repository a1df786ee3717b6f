//! What workers report, as values of the state. Total: whatever a worker sends becomes a value or a
//! reason why not. Texts are cut, since a report that is refused for its length would be repeated
//! for ever.

use sdm_proto::ids::WorkerId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::NotAToken;
use sdm_proto::token::Token;
use sdm_proto::wire::internal::v1;
use sdm_proto::wire::internal::v1::report::Outcome;
use sdm_state::State;
use sdm_state::domain_catalog::DOMAIN_CATALOG_VERSION;
use sdm_state::domain_catalog::DomainCatalog;
use sdm_state::work::Report;
use sdm_state::work::VolumeResult;
use sdm_state::workers::DomainReport;
use sdm_state::workers::DomainSight;

/// Longest text that is kept of a report, in bytes: it is written to every member's log.
const TEXT_BYTES_MAX: usize = 2048;

/// The same where there can be many in one report.
const ITEM_BYTES_MAX: usize = 512;

/// Volumes in one report: more than a chain may ever have.
const VOLUMES_MAX: usize = 256;

/// Things in the way that are kept of one refusal.
const BLOCKERS_MAX: usize = 32;

/// A message that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadReport {
    /// The attempt's name.
    #[error("a report for no attempt: {0}")]
    Token(#[from] NotAToken),
    /// Nothing in it.
    #[error("the report on attempt {0} says nothing that this member understands")]
    Empty(Token),
    /// An id.
    #[error("{what}: {source}")]
    Id {
        /// Of what.
        what: &'static str,
        /// Why not.
        source: sdm_proto::ids::NotAnId,
    },
    /// A hash.
    #[error("a BLAKE3 hash has 32 bytes, not {0}")]
    Hash(usize),
    /// A chain.
    #[error("{0} volumes in one report, at most {VOLUMES_MAX} make sense")]
    TooManyVolumes(usize),
}

/// A report that was understood.
#[derive(Debug, PartialEq)]
pub(super) struct Heard {
    /// On which attempt.
    pub token: Token,
    /// Its number, the same in a repetition.
    pub sequence: u64,
    /// What happened.
    pub report: Report,
}

/// A report on an attempt.
pub(super) fn report(message: v1::Report) -> Result<Heard, BadReport> {
    let token = message.token.parse()?;
    let report = match message.outcome.ok_or(BadReport::Empty(token))? {
        Outcome::Checkpoint(v1::Checkpoint { durable_bytes }) => Report::Checkpoint { durable_bytes },
        Outcome::Sender(v1::SenderState { connected }) => Report::Peer { connected },
        Outcome::Done(v1::Done { catalog, .. }) if !catalog.is_empty() => piece_of(&catalog),
        Outcome::Done(v1::Done { volumes, bytes, .. }) => {
            if volumes.len() > VOLUMES_MAX {
                return Err(BadReport::TooManyVolumes(volumes.len()));
            }
            Report::Done { volumes: volumes.into_iter().map(volume).collect::<Result<_, _>>()?, bytes }
        }
        Outcome::Refused(refusal) => Report::Refused(bounded(Refusal::from(&refusal))),
        Outcome::Failed(v1::Failed { reason, message, hint }) => {
            Report::Failed { reason: cut(reason), message: cut(message), hint: cut(hint) }
        }
        Outcome::Stopped(v1::Stopped {}) => Report::Stopped,
    };
    Ok(Heard { token, sequence: message.sequence, report })
}

/// A piece of a domain's catalog, as others wrote it: what does not read is refused by whoever looked.
fn piece_of(text: &str) -> Report {
    let bad = |why: String| {
        let message = format!("a piece of the domain's catalog does not read: {}", cut(why));
        Report::Refused(
            Refusal::new(Class::Precondition, "BAD_DOMAIN_CATALOG", message).hint("the domain is left as it is"),
        )
    };
    match serde_json::from_str::<DomainCatalog>(text) {
        Ok(catalog) if catalog.version == DOMAIN_CATALOG_VERSION => Report::Catalog {
            detached_at: catalog.detached_at,
            piece: catalog.piece,
            contents: Box::new(catalog.contents),
        },
        Ok(catalog) => bad(format!("it is of version {}", catalog.version)),
        Err(error) => bad(error.to_string()),
    }
}

/// Whether the state shows already what this worker reports on an open attempt. Only for reports
/// that say how something is; one that ends an attempt is always news.
pub(super) fn shows(state: &State, worker: WorkerId, token: Token, report: &Report) -> bool {
    let work = state.attempts_of(worker).find(|(of, _)| *of == token).and_then(|(_, owner)| state.work_of(owner));
    let Some(attempt) = work.and_then(|work| work.attempt.as_ref()) else { return false };
    match report {
        Report::Checkpoint { durable_bytes } => attempt.checkpoint_bytes == *durable_bytes,
        Report::Peer { connected } => *connected == (attempt.peer_deadline_ms == 0),
        Report::Done { .. } | Report::Catalog { .. } | Report::Refused(_) | Report::Failed { .. } | Report::Stopped => {
            false
        }
    }
}

/// What a worker sees of a domain.
pub(super) fn domain(message: v1::DomainReport) -> Result<DomainReport, BadReport> {
    let domain = message.domain_id.parse().map_err(|source| BadReport::Id { what: "a report on no domain", source })?;
    let error = (!message.reachable).then(|| match (message.message.as_str(), message.reason.as_str()) {
        ("", "") => "not reachable".to_owned(),
        ("", reason) => cut_to(ITEM_BYTES_MAX, reason.to_owned()),
        (words, "") => cut_to(ITEM_BYTES_MAX, words.to_owned()),
        (words, reason) => cut_to(ITEM_BYTES_MAX, format!("{words} [{reason}]")),
    });
    let sight = DomainSight {
        error,
        total_bytes: message.total_bytes,
        free_bytes: message.free_bytes,
        file_system: cut_to(ITEM_BYTES_MAX, message.file_system_id),
        sequence: message.sequence,
        seen_ms: 0,
    };
    Ok(DomainReport { domain, sight })
}

fn volume(result: v1::VolumeResult) -> Result<VolumeResult, BadReport> {
    let blake3 = match result.blake3.as_ref() {
        [] => None,
        bytes => Some(<[u8; 32]>::try_from(bytes).map_err(|_| BadReport::Hash(bytes.len()))?),
    };
    let volume = result.volume_id.parse().map_err(|source| BadReport::Id { what: "a result for no volume", source })?;
    let v1::VolumeResult { virtual_size, file_size, allocated_bytes, .. } = result;
    Ok(VolumeResult { volume, virtual_size, file_size, allocated_bytes, blake3 })
}

fn bounded(refusal: Refusal) -> Refusal {
    let mut blockers = refusal.blockers;
    blockers.truncate(BLOCKERS_MAX);
    for blocker in &mut blockers {
        for text in [&mut blocker.kind, &mut blocker.id, &mut blocker.description] {
            *text = cut_to(ITEM_BYTES_MAX, std::mem::take(text));
        }
    }
    Refusal {
        class: refusal.class,
        reason: cut(refusal.reason),
        message: cut(refusal.message),
        hint: cut(refusal.hint),
        blockers,
    }
}

fn cut(text: String) -> String {
    cut_to(TEXT_BYTES_MAX, text)
}

fn cut_to(most: usize, mut text: String) -> String {
    if text.len() > most {
        let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;
    use sdm_proto::ids::DomainId;
    use sdm_proto::ids::VolumeId;

    /// The worker's side of the same: what it would send to say this.
    fn said(report: &Report) -> Outcome {
        match report.clone() {
            Report::Checkpoint { durable_bytes } => Outcome::Checkpoint(v1::Checkpoint { durable_bytes }),
            Report::Peer { connected } => Outcome::Sender(v1::SenderState { connected }),
            Report::Done { volumes, bytes } => {
                let volumes = volumes.iter().map(|volume| v1::VolumeResult {
                    volume_id: volume.volume.to_string(),
                    virtual_size: volume.virtual_size,
                    file_size: volume.file_size,
                    allocated_bytes: volume.allocated_bytes,
                    blake3: volume.blake3.map(|hash| hash.to_vec()).unwrap_or_default().into(),
                });
                Outcome::Done(v1::Done { volumes: volumes.collect(), bytes, catalog: String::new() })
            }
            Report::Catalog { .. } => unreachable!("no test says it"),
            Report::Refused(refusal) => Outcome::Refused((&refusal).into()),
            Report::Failed { reason, message, hint } => Outcome::Failed(v1::Failed { reason, message, hint }),
            Report::Stopped => Outcome::Stopped(v1::Stopped {}),
        }
    }

    fn message(outcome: Option<Outcome>) -> v1::Report {
        v1::Report { token: "1-7-2".into(), sequence: 9, outcome }
    }

    #[test]
    fn every_report_arrives_as_it_was_meant() {
        let volume = |blake3| VolumeResult {
            volume: VolumeId::derive("test", &[]),
            virtual_size: 5000,
            file_size: 8192,
            allocated_bytes: 4096,
            blake3,
        };
        let refusal = Refusal::new(Class::Exhausted, "NO_SPACE", "4096 bytes are missing")
            .hint("free some")
            .blocker("domain", "nfs1", "is full");
        for report_meant in [
            Report::Checkpoint { durable_bytes: 1 << 40 },
            Report::Peer { connected: true },
            Report::Peer { connected: false },
            Report::Done { volumes: vec![volume(None), volume(Some([3; 32]))], bytes: 5 },
            Report::Done { volumes: Vec::new(), bytes: 0 },
            Report::Refused(refusal),
            Report::Failed { reason: "EIO".into(), message: "read failed".into(), hint: "look at dmesg".into() },
            Report::Stopped,
        ] {
            let heard = report(message(Some(said(&report_meant)))).unwrap();
            assert_eq!((heard.token.to_string().as_str(), heard.sequence), ("1-7-2", 9));
            assert_eq!(heard.report, report_meant);
        }
    }

    #[test]
    fn what_makes_no_sense_is_told_apart() {
        assert!(matches!(report(v1::Report { token: "x".into(), ..message(None) }), Err(BadReport::Token(_))));
        assert!(matches!(report(message(None)), Err(BadReport::Empty(_))));
        let done = |volume: v1::VolumeResult| {
            report(message(Some(Outcome::Done(v1::Done { volumes: vec![volume], ..v1::Done::default() }))))
        };
        assert!(matches!(done(v1::VolumeResult::default()), Err(BadReport::Id { .. })));
        let short = v1::VolumeResult {
            volume_id: VolumeId::default().to_string(),
            blake3: vec![1; 31].into(),
            ..Default::default()
        };
        assert_eq!(done(short), Err(BadReport::Hash(31)));
        let many = v1::Done { volumes: vec![v1::VolumeResult::default(); VOLUMES_MAX + 1], ..v1::Done::default() };
        assert_eq!(report(message(Some(Outcome::Done(many)))), Err(BadReport::TooManyVolumes(VOLUMES_MAX + 1)));
    }

    #[test]
    fn what_the_state_shows_already_is_no_news_and_an_end_always_is() {
        let mut sample = Sample::new();
        sample.begin_import("web-01", "nfs1");
        let worker = sample.worker("a").identity.id;
        let (token, _) = sample.state.attempts_of(worker).last().unwrap();
        let known = |sample: &Sample, report| shows(&sample.state, worker, token, &report);
        assert!(known(&sample, Report::Peer { connected: false }));
        assert!(!known(&sample, Report::Peer { connected: true }));
        sample.connect_peer();
        sample.checkpoint(4096);
        assert!(known(&sample, Report::Peer { connected: true }));
        assert!(!known(&sample, Report::Peer { connected: false }));
        assert!(known(&sample, Report::Checkpoint { durable_bytes: 4096 }));
        assert!(!known(&sample, Report::Checkpoint { durable_bytes: 8192 }));
        assert!(!known(&sample, Report::Stopped));
        let another = Token { index: token.index + 1, ..token };
        assert!(!shows(&sample.state, worker, another, &Report::Checkpoint { durable_bytes: 4096 }));
    }

    #[test]
    fn endless_words_are_cut_within_a_character() {
        let failed = v1::Failed { reason: "X".into(), message: "ä".repeat(TEXT_BYTES_MAX), hint: String::new() };
        let Report::Failed { message, .. } = report(message(Some(Outcome::Failed(failed)))).unwrap().report else {
            panic!("a failure")
        };
        assert_eq!(message.len(), TEXT_BYTES_MAX + '…'.len_utf8());
    }

    #[test]
    fn a_domain_is_reachable_or_says_why_not() {
        let id = DomainId::derive("test", &[]);
        let seen = |reachable, reason: &str, message: &str| {
            let report = v1::DomainReport {
                domain_id: id.to_string(),
                reachable,
                reason: reason.into(),
                message: message.into(),
                total_bytes: 10,
                free_bytes: 5,
                file_system_id: "fs".into(),
                sequence: 3,
            };
            domain(report).unwrap().sight.error
        };
        assert_eq!(seen(true, "", ""), None);
        assert_eq!(seen(false, "HUNG", "no answer for 30 s").as_deref(), Some("no answer for 30 s [HUNG]"));
        assert_eq!(seen(false, "HUNG", "").as_deref(), Some("HUNG"));
        assert_eq!(seen(false, "", "").as_deref(), Some("not reachable"));
        assert!(domain(v1::DomainReport { domain_id: "nfs1".into(), ..Default::default() }).is_err());
    }
}
