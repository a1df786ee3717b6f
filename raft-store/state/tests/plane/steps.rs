//! What happens next: anybody does anything, sensible or not, by the numbers of a step.

use super::Hanging;
use super::History;
use super::Told;
use super::WORKERS;
use super::book::Away;
use super::hands::Reach;
use super::hands::failed;
use super::hands::guest_writes;
use super::hands::hash_of;
use super::storage::BLOCK;
use super::storage::Folder;
use crate::world;
use crate::world::name;
use sdm_proto::ids::DiskId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::VolumeId;
use sdm_proto::ids::WorkerId;
use sdm_proto::names::Name;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::token::Token;
use sdm_state::Command;
use sdm_state::assignments::Assignment;
use sdm_state::assignments::Order;
use sdm_state::attachments::Access;
use sdm_state::attachments::AttachmentChange;
use sdm_state::catalog::Format;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::command::SessionRef;
use sdm_state::domain_change::AttachDomain;
use sdm_state::domain_change::DomainChange;
use sdm_state::garbage_order::GarbageOrder;
use sdm_state::garbage_order::Orphan;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use sdm_state::workers::DomainReport;
use sdm_state::workers::DomainSight;
use sdm_state::workers::WorkerChange;

/// Hanging orders that are remembered.
const HANGING_MAX: usize = 12;

/// The largest disk, in blocks.
const BLOCKS_MAX: u64 = 7;

impl History {
    /// What most histories begin with: somebody to work, and disks.
    pub(super) fn prelude(&mut self) -> Told {
        self.arrive(0, false)?;
        self.arrive(1, false)?;
        for number in 0..2 {
            let spec = self.create(number);
            self.begin(spec)?;
            self.do_all(0)?;
            self.do_all(1)?;
        }
        Ok(())
    }

    fn at(&mut self) -> usize {
        usize::try_from(self.dice.below(3)).unwrap_or_default()
    }

    pub(super) fn take(&mut self) -> Told {
        // Time passes in an entry of its own: what it brings is seen before anything else happens.
        if self.dice.chance(25) {
            let most = [50, 900, 4_000, 30_000, 110_000][usize::try_from(self.dice.below(5)).unwrap_or(0)];
            self.now_ms += self.dice.below(most);
            self.apply(Command::Tick)?;
        }
        match self.dice.below(100) {
            0..=29 => {
                let spec = self.disk_spec();
                self.begin(spec)?;
                self.often_done()
            }
            30..=41 => {
                let spec = self.care_spec();
                self.begin(spec)?;
                self.often_done()
            }
            42..=58 => self.work(),
            59..=67 => self.guest_writes(),
            68..=72 => {
                let (at, rebooted) = (self.at(), self.dice.chance(30));
                self.machine_starts(at, rebooted)
            }
            73..=76 => self.somebody_is_lost(),
            77..=79 => self.late_hands(),
            80..=82 => {
                let Some((session, token, report)) = self.dice.pick(&self.reported.clone()) else { return Ok(()) };
                self.apply(Command::ReportAttempt { session, token, report }).map(drop)
            }
            83..=89 => {
                let mut garbage: Vec<Token> = self.state.garbage.values().map(|row| row.id).collect();
                garbage.truncate(usize::try_from(self.dice.below(6)).unwrap_or(0) + 1);
                self.apply(Command::Collect { garbage }).map(drop)
            }
            90..=92 => self.copy_of_a_request(),
            93..=95 => self.operator_meddles(),
            96 => self.audit(),
            _ => self.client_opens(),
        }
    }

    /// Mostly what was begun is done at once, or nothing would ever get far.
    fn often_done(&mut self) -> Told {
        if self.dice.chance(70) {
            for at in 0..WORKERS.len() {
                self.do_all(at)?;
            }
        }
        Ok(())
    }

    fn machine_starts(&mut self, at: usize, rebooted: bool) -> Told {
        if rebooted {
            self.hanging.retain(|hanging| hanging.host != at);
        } else {
            // The folder's lock proves the old process gone, and with it what it wrote in place.
            self.hanging.retain(|hanging| hanging.host != at || !hanging.in_place);
        }
        self.arrive(at, rebooted)
    }

    /// All domains but one are reached, another one each time.
    pub(super) fn look_around(&mut self, _at: usize, session: SessionRef) -> Told {
        let beyond = self.dice.below(8);
        let domains: Vec<DomainId> = self.state.domains.values().map(|domain| domain.id).collect();
        let sight = |domain: &DomainId| DomainSight {
            error: None,
            total_bytes: 1 << 40,
            free_bytes: 1 << 39,
            file_system: format!("fs of {domain}"),
            sequence: self.index,
            seen_ms: 0,
        };
        let items: Vec<DomainReport> = (0..)
            .zip(&domains)
            .filter(|(at, _)| *at != beyond)
            .map(|(_, domain)| DomainReport { domain: *domain, sight: sight(domain) })
            .collect();
        self.apply(Command::ReportDomains { session, items }).map(drop)
    }

