//! `AttachmentService`: which hosts may use which disks.

use crate::core::Core;
use crate::services::call::Call;
use crate::services::call::answer;
use crate::services::mutation::Begun;
use crate::services::mutation::Mutation;
use crate::services::mutation::RequestHash;
use crate::services::page::Page;
use crate::services::present;
use crate::services::resolve;
use crate::services::volume_check;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::attachment_service_server::AttachmentService;
use sdm_state::State;
use sdm_state::attachments::Access;
use sdm_state::attachments::Attachment;
use sdm_state::attachments::AttachmentChange;
use sdm_state::command::SessionRef;
use sdm_state::txns::Spec;
use tonic::Request;
use tonic::Response;
use tonic::Status;

/// The service.
#[derive(Clone)]
pub struct AttachmentApi {
    core: Core,
}

impl AttachmentApi {
    /// Over this member's core.
    #[must_use]
    pub fn new(core: Core) -> Self {
        Self { core }
    }

    async fn attach(&self, request: v1::AttachDiskRequest) -> Result<v1::AttachDiskResponse, Refusal> {
        let access = access_of(request.access)?;
        let session = session_of(&request.session_id, request.session_epoch)?;
        let hash = RequestHash::of("disk-attach")
            .text("disk", &request.disk)
            .text("worker", &request.worker)
            .text("access", access.word())
            .text("session", &request.session_id);
        let mutation = Mutation::parse(request.header, hash)?;
        let meant = |state: &State| {
            let disk = resolve::disk(state, &request.disk)?.id;
            let worker = resolve::worker(state, &request.worker)?.identity.id;
            let session = session.map(|session| current(state, session)).transpose()?;
            Ok::<_, Refusal>(AttachmentChange::Attach { disk, worker, access, session })
        };
        let view = Call::begin(&self.core).read().await?;
        let known = mutation.id().is_some_and(|id| view.state.txns.contains(&id));
        if let Ok(change) = meant(&view.state)
            && let AttachmentChange::Attach { disk, worker, .. } = &change
            // What is refused anyway is refused for that reason.
            && !known
            && view.state.dry_run(&Spec::Attachment(change.clone()), None).is_ok()
        {
            volume_check::require_volumes(&self.core, &view.state, *disk, *worker).await?;
        }
        let begun = mutation.begin(&self.core, |state| Ok(Spec::Attachment(meant(state)?)));
        let Begun { transaction, plan } = begun.await?;
        let view = self.core.view();
        let token = transaction.as_ref().and_then(|txn| txn.outcome.as_ref()?.attachment);
        let token = token.map(|at| Token { epoch: at.epoch, index: at.index, ordinal: at.ordinal });
        let row = token.and_then(|token| view.state.attachments.get(&token));
        let attachment = row.map(|row| present::attachment(&view.state, row));
        Ok(v1::AttachDiskResponse { transaction, plan, attachment })
    }

    async fn detach(&self, request: v1::DetachDiskRequest) -> Result<v1::DetachDiskResponse, Refusal> {
        let stopped = request.stopped;
        if stopped {
            require_reason(request.header.as_ref(), "that nothing on the host uses the disk any more")?;
        }
        let hash = RequestHash::of("disk-detach")
            .text("disk", &request.disk)
            .text("worker", &request.worker)
            .number("stopped", u64::from(stopped));
        let mutation = Mutation::parse(request.header, hash)?;
        let begun = mutation.begin(&self.core, |state| {
            let disk = resolve::disk(state, &request.disk)?.id;
            let worker = match request.worker.as_str() {
                "" => None,
                text => Some(resolve::worker(state, text)?.identity.id),
            };
            Ok(Spec::Attachment(AttachmentChange::Detach { disk, worker, stopped }))
        });
        let Begun { transaction, plan } = begun.await?;
        Ok(v1::DetachDiskResponse { transaction, plan })
    }

