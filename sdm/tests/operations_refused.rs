//! What operations on disks refuse: with which reason, who is named, and what to do next; from the
//! command line, and over the bare API, whose callers check nothing beforehand.

mod cluster;
mod host;
mod operations;
mod ovirt;

use cluster::Cluster;
use cluster::Refused;
use cluster::Sdm;
use cluster::Shape;
use cluster::Shared;
use cluster::items;
use cluster::request_id;
use cluster::text_of;
use host::Need;
use host::Stopped;
use host::ready;
use host::until;
use operations::World;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::disk_service_client::DiskServiceClient;
use sdm_proto::wire::v1::snapshot_service_client::SnapshotServiceClient;
use sdm_proto::wire::v1::volume_service_client::VolumeServiceClient;
use tonic::Status;
use tonic::transport::Channel;

/// What judges.
const TOOLS: &[Need] = &[Need::Tool("qemu-img"), Need::Tool("qemu-io"), Need::Tool("sha1sum")];

/// Volumes that a chain may have.
const CHAIN_MAX: usize = 32;

#[track_caller]
fn blocked_by(refused: &Refused, who: &str) {
    let blockers = refused.blockers();
    assert!(blockers.iter().any(|blocker| blocker.contains(who)), "{who} is not among {blockers:?}");
}

