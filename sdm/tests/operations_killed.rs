//! Operations on disks while processes are killed between their log entries. The usual run takes a few
//! of them; `SDM_KILLS=all` every victim after every entry of every operation (about an hour), and
//! `SDM_KILLS=NAME` the same of the operations whose names begin so.

mod cluster;
mod host;
mod operations;
mod ovirt;

use cluster::Cluster;
use cluster::Shape;
use host::Need;
use host::ready;
use operations::OPERATIONS;
use operations::VICTIMS;
use operations::Victim;
use operations::World;
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
    let killed: usize = match std::env::var("SDM_KILLS").as_deref() {
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
            few.iter().map(kill).sum()
        }
        Ok(which) => {
            let wanted = OPERATIONS.iter().filter(|operation| which == "all" || operation.name.starts_with(which));
            wanted
                .map(|operation| {
                    kill_after_each_entry(&mut cluster, &mut world, operation, &VICTIMS, |n| (0..=n).collect())
                })
                .sum()
        }
    };
    assert!(killed > 0, "no operation has that name");
    eprintln!("{killed} kills");
}
