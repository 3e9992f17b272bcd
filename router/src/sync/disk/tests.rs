use std::fs;

use tempfile::TempDir;

use super::*;
use crate::{
    fixtures::{instance, name},
    sync::replica::tests::Registry,
};

fn replica(instances: usize) -> Replica {
    let mut registry = Registry::new("e1");
    for number in 0..instances {
        registry.instance(&instance("s", number, 100));
    }
    let mut replica = Replica::new(name("dc"));
    replica.apply(&registry.full()).unwrap();
    replica
}

fn write(dir: &TempDir, replica: &Replica) {
    let image = Image::of(replica, &name("dc")).unwrap();
    image.write(dir.path(), &|| true).unwrap();
}

fn files(dir: &TempDir) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn objects(restored: &Restored) -> usize {
    restored
        .replica
        .as_ref()
        .map_or(0, |replica| replica.objects().len())
}

#[test]
fn comes_back_whole() {
    let dir = TempDir::new().unwrap();
    let written = replica(5);
    write(&dir, &written);
    let restored = read(dir.path(), &name("dc"));
    assert_eq!(restored.problems, Vec::<String>::new());
    let replica = restored.replica.unwrap();
    assert_eq!(replica.position(), written.position());
    assert!(written.objects().difference(replica.objects()).is_empty());
    assert_eq!(files(&dir), [BEFORE, NEWEST]);
}

#[test]
fn the_number_of_routers_comes_back_with_the_table() {
    let dir = TempDir::new().unwrap();
    let mut written = replica(5);
    for routers in [4, 12] {
        written.set_routers(routers);
        write(&dir, &written);
        let restored = read(dir.path(), &name("dc"));
        assert_eq!(restored.problems, Vec::<String>::new());
        assert_eq!(objects(&restored), 5, "it is no object of the set");
        assert_eq!(restored.replica.unwrap().routers(), Some(routers));
    }
    // The copy before has its own.
    fs::write(dir.path().join(NEWEST), b"cut").unwrap();
    let restored = read(dir.path(), &name("dc"));
    assert_eq!(restored.replica.unwrap().routers(), Some(4));
    // A copy of a program that did not write it.
    write(&dir, &replica(5));
    let restored = read(dir.path(), &name("dc"));
    assert_eq!(restored.replica.unwrap().routers(), None);
}

#[test]
fn nothing_on_disk_is_no_problem() {
    let dir = TempDir::new().unwrap();
    let restored = read(dir.path(), &name("dc"));
    assert!(restored.replica.is_none() && restored.problems.is_empty());
}

#[test]
fn a_damaged_copy_is_set_aside_and_the_one_before_is_used() {
    for damage in [
        |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 10),
        |bytes: &mut Vec<u8>| bytes[100] ^= 1,
        |bytes: &mut Vec<u8>| bytes.clear(),
    ] {
        let dir = TempDir::new().unwrap();
        write(&dir, &replica(4));
        write(&dir, &replica(5));
        let newest = dir.path().join(NEWEST);
        let mut bytes = fs::read(&newest).unwrap();
        damage(&mut bytes);
        fs::write(&newest, &bytes).unwrap();
        let restored = read(dir.path(), &name("dc"));
        assert_eq!(objects(&restored), 4);
        assert_eq!(restored.problems.len(), 2, "{:?}", restored.problems);
        let names = files(&dir);
        let aside = names
            .iter()
            .find(|n| n.starts_with("table.ndjson.damaged-"));
        let aside = dir.path().join(aside.expect("set aside"));
        assert_eq!(fs::read(aside).unwrap(), bytes, "never deleted");
        assert!(!names.contains(&NEWEST.to_owned()));
    }
}

#[test]
fn a_late_copy_does_not_take_the_place_of_another_processs() {
    let dir = TempDir::new().unwrap();
    write(&dir, &replica(3));
    let image = Image::of(&replica(2), &name("dc")).unwrap();
    image.write(dir.path(), &|| false).unwrap_err();
    assert_eq!(objects(&read(dir.path(), &name("dc"))), 3);
}

#[test]
fn even_the_very_first_copy_has_one_to_fall_back_on() {
    let dir = TempDir::new().unwrap();
    write(&dir, &replica(4));
    fs::write(dir.path().join(NEWEST), b"cut").unwrap();
    assert_eq!(objects(&read(dir.path(), &name("dc"))), 4);
}

