//! Orphans: what an audit saw on storage is held against the state once more, in the entry that makes
//! garbage of it. A token is given once and its attempt never lives again, so what nobody owns now
//! nobody will ever own, however long ago it was seen.

use crate::apply::Turn;
use crate::garbage::Garbage;
use crate::garbage::Kind;
use crate::garbage::Place;
use crate::garbage_order::Orphan;
use crate::state::State;
use crate::txns::Outcome;
use crate::txns::Phase;
use crate::txns::Spec;
use crate::txns::Txn;
use crate::work::Work;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::token::Token;

/// Orphans left alone of which the history tells why.
const TOLD_MAX: usize = 4;

impl State {
    /// Whether what an attempt of this token made is lost for good: it never won, it is no garbage yet, and
    /// its transaction is over.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn is_orphan(&self, token: Token, txn: Option<TxnId>) -> Result<(), String> {
        if token.epoch != self.meta.epoch {
            return Err(format!("token {token} is of another epoch than {}", self.meta.epoch));
        }
        if token.index >= self.meta.applied_index {
            return Err(format!("token {token} was not given yet"));
        }
        if self.placements.contains(&token.placement(self.cluster_id())) {
            return Err("the catalog has this placement".to_owned());
        }
        if self.garbage.contains(&token) || self.has_garbage_of(token) {
            return Err("it is garbage already".to_owned());
        }
        if self.index.attempts.contains_key(&token) {
            return Err("an attempt is making it".to_owned());
        }
        match txn.map(|id| (id, self.txns.get(&id))) {
            Some((id, Some(row))) if !row.phase.is_final() => Err(format!("transaction {id} is open")),
            Some((id, Some(row))) => self.lost_to(id, row, token),
            // A published folder whose transaction is forgotten may have won.
            Some((id, None)) => {
                Err(format!("transaction {id} is over for so long that it is forgotten: whether this won nobody knows"))
            }
            // Nothing says whose it was: whatever was open when the token was given must be over.
            None if self.index.open_by_age.get_min().is_none_or(|(began, _)| token.index < *began) => Ok(()),
            None => Err("a transaction is open that is older than its token".to_owned()),
        }
    }

    /// Whether an attempt of a finished transaction is known not to have won.
    fn lost_to(&self, id: TxnId, txn: &Txn, token: Token) -> Result<(), String> {
        let Phase::Committed(outcome) = &txn.phase else { return Ok(()) };
        if outcome.placement == Some(token.placement(self.cluster_id())) {
            return Err(format!(
                "transaction {id} made it and was committed, but the catalog does not have it any more"
            ));
        }
        // Its result names what its last stage made only.
        if matches!(txn.spec, Spec::CloneLinked { snapshot: None, .. }) {
            return Err(format!("transaction {id} was committed, and this may be what its first stage made"));
        }
        Ok(())
    }

    pub(super) fn adopt_orphans(
        &mut self,
        turn: &mut Turn,
        txn: &mut Txn,
        id: DomainId,
        orphans: &[Orphan],
    ) -> Outcome {
        let Some(domain) = self.domains.get(&id).cloned() else { return Outcome::default() };
        let (mut adopted, mut left, mut bytes) = (0, 0, 0u64);
        // The order itself is open, and younger than all that it names.
        for orphan in orphans {
            if let Err(why) = self.is_orphan(orphan.token, orphan.txn) {
                left += 1;
                if left <= TOLD_MAX {
                    self.note(txn, format!("{} is left alone: {why}", orphan.token));
                }
                continue;
            }
            adopted += 1;
            bytes = bytes.saturating_add(orphan.bytes);
            let place = Place { domain: id, path: domain.path.clone(), local: domain.local, whole_domain: false };
            self.put_garbage(Garbage {
                id: turn.next_token(self),
                kind: Kind::Orphan,
                place,
                // What was seen under a dot name alone says nothing about a published folder.
                placement: orphan.txn.map(|_| orphan.token.placement(self.cluster_id())),
                made_by: orphan.token,
                cluster: None,
                txn: orphan.txn.unwrap_or(txn.id),
                evidence: format!("{} (audit, transaction {})", orphan.evidence, txn.id),
                bytes: orphan.bytes,
                since_ms: self.meta.clock_ms,
                due_ms: self.meta.clock_ms,
                work: Work::default(),
                trash: None,
                held: None,
                doomed: None,
                emptied: false,
            });
        }
        self.note(txn, format!("{adopted} orphans are garbage now, {left} are left alone"));
        Outcome { domain: Some(id), bytes, ..Outcome::default() }
    }
}
