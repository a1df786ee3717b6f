//! Random histories of locks as a cluster that keeps every promise would leave them: to measure the checkers, and to
//! test that they accept what is right. Each operation takes effect at one moment between its events; some are not
//! answered, and take effect late or never; leases run out under living holders.

use crate::history::Event;
use crate::history::Kind;
use crate::history::Process;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use serde_json::json;
use std::collections::BTreeMap;

/// The lease of a session.
const TTL_MS: u64 = 40;

/// Of a thousand answers, those that are lost.
const LOST: u32 = 12;

/// How large a history.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// What all choices follow from.
    pub seed: u64,
    /// Operations, about.
    pub operations: usize,
    /// Clients.
    pub processes: usize,
    /// Locks.
    pub keys: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Op {
    Open,
    KeepAlive,
    Close,
    Acquire(usize),
    Release(usize),
    Locks,
}

#[derive(Clone, Debug)]
enum Stage {
    Idle,
    Asked(Op),
    Effective(Op, Kind, Value),
}

#[derive(Clone, Debug)]
struct Client {
    session: Option<u64>,
    sequence: u64,
    /// An answer was lost: the session is closed before anything else.
    unsure: bool,
    stage: Stage,
}

#[derive(Debug)]
struct Cluster {
    index: u64,
    /// Renewed when, by session.
    sessions: BTreeMap<u64, u64>,
    /// (session, token) by lock.
    held: Vec<Option<(u64, u64)>>,
    /// Requests without an answer that are still on their way.
    late: Vec<(u64, Op)>,
}

struct Recorder {
    random: StdRng,
    now: u64,
    events: Vec<Event>,
    clients: Vec<Client>,
    cluster: Cluster,
    asked: usize,
    keys: usize,
}

impl Sample {
    /// Its events.
    pub fn events(self) -> Vec<Event> {
        let client = Client { session: None, sequence: 0, unsure: false, stage: Stage::Idle };
        let held = vec![None; self.keys];
        let mut recorder = Recorder {
            random: StdRng::seed_from_u64(self.seed),
            now: 0,
            events: Vec::new(),
            clients: vec![client; self.processes],
            cluster: Cluster { index: 0, sessions: BTreeMap::new(), held, late: Vec::new() },
            asked: 0,
            keys: self.keys,
        };
        while recorder.asked < self.operations {
            recorder.now += recorder.random.random_range(1_000..200_000);
            recorder.background();
            let number = recorder.random.random_range(0..self.processes);
            recorder.step(number);
        }
        recorder.events
    }
}

impl Cluster {
    fn end(&mut self, session: u64) {
        self.sessions.remove(&session);
        self.late.retain(|(of, _)| *of != session);
        for held in &mut self.held {
            held.take_if(|(of, _)| *of == session);
        }
    }

    /// Does it, at this moment.
    fn apply(&mut self, op: &Op, session: u64, asked_at: u64) -> (Kind, Value) {
        self.index += 1;
        match op {
            Op::Open => {
                self.sessions.insert(self.index, asked_at);
                (Kind::Ok, json!({ "session": self.index, "ttl_ms": TTL_MS }))
            }
            Op::Close => {
                self.end(session);
                (Kind::Ok, Value::Null)
            }
            Op::Locks => {
                let names: Vec<String> = (0..self.held.len()).map(resource).collect();
                let rows = self.held.iter().enumerate().filter_map(|(key, held)| {
                    let (session, token) = (*held)?;
                    Some((resource(key), json!({ "session": session, "token": words(token) })))
                });
                let held: serde_json::Map<String, Value> = rows.collect();
                (Kind::Ok, json!({ "names": names, "held": held, "revision": self.index }))
            }
            _ if !self.sessions.contains_key(&session) => (Kind::Fail, json!("SESSION_OVER")),
            Op::KeepAlive => {
                self.sessions.insert(session, asked_at);
                (Kind::Ok, Value::Null)
            }
            Op::Acquire(key) => match self.held.get_mut(*key) {
                Some(held) if held.is_none() => {
                    *held = Some((session, self.index));
                    (Kind::Ok, json!({ "token": words(self.index), "lock": self.index.to_string() }))
                }
                _ => (Kind::Fail, json!("LOCKED")),
            },
            Op::Release(key) => match self.held.get_mut(*key).and_then(|held| held.take_if(|held| held.0 == session)) {
                Some(_) => (Kind::Ok, Value::Null),
                None => (Kind::Fail, json!("NOT_HELD")),
            },
        }
    }
}

fn resource(key: usize) -> String {
    format!("user/{key}")
}

