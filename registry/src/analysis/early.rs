//! Whether one of two groups has more errors, at the first few looks: as sharp as a test can be that is
//! looked at so often.
//!
//! Given how many errors a window had and how many requests each group, which of the errors are the
//! candidate's is, if nothing is wrong, a draw without replacement (Fisher 1935): its distribution is
//! known exactly, whatever the share of errors is, and may change from window to window. The sum over
//! windows is the convolution. At each look a part of the chance to err is spent (Lan & DeMets 1983,
//! "Discrete sequential boundaries for clinical trials", here without their normal approximation): of what
//! nothing was said about so far, the largest sums whose chance is within the part are called, and leave
//! the distribution. So the chance that a clean candidate is called at *any* look is at most the whole.
//!
//! [`super::evidence`] may be looked at for ever, and pays for it: here there are six looks.

use super::evidence::Part;

/// How much of the chance to err is spent up to each look, of the windows of the first half minute. Little at
/// the first ones, which find what is plain all the same: most is left for the last ones that come within
/// half a minute, which have the most to look at. Those are the fifth, or the sixth where the step began
/// near the end of a window.
const SPENT: [f64; 6] = [0.02, 0.08, 0.2, 0.4, 0.85, 1.0];
/// So many errors in all are no matter of chance any more, and of too much arithmetic.
const MOST: usize = 1000;

/// What the first looks have led to.
#[derive(Debug, Clone, PartialEq)]
pub struct Early {
    /// How likely each sum of the candidate's errors is, from 0, among those not called.
    chances: Vec<f64>,
    /// The sum that came.
    sum: usize,
    looks: usize,
    spent: f64,
    called: bool,
    /// No more is said.
    over: bool,
}

impl Default for Early {
    fn default() -> Self {
        Self {
            chances: vec![1.0],
            sum: 0,
            looks: 0,
            spent: 0.0,
            called: false,
            over: false,
        }
    }
}

impl Early {
    /// Adds a part of a window.
    pub fn add(&mut self, baseline: Part, candidate: Part) {
        let errors = baseline.have.saturating_add(candidate.have);
        let looked = self.over || self.looks >= SPENT.len();
        if looked || baseline.of == 0 || candidate.of == 0 || errors == 0 {
            return;
        }
        let count = usize::try_from(errors).unwrap_or(usize::MAX);
        if count.saturating_add(self.chances.len()) > MOST {
            self.over = true;
            return;
        }
        let draws = drawn(baseline.of, candidate.of, errors);
        let mut sums = vec![0.0; self.chances.len() + count];
        for (i, before) in self.chances.iter().enumerate() {
            for (j, chance) in draws.iter().enumerate() {
                sums[i + j] += before * chance;
            }
        }
        self.chances = sums;
        self.sum += usize::try_from(candidate.have).unwrap_or(usize::MAX);
    }

    /// Looks, with so much of a chance to err in all; whether the candidate is called worse.
    pub fn look(&mut self, chance: f64) -> bool {
        let Some(part) = SPENT.get(self.looks).filter(|_| !self.over) else {
            return self.called;
        };
        self.looks += 1;
        let may = chance * part - self.spent;
        let mut rare = 0.0;
        let mut bound = self.chances.len();
        while bound > 1 && rare + self.chances[bound - 1] <= may {
            bound -= 1;
            rare += self.chances[bound];
        }
        self.spent += rare;
        self.chances.truncate(bound);
        if self.sum >= bound {
            self.called = true;
            self.over = true;
        }
        self.called
    }

    /// The chance to err that was spent so far.
    #[cfg(test)]
    pub(super) fn spent(&self) -> f64 {
        self.spent
    }
}

