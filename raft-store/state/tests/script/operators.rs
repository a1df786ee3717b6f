//! The commands of a script that are about hosts, domains, attachments, garbage and locks. Ids that nobody
//! would write stand in a script as labels: t1 transactions, g1 garbage, l1 lock sets, h1 attachments.

use super::Script;
use super::refusal_words;
use crate::world;
use crate::world::name;
use sdm_proto::token::Token;
use sdm_state::Command;
use sdm_state::Reply;
use sdm_state::attachments::Access;
use sdm_state::attachments::AttachmentChange;
use sdm_state::command::AcquireLocks;
use sdm_state::command::Begin;
use sdm_state::command::BreakLock;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::command::SessionRef;
use sdm_state::command::Under;
use sdm_state::domain_change::DomainChange;
use sdm_state::garbage_order::GarbageOrder;
use sdm_state::locks::Mode;
use sdm_state::locks::Owner;
use sdm_state::locks::Resource;
use sdm_state::txns::Spec;
use sdm_state::workers::WorkerChange;
use sdm_state::workers::WorkerIdentity;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What operators' commands need to remember.
#[derive(Default)]
pub struct Operators {
    pub workers: BTreeMap<String, SessionRef>,
    clients: BTreeMap<String, (SessionRef, u64)>,
    labels: Vec<(String, String)>,
    processes: u32,
}

fn seconds(word: &str) -> u64 {
    word.trim_end_matches('s').parse::<u64>().expect("seconds") * 1000
}

impl Script {
    /// Does what needs no transaction; None where it is something else.
    pub(super) fn operate(&mut self, words: &[&str]) -> Option<String> {
        let mut out = String::new();
        let second = words.get(1).copied().unwrap_or_default();
        match words[0] {
            "worker" | "reboot" => self.worker_starts(second, words[0] == "reboot", &mut out),
            "lose" => {
                let session = self.operators.workers.remove(second).expect("a live worker");
                self.world.apply(Command::ExpireSessions { sessions: vec![session] });
            }
            "client" => {
                self.operators.processes += 1;
                let (owner, nonce) = (SessionOwner::Client(second.into()), format!("nonce of {second}"));
                let open = OpenSession { owner, ttl_ms: 10_000, nonce };
                let Reply::Session { session, .. } = self.world.apply(Command::OpenSession(open)) else { panic!() };
                self.operators.clients.insert(second.into(), (session, 0));
            }
            "gone" => {
                let (session, _) = self.operators.clients.remove(second).expect("a client");
                self.world.apply(Command::ExpireSessions { sessions: vec![session] });
            }
            "look" => {}
            "pass" => self.world.pass(seconds(second)),
            "lock" => self.client_locks(words, &mut out),
            "unlock" => {
                let (session, sequence) = self.next_of(second);
                let lock = self.lock_of(words[2]);
                let reply = self.world.apply(Command::ReleaseLocks { session, sequence, lock });
                self.say(&reply, &mut out);
            }
            "break" => {
                let lock = self.lock_of(second);
                let (reason, by) = (words[2..].join(" "), "ann".to_owned());
                let reply = self.world.apply(Command::BreakLock(BreakLock { lock, reason, by }));
                self.say(&reply, &mut out);
            }
            "locks" => self.lock_table(&mut out),
            "under" => {
                self.begin_under(second, &words[2..]);
                while self.work_once(&mut out) {}
                self.outcome(&mut out);
                self.changes(&mut out);
            }
            _ => return None,
        }
        if words[0] != "locks" && words[0] != "under" {
            self.standing(&mut out);
        }
        Some(out)
    }