    fn disk(&mut self) -> DiskId {
        let ids: Vec<DiskId> = self.book.disks.keys().copied().collect();
        let none = DiskId::derive("no such disk", &[]);
        if self.dice.chance(3) { none } else { self.dice.pick(&ids).unwrap_or(none) }
    }

    fn domain(&mut self) -> DomainId {
        let ids: Vec<DomainId> = self.book.domains.keys().copied().collect();
        let none = DomainId::derive("no such domain", &[]);
        if self.dice.chance(2) { none } else { self.dice.pick(&ids).unwrap_or(none) }
    }

    fn new_name(&mut self) -> Name {
        name(&format!("disk{}", self.dice.below(7)))
    }

    fn words(&mut self) -> String {
        format!("words {}", self.dice.below(100))
    }

    /// A named snapshot mostly, else any layer.
    fn volume(&mut self, disk: DiskId) -> VolumeId {
        let shots: Vec<VolumeId> =
            self.book.disks.get(&disk).into_iter().flat_map(|row| row.shots.iter().map(|shot| shot.volume)).collect();
        let chain = self.state.disks.get(&disk).map(|row| row.volumes.clone()).unwrap_or_default();
        let from = if self.dice.chance(80) && !shots.is_empty() { shots } else { chain };
        self.dice.pick(&from).unwrap_or_default()
    }

    fn create(&mut self, number: u64) -> Spec {
        let (domain, description) = (self.domain(), self.words());
        let size = (1 + self.dice.below(BLOCKS_MAX)) * BLOCK;
        let (format, preallocated) = match self.dice.below(4) {
            0 => (Format::Qcow2, false),
            1 => (Format::Raw, true),
            _ => (Format::Raw, false),
        };
        Spec::CreateDisk { name: name(&format!("disk{number}")), domain, size, format, preallocated, description }
    }

    fn disk_spec(&mut self) -> Spec {
        let disk = self.disk();
        let volume = self.volume(disk);
        let snapshot = self.dice.chance(50).then_some(volume);
        match self.dice.below(30) {
            0..=3 => {
                let number = self.dice.below(7);
                self.create(number)
            }
            4 => Spec::ImportDisk {
                name: self.new_name(),
                domain: self.domain(),
                format: if self.dice.chance(50) { Format::Raw } else { Format::Qcow2 },
                file_size: (1 + self.dice.below(BLOCKS_MAX)) * BLOCK,
                allocated_bytes: BLOCK,
            },
            5 => Spec::ExportDisk { disk },
            6..=7 => Spec::MoveDisk { disk, to: self.domain() },
            8..=9 => Spec::DeleteDisk { disk },
            10 => Spec::RenameDisk { disk, name: self.new_name() },
            11 => Spec::DescribeDisk { disk, description: self.words() },
            12..=13 => {
                let size = self.book.disks.get(&disk).map_or(BLOCK, |row| row.size);
                let more = self.dice.below(3) * BLOCK;
                Spec::ResizeDisk { disk, size: size + more }
            }
            14..=15 => Spec::CopyDisk {
                disk,
                snapshot,
                name: self.new_name(),
                description: self.words(),
                to: self.domain(),
                format: [None, Some(Format::Raw), Some(Format::Qcow2)]
                    [usize::try_from(self.dice.below(3)).unwrap_or_default()],
                preallocated: self.dice.chance(10),
                collapse: self.dice.chance(80),
                template: self.dice.chance(40),
            },
            16..=18 => Spec::CloneLinked { disk, snapshot, name: self.new_name(), description: self.words() },
            19 => {
                let format = if self.dice.chance(50) { Format::Raw } else { Format::Qcow2 };
                Spec::ConvertDisk { disk, format, preallocated: false }
            }
            20..=23 => {
                let name = name(&format!("s{}", self.dice.below(4)));
                Spec::CreateSnapshot { disk, name, description: self.words() }
            }
            24..=25 => Spec::DeleteSnapshot { disk, volume, in_place: self.dice.chance(30) },
            26 => Spec::FlattenDisk { disk },
            27 => Spec::RevertSnapshot { disk, volume, discard_newer: self.dice.chance(60) },
            28 => {
                // Mostly back again, or nothing could be done with it.
                let legal = self.book.illegal.contains(&volume) || self.dice.chance(60);
                Spec::SetVolumeLegality { disk, volume, legal }
            }
            _ => Spec::RepairProjection { disk },
        }
    }

