use super::*;
use crate::plugin::asked::Headers;

fn trial(toml: &str) -> Trial {
    let ab: Ab = toml::from_str(toml).unwrap();
    ab.check().unwrap();
    let trials = trials(&ab, &Arc::default()).unwrap();
    trials.into_vec().into_iter().next().unwrap()
}

fn see(trial: &Trial, user: &str) -> Option<Seen> {
    let list = [("x-user".to_owned(), user.to_owned())];
    trial.see(&Asked {
        headers: Headers::List(&list),
        ..Asked::default()
    })
}

fn page(weights: [u16; 2], more: &str) -> Trial {
    let [a, b] = weights;
    trial(&format!(
        "[[experiments]]\nname = \"page\"\nkey = \"header:x-user\"\n{more}\n\
         [[experiments.variants]]\nname = \"a\"\nweight = {a}\n\
         [[experiments.variants]]\nname = \"b\"\nweight = {b}\n"
    ))
}

fn users() -> impl Iterator<Item = String> {
    (0..100_000).map(|n| format!("user-{n}"))
}

/// Which users see variant b.
fn in_b(trial: &Trial) -> Vec<bool> {
    users()
        .map(|user| see(trial, &user).unwrap().variant == 1)
        .collect()
}

fn count(all: &[bool]) -> usize {
    all.iter().filter(|one| **one).count()
}

#[test]
fn shares_are_exact_and_sticky() {
    let trial = page([90, 10], "");
    let b = in_b(&trial);
    assert!(count(&b).abs_diff(10_000) < 1000, "{}", count(&b));
    assert_eq!(in_b(&page([90, 10], "")), b);
}

#[test]
fn a_change_of_weights_moves_as_few_as_can_be() {
    let (before, after) = (in_b(&page([90, 10], "")), in_b(&page([80, 20], "")));
    let left = before
        .iter()
        .zip(&after)
        .filter(|(b, a)| **b && !**a)
        .count();
    assert_eq!(left, 0, "nobody leaves the variant that grows");
    assert!(count(&after).abs_diff(20_000) < 1000);
}

#[test]
fn whitelists_and_tails_go_before_weights() {
    let trial = trial(
        "[[experiments]]\nname = \"page\"\nkey = \"header:x-user\"\n\
         [[experiments.variants]]\nname = \"a\"\n\
         [[experiments.variants]]\nname = \"b\"\nweight = 0\nis = [\"boss\"]\nends_with = [\"7\"]\n",
    );
    for (user, variant) in [("boss", 1), ("u17", 1), ("u18", 0)] {
        assert_eq!(see(&trial, user).unwrap().variant, variant, "{user}");
    }
}

#[test]
fn experiments_of_a_layer_share_callers_out_and_layers_are_independent() {
    let of = |name: &str, layer: &str, from: u8, to: u8| {
        trial(&format!(
            "[[experiments]]\nname = \"{name}\"\nlayer = \"{layer}\"\nfrom = {from}\nto = {to}\n\
             key = \"header:x-user\"\n[[experiments.variants]]\nname = \"a\"\n\
             [[experiments.variants]]\nname = \"b\"\n"
        ))
    };
    let (one, two) = (of("one", "page", 0, 30), of("two", "page", 30, 100));
    let other = of("three", "ranking", 0, 30);
    let takes =
        |trial: &Trial| -> Vec<bool> { users().map(|user| see(trial, &user).is_some()).collect() };
    let (one, two, other) = (takes(&one), takes(&two), takes(&other));
    assert!(count(&one).abs_diff(30_000) < 1000);
    assert!(one.iter().zip(&two).all(|(one, two)| one != two));
    let both: Vec<bool> = one.iter().zip(&other).map(|(a, b)| *a && *b).collect();
    assert!(count(&both).abs_diff(9_000) < 1000, "{}", count(&both));
    // Who is in an experiment says nothing about the variant.
    let one = of("one", "page", 0, 30);
    let b = users()
        .filter_map(|u| see(&one, &u))
        .filter(|seen| seen.variant == 1);
    assert!(b.count().abs_diff(15_000) < 1000);
}

#[test]
fn a_caller_without_a_key_is_given_a_cookie_and_then_sees_the_same() {
    let trial = page([50, 50], "cookie = \"seen\"");
    let mut variants = [0, 0];
    for n in 0..1000 {
        let first = trial
            .see(&Asked {
                lot: mix(n),
                ..Asked::default()
            })
            .unwrap();
        let value = String::from_utf8(hex(first.cookie.unwrap()).to_vec()).unwrap();
        let list = [("cookie".to_owned(), format!("seen={value}"))];
        let again = trial
            .see(&Asked {
                headers: Headers::List(&list),
                lot: mix(n + 5000),
                ..Asked::default()
            })
            .unwrap();
        assert_eq!((again.variant, again.cookie), (first.variant, None));
        variants[first.variant] += 1;
    }
    assert!(variants[0] > 400 && variants[1] > 400, "{variants:?}");
    // Without a cookie either, it takes no part.
    assert_eq!(page([50, 50], "").see(&Asked::default()), None);
}

#[test]
fn in_turn_by_weight() {
    let trial = trial(
        "[[experiments]]\nname = \"page\"\nassign = \"round-robin\"\n\
         [[experiments.variants]]\nname = \"a\"\nweight = 3\n\
         [[experiments.variants]]\nname = \"b\"\nweight = 1\n",
    );
    let seen: Vec<bool> = (0..1000)
        .map(|_| trial.see(&Asked::default()).unwrap().variant == 1)
        .collect();
    assert!(count(&seen).abs_diff(250) <= 3, "{}", count(&seen));
    assert!(
        seen.windows(8)
            .all(|few| few.contains(&true) && few.contains(&false))
    );
}
