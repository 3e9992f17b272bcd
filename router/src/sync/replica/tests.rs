use cardea_registry_api::{
    Instance, Service,
    feed::{Encoder, FORMAT, Line, kind, set_line},
};
use proptest::prelude::*;

use super::*;
use crate::fixtures::{instance, name, route};

/// A registry's side: its lines, and the updates it would send.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    pub(crate) cluster: String,
    pub(crate) epoch: String,
    pub(crate) revision: u64,
    pub(crate) accepted: bool,
    pub(crate) lines: BTreeMap<(String, String), Line>,
    log: Vec<(u64, (String, String))>,
}

impl Registry {
    pub(crate) fn new(epoch: &str) -> Self {
        Self {
            cluster: "dc".to_owned(),
            epoch: epoch.to_owned(),
            revision: 1,
            accepted: false,
            lines: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    pub(crate) fn of(cluster: &str, epoch: &str) -> Self {
        let mut registry = Self::new(epoch);
        registry.cluster = cluster.to_owned();
        registry
    }

    pub(crate) fn put(&mut self, kind: &str, key: &str, value: &impl serde::Serialize) {
        let line = set_line(kind, key, value).unwrap();
        let id = (kind.to_owned(), key.to_owned());
        self.revision += 1;
        self.log.push((self.revision, id.clone()));
        self.lines.insert(id, line);
    }

    pub(crate) fn instance(&mut self, instance: &Instance) {
        self.put(kind::INSTANCE, &instance.key().to_string(), instance);
    }

    pub(crate) fn remove(&mut self, kind: &str, key: &str) {
        let id = (kind.to_owned(), key.to_owned());
        self.revision += 1;
        self.log.push((self.revision, id.clone()));
        self.lines.remove(&id);
    }

    pub(crate) fn bytes(&self, after: Option<u64>) -> Vec<u8> {
        let mut checksum = SetChecksum::default();
        self.lines.values().for_each(|line| checksum.add(line.hash));
        let mut encoder = Encoder::new(&Head {
            format: FORMAT,
            cluster: self.cluster.clone(),
            epoch: self.epoch.clone(),
            revision: self.revision,
            after,
            checksum,
            objects: self.lines.len() as u64,
            accepted: self.accepted,
            degraded: false,
        })
        .unwrap();
        match after {
            None => self.lines.values().for_each(|line| encoder.set(line)),
            Some(after) => {
                for (_, id) in self.log.iter().filter(|(revision, _)| *revision > after) {
                    match self.lines.get(id) {
                        Some(line) => encoder.set(line),
                        None => encoder.drop(&id.0, &id.1).unwrap(),
                    }
                }
            }
        }
        encoder.finish()
    }

    pub(crate) fn full(&self) -> Update {
        Update::decode(&self.bytes(None)).unwrap()
    }

    pub(crate) fn delta(&self, after: u64) -> Update {
        Update::decode(&self.bytes(Some(after))).unwrap()
    }
}

fn three() -> Registry {
    let mut registry = Registry::new("e1");
    registry.put(kind::SERVICE, "s", &Service::named(name("s")));
    registry.put(kind::ROUTE, "r", &route("r", "h", "/", "s"));
    registry.instance(&instance("s", 0, 100));
    registry
}

fn replica() -> Replica {
    Replica::new(name("dc"))
}

fn has(replica: &Replica, number: usize) -> bool {
    let id = format!("i{number}").parse().unwrap();
    replica.objects().instance(&name("s"), &id).is_some()
}

#[test]
fn follows_a_full_set_and_deltas() {
    let mut registry = three();
    let mut replica = replica();
    let dirty = replica.apply(&registry.full()).unwrap();
    assert!(dirty.routes.len() == 1 && dirty.policies.len() == 1 && dirty.instances.len() == 1);
    let at = registry.revision;
    registry.instance(&instance("s", 1, 100));
    registry.remove(kind::INSTANCE, "dc/s/i0");
    let dirty = replica.apply(&registry.delta(at)).unwrap();
    assert!(dirty.routes.is_empty() && dirty.policies.is_empty());
    assert_eq!(dirty.instances[&name("s")].len(), 2);
    assert!(has(&replica, 1) && !has(&replica, 0));
    // The same again, whole: nothing to rebuild.
    assert!(replica.apply(&registry.full()).unwrap().is_empty());
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let mut registry = three();
    let mut replica = replica();
    assert!(matches!(
        replica.apply(&registry.delta(1)),
        Err(Refused::OtherBase { .. })
    ));
    replica.apply(&registry.full()).unwrap();
    let old = registry.clone();
    let at = registry.revision;
    registry.instance(&instance("s", 1, 100));
    replica.apply(&registry.delta(at)).unwrap();

    assert_eq!(
        replica.apply(&old.full()),
        Err(Refused::Older {
            got: old.revision,
            have: registry.revision
        })
    );
    let mut other = registry.full();
    other.head.cluster = "elsewhere".to_owned();
    assert!(matches!(
        replica.apply(&other),
        Err(Refused::OtherCluster(_))
    ));
    let at = registry.revision;
    registry.remove(kind::INSTANCE, "dc/s/i0");
    let mut incomplete = registry.delta(at);
    incomplete.entries.clear();
    assert_eq!(replica.apply(&incomplete), Err(Refused::Checksum));
    let mut incomplete = registry.full();
    incomplete.entries.pop();
    assert_eq!(replica.apply(&incomplete), Err(Refused::Checksum));
    assert!(has(&replica, 0) && has(&replica, 1));
    assert_eq!(replica.position().unwrap().revision, at);
    replica.apply(&registry.delta(at)).unwrap();
    assert!(!has(&replica, 0));
}

#[test]
fn a_bad_object_is_skipped_named_and_keeps_its_last_good_form() {
    let mut registry = three();
    let mut replica = replica();
    replica.apply(&registry.full()).unwrap();
    let at = registry.revision;
    let good = instance("s", 0, 7);
    let mut bad = serde_json::to_value(&good).unwrap();
    bad["weight"] = 5000.into();
    registry.put(kind::INSTANCE, "dc/s/i0", &bad);
    registry.instance(&instance("s", 1, 100));
    replica.apply(&registry.delta(at)).unwrap();
    let weight = |replica: &Replica| {
        let id = "i0".parse().unwrap();
        replica.objects().instance(&name("s"), &id).unwrap().weight
    };
    assert_eq!(weight(&replica), 100);
    assert!(has(&replica, 1), "the others are not held up");
    let skipped: Vec<_> = replica.skipped().collect();
    assert_eq!(skipped.len(), 1);
    assert_eq!(skipped[0].0, "instance dc/s/i0");
    assert!(skipped[0].1.contains("weight"), "{}", skipped[0].1);

    // A whole set keeps the last good form as well.
    replica.apply(&registry.full()).unwrap();
    assert_eq!((weight(&replica), replica.skipped().count()), (100, 1));
    let at = registry.revision;
    registry.instance(&good);
    replica.apply(&registry.delta(at)).unwrap();
    assert_eq!((weight(&replica), replica.skipped().count()), (7, 0));
}

#[test]
fn objects_of_another_cluster_or_under_another_name_are_bad() {
    let mut registry = three();
    let mut foreign = instance("s", 5, 100);
    foreign.cluster = name("elsewhere");
    registry.put(kind::INSTANCE, "elsewhere/s/i5", &foreign);
    registry.put(kind::INSTANCE, "dc/s/i6", &instance("s", 7, 100));
    registry.put("teleport", "p", &serde_json::json!({"from": "the future"}));
    let mut replica = replica();
    replica.apply(&registry.full()).unwrap();
    assert_eq!(replica.objects().len(), 4, "what is of the future is kept");
    assert_eq!(replica.skipped().count(), 2);
}

#[test]
fn an_emptied_history_wipes_nothing_until_it_is_accepted() {
    let mut registry = three();
    let mut replica = replica();
    replica.apply(&registry.full()).unwrap();

    // A branch of the same history is followed as it is.
    registry.epoch = "e1~a-1".to_owned();
    registry.instance(&instance("s", 1, 100));
    registry.remove(kind::INSTANCE, "dc/s/i0");
    replica.apply(&registry.full()).unwrap();
    assert!(replica.retained().is_empty() && has(&replica, 1) && !has(&replica, 0));

    let mut emptied = Registry::new("e2");
    emptied.instance(&instance("s", 9, 100));
    let dirty = replica.apply(&emptied.full()).unwrap();
    assert_eq!(replica.retained().len(), 3);
    assert!(has(&replica, 1) && has(&replica, 9) && dirty.routes.is_empty());

    // What comes back, or is dropped explicitly, is no longer retained.
    let at = emptied.revision;
    emptied.instance(&instance("s", 1, 50));
    emptied.put(kind::ROUTE, "r", &route("r", "h", "/", "s"));
    emptied.remove(kind::ROUTE, "r");
    replica.apply(&emptied.delta(at)).unwrap();
    assert_eq!(replica.retained().len(), 1);
    assert!(has(&replica, 1));
    // The rest stays through full sets of the same history.
    replica.apply(&emptied.full()).unwrap();
    assert_eq!(replica.retained().len(), 1);
    assert!(replica.objects().service(&name("s")).is_some());

    let at = emptied.revision;
    emptied.accepted = true;
    emptied.instance(&instance("s", 2, 50));
    replica.apply(&emptied.delta(at)).unwrap();
    assert!(replica.retained().is_empty());
    assert!(replica.objects().service(&name("s")).is_none());
    assert_eq!(replica.objects().len(), 3);
}

#[test]
fn a_new_history_that_is_accepted_at_once_is_taken_as_it_is() {
    let mut replica = replica();
    replica.apply(&three().full()).unwrap();
    let mut other = Registry::new("e2");
    other.accepted = true;
    other.instance(&instance("s", 9, 100));
    replica.apply(&other.full()).unwrap();
    assert_eq!(replica.objects().len(), 1);
    assert!(replica.retained().is_empty());
}

proptest! {
    /// Whatever changes, deltas lead to what a full set leads to.
    #[test]
    fn deltas_lead_where_full_sets_lead(
        steps in prop::collection::vec((0..8usize, 0..3u16, any::<bool>()), 1..60),
    ) {
        let mut registry = three();
        let mut by_delta = replica();
        by_delta.apply(&registry.full()).unwrap();
        let mut at = registry.revision;
        for (number, what, send) in steps {
            match what {
                0 => registry.remove(kind::INSTANCE, &format!("dc/s/i{number}")),
                weight => registry.instance(&instance("s", number, weight)),
            }
            if send {
                by_delta.apply(&registry.delta(at)).unwrap();
                at = registry.revision;
            }
        }
        by_delta.apply(&registry.delta(at)).unwrap();
        let mut by_full = replica();
        by_full.apply(&registry.full()).unwrap();
        let all = |replica: &Replica| {
            let mut all: Vec<String> = replica.objects().iter().map(|o| format!("{o:?}")).collect();
            all.sort();
            all
        };
        prop_assert_eq!(all(&by_delta), all(&by_full));
        prop_assert!(by_delta.apply(&registry.full()).unwrap().is_empty());
    }
}
