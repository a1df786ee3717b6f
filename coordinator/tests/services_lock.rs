//! `LockService`: clients' sessions and the locks they take, wait for and give back, at one member and
//! at several.

mod cluster;

use cluster::Cluster;
use sdm_coordinator::Core;
use sdm_proto::credentials::CallCredentials;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::seams::Transport;
use sdm_proto::seams::channel;
use sdm_proto::status::from_status;
use sdm_proto::token::Token;
use sdm_proto::wire::v1;
use sdm_proto::wire::v1::lock_answer::Outcome;
use sdm_proto::wire::v1::lock_call::Call;
use sdm_proto::wire::v1::lock_service_client::LockServiceClient;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tonic::Response;
use tonic::Status;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

type Client = LockServiceClient<InterceptedService<Channel, CallCredentials>>;

fn locks(cluster: &Cluster, member: &str) -> Client {
    let transport: Arc<dyn Transport> = Arc::new(cluster.network.host("test"));
    let channel = channel(&transport, &format!("{member}:7400")).unwrap();
    LockServiceClient::with_interceptor(channel, CallCredentials::public(cluster::secret("the secret of this test")))
}

fn answer<T>(answer: Result<Response<T>, Status>) -> Result<T, Refusal> {
    answer.map(Response::into_inner).map_err(|status| from_status(&status))
}

/// A client with its session.
struct Session {
    client: Client,
    key: v1::SessionKey,
    sequence: u64,
}

impl Session {
    async fn open(client: Client, nonce: &str) -> Self {
        let request = v1::OpenSessionRequest { label: format!("{nonce}@test"), ttl_ms: 60_000, nonce: nonce.into() };
        let opened = answer(client.clone().open_session(request).await).unwrap();
        assert_eq!(opened.ttl_ms, 60_000);
        assert!(opened.cluster_id.parse::<sdm_proto::ids::ClusterId>().is_ok());
        Self { client, key: opened.session.unwrap(), sequence: 0 }
    }

    fn request(&mut self, name: &str, mode: &str, wait_ms: u64) -> v1::AcquireRequest {
        self.sequence += 1;
        v1::AcquireRequest {
            session: Some(self.key),
            sequence: self.sequence,
            resources: vec![v1::LockedResource { resource: format!("user/{name}"), mode: mode.into() }],
            wait_ms,
            why: "a test".into(),
        }
    }

    async fn acquire(&mut self, name: &str, mode: &str, wait_ms: u64) -> Result<v1::AcquireResponse, Refusal> {
        let request = self.request(name, mode, wait_ms);
        answer(self.client.acquire(request).await)
    }

    /// Asks in the background.
    fn ask(&mut self, name: &str, wait_ms: u64) -> tokio::task::JoinHandle<Result<v1::AcquireResponse, Refusal>> {
        let (mut client, request) = (self.client.clone(), self.request(name, "X", wait_ms));
        tokio::spawn(async move { answer(client.acquire(request).await) })
    }

    async fn release(&mut self, lock_id: &str) -> Result<(), Refusal> {
        self.sequence += 1;
        let request =
            v1::ReleaseRequest { session: Some(self.key), sequence: self.sequence, lock_id: lock_id.to_owned() };
        answer(self.client.release(request).await).map(|_| ())
    }

    async fn close(&mut self) {
        answer(self.client.close_session(v1::CloseSessionRequest { session: Some(self.key) }).await).unwrap();
    }

    /// How many lock sets are held and wait.
    async fn count(&mut self) -> (usize, usize) {
        let list = answer(self.client.list_locks(v1::ListLocksRequest::default()).await).unwrap().items;
        let held = list.iter().filter(|lock| lock.state == "held").count();
        (held, list.len() - held)
    }

