//! The shortest transaction with real processes: every member begins one, a real worker receives and
//! reports it, and the answer is its outcome.

mod cluster;
mod host;

use cluster::Shared;
use cluster::list;
use cluster::text_of;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::transaction_service_client::TransactionServiceClient;

#[test]
fn every_member_has_a_noop_done_by_a_worker() {
    let cluster = Shared::cluster();
    let sdm = cluster.sdm();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (at, address) in sdm.endpoints.iter().enumerate() {
        let txn = runtime.block_on(async {
            let mut client = TransactionServiceClient::connect(format!("http://{address}")).await.unwrap();
            let resource = format!("user/bench/{at}");
            let request = v1::BeginNoopRequest { header: None, resource, wait_ms: 60_000 };
            client.begin_noop(request).await.unwrap().into_inner().transaction.unwrap()
        });
        assert_eq!(txn.phase, "committed", "{txn:?}");
        let told: Vec<&str> = txn.history.iter().map(|event| event.text.as_str()).collect();
        assert!(told.iter().any(|text| text.contains("assigned to worker host-1")), "{told:?}");
        // Begun in one entry, committed by another.
        let entries: std::collections::BTreeSet<u64> = txn.history.iter().map(|event| event.index).collect();
        assert_eq!(entries.len(), 2, "{:?}", txn.history);
        let listed = list(&sdm, "txn").into_iter().find(|row| text_of(row, "id") == txn.id).expect("it is listed");
        assert_eq!(text_of(&listed, "kind"), "noop");
    }
    assert!(list(&sdm, "lock").is_empty());
}
