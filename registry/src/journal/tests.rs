use proptest::prelude::*;

use super::*;
use crate::{
    record::Digest,
    state::tests::{key, register},
};

/// A unit of these changes.
pub(crate) fn pending(n: usize, changes: Vec<Change>) -> PendingUnit {
    PendingUnit {
        unit: format!("u{n}").into(),
        at: 1,
        actor: "agent".into(),
        cause: None,
        base: Point {
            epoch: "e".into(),
            revision: 7,
            digest: Digest::root("e"),
        },
        changes,
    }
}

fn unit(n: usize) -> PendingUnit {
    let gone = Change::Deregister {
        key: key("a", "search", n),
    };
    pending(n, vec![register("a", "search", n), gone])
}

#[test]
fn appended_units_come_back_until_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::in_dir(dir.path());
    assert!(journal.read().unwrap().units.is_empty());
    journal.append(&[unit(1), unit(2)]).unwrap();
    journal.append(&[unit(3)]).unwrap();
    let found = journal.read().unwrap();
    assert_eq!(found.units, [unit(1), unit(2), unit(3)]);
    assert_eq!(found.damaged, None);
    journal.clear().unwrap();
    assert!(journal.read().unwrap().units.is_empty());
    journal.clear().unwrap();
}

#[test]
fn what_replaces_all_is_there_alone_and_is_added_to() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::in_dir(dir.path());
    journal.append(&[unit(1), unit(2), unit(3)]).unwrap();
    journal.replace(&[unit(2)]).unwrap();
    journal.append(&[unit(4)]).unwrap();
    assert_eq!(journal.read().unwrap().units, [unit(2), unit(4)]);
}

#[test]
fn a_damaged_line_is_set_aside_and_the_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::in_dir(dir.path());
    journal.append(&[unit(1), unit(2), unit(3)]).unwrap();
    let mut bytes = fs::read(&journal.path).unwrap();
    let second = bytes.iter().position(|b| *b == b'\n').unwrap() + 30;
    bytes[second] ^= 1;
    fs::write(&journal.path, &bytes).unwrap();
    let found = journal.read().unwrap();
    assert_eq!(found.units, [unit(1), unit(3)]);
    let (count, aside) = found.damaged.unwrap();
    assert_eq!((count, fs::read(aside).unwrap()), (1, bytes));
    assert!(journal.read().unwrap().damaged.is_none(), "it is mended");
}

proptest! {
    #[test]
    fn a_cut_loses_only_the_line_it_hits(cut in 0.0..1.0f64) {
        let all = [unit(1), unit(2), unit(3)];
        let bytes = lines(&all).unwrap();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the length")]
        let cut = (bytes.len() as f64 * cut) as usize;
        let (units, damaged) = parse(&bytes[..cut]);
        let whole = String::from_utf8_lossy(&bytes[..cut]).matches('\n').count();
        prop_assert_eq!(&units[..], &all[..whole]);
        let clean = cut == 0 || bytes[cut - 1] == b'\n';
        prop_assert_eq!(damaged, usize::from(!clean));
    }
}
