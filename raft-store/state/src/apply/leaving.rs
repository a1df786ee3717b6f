//! Domains that leave the catalog: gone for users with one entry, and their rows after that, so many with each entry.
//! What was in them is nobody's any more: its tokens and ids are never given again, its attempts are over.

use crate::apply::Turn;
use crate::catalog::Disk;
use crate::catalog::Domain;
use crate::catalog::DomainState;
use crate::catalog::Leaving;
use crate::events::Kind;
use crate::forgotten::Forgotten;
use crate::state::State;
use crate::txns::Outcome;
use crate::txns::Phase;
use crate::txns::Spec;
use crate::txns::Txn;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::TxnId;
use sdm_proto::token::Token;

/// Names that a dry run tells.
const NAMES_SHOWN: usize = 20;

impl State {
    /// Whether a transaction waits for nothing but its domain's rows to leave: there is no way back from that.
    #[must_use]
    pub fn is_leaving_for(&self, txn: &Txn) -> bool {
        let Spec::Domain(change) = &txn.spec else { return false };
        let state = self.domains.get(&change.domain()).map(|domain| &domain.state);
        matches!(state, Some(DomainState::Leaving(leaving)) if leaving.txn == txn.id)
    }

    /// Whether a disk left with its domain, or came with one of which not all is there yet: users do not see it.
    #[must_use]
    pub fn is_hidden(&self, disk: &Disk) -> bool {
        self.domain_of(disk).is_some_and(|domain| domain.state.is_hidden())
    }

    /// A domain whose storage is lost for good is given up.
    pub(super) fn forget_domain(&mut self, turn: &mut Turn, mut txn: Txn, id: DomainId) {
        let Some(domain) = self.domains.get(&id).cloned() else {
            // Only the folder of a deleted domain, or of one that never came to be.
            let most = usize::try_from(self.meta.settings.work_per_entry).unwrap_or(usize::MAX);
            let given_up = self.give_up_garbage(id, txn.id, most);
            self.note(&mut txn, format!("{given_up} rows of garbage are given up"));
            return self.end(turn, txn, Phase::Committed(Outcome { domain: Some(id), ..Outcome::default() }));
        };
        self.put_forgotten(Forgotten {
            domain: id,
            name: domain.name.clone(),
            path: domain.path.clone(),
            at_ms: self.meta.clock_ms,
            by: txn.initiator.clone(),
            reason: txn.reason.clone(),
            txn: txn.id,
        });
        self.begin_leaving(turn, txn, domain);
    }

    /// From this entry on nobody sees the domain any more.
    pub(super) fn begin_leaving(&mut self, turn: &mut Turn, mut txn: Txn, domain: Domain) {
        let (id, since_ms) = (domain.id, self.meta.clock_ms);
        let state = DomainState::Leaving(Leaving { since_ms, txn: txn.id, disks: 0, garbage: 0 });
        self.put_domain(Domain { state, describing: None, ..domain });
        txn.step = None;
        self.note(&mut txn, "the domain leaves the catalog");
        self.put_txn(txn);
        self.leave(turn, id);
    }

    /// Takes out as many rows as one entry may, and the domain with the last of them.
    pub(super) fn leave(&mut self, turn: &mut Turn, id: DomainId) {
        let Some(mut domain) = self.domains.get(&id).cloned() else { return };
        let DomainState::Leaving(leaving) = &mut domain.state else { return };
        let most = usize::try_from(self.meta.settings.work_per_entry).unwrap_or(usize::MAX).max(1);
        let garbage = self.give_up_garbage(id, leaving.txn, most);
        let disks = self.take_out_disks(id, most.saturating_sub(garbage));
        leaving.disks = leaving.disks.saturating_add(disks);
        leaving.garbage = leaving.garbage.saturating_add(garbage as u64);
        let leaving = leaving.clone();
        let name = domain.name.clone();
        self.put_domain(domain);
        let rests = self.disks_in(id) > 0 || self.garbage_in(id).next().is_some();
        if rests {
            return;
        }
        self.remove_domain(id);
        self.forget_sights(id);
        let text = format!("gone, with {} disks", leaving.disks);
        self.tell(Kind::DomainGone, format!("domain/{name}"), Some(leaving.txn), text);
        let Some(mut txn) = self.txns.get(&leaving.txn).filter(|txn| !txn.phase.is_final()).cloned() else { return };
        let garbage = match leaving.garbage {
            0 => String::new(),
            count => format!(", {count} rows of garbage are given up"),
        };
        // What had arrived of a domain that is not taken after all goes the same way.
        if let Some(refusal) = txn.ending.take() {
            self.note(&mut txn, format!("aborted: {refusal}"));
            return self.end(turn, txn, Phase::Aborted(refusal));
        }
        self.note(&mut txn, format!("committed: {} disks left with the domain{garbage}", leaving.disks));
        self.end(turn, txn, Phase::Committed(Outcome { domain: Some(id), ..Outcome::default() }));
    }