/// How likely it is that so many of `errors` are the candidate's, from 0: drawn without replacement from
/// `baseline + candidate` requests.
fn drawn(baseline: u64, candidate: u64, errors: u64) -> Vec<f64> {
    let least = errors.saturating_sub(baseline);
    let most = errors.min(candidate);
    let (n, m, k) = (baseline as f64, candidate as f64, errors as f64);
    // Outwards from the likeliest, so that nothing is too small to be multiplied.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count, and clamped to those that can be"
    )]
    let likeliest = ((k * m / (n + m)).round() as u64).clamp(least, most);
    let size = usize::try_from(errors)
        .unwrap_or(usize::MAX)
        .saturating_add(1);
    let at = |j: u64| usize::try_from(j).unwrap_or(usize::MAX);
    let mut chances = vec![0.0; size];
    chances[at(likeliest)] = 1.0;
    // From j to j + 1 of the candidate's.
    let up = |j: f64| (m - j) * (k - j) / ((j + 1.0) * (n - k + j + 1.0));
    for j in likeliest..most {
        chances[at(j + 1)] = chances[at(j)] * up(j as f64);
    }
    for j in (least..likeliest).rev() {
        chances[at(j)] = chances[at(j + 1)] / up(j as f64);
    }
    let all: f64 = chances.iter().sum();
    chances.iter_mut().for_each(|chance| *chance /= all);
    chances
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(of: u64, have: u64) -> Part {
        Part { of, have }
    }

    #[test]
    fn draws_are_as_they_are_counted() {
        // Of 3 + 2 requests, 2 errors: 3, 6 and 1 of the ten pairs have none, one, two of the candidate's.
        let chances = drawn(3, 2, 2);
        for (found, truth) in chances.iter().zip([0.3, 0.6, 0.1]) {
            assert!((found - truth).abs() < 1e-12, "{chances:?}");
        }
        // More errors than the baseline has requests.
        let chances = drawn(1, 3, 3);
        for (found, truth) in chances.iter().zip([0.0, 0.0, 0.75, 0.25]) {
            assert!((found - truth).abs() < 1e-12, "{chances:?}");
        }
        assert!((drawn(100_000, 100_000, 900).iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }

    /// Over every way in which errors can fall, clean candidates are called with no more than the chance
    /// that was given; and nearly with it.
    #[test]
    fn a_clean_candidate_is_called_with_the_chance_that_was_given_at_most() {
        fn go(early: &Early, windows: &[(u64, u64, u64)], chance: f64) -> f64 {
            let Some(((n, m, k), rest)) = windows.split_first() else {
                return 0.0;
            };
            let mut called = 0.0;
            for (j, likely) in drawn(*n, *m, *k).iter().enumerate() {
                if *likely == 0.0 {
                    continue;
                }
                let j = u64::try_from(j).unwrap();
                let mut next = early.clone();
                next.add(part(*n, k - j), part(*m, j));
                called += likely
                    * if next.look(chance) {
                        1.0
                    } else {
                        go(&next, rest, chance)
                    };
            }
            called
        }
        for (share, chance) in [(1, 0.05), (3, 0.05), (5, 0.01), (2, 0.2)] {
            let window = (10 - share, share, 4);
            let called = go(&Early::default(), &[window; 6], chance);
            assert!(called <= chance + 1e-12, "{called} of {chance}");
            assert!(called >= chance * 0.3, "{called} of {chance}: too shy");
        }
    }

    #[test]
    fn after_its_looks_and_with_too_many_errors_it_says_no_more() {
        let mut early = Early::default();
        for _ in SPENT {
            early.add(part(900, 2), part(100, 0));
            assert!(!early.look(0.01));
        }
        let before = early.spent();
        early.add(part(900, 0), part(100, 90));
        assert!(!early.look(0.01), "its looks are over");
        assert!((early.spent() - before).abs() < 1e-15);
        let mut many = Early::default();
        many.add(part(100_000, 500), part(100_000, 600));
        assert!(!many.look(0.01));
        // What was called stays so.
        let mut worse = Early::default();
        worse.add(part(900, 0), part(100, 20));
        assert!(worse.look(0.01));
        worse.add(part(900, 500), part(100, 0));
        assert!(worse.look(0.01));
    }
}
