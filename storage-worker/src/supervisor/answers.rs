//! What an attempt's end becomes in a report. Where the same order could succeed on another host or
//! later, it is a failure; where it would meet the same everywhere, a refusal.

use crate::process::OrderEnd;
use crate::work;
use crate::work::Order;
use crate::work::Outcome;
use crate::work::RefusalCode;
use crate::work::VolumeFormat;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::report::Outcome as Answer;

/// A failure that may not happen again.
pub(super) fn failed(reason: &str, message: impl Into<String>, hint: impl Into<String>) -> Answer {
    Answer::Failed(wire::Failed { reason: reason.to_owned(), message: message.into(), hint: hint.into() })
}

/// A refusal of ours as an answer: what is transient is a failure.
pub(super) fn refused(refusal: Refusal) -> Answer {
    match refusal.class {
        Class::Unavailable | Class::Timeout | Class::Internal | Class::Aborted => {
            failed(&refusal.reason, refusal.message, refusal.hint)
        }
        _ => Answer::Refused((&refusal).into()),
    }
}

/// The same answer, as whoever is connected to the attempt is told.
pub(super) fn as_refusal(answer: &Answer) -> Refusal {
    match answer {
        Answer::Refused(refusal) => Refusal::from(refusal),
        Answer::Failed(failed) => {
            Refusal::new(Class::Unavailable, &failed.reason, failed.message.clone()).hint(failed.hint.clone())
        }
        Answer::Checkpoint(_) | Answer::Sender(_) | Answer::Done(_) | Answer::Stopped(_) => {
            Refusal::new(Class::Unavailable, "TRANSFER_INTERRUPTED", "the attempt was stopped")
                .hint("ask the transaction where to go on")
        }
    }
}

/// The answer to an order's end. A process that went away was stopped by us, or died.
pub(super) fn answer(order: &Order, end: OrderEnd, stopped: Stopped) -> Answer {
    match (end, stopped) {
        (OrderEnd::Outcome(Outcome::Done(done)), _) => Answer::Done(done_of(order, done)),
        (OrderEnd::Outcome(Outcome::Refused(refusal)), _) => refused_by_storage(refusal),
        (OrderEnd::Outcome(Outcome::Failed(failure)), Stopped::No) => {
            failed("IO_FAILED", failure.message, failure.hint)
        }
        (OrderEnd::ProcessGone(exit), Stopped::No) => failed(
            "PROCESS_DIED",
            format!("the I/O process of the attempt ended: {}", exit.0),
            "see the worker's log; the attempt is tried again",
        ),
        (OrderEnd::Outcome(_) | OrderEnd::ProcessGone(_), _) => Answer::Stopped(wire::Stopped {}),
    }
}

/// Whether the supervisor asked for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    Yes,
    No,
}

fn done_of(order: &Order, done: work::Done) -> wire::Done {
    match done {
        work::Done::Placed(report)
        | work::Done::Sent(report)
        | work::Done::Resized(report)
        | work::Done::Merged(report) => {
            let bytes = report.volumes.iter().fold(0, |sum: u64, volume| sum.saturating_add(volume.file_bytes));
            let volumes = report.volumes.into_iter().map(|report| volume(order, report)).collect();
            wire::Done { volumes, bytes, ..wire::Done::default() }
        }
        work::Done::Deleted(report) => wire::Done { bytes: report.freed_bytes, ..wire::Done::default() },
        work::Done::CatalogRead(catalog) => wire::Done { catalog, ..wire::Done::default() },
        work::Done::DomainCreated(_)
        | work::Done::DomainProbed(_)
        | work::Done::Inspected(_)
        | work::Done::Adopted
        | work::Done::Projected
        | work::Done::DomainChanged
        | work::Done::Checked(_) => wire::Done::default(),
    }
}

/// Whether the order names this volume as raw. What is only sent keeps the facts that it has.
fn is_raw(order: &Order, volume: uuid::Uuid) -> bool {
    let placement = match order {
        Order::CreateDisk(order) => &order.placement,
        Order::BuildPlacement(order) => &order.placement,
        Order::BuildChain(order) => &order.placement,
        Order::ResizeVolume(order) => return order.format == VolumeFormat::Raw && order.volume == volume,
        _ => return false,
    };
    placement.volumes.iter().any(|spec| spec.volume == volume && spec.format == VolumeFormat::Raw)
}

fn volume(order: &Order, report: work::VolumeReport) -> wire::VolumeResult {
    // The cluster keeps a raw volume's size before rounding; `file_size` is the rounded one.
    let true_bytes = report.true_bytes.filter(|_| is_raw(order, report.volume));
    wire::VolumeResult {
        volume_id: report.volume.to_string(),
        virtual_size: true_bytes.unwrap_or(report.virtual_bytes),
        file_size: report.file_bytes,
        allocated_bytes: report.allocated_bytes,
        blake3: report.hash.map(|hash| hash.0.to_vec().into()).unwrap_or_default(),
    }
}

fn refused_by_storage(refusal: work::Refusal) -> Answer {
    Answer::Refused((&refusal_by_storage(refusal)).into())
}

/// What the storage refused, as a refusal of ours.
pub(crate) fn refusal_by_storage(refusal: work::Refusal) -> Refusal {
    let mut own = Refusal::new(class(refusal.code), refusal.code.as_str(), refusal.message).hint(refusal.hint);
    if let Some(missing) = refusal.missing_bytes {
        own = own.blocker("space", "missing", format!("{missing} bytes were still to be written"));
    }
    own
}

