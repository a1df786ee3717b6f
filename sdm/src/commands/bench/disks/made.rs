//! What a load has begun to make: each disk by its name, until it is known to be there with the
//! transaction that may still make it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// Shared by all clients of a load.
#[derive(Clone, Debug, Default)]
pub(super) struct Made(Arc<Mutex<BTreeMap<String, Option<String>>>>);

impl Made {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Option<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A disk that is asked for, under this request id.
    pub(super) fn begun(&self, name: &str, request_id: &str) {
        self.lock().insert(name.to_owned(), Some(request_id.to_owned()));
    }

    /// It is there.
    pub(super) fn done(&self, name: &str) {
        if let Some(request) = self.lock().get_mut(name) {
            *request = None;
        }
    }

    /// All of them: names, and the request id where the outcome is not known.
    pub(super) fn take(&self) -> BTreeMap<String, Option<String>> {
        std::mem::take(&mut *self.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_is_remembered_and_in_doubt_until_it_is_there() {
        let made = Made::default();
        made.clone().begun("a", "1");
        made.begun("b", "2");
        made.done("b");
        let all = made.take();
        assert_eq!((all["a"].as_deref(), all["b"].as_deref()), (Some("1"), None));
        assert!(made.take().is_empty());
    }
}
