use proptest::prelude::*;

use super::*;

fn rules() -> Rules {
    Rules {
        interval: Duration::from_secs(2),
        failures: 3,
        successes: 1,
        warm_time: Duration::ZERO,
        warm_url: false,
        lease: Duration::from_secs(15),
    }
}

fn order(now: Instant) -> Order {
    Order {
        acknowledged: true,
        deadline: now + Duration::from_secs(8),
    }
}

fn actions(life: &mut Life, now: Instant) -> Vec<Action> {
    std::iter::from_fn(|| life.due(now)).collect()
}

const UP: Action = Action::Register(InstanceState::Up);
const DRAINING: Action = Action::Register(InstanceState::Draining);

/// A life that is registered as `up`.
fn registered(now: Instant) -> Life {
    let mut life = Life::new(rules(), now);
    assert_eq!(actions(&mut life, now), [Action::Probe]);
    life.probed(true, now, 1.0);
    assert_eq!(actions(&mut life, now), [UP]);
    life.registered(InstanceState::Up, now, 1.0);
    life
}

#[test]
fn registers_when_it_is_ready_and_warm() {
    let t = Instant::now();
    let mut life = Life::new(
        Rules {
            successes: 2,
            warm_time: Duration::from_secs(5),
            warm_url: true,
            ..rules()
        },
        t,
    );
    assert_eq!(actions(&mut life, t), [Action::Probe]);
    life.probed(true, t, 1.0);
    let t = t + EAGER;
    assert_eq!(
        actions(&mut life, t),
        [Action::Probe],
        "probed eagerly before it is ready"
    );
    life.probed(true, t, 1.0);
    assert_eq!(actions(&mut life, t), [Action::WarmUp]);
    life.warmed(true, t, 1.0);
    assert_eq!(life.phase(), Phase::Warming);
    let warm = Duration::from_secs(5);
    let hardly = t + Duration::from_millis(4999);
    assert!(!actions(&mut life, hardly).contains(&UP));
    assert!(actions(&mut life, t + warm).contains(&UP));
}

#[test]
fn falls_back_while_it_warms_up() {
    let t = Instant::now();
    let mut life = Life::new(
        Rules {
            warm_url: true,
            ..rules()
        },
        t,
    );
    actions(&mut life, t);
    life.probed(true, t, 1.0);
    assert_eq!(actions(&mut life, t), [Action::WarmUp]);
    life.probed(false, t, 1.0);
    assert_eq!(life.phase(), Phase::Waiting);
    let later = t + EAGER;
    life.probed(true, later, 1.0);
    life.warmed(true, later, 1.0);
    assert_eq!(
        life.phase(),
        Phase::Warming,
        "the answer is about what ran before"
    );
    let later = later + rules().interval;
    assert!(actions(&mut life, later).contains(&Action::WarmUp));
    life.warmed(true, later, 1.0);
    assert_eq!(life.phase(), Phase::Up);
}

#[test]
fn drains_after_failures_in_a_row_and_comes_back() {
    let t = Instant::now();
    let mut life = registered(t);
    for passed in [false, false, true, false, false] {
        life.probed(passed, t, 1.0);
        assert_eq!(life.phase(), Phase::Up);
    }
    life.probed(false, t, 1.0);
    assert_eq!(actions(&mut life, t), [DRAINING]);
    // It comes back while the registry is still being told that it went.
    life.probed(true, t, 1.0);
    assert_eq!(actions(&mut life, t), []);
    life.registered(InstanceState::Draining, t, 1.0);
    assert_eq!(actions(&mut life, t), [UP], "the newest state follows");
}

#[test]
fn nobody_hears_of_an_instance_that_fell_ill_before_it_was_known() {
    let t = Instant::now();
    let mut life = registered(t);
    for _ in 0..3 {
        life.probed(false, t, 1.0);
    }
    assert_eq!(actions(&mut life, t), [DRAINING]);
    life.registered(InstanceState::Draining, t, 1.0);
    life.forgotten(t);
    assert_eq!(actions(&mut life, t), []);
    assert_eq!(life.renew_at(), None);
    life.probed(true, t, 1.0);
    assert_eq!(actions(&mut life, t), [UP]);
}

