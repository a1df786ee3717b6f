//! qcow2 files that name other files, or are broken: refused before anything of them is visible, and
//! what was written aside is collected.

mod cluster;
mod host;
mod images;
mod ovirt;

use cluster::Cluster;
use cluster::Shape;
use cluster::dot_names;
use cluster::list;
use cluster::nothing_is_open;
use cluster::request_id;
use cluster::story;
use host::Need;
use host::Scratch;
use host::ready;
use host::text;
use host::until;
use images::Spoilt;
use images::differing_bytes;
use images::spoilt_images;
use serde_json::Value;

#[test]
fn an_image_that_names_another_file_or_is_broken_never_becomes_a_disk() {
    if !ready("an_image_that_names_another_file_or_is_broken_never_becomes_a_disk", &[Need::Tool("qemu-img")]) {
        return;
    }
    let scratch = Scratch::new("spoilt");
    let spoilt = spoilt_images(scratch.path());
    let cluster = Cluster::start(&Shape::usual());
    let folder = cluster.make_domain("shelf-1");
    let sdm = cluster.sdm();
    for Spoilt { name, file, reasons, mentions } in &spoilt {
        let id = request_id(&sdm);
        let import = [
            "disk",
            "import",
            text(file),
            "--name",
            name,
            "--domain",
            "shelf-1",
            "--format",
            "qcow2",
            "--request-id",
            &id,
        ];
        let refused = sdm.refused(&import);
        assert!(reasons.contains(&refused.reason()), "{name}: {refused:?}");
        refused.says(refused.code, refused.reason(), &[mentions]);
        assert!([5, 8, 2, 21].contains(&refused.code), "{name}: {refused:?}");
        let (txn, told) = story(&sdm, &id);
        assert_eq!(txn["phase"], "aborted", "{name}: {txn}");
        assert!(told.iter().any(|line| line.contains(refused.reason())), "{name}: {told:#?}");
        // The recorded answer is given again, without the file.
        assert_eq!(sdm.refused(&import).reason(), refused.reason(), "{name}");
    }
    assert_eq!(list(&sdm, "disk"), Vec::<Value>::new());
    assert_eq!(ovirt::read_domain(&folder).len(), 0, "something of a refused image is visible");
    sdm.done(&["gc", "run"]);
    until("what was written aside is gone", || {
        let (left, listed) = (dot_names(&folder), list(&sdm, "gc"));
        if left.is_empty() && listed.is_empty() { Ok(()) } else { Err(format!("{left:?} {listed:?}")) }
    });
    ovirt::nothing_is_left_over(&folder);
    nothing_is_open(&sdm);
    assert!(!cluster.said("host-1").contains("PROCESS_DIED"), "an I/O process died of a broken image");

    // The names are free, and raw bytes are nobody's format: they are taken as they are.
    let absolute = &spoilt[0];
    let import = ["disk", "import", text(&absolute.file), "--name", &absolute.name, "--domain", "shelf-1"];
    sdm.done(&[&import[..], &["--format", "raw"]].concat());
    let exported = scratch.join("exported");
    sdm.done(&["disk", "export", &absolute.name, text(&exported)]);
    let original = std::fs::metadata(&absolute.file).expect("it is there").len();
    let bytes = std::fs::read(&exported).expect("it is there");
    std::fs::write(&exported, &bytes[..usize::try_from(original).expect("a small file")]).expect("it is written");
    assert_eq!(differing_bytes(&absolute.file, &exported), None);
}
