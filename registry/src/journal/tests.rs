use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn open(dir: &Path) -> Opened<String> {
    Journal::open(dir, 7).unwrap()
}

fn filled(entries: &[&str]) -> TempDir {
    let dir = TempDir::new().unwrap();
    let mut opened = open(dir.path());
    for entry in entries {
        opened.journal.append(&[*entry]).unwrap();
    }
    dir
}

#[test]
fn keeps_order_over_restarts() {
    let dir = filled(&["a", "b"]);
    let mut opened = open(dir.path());
    assert_eq!(opened.entries, ["a", "b"]);
    opened.journal.append(&["c", "d"]).unwrap();
    assert_eq!(open(dir.path()).entries, ["a", "b", "c", "d"]);
    let mode = fs::metadata(dir.path().join(FILE))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn cleared_it_is_gone_and_usable() {
    let dir = filled(&["a"]);
    let mut opened = open(dir.path());
    opened.journal.clear().unwrap();
    assert!(!dir.path().join(FILE).exists());
    opened.journal.append(&["b"]).unwrap();
    assert_eq!(open(dir.path()).entries, ["b"]);
}

#[test]
fn a_damaged_file_is_set_aside_and_the_rest_kept() {
    let dir = filled(&["first", "second", "third"]);
    let path = dir.path().join(FILE);
    let damaged = fs::read_to_string(&path)
        .unwrap()
        .replace("second", "sec0nd");
    fs::write(&path, &damaged).unwrap();
    let opened = open(dir.path());
    assert_eq!(opened.entries, ["first", "third"]);
    let (aside, lost) = opened.damage.unwrap();
    assert_eq!(lost, 1);
    assert_eq!(fs::read_to_string(aside).unwrap(), damaged);
    let again = open(dir.path());
    assert_eq!(again.entries, ["first", "third"]);
    assert!(again.damage.is_none());
}

proptest! {
    /// Wherever a crash cuts the file, the whole lines before it come back and the journal goes on.
    #[test]
    fn any_cut_keeps_the_lines_before(cut in 0usize..=108) {
        let dir = filled(&["one", "two", "three", "four"]);
        let path = dir.path().join(FILE);
        let bytes = fs::read(&path).unwrap();
        let cut = cut.min(bytes.len());
        fs::write(&path, &bytes[..cut]).unwrap();
        let whole = bytes[..cut].split(|b| *b == b'\n').count() - 1;
        let mut opened = open(dir.path());
        prop_assert_eq!(&opened.entries[..], &["one", "two", "three", "four"][..whole]);
        opened.journal.append(&["five"]).unwrap();
        let entries = open(dir.path()).entries;
        prop_assert_eq!(entries.len(), whole + 1);
        prop_assert_eq!(entries.last().map(String::as_str), Some("five"));
    }
}
