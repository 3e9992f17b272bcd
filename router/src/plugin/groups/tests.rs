//! What moves when a group changes, by 100,000 users.

use std::time::Instant;

use cardea_registry_api::Service;

use crate::{
    balance::{Balancers, PickInput, key},
    fixtures::{World, instance, route},
    plugin::{
        Scratch,
        asked::{Asked, Headers},
        said::Mode,
        tests::plugin_of,
    },
};

const USERS: usize = 100_000;
/// What a Maglev table may move beyond what it must, in percent of those it places. Up to sixteen
/// instances are chosen from by rendezvous, which moves nothing else.
const NEEDLESS: usize = 4;

/// A service that is balanced by user; so many of its instances are in no group, and so many in the
/// group `gray`, to which a share of the users go.
struct Site {
    world: World,
    baseline: usize,
    gray: usize,
}

impl Site {
    fn new(baseline: usize, gray: usize) -> Self {
        let service: Service = toml::from_str(
            "name = \"cart\"\nbalance = { hash = \"header:x-user\" }\n[groups]\ngray = { version = \"2\" }\n",
        )
        .unwrap();
        let mut world = World::with(service, &[]);
        world.route(route("shop", "h", "/", "cart"));
        let mut site = Self {
            world,
            baseline,
            gray,
        };
        for number in 0..baseline + gray {
            site.put(number, number >= baseline);
        }
        site.share(10);
        site
    }

    fn put(&mut self, number: usize, gray: bool) {
        let mut one = instance("cart", number, 100);
        one.version = if gray { "2" } else { "1" }.to_owned();
        self.world.instance(one);
    }

    fn share(&mut self, percent: u8) {
        self.world.plugin(plugin_of(&format!(
            "name = \"g\"\n[[gray.rules]]\ngroup = \"gray\"\n\
             when = {{ key = \"header:x-user\", percent = {percent}, salt = \"s\" }}\n"
        )));
        self.world.publish(Instant::now());
    }

    /// The instance that each user gets, and whether it was chosen in the group.
    fn placed(&self) -> Vec<(bool, usize)> {
        let table = self.world.shared.table_full().unwrap();
        let chain = table.route(b"h", b"/").unwrap().chain.as_ref().unwrap();
        let mut balancers = Balancers::new(1);
        let now = Instant::now();
        let mut scratch = Scratch::default();
        let place = |number: usize| {
            let list = [("x-user".to_owned(), format!("user-{number}"))];
            let asked = Asked {
                headers: Headers::List(&list),
                ..Asked::default()
            };
            let decision = chain.decide(&asked, &table, 0, &mut scratch, Mode::Asking);
            let gray = decision.said.each(chain).any(|(_, said)| said == "gray");
            let upstream = table.upstream_at(decision.slot.unwrap()).unwrap();
            let input = PickInput {
                key: Some(key::hash(list[0].1.as_bytes())),
                ..PickInput::default()
            };
            let picked = balancers.pick(upstream, &input, &[], now).unwrap();
            let id = picked.peer().key().id.to_string();
            (gray, id[1..].parse().unwrap())
        };
        (0..USERS).map(place).collect()
    }
}

/// Of those of `before` that `of` picks: how many there are, how many moved, and how many of these moved
/// although they need not have.
fn moved(
    before: &[(bool, usize)],
    after: &[(bool, usize)],
    of: impl Fn(bool) -> bool,
    must: impl Fn(usize, usize) -> bool,
) -> [usize; 3] {
    let mut counts = [0; 3];
    for (was, is) in before.iter().zip(after).filter(|(was, _)| of(was.0)) {
        counts[0] += 1;
        counts[1] += usize::from(was != is);
        counts[2] += usize::from(was != is && !must(was.1, is.1));
    }
    counts
}

/// At most as many as `of` instances may move without need.
fn few(needless: usize, placed: usize, of: usize) {
    let most = if of <= 16 { 0 } else { placed * NEEDLESS / 100 };
    assert!(needless <= most, "{needless} of {placed}, {of} instances");
}

fn near(count: usize, wanted: usize, all: usize) {
    let off = count.abs_diff(wanted);
    assert!(
        off * 100 <= all,
        "{count}, not {wanted}: more than a point of {all}"
    );
}

#[test]
fn a_greater_share_moves_those_who_join_and_nobody_else() {
    for (baseline, gray) in [(6, 4), (40, 24)] {
        let mut site = Site::new(baseline, gray);
        let ten = site.placed();
        site.share(20);
        let twenty = site.placed();
        let joined = |(was, is): &(&(bool, usize), &(bool, usize))| !was.0 && is.0;
        let all = || ten.iter().zip(&twenty);
        near(all().filter(joined).count(), USERS / 10, USERS);
        assert!(
            all().all(|both| both.0 == both.1 || joined(&both)),
            "whoever stays in a group stays with an instance"
        );
        site.share(10);
        assert_eq!(site.placed(), ten, "and back");
    }
}

#[test]
fn an_instance_that_leaves_or_joins_a_group_moves_little_more_than_it_must() {
    for (baseline, gray) in [(6, 4), (40, 24)] {
        let mut site = Site::new(baseline, gray);
        let before = site.placed();
        assert!(
            before
                .iter()
                .all(|(gray, id)| *gray == (*id >= site.baseline))
        );

        // One leaves the group for good: its users move, within the group.
        let gone = baseline;
        site.world.remove("cart", gone);
        site.world.publish(Instant::now());
        let without = site.placed();
        assert!(before.iter().zip(&without).all(|(was, is)| was.0 == is.0));
        let [all, some, needless] = moved(&before, &without, |gray| gray, |was, _| was == gone);
        few(needless, all, gray);
        near(some - needless, all / gray, all);
        let [_, others, _] = moved(&before, &without, |gray| !gray, |_, _| false);
        assert_eq!(others, 0, "the baseline does not care");

        // It comes back, and everybody with it.
        site.put(gone, true);
        site.world.publish(Instant::now());
        assert_eq!(site.placed(), before);

        // One of the baseline joins the group: it takes its part there, and leaves its own to others.
        let joiner = 1;
        site.put(joiner, true);
        site.world.publish(Instant::now());
        let with = site.placed();
        assert!(before.iter().zip(&with).all(|(was, is)| was.0 == is.0));
        let [all, some, needless] = moved(&before, &with, |gray| gray, |_, is| is == joiner);
        few(needless, all, site.gray + 1);
        near(some - needless, all / (gray + 1), all);
        let [all, some, needless] = moved(&before, &with, |gray| !gray, |was, _| was == joiner);
        few(needless, all, baseline);
        near(some - needless, all / baseline, all);
    }
}
