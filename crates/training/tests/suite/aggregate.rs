#![expect(clippy::disallowed_methods, reason = "powers of two are exact")]
use proptest::prelude::*;
use r3mes_training::aggregate::{AggregateError, aggregate};
use r3mes_training::package::Package;
use r3mes_training::state::hash_floats;

use crate::{shape, values};

fn package(update: &[f32]) -> Package {
    let shape = shape(update.len(), 64, 64);
    Package::compress(shape, 0.0, &mut vec![0.0; update.len()], update).unwrap()
}

proptest! {
    #[test]
    fn the_order_of_packages_changes_no_bit(
        seeds in prop::collection::vec(any::<u64>(), 1..7),
        rotation in any::<prop::sample::Index>(),
    ) {
        let start = values(99, 200);
        let mut packages: Vec<_> = seeds.iter().map(|&seed| package(&values(seed, 200))).collect();
        let one = aggregate(&start, &packages).unwrap();
        let by = rotation.index(packages.len());
        packages.rotate_left(by);
        packages.reverse();
        let other = aggregate(&start, &packages).unwrap();
        prop_assert_eq!(hash_floats(&one.adapter), hash_floats(&other.adapter));
        prop_assert_eq!(one.median_norm, other.median_norm);
    }

    #[test]
    fn no_package_moves_the_adapter_by_more_than_the_median_norm(
        seeds in prop::collection::vec(any::<u64>(), 1..7),
        factor in 1i32..6,
    ) {
        let mut updates: Vec<_> = seeds.iter().map(|&seed| values(seed, 200)).collect();
        for value in &mut updates[0] {
            *value *= 2f32.powi(factor);
        }
        let packages: Vec<_> = updates.iter().map(|update| package(update)).collect();
        let next = aggregate(&[0.0; 200], &packages).unwrap();
        let squares = next.adapter.iter().map(|&w| f64::from(w) * f64::from(w));
        let norm = squares.fold(0.0, |total, square| total + square).sqrt();
        prop_assert!(norm <= next.median_norm as f64 / 2f64.powi(40) * (1.0 + 1e-6));
    }
}

#[test]
fn the_mean_of_the_packages_is_added_to_the_start() {
    let packages = [package(&[0.5, -0.25, 0.0]), package(&[-0.25, 0.5, 0.0])];
    let next = aggregate(&[1.0, 1.0, 1.0], &packages).unwrap();
    assert_eq!(next.adapter, [1.125, 1.125, 1.0]);
}

#[test]
fn a_package_above_the_lower_median_norm_is_scaled_down_to_it() {
    // Norms 1, 2, 4 and 8: the lower median is 2.
    let packages =
        [[8.0f32, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 4.0]].map(|update| package(&update));
    let next = aggregate(&[0.0, 0.0], &packages).unwrap();
    assert_eq!(next.median_norm, 2 << 40);
    assert_eq!(next.norms, [8 << 40, 1 << 40, 2 << 40, 4 << 40]);
    assert_eq!(next.adapter, [(2.0 + 2.0) / 4.0, (1.0 + 2.0) / 4.0]);
}

#[test]
fn without_packages_the_adapter_keeps_its_bits() {
    let start = [1.5, -0.0, f32::from_bits(1)];
    let next = aggregate(&start, &[]).unwrap();
    assert_eq!(next.adapter.map_bits(), start.to_vec().map_bits());
    let zero = aggregate(&start, &[package(&[0.0; 3])]).unwrap();
    assert_eq!(zero.adapter.map_bits(), start.to_vec().map_bits());
}

#[test]
fn a_package_for_another_adapter_is_refused() {
    let packages = [package(&[0.5; 3]), package(&[0.5; 4])];
    let error = aggregate(&[0.0; 3], &packages).unwrap_err();
    assert!(
        matches!(
            error,
            AggregateError::Shape {
                index: 1,
                parameters: 3,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn an_aggregate_is_pinned() {
    let packages: Vec<_> = (1..=5).map(|seed| package(&values(seed, 1000))).collect();
    let next = aggregate(&values(6, 1000), &packages).unwrap();
    assert_eq!(
        hash_floats(&next.adapter).to_string(),
        "2077aba4721be8af38954aaa2d79f973691d54d56bf95215e463ec7f7b443a58"
    );
}

trait Bits {
    fn map_bits(&self) -> Vec<u32>;
}

impl Bits for Vec<f32> {
    fn map_bits(&self) -> Vec<u32> {
        self.iter().map(|value| value.to_bits()).collect()
    }
}
