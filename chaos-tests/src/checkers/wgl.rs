//! The search of Wing and Gong, with Lowe's memory of what was tried: is there one order of the operations, each
//! within its interval, that the sequential object allows with the results that were told?
//!
//! The search walks from answer to answer. Before it passes one, the operation that was answered must have taken
//! effect; operations that are open there may have, too. Which of them did, at which answer, in which state, is all that
//! the rest depends on: each such point is tried once. So the search also knows the first answer that it cannot pass in
//! any way, and the history up to there is the shortest without an order.

use super::intervals::Ends;
use super::intervals::Interval;
use super::intervals::Model;
use super::trial::Verdict;
use super::trial::Violation;
use std::collections::HashSet;

/// Operations of the longest order that are shown, the last ones.
const ORDER_SHOWN: usize = 8;

/// Open operations that are shown.
const OPEN_SHOWN: usize = 6;

/// An answer, or the place where an operation that was not answered can take effect no more.
#[derive(Clone, Copy, Debug)]
struct Barrier {
    place: u64,
    op: usize,
    /// Whether it may be passed though the operation never took effect.
    optional: bool,
}

/// One way in which the search can go on.
#[derive(Clone, Copy, Debug)]
enum Choice {
    /// The operation of the barrier never took effect.
    Lapse,
    /// This one takes effect now.
    Take(usize),
}

/// A point of the search.
struct Point<S> {
    /// The next barrier.
    barrier: usize,
    /// Operations that took effect and whose own barrier is not passed yet, sorted.
    taken: Vec<usize>,
    state: S,
    choices: Vec<Choice>,
    next: usize,
    /// Which operation led here, and from where, among `steps`.
    step: usize,
}

struct Search<'a, M: Model> {
    model: &'a M,
    ops: &'a [Interval<M::Op>],
    barriers: Vec<Barrier>,
    /// Operations that never lapse, by their beginning.
    lasting: Vec<usize>,
    /// For each barrier the operations with a barrier that are open there.
    open: Vec<Vec<usize>>,
    seen: HashSet<(usize, Vec<usize>, M::State)>,
    /// (step before, operation): the orders that were tried, as a tree.
    steps: Vec<(usize, usize)>,
    /// The farthest barrier, the step that led there, the state there.
    farthest: Option<(usize, usize, usize, M::State)>,
}

