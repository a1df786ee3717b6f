//! An attachment as it is shown: which host has a disk, how, and where the host finds its bytes.

use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::attachments::Access;
use sdm_state::attachments::Attachment;
use sdm_state::attachments::AttachmentState;

/// The attachment.
pub(crate) fn attachment(state: &State, attachment: &Attachment) -> v1::Attachment {
    let disk = state.disks.get(&attachment.disk);
    let leaf = disk.and_then(|disk| state.volumes.get(disk.volumes.last()?));
    let domain = disk.and_then(|disk| state.domain_of(disk));
    let path = match (disk, domain, leaf) {
        (Some(disk), Some(domain), Some(leaf)) => {
            format!("{}/{}/images/{}/{}", domain.path.trim_end_matches('/'), domain.id, disk.placement, leaf.id)
        }
        _ => String::new(),
    };
    let name = disk.map_or_else(|| attachment.disk.to_string(), |disk| disk.name.to_string());
    let access = match attachment.access {
        Access::Read => v1::AttachmentAccess::Read,
        Access::Write => v1::AttachmentAccess::Write,
    };
    v1::Attachment {
        token: Some(token(attachment.token)),
        disk_id: attachment.disk.to_string(),
        worker_id: attachment.worker.to_string(),
        worker: state.worker_word(attachment.worker),
        access: access.into(),
        session_id: attachment.session().map(|session| session.to_string()).unwrap_or_default(),
        state: attachment.state.word().to_owned(),
        since_ms: attachment.since_ms,
        unfenced_since_ms: match attachment.state {
            AttachmentState::Attached => 0,
            AttachmentState::Unfenced { since_ms } => since_ms,
        },
        reason: attachment.why.clone(),
        by: attachment.by.clone(),
        transaction_id: attachment.txn.to_string(),
        path,
        format: leaf.map(|leaf| leaf.format.word().to_owned()).unwrap_or_default(),
        hint: state.way_to_detach(attachment, &name),
        disk: name,
    }
}

/// A token in its parts.
pub(super) fn token(token: sdm_proto::token::Token) -> v1::Token {
    v1::Token { epoch: token.epoch, index: token.index, ordinal: token.ordinal }
}
