//! A second judge, for small histories alone, that shares nothing with the search but the models: it tries every order.

use super::intervals::Ends;
use super::intervals::Interval;
use super::intervals::Model;

/// Whether some order of these operations, each within its interval, is one that the model allows.
pub fn is_linearizable<M: Model>(model: &M, ops: &[Interval<M::Op>]) -> bool {
    goes_on(model, ops, &mut vec![false; ops.len()], 0, &model.initial())
}

/// `latest` is the latest beginning of what took effect so far: no later moment has passed for sure.
fn goes_on<M: Model>(model: &M, ops: &[Interval<M::Op>], taken: &mut Vec<bool>, latest: u64, state: &M::State) -> bool {
    let must = |op: &Interval<M::Op>| matches!(op.ends, Ends::At(_));
    if ops.iter().zip(taken.iter()).all(|(op, taken)| *taken || !must(op)) {
        return true;
    }
    for next in 0..ops.len() {
        if taken[next] {
            continue;
        }
        // Whoever must have taken effect before this one began has to be first.
        let first = |(op, taken): (&Interval<M::Op>, &bool)| match op.ends {
            Ends::At(place) => !*taken && place < ops[next].begins,
            _ => false,
        };
        let moment = latest.max(ops[next].begins);
        let is_late = match ops[next].ends {
            Ends::At(place) | Ends::LapsesAt(place) => place < moment,
            Ends::Never => false,
        };
        if is_late || ops.iter().zip(taken.iter()).any(first) {
            continue;
        }
        if let Some(after) = model.apply(state, &ops[next].op) {
            taken[next] = true;
            if goes_on(model, ops, taken, moment, &after) {
                return true;
            }
            taken[next] = false;
        }
    }
    false
}