/// Searches, and gives up after so many operations were tried.
pub fn search<M: Model>(model: &M, ops: &[Interval<M::Op>], steps_max: u64) -> Verdict {
    let mut search = Search::new(model, ops);
    search.run(steps_max)
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, ops: &'a [Interval<M::Op>]) -> Self {
        let mut barriers: Vec<Barrier> = Vec::new();
        let mut lasting = Vec::new();
        for (op, interval) in ops.iter().enumerate() {
            match interval.ends {
                Ends::At(place) => barriers.push(Barrier { place, op, optional: false }),
                Ends::LapsesAt(place) => barriers.push(Barrier { place, op, optional: true }),
                Ends::Never => lasting.push(op),
            }
        }
        barriers.sort_by_key(|barrier| (barrier.place, barrier.op));
        lasting.sort_by_key(|op| (ops.get(*op).map(|interval| interval.begins), *op));
        let open = open_at(ops, &barriers);
        let (seen, steps) = (HashSet::new(), Vec::new());
        Self { model, ops, barriers, lasting, open, seen, steps, farthest: None }
    }

    fn run(&mut self, steps_max: u64) -> Verdict {
        const START: usize = usize::MAX;
        let mut tried = 0_u64;
        let mut stack = Vec::new();
        let initial = self.model.initial();
        let (barrier, taken, step) = self.pass(0, Vec::new(), &initial, START);
        match self.arrive(barrier, taken, initial, step) {
            Some(point) => stack.push(point),
            None => return Verdict::Linearizable,
        }
        while let Some(point) = stack.last_mut() {
            let Some(choice) = point.choices.get(point.next).copied() else {
                stack.pop();
                continue;
            };
            point.next += 1;
            let (barrier, step) = (point.barrier, point.step);
            let (barrier, taken, state, step) = match choice {
                Choice::Lapse => (barrier + 1, point.taken.clone(), point.state.clone(), step),
                Choice::Take(op) => {
                    tried += 1;
                    if tried > steps_max {
                        return Verdict::Unknown { steps: steps_max };
                    }
                    let Some(interval) = self.ops.get(op) else { continue };
                    let Some(state) = self.model.apply(&point.state, &interval.op) else { continue };
                    if state == point.state && !matches!(interval.ends, Ends::At(_)) {
                        // As if it never took effect.
                        continue;
                    }
                    let mut taken = point.taken.clone();
                    if let Err(at) = taken.binary_search(&op) {
                        taken.insert(at, op);
                    }
                    self.steps.push((step, op));
                    (barrier, taken, state, self.steps.len() - 1)
                }
            };
            let (barrier, taken, step) = self.pass(barrier, taken, &state, step);
            if barrier == self.barriers.len() {
                return Verdict::Linearizable;
            }
            if self.seen.insert((barrier, taken.clone(), state.clone()))
                && let Some(point) = self.arrive(barrier, taken, state, step)
            {
                stack.push(point);
            }
        }
        self.violated()
    }

    /// Passes the barriers of operations that took effect. An answered operation that only looks, is open and fits
    /// this state takes effect at once: in every order that goes on from here it can as well stand here.
    fn pass(
        &mut self,
        mut barrier: usize,
        mut taken: Vec<usize>,
        state: &M::State,
        mut step: usize,
    ) -> (usize, Vec<usize>, usize) {
        loop {
            while let Some(next) = self.barriers.get(barrier) {
                let Ok(at) = taken.binary_search(&next.op) else { break };
                taken.remove(at);
                barrier += 1;
            }
            let before = taken.len();
            for op in self.open.get(barrier).into_iter().flatten() {
                let (Some(interval), Err(at)) = (self.ops.get(*op), taken.binary_search(op)) else { continue };
                let answered = matches!(interval.ends, Ends::At(_)) && self.model.only_looks(&interval.op);
                if answered && self.model.apply(state, &interval.op).as_ref() == Some(state) {
                    taken.insert(at, *op);
                    self.steps.push((step, *op));
                    step = self.steps.len() - 1;
                }
            }
            if taken.len() == before {
                return (barrier, taken, step);
            }
        }
    }

    /// The point before this barrier; none when there is no barrier any more.
    fn arrive(&mut self, barrier: usize, taken: Vec<usize>, state: M::State, step: usize) -> Option<Point<M::State>> {
        let next = *self.barriers.get(barrier)?;
        let depth = taken.len();
        let farther = |(best, most, ..): &(usize, usize, usize, M::State)| (*best, *most) < (barrier, depth);
        if self.farthest.as_ref().is_none_or(farther) {
            self.farthest = Some((barrier, depth, step, state.clone()));
        }
        let mut choices = Vec::new();
        if next.optional {
            choices.push(Choice::Lapse);
        }
        let free = |op: &&usize| taken.binary_search(op).is_err();
        let open = self.open.get(barrier).into_iter().flatten();
        choices.extend(open.filter(free).map(|op| Choice::Take(*op)));
        let began = |op: &&usize| self.ops.get(**op).is_some_and(|interval| interval.begins <= next.place);
        choices.extend(self.lasting.iter().take_while(began).filter(free).map(|op| Choice::Take(*op)));
        Some(Point { barrier, taken, state, choices, next: 0, step })
    }

    fn label(&self, op: usize) -> String {
        self.ops.get(op).map(|interval| format!("{} {:?}", interval.label, interval.op)).unwrap_or_default()
    }

    fn violated(&self) -> Verdict {
        let Some((barrier, _, step, state)) = &self.farthest else { return Verdict::Linearizable };
        let Some(stuck) = self.barriers.get(*barrier) else { return Verdict::Linearizable };
        let (mut order, mut at) = (Vec::new(), *step);
        while let Some((before, op)) = self.steps.get(at) {
            order.push(*op);
            at = *before;
        }
        order.reverse();
        let lasting = self.lasting.iter().filter(|op| self.ops.get(**op).is_some_and(|one| one.begins <= stuck.place));
        let open: Vec<usize> = self.open.get(*barrier).into_iter().flatten().chain(lasting).copied().collect();
        let open: Vec<usize> = open.into_iter().filter(|op| *op != stuck.op && !order.contains(op)).collect();
        let earlier = order.len().saturating_sub(ORDER_SHOWN);
        Verdict::Violated(Box::new(Violation {
            stuck: self.label(stuck.op),
            place: stuck.place,
            order: order.iter().skip(earlier).map(|op| self.label(*op)).collect(),
            earlier,
            state: format!("{state:?}"),
            open: open.iter().take(OPEN_SHOWN).map(|op| self.label(*op)).collect(),
            open_more: open.len().saturating_sub(OPEN_SHOWN),
        }))
    }
}

/// For each barrier the operations that have begun there and whose own barrier is not before it, soonest first.
fn open_at<O>(ops: &[Interval<O>], barriers: &[Barrier]) -> Vec<Vec<usize>> {
    let mut by_beginning: Vec<(u64, usize)> = Vec::new();
    let mut rank = vec![usize::MAX; ops.len()];
    for (number, barrier) in barriers.iter().enumerate() {
        if let (Some(interval), Some(rank)) = (ops.get(barrier.op), rank.get_mut(barrier.op)) {
            by_beginning.push((interval.begins, barrier.op));
            *rank = number;
        }
    }
    by_beginning.sort_unstable();
    let rank_of = |op: &usize| rank.get(*op).copied().unwrap_or(usize::MAX);
    let mut beginning = by_beginning.into_iter().peekable();
    let mut now: Vec<usize> = Vec::new();
    let mut open = Vec::with_capacity(barriers.len());
    for (number, barrier) in barriers.iter().enumerate() {
        while let Some((_, op)) = beginning.next_if(|(begins, _)| *begins <= barrier.place) {
            let at = now.partition_point(|other| rank_of(other) < rank_of(&op));
            now.insert(at, op);
        }
        now.retain(|op| rank_of(op) >= number);
        open.push(now.clone());
    }
    open
}
