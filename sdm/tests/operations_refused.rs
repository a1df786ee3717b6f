//! What operations on disks refuse: with which reason, who is named, and what to do next; from the
//! command line, and over the bare API, whose callers check nothing beforehand.

mod cluster;
mod host;
mod operations;
mod ovirt;

use cluster::Refused;
use cluster::Sdm;
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
    world.written("a", "raw");
    world.snapshot("a", "one");
    world.snapshot("a", "two");
    world.written("plain", "qcow2");
    let sdm = world.sdm.clone();
    let (first, second) = (world.domain(0).to_owned(), world.domain(1).to_owned());

    sdm.refused(&["disk", "resize", "a", "4MiB"]).says(5, "NOT_LARGER", &["a", "8388608"]);
    sdm.refused(&["disk", "resize", "a", "8MiB"]).says(5, "NOT_LARGER", &["a"]);
    sdm.refused(&["disk", "resize", "a", "0"]).says(2, "BAD_SIZE", &["SIZE"]);
    sdm.refused(&["disk", "resize", "a", "--", "-1G"]).says(2, "BAD_SIZE", &["SIZE"]);
    sdm.refused(&["disk", "rename", "a", "plain"]).says(4, "DISK_EXISTS", &["plain"]);
    sdm.refused(&["disk", "rename", "a", "a"]).says(5, "ALREADY_SO", &["a"]);
    sdm.refused(&["disk", "rename", "a", "../a"]).says(2, "BAD_NAME", &["NAME"]);
    sdm.refused(&["disk", "copy", "a", "plain"]).says(4, "DISK_EXISTS", &["plain"]);
    sdm.refused(&["disk", "copy", "a", "b"]).says(5, "CHAIN_NOT_COLLAPSED", &["a", "3"]);
    sdm.refused(&["disk", "copy", "a", "b", "--to", "nowhere"]).says(3, "DOMAIN_NOT_FOUND", &["nowhere"]);
    sdm.refused(&["disk", "convert", "a", "--format", "raw"]).says(5, "HAS_SNAPSHOTS", &["a"]);
    sdm.refused(&["disk", "convert", "plain", "--format", "qcow2"]).says(5, "ALREADY_SO", &["plain"]);
    sdm.refused(&["disk", "convert", "plain", "--format", "qcow2", "--preallocate"]).says(
        2,
        "BAD_PREALLOCATION",
        &["qcow2"],
    );
    sdm.refused(&["disk", "move", "a", "--to", &first]).says(5, "ALREADY_THERE", &["a"]);
    sdm.refused(&["disk", "clone", "a", "b", "--snapshot", "three"]).says(3, "SNAPSHOT_NOT_FOUND", &["a", "three"]);
    sdm.refused(&["snapshot", "create", "a", "one"]).says(4, "SNAPSHOT_EXISTS", &["one"]);
    sdm.refused(&["snapshot", "show", "plain", "one"]).says(3, "SNAPSHOT_NOT_FOUND", &["plain"]);
    let leaf = world.leaf_of("a");
    let leaf = leaf.file_name().and_then(|name| name.to_str()).expect("it has a name");
    sdm.refused(&["snapshot", "delete", "a", leaf]).says(3, "SNAPSHOT_NOT_FOUND", &["no snapshot"]);
    let newer = sdm.refused(&["snapshot", "revert", "a", "one"]);
    newer.says(5, "NEWER_SNAPSHOTS", &["one"]);
    assert!(newer.hint().contains("--discard-newer"), "{}", newer.hint());
    blocked_by(&newer, "snapshot two");

    // A clone of the second snapshot stands on the volumes of both.
    sdm.done(&["disk", "clone", "a", "clone", "--snapshot", "two"]);
    world.has_linked_clone("a", "clone");
    world.expected("clone").layers = 3;
    let shared = sdm.refused(&["snapshot", "delete", "a", "one"]);
    shared.says(5, "SHARED_VOLUME", &["one", "clone"]);
    blocked_by(&shared, "clone");
    let own = sdm.refused(&["snapshot", "delete", "clone", "two"]);
    own.says(3, "SNAPSHOT_NOT_FOUND", &["snapshot of a"]);

    // A template.
    sdm.done(&["template", "make", "plain", "base"]);
    world.has_copy("plain", "base");
    world.expected("base").template = true;
    sdm.done(&["disk", "clone", "base", "child"]);
    world.has_linked_clone("base", "child");
    let in_use = sdm.refused(&["template", "delete", "base"]);
    in_use.says(5, "TEMPLATE_IN_USE", &["base", "child"]);
    blocked_by(&in_use, "child");
    sdm.refused(&["disk", "delete", "base"]).says(5, "TEMPLATE_IN_USE", &["base"]);
    sdm.refused(&["disk", "resize", "base", "16MiB"]).says(5, "TEMPLATE_READ_ONLY", &["base"]);
    sdm.refused(&["snapshot", "create", "base", "one"]).says(5, "TEMPLATE_READ_ONLY", &["base"]);
    sdm.refused(&["template", "delete", "plain"]).says(5, "NOT_A_TEMPLATE", &["plain"]);
    sdm.refused(&["template", "show", "plain"]).says(5, "NOT_A_TEMPLATE", &["plain"]);

    // A volume out of use.
    sdm.refused(&["volume", "set-illegal", leaf]).says(2, "REASON_MISSING", &["reason"]);
    sdm.refused(&["volume", "set-illegal", "a", "--reason", "x"]).says(2, "BAD_VOLUME_ID", &["a"]);
    sdm.done(&["volume", "set-illegal", leaf, "--reason", "a test"]);
    sdm.refused(&["disk", "move", "a", "--to", &second]).says(5, "DISK_ILLEGAL", &["a"]);
    sdm.done(&["volume", "set-legal", leaf, "--reason", "the test is over"]);
    world.check();

    // What all of these left is what was there before; the last clone frees its template.
    sdm.done(&["disk", "delete", "child"]);
    sdm.done(&["template", "delete", "base"]);
    world.model.remove("child");
    world.model.remove("base");
    world.check();
}

