//! Random histories: right ones are accepted, broken ones are refused, and on thousands of small ones the search says
//! what a judge says that tries every order.

use super::brute_force::is_linearizable;
use super::catalog_model::CatalogModel;
use super::catalog_model::CatalogOp;
use super::catalog_model::Disk;
use super::intervals::Ends;
use super::intervals::Interval;
use super::intervals::Model;
use super::judge::judge;
use super::literature::Register;
use super::literature::RegisterOp;
use super::lock_model::Holder;
use super::lock_model::LockModel;
use super::lock_model::LockOp;
use super::sample::Sample;
use super::trial::Verdict;
use super::wgl::search;
use crate::history::Event;
use crate::history::Kind;
use crate::history::Promise;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sdm_proto::token::Token;
use serde_json::json;

/// Small histories of each model.
const SMALL: u64 = 4_000;

fn small<O>(random: &mut StdRng, count: usize, mut op: impl FnMut(&mut StdRng) -> O) -> Vec<Interval<O>> {
    let mut interval = |random: &mut StdRng| {
        let begins = random.random_range(0..20);
        let ends = begins + random.random_range(1..12);
        let ends = match random.random_range(0..10) {
            0 => Ends::Never,
            1 => Ends::LapsesAt(ends),
            _ => Ends::At(ends),
        };
        Interval { op: op(random), begins, ends, label: String::new() }
    };
    (0..count).map(|_| interval(random)).collect()
}

/// Both judges on each; answers with how many are right.
fn compare<M: Model>(model: &M, mut op: impl FnMut(&mut StdRng) -> M::Op) -> u64 {
    let mut right = 0;
    for seed in 0..SMALL {
        let mut random = StdRng::seed_from_u64(seed);
        let count = random.random_range(2..=7);
        let ops = small(&mut random, count, &mut op);
        let expected = is_linearizable(model, &ops);
        match search(model, &ops, 1_000_000) {
            Verdict::Linearizable => assert!(expected, "seed {seed}: accepted, and there is no order: {ops:?}"),
            Verdict::Violated(why) => {
                assert!(!expected, "seed {seed}: refused ({why}), and there is an order: {ops:?}");
                the_prefix_is_the_shortest(model, &ops, why.place);
            }
            Verdict::Unknown { .. } => panic!("seed {seed}: undecided: {ops:?}"),
        }
        right += u64::from(expected);
    }
    right
}

/// Up to this answer there is no order; up to the one before there is.
fn the_prefix_is_the_shortest<M: Model>(model: &M, ops: &[Interval<M::Op>], place: u64) {
    let cut = |last: u64| -> Vec<usize> { (0..ops.len()).filter(|op| ops[*op].begins <= last).collect() };
    let judged = |last: u64| {
        let kept: Vec<Interval<&M::Op>> = cut(last)
            .into_iter()
            .map(|op| Interval {
                op: &ops[op].op,
                begins: ops[op].begins,
                ends: match ops[op].ends {
                    Ends::At(place) if place > last => Ends::Never,
                    ends => ends,
                },
                label: String::new(),
            })
            .collect();
        is_linearizable(&Borrowed(model), &kept)
    };
    assert!(!judged(place));
    assert!(place == 0 || judged(place - 1));
}

/// The same model of borrowed operations.
struct Borrowed<'a, M>(&'a M);

impl<'a, M: Model> Model for Borrowed<'a, M> {
    type State = M::State;
    type Op = &'a M::Op;

    fn initial(&self) -> M::State {
        self.0.initial()
    }

    fn only_looks(&self, op: &&'a M::Op) -> bool {
        self.0.only_looks(op)
    }

    fn apply(&self, state: &M::State, op: &&'a M::Op) -> Option<M::State> {
        self.0.apply(state, op)
    }
}

fn balanced(right: u64) {
    assert!((SMALL / 20..SMALL - SMALL / 20).contains(&right), "{right} of {SMALL} are right: too few of one kind");
}

