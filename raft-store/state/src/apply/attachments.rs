//! Attachments given and taken, and what becomes of them when the session ends that they are for.

use crate::apply::Turn;
use crate::attachments::Access;
use crate::attachments::Attachment;
use crate::attachments::AttachmentChange;
use crate::attachments::AttachmentOwner;
use crate::attachments::AttachmentState;
use crate::command::SessionRef;
use crate::sessions::Session;
use crate::state::State;
use crate::txns::Outcome;
use crate::txns::Phase;
use crate::txns::Txn;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::WorkerId;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;

impl State {
    /// Needs no worker: the right is in the table, or not any more, with this entry.
    pub(super) fn commit_attachment(&mut self, turn: &mut Turn, mut txn: Txn, change: &AttachmentChange) {
        let outcome = match change {
            AttachmentChange::Attach { disk, worker, access, session } => {
                self.attach(turn, &txn, *disk, (*worker, *access, *session))
            }
            AttachmentChange::Detach { disk, worker, stopped } => self.detach(*disk, *worker, *stopped),
        };
        let phase = match outcome {
            Ok(outcome) => Phase::Committed(outcome),
            Err(refusal) => {
                self.note(&mut txn, format!("refused: {refusal}"));
                Phase::Refused(refusal)
            }
        };
        self.end(turn, txn, phase);
    }

    fn attach(
        &mut self,
        turn: &mut Turn,
        txn: &Txn,
        disk: DiskId,
        (worker, access, session): (WorkerId, Access, Option<SessionRef>),
    ) -> Result<Outcome, Refusal> {
        let owner = match session {
            Some(session) => {
                let live = self.client_session(session)?;
                AttachmentOwner::Session { id: live.id, nonce: live.nonce.clone() }
            }
            None => AttachmentOwner::Durable,
        };
        let (row, domain) = self.known_disk(disk)?;
        let (leaf, domain) = (row.volumes.last().copied(), domain.id);
        let token = turn.next_token(self);
        self.put_attachment(Attachment {
            token,
            disk,
            worker,
            access,
            owner,
            state: AttachmentState::Attached,
            since_ms: self.meta.clock_ms,
            why: txn.reason.clone(),
            by: txn.initiator.clone(),
            txn: txn.id,
        });
        // What a guest writes changes the file's bytes behind our back.
        let leaf = leaf.filter(|_| access == Access::Write).and_then(|id| self.volumes.get(&id)).cloned();
        if let Some(mut volume) = leaf.filter(|volume| volume.blake3.is_some()) {
            volume.blake3 = None;
            self.put_volume(volume);
        }
        let domain = Some(domain);
        Ok(Outcome { disk: Some(disk), domain, attachment: Some(token), worker: Some(worker), ..Outcome::default() })
    }

    fn detach(&mut self, disk: DiskId, worker: Option<WorkerId>, stopped: bool) -> Result<Outcome, Refusal> {
        let attachment = self.attachment_meant(disk, worker, stopped)?;
        let (token, worker) = (attachment.token, attachment.worker);
        self.remove_attachment(token);
        Ok(Outcome { disk: Some(disk), attachment: Some(token), worker: Some(worker), ..Outcome::default() })
    }

    /// A session ended: what it read nobody misses; what it may have written stays until its host is fenced.
    pub(super) fn leave_attachments(&mut self, session: u64) {
        for mut attachment in self.attachments_for(session) {
            if attachment.access == Access::Read {
                self.remove_attachment(attachment.token);
            } else {
                attachment.state = AttachmentState::Unfenced { since_ms: self.meta.clock_ms };
                self.put_attachment(attachment);
            }
        }
    }

    fn attachments_for(&self, session: u64) -> Vec<Attachment> {
        let from = (session, Token::default());
        let own = self.index.attachments_by_session.range(from..).take_while(|(of, _)| *of == session);
        own.filter_map(|(_, token)| self.attachments.get(token)).cloned().collect()
    }

    /// A session was opened with what an earlier one's opener had drawn: it is the same client, and it has its own back.
    pub(super) fn resume_attachments(&mut self, session: &Session) {
        let from = (session.nonce.clone(), Token::default());
        let own = self.index.unfenced_by_nonce.range(from.clone()..).take_while(|(of, _)| *of == from.0);
        let own: Vec<Attachment> = own.filter_map(|(_, token)| self.attachments.get(token)).cloned().collect();
        for mut attachment in own {
            attachment.owner = AttachmentOwner::Session { id: session.id, nonce: session.nonce.clone() };
            attachment.state = AttachmentState::Attached;
            self.put_attachment(attachment);
        }
    }

    /// The host writes no more: what nobody owns there is free.
    pub(super) fn free_unfenced_attachments(&mut self, worker: WorkerId) {
        let unfenced: Vec<Token> =
            self.attachments_at(worker).filter(|at| at.is_unfenced()).map(|at| at.token).collect();
        for token in unfenced {
            self.remove_attachment(token);
        }
    }
}
