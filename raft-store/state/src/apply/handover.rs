//! A domain that is detached or attached: the catalog of its disks is written to its storage before the domain is given
//! up, or read from there once it was taken. Of a large domain piece by piece, each in a step and an entry of its own.
//! Users see all of it, or nothing.

use crate::apply::Turn;
use crate::catalog::Domain;
use crate::catalog::DomainState;
use crate::domain_catalog::Handover;
use crate::domain_change::AttachDomain;
use crate::domain_change::DomainChange;
use crate::domain_change::DomainContents;
use crate::state::State;
use crate::txns::Outcome;
use crate::txns::Phase;
use crate::txns::Spec;
use crate::txns::Txn;
use crate::work::Attempt;
use crate::work::Owner;
use crate::work::Work;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::names::Name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use std::collections::BTreeSet;

impl State {
    /// Where the handing over of a domain begins; None where its catalog is one piece.
    pub(super) fn first_handover(&self, change: &DomainChange) -> Option<Handover> {
        let DomainChange::Detach { domain } = change else { return None };
        self.contents_from(*domain, DiskId::default()).1.map(|from| Handover {
            piece: 1,
            from: Some(from),
            gives_back: false,
        })
    }

    /// A step is done: the next piece follows, or the domain is given up or taken.
    pub(super) fn handed_over(&mut self, turn: &mut Turn, mut txn: Txn, attempt: &Attempt, change: &DomainChange) {
        match change {
            DomainChange::Detach { domain } => match txn.handover.clone() {
                Some(Handover { piece, from: Some(first), .. }) => {
                    // Pieces say nothing to anybody without their head: there is a way back still.
                    if let Some(ending) = txn.ending.clone() {
                        return self.abort(turn, txn.id, ending, false);
                    }
                    let (contents, next) = self.contents_from(*domain, first);
                    if let Err(refusal) = self.refuse_sharers(*domain, &contents) {
                        return self.abort(turn, txn.id, refusal, false);
                    }
                    let piece = if next.is_some() { piece.saturating_add(1) } else { piece };
                    txn.handover = Some(Handover { piece, from: next, gives_back: false });
                    self.next_piece(turn, txn, true);
                }
                _ => {
                    let Some(domain) = self.domains.get(domain).cloned() else { return };
                    // Whoever asked for an abort meanwhile asked too late.
                    txn.ending = None;
                    self.note(&mut txn, format!("attempt {} ({}) gave it up", attempt.number, attempt.token));
                    self.begin_leaving(turn, txn, domain);
                }
            },
            DomainChange::Attach(attach) => {
                self.commit_domain_attach(&txn, attempt, attach);
                self.note(&mut txn, format!("attempt {} ({}) took it over", attempt.number, attempt.token));
                if attach.more.is_none() {
                    return self.arrived(turn, txn, attach.domain);
                }
                txn.handover = Some(Handover { piece: 1, from: None, gives_back: false });
                if let Some(ending) = txn.ending.clone() {
                    let id = txn.id;
                    self.put_txn(txn);
                    return self.abort(turn, id, ending, false);
                }
                self.next_piece(turn, txn, false);
            }
            _ => {}
        }
    }

    fn next_piece(&mut self, turn: &mut Turn, mut txn: Txn, in_place: bool) {
        let owner = Owner::Step(txn.id);
        txn.step = Some(Work { unassigned_since_ms: self.meta.clock_ms, in_place, ..Work::default() });
        self.put_txn(txn);
        self.assign(turn, owner);
    }

    fn refuse_sharers(&self, domain: DomainId, contents: &DomainContents) -> Result<(), Refusal> {
        let volumes: BTreeSet<_> = contents.volumes.iter().map(|volume| volume.id).collect();
        let Some(first) = self.sharers_of(domain, &volumes).into_iter().next() else { return Ok(()) };
        let message = format!("{} {} {}", first.kind, first.id, first.description);
        Err(Refusal::new(Class::Precondition, "DOMAIN_IN_USE", message)
            .hint("clear that, then repeat it under a new request id"))
    }

    /// The last disk is there: from this entry on users see the domain.
    fn arrived(&mut self, turn: &mut Turn, mut txn: Txn, id: DomainId) {
        if let Some(domain) = self.domains.get(&id).cloned() {
            self.put_domain(Domain { state: DomainState::Active, ..domain });
        }
        txn.step = None;
        txn.handover = None;
        self.note(&mut txn, format!("committed: {} disks came with the domain", self.disks_in(id)));
        self.end(turn, txn, Phase::Committed(Outcome { domain: Some(id), ..Outcome::default() }));
    }

