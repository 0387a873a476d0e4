//! When a bin is due for renewal: every bin has its slot in the renewal period, so the bins that a cut renews follow
//! from two cut times alone and are spread evenly over time. (The time half of invariant 9.)

use std::ops::Range;

use crate::bins::Bin;

/// The bins, of `range`, whose slot lies in (`from`, `to`], rising. Bin `b` of `bins` is due at every time
/// ≡ b·period/bins modulo `period`; all times in seconds, `period` ≥ 1.
pub fn due(range: Range<Bin>, bins: u32, period: u64, from: u64, to: u64) -> impl Iterator<Item = Bin> {
    // The first bin whose slot is later than a time of the period.
    let after = |time: u64| ((time + 1) * u64::from(bins)).div_ceil(period).min(bins.into()) as Bin;
    let (first, second) = match to.saturating_sub(from) {
        0 => (0..0, 0..0),
        passed if passed >= period => (0..bins, 0..0),
        _ if from % period < to % period => (after(from % period)..after(to % period), 0..0),
        _ => (0..after(to % period), after(from % period)..bins),
    };
    let within = move |of: Range<Bin>| of.start.max(range.start)..of.end.min(range.end);
    within(first).chain(within(second))
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

    proptest::proptest! {
        #[test]
        fn a_bin_is_due_if_its_slot_is_in_between(
            bits in 1u32..8, period in 1u64..300, from in 0u64..2_000, passed in 0u64..700, start in 0u32..100, len in 0u32..100,
        ) {
            let (bins, to) = (1 << bits, from + passed);
            let range = start.min(bins)..(start + len).min(bins);
            let is_due = |b: &Bin| {
                let slot = u64::from(*b) * period / u64::from(bins);
                (to + period - slot) / period > (from + period - slot) / period
            };
            let found: Vec<Bin> = due(range.clone(), bins, period, from, to).collect();
            proptest::prop_assert_eq!(found, range.filter(is_due).collect::<Vec<_>>());
        }
    }
}