fn words(index: u64) -> String {
    format!("1-{index}-0")
}

impl Recorder {
    /// What happens by itself: late requests arrive, leases run out.
    fn background(&mut self) {
        if !self.cluster.late.is_empty() && self.random.random_range(0..20) == 0 {
            let (session, op) = self.cluster.late.swap_remove(0);
            self.cluster.apply(&op, session, 0);
        }
        let over = |renewed: u64| renewed + TTL_MS * 1_000_000 <= self.now;
        let over = self.cluster.sessions.iter().find(|(_, renewed)| over(**renewed)).map(|(session, _)| *session);
        if let Some(session) = over.filter(|_| self.random.random_range(0..4) == 0) {
            self.cluster.end(session);
        }
    }

    fn step(&mut self, number: usize) {
        let Some(mut client) = self.clients.get(number).cloned() else { return };
        client.stage = match client.stage {
            Stage::Idle => {
                let op = self.choose(&client);
                let asked = self.words_of(&op, &mut client);
                self.event(Kind::Invoke, number, &op, asked);
                self.asked += 1;
                Stage::Asked(op)
            }
            Stage::Asked(op) if self.is_lost(&op) => {
                let late = client.session.filter(|_| self.random.random_range(0..2) == 0);
                self.cluster.late.extend(late.map(|session| (session, op.clone())));
                client.unsure = true;
                self.event(Kind::Info, number, &op, json!("no answer"));
                Stage::Idle
            }
            Stage::Asked(op) => {
                let asked_at = self.asked_at(number);
                let (kind, told) = self.cluster.apply(&op, client.session.unwrap_or_default(), asked_at);
                Stage::Effective(op, kind, told)
            }
            Stage::Effective(op, _, _) if self.is_lost(&op) => {
                client.unsure = true;
                self.event(Kind::Info, number, &op, json!("no answer"));
                Stage::Idle
            }
            Stage::Effective(op, kind, told) => {
                match (&op, kind) {
                    (Op::Open, _) => (client.session, client.sequence) = (told["session"].as_u64(), 0),
                    (Op::Close, _) => (client.session, client.unsure) = (None, false),
                    (_, Kind::Fail) if told == "SESSION_OVER" => client.session = None,
                    _ => {}
                }
                self.event(kind, number, &op, told);
                Stage::Idle
            }
        };
        if let Some(place) = self.clients.get_mut(number) {
            *place = client;
        }
    }

    fn is_lost(&mut self, op: &Op) -> bool {
        matches!(op, Op::Acquire(_) | Op::Release(_) | Op::Locks) && self.random.random_range(0..1_000) < LOST
    }

    /// When the client asked for what it is doing: its last event.
    fn asked_at(&self, number: usize) -> u64 {
        let own = Process::Number(number as u64);
        self.events.iter().rev().find(|event| event.process == own).map_or(0, |event| event.time)
    }

    fn choose(&mut self, client: &Client) -> Op {
        let Some(session) = client.session else { return Op::Open };
        if client.unsure {
            return Op::Close;
        }
        let key = self.random.random_range(0..self.keys);
        let own: Vec<usize> = (0..self.keys)
            .filter(|key| self.cluster.held.get(*key).is_some_and(|held| held.is_some_and(|held| held.0 == session)))
            .collect();
        match self.random.random_range(0..100) {
            0..12 => Op::KeepAlive,
            12..22 => Op::Locks,
            22..24 => Op::Close,
            dice if dice < 75 || own.is_empty() => Op::Acquire(key),
            _ => Op::Release(own.get(key % own.len()).copied().unwrap_or(key)),
        }
    }

    fn words_of(&mut self, op: &Op, client: &mut Client) -> Value {
        if matches!(op, Op::Acquire(_) | Op::Release(_)) {
            client.sequence += 1;
            return json!({ "session": client.session, "sequence": client.sequence });
        }
        json!({ "session": client.session })
    }

    fn event(&mut self, kind: Kind, number: usize, op: &Op, value: Value) {
        let (f, key) = match op {
            Op::Open => ("open", String::new()),
            Op::KeepAlive => ("keepalive", String::new()),
            Op::Close => ("close", String::new()),
            Op::Acquire(key) => ("acquire", resource(*key)),
            Op::Release(key) => ("release", resource(*key)),
            Op::Locks => ("locks", String::new()),
        };
        let (index, process) = (self.events.len() as u64, Process::Number(number as u64));
        self.events.push(Event { index, time: self.now, kind, process, f: f.to_owned(), key, value });
    }
}
