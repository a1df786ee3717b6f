//! Workers and their sessions, against a real member: who is let in, who goes on, who is told that it
//! is over.

mod stage;

use sdm_proto::refusal::Class;
use sdm_proto::seams::SimulatedClock;
use sdm_proto::wire::internal::v1::Goodbye;
use sdm_proto::wire::internal::v1::Hello;
use sdm_proto::wire::internal::v1::Report;
use sdm_proto::wire::internal::v1::gateway_message::Message as Out;
use sdm_proto::wire::internal::v1::worker_message::Message as In;
use stage::Stage;
use stage::until;
use stage::worker::Scripted;
use stage::worker::hello;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_welcomed_told_its_set_and_acknowledged() {
    let stage = Stage::open().await;
    let mut worker = Scripted::connect(&stage, hello("a")).await.unwrap();
    let welcome = worker.welcome.clone();
    assert_eq!((welcome.member.as_str(), welcome.epoch, welcome.ttl_ms), ("m1", 1, 10_000));
    let set = worker.set_where(|_| true).await;
    assert_eq!((set.epoch, set.items.len()), (1, 0));
    assert!(set.applied_index >= welcome.session_epoch, "a set older than the session would be ignored");
    for sequence in [3, 7] {
        worker.ping(sequence).await;
    }
    let mut answered = Vec::new();
    while answered.len() < 2 {
        if let Some(Out::KeepAlive(pong)) = worker.next().await.unwrap() {
            answered.push(pong.sequence);
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, [3, 7]);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_goes_on_with_its_session_over_a_new_stream() {
    let stage = Stage::open().await;
    let first = Scripted::connect(&stage, hello("a")).await.unwrap().welcome;
    let resuming = Hello {
        session_id: first.session_id.clone(),
        session_epoch: first.session_epoch,
        cluster_id: first.cluster_id.clone(),
        ..hello("a")
    };
    let second = Scripted::connect(&stage, resuming).await.unwrap().welcome;
    assert_eq!((&second.session_id, second.session_epoch), (&first.session_id, first.session_epoch));
    // The same process without its memory of the session finds it by its nonce.
    let third = Scripted::connect(&stage, hello("a")).await.unwrap().welcome;
    assert_eq!(third.session_id, first.session_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_that_finds_its_session_again_has_the_leader_count_the_lease_anew() {
    let clock = SimulatedClock::default();
    let stage = Stage::open_on(Some(clock.clone())).await;
    let _silent = Scripted::connect(&stage, hello("silent")).await.unwrap();
    let first = Scripted::connect(&stage, hello("a")).await.unwrap().welcome;
    clock.advance(9_000);
    let again = Scripted::connect(&stage, hello("a")).await.unwrap();
    assert_eq!(again.welcome.session_id, first.session_id);
    clock.advance(9_000);
    // Both opened at the same time: without the second hello's renewal they would end together.
    until("the silent worker is lost", async || (stage.worker_state("silent").await == "lost").then_some(())).await;
    assert_eq!(stage.worker_state("a").await, "live");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_says_goodbye_is_gone_at_once_and_what_it_said_before_counts() {
    // Nothing but its word can end the session: time stands still.
    let stage = Stage::open_on(Some(SimulatedClock::default())).await;
    let mut worker = Scripted::connect(&stage, hello("a")).await.unwrap();
    worker.send(In::Goodbye(Goodbye {})).await;
    loop {
        match worker.next().await.unwrap() {
            Some(Out::SessionEnded(ended)) => break assert!(ended.message.contains("goodbye"), "{}", ended.message),
            Some(_) => {}
            None => panic!("the stream ended without a word"),
        }
    }
    assert_eq!(worker.next().await, Ok(None));
    assert_eq!(stage.worker_state("a").await, "lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goodbye_counts_though_the_worker_does_not_wait_for_the_answer() {
    let stage = Stage::open_on(Some(SimulatedClock::default())).await;
    let mut worker = Scripted::connect(&stage, hello("a")).await.unwrap();
    worker.send(In::Goodbye(Goodbye {})).await;
    worker.say_no_more();
    until("the worker is gone", async || (stage.worker_state("a").await == "lost").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_process_was_replaced_is_told_so() {
    let stage = Stage::open().await;
    let mut old = Scripted::connect(&stage, hello("a")).await.unwrap();
    let new = Scripted::connect(&stage, Hello { process_nonce: "another".into(), ..hello("a") }).await.unwrap();
    assert_ne!(new.welcome.session_id, old.welcome.session_id);
    loop {
        match old.next().await.unwrap() {
            Some(Out::SessionEnded(ended)) => break assert!(ended.message.contains(&old.welcome.session_id)),
            Some(_) => {}
            None => panic!("the stream ended without a word"),
        }
    }
    assert_eq!(old.next().await, Ok(None));
    // Its hello does not bring the old session back.
    let resuming =
        Hello { session_id: old.welcome.session_id.clone(), session_epoch: old.welcome.session_epoch, ..hello("a") };
    let again = Scripted::connect(&stage, resuming).await.unwrap();
    assert_ne!(again.welcome.session_id, old.welcome.session_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_worker_under_a_live_name_and_one_of_another_cluster_are_refused() {
    let stage = Stage::open().await;
    let _first = Scripted::connect(&stage, hello("a")).await.unwrap();
    let namesake = Hello { name: "a".into(), ..hello("b") };
    let refusal = Scripted::connect(&stage, namesake).await.err().unwrap();
    assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Conflict, "WORKER_NAME_IN_USE"));
    assert!(refusal.hint.contains("--name"), "{}", refusal.hint);
    let stranger = Hello { cluster_id: "0f0f0f0f-1111-4222-8333-444444444444".into(), ..hello("c") };
    let refusal = Scripted::connect(&stage, stranger).await.err().unwrap();
    assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Denied, "WRONG_CLUSTER"));
    let nobody = Hello { worker_id: "c".into(), ..hello("c") };
    assert_eq!(Scripted::connect(&stage, nobody).await.err().unwrap().reason, "BAD_HELLO");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_ends_the_stream_with_a_reason() {
    let stage = Stage::open().await;
    for nonsense in [In::Report(Report { token: "x".into(), ..Report::default() }), In::Hello(hello("a"))] {
        let mut worker = Scripted::connect(&stage, hello("a")).await.unwrap();
        worker.send(nonsense).await;
        let refusal = loop {
            match worker.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a reason"),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(refusal.class, Class::Invalid, "{refusal}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_closes_ends_its_streams() {
    let stage = Stage::open().await;
    let mut worker = Scripted::connect(&stage, hello("a")).await.unwrap();
    worker.set_where(|_| true).await;
    stage.close().await;
    while let Ok(Some(_)) = worker.next().await {}
}
