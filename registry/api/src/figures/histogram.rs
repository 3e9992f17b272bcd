//! Durations in fixed buckets, the same in every router: any two histograms are merged exactly, bucket
//! by bucket, whoever measured them and for however long.
//!
//! Buckets are log-linear, as in HdrHistogram (Tene, <http://hdrhistogram.org>): eight of 16 µs up to
//! 128 µs, then eight to each doubling, so that none is wider than an eighth of where it begins. The
//! last takes everything from [`LONGEST_US`] on.

use serde::{Deserialize, Serialize};

use crate::{Invalid, invalid::Check};

/// How many buckets there are.
pub const BUCKETS: usize = 161;
/// Where the last bucket begins, in microseconds: a good minute.
pub const LONGEST_US: u64 = UNIT_US << 22;
/// The width of the narrowest buckets, in microseconds.
const UNIT_US: u64 = 16;
/// Buckets to each doubling.
const EACH: usize = 8;

/// The bucket of a duration in microseconds.
pub const fn bucket_of(us: u64) -> usize {
    let units = us / UNIT_US;
    if units < EACH as u64 {
        // Less than eight.
        return units as usize;
    }
    let doubling = units.ilog2() as usize;
    let part = (units >> (doubling - 3)) as usize & (EACH - 1);
    let bucket = (doubling - 2) * EACH + part;
    if bucket < BUCKETS {
        bucket
    } else {
        BUCKETS - 1
    }
}

/// Where a bucket begins, in microseconds; it ends before the next one begins.
pub const fn begin_of(bucket: usize) -> u64 {
    if bucket < EACH {
        return bucket as u64 * UNIT_US;
    }
    let doubling = bucket / EACH + 2;
    (((EACH + bucket % EACH) as u64) << (doubling - 3)) * UNIT_US
}

/// How many durations fell into each bucket.
///
/// Only the buckets from the first to the last that has any are written down.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Histogram {
    /// The bucket that `counts` begins with: 0–160. Buckets 0–7 are 16 µs wide each; from then on there
    /// are eight to each doubling.
    #[serde(default, skip_serializing_if = "is_zero")]
    first: u16,
    /// How many in this bucket and in those that follow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    counts: Vec<u64>,
    /// All durations together, in microseconds.
    #[serde(default)]
    sum_us: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(n: &u16) -> bool {
    *n == 0
}

impl Histogram {
    /// Of a count for each bucket from 0 on, and the durations' sum in microseconds.
    pub fn from_buckets(buckets: &[u64], sum_us: u64) -> Self {
        let buckets = &buckets[..buckets.len().min(BUCKETS)];
        let filled = |count: &u64| *count > 0;
        let Some(first) = buckets.iter().position(filled) else {
            return Self {
                sum_us,
                ..Self::default()
            };
        };
        let last = buckets.iter().rposition(filled).unwrap_or(first);
        Self {
            // At most 160.
            first: u16::try_from(first).unwrap_or(u16::MAX),
            counts: buckets[first..=last].to_vec(),
            sum_us,
        }
    }

