use proptest::prelude::*;

use super::*;
use crate::plugin::asked::Headers;

fn condition(toml: &str) -> Condition {
    let when: When = toml::from_str(toml).unwrap();
    when.check().unwrap();
    Condition::new(&when).unwrap()
}

fn holds(toml: &str, headers: &[(&str, &str)]) -> bool {
    let list: Vec<_> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    condition(toml).holds(&Asked {
        path: b"/shop/7",
        query: b"user=u8&x=",
        headers: Headers::List(&list),
        ..Asked::default()
    })
}

#[test]
fn every_test_by_itself() {
    let user = |value| [("x-user", value)];
    for (toml, value, wanted) in [
        ("is = [\"a\", \"b\"]", "b", true),
        ("is = [\"a\", \"b\"]", "B", false),
        ("starts_with = [\"test-\"]", "test-1", true),
        ("starts_with = [\"test-\"]", "atest-1", false),
        ("ends_with = [\"7\"]", "u17", true),
        ("ends_with = [\"7\"]", "u71", false),
        ("matches = \"^[0-9]+$\"", "123", true),
        ("matches = \"^[0-9]+$\"", "12a", false),
        ("present = true", "x", true),
        ("present = false", "x", false),
        ("modulo = 100\nbelow = 5", "user-1204", true),
        ("modulo = 100\nbelow = 5", "user-1205", false),
        (
            "modulo = 100\nbelow = 5",
            "99999999999999999999999999900",
            true,
        ),
        ("modulo = 100\nbelow = 5", "nobody", false),
        ("percent = 100", "x", true),
        ("percent = 0", "x", false),
    ] {
        let toml = format!("key = \"header:x-user\"\n{toml}");
        assert_eq!(holds(&toml, &user(value)), wanted, "{toml} {value}");
    }
    assert!(holds("", &[]));
    assert!(holds("clients = [\"127.0.0.0/8\"]", &[]));
    assert!(!holds("clients = [\"10.0.0.0/8\"]", &[]));
    assert!(holds("methods = [\"GET\"]", &[]) && !holds("methods = [\"POST\"]", &[]));
    assert!(holds("key = \"path\"\nstarts_with = [\"/shop\"]", &[]));
    assert!(holds("key = \"query:user\"\nis = [\"u8\"]", &[]));
    let cookie = [("cookie", "a=1; user=u9")];
    assert!(holds("key = \"cookie:user\"\nis = [\"u9\"]", &cookie));
}

#[test]
fn what_is_lacking_fails_every_test_but_absence() {
    for test in [
        "is = [\"\u{61}\"]",
        "present = true",
        "percent = 100",
        "matches = \".*\"",
    ] {
        assert!(
            !holds(&format!("key = \"header:x-user\"\n{test}"), &[]),
            "{test}"
        );
    }
    assert!(holds("key = \"header:x-user\"\npresent = false", &[]));
}

#[test]
fn conditions_are_put_together() {
    let vip = "{ key = \"header:x-vip\", present = true }";
    let beijing = "{ key = \"header:x-city\", is = [\"beijing\"] }";
    let both = [("x-vip", "1"), ("x-city", "beijing")];
    assert!(holds(&format!("all = [{vip}, {beijing}]"), &both));
    assert!(!holds(&format!("all = [{vip}, {beijing}]"), &both[..1]));
    assert!(holds(&format!("any = [{vip}, {beijing}]"), &both[1..]));
    assert!(!holds(&format!("any = [{vip}, {beijing}]"), &[]));
    assert!(holds(&format!("not = {vip}"), &both[1..]));
    assert!(!holds(&format!("not = {vip}\nany = [{beijing}]"), &both));
}

/// Values of a share, out of 100,000.
fn members(hundredths: u16, salt: &str) -> Vec<bool> {
    let share = Share::new(salt, hundredths);
    (0..100_000)
        .map(|n: u32| share.takes(key::hash(format!("user-{n}").as_bytes())))
        .collect()
}

fn count(members: &[bool]) -> usize {
    members.iter().filter(|m| **m).count()
}

#[test]
fn shares_are_exact_sticky_and_only_grow() {
    let (ten, twenty) = (members(1000, "s"), members(2000, "s"));
    for (members, wanted) in [(&ten, 10_000), (&twenty, 20_000)] {
        let off = count(members).abs_diff(wanted);
        assert!(off < 1000, "{off} of 100,000 off: more than a point");
    }
    assert!(ten.iter().zip(&twenty).all(|(ten, twenty)| !ten || *twenty));
    assert_eq!(members(1000, "s"), ten);
    // Another salt chooses others: a tenth of a tenth is in both.
    let other = members(1000, "t");
    let both: Vec<bool> = ten.iter().zip(&other).map(|(a, b)| *a && *b).collect();
    assert!(count(&both).abs_diff(1000) < 200, "{}", count(&both));
}

#[test]
fn lots_are_drawn_by_request() {
    let condition = condition("percent = 25");
    let drawn = (0..100_000u64).filter(|n| {
        condition.holds(&Asked {
            lot: mix(*n),
            ..Asked::default()
        })
    });
    let drawn = drawn.count();
    assert!(drawn.abs_diff(25_000) < 1000, "{drawn}");
}

#[test]
fn a_hundred_thousand_users_are_asked_for_at_once() {
    let users: Vec<String> = (0..100_000).map(|n| format!("u{n}")).collect();
    let when = When {
        key: Some("header:x-user".parse().unwrap()),
        is: users,
        ..When::default()
    };
    when.check().unwrap();
    let condition = Condition::new(&when).unwrap();
    for (user, wanted) in [("u99999", true), ("u100000", false)] {
        let list = [("x-user".to_owned(), user.to_owned())];
        let asked = Asked {
            headers: Headers::List(&list),
            ..Asked::default()
        };
        assert_eq!(condition.holds(&asked), wanted);
    }
}

proptest! {
    #[test]
    fn digits_at_the_end_agree_with_the_naive(prefix in "[a-z0-9]{0,6}[a-z]|", digits in "[0-9]{0,18}") {
        let text = format!("{prefix}{digits}");
        let naive = digits.parse::<u64>().ok();
        prop_assert_eq!(digits_at_the_end(text.as_bytes()), naive);
    }

    #[test]
    fn positions_stay_within(hash: u64, seed: u64) {
        prop_assert!(position(hash, seed) < POSITIONS);
    }
}
