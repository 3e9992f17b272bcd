//! Least loaded of two choices: draw two peers by weight, take the one where a request waits less.
//!
//! What a request waits is the peer's latency (peak EWMA) times what is in flight there. Drawing by
//! weight gives idle peers their shares; comparing load in proportion to weight keeps them under
//! load.

use crate::{balance::random::Random, upstream::Member};

/// How often a draw that hits a peer that cannot be picked is repeated before all are looked at.
const DRAWS: usize = 8;
/// What a peer costs that has a request but has never answered: more than any that has, in µs.
const UNKNOWN: f32 = 1e9;

/// The weighted draw over an upstream's takers: made once a version.
#[derive(Debug)]
pub(crate) struct Lots {
    /// Positions of members.
    members: Box<[u32]>,
    /// Running sums of their weights; empty when all are equal.
    sums: Box<[u64]>,
    mean: f32,
}

impl Lots {
    pub(crate) fn new(all: &[Member]) -> Self {
        let takers = || {
            let numbered = (0u32..).zip(all);
            numbered.filter(|(_, member)| member.takes_requests())
        };
        let mut sum = 0;
        let sums: Box<[u64]> = takers()
            .map(|(_, member)| {
                sum += u64::from(member.weight);
                sum
            })
            .collect();
        let equal = takers()
            .zip(takers().skip(1))
            .all(|((_, one), (_, two))| one.weight == two.weight);
        Self {
            members: takers().map(|(at, _)| at).collect(),
            mean: sum as f32 / sums.len().max(1) as f32,
            sums: if equal { Box::default() } else { sums },
        }
    }

    pub(crate) fn pick(
        &self,
        all: &[Member],
        random: &mut Random,
        fit: impl Fn(usize) -> bool,
        warmth: impl Fn(usize) -> f64,
        now: u64,
    ) -> Option<usize> {
        if self.members.is_empty() {
            return None;
        }
        let one = self.draw_fit(random, &fit, &warmth, None)?;
        let Some(two) = self.draw_fit(random, &fit, &warmth, Some(one)) else {
            return Some(one);
        };
        let better = self.cost(&all[two], now) < self.cost(&all[one], now);
        Some(if better { two } else { one })
    }

    fn draw_fit(
        &self,
        random: &mut Random,
        fit: &impl Fn(usize) -> bool,
        warmth: &impl Fn(usize) -> f64,
        but: Option<usize>,
    ) -> Option<usize> {
        if but.is_some() && self.members.len() == 1 {
            return None;
        }
        for _ in 0..DRAWS {
            let at = self.draw(random);
            if Some(at) != but && fit(at) && warm_enough(warmth(at), random) {
                return Some(at);
            }
        }
        let start = random.below(self.members.len());
        let (before, from) = self.members.split_at(start);
        let mut order = from.iter().chain(before).map(|at| *at as usize);
        order.find(|at| Some(*at) != but && fit(*at))
    }

    fn draw(&self, random: &mut Random) -> usize {
        let lot = match self.sums.last() {
            None => random.below(self.members.len()),
            Some(total) => {
                let ticket = random.below(usize::try_from(*total).unwrap_or(usize::MAX)) as u64;
                self.sums.partition_point(|sum| *sum <= ticket)
            }
        };
        self.members[lot] as usize
    }

    fn cost(&self, member: &Member, now: u64) -> f32 {
        let load = member.peer.in_flight() as f32 * self.mean / f32::from(member.weight.max(1));
        match member.peer.latency().micros(now) {
            Some(micros) => micros * (1.0 + load),
            // A new peer gets one request at once, and no more until it has answered.
            None if load > 0.0 => UNKNOWN * (1.0 + load),
            None => 0.0,
        }
    }
}

fn warm_enough(warmth: f64, random: &mut Random) -> bool {
    warmth >= 1.0 || random.unit() < warmth
}