#[test]
fn what_is_retained_comes_back_as_retained() {
    let dir = TempDir::new().unwrap();
    let mut kept = replica(3);
    let mut emptied = Registry::new("e2");
    emptied.instance(&instance("s", 9, 100));
    kept.apply(&emptied.full()).unwrap();
    assert_eq!(kept.retained().len(), 3);
    write(&dir, &kept);
    let mut back = read(dir.path(), &name("dc")).replica.unwrap();
    assert_eq!(back.retained(), kept.retained());
    back.apply(&emptied.full()).unwrap();
    assert_eq!(back.objects().len(), 4);
    emptied.accepted = true;
    back.apply(&emptied.full()).unwrap();
    assert_eq!(back.objects().len(), 1);
}

#[test]
fn another_clusters_copy_is_not_served() {
    let dir = TempDir::new().unwrap();
    write(&dir, &replica(3));
    let restored = read(dir.path(), &name("other"));
    assert!(restored.replica.is_none());
    assert!(restored.problems[0].contains("cluster `dc`"));
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error_that_names_it() {
    let dir = TempDir::new().unwrap();
    let blocked = dir.path().join("file");
    fs::write(&blocked, b"").unwrap();
    let image = Image::of(&replica(1), &name("dc")).unwrap();
    let error = image.write(&blocked.join("sub"), &|| true).unwrap_err();
    assert!(error.to_string().contains("file/sub"), "{error}");
}

/// A router that is replaced by a newer one hands it what it did not understand itself.
#[test]
fn what_this_program_does_not_know_is_kept_as_it_came() {
    let mut registry = Registry::new("e1");
    let mirror =
        serde_json::json!({"name": "p", "required": true, "teleport": {"to": ["a", 1.50]}});
    let known = serde_json::json!({"name": "q", "respond": {"status": 204}});
    let later = serde_json::json!({"z": 1, "a": {"x": null}});
    registry.put("plugin", "p", &mirror);
    registry.put("plugin", "q", &known);
    registry.put("switch", "dc/s", &later);
    let mut replica = Replica::new(name("dc"));
    replica.apply(&registry.full()).unwrap();
    assert_eq!(replica.skipped().count(), 0);

    let dir = TempDir::new().unwrap();
    write(&dir, &replica);
    let again = read(dir.path(), &name("dc")).replica.unwrap();
    write(&dir, &again);
    let text = fs::read_to_string(dir.path().join(NEWEST)).unwrap();
    for (kind, key, value) in [
        ("plugin", "p", &mirror),
        ("plugin", "q", &known),
        ("switch", "dc/s", &later),
    ] {
        let line = set_line(kind, key, value).unwrap();
        let line = std::str::from_utf8(&line.bytes).unwrap();
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    // Another history that lacks it: kept until somebody accepts that history.
    let mut other = Registry::new("e2");
    other.put("plugin", "q", &known);
    let mut again = again;
    again.apply(&other.full()).unwrap();
    assert_eq!(again.retained().len(), 2);
    other.accepted = true;
    other.put("plugin", "q", &known);
    again.apply(&other.full()).unwrap();
    assert_eq!(again.objects().len(), 1);
}

#[test]
fn a_stored_body_comes_back() {
    let mut registry = Registry::new("e1");
    let fallback = serde_json::json!({"name": "sorry", "content_type": "text/html", "status": 503,
        "body": "PGI+"});
    registry.put("fallback", "sorry", &fallback);
    registry.put(
        "fallback",
        "bad",
        &serde_json::json!({"name": "bad", "body": "?"}),
    );
    let mut replica = Replica::new(name("dc"));
    replica.apply(&registry.full()).unwrap();
    let skipped: Vec<_> = replica.skipped().map(|(what, _)| what).collect();
    assert_eq!(skipped, ["fallback bad"]);
    let dir = TempDir::new().unwrap();
    write(&dir, &replica);
    let again = read(dir.path(), &name("dc")).replica.unwrap();
    let objects: Vec<_> = again.objects().iter().collect();
    assert!(
        matches!(&objects[..], [Object::Fallback(one)] if one.body.as_bytes() == b"<b>"),
        "{objects:?}"
    );
}
