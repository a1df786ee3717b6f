//! Kills between log entries: an operation is run undisturbed and its entries are counted; then it is
//! run again and again, and after each of them the leader, the member that the command talks to, or
//! the worker is killed with SIGKILL and started again. Whatever was cut: the operation is done, or as
//! if it had never been, nothing is left on the storage, and nothing is open.

use super::Operation;
use super::World;
use crate::cluster::Cluster;
use crate::cluster::nothing_is_open;
use crate::cluster::request_id;
use crate::cluster::text_of;
use crate::host::Stopped;
use crate::host::until;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::event_service_client::EventServiceClient;
use std::time::Duration;
use std::time::Instant;

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The leader; the command talks to another member.
    Leader,
    /// The member that took the request, which does not lead.
    Initiator,
    /// The worker.
    Worker,
}

/// All of them.
pub const VICTIMS: [Victim; 3] = [Victim::Leader, Victim::Initiator, Victim::Worker];

/// How often a kill is tried that is to land between two entries, which may be less than a millisecond apart.
const LANDINGS_TRIED: usize = 4;

/// How long the next entry of an operation may take: the collectors take their time.
const ENTRY_PATIENCE: Duration = Duration::from_secs(20);

/// Where kills landed.
#[derive(Debug, Default)]
pub struct Kills {
    /// Cases in which the process was dead before the next entry came.
    pub landed: usize,
    /// Those in which it never was, in words: there, something else was shown than what was meant.
    pub missed: Vec<String>,
}

impl Kills {
    /// Both together.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.landed += others.landed;
        self.missed.extend(others.missed);
        self
    }
}

/// Runs the operation once undisturbed, then for each victim and each entry that `chosen` picks out of their number (0
/// is before the first one): as often as it takes until the victim died between that entry and the next one, by what
/// a third member tells.
///
/// # Panics
/// Something was neither done nor undone.
pub fn kill_after_each_entry(
    cluster: &mut Cluster,
    world: &mut World,
    operation: &Operation,
    victims: &[Victim],
    chosen: impl Fn(usize) -> Vec<usize>,
) -> Kills {
    let unique = format!("k{}", world.number());
    let entries = count_entries(cluster, world, operation, &format!("{unique}-whole"));
    let chosen = chosen(entries);
    let mut kills = Kills::default();
    for victim in victims {
        for after in &chosen {
            let case = format!("{}: {victim:?} killed after entry {after} of {entries}", operation.name);
            let disk = format!("{unique}-{}-{after}", format!("{victim:?}").to_lowercase());
            // Before its report there is no second entry: with the worker standing still the kill lands for sure.
            let held = *after == 1 && operation.waits;
            let landed = (0..LANDINGS_TRIED).any(|time| {
                eprintln!("---- {case}");
                // The worker itself is to die at work, if that can be had.
                let hold = held && (*victim != Victim::Worker || time + 1 == LANDINGS_TRIED);
                kill_once(cluster, world, operation, (*victim, hold), *after, &format!("{disk}-{time}"))
            });
            kills.landed += usize::from(landed);
            if !landed {
                kills.missed.push(case);
            }
        }
    }
    kills
}

/// How many cases `kill_after_each_entry` has for all entries: the operation is run once undisturbed.
pub fn count_cases(cluster: &Cluster, world: &mut World, operation: &Operation) -> usize {
    let disk = format!("n{}", world.number());
    VICTIMS.len() * (count_entries(cluster, world, operation, &disk) + 1)
}

/// Entries of an undisturbed run, to the last one of the garbage that it leaves.
fn count_entries(cluster: &Cluster, world: &mut World, operation: &Operation, disk: &str) -> usize {
    (operation.prepare)(world, disk);
    world.check();
    let mut entries = Entries::of(cluster, &cluster.leader());
    let line = (operation.line)(world, disk);
    world.sdm.done(&line.iter().map(String::as_str).collect::<Vec<_>>());
    (operation.done)(world, disk);
    world.check();
    entries.until_now()
}