    /// Adds one duration.
    pub fn observe(&mut self, us: u64) {
        let bucket = bucket_of(us);
        self.reach(bucket, bucket);
        self.counts[bucket - usize::from(self.first)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// Adds what another one holds. Nothing is lost or blurred by it.
    pub fn merge(&mut self, other: &Self) {
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        let Some(last) = other.counts.len().checked_sub(1) else {
            return;
        };
        let from = usize::from(other.first);
        self.reach(from, from + last);
        let offset = from - usize::from(self.first);
        for (sum, count) in self.counts[offset..].iter_mut().zip(&other.counts) {
            *sum = sum.saturating_add(*count);
        }
    }

    /// Makes room for the buckets from one to another.
    fn reach(&mut self, from: usize, to: usize) {
        if self.counts.is_empty() {
            self.first = u16::try_from(from).unwrap_or(u16::MAX);
        }
        let first = usize::from(self.first);
        if from < first {
            let missing = first - from;
            self.counts.splice(0..0, std::iter::repeat_n(0, missing));
            self.first = u16::try_from(from).unwrap_or(u16::MAX);
        }
        let length = to + 1 - usize::from(self.first);
        if self.counts.len() < length {
            self.counts.resize(length, 0);
        }
    }

    /// How many durations it holds.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// All of them together, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// Each bucket that has some, and how many.
    pub fn filled(&self) -> impl Iterator<Item = (usize, u64)> {
        let all = (usize::from(self.first)..).zip(self.counts.iter().copied());
        all.filter(|(_, count)| *count > 0)
    }

    /// How many took longer than the bucket that a duration falls into.
    pub fn longer_than(&self, us: u64) -> u64 {
        let beyond = self.filled().filter(|(at, _)| *at > bucket_of(us));
        beyond.map(|(_, count)| count).sum()
    }

    /// The duration that a share of all (0–1) did not exceed, in microseconds; none: it is empty.
    ///
    /// It lies in the bucket of the true one (the smallest of the durations with rank `q · count` or
    /// above), so that it is off by less than that bucket's width: 16 µs, or an eighth.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and the count after the clamp"
        )]
        let rank = ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count);
        let mut before = 0;
        for (bucket, within) in self.filled() {
            if before + within >= rank {
                let begin = begin_of(bucket);
                if bucket == BUCKETS - 1 {
                    return Some(begin);
                }
                let width = begin_of(bucket + 1) - begin;
                // By rank, as if they lay evenly; never the next bucket's first.
                let part = u128::from(width) * u128::from(rank - before) / u128::from(within);
                let part = u64::try_from(part).unwrap_or(width);
                return Some(begin + part.min(width - 1));
            }
            before += within;
        }
        None
    }

    /// What is wrong with one that was sent.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut check = Check::default();
        check.ensure(
            usize::from(self.first) + self.counts.len() <= BUCKETS,
            "counts",
            format!("`first` and the counts that follow name at most {BUCKETS} buckets"),
        );
        check.ensure(
            self.counts.iter().all(|count| *count <= super::MOST),
            "counts",
            format!("each at most {}", super::MOST),
        );
        check.ensure(
            self.sum_us <= super::MOST * LONGEST_US,
            "sum_us",
            format!("at most {}", super::MOST * LONGEST_US),
        );
        check.finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(durations: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        for us in durations {
            histogram.observe(*us);
        }
        histogram
    }

    fn merged(all: &[&Histogram]) -> Histogram {
        let mut sum = Histogram::default();
        for one in all {
            sum.merge(one);
        }
        sum
    }

    #[test]
    fn buckets_follow_one_another_without_a_gap() {
        assert_eq!(begin_of(0), 0);
        assert_eq!(begin_of(BUCKETS - 1), LONGEST_US);
        for bucket in 0..BUCKETS - 1 {
            let (begin, end) = (begin_of(bucket), begin_of(bucket + 1));
            assert_eq!(bucket_of(begin), bucket, "its first");
            assert_eq!(bucket_of(end - 1), bucket, "its last");
            let width = end - begin;
            assert!(width == 16 || width * 8 <= begin, "{bucket}: {begin}–{end}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn one_that_names_buckets_that_are_none_is_refused() {
        let field = |json: &str| {
            let histogram: Histogram = serde_json::from_str(json).unwrap();
            histogram.check().map_err(|e| e.errors[0].field.clone())
        };
        assert_eq!(field(r#"{"first":159,"counts":[1,2],"sum_us":7}"#), Ok(()));
        assert_eq!(
            field(r#"{"first":160,"counts":[1,2]}"#),
            Err("counts".into())
        );
        assert_eq!(field(r#"{"counts":[1000000001]}"#), Err("counts".into()));
        assert_eq!(
            field(r#"{"sum_us":18446744073709551615}"#),
            Err("sum_us".into())
        );
    }

    /// Durations of all sizes, not only large ones.
    fn durations() -> impl Strategy<Value = Vec<u64>> {
        let one = (0u32..30, any::<u64>()).prop_map(|(bits, n)| n >> (63 - bits.min(62)));
        prop::collection::vec(one, 0..60)
    }

    proptest! {
        #[test]
        fn merging_is_the_same_in_any_order_and_loses_nothing(
            a in durations(), b in durations(), c in durations(),
        ) {
            let (ha, hb, hc) = (of(&a), of(&b), of(&c));
            let all = of(&[a.clone(), b, c].concat());
            prop_assert_eq!(&merged(&[&ha, &hb, &hc]), &all);
            prop_assert_eq!(&merged(&[&hc, &hb, &ha]), &all);
            prop_assert_eq!(&merged(&[&ha, &merged(&[&hb, &hc])]), &all);
            prop_assert_eq!(all.count(), ha.count() + hb.count() + hc.count());
            prop_assert_eq!(&merged(&[&ha, &Histogram::default()]), &ha);
        }

        #[test]
        fn it_is_read_as_it_was_written(a in durations()) {
            let histogram = of(&a);
            histogram.check().unwrap();
            let text = serde_json::to_string(&histogram).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Histogram>(&text).unwrap(), &histogram);
            let mut buckets = [0; BUCKETS];
            for us in &a { buckets[bucket_of(*us)] += 1; }
            prop_assert_eq!(Histogram::from_buckets(&buckets, histogram.sum_us()), histogram);
        }

        #[test]
        fn a_quantile_is_off_by_less_than_its_bucket_is_wide(
            mut a in durations(), q in 0.0f64..=1.0,
        ) {
            prop_assume!(!a.is_empty());
            a.sort_unstable();
            let rank = (1..=a.len()).find(|rank| *rank as f64 >= q * a.len() as f64).unwrap_or(a.len());
            let truth = a[rank - 1];
            let found = of(&a).quantile(q).unwrap();
            prop_assert_eq!(bucket_of(found), bucket_of(truth), "{} for {}", found, truth);
        }
    }
}
