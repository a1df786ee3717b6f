//! Histories of a register, a queue and locks that are known to be right or wrong, or whose difficulty is that an
//! outcome is not known.

use super::brute_force::is_linearizable;
use super::intervals::Ends;
use super::intervals::Interval;
use super::intervals::Model;
use super::judge::Judgement;
use super::judge::judge;
use super::trial::Verdict;
use super::wgl::search;
use crate::history::Event;
use crate::history::Kind;
use crate::history::Process;
use crate::history::Promise;
use serde_json::Value;
use serde_json::json;
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RegisterOp {
    Write(i8),
    Read(i8),
    /// From, to, and whether it was told to have been done; none where nobody was told.
    Cas(i8, i8, Option<bool>),
}

/// A register that holds 0 at first.
pub struct Register;

impl Model for Register {
    type State = i8;
    type Op = RegisterOp;

    fn initial(&self) -> i8 {
        0
    }

    fn only_looks(&self, op: &RegisterOp) -> bool {
        matches!(op, RegisterOp::Read(_))
    }

    fn apply(&self, state: &i8, op: &RegisterOp) -> Option<i8> {
        match *op {
            RegisterOp::Write(value) => Some(value),
            RegisterOp::Read(value) => (value == *state).then_some(*state),
            RegisterOp::Cas(from, to, told) => {
                let done = from == *state;
                (told.is_none_or(|told| told == done)).then_some(if done { to } else { *state })
            }
        }
    }
}

/// A queue: (true, x) puts x in, (false, x) takes x out.
struct Queue;

impl Model for Queue {
    type State = VecDeque<u8>;
    type Op = (bool, u8);

    fn initial(&self) -> VecDeque<u8> {
        VecDeque::new()
    }

    fn only_looks(&self, _: &(bool, u8)) -> bool {
        false
    }

    fn apply(&self, state: &VecDeque<u8>, (enters, x): &(bool, u8)) -> Option<VecDeque<u8>> {
        let mut after = state.clone();
        if *enters {
            after.push_back(*x);
        } else if after.pop_front() != Some(*x) {
            return None;
        }
        Some(after)
    }
}

fn at<O>(begins: u64, ends: u64, op: O) -> Interval<O> {
    Interval { op, begins, ends: Ends::At(ends), label: format!("[{begins}]") }
}

fn lost<O>(begins: u64, op: O) -> Interval<O> {
    Interval { op, begins, ends: Ends::Never, label: format!("[{begins}]") }
}

fn agree<M: Model>(model: &M, ops: &[Interval<M::Op>]) -> bool {
    let verdict = search(model, ops, 100_000);
    let found = verdict == Verdict::Linearizable;
    assert_eq!(found, is_linearizable(model, ops), "{verdict:?} of {ops:?}");
    found
}

#[test]
fn queues_of_herlihy_and_wing_are_judged_as_they_are_there() {
    // Two processes enqueue at once; either may have been first.
    let good = [at(0, 3, (true, 1)), at(1, 2, (true, 2)), at(4, 5, (false, 2)), at(6, 9, (false, 1))];
    assert!(agree(&Queue, &good));
    // x was in before y was asked for, and y comes out first.
    let bad = [at(0, 1, (true, 1)), at(2, 3, (true, 2)), at(4, 5, (false, 2))];
    assert!(!agree(&Queue, &bad));
    // Taken out while it was still being put in.
    assert!(agree(&Queue, &[at(0, 5, (true, 1)), at(2, 3, (false, 1))]));
    // One x, taken out twice.
    assert!(!agree(&Queue, &[at(0, 1, (true, 1)), at(2, 5, (false, 1)), at(3, 4, (false, 1))]));
}

#[test]
fn a_write_without_an_answer_may_be_read_at_any_later_time_and_then_not_be_gone_again() {
    use RegisterOp::Read;
    use RegisterOp::Write;
    let crashed = |reads: &[i8]| {
        let mut ops = vec![lost(0, Write(3))];
        ops.extend(reads.iter().zip(1..).map(|(value, n)| at(n * 2, n * 2 + 1, Read(*value))));
        agree(&Register, &ops)
    };
    assert!(crashed(&[0, 0]));
    assert!(crashed(&[3, 3]));
    assert!(crashed(&[0, 0, 3]));
    assert!(!crashed(&[3, 0]));
}