    /// The specification of what is a transaction.
    pub(super) fn operator_spec(&self, words: &[&str]) -> Spec {
        let has = |word: &str| words.contains(&word);
        let after = |word: &str| words.iter().position(|w| *w == word).and_then(|at| words.get(at + 1)).copied();
        let second = words.get(1).copied().unwrap_or("none");
        let worker = |word: &str| world::worker_id(word);
        let domain = self.domain(second);
        match words[0] {
            "attach" => Spec::Attachment(AttachmentChange::Attach {
                disk: self.disk(second),
                worker: worker(words[2]),
                access: if has("read") { Access::Read } else { Access::Write },
                session: after("for")
                    .and_then(|client| self.operators.clients.get(client))
                    .map(|(session, _)| *session),
            }),
            "detach" => Spec::Attachment(AttachmentChange::Detach {
                disk: self.disk(second),
                worker: after("from").map(worker),
                stopped: has("stopped"),
            }),
            "domain" => {
                Spec::CreateDomain { name: name(second), path: after("at").unwrap_or_default().into(), local: true }
            }
            "maintenance" => Spec::Domain(DomainChange::Maintenance { domain }),
            "activate" => Spec::Domain(DomainChange::Activate { domain }),
            "rename-domain" => Spec::Domain(DomainChange::Rename { domain, name: name(words[2]) }),
            "detach-domain" => Spec::Domain(DomainChange::Detach { domain }),
            "delete-domain" => Spec::Domain(DomainChange::Delete { domain }),
            "drain" => Spec::Worker(WorkerChange::Drain { worker: worker(second) }),
            "undrain" => Spec::Worker(WorkerChange::Undrain { worker: worker(second) }),
            "remove" => Spec::Worker(WorkerChange::Remove { worker: worker(second) }),
            "confirm-down" => {
                let row = self.world.state.workers.get(&worker(second));
                let last = row.and_then(|row| row.last_session()).unwrap_or_default();
                let session = if has("older") { last.saturating_sub(1) } else { last };
                Spec::Worker(WorkerChange::ConfirmDown { worker: worker(second), session })
            }
            "restore" => {
                let name = after("as").map(name);
                Spec::Garbage(GarbageOrder::RestoreDisk { garbage: self.garbage_of(second), name })
            }
            "purge" => Spec::Garbage(GarbageOrder::PurgeTrash { garbage: vec![self.garbage_of(second)] }),
            "hold" => {
                let reason = words[2..].join(" ");
                Spec::Garbage(GarbageOrder::Hold { garbage: self.garbage_of(second), reason })
            }
            "unhold" => Spec::Garbage(GarbageOrder::Unhold { garbage: self.garbage_of(second) }),
            "gc-plan" => Spec::Garbage(GarbageOrder::PlanCollection { domain: None, kind: None, trash: has("trash") }),
            "gc-apply" => {
                let last = self.world.state.gc_plans.values().map(|plan| plan.id).max().unwrap_or(1);
                let plan = if second == "none" { last } else { second.parse().unwrap_or(last) };
                Spec::Garbage(GarbageOrder::ApplyPlan { plan, skip_changed: has("skip-changed") })
            }
            "retention" => {
                let retention_ms = Some(seconds(words[2]));
                Spec::Garbage(GarbageOrder::SetRetention { domain, retention_ms })
            }
            "noop" => Spec::Noop { resource: second.to_owned() },
            other => panic!("no command {other}"),
        }
    }

    fn worker_starts(&mut self, worker: &str, rebooted: bool, out: &mut String) {
        self.operators.processes += 1;
        let number = self.operators.processes;
        let boot_id = if rebooted { format!("boot {number}") } else { "boot".to_owned() };
        let identity = WorkerIdentity { boot_id, ..world::identity(worker, &format!("q{number}")) };
        let (owner, nonce) = (SessionOwner::Worker(identity), format!("{worker} q{number}"));
        match self.world.apply(Command::OpenSession(OpenSession { owner, ttl_ms: 10_000, nonce })) {
            Reply::Session { session, .. } => {
                let domains: Vec<_> = self.world.state.domains.values().map(|domain| domain.id).collect();
                for domain in domains {
                    self.world.reach(session, domain, 1 << 39);
                }
                self.operators.workers.insert(worker.to_owned(), session);
            }
            other => self.say(&other, out),
        }
    }

    fn next_of(&mut self, client: &str) -> (SessionRef, u64) {
        let known = self.operators.clients.get_mut(client).expect("a client");
        known.1 += 1;
        *known
    }

