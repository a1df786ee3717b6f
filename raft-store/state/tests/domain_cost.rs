//! What an entry costs that detaches, attaches or forgets a domain, or that is about its garbage, does not grow with how
//! many disks there are. Each story is timed entry by entry beside few and beside many; a scan of the many would take
//! hundreds of times as long.

mod world;

use sdm_proto::ids::ClusterId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PoolId;
use sdm_proto::ids::TxnId;
use sdm_proto::token::Token;
use sdm_state::Command;
use sdm_state::Entry;
use sdm_state::Reply;
use sdm_state::assignments::Order;
use sdm_state::command::Begin;
use sdm_state::command::Found;
use sdm_state::command::OpenSession;
use sdm_state::command::SessionOwner;
use sdm_state::command::SessionRef;
use sdm_state::domain_catalog::DomainCatalog;
use sdm_state::domain_change::AttachDomain;
use sdm_state::domain_change::DomainChange;
use sdm_state::domain_change::MorePieces;
use sdm_state::fill::Fill;
use sdm_state::fill::disk_name;
use sdm_state::garbage_order::GarbageOrder;
use sdm_state::garbage_order::Orphan;
use sdm_state::settings::Settings;
use sdm_state::txns::Phase;
use sdm_state::txns::Spec;
use sdm_state::work::Report;
use sdm_state::workers::DomainReport;
use sdm_state::workers::DomainSight;
use std::time::Duration;
use std::time::Instant;
use world::done;
use world::identity;
use world::member;
use world::worker_id;

const SMALL: u64 = 300;
const LARGE: u64 = 10_000;

/// How many times the small world's dearest entry the large one's may take.
const TIMES: u32 = 20;

struct Filled {
    state: sdm_state::State,
    session: SessionRef,
    domain: DomainId,
    requests: u32,
    /// The dearest entry since this was last set, and how many there were.
    dearest: Duration,
    entries: u32,
}

impl Filled {
    fn with(disks: u64) -> Self {
        let found = Found {
            cluster_id: ClusterId::derive("cost test", &[]),
            pool_id: PoolId::derive("cost test", &[]),
            epoch: 1,
            member: member("m1"),
            // What is forgotten is not the matter here.
            settings: Settings { finished_txns_max: u64::MAX, ..Settings::default() },
        };
        let fill = Fill { volumes: disks, disks, domains: 1, waiting: 0 };
        let mut state = fill.state(found).expect("a state");
        let domain = state.domains.values().next().expect("its domain").id;
        let index = state.applied_index() + 1;
        let (owner, nonce) = (SessionOwner::Worker(identity("w1", "p1")), "w1".to_owned());
        let open = Command::OpenSession(OpenSession { owner, ttl_ms: 10_000, nonce });
        let Reply::Session { session, .. } =
            state.apply(index, &Entry { stamp_ms: 0, entropy: [0; 16], command: open })
        else {
            panic!("no session")
        };
        let mut filled = Self { state, session, domain, requests: 0, dearest: Duration::ZERO, entries: 0 };
        filled.reach();
        filled
    }

    fn reach(&mut self) {
        let sight = DomainSight {
            error: None,
            total_bytes: 1 << 50,
            free_bytes: 1 << 50,
            file_system: "fs".into(),
            sequence: self.state.applied_index(),
            seen_ms: 0,
        };
        let (session, domain) = (self.session, self.domain);
        self.apply(Command::ReportDomains { session, items: vec![DomainReport { domain, sight }] });
    }

    fn apply(&mut self, command: Command) -> Reply {
        let index = self.state.applied_index() + 1;
        let entry = Entry { stamp_ms: 0, entropy: [7; 16], command };
        let begun = Instant::now();
        let reply = self.state.apply(index, &entry);
        self.dearest = self.dearest.max(begun.elapsed());
        self.entries += 1;
        reply
    }

    fn begin(&mut self, spec: Spec) -> TxnId {
        self.requests += 1;
        let id = TxnId::derive("cost", &[&self.requests.to_be_bytes()]);
        let begin = Begin {
            id,
            request_hash: [1; 32],
            not_after_ms: 600_000,
            looked_up_ms: 0,
            unix_ms: 0,
            initiator: "test".into(),
            reason: "a measurement".into(),
            lock_wait_ms: 0,
            spec,
            under: None,
        };
        assert_eq!(self.apply(Command::Begin(begin)), Reply::Txn(id));
        id
    }

    fn change(&mut self, change: DomainChange) -> TxnId {
        self.begin(Spec::Domain(change))
    }

    fn phase(&self, id: TxnId) -> &Phase {
        &self.state.txns.get(&id).expect("the transaction").phase
    }

    /// Does what the worker is told, and Ticks while it is told nothing, until the transaction is committed.
    fn finish(&mut self, id: TxnId, mut report: impl FnMut(&Order) -> Report) {
        while self.phase(id) == &Phase::Running {
            match self.state.assignments(worker_id("w1"), 1).pop() {
                Some(at) => {
                    let report = report(&at.order);
                    self.apply(Command::ReportAttempt { session: self.session, token: at.token, report });
                }
                None => _ = self.apply(Command::Tick),
            }
        }
        assert!(matches!(self.phase(id), Phase::Committed(_)), "{:?}", self.phase(id));
    }

    /// The dearest entry of what this does.
    fn timed(&mut self, what: impl FnOnce(&mut Self)) -> Duration {
        (self.dearest, self.entries) = (Duration::ZERO, 0);
        what(self);
        self.dearest
    }
}