#[test]
fn renews_three_times_a_lease_and_registers_again_when_forgotten() {
    let t = Instant::now();
    let mut life = registered(t);
    assert_eq!(life.renew_at(), Some(t + Duration::from_secs(5)));
    life.renewed(t + Duration::from_secs(5), 0.0);
    assert_eq!(life.renew_at(), Some(t + Duration::from_secs(9)));
    life.forgotten(t);
    assert_eq!(actions(&mut life, t), [UP]);
}

#[test]
fn a_registration_is_repeated_now_and_then() {
    let t = Instant::now();
    let mut life = registered(t);
    let later = t + REFRESH;
    life.probed(true, later, 1.0);
    assert_eq!(actions(&mut life, later), [UP]);
}

#[test]
fn pauses_grow_to_a_limit_and_never_end() {
    let t = Instant::now();
    let mut life = Life::new(rules(), t);
    life.probed(true, t, 1.0);
    let mut now = t;
    let mut pauses = Vec::new();
    for _ in 0..50 {
        assert!(actions(&mut life, now).contains(&UP));
        life.failed(false, None, now, 1.0);
        pauses.push(life.call_at - now);
        now = life.call_at;
    }
    assert_eq!(pauses[0], FIRST_PAUSE);
    assert_eq!(pauses[1], FIRST_PAUSE * 2);
    assert_eq!(pauses[49], LONGEST_PAUSE);
    life.failed(false, Some(Duration::from_secs(9)), now, 1.0);
    assert_eq!(
        life.call_at - now,
        Duration::from_secs(9),
        "the registry's word counts"
    );
    life.failed(true, None, now, 1.0);
    assert_eq!(life.call_at - now, REFUSED_PAUSE);
}

#[test]
fn leaves_at_once_when_nobody_was_told() {
    let t = Instant::now();
    let mut life = Life::new(rules(), t);
    life.leave(order(t), t);
    assert_eq!((life.phase(), life.due(t)), (Phase::Gone, None));
}

#[test]
fn a_registration_under_way_is_waited_for_but_not_long() {
    let t = Instant::now();
    let mut ready = Life::new(rules(), t);
    ready.probed(true, t, 1.0);
    assert_eq!(actions(&mut ready, t), [UP]);
    ready.leave(order(t), t);

    let mut life = ready.clone();
    assert_eq!(actions(&mut life, t), []);
    life.registered(InstanceState::Up, t, 1.0);
    assert_eq!(actions(&mut life, t), [Action::Leave(order(t))]);

    let mut life = ready;
    assert_eq!(life.next(), Some(t + GRACE));
    assert_eq!(actions(&mut life, t + GRACE), [Action::Leave(order(t))]);
    life.left();
    life.registered(InstanceState::Up, t, 1.0);
    assert_eq!(actions(&mut life, t + REFRESH), [], "gone is gone");
}

/// What a world may do to a life.
#[derive(Debug, Clone)]
enum Event {
    Pass(u64),
    /// An action that is under way ends well or not.
    End(bool),
    /// The renewal ends well, is answered with "unknown", or fails.
    Renewal(u8),
    Leave,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0_u64..8000).prop_map(Event::Pass),
        6 => any::<bool>().prop_map(Event::End),
        2 => (0_u8..3).prop_map(Event::Renewal),
        1 => Just(Event::Leave),
    ];
    proptest::collection::vec(event, 0..120)
}

/// Plays events against a life and checks what must hold at every moment.
struct World {
    life: Life,
    now: Instant,
    open: Vec<Action>,
    passes: u32,
    ready_since: Option<Instant>,
    url_passed: bool,
    left: bool,
    leaves: u32,
    was_up: bool,
    /// Something was sent, and the registry has not said since that it does not know it.
    known: bool,
}

impl World {
    fn new(rules: Rules, now: Instant) -> Self {
        Self {
            life: Life::new(rules, now),
            now,
            open: Vec::new(),
            passes: 0,
            ready_since: None,
            url_passed: false,
            left: false,
            leaves: 0,
            was_up: false,
            known: false,
        }
    }

