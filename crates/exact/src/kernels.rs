//! One door to the f32 kernels: picks the back end's version of each.

use crate::attention::{AttendPass, HeadPass, HeadRows};
use crate::product::{Finish, Product};
use crate::scalar::LANES;
use crate::scalar::elementwise::AdamWStep;
use crate::scalar::loss::Softmax;
use crate::tile::Tile;
#[cfg(target_arch = "aarch64")]
use crate::vector::neon::Neon;
#[cfg(target_arch = "x86_64")]
use crate::vector::{avx2::Avx2, avx512::Avx512};
use crate::{Activation, Isa, RopePairs, scalar, vector};

/// Defines functions that take the back end first and call its version of a kernel: the scalar
/// definition, or the vector kernel compiled for the instruction set.
macro_rules! kernels {
    ($($module:ident: fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)?;)*) => {
    $(
        pub(crate) fn $name(isa: Isa, $($arg: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2($($arg: $type),*) $(-> $result)? {
                // SAFETY: this function is compiled for AVX2.
                vector::$module::$name(unsafe { Avx2::assume() }, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512($($arg: $type),*) $(-> $result)? {
                // SAFETY: this function is compiled for AVX-512.
                vector::$module::$name(unsafe { Avx512::assume() }, $($arg),*)
            }
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon")]
            fn neon($($arg: $type),*) $(-> $result)? {
                // SAFETY: this function is compiled for NEON.
                vector::$module::$name(unsafe { Neon::assume() }, $($arg),*)
            }
            match isa {
                // SAFETY: a back end is only chosen on a machine that has it (`Isa::choose`).
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Amx => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => unsafe { neon($($arg),*) },
                _ => scalar::$module::$name($($arg),*),
            }
        }
    )*

        /// The same kernels, with the emulated vectors among the back ends.
        #[cfg(test)]
        pub(crate) mod versions {
            use super::*;

            $(pub(crate) fn $name(version: Version, $($arg: $type),*) $(-> $result)? {
                match version {
                    Version::Isa(isa) => super::$name(isa, $($arg),*),
                    Version::Emulated => {
                        vector::$module::$name(vector::simd::Emulated, $($arg),*)
                    }
                }
            })*
        }
    };
}

/// What a test runs beside the scalar definition.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Version {
    Isa(Isa),
    /// The vector kernels on arrays: the logic that every instruction set runs.
    Emulated,
}

#[cfg(test)]
impl Version {
    /// The vector back ends of this machine, and the emulated one.
    pub(crate) fn all() -> Vec<Self> {
        let vectors = Isa::available()
            .into_iter()
            .filter(|isa| *isa != Isa::Scalar);
        vectors.map(Self::Isa).chain([Self::Emulated]).collect()
    }
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
    loss: fn maximum(logits: &[f32]) -> Option<f32>;
    loss: fn exponentials(logits: &mut [f32], max: f32, lanes: &mut [f32; LANES]) -> f32;
    loss: fn gradient_bits(exponentials: &[f32], softmax: Softmax, row_scales: &[f32]) -> u32;
    loss: fn gradient_codes(exponentials: &[f32], softmax: Softmax, row_scales: &[f32], factor: f32, codes: (&mut [i16], &mut [i8]));
    attention: fn attend(pass: &AttendPass<'_>, out: Tile<'_, f32>);
    attention: fn transpose(rows: HeadRows<'_>, first: usize, n: usize, block: &mut [f32]);
    attention: fn attend_backward(pass: &HeadPass<'_>, dq: Tile<'_, f32>, dk: Tile<'_, f32>, dv: Tile<'_, f32>);
}
