//! Evidence that one of two groups has more of something (errors, slow requests) than the other, which
//! may be looked at as often as one likes.
//!
//! A *test martingale* (Shafer, Shen, Vereshchagin, Vovk 2011, "Test martingales, Bayes factors and
//! p-values"): a stake of 1 that is bet, window by window, against "the candidate has no more of it than
//! the baseline". If that is true the stake is not expected to grow, and by Ville's inequality the chance
//! that it *ever* reaches 1/α is at most α, however many looks are taken and whenever one stops. That is
//! the correction for repeated looks: there is none to be made.
//!
//! One bet: of `n` baseline and `m` candidate requests in a window `k` have it, `j` of them the
//! candidate's. If both groups have it equally often, each of the `k` was the candidate's with chance
//! `p = m / (n + m)` – drawn without replacement, which spreads `j` less than a binomial distribution
//! (Hoeffding 1963, theorem 4: no convex function of it has a larger mean). The bet on "`r` times as often",
//! `q = r·m / (n + r·m)`, pays `(q/p)^j · ((1−q)/(1−p))^(k−j)`: convex in `j`, so that its mean is at most
//! the binomial's, which is 1; less where the candidate has it less often. How often that is does not
//! matter, and may change from window to window, so that trouble which both groups share is no evidence.
//! The stake is split among several `r`, as nobody knows which is right.

/// How many times as often it is bet to be, and the part of the stake that is bet on it.
const TIMES: [(f64, f64); 3] = [(2.5, 0.5), (6.0, 0.3), (25.0, 0.2)];

/// What a group had in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Part {
    /// All requests.
    pub of: u64,
    /// Those that have it.
    pub have: u64,
}

/// The evidence so far: the logarithm of each stake.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Evidence {
    stakes: [f64; TIMES.len()],
}

impl Evidence {
    /// Adds a window.
    pub fn add(&mut self, baseline: Part, candidate: Part) {
        if baseline.of == 0 || candidate.of == 0 {
            return;
        }
        let (n, m) = (baseline.of as f64, candidate.of as f64);
        let (others, own) = (baseline.have as f64, candidate.have as f64);
        let p = m / (n + m);
        for (stake, (times, _)) in self.stakes.iter_mut().zip(TIMES) {
            let q = times * m / (n + times * m);
            *stake += own * (q / p).ln() + others * ((1.0 - q) / (1.0 - p)).ln();
        }
    }

    /// What the stake of 1 has become. At `1/α` or more, chance alone would have come so far in at most
    /// `α` of all cases.
    pub fn stake(&self) -> f64 {
        let grown = self.stakes.iter().map(|log| log.min(700.0).exp());
        grown
            .zip(TIMES)
            .map(|(times, (_, part))| times * part)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(of: u64, have: u64) -> Part {
        Part { of, have }
    }

    #[test]
    fn only_more_than_the_baseline_is_evidence() {
        let after = |baseline, candidate| {
            let mut evidence = Evidence::default();
            for _ in 0..5 {
                evidence.add(baseline, candidate);
            }
            evidence.stake()
        };
        assert!(after(part(900, 1), part(100, 2)) > 200.0);
        assert!(after(part(900, 9), part(100, 1)) < 1.0);
        assert!(after(part(900, 9), part(100, 0)) < 0.1);
        assert!((after(part(900, 0), part(100, 0)) - 1.0).abs() < 1e-9);
        assert!(
            (after(part(0, 0), part(100, 50)) - 1.0).abs() < 1e-9,
            "nothing to compare with"
        );
        // Both are in trouble: none of the candidate's doing.
        assert!(after(part(900, 450), part(100, 50)) < 1.0);
    }

    /// The bets are fair: over all outcomes of a small window, drawn without replacement, no stake is
    /// expected to grow.
    #[test]
    fn a_bet_is_not_expected_to_pay_where_nothing_is_wrong() {
        fn choose(n: u64, k: u64) -> f64 {
            (0..k).map(|i| (n - i) as f64 / (i + 1) as f64).product()
        }
        for (n, m) in [(9u64, 1u64), (12, 5), (6, 6), (3, 9)] {
            for k in 0..=n + m {
                let mut mean = 0.0;
                for j in k.saturating_sub(n)..=k.min(m) {
                    let chance = choose(m, j) * choose(n, k - j) / choose(n + m, k);
                    let mut evidence = Evidence::default();
                    evidence.add(part(n, k - j), part(m, j));
                    mean += chance * evidence.stake();
                }
                assert!(mean <= 1.0 + 1e-9, "{n} {m} {k}: {mean}");
            }
        }
    }
}
