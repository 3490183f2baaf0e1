//! Orders that are total and the same everywhere (rule 18).

/// The indices of the `k` values of largest magnitude, in order: magnitude bits descending, index
/// ascending. All indices when there are no more than `k`.
///
/// ```
/// assert_eq!(r3mes_exact::top_k(&[0.5, -2.0, 2.0, 1.0], 3), [1, 2, 3]);
/// ```
///
/// # Panics
/// When there are 2^32 values or more.
pub fn top_k(values: &[f32], k: usize) -> Vec<u32> {
    let len = u32::try_from(values.len()).expect("an index fits in 32 bits");
    // Ascending keys are the order wanted: the inverted magnitude above the index.
    let mut keys: Vec<u64> = (0..len)
        .zip(values)
        .map(|(i, v)| u64::from(!(v.to_bits() & 0x7FFF_FFFF)) << 32 | u64::from(i))
        .collect();
    if k < keys.len() {
        if k == 0 {
            return Vec::new();
        }
        keys.select_nth_unstable(k - 1);
        keys.truncate(k);
    }
    keys.sort_unstable();
    keys.into_iter().map(|key| key as u32).collect()
}

/// A key whose descending order is the descending order of finite values; -0.0 is below +0.0.
pub(crate) fn descending_bits(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_magnitudes_come_by_index_and_zeros_last() {
        let values = [0.0, -1.0, 1.0, -0.0, 1.0, 3.0];
        assert_eq!(top_k(&values, 4), [5, 1, 2, 4]);
        assert_eq!(top_k(&values, 9), [5, 1, 2, 4, 0, 3]);
        assert_eq!(top_k(&values, 0), [0u32; 0]);
    }

    proptest! {
        #[test]
        fn the_selection_equals_a_stable_sort(values in prop::collection::vec(-3i8..=3, 0..200), k in 0usize..220) {
            let values: Vec<f32> = values.into_iter().map(f32::from).collect();
            let mut all: Vec<u32> = (0..values.len() as u32).collect();
            all.sort_by(|a, b| values[*b as usize].abs().total_cmp(&values[*a as usize].abs()));
            all.truncate(k);
            prop_assert_eq!(top_k(&values, k), all);
        }

        #[test]
        fn keys_order_as_the_values(a: f32, b: f32) {
            prop_assume!(a.is_finite() && b.is_finite());
            prop_assert_eq!(descending_bits(a).cmp(&descending_bits(b)), a.total_cmp(&b));
        }
    }
}
