//! The vector in plain Rust.

use super::{LANES, Lanes};

/// Sixteen lanes of four bytes.
#[derive(Clone, Copy)]
pub(crate) struct Array([[u8; 4]; LANES]);

impl Lanes for Array {
    unsafe fn splat(value: i32) -> Self {
        Self([value.to_le_bytes(); LANES])
    }

    unsafe fn load(bytes: *const u8) -> Self {
        // SAFETY: the caller's memory has 64 bytes.
        Self(unsafe { bytes.cast::<[[u8; 4]; LANES]>().read_unaligned() })
    }

    unsafe fn codes(self, g: usize) -> Self {
        Self(self.0.map(|lane| lane.map(|byte| byte >> (2 * g) & 3)))
    }

    unsafe fn dot(self, weights: Self, x: i32) -> Self {
        let mut out = self;
        for (lane, weights) in out.0.iter_mut().zip(weights.0) {
            let mut sum = i32::from_le_bytes(*lane);
            for (weight, x) in weights.into_iter().zip(x.to_le_bytes()) {
                sum = sum.wrapping_add(i32::from(weight as i8) * i32::from(x as i8));
            }
            *lane = sum.to_le_bytes();
        }
        out
    }

    unsafe fn lanes(self) -> [i32; LANES] {
        self.0.map(i32::from_le_bytes)
    }
}
