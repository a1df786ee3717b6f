//! Plans of attachments: who may use a disk where, and who may take that back.

use super::Plan;
use super::disk_word;
use super::plan;
use crate::attachments::Access;
use crate::attachments::Attachment;
use crate::attachments::AttachmentChange;
use crate::catalog::Disk;
use crate::catalog::Domain;
use crate::command::SessionRef;
use crate::locks::BLOCKERS_SHOWN;
use crate::locks::Mode;
use crate::locks::Resource;
use crate::sessions::Holder;
use crate::sessions::Session;
use crate::state::State;
use crate::workers::Worker;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::WorkerId;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

impl State {
    pub(super) fn plan_attachment(&self, change: &AttachmentChange) -> Result<Plan, Refusal> {
        let lock = |disk: DiskId| vec![(Resource::Disk(disk), Mode::Exclusive)];
        match change {
            AttachmentChange::Attach { disk, worker, access, session } => {
                let (disk, domain) = self.known_disk(*disk)?;
                let host = self.known_worker(*worker)?;
                self.check_attachable(disk, domain, *access)?;
                self.check_host(host, domain)?;
                if let Some(session) = session {
                    self.client_session(*session)?;
                }
                if let Some(own) = self.attachments_of(disk.id).find(|own| own.worker == *worker) {
                    let message = format!("disk {} is {} already", disk.name, self.attachment_words(own));
                    return Err(Refusal::new(Class::Conflict, "ALREADY_ATTACHED", message)
                        .hint(self.way_to_detach(own, disk.name.as_str())));
                }
                self.refuse_attached(disk, *access)?;
                self.refuse_full()?;
                let summary = format!(
                    "attach disk {} to host {} for {}",
                    disk.name,
                    host.identity.name,
                    if *access == Access::Write { "writing" } else { "reading" }
                );
                Ok(plan(lock(disk.id), summary, &[disk_word(disk), format!("worker/{}", host.identity.name)]))
            }
            AttachmentChange::Detach { disk, worker, stopped } => {
                let (row, _) = self.known_disk(*disk)?;
                let attachment = self.attachment_meant(*disk, *worker, *stopped)?;
                let host = self.worker_word(attachment.worker);
                let summary = format!("detach disk {} from host {host}", row.name);
                Ok(plan(lock(*disk), summary, &[disk_word(row), format!("worker/{host}")]))
            }
        }
    }

    pub(crate) fn known_worker(&self, id: WorkerId) -> Result<&Worker, Refusal> {
        self.workers.get(&id).ok_or_else(|| {
            Refusal::new(Class::NotFound, "WORKER_NOT_FOUND", format!("there is no worker {id}"))
                .hint("sdm worker list")
        })
    }

    /// The session, if it is a client's and this opening of it is the current one.
    pub(crate) fn client_session(&self, session: SessionRef) -> Result<&Session, Refusal> {
        let live = self.live_session(session)?;
        match live.holder {
            Holder::Client(_) => Ok(live),
            Holder::Worker(_) => {
                let message = format!("session {} is a worker's, not a client's", session.id);
                Err(Refusal::new(Class::Denied, "NOT_A_CLIENT", message).hint("open a session of its own"))
            }
        }
    }

    fn check_attachable(&self, disk: &Disk, domain: &Domain, access: Access) -> Result<(), Refusal> {
        self.refuse_illegal(disk)?;
        self.refuse_maintenance(domain)?;
        if disk.template && access == Access::Write {
            let message = format!("disk {} is a template, which nobody writes", disk.name);
            return Err(Refusal::new(Class::Precondition, "TEMPLATE_READ_ONLY", message)
                .hint(format!("attach it with --read-only, or make a disk of it: sdm disk clone {} NAME", disk.name)));
        }
        Ok(())
    }

    fn check_host(&self, host: &Worker, domain: &Domain) -> Result<(), Refusal> {
        let name = &host.identity.name;
        if !host.is_live() {
            return Err(Refusal::new(Class::Precondition, "WORKER_LOST", format!("worker {name} is lost"))
                .hint("start it on its data folder, or choose another host: sdm worker list"));
        }
        if let Some(draining) = &host.draining {
            let why = if draining.reason.is_empty() { String::new() } else { format!(" ({})", draining.reason) };
            let message = format!("worker {name} is drained by {}{why}", draining.by);
            return Err(Refusal::new(Class::Precondition, "WORKER_DRAINING", message)
                .hint(format!("sdm worker undrain {name}, or choose another host")));
        }
        if !host.reaches(domain.id) {
            let why = host.domains.get(&domain.id).and_then(|sight| sight.error.clone());
            let message = format!(
                "host {name} does not reach domain {}{}",
                domain.name,
                why.map(|why| format!(": {why}")).unwrap_or_default()
            );
            return Err(Refusal::new(Class::Precondition, "DOMAIN_UNREACHABLE", message)
                .hint(format!("`sdm domain show {}` tells who reaches it", domain.name)));
        }
        Ok(())
    }

    fn refuse_full(&self) -> Result<(), Refusal> {
        let most = self.meta.settings.attachments_max;
        if (self.attachments.len() as u64) < most {
            return Ok(());
        }
        let message = format!("{most} disks are attached, more are not allowed");
        Err(Refusal::new(Class::Exhausted, "TOO_MANY_ATTACHMENTS", message).hint("detach what nobody uses any more"))
    }

    /// The one attachment that a detach means, if it may be taken back now.
    pub(crate) fn attachment_meant(
        &self,
        disk: DiskId,
        worker: Option<WorkerId>,
        stopped: bool,
    ) -> Result<&Attachment, Refusal> {
        let name = self.disks.get(&disk).map_or_else(|| disk.to_string(), |row| row.name.to_string());
        let fitting: Vec<&Attachment> =
            self.attachments_of(disk).filter(|at| worker.is_none_or(|worker| at.worker == worker)).collect();
        let attachment = match fitting[..] {
            [one] => one,
            [] => {
                let host = worker.map(|id| format!(" to host {}", self.worker_word(id))).unwrap_or_default();
                return Err(Refusal::new(
                    Class::Precondition,
                    "NOT_ATTACHED",
                    format!("disk {name} is not attached{host}"),
                )
                .hint(format!("sdm disk attachments {name}")));
            }
            _ => {
                let message = format!("disk {name} is attached to {} hosts", fitting.len());
                let refusal = Refusal::new(Class::Invalid, "HOST_NEEDED", message).hint("say which: --host WORKER");
                let named = fitting.iter().take(BLOCKERS_SHOWN);
                return Err(named.fold(refusal, |refusal, at| {
                    refusal.blocker("attachment", at.token.to_string(), self.attachment_words(at))
                }));
            }
        };
        let live = self.workers.get(&attachment.worker).is_some_and(Worker::is_live);
        let proved =
            if attachment.is_unfenced() { stopped && live } else { stopped || !self.may_write_lost(attachment) };
        if !proved {
            let message = format!(
                "disk {name} is {}: nothing proves that the host writes no more",
                self.attachment_words(attachment)
            );
            return Err(Refusal::new(Class::Precondition, "FENCE_REQUIRED", message)
                .hint(self.way_to_detach(attachment, &name))
                .blocker(
                    "worker",
                    self.worker_word(attachment.worker),
                    if live { "live" } else { "lost, not fenced" },
                ));
        }
        Ok(attachment)
    }
}