fn same_cost(what: &str, story: fn(&mut Filled)) {
    let best = |disks| {
        let runs = (0..2).map(|_| {
            let mut filled = Filled::with(disks);
            (filled.timed(story), filled.entries)
        });
        runs.min().expect("two runs")
    };
    let (small, large) = (best(SMALL), best(LARGE));
    println!(
        "{what}: {} entries, {:?} at most beside {SMALL}; {} entries, {:?} at most beside {LARGE}",
        small.1, small.0, large.1, large.0
    );
    assert!(large.0 < small.0 * TIMES, "{what}: {:?} beside {SMALL}, {:?} beside {LARGE}", small.0, large.0);
}

fn detach_and_attach(filled: &mut Filled) {
    let (domain, disks) = (filled.domain, filled.state.disks.len());
    filled.change(DomainChange::Maintenance { domain });
    let id = filled.change(DomainChange::Detach { domain });
    let mut written: Vec<DomainCatalog> = Vec::new();
    filled.finish(id, |order| {
        match order {
            Order::WriteCatalog { catalog, .. } => written.push((**catalog).clone()),
            Order::DetachDomain { catalog, .. } => written.insert(0, (**catalog).clone()),
            other => panic!("{other:?}"),
        }
        done(order).expect("a report")
    });
    assert!(filled.state.disks.is_empty() && filled.state.domains.is_empty());
    let head = &written[0];
    let more = MorePieces { pieces: head.pieces, detached_at: head.detached_at, prefix: String::new() };
    let attach = AttachDomain {
        domain,
        name: head.name.clone(),
        path: "/srv/again".to_owned(),
        local: true,
        contents: head.contents.clone(),
        renamed: false,
        catalog: String::new(),
        more: (head.pieces > 0).then_some(more),
    };
    let id = filled.change(DomainChange::Attach(Box::new(attach)));
    filled.finish(id, |order| match order {
        Order::ReadCatalog { piece, .. } => {
            let catalog = &written[*piece as usize];
            let contents = Box::new(catalog.contents.clone());
            Report::Catalog { detached_at: catalog.detached_at, piece: *piece, contents }
        }
        other => done(other).expect("a report"),
    });
    assert_eq!(filled.state.disks.len(), disks);
}

#[test]
fn a_domain_of_ten_thousand_disks_is_detached_and_attached_a_few_rows_with_each_entry() {
    same_cost("detach and attach", detach_and_attach);
}

#[test]
fn a_domain_of_ten_thousand_disks_is_forgotten_a_few_rows_with_each_entry() {
    same_cost("forget", |filled| {
        let domain = filled.domain;
        filled.change(DomainChange::Maintenance { domain });
        let id = filled.change(DomainChange::Forget { domain });
        filled.finish(id, |order| panic!("{order:?}"));
        assert!(filled.state.disks.is_empty());
    });
}

/// All disks of the domain in the trash, or due.
fn deleted(filled: &mut Filled, retention_ms: u64) {
    let domain = filled.domain;
    filled.begin(Spec::Garbage(GarbageOrder::SetRetention { domain, retention_ms: Some(retention_ms) }));
    for number in 0..filled.state.disks.len() as u64 {
        let disk = filled.state.disk_named(&disk_name(number).parse().expect("a name")).expect("the disk").id;
        filled.begin(Spec::DeleteDisk { disk });
    }
}

#[test]
fn orders_about_garbage_do_not_look_at_all_of_it() {
    for retention_ms in [0, 86_400_000] {
        let cost = |disks| {
            let mut filled = Filled::with(disks);
            deleted(&mut filled, retention_ms);
            let domain = filled.domain;
            filled.timed(|filled| {
                let orphans: Vec<Orphan> = (0..200)
                    .map(|ordinal| Orphan {
                        token: Token { epoch: 1, index: 1, ordinal: 1_000 + ordinal },
                        txn: None,
                        evidence: "seen".into(),
                        bytes: 0,
                    })
                    .collect();
                filled.begin(Spec::Garbage(GarbageOrder::AdoptOrphans { domain, orphans }));
                filled.change(DomainChange::Maintenance { domain });
                let refused = filled.change(DomainChange::Detach { domain });
                assert!(matches!(filled.phase(refused), Phase::Refused(_)));
            })
        };
        let (small, large) = (cost(SMALL), cost(LARGE));
        println!("orders about garbage, retention {retention_ms}: {small:?} beside {SMALL}, {large:?} beside {LARGE}");
        assert!(large < small * TIMES, "{small:?} beside {SMALL}, {large:?} beside {LARGE}");
    }
}

/// A plan looks at a few times what it holds.
#[test]
fn a_plan_looks_at_no_more_of_a_heap_than_it_can_hold_a_few_times() {
    let cost = |disks| {
        let mut filled = Filled::with(disks);
        deleted(&mut filled, 0);
        filled.state.meta.settings.gc_plan_items_max = 50;
        filled.timed(|filled| {
            let id =
                filled.begin(Spec::Garbage(GarbageOrder::PlanCollection { domain: None, kind: None, trash: false }));
            let plan = filled.state.gc_plans.values().find(|plan| plan.txn == id).expect("the plan");
            assert_eq!(plan.items.len(), 50);
            assert!(plan.left_out > 0);
        })
    };
    let (small, large) = (cost(SMALL), cost(LARGE));
    println!("a plan: {small:?} beside {SMALL}, {large:?} beside {LARGE}");
    assert!(large < small * TIMES, "{small:?} beside {SMALL}, {large:?} beside {LARGE}");
}
