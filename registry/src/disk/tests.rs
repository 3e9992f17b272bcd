use super::*;
use crate::state::tests::{filled, same};

#[test]
fn what_is_written_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path(), 3).unwrap();
    assert!(disk.newest().unwrap().is_none());
    let state = filled(20);
    let info = disk.write(&state, 1_000).unwrap();
    assert_eq!(info.written_at, 1_000);
    assert_eq!(info.objects, state.objects());
    let back = disk.newest().unwrap().unwrap();
    same(&state, &back);
    assert_eq!(back.base, state.base);
    let listed = disk.list(true).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].revision, listed[0].written_at, &listed[0].damage),
        (state.revision, 1_000, &None)
    );
}

#[test]
fn a_damaged_one_is_set_aside_and_the_one_before_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path(), 3).unwrap();
    let old = filled(3);
    disk.write(&old, 1_000).unwrap();
    let new = disk.write(&filled(5), 1_001).unwrap();
    let path = disk.dir.join(&new.file);
    let bytes = fs::read(&path).unwrap();
    for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..cut]).unwrap();
        assert!(disk.list(true).unwrap()[0].damage.is_some(), "cut at {cut}");
        same(&old, &disk.newest().unwrap().unwrap());
        assert!(!path.exists(), "set aside");
    }
}

#[test]
fn only_so_many_are_kept_and_only_the_owner_reads_them() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path(), 2).unwrap();
    for n in 1..5 {
        disk.write(&filled(n), i64::try_from(n).unwrap()).unwrap();
    }
    let files = disk.files().unwrap();
    assert_eq!(files.len(), 2);
    for file in files {
        assert_eq!(
            fs::metadata(file).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    same(&filled(4), &disk.newest().unwrap().unwrap());
}

#[test]
fn a_clock_that_is_set_back_makes_the_newest_no_older() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path(), 2).unwrap();
    for (n, at) in [(1, 90_000), (2, 90_001), (3, 10_000), (4, 10_000)] {
        disk.write(&filled(n), at).unwrap();
        same(&filled(n), &disk.newest().unwrap().unwrap());
    }
    let kept: Vec<i64> = disk
        .list(true)
        .unwrap()
        .iter()
        .map(|info| info.written_at)
        .collect();
    assert_eq!(kept, [90_003, 90_002]);
}