#[test]
fn the_search_says_of_registers_what_every_order_says() {
    balanced(compare(&Register, |random| {
        let value = |random: &mut StdRng| random.random_range(0..3);
        match random.random_range(0..5) {
            0 | 1 => RegisterOp::Write(value(random)),
            2 | 3 => RegisterOp::Read(value(random)),
            _ => {
                let (from, to) = (value(random), value(random));
                RegisterOp::Cas(from, to, [None, Some(true), Some(false)][random.random_range(0..3)])
            }
        }
    }));
}

#[test]
fn the_search_says_of_locks_what_every_order_says() {
    balanced(compare(&LockModel, |random| {
        let session = ["a", "b"][random.random_range(0..2)].to_owned();
        let token = Token { epoch: 1, index: random.random_range(1..6), ordinal: 0 };
        let token = (random.random_range(0..4) > 0).then_some(token);
        match random.random_range(0..8) {
            0..3 => LockOp::Acquire(Holder { session, lock: None, token }),
            3 => LockOp::Locked,
            4 | 5 => LockOp::Release { session, lock: None },
            6 => LockOp::End { session, closed: false },
            _ => LockOp::Read((random.random_range(0..2) == 0).then_some(Holder { session, lock: None, token })),
        }
    }));
}

#[test]
fn the_search_says_of_disks_what_every_order_says() {
    balanced(compare(&CatalogModel, |random| {
        let name = ["d", "e"][random.random_range(0..2)].to_owned();
        let to = ["e", "d"][random.random_range(0..2)].to_owned();
        let domain = "east".to_owned();
        match random.random_range(0..8) {
            0..3 => CatalogOp::Create { name, domain },
            3 => CatalogOp::Delete { name },
            4 => CatalogOp::Rename { name, to },
            5 => CatalogOp::Move { name, to: domain },
            _ => {
                let seen = Disk { domain, ..Disk::default() };
                CatalogOp::Read { name, seen: (random.random_range(0..2) == 0).then_some(seen) }
            }
        }
    }));
}

fn sample(seed: u64) -> Vec<Event> {
    Sample { seed, operations: 400, processes: 8, keys: 3 }.events()
}

#[test]
fn histories_of_a_cluster_that_keeps_its_promises_are_accepted() {
    let (mut unknown, mut ordered) = (0, 0);
    for seed in 0..150 {
        let events = sample(seed);
        unknown += events.iter().filter(|event| event.kind == Kind::Info).count();
        let judgement = judge(&events, 1_000_000);
        assert_eq!((judgement.broken, judgement.unknown), (vec![], vec![]), "seed {seed}");
        ordered += judgement.ordered;
    }
    assert!(unknown > 500 && ordered > 30_000, "{unknown} unknown, {ordered} in order: these histories show little");
}

/// An event of this kind in the second half, chosen by the seed.
fn choose<'a>(events: &'a mut [Event], seed: u64, f: &str, kind: Kind) -> Option<&'a mut Event> {
    let half = events.len() / 2;
    let mut fitting: Vec<&'a mut Event> =
        events.iter_mut().skip(half).filter(|event| event.f == f && event.kind == kind).collect();
    let at = usize::try_from(seed).unwrap_or(0).checked_rem(fitting.len())?;
    Some(fitting.swap_remove(at))
}

#[test]
fn one_wrong_answer_in_a_history_is_found() {
    for seed in 0..60 {
        let broken = |change: fn(&mut Event), f: &str, kind: Kind| {
            let mut events = sample(seed);
            change(choose(&mut events, seed, f, kind).expect("there are some"));
            judge(&events, 1_000_000).broken.into_iter().map(|(promise, _)| promise).collect::<Vec<_>>()
        };
        let old_token = |event: &mut Event| event.value["token"] = json!("1-1-0");
        assert!(broken(old_token, "acquire", Kind::Ok).contains(&Promise::Linearizable), "seed {seed}: an old token");
        let nobody = |event: &mut Event| event.value["held"]["user/0"] = json!({ "session": 0, "token": "1-1-0" });
        assert!(broken(nobody, "locks", Kind::Ok).contains(&Promise::Linearizable), "seed {seed}: held by nobody");
        let stale = |event: &mut Event| event.value["revision"] = json!(1);
        assert_eq!(broken(stale, "locks", Kind::Ok), [Promise::Linearizable], "seed {seed}: an old state");
    }
}