    async fn until_counted(&mut self, wanted: (usize, usize)) {
        let deadline = tokio::time::Instant::now() + cluster::PATIENCE;
        loop {
            let count = self.count().await;
            if count == wanted {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{count:?} locks are held and wait, not {wanted:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The last entry, once nothing follows it: what members tell each other after their start is over.
async fn quiet(core: &Core) -> Option<u64> {
    let mut changes = core.watch();
    loop {
        let last = *changes.borrow_and_update();
        if tokio::time::timeout(Duration::from_secs(1), changes.changed()).await.is_err() {
            return last;
        }
    }
}

fn token(granted: &v1::AcquireResponse) -> Token {
    granted.token.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_is_granted_refused_with_its_holder_waited_for_and_passed_on() {
    let cluster = Cluster::of(&["a"]).await;
    let (mut first, mut second) =
        (Session::open(locks(&cluster, "a"), "1").await, Session::open(locks(&cluster, "a"), "2").await);
    let held = first.acquire("r", "X", 0).await.unwrap();
    let refusal = second.acquire("r", "S", 0).await.unwrap_err();
    assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Precondition, "LOCKED"));
    assert!(refusal.message.contains("1@test") && !refusal.hint.is_empty(), "{refusal}");
    assert_eq!(refusal.blockers[0].id, held.lock_id);
    let waiting = second.ask("r", 60_000);
    first.until_counted((1, 1)).await;
    first.release(&held.lock_id).await.unwrap();
    let passed_on = waiting.await.unwrap().unwrap();
    assert!(token(&passed_on) > token(&held));
    assert_eq!(first.release(&held.lock_id).await.unwrap_err().reason, "LOCK_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_is_over_names_the_holder_and_one_whose_session_ends_says_so() {
    let cluster = Cluster::of(&["a"]).await;
    let (mut first, mut second) =
        (Session::open(locks(&cluster, "a"), "1").await, Session::open(locks(&cluster, "a"), "2").await);
    first.acquire("r", "X", 0).await.unwrap();
    let refusal = second.acquire("r", "X", 200).await.unwrap_err();
    assert_eq!((refusal.class, refusal.reason.as_str()), (Class::Timeout, "LOCK_WAIT_TIMEOUT"));
    assert!(refusal.message.contains("1@test") && !refusal.hint.is_empty(), "{refusal}");
    let waiting = second.ask("r", 60_000);
    first.until_counted((1, 1)).await;
    second.close().await;
    let refusal = waiting.await.unwrap().unwrap_err();
    assert_eq!(refusal.reason, "SESSION_EXPIRED");
    assert_eq!(first.count().await, (1, 0));
    // Closed already is closed.
    second.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repetition_changes_nothing_twice_and_a_release_without_a_lock_gives_up_the_request_before() {
    let cluster = Cluster::of(&["a"]).await;
    let (mut first, mut second) =
        (Session::open(locks(&cluster, "a"), "1").await, Session::open(locks(&cluster, "a"), "2").await);
    let again = Session::open(locks(&cluster, "a"), "1").await;
    assert_eq!(again.key, first.key, "one nonce, one session");
    let request = first.request("r", "X", 0);
    let held = answer(first.client.acquire(request.clone()).await).unwrap();
    assert_eq!(answer(first.client.acquire(request).await).unwrap(), held);
    assert_eq!(first.count().await, (1, 0));
    let waiting = second.ask("r", 60_000);
    first.until_counted((1, 1)).await;
    second.release("").await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap_err().reason, "LOCK_GIVEN_UP");
    first.release("").await.unwrap();
    assert_eq!(first.count().await, (0, 0));
    // Nothing is there to be given up, and that is fine.
    first.release("").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keepalives_are_acknowledged_while_the_session_lives_and_bad_requests_are_refused() {
    let cluster = Cluster::of(&["a"]).await;
    let mut session = Session::open(locks(&cluster, "a"), "1").await;
    let nobody = v1::SessionKey { id: 999_999, epoch: 999_999 };
    let request = v1::KeepAliveRequest { sessions: vec![session.key, nobody] };
    let renewed = answer(session.client.keep_alive(request.clone()).await).unwrap();
    assert_eq!(renewed.acknowledged, [session.key]);
    for (name, mode, reason) in [("", "X", "BAD_RESOURCE"), ("a b", "X", "BAD_RESOURCE"), ("a", "SIX", "BAD_MODE")] {
        assert_eq!(session.acquire(name, mode, 0).await.unwrap_err().reason, reason, "{name:?} {mode}");
    }
    assert_eq!(session.acquire("a", "X", u64::MAX).await.unwrap_err().reason, "BAD_LOCK_WAIT");
    let mut stranger = Session { client: session.client.clone(), key: nobody, sequence: 0 };
    assert_eq!(stranger.acquire("a", "X", 0).await.unwrap_err().reason, "SESSION_EXPIRED");
    session.close().await;
    assert!(answer(session.client.keep_alive(request).await).unwrap().acknowledged.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_goes_on_at_another_member_without_an_entry_and_is_pushed_from_there() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let leader = cluster.leader("a").await;
    let others: Vec<&str> = ["a", "b", "c"].into_iter().filter(|name| *name != leader).collect();
    let mut first = Session::open(locks(&cluster, others[0]), "1").await;
    let mut second = Session::open(locks(&cluster, others[1]), "2").await;
    let held = first.acquire("r", "X", 0).await.unwrap();
    let request = second.request("r", "X", 60_000);
    let (mut client, asked) = (second.client.clone(), request.clone());
    let given_up = tokio::spawn(async move { client.acquire(asked).await });
    first.until_counted((1, 1)).await;
    // The caller leaves this member, and repeats its request at the one where the holder is.
    given_up.abort();
    let core = cluster.core(&leader).await;
    let before = quiet(&core).await;
    let (calls, sent) = tokio::sync::mpsc::channel(4);
    let stream = locks(&cluster, others[0]).lock(tokio_stream::wrappers::ReceiverStream::new(sent)).await.unwrap();
    let mut answers = stream.into_inner();
    let items = [(1, Some(Call::Acquire(request))), (2, None)].map(|(number, call)| v1::LockCall { number, call });
    calls.send(v1::LockCalls { items: items.into() }).await.unwrap();
    // What was sent behind it is answered, so that member has it.
    assert!(matches!(answers_of(&mut answers, 1).await[&2], Outcome::Refused(_)), "the first one waits");
    assert_eq!(first.count().await, (1, 1));
    first.release(&held.lock_id).await.unwrap();
    let got = answers_of(&mut answers, 1).await;
    assert!(matches!(&got[&1], Outcome::Acquired(granted) if token(granted) > token(&held)), "{got:?}");
    assert_eq!(quiet(&core).await, before.map(|before| before + 1), "the repetition made an entry beside the release");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_survives_the_leader_at_a_member_that_lives() {
    let mut cluster = Cluster::of(&["a", "b", "c"]).await;
    let leader = cluster.leader("a").await;
    let other = ["a", "b", "c"].into_iter().find(|name| *name != leader).unwrap();
    let mut first = Session::open(locks(&cluster, other), "1").await;
    let mut second = Session::open(locks(&cluster, other), "2").await;
    let held = first.acquire("r", "X", 0).await.unwrap();
    let waiting = second.ask("r", 60_000);
    first.until_counted((1, 1)).await;
    cluster.kill(&leader);
    first.release(&held.lock_id).await.unwrap();
    assert!(token(&waiting.await.unwrap().unwrap()) > token(&held));
}

/// The next answers of a stream, by the numbers of their calls, until there are so many.
async fn answers_of(stream: &mut tonic::Streaming<v1::LockAnswers>, count: usize) -> BTreeMap<u64, Outcome> {
    let mut answers = BTreeMap::new();
    while answers.len() < count {
        let message = tokio::time::timeout(cluster::PATIENCE, stream.message()).await.unwrap().unwrap().unwrap();
        answers.extend(message.items.into_iter().map(|answer| (answer.number, answer.outcome.unwrap())));
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_over_one_stream_are_answered_each_when_it_is_done() {
    let cluster = Cluster::of(&["a", "b"]).await;
    let (mut first, mut second) =
        (Session::open(locks(&cluster, "b"), "1").await, Session::open(locks(&cluster, "b"), "2").await);
    let (calls, sent) = tokio::sync::mpsc::channel(4);
    let stream = first.client.clone().lock(tokio_stream::wrappers::ReceiverStream::new(sent)).await.unwrap();
    let mut answers = stream.into_inner();
    let call = |number, call| v1::LockCall { number, call: Some(call) };
    let (held, wanted) = (first.request("r", "X", 0), second.request("s", "X", 0));
    let items =
        vec![call(7, Call::Acquire(held)), call(9, Call::Acquire(wanted)), v1::LockCall { number: 11, call: None }];
    calls.send(v1::LockCalls { items }).await.unwrap();
    let got = answers_of(&mut answers, 3).await;
    let (Outcome::Acquired(held), Outcome::Acquired(_)) = (&got[&7], &got[&9]) else { panic!("{got:?}") };
    assert!(matches!(&got[&11], Outcome::Refused(refusal) if refusal.reason == "UNKNOWN_CALL"));

    // One that waits holds up nobody behind it, not even the release that it waits for.
    let waiting = second.request("r", "X", 60_000);
    calls.send(v1::LockCalls { items: vec![call(12, Call::Acquire(waiting))] }).await.unwrap();
    first.until_counted((2, 1)).await;
    first.sequence += 1;
    let release =
        v1::ReleaseRequest { session: Some(first.key), sequence: first.sequence, lock_id: held.lock_id.clone() };
    calls.send(v1::LockCalls { items: vec![call(13, Call::Release(release))] }).await.unwrap();
    let got = answers_of(&mut answers, 2).await;
    assert!(matches!(got[&13], Outcome::Released(_)));
    assert!(matches!(&got[&12], Outcome::Acquired(granted) if token(granted) > token(held)), "{got:?}");

    drop(calls);
    assert!(answers.message().await.unwrap().is_none(), "it ends when the caller has no more");
}