#[test]
fn what_a_disk_and_its_chain_do_not_allow_is_refused_by_reason() {
    if !ready("what_a_disk_and_its_chain_do_not_allow", TOOLS) {
        return;
    }
    let cluster = Shared::cluster();
    let mut world = World::new(&cluster, "refused");
    world.written("refused-a", "raw");
    world.snapshot("refused-a", "one");
    world.snapshot("refused-a", "two");
    world.written("refused-plain", "qcow2");
    let sdm = world.sdm.clone();
    let (first, second) = (world.domain(0).to_owned(), world.domain(1).to_owned());

    sdm.refused(&["disk", "resize", "refused-a", "4MiB"]).says(5, "NOT_LARGER", &["refused-a", "8388608"]);
    sdm.refused(&["disk", "resize", "refused-a", "8MiB"]).says(5, "NOT_LARGER", &["refused-a"]);
    sdm.refused(&["disk", "resize", "refused-a", "0"]).says(2, "BAD_SIZE", &["SIZE"]);
    sdm.refused(&["disk", "resize", "refused-a", "--", "-1G"]).says(2, "BAD_SIZE", &["SIZE"]);
    sdm.refused(&["disk", "rename", "refused-a", "refused-plain"]).says(4, "DISK_EXISTS", &["refused-plain"]);
    sdm.refused(&["disk", "rename", "refused-a", "refused-a"]).says(5, "ALREADY_SO", &["refused-a"]);
    sdm.refused(&["disk", "rename", "refused-a", "../a"]).says(2, "BAD_NAME", &["NAME"]);
    sdm.refused(&["disk", "copy", "refused-a", "refused-plain"]).says(4, "DISK_EXISTS", &["refused-plain"]);
    sdm.refused(&["disk", "copy", "refused-a", "refused-b"]).says(5, "CHAIN_NOT_COLLAPSED", &["refused-a", "3"]);
    sdm.refused(&["disk", "copy", "refused-a", "refused-b", "--to", "nowhere"]).says(
        3,
        "DOMAIN_NOT_FOUND",
        &["nowhere"],
    );
    sdm.refused(&["disk", "convert", "refused-a", "--format", "raw"]).says(5, "HAS_SNAPSHOTS", &["refused-a"]);
    sdm.refused(&["disk", "convert", "refused-plain", "--format", "qcow2"]).says(5, "ALREADY_SO", &["refused-plain"]);
    sdm.refused(&["disk", "convert", "refused-plain", "--format", "qcow2", "--preallocate"]).says(
        2,
        "BAD_PREALLOCATION",
        &["qcow2"],
    );
    sdm.refused(&["disk", "move", "refused-a", "--to", &first]).says(5, "ALREADY_THERE", &["refused-a"]);
    sdm.refused(&["disk", "clone", "refused-a", "refused-b", "--snapshot", "three"]).says(
        3,
        "SNAPSHOT_NOT_FOUND",
        &["refused-a", "three"],
    );
    sdm.refused(&["snapshot", "create", "refused-a", "one"]).says(4, "SNAPSHOT_EXISTS", &["one"]);
    sdm.refused(&["snapshot", "show", "refused-plain", "one"]).says(3, "SNAPSHOT_NOT_FOUND", &["refused-plain"]);
    let leaf = world.leaf_of("refused-a");
    let leaf = leaf.file_name().and_then(|name| name.to_str()).expect("it has a name");
    sdm.refused(&["snapshot", "delete", "refused-a", leaf]).says(3, "SNAPSHOT_NOT_FOUND", &["no snapshot"]);
    let newer = sdm.refused(&["snapshot", "revert", "refused-a", "one"]);
    newer.says(5, "NEWER_SNAPSHOTS", &["one"]);
    assert!(newer.hint().contains("--discard-newer"), "{}", newer.hint());
    blocked_by(&newer, "snapshot two");

    // A clone of the second snapshot stands on the volumes of both.
    sdm.done(&["disk", "clone", "refused-a", "refused-clone", "--snapshot", "two"]);
    world.has_linked_clone("refused-a", "refused-clone");
    world.expected("refused-clone").layers = 3;
    let shared = sdm.refused(&["snapshot", "delete", "refused-a", "one"]);
    shared.says(5, "SHARED_VOLUME", &["one", "refused-clone"]);
    blocked_by(&shared, "refused-clone");
    let own = sdm.refused(&["snapshot", "delete", "refused-clone", "two"]);
    own.says(3, "SNAPSHOT_NOT_FOUND", &["snapshot of refused-a"]);
    for refused in [&shared, &own] {
        assert!(refused.hint().contains("sdm disk flatten refused-clone"), "{}", refused.hint());
    }

    // A template.
    sdm.done(&["template", "make", "refused-plain", "refused-base"]);
    world.has_copy("refused-plain", "refused-base");
    world.expected("refused-base").template = true;
    sdm.done(&["disk", "clone", "refused-base", "refused-child"]);
    world.has_linked_clone("refused-base", "refused-child");
    let in_use = sdm.refused(&["template", "delete", "refused-base"]);
    in_use.says(5, "TEMPLATE_IN_USE", &["refused-base", "refused-child"]);
    blocked_by(&in_use, "refused-child");
    sdm.refused(&["disk", "delete", "refused-base"]).says(5, "TEMPLATE_IN_USE", &["refused-base"]);
    // What is shared lies in one domain.
    for (moved, other) in [("refused-child", "refused-base"), ("refused-base", "refused-child")] {
        let stays = sdm.refused(&["disk", "move", moved, "--to", &second]);
        stays.says(5, "SHARED_VOLUME", &[moved, other]);
        assert!(stays.hint().contains("sdm disk flatten refused-child"), "{}", stays.hint());
    }
    sdm.refused(&["disk", "resize", "refused-base", "16MiB"]).says(5, "TEMPLATE_READ_ONLY", &["refused-base"]);
    sdm.refused(&["snapshot", "create", "refused-base", "one"]).says(5, "TEMPLATE_READ_ONLY", &["refused-base"]);
    sdm.refused(&["template", "delete", "refused-plain"]).says(5, "NOT_A_TEMPLATE", &["refused-plain"]);
    sdm.refused(&["template", "show", "refused-plain"]).says(5, "NOT_A_TEMPLATE", &["refused-plain"]);

    // A volume out of use.
    sdm.refused(&["volume", "set-illegal", leaf]).says(2, "REASON_MISSING", &["reason"]);
    sdm.refused(&["volume", "set-illegal", "refused-a", "--reason", "x"]).says(2, "BAD_VOLUME_ID", &["refused-a"]);
    sdm.done(&["volume", "set-illegal", leaf, "--reason", "a test"]);
    sdm.refused(&["disk", "move", "refused-a", "--to", &second]).says(5, "DISK_ILLEGAL", &["refused-a"]);
    sdm.done(&["volume", "set-legal", leaf, "--reason", "the test is over"]);
    world.check();

    // What all of these left is what was there before; the last clone frees its template.
    sdm.done(&["disk", "delete", "refused-child"]);
    sdm.done(&["template", "delete", "refused-base"]);
    world.model.remove("refused-child");
    world.model.remove("refused-base");
    world.check();
}

