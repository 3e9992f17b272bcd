//! Smooth weighted round robin.
//!
//! Each peer has its next turn in virtual time, which advances by one over the sum of all weights
//! with every pick; a peer's turns are one over its weight apart. Among the peers whose turn has
//! begun, the one whose turn ends first is picked (worst-case fair queueing, WF²Q). So after any
//! number of picks each peer has had its share give or take one, as with nginx's algorithm, but in
//! O(log n) instead of O(n).
//!
//! Turns begin at random places, so that workers and routers do not march in step. They are kept by
//! peer when the table changes. While nothing changes, picks come from a round that was kept
//! ([`round`]), and the queues hear of them when something does.

use std::{cmp::Ordering, collections::BinaryHeap};

use crate::{balance::random::Random, upstream::Member};

mod round;

use round::Round;

/// The turns of one upstream's peers.
#[derive(Debug)]
pub(crate) struct Robin {
    queues: Queues,
    round: Round,
    generation: u64,
}

#[derive(Debug)]
struct Queues {
    now: f64,
    total: f64,
    /// By the members' positions.
    turns: Vec<Turn>,
    /// Turns that have not begun, by their beginning.
    waiting: BinaryHeap<At>,
    /// Turns that have begun, by their end.
    ready: BinaryHeap<At>,
    /// Members out of the queue because they are down, until the generation changes.
    parked: Vec<u32>,
    /// Passed over in a pick because the request has tried them; kept to save allocations.
    passed: Vec<At>,
}

#[derive(Debug, Clone, Copy)]
struct Turn {
    begin: f64,
    weight: f64,
}

/// A member at a place in virtual time; the smallest is the greatest, as the heap wants it.
#[derive(Debug, Clone, Copy)]
struct At {
    time: f64,
    member: u32,
}

impl PartialEq for At {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for At {}

impl PartialOrd for At {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for At {
    fn cmp(&self, other: &Self) -> Ordering {
        let time = other.time.total_cmp(&self.time);
        time.then_with(|| other.member.cmp(&self.member))
    }
}

/// What a pick asks of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fitness {
    /// It may be picked.
    Fit,
    /// Not by this request.
    Tried,
    /// Not by any request for now.
    Down,
}

impl Robin {
    pub(crate) fn new(members: &[Member], random: &mut Random) -> Self {
        let mut queues = Queues {
            now: 0.0,
            total: 0.0,
            turns: Vec::new(),
            waiting: BinaryHeap::new(),
            ready: BinaryHeap::new(),
            parked: Vec::new(),
            passed: Vec::new(),
        };
        queues.follow(&[], members, random);
        Self {
            queues,
            round: Round::default(),
            generation: 0,
        }
    }

    /// Takes over the members of a newer table. Both lists are ordered by the peers' numbers.
    pub(crate) fn follow(&mut self, old: &[Member], new: &[Member], random: &mut Random) {
        self.leave_round(old);
        self.queues.follow(old, new, random);
    }

    /// Picks the next fit member. `generation` tells when parked members deserve another look;
    /// `warmth` is the share of its weight that a member gets.
    pub(crate) fn pick(
        &mut self,
        members: &[Member],
        random: &mut Random,
        generation: u64,
        fit: impl Fn(usize) -> Fitness,
        warmth: impl Fn(usize) -> f64,
    ) -> Option<usize> {
        if self.generation != generation {
            self.generation = generation;
            self.leave_round(members);
            self.queues.unpark(members, random, &fit);
        }
        if let Some(member) = self.round.pick(&fit, |at| warmth(at) >= 1.0) {
            return Some(member);
        }
        if self.round.is_whole() {
            self.leave_round(members);
        }
        let (member, plain) = self.queues.pick(members, &fit, &warmth)?;
        if plain {
            let parked = &self.queues.parked;
            self.round.note(position(member), members, parked);
        } else {
            self.round.interrupt(members.len());
        }
        Some(member)
    }

    /// Who will be picked after so many others, as far as one can tell.
    pub(crate) fn upcoming(&self, after: usize) -> Option<usize> {
        self.round.upcoming(after)
    }