/// Refusals that say something about one host's view of a domain.
const OF_HOST: [RefusalCode; 5] = [
    RefusalCode::PathMissing,
    RefusalCode::NotADirectory,
    RefusalCode::NotWritable,
    RefusalCode::NotAMountPoint,
    RefusalCode::DomainMissing,
];

fn is_of_host(refusal: &sdm_proto::wire::v1::Refusal) -> bool {
    OF_HOST.iter().any(|code| code.as_str() == refusal.reason)
}

/// Whether an answer is about this host's view of a domain, not about the order: a mount may be
/// there on another host, or come back.
pub(super) fn is_hosts_affair(order: &Order, answer: &Answer) -> bool {
    let Answer::Refused(refusal) = answer else { return false };
    !matches!(order, Order::CreateDomain(_)) && is_of_host(refusal)
}

/// Says where, in an answer that is about this host: whoever reads it may sit at another.
pub(super) fn at_worker(answer: Answer, worker: &str) -> Answer {
    match answer {
        Answer::Refused(mut refusal) if is_of_host(&refusal) => {
            refusal.message = format!("{} at worker {worker}", refusal.message);
            Answer::Refused(refusal)
        }
        answer => answer,
    }
}

/// A refusal as a failure, for what is the host's affair.
pub(super) fn as_failure(answer: Answer) -> Answer {
    match answer {
        Answer::Refused(refusal) => failed(&refusal.reason, refusal.message, refusal.hint),
        answer => answer,
    }
}

fn class(code: RefusalCode) -> Class {
    match code {
        RefusalCode::InvalidOrder => Class::Internal,
        RefusalCode::PathMissing | RefusalCode::PlacementMissing => Class::NotFound,
        RefusalCode::DomainPathInUse => Class::Conflict,
        RefusalCode::NotWritable => Class::Denied,
        RefusalCode::NoSpace => Class::Exhausted,
        RefusalCode::Qcow2Unsupported | RefusalCode::StorageUnsupported => Class::Unsupported,
        RefusalCode::NotADirectory
        | RefusalCode::NotAMountPoint
        | RefusalCode::OtherPoolsDomain
        | RefusalCode::ForeignDomain
        | RefusalCode::OtherClustersDomain
        | RefusalCode::DomainMissing
        | RefusalCode::VolumeMissing
        | RefusalCode::DomainCorrupt
        | RefusalCode::EvidenceMismatch
        | RefusalCode::UnexpectedEntry
        | RefusalCode::VolumeInUse
        | RefusalCode::VolumeShared
        | RefusalCode::NotRebased
        | RefusalCode::DomainReleased
        | RefusalCode::DomainTaken
        | RefusalCode::CatalogChanged
        | RefusalCode::HashMismatch => Class::Precondition,
        RefusalCode::StreamInvalid
        | RefusalCode::SizeInvalid
        | RefusalCode::SizeMismatch
        | RefusalCode::ImageEmpty
        | RefusalCode::Qcow2Invalid
        | RefusalCode::Qcow2BackingFile
        | RefusalCode::Qcow2DataFile
        | RefusalCode::Qcow2Encrypted
        | RefusalCode::Qcow2Truncated
        | RefusalCode::Qcow2Dirty
        | RefusalCode::Qcow2Corrupt => Class::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Exit;
    use crate::work::DomainRoot;

    fn order() -> Order {
        let nil = uuid::Uuid::nil();
        Order::ProbeDomain(DomainRoot { path: "/".into(), domain: nil, pool: nil, cluster: nil, epoch: 1 })
    }

    #[test]
    fn a_dead_process_is_a_failure_unless_it_was_stopped() {
        let gone = || OrderEnd::ProcessGone(Exit("signal: 9 (SIGKILL)".into()));
        assert!(
            matches!(answer(&order(), gone(), Stopped::No), Answer::Failed(failed) if failed.reason == "PROCESS_DIED")
        );
        assert!(matches!(answer(&order(), gone(), Stopped::Yes), Answer::Stopped(_)));
    }

    #[test]
    fn what_was_done_stays_done_even_if_it_was_to_stop() {
        let done = OrderEnd::Outcome(Outcome::Done(work::Done::Deleted(work::DeletionReport::default())));
        assert!(matches!(answer(&order(), done, Stopped::Yes), Answer::Done(_)));
    }

    #[test]
    fn what_is_about_a_host_names_its_worker_and_nothing_else_does() {
        let refused = |code| work::Refusal {
            code,
            message: "the path `/srv/a` does not exist".into(),
            hint: String::new(),
            missing_bytes: None,
        };
        let message = |code| {
            let answer = answer(&order(), OrderEnd::Outcome(Outcome::Refused(refused(code))), Stopped::No);
            let Answer::Refused(refusal) = at_worker(answer, "h1") else { panic!("a refusal stays one") };
            refusal.message
        };
        assert_eq!(message(RefusalCode::PathMissing), "the path `/srv/a` does not exist at worker h1");
        assert_eq!(message(RefusalCode::DomainPathInUse), "the path `/srv/a` does not exist");
    }

    #[test]
    fn missing_space_is_said_in_bytes() {
        let refusal = work::Refusal {
            code: RefusalCode::NoSpace,
            message: "no space left".into(),
            hint: String::new(),
            missing_bytes: Some(4711),
        };
        let Answer::Refused(refusal) = answer(&order(), OrderEnd::Outcome(Outcome::Refused(refusal)), Stopped::No)
        else {
            panic!("a refusal stays one")
        };
        assert_eq!(refusal.class, "exhausted");
        assert!(refusal.blockers.iter().any(|blocker| blocker.description.contains("4711")));
    }
}
