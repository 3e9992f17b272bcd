//! What is to be seen on SQLite alone: its write-ahead log.

use std::{fs, path::Path};

use super::*;

const FILES: [&str; 2] = ["registry.db", "registry.db-wal"];

fn store(dir: &Path, sqlite_full_sync: bool) -> Store {
    Store::new(&StoreConfig {
        url: sqlite_url(dir),
        sqlite_full_sync,
        ..StoreConfig::default()
    })
    .unwrap()
}

/// The files as a crash would leave them now, when nobody writes; of the log as much as is in use here,
/// and more.
fn crash(dir: &Path) -> [Vec<u8>; 2] {
    FILES.map(|file| {
        let mut bytes = fs::read(dir.join(file)).unwrap();
        bytes.truncate(2_000_000);
        bytes
    })
}

/// The head's revision and the instances that somebody finds who starts with these files.
async fn found(files: &[Vec<u8>; 2]) -> (u64, usize) {
    let dir = tempfile::tempdir().unwrap();
    for (file, bytes) in FILES.iter().zip(files) {
        fs::write(dir.path().join(file), bytes).unwrap();
    }
    let store = store(dir.path(), false);
    let head = store.prepare("later").await.unwrap();
    let loaded = store.load().await.unwrap();
    (head.point.revision, loaded.instances.len())
}

#[tokio::test]
async fn a_log_made_long_beforehand_loses_nothing_and_adds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), true);
    let mut at = store.prepare("e").await.unwrap().point;
    let log = dir.path().join(FILES[1]);
    let long = fs::metadata(&log).unwrap().len();
    assert!(long > 60_000_000, "{long}");
    // It is neither longer nor made again when it is prepared again.
    store.prepare("e").await.unwrap();
    let mut before = crash(dir.path());
    assert_eq!(found(&before).await, (0, 0));
    for n in 0..4 {
        let key = format!("a/s/{n}");
        at = commit(&store, &at, &[(Kind::Instance, key.as_str(), Some("{}"))]).await;
        let after = crash(dir.path());
        let number = usize::try_from(at.revision).unwrap();
        assert_eq!(found(&after).await, (at.revision, number));
        // Where this commit changed the log: behind all that was committed before it.
        let changed: Vec<usize> = (before[1].iter().zip(&after[1]).enumerate())
            .filter(|(_, (old, new))| old != new)
            .map(|(i, _)| i)
            .collect();
        let (first, last) = (changed[0], changed[changed.len() - 1]);
        for cut in [first + 1, first + 30, first.midpoint(last), last] {
            // The disk took only a part of it, and what is behind is what was there …
            let mut torn = before.clone();
            torn[1][..cut].copy_from_slice(&after[1][..cut]);
            assert_eq!(
                found(&torn).await,
                (at.revision - 1, number - 1),
                "{n} {cut}"
            );
            // … or the file ends there.
            torn[1].truncate(cut);
            assert_eq!(
                found(&torn).await,
                (at.revision - 1, number - 1),
                "{n} {cut}"
            );
        }
        before = after;
    }
    assert_eq!(fs::metadata(&log).unwrap().len(), long);
}

#[tokio::test]
async fn a_log_that_waits_for_no_disk_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), false);
    store.prepare("e").await.unwrap();
    assert!(fs::metadata(dir.path().join(FILES[1])).unwrap().len() < 1_000_000);
}
