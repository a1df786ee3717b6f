//! Members as a cluster: founding, joining, proposing and reading anywhere, losing and regaining
//! members.

mod cluster;

use cluster::Cluster;
use sdm_coordinator::Start;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_form_a_cluster_and_each_answers_for_all() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    for name in ["a", "b", "c"] {
        let status = cluster
            .status_until(name, |status| {
                status.members.len() == 3 && status.members.iter().all(|m| m.reachable && m.role != "learner")
            })
            .await;
        assert!(status.has_quorum);
        assert_eq!(status.answered_by, name);
        assert_eq!(status.members.iter().filter(|member| member.role == "leader").count(), 1);
    }
    let _ = Start::Resume;
}
