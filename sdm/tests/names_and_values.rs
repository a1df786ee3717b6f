//! Names, sizes and references that are wrong, or clash with what there is: refused with the thing
//! named, and nothing changed.

mod cluster;
mod host;

use cluster::Sdm;
use cluster::Shared;
use cluster::list;
use cluster::names;
use cluster::request_id;
use cluster::story;
use host::text;

/// An id that a user drew.
const PLAIN: &str = "0f0f0f0f-1111-4222-8333-555555555555";

/// An id that nothing has.
const NOBODY: &str = "0f0f0f0f-1111-4222-8333-444444444444";

fn create(sdm: &Sdm, name: &str, domain: &str) {
    sdm.done(&["disk", "create", name, "--domain", domain, "--size", "64K"]);
}

#[test]
fn what_does_not_exist_is_named_by_name_or_id() {
    let cluster = Shared::cluster();
    cluster.make_domain("known");
    let sdm = cluster.sdm();
    create(&sdm, "known-disk", "known");
    let file = cluster.path("known-file");
    std::fs::write(&file, "bytes").unwrap();
    let never = cluster.path("never-written");
    for unknown in ["unknown", NOBODY] {
        let disk: [&[&str]; 5] = [
            &["disk", "show", unknown],
            &["disk", "delete", unknown],
            &["disk", "move", unknown, "--to", "known"],
            &["disk", "export", unknown, text(&never)],
            &["disk", "export", unknown, text(&file), "--overwrite"],
        ];
        for arguments in disk {
            sdm.refused(arguments).says(3, "DISK_NOT_FOUND", &[unknown]);
        }
        let domain: [&[&str]; 5] = [
            &["domain", "show", unknown],
            &["disk", "list", "--domain", unknown],
            &["disk", "create", "x", "--domain", unknown, "--size", "1M"],
            &["disk", "move", "known-disk", "--to", unknown],
            &["disk", "import", text(&file), "--name", "x", "--domain", unknown, "--format", "raw"],
        ];
        for arguments in domain {
            sdm.refused(arguments).says(3, "DOMAIN_NOT_FOUND", &[unknown]);
        }
    }
    sdm.refused(&["txn", "show", NOBODY]).says(3, "TXN_NOT_FOUND", &[NOBODY]);
    assert_eq!(std::fs::read(&file).unwrap(), b"bytes", "an export of nothing wrote");
    assert!(!never.exists());
    assert!(!names(&list(&sdm, "disk")).contains(&"x".to_owned()));
}

#[test]
fn a_name_is_given_once() {
    let cluster = Shared::cluster();
    cluster.make_domain("taken");
    cluster.make_domain("taken-2");
    let sdm = cluster.sdm();
    create(&sdm, "taken-disk", "taken");
    let before = list(&sdm, "disk").into_iter().find(|disk| disk["name"] == "taken-disk");
    let file = cluster.path("taken-file");
    std::fs::write(&file, "bytes").unwrap();
    // In another domain too: a disk's name is the pool's.
    for domain in ["taken", "taken-2"] {
        let again = sdm.refused(&["disk", "create", "taken-disk", "--domain", domain, "--size", "1M"]);
        again.says(4, "DISK_EXISTS", &["taken-disk"]);
        let import = ["disk", "import", text(&file), "--name", "taken-disk", "--domain", domain, "--format", "raw"];
        sdm.refused(&import).says(4, "DISK_EXISTS", &["taken-disk"]);
    }
    let path = cluster.scratch().folder("taken-elsewhere");
    let again = sdm.refused(&["domain", "create", "taken", "--path", text(&path), "--local"]);
    again.says(4, "DOMAIN_EXISTS", &["taken"]);
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0, "a refused domain left something");
    let after = list(&sdm, "disk").into_iter().find(|disk| disk["name"] == "taken-disk");
    assert_eq!(before, after);
}

#[test]
fn what_is_no_name_is_refused_wherever_it_stands() {
    let cluster = Shared::cluster();
    let sdm = cluster.sdm();
    let long = "x".repeat(129);
    for bad in ["", "../x", "a b", "-x", ".x", "ä", "x/y", "x\n", NOBODY, &long] {
        let name = ["disk", "create", "--domain", "d", "--size", "1M", "--", bad];
        sdm.refused(&name).says(2, "BAD_NAME", &[]);
        let domain = ["domain", "create", "--path", "/nowhere", "--", bad];
        sdm.refused(&domain).says(2, "BAD_NAME", &[]);
        if bad != NOBODY {
            sdm.refused(&["disk", "show", "--", bad]).says(2, "BAD_NAME", &[]);
        }
    }
}