/// Answers whether the victim died between that entry and the next one.
fn kill_once(
    cluster: &mut Cluster,
    world: &mut World,
    operation: &Operation,
    (victim, hold): (Victim, bool),
    after: usize,
    disk: &str,
) -> bool {
    (operation.prepare)(world, disk);
    world.settle();
    let leader = cluster.leader();
    let followers: Vec<String> = cluster.member_names().into_iter().filter(|name| *name != leader).collect();
    let [initiator, observer] = followers.as_slice() else { panic!("three members, not {followers:?}") };
    let victim = match victim {
        Victim::Leader => leader.clone(),
        Victim::Initiator => initiator.clone(),
        Victim::Worker => world.host.to_owned(),
    };
    let (line, id) = ((operation.line)(world, disk), request_id(&world.sdm));
    let mut words: Vec<&str> = line.iter().map(String::as_str).collect();
    words.extend(["--request-id", &id]);
    let mut entries = Entries::of(cluster, observer);
    let operator = cluster.sdm_at(&[initiator, observer, &leader]);
    if after == 0 {
        cluster.kill(&victim);
    }
    let stopped = hold.then(|| Stopped::new(vec![cluster.pid(world.host)]));
    let command = operator.start(&words);
    let mut dead_at = 0;
    if after > 0 {
        entries.await_entry(after);
        cluster.kill(&victim);
        // Counted once the process is gone: it died no later than that.
        dead_at = entries.so_far();
    }
    drop(stopped);
    cluster.start_node(&victim);
    let finished = command.finish();
    cluster.await_members(3);
    cluster.await_worker(world.host);
    let phase = outcome(world, &id);
    match phase.as_str() {
        "committed" => {
            assert_eq!(finished.code, 0, "it was committed: {finished:?}");
            (operation.done)(world, disk);
        }
        // As if it had never been; what it said must not be that it was done.
        _ => assert!(finished.code != 0, "it was {phase}: {finished:?}"),
    }
    for (_, domain, _) in world.catalogued() {
        cluster.await_reach(&domain, &[world.host]);
    }
    world.check();
    nothing_is_open(&world.sdm);
    eprintln!("     {phase}; the log was at entry {dead_at} of the operation when {victim} was dead");
    dead_at == after
}

/// How the transaction ended; "unknown" when there is none.
fn outcome(world: &World, id: &str) -> String {
    until("the transaction has ended", || {
        let shown = world.sdm.run(&["txn", "show", id]);
        if shown.code == 3 {
            return Ok("unknown".to_owned());
        }
        let txn = shown.result();
        let phase = text_of(&txn, "phase").to_owned();
        let ended = ["committed", "aborted", "refused"].contains(&phase.as_str());
        if ended { Ok(phase) } else { Err(txn.to_string()) }
    })
}

/// The entries in which something happens to disks and what lies beneath, as one member tells them.
struct Entries {
    runtime: tokio::runtime::Runtime,
    stream: tonic::Streaming<v1::WatchEventsResponse>,
    seen: Vec<u64>,
}

impl Entries {
    /// From now on.
    fn of(cluster: &Cluster, member: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        let endpoint = format!("http://{}", cluster.address_of(member));
        let stream = runtime.block_on(async {
            let channel = tonic::transport::Endpoint::new(endpoint).expect("an address").connect_lazy();
            let mut client = EventServiceClient::new(channel);
            let once = v1::WatchEventsRequest { since_index: None, kind: String::new(), once: true };
            let mut past = client.watch_events(once).await.expect("events are told").into_inner();
            let mut now = 0;
            while let Some(told) = past.message().await.expect("events are told") {
                now = told.index;
            }
            let request = v1::WatchEventsRequest { since_index: Some(now), kind: String::new(), once: false };
            client.watch_events(request).await.expect("events are told").into_inner()
        });
        Self { runtime, stream, seen: Vec::new() }
    }

    /// Waits until so many entries have happened; an operation may end before that.
    fn await_entry(&mut self, number: usize) {
        let deadline = Instant::now() + ENTRY_PATIENCE;
        while self.seen.len() < number && self.next(deadline) {}
    }

    /// How many are known already.
    fn so_far(&mut self) -> usize {
        while self.next(Instant::now() + Duration::from_millis(5)) {}
        self.seen.len()
    }

    /// How many there were until now: all that is told without waiting.
    fn until_now(&mut self) -> usize {
        while self.next(Instant::now() + Duration::from_millis(500)) {}
        self.seen.len()
    }

    /// Takes what is told next; false when nothing is.
    fn next(&mut self, deadline: Instant) -> bool {
        let told = self.runtime.block_on(async {
            let wait = deadline.saturating_duration_since(Instant::now());
            tokio::time::timeout(wait, self.stream.message()).await
        });
        let Ok(Ok(Some(told))) = told else { return false };
        for event in told.events {
            let ours = ["txn-", "attempt-", "disk-", "placement-", "garbage-", "domain-", "attachment-"];
            if ours.iter().any(|kind| event.kind.starts_with(kind)) && self.seen.last() != Some(&event.index) {
                self.seen.push(event.index);
            }
        }
        true
    }
}
