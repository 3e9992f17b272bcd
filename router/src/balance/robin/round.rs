//! A round: the order in which peers were picked, to be gone through again.
//!
//! While nothing changes, picks repeat themselves after as many as all weights together make, over their
//! greatest common divisor. So a round that was picked once is kept. To go through it takes one number a
//! pick, where the queues of hundreds of peers are in no cache; and it says who comes next, so that what
//! belongs to that peer can be fetched before somebody needs it.

use super::Fitness;
use crate::upstream::Member;

/// The most picks that a round may have, to be kept.
const MOST: u64 = 1024;

/// The picks of a round.
#[derive(Debug, Default)]
pub(super) struct Round {
    order: Vec<u32>,
    /// How many picks it has; 0: none is being noted.
    length: usize,
    /// Of a whole round: which pick comes next.
    next: usize,
    /// Picks to wait before one is noted: something changes.
    rest: usize,
}

impl Round {
    pub(super) fn is_whole(&self) -> bool {
        self.length > 0 && self.order.len() == self.length
    }

    /// The next pick that fits; none: it is not whole, or somebody does not fit as before. Who has been
    /// tried by the request in hand changes places with who is picked instead. `whole`: who gets all of
    /// his weight.
    pub(super) fn pick(
        &mut self,
        fit: impl Fn(usize) -> Fitness,
        whole: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if !self.is_whole() {
            return None;
        }
        for at in self.next..self.length {
            let member = self.order[at] as usize;
            match fit(member) {
                Fitness::Fit if whole(member) => {
                    self.order.swap(self.next, at);
                    self.next = (self.next + 1) % self.length;
                    return Some(member);
                }
                Fitness::Tried => {}
                Fitness::Fit | Fitness::Down => return None,
            }
        }
        None
    }

    /// Who will be picked after so many others, if that is known.
    pub(super) fn upcoming(&self, after: usize) -> Option<usize> {
        if !self.is_whole() {
            return None;
        }
        let at = (self.next + after) % self.length;
        Some(self.order[at] as usize)
    }

    /// Notes a pick of somebody with all of his weight. `parked`: who is out of the queues.
    pub(super) fn note(&mut self, member: u32, members: &[Member], parked: &[u32]) {
        if self.length == 0 {
            if self.rest > 0 {
                self.rest -= 1;
                return;
            }
            self.length = length(members, parked);
            if self.length == 0 {
                // For as long as nothing changes.
                self.rest = usize::MAX;
                return;
            }
        }
        self.order.push(member);
        // The first one after a change may still make up for something.
        if self.is_whole() && !self.is_fair(members, parked) {
            self.interrupt(members.len());
        }
    }

    /// Something is another than it was; gives how many picks the queues have not heard of.
    pub(super) fn interrupt(&mut self, members: usize) -> usize {
        let unheard = self.next;
        self.order.clear();
        (self.length, self.next) = (0, 0);
        self.rest = 2 * members;
        unheard
    }

    fn is_fair(&self, members: &[Member], parked: &[u32]) -> bool {
        let mut counts = vec![0u64; members.len()];
        for member in &self.order {
            counts[*member as usize] += 1;
        }
        let total: u64 = taking(members, parked).map(|(_, weight)| weight).sum();
        let length = self.length as u64;
        taking(members, parked).all(|(at, weight)| counts[at] * total == weight * length)
    }
}

/// Who takes requests, and with which weight.
fn taking<'m>(members: &'m [Member], parked: &'m [u32]) -> impl Iterator<Item = (usize, u64)> + 'm {
    let all = members.iter().enumerate();
    let takes = all.filter(|(_, member)| member.takes_requests());
    let queued = takes.filter(|(at, _)| !parked.iter().any(|one| *one as usize == *at));
    queued.map(|(at, member)| (at, u64::from(member.weight)))
}

/// How many picks make a round; 0: too many, or none.
fn length(members: &[Member], parked: &[u32]) -> usize {
    let (total, common) = taking(members, parked).fold((0, 0), |(total, common), (_, weight)| {
        (total + weight, greatest_common_divisor(common, weight))
    });
    let length = total.checked_div(common).filter(|length| *length <= MOST);
    length
        .and_then(|length| usize::try_from(length).ok())
        .unwrap_or(0)
}

fn greatest_common_divisor(mut one: u64, mut two: u64) -> u64 {
    while two > 0 {
        (one, two) = (two, one % two);
    }
    one
}
