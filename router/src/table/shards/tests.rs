use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// A key that knows its hash: many share theirs, and more share a place.
fn hash(key: u16) -> u64 {
    let low = u64::from(key % 37);
    low | (low % 5) << 32
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Set(u16, u32),
    Remove(u16),
    Copy,
}

fn steps(keys: u16) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..keys, any::<u32>()).prop_map(|(key, value)| Step::Set(key, value)),
        3 => (0..keys).prop_map(Step::Remove),
        1 => Just(Step::Copy),
    ];
    prop::collection::vec(step, 0..400)
}

fn look(map: &Shards<(u16, u32)>, keys: u16) -> Vec<Option<u32>> {
    (0..keys)
        .map(|key| Some(map.get(hash(key), |found| found.0 == key)?.1))
        .collect()
}

proptest! {
    #[test]
    fn it_holds_what_a_plain_map_holds_and_copies_stay_as_they_were(steps in steps(150)) {
        let mut map = Shards::default();
        let mut plain = HashMap::new();
        let mut copies = Vec::new();
        for step in steps {
            match step {
                Step::Set(key, value) => {
                    let before = map.set(hash(key), (key, value), |found| found.0 == key);
                    prop_assert_eq!(before.map(|(_, value)| value), plain.insert(key, value));
                }
                Step::Remove(key) => {
                    let gone = map.remove(hash(key), |found| found.0 == key);
                    prop_assert_eq!(gone.map(|(_, value)| value), plain.remove(&key));
                }
                Step::Copy => copies.push((map.clone(), plain.clone())),
            }
        }
        copies.push((map, plain));
        for (map, plain) in copies {
            prop_assert_eq!(map.len(), plain.len());
            let mut all: Vec<_> = map.iter().copied().collect();
            let mut wanted: Vec<_> = plain.iter().map(|(key, value)| (*key, *value)).collect();
            all.sort_unstable();
            wanted.sort_unstable();
            prop_assert_eq!(all, wanted);
            let wanted: Vec<_> = (0..150).map(|key| plain.get(&key).copied()).collect();
            prop_assert_eq!(look(&map, 150), wanted);
        }
    }
}

#[test]
fn a_change_copies_one_shard() {
    let mut map = Shards::default();
    let hash = |key: u64| xxhash_rust::xxh3::xxh3_64(&key.to_le_bytes());
    for key in 0..10_000u64 {
        map.set(hash(key), key, |found| *found == key);
    }
    let before = map.clone();
    map.set(hash(10_000), 10_000, |found| *found == 10_000);
    map.remove(hash(10_000), |found| *found == 10_000);
    let other = |(one, two): &(&Shard<u64>, &Shard<u64>)| !Arc::ptr_eq(one, two);
    let shards = before.shards.iter().zip(&map.shards);
    assert_eq!(shards.filter(other).count(), 1);
    let longest = map.shards.iter().map(|shard| shard.len()).max();
    assert!(longest.is_some_and(|longest| longest <= 256), "{longest:?}");
}

#[test]
fn it_grows_and_shrinks_with_what_is_in_it() {
    let mut map = Shards::default();
    let hash = |key: u64| xxhash_rust::xxh3::xxh3_64(&key.to_le_bytes());
    for key in 0..10_000u64 {
        map.set(hash(key), key, |found| *found == key);
    }
    assert_eq!(map.shards.len(), 256);
    for key in 0..10_000u64 {
        map.remove(hash(key), |found| *found == key);
    }
    assert_eq!((map.shards.len(), map.len()), (1, 0));
}
