//! Latencies in buckets: exact to the microsecond up to 4 ms, to a thousandth above. Its size does
//! not grow with the number of operations, so a load may run for days.

/// Values below are counted one by one; above, each doubling has half as many buckets.
const EXACT: u64 = 4096;
const BUCKETS_PER_DOUBLING: u64 = EXACT / 2;

/// How often each latency was seen.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// As long as the largest value needs.
    counts: Vec<u64>,
    total: u64,
    max_us: u64,
}

fn bucket_of(us: u64) -> usize {
    let bucket = match us {
        0..EXACT => us,
        _ => {
            // The value's bits beyond the twelve that are kept.
            let doubling = u64::from(us.ilog2() - EXACT.ilog2() + 1);
            BUCKETS_PER_DOUBLING * doubling + (us >> doubling)
        }
    };
    usize::try_from(bucket).unwrap_or(usize::MAX)
}

/// The largest value of a bucket.
fn top_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < EXACT {
        return bucket;
    }
    let doubling = bucket / BUCKETS_PER_DOUBLING - 1;
    let kept = bucket - BUCKETS_PER_DOUBLING * doubling;
    ((kept + 1) << doubling) - 1
}

impl Latencies {
    /// Takes one more.
    pub fn add(&mut self, us: u64) {
        let bucket = bucket_of(us);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.total += 1;
        self.max_us = self.max_us.max(us);
    }

    /// Takes all of another's.
    pub fn merge(&mut self, other: &Self) {
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (own, others) in self.counts.iter_mut().zip(&other.counts) {
            *own += others;
        }
        self.total += other.total;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The largest; 0 without any.
    pub fn max_us(&self) -> u64 {
        self.max_us
    }

    /// The latency that this share of them (in thousandths) does not exceed; 0 without any.
    pub fn quantile_us(&self, thousandths: u64) -> u64 {
        let rank = (self.total * thousandths).div_ceil(1000).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return top_of(bucket).min(self.max_us);
            }
        }
        self.max_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_a_bucket_that_ends_at_most_a_thousandth_above_it() {
        for us in (0..20_000).chain([1 << 20, (1 << 20) + 777, 59_999_999, 1 << 40]) {
            let top = top_of(bucket_of(us));
            assert!(top >= us && top - us <= us / 1000, "{us} is counted as {top}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let (mut all, mut half) = (Latencies::default(), Latencies::default());
        assert_eq!((all.quantile_us(500), all.max_us()), (0, 0));
        for us in 1..=1000 {
            if us % 2 == 0 { half.add(us) } else { all.add(us) }
        }
        all.merge(&half);
        let quantiles = [1, 500, 990, 1000].map(|share| all.quantile_us(share));
        assert_eq!((quantiles, all.max_us(), all.count()), ([1, 500, 990, 1000], 1000, 1000));
    }
}
