//! Every operation on disks, through the whole: what it leaves behind, repeated, asked of two members
//! at once, aborted, and as a dry run.

mod cluster;
mod host;
mod operations;
mod ovirt;

use cluster::Cluster;
use cluster::Sdm;
use cluster::Shared;
use cluster::nothing_is_open;
use cluster::request_id;
use cluster::text_of;
use host::Need;
use host::Stopped;
use host::ready;
use operations::OPERATIONS;
use operations::Operation;
use operations::World;
use serde_json::Value;
use std::sync::Mutex;
use std::sync::PoisonError;

/// What judges.
const TOOLS: &[Need] = &[Need::Tool("qemu-img"), Need::Tool("qemu-io"), Need::Tool("sha1sum")];

/// Runs a test over every operation, each on disks of its own in the same two domains.
fn over_all(world: &str, test: impl Fn(&Cluster, &mut World, &Operation, &str)) {
    // One after the other: some stop the worker that all have in common.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Shared::cluster();
    let name = world;
    let mut world = World::new(&cluster, name);
    for (number, operation) in OPERATIONS.iter().enumerate() {
        eprintln!("---- {}", operation.name);
        let disk = format!("{name}-{number}");
        (operation.prepare)(&mut world, &disk);
        test(&cluster, &mut world, operation, &disk);
    }
    world.check();
    nothing_is_open(&world.sdm);
}

fn with<'a>(line: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    line.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

#[test]
fn each_operation_leaves_what_it_should_and_a_repetition_changes_nothing() {
    if !ready("each_operation_leaves_what_it_should", TOOLS) {
        return;
    }
    over_all("plainly", |_, world, operation, disk| {
        let (line, id) = ((operation.line)(world, disk), request_id(&world.sdm));
        let first = world.sdm.done(&with(&line, &["--request-id", &id]));
        (operation.done)(world, disk);
        world.check();
        let again = world.sdm.done(&with(&line, &["--request-id", &id]));
        assert_eq!(again["transaction"]["id"], id.as_str());
        assert_eq!(again["transaction"]["outcome"], first["transaction"]["outcome"], "{}", operation.name);
        world.check();
    });
}

#[test]
fn a_dry_run_of_each_operation_tells_its_plan_and_does_nothing() {
    if !ready("a_dry_run_of_each_operation", TOOLS) {
        return;
    }
    over_all("dryly", |_, world, operation, disk| {
        let (line, id) = ((operation.line)(world, disk), request_id(&world.sdm));
        let plan = world.sdm.done(&with(&line, &["--request-id", &id, "--dry-run"]));
        assert_eq!(plan["dry_run"], true, "{plan}");
        assert!(operation.name == "gc apply" || !items_of(&plan, "locks").is_empty(), "{}: {plan}", operation.name);
        assert_eq!(items_of(&plan, "would_wait_for"), Vec::<Value>::new(), "{plan}");
        assert_eq!(items_of(&plan, "steps").is_empty(), operation.is_of_the_catalog(), "{}: {plan}", operation.name);
        assert!(plan["log_entries"].as_u64().is_some_and(|entries| entries > 0), "{plan}");
        let unknown = world.sdm.refused(&["txn", "show", &id]);
        unknown.says(3, "TXN_NOT_FOUND", &[&id]);
        let told = world.sdm.run_for_people(&with(&line, &["--dry-run"]));
        assert!(told.stdout.ends_with("nothing was done\n"), "{told:?}");
    });
}

#[track_caller]
fn items_of(plan: &Value, key: &str) -> Vec<Value> {
    plan[key].as_array().unwrap_or_else(|| panic!("no {key} in {plan}")).clone()
}

#[test]
fn each_operation_asked_of_two_members_at_once_is_one_transaction() {
    if !ready("each_operation_asked_of_two_members_at_once", TOOLS) {
        return;
    }
    over_all("twice", |cluster, world, operation, disk| {
        let (line, id) = ((operation.line)(world, disk), request_id(&world.sdm));
        let line = with(&line, &["--request-id", &id]);
        let members: Vec<Sdm> = ["node-a", "node-b", "node-c"].iter().map(|name| cluster.sdm_at(&[name])).collect();
        let started: Vec<_> = members.iter().map(|sdm| sdm.start(&line)).collect();
        let results: Vec<Value> = started.into_iter().map(|command| command.finish().result()).collect();
        for result in &results {
            assert_eq!(result["transaction"]["id"], id.as_str());
            assert_eq!(result["transaction"]["outcome"], results[0]["transaction"]["outcome"], "{}", operation.name);
        }
        (operation.done)(world, disk);
    });
}

#[test]
fn each_operation_that_is_aborted_leaves_nothing() {
    if !ready("each_operation_that_is_aborted", TOOLS) {
        return;
    }
    over_all("in-vain", |cluster, world, operation, disk| {
        if !operation.waits {
            return;
        }
        let (line, id) = ((operation.line)(world, disk), request_id(&world.sdm));
        // Its worker stands still, so it can get no further than to its first step.
        let stopped = Stopped::new(vec![cluster.pid("host-1")]);
        let begun = world.sdm.done(&with(&line, &["--request-id", &id, "--no-wait"]));
        assert_eq!(begun["transaction"]["phase"], "running", "{begun}");
        let aborted = world.sdm.run(&["txn", "abort", &id, "--reason", "a test"]);
        stopped.go_on();
        if operation.in_place {
            // Whoever may be writing in place is waited for: it may have done it.
            let ended = host::until("the transaction has ended", || {
                let txn = world.sdm.done(&["txn", "show", &id]);
                let phase = text_of(&txn, "phase").to_owned();
                if ["committed", "aborted"].contains(&phase.as_str()) { Ok(phase) } else { Err(txn.to_string()) }
            });
            if ended == "committed" {
                (operation.done)(world, disk);
            }
        } else {
            assert_eq!(aborted.result()["phase"], "aborted");
        }
        world.check();
    });
}