    fn worker(&mut self) -> WorkerId {
        world::worker_id(WORKERS[self.at()])
    }

    fn care_spec(&mut self) -> Spec {
        match self.dice.below(40) {
            0..=8 => {
                let access = if self.dice.chance(60) { Access::Write } else { Access::Read };
                let session = if self.dice.chance(60) { self.dice.pick(&self.clients.clone()) } else { None };
                Spec::Attachment(AttachmentChange::Attach { disk: self.disk(), worker: self.worker(), access, session })
            }
            9..=18 => {
                let attached: Vec<DiskId> = self.book.attached.iter().map(|at| at.disk).collect();
                let disk = self.dice.pick(&attached).unwrap_or_default();
                let disk = if self.dice.chance(10) { self.disk() } else { disk };
                let worker = if self.dice.chance(40) { Some(self.worker()) } else { None };
                Spec::Attachment(AttachmentChange::Detach { disk, worker, stopped: self.dice.chance(40) })
            }
            19..=28 => self.domain_spec(),
            29..=33 => self.worker_spec(),
            _ => Spec::Garbage(self.order()),
        }
    }

    fn domain_spec(&mut self) -> Spec {
        if !self.book.away.is_empty() && self.dice.chance(40) {
            let name = name(&format!("d{}", self.dice.below(9)));
            if let Some(attach) = self.attach_spec(name) {
                return Spec::Domain(DomainChange::Attach(Box::new(attach)));
            }
        }
        let domain = self.domain();
        let number = self.dice.below(4);
        let (name, path) = (name(&format!("d{number}")), format!("/srv/d{number}"));
        let idle: Vec<DomainId> = self.book.domains.iter().filter(|(_, row)| !row.active).map(|(id, _)| *id).collect();
        let change = match self.dice.below(16) {
            0..=1 => return Spec::CreateDomain { name, path, local: true },
            2..=3 => DomainChange::Maintenance { domain },
            4..=6 => DomainChange::Activate { domain: self.dice.pick(&idle).unwrap_or(domain) },
            7 => DomainChange::Rename { domain, name },
            8..=10 => DomainChange::Detach { domain: self.dice.pick(&idle).unwrap_or(domain) },
            11 => DomainChange::Delete { domain: self.dice.pick(&idle).unwrap_or(domain) },
            _ => match self.attach_spec(name) {
                Some(attach) => DomainChange::Attach(Box::new(attach)),
                None => DomainChange::Maintenance { domain },
            },
        };
        Spec::Domain(change)
    }

    /// A detached domain as its catalog says; now and then by a catalog that is none any more.
    fn attach_spec(&mut self, name: Name) -> Option<AttachDomain> {
        let mut found: Vec<(DomainId, Away)> = self.book.away.iter().map(|(id, away)| (*id, away.clone())).collect();
        if self.dice.chance(15) {
            let stale = self.book.stale.iter().filter(|(id, _)| self.book.away.contains_key(id));
            found.extend(stale.cloned());
        }
        let (domain, away) = self.dice.pick(&found)?;
        let mut contents = away.catalog.contents.clone();
        let renamed = self.dice.chance(40);
        if renamed {
            for disk in &mut contents.disks {
                disk.name = format!("back-{}", disk.name).parse().ok()?;
            }
        }
        let (path, catalog) = (away.path.clone(), hash_of(&away.catalog));
        Some(AttachDomain { domain, name, path, local: true, contents, renamed, catalog, more: None })
    }

    fn worker_spec(&mut self) -> Spec {
        let at = self.at();
        let worker = world::worker_id(WORKERS[at]);
        Spec::Worker(match self.dice.below(10) {
            0 => WorkerChange::Drain { worker },
            1..=3 => WorkerChange::Undrain { worker },
            4 => WorkerChange::Remove { worker },
            _ => {
                let session = self.book.hosts[at].last_session;
                let session = if self.dice.chance(10) { session.saturating_sub(1) } else { session };
                // Whoever says so has seen to it that it is true.
                if !self.book.hosts[at].live && session == self.book.hosts[at].last_session {
                    self.hanging.retain(|hanging| hanging.host != at);
                    self.machines[at].boot += 1;
                }
                WorkerChange::ConfirmDown { worker, session }
            }
        })
    }

