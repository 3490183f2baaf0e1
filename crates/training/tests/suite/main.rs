//! Integration tests of the training crate, one binary.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

mod aggregate;
mod audits;
mod dataset;
mod package;
mod rounds;
mod setup;
mod verify;

use r3mes_training::package::Shape;

/// Values of many magnitudes, the same on every machine, from integers only.
fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let mantissa = (state >> 40) as u32 & 0x007f_ffff;
        // Exponents from 2^-17 to 2^-2, signs half and half.
        let exponent = 110 + ((state >> 33) & 15) as u32;
        let sign = (state >> 32) as u32 & 1;
        f32::from_bits(sign << 31 | exponent << 23 | mantissa)
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn shape(parameters: usize, chunk: usize, top_k: usize) -> Shape {
    Shape::new(parameters, chunk, top_k).expect("the tests use good shapes")
}
