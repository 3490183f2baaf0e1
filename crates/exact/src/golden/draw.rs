//! Shapes and values to compute golden hashes from.

use crate::environment::undisturbed;
use crate::{AttentionShape, Philox, signed_unit};

/// A stream of shapes and values.
pub(super) struct Draw {
    random: Philox,
    pub(super) at: u64,
}

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Philox::from_seed(seed),
            at: 0,
        }
    }

    pub(super) fn word(&mut self) -> u32 {
        self.at += 1;
        self.random.word(self.at)
    }

    /// A number in `least..=most`.
    pub(super) fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.word() as usize % (most - least + 1)
    }

    /// Values of which most lie in [-1, 1), some are zeros of either sign, subnormal, up to ten
    /// times as large, or near a half of the quantizer's steps in a row whose largest magnitude is 10.
    pub(super) fn values(&mut self, len: usize) -> Vec<f32> {
        let mut value = || {
            let unit = signed_unit(self.word());
            match self.word() % 32 {
                0 => 0.0,
                1 => -0.0,
                2 => unit * f32::MIN_POSITIVE,
                3 => unit * 10.0,
                4 => ((unit * 127.0) as i32 as f32 + 0.5) * (10.0 / 127.0),
                _ => unit,
            }
        };
        undisturbed(|| (0..len).map(|_| value()).collect())
    }

    /// Integers in `-range..=range`.
    pub(super) fn integers(&mut self, len: usize, range: i32) -> Vec<i8> {
        let mut value = || (self.word() % (2 * range as u32 + 1)) as i32 - range;
        (0..len).map(|_| value() as i8).collect()
    }

    pub(super) fn tokens(&mut self, len: usize, vocabulary: usize) -> Vec<u32> {
        (0..len)
            .map(|_| self.between(0, vocabulary - 1) as u32)
            .collect()
    }

    /// Lengths of up to four sequences.
    pub(super) fn sequences(&mut self, longest: usize) -> Vec<usize> {
        (0..self.between(1, 4))
            .map(|_| self.between(1, longest))
            .collect()
    }

    pub(super) fn attention_shape(&mut self) -> AttentionShape {
        let kv_heads = self.between(1, 3);
        AttentionShape {
            heads: kv_heads * self.between(1, 3),
            kv_heads,
            head_dim: 2 * self.between(1, 40),
        }
    }
}
