use std::os::unix::fs::PermissionsExt;

use cardea_registry_api::feed::set_line;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::record::Digest;

fn meta(revision: u64) -> Meta {
    Meta {
        epoch: "e1~r1-2".into(),
        revision,
        base: Point {
            epoch: "e1".into(),
            revision: 3,
            digest: Digest::root("e1"),
        },
        accepted_at: 0,
    }
}

fn write(disk: &Disk, revision: u64, now: i64) -> SnapshotInfo {
    let lines: Vec<_> = (0..3)
        .map(|i| set_line("service", &format!("s{i}"), &serde_json::json!({"n": i})).unwrap())
        .collect();
    disk.write(
        &meta(revision),
        lines.iter().map(|line| (revision, line)),
        now,
    )
    .unwrap()
}

fn three() -> (TempDir, Disk) {
    let dir = TempDir::new().unwrap();
    let disk = Disk::open(dir.path(), 2).unwrap();
    for (revision, now) in [(10, 100), (11, 200), (12, 300)] {
        write(&disk, revision, now);
    }
    (dir, disk)
}

fn path(dir: &TempDir, info: &SnapshotInfo) -> PathBuf {
    dir.path().join(&info.file)
}

#[test]
fn the_newest_comes_back_and_old_ones_go() {
    let (dir, disk) = three();
    let list = disk.list().unwrap();
    assert_eq!(
        list.iter().map(|i| i.revision).collect::<Vec<_>>(),
        [12, 11]
    );
    assert!(
        list.iter()
            .all(|i| i.damage.is_none() && i.objects == 3 && i.size > 0)
    );
    let mode = fs::metadata(path(&dir, &list[0]))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let snapshot = disk.load(1).unwrap().snapshot.unwrap();
    assert_eq!(snapshot.header.base, meta(12).base);
    assert_eq!(snapshot.objects.len(), 3);
    assert!(matches!(&snapshot.objects[2], (12, Entry::Set { key, .. }) if key == "s2"));
}

#[test]
fn a_damaged_one_is_set_aside_and_the_one_before_is_used() {
    let (dir, disk) = three();
    let newest = path(&dir, &disk.list().unwrap()[0]);
    let bytes = fs::read(&newest).unwrap();
    fs::write(&newest, &bytes[..bytes.len() - 5]).unwrap();
    assert!(disk.list().unwrap()[0].damage.is_some());
    let loaded = disk.load(77).unwrap();
    assert_eq!(loaded.snapshot.unwrap().header.revision, 11);
    assert_eq!(
        fs::read(&loaded.damaged[0].0).unwrap(),
        &bytes[..bytes.len() - 5]
    );
    assert!(
        loaded.damaged[0]
            .0
            .to_str()
            .unwrap()
            .ends_with(".damaged-77")
    );
    assert!(!newest.exists());
}

#[test]
fn nothing_there_is_no_error() {
    let dir = TempDir::new().unwrap();
    let loaded = Disk::open(&dir.path().join("new"), 5)
        .unwrap()
        .load(1)
        .unwrap();
    assert!(loaded.snapshot.is_none() && loaded.damaged.is_empty());
}

#[test]
fn leftovers_of_unfinished_writes_go() {
    let (dir, _) = three();
    let left = dir.path().join("snapshot-000000000000400-1.ndjson.zst.tmp");
    fs::write(&left, "half").unwrap();
    Disk::open(dir.path(), 2).unwrap();
    assert!(!left.exists());
}

proptest! {
    #[test]
    fn any_cut_or_flip_is_noticed(at in 0usize..400, bit in 0u32..8) {
        let (dir, disk) = three();
        let newest = path(&dir, &disk.list().unwrap()[0]);
        let bytes = fs::read(&newest).unwrap();
        let at = at % bytes.len();
        prop_assert!(read(&bytes[..at]).is_err());
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << bit;
        // A bit that zstd does not use may change nothing; what is read must then be the same.
        if let Ok(snapshot) = read(&flipped) {
            prop_assert_eq!(snapshot.header.revision, 12);
            prop_assert_eq!(snapshot.objects.len(), 3);
        }
    }
}