#[test]
fn a_chain_grows_to_its_limit_and_no_further() {
    if !ready("a_chain_grows_to_its_limit", TOOLS) {
        return;
    }
    let cluster = Shared::cluster();
    let mut world = World::new(&cluster, "long");
    world.create("long-a", "qcow2");
    for number in 1..CHAIN_MAX {
        world.snapshot("long-a", &format!("s{number}"));
    }
    let refused = world.sdm.refused(&["snapshot", "create", "long-a", "one-more"]);
    refused.says(7, "CHAIN_TOO_LONG", &["long-a", "32"]);
    assert!(refused.hint().contains("sdm snapshot delete"), "{}", refused.hint());
    let many = world.sdm.refused(&["disk", "clone", "long-a", "long-b", "--linked"]);
    many.says(7, "CHAIN_TOO_LONG", &["long-a"]);
    world.sdm.done(&["snapshot", "delete", "long-a", "s7"]);
    let a = world.expected("long-a");
    a.snapshots.remove(6);
    a.layers -= 1;
    world.snapshot("long-a", "one-more");
    world.check();
}

#[test]
fn what_somebody_else_is_at_work_on_is_named() {
    if !ready("what_somebody_else_is_at_work_on", TOOLS) {
        return;
    }
    let cluster = Shared::cluster();
    let mut world = World::new(&cluster, "busy");
    world.create("busy-a", "raw");
    let (sdm, second) = (world.sdm.clone(), world.domain(1).to_owned());
    let id = request_id(&sdm);
    let stopped = Stopped::new(vec![cluster.pid("host-1")]);
    sdm.done(&["snapshot", "create", "busy-a", "one", "--no-wait", "--request-id", &id]);
    let locked = sdm.refused(&["disk", "move", "busy-a", "--to", &second, "--no-wait-lock"]);
    locked.says(5, "LOCKED", &["make snapshot one of disk busy-a"]);
    blocked_by(&locked, &id);
    let plan = sdm.done(&["disk", "move", "busy-a", "--to", &second, "--dry-run"]);
    assert!(plan["would_wait_for"].to_string().contains(&id), "{plan}");
    // A template made of it only reads, and waits all the same: what it would read is about to change.
    let plan = sdm.done(&["template", "make", "busy-a", "busy-base", "--dry-run"]);
    assert!(plan["would_wait_for"].to_string().contains(&id), "{plan}");
    stopped.go_on();
    nothing_is_open_soon(&sdm);
    world.has_snapshot("busy-a", "one");
    world.check();
}

/// Waits until what was begun has ended.
#[track_caller]
fn nothing_is_open_soon(sdm: &Sdm) {
    until("nothing is open", || {
        let open = items(&sdm.done(&["txn", "list", "--open"]));
        if open.is_empty() { Ok(()) } else { Err(format!("{open:?}")) }
    });
}

