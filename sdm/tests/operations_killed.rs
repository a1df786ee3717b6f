//! Operations on disks while processes are killed between their log entries. The usual run takes a few
//! of them; `SDM_KILLS=all` every victim after every entry of every operation (hours), `SDM_KILLS=NAME` the
//! same of the operations whose names begin so, `SDM_KILLS=count` says how many cases those are. A case in which
//! the process never died between the two entries that were meant is named, and not counted.

mod cluster;
mod host;
mod operations;
mod ovirt;

use cluster::Cluster;
use cluster::Shape;
use host::Need;
use host::ready;
use operations::Kills;
use operations::OPERATIONS;
use operations::VICTIMS;
use operations::Victim;
use operations::World;
use operations::count_cases;
use operations::kill_after_each_entry;
use operations::operation;

/// What judges.
const TOOLS: &[Need] = &[Need::Tool("qemu-img"), Need::Tool("qemu-io"), Need::Tool("sha1sum")];

#[test]
fn an_operation_whose_processes_are_killed_is_done_or_has_never_been() {
    if !ready("an_operation_whose_processes_are_killed", TOOLS) {
        return;
    }
    let mut cluster = Cluster::start(&Shape::usual());
    let mut world = World::new(&cluster, "killed");
    let kills: Kills = match std::env::var("SDM_KILLS").as_deref() {
        Err(_) | Ok("") => {
            // Between the entries of one step, of a job, of two stages, of a step in place; and while its garbage is
            // collected.
            let few: &[(&str, &[Victim], &[usize])] = &[
                ("snapshot create", &[Victim::Leader], &[1, 3]),
                ("snapshot delete", &[Victim::Worker, Victim::Initiator], &[1]),
                ("clone a live disk", &[Victim::Leader], &[2]),
                ("resize raw", &[Victim::Worker], &[1]),
            ];
            let kill = |(name, victims, after): &(&str, &[Victim], &[usize])| {
                kill_after_each_entry(&mut cluster, &mut world, operation(name), victims, |_| after.to_vec())
            };
            few.iter().map(kill).fold(Kills::default(), Kills::and)
        }
        Ok("count") => {
            let cases = OPERATIONS.iter().map(|operation| count_cases(&cluster, &mut world, operation));
            eprintln!("{} cases", cases.sum::<usize>());
            return;
        }
        Ok(which) => {
            let wanted = OPERATIONS.iter().filter(|operation| which == "all" || operation.name.starts_with(which));
            wanted
                .map(|operation| {
                    kill_after_each_entry(&mut cluster, &mut world, operation, &VICTIMS, |n| (0..=n).collect())
                })
                .fold(Kills::default(), Kills::and)
        }
    };
    for case in &kills.missed {
        eprintln!("NOT RUN: {case}: it never died there");
    }
    eprintln!("{} kills landed, {} cases were not run", kills.landed, kills.missed.len());
    assert!(kills.landed > 0, "no operation has that name, or nothing died where it was to");
}
