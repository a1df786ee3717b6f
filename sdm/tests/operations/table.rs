//! The table of operations: how to make what each works on, its command, and what is true after it.
//! Whatever is to be shown of every operation runs over this table; a new operation is a new line.

use super::Stands;
use super::World;
use super::spare::SPARE;
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
    /// Whether a worker does something between its begin and its commit, so that it can be caught in between without
    /// anybody's bytes.
    pub waits: bool,
    /// Whether it writes into files that are there: then an abort waits for its worker.
    pub in_place: bool,
}

impl Operation {
    /// Whether it changes words of the catalog alone: its plan has no step.
    pub fn is_of_the_catalog(&self) -> bool {
        ["attach to", "detach from", "trash", "gc", "domain maintenance", "domain activate"]
            .iter()
            .any(|kind| self.name.starts_with(kind))
    }
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

/// A linked clone of a template, into which a guest has written.
fn cloned(world: &mut World, disk: &str) {
    template(world, disk);
    let (base, clone) = (format!("{disk}-base"), format!("{disk}-clone"));
    world.sdm.done(&["disk", "clone", &base, &clone]);
    world.has_linked_clone(&base, &clone);
    world.guest_writes(&clone, 512, 300, 0x66);
}

/// Three layers, of which the first is used by a linked clone as well, and the second is no snapshot any more but what
/// was frozen for a clone that is gone.
fn shared_and_left(world: &mut World, disk: &str) {
    world.written(disk, "raw");
    world.snapshot(disk, "one");
    let child = format!("{disk}-child");
    world.sdm.done(&["disk", "clone", disk, &child, "--snapshot", "one"]);
    world.has_linked_clone(disk, &child);
    world.expected(&child).layers = 2;
    world.guest_writes(disk, 256, 512, 0x33);
    let twin = format!("{disk}-twin");
    world.sdm.done(&["disk", "clone", disk, &twin, "--linked"]);
    world.expected(disk).layers += 1;
    world.sdm.done(&["disk", "delete", &twin]);
    world.guest_writes(disk, 3100, 100, 0x44);
}

fn trashed(world: &mut World, disk: &str) {
    world.written(disk, "raw");
    world.trash(disk);
}

fn in_spare(world: &mut World, disk: &str) {
    world.spare_stands(disk, Stands::Active);
    world.create_in(SPARE, disk, "qcow2");
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
        name: "flatten a clone",
        prepare: cloned,
        line: |_, disk| line(&["disk", "flatten", &format!("{disk}-clone")]),
        done: |world, disk| world.expected(&format!("{disk}-clone")).layers = 1,
        waits: true,
        in_place: false,
    },
    Operation {
        name: "flatten a disk with snapshots",
        prepare: shared_and_left,
        line: |_, disk| line(&["disk", "flatten", disk]),
        // Its snapshot stays, and so does the clone that stands on the old one.
        done: |world, disk| world.expected(disk).layers = 2,
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
    Operation {
        name: "import",
        prepare: |world, disk| world.make_file(disk),
        line: |world, disk| {
            let file = world.file_of(disk);
            line(&[
                "disk",
                "import",
                World::text(&file),
                "--name",
                disk,
                "--domain",
                world.domain(0),
                "--format",
                "raw",
            ])
        },
        done: |world, disk| {
            let content = world.file_of(disk);
            world.model.insert(disk.to_owned(), super::Expected::plain(0, "raw", DISK_BYTES, content));
        },
        waits: false,
        in_place: false,
    },
    Operation {
        name: "attach to a host",
        prepare: raw,
        line: |world, disk| line(&["disk", "attach", disk, "--host", world.host]),
        done: |world, disk| world.expected(disk).attached = true,
        waits: false,
        in_place: false,
    },
    Operation {
        name: "detach from a host",
        prepare: |world, disk| {
            world.written(disk, "raw");
            world.sdm.done(&["disk", "attach", disk, "--host", world.host]);
            world.expected(disk).attached = true;
        },
        line: |_, disk| line(&["disk", "detach", disk]),
        done: |world, disk| world.expected(disk).attached = false,
        waits: false,
        in_place: false,
    },
    Operation {
        name: "template delete",
        prepare: template,
        line: |_, disk| line(&["template", "delete", &format!("{disk}-base")]),
        done: |world, disk| {
            world.model.remove(&format!("{disk}-base"));
        },
        waits: false,
        in_place: false,
    },
    Operation {
        name: "trash restore",
        prepare: trashed,
        line: |world, disk| line(&["gc", "trash", "restore", &world.trash[disk].id]),
        done: |world, disk| world.is_restored(disk),
        waits: false,
        in_place: false,
    },
    Operation {
        name: "gc apply",
        prepare: |world, disk| {
            trashed(world, disk);
            world.plan_collection();
        },
        line: |world, _| line(&["gc", "apply", &world.plan]),
        done: |world, _| world.trash.clear(),
        waits: false,
        in_place: false,
    },
    Operation {
        name: "domain maintenance",
        prepare: |world, disk| world.spare_stands(disk, Stands::Active),
        line: |world, _| line(&["domain", "maintenance", &world.spare().name]),
        done: |world, _| world.spare_is(Stands::Maintained),
        waits: false,
        in_place: false,
    },
    Operation {
        name: "domain activate",
        prepare: |world, disk| world.spare_stands(disk, Stands::Maintained),
        line: |world, _| line(&["domain", "activate", &world.spare().name]),
        done: |world, _| world.spare_is(Stands::Active),
        waits: false,
        in_place: false,
    },
    Operation {
        name: "domain rename",
        prepare: |world, disk| world.spare_stands(disk, Stands::Active),
        line: |world, disk| line(&["domain", "rename", &world.spare().name, &format!("{disk}-renamed")]),
        done: |world, disk| world.spare_is_called(&format!("{disk}-renamed")),
        waits: false,
        in_place: false,
    },
    Operation {
        name: "domain detach",
        prepare: |world, disk| {
            in_spare(world, disk);
            world.spare_stands(disk, Stands::Maintained);
        },
        line: |world, _| line(&["domain", "detach", &world.spare().name, "--yes"]),
        done: |world, _| world.spare_is_detached(),
        waits: true,
        in_place: true,
    },
    Operation {
        name: "domain attach",
        prepare: |world, disk| {
            in_spare(world, disk);
            world.spare_stands(disk, Stands::Detached);
        },
        line: |world, _| line(&["domain", "attach", World::text(&world.spare().folder), "--local"]),
        done: |world, _| world.spare_is_attached(),
        waits: false,
        in_place: false,
    },
    Operation {
        name: "domain delete",
        prepare: |world, disk| world.empty_spare(disk),
        line: |world, _| line(&["domain", "delete", &world.spare().name, "--yes"]),
        done: |world, _| world.spare_is_gone(),
        waits: false,
        in_place: false,
    },
];