    fn order(&mut self) -> GarbageOrder {
        let all: Vec<Token> = self.state.garbage.values().map(|row| row.id).collect();
        let trash: Vec<Token> = self.book.trash.keys().copied().collect();
        let from = if self.dice.chance(80) { &trash } else { &all };
        let garbage = self.dice.pick(from).unwrap_or(Token { epoch: 9, index: 9, ordinal: 9 });
        match self.dice.below(14) {
            0..=4 => {
                let name = self.dice.chance(40).then(|| self.new_name());
                GarbageOrder::RestoreDisk { garbage, name }
            }
            5 => GarbageOrder::PurgeTrash { garbage: vec![garbage] },
            6 => GarbageOrder::Hold { garbage, reason: "look at it".into() },
            7..=8 => GarbageOrder::Unhold { garbage },
            9..=10 => GarbageOrder::PlanCollection { domain: None, kind: None, trash: self.dice.chance(50) },
            11..=12 => {
                let plans: Vec<u64> = self.state.gc_plans.values().map(|plan| plan.id).collect();
                let plan = self.dice.pick(&plans).unwrap_or(1);
                GarbageOrder::ApplyPlan { plan, skip_changed: self.dice.chance(30) }
            }
            _ => {
                let kept = [None, Some(0), Some(20_000), Some(200_000)];
                let retention_ms = kept[usize::try_from(self.dice.below(4)).unwrap_or_default()];
                GarbageOrder::SetRetention { domain: self.domain(), retention_ms }
            }
        }
    }

    /// A worker does something of what it is told, or says so, or neither.
    fn work(&mut self) -> Told {
        let at = self.at();
        let Some(session) = self.machines[at].session else { return Ok(()) };
        let Some(assignment) = self.dice.pick(&self.state.assignments(world::worker_id(WORKERS[at]), 256)) else {
            return Ok(());
        };
        let token = assignment.token;
        let in_place = writes_in_place(&assignment.order);
        let report = match self.dice.below(24) {
            0 => {
                self.carry_out(at, &assignment, Reach::Unpublished);
                Some(failed("it broke off"))
            }
            1 => {
                // Done, and the report is lost with its process, or comes after all.
                let Some(report) = self.carry_out(at, &assignment, Reach::End) else { return Ok(()) };
                self.remember_report(session, token, report);
                return Ok(());
            }
            2 => Some(Report::Stopped),
            3 if !in_place => Some(Report::Refused(Refusal::new(Class::Invalid, "NO", "no"))),
            4 => {
                let report = Report::Checkpoint { durable_bytes: 4096 };
                return self.apply(Command::ReportAttempt { session, token, report }).map(drop);
            }
            5..=6 => {
                self.hang(at, &assignment, in_place);
                return Ok(());
            }
            _ => self.carry_out(at, &assignment, Reach::End),
        };
        let Some(report) = report else { return Ok(()) };
        // Whoever reports an end has reaped the process.
        self.hanging.retain(|hanging| hanging.assignment.token != token);
        self.remember_report(session, token, report.clone());
        self.apply(Command::ReportAttempt { session, token, report }).map(drop)
    }

    fn remember_report(&mut self, session: SessionRef, token: Token, report: Report) {
        self.reported.push((session, token, report));
        if self.reported.len() > HANGING_MAX {
            self.reported.remove(0);
        }
    }

    fn hang(&mut self, host: usize, assignment: &Assignment, in_place: bool) {
        let (boot, process) = (self.machines[host].boot, self.machines[host].process);
        self.hanging.push(Hanging { host, boot, process, in_place, assignment: assignment.clone() });
        if self.hanging.len() > HANGING_MAX {
            self.hanging.remove(0);
        }
    }

    /// What hung goes on, whatever has happened since.
    fn late_hands(&mut self) -> Told {
        let Some(late) = self.dice.pick(&self.hanging.clone()) else { return Ok(()) };
        let machine = &self.machines[late.host];
        if machine.boot != late.boot || (late.in_place && machine.process != late.process) {
            return Ok(());
        }
        if matches!(late.assignment.order, Order::Project { .. } | Order::RenameDomain { .. }) {
            // What stands there for others to read is no content, and is not compared.
            return Ok(());
        }
        self.story.push(format!("late at {}: {:?}", WORKERS[late.host], late.assignment));
        self.count("late hands");
        let report = self.carry_out(late.host, &late.assignment, Reach::End);
        self.book.check(&self.state, &self.storage)?;
        let token = late.assignment.token;
        if let (Some(session), Some(report)) = (self.machines[late.host].session, report) {
            self.apply(Command::ReportAttempt { session, token, report })?;
        }
        Ok(())
    }