#[test]
fn reads_of_what_was_never_written_and_stale_reads_are_refused() {
    use RegisterOp::Read;
    use RegisterOp::Write;
    // Of what a write that failed would have left.
    let minimal = [at(0, 1, Write(1)), at(2, 5, Read(3)), at(3, 6, Write(4)), at(7, 8, Read(4))];
    assert!(!agree(&Register, &minimal));
    // Two reads, one after the other, beside a write: new, and then old.
    assert!(!agree(&Register, &[at(0, 9, Write(1)), at(1, 2, Read(1)), at(3, 4, Read(0))]));
    assert!(agree(&Register, &[at(0, 9, Write(1)), at(1, 2, Read(0)), at(3, 4, Read(1))]));
}

#[test]
fn compare_and_set_orders_what_nothing_else_does() {
    use RegisterOp::Cas;
    let both = [at(0, 9, Cas(0, 1, Some(true))), at(1, 8, Cas(1, 2, Some(true))), at(2, 7, Cas(0, 1, Some(false)))];
    assert!(agree(&Register, &both));
    let twice = [at(0, 9, Cas(0, 1, Some(true))), at(1, 8, Cas(0, 2, Some(true)))];
    assert!(!agree(&Register, &twice));
    // The one without an answer must have come between.
    let between = [at(0, 1, Cas(0, 1, Some(true))), lost(2, Cas(1, 0, None)), at(3, 4, Cas(0, 2, Some(true)))];
    assert!(agree(&Register, &between));
}

#[test]
fn what_lapsed_cannot_take_effect_later() {
    use RegisterOp::Read;
    use RegisterOp::Write;
    let lapsing = |place| Interval { ends: Ends::LapsesAt(place), ..lost(0, Write(3)) };
    assert!(agree(&Register, &[lapsing(3), at(4, 5, Read(0))]));
    assert!(agree(&Register, &[lapsing(3), at(4, 5, Read(3))]), "it took effect before");
    assert!(!agree(&Register, &[lapsing(3), at(4, 5, Read(0)), at(6, 7, Read(3))]));
    assert!(agree(&Register, &[lapsing(5), at(4, 6, Read(0)), at(7, 8, Read(3))]));
}

#[test]
fn a_violation_is_told_with_the_shortest_prefix_and_the_longest_order() {
    use RegisterOp::Read;
    use RegisterOp::Write;
    let mut ops: Vec<_> = (1_i8..=20).map(|n| at(n as u64 * 10, n as u64 * 10 + 1, Write(n))).collect();
    ops.push(at(152, 153, Read(14)));
    ops.push(at(155, 400, Write(99)));
    let Verdict::Violated(why) = search(&Register, &ops, 100_000) else { panic!("a stale read is accepted") };
    assert_eq!(why.place, 153);
    assert!(why.stuck.contains("Read(14)"), "{why}");
    assert_eq!((why.earlier, why.order.len()), (7, 8), "{why}");
    assert!(why.order.last().is_some_and(|last| last.contains("Write(15)")), "{why}");
    assert!(why.to_string().contains("the state is 15"), "{why}");
}

#[test]
fn a_search_that_comes_to_its_limit_says_that_it_does_not_know() {
    let ops: Vec<_> =
        (0..12).map(|n| at(0, 100, RegisterOp::Write(n))).chain([at(0, 100, RegisterOp::Read(77))]).collect();
    assert_eq!(search(&Register, &ops, 500), Verdict::Unknown { steps: 500 });
}

fn story(lines: &[(u64, &str, &str, &str, &str, Value)]) -> Judgement {
    let events: Vec<Event> = lines
        .iter()
        .enumerate()
        .map(|(index, (ms, kind, process, f, key, value))| Event {
            index: index as u64,
            time: ms * 1_000_000,
            kind: serde_json::from_value(json!(kind)).unwrap_or(Kind::Info),
            process: Process::of(process),
            f: (*f).to_owned(),
            key: (*key).to_owned(),
            value: value.clone(),
        })
        .collect();
    judge(&events, 100_000)
}

fn promises(judgement: &Judgement) -> Vec<Promise> {
    assert_eq!(judgement.unknown, Vec::<String>::new());
    judgement.broken.iter().map(|(promise, _)| *promise).collect()
}

