//! Two listings of a domain held against the catalog: what is ours and lost, what nobody here knows,
//! what cannot be judged now, and what the catalog has and the storage has not. Nothing is decided:
//! `apply` looks again at what is to become garbage.

use sdm_proto::ids::ClusterId;
use sdm_proto::ids::DomainId;
use sdm_proto::ids::PlacementId;
use sdm_proto::ids::TxnId;
use sdm_proto::token::Token;
use sdm_proto::wire::internal::v1 as wire;
use sdm_proto::wire::internal::v1::found_image::Kind;
use sdm_proto::wire::v1;
use sdm_state::State;
use sdm_state::catalog::Volume;
use sdm_state::garbage_order::Orphan;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// Findings that are told one by one.
const FINDINGS_MAX: usize = 1_000;

/// What is done about names that nobody here knows.
const UNTOUCHED: &str = "it is never touched: see whose it is";

/// Longest text about one name.
const WORDS_MAX: usize = 256;

/// A name beneath images/, as one listing has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A published folder whose mark derives its very name.
    Placement {
        /// Who made it.
        cluster: ClusterId,
        /// By which attempt.
        token: Token,
        /// Of which transaction.
        txn: Option<TxnId>,
        /// Volumes that are in it.
        volumes: BTreeSet<String>,
    },
    /// A folder that is being built or deleted, under a name of this cluster.
    DotName(Token),
    /// Anything else, and what it is.
    Other(String),
}

/// The names of one page.
pub(super) fn parse_page(state: &State, page: wire::InspectDomainResponse) -> impl Iterator<Item = (String, Seen)> {
    let cluster = state.cluster_id();
    page.images.into_iter().map(move |image| {
        let seen = parse(cluster, &image);
        (image.name, seen)
    })
}

fn parse(own: ClusterId, image: &wire::FoundImage) -> Seen {
    let strange = |words: &str| Seen::Other(words.chars().take(WORDS_MAX).collect());
    match image.kind() {
        Kind::Placement => match (image.cluster_id.parse::<ClusterId>(), image.token.parse::<Token>()) {
            (Ok(cluster), Ok(token)) => Seen::Placement {
                cluster,
                token,
                txn: image.transaction_id.parse().ok(),
                volumes: image.volume_ids.iter().cloned().collect(),
            },
            _ => strange("its mark does not read"),
        },
        Kind::DotName => match dot_token(own, &image.name) {
            Some(token) => Seen::DotName(token),
            None => strange("being built or deleted by another cluster"),
        },
        Kind::Other => strange(&image.words),
    }
}