#[test]
fn a_chain_grows_to_its_limit_and_no_further() {
    if !ready("a_chain_grows_to_its_limit", TOOLS) {
        return;
    }
    let cluster = Shared::cluster();
    let mut world = World::new(&cluster, "long");
    world.create("a", "qcow2");
    for number in 1..CHAIN_MAX {
        world.snapshot("a", &format!("s{number}"));
    }
    let refused = world.sdm.refused(&["snapshot", "create", "a", "one-more"]);
    refused.says(7, "CHAIN_TOO_LONG", &["a", "32"]);
    assert!(refused.hint().contains("sdm snapshot delete"), "{}", refused.hint());
    let many = world.sdm.refused(&["disk", "clone", "a", "b", "--linked"]);
    many.says(7, "CHAIN_TOO_LONG", &["a"]);
    world.sdm.done(&["snapshot", "delete", "a", "s7"]);
    let a = world.expected("a");
    a.snapshots.remove(6);
    a.layers -= 1;
    world.snapshot("a", "one-more");
    world.check();
}

#[test]
fn what_somebody_else_is_at_work_on_is_named() {
    if !ready("what_somebody_else_is_at_work_on", TOOLS) {
        return;
    }
    let cluster = Shared::cluster();
    let mut world = World::new(&cluster, "busy");
    world.create("a", "raw");
    let (sdm, second) = (world.sdm.clone(), world.domain(1).to_owned());
    let id = request_id(&sdm);
    let stopped = Stopped::new(vec![cluster.pid("host-1")]);
    sdm.done(&["snapshot", "create", "a", "one", "--no-wait", "--request-id", &id]);
    let locked = sdm.refused(&["disk", "move", "a", "--to", &second, "--no-wait-lock"]);
    locked.says(5, "LOCKED", &["make snapshot one of disk a"]);
    blocked_by(&locked, &id);
    let plan = sdm.done(&["disk", "move", "a", "--to", &second, "--dry-run"]);
    assert!(plan["would_wait_for"].to_string().contains(&id), "{plan}");
    // A template made of it only reads, and waits all the same: what it would read is about to change.
    let plan = sdm.done(&["template", "make", "a", "base", "--dry-run"]);
    assert!(plan["would_wait_for"].to_string().contains(&id), "{plan}");
    stopped.go_on();
    nothing_is_open_soon(&sdm);
    world.has_snapshot("a", "one");
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
    world.create("a", "raw");
    world.snapshot("a", "one");
    let (sdm, second) = (world.sdm.clone(), world.domain(1).to_owned());
    sdm.done(&["disk", "attach", "a", "--host", "host-1"]);
    for line in [
        &["disk", "move", "a", "--to", second.as_str()][..],
        &["disk", "resize", "a", "16MiB"],
        &["disk", "delete", "a"],
        &["disk", "copy", "a", "b", "--collapse"],
        &["disk", "clone", "a", "b", "--linked"],
        &["snapshot", "create", "a", "two"],
        &["snapshot", "delete", "a", "one"],
        &["snapshot", "revert", "a", "one"],
        &["template", "make", "a", "b"],
    ] {
        let refused = sdm.refused(line);
        refused.says(5, "ATTACHED", &["a", "host-1"]);
        assert!(refused.hint().contains("detach"), "{line:?}: {}", refused.hint());
    }
    // Words about it hurt nobody.
    sdm.done(&["disk", "describe", "a", "in use"]);
    world.expected("a").description = "in use".to_owned();
    sdm.done(&["disk", "detach", "a"]);
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
    world.create("a", "raw");
    world.snapshot("a", "one");
    world.create("b", "raw");
    let domain = world.domain(0).to_owned();
    let shown = world.sdm.done(&["disk", "show", "a"]);
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
        let resize = |size, grow_by| v1::ResizeDiskRequest { disk: "a".into(), size, grow_by, header: None };
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
            disk: "b".into(),
            name: "c".into(),
            kind,
            snapshot: snapshot.into(),
            ..Default::default()
        };
        assert_eq!(reason(disks.clone_disk(clone(9, "")).await), "BAD_CLONE_KIND");
        assert_eq!(reason(disks.clone_disk(clone(1, &of_a)).await), "SNAPSHOT_NOT_FOUND", "of another disk");
        assert_eq!(reason(disks.clone_disk(clone(2, "..")).await), "BAD_NAME");
        let copy = v1::CopyDiskRequest { disk: "b".into(), name: "c".into(), format: -3, ..Default::default() };
        assert_eq!(reason(disks.copy_disk(copy).await), "BAD_FORMAT");
        let delete = v1::DeleteSnapshotRequest { disk: "b".into(), snapshot: of_a.clone(), ..Default::default() };
        assert_eq!(reason(snapshots.delete_snapshot(delete).await), "SNAPSHOT_NOT_FOUND", "of another disk");
        let set = |volume: &str| v1::SetVolumeLegalityRequest { volume: volume.into(), legal: false, header: None };
        assert_eq!(reason(volumes.set_volume_legality(set(&of_a)).await), "REASON_MISSING");
        assert_eq!(reason(volumes.get_volume(v1::GetVolumeRequest { volume: "a".into() }).await), "BAD_VOLUME_ID");
        let nobody = "0f0f0f0f-1111-4222-8333-444444444444".to_owned();
        assert_eq!(reason(volumes.get_volume(v1::GetVolumeRequest { volume: nobody }).await), "VOLUME_NOT_FOUND");
    });
    world.check();
}