#[test]
fn what_is_no_size_is_refused_and_so_is_what_no_disk_can_have() {
    let cluster = Shared::cluster();
    cluster.make_domain("sizes");
    let sdm = cluster.sdm();
    let create = |size: &str| {
        let size = format!("--size={size}");
        sdm.refused(&["disk", "create", "of-no-size", "--domain", "sizes", &size])
    };
    for bad in ["40GG", "", "G", "1.5G", "-1", "0", "0x10", "10iB", "99999999999999999999"] {
        create(bad).says(2, "BAD_SIZE", &["--size"]);
    }
    for large in ["9223372036854775807", "7P"] {
        create(large).states(2, "SIZE_TOO_LARGE", &["17592186044416"]);
    }
    assert!(!names(&list(&sdm, "disk")).contains(&"of-no-size".to_owned()));
    // Sizes are rounded up to what storage addresses.
    let made = sdm.done(&["disk", "create", "odd-size", "--domain", "sizes", "--size", "5001"]);
    assert_eq!(made["disk"]["virtual_size"], 8192, "{made}");
    for format in ["raw", "qcow2"] {
        let name = format!("large-{format}");
        let made = sdm.done(&["disk", "create", &name, "--domain", "sizes", "--size", "1T", "--format", format]);
        assert_eq!(made["disk"]["virtual_size"], 1_u64 << 40, "{made}");
    }
}

#[test]
fn a_disk_is_not_moved_to_where_it_is() {
    let cluster = Shared::cluster();
    let folder = cluster.make_domain("here");
    let sdm = cluster.sdm();
    create(&sdm, "stays", "here");
    let before = sdm.done(&["disk", "show", "stays"]);
    sdm.refused(&["disk", "move", "stays", "--to", "here"]).says(5, "ALREADY_THERE", &["stays", "here"]);
    assert_eq!(sdm.done(&["disk", "show", "stays"]), before);
    assert_eq!(cluster::dot_names(&folder).len(), 0);
}

#[test]
fn a_request_id_names_one_request_whichever_member_gets_the_repetition() {
    let cluster = Shared::cluster();
    cluster.make_domain("repeated");
    let members = cluster.member_names();
    let at = |number: usize| cluster.sdm_at(&[&members[number]]);
    let id = request_id(&at(0));
    let line = ["disk", "create", "once", "--domain", "repeated", "--size", "1M", "--request-id", &id];
    let first = at(0).done(&line);
    for number in [1, 2, 0] {
        let again = at(number).done(&line);
        assert_eq!(again["disk"], first["disk"], "made twice at {}", members[number]);
        assert_eq!(again["transaction"], first["transaction"]);
    }
    let other = ["disk", "create", "once", "--domain", "repeated", "--size", "2M", "--request-id", &id];
    at(1).refused(&other).says(4, "REQUEST_ID_REUSED", &[&id]);
    let moved = ["disk", "delete", "once", "--request-id", &id];
    at(2).refused(&moved).says(4, "REQUEST_ID_REUSED", &[&id]);

    let deleting = request_id(&at(1));
    let delete = ["disk", "delete", "once", "--request-id", &deleting];
    at(1).done(&delete);
    // The name means nothing any more, the id still does.
    assert_eq!(at(2).done(&delete)["transaction"]["phase"], "committed");

    // A refusal is remembered too, whatever has changed meanwhile.
    create(&at(0), "in-the-way", "repeated");
    let refused = request_id(&at(2));
    let line = ["disk", "create", "in-the-way", "--domain", "repeated", "--size", "1M", "--request-id", &refused];
    at(2).refused(&line).says(4, "DISK_EXISTS", &["in-the-way"]);
    at(0).done(&["disk", "delete", "in-the-way"]);
    let again = at(1).refused(&line);
    again.says(4, "DISK_EXISTS", &["in-the-way"]);
    assert!(again.hint().contains("request-id"), "{again:?}");
    assert_eq!(story(&at(0), &refused).0["phase"], "refused");
}

#[test]
fn an_id_that_no_cluster_issued_or_that_is_too_long_ago_is_told_apart() {
    let cluster = Shared::cluster();
    let sdm = cluster.sdm();
    sdm.refused(&["disk", "delete", "x", "--request-id", "not-a-uuid"]).says(2, "BAD_REQUEST_ID", &["not-a-uuid"]);
    // A plain UUID serves as well.
    cluster.make_domain("plain-ids");
    let line = ["disk", "create", "plain-id", "--domain", "plain-ids", "--size", "1M", "--request-id", PLAIN];
    let first = sdm.done(&line);
    assert_eq!(first["transaction"]["id"], PLAIN);
    assert_eq!(sdm.done(&line)["disk"], first["disk"]);
    let ids: Vec<String> = (0..3).map(|_| request_id(&sdm)).collect();
    assert!(ids.iter().all(|id| ids.iter().filter(|other| *other == id).count() == 1), "{ids:?}");
}