    /// Where nobody has a disk, somebody gets one, writes, and gives it back.
    fn guest_writes(&mut self) -> Told {
        if self.guests.is_empty() {
            let (disk, worker) = (self.disk(), self.worker());
            let access = Access::Write;
            self.begin(Spec::Attachment(AttachmentChange::Attach { disk, worker, access, session: None }))?;
            self.guest_writes_once()?;
            self.guest_writes_once()?;
            let detach = AttachmentChange::Detach { disk, worker: Some(worker), stopped: true };
            return self.begin(Spec::Attachment(detach)).map(drop);
        }
        self.guest_writes_once()
    }

    fn guest_writes_once(&mut self) -> Told {
        let guests: Vec<_> = self.guests.iter().map(|(guest, file)| (*guest, *file)).collect();
        let Some(((disk, at), file)) = self.dice.pick(&guests) else { return Ok(()) };
        let host = &self.book.hosts[at];
        if !host.live && host.down >= host.last_session {
            return Ok(());
        }
        self.writes += 1;
        let Some(row) = self.book.disks.get_mut(&disk) else { return Err("a guest has a disk that is gone".into()) };
        let (block, write) = (self.dice.next() % (row.size / BLOCK), self.writes);
        if guest_writes(&mut self.storage, file, block, write) {
            row.blocks.insert(block, write);
        }
        self.story.push(format!("guest at {} writes block {block} of {} as {write}", WORKERS[at], row.name));
        self.count("guest writes");
        self.book.check(&self.state, &self.storage)
    }

    fn somebody_is_lost(&mut self) -> Told {
        let workers = self.machines.iter().filter_map(|machine| machine.session);
        let mut live: Vec<SessionRef> = workers.collect();
        live.extend(self.clients.iter().copied());
        let Some(session) = self.dice.pick(&live) else { return Ok(()) };
        let closed = self.dice.chance(40);
        let sessions = vec![session];
        self.apply(if closed { Command::CloseSession(session) } else { Command::ExpireSessions { sessions } }).map(drop)
    }

    /// A new client, or one that comes back with what it had drawn.
    fn client_opens(&mut self) -> Told {
        let nonce = format!("client {}", self.dice.below(3));
        let open = OpenSession { owner: SessionOwner::Client("guest".into()), ttl_ms: 10_000, nonce };
        self.apply(Command::OpenSession(open)).map(drop)
    }

    fn copy_of_a_request(&mut self) -> Told {
        let sent: Vec<_> = self.book.asked.values().map(|asked| asked.begin.clone()).collect();
        let Some(mut begin) = self.dice.pick(&sent) else { return Ok(()) };
        if self.dice.chance(10) {
            begin.request_hash = [3; 32];
        }
        self.apply(Command::Begin(begin)).map(drop)
    }

    fn operator_meddles(&mut self) -> Told {
        let open: Vec<_> = self.state.txns.values().filter(|txn| !txn.phase.is_final()).map(|txn| txn.id).collect();
        let all: Vec<_> = self.book.asked.keys().copied().collect();
        let from = if self.dice.chance(70) { open } else { all };
        let Some(txn) = self.dice.pick(&from) else { return Ok(()) };
        let abort = Command::Abort { txn, reason: "changed my mind".into() };
        let retry = Command::RetryTxn { txn, by: "test".into() };
        let command = if self.dice.chance(50) { abort } else { retry };
        self.apply(command).map(drop)
    }

    /// Somebody says that all folders of a domain are orphans, those that are live, too: only what nobody owns may go.
    /// Now and then he has not seen the mark.
    fn audit(&mut self) -> Told {
        let (domain, marked) = (self.domain(), self.dice.chance(80));
        self.audit_of(domain, marked)
    }

    pub(super) fn audit_of(&mut self, domain: DomainId, marked: bool) -> Told {
        let Some(place) = self.storage.domains.get(&domain) else { return Ok(()) };
        let orphan = |folder: &Folder| Orphan {
            token: folder.made_by,
            txn: marked.then_some(folder.txn),
            bytes: BLOCK,
            evidence: "it lies there".into(),
        };
        let orphans: Vec<Orphan> = place.folders.values().map(orphan).collect();
        if orphans.is_empty() {
            return Ok(());
        }
        self.begin(Spec::Garbage(GarbageOrder::AdoptOrphans { domain, orphans })).map(drop)
    }
}

fn writes_in_place(order: &Order) -> bool {
    match order {
        Order::Resize { .. } | Order::Merge { .. } | Order::DetachDomain { .. } | Order::AttachDomain { .. } => true,
        Order::Build { rebase, .. } => rebase.is_some(),
        _ => false,
    }
}