#[test]
fn an_attached_disk_is_left_alone() {
    if !ready("an_attached_disk", TOOLS) {
        return;
    }
    let cluster = Shared::cluster();
    let mut world = World::new(&cluster, "attached");
    world.create("attached-a", "raw");
    world.snapshot("attached-a", "one");
    let (sdm, second) = (world.sdm.clone(), world.domain(1).to_owned());
    sdm.done(&["disk", "attach", "attached-a", "--host", "host-1"]);
    for line in [
        &["disk", "move", "attached-a", "--to", second.as_str()][..],
        &["disk", "resize", "attached-a", "16MiB"],
        &["disk", "delete", "attached-a"],
        &["disk", "copy", "attached-a", "attached-b", "--collapse"],
        &["disk", "clone", "attached-a", "attached-b", "--linked"],
        &["snapshot", "create", "attached-a", "two"],
        &["snapshot", "delete", "attached-a", "one"],
        &["snapshot", "revert", "attached-a", "one"],
        &["template", "make", "attached-a", "attached-b"],
    ] {
        let refused = sdm.refused(line);
        refused.says(5, "ATTACHED", &["attached-a", "host-1"]);
        assert!(refused.hint().contains("detach"), "{line:?}: {}", refused.hint());
    }
    // Words about it hurt nobody.
    sdm.done(&["disk", "describe", "attached-a", "in use"]);
    world.expected("attached-a").description = "in use".to_owned();
    sdm.done(&["disk", "detach", "attached-a"]);
    world.check();
}

/// A member that is cut off has a request to delete; its user asks another member instead, is refused, and does away
/// with the reason. What the first member then delivers is answered with that refusal, and deletes nothing.
#[test]
fn a_request_that_a_member_delivers_late_deletes_nothing_after_its_user_was_refused() {
    if !ready("a_request_that_a_member_delivers_late", TOOLS) {
        return;
    }
    // Its own: nobody else shall wait for the member that stands still.
    let cluster = Cluster::start(&Shape::usual());
    let mut world = World::new(&cluster, "late");
    world.written("late-a", "raw");
    let leader = cluster.leader();
    let followers: Vec<String> = cluster.member_names().into_iter().filter(|name| *name != leader).collect();
    let [cut_off, other] = followers.as_slice() else { panic!("three members, not {followers:?}") };
    let id = request_id(&world.sdm);
    let delete = ["disk", "delete", "late-a", "--request-id", &id];
    let operator = cluster.sdm_at(&[other, &leader]);
    operator.done(&["disk", "attach", "late-a", "--host", "host-1"]);
    let stopped = Stopped::new(vec![cluster.pid(cut_off)]);
    let late = cluster.sdm_at(&[cut_off]).start(&delete);
    let refused = operator.refused(&delete);
    refused.says(5, "ATTACHED", &["late-a"]);
    operator.done(&["disk", "detach", "late-a"]);
    stopped.go_on();
    let finished = late.finish();
    assert_ne!(finished.code, 0, "it was refused once and for all: {finished:?}");
    operator.refused(&delete).says(5, "ATTACHED", &["late-a"]);
    cluster.await_members(3);
    world.check();
    // A new request is another matter.
    world.sdm.done(&["disk", "delete", "late-a"]);
    world.model.remove("late-a");
    world.check();
}

fn channel(endpoint: &str) -> Channel {
    tonic::transport::Endpoint::new(format!("http://{endpoint}")).expect("an address").connect_lazy()
}

/// The reason in a status, as every client finds it.
#[track_caller]
fn reason<T: std::fmt::Debug>(answer: Result<T, Status>) -> String {
    let status = answer.expect_err("it must be refused");
    sdm_proto::status::from_status(&status).reason
}

