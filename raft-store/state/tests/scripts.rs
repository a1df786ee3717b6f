//! The golden scripts in `scripts/`: a family of operations each, refusals included. `SDM_BLESS=1` writes
//! them anew; what changed in them is then to be read.

mod script;
mod world;

use script::Script;
use std::path::PathBuf;

fn check(family: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(format!("{family}.script"));
    let text = std::fs::read_to_string(&path).expect("a script");
    let now = Script::run(&text);
    if std::env::var_os("SDM_BLESS").is_some() {
        std::fs::write(&path, now).expect("a writable script");
        return;
    }
    for (at, (was, is)) in text.lines().zip(now.lines()).enumerate() {
        assert_eq!(was, is, "{family}.script, line {}", at + 1);
    }
    assert_eq!(text.lines().count(), now.lines().count(), "{family}.script");
}

#[test]
fn disks_are_made_named_described_and_moved_with_their_chains() {
    check("disks");
}

#[test]
fn snapshots_are_made_merged_and_gone_back_to() {
    check("snapshots");
}

#[test]
fn clones_share_and_copies_do_not() {
    check("clones");
}

#[test]
fn flattened_disks_share_nothing_and_keep_their_snapshots() {
    check("flatten");
}

#[test]
fn disks_grow_and_change_their_format() {
    check("sizes_and_formats");
}

#[test]
fn volumes_become_illegal_and_words_are_written_anew() {
    check("volumes");
}

#[test]
fn what_is_aborted_leaves_garbage_alone() {
    check("aborts");
}

#[test]
fn hosts_have_disks_and_give_them_back() {
    check("attachments");
}

#[test]
fn workers_are_drained_lost_fenced_and_removed() {
    check("workers");
}

#[test]
fn domains_come_rest_and_go() {
    check("domains");
}

#[test]
fn what_is_deleted_comes_back_or_is_collected_as_planned() {
    check("collections");
}

#[test]
fn lock_sets_queue_are_broken_and_carry_transactions() {
    check("locks");
}