    /// `lock CLIENT RESOURCE:MODE ... [wait SECONDS]`
    fn client_locks(&mut self, words: &[&str], out: &mut String) {
        let wait = words.iter().position(|word| *word == "wait");
        let wait_ms = wait.and_then(|at| words.get(at + 1)).map_or(0, |word| seconds(word));
        let resources = words[2..wait.unwrap_or(words.len())].iter().map(|word| self.resource(word)).collect();
        let (session, sequence) = self.next_of(words[1]);
        let why = "by hand".to_owned();
        let reply =
            self.world.apply(Command::AcquireLocks(AcquireLocks { session, sequence, resources, wait_ms, why }));
        self.say(&reply, out);
    }

    fn resource(&self, word: &str) -> (Resource, Mode) {
        let (resource, mode) = word.rsplit_once(':').expect("a resource and a mode");
        let (kind, bare) = resource.split_once('/').expect("a kind and a name");
        let mode = match mode {
            "IS" => Mode::IntentShared,
            "IX" => Mode::IntentExclusive,
            "S" => Mode::Shared,
            _ => Mode::Exclusive,
        };
        let resource = match kind {
            "disk" => Resource::Disk(self.disk(bare)),
            "domain" => Resource::Domain(self.domain(bare)),
            "name" => Resource::Name(bare.to_owned()),
            _ => Resource::User(bare.to_owned()),
        };
        (resource, mode)
    }

    fn begin_under(&mut self, client: &str, words: &[&str]) {
        let spec = self.spec(words);
        let session = self.operators.clients.get(client).expect("a client").0;
        let held = self.world.state.locks_of_session(session.id);
        let token = held.iter().find_map(|lock| lock.granted).map(|granted| granted.token).unwrap_or_default();
        self.operators.processes += 1;
        let id = world::request(200 + u8::try_from(self.operators.processes).unwrap_or_default());
        self.last = Some(id);
        self.world.apply(Command::Begin(Begin {
            id,
            request_hash: *world::blake3_of(&spec),
            not_after_ms: self.world.now_ms + 600_000,
            looked_up_ms: self.world.now_ms,
            unix_ms: 0,
            initiator: client.to_owned(),
            reason: String::new(),
            lock_wait_ms: 0,
            spec,
            under: Some(Under { session, token }),
        }));
    }

    fn lock_of(&self, label: &str) -> u64 {
        let known = self.operators.labels.iter().find(|(_, known)| known == label);
        known.and_then(|(id, _)| id.strip_prefix("lock ")?.parse().ok()).unwrap_or_default()
    }

    fn garbage_of(&self, label: &str) -> Token {
        let is_it = |row: &&sdm_state::garbage::Garbage| {
            self.operators.labels.iter().any(|(id, known)| known == label && *id == row.id.to_string())
        };
        self.world.state.garbage.values().find(is_it).map_or(Token { epoch: 9, index: 9, ordinal: 9 }, |row| row.id)
    }

    /// Gives every id that is new its label.
    pub(super) fn label_all(&mut self) {
        let state = &self.world.state;
        let mut found: Vec<(char, String)> = Vec::new();
        let mut txns: Vec<_> = state.txns.values().collect();
        txns.sort_by_key(|txn| txn.began_index);
        found.extend(txns.iter().map(|txn| ('t', txn.id.to_string())));
        found.extend(state.garbage.values().map(|row| ('g', row.id.to_string())));
        found.extend(state.attachments.values().map(|row| ('h', row.token.to_string())));
        found.extend(state.locks.values().map(|lock| ('l', format!("lock {}", lock.id))));
        for (kind, id) in found {
            if self.operators.labels.iter().all(|(known, _)| *known != id) {
                let same = self.operators.labels.iter().filter(|(_, label)| label.starts_with(kind)).count();
                self.operators.labels.push((id, format!("{kind}{}", same + 1)));
            }
        }
    }

    /// Labels in place of ids, in a script that looks around. Longer ids first: one may begin another.
    pub(super) fn labelled(&self, mut words: String) -> String {
        if self.stood.is_empty() {
            return words;
        }
        let mut labels: Vec<_> = self.operators.labels.iter().collect();
        labels.sort_by_key(|(id, _)| std::cmp::Reverse(id.len()));
        for (id, label) in labels {
            match id.strip_prefix("lock ") {
                Some(number) => {
                    for verb in ["lock", "explain", "break"] {
                        words = words.replace(&format!("{verb} {number} "), &format!("{verb} {label} "));
                        words = words.replace(&format!("{verb} {number})"), &format!("{verb} {label})"));
                    }
                }
                None => words = words.replace(id.as_str(), label),
            }
        }
        words
    }

