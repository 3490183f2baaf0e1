//! Rotary tables, made on the host in f64 and rounded once (rule 9).

use crate::RopeShape;
use crate::elementary::{MAX_ANGLE, exp_f64, ln_f64, sin_cos_f64};
use crate::environment::undisturbed;

/// Largest number of positions in a table: angles stay inside the range of the reduction.
pub const MAX_POSITIONS: usize = MAX_ANGLE as usize;

/// Cosines and sines of `position * theta^(-2i / head_dim)`, each positions x head_dim/2.
///
/// # Panics
/// When `head_dim` is odd, or there are more than [`MAX_POSITIONS`] positions.
pub fn rope_tables(shape: &RopeShape) -> (Vec<f32>, Vec<f32>) {
    assert!(shape.head_dim.is_multiple_of(2), "rotation needs pairs");
    assert!(
        shape.positions <= MAX_POSITIONS,
        "angles beyond the reduction"
    );
    undisturbed(|| tables(shape))
}

fn tables(shape: &RopeShape) -> (Vec<f32>, Vec<f32>) {
    let half = shape.head_dim / 2;
    let log_theta = ln_f64(shape.theta);
    let frequencies: Vec<f64> = (0..half)
        .map(|i| exp_f64(-((2 * i) as f64 / shape.head_dim as f64) * log_theta))
        .collect();
    let mut cos = Vec::with_capacity(shape.positions * half);
    let mut sin = Vec::with_capacity(shape.positions * half);
    for position in 0..shape.positions {
        for frequency in &frequencies {
            let (s, c) = sin_cos_f64(position as f64 * frequency);
            cos.push(c as f32);
            sin.push(s as f32);
        }
    }
    (cos, sin)
}
