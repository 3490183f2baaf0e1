//! The demonstration's settings; `examples/converge.rs` measures what they give.

use r3mes_types::task::{F32Bits, HyperParameters, Targets};

/// Optimizer steps of a round in the demonstration.
pub const DEMONSTRATION_STEPS: u32 = 8;

/// The first round's learning rate, and the share of it that the last round keeps.
const FIRST_RATE: f64 = 6e-3;
const LAST_SHARE: f64 = 0.2;

/// The demonstration's hyper-parameters and the learning rate of each of its rounds.
#[must_use]
pub fn demonstration(rounds: u32) -> (HyperParameters, Vec<F32Bits>) {
    let bits = |value: f32| F32Bits(value.to_bits());
    let rates = linear_decay(FIRST_RATE, LAST_SHARE, rounds);
    let hyper = HyperParameters {
        batch: 4,
        sequence: 128,
        rank: 8,
        alpha: bits(16.0),
        targets: Targets::ALL,
        learning_rate: bits(FIRST_RATE as f32),
        beta1: bits(0.9),
        beta2: bits(0.999),
        c1: bits(0.1),
        c2: bits(0.001),
        epsilon: bits(1e-8),
        weight_decay: F32Bits::ZERO,
        chunk: 4096,
        top_k: 512,
        decay: bits(0.95),
    };
    (hyper, rates)
}

/// Learning rates that fall linearly from `first` to `share * first` over `rounds` rounds.
#[must_use]
pub fn linear_decay(first: f64, share: f64, rounds: u32) -> Vec<F32Bits> {
    let last = f64::from(rounds.saturating_sub(1).max(1));
    let rate = |round: u32| first * (1.0 - f64::from(round) / last * (1.0 - share));
    (0..rounds)
        .map(|round| F32Bits((rate(round) as f32).to_bits()))
        .collect()
}
