//! One door to the f32 kernels: picks the back end's version of each.

use crate::attention::{HeadPass, KvHead};
use crate::product::{Finish, Product};
use crate::scalar::elementwise::AdamWStep;
use crate::tile::Tile;
use crate::{Activation, Isa, RopePairs, scalar};

/// Defines a function that takes the back end first and calls that back end's kernel.
macro_rules! kernels {
    ($($module:ident: fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)?;)*) => {$(
        pub(crate) fn $name(isa: Isa, $($arg: $type),*) $(-> $result)? {
            match isa {
                _ => scalar::$module::$name($($arg),*),
            }
        }
    )*};
}

kernels! {
    norm: fn rms_norm(x: &[f32], gain: &[f32], epsilon: f32, out: &mut [f32]);
    norm: fn rms_norm_backward(x: &[f32], gain: &[f32], epsilon: f32, dy: &[f32], dx: &mut [f32]);
    quantize: fn absmax_bits(x: &[f32]) -> u32;
    quantize: fn activations(x: &[f32], codes: &mut [i8]) -> Option<(f32, i32)>;
    quantize: fn gradient_narrow(x: &[f32], low: &mut [i16]) -> Option<f32>;
    quantize: fn gradient_wide(x: &[f32], low: &mut [i16], high: &mut [i8]) -> Option<f32>;
    quantize: fn dequantize(codes: &[i8], scale: f32, out: &mut [f32]);
    elementwise: fn add(x: &[f32], y: &mut [f32]);
    elementwise: fn multiply(x: &[f32], y: &mut [f32]);
    elementwise: fn scale(factor: f32, x: &[f32], y: &mut [f32]);
    elementwise: fn gated(kind: Activation, gate: &[f32], up: &[f32], out: &mut [f32]);
    elementwise: fn gated_backward(kind: Activation, inputs: [&[f32]; 3], dgate: &mut [f32], dup: &mut [f32]);
    elementwise: fn rotate(pairs: RopePairs, cos: &[f32], sin: &[f32], backward: bool, head: &mut [f32]);
    elementwise: fn adamw(step: &AdamWStep, gradient: &[f32], weights: &mut [f32], first: &mut [f32], second: &mut [f32]);
    product: fn product(p: &Product<'_>, finish: Finish, out: Tile<'_, f32>);
    loss: fn cross_entropy(logits: &mut [f32], target: usize, inverse_count: f32, row_scales: &[f32]) -> Option<i64>;
    loss: fn cross_entropy_only(logits: &mut [f32], target: usize) -> Option<i64>;
    attention: fn attend(q: &[f32], kv: KvHead<'_>, visible: usize, scale: f32, out: &mut [f32]);
    attention: fn attend_backward(pass: &HeadPass<'_>, dq: Tile<'_, f32>, dk: Tile<'_, f32>, dv: Tile<'_, f32>);
}
