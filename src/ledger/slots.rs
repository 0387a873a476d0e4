//! When a bin is due for renewal: every bin has its slot in the renewal period, so the bins that a cut renews follow
//! from two cut times alone and are spread evenly over time. (The time half of invariant 9.)

use crate::bins::Bin;

/// The bins, of `range`, whose slot lies in (`from`, `to`]. Bin `b` of `bins` is due at every time ≡ b·period/bins
/// modulo `period`; all times in seconds, `period` ≥ 1.
pub fn due(range: std::ops::Range<Bin>, bins: u32, period: u64, from: u64, to: u64) -> impl Iterator<Item = Bin> {
    range.filter(move |b| {
        let slot = u64::from(*b) * period / u64::from(bins);
        (to + period - slot) / period > (from + period - slot) / period
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bin_is_due_exactly_once_a_period_however_time_is_cut() {
        let (bins, period) = (16, 1_000);
        for step in [1, 7, 62, 63, 500, 999] {
            let mut count = vec![0; bins as usize];
            let (mut t, end) = (12_345, 12_345 + 3 * period);
            while t < end {
                let next = (t + step).min(end);
                due(0..bins, bins, period, t, next).for_each(|b| count[b as usize] += 1);
                t = next;
            }
            assert_eq!(count, vec![3; bins as usize], "step {step}");
        }
        assert_eq!(due(0..bins, bins, period, 0, period).count(), 16, "a whole period renews all");
        assert_eq!(due(0..bins, bins, period, 5, 5).count(), 0);
    }
}