#[test]
fn nonsense_over_the_bare_api_is_refused_clearly() {
    if !ready("nonsense_over_the_bare_api", TOOLS) {
        return;
    }
    let cluster = Shared::cluster();
    let mut world = World::new(&cluster, "bare");
    world.create("bare-a", "raw");
    world.snapshot("bare-a", "one");
    world.create("bare-b", "raw");
    let domain = world.domain(0).to_owned();
    let shown = world.sdm.done(&["disk", "show", "bare-a"]);
    let of_a = text_of(&shown["snapshots"][0], "id").to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let mut disks = DiskServiceClient::new(channel(&world.sdm.endpoints[0]));
        let mut snapshots = SnapshotServiceClient::new(channel(&world.sdm.endpoints[1]));
        let mut volumes = VolumeServiceClient::new(channel(&world.sdm.endpoints[2]));
        let create = |name: &str, size, format| v1::CreateDiskRequest {
            name: name.to_owned(),
            domain: domain.clone(),
            size,
            format,
            ..Default::default()
        };
        for (request, expected) in [
            (create("c", 0, 1), "SIZE_ZERO"),
            (create("c", u64::MAX, 1), "SIZE_TOO_LARGE"),
            (create("c", 1 << 62, 1), "SIZE_TOO_LARGE"),
            (create("c", 4096, 0), "BAD_FORMAT"),
            (create("c", 4096, 7), "BAD_FORMAT"),
            (create("", 4096, 1), "BAD_NAME"),
            (create("a/b", 4096, 1), "BAD_NAME"),
            (create("0f0f0f0f-1111-4222-8333-444444444444", 4096, 1), "BAD_NAME"),
            (v1::CreateDiskRequest { preallocate: true, ..create("c", 4096, 2) }, "BAD_PREALLOCATION"),
            (
                v1::CreateDiskRequest { description: "a\nVOLTYPE=LEAF".into(), ..create("c", 4096, 1) },
                "BAD_DESCRIPTION",
            ),
            (v1::CreateDiskRequest { description: "x".repeat(1000), ..create("c", 4096, 1) }, "BAD_DESCRIPTION"),
        ] {
            assert_eq!(reason(disks.create_disk(request.clone()).await), expected, "{request:?}");
        }
        let resize = |size, grow_by| v1::ResizeDiskRequest { disk: "bare-a".into(), size, grow_by, header: None };
        for (request, expected) in [
            (resize(0, 0), "SIZE_ZERO"),
            (resize(1, 1), "SIZE_TWICE"),
            (resize(4096, 0), "NOT_LARGER"),
            (resize(u64::MAX, 0), "SIZE_TOO_LARGE"),
            (resize(0, u64::MAX), "SIZE_TOO_LARGE"),
            (resize(1 << 62, 0), "SIZE_TOO_LARGE"),
        ] {
            assert_eq!(reason(disks.resize_disk(request.clone()).await), expected, "{request:?}");
        }
        let clone = |kind, snapshot: &str| v1::CloneDiskRequest {
            disk: "bare-b".into(),
            name: "c".into(),
            kind,
            snapshot: snapshot.into(),
            ..Default::default()
        };
        assert_eq!(reason(disks.clone_disk(clone(9, "")).await), "BAD_CLONE_KIND");
        assert_eq!(reason(disks.clone_disk(clone(1, &of_a)).await), "SNAPSHOT_NOT_FOUND", "of another disk");
        assert_eq!(reason(disks.clone_disk(clone(2, "..")).await), "BAD_NAME");
        let copy = v1::CopyDiskRequest { disk: "bare-b".into(), name: "c".into(), format: -3, ..Default::default() };
        assert_eq!(reason(disks.copy_disk(copy).await), "BAD_FORMAT");
        let delete = v1::DeleteSnapshotRequest { disk: "bare-b".into(), snapshot: of_a.clone(), ..Default::default() };
        assert_eq!(reason(snapshots.delete_snapshot(delete).await), "SNAPSHOT_NOT_FOUND", "of another disk");
        let set = |volume: &str| v1::SetVolumeLegalityRequest { volume: volume.into(), legal: false, header: None };
        assert_eq!(reason(volumes.set_volume_legality(set(&of_a)).await), "REASON_MISSING");
        assert_eq!(reason(volumes.get_volume(v1::GetVolumeRequest { volume: "bare-a".into() }).await), "BAD_VOLUME_ID");
        let nobody = "0f0f0f0f-1111-4222-8333-444444444444".to_owned();
        assert_eq!(reason(volumes.get_volume(v1::GetVolumeRequest { volume: nobody }).await), "VOLUME_NOT_FOUND");
    });
    world.check();
}
