//! The registry's set as this router has it: what an update does to it, decided without I/O.
//!
//! An update is applied whole or refused whole: whether it fits (own cluster, right base, not older,
//! the checksum it promises) is known before anything is touched. Within an update that fits, an
//! object that cannot be read is skipped and named, and its last good form stays.
//!
//! **Another history.** A new epoch whose base differs and that nobody has accepted may come from an
//! emptied or restored database. What it lacks is then *retained* beside what it has, until it comes
//! back, is dropped explicitly, or an operator accepts the new history.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use cardea_registry_api::{
    Name,
    feed::{Entry, Head, SetChecksum, Update, kind},
};

use crate::table::objects::{Dirty, Key, Object, Objects};

/// An object of the feed by kind and key, as the feed writes them.
type Id = (Box<str>, Box<str>);

/// The set and where in which history it stands.
#[derive(Debug)]
pub(crate) struct Replica {
    cluster: Name,
    position: Option<Position>,
    objects: Objects,
    /// Every object of the registry's set, known kinds or not, with its line's hash.
    hashes: HashMap<Id, u128>,
    checksum: SetChecksum,
    skipped: BTreeMap<Id, String>,
    retained: BTreeSet<Key>,
    routers: Option<u64>,
    /// Everything but instances is left alone: the set is another cluster's.
    instances_only: bool,
}

/// A revision in a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) epoch: Arc<str>,
    pub(crate) revision: u64,
}

/// Why an update was refused whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("it is for cluster `{0}`")]
    OtherCluster(String),
    #[error("it has revision {got}, older than the applied {have}")]
    Older { got: u64, have: u64 },
    #[error("it starts from {after} of epoch `{epoch}`, which is not what this router has")]
    OtherBase { after: u64, epoch: String },
    #[error("it does not lead to the set that it promises (checksum or count differ)")]
    Checksum,
}

impl Replica {
    pub(crate) fn new(cluster: Name) -> Self {
        Self {
            cluster,
            position: None,
            objects: Objects::default(),
            hashes: HashMap::new(),
            checksum: SetChecksum::default(),
            skipped: BTreeMap::new(),
            retained: BTreeSet::new(),
            routers: None,
            instances_only: false,
        }
    }

    /// Of another cluster: nothing but its instances is of use here.
    pub(crate) fn of_instances(cluster: Name) -> Self {
        Self::new(cluster).with_instances_only()
    }

    pub(crate) fn with_instances_only(self) -> Self {
        Self {
            instances_only: true,
            ..self
        }
    }

    /// A replica as it was kept on disk. Only a full set can follow: the lines' hashes are not kept.
    pub(crate) fn restored(
        cluster: Name,
        position: Position,
        objects: Objects,
        retained: BTreeSet<Key>,
        routers: Option<u64>,
    ) -> Self {
        Self {
            position: Some(position),
            objects,
            retained,
            routers,
            ..Self::new(cluster)
        }
    }

    pub(crate) fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Objects that could not be read, and why.
    pub(crate) fn skipped(&self) -> impl Iterator<Item = (String, String)> {
        self.skipped
            .iter()
            .map(|((kind, key), why)| (format!("{kind} {key}"), why.clone()))
    }

    /// Objects kept from a history before this one.
    pub(crate) fn retained(&self) -> &BTreeSet<Key> {
        &self.retained
    }

    /// How many routers of the cluster are live, as a registry last said.
    pub(crate) fn routers(&self) -> Option<u64> {
        self.routers
    }

    /// A registry says how many routers are live.
    pub(crate) fn set_routers(&mut self, routers: u64) {
        self.routers = Some(routers);
    }

    /// What a first table is made of: all there is.
    pub(crate) fn everything(&self) -> Dirty {
        Objects::default().difference(&self.objects)
    }

    /// Applies an update; tells what changed.
    pub(crate) fn apply(&mut self, update: &Update) -> Result<Dirty, Refused> {
        let head = &update.head;
        if head.cluster != self.cluster.as_str() {
            return Err(Refused::OtherCluster(head.cluster.clone()));
        }
        self.check_base(head)?;
        let set = self.resulting_set(update)?;
        let mut dirty = Dirty::default();
        match head.after {
            None => self.replace(update, &set, &mut dirty),
            Some(_) => self.edit(update, &mut dirty),
        }
        if head.accepted {
            for key in std::mem::take(&mut self.retained) {
                self.objects.remove(&key, &mut dirty);
            }
        }
        self.checksum = head.checksum;
        self.position = Some(Position {
            epoch: head.epoch.as_str().into(),
            revision: head.revision,
        });
        Ok(dirty)
    }

