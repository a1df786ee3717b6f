//! The table of operations: how to make what each works on, its command, and what is true after it.
//! Whatever is to be shown of every operation runs over this table; a new operation is a new line.

use super::World;
use super::world::DISK_BYTES;

/// An operation.
pub struct Operation {
    /// For messages.
    pub name: &'static str,
    /// Makes what it works on; `disk` is a name that nobody else uses, and the beginning of others.
    pub prepare: fn(&mut World, disk: &str),
    /// The command, without options that every change has.
    pub line: fn(&World, disk: &str) -> Vec<String>,
    /// What is true once it is committed: in the model.
    pub done: fn(&mut World, disk: &str),
    /// Whether a worker does something before it is committed, so that it can be caught in between.
    pub waits: bool,
    /// Whether it writes into files that are there: then an abort waits for its worker.
    pub in_place: bool,
}

/// By name.
///
/// # Panics
/// There is none.
pub fn operation(name: &str) -> &'static Operation {
    OPERATIONS.iter().find(|operation| operation.name == name).unwrap_or_else(|| panic!("no operation {name}"))
}

fn line(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn nothing(_: &mut World, _: &str) {}

fn raw(world: &mut World, disk: &str) {
    world.written(disk, "raw");
}

fn qcow2(world: &mut World, disk: &str) {
    world.written(disk, "qcow2");
}

fn preallocated(world: &mut World, disk: &str) {
    world.create_preallocated(disk);
    world.guest_writes(disk, 1000, 24, 0x55);
}

/// Three layers: snapshots `one` and `two`, and what was written since.
fn layered(world: &mut World, disk: &str) {
    world.written(disk, "raw");
    world.snapshot(disk, "one");
    world.guest_writes(disk, 256, 512, 0x33);
    world.snapshot(disk, "two");
    world.guest_writes(disk, 3100, 100, 0x44);
}

fn template(world: &mut World, disk: &str) {
    world.written(disk, "raw");
    world.template(disk, &format!("{disk}-base"));
}

fn create_done(world: &mut World, disk: &str, format: &'static str) {
    let content = world.zeros(DISK_BYTES);
    world.model.insert(disk.to_owned(), super::Expected::plain(0, format, DISK_BYTES, content));
}

const SIZE: &str = "8MiB";

/// All of them.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        name: "create raw",
        prepare: nothing,
        line: |world, disk| line(&["disk", "create", disk, "--domain", world.domain(0), "--size", SIZE]),
        done: |world, disk| create_done(world, disk, "raw"),
        waits: true,
        in_place: false,
    },
    Operation {
        name: "create preallocated",
        prepare: nothing,
        line: |world, disk| {
            line(&["disk", "create", disk, "--domain", world.domain(0), "--size", SIZE, "--preallocate"])
        },
        done: |world, disk| {
            create_done(world, disk, "raw");
            world.expected(disk).preallocated = true;
        },
        waits: true,
        in_place: false,
    },
    Operation {
        name: "create qcow2",
        prepare: nothing,
        line: |world, disk| {
            line(&[
                "disk",
                "create",
                disk,
                "--domain",
                world.domain(0),
                "--size",
                SIZE,
                "--format",
                "qcow2",
                "--description",
                "a disk of a test",
            ])
        },
        done: |world, disk| {
            create_done(world, disk, "qcow2");
            world.expected(disk).description = "a disk of a test".to_owned();
        },
        waits: true,
        in_place: false,
    },
    Operation {
        name: "rename",
        prepare: raw,
        line: |_, disk| line(&["disk", "rename", disk, &format!("{disk}-new")]),
        done: |world, disk| {
            let renamed = world.model.remove(disk).expect("it was made");
            world.model.insert(format!("{disk}-new"), renamed);
        },
        waits: false,
        in_place: false,
    },
    Operation {
        name: "describe",
        prepare: qcow2,
        line: |_, disk| line(&["disk", "describe", disk, "what is \"it\" for?"]),
        done: |world, disk| world.expected(disk).description = "what is \"it\" for?".to_owned(),
        waits: false,
        in_place: false,
    },
    Operation {
        name: "resize raw",
        prepare: raw,
        line: |_, disk| line(&["disk", "resize", disk, "24MiB"]),
        done: |world, disk| world.has_grown(disk, 24 << 20),
        waits: true,
        in_place: true,
    },
    Operation {
        name: "resize qcow2",
        prepare: qcow2,
        line: |_, disk| line(&["disk", "resize", disk, "24MiB"]),
        done: |world, disk| world.has_grown(disk, 24 << 20),
        waits: true,
        in_place: true,
    },
    Operation {
        name: "move a chain",
        prepare: layered,
        line: |world, disk| line(&["disk", "move", disk, "--to", world.domain(1)]),
        done: |world, disk| world.expected(disk).domain = 1,
        waits: true,
        in_place: false,
    },
    Operation {
        name: "move a preallocated disk",
        prepare: preallocated,
        line: |world, disk| line(&["disk", "move", disk, "--to", world.domain(1)]),
        done: |world, disk| world.expected(disk).domain = 1,
        waits: true,
        in_place: false,
    },
    Operation {
        name: "copy raw to qcow2 elsewhere",
        prepare: raw,
        line: |world, disk| {
            line(&["disk", "copy", disk, &format!("{disk}-copy"), "--to", world.domain(1), "--format", "qcow2"])
        },
        done: |world, disk| {
            let copy = format!("{disk}-copy");
            world.has_copy(disk, &copy);
            world.expected(&copy).domain = 1;
            world.expected(&copy).format = "qcow2";
        },
        waits: true,
        in_place: false,
    },
    Operation {
        name: "copy a snapshot",
        prepare: layered,
        line: |_, disk| {
            line(&["disk", "copy", disk, &format!("{disk}-then"), "--snapshot", "one", "--collapse", "--format", "raw"])
        },
        done: |world, disk| {
            let copy = format!("{disk}-then");
            world.has_copy(disk, &copy);
            let frozen = world.model[disk].snapshots[0].content.clone();
            world.expected(&copy).content = frozen;
            world.expected(&copy).format = "raw";
        },
        waits: true,
        in_place: false,
    },
    Operation {
        name: "convert",
        prepare: qcow2,
        line: |_, disk| line(&["disk", "convert", disk, "--format", "raw", "--preallocate"]),
        done: |world, disk| {
            let disk = world.expected(disk);
            disk.format = "raw";
            disk.preallocated = true;
        },
        waits: true,
        in_place: false,
    },
    Operation {
        name: "snapshot create",
        prepare: raw,
        line: |_, disk| line(&["snapshot", "create", disk, "before"]),
        done: |world, disk| world.has_snapshot(disk, "before"),
        waits: true,
        in_place: false,
    },
    Operation {
        name: "snapshot delete",
        prepare: layered,
        line: |_, disk| line(&["snapshot", "delete", disk, "one"]),
        done: |world, disk| {
            let disk = world.expected(disk);
            disk.snapshots.remove(0);
            disk.layers -= 1;
        },
        waits: true,
        in_place: false,
    },
    Operation {
        name: "snapshot revert",
        prepare: layered,
        line: |_, disk| line(&["snapshot", "revert", disk, "one", "--discard-newer"]),
        done: |world, disk| {
            let disk = world.expected(disk);
            disk.snapshots.truncate(1);
            disk.layers = 2;
            disk.content = disk.snapshots[0].content.clone();
        },
        waits: true,
        in_place: false,
    },
    Operation {
        name: "template make",
        prepare: raw,
        line: |_, disk| line(&["template", "make", disk, &format!("{disk}-base")]),
        done: |world, disk| {
            world.has_copy(disk, &format!("{disk}-base"));
            world.expected(&format!("{disk}-base")).template = true;
        },
        waits: true,
        in_place: false,
    },
    Operation {
        name: "clone a template",
        prepare: template,
        line: |_, disk| line(&["disk", "clone", &format!("{disk}-base"), &format!("{disk}-clone")]),
        done: |world, disk| world.has_linked_clone(&format!("{disk}-base"), &format!("{disk}-clone")),
        waits: true,
        in_place: false,
    },
    Operation {
        name: "clone a live disk",
        prepare: raw,
        line: |_, disk| line(&["disk", "clone", disk, &format!("{disk}-clone"), "--linked"]),
        done: |world, disk| {
            world.has_linked_clone(disk, &format!("{disk}-clone"));
            // What both share is frozen now, and the source has a new leaf.
            let source = world.expected(disk);
            source.layers += 1;
            source.format = "qcow2";
        },
        waits: true,
        in_place: false,
    },
    Operation {
        name: "clone in full",
        prepare: layered,
        line: |_, disk| line(&["disk", "clone", disk, &format!("{disk}-clone"), "--full"]),
        done: |world, disk| world.has_copy(disk, &format!("{disk}-clone")),
        waits: true,
        in_place: false,
    },
    Operation {
        name: "delete",
        prepare: layered,
        line: |_, disk| line(&["disk", "delete", disk]),
        done: |world, disk| {
            world.model.remove(disk);
        },
        waits: false,
        in_place: false,
    },
    Operation {
        name: "set illegal",
        prepare: raw,
        line: |world, disk| {
            let leaf = world.leaf_of(disk);
            let id = leaf.file_name().and_then(|name| name.to_str()).expect("it has a name");
            line(&["volume", "set-illegal", id, "--reason", "a test says so"])
        },
        done: |world, disk| world.expected(disk).legal = false,
        waits: false,
        in_place: false,
    },
    Operation {
        name: "repair",
        prepare: raw,
        line: |_, disk| line(&["volume", "repair", disk]),
        done: nothing,
        waits: false,
        in_place: false,
    },
];