    /// Something changes: the queues go on from where the round has come to.
    fn leave_round(&mut self, members: &[Member]) {
        for _ in 0..self.round.interrupt(members.len()) {
            self.queues.pick(members, &|_| Fitness::Fit, &|_| 1.0);
        }
    }
}

impl Queues {
    fn follow(&mut self, old: &[Member], new: &[Member], random: &mut Random) {
        let turns = std::mem::take(&mut self.turns);
        let mut known = old.iter().zip(&turns).peekable();
        let mut ready = Vec::with_capacity(new.len());
        let mut waiting = Vec::with_capacity(new.len());
        self.parked.clear();
        self.total = 0.0;
        self.turns.reserve_exact(new.len());
        for (at, member) in new.iter().enumerate() {
            while known
                .next_if(|(gone, _)| gone.number() < member.number())
                .is_some()
            {}
            let before = known
                .next_if(|(same, _)| same.number() == member.number())
                .filter(|(same, _)| same.takes_requests());
            let weight = f64::from(member.weight);
            let begin = match before {
                // Another weight stretches what is left of the turn.
                Some((_, turn)) if turn.weight > 0.0 => {
                    self.now + (turn.begin - self.now).clamp(-1.0 / turn.weight, 1.0 / turn.weight)
                }
                _ => self.now + (random.unit() - 0.5) / weight.max(1.0),
            };
            let turn = Turn { begin, weight };
            self.turns.push(turn);
            if member.takes_requests() {
                self.total += weight;
                let (queue, time) = if begin <= self.now {
                    (&mut ready, turn.end())
                } else {
                    (&mut waiting, begin)
                };
                queue.push(At {
                    time,
                    member: position(at),
                });
            }
        }
        self.ready = ready.into();
        self.waiting = waiting.into();
    }

    /// Picks the next fit member, and says whether nobody was passed over and it has all of its weight.
    fn pick(
        &mut self,
        members: &[Member],
        fit: &impl Fn(usize) -> Fitness,
        warmth: &impl Fn(usize) -> f64,
    ) -> Option<(usize, bool)> {
        let mut plain = true;
        let choice = loop {
            self.begin_turns();
            let Some(next) = self.ready.pop() else {
                let Some(first) = self.waiting.peek() else {
                    break None;
                };
                self.now = first.time;
                continue;
            };
            match fit(next.member as usize) {
                Fitness::Fit => break Some(next),
                Fitness::Tried => {
                    plain = false;
                    self.passed.push(next);
                }
                Fitness::Down => {
                    plain = false;
                    self.total -= self.turns[next.member as usize].weight;
                    self.parked.push(next.member);
                }
            }
        };
        if !self.passed.is_empty() {
            self.ready.extend(self.passed.drain(..));
        }
        let at = choice?;
        let member = at.member as usize;
        let warmth = warmth(member);
        let weight = f64::from(members[member].weight) * warmth;
        let turn = &mut self.turns[member];
        self.total += weight - turn.weight;
        *turn = Turn {
            begin: at.time,
            weight,
        };
        self.waiting.push(at);
        self.now += 1.0 / self.total.max(weight);
        Some((member, plain && warmth >= 1.0))
    }

    fn begin_turns(&mut self) {
        while let Some(first) = self.waiting.peek() {
            if first.time > self.now {
                return;
            }
            let member = first.member;
            self.waiting.pop();
            self.ready.push(At {
                time: self.turns[member as usize].end(),
                member,
            });
        }
    }

    /// Peers that came back join as if new: not with the turns they missed.
    fn unpark(&mut self, members: &[Member], random: &mut Random, fit: &impl Fn(usize) -> Fitness) {
        let mut parked = std::mem::take(&mut self.parked);
        parked.retain(|member| {
            let at = *member as usize;
            if fit(at) == Fitness::Down {
                return true;
            }
            let weight = f64::from(members[at].weight);
            let begin = self.now + random.unit() / weight.max(1.0);
            self.turns[at] = Turn { begin, weight };
            self.total += weight;
            self.waiting.push(At {
                time: begin,
                member: *member,
            });
            false
        });
        self.parked = parked;
    }
}

impl Turn {
    fn end(self) -> f64 {
        self.begin + 1.0 / self.weight.max(0.001)
    }
}

fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
