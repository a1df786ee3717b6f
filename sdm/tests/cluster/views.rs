//! What commands answer, taken apart.

use super::Sdm;
use serde_json::Value;

/// The items of a list.
///
/// # Panics
/// It has none.
#[track_caller]
pub fn items(list: &Value) -> Vec<Value> {
    list["items"].as_array().unwrap_or_else(|| panic!("no items in {list}")).clone()
}

/// The items that `sdm NOUN list` lists.
#[track_caller]
pub fn list(sdm: &Sdm, noun: &str) -> Vec<Value> {
    items(&sdm.done(&[noun, "list"]))
}

/// The names of items.
pub fn names(items: &[Value]) -> Vec<String> {
    items.iter().map(|item| text_of(item, "name").to_owned()).collect()
}

/// A field that is text.
///
/// # Panics
/// It is not.
#[track_caller]
pub fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is no text in {value}"))
}

/// A new request id.
#[track_caller]
pub fn request_id(sdm: &Sdm) -> String {
    text_of(&sdm.done(&["request-id"]), "request_id").to_owned()
}

/// A transaction with its story.
#[track_caller]
pub fn story(sdm: &Sdm, id: &str) -> (Value, Vec<String>) {
    let txn = sdm.done(&["txn", "show", id]);
    let history = txn["history"].as_array().unwrap_or_else(|| panic!("no history in {txn}"));
    let told = history.iter().map(|event| text_of(event, "text").to_owned()).collect();
    (txn, told)
}

/// Checks that nothing is open: no lock, no transaction, no job.
#[track_caller]
pub fn nothing_is_open(sdm: &Sdm) {
    for noun in ["lock", "job"] {
        assert_eq!(list(sdm, noun), Vec::<Value>::new(), "{noun} list");
    }
    assert_eq!(items(&sdm.done(&["txn", "list", "--open"])), Vec::<Value>::new(), "txn list --open");
}
