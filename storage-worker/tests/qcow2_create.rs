//! Empty images of our own, judged by qemu-img and by our check.

mod fixture;

use fixture::create_disk;
use fixture::create_domain;
use fixture::has_qemu_img;
use fixture::placed;
use fixture::placement_path;
use fixture::qemu_img;
use fixture::root;
use fixture::text;
use fixture::tool;
use sdm_storage_worker::volume::qcow2::check;
use sdm_storage_worker::work::CancelFlag;
use sdm_storage_worker::work::Order;
use sdm_storage_worker::work::Ports;
use sdm_storage_worker::work::VolumeFormat;
use sdm_storage_worker::work::run;

#[tokio::test]
async fn an_empty_image_is_what_qemu_expects() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let domain = root(folder.path(), 1);
    fixture::done(run(Order::CreateDomain(create_domain(domain.clone())), Ports::silent()).await);
    for (number, size) in [(1, 512), (2, 1 << 20), (3, (5 << 30) + 1), (4, 16 << 40)] {
        let report = placed(run(create_disk(&domain, number, VolumeFormat::Qcow2, size), Ports::silent()).await);
        let image = placement_path(&domain, number).join(fixture::VOLUME.to_string());
        let bytes = std::fs::read(&image).expect("the image is read");
        let facts = check(bytes.as_slice(), &CancelFlag::new()).expect("our own image passes our own check");
        assert_eq!(facts.virtual_bytes, size.next_multiple_of(512));
        assert_eq!(report.volumes[0].virtual_bytes, facts.virtual_bytes);
        assert_eq!(facts.leaked_clusters, 0);
        if has_qemu_img("an_empty_image_is_what_qemu_expects") {
            qemu_img(&["check", "-f", "qcow2", text(&image)]);
            let json = qemu_img(&["info", "-f", "qcow2", "--output=json", text(&image)]);
            assert!(json.contains(&format!("\"virtual-size\": {}", facts.virtual_bytes)), "{json}");
            if number == 2 {
                tool("qemu-io", &["-f", "qcow2", "-c", "write -P 7 1000k 20k", text(&image)]);
                qemu_img(&["check", "-f", "qcow2", text(&image)]);
            }
        }
    }
}