/// The token of a dot name that this cluster gave.
fn dot_token(own: ClusterId, name: &str) -> Option<Token> {
    let (token, _cluster) = name.strip_prefix(".sdm-")?.rsplit_once('-')?;
    let token: Token = token.parse().ok()?;
    (token.dot_name(own) == name).then_some(token)
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct AuditFindings {
    /// To be told; bounded.
    pub(super) findings: Vec<v1::AuditFinding>,
    /// All that could become garbage.
    pub(super) orphans: Vec<Orphan>,
    /// In numbers.
    pub(super) summary: v1::AuditSummary,
}

impl AuditFindings {
    /// Compares two listings with the state before the first and after the second.
    pub(super) fn compare(
        before: &State,
        after: &State,
        domain: DomainId,
        first: &BTreeMap<String, Seen>,
        second: &BTreeMap<String, Seen>,
    ) -> Self {
        let mut found = Self::default();
        found.summary.domain_id = domain.to_string();
        found.summary.revision = after.applied_index();
        let known = KnownNames::of(after, domain);
        // What is not the same in both is on its way.
        for (name, seen) in second.iter().filter(|(name, seen)| first.get(*name) == Some(*seen)) {
            found.summary.names += 1;
            if known.live.contains(name.as_str()) {
                found.summary.known += 1;
            } else if known.garbage.contains(name.as_str()) {
                found.summary.garbage += 1;
            } else {
                found.judge(after, name, seen);
            }
        }
        found.find_lost(before, after, domain, first, second);
        found
    }

    fn judge(&mut self, state: &State, name: &str, seen: &Seen) {
        let (token, txn, what) = match seen {
            Seen::Placement { cluster, .. } if *cluster != state.cluster_id() => {
                let words = format!("made by cluster {cluster}, which is not this one");
                return self.tell(unknown(name, words));
            }
            Seen::Placement { token, txn, .. } => (*token, *txn, "a published folder; its mark derives its name"),
            Seen::DotName(token) => (*token, None, "a folder under a dot name of this cluster"),
            Seen::Other(_) if name.starts_with(".nfs") => {
                let evidence = "an NFS client keeps it for whoever has it open; it goes by itself".to_owned();
                return self.tell(v1::AuditFinding { kind: "later".to_owned(), evidence, ..named(name) });
            }
            Seen::Other(words) => return self.tell(unknown(name, words.clone())),
        };
        let mut finding = named(name);
        finding.token = token.to_string();
        finding.transaction_id = txn.map(|txn| txn.to_string()).unwrap_or_default();
        match state.is_orphan(token, txn) {
            Ok(()) => {
                let whose = match txn.map(|id| (id, state.txns.get(&id))) {
                    Some((_, Some(row))) => format!("transaction {} is {}", row.id, row.phase.word()),
                    Some((id, None)) => format!("transaction {id} is over for so long that it is forgotten"),
                    None => "every transaction of its time is over".to_owned(),
                };
                finding.kind = "orphan".to_owned();
                finding.evidence = format!("{what}; attempt {token} never won and is nobody's; {whose}; seen twice");
                finding.hint = "to make garbage of it: sdm gc audit DOMAIN --apply".to_owned();
                self.orphans.push(Orphan { token, txn, bytes: 0, evidence: finding.evidence.clone() });
            }
            Err(why) if is_known_later(state, token, txn) => {
                finding.kind = "later".to_owned();
                finding.evidence = format!("{what}; {why}");
            }
            // Nothing that happens will tell whose it is.
            Err(why) => {
                finding.kind = "unknown".to_owned();
                finding.evidence = format!("{what}; {why}");
                finding.hint = UNTOUCHED.to_owned();
            }
        }
        self.tell(finding);
    }

    /// What was in the catalog all the time and on the storage at no time.
    fn find_lost(
        &mut self,
        before: &State,
        after: &State,
        domain: DomainId,
        first: &BTreeMap<String, Seen>,
        second: &BTreeMap<String, Seen>,
    ) {
        for disk in after.disks_in_from(domain, sdm_proto::ids::DiskId::default()) {
            let steady = before
                .disks
                .get(&disk.id)
                .is_some_and(|old| old.placement == disk.placement && old.volumes == disk.volumes);
            if !steady {
                continue;
            }
            let volumes: Vec<&Volume> = disk.volumes.iter().filter_map(|id| after.volumes.get(id)).collect();
            let lost = missing(disk.placement, &volumes, first, second);
            for (name, evidence) in lost {
                let hint = "bring it back from a copy of the storage, or delete the disk; until then keep it from being \
                            used";
                let lost =
                    v1::AuditFinding { disk_id: disk.id.to_string(), disk: disk.name.to_string(), ..named(&name) };
                self.tell(v1::AuditFinding { kind: "lost".to_owned(), evidence, hint: hint.to_owned(), ..lost });
            }
        }
        for row in after.garbage.values().filter(|row| row.place.domain == domain && before.garbage.contains(&row.id)) {
            let Some(trash) = row.trash.as_deref().filter(|_| !row.is_doomed()) else { continue };
            let volumes: Vec<&Volume> = trash.volumes.iter().collect();
            for (name, evidence) in missing(trash.placement.id, &volumes, first, second) {
                let evidence = format!("{evidence}; the disk is in the trash ({})", row.id);
                let (disk_id, disk) = (trash.disk.id.to_string(), trash.disk.name.to_string());
                let hint = format!("to delete what is left of it: sdm gc trash purge {}", row.id);
                self.tell(v1::AuditFinding { kind: "lost".to_owned(), evidence, disk_id, disk, hint, ..named(&name) });
            }
        }
    }

    fn tell(&mut self, finding: v1::AuditFinding) {
        match finding.kind.as_str() {
            "orphan" => self.summary.orphans += 1,
            "later" => self.summary.later += 1,
            "lost" => self.summary.lost += 1,
            _ => self.summary.unknown += 1,
        }
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.summary.findings_left_out += 1;
        }
    }
}

fn named(name: &str) -> v1::AuditFinding {
    v1::AuditFinding { name: name.to_owned(), ..Default::default() }
}

fn unknown(name: &str, evidence: String) -> v1::AuditFinding {
    v1::AuditFinding { kind: "unknown".to_owned(), evidence, hint: UNTOUCHED.to_owned(), ..named(name) }
}

/// Whether another audit will know what this one cannot tell: somebody is at it, or it is younger than what was read.
fn is_known_later(state: &State, token: Token, txn: Option<TxnId>) -> bool {
    if token.epoch != state.meta.epoch {
        return false;
    }
    let owned = state.placements.contains(&token.placement(state.cluster_id())) || state.attempt(token).is_some();
    let is_newer = token.index >= state.applied_index();
    owned
        || is_newer
        || match txn.map(|id| state.txns.get(&id)) {
            // A dot name: when whatever was open in its time is over.
            None => true,
            Some(row) => row.is_some_and(|row| !row.phase.is_final()),
        }
}

