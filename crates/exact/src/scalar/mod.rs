//! The definition: every f32 operation in plain Rust, one element at a time, in the order of
//! docs/spec/exact.md. The vector kernels must equal these bit for bit.

pub(crate) mod attention;
pub(crate) mod elementwise;
pub(crate) mod loss;
pub(crate) mod norm;
pub(crate) mod product;
pub(crate) mod quantize;

/// Lanes of a sum (rule 11).
pub(crate) const LANES: usize = 16;

/// Adds the lanes: `w` = 8, 4, 2, 1: `l[i] += l[i + w]` (rule 11).
pub(crate) fn add_lanes(mut lanes: [f32; LANES]) -> f32 {
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

/// Lane sum of values (rule 11): lane = index mod 16, then the tree of the lanes.
pub fn lane_sum(values: &[f32]) -> f32 {
    lane_sum_of(values.iter().copied())
}

/// Lane sum of values given in order (rule 11).
pub(crate) fn lane_sum_of(values: impl Iterator<Item = f32>) -> f32 {
    let mut lanes = [0.0; LANES];
    for (i, value) in values.enumerate() {
        lanes[i % LANES] += value;
    }
    add_lanes(lanes)
}
