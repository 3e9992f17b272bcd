//! How many connections each client has.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    num::NonZeroU64,
    sync::{Mutex, PoisonError},
};

use hashbrown::HashMap;

/// Parts that are locked one by one, so that workers seldom meet.
const SHARDS: usize = 32;

/// Who is counted as one client: an IPv4 address; of IPv6 the network of 64 bits, because whoever has
/// one address there has all of its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ClientKey(NonZeroU64);

impl ClientKey {
    /// The client that has this address.
    pub(crate) fn of(address: IpAddr) -> Self {
        let key = match address.to_canonical() {
            // No network of IPv6 that begins with so many zeros belongs to anybody.
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                [a, b, c, d]
                    .into_iter()
                    .fold(0, |key, part| key << 16 | u64::from(part))
            }
        };
        Self(NonZeroU64::new(key).unwrap_or(NonZeroU64::MAX))
    }
}

/// The counts of those who have any.
#[derive(Debug)]
pub(super) struct Clients {
    most: u32,
    /// Keyed, so that nobody can choose addresses that end up in one place.
    hasher: RandomState,
    shards: [Mutex<HashMap<ClientKey, u32>>; SHARDS],
}

impl Clients {
    pub(super) fn new(most: u32) -> Self {
        Self {
            most,
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// Counts another connection, unless there are as many as there may be.
    pub(super) fn take(&self, key: ClientKey) -> bool {
        self.with(key, |counts| {
            let count = counts.entry(key).or_insert(0);
            let fits = *count < self.most;
            *count += u32::from(fits);
            fits
        })
    }

    /// One less.
    pub(super) fn leave(&self, key: ClientKey) {
        self.with(key, |counts| {
            if let Some(count) = counts.get_mut(&key) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    counts.remove(&key);
                }
            }
        });
    }

    fn with<T>(&self, key: ClientKey, act: impl FnOnce(&mut HashMap<ClientKey, u32>) -> T) -> T {
        let shard = self.hasher.hash_one(key) % SHARDS as u64;
        let shard = &self.shards[usize::try_from(shard).unwrap_or(0)];
        act(&mut shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap as Model;

    use proptest::prelude::*;

    use super::*;

    fn key(address: &str) -> ClientKey {
        ClientKey::of(address.parse().unwrap())
    }

    #[test]
    fn who_is_one_client() {
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
        assert_ne!(key("10.0.0.1"), key("10.0.0.2"));
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:3:4:5:6"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::1"), key("::"));
    }

    proptest! {
        /// However connections come and go, nobody has more than allowed, and who leaves is forgotten.
        #[test]
        fn counts_are_those_of_a_plain_map(moves in prop::collection::vec((any::<bool>(), 0..6_u8), 0..200)) {
            let clients = Clients::new(3);
            let mut model = Model::<u8, u32>::new();
            for (comes, who) in moves {
                let key = ClientKey::of(IpAddr::from([10, 0, 0, who]));
                let count = model.entry(who).or_default();
                if comes {
                    let fits = *count < 3;
                    prop_assert_eq!(clients.take(key), fits);
                    *count += u32::from(fits);
                } else if *count > 0 {
                    clients.leave(key);
                    *count -= 1;
                }
            }
            let kept: usize = clients.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
            prop_assert_eq!(kept, model.values().filter(|count| **count > 0).count());
        }
    }
}