/// What of a placement both listings lack.
fn missing(
    placement: PlacementId,
    volumes: &[&Volume],
    first: &BTreeMap<String, Seen>,
    second: &BTreeMap<String, Seen>,
) -> Vec<(String, String)> {
    let name = placement.to_string();
    let there = |listing: &BTreeMap<String, Seen>, volume: &str| match listing.get(&name) {
        Some(Seen::Placement { volumes, .. }) => volumes.contains(volume),
        _ => false,
    };
    match (first.get(&name), second.get(&name)) {
        (None, None) => vec![(name, "its folder is not there".to_owned())],
        (Some(Seen::Other(words)), Some(Seen::Other(_))) => {
            vec![(name.clone(), format!("its folder is damaged: {words}"))]
        }
        (Some(_), Some(_)) => {
            let lacks = volumes.iter().map(|volume| volume.id.to_string());
            let lacks = lacks.filter(|volume| !there(first, volume) && !there(second, volume));
            lacks.map(|volume| (format!("{name}/{volume}"), "the volume's file is not there".to_owned())).collect()
        }
        // It came or went meanwhile.
        _ => Vec::new(),
    }
}

/// Names that the state accounts for.
struct KnownNames {
    live: BTreeSet<String>,
    garbage: BTreeSet<String>,
}

