//! What must hold when the clients pause: all members serve and agree, and what they say is what the
//! clients were told.

mod locks;
mod serving;
mod txns;

pub use serving::Agreement;
pub use serving::await_agreement;
pub use serving::await_service;

use crate::client::Endpoints;
use crate::history::History;
use crate::history::Promise;
use crate::load::Load;
use std::time::Duration;

/// How long a list may take, with its repetitions.
const LIST_PATIENCE: Duration = Duration::from_secs(30);

/// Compares what the members say with what the clients were told. The clients pause and the members
/// agree on an index. What does not hold is noted in the history.
pub async fn compare(load: &Load) {
    compare_members(load.members(), load.history()).await;
}

/// The same of these members, one by one.
pub async fn compare_members(mut members: Vec<Endpoints>, history: &History) {
    let mut first: Option<Vec<locks::Listed>> = None;
    for member in &mut members {
        let listed = match locks::list(member).await {
            Ok(listed) => listed,
            Err(why) => {
                history.violated(Promise::Serves, format!("{} does not list the locks: {why}", member.address()));
                continue;
            }
        };
        match &first {
            None => {
                locks::compare(history, &listed);
                first = Some(listed);
            }
            Some(first) if *first != listed => {
                let what = format!("{} lists other locks than the first member", member.address());
                history.violated(Promise::EqualStates, what);
            }
            Some(_) => {}
        }
    }
    if let Some(member) = members.first_mut() {
        txns::compare(member, history).await;
    }
}
