//! The copy on disk: starts from it, and a disk that hangs.

use std::{fs::File, os::unix::fs::OpenOptionsExt};

use super::*;

/// The revision of the copy on disk, and how many routers it says are live.
fn kept(dir: &TempDir) -> Option<(u64, u64)> {
    let kept = disk::read(dir.path(), &name("dc")).replica?;
    Some((kept.position()?.revision, kept.routers()?))
}

#[tokio::test]
async fn starts_from_disk_without_a_registry() {
    let dir = TempDir::new().unwrap();
    let registry = Fake::start(filled());
    let address = registry.address;
    let router = follow(&[address], Some(&dir));
    until("first table", || router.peers() == 3).await;
    registry
        .fake
        .change(|r| r.instance(&instance("s", 10, 100)));
    until("second table", || router.peers() == 4).await;
    // Answers that there is nothing new, at once, from here on.
    registry.fake.mood(Mood::Leaving);
    registry.fake.change(|r| r.revision += 1);
    let at = registry.fake.registry.borrow().revision;
    until("nothing to write", || kept(&dir) == Some((at, 4))).await;
    // The number of routers alone has the copy written anew.
    registry.fake.routers.store(5, Ordering::Relaxed);
    until("another copy", || kept(&dir) == Some((at, 5))).await;
    router.stop().await;
    drop(registry);

    let shared = Arc::new(Shared::default());
    let sync = Sync::new(settings(&[address], Some(&dir)), Arc::clone(&shared), &[]).unwrap();
    // Before anything has run: the workers find a table.
    let table = shared.table_full().unwrap();
    assert_eq!(table.origin, Origin::Disk);
    assert_eq!(table.upstreams().next().unwrap().takers(), 4);
    let Readiness::Ready(reasons) = shared.readiness() else {
        panic!("not ready");
    };
    assert_eq!(reasons[0].code, "disk_copy");
    // Nor does it take all of what is divided among five.
    let now = clock::millis(Instant::now());
    assert_eq!(shared.plugins.share.parts(now), 5 * WHOLE);
    drop(sync);
}

#[tokio::test]
async fn from_disk_to_the_registry_and_peers_stay() {
    let dir = TempDir::new().unwrap();
    let registry = Fake::start(filled());
    let router = follow(&[registry.address], Some(&dir));
    until("first table", || router.peers() == 3).await;
    router.stop().await;

    let router = follow(&[registry.address], Some(&dir));
    let from_disk = router.shared.table_full().unwrap();
    let peers = |table: &crate::Table| -> Vec<u64> {
        let upstream = table.upstreams().next().unwrap();
        upstream
            .members()
            .iter()
            .map(crate::Member::number)
            .collect()
    };
    until("confirmed", || router.degraded().is_empty()).await;
    let confirmed = router.shared.table_full().unwrap();
    assert_eq!(confirmed.origin, Origin::Registry);
    assert_eq!(peers(&from_disk), peers(&confirmed));
    router.stop().await;
}

/// A file of the copy at which writing blocks, until this is dropped.
struct Hanging(PathBuf);

impl Hanging {
    fn at(dir: &TempDir, file: &str) -> Self {
        let path = dir.path().join(file);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        Self(path)
    }
}

impl Drop for Hanging {
    /// Somebody reads: what hung goes on, and fails.
    fn drop(&mut self) {
        let reader = File::options()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(&self.0);
        std::fs::remove_file(&self.0).unwrap();
        drop(reader);
    }
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_no_change() {
    let dir = TempDir::new().unwrap();
    let hanging = Hanging::at(&dir, "table.1.ndjson.tmp");
    let registry = Fake::start(filled());
    let router = follow(&[registry.address], Some(&dir));
    until("first table", || router.peers() == 3).await;
    for number in 10..15 {
        registry.fake.routers.store(number, Ordering::Relaxed);
        let number = usize::try_from(number).unwrap();
        let add = |r: &mut Registry| r.instance(&instance("s", number, 100));
        registry.fake.change(add);
        until("the change", || router.peers() == number - 6).await;
    }
    assert_eq!(router.shared.counts.disk_written.load(Ordering::Relaxed), 0);
    // It comes back: the next copy has all of it.
    drop(hanging);
    until("a copy", || {
        router.shared.counts.disk_written.load(Ordering::Relaxed) > 0
    })
    .await;
    router.stop().await;
    assert_eq!(kept(&dir).unwrap().1, 14);
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_neither_the_end_nor_who_takes_over() {
    let dir = TempDir::new().unwrap();
    let _hanging = Hanging::at(&dir, "table.1.ndjson.tmp");
    let registry = Fake::start(filled());
    let shared = Arc::new(Shared::default());
    let settings = settings(&[registry.address], Some(&dir));
    let sync = Sync::new(settings, Arc::clone(&shared), &[]).unwrap();
    let handle = sync.handle();
    let router = Follower::of(sync, shared);
    until("the copy hangs", || handle.company.home.is_writing()).await;
    within("settled", handle.settle()).await;
    assert!(handle.company.home.is_writing(), "it hangs no more");
    let fake = registry.fake.clone();
    router.stop().await;
    assert_eq!(fake.farewells.load(Ordering::SeqCst), 1);
}