impl KnownNames {
    fn of(state: &State, domain: DomainId) -> Self {
        let disks = state.disks_in_from(domain, sdm_proto::ids::DiskId::default());
        let garbage = state.garbage.values().filter(|row| row.place.domain == domain);
        let names = garbage.flat_map(|row| {
            let cluster = row.cluster.unwrap_or_else(|| state.cluster_id());
            let dots = [row.made_by.dot_name(cluster), row.id.dot_name(cluster)];
            dots.into_iter().chain(row.placement.map(|placement| placement.to_string()))
        });
        Self { live: disks.map(|disk| disk.placement.to_string()).collect(), garbage: names.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    type Listing = BTreeMap<String, Seen>;

    fn placement(state: &State, token: Token, txn: Option<TxnId>, volumes: &[&str]) -> (String, Seen) {
        let cluster = state.cluster_id();
        let volumes = volumes.iter().map(|volume| (*volume).to_owned()).collect();
        (token.placement(cluster).to_string(), Seen::Placement { cluster, token, txn, volumes })
    }

    /// The disk as it lies there.
    fn web(sample: &Sample) -> (String, Seen) {
        let disk = sample.disk("web-01");
        let row = sample.state.placements.get(&disk.placement).unwrap();
        let volumes: Vec<String> = disk.volumes.iter().map(ToString::to_string).collect();
        let volumes: Vec<&str> = volumes.iter().map(String::as_str).collect();
        placement(&sample.state, row.token, Some(row.txn), &volumes)
    }

    fn compare(before: &State, sample: &Sample, first: &Listing, second: &Listing) -> AuditFindings {
        AuditFindings::compare(before, &sample.state, sample.domain("nfs1").id, first, second)
    }

    /// Kinds of the findings, with their names.
    fn kinds(found: &AuditFindings) -> Vec<(&str, &str)> {
        found.findings.iter().map(|finding| (finding.kind.as_str(), finding.name.as_str())).collect()
    }

    #[test]
    fn a_disk_made_between_the_listings_and_the_read_is_no_orphan() {
        let mut sample = Sample::new();
        let before = sample.state.clone();
        let id = sample.begin_disk("web-02");
        let token = sample.state.attempts_of(crate::sample::identity("a").id).next().unwrap().0;
        let (name, seen) = placement(&sample.state, token, Some(id), &[]);
        let listing =
            Listing::from([(name.clone(), seen), (token.dot_name(sample.state.cluster_id()), Seen::DotName(token))]);
        // Listed while its attempt goes on.
        let found = compare(&before, &sample, &listing, &listing);
        assert!(found.orphans.is_empty(), "{:?}", kinds(&found));
        // Compared with the state before it had begun, each of them would be one: that is the order that matters.
        assert_eq!(found.summary.later, 2);
    }

    #[test]
    fn what_an_attempt_left_that_never_won_is_an_orphan_with_evidence() {
        let mut sample = Sample::with_disk();
        let before = sample.state.clone();
        let id = sample.begin_disk("web-02");
        let token = sample.state.attempts_of(crate::sample::identity("a").id).next().unwrap().0;
        sample.report(sdm_state::work::Report::Refused(sdm_proto::refusal::Refusal::new(
            sdm_proto::refusal::Class::Invalid,
            "NO",
            "no",
        )));
        let known = web(&sample);
        let lost = placement(&sample.state, token, Some(id), &[]);
        let listing = Listing::from([known.clone(), lost.clone()]);
        let found = compare(&before, &sample, &listing, &listing);
        assert_eq!(
            (found.summary.known, found.summary.garbage, found.orphans.len()),
            (1, 1, 0),
            "it is garbage already"
        );
        sample.collect();
        sample.done(Vec::new());
        let found = compare(&before, &sample, &listing, &listing);
        assert_eq!(kinds(&found), [("orphan", lost.0.as_str())]);
        assert!(found.findings[0].evidence.contains(&id.to_string()), "{:?}", found.findings[0]);
        // Seen once is not seen.
        let found = compare(&before, &sample, &Listing::from([known]), &listing);
        assert!(found.findings.is_empty(), "{:?}", kinds(&found));
    }

    #[test]
    fn strange_names_are_told_and_never_orphans() {
        let sample = Sample::with_disk();
        let other = ClusterId::derive("another", &[]);
        let token = Token { epoch: 1, index: 1, ordinal: 9 };
        let foreign = Seen::Placement { cluster: other, token, txn: None, volumes: BTreeSet::new() };
        let image = |name: String| wire::FoundImage { name, kind: Kind::DotName.into(), ..Default::default() };
        let foreign_dot = parse(sample.state.cluster_id(), &image(token.dot_name(other)));
        let listing = Listing::from([
            web(&sample),
            (token.placement(other).to_string(), foreign),
            (token.dot_name(other), foreign_dot),
            ("notes.txt".to_owned(), Seen::Other("a file".to_owned())),
            (".nfs00017".to_owned(), Seen::Other("a file".to_owned())),
        ]);
        let found = compare(&sample.state, &sample, &listing, &listing);
        assert!(found.orphans.is_empty());
        assert_eq!((found.summary.known, found.summary.unknown, found.summary.later), (1, 3, 1));
    }

    #[test]
    fn a_folder_that_is_younger_than_what_was_read_is_told_later_and_one_that_nobody_can_place_is_unknown() {
        let sample = Sample::with_disk();
        let state = &sample.state;
        let told = |token: Token, txn: Option<TxnId>| {
            let listing = Listing::from([placement(state, token, txn, &[])]);
            let found = compare(state, &sample, &listing, &listing);
            assert!(found.orphans.is_empty());
            found.findings[0].kind.clone()
        };
        let epoch = state.meta.epoch;
        let forgotten = Some(TxnId::derive("long ago", &[]));
        let newer = Token { epoch, index: state.applied_index() + 7, ordinal: 0 };
        for txn in [forgotten, sample.state.txns.values().next().map(|txn| txn.id)] {
            assert_eq!(told(newer, txn), "later");
        }
        let older = Token { epoch, index: 1, ordinal: 9 };
        assert_eq!(told(older, forgotten), "unknown", "whether it won nobody will ever know");
        assert_eq!(told(Token { epoch: epoch + 1, ..older }, forgotten), "unknown");
        assert_eq!(told(Token { epoch: epoch + 1, ..newer }, forgotten), "unknown");
    }

    #[test]
    fn what_the_catalog_has_and_the_storage_has_not_is_lost_only_if_it_was_never_there() {
        let mut sample = Sample::with_disk();
        let (name, whole) = web(&sample);
        let empty = Listing::new();
        let found = compare(&sample.state, &sample, &empty, &empty);
        assert_eq!(kinds(&found), [("lost", name.as_str())]);
        assert_eq!(found.findings[0].disk, "web-01");
        let listed = Listing::from([(name.clone(), whole)]);
        let found = compare(&sample.state, &sample, &empty, &listed);
        assert!(found.findings.is_empty(), "an old answer of a cache: {:?}", kinds(&found));
        let young = Sample::new();
        let found = compare(&young.state, &sample, &empty, &empty);
        assert!(found.findings.is_empty(), "made since: {:?}", kinds(&found));
        let row = sample.state.placements.get(&sample.disk("web-01").placement).unwrap();
        let bare = placement(&sample.state, row.token, Some(row.txn), &[]);
        let listing = Listing::from([bare]);
        let found = compare(&sample.state, &sample, &listing, &listing);
        assert!(found.findings[0].name.starts_with(&format!("{name}/")), "{:?}", kinds(&found));
        sample.delete("web-01");
        let found = compare(&sample.state, &sample, &empty, &empty);
        assert!(found.findings.is_empty());
    }
}