    fn check_base(&self, head: &Head) -> Result<(), Refused> {
        let same_epoch = |at: &&Position| *at.epoch == *head.epoch;
        let here = self.position.as_ref().filter(same_epoch);
        if let Some(after) = head.after
            && here.is_none_or(|at| at.revision != after)
        {
            return Err(Refused::OtherBase {
                after,
                epoch: head.epoch.clone(),
            });
        }
        match here {
            Some(at) if head.revision < at.revision => Err(Refused::Older {
                got: head.revision,
                have: at.revision,
            }),
            _ => Ok(()),
        }
    }

    /// What the registry's set is after the update (for a delta, only what the update touches),
    /// checked against the head's promise.
    fn resulting_set(&self, update: &Update) -> Result<HashMap<Id, Option<u128>>, Refused> {
        let delta = update.head.after.is_some();
        let mut checksum = if delta {
            self.checksum
        } else {
            SetChecksum::default()
        };
        let mut count = if delta { self.hashes.len() } else { 0 };
        let mut touched: HashMap<Id, Option<u128>> = HashMap::new();
        for entry in &update.entries {
            let (id, hash) = match entry {
                Entry::Set {
                    kind, key, hash, ..
                } => (id(kind, key), Some(*hash)),
                Entry::Drop { kind, key } => (id(kind, key), None),
            };
            let before = match touched.get(&id) {
                Some(before) => *before,
                None if delta => self.hashes.get(&id).copied(),
                None => None,
            };
            if let Some(before) = before {
                checksum.remove(before);
                count -= 1;
            }
            if let Some(hash) = hash {
                checksum.add(hash);
                count += 1;
            }
            touched.insert(id, hash);
        }
        let promised = update.head.checksum == checksum && update.head.objects == count as u64;
        if promised {
            Ok(touched)
        } else {
            Err(Refused::Checksum)
        }
    }

    fn replace(&mut self, update: &Update, set: &HashMap<Id, Option<u128>>, dirty: &mut Dirty) {
        let same_history = self
            .position
            .as_ref()
            .is_none_or(|at| base(&at.epoch) == base(&update.head.epoch));
        // What the new set lacks. Judged by objects and not by lines, since what came from disk has
        // no lines.
        let mut named: BTreeSet<Key> = BTreeSet::new();
        for (kind, key) in set
            .iter()
            .filter(|(_, hash)| hash.is_some())
            .map(|(id, _)| id)
        {
            named.extend(Key::read(kind, key));
        }
        let lacking: Vec<Key> = self
            .objects
            .iter()
            .map(|object| object.key())
            .filter(|key| !named.contains(key) && !self.retained.contains(key))
            .collect();
        for key in lacking {
            if same_history || update.head.accepted {
                self.objects.remove(&key, dirty);
            } else {
                self.retained.insert(key);
            }
        }
        self.skipped.retain(|id, _| set.contains_key(id));
        self.hashes.retain(|id, _| set.contains_key(id));
        self.edit(update, dirty);
    }

    fn edit(&mut self, update: &Update, dirty: &mut Dirty) {
        for entry in &update.entries {
            match entry {
                Entry::Set {
                    kind,
                    key,
                    hash,
                    value,
                } => self.set(kind, key, *hash, value.get(), dirty),
                Entry::Drop { kind, key } => {
                    let id = id(kind, key);
                    self.hashes.remove(&id);
                    self.skipped.remove(&id);
                    if let Some(key) = Key::read(kind, key) {
                        self.retained.remove(&key);
                        self.objects.remove(&key, dirty);
                    }
                }
            }
        }
    }

    fn set(&mut self, of: &str, key: &str, hash: u128, json: &str, dirty: &mut Dirty) {
        let id = id(of, key);
        if self.hashes.insert(id.clone(), hash) == Some(hash) && !self.skipped.contains_key(&id) {
            return;
        }
        if self.instances_only && of != kind::INSTANCE {
            return;
        }
        if let Some(key) = Key::read(of, key) {
            self.retained.remove(&key);
        }
        match Object::read(of, key, json, self.cluster.as_str()) {
            Ok(object) => {
                self.skipped.remove(&id);
                self.objects.set(object, dirty);
            }
            Err(why) => {
                self.skipped.insert(id, why);
            }
        }
    }
}

fn id(kind: &str, key: &str) -> Id {
    (kind.into(), key.into())
}

/// The history that an epoch belongs to: a registry without its database serves a branch of it.
fn base(epoch: &str) -> &str {
    epoch.split('~').next().unwrap_or(epoch)
}

#[cfg(test)]
pub(crate) mod tests;
