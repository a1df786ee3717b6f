//! A worker's first message: waited for with a limit and checked in full before anything of it
//! reaches the cluster.

use sdm_proto::credentials::Caller;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::internal::v1;
use sdm_proto::wire::internal::v1::worker_message::Message;
use sdm_state::command::SessionRef;
use sdm_state::workers::WorkerIdentity;
use std::time::Duration;
use tonic::Streaming;

/// How long a worker may take for its hello: it sends it with the call.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// Longest label, id or version in a hello, in bytes.
const FIELD_BYTES_MAX: usize = 256;

/// Prefixes at most, and the bytes of each: every member keeps them in memory.
const PREFIXES_MAX: usize = 64;
const PREFIX_BYTES_MAX: usize = 1024;

/// A hello that was found to be well-formed.
#[derive(Debug)]
pub(super) struct CheckedHello {
    /// Who it is.
    pub identity: WorkerIdentity,
    /// The cluster it remembers; empty at its first start.
    pub cluster_id: String,
    /// The session with which it goes on.
    pub session: Option<SessionRef>,
}

/// Waits for the hello and checks it.
///
/// # Errors
/// It does not come, is something else, or something in it is wrong.
pub(super) async fn first_message(
    inbound: &mut Streaming<v1::WorkerMessage>,
    caller: Option<&Caller>,
) -> Result<CheckedHello, Refusal> {
    let first = match tokio::time::timeout(HELLO_WITHIN, inbound.message()).await {
        Ok(Ok(first)) => first,
        Ok(Err(status)) => {
            return Err(Refusal::new(Class::Unavailable, "WORKER_GONE", format!("the stream broke: {status}")));
        }
        Err(_) => {
            let message = format!("no hello came within {} s", HELLO_WITHIN.as_secs());
            return Err(Refusal::new(Class::Timeout, "NO_HELLO", message).hint("connect again"));
        }
    };
    match first.and_then(|message| message.message) {
        Some(Message::Hello(hello)) => check(hello, caller),
        _ => Err(wrong("the first message of a session is a hello")),
    }
}

fn check(hello: v1::Hello, caller: Option<&Caller>) -> Result<CheckedHello, Refusal> {
    let id = hello.worker_id.parse().map_err(|error| wrong(format!("worker id: {error}")))?;
    let own_name = format!("worker/{id}");
    if let Some(Caller(caller)) = caller.filter(|Caller(caller)| !caller.is_empty() && *caller != own_name) {
        let message = format!("the call is {caller}'s, its hello is {own_name}'s");
        return Err(Refusal::new(Class::Denied, "WRONG_PEER", message).hint("a worker speaks for itself alone"));
    }
    let name = hello.name.parse().map_err(|error: sdm_proto::names::BadName| {
        Refusal::new(Class::Invalid, "BAD_NAME", error.to_string()).hint("choose another --name for the worker")
    })?;
    let fields = [
        ("machine id", &hello.machine_id),
        ("boot id", &hello.boot_id),
        ("process nonce", &hello.process_nonce),
        ("address", &hello.address),
    ];
    for (field, text) in fields {
        if text.is_empty() {
            return Err(wrong(format!("the {field} is missing")));
        }
    }
    for (field, text) in fields.into_iter().chain([("version", &hello.version)]) {
        if text.len() > FIELD_BYTES_MAX {
            return Err(wrong(format!("the {field} has {} bytes, at most {FIELD_BYTES_MAX} are taken", text.len())));
        }
    }
    check_address(&hello.address)?;
    check_reach(&hello.reach)?;
    let session = session_of(&hello.session_id, hello.session_epoch)?;
    let identity = WorkerIdentity {
        id,
        name,
        address: hello.address,
        reach: hello.reach,
        machine_id: hello.machine_id,
        boot_id: hello.boot_id,
        process_nonce: hello.process_nonce,
        version: hello.version,
    };
    Ok(CheckedHello { identity, cluster_id: hello.cluster_id, session })
}