/// Session 7 of client a takes r with token 11 at once; its lease of 3 s is renewed at 1 s.
fn held() -> Vec<(u64, &'static str, &'static str, &'static str, &'static str, Value)> {
    vec![
        (0, "invoke", "a", "open", "", json!(null)),
        (1, "ok", "a", "open", "", json!({ "session": 7, "ttl_ms": 3_000 })),
        (2, "invoke", "a", "acquire", "r", json!({ "session": 7, "sequence": 1 })),
        (3, "ok", "a", "acquire", "r", json!({ "token": "1-11-0", "lock": "11" })),
        (1_000, "invoke", "a", "keepalive", "", json!({ "session": 7 })),
        (1_001, "ok", "a", "keepalive", "", json!(null)),
    ]
}

#[test]
fn a_lock_is_granted_to_another_when_a_lease_may_have_run_out_and_not_before() {
    for (asked, answered, right) in [(3_100, 3_900, false), (3_100, 4_100, true), (4_100, 4_200, true)] {
        let mut lines = held();
        lines.push((asked, "invoke", "b", "acquire", "r", json!({ "session": 8, "sequence": 1 })));
        lines.push((answered, "ok", "b", "acquire", "r", json!({ "token": "1-12-0", "lock": "12" })));
        let expected = if right { vec![] } else { vec![Promise::Linearizable] };
        assert_eq!(promises(&story(&lines)), expected, "asked at {asked}, granted by {answered}");
    }
}

#[test]
fn a_token_that_goes_back_is_seen_by_the_look_and_by_the_search() {
    let mut lines = held();
    lines.push((2_000, "invoke", "a", "release", "r", json!({ "session": 7, "sequence": 2, "lock": "11" })));
    lines.push((2_001, "ok", "a", "release", "r", json!(null)));
    lines.push((2_002, "invoke", "b", "acquire", "r", json!({ "session": 8, "sequence": 1 })));
    lines.push((2_003, "ok", "b", "acquire", "r", json!({ "token": "1-10-0", "lock": "10" })));
    assert_eq!(promises(&story(&lines)), [Promise::Tokens, Promise::Linearizable]);
    lines.pop();
    lines.push((2_003, "ok", "b", "acquire", "r", json!({ "token": "1-11-0", "lock": "11" })));
    assert_eq!(promises(&story(&lines)), [Promise::Tokens, Promise::Linearizable], "given twice");
}

#[test]
fn a_release_without_an_answer_may_have_freed_the_lock_or_not() {
    for told in [("ok", json!({ "token": "1-12-0", "lock": "12" })), ("fail", json!("LOCKED"))] {
        let mut lines = held();
        lines.push((2_000, "invoke", "a", "release", "r", json!({ "session": 7, "sequence": 2, "lock": "11" })));
        lines.push((2_001, "info", "a", "release", "r", json!("no answer")));
        lines.push((2_002, "invoke", "b", "acquire", "r", json!({ "session": 8, "sequence": 1 })));
        lines.push((2_003, told.0, "b", "acquire", "r", told.1));
        assert_eq!(promises(&story(&lines)), []);
    }
}

#[test]
fn a_request_that_a_later_one_of_its_session_overtook_takes_no_effect_any_more() {
    let mut lines = held();
    lines.push((1_100, "invoke", "a", "acquire", "q", json!({ "session": 7, "sequence": 2 })));
    lines.push((1_101, "info", "a", "acquire", "q", json!("no answer")));
    let unsure = lines.clone();
    lines.push((1_102, "invoke", "a", "release", "r", json!({ "session": 7, "sequence": 3, "lock": "11" })));
    lines.push((1_103, "ok", "a", "release", "r", json!(null)));
    let others = [
        (1_104, "invoke", "b", "acquire", "q", json!({ "session": 8, "sequence": 1 })),
        (1_105, "ok", "b", "acquire", "q", json!({ "token": "1-13-0", "lock": "13" })),
        (1_106, "invoke", "b", "release", "q", json!({ "session": 8, "sequence": 2, "lock": "13" })),
        (1_107, "ok", "b", "release", "q", json!(null)),
        (1_108, "invoke", "b", "acquire", "q", json!({ "session": 8, "sequence": 3 })),
        (1_109, "fail", "b", "acquire", "q", json!("LOCKED")),
    ];
    lines.extend(others.clone());
    assert_eq!(promises(&story(&lines)), [Promise::Linearizable], "nobody can have it");
    let mut lines = unsure;
    lines.extend(others);
    assert_eq!(promises(&story(&lines)), [], "session 7 may have it by now");
}