    fn say(&mut self, reply: &Reply, out: &mut String) {
        self.label_all();
        let words = match reply {
            Reply::Refused(refusal) => format!("refused {}", refusal_words(refusal)),
            Reply::Lock { token: Some(_), .. } => "granted".to_owned(),
            Reply::Lock { token: None, .. } => "waits".to_owned(),
            other => other.to_string(),
        };
        let words = self.labelled(self.plain(words));
        _ = writeln!(out, "  {words}");
    }

    fn lock_table(&mut self, out: &mut String) {
        self.label_all();
        let state = &self.world.state;
        let mut lines = Vec::new();
        for lock in state.locks.values() {
            let standing = if lock.granted.is_some() { "held by" } else { "waited for by" };
            let owner = match lock.owner {
                Owner::Session(_) => state.owner_words(lock),
                Owner::Txn(id) => format!("{id}, {}", lock.why),
            };
            let set: Vec<String> = lock
                .resources
                .iter()
                .map(|(resource, mode)| format!("{}:{mode}", state.resource_word(resource)))
                .collect();
            lines.push(format!("lock {} {standing} {owner}: {}", lock.id, set.join(" ")));
        }
        for line in lines {
            let words = self.labelled(line);
            _ = writeln!(out, "  {words}");
        }
    }

    /// What stands around: workers, attachments, domains, trash.
    pub(super) fn standing(&mut self, out: &mut String) {
        self.label_all();
        let state = &self.world.state;
        let mut lines: BTreeMap<String, String> = BTreeMap::new();
        for row in state.workers.values() {
            let standing = if row.is_live() { "live" } else { "lost" };
            let draining = if row.draining.is_some() { ", draining" } else { "" };
            let down = row.confirmed_down.as_ref().filter(|down| Some(down.session) == row.last_session());
            let down = if down.is_some() { ", confirmed down" } else { "" };
            let name = &row.identity.name;
            lines.insert(format!("worker {name}"), format!("{standing}{draining}{down}"));
        }
        for row in state.attachments.values() {
            let disk = state.disks.get(&row.disk).map(|disk| disk.name.to_string()).unwrap_or_default();
            let host = state.workers.get(&row.worker).map(|host| host.identity.name.to_string()).unwrap_or_default();
            let whose = if row.session().is_some() { "for a session" } else { "durably" };
            let words = format!("{} {whose}, {}", row.access.word(), row.state.word());
            lines.insert(format!("disk {disk} at {host}"), words);
        }
        for row in state.domains.values() {
            let retention = row.retention_ms.map(|ms| format!(", retention {} s", ms / 1000)).unwrap_or_default();
            let standing = if row.state.is_active() { "active" } else { "in maintenance" };
            lines.insert(format!("domain {}", row.name), format!("{standing}{retention}"));
        }
        for row in state.garbage.values().filter(|row| row.trash.is_some() || row.held.is_some()) {
            let kept = row.trash.as_ref().map(|trash| format!("trash of {}", trash.disk.name)).unwrap_or_default();
            let held = row.held.as_ref().map(|hold| format!(" held: {}", hold.reason)).unwrap_or_default();
            let doomed = if row.is_doomed() { " being deleted" } else { "" };
            let id = self.labelled(row.id.to_string());
            lines.insert(format!("garbage {id}"), format!("{kept}{held}{doomed}"));
        }
        let gone: Vec<String> =
            self.stood.keys().filter(|key| !lines.contains_key(*key)).map(|key| format!("{key}: gone")).collect();
        let changed = lines.iter().filter(|(key, words)| self.stood.get(*key) != Some(*words));
        let changed: Vec<String> = changed.map(|(key, words)| format!("{key}: {words}")).collect();
        for line in gone.into_iter().chain(changed) {
            _ = writeln!(out, "  {line}");
        }
        self.stood = lines;
    }
}