    async fn list(&self, request: v1::ListAttachmentsRequest) -> Result<v1::ListAttachmentsResponse, Refusal> {
        let page = Page::<Token>::parse("attachments", request.page.as_ref())?;
        let view = Call::begin(&self.core).read().await?;
        let state = &view.state;
        let first = page.first_key();
        let worker = match request.worker.as_str() {
            "" => None,
            text => Some(resolve::worker(state, text)?.identity.id),
        };
        let row = |row| (Attachment::clone(row).token, row);
        let rows: Box<dyn Iterator<Item = (Token, &Attachment)>> = match (request.disk.as_str(), worker) {
            ("", Some(worker)) => Box::new(state.attachments_at(worker).map(row)),
            ("", None) => Box::new(state.attachments.from_key(&first).map(|(token, row)| (*token, row))),
            (disk, worker) => {
                let disk = resolve::disk(state, disk)?.id;
                Box::new(state.attachments_of(disk).filter(move |at| worker.is_none_or(|id| at.worker == id)).map(row))
            }
        };
        let (rows, next) = page.take(rows.filter(|(token, _)| *token >= first), state.applied_index());
        let items = rows.into_iter().map(|row| present::attachment(state, row)).collect();
        Ok(v1::ListAttachmentsResponse { items, page: Some(next) })
    }
}

/// What somebody says on their own authority is kept with a reason.
pub(super) fn require_reason(header: Option<&v1::MutationHeader>, what: &str) -> Result<(), Refusal> {
    if header.is_some_and(|header| !header.reason.trim().is_empty()) {
        return Ok(());
    }
    Err(Refusal::new(Class::Invalid, "REASON_NEEDED", format!("who says {what} has to say why"))
        .hint("--reason TEXT; it is kept in the audit log"))
}

fn access_of(access: i32) -> Result<Access, Refusal> {
    match v1::AttachmentAccess::try_from(access) {
        Ok(v1::AttachmentAccess::Read) => Ok(Access::Read),
        Ok(v1::AttachmentAccess::Write) => Ok(Access::Write),
        Ok(v1::AttachmentAccess::Unspecified) | Err(_) => {
            Err(Refusal::new(Class::Invalid, "BAD_ACCESS", "it is not said whether the host reads or writes"))
        }
    }
}

fn session_of(id: &str, epoch: u64) -> Result<Option<SessionRef>, Refusal> {
    if id.is_empty() {
        return Ok(None);
    }
    let id = id.parse().map_err(|_| {
        let shown: String = id.chars().take(64).collect();
        Refusal::new(Class::Invalid, "BAD_SESSION", format!("{shown:?} is not the id of a session"))
    })?;
    Ok(Some(SessionRef { id, epoch }))
}

/// Whoever names a session by its id alone means how it stands now.
fn current(state: &State, session: SessionRef) -> Result<SessionRef, Refusal> {
    if session.epoch > 0 {
        return Ok(session);
    }
    let known = state.sessions.get(&session.id).map(sdm_state::sessions::Session::reference);
    known.ok_or_else(|| {
        Refusal::new(Class::Precondition, "SESSION_EXPIRED", format!("session {} is over", session.id))
            .hint("open a new session, or attach it durably: --durable")
    })
}

#[tonic::async_trait]
impl AttachmentService for AttachmentApi {
    async fn attach_disk(
        &self,
        request: Request<v1::AttachDiskRequest>,
    ) -> Result<Response<v1::AttachDiskResponse>, Status> {
        answer(self.attach(request.into_inner()).await)
    }

    async fn detach_disk(
        &self,
        request: Request<v1::DetachDiskRequest>,
    ) -> Result<Response<v1::DetachDiskResponse>, Status> {
        answer(self.detach(request.into_inner()).await)
    }

    async fn list_attachments(
        &self,
        request: Request<v1::ListAttachmentsRequest>,
    ) -> Result<Response<v1::ListAttachmentsResponse>, Status> {
        answer(self.list(request.into_inner()).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_is_said_and_never_guessed() {
        assert_eq!(access_of(v1::AttachmentAccess::Write.into()), Ok(Access::Write));
        for unknown in [0, 3, -1] {
            assert_eq!(access_of(unknown).unwrap_err().reason, "BAD_ACCESS");
        }
    }

    #[test]
    fn a_statement_of_ones_own_needs_a_reason() {
        let header = |reason: &str| v1::MutationHeader { reason: reason.to_owned(), ..Default::default() };
        assert!(require_reason(Some(&header("I was there")), "so").is_ok());
        for header in [None, Some(header("")), Some(header("  "))] {
            assert_eq!(require_reason(header.as_ref(), "so").unwrap_err().reason, "REASON_NEEDED");
        }
    }
}