    /// The domain that a transaction has taken without all of its disks.
    pub(super) fn arriving_for(&self, txn: &Txn) -> Option<Domain> {
        let Spec::Domain(DomainChange::Attach(attach)) = &txn.spec else { return None };
        let domain = self.domains.get(&attach.domain)?;
        (domain.state == DomainState::Arriving { txn: txn.id }).then(|| domain.clone())
    }

    /// A domain that was taken is not attached after all. Its mark names this cluster, so that is released before its rows
    /// leave, while somebody reaches it: nobody could attach it elsewhere else. Where that fails, or is not wanted, the
    /// words say how it stands.
    pub(super) fn return_domain(&mut self, turn: &mut Turn, mut txn: Txn, domain: Domain, refusal: Refusal) {
        if txn.gives_back() || self.index.contents.reaching(domain.id).next().is_none() {
            let refusal = txn.ending.take().unwrap_or(refusal);
            txn.ending = Some(still_taken(refusal, &domain));
            return self.begin_leaving(turn, txn, domain);
        }
        self.note(&mut txn, format!("to be aborted when the domain is given back: {refusal}"));
        txn.ending = Some(refusal);
        txn.handover = Some(Handover { piece: 0, from: None, gives_back: true });
        self.next_piece(turn, txn, true);
    }

    /// It is nobody's again.
    pub(super) fn given_back(&mut self, turn: &mut Turn, mut txn: Txn, attempt: &Attempt, domain: Domain) {
        self.note(&mut txn, format!("attempt {} ({}) gave it back", attempt.number, attempt.token));
        self.begin_leaving(turn, txn, domain);
    }

    /// A worker read a piece. What it says was written by others: it is held against the rules before it is believed.
    pub(super) fn take_piece(&mut self, turn: &mut Turn, owner: Owner, says: (u64, u32), contents: &DomainContents) {
        let Some(mut txn) = self.txn_of(owner).and_then(|id| self.txns.get(&id)).cloned() else { return };
        let Spec::Domain(DomainChange::Attach(attach)) = txn.spec.clone() else { return };
        let (Some(more), Some(handover)) = (&attach.more, txn.handover.clone()) else { return };
        if let Some(ending) = txn.ending.clone() {
            return self.abort(turn, txn.id, ending, false);
        }
        let checked = if says == (more.detached_at, handover.piece) {
            with_prefix(contents, &more.prefix).and_then(|contents| {
                self.refuse_too_many(&contents, 0)?;
                self.check_contents(attach.domain, &contents)?;
                self.refuse_clashes(&contents)?;
                Ok(contents)
            })
        } else {
            let (at, piece) = says;
            let message =
                format!("a piece of its catalog is number {piece} of the detach at {at}, and another was wanted");
            Err(Refusal::new(Class::Precondition, "BAD_DOMAIN_CATALOG", message).hint("the domain is left as it is"))
        };
        match checked {
            Err(refusal) => self.abort(turn, txn.id, refusal, false),
            Ok(contents) => {
                self.put_contents(&attach, contents);
                if handover.piece >= more.pieces {
                    return self.arrived(turn, txn, attach.domain);
                }
                txn.handover =
                    Some(Handover { piece: handover.piece.saturating_add(1), from: None, gives_back: false });
                self.next_piece(turn, txn, false);
            }
        }
    }

    /// Puts what came with a domain into the catalog.
    pub(super) fn put_contents(&mut self, attach: &AttachDomain, contents: DomainContents) {
        for volume in contents.volumes {
            self.put_volume(volume);
        }
        for placement in contents.placements {
            self.put_placement(placement);
        }
        for disk in contents.disks {
            let placement = disk.placement;
            self.put_disk(disk);
            if attach.renamed {
                self.want_projection(placement);
            }
        }
    }
}

/// Why an attach ended, where the domain could not be given back.
fn still_taken(refusal: Refusal, domain: &Domain) -> Refusal {
    let (folder, local) = (format!("{}/{}", domain.path, domain.id), if domain.local { " --local" } else { "" });
    let message = format!("{}; the domain's mark on the storage may name this cluster all the same", refusal.message);
    Refusal { message, ..refusal }.hint(format!(
        "only this cluster can take it then, and give it up after that: `sdm domain attach {folder}{local}`, with \
         --rename-prefix where names of its disks are taken here"
    ))
}

fn with_prefix(contents: &DomainContents, prefix: &str) -> Result<DomainContents, Refusal> {
    let mut contents = contents.clone();
    for disk in contents.disks.iter_mut().filter(|_| !prefix.is_empty()) {
        disk.name = format!("{prefix}{}", disk.name).parse::<Name>().map_err(|error| {
            Refusal::new(Class::Invalid, "BAD_NAME", format!("disk {}: {error}", disk.name))
                .hint("choose a shorter prefix")
        })?;
    }
    Ok(contents)
}