#[test]
fn a_list_of_locks_shows_who_has_them_now() {
    let list = |held: Value| json!({ "names": ["r"], "held": held, "revision": 20 });
    for (shown, right) in [
        (json!({ "r": { "session": 7, "token": "1-11-0" } }), true),
        (json!({}), false),
        (json!({ "r": { "session": 8, "token": "1-11-0" } }), false),
        (json!({ "r": { "session": 7, "token": "1-9-0" } }), false),
    ] {
        let mut lines = held();
        lines.push((1_002, "invoke", "c", "locks", "", json!(null)));
        lines.push((1_003, "ok", "c", "locks", "", list(shown.clone())));
        let expected = if right { vec![] } else { vec![Promise::Linearizable] };
        assert_eq!(promises(&story(&lines)), expected, "{shown}");
    }
}

#[test]
fn a_state_that_is_older_than_what_was_told_before_is_seen_and_beside_it_is_not() {
    for (asked, right) in [(4, false), (2, true)] {
        let mut lines = vec![
            (0, "invoke", "a", "acquire", "r", json!({ "session": 7, "sequence": 1 })),
            (3, "ok", "a", "acquire", "r", json!({ "token": "1-11-0", "lock": "11" })),
            (asked, "invoke", "c", "show", "d", json!(null)),
            (5, "ok", "c", "show", "d", json!({ "disk": null, "revision": 10, "member": "m2" })),
        ];
        lines.sort_by_key(|(ms, ..)| *ms);
        let expected = if right { vec![] } else { vec![Promise::Linearizable] };
        assert_eq!(promises(&story(&lines)), expected);
    }
}

#[test]
fn a_repeated_request_that_is_answered_otherwise_is_seen() {
    for (again, right) in [("committed", true), ("ABORTED", false)] {
        let lines = [
            (0, "invoke", "a", "create", "d", json!({ "id": "x", "domain": "east" })),
            (1, "ok", "a", "create", "d", json!({ "id": "x", "told": "committed", "revision": 4 })),
            (2, "invoke", "a", "repeat", "d", json!({ "id": "x" })),
            (3, "ok", "a", "repeat", "d", json!({ "id": "x", "told": again, "revision": 4 })),
        ];
        let expected = if right { vec![] } else { vec![Promise::Idempotent] };
        assert_eq!(promises(&story(&lines)), expected);
    }
}

#[test]
fn disks_are_shown_as_they_were_left_through_renames_moves_and_snapshots() {
    let disk = |domain: &str, snapshots: &[&str]| json!({ "id": "1", "domain": domain, "snapshots": snapshots });
    let lines = |seen: Value| {
        vec![
            (0, "invoke", "a", "create", "d", json!({ "id": "x1", "domain": "east" })),
            (1, "ok", "a", "create", "d", json!({ "id": "x1", "told": "committed" })),
            (2, "invoke", "a", "snapshot", "d", json!({ "id": "x2", "snapshot": "s" })),
            (3, "ok", "a", "snapshot", "d", json!({ "id": "x2", "told": "committed" })),
            (4, "invoke", "a", "rename", "d", json!({ "id": "x3", "to": "e" })),
            (5, "ok", "a", "rename", "d", json!({ "id": "x3", "told": "committed" })),
            (6, "invoke", "a", "move", "e", json!({ "id": "x4", "to": "west" })),
            (7, "info", "a", "move", "e", json!({ "id": "x4", "told": "no answer" })),
            (8, "invoke", "b", "show", "e", json!(null)),
            (9, "ok", "b", "show", "e", json!({ "disk": seen, "revision": 9 })),
            (10, "invoke", "b", "show", "d", json!(null)),
            (11, "ok", "b", "show", "d", json!({ "disk": null, "revision": 9 })),
        ]
    };
    assert_eq!(promises(&story(&lines(disk("east", &["s"])))), []);
    assert_eq!(promises(&story(&lines(disk("west", &["s"])))), []);
    for wrong in [disk("north", &["s"]), disk("east", &[]), Value::Null] {
        assert_eq!(promises(&story(&lines(wrong.clone()))), [Promise::Linearizable], "{wrong}");
    }
}

#[test]
fn a_history_without_its_beginning_is_not_judged() {
    let first = Event {
        index: 5,
        time: 0,
        kind: Kind::Ok,
        process: Process::Number(1),
        f: "acquire".into(),
        key: "r".into(),
        value: Value::Null,
    };
    let judgement = judge(&[first], 10);
    assert_eq!((judgement.broken.len(), judgement.unknown.len()), (0, 1));
}