    fn begin(&mut self) {
        while let Some(action) = self.life.due(self.now) {
            if let Action::Register(state) = action {
                assert!(!self.left, "registers after it was told to leave");
                let calls = self
                    .open
                    .iter()
                    .filter(|a| matches!(a, Action::Register(_)));
                assert_eq!(calls.count(), 0, "two registrations at a time");
                self.known = true;
                if state == InstanceState::Up {
                    self.assert_ready();
                    self.was_up = true;
                }
            }
            if let Action::Leave(_) = action {
                assert!(self.left, "leaves without being told");
                self.leaves += 1;
            }
            assert!(
                !self.open.iter().any(|open| same_kind(open, &action)),
                "{action:?} twice at a time"
            );
            self.open.push(action);
        }
        // Nothing is due now, so the next time is later: an idle agent sleeps.
        assert!(self.life.next().is_none_or(|next| next > self.now));
    }

    fn assert_ready(&self) {
        if self.was_up {
            return;
        }
        let rules = &self.life.rules;
        let since = self.ready_since.expect("never was ready");
        assert!(self.now >= since + rules.warm_time, "not warm by time");
        assert!(self.url_passed || !rules.warm_url, "not warm by URL");
    }

    fn end(&mut self, action: Action, well: bool, roll: f64) {
        match action {
            Action::Probe => {
                self.passes = if well { self.passes + 1 } else { 0 };
                if self.passes >= self.life.rules.successes {
                    self.ready_since.get_or_insert(self.now);
                } else {
                    self.ready_since = None;
                    self.url_passed &= self.was_up;
                }
                self.life.probed(well, self.now, roll);
            }
            Action::WarmUp => {
                self.url_passed |= well;
                self.life.warmed(well, self.now, roll);
            }
            Action::Register(state) if well => self.life.registered(state, self.now, roll),
            Action::Register(_) => self.life.failed(roll > 0.9, None, self.now, roll),
            Action::Leave(_) => self.life.left(),
        }
    }

    fn play(&mut self, event: &Event, dice: u16) {
        let roll = f64::from(dice) / f64::from(u16::MAX);
        match event {
            Event::Pass(ms) => self.now += Duration::from_millis(*ms),
            Event::End(well) if !self.open.is_empty() => {
                let action = self.open.remove(usize::from(dice) % self.open.len());
                self.end(action, *well, roll);
            }
            Event::Renewal(how) if self.life.renew_at().is_some_and(|at| at <= self.now) => {
                match how {
                    0 => self.life.renewed(self.now, roll),
                    1 => {
                        let sending = self.open.iter().any(|a| matches!(a, Action::Register(_)));
                        self.known &= sending;
                        self.life.forgotten(self.now);
                    }
                    _ => self.life.renewal_failed(None, self.now, roll),
                }
            }
            Event::Leave => {
                self.left = true;
                self.life.leave(order(self.now), self.now);
            }
            _ => {}
        }
        self.begin();
    }

    /// From here on everything goes well; time passes as the life itself says.
    fn settle(&mut self) {
        for _ in 0..200 {
            while let Some(action) = self.open.pop() {
                self.end(action, true, 0.5);
            }
            self.begin();
            let told = self.life.told();
            let settled = match self.life.phase() {
                Phase::Up => told == Some(InstanceState::Up),
                Phase::Gone => true,
                _ => false,
            };
            if settled {
                return;
            }
            if self.open.is_empty() {
                self.now = self.life.next().expect("waits for nothing");
            }
        }
        panic!("does not settle: {:?}", self.life);
    }
}

fn same_kind(one: &Action, other: &Action) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

proptest! {
    #[test]
    fn any_life(
        events in events(),
        dice in proptest::collection::vec(any::<u16>(), 120),
        successes in 1_u32..4,
        failures in 1_u32..4,
        warm_ms in prop_oneof![Just(0_u64), 1_u64..20_000],
        warm_url in any::<bool>(),
    ) {
        let rules = Rules {
            successes,
            failures,
            warm_time: Duration::from_millis(warm_ms),
            warm_url,
            ..rules()
        };
        let mut world = World::new(rules, Instant::now());
        world.begin();
        for (event, dice) in events.iter().zip(dice) {
            world.play(event, dice);
        }
        world.settle();
        prop_assert_eq!(world.left, world.life.phase() == Phase::Gone);
        let owed = u32::from(world.left && world.known);
        prop_assert_eq!(world.leaves, owed, "what was told is taken back, once");
    }
}
