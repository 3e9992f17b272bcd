use std::{collections::BTreeMap, time::Duration};

use cardea_registry_api::feed::{Entry, SetChecksum, Update};
use proptest::prelude::*;

use super::*;
use crate::{
    change::Change,
    state::tests::{filled, key, name, put_service, register},
};

fn ask(after: Option<u64>) -> FeedRequest {
    FeedRequest {
        cluster: name("a"),
        after: after.map(|revision| ("e".to_owned(), revision)),
        wait: Duration::ZERO,
        full: false,
        coding: Coding::Identity,
        router: None,
    }
}

/// A router's side: what it has, line hashes by key.
#[derive(Default, Clone)]
struct Has(BTreeMap<(String, String), u128>);

impl Has {
    fn take(&mut self, bytes: &[u8]) -> Head {
        let update = Update::decode(bytes).unwrap();
        if update.head.after.is_none() {
            self.0.clear();
        }
        for entry in update.entries {
            match entry {
                Entry::Set {
                    kind, key, hash, ..
                } => self.0.insert((kind, key), hash),
                Entry::Drop { kind, key } => self.0.remove(&(kind, key)),
            };
        }
        let mut checksum = SetChecksum::default();
        self.0.values().for_each(|hash| checksum.add(*hash));
        assert_eq!(checksum, update.head.checksum);
        assert_eq!(self.0.len() as u64, update.head.objects);
        update.head
    }
}

#[test]
fn who_is_up_to_date_needs_nothing_and_others_clusters_do_not_matter() {
    let mut state = filled(60);
    let at = state.revision;
    assert_eq!(need(&state, &ask(None)), Need::Full);
    assert_eq!(need(&state, &ask(Some(at))), Need::Nothing);
    state.apply_all(&[register("b", "search", 99)], 1).unwrap();
    assert_eq!(need(&state, &ask(Some(at))), Need::Nothing);
    state.apply_all(&[register("a", "search", 99)], 1).unwrap();
    assert_eq!(need(&state, &ask(Some(at))), Need::Delta(at));
    state.rebase("e~r-1".into(), state.revision);
    assert_eq!(need(&state, &ask(Some(state.revision))), Need::Full);
}

#[test]
fn who_is_ahead_is_not_sent_back() {
    let state = filled(60);
    let mut request = ask(Some(state.revision + 5));
    assert_eq!(need(&state, &request), Need::Nothing);
    request.full = true;
    assert_eq!(need(&state, &request), Need::Patience);
}

#[test]
fn small_sets_and_large_changes_are_sent_whole() {
    let mut state = filled(3);
    let at = state.revision;
    state.apply_all(&[register("a", "search", 99)], 1).unwrap();
    assert_eq!(need(&state, &ask(Some(at))), Need::Full);
    let mut state = filled(60);
    let at = state.revision;
    for n in 100..150 {
        state.apply_all(&[register("a", "search", n)], 1).unwrap();
    }
    assert_eq!(need(&state, &ask(Some(at))), Need::Full);
}

#[tokio::test]
async fn it_is_encoded_once_for_all() {
    let state = Arc::new(filled(60));
    let feed = Feed::default();
    let one = feed.body(&state, &ask(None), None, 0).await.unwrap();
    let two = feed.body(&state, &ask(None), None, 0).await.unwrap();
    assert_eq!(one.bytes.as_ptr(), two.bytes.as_ptr());
    let mut other = (*state).clone();
    other.apply_all(&[register("b", "search", 99)], 1).unwrap();
    let three = feed
        .body(&Arc::new(other), &ask(None), None, 0)
        .await
        .unwrap();
    assert_eq!(
        one.bytes.as_ptr(),
        three.bytes.as_ptr(),
        "this cluster's set is the same"
    );
}

#[test]
fn only_whose_set_changed_is_woken() {
    let mut state = filled(1);
    let feed = Feed::default();
    let a = feed.watch(&name("a"), &state);
    let b = feed.watch(&name("b"), &state);
    state.apply_all(&[register("a", "search", 99)], 1).unwrap();
    feed.publish(&state);
    assert!(a.has_changed().unwrap());
    assert!(!b.has_changed().unwrap());
    state.apply_all(&[put_service("mail")], 1).unwrap();
    feed.publish(&state);
    assert!(b.has_changed().unwrap());
}

proptest! {
    /// A router that follows deltas, with pauses of any length, has what the registry has.
    #[test]
    fn deltas_lead_to_the_full_set(steps in prop::collection::vec((0usize..80, any::<bool>(), any::<bool>()), 1..60)) {
        let mut state = filled(60);
        let mut has = Has::default();
        let mut at = has.take(&encode(&state, &name("a"), None, Coding::Identity, false).unwrap().1).revision;
        for (n, gone, poll) in steps {
            let change = if gone { Change::Deregister { key: key("a", "search", n) } } else { register("a", "search", n) };
            state.apply_all(&[change], 1).unwrap();
            if poll {
                let from = match need(&state, &ask(Some(at))) {
                    Need::Nothing => continue,
                    Need::Delta(from) => Some(from),
                    _ => None,
                };
                at = has.take(&encode(&state, &name("a"), from, Coding::Identity, false).unwrap().1).revision;
            }
        }
    }
}