    /// Garbage that nobody will ever delete: each row with an event. Answers how many.
    fn give_up_garbage(&mut self, domain: DomainId, txn: TxnId, most: usize) -> usize {
        let rows: Vec<Token> = self.garbage_in(domain).map(|row| row.id).take(most).collect();
        for id in &rows {
            let text = "given up with its domain: nobody deletes it";
            self.tell(Kind::GarbageChanged, format!("garbage/{id}"), Some(txn), text);
            self.remove_garbage(*id);
        }
        rows.len()
    }

    /// Takes disks out, each with all that is its own. Answers how many.
    fn take_out_disks(&mut self, domain: DomainId, most: usize) -> u64 {
        // Each row counts: a disk with a long chain is as much work as many others.
        let rows = usize::try_from(self.meta.settings.domain_rows_max).unwrap_or(usize::MAX);
        let (mut taken, mut disks) = (0_usize, 0_usize);
        while taken < rows && disks < most {
            let Some(disk) = self.disks_in_from(domain, DiskId::default()).next().cloned() else { break };
            taken = taken.saturating_add(disk.volumes.len()).saturating_add(2);
            disks += 1;
            let attached: Vec<Token> = self.attachments_of(disk.id).map(|row| row.token).collect();
            for token in attached {
                self.remove_attachment(token);
            }
            self.remove_projection(disk.placement);
            self.remove_disk(disk.id);
            self.remove_placement(disk.placement);
            // What somebody outside uses all the same stays.
            self.forget_unused(&disk.volumes);
        }
        disks as u64
    }

    /// What forgetting a domain does, in words.
    pub(crate) fn forgetting_words(&self, domain: DomainId) -> Vec<String> {
        let mut words = Vec::new();
        let count = self.disks_in(domain);
        if count > 0 {
            let shown = self.disks_in_from(domain, DiskId::default()).take(NAMES_SHOWN);
            let names: Vec<&str> = shown.map(|disk| disk.name.as_str()).collect();
            let more = if count > names.len() as u64 { ", ..." } else { "" };
            words.push(format!("take {count} disks out of the catalog: {}{more}", names.join(", ")));
        }
        for (_, txn) in self.ending_with_domain(domain).into_iter().take(NAMES_SHOWN) {
            let summary = self.txns.get(&txn).map_or("", |txn| txn.summary.as_str());
            words.push(format!("end transaction {txn}, which only its storage could end: {summary}"));
        }
        let garbage = self.garbage_in(domain).count();
        if garbage > 0 {
            let trash = self.garbage_in(domain).filter_map(|row| Some(row.trash.as_ref()?.disk.name.as_str()));
            let trash: Vec<&str> = trash.take(NAMES_SHOWN).collect();
            let trash = if trash.is_empty() { String::new() } else { format!(", with the trash {}", trash.join(", ")) };
            words.push(format!("give up {garbage} rows of garbage: nobody deletes what they name{trash}"));
        }
        for attachment in self.attachments_in(domain).take(NAMES_SHOWN) {
            let disk = self.disks.get(&attachment.disk).map_or("?", |disk| disk.name.as_str());
            words.push(format!("end the attachment of {disk}: {}", self.attachment_words(attachment)));
        }
        words.push("nothing is done on the storage".to_owned());
        words
    }
}