fn check_address(address: &str) -> Result<(), Refusal> {
    let host_and_port = address.rsplit_once(':').filter(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) && !host.contains(['/', '@', ' '])
    });
    if host_and_port.is_some() {
        return Ok(());
    }
    Err(Refusal::new(Class::Invalid, "BAD_ADDRESS", format!("{address:?} is not HOST:PORT"))
        .hint("give the worker an address at which members, commands and workers reach it: --advertise HOST:PORT"))
}

fn check_reach(reach: &[String]) -> Result<(), Refusal> {
    if reach.len() > PREFIXES_MAX {
        return Err(wrong(format!("{} prefixes, at most {PREFIXES_MAX} are taken", reach.len())));
    }
    let plain = |prefix: &&String| prefix.starts_with('/') && prefix.len() <= PREFIX_BYTES_MAX;
    match reach.iter().find(|prefix| !plain(prefix)) {
        None => Ok(()),
        Some(prefix) => {
            let shown: String = prefix.chars().take(256).collect();
            Err(Refusal::new(Class::Invalid, "BAD_PATH", format!("{shown:?} is not the absolute path of a folder"))
                .hint("give --reach absolute paths"))
        }
    }
}

/// Both or neither: an id without its epoch names nothing.
fn session_of(id: &str, epoch: u64) -> Result<Option<SessionRef>, Refusal> {
    if id.is_empty() {
        return Ok(None);
    }
    let id =
        id.parse().map_err(|_| wrong(format!("{:?} is not a session", id.chars().take(64).collect::<String>())))?;
    Ok(Some(SessionRef { id, epoch }))
}

fn wrong(message: impl Into<String>) -> Refusal {
    Refusal::new(Class::Invalid, "BAD_HELLO", message).hint("run the same release of sdm on worker and members")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::identity;

    fn hello() -> v1::Hello {
        let identity = identity("a");
        v1::Hello {
            worker_id: identity.id.to_string(),
            name: identity.name.to_string(),
            address: identity.address,
            reach: vec!["/srv".to_owned()],
            machine_id: identity.machine_id,
            boot_id: identity.boot_id,
            process_nonce: identity.process_nonce,
            version: identity.version,
            cluster_id: String::new(),
            session_id: String::new(),
            session_epoch: 0,
        }
    }

    fn reason(hello: v1::Hello) -> String {
        check(hello, None).unwrap_err().reason
    }

    #[test]
    fn a_good_hello_says_who_it_is_and_with_which_session_it_goes_on() {
        let first = check(hello(), None).unwrap();
        assert_eq!((first.identity.id, first.session), (identity("a").id, None));
        let resumed = check(v1::Hello { session_id: "12".into(), session_epoch: 12, ..hello() }, None).unwrap();
        assert_eq!(resumed.session, Some(SessionRef { id: 12, epoch: 12 }));
    }

    #[test]
    fn each_wrong_field_is_refused() {
        assert_eq!(reason(v1::Hello { worker_id: "a".into(), ..hello() }), "BAD_HELLO");
        assert_eq!(reason(v1::Hello { name: "a b".into(), ..hello() }), "BAD_NAME");
        assert_eq!(reason(v1::Hello { process_nonce: String::new(), ..hello() }), "BAD_HELLO");
        assert_eq!(reason(v1::Hello { version: "v".repeat(257), ..hello() }), "BAD_HELLO");
        assert_eq!(reason(v1::Hello { session_id: "x".into(), ..hello() }), "BAD_HELLO");
        assert_eq!(reason(v1::Hello { reach: vec!["srv".into()], ..hello() }), "BAD_PATH");
        assert_eq!(reason(v1::Hello { reach: vec!["/srv".into(); 65], ..hello() }), "BAD_HELLO");
        for address in ["7401", "host", "host:", ":7401", "host:0", "http://host:1", "host:70000"] {
            assert_eq!(reason(v1::Hello { address: address.into(), ..hello() }), "BAD_ADDRESS", "{address}");
        }
    }

    #[test]
    fn nobody_says_hello_for_another() {
        let caller = |text: &str| Caller(text.to_owned());
        let own = format!("worker/{}", identity("a").id);
        assert!(check(hello(), Some(&caller(&own))).is_ok());
        assert!(check(hello(), Some(&caller(""))).is_ok());
        assert_eq!(check(hello(), Some(&caller("member/1"))).unwrap_err().reason, "WRONG_PEER");
    }
}
